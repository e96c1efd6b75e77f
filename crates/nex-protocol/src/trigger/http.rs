//! HTTP requests as a trigger: `http:[METHOD ]/path`, where `{name}` stands for one segment of the path and `{name...}`, at its end, for all
//! that is left.
//!
//! A request is a message on a subject of its namespace: `nex.http.<namespace>.<METHOD>.<segment>.<segment>…`, so that whoever listens on a
//! route's subject serves it, wherever it runs, and listeners need to know nothing of functions. A segment is a token: letters, digits, `-`
//! and `_` are themselves, any other byte is `=` and two hexadecimal digits, and an empty one is `=`.

use std::fmt;
use std::str::FromStr;

use super::error::TriggerError;
use crate::id::Namespace;

/// What subjects of requests begin with; a namespace follows.
pub const HTTP_SUBJECTS: &str = "nex.http.";
/// Longest path, bytes, and most segments of it.
const MAX_PATH: usize = 2048;
const MAX_SEGMENTS: usize = 32;
/// Longest method.
const MAX_METHOD: usize = 16;
/// Longest subject.
const MAX_SUBJECT: usize = 512;

/// Which requests start a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpRoute {
    /// Any method if absent.
    method: Option<String>,
    segments: Vec<Segment>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    /// This one, as it is written in the path.
    Literal(String),
    /// Any one.
    One(String),
    /// All that follow; there is at least one, which may be empty.
    Rest(String),
}

/// Why a request has no subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoSubject {
    /// Its method is none.
    #[error("the method is not one of HTTP")]
    Method,
    /// Its path is none.
    #[error("the path is not one that a function can have: it begins with '/', and has neither '.' nor '..' as a part")]
    Path,
    /// It is too long.
    #[error("the path is too long")]
    TooLong,
}

impl HttpRoute {
    /// Reads a route.
    pub(super) fn parse(text: &str) -> Result<Self, TriggerError> {
        let wrong = || TriggerError::what("http", text);
        let (method, path) = match text.split_once(' ') {
            Some((method, path)) => (Some(method), path),
            None => (None, text),
        };
        if method.is_some_and(|method| !is_method(method)) || path.len() > MAX_PATH {
            return Err(wrong());
        }
        let mut segments = Vec::new();
        for part in path.strip_prefix('/').ok_or_else(wrong)?.split('/') {
            if matches!(segments.last(), Some(Segment::Rest(_))) || segments.len() == MAX_SEGMENTS {
                return Err(wrong());
            }
            segments.push(Segment::parse(part).ok_or_else(wrong)?);
        }
        Ok(Self { method: method.map(str::to_owned), segments })
    }

    /// The subject on which its requests are messages.
    #[must_use]
    pub fn subject(&self, namespace: &Namespace) -> String {
        let method = self.method.as_deref().unwrap_or("*");
        let mut subject = format!("{HTTP_SUBJECTS}{namespace}.{method}");
        for segment in &self.segments {
            subject.push('.');
            match segment {
                // It was read once, so it can be read again.
                Segment::Literal(text) => subject.push_str(&token(text).unwrap_or_default()),
                Segment::One(_) => subject.push('*'),
                Segment::Rest(_) => subject.push('>'),
            }
        }
        subject
    }
}

impl Segment {
    fn parse(part: &str) -> Option<Self> {
        let Some(inner) = part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) else {
            let plain = !part.contains(['{', '}', '?', '#']) && token(part).is_some();
            return plain.then(|| Self::Literal(part.to_owned()));
        };
        let (name, is_rest) = inner.strip_suffix("...").map_or((inner, false), |name| (name, true));
        let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        is_name.then(|| if is_rest { Self::Rest(name.to_owned()) } else { Self::One(name.to_owned()) })
    }
}

/// The subject of a request for a namespace.
///
/// # Errors
/// [`NoSubject`]
pub fn request_subject(namespace: &Namespace, method: &str, path: &str) -> Result<String, NoSubject> {
    if !is_method(method) {
        return Err(NoSubject::Method);
    }
    if path.len() > MAX_PATH {
        return Err(NoSubject::TooLong);
    }
    let path = path.strip_prefix('/').ok_or(NoSubject::Path)?;
    let mut subject = format!("{HTTP_SUBJECTS}{namespace}.{method}");
    for (at, part) in path.split('/').enumerate() {
        if at == MAX_SEGMENTS {
            return Err(NoSubject::TooLong);
        }
        subject.push('.');
        subject.push_str(&token(part).ok_or(NoSubject::Path)?);
    }
    if subject.len() > MAX_SUBJECT { Err(NoSubject::TooLong) } else { Ok(subject) }
}

fn is_method(text: &str) -> bool {
    (1..=MAX_METHOD).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_uppercase())
}

