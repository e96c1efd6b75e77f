//! What the web's interfaces leave to the host: parsing URLs, digests, dividing forms. Their JavaScript is in the directory `web`.

pub(crate) mod crypto;
pub(crate) mod multipart;
pub(crate) mod url;

use std::ffi::CStr;

use crate::value::{Fresh, Scope, Thrown, Value};

macro_rules! parts {
    ($($name:literal),*) => { [$(($name, concat!(include_str!(concat!("web/", $name, ".js")), "\0"))),*] };
}

/// The interfaces; each is an expression that is a function.
const PARTS: [(&str, &str); 9] = parts!["timers", "events", "encoding", "url", "crypto", "streams", "blob", "fetch", "handler"];

/// An object with the interfaces by name.
pub(crate) fn object(scope: Scope<'_>) -> Result<Fresh<'_>, Thrown> {
    let object = scope.object()?;
    for (name, source) in PARTS {
        let source = CStr::from_bytes_with_nul(source.as_bytes()).unwrap_or(c"");
        let file = std::ffi::CString::new(format!("nex:{name}")).unwrap_or_default();
        let part = scope.run_script(source, &file)?;
        let name = std::ffi::CString::new(name).unwrap_or_default();
        scope.set(&object, &name, part)?;
    }
    Ok(object)
}

/// An argument as a text; empty if it was not given.
fn text<'a>(scope: Scope<'a>, given: &[Value<'a>], at: usize) -> Result<String, Thrown> {
    given.get(at).map_or(Ok(String::new()), |value| scope.to_text(*value))
}

/// An argument's bytes; none if it has none.
fn bytes<'a>(scope: Scope<'a>, given: &[Value<'a>], at: usize) -> Vec<u8> {
    given.get(at).and_then(|value| scope.with_bytes(*value, <[u8]>::to_vec)).unwrap_or_default()
}
