//! Plural rules, lists, and times told from now.

use fixed_decimal::{Decimal, Sign};
use icu::experimental::relativetime::options::Numeric;
use icu::experimental::relativetime::{RelativeTimeFormatter, RelativeTimeFormatterOptions};
use icu::list::options::{ListFormatterOptions, ListLength};
use icu::list::{ListFormatter, ListFormatterPreferences};
use icu::locale::Locale;
use icu::plurals::{PluralCategory, PluralRuleType, PluralRules, PluralRulesOptions};
use serde::Deserialize;
use writeable::Writeable;

use super::parts::{Parts, Piece, own_name};
use super::round::{self, Digits};

/// Most entries of a list.
const MAX_ENTRIES: usize = 10_000;

#[derive(Deserialize)]
pub(crate) struct PluralOptions {
    r#type: PluralKind,
    #[serde(flatten)]
    digits: Digits,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum PluralKind {
    Cardinal,
    Ordinal,
}

/// A ready `Intl.PluralRules`.
pub(crate) struct Plurals {
    rules: PluralRules,
    digits: Digits,
}

impl Plurals {
    pub(crate) fn new(locale: &Locale, options: PluralOptions) -> Option<Self> {
        let kind = match options.r#type {
            PluralKind::Cardinal => PluralRuleType::Cardinal,
            PluralKind::Ordinal => PluralRuleType::Ordinal,
        };
        let rules = PluralRules::try_new(locale.into(), PluralRulesOptions::default().with_type(kind)).ok()?;
        Some(Self { rules, digits: options.digits })
    }

    /// The category of a number as a text.
    pub(crate) fn select(&self, number: &str) -> Option<String> {
        if number == "NaN" || number.ends_with("Infinity") {
            return Some(name(PluralCategory::Other).to_owned());
        }
        let mut number = round::parse(number)?;
        self.digits.round(&mut number);
        Some(name(self.rules.category_for(&number)).to_owned())
    }

    /// All categories that there are, in JSON.
    pub(crate) fn categories(&self) -> Option<String> {
        let mut all: Vec<_> = self.rules.categories().collect();
        all.sort_by_key(|category| ORDER.iter().position(|(of, _)| of == category));
        serde_json::to_string(&all.into_iter().map(name).collect::<Vec<_>>()).ok()
    }
}

/// The categories, ordered as other engines have them.
const ORDER: [(PluralCategory, &str); 6] = [
    (PluralCategory::Few, "few"),
    (PluralCategory::Many, "many"),
    (PluralCategory::One, "one"),
    (PluralCategory::Two, "two"),
    (PluralCategory::Zero, "zero"),
    (PluralCategory::Other, "other"),
];

fn name(category: PluralCategory) -> &'static str {
    ORDER.iter().find(|(of, _)| *of == category).map_or("other", |(_, name)| name)
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Style {
    Long,
    Short,
    Narrow,
}

#[derive(Deserialize)]
pub(crate) struct ListOptions {
    r#type: ListKind,
    style: Style,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum ListKind {
    Conjunction,
    Disjunction,
    Unit,
}

/// A ready `Intl.ListFormat`.
pub(crate) struct Lists(ListFormatter);

impl Lists {
    pub(crate) fn new(locale: &Locale, options: &ListOptions) -> Option<Self> {
        let length = match options.style {
            Style::Long => ListLength::Wide,
            Style::Short => ListLength::Short,
            Style::Narrow => ListLength::Narrow,
        };
        let (preferences, length) = (ListFormatterPreferences::from(locale), ListFormatterOptions::default().with_length(length));
        let formatter = match options.r#type {
            ListKind::Conjunction => ListFormatter::try_new_and(preferences, length),
            ListKind::Disjunction => ListFormatter::try_new_or(preferences, length),
            ListKind::Unit => ListFormatter::try_new_unit(preferences, length),
        };
        formatter.ok().map(Self)
    }

    /// The parts of a list, which is a JSON array of texts.
    pub(crate) fn format(&self, list: &str) -> Option<Vec<Piece>> {
        let entries: Vec<String> = serde_json::from_str(list).ok()?;
        if entries.len() > MAX_ENTRIES {
            return None;
        }
        let mut parts = Parts::new(own_name);
        self.0.format(entries.iter()).write_to_parts(&mut parts).ok()?;
        Some(parts.pieces)
    }
}

#[derive(Deserialize)]
pub(crate) struct RelativeOptions {
    style: Style,
    numeric: When,
    unit: Unit,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum When {
    Always,
    Auto,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Unit {
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Quarter,
    Year,
}

/// A ready `Intl.RelativeTimeFormat`, for one unit.
pub(crate) struct Relative {
    formatter: RelativeTimeFormatter,
    /// Whether some times have words instead of numbers.
    is_worded: bool,
}

impl Relative {
    pub(crate) fn new(locale: &Locale, options: &RelativeOptions) -> Option<Self> {
        let numeric = match options.numeric {
            When::Always => Numeric::Always,
            When::Auto => Numeric::Auto,
        };
        let numeric = RelativeTimeFormatterOptions::default().with_numeric(numeric);
        type Make = RelativeTimeFormatter;
        let make = match (options.style, options.unit) {
            (Style::Long, Unit::Second) => Make::try_new_long_second,
            (Style::Long, Unit::Minute) => Make::try_new_long_minute,
            (Style::Long, Unit::Hour) => Make::try_new_long_hour,
            (Style::Long, Unit::Day) => Make::try_new_long_day,
            (Style::Long, Unit::Week) => Make::try_new_long_week,
            (Style::Long, Unit::Month) => Make::try_new_long_month,
            (Style::Long, Unit::Quarter) => Make::try_new_long_quarter,
            (Style::Long, Unit::Year) => Make::try_new_long_year,
            (Style::Short, Unit::Second) => Make::try_new_short_second,
            (Style::Short, Unit::Minute) => Make::try_new_short_minute,
            (Style::Short, Unit::Hour) => Make::try_new_short_hour,
            (Style::Short, Unit::Day) => Make::try_new_short_day,
            (Style::Short, Unit::Week) => Make::try_new_short_week,
            (Style::Short, Unit::Month) => Make::try_new_short_month,
            (Style::Short, Unit::Quarter) => Make::try_new_short_quarter,
            (Style::Short, Unit::Year) => Make::try_new_short_year,
            (Style::Narrow, Unit::Second) => Make::try_new_narrow_second,
            (Style::Narrow, Unit::Minute) => Make::try_new_narrow_minute,
            (Style::Narrow, Unit::Hour) => Make::try_new_narrow_hour,
            (Style::Narrow, Unit::Day) => Make::try_new_narrow_day,
            (Style::Narrow, Unit::Week) => Make::try_new_narrow_week,
            (Style::Narrow, Unit::Month) => Make::try_new_narrow_month,
            (Style::Narrow, Unit::Quarter) => Make::try_new_narrow_quarter,
            (Style::Narrow, Unit::Year) => Make::try_new_narrow_year,
        };
        let formatter = make(locale.into(), numeric).ok()?;
        Some(Self { formatter, is_worded: matches!(options.numeric, When::Auto) })
    }

    /// The parts of a number of units from now.
    pub(crate) fn format(&self, number: &str) -> Option<Vec<Piece>> {
        let mut number: Decimal = round::parse(number)?;
        Digits::default().round(&mut number);
        if self.is_worded && number.absolute.is_zero() {
            // Zero is now, from whichever side.
            number.sign = Sign::None;
        }
        let mut parts = Parts::new(own_name);
        self.formatter.format(number).write_to_parts(&mut parts).ok()?;
        Some(parts.pieces)
    }
}
