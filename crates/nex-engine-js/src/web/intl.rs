//! What `Intl` leaves to the host, on ICU4X. The script says everything in each call and is answered in texts and numbers: its memory is
//! put back after the call, so it can own nothing of the host's.

mod around;
mod date;
mod locale;
mod number;
mod numeric;
mod parts;
mod pattern;
mod ready;
mod round;
mod texts;
mod words;
mod zone;

use std::cmp::Ordering;

use super::text;
use crate::value::{Fresh, Scope, Thrown, Value};

/// `(what, …)`; undefined if there is no answer, because a locale, an option or a value is none.
pub(crate) fn ask<'a>(scope: Scope<'a>, given: &[Value<'a>]) -> Result<Fresh<'a>, Thrown> {
    let what = text(scope, given, 0)?;
    let argument = |at| text(scope, given, at);
    let answer = match what.as_str() {
        "locale" => locale::describe(&argument(1)?),
        "likely" => locale::likely(&argument(1)?, &argument(2)?),
        "digits" => number::digits(&argument(1)?),
        "zone" => zone::name(&argument(1)?),
        "zones" => Some(zone::names()),
        "fraction" => number::currency_fraction(&argument(1)?).map(|digits| digits.to_string()),
        "format" => ready::format(&argument(1)?, &argument(2)?, &argument(3)?, &argument(4)?),
        "resolve" => ready::resolve(&argument(1)?, &argument(2)?, &argument(3)?),
        "compare" => {
            let order = ready::compare(&argument(1)?, &argument(2)?, &argument(3)?, &argument(4)?);
            return Ok(order.map_or_else(|| scope.undefined(), |order| scope.number(sign(order))));
        }
        "segments" => {
            let ends = texts::ends(&argument(1)?, &argument(2)?);
            return ends.map_or_else(|| Ok(scope.undefined()), |ends| scope.bytes(&ends));
        }
        _ => None,
    };
    answer.map_or_else(|| Ok(scope.undefined()), |answer| scope.text(&answer))
}

fn sign(order: Ordering) -> f64 {
    f64::from(order as i8)
}
