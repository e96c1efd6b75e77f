//! Dates and times in a locale and a time zone.

use icu::calendar::types::RataDie;
use icu::calendar::{Date, Gregorian};
use icu::datetime::DateTimeFormatterPreferences;
use icu::datetime::fieldsets::enums::CompositeFieldSet;
use icu::datetime::pattern::{DateTimePattern, FixedCalendarDateTimeNames};
use icu::locale::Locale;
use icu::locale::preferences::extensions::unicode::keywords::HourCycle;
use icu::time::zone::models::AtTime;
use icu::time::zone::{UtcOffset, ZoneNameTimestamp};
use icu::time::{Time, TimeZoneInfo, ZonedDateTime};
use serde::Deserialize;
use writeable::{Part, TryWriteable};

use super::parts::{LITERAL, Parts, Piece};
use super::pattern::{self, Token};
use super::zone::Zone;

/// Largest time, in milliseconds from 1970 either way, as the language has it.
const MAX_TIME: f64 = 8.64e15;
const DAY: i64 = 86_400_000;
/// The day that 1970 began with.
const EPOCH: i64 = 719_163;

/// The options of `Intl.DateTimeFormat` that a pattern is chosen by.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct DateOptions {
    time_zone: String,
    hour_cycle: Option<Cycle>,
    pub(crate) weekday: Option<Width>,
    pub(crate) era: Option<Width>,
    pub(crate) year: Option<Width>,
    pub(crate) month: Option<Width>,
    pub(crate) day: Option<Width>,
    pub(crate) day_period: Option<Width>,
    pub(crate) hour: Option<Width>,
    pub(crate) minute: Option<Width>,
    pub(crate) second: Option<Width>,
    pub(crate) fractional_second_digits: Option<u8>,
    pub(crate) time_zone_name: Option<ZoneName>,
    pub(crate) date_style: Option<Style>,
    pub(crate) time_style: Option<Style>,
}

/// How wide a field is.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Width {
    Narrow,
    Short,
    Long,
    Numeric,
    #[serde(rename = "2-digit")]
    TwoDigit,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Style {
    Full,
    Long,
    Medium,
    Short,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(crate) enum ZoneName {
    Short,
    Long,
    ShortOffset,
    LongOffset,
    ShortGeneric,
    LongGeneric,
}

/// The hours of a clock; the first two are what the locale has of 12 and of 24.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Cycle {
    C12,
    C24,
    H11,
    H12,
    H23,
    H24,
}

impl Cycle {
    fn preferred(self) -> HourCycle {
        match self {
            Self::C12 => HourCycle::Clock12,
            Self::C24 => HourCycle::Clock24,
            Self::H11 => HourCycle::H11,
            Self::H12 => HourCycle::H12,
            Self::H23 | Self::H24 => HourCycle::H23,
        }
    }
}

/// A ready `Intl.DateTimeFormat`.
pub(crate) struct Dates {
    zone: Zone,
    tokens: Vec<Token>,
    pattern: DateTimePattern,
    names: FixedCalendarDateTimeNames<Gregorian, CompositeFieldSet>,
}

impl Dates {
    pub(crate) fn new(locale: &Locale, options: &DateOptions) -> Option<Self> {
        let mut preferences = DateTimeFormatterPreferences::from(locale);
        if let Some(cycle) = options.hour_cycle {
            preferences.hour_cycle = Some(cycle.preferred());
        }
        let zone = Zone::of(&options.time_zone)?;
        let tokens = pattern::choose(locale, preferences, options)?;
        let pattern = DateTimePattern::try_from_pattern_str(&pattern::to_text(&tokens)).ok()?;
        let mut names = FixedCalendarDateTimeNames::try_new(preferences).ok()?;
        names.include_for_pattern(&pattern).ok()?;
        Some(Self { zone, tokens, pattern, names })
    }

    /// The parts of a time, in milliseconds since 1970.
    pub(crate) fn format(&self, time: f64) -> Option<Vec<Piece>> {
        let at = at(&self.zone, time)?;
        let mut parts = Parts::new(kind);
        let written = self.names.with_pattern_unchecked(&self.pattern).format(&at).try_write_to_parts(&mut parts);
        written.ok()?.ok()?;
        Some(parts.pieces)
    }

    /// The fields of the pattern and their widths, as `resolvedOptions` has them, in JSON.
    pub(crate) fn resolved(&self) -> String {
        pattern::resolved(&self.tokens).to_string()
    }
}

/// What the clocks and calendars of a zone show at a time.
pub(crate) fn at(zone: &Zone, time: f64) -> Option<ZonedDateTime<Gregorian, TimeZoneInfo<AtTime>>> {
    if !(-MAX_TIME..=MAX_TIME).contains(&time) {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, reason = "it is within bounds that are")]
    let time = time as i64;
    let seconds = time.div_euclid(1000);
    let offset = zone.offset_at(seconds);
    let local = time + i64::from(offset) * 1000;
    let (day, of_day) = (local.div_euclid(DAY), local.rem_euclid(DAY));
    let part = |divisor: i64, count: i64| u8::try_from(of_day / divisor % count).ok();
    let nanosecond = u32::try_from(of_day % 1000 * 1_000_000).ok()?;
    let info = zone.id.with_offset(UtcOffset::try_from_seconds(offset).ok());
    Some(ZonedDateTime {
        date: Date::from_rata_die(RataDie::new(EPOCH + day), Gregorian),
        time: Time::try_new(part(3_600_000, 24)?, part(60_000, 60)?, part(1000, 60)?, nanosecond).ok()?,
        zone: info.with_zone_name_timestamp(ZoneNameTimestamp::from_epoch_seconds(seconds)),
    })
}

/// The field that a text belongs to; a fraction of a second is one of its own.
fn kind(open: &[Part]) -> &'static str {
    let Some(field) = open.iter().find(|part| part.category == "datetime") else { return LITERAL };
    match (field.value, open.last().map(|part| part.value)) {
        ("second", Some("decimal")) => LITERAL,
        ("second", Some("fraction")) => "fractionalSecond",
        (field, _) => field,
    }
}
