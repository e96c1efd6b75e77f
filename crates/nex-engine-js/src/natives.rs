//! What the prelude gets from the host, and the state of a call, which lies outside the arena: nothing puts it back.

use std::cell::Cell;
use std::ffi::CStr;
use std::sync::Arc;

use nex_engine::{Output, Stream};
use rand::Rng as _;

use crate::budget::Budget;
use crate::callback::{Natives, function};
use crate::failure::describe;
use crate::host::{self, Asking};
use crate::message::Message;
use crate::rejections::Rejections;
use crate::script::Script;
use crate::value::{Fresh, Scope, Thrown, Value};
use crate::web::{self, compression, crypto, encodings, intl, multipart, pattern, subtle, url};

/// Most random bytes at once, as the Web Crypto API has it.
const MAX_RANDOM_BYTES: f64 = 65_536.0;

type Native = for<'a> fn(&Host, Scope<'a>, &[Value<'a>]) -> Result<Fresh<'a>, Thrown>;

/// The natives by their names in the prelude; the position is the number.
const NATIVES: [(&CStr, Native); 37] = [
    (c"part", |_, scope, given| web::part(scope, given)),
    (c"log", |host, scope, given| host.log(scope, given)),
    (c"now", |host, scope, _| Ok(scope.number(host.budget.now()))),
    (c"timeOrigin", |host, scope, _| Ok(scope.number(host.budget.began()))),
    (c"random", |_, scope, _| Ok(scope.number(rand::rng().random()))),
    (c"randomBytes", |host, scope, given| host.random_bytes(scope, given)),
    (c"encode", |_, scope, given| encode(scope, given)),
    (c"decode", |_, scope, given| decode(scope, given)),
    (c"encodingName", |_, scope, given| encodings::name(scope, given)),
    (c"decodeAs", |_, scope, given| encodings::decode(scope, given)),
    (c"host", |host, scope, given| {
        host.admit_host_call(scope)?;
        host::call(&host.asking(), scope, given)
    }),
    (c"http", |host, scope, given| {
        host.admit_host_call(scope)?;
        host::http(&host.asking(), scope, given)
    }),
    (c"headers", |host, scope, _| host.message.headers(scope)),
    (c"respond", |host, scope, given| host.message.respond(scope, given)),
    (c"takesPieces", |host, scope, _| Ok(scope.number(f64::from(u8::from(host.message.takes_pieces()))))),
    (c"begin", |host, scope, given| host.message.stream(scope, given)),
    (c"piece", |host, scope, given| host::piece(&host.asking(), scope, given)),
    (c"urlParse", |_, scope, given| url::parse(scope, given)),
    (c"urlSet", |_, scope, given| url::set(scope, given)),
    (c"queryParse", |_, scope, given| url::parse_query(scope, given)),
    (c"queryWrite", |_, scope, given| url::write_query(scope, given)),
    (c"patternParse", |_, scope, given| pattern::parse(scope, given)),
    (c"patternInput", |_, scope, given| pattern::input(scope, given)),
    (c"digest", |_, scope, given| crypto::digest(scope, given)),
    (c"hmac", |_, scope, given| crypto::hmac(scope, given)),
    (c"keyImport", |_, scope, given| subtle::import(scope, given)),
    (c"keyExport", |_, scope, given| subtle::export(scope, given)),
    (c"keyGenerate", |_, scope, given| subtle::generate(scope, given)),
    (c"sign", |_, scope, given| subtle::sign(scope, given)),
    (c"verify", |_, scope, given| subtle::verify(scope, given)),
    (c"aesGcm", |_, scope, given| subtle::aes_gcm(scope, given)),
    (c"pbkdf2", |_, scope, given| subtle::pbkdf2(scope, given)),
    (c"hkdf", |_, scope, given| subtle::hkdf(scope, given)),
    (c"compress", |_, scope, given| compression::compress(scope, given)),
    (c"decompress", |host, scope, given| compression::decompress(scope, given, host.script.limits.memory_bytes)),
    (c"multipart", |_, scope, given| multipart::parts(scope, given)),
    (c"intl", |_, scope, given| intl::ask(scope, given)),
];

/// The state of an isolate and of its present call.
pub(crate) struct Host {
    pub(crate) script: Arc<Script>,
    pub(crate) budget: Budget,
    /// Whether the script's top level runs, of which every call will see the result.
    pub(crate) loading: Cell<bool>,
    /// What the present call came with, and what its reply has beside a body.
    pub(crate) message: Message,
    /// What was rejected in it.
    pub(crate) rejections: Rejections,
}

/// The object with all natives, and the environment as a JSON text.
pub(crate) fn object<'a>(scope: Scope<'a>, script: &Script) -> Result<Fresh<'a>, Thrown> {
    let object = scope.object()?;
    for (which, (name, _)) in (0..).zip(NATIVES) {
        scope.set(&object, name, function(scope, which)?)?;
    }
    scope.set(&object, c"environment", scope.text(&script.environment)?)?;
    Ok(object)
}

