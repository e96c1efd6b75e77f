//! Divides a body of the type `multipart/form-data` into its parts.

use super::{bytes, text};
use crate::value::{Fresh, Scope, Thrown, Value};

/// Most parts of a form, and longest head of one.
const MAX_PARTS: usize = 1_000;
const MAX_HEAD_BYTES: usize = 8 * 1024;

/// `(bytes, boundary)`; gives JSON: for each part its head, and where its body begins and ends. Undefined if it is damaged.
pub(crate) fn parts<'a>(scope: Scope<'a>, given: &[Value<'a>]) -> Result<Fresh<'a>, Thrown> {
    let (body, boundary) = (bytes(scope, given, 0), text(scope, given, 1)?);
    match divide(&body, &boundary) {
        Some(parts) => scope.text(&serde_json::to_string(&parts).unwrap_or_default()),
        None => Ok(scope.undefined()),
    }
}

type Part = (String, usize, usize);

fn divide(body: &[u8], boundary: &str) -> Option<Vec<Part>> {
    let delimiter = format!("\r\n--{boundary}");
    let first = delimiter.get(2..)?.as_bytes();
    let mut at = if body.starts_with(first) { first.len() } else { find(body, 0, delimiter.as_bytes())? + delimiter.len() };
    let mut parts = Vec::new();
    while !body.get(at..)?.starts_with(b"--") {
        if parts.len() == MAX_PARTS || !body.get(at..)?.starts_with(b"\r\n") {
            return None;
        }
        let head_end = find(body, at, b"\r\n\r\n").filter(|end| end - at <= MAX_HEAD_BYTES)?;
        let begin = head_end + 4;
        // The line break before the delimiter may be the one that ends the head.
        let end = find(body, begin - 2, delimiter.as_bytes())?;
        parts.push((String::from_utf8_lossy(body.get(at..head_end)?).into_owned(), begin, end.max(begin)));
        at = end + delimiter.len();
    }
    Some(parts)
}

fn find(body: &[u8], from: usize, what: &[u8]) -> Option<usize> {
    Some(from + body.get(from..)?.windows(what.len()).position(|window| window == what)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_divided_at_its_boundary() {
        let body = "--x\r\nA: 1\r\n\r\none\r\n--x\r\nB: 2\r\n\r\n\r\n--x--\r\n";
        let parts = divide(body.as_bytes(), "x").unwrap();
        let shown: Vec<_> =
            parts.iter().map(|(head, begin, end)| (head.trim(), body.get(*begin..*end).unwrap_or_default())).collect();
        assert_eq!(shown, [("A: 1", "one"), ("B: 2", "")]);
        assert_eq!(divide(b"--x--", "x"), Some(vec![]));
        for damaged in ["", "--x", "--x\r\nA: 1", "--x\r\nA: 1\r\n\r\none", "--y--", "--xA: 1\r\n\r\n\r\n--x--"] {
            assert_eq!(divide(damaged.as_bytes(), "x"), None, "{damaged}");
        }
    }
}
