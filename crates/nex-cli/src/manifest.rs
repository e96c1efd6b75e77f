//! `nex.toml`, the file that says what should run: parsed and validated, so that what is wrong in it is said before anything is sent.

mod raw;
mod written;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use nex_client::deploy::Deployment;
use nex_protocol::control::Tags;
use nex_protocol::deploy::{Isolation, Location, RequestedLimits, RunPolicy, WorkloadType};
use nex_protocol::id::{NodeId, SecretName, WorkloadName};
use nex_protocol::seal::{Environment, NATS_CREDS};
use nex_protocol::trigger::{DurableTrigger, HttpRoute, Trigger};
use serde::{Serialize, Serializer};

use self::raw::{RawFrom, RawManifest, RawValue, RawWorkload};
pub(crate) use self::written::{Exported, Written, written};
use crate::check::{self, Settle, Triggers, Usage};
use crate::environment::{self, Variables};
use crate::local::in_directory;

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
    /// Whether each copy has to have a node of its own.
    pub(crate) spread: bool,
    /// Tags that its nodes have to have.
    pub(crate) tags: Tags,
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
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) secrets: BTreeMap<String, SecretName>,
    pub(crate) essential: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) policy: Option<RunPolicy>,
    pub(crate) triggers: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "as_texts")]
    pub(crate) durable: Vec<DurableTrigger>,
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "as_texts")]
    pub(crate) http: Vec<HttpRoute>,
    pub(crate) limits: RequestedLimits,
    pub(crate) machine: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) isolation: Option<Isolation>,
}

impl Settings {
    /// Whether it says what calls it.
    pub(crate) fn has_triggers(&self) -> bool {
        !(self.triggers.is_empty() && self.durable.is_empty() && self.http.is_empty())
    }

    /// Those of a deployment.
    pub(crate) fn of(deployment: &Deployment) -> Self {
        Self {
            description: deployment.description.clone(),
            argv: deployment.argv.clone(),
            environment: deployment.environment.clone(),
            secrets: deployment.secrets.clone(),
            essential: deployment.essential,
            policy: deployment.policy.clone(),
            triggers: deployment.triggers.clone(),
            durable: deployment.durable.clone(),
            http: deployment.http.clone(),
            limits: deployment.limits,
            machine: deployment.machine_class.clone(),
            isolation: deployment.isolation,
        }
    }
}

fn as_texts<S: Serializer>(triggers: &[impl std::fmt::Display], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(triggers.iter().map(ToString::to_string))
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The environment has secrets.
        f.debug_struct("Settings").field("triggers", &self.triggers).finish_non_exhaustive()
    }
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
    Usage(format!("{}{place}: {}; next: see `nex apply --help`", path.display(), complaint(error.message())))
}

