//! A line of a workload's log on the user's NATS: `{"text": …, "level": …, "id": …}`.

use serde::{Deserialize, Serialize};

/// How serious a line is, as Go's slog writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Level {
    /// Details.
    Debug,
    /// What the program writes to standard output.
    Info,
    /// Something odd.
    Warn,
    /// What the program writes to standard error; failed calls.
    Error,
}

impl<'de> Deserialize<'de> for Level {
    /// Reads any slog level text; `INFO+2`, `WARN+1` of 0.2.7 and unknown texts become the level they start with, or INFO.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?.to_ascii_uppercase();
        let base = text.split(['+', '-']).next().unwrap_or_default();
        Ok(match base {
            "DEBUG" => Self::Debug,
            "WARN" => Self::Warn,
            "ERROR" => Self::Error,
            _ => Self::Info,
        })
    }
}

impl Level {
    /// Its text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
        }
    }
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// The text, without its line end.
    pub text: String,
    /// How serious.
    pub level: Level,
    /// Workload id.
    #[serde(default)]
    pub id: String,
    /// Its number in what the node keeps, if it is kept (new).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_levels_of_0_2_7_are_understood() {
        for (text, expected) in [
            ("INFO", Level::Info),
            ("WARN+1", Level::Warn),
            ("INFO+2", Level::Info),
            ("ERROR", Level::Error),
            ("huh", Level::Info),
        ] {
            let line: LogLine = serde_json::from_str(&format!(r#"{{"text":"x","level":"{text}","id":"a"}}"#)).unwrap();
            assert_eq!(line.level, expected, "{text}");
        }
        assert_eq!(serde_json::to_value(Level::Warn).unwrap(), "WARN");
    }
}
