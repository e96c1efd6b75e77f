//! `nex.toml`, the file that says what should run: parsed and validated, so that what is wrong in it is said before anything is sent.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use nex_protocol::deploy::{Location, RequestedLimits, WorkloadType};
use nex_protocol::id::{NodeId, WorkloadName};
use nex_protocol::seal::Environment;
use serde::{Deserialize, Serialize};

use crate::check::{self, Settle, Usage};
use crate::environment;

/// Most copies of a workload.
const MAX_COPIES: usize = 100;
/// Longest name of a project: it is part of every revision.
const MAX_PROJECT: usize = 64;

/// What should run.
#[derive(Debug)]
pub(crate) struct Manifest {
    /// Its name: what was applied under it and is not in the file any more can be pruned.
    pub(crate) project: String,
    /// The workloads, by name.
    pub(crate) workloads: Vec<Wanted>,
}

/// A workload that should run.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) name: WorkloadName,
    pub(crate) source: Source,
    /// By the file's content if absent.
    pub(crate) r#type: Option<WorkloadType>,
    /// How many of it.
    pub(crate) copies: usize,
    /// Where it may run; anywhere if empty.
    pub(crate) nodes: Vec<NodeId>,
    /// How long it has to run before it counts as started, if that was said.
    pub(crate) settle: Option<Settle>,
    pub(crate) settings: Settings,
}

/// Where the artifact comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// A local file, which is uploaded.
    File(PathBuf),
    /// An object that is there.
    Stored(Location),
}

