//! Texts: how they are ordered, and where their characters, words and sentences end.

use icu::collator::options::{AlternateHandling, CaseLevel, CollatorOptions, Strength};
use icu::collator::{Collator, CollatorBorrowed};
use icu::locale::Locale;
use icu::segmenter::options::{SentenceBreakInvariantOptions, WordBreakInvariantOptions};
use icu::segmenter::{GraphemeClusterSegmenter, SentenceSegmenter, WordSegmenter};
use serde::Deserialize;

/// Longest piece, in units of UTF-16. The script gives a longer text piece by piece, so that it can be interrupted between two.
const MAX_UNITS: usize = 1 << 18;

/// The options of `Intl.Collator`, but for those that are in the locale.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Comparing {
    sensitivity: Sensitivity,
    ignore_punctuation: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Sensitivity {
    Base,
    Accent,
    Case,
    Variant,
}

/// A ready `Intl.Collator`.
pub(crate) fn collator(locale: &Locale, comparing: &Comparing) -> Option<CollatorBorrowed<'static>> {
    let mut options = CollatorOptions::default();
    options.strength = Some(match comparing.sensitivity {
        Sensitivity::Base | Sensitivity::Case => Strength::Primary,
        Sensitivity::Accent => Strength::Secondary,
        Sensitivity::Variant => Strength::Tertiary,
    });
    options.case_level = matches!(comparing.sensitivity, Sensitivity::Case).then_some(CaseLevel::On);
    options.alternate_handling = comparing.ignore_punctuation.then_some(AlternateHandling::Shifted);
    Collator::try_new(locale.into(), options).ok()
}

/// Where each segment ends, in units of UTF-16, times two; one more for words. Numbers of four bytes, the least first.
pub(crate) fn ends(granularity: &str, text: &str) -> Option<Vec<u8>> {
    let units: Vec<u16> = text.encode_utf16().take(MAX_UNITS + 1).collect();
    if units.len() > MAX_UNITS {
        return None;
    }
    let mut ends = Vec::new();
    let mut push =
        |end: usize, is_word: bool| ends.extend(u32::try_from(end * 2 + usize::from(is_word)).unwrap_or_default().to_le_bytes());
    match granularity {
        "grapheme" => GraphemeClusterSegmenter::new().segment_utf16(&units).skip(1).for_each(|end| push(end, false)),
        "word" => {
            let words = WordSegmenter::new_auto(WordBreakInvariantOptions::default());
            words.segment_utf16(&units).iter_with_word_type().skip(1).for_each(|(end, kind)| push(end, kind.is_word_like()));
        }
        "sentence" => {
            let sentences = SentenceSegmenter::new(SentenceBreakInvariantOptions::default());
            sentences.segment_utf16(&units).skip(1).for_each(|end| push(end, false));
        }
        _ => return None,
    }
    Some(ends)
}
