//! Numbers: decimal, percent, currency and spans of time; plain, compact or with an exponent.

use fixed_decimal::{Decimal, Sign, SignDisplay};
use icu::decimal::options::{DecimalFormatterOptions, GroupingStrategy};
use icu::decimal::{CompactDecimalFormatter, DecimalFormatter};
use icu::experimental::dimension::currency::CurrencyType;
use icu::experimental::dimension::currency::formatter::{CurrencyFormatter, CurrencyFormatterPreferences};
use icu::experimental::dimension::currency::options::{CurrencyFormatterOptions, CurrencyUsage};
use icu::experimental::dimension::units::categorized_formatter::CategorizedFormatter;
use icu::experimental::dimension::units::options::Width;
use icu::experimental::measure::category::Duration;
use icu::locale::Locale;
use icu::locale::extensions::unicode::Value;
use serde::Deserialize;
use writeable::Writeable;

use super::around::{Around, named, written};
use super::parts::Piece;
use super::round::{self, Digits};

/// The zeros of numbering systems.
const ZEROS: [(char, &str); 24] = [
    ('0', "latn"),
    ('٠', "arab"),
    ('۰', "arabext"),
    ('০', "beng"),
    ('०', "deva"),
    ('૦', "gujr"),
    ('੦', "guru"),
    ('೦', "knda"),
    ('൦', "mlym"),
    ('୦', "orya"),
    ('௦', "tamldec"),
    ('౦', "telu"),
    ('๐', "thai"),
    ('၀', "mymr"),
    ('༠', "tibt"),
    ('០', "khmr"),
    ('໐', "laoo"),
    ('᠐', "mong"),
    ('߀', "nkoo"),
    ('᱐', "olck"),
    ('꯰', "mtei"),
    ('𞥐', "adlm"),
    ('〇', "hanidec"),
    ('０', "fullwide"),
];

/// The options of `Intl.NumberFormat`, but for the locale's.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NumberOptions {
    pub(crate) style: Style,
    #[serde(default)]
    currency: String,
    #[serde(default)]
    currency_display: CurrencyDisplay,
    #[serde(default)]
    is_accounting: bool,
    #[serde(default)]
    unit: String,
    #[serde(default)]
    unit_display: UnitDisplay,
    notation: Notation,
    sign_display: Signs,
    grouping: Grouping,
    #[serde(flatten)]
    digits: Digits,
}

#[derive(Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Style {
    Decimal,
    Percent,
    Currency,
    Unit,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
enum CurrencyDisplay {
    #[default]
    Symbol,
    NarrowSymbol,
    /// And the name, which would take two megabytes of data.
    #[serde(alias = "name")]
    Code,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "lowercase")]
enum UnitDisplay {
    #[default]
    Short,
    Narrow,
    Long,
}

#[derive(Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Notation {
    Standard,
    Scientific,
    Engineering,
    Short,
    Long,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "camelCase")]
enum Signs {
    Auto,
    Never,
    Always,
    ExceptZero,
    Negative,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Grouping {
    Auto,
    Always,
    Min2,
    Never,
}

/// A ready `Intl.NumberFormat`.
pub(crate) struct Numbers {
    options: NumberOptions,
    decimal: DecimalFormatter,
    compact: Option<CompactDecimalFormatter>,
    unit: Option<CategorizedFormatter<Duration>>,
    around: Around,
}

impl Numbers {
    pub(crate) fn new(locale: &Locale, options: NumberOptions) -> Option<Self> {
        let grouping = match options.grouping {
            Grouping::Auto => GroupingStrategy::Auto,
            Grouping::Always => GroupingStrategy::Always,
            Grouping::Min2 => GroupingStrategy::Min2,
            Grouping::Never => GroupingStrategy::Never,
        };
        let decimal = DecimalFormatter::try_new(locale.into(), DecimalFormatterOptions::from(grouping)).ok()?;
        let compact = match options.notation {
            Notation::Short => Some(CompactDecimalFormatter::try_new_short(locale.into(), grouping.into()).ok()?),
            Notation::Long => Some(CompactDecimalFormatter::try_new_long(locale.into(), grouping.into()).ok()?),
            _ => None,
        };
        let unit = match options.style {
            Style::Unit => Some(unit(locale, &options)?),
            _ => None,
        };
        let around = Around::new(locale, &options, &decimal)?;
        Some(Self { options, decimal, compact, unit, around })
    }

    /// The parts of a number, which is a decimal, `NaN`, `Infinity` or `-Infinity`.
    pub(crate) fn format(&self, text: &str) -> Option<Vec<Piece>> {
        if let Some(sign) = text.strip_suffix("Infinity") {
            let sign = if sign.is_empty() { Sign::None } else { Sign::Negative };
            return Some(self.around.put(vec![("infinity", "∞".to_owned())], displayed(self.options.sign_display, sign, false)));
        }
        if text == "NaN" {
            return Some(self.around.put(vec![("nan", text.to_owned())], displayed(self.options.sign_display, Sign::None, true)));
        }
        let mut number = round::parse(text)?;
        if self.options.style == Style::Percent {
            number.absolute.multiply_pow10(2);
        }
        let exponent = self.scale(&mut number);
        let sign = displayed(self.options.sign_display, number.sign, number.absolute.is_zero());
        number.sign = Sign::None;
        if let Some(unit) = &self.unit {
            number.sign = sign;
            return Some(named(written(&unit.format_fixed_decimal(&number))?, "unit"));
        }
        let pieces = match (&self.compact, exponent) {
            (Some(compact), exponent) => {
                let exponent = u8::try_from(exponent).ok()?;
                named(written(&compact.format_with_exponent(&number, exponent).ok()?)?, "compact")
            }
            (None, exponent) => {
                let mut pieces = written(&self.decimal.format(&number))?;
                if matches!(self.options.notation, Notation::Scientific | Notation::Engineering) {
                    pieces.extend(self.exponent(exponent));
                }
                pieces
            }
        };
        Some(self.around.put(pieces, sign))
    }

