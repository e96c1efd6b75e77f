//! Packages of npm in functions: each is bundled by esbuild, and must answer what Node.js answers with the same bundle.
//!
//! A function is what its bundle is; where a package needs something that the engine lacks, its test says so.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails its test")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use common::{call, fixture};
use nex_engine::Function as _;
use nex_engine_js::prepare;
use nex_testkit::skip;

/// The packages, installed once; or why that is not possible here.
#[expect(clippy::disallowed_methods, reason = "a tool, run to its end")]
fn packages() -> Result<&'static Path, &'static str> {
    static PACKAGES: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let install = || {
        let to = Path::new(env!("CARGO_TARGET_TMPDIR")).join("npm");
        std::fs::create_dir_all(&to).unwrap();
        let lock = std::fs::read_to_string(own("package-lock.json")).unwrap();
        let installed = to.join("installed.json");
        if std::fs::read_to_string(&installed).is_ok_and(|installed| installed == lock) {
            return Ok(to);
        }
        for file in ["package.json", "package-lock.json"] {
            std::fs::copy(own(file), to.join(file)).unwrap();
        }
        // No script of a package runs.
        let npm = Command::new("npm")
            .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"])
            .current_dir(&to)
            .output();
        match npm {
            Ok(npm) if npm.status.success() => {
                std::fs::write(installed, lock).unwrap();
                Ok(to)
            }
            Ok(npm) => Err(format!("npm does not install the packages: {}", String::from_utf8_lossy(&npm.stderr))),
            Err(error) => Err(format!("npm does not start: {error}")),
        }
    };
    PACKAGES.get_or_init(install).as_deref().map_err(String::as_str)
}

/// Bundles a case, and has it called by Node.js and by the engine.
#[expect(clippy::disallowed_methods, reason = "tools, run to their ends")]
async fn check(package: &str) {
    let packages = match packages() {
        Ok(packages) => packages,
        Err(why) => skip!(package, why),
    };
    let cases = packages.join("cases");
    std::fs::create_dir_all(&cases).unwrap();
    let (case, bundle) = (cases.join(format!("{package}.js")), packages.join(format!("{package}.mjs")));
    std::fs::copy(own(&format!("cases/{package}.js")), &case).unwrap();
    esbuild(packages, &case, &bundle, &[]);
    let expected = run(Command::new("node").env("TZ", "UTC").arg(own("node.mjs")).arg(&bundle));
    let fixture = fixture(std::fs::read(&bundle).unwrap());
    let function = nex_engine_js::start(fixture.launch.clone(), prepare())
        .await
        .unwrap_or_else(|error| panic!("{package} is not loaded: {error}"));
    // Twice: what a call left behind would be seen by the next one.
    for _ in 0..2 {
        let reply = function.invoke(call("")).await.unwrap_or_else(|error| panic!("{package} fails: {error}"));
        assert_eq!(String::from_utf8_lossy(&reply.payload), expected.trim_end(), "{package}");
    }
}

#[expect(clippy::disallowed_methods, reason = "a tool, run to its end")]
fn esbuild(packages: &Path, source: &Path, bundle: &Path, more: &[&str]) {
    let usual = ["--bundle", "--format=esm", "--platform=browser", "--log-level=error"];
    let outfile = format!("--outfile={}", bundle.display());
    run(Command::new(packages.join("node_modules/.bin/esbuild")).args(usual).args(more).arg(source).arg(outfile));
}

#[tokio::test]
async fn a_failed_call_names_the_lines_that_somebody_wrote() {
    let test = "a_failed_call_names_the_lines_that_somebody_wrote";
    let packages = match packages() {
        Ok(packages) => packages,
        Err(why) => skip!(test, why),
    };
    let (source, bundle) = (packages.join("orders.ts"), packages.join("orders.mjs"));
    let text = "import { chunk } from 'lodash-es';\ninterface Order { id: string }\n\nconst check = (order: Order) => {\n  \
                if (order.id === '') throw new TypeError('no id');\n};\n\nexport default (subject: string) => {\n  \
                try { check({ id: '' }) } catch (error) { console.error(error) }\n  chunk([{ id: '' }], 1).flat().forEach(check);\n};\n";
    std::fs::write(&source, text).unwrap();
    esbuild(packages, &source, &bundle, &["--sourcemap=inline", "--minify"]);
    let mut fixture = fixture(std::fs::read(&bundle).unwrap());
    let function = nex_engine_js::start(fixture.launch.clone(), prepare()).await.unwrap();
    let failed = function.invoke(call("")).await.unwrap_err().to_string();
    assert!(failed.starts_with("TypeError: no id at ") && failed.contains("orders.ts:5:"), "{failed}");
    let mut logged = String::new();
    while !logged.contains("orders.ts:9:") {
        logged += &fixture.lines.recv().await.unwrap().text;
    }
    assert!(logged.contains("TypeError: no id") && logged.contains("orders.ts:5:"), "{logged}");
}

fn own(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/npm").join(file)
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

macro_rules! packages {
    ($($name:ident: $package:literal),* $(,)?) => {
        $(
            #[tokio::test]
            async fn $name() {
                check($package).await;
            }
        )*

        #[test]
        fn every_case_is_tried() {
            let mut cases: Vec<_> = std::fs::read_dir(own("cases")).unwrap().map(|case| case.unwrap().file_name().into_string().unwrap()).collect();
            let mut tried = [$(concat!($package, ".js")),*];
            cases.sort();
            tried.sort_unstable();
            assert_eq!(cases, tried);
        }
    };
}

packages! {
    ajv: "ajv",
    arktype: "arktype",
    bcryptjs: "bcryptjs",
    big_js: "big.js",
    cheerio: "cheerio",
    cron_parser: "cron-parser",
    crypto_js: "crypto-js",
    csv_parse: "csv-parse",
    date_fns: "date-fns",
    date_fns_tz: "date-fns-tz",
    dayjs: "dayjs",
    decimal_js: "decimal.js",
    ejs: "ejs",
    eta: "eta",
    fast_xml_parser: "fast-xml-parser",
    fflate: "fflate",
    graphql: "graphql",
    handlebars: "handlebars",
    hono: "hono",
    immer: "immer",
    itty_router: "itty-router",
    jmespath: "jmespath",
    joi: "joi",
    jose: "jose",
    js_yaml: "js-yaml",
    libphonenumber_js: "libphonenumber-js",
    liquidjs: "liquidjs",
    lodash: "lodash",
    lodash_es: "lodash-es",
    luxon: "luxon",
    marked: "marked",
    mathjs: "mathjs",
    msgpack: "msgpack",
    mustache: "mustache",
    nanoid: "nanoid",
    nunjucks: "nunjucks",
    pako: "pako",
    papaparse: "papaparse",
    path_to_regexp: "path-to-regexp",
    preact: "preact",
    protobufjs: "protobufjs",
    qs: "qs",
    ramda: "ramda",
    rxjs: "rxjs",
    semver: "semver",
    slugify: "slugify",
    superjson: "superjson",
    tweetnacl: "tweetnacl",
    ulid: "ulid",
    uuid: "uuid",
    valibot: "valibot",
    validator: "validator",
    yaml: "yaml",
    yup: "yup",
    zod: "zod",
}
