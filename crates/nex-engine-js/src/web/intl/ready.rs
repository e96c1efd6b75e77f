//! Formatters that are ready: making one takes longer than using it. A few are kept for each thread, by what was asked of it.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::rc::Rc;

use icu::collator::CollatorBorrowed;
use icu::locale::Locale;

use super::date::Dates;
use super::number::Numbers;
use super::parts::to_json;
use super::texts;
use super::words::{Lists, Plurals, Relative};

/// Longest options of a formatter as a text, in bytes.
const MAX_OPTIONS_BYTES: usize = 4096;
/// Formatters kept for a thread.
const MAX_READY: usize = 16;

/// A formatter of any kind.
enum Ready {
    Dates(Box<Dates>),
    Numbers(Box<Numbers>),
    Plurals(Box<Plurals>),
    Lists(Lists),
    Relative(Box<Relative>),
    Collator(CollatorBorrowed<'static>),
}

thread_local! {
    /// The one used last comes last.
    static READY: RefCell<Vec<(String, Rc<Ready>)>> = const { RefCell::new(Vec::new()) };
}

/// The parts of a value in JSON.
pub(crate) fn format(what: &str, locale: &str, options: &str, value: &str) -> Option<String> {
    let pieces = match &*ready(what, locale, options)? {
        Ready::Dates(dates) => dates.format(value.parse().ok()?)?,
        Ready::Numbers(numbers) => numbers.format(value)?,
        Ready::Plurals(plurals) => return plurals.select(value),
        Ready::Lists(lists) => lists.format(value)?,
        Ready::Relative(relative) => relative.format(value)?,
        Ready::Collator(_) => return None,
    };
    to_json(&pieces)
}

/// What a formatter has made of its options, in JSON.
pub(crate) fn resolve(what: &str, locale: &str, options: &str) -> Option<String> {
    match &*ready(what, locale, options)? {
        Ready::Dates(dates) => Some(dates.resolved()),
        Ready::Plurals(plurals) => plurals.categories(),
        Ready::Numbers(_) | Ready::Lists(_) | Ready::Relative(_) | Ready::Collator(_) => Some("{}".to_owned()),
    }
}

/// How two texts follow each other.
pub(crate) fn compare(locale: &str, options: &str, one: &str, other: &str) -> Option<Ordering> {
    match &*ready("collator", locale, options)? {
        Ready::Collator(collator) => Some(collator.compare(one, other)),
        _ => None,
    }
}

fn ready(what: &str, locale: &str, options: &str) -> Option<Rc<Ready>> {
    if options.len() > MAX_OPTIONS_BYTES {
        return None;
    }
    let key = format!("{what} {locale} {options}");
    READY.with_borrow_mut(|all| {
        let found = all.iter().position(|(of, _)| *of == key).map(|at| all.remove(at));
        let entry = match found {
            Some(entry) => entry,
            None => (key, Rc::new(make(what, &super::locale::parse(locale)?, options)?)),
        };
        let ready = Rc::clone(&entry.1);
        if all.len() >= MAX_READY {
            all.remove(0);
        }
        all.push(entry);
        Some(ready)
    })
}

fn make(what: &str, locale: &Locale, options: &str) -> Option<Ready> {
    Some(match what {
        "date" => Ready::Dates(Box::new(Dates::new(locale, &serde_json::from_str(options).ok()?)?)),
        "number" => Ready::Numbers(Box::new(Numbers::new(locale, serde_json::from_str(options).ok()?)?)),
        "plural" => Ready::Plurals(Box::new(Plurals::new(locale, serde_json::from_str(options).ok()?)?)),
        "list" => Ready::Lists(Lists::new(locale, &serde_json::from_str(options).ok()?)?),
        "relative" => Ready::Relative(Box::new(Relative::new(locale, &serde_json::from_str(options).ok()?)?)),
        "collator" => Ready::Collator(texts::collator(locale, &serde_json::from_str(options).ok()?)?),
        _ => return None,
    })
}