    /// Divides the number by a power of ten that the notation asks for, and rounds it; gives the power.
    fn scale(&self, number: &mut Decimal) -> i16 {
        let exact = number.clone();
        let mut exponent = self.power(exact.absolute.nonzero_magnitude_start());
        loop {
            *number = exact.clone();
            number.absolute.multiply_pow10(-exponent);
            self.options.digits.round(number);
            // It may have been rounded up to the next power.
            let then = self.power(number.absolute.nonzero_magnitude_start() + exponent);
            if number.absolute.is_zero() || then <= exponent {
                return exponent;
            }
            exponent = then;
        }
    }

    fn power(&self, magnitude: i16) -> i16 {
        match (&self.compact, &self.options.notation) {
            (Some(compact), _) => compact.compact_exponent_for_magnitude(magnitude).into(),
            (None, Notation::Scientific) => magnitude,
            (None, Notation::Engineering) => magnitude.div_euclid(3) * 3,
            (None, _) => 0,
        }
    }

    fn exponent(&self, exponent: i16) -> Vec<Piece> {
        let mut pieces = vec![("exponentSeparator", "E".to_owned())];
        if exponent < 0 {
            pieces.push(("exponentMinusSign", "-".to_owned()));
        }
        pieces.push(("exponentInteger", self.decimal.format_to_string(&Decimal::from(exponent.unsigned_abs()))));
        pieces
    }
}

fn displayed(display: Signs, sign: Sign, is_zero: bool) -> Sign {
    let display = match display {
        Signs::Auto => SignDisplay::Auto,
        Signs::Never => SignDisplay::Never,
        Signs::Always => SignDisplay::Always,
        Signs::ExceptZero => SignDisplay::ExceptZero,
        Signs::Negative => SignDisplay::Negative,
    };
    let number = if is_zero { Decimal::from(0) } else { Decimal::from(1) };
    number.with_sign(sign).with_sign_display(display).sign
}

/// The formatter of the currency that is asked for.
pub(crate) fn currency(locale: &Locale, options: &NumberOptions) -> Option<CurrencyFormatter<DecimalFormatter>> {
    let preferences = CurrencyFormatterPreferences::from(locale);
    let code = code(&options.currency)?;
    let usage = if options.is_accounting { CurrencyUsage::Accounting } else { CurrencyUsage::Standard };
    let usage = CurrencyFormatterOptions::from(usage);
    match options.currency_display {
        CurrencyDisplay::Symbol => CurrencyFormatter::try_new_symbol(preferences, code, usage).ok(),
        CurrencyDisplay::NarrowSymbol => CurrencyFormatter::try_new_symbol_narrow(preferences, code, usage).ok(),
        CurrencyDisplay::Code => CurrencyFormatter::try_new_code(preferences, code, usage).ok(),
    }
}

fn code(text: &str) -> Option<CurrencyType> {
    if text.len() != 3 || !text.bytes().all(|letter| letter.is_ascii_alphabetic()) {
        return None;
    }
    Value::try_from_str(&text.to_ascii_lowercase()).ok()?.try_into().ok()
}

/// Digits behind the point that a currency has.
pub(crate) fn currency_fraction(text: &str) -> Option<usize> {
    let locale = Locale::UNKNOWN;
    let currency = CurrencyFormatter::try_new_code((&locale).into(), code(text)?, CurrencyFormatterOptions::default()).ok()?;
    let one = currency.format_fixed_decimal(&Decimal::from(1)).write_to_string().into_owned();
    one.chars().filter(|letter| letter.is_numeric()).count().checked_sub(1)
}

fn unit(locale: &Locale, options: &NumberOptions) -> Option<CategorizedFormatter<Duration>> {
    let unit = match options.unit.as_str() {
        "year" => Duration::year(),
        "month" => Duration::month(),
        "week" => Duration::week(),
        "day" => Duration::day(),
        "hour" => Duration::hour(),
        "minute" => Duration::minute(),
        "second" => Duration::second(),
        "millisecond" => Duration::millisecond(),
        "microsecond" => Duration::microsecond(),
        "nanosecond" => Duration::nanosecond(),
        _ => return None,
    };
    let width = match options.unit_display {
        UnitDisplay::Short => Width::Short,
        UnitDisplay::Narrow => Width::Narrow,
        UnitDisplay::Long => Width::Long,
    };
    CategorizedFormatter::try_new_outlier(locale.into(), unit, width.into()).ok()
}

/// The name of the digits that a locale writes.
pub(crate) fn digits(locale: &str) -> Option<String> {
    let locale = super::locale::parse(locale)?;
    let zero = DecimalFormatter::try_new((&locale).into(), DecimalFormatterOptions::default()).ok()?;
    let zero = zero.format_to_string(&Decimal::from(0)).chars().next()?;
    let name = ZEROS.iter().find(|(of, _)| *of == zero).map_or("latn", |(_, name)| name);
    Some(name.to_owned())
}
