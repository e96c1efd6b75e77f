//! The digits of a number, by the rules of ECMA-402.

use fixed_decimal::{Decimal, RoundingIncrement, SignedRoundingMode, UnsignedRoundingMode};
use serde::Deserialize;

/// Longest number as a text, in bytes.
const MAX_NUMBER_BYTES: usize = 4096;
/// Most digits that can be asked for on either side.
const MAX_DIGITS: i16 = 100;

/// What is asked for; the script has checked it, but nothing here depends on that.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Digits {
    minimum_integer_digits: i16,
    minimum_fraction_digits: Option<i16>,
    maximum_fraction_digits: Option<i16>,
    minimum_significant_digits: Option<i16>,
    maximum_significant_digits: Option<i16>,
    rounding_priority: Priority,
    rounding_increment: u16,
    rounding_mode: Mode,
    trailing_zero_display: Zeros,
}

impl Default for Digits {
    fn default() -> Self {
        Self {
            minimum_integer_digits: 1,
            minimum_fraction_digits: None,
            maximum_fraction_digits: None,
            minimum_significant_digits: None,
            maximum_significant_digits: None,
            rounding_priority: Priority::Auto,
            rounding_increment: 1,
            rounding_mode: Mode::HalfExpand,
            trailing_zero_display: Zeros::Auto,
        }
    }
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "camelCase")]
enum Priority {
    Auto,
    MorePrecision,
    LessPrecision,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "camelCase")]
enum Mode {
    Ceil,
    Floor,
    Expand,
    Trunc,
    HalfCeil,
    HalfFloor,
    HalfExpand,
    HalfTrunc,
    HalfEven,
}

#[derive(Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
enum Zeros {
    Auto,
    StripIfInteger,
}

/// A decimal number written as JavaScript does.
pub(crate) fn parse(text: &str) -> Option<Decimal> {
    if text.len() > MAX_NUMBER_BYTES {
        return None;
    }
    let mut number = Decimal::try_from_str(&text.replace("e+", "e")).ok()?;
    number.absolute.trim_start();
    Some(number)
}

impl Digits {
    /// The number with as many digits as are asked for.
    pub(crate) fn round(&self, number: &mut Decimal) {
        let (last, least) = self.positions(number);
        self.round_at(number, last);
        number.absolute.trim_end();
        let is_integer = number.absolute.nonzero_magnitude_end() >= 0;
        if !(is_integer && self.trailing_zero_display == Zeros::StripIfInteger) {
            let least = least
                .unwrap_or_else(|| number.absolute.nonzero_magnitude_start() + 1 - bounded(self.minimum_significant_digits, 1));
            number.absolute.pad_end(least.min(0));
        }
        number.absolute.pad_start(self.minimum_integer_digits.clamp(1, MAX_DIGITS));
    }

    /// Where to round, and down to where to show zeros; the latter is to be counted from the rounded number if there is none.
    fn positions(&self, number: &Decimal) -> (i16, Option<i16>) {
        let start = number.absolute.nonzero_magnitude_start();
        let by_fraction = self
            .maximum_fraction_digits
            .map(|most| (-most.clamp(0, MAX_DIGITS), Some(-bounded(self.minimum_fraction_digits, 0))));
        let by_digits = self.maximum_significant_digits.map(|most| (start + 1 - most.clamp(1, MAX_DIGITS), None));
        match (by_fraction, by_digits, self.rounding_priority) {
            (Some(fraction), Some(digits), Priority::MorePrecision) => {
                if digits.0 <= fraction.0 {
                    digits
                } else {
                    fraction
                }
            }
            (Some(fraction), Some(digits), Priority::LessPrecision) => {
                if digits.0 <= fraction.0 {
                    fraction
                } else {
                    digits
                }
            }
            (_, Some(digits), _) => digits,
            (Some(fraction), None, _) => fraction,
            (None, None, _) => (-3, Some(0)),
        }
    }

    fn round_at(&self, number: &mut Decimal, position: i16) {
        let mode = match self.rounding_mode {
            Mode::Ceil => SignedRoundingMode::Ceil,
            Mode::Floor => SignedRoundingMode::Floor,
            Mode::HalfCeil => SignedRoundingMode::HalfCeil,
            Mode::HalfFloor => SignedRoundingMode::HalfFloor,
            Mode::Expand => SignedRoundingMode::Unsigned(UnsignedRoundingMode::Expand),
            Mode::Trunc => SignedRoundingMode::Unsigned(UnsignedRoundingMode::Trunc),
            Mode::HalfExpand => SignedRoundingMode::Unsigned(UnsignedRoundingMode::HalfExpand),
            Mode::HalfTrunc => SignedRoundingMode::Unsigned(UnsignedRoundingMode::HalfTrunc),
            Mode::HalfEven => SignedRoundingMode::Unsigned(UnsignedRoundingMode::HalfEven),
        };
        let (mut increment, mut position) = (self.rounding_increment.clamp(1, 5000), position);
        while increment >= 10 && increment != 25 {
            increment /= 10;
            position += 1;
        }
        let increment = match increment {
            25 => RoundingIncrement::MultiplesOf25,
            5 => RoundingIncrement::MultiplesOf5,
            2 => RoundingIncrement::MultiplesOf2,
            _ => RoundingIncrement::MultiplesOf1,
        };
        number.round_with_mode_and_increment(position, mode, increment);
    }
}

fn bounded(digits: Option<i16>, default: i16) -> i16 {
    digits.unwrap_or(default).clamp(0, MAX_DIGITS)
}
