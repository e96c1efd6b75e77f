//! What the web's interfaces leave to the host: parsing URLs, digests, dividing forms. Their JavaScript is in the directory `web`.

pub(crate) mod crypto;
pub(crate) mod intl;
pub(crate) mod multipart;
pub(crate) mod url;

use std::ffi::{CStr, CString};
use std::sync::OnceLock;

use crate::value::{Fresh, Scope, Thrown, Value};

macro_rules! parts {
    ($($name:literal),*) => { [$(($name, concat!(include_str!(concat!("web/", $name, ".js")), "\0"))),*] };
}

/// The interfaces; each is an expression that is a function.
const PARTS: [(&str, &str); 10] =
    parts!["timers", "events", "encoding", "url", "crypto", "streams", "blob", "fetch", "handler", "locale"];
/// Those that a script loads when it uses them first.
const LATE: [(&str, &str); 4] = parts!["intl", "intl/dates", "intl/numbers", "intl/texts"];

/// Their code, made by the first isolate of the process.
static CODE: [OnceLock<Vec<u8>>; PARTS.len()] = [const { OnceLock::new() }; PARTS.len()];
static LATE_CODE: [OnceLock<Vec<u8>>; LATE.len()] = [const { OnceLock::new() }; LATE.len()];

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

/// An object with the interfaces by name.
pub(crate) fn object(scope: Scope<'_>) -> Result<Fresh<'_>, Thrown> {
    let object = scope.object()?;
    for ((name, source), code) in PARTS.into_iter().zip(&CODE) {
        let part = run(scope, code, name, source)?;
        let name = CString::new(name).unwrap_or_default();
        scope.set(&object, &name, part)?;
    }
    Ok(object)
}

/// `(name)`: an interface that is loaded late.
pub(crate) fn late<'a>(scope: Scope<'a>, given: &[Value<'a>]) -> Result<Fresh<'a>, Thrown> {
    let name = text(scope, given, 0)?;
    let found = LATE.into_iter().zip(&LATE_CODE).find(|((of, _), _)| *of == name);
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
