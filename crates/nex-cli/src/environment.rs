//! The environment of a workload: from arguments, from `.env` files, its secrets from files, standard input and the bucket of the namespace.
//! No value is ever printed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use nex_protocol::id::SecretName;
use nex_protocol::seal::{Environment, FILE, NATS_CREDS};

use crate::check::{Usage, small_file};

/// Longest value from a file or from standard input, in bytes; a sealed environment has to fit into one message.
const MAX_VALUE: u64 = 256 * 1024;

/// Before the name of a secret of the namespace.
const SECRET: &str = "secret:";
/// Before the name of one that the service is to have in a file, whose path the variable has.
const SECRET_FILE: &str = "secret-file:";

/// Variables: those whose values are here, and those whose values are secrets of the namespace.
#[derive(Default, Clone, PartialEq, Eq)]
pub(crate) struct Variables {
    pub(crate) values: Environment,
    pub(crate) secrets: BTreeMap<String, SecretName>,
}

impl std::fmt::Debug for Variables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Variables").field("secrets", &self.secrets).finish_non_exhaustive()
    }
}

impl Variables {
    /// Gives a variable a value, instead of any that it had.
    pub(crate) fn set(&mut self, key: String, value: String) {
        self.remove(&key);
        self.values.insert(key, value);
    }

    /// Gives a variable the value of a secret, instead of any that it had.
    pub(crate) fn refer(&mut self, key: String, name: SecretName) {
        self.remove(&key);
        self.secrets.insert(key, name);
    }

    /// Gives a variable the path of a file with the value of a secret, instead of any value that it had.
    pub(crate) fn refer_file(&mut self, key: &str, name: SecretName) {
        self.remove(key);
        self.secrets.insert(format!("{FILE}{key}"), name);
    }

    fn remove(&mut self, key: &str) {
        self.values.remove(key);
        self.secrets.remove(key);
        self.secrets.remove(&format!("{FILE}{key}"));
    }

    fn has(&self, key: &str) -> bool {
        self.values.contains_key(key) || self.secrets.contains_key(key) || self.secrets.contains_key(&format!("{FILE}{key}"))
    }

    /// Gives a service credentials for NATS: a file's content, or `secret:NAME`.
    pub(crate) fn credentials(&mut self, from: &str) -> anyhow::Result<()> {
        match from.strip_prefix(SECRET) {
            Some(name) => {
                self.refer(NATS_CREDS.to_owned(), name.parse().map_err(|error| Usage(format!("--nats-creds: {error}")))?);
            }
            None => self.set(NATS_CREDS.to_owned(), of_value_file(Path::new(from)).context("--nats-creds")?),
        }
        Ok(())
    }
}

/// The variables of the files, later ones over earlier ones, and over these the arguments.
pub(crate) fn collect(files: &[PathBuf], arguments: &[String]) -> anyhow::Result<Variables> {
    let mut variables = Variables::default();
    for file in files {
        variables.values.extend(of_file(file)?);
    }
    let given = of_arguments(arguments, || {
        if std::io::stdin().is_terminal() {
            let why = "KEY=- reads the value from standard input, which is a terminal; next: pipe it in, or write KEY=@FILE";
            return Err(Usage(why.to_owned()).into());
        }
        bounded("standard input", std::io::stdin().lock())
    })?;
    given.values.into_iter().for_each(|(key, value)| variables.set(key, value));
    for (member, name) in given.secrets {
        match member.strip_prefix(FILE) {
            Some(key) => variables.refer_file(key, name),
            None => variables.refer(member, name),
        }
    }
    Ok(variables)
}

fn of_file(path: &Path) -> anyhow::Result<Environment> {
    let text = small_file(path)?;
    let mut environment = Environment::new();
    for entry in dotenvy::from_read_iter(text.as_bytes()) {
        // The library's own error shows the line, which may be a secret.
        let Ok((key, value)) = entry else {
            let why = "a line is no KEY=value; next: quote values with blanks, begin comments with #";
            return Err(Usage(format!("{}: {why}", path.display())).into());
        };
        check_name(&key, &value).with_context(|| path.display().to_string())?;
        environment.insert(key, value);
    }
    Ok(environment)
}

