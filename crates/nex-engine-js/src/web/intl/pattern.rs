//! Chooses the pattern of a date: ICU4X's for the fields that are asked for, made as wide as they are.
//!
//! ICU4X has patterns for sets of fields in three lengths; `Intl.DateTimeFormat` has a width for each field. So the pattern of the set is
//! taken apart, its widths are replaced, and fields that were not asked for are left out.

use icu::calendar::Gregorian;
use icu::datetime::fieldbag::DateTimeFieldBag;
use icu::datetime::fieldsets::builder::{DateFields, FieldSetBuilder, ZoneStyle};
use icu::datetime::options::{Length, TimePrecision, YearStyle};
use icu::datetime::{DateTimeFormatterPreferences, FixedCalendarDateTimeFormatter};
use icu::locale::Locale;
use serde_json::{Map, Value};

use super::date::{self, DateOptions, Style, Width, ZoneName};
use super::numeric;
use super::zone::Zone;

/// A field with its letter and width, or the text between two.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Token {
    Field(char, usize),
    Literal(String),
}

/// The pattern for these options.
pub(crate) fn choose(locale: &Locale, preferences: DateTimeFormatterPreferences, options: &DateOptions) -> Option<Vec<Token>> {
    if options.date_style.is_some() || options.time_style.is_some() {
        return styled(preferences, options);
    }
    let mut builder = DateTimeFieldBag::from_skeleton(&skeleton(options)).to_field_set_builder();
    builder.length = Some(length(options));
    builder.alignment = None;
    builder.year_style =
        options.year.or(options.era).map(|_| if options.era.is_some() { YearStyle::WithEra } else { YearStyle::Full });
    let pattern = if builder.time_precision.is_none() && builder.zone_style.is_some() && builder.date_fields.is_some() {
        with_zone(preferences, &builder)?
    } else {
        of_fields(preferences, &builder)?
    };
    let pattern = match options.month {
        Some(Width::Short | Width::Narrow) => with_named_month(preferences, &builder, pattern)?,
        Some(Width::Numeric | Width::TwoDigit) => with_usual_digits(locale, preferences, options, pattern)?,
        _ => pattern,
    };
    let mut tokens = tokens(&pattern);
    keep(&mut tokens, options);
    widen(&mut tokens, options);
    Some(tokens)
}

/// A date and a zone are divided like a date and a time; ICU4X has a blank there.
fn with_zone(preferences: DateTimeFormatterPreferences, builder: &FieldSetBuilder) -> Option<String> {
    let (mut both, mut time, mut zone) = (builder.clone(), FieldSetBuilder::new(), FieldSetBuilder::new());
    both.time_precision = Some(TimePrecision::Minute);
    zone.zone_style = both.zone_style.take();
    (time.length, time.time_precision) = (both.length, both.time_precision);
    Some(of_fields(preferences, &both)?.replacen(&of_fields(preferences, &time)?, &of_fields(preferences, &zone)?, 1))
}

/// In some locales the middle length has the month's number where its name is asked for; the long one then has the name.
fn with_named_month(preferences: DateTimeFormatterPreferences, builder: &FieldSetBuilder, pattern: String) -> Option<String> {
    let mut date = FieldSetBuilder::new();
    (date.date_fields, date.year_style, date.length) = (builder.date_fields, builder.year_style, builder.length);
    let middle = of_fields(preferences, &date)?;
    if tokens(&middle).iter().any(|token| matches!(token, Token::Field('M' | 'L', 3..))) {
        return Some(pattern);
    }
    date.length = Some(Length::Long);
    Some(pattern.replacen(&middle, &of_fields(preferences, &date)?, 1))
}

/// A numeric date as CLDR has it, instead of that of `dateStyle: "short"`.
fn with_usual_digits(
    locale: &Locale,
    preferences: DateTimeFormatterPreferences,
    options: &DateOptions,
    pattern: String,
) -> Option<String> {
    let Some(usual) = options.day.and_then(|_| numeric::pattern(locale, options.year.is_some())) else { return Some(pattern) };
    let mut date = FieldSetBuilder::new();
    date.length = Some(Length::Short);
    date.date_fields = Some(if options.year.is_some() { DateFields::YMD } else { DateFields::MD });
    date.year_style = options.year.map(|_| YearStyle::Full);
    Some(pattern.replacen(&of_fields(preferences, &date)?, usual, 1))
}