/// A segment of a path as a token; none for what is no segment, or leads elsewhere.
fn token(segment: &str) -> Option<String> {
    let bytes = decode(segment)?;
    if bytes == b"." || bytes == b".." {
        return None;
    }
    if bytes.is_empty() {
        return Some("=".to_owned());
    }
    let mut token = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => token.push(char::from(byte)),
            other => token.push_str(&format!("={other:02X}")),
        }
    }
    Some(token)
}

/// Reads `%XX`.
fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'%' => {
                let (pair, after) = rest.split_at_checked(2)?;
                let digits = std::str::from_utf8(pair).ok().filter(|pair| pair.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
                bytes.push(u8::from_str_radix(digits, 16).ok()?);
                rest = after;
            }
            other => bytes.push(*other),
        }
    }
    Some(bytes)
}

impl FromStr for HttpRoute {
    type Err = TriggerError;
    fn from_str(text: &str) -> Result<Self, TriggerError> {
        Self::parse(text.strip_prefix("http:").unwrap_or(text))
    }
}

impl fmt::Display for HttpRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("http:")?;
        if let Some(method) = &self.method {
            write!(f, "{method} ")?;
        }
        for segment in &self.segments {
            match segment {
                Segment::Literal(text) => write!(f, "/{text}")?,
                Segment::One(name) => write!(f, "/{{{name}}}")?,
                Segment::Rest(name) => write!(f, "/{{{name}...}}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::subject::{covers, is_valid_pattern};

    fn acme() -> Namespace {
        "acme".parse().unwrap()
    }

    fn route(text: &str) -> String {
        text.parse::<HttpRoute>().unwrap_or_else(|error| panic!("{text}: {error}")).subject(&acme())
    }

    #[test]
    fn a_route_covers_its_requests_and_no_others() {
        for (text, method, path, matches) in [
            ("http:POST /orders/{id}", "POST", "/orders/42", true),
            ("http:POST /orders/{id}", "GET", "/orders/42", false),
            ("http:POST /orders/{id}", "POST", "/orders", false),
            ("http:POST /orders/{id}", "POST", "/orders/42/x", false),
            ("http:/orders", "DELETE", "/orders", true),
            ("http:/orders", "DELETE", "/orders/", false),
            ("http:/", "GET", "/", true),
            ("http:/", "GET", "/a", false),
            ("http:GET /{rest...}", "GET", "/a/b/c", true),
            ("http:GET /{rest...}", "GET", "/", true),
            ("http:GET /files/{rest...}", "GET", "/files", false),
            ("http:/caf%C3%A9/{a}", "GET", "/café/a%2Fb", true),
            ("http:/v1.0/a*b", "GET", "/v1%2e0/a%2Ab", true),
        ] {
            let subject = request_subject(&acme(), method, path).unwrap();
            assert!(is_valid_pattern(&subject) && !subject.contains(['*', '>']), "{subject}");
            assert_eq!(covers(&route(text), &subject), matches, "{text} {method} {path}: {subject}");
        }
        assert_eq!(route("http:POST /orders/{id}"), "nex.http.acme.POST.orders.*");
    }

    #[test]
    fn what_is_no_route_or_request_is_refused() {
        for text in [
            "",
            "orders",
            "post /a",
            "POST  /a",
            "/a b",
            "/{",
            "/{}",
            "/{a b}",
            "/{a...}/b",
            "/a{b}",
            "/..",
            "/%2e",
            "/a?b",
            "/%zz",
        ] {
            assert!(text.parse::<HttpRoute>().is_err(), "{text}");
        }
        for (method, path, why) in [
            ("get", "/", NoSubject::Method),
            ("G.T", "/", NoSubject::Method),
            ("GET", "*", NoSubject::Path),
            ("GET", "/a/../b", NoSubject::Path),
            ("GET", "/a/%2E%2e/b", NoSubject::Path),
            ("GET", "/%", NoSubject::Path),
            ("GET", "/%+1", NoSubject::Path),
            ("GET", &"/a".repeat(33), NoSubject::TooLong),
            ("GET", &format!("/{}", "a".repeat(600)), NoSubject::TooLong),
        ] {
            assert_eq!(request_subject(&acme(), method, path), Err(why), "{method} {path}");
        }
    }

    proptest! {
        #[test]
        fn a_subject_never_leaves_its_namespace(method in ".{0,20}", path in "/.{0,80}") {
            if let Ok(subject) = request_subject(&acme(), &method, &path) {
                prop_assert!(is_valid_pattern(&subject), "{}", subject);
                prop_assert!(subject.starts_with("nex.http.acme.") && !subject.contains(['*', '>', ' ']), "{}", subject);
            }
        }

        #[test]
        fn a_route_is_read_as_it_is_written(text in "http:(GET |)(/[a-z0-9.%-]{0,6}|/\\{[a-z]{1,4}\\}){1,5}") {
            if let Ok(route) = text.parse::<HttpRoute>() {
                prop_assert_eq!(route.to_string(), text);
                prop_assert!(is_valid_pattern(&route.subject(&acme())));
            }
        }
    }
}
