//! The templates: which kinds there are in which languages, and the files of each.

use clap::ValueEnum;

/// What it is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Called by messages on a subject, and answers
    Function,
    /// Called by HTTP requests
    Webhook,
    /// Called with each message of a JetStream stream, until it has dealt with it
    Consumer,
    /// Called when its time comes
    Schedule,
    /// Keeps running, as a NATS micro service
    Service,
}

/// What it is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Language {
    /// JavaScript
    #[value(alias = "javascript", alias = "mjs")]
    Js,
    /// TypeScript
    #[value(alias = "typescript")]
    Ts,
    /// Rust
    #[value(alias = "rs")]
    Rust,
    /// Go
    #[value(alias = "golang")]
    Go,
    /// C
    C,
    /// Python
    #[value(alias = "py")]
    Python,
}

/// One template: a kind in a language.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Template {
    pub(crate) kind: Kind,
    pub(crate) language: Language,
}

/// A file's path in the project, and its text.
pub(super) type File = (&'static str, &'static str);

const KINDS: [Kind; 5] = [Kind::Function, Kind::Webhook, Kind::Consumer, Kind::Schedule, Kind::Service];
const LANGUAGES: [Language; 6] = [Language::Js, Language::Ts, Language::Rust, Language::Go, Language::C, Language::Python];

const CARGO: File = ("Cargo.toml", include_str!("templates/shared/Cargo.toml.in"));
const GO_MOD: File = ("go.mod", include_str!("templates/shared/go.mod.in"));
const IGNORE_TARGET: File = (".gitignore", include_str!("templates/shared/gitignore-rust.in"));
const IGNORE_WASM: File = (".gitignore", include_str!("templates/shared/gitignore-wasm.in"));
const WIT: File = ("main.wit", include_str!("templates/shared/main.wit.in"));
const IGNORE_PYTHON: File = (".gitignore", include_str!("templates/shared/gitignore-python.in"));
const SAMPLE_NAME: File = ("sample.txt", include_str!("templates/function/sample.txt"));
const SAMPLE_EVENT: File = ("sample.json", include_str!("templates/webhook/sample.json"));
const SAMPLE_ORDER: File = ("sample.json", include_str!("templates/consumer/sample.json"));

impl Kind {
    /// One line about it.
    pub(crate) fn about(self) -> String {
        self.to_possible_value().and_then(|value| Some(value.get_help()?.to_string())).unwrap_or_default()
    }

    /// Its name on the command line.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// The languages that there are templates of it in.
    pub(crate) fn languages(self) -> impl Iterator<Item = Language> {
        LANGUAGES.into_iter().filter(move |language| Template { kind: self, language: *language }.exists())
    }

    /// What its `nex.toml` says besides the file.
    pub(super) fn settings(self) -> &'static str {
        match self {
            Self::Function => include_str!("templates/function/nex.toml.in"),
            Self::Webhook => include_str!("templates/webhook/nex.toml.in"),
            Self::Consumer => include_str!("templates/consumer/nex.toml.in"),
            Self::Schedule => include_str!("templates/schedule/nex.toml.in"),
            Self::Service => include_str!("templates/service/nex.toml.in"),
        }
    }

    /// Its trigger, where that is not its name.
    pub(super) fn trigger(self) -> Option<&'static str> {
        match self {
            Self::Function | Self::Service => None,
            Self::Webhook => Some("http:POST /{{name}}"),
            Self::Consumer => Some("stream:{{STREAM}}?filter={{name}}.new&max-deliver=5"),
            Self::Schedule => Some("every:1m"),
        }
    }
}

impl Language {
    /// Its name on the command line.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

impl Template {
    /// All there are.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        KINDS.into_iter().flat_map(|kind| kind.languages().map(move |language| Self { kind, language }))
    }

    /// Whether there is this one.
    pub(crate) fn exists(self) -> bool {
        !self.files().is_empty()
    }

    /// Its files, but for those that every project has.
    pub(super) fn files(self) -> Vec<File> {
        match self.kind {
            Kind::Function => function(self.language),
            Kind::Webhook => webhook(self.language),
            Kind::Consumer => consumer(self.language),
            Kind::Schedule => schedule(self.language),
            Kind::Service => service(self.language),
        }
    }

