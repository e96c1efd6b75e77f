//! Headers that are a caller's or a function's own, beside those of the envelope, which have a reserved prefix.

use async_nats::{HeaderMap, HeaderName, HeaderValue};
use nex_protocol::agent::invocation::{HTTP_PREFIX, Headers, RESERVED_PREFIX};
use nex_protocol::agent::streaming::HTTP_STREAM;

/// The headers of a message that are its sender's own.
#[must_use]
pub fn pass_on(headers: &HeaderMap) -> HeaderMap {
    let mut passed = HeaderMap::new();
    for (name, values) in headers.iter().filter(|(name, _)| !is_reserved(name.as_ref())) {
        for value in values {
            passed.append(name.clone(), value.clone());
        }
    }
    passed
}

fn is_reserved(name: &str) -> bool {
    let begins = |with: &str| name.get(..with.len()).is_some_and(|prefix| prefix.eq_ignore_ascii_case(with));
    begins(RESERVED_PREFIX) && !begins(HTTP_PREFIX)
}

/// Whether it is nothing that a function sees or sets.
fn is_no_functions(name: &str) -> bool {
    is_reserved(name) || name.eq_ignore_ascii_case(HTTP_STREAM)
}

/// Headers of a message as a function gets them.
#[must_use]
pub fn to_function(headers: Option<&HeaderMap>) -> Headers {
    let Some(headers) = headers else { return Headers::new() };
    let own = headers.iter().filter(|(name, _)| !is_no_functions(name.as_ref()));
    own.flat_map(|(name, values)| values.iter().map(move |value| (name.to_string(), value.as_str().to_owned()))).collect()
}

/// A function's own headers as those of a message; what is no header of NATS is left out, and so is what is reserved.
#[must_use]
pub fn of_function(headers: Headers) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        if let (false, Ok(name), Ok(value)) = (is_no_functions(&name), name.parse::<HeaderName>(), value.parse::<HeaderValue>()) {
            map.append(name, value);
        }
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_a_function_are_no_others_than_its_own() {
        let given = [
            ("Content-Type", "a/b"),
            ("X", "1"),
            ("X", "2"),
            ("nex-outcome", "nak"),
            ("nex-http-stream", "pull"),
            ("A B", "no"),
            ("Line", "a\r\nb"),
        ];
        let headers = of_function(given.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
        assert_eq!(headers.get_all("X").count(), 2);
        assert_eq!(headers.len(), 2, "{headers:?}");
        assert!(headers.get("nex-outcome").is_none());
    }
}
