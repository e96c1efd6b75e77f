//! What the web's interfaces leave to the host: parsing URLs and their patterns, cryptography, compression, dividing forms. Their JavaScript is in the directory `web`.

pub(crate) mod compression;
pub(crate) mod crypto;
pub(crate) mod encodings;
pub(crate) mod intl;
mod keys;
pub(crate) mod multipart;
pub(crate) mod pattern;
pub(crate) mod subtle;
pub(crate) mod url;

use std::ffi::{CStr, CString};
use std::sync::OnceLock;

use crate::value::{Fresh, Scope, Thrown, Value};

macro_rules! parts {
    ($($name:literal),*) => { [$(($name, concat!(include_str!(concat!("web/", $name, ".js")), "\0"))),*] };
}

/// The interfaces; each is an expression that is a function. The first ones are there when a script begins; those behind them are made when a
/// script asks for one of them, for few do.
const PARTS: [(&str, &str); 19] = parts![
    "timers",
    "events",
    "encoding",
    "url",
    "crypto",
    "streams",
    "blob",
    "fetch",
    "handler",
    "locale",
    "writable",
    "transforms",
    "subtle",
    "pattern",
    "messages",
    "intl",
    "intl/dates",
    "intl/numbers",
    "intl/texts"
];
/// How many there are at the beginning.
const EAGER: usize = 10;

/// Their code, made by the first isolate of the process.
static CODE: [OnceLock<Vec<u8>>; PARTS.len()] = [const { OnceLock::new() }; PARTS.len()];

#[expect(unsafe_code, reason = "the engine does not verify code")]
fn run<'a>(scope: Scope<'a>, code: &OnceLock<Vec<u8>>, name: &str, source: &str) -> Result<Fresh<'a>, Thrown> {
    let code = match code.get() {
        Some(code) => code,
        None => {
            let source = CStr::from_bytes_with_nul(source.as_bytes()).unwrap_or(c"");
            let file = CString::new(format!("nex:{name}")).unwrap_or_default();
            let made = scope.compile(source, &file)?;
            code.get_or_init(|| made)
        }
    };
    // SAFETY: it was compiled above, in this process.
    unsafe { scope.run_compiled(code) }
}

/// An object with the interfaces that are there at the beginning, by name.
pub(crate) fn object(scope: Scope<'_>) -> Result<Fresh<'_>, Thrown> {
    let object = scope.object()?;
    for ((name, source), code) in PARTS.into_iter().zip(&CODE).take(EAGER) {
        let part = run(scope, code, name, source)?;
        let name = CString::new(name).unwrap_or_default();
        scope.set(&object, &name, part)?;
    }
    Ok(object)
}

/// `(name)`; one of the others.
pub(crate) fn part<'a>(scope: Scope<'a>, given: &[Value<'a>]) -> Result<Fresh<'a>, Thrown> {
    let wanted = text(scope, given, 0)?;
    let found = PARTS.into_iter().zip(&CODE).find(|((name, _), _)| *name == wanted);
    found.map_or_else(|| Ok(scope.undefined()), |((name, source), code)| run(scope, code, name, source))
}

/// An argument as a text; empty if it was not given.
fn text<'a>(scope: Scope<'a>, given: &[Value<'a>], at: usize) -> Result<String, Thrown> {
    given.get(at).map_or(Ok(String::new()), |value| scope.to_text(*value))
}

/// An argument's bytes; none if it has none.
fn bytes<'a>(scope: Scope<'a>, given: &[Value<'a>], at: usize) -> Vec<u8> {
    given.get(at).and_then(|value| scope.with_bytes(*value, <[u8]>::to_vec)).unwrap_or_default()
}
