//! A line split into words as a shell splits it: blanks part words, quotes and backslashes keep them together. Nothing is expanded.

/// A line that has no end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum SplitError {
    /// A quote was opened and not closed.
    OpenQuote(char),
    /// The line ends in a backslash.
    LoneBackslash,
}

impl std::fmt::Display for SplitError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::OpenQuote(quote) => write!(f, "a {quote} is opened and never closed; next: close it, or write \\{quote}"),
            Self::LoneBackslash => f.write_str("it ends in a backslash; next: write \\\\ for a backslash"),
        }
    }
}

impl std::error::Error for SplitError {}

/// Splits.
pub(crate) fn split(line: &str) -> Result<Vec<String>, SplitError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        match c {
            ' ' | '\t' | '\n' => words.extend(word.take()),
            '\'' | '"' => quoted(c, &mut rest, word.get_or_insert_default())?,
            '\\' => word.get_or_insert_default().push(rest.next().ok_or(SplitError::LoneBackslash)?),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

fn quoted(quote: char, rest: &mut std::str::Chars<'_>, word: &mut String) -> Result<(), SplitError> {
    while let Some(c) = rest.next() {
        match c {
            c if c == quote => return Ok(()),
            '\\' if quote == '"' => match rest.next() {
                Some(c @ ('"' | '\\' | '$' | '`')) => word.push(c),
                Some(c) => word.extend(['\\', c]),
                None => break,
            },
            c => word.push(c),
        }
    }
    Err(SplitError::OpenQuote(quote))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_a_shell_splits_them() {
        for (line, expected) in [
            ("", &[][..]),
            ("  -a   b ", &["-a", "b"]),
            ("'two words' \"and 'one'\"", &["two words", "and 'one'"]),
            (r#"a\ b "c\"d" '\n' "\n""#, &["a b", "c\"d", "\\n", "\\n"]),
            ("--x='' ''", &["--x=", ""]),
        ] {
            assert_eq!(split(line).unwrap(), expected, "{line}");
        }
        assert_eq!(split("'a"), Err(SplitError::OpenQuote('\'')));
        assert_eq!(split("\"a\\"), Err(SplitError::OpenQuote('"')));
        assert_eq!(split("a\\"), Err(SplitError::LoneBackslash));
    }
}
