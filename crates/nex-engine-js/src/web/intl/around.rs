//! What stands around a number: its sign, and the symbol of a currency or of percents.
//!
//! ICU4X writes a number with them, but with digits of its own; so they are taken from how it writes one, and minus one.

use fixed_decimal::{Decimal, Sign};
use icu::decimal::DecimalFormatter;
use icu::experimental::dimension::percent::formatter::PercentFormatter;
use icu::experimental::dimension::percent::options::PercentFormatterOptions;
use icu::locale::Locale;
use writeable::Writeable;

use super::number::{NumberOptions, Style, currency};
use super::parts::{LITERAL, Parts, Piece, own_name};

/// What is before a number and what is after it.
pub(crate) type Sides = (Vec<Piece>, Vec<Piece>);

/// What stands around a number, for each sign.
pub(crate) struct Around {
    none: Sides,
    negative: Sides,
    positive: Sides,
}

impl Around {
    /// What the style has around a number.
    pub(crate) fn new(locale: &Locale, options: &NumberOptions, decimal: &DecimalFormatter) -> Option<Self> {
        let sign = |sign| written(&decimal.format(&Decimal::from(1).with_sign(sign))).map(split);
        let (negative, positive) = (sign(Sign::Negative)?, sign(Sign::Positive)?);
        let one = |sign| Decimal::from(1).with_sign(sign);
        let formatted = |sign| -> Option<String> {
            match options.style {
                Style::Decimal | Style::Unit => None,
                Style::Percent => {
                    let percent = PercentFormatter::try_new(locale.into(), PercentFormatterOptions::default());
                    Some(percent.ok()?.format(&one(sign)).write_to_string().into_owned())
                }
                Style::Currency => {
                    let currency = currency(locale, options)?;
                    Some(currency.format_fixed_decimal(&one(sign)).write_to_string().into_owned())
                }
            }
        };
        let (Some(plain), Some(minus)) = (formatted(Sign::None), formatted(Sign::Negative)) else {
            let is_plain = matches!(options.style, Style::Decimal | Style::Unit);
            return is_plain.then_some(Self { none: (Vec::new(), Vec::new()), negative, positive });
        };
        let kind = if options.style == Style::Percent { "percentSign" } else { "currency" };
        let (minus_sign, plus_sign) = (sign_text(&negative), sign_text(&positive));
        let none = around(&plain, kind, "", ("minusSign", ""))?;
        let with_minus = around(&minus, kind, &minus_sign, ("minusSign", &minus_sign))?;
        let with_plus = match minus.contains(&minus_sign) {
            true => around(&minus, kind, &minus_sign, ("plusSign", &plus_sign))?,
            false => ([vec![("plusSign", plus_sign)], none.0.clone()].concat(), none.1.clone()),
        };
        Some(Self { none, negative: with_minus, positive: with_plus })
    }

    /// The number with what belongs to its sign.
    pub(crate) fn put(&self, pieces: Vec<Piece>, sign: Sign) -> Vec<Piece> {
        let (before, after) = match sign {
            Sign::None => &self.none,
            Sign::Negative => &self.negative,
            Sign::Positive => &self.positive,
        };
        before.iter().cloned().chain(pieces).chain(after.iter().cloned()).collect()
    }
}

/// What stands around the digits of a formatted one; its sign is replaced.
fn around(text: &str, kind: &'static str, sign: &str, replaced: (&'static str, &str)) -> Option<Sides> {
    let first = text.find(char::is_numeric)?;
    let last = text.rfind(char::is_numeric)?;
    let (before, rest) = text.split_at_checked(first)?;
    let (_, after) = rest.split_at_checked(last - first)?;
    let after = after.get(after.chars().next()?.len_utf8()..)?;
    let side = |text: &str| match text.split_once(sign) {
        Some((left, right)) if !sign.is_empty() => {
            [pieces(left, kind), vec![(replaced.0, replaced.1.to_owned())], pieces(right, kind)].concat()
        }
        _ => pieces(text, kind),
    };
    Some((side(before), side(after)))
}

/// The signs before and after a formatted one.
fn split(pieces: Vec<Piece>) -> Sides {
    let at = pieces.iter().position(|(kind, _)| *kind == "integer").unwrap_or(pieces.len());
    let mut before = pieces;
    let after = before.split_off(at).into_iter().skip(1).collect();
    (before, after)
}

fn sign_text(around: &Sides) -> String {
    let text: String = around.0.iter().chain(&around.1).map(|(_, text)| text.as_str()).collect();
    // Marks of direction stand before it in some patterns and not in others.
    text.trim_matches(is_blank).to_owned()
}

/// A symbol, and the blanks around it.
fn pieces(text: &str, kind: &'static str) -> Vec<Piece> {
    let is_edge = |letter| is_blank(letter) || letter == '(' || letter == ')';
    let symbol = text.trim_matches(is_edge);
    let Some((before, after)) = text.split_once(symbol).filter(|_| !symbol.is_empty()) else {
        return if text.is_empty() { Vec::new() } else { vec![(LITERAL, text.to_owned())] };
    };
    [(LITERAL, before), (kind, symbol), (LITERAL, after)]
        .into_iter()
        .filter(|(_, text)| !text.is_empty())
        .map(|(kind, text)| (kind, text.to_owned()))
        .collect()
}

fn is_blank(letter: char) -> bool {
    letter.is_whitespace() || matches!(letter, '\u{200e}' | '\u{200f}' | '\u{61c}' | '\u{2068}' | '\u{2069}')
}

/// Gives a name to what is no part of the number itself.
pub(crate) fn named(found: Vec<Piece>, kind: &'static str) -> Vec<Piece> {
    found.into_iter().flat_map(|(own, text)| if own == LITERAL { pieces(&text, kind) } else { vec![(own, text)] }).collect()
}

/// The pieces that a value is written in.
pub(crate) fn written(value: &impl Writeable) -> Option<Vec<Piece>> {
    let mut parts = Parts::new(own_name);
    value.write_to_parts(&mut parts).ok()?;
    Some(parts.pieces)
}
