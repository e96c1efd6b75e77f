//! TypeScript: its types are replaced by blanks, so that what is left is JavaScript, each character at the line and column where it was.

use std::sync::{Arc, Mutex, PoisonError};
use std::{io, thread};

use swc_common::errors::{DiagnosticBuilder, Emitter, HANDLER, Handler};
use swc_common::sync::Lrc;
use swc_common::{GLOBALS, Globals, SourceMap};
use swc_ts_fast_strip::{ErrorCode, Options, operate};

/// Stack of the parser, which descends into the source: room for two thousand levels where it is not optimised, many more where it is. A
/// source that nests deeper ends its agent, and no other.
const STACK_BYTES: usize = 64 * 1024 * 1024;
/// What the library says of syntax for which code would have to be made, and what to do.
const NEEDS_CODE: &str = " in strip-only mode";
const NEEDS_CODE_HELP: &str =
    ": types are left out and no code is made for them; write it as JavaScript, or compile the file first";

/// Why a source is no JavaScript without its types.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StripError {
    /// It is no TypeScript.
    #[error("{0}")]
    Syntax(String),
    /// It is, but not by its types alone: an `enum`, a `namespace`, a parameter property.
    #[error("{0}")]
    NeedsCode(String),
    /// The host has no room for the parser.
    #[error("cannot start a thread for the TypeScript parser: {0}")]
    Host(#[from] io::Error),
}

/// The source without its types. `file` is its name in errors.
pub(crate) fn strip(source: &str, file: &str) -> Result<String, StripError> {
    thread::scope(|scope| {
        let builder = thread::Builder::new().name("ts-strip".to_owned()).stack_size(STACK_BYTES);
        let stripped = builder.spawn_scoped(scope, || strip_here(source, file))?.join();
        stripped.unwrap_or_else(|_panic| Err(StripError::Syntax(format!("SyntaxError: the TypeScript parser failed on {file}"))))
    })
}

fn strip_here(source: &str, file: &str) -> Result<String, StripError> {
    let map = Lrc::new(SourceMap::default());
    let complaints = Complaints::default();
    let emitter = Collector { map: Lrc::clone(&map), file: file.to_owned(), complaints: Arc::clone(&complaints) };
    let handler = Handler::with_emitter(false, false, Box::new(emitter));
    let options = Options { filename: Some(file.to_owned()), ..Options::default() };
    let stripped = GLOBALS.set(&Globals::new(), || HANDLER.set(&handler, || operate(&map, &handler, source.to_owned(), options)));
    stripped.map(|stripped| stripped.code).map_err(|error| {
        let first = complaints.lock().unwrap_or_else(PoisonError::into_inner).drain(..).next();
        let text = format!("SyntaxError: {}", first.unwrap_or(error.message));
        match error.code {
            ErrorCode::UnsupportedSyntax => StripError::NeedsCode(text),
            _ => StripError::Syntax(text),
        }
    })
}

type Complaints = Arc<Mutex<Vec<String>>>;

/// Keeps what the parser says, with the place where.
struct Collector {
    map: Lrc<SourceMap>,
    file: String,
    complaints: Complaints,
}

impl Emitter for Collector {
    fn emit(&mut self, diagnostic: &mut DiagnosticBuilder<'_>) {
        let text = diagnostic.message().replace(NEEDS_CODE, NEEDS_CODE_HELP);
        let place = diagnostic.span.primary_span().map(|span| self.map.lookup_char_pos(span.lo()));
        let place = place.map(|place| format!(" at {}:{}:{}", self.file, place.line, place.col.0 + 1)).unwrap_or_default();
        self.complaints.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{text}{place}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_become_blanks_and_everything_else_stays_where_it_was() {
        let source = "interface Order { id: string }\nexport default <T>(s: string, p?: T): p is T => s!.length as number;\n";
        let stripped = strip(source, "a.ts").unwrap();
        assert_eq!(stripped.len(), source.len());
        assert_eq!(stripped.lines().count(), source.lines().count());
        assert!(stripped.ends_with("=> s .length          ;\n"), "{stripped}");
    }

    #[test]
    fn javascript_stays_as_it_is() {
        for source in
            ["(subject, payload) => payload", "a < b || c > (d)", "const x = 1; export default { fetch() { return x } }"]
        {
            assert_eq!(strip(source, "a.ts").unwrap().replace(' ', ""), source.replace(' ', ""));
        }
    }

    #[test]
    fn syntax_that_needs_code_is_refused_with_its_name_and_place() {
        for (source, expected) in [
            ("let a = 1;\n  enum Color { Red }", "TypeScript enum is not supported: types are left out"),
            ("let a = 1;\n  namespace N { export const x = 1 }", "namespace"),
            ("let a = 1;class A { constructor(\n  private x: number) {} }", "parameter property"),
            ("let a = 1;\n  import f = require('f')", "import equals"),
        ] {
            let error = strip(source, "a.ts").unwrap_err();
            assert!(matches!(error, StripError::NeedsCode(_)), "{error}");
            let text = error.to_string();
            assert!(text.starts_with("SyntaxError: ") && text.contains(expected) && text.contains(" at a.ts:2:"), "{text}");
        }
        let error = strip("let x: = 1", "a.ts").unwrap_err();
        assert!(matches!(&error, StripError::Syntax(text) if text.contains("at a.ts:1:")), "{error}");
    }

    #[test]
    fn a_source_may_nest_as_deep_as_no_one_writes() {
        let deep = |depth: usize| format!("{}1{}", "(".repeat(depth), ")".repeat(depth));
        assert!(strip(&deep(2_000), "a.ts").is_ok());
    }
}
