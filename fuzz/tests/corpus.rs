//! Runs every target on its corpus and on mutations of it, the same in every run.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use nex_fuzz::{TARGETS, Target};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

/// Number of mutations per target.
const MUTATIONS: usize = 8_000;

/// Tokens that are inserted into inputs.
const TOKENS: [&[u8]; 16] = [
    b"\"",
    b"{",
    b"}",
    b"[",
    b"null",
    b"-1",
    b"1e999",
    b"18446744073709551616",
    b"\\u0000",
    b"\\ud800",
    b".",
    b"*",
    b">",
    b"/",
    b"\xff",
    "🦀".as_bytes(),
];

#[cfg(test)]
mod corpus {
    use super::*;

    fn files(target: &str) -> Vec<(String, Vec<u8>)> {
        let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
        let entries = std::fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
        let mut files: Vec<_> = entries
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(&path).unwrap()))
            .collect();
        files.sort();
        assert!(!files.is_empty(), "{} is empty", dir.display());
        files
    }

    fn check(name: &str, from: &str, target: Target, input: &[u8]) {
        let held = catch_unwind(AssertUnwindSafe(|| target(input)));
        assert!(held.is_ok(), "{name} broke on this input, made from {from}: {:?}", String::from_utf8_lossy(input));
    }

    #[test]
    fn every_target_holds_on_its_corpus_and_on_mutations_of_it() {
        for (name, target) in TARGETS {
            let files = files(name);
            check(name, "nothing", target, b"");
            for (file, input) in &files {
                check(name, file, target, input);
            }
            let mut random = StdRng::seed_from_u64(7);
            for _ in 0..MUTATIONS {
                let (file, input) = &files[random.random_range(0..files.len())];
                let (_, other) = &files[random.random_range(0..files.len())];
                check(name, file, target, &mutate(input.clone(), other, &mut random));
            }
        }
    }

    #[test]
    fn every_corpus_directory_belongs_to_a_target() {
        let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus");
        for entry in std::fs::read_dir(dir).unwrap() {
            let name = entry.unwrap().file_name().to_string_lossy().into_owned();
            assert!(TARGETS.iter().any(|(target, _)| *target == name), "no target is called {name}");
        }
    }

    fn mutate(mut input: Vec<u8>, other: &[u8], random: &mut StdRng) -> Vec<u8> {
        for _ in 0..random.random_range(1..5) {
            let at = random.random_range(0..=input.len());
            let end = (at + random.random_range(0..16)).min(input.len());
            match random.random_range(0..6) {
                0 if at < input.len() => input[at] ^= 1 << random.random_range(0..8),
                1 => input.insert(at, random.random()),
                2 => drop(input.drain(at..end)),
                3 => drop(input.splice(at..at, TOKENS[random.random_range(0..TOKENS.len())].iter().copied())),
                4 => drop(input.splice(at..end, other[random.random_range(0..=other.len())..].iter().copied())),
                _ => input.truncate(at),
            }
        }
        input
    }
}
