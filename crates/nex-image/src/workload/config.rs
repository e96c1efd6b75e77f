//! What an image's configuration says of its program.

use nex_protocol::image::{ImageRun, STOP_SIGNAL, signal};
use serde::Deserialize;

use super::WorkloadImageError;
use crate::oci::Platform;

/// Most entries of a list, and longest of each, bytes.
const MAX_ITEMS: usize = 1_000;
const MAX_ITEM: usize = 64 * 1024;

/// The configuration of an image.
#[derive(Debug, Deserialize)]
pub(super) struct ImageConfig {
    #[serde(flatten)]
    pub(super) platform: Platform,
    config: Option<Program>,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Program {
    user: Option<String>,
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    working_dir: Option<String>,
    stop_signal: Option<String>,
}

impl ImageConfig {
    /// Parses a configuration and refuses what no program could be given.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, WorkloadImageError> {
        let config: Self = serde_json::from_slice(bytes).map_err(WorkloadImageError::Config)?;
        let program = config.config.iter();
        let lists = program.flat_map(|program| [&program.env, &program.entrypoint, &program.cmd]).flatten();
        for list in lists {
            if list.len() > MAX_ITEMS || list.iter().any(|item| item.len() > MAX_ITEM || item.contains('\0')) {
                return Err(WorkloadImageError::Items);
            }
        }
        Ok(config)
    }

    /// As whom it wants to run.
    pub(super) fn user(&self) -> &str {
        self.config.as_ref().and_then(|program| program.user.as_deref()).unwrap_or_default()
    }

    /// How it is run, by a user with this home.
    pub(super) fn run(&self, home: String) -> Result<ImageRun, WorkloadImageError> {
        let program = self.config.clone().unwrap_or_default();
        let directory = program.working_dir.filter(|directory| !directory.is_empty()).unwrap_or_else(|| "/".to_owned());
        if !directory.starts_with('/') || directory.contains('\0') {
            return Err(WorkloadImageError::WorkingDirectory(directory.chars().take(200).collect()));
        }
        let stop_signal = match program.stop_signal.filter(|text| !text.is_empty()) {
            None => STOP_SIGNAL,
            Some(text) => signal(&text).ok_or_else(|| WorkloadImageError::StopSignal(text.chars().take(40).collect()))?,
        };
        Ok(ImageRun {
            entrypoint: program.entrypoint.unwrap_or_default(),
            command: program.cmd.unwrap_or_default(),
            environment: program.env.unwrap_or_default(),
            directory,
            home,
            stop_signal,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ImageConfig, WorkloadImageError> {
        ImageConfig::parse(text.as_bytes())
    }

    #[test]
    fn what_an_image_says_is_taken_and_what_it_leaves_out_has_defaults() {
        let text = r#"{"os":"linux","architecture":"amd64","config":{"Entrypoint":["/a"],"Cmd":null,"Env":["A=b"],"WorkingDir":"/w",
            "StopSignal":"SIGQUIT","User":"web","ExposedPorts":{"80/tcp":{}},"Volumes":null}}"#;
        let config = parse(text).unwrap();
        let run = config.run("/home/web".to_owned()).unwrap();
        assert_eq!((config.user(), run.directory.as_str(), run.stop_signal), ("web", "/w", 3));
        assert_eq!((run.entrypoint, run.command, run.environment), (vec!["/a".to_owned()], vec![], vec!["A=b".to_owned()]));
        let run = parse(r#"{"os":"linux","architecture":"amd64"}"#).unwrap().run("/".to_owned()).unwrap();
        assert_eq!((run.directory.as_str(), run.stop_signal), ("/", STOP_SIGNAL));
    }

    #[test]
    fn what_no_program_can_be_given_is_refused() {
        let refused = |config: &str| {
            let text = format!(r#"{{"os":"linux","architecture":"amd64","config":{config}}}"#);
            parse(&text).and_then(|config| config.run("/".to_owned())).unwrap_err().to_string()
        };
        assert!(refused(r#"{"WorkingDir":"../x"}"#).contains("'../x'"));
        assert!(refused(r#"{"StopSignal":"SIGNOPE"}"#).contains("SIGNOPE"));
        assert!(refused(r#"{"Env":["A=\u0000"]}"#).contains("NUL"));
        assert!(parse("{}").is_err() && parse("[]").is_err());
    }
}
