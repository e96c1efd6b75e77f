//! Netlink's wire format: builds requests, parses answers. Integers are in host byte order, everything is aligned to 4 bytes.

pub(crate) const NLM_F_CREATE: u16 = 0x400;
pub(crate) const NLM_F_EXCL: u16 = 0x200;
pub(crate) const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
/// Length of a message's header.
const HEADER: usize = 16;

/// A request under construction.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    bytes: Vec<u8>,
}

/// One message of an answer.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) kind: u16,
    pub(crate) body: Vec<u8>,
}

impl Message {
    /// A request that changes something.
    pub(crate) fn change(kind: u16, flags: u16) -> Self {
        Self::new(kind, NLM_F_REQUEST | NLM_F_ACK | flags)
    }

    /// A request for everything of a kind.
    pub(crate) fn dump(kind: u16) -> Self {
        Self::new(kind, NLM_F_REQUEST | NLM_F_DUMP)
    }

    fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([0; 8]);
        Self { bytes }
    }

    /// Appends to the fixed part.
    #[must_use]
    pub(crate) fn fixed(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend(bytes);
        self
    }

    /// Appends an attribute.
    #[must_use]
    pub(crate) fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        // Attributes are device names, addresses and small structures: far below 64 KiB.
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    /// Appends a text attribute with its final zero.
    #[must_use]
    pub(crate) fn text(self, kind: u16, value: &str) -> Self {
        let mut value = value.as_bytes().to_vec();
        value.push(0);
        self.attribute(kind, &value)
    }

    /// Appends an attribute that holds attributes.
    #[must_use]
    pub(crate) fn nested(self, kind: u16, inner: impl FnOnce(Nest) -> Nest) -> Self {
        let inner = inner(Self { bytes: Vec::new() });
        self.attribute(kind, &inner.bytes)
    }

    /// The finished bytes.
    pub(crate) fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        put(&mut self.bytes, 0, length);
        put(&mut self.bytes, 8, sequence);
        self.bytes
    }
}

/// The attributes inside a nested attribute: built like a message, but without a header.
pub(crate) type Nest = Message;

fn put(bytes: &mut [u8], at: usize, value: u32) {
    if let Some(place) = bytes.get_mut(at..at + 4) {
        place.copy_from_slice(&value.to_ne_bytes());
    }
}

/// The messages of a datagram: kind, sequence, body.
pub(crate) fn messages(mut datagram: &[u8]) -> Vec<(u32, Reply)> {
    let mut found = Vec::new();
    while let (Some(length), Some(kind), Some(sequence)) = (u32_at(datagram, 0), u16_at(datagram, 4), u32_at(datagram, 8)) {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let Some(body) = datagram.get(HEADER..length) else { break };
        found.push((sequence, Reply { kind, body: body.to_vec() }));
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

/// The attributes behind a fixed part of that length: kind and value.
pub(crate) fn attributes(body: &[u8], fixed: usize) -> Vec<(u16, &[u8])> {
    let mut rest = body.get(fixed..).unwrap_or_default();
    let mut found = Vec::new();
    while let (Some(length), Some(kind)) = (u16_at(rest, 0), u16_at(rest, 2)) {
        let length = usize::from(length);
        let Some(value) = rest.get(4..length) else { break };
        // The two top bits say "nested" and "big endian".
        found.push((kind & 0x3fff, value));
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

pub(crate) fn u8_at(bytes: &[u8], at: usize) -> Option<u8> {
    bytes.get(at).copied()
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

pub(crate) fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    Some(i32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// A text attribute without its final zero.
pub(crate) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(value.get(..end).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_parsed_as_it_was_built() {
        let message = Message::new(16, 5).fixed(&[7; 16]).text(3, "tap0").nested(18, |nest| nest.text(1, "ifb")).finish(9);
        let read = messages(&message);
        let (sequence, reply) = &read[0];
        assert_eq!((*sequence, reply.kind, read.len()), (9, 16, 1));
        let found = attributes(&reply.body, 16);
        assert_eq!(found[0], (3, &b"tap0\0"[..]));
        assert_eq!(attributes(found[1].1, 0), [(1, &b"ifb\0"[..])]);
    }

    #[test]
    fn truncated_and_malformed_bytes_do_not_panic() {
        let message = Message::new(16, 5).fixed(&[7; 16]).text(3, "tap0").finish(9);
        for end in 0..message.len() {
            for (_, reply) in messages(&message[..end]) {
                let _some = attributes(&reply.body, 16);
            }
        }
        assert!(messages(&[0xff; 64]).is_empty());
        assert!(messages(&[0; 64]).is_empty());
        assert!(attributes(&[0; 64], 0).is_empty());
    }
}