    /// What is deployed.
    pub(super) fn artifact(self) -> &'static str {
        match (self.kind, self.language) {
            (Kind::Function, Language::Js) => "function.mjs",
            (Kind::Function, Language::Ts) => "function.ts",
            (Kind::Webhook, Language::Ts) => "webhook.ts",
            (Kind::Webhook, _) => "webhook.mjs",
            (Kind::Consumer, Language::Js) => "consumer.mjs",
            (Kind::Consumer, Language::Ts) => "consumer.ts",
            (Kind::Schedule, Language::Js) => "schedule.mjs",
            (Kind::Schedule, Language::Ts) => "schedule.ts",
            (Kind::Service, Language::Rust) => "target/release/main",
            (Kind::Service, _) => "service",
            (_, Language::Rust) => "target/wasm32-wasip1/release/main.wasm",
            (_, Language::Go | Language::C | Language::Python) => "main.wasm",
        }
    }

    /// How that is built, where it is.
    pub(super) fn build(self) -> Option<&'static str> {
        match (self.kind, self.language) {
            (_, Language::Js | Language::Ts) => None,
            (Kind::Service, Language::Rust) => Some("cargo build --release"),
            (Kind::Service, _) => Some("go mod tidy && CGO_ENABLED=0 go build -o service ."),
            (_, Language::Rust) => Some("cargo build --release --target wasm32-wasip1"),
            (_, Language::Go) => Some("GOOS=wasip1 GOARCH=wasm go build -o main.wasm ."),
            (_, Language::C) => Some("clang --target=wasm32-wasi -O2 -o main.wasm main.c"),
            (_, Language::Python) => Some("componentize-py -d main.wit -w command componentize main -o main.wasm"),
        }
    }

    /// What else there is to know.
    pub(crate) fn more(self) -> &'static str {
        match (self.kind, self.language) {
            (Kind::Webhook, _) => "The node has to listen for HTTP: `nex up --http 127.0.0.1:8080`.",
            (_, Language::Ts) => "Types are left out where it is loaded; nothing checks them but your editor and `tsc --noEmit`.",
            (_, Language::Js) => "One file, with all that it needs bundled into it.",
            (Kind::Service, Language::Rust) => "Tests: `cargo test`.",
            (_, Language::Rust) => "Once: `rustup target add wasm32-wasip1`. Tests: `cargo test`.",
            (_, Language::Go) => "Tests: `go test`.",
            (_, Language::Python) => {
                "Once: `pip install componentize-py`. Tests: `python3 -m unittest`. The file has the interpreter in it (18 MiB), which a node \
                 compiles when it sees it first; with each change anew, for some seconds."
            }
            (_, Language::C) => {
                "Debian's packages: clang, lld, wasi-libc, libclang-rt-dev-wasm32; or `zig cc --target=wasm32-wasi` with zig alone."
            }
        }
    }
}

fn rust(main: &'static str, more: &[File]) -> Vec<File> {
    [&[("src/main.rs", main), IGNORE_TARGET][..], more].concat()
}

fn go([main, test]: [&'static str; 2], more: &[File]) -> Vec<File> {
    [&[("main.go", main), ("main_test.go", test)][..], more].concat()
}

fn python([main, test]: [&'static str; 2], more: &[File]) -> Vec<File> {
    [&[("main.py", main), ("test_main.py", test), WIT, IGNORE_PYTHON][..], more].concat()
}

/// The text of a template's file.
macro_rules! text {
    ($file:literal) => {
        include_str!(concat!("templates/", $file))
    };
}

fn function(language: Language) -> Vec<File> {
    match language {
        Language::Js => vec![("function.mjs", text!("function/function.mjs")), SAMPLE_NAME],
        Language::Ts => vec![("function.ts", text!("function/function.ts")), SAMPLE_NAME],
        Language::Rust => rust(text!("function/main.rs"), &[CARGO, SAMPLE_NAME]),
        Language::Go => go([text!("function/main.go"), text!("function/main_test.go")], &[GO_MOD, IGNORE_WASM, SAMPLE_NAME]),
        Language::C => vec![("main.c", text!("function/main.c")), IGNORE_WASM, SAMPLE_NAME],
        Language::Python => python([text!("function/main.py"), text!("function/test_main.py")], &[SAMPLE_NAME]),
    }
}

fn webhook(language: Language) -> Vec<File> {
    match language {
        Language::Js => vec![("webhook.mjs", text!("webhook/webhook.mjs")), SAMPLE_EVENT],
        Language::Ts => vec![("webhook.ts", text!("webhook/webhook.ts")), SAMPLE_EVENT],
        // A command of WebAssembly does not see headers, and a status cannot be told by it.
        Language::Rust | Language::Go | Language::C | Language::Python => Vec::new(),
    }
}

fn consumer(language: Language) -> Vec<File> {
    match language {
        Language::Js => vec![("consumer.mjs", text!("consumer/consumer.mjs")), SAMPLE_ORDER],
        Language::Ts => vec![("consumer.ts", text!("consumer/consumer.ts")), SAMPLE_ORDER],
        Language::Rust => rust(text!("consumer/main.rs"), &[CARGO, SAMPLE_ORDER]),
        Language::Go => go([text!("consumer/main.go"), text!("consumer/main_test.go")], &[GO_MOD, IGNORE_WASM, SAMPLE_ORDER]),
        Language::C => vec![("main.c", text!("consumer/main.c")), IGNORE_WASM, SAMPLE_ORDER],
        Language::Python => python([text!("consumer/main.py"), text!("consumer/test_main.py")], &[SAMPLE_ORDER]),
    }
}

fn schedule(language: Language) -> Vec<File> {
    match language {
        Language::Js => vec![("schedule.mjs", text!("schedule/schedule.mjs"))],
        Language::Ts => vec![("schedule.ts", text!("schedule/schedule.ts"))],
        Language::Rust => rust(text!("schedule/main.rs"), &[CARGO]),
        Language::Go => go([text!("schedule/main.go"), text!("schedule/main_test.go")], &[GO_MOD, IGNORE_WASM]),
        Language::C => vec![("main.c", text!("schedule/main.c")), IGNORE_WASM],
        Language::Python => python([text!("schedule/main.py"), text!("schedule/test_main.py")], &[]),
    }
}

fn service(language: Language) -> Vec<File> {
    match language {
        Language::Rust => rust(text!("service/main.rs"), &[("Cargo.toml", text!("service/Cargo.toml.in")), SAMPLE_NAME]),
        Language::Go => {
            let (module, ignored) = (("go.mod", text!("service/go.mod.in")), (".gitignore", text!("service/gitignore-go.in")));
            go([text!("service/main.go"), text!("service/main_test.go")], &[module, ignored, SAMPLE_NAME])
        }
        Language::Js | Language::Ts | Language::C | Language::Python => Vec::new(),
    }
}