/// The pattern of `dateStyle` and `timeStyle`.
fn styled(preferences: DateTimeFormatterPreferences, options: &DateOptions) -> Option<Vec<Token>> {
    let mut builder = FieldSetBuilder::new();
    builder.date_fields = options.date_style.map(|style| if style == Style::Full { DateFields::YMDE } else { DateFields::YMD });
    builder.length = Some(match options.date_style {
        Some(Style::Full | Style::Long) => Length::Long,
        Some(Style::Short) => Length::Short,
        Some(Style::Medium) | None => Length::Medium,
    });
    builder.time_precision =
        options.time_style.map(|style| if style == Style::Short { TimePrecision::Minute } else { TimePrecision::Second });
    builder.zone_style = match options.time_style {
        Some(Style::Full) => Some(ZoneStyle::SpecificLong),
        Some(Style::Long) => Some(ZoneStyle::SpecificShort),
        _ => None,
    };
    of_fields(preferences, &builder).map(|pattern| tokens(&pattern))
}

/// The pattern that ICU4X has for a set of fields. It may depend on the time, by the year's digits only.
fn of_fields(preferences: DateTimeFormatterPreferences, builder: &FieldSetBuilder) -> Option<String> {
    let fields = builder.clone().build_composite().ok()?;
    let formatter = FixedCalendarDateTimeFormatter::<Gregorian, _>::try_new(preferences, fields).ok()?;
    let in_2020 = date::at(&Zone::of("UTC")?, 1.6e12)?;
    Some(formatter.format(&in_2020).pattern().to_string())
}

fn skeleton(options: &DateOptions) -> String {
    let DateOptions { weekday, era, year, month, day, day_period, hour, minute, second, .. } = options;
    let mut skeleton = String::new();
    let mut add = |field: Option<Width>, letters: &str| field.map(|_| skeleton.push_str(letters)).unwrap_or_default();
    add(*era, "G");
    add(*year, "y");
    add(*month, "M");
    add(*day, "d");
    add(*weekday, "E");
    add(hour.or(*day_period), "j");
    add(*minute, "m");
    add(*second, "s");
    skeleton.push_str(&"S".repeat(options.fractional_second_digits.unwrap_or_default().min(3).into()));
    skeleton.push_str(match options.time_zone_name {
        None => "",
        Some(ZoneName::Short) => "z",
        Some(ZoneName::Long) => "zzzz",
        Some(ZoneName::ShortOffset) => "O",
        Some(ZoneName::LongOffset) => "OOOO",
        Some(ZoneName::ShortGeneric) => "v",
        Some(ZoneName::LongGeneric) => "vvvv",
    });
    skeleton
}

/// The length whose pattern has a month like this one.
fn length(options: &DateOptions) -> Length {
    match options.month.or(options.weekday) {
        Some(Width::Long) => Length::Long,
        Some(Width::Numeric | Width::TwoDigit) => Length::Short,
        Some(Width::Short | Width::Narrow) | None => Length::Medium,
    }
}

/// Leaves out fields that nobody asked for, each with the text that divided it from its neighbour.
fn keep(tokens: &mut Vec<Token>, options: &DateOptions) {
    while let Some(at) = tokens.iter().position(|token| matches!(token, Token::Field(letter, _) if !is_wanted(*letter, options)))
    {
        tokens.remove(at);
        let has_before = tokens.iter().take(at).any(|token| matches!(token, Token::Field(..)));
        let divider = if has_before { at.checked_sub(1) } else { Some(at) };
        if let Some(divider) = divider.filter(|at| matches!(tokens.get(*at), Some(Token::Literal(_)))) {
            tokens.remove(divider);
        }
    }
}

fn is_wanted(letter: char, options: &DateOptions) -> bool {
    match letter {
        'G' => options.era.is_some(),
        'y' | 'u' | 'U' | 'r' => options.year.is_some(),
        'M' | 'L' => options.month.is_some(),
        'd' => options.day.is_some(),
        'E' | 'c' | 'e' => options.weekday.is_some(),
        'h' | 'H' | 'K' | 'k' => options.hour.is_some(),
        'm' => options.minute.is_some(),
        's' => options.second.is_some() || options.fractional_second_digits.is_some(),
        'a' | 'b' | 'B' => options.hour.or(options.day_period).is_some(),
        _ => true,
    }
}

