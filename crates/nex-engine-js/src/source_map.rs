//! The source map that a bundler writes into its bundle: errors name the lines that somebody wrote.
//!
//! It is decoded anew for each error, from its own text: what a script brings is kept once, however many places it claims to have.

use data_encoding::BASE64;
use serde::Deserialize;

/// What begins the line with the map.
const COMMENT: &str = "//# sourceMappingURL=data:application/json;";
/// Places in one text that are looked up.
const MAX_PLACES: usize = 32;

/// A map from the places of a bundle to those of its sources.
#[derive(Debug, Deserialize)]
pub(crate) struct SourceMap {
    sources: Vec<Option<String>>,
    mappings: String,
}

/// A place of the bundle, from 0, as so many bytes of a text.
#[derive(Debug, Clone, Copy)]
struct Place {
    line: usize,
    column: i64,
    bytes: usize,
}

/// Where something was written, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Written {
    source: i64,
    line: i64,
    column: i64,
}

impl SourceMap {
    /// Reads the map in the last such line of a bundle, if it has one that can be read.
    pub(crate) fn read(bundle: &str) -> Option<Self> {
        let (_, data) = bundle.get(bundle.rfind(COMMENT)?..)?.lines().next()?.split_once("base64,")?;
        serde_json::from_slice(&BASE64.decode(data.trim_end().as_bytes()).ok()?).ok()
    }

    /// A text, with the places of the bundle in it (`file:line:column`) replaced by those of its sources.
    pub(crate) fn mapped(&self, file: &str, text: &str) -> String {
        let found: Vec<_> = text
            .match_indices(file)
            .filter_map(|(at, name)| Some((at, place_in(text.get(at + name.len()..)?)?)))
            .take(MAX_PLACES)
            .collect();
        let written = self.written(&found.iter().map(|(_, place)| *place).collect::<Vec<_>>());
        let (mut mapped, mut done) = (String::with_capacity(text.len()), 0);
        for ((at, place), written) in found.into_iter().zip(written) {
            let Some(written) = written.and_then(|written| self.named(written)) else { continue };
            mapped.push_str(text.get(done..at).unwrap_or_default());
            mapped.push_str(&written);
            done = at + file.len() + place.bytes;
        }
        mapped + text.get(done..).unwrap_or_default()
    }

    fn named(&self, Written { source, line, column }: Written) -> Option<String> {
        let source = self.sources.get(usize::try_from(source).ok()?)?.as_ref()?;
        Some(format!("{source}:{}:{}", line + 1, column + 1))
    }

    /// What was written at each of these places, in one pass.
    fn written(&self, places: &[Place]) -> Vec<Option<Written>> {
        let mut found = vec![None; places.len()];
        let last = places.iter().map(|place| place.line).max();
        let mut at = Written { source: 0, line: 0, column: 0 };
        for (line, segments) in self.mappings.split(';').enumerate().take_while(|(line, _)| Some(*line) <= last) {
            let mut start = 0_i64;
            for segment in segments.split(',') {
                let mut fields = segment.bytes();
                let Some(moved) = vlq(&mut fields) else { continue };
                start = start.saturating_add(moved);
                if let (Some(source), Some(lines), Some(columns)) = (vlq(&mut fields), vlq(&mut fields), vlq(&mut fields)) {
                    at = Written {
                        source: at.source.saturating_add(source),
                        line: at.line.saturating_add(lines),
                        column: at.column.saturating_add(columns),
                    };
                    for (place, found) in places.iter().zip(&mut found) {
                        if place.line == line && start <= place.column {
                            *found = Some(at);
                        }
                    }
                }
            }
        }
        found
    }
}

/// Reads `:line:column`, which count from 1.
fn place_in(text: &str) -> Option<Place> {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let line = text.strip_prefix(':')?;
    let (line, rest) = line.split_at_checked(digits(line))?;
    let column = rest.strip_prefix(':')?;
    let column = column.get(..digits(column))?;
    let bytes = 2 + line.len() + column.len();
    Some(Place { line: line.parse::<usize>().ok()?.checked_sub(1)?, column: column.parse::<i64>().ok()?.checked_sub(1)?, bytes })
}

/// A number of a segment: base 64, five bits a digit, the lowest first, the lowest bit the sign.
fn vlq(digits: &mut impl Iterator<Item = u8>) -> Option<i64> {
    let (mut number, mut shift) = (0_i64, 0_u32);
    loop {
        let digit = match digits.next()? {
            digit @ b'A'..=b'Z' => digit - b'A',
            digit @ b'a'..=b'z' => digit - b'a' + 26,
            digit @ b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        if shift > 30 {
            return None;
        }
        number |= i64::from(digit & 31) << shift;
        if digit & 32 == 0 {
            return Some(if number & 1 == 0 { number >> 1 } else { -(number >> 1) });
        }
        shift += 5;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bundle(map: &str) -> String {
        format!("code\n{COMMENT}charset=utf-8;base64,{}\n", BASE64.encode(map.as_bytes()))
    }

    #[test]
    fn places_of_a_bundle_are_those_of_its_sources() {
        // As esbuild maps `const a: number = 1;\nthrow a;` and a second file.
        let map = r#"{"version":3,"sources":["src/a.ts","src/b.ts"],"mappings":";AAAA,IAAM,IAAY;AAClB,MAAM;;ACDN"}"#;
        let map = SourceMap::read(&bundle(map)).unwrap();
        let mapped = map.mapped(
            "guest.js",
            "Error: x at f (guest.js:3:7), guest.js:2:5 and guest.js:5:1, not guest.js:1:1, guest.js:9:9 or guest.js",
        );
        assert_eq!(
            mapped,
            "Error: x at f (src/a.ts:2:7), src/a.ts:1:7 and src/b.ts:1:1, not guest.js:1:1, guest.js:9:9 or guest.js"
        );
    }

    #[test]
    fn a_bundle_without_a_readable_map_has_none() {
        for damaged in ["", "{}", r#"{"sources":[]}"#, "nonsense"] {
            assert!(SourceMap::read(&bundle(damaged)).is_none(), "{damaged}");
        }
        assert!(SourceMap::read("code").is_none());
        assert!(SourceMap::read("//# sourceMappingURL=data:application/json;base64,%%%").is_none());
    }

    proptest! {
        #[test]
        fn whatever_stands_in_a_map_a_text_has_an_answer(mappings in "[A-Za-z0-9+/,;]{0,200}", line in 0_usize..9, column in 0_usize..99) {
            let map = SourceMap { sources: vec![Some("s".into()), None], mappings };
            map.mapped("g.js", &format!("at f (g.js:{line}:{column}) g.js: g.js:9"));
        }
    }
}
