//! W3C trace context: what a call came with goes on in what its function sends, unless that says something else.

use nex_protocol::agent::invocation::{Headers, TRACEPARENT, TRACESTATE};
use nex_protocol::host::{HostRequest, Service};

/// Length of a `traceparent` of version 00; later ones begin the same.
const PARENT: usize = 55;
/// Longest that is passed on of a `traceparent`, and of a `tracestate`.
const MAX_PARENT: usize = 128;
const MAX_STATE: usize = 512;
/// Headers that a request may have for those of the trace to be added: the services take a few more.
const MAX_HEADERS: usize = 60;
const MAX_HEADER_BYTES: usize = 15 * 1024;

/// The trace that a call is a part of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trace {
    /// The parent, and the state that goes with it.
    context: Option<(String, Option<String>)>,
}

impl Trace {
    /// Reads it from the headers of a call. What is none is not passed on, since it is not known what it would do to others.
    #[must_use]
    pub fn of(headers: &Headers) -> Self {
        let all = |wanted: &str| {
            let of_name = headers.iter().filter(move |(name, _)| name.eq_ignore_ascii_case(wanted));
            of_name.map(|(_, value)| value.as_str()).collect::<Vec<_>>()
        };
        let parent = match all(TRACEPARENT)[..] {
            [parent] if is_parent(parent) => parent.to_owned(),
            _ => return Self::default(),
        };
        let state = Some(all(TRACESTATE).join(",")).filter(|state| is_state(state));
        Self { context: Some((parent, state)) }
    }

    /// Adds it to what a function sends.
    pub fn add_to(&self, request: &mut HostRequest) {
        let Some((parent, state)) = &self.context else { return };
        let sends = match request.service {
            Service::Messaging | Service::Http => true,
            Service::KeyValue | Service::ObjectStore => false,
        };
        let bytes: usize = request.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        let is_own = request.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(TRACEPARENT));
        if !sends || is_own || request.headers.len() > MAX_HEADERS || bytes > MAX_HEADER_BYTES {
            return;
        }
        // A state without its parent says nothing.
        request.headers.retain(|(name, _)| !name.eq_ignore_ascii_case(TRACESTATE));
        request.headers.push((TRACEPARENT.to_owned(), parent.clone()));
        request.headers.extend(state.iter().map(|state| (TRACESTATE.to_owned(), state.clone())));
    }
}

/// `00-<32 digits>-<16 digits>-<2 digits>`, or what a later version begins so.
fn is_parent(text: &str) -> bool {
    let bytes = text.as_bytes();
    let Some(head) = bytes.get(..PARENT).filter(|_| bytes.len() <= MAX_PARENT) else { return false };
    let ends = match bytes.get(PARENT..) {
        Some([]) => true,
        Some([b'-', rest @ ..]) => !head.starts_with(b"00") && rest.iter().all(u8::is_ascii_graphic),
        _ => false,
    };
    let digits = |part: &[u8]| part.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let parts: Vec<_> = head.split(|byte| *byte == b'-').collect();
    let [version, trace, parent, flags] = parts[..] else { return false };
    let sizes = [version.len(), trace.len(), parent.len(), flags.len()] == [2, 32, 16, 2];
    let is_set = |part: &[u8]| part.iter().any(|byte| *byte != b'0');
    ends && sizes && parts.iter().all(|part| digits(part)) && version != b"ff" && is_set(trace) && is_set(parent)
}

fn is_state(text: &str) -> bool {
    (1..=MAX_STATE).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PARENT_ID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn headers(pairs: &[(&str, &str)]) -> Headers {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn sent(service: Service, caller: &[(&str, &str)], own: &[(&str, &str)]) -> Headers {
        let mut request = HostRequest {
            service,
            method: "publish".to_owned(),
            target: "a".to_owned(),
            body: bytes::Bytes::new(),
            headers: headers(own),
        };
        Trace::of(&headers(caller)).add_to(&mut request);
        request.headers
    }

    #[test]
    fn what_a_function_sends_has_the_trace_of_its_call_unless_it_has_its_own() {
        let caller = [("Traceparent", PARENT_ID), ("tracestate", "a=1"), ("tracestate", "b=2"), ("x", "y")];
        let expected = headers(&[("traceparent", PARENT_ID), ("tracestate", "a=1,b=2")]);
        assert_eq!(sent(Service::Messaging, &caller, &[]), expected);
        assert_eq!(sent(Service::Http, &caller, &[("TraceState", "of nothing")]), expected);
        let own = [("TraceParent", "mine"), ("tracestate", "mine")];
        assert_eq!(sent(Service::Http, &caller, &own), headers(&own));
        assert!(sent(Service::KeyValue, &caller, &[]).is_empty());
        let full: Vec<_> = (0..64).map(|_| ("x", "y")).collect();
        assert_eq!(sent(Service::Messaging, &caller, &full).len(), 64);
    }

    #[test]
    fn what_is_no_trace_goes_nowhere() {
        for parent in [
            "",
            "00-1-2-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n",
            "00-0af7651916cd43dd8448eb211c80319cb-7ad6b7169203331-01",
        ] {
            assert_eq!(Trace::of(&headers(&[("traceparent", parent)])), Trace::default(), "{parent}");
        }
        assert_eq!(Trace::of(&headers(&[("traceparent", PARENT_ID), ("traceparent", PARENT_ID)])), Trace::default());
        let later = PARENT_ID.replacen("00", "cc", 1) + "-what-comes";
        assert_ne!(Trace::of(&headers(&[("traceparent", &later)])), Trace::default());
        let long = "x".repeat(600);
        assert_eq!(sent(Service::Http, &[("traceparent", PARENT_ID), ("tracestate", &long)], &[]).len(), 1);
    }

    proptest! {
        #[test]
        fn what_is_passed_on_is_a_header_of_a_bounded_line(
            parent in "[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.{0,90})?",
            state in ".{0,600}",
        ) {
            let caller = [("traceparent", parent.as_str()), ("tracestate", state.as_str())];
            for (_, value) in sent(Service::Messaging, &caller, &[]) {
                prop_assert!(value.len() <= MAX_STATE && value.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t')), "{}", value);
            }
        }
    }
}
