//! A record as a line of a file: `<checksum> <number> <JSON>`. A line that is damaged is known by its checksum, and the next one is found
//! by its line end, which JSON never has inside.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Length of a checksum with the blank after it.
const CHECKSUM: usize = 9;

/// Appends a record to what is to be written.
pub(super) fn write(seq: u64, record: &impl Serialize, out: &mut Vec<u8>) {
    let mut line = format!("{seq} ").into_bytes();
    if serde_json::to_writer(&mut line, record).is_err() {
        return;
    }
    out.extend_from_slice(checksum_of(&line).as_bytes());
    out.append(&mut line);
    out.push(b'\n');
}

/// What stands before the rest of a line.
fn checksum_of(rest: &[u8]) -> String {
    format!("{:08x} ", crc32fast::hash(rest))
}

/// The number of a record, as it stands there, whether or not the line is whole.
pub(super) fn number(line: &[u8]) -> Option<u64> {
    let rest = line.get(CHECKSUM..)?;
    let end = rest.iter().position(|byte| *byte == b' ')?;
    std::str::from_utf8(rest.get(..end)?).ok()?.parse().ok()
}

/// Reads a record; nothing where the line is damaged.
pub(super) fn read<T: DeserializeOwned>(line: &[u8]) -> Option<T> {
    let (checksum, rest) = line.split_at_checked(CHECKSUM)?;
    if checksum != checksum_of(rest).as_bytes() {
        return None;
    }
    let blank = rest.iter().position(|byte| *byte == b' ')?;
    serde_json::from_slice(rest.get(blank + 1..)?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_record_is_one_line_and_is_read_as_it_was_written(seq: u64, text in any::<String>()) {
            let mut out = Vec::new();
            write(seq, &text, &mut out);
            prop_assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1);
            let line = out.strip_suffix(b"\n").unwrap();
            prop_assert_eq!(number(line), Some(seq));
            prop_assert_eq!(read::<String>(line), Some(text));
        }

        #[test]
        fn no_damage_goes_unseen_and_none_makes_the_reader_panic(
            text in any::<String>(), at in any::<prop::sample::Index>(), flip in 1_u8.., cut in any::<prop::sample::Index>(),
        ) {
            let mut out = Vec::new();
            write(7, &text, &mut out);
            let mut line = out.strip_suffix(b"\n").unwrap().to_vec();
            let whole = line.clone();
            line[at.index(whole.len())] ^= flip;
            prop_assert_eq!(read::<String>(&line), None);
            prop_assert_eq!(read::<String>(&whole[..cut.index(whole.len())]), None);
            number(&line);
        }
    }
}