/// What the parser says; of an unknown field the one that was probably meant, instead of all there are.
fn complaint(message: &str) -> String {
    let Some((unknown, known)) = message.split_once(", expected one of ") else { return message.to_owned() };
    let wrong = unknown.split('`').nth(1).unwrap_or_default();
    let near = known.split('`').skip(1).step_by(2).map(|field| (strsim::levenshtein(wrong, field), field));
    match near.min().filter(|(far, _)| *far <= 3) {
        Some((_, meant)) => format!("{unknown}. Did you mean '{meant}'?"),
        None => message.to_owned(),
    }
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
            (Some(file), None) => Source::File(in_directory(self.directory, file)),
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
        let triggers: Result<Vec<Trigger>, String> = raw.triggers.iter().map(|text| check::trigger_or_subject(text)).collect();
        let mut split = Triggers::default();
        split.extend(triggers.map_err(|why| wrong(format!("triggers: {why}")))?);
        let limits = raw::limits(&raw).map_err(wrong)?;
        let isolation = raw.isolation.as_deref().map(str::parse::<Isolation>).transpose();
        let isolation = isolation.map_err(|error| wrong(format!("isolation: {error}")))?;
        let policy = raw::policy(&raw).and_then(|policy| policy.request()).map_err(anyhow::Error::from)?;
        if let (Some(_), Some(r#type)) = (&raw.nats_creds, r#type) {
            check::takes_credentials(r#type)?;
        }
        let variables = self.variables(&raw.env_files, raw.environment, raw.nats_creds)?;
        if let Some(r#type) = r#type {
            check::secrets_fit(r#type, policy.as_ref(), &variables.secrets)?;
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
            spread: raw.spread,
            tags: raw.tags,
            settle: raw.settle.as_deref().map(check::settle).transpose().map_err(|why| wrong(format!("settle: {why}")))?,
            settings: Settings {
                description: raw.description,
                argv: raw.argv,
                environment: variables.values,
                secrets: variables.secrets,
                essential: raw.essential,
                policy,
                triggers: split.subjects,
                durable: split.durable,
                http: split.http,
                limits,
                machine: raw.machine,
                isolation,
            },
        })
    }

    fn variables(
        &self,
        files: &[PathBuf],
        values: BTreeMap<String, RawValue>,
        credentials: Option<RawFrom>,
    ) -> anyhow::Result<Variables> {
        let files: Vec<PathBuf> = files.iter().map(|file| self.directory.join(file)).collect();
        let mut variables = environment::collect(&files, &[])?;
        for (key, value) in values {
            environment::check_name(&key, "")?;
            match value {
                RawValue::Text(text) => {
                    environment::check_name(&key, &text)?;
                    variables.set(key, text);
                }
                RawValue::From(from) => self.fill(&mut variables, key, from)?,
            }
        }
        if let Some(from) = credentials {
            self.fill(&mut variables, NATS_CREDS.to_owned(), from).context("nats_creds")?;
        }
        Ok(variables)
    }

    fn fill(&self, variables: &mut Variables, key: String, from: RawFrom) -> anyhow::Result<()> {
        let named = |name: String| {
            name.parse::<SecretName>().map_err(|error| Usage(format!("{key}: {error}; next: see `nex secret ls`")))
        };
        let value = match from {
            RawFrom::Secret(name) => {
                let name = named(name)?;
                variables.refer(key, name);
                return Ok(());
            }
            RawFrom::SecretFile(_) if key == NATS_CREDS => {
                return Err(Usage("credentials are a file anyway; next: write { secret = \"NAME\" }".to_owned()).into());
            }
            RawFrom::SecretFile(name) => {
                variables.refer_file(&key, named(name)?);
                return Ok(());
            }
            RawFrom::File(file) => environment::of_value_file(&self.directory.join(file))?,
            RawFrom::Variable(name) => (self.variable)(&name).ok_or_else(|| {
                Usage(format!("{key} is to come from the variable {name}, which is not set; next: export {name}"))
            })?,
        };
        if value.contains('\0') {
            return Err(Usage(format!(
                "the value of {key} has a zero byte, which no environment can hold; next: encode it, as base64"
            ))
            .into());
        }
        variables.set(key, value);
        Ok(())
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
            "[workloads.greet]\nfile = 'greet.mjs'\ncopies = 2\ntriggers = ['fn.greet', 'a.*', 'stream:A?start=all']\nenv_files = ['.env']\n\
             environment = { B = 'text', C = { file = 'token' }, D = { variable = 'HOME_TOWN' }, E = { secret = 'db' } }\nmemory_mib = 32\n\
             call_timeout = '2s'\nconcurrency = 4\nsettle = 'none'\ncpu_time = '50ms'\nhost_calls = 9\n\
             [workloads.serve]\nurl = 'nats://B/k'\ntype = 'native'\nargv = ['-v']\nessential = true\nmachine = 'large'\n\
             stop_signal = 'SIGTERM'\nstop_grace = '20s'\nhealth = 'http:80/ok'\nhealth_interval = '2s'\nhealth_threshold = 2\n\
             nats_creds = { file = 'token' }\n",
        )
        .unwrap();
        assert_eq!(manifest.project, "shop");
        let [greet, serve] = manifest.workloads.as_slice() else { panic!("{manifest:?}") };
        assert_eq!((greet.name.as_str(), greet.copies, greet.settings.triggers.len()), ("greet", 2, 2));
        assert_eq!(greet.settings.durable[0].to_string(), "stream:A?start=all");
        assert!(matches!(&greet.source, Source::File(file) if file.ends_with("shop/greet.mjs")));
        let value = |key: &str| greet.settings.environment[key].as_str();
        assert_eq!((value("A"), value("B"), value("C"), value("D")), ("file", "text", "t0ken", "Ulm"));
        assert_eq!(greet.settings.secrets["E"].as_str(), "db");
        assert_eq!(serve.settings.environment[NATS_CREDS], "t0ken");
        assert_eq!(
            greet.settings.limits,
            RequestedLimits {
                memory_mib: Some(32),
                call_timeout_ms: Some(2000),
                concurrency: Some(4),
                cpu_ms: Some(50),
                host_calls: Some(9),
                ..RequestedLimits::default()
            }
        );
        assert_eq!(greet.settle, Some(Settle(None)));
        assert!(matches!(&serve.source, Source::Stored(location) if location.key == "k") && serve.settings.essential);
        let policy = serde_json::to_string(&serve.settings.policy).unwrap();
        let health = r#"{"probe":"http:80/ok","interval_ms":2000,"threshold":2}"#;
        assert_eq!(policy, format!(r#"{{"stop_signal":"SIGTERM","stop_grace_ms":20000,"health":{health}}}"#));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place_and_no_secret_is_shown() {
        for (text, expected) in [
            ("[workloads.a]\nfile = 'x'\nfiel = 1", "line 3: unknown field `fiel`. Did you mean 'file'?"),
            ("[workloads.a]\nfile = 'x'\nenvironment = { S = s3cret }", "line 3"),
            ("[workloads.a]", "workloads.a: it needs either a file or a url"),
            ("[workloads.a]\nurl = 'nats://B/k'", "set type"),
            ("[workloads.a]\nfile = 'x'\ntype = 'docker'", "docker"),
            ("[workloads.a]\nfile = 'x'\ncopies = 0", "copies has to be 1 to 100"),
            ("[workloads.a]\nfile = 'x'\ntriggers = ['a..b']", "triggers: expected tokens"),
            ("[workloads.a]\nfile = 'x'\nisolation = 'none'", "isolation: 'none' is no isolation"),
            ("[workloads.a]\nfile = 'x'\ntriggers = ['strem:A']", "triggers: 'strem' is not a kind"),
            ("[workloads.a]\nfile = 'x'\nnodes = ['me']", "nodes: "),
            ("[workloads.a]\nfile = 'x'\nlog_bytes = 0", "log_bytes: expected at least 1"),
            ("[workloads.a]\nfile = 'x'\nsettle = '2h'", "settle: expected"),
            ("[workloads.a]\nfile = 'x'\nretries = 1", "set job = true"),
            ("[workloads.a]\nfile = 'x'\njob = true\nhealth = 'tcp:80'", "a job has no health check"),
            ("[workloads.a]\nfile = 'x'\nrestart = 'often'", "restart: 'often' is no restart policy"),
            ("[workloads.a]\nfile = 'x'\nrestart = 'always'\nessential = true", "leave essential out"),
            ("[workloads.a]\nfile = 'x'\nhealth = 'tcp:80'\nhealth_threshold = 0", "threshold has to be 1"),
            ("[workloads.a]\nfile = 'x'\nenvironment = { A = { variable = 'NOPE' } }", "export NOPE"),
            ("[workloads.a]\nfile = 'x'\nenvironment = { A = { secret = 'a b' } }", "nex secret ls"),
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
