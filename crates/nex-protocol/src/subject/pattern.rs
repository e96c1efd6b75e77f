//! Subject patterns: which are legal, and what two of them have in common.

/// Whether two subject patterns can match a common subject; wildcards on both sides.
#[must_use]
pub fn overlap(left: &str, right: &str) -> bool {
    let (mut left, mut right) = (left.split('.'), right.split('.'));
    loop {
        match (left.next(), right.next()) {
            (None, None) => return true,
            (Some(">"), Some(_)) | (Some(_), Some(">")) => return true,
            (Some(a), Some(b)) if a == "*" || b == "*" || a == b => {}
            _ => return false,
        }
    }
}

/// Whether a pattern can match a subject that belongs to a server, a node or somebody's inbox: those whose first token begins with `$`
/// or `_`. A pattern that begins with a wildcard can.
#[must_use]
pub fn reaches_reserved(pattern: &str) -> bool {
    pattern.starts_with(['$', '_', '*', '>'])
}

/// Whether every subject that a pattern matches is matched by another, too.
#[must_use]
pub fn covers(wide: &str, narrow: &str) -> bool {
    let (mut wide, mut narrow) = (wide.split('.'), narrow.split('.'));
    loop {
        match (wide.next(), narrow.next()) {
            (None, None) | (Some(">"), Some(_)) => return true,
            (Some("*"), Some(token)) if token != ">" => {}
            (Some(a), Some(b)) if a == b => {}
            _ => return false,
        }
    }
}

/// Whether a text may be subscribed: tokens without white space, wildcards only as whole tokens, `>` only last.
#[must_use]
pub fn is_valid_pattern(pattern: &str) -> bool {
    if pattern.is_empty() || pattern.len() > 512 {
        return false;
    }
    let mut tokens = pattern.split('.').peekable();
    while let Some(token) = tokens.next() {
        let wild = token == "*" || (token == ">" && tokens.peek().is_none());
        let plain =
            !token.is_empty() && !token.contains(['*', '>']) && !token.contains(|c: char| c.is_whitespace() || c.is_control());
        if !wild && !plain {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &str, subject: &str) -> bool {
        let (mut pattern, mut subject) = (pattern.split('.'), subject.split('.'));
        loop {
            match (pattern.next(), subject.next()) {
                (None, None) | (Some(">"), Some(_)) => return true,
                (Some(p), Some(s)) if p == "*" || p == s => {}
                _ => return false,
            }
        }
    }

    #[test]
    fn overlap_knows_wildcards_on_both_sides() {
        for (a, b, expected) in [
            ("$NEX.>", "$NEX.AUCTION", true),
            ("*.AUCTION", "$NEX.>", true),
            (">", "$SYS.x", true),
            ("a.b", "a.b.c", false),
            ("a.*", "a.b.c", false),
            ("a.>", "a", false),
        ] {
            assert_eq!(overlap(a, b), expected, "{a} {b}");
            assert_eq!(overlap(b, a), expected, "{b} {a}");
        }
    }

    #[test]
    fn reserved_subjects_are_reached_by_their_names_and_by_leading_wildcards() {
        for pattern in ["$NEX.PING", "_INBOX.>", "_R_.x", ">", "*.x", "*", "$MQTT.>"] {
            assert!(reaches_reserved(pattern), "{pattern}");
        }
        for pattern in ["fn.greet", "a.>", "a.*.$b"] {
            assert!(!reaches_reserved(pattern), "{pattern}");
        }
        assert!(
            covers("a.>", "a.b.*")
                && covers("a.*", "a.b")
                && !covers("a.*", "a.>")
                && !covers("a.b", "a.*")
                && !covers("a.>", "a")
        );
    }

    proptest! {
        #[test]
        fn a_subject_matched_by_two_patterns_makes_them_overlap(
            subject in "[ab](\\.[ab]){0,3}", left in "[ab*](\\.[ab*]){0,3}(\\.>)?", right in "[ab*](\\.[ab*]){0,3}(\\.>)?",
        ) {
            prop_assert!(is_valid_pattern(&left));
            if matches(&left, &subject) && matches(&right, &subject) {
                prop_assert!(overlap(&left, &right));
            }
        }

        #[test]
        fn what_a_covered_pattern_matches_its_cover_matches(
            subject in "[ab](\\.[ab]){0,3}", wide in "[ab*](\\.[ab*]){0,3}(\\.>)?", narrow in "[ab*](\\.[ab*]){0,3}(\\.>)?",
        ) {
            if covers(&wide, &narrow) && matches(&narrow, &subject) {
                prop_assert!(matches(&wide, &subject));
            }
        }

        #[test]
        fn no_text_makes_the_functions_panic(text in "\\PC*") {
            prop_assert_eq!(overlap(&text, "a.>"), overlap("a.>", &text));
            prop_assert!(!is_valid_pattern(&text) || covers(">", &text));
        }
    }
}