impl Natives for Host {
    fn call<'a>(&self, scope: Scope<'a>, which: i32, given: &[Value<'a>]) -> Result<Fresh<'a>, Thrown> {
        let native = usize::try_from(which).ok().and_then(|which| NATIVES.get(which));
        native.map_or_else(|| Ok(scope.undefined()), |(_, native)| native(self, scope, given))
    }

    fn rejected(&self, scope: Scope<'_>, promise: Value<'_>, reason: Value<'_>, is_handled: bool) {
        self.rejections.tell(scope, promise, reason, is_handled);
    }

    fn must_stop(&self) -> bool {
        self.budget.check()
    }
}

impl Host {
    fn log<'a>(&self, scope: Scope<'a>, given: &[Value<'a>]) -> Result<Fresh<'a>, Thrown> {
        let [is_error, text, ..] = given else { return Ok(scope.undefined()) };
        let stream = if scope.to_bool(*is_error) { Stream::Stderr } else { Stream::Stdout };
        let text = scope.to_text(*text)?;
        let text = if matches!(stream, Stream::Stderr) { self.script.mapped(text) } else { text };
        if !self.budget.count_log(&text) {
            return Err(scope.throw_text("the function has logged too much"));
        }
        write_lines(&self.script.output, stream, &text);
        Ok(scope.undefined())
    }

    /// Logs what was rejected and not handled.
    pub(crate) fn log_rejections(&self, scope: Scope<'_>) {
        for reason in self.rejections.take(scope) {
            if self.budget.error().is_some() {
                return;
            }
            let text = format!("Uncaught (in promise) {}", describe(scope, reason.value(), &self.script));
            if self.budget.count_log(&text) {
                write_lines(&self.script.output, Stream::Stderr, &text);
            }
        }
    }

    fn asking(&self) -> Asking<'_> {
        Asking { script: &self.script, budget: &self.budget, message: &self.message }
    }

    fn admit_host_call(&self, scope: Scope<'_>) -> Result<(), Thrown> {
        self.refuse_while_loading(scope, "host services")?;
        match self.budget.count_host_call() {
            true => Ok(()),
            false => Err(scope.throw_text("the function has made too many host calls")),
        }
    }

    /// Bytes nobody can foresee. Drawn at the top level, they would be the same in every call.
    fn random_bytes<'a>(&self, scope: Scope<'a>, given: &[Value<'a>]) -> Result<Fresh<'a>, Thrown> {
        self.refuse_while_loading(scope, "crypto's random values")?;
        let asked = given.first().map_or(Ok(0.0), |count| scope.to_number(*count))?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "cut to its bounds, a number without a sign")]
        let mut bytes = vec![0; asked.clamp(0.0, MAX_RANDOM_BYTES) as usize];
        rand::rng().fill(bytes.as_mut_slice());
        scope.bytes(&bytes)
    }

    fn refuse_while_loading(&self, scope: Scope<'_>, what: &str) -> Result<(), Thrown> {
        if self.loading.get() {
            let why = "it runs once for many calls; use them in the function";
            return Err(scope.throw_text(&format!("{what} are not available to code at the top level of a script: {why}")));
        }
        Ok(())
    }
}

fn write_lines(output: &Output, stream: Stream, text: &str) {
    text.split('\n').for_each(|line| output.line(stream, line));
}

fn encode<'a>(scope: Scope<'a>, given: &[Value<'a>]) -> Result<Fresh<'a>, Thrown> {
    let text = given.first().map_or(Ok(String::new()), |text| scope.to_text(*text))?;
    scope.bytes(text.as_bytes())
}

/// The text of UTF-8 bytes, without their mark unless it is to be kept; undefined if they are not, and that is fatal.
fn decode<'a>(scope: Scope<'a>, given: &[Value<'a>]) -> Result<Fresh<'a>, Thrown> {
    let fatal = given.get(1).is_some_and(|fatal| scope.to_bool(*fatal));
    let copied = given.first().and_then(|bytes| scope.with_bytes(*bytes, <[u8]>::to_vec)).unwrap_or_default();
    let keeps_mark = given.get(2).is_some_and(|keeps| scope.to_bool(*keeps));
    let marked = if keeps_mark { None } else { copied.strip_prefix(b"\xef\xbb\xbf") };
    let bytes = marked.unwrap_or(&copied);
    match std::str::from_utf8(bytes) {
        Ok(text) => scope.text(text),
        Err(_invalid) if fatal => Ok(scope.undefined()),
        Err(_invalid) => scope.text(&String::from_utf8_lossy(bytes)),
    }
}
