//! The options of a trigger, `NAME=VALUE&…`: each is taken once, and one that nobody takes is an error.

use super::error::{TriggerError, shown};

/// Options that were not taken yet.
#[derive(Debug, Default)]
pub(super) struct Options<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Options<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, TriggerError> {
        let mut options: Vec<(&str, &str)> = Vec::new();
        for option in text.split('&') {
            let (name, value) = option.split_once('=').ok_or_else(|| TriggerError::NoValue(shown(option)))?;
            if options.iter().any(|(other, _)| *other == name) {
                return Err(TriggerError::Twice(shown(name)));
            }
            options.push((name, value));
        }
        Ok(Self(options))
    }

    pub(super) fn take(&mut self, name: &str) -> Option<&'a str> {
        let at = self.0.iter().position(|(option, _)| *option == name)?;
        Some(self.0.swap_remove(at).1)
    }

    /// Takes an option and reads its value.
    pub(super) fn read<T>(
        &mut self,
        name: &'static str,
        expected: &'static str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, TriggerError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| TriggerError::value(name, value, expected))
    }

    /// Whether all were taken.
    pub(super) fn end(self) -> Result<(), TriggerError> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(TriggerError::Option(shown(name))),
        }
    }
}