/// Gives each field the width that was asked for.
fn widen(tokens: &mut [Token], options: &DateOptions) {
    let fields = tokens.iter().filter(|token| matches!(token, Token::Field(..))).count();
    for token in tokens {
        let Token::Field(letter, width) = token else { continue };
        *width = match *letter {
            'G' => text(options.era, *width),
            'y' | 'u' | 'U' | 'r' => digits(options.year, *width),
            'M' | 'L' => match options.month {
                Some(Width::Numeric | Width::TwoDigit) => digits(options.month, *width),
                // A number there is followed by the word for month.
                month => {
                    if *width > 2 {
                        text(month, *width)
                    } else {
                        *width
                    }
                }
            },
            'd' => digits(options.day, *width),
            'E' | 'c' | 'e' => text(options.weekday, *width),
            'h' | 'H' | 'K' | 'k' => digits(options.hour, *width),
            // Alone they have no zero before them, whatever was asked for, as in other engines.
            'm' | 's' if fields == 1 => 1,
            'a' | 'b' => text(options.day_period, *width),
            _ => *width,
        };
    }
}

fn digits(asked: Option<Width>, present: usize) -> usize {
    if asked == Some(Width::TwoDigit) { 2 } else { present }
}

fn text(asked: Option<Width>, present: usize) -> usize {
    match asked {
        Some(Width::Short) => 3,
        Some(Width::Long) => 4,
        Some(Width::Narrow) => 5,
        _ => present,
    }
}

/// Takes a pattern apart.
fn tokens(pattern: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let (mut is_quoted, mut rest) = (false, pattern.chars().peekable());
    let literal = |tokens: &mut Vec<Token>, letter| match tokens.last_mut() {
        Some(Token::Literal(text)) => text.push(letter),
        _ => tokens.push(Token::Literal(String::from(letter))),
    };
    while let Some(letter) = rest.next() {
        match letter {
            '\'' if rest.next_if_eq(&'\'').is_some() => literal(&mut tokens, letter),
            '\'' => is_quoted = !is_quoted,
            _ if letter.is_ascii_alphabetic() && !is_quoted => {
                let mut width = 1;
                while rest.next_if_eq(&letter).is_some() {
                    width += 1;
                }
                tokens.push(Token::Field(letter, width));
            }
            _ => literal(&mut tokens, letter),
        }
    }
    tokens
}

/// The pattern as a text again.
pub(crate) fn to_text(tokens: &[Token]) -> String {
    let mut pattern = String::new();
    for token in tokens {
        match token {
            Token::Field(letter, width) => pattern.extend(std::iter::repeat_n(*letter, *width)),
            Token::Literal(text) if text.contains(|letter: char| letter.is_ascii_alphabetic() || letter == '\'') => {
                pattern.push('\'');
                pattern.push_str(&text.replace('\'', "''"));
                pattern.push('\'');
            }
            Token::Literal(text) => pattern.push_str(text),
        }
    }
    pattern
}

/// The fields and their widths.
pub(crate) fn resolved(tokens: &[Token]) -> Value {
    let fields = tokens.iter().filter_map(|token| match token {
        Token::Field(letter, width) => Some((*letter, *width)),
        Token::Literal(_) => None,
    });
    let mut all = Map::new();
    let mut put = |name: &str, value: &str| all.insert(name.to_owned(), Value::from(value));
    for (letter, width) in fields {
        let digits = if width == 2 { "2-digit" } else { "numeric" };
        let text = ["short", "long", "narrow"].get(width.saturating_sub(3)).copied().unwrap_or("short");
        match letter {
            'G' => put("era", text),
            'y' => put("year", digits),
            'M' | 'L' => put("month", if width > 2 { text } else { digits }),
            'd' => put("day", digits),
            'E' | 'c' => put("weekday", text),
            'h' | 'H' | 'K' => {
                put(
                    "hourCycle",
                    if letter == 'h' {
                        "h12"
                    } else if letter == 'H' {
                        "h23"
                    } else {
                        "h11"
                    },
                );
                put("hour", digits)
            }
            'm' => put("minute", digits),
            's' => put("second", digits),
            _ => None,
        };
    }
    Value::Object(all)
}