/// What makes one version of a workload another one, besides its artifact.
#[derive(Serialize)]
pub(crate) struct Settings {
    pub(crate) description: String,
    pub(crate) argv: Vec<String>,
    pub(crate) environment: Environment,
    pub(crate) essential: bool,
    pub(crate) triggers: Vec<String>,
    pub(crate) limits: RequestedLimits,
    pub(crate) machine: Option<String>,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The environment has secrets.
        f.debug_struct("Settings").field("triggers", &self.triggers).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawManifest {
    project: Option<String>,
    #[serde(default)]
    workloads: BTreeMap<String, RawWorkload>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawWorkload {
    file: Option<PathBuf>,
    url: Option<String>,
    r#type: Option<String>,
    copies: Option<usize>,
    #[serde(default)]
    nodes: Vec<String>,
    settle: Option<String>,
    #[serde(default)]
    description: String,
    #[serde(default)]
    argv: Vec<String>,
    #[serde(default)]
    environment: BTreeMap<String, RawValue>,
    #[serde(default)]
    env_files: Vec<PathBuf>,
    #[serde(default)]
    essential: bool,
    #[serde(default)]
    triggers: Vec<String>,
    memory_mib: Option<u64>,
    call_timeout: Option<String>,
    concurrency: Option<usize>,
    machine: Option<String>,
}

/// A variable's value: a text, the content of a file, or a variable of whoever applies the file.
#[derive(Deserialize)]
#[serde(untagged)]
enum RawValue {
    Text(String),
    From(RawFrom),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum RawFrom {
    File(PathBuf),
    Variable(String),
}

impl Manifest {
    /// Reads a file. Paths in it begin at its directory; `variable` looks up an environment variable.
    pub(crate) fn read(path: &Path, variable: impl Fn(&str) -> Option<String>) -> anyhow::Result<Self> {
        let text = check::small_file(path)?;
        let raw: RawManifest = toml::from_str(&text).map_err(|error| not_valid(path, &text, &error))?;
        let wrong = |what: String| Usage(format!("{}: {what}", path.display()));
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let project = raw.project.unwrap_or_else(|| {
            let absolute = directory.canonicalize().unwrap_or_default();
            absolute.file_name().unwrap_or_default().to_string_lossy().replace(' ', "-")
        });
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if !(1..=MAX_PROJECT).contains(&project.len()) || !project.chars().all(is_name) {
            let rule = format!("1 to {MAX_PROJECT} letters, digits, '_', '-' and '.'");
            return Err(wrong(format!("'{project}' cannot be the project's name: it has to be {rule}; next: set project")).into());
        }
        let reader = Reader { directory, variable: &variable };
        let mut workloads = Vec::new();
        for (name, workload) in raw.workloads {
            let at = |error: anyhow::Error| {
                let usage = error.is::<Usage>();
                let error = error.context(format!("{}: workloads.{name}", path.display()));
                if usage { Usage(format!("{error:#}")).into() } else { error }
            };
            workloads.push(reader.workload(&name, workload).map_err(at)?);
        }
        Ok(Self { project, workloads })
    }
}

/// Names the line. The library's own text shows it, which may be a secret.
fn not_valid(path: &Path, text: &str, error: &toml::de::Error) -> Usage {
    let line = error.span().map(|span| text.get(..span.start).unwrap_or_default().matches('\n').count() + 1);
    let place = line.map(|line| format!(", line {line}")).unwrap_or_default();
    Usage(format!("{}{place}: {}; next: see `nex apply --help`", path.display(), error.message()))
}

struct Reader<'a> {
    directory: &'a Path,
    variable: &'a dyn Fn(&str) -> Option<String>,
}

impl Reader<'_> {
    fn workload(&self, name: &str, raw: RawWorkload) -> anyhow::Result<Wanted> {
        let wrong = |what: String| anyhow::Error::from(Usage(what));
        let r#type =
            raw.r#type.as_deref().map(str::parse::<WorkloadType>).transpose().map_err(|error| wrong(error.to_string()))?;
        let source = match (&raw.file, &raw.url) {
            (Some(file), None) => Source::File(self.directory.join(file)),
            (None, Some(url)) if r#type.is_some() => Source::Stored(url.parse().map_err(|error| wrong(format!("url: {error}")))?),
            (None, Some(_)) => return Err(wrong("it has a url, so that its type has to be said; next: set type".to_owned())),
            _ => return Err(wrong("it needs either a file or a url; next: set one of them".to_owned())),
        };
        let copies = raw.copies.unwrap_or(1);
        if !(1..=MAX_COPIES).contains(&copies) {
            let why =
                format!("copies has to be 1 to {MAX_COPIES}; next: to run none, leave the workload out and apply with --prune");
            return Err(wrong(why));
        }
        let triggers: Result<Vec<String>, String> = raw.triggers.iter().map(|subject| check::subject(subject)).collect();
        let call_timeout = raw.call_timeout.as_deref().map(check::duration).transpose();
        let call_timeout = call_timeout.map_err(|why| wrong(format!("call_timeout: {why}")))?;
        let concurrency = raw.concurrency.map(|count| check::concurrency(&count.to_string())).transpose();
        if raw.memory_mib == Some(0) {
            return Err(wrong("memory_mib: expected at least 1".to_owned()));
        }
        Ok(Wanted {
            name: name.parse().map_err(|error| wrong(format!("{error}")))?,
            source,
            r#type,
            copies,
            nodes: raw
                .nodes
                .iter()
                .map(|node| node.parse().map_err(|error| wrong(format!("nodes: {error}"))))
                .collect::<Result<_, _>>()?,
            settle: raw.settle.as_deref().map(check::settle).transpose().map_err(|why| wrong(format!("settle: {why}")))?,
            settings: Settings {
                description: raw.description,
                argv: raw.argv,
                environment: self.environment(&raw.env_files, raw.environment)?,
                essential: raw.essential,
                triggers: triggers.map_err(|why| wrong(format!("triggers: {why}")))?,
                limits: RequestedLimits {
                    memory_mib: raw.memory_mib,
                    call_timeout_ms: call_timeout.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
                    concurrency: concurrency.map_err(|why| wrong(format!("concurrency: {why}")))?,
                },
                machine: raw.machine,
            },
        })
    }

    fn environment(&self, files: &[PathBuf], values: BTreeMap<String, RawValue>) -> anyhow::Result<Environment> {
        let files: Vec<PathBuf> = files.iter().map(|file| self.directory.join(file)).collect();
        let mut environment = environment::collect(&files, &[])?;
        for (key, value) in values {
            let value = match value {
                RawValue::Text(text) => text,
                RawValue::From(RawFrom::File(file)) => environment::of_value_file(&self.directory.join(file))?,
                RawValue::From(RawFrom::Variable(name)) => (self.variable)(&name).ok_or_else(|| {
                    Usage(format!("{key} is to come from the variable {name}, which is not set; next: export {name}"))
                })?,
            };
            environment::check_name(&key, &value)?;
            environment.insert(key, value);
        }
        Ok(environment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> anyhow::Result<Manifest> {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("shop")).unwrap();
        let path = directory.path().join("shop/nex.toml");
        std::fs::write(&path, text).unwrap();
        std::fs::write(path.with_file_name("token"), "t0ken\n").unwrap();
        std::fs::write(path.with_file_name(".env"), "A=file\nB=file\n").unwrap();
        Manifest::read(&path, |name| (name == "HOME_TOWN").then(|| "Ulm".to_owned()))
    }

    #[test]
    fn every_field_is_read() {
        let manifest = read(
            "[workloads.greet]\nfile = 'greet.mjs'\ncopies = 2\ntriggers = ['fn.greet', 'a.*']\nenv_files = ['.env']\n\
             environment = { B = 'text', C = { file = 'token' }, D = { variable = 'HOME_TOWN' } }\nmemory_mib = 32\n\
             call_timeout = '2s'\nconcurrency = 4\nsettle = 'none'\n\
             [workloads.serve]\nurl = 'nats://B/k'\ntype = 'native'\nargv = ['-v']\nessential = true\nmachine = 'large'\n",
        )
        .unwrap();
        assert_eq!(manifest.project, "shop");
        let [greet, serve] = manifest.workloads.as_slice() else { panic!("{manifest:?}") };
        assert_eq!((greet.name.as_str(), greet.copies, greet.settings.triggers.len()), ("greet", 2, 2));
        assert!(matches!(&greet.source, Source::File(file) if file.ends_with("shop/greet.mjs")));
        let value = |key: &str| greet.settings.environment[key].as_str();
        assert_eq!((value("A"), value("B"), value("C"), value("D")), ("file", "text", "t0ken", "Ulm"));
        assert_eq!(
            greet.settings.limits,
            RequestedLimits { memory_mib: Some(32), call_timeout_ms: Some(2000), concurrency: Some(4) }
        );
        assert_eq!(greet.settle, Some(Settle(None)));
        assert!(matches!(&serve.source, Source::Stored(location) if location.key == "k") && serve.settings.essential);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place_and_no_secret_is_shown() {
        for (text, expected) in [
            ("[workloads.a]\nfile = 'x'\nfiel = 1", "line 3: unknown field `fiel`"),
            ("[workloads.a]\nfile = 'x'\nenvironment = { S = s3cret }", "line 3"),
            ("[workloads.a]", "workloads.a: it needs either a file or a url"),
            ("[workloads.a]\nurl = 'nats://B/k'", "set type"),
            ("[workloads.a]\nfile = 'x'\ntype = 'docker'", "docker"),
            ("[workloads.a]\nfile = 'x'\ncopies = 0", "copies has to be 1 to 100"),
            ("[workloads.a]\nfile = 'x'\ntriggers = ['a..b']", "triggers: expected tokens"),
            ("[workloads.a]\nfile = 'x'\nnodes = ['me']", "nodes: "),
            ("[workloads.a]\nfile = 'x'\nsettle = '2h'", "settle: expected"),
            ("[workloads.a]\nfile = 'x'\nenvironment = { A = { variable = 'NOPE' } }", "export NOPE"),
            ("[workloads.'a b']\nfile = 'x'", "workloads.a b"),
            ("project = 'my shop'", "'my shop' cannot be the project's name"),
        ] {
            let error = read(text).unwrap_err();
            let shown = format!("{error:#}");
            assert!(error.is::<Usage>() && shown.contains("nex.toml") && shown.contains(expected), "{text}: {shown}");
            assert!(!shown.contains("s3cret"), "{shown}");
        }
    }
}