fn of_arguments(arguments: &[String], mut stdin: impl FnMut() -> anyhow::Result<String>) -> anyhow::Result<Variables> {
    let mut variables = Variables::default();
    let mut reader = None;
    for argument in arguments {
        let Some((key, value)) = argument.split_once('=') else {
            let shown: String = argument.chars().take(40).collect();
            let next = "write it as KEY=value; words for the program itself go into --argv 'WORD WORD'";
            return Err(Usage(format!("'{shown}' is no environment variable; next: {next}")).into());
        };
        if variables.has(key) {
            return Err(Usage(format!("environment variable {key} is given twice; next: leave one out")).into());
        }
        let (of_variable, of_file) = (value.strip_prefix(SECRET), value.strip_prefix(SECRET_FILE));
        if let Some(name) = of_variable.or(of_file) {
            let name = name.parse().map_err(|error| {
                let why = "next: for a value that begins so, write it into a file and give KEY=@FILE";
                Usage(format!("{key}: {error}; {why}"))
            })?;
            check_name(key, "")?;
            match of_file {
                Some(_) => variables.refer_file(key, name),
                None => variables.refer(key.to_owned(), name),
            }
            continue;
        }
        let value = match (value, value.strip_prefix('@')) {
            ("-", _) => match reader.replace(key) {
                None => stdin()?,
                Some(first) => {
                    let why = "standard input can be read once; next: give one of them by KEY=@FILE";
                    return Err(Usage(format!("both {first} and {key} are to come from standard input: {why}")).into());
                }
            },
            (_, Some(text)) if text.starts_with('@') => text.to_owned(),
            (_, Some(path)) => of_value_file(Path::new(path)).with_context(|| {
                format!("the value of {key} cannot be read; next: for a value that begins with @, write {key}=@@…")
            })?,
            (text, None) => text.to_owned(),
        };
        check_name(key, &value)?;
        variables.set(key.to_owned(), value);
    }
    Ok(variables)
}

/// Whether a variable can be one.
pub(crate) fn check_name(key: &str, value: &str) -> Result<(), Usage> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if key.is_empty() || key.starts_with(|c: char| c.is_ascii_digit()) || !key.chars().all(legal) {
        let why = "its name must be letters, digits, '_', '-' and '.', and not begin with a digit";
        return Err(Usage(format!("'{key}' cannot be an environment variable: {why}; next: rename it")));
    }
    if value.contains('\0') {
        return Err(Usage(format!(
            "the value of {key} has a zero byte, which no environment can hold; next: encode it, as base64"
        )));
    }
    Ok(())
}

/// The content of a file, as a value.
pub(crate) fn of_value_file(path: &Path) -> anyhow::Result<String> {
    let file = File::open(path).with_context(|| format!("cannot read {}; next: check the path", path.display()))?;
    bounded(&path.display().to_string(), file)
}

