//! The environment of a native workload: its own variables and a few defaults, none of the agent's.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::StartError;
use crate::launch::Launch;

/// Builds the environment: the given variables with upper-case names, as in 0.2.7, and the defaults that programs expect.
pub(super) fn build(launch: &Launch, directory: &Path) -> Result<BTreeMap<String, String>, StartError> {
    let mut environment = BTreeMap::new();
    for (key, value) in &launch.environment {
        if key.is_empty() || key.contains(['=', '\0']) || value.contains('\0') {
            return Err(StartError::Invalid(format!("environment variable {key:?} has an empty name, '=' or a NUL byte")));
        }
        let upper = key.to_uppercase();
        // A name given in upper case wins over a converted one.
        if *key == upper {
            environment.insert(upper, value.clone());
        } else {
            environment.entry(upper).or_insert_with(|| value.clone());
        }
    }
    if let Some(argument) = launch.argv.iter().find(|argument| argument.contains('\0')) {
        return Err(StartError::Invalid(format!("argument {argument:?} has a NUL byte")));
    }
    let home = directory.display().to_string();
    for (key, value) in [("PATH", "/usr/local/bin:/usr/bin:/bin"), ("HOME", home.as_str()), ("TMPDIR", "/tmp")] {
        environment.entry(key.to_owned()).or_insert_with(|| value.to_owned());
    }
    Ok(environment)
}