/// Reads a value; one line break at its end is not part of it.
pub(crate) fn bounded(source: &str, reader: impl std::io::Read) -> anyhow::Result<String> {
    let mut text = String::new();
    let read = reader.take(MAX_VALUE + 1).read_to_string(&mut text);
    let count = read.with_context(|| format!("cannot read a text from {source}; next: check that it is UTF-8"))?;
    if count as u64 > MAX_VALUE {
        return Err(Usage(format!("{source} is larger than 256 KiB; next: check that it is the right file")).into());
    }
    let end = text.strip_suffix('\n').map_or(text.len(), |line| line.strip_suffix('\r').unwrap_or(line).len());
    text.truncate(end);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(texts: &[&str], stdin: &str) -> anyhow::Result<Variables> {
        let list: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        of_arguments(&list, || bounded("standard input", stdin.as_bytes()))
    }

    fn arguments(texts: &[&str], stdin: &str) -> anyhow::Result<Environment> {
        variables(texts, stdin).map(|variables| variables.values)
    }

    #[test]
    fn a_variable_has_a_value_or_a_secret_and_the_last_one_counts() {
        let given = variables(&["A=secret:db", "B=x"], "").unwrap();
        assert_eq!((given.secrets["A"].as_str(), given.values.len()), ("db", 1));
        for wrong in [
            &["A=secret:"][..],
            &["A=secret:a b"],
            &["A=secret:db", "A=1"],
            &["1=secret:db"],
            &["A=secret-file:db", "A=1"],
            &["A=secret-file:"],
        ] {
            let error = variables(wrong, "").unwrap_err().to_string();
            assert!(error.contains("; next: "), "{error}");
        }
        let mut given = given;
        given.set("A".into(), "1".into());
        given.refer("B".into(), "db".parse().unwrap());
        assert_eq!((given.values.len(), given.secrets.len(), given.values["A"].as_str()), (1, 1, "1"));
        given.refer_file("B", "other".parse().unwrap());
        assert_eq!((given.secrets.keys().map(String::as_str).collect::<Vec<_>>(), given.secrets.len()), (vec!["nex:file:B"], 1));
        given.set("B".into(), "1".into());
        assert!(given.secrets.is_empty(), "{given:?}");
        let files = variables(&["C_FILE=secret-file:db", "D=secret:db"], "").unwrap().secrets;
        assert_eq!((files["nex:file:C_FILE"].as_str(), files["D"].as_str()), ("db", "db"));
        given.credentials("secret:bus").unwrap();
        assert_eq!(given.secrets[NATS_CREDS].as_str(), "bus");
        assert!(given.credentials("/no/such").is_err());
    }

    #[test]
    fn arguments_are_validated_and_values_never_printed() {
        let environment = arguments(&["A=b=c", "nex_url="], "").unwrap();
        assert_eq!((environment["A"].as_str(), environment["nex_url"].as_str()), ("b=c", ""));
        for wrong in [&["novalue"][..], &["=x"], &["1A=s3cret"], &["A B=s3cret"], &["A=1", "A=s3cret"], &["A=s3cret\0"]] {
            let error = arguments(wrong, "").unwrap_err().to_string();
            assert!(error.contains("; next: ") && !error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn secrets_come_from_files_and_standard_input() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "two\nlines\r\n").unwrap();
        let at_file = format!("A=@{}", file.path().display());
        let environment = arguments(&[&at_file, "B=-", "C=@@me", "D=a@b"], "piped\n").unwrap();
        let value = |key: &str| environment[key].as_str();
        assert_eq!((value("A"), value("B"), value("C"), value("D")), ("two\nlines", "piped", "@me", "a@b"));
        assert!(arguments(&["A=-", "B=-"], "").unwrap_err().to_string().contains("both A and B"));
        assert!(arguments(&["A=@/no/such"], "").unwrap_err().to_string().contains("A=@@"));
        let many = "x".repeat(300 * 1024);
        assert!(arguments(&["A=-"], &many).unwrap_err().to_string().contains("256 KiB"));
    }

    #[test]
    fn files_are_read_as_env_files_are_and_arguments_stand_over_them() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let first = file("first", "# a comment\n\nexport A='one two'\nB=\"x\\ny\"\nC=plain # why\nD=d\n");
        let second = file("second", "C=later\n");
        let environment = collect(&[first, second], &["D=argument".to_owned()]).unwrap().values;
        let value = |key: &str| environment[key].as_str();
        assert_eq!((value("A"), value("B"), value("C"), value("D")), ("one two", "x\ny", "later", "argument"));
        let wrong = file("wrong", "A s3cret\n");
        let error = format!("{:#}", collect(&[wrong], &[]).unwrap_err());
        assert!(error.contains("wrong") && error.contains("; next: ") && !error.contains("s3cret"), "{error}");
    }
}
