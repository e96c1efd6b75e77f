//! Flags about a workload, the same for `run` and `devrun`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use nex_bus::settings::Secret;
use nex_client::artifact::Artifact;
use nex_client::deploy::Deployment;
use nex_protocol::deploy::{ConnectionDetails, Isolation, RequestedLimits, RunPolicy, WorkloadType};
use nex_protocol::id::WorkloadName;
use nex_protocol::trigger::Trigger;

use super::LimitArgs;
use super::policy::PolicyArgs;
use crate::check::{self, Settle, Triggers, Usage};
use crate::environment::{self, Variables};

/// How long a service has to run before it counts as started.
pub(crate) const SETTLE: Duration = Duration::from_secs(1);

/// How a workload is to run.
#[derive(Debug, Args)]
#[command(next_help_heading = "Workload")]
pub(crate) struct WorkloadArgs {
    /// Arguments of the program, split as a shell would: --argv "-v 'two words'"
    #[arg(long, value_name = "WORDS", default_value = "", hide_default_value = true, allow_hyphen_values = true)]
    pub(crate) argv: String,
    /// File of environment variables, a line KEY=value each, as `.env` files have them; repeatable, the last one counts
    #[arg(long = "env-file", value_name = "FILE")]
    pub(crate) env_files: Vec<PathBuf>,
    /// Credentials file for the service, or secret:NAME: it finds its path as NATS_CREDS
    #[arg(long = "nats-creds", value_name = "FILE")]
    pub(crate) nats_creds: Option<String>,
    /// Start it again when it fails, as --restart on-failure
    #[arg(long)]
    pub(crate) essential: bool,
    #[command(flatten)]
    pub(crate) policy: PolicyArgs,
    /// Subject that calls the function; repeatable [default: the workload's name, if nothing else does]
    #[arg(long = "trigger_subject", visible_alias = "trigger-subject", value_name = "SUBJECT", value_parser = check::subject)]
    pub(crate) trigger_subject: Vec<String>,
    /// What else calls the function, or asks the service to deal with its messages; repeatable: stream:ORDERS?filter=orders.new&max-deliver=5, kv:BUCKET?key=a.>, object:BUCKET,
    /// subject:a.*; docs/triggers.md has all options
    #[arg(long = "trigger", value_name = "TRIGGER")]
    pub(crate) trigger: Vec<Trigger>,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    /// Class of the machine it runs on, one of the node's machine_classes [default: the node's standard machine]
    #[arg(long = "machine", value_name = "CLASS")]
    pub(crate) machine: Option<String>,
    /// How far it is kept apart: isolate (functions of a namespace share agents), process (an agent of its own) or microvm [default: as
    /// the node does it]
    #[arg(long, value_name = "LEVEL")]
    pub(crate) isolation: Option<Isolation>,
    /// How long it has to run before it counts as started, or none; up to 1m [default: 1s for a service, none for a function]
    #[arg(long, value_name = "TIME", value_parser = check::settle)]
    pub(crate) settle: Option<Settle>,
    /// Wait until the job ends, print what it writes, and end with its exit code; interrupted, it runs on
    #[arg(long, requires = "job")]
    pub(crate) wait: bool,
    /// Send the environment also to a node that does not sign its key, as those of Nex 0.2.7: anybody may have answered in its name
    #[arg(long = "unsigned-node")]
    pub(crate) unsigned_node: bool,
    /// NATS of the workload's host services
    #[arg(long = "hs_url", alias = "hs-url", value_name = "URLS")]
    pub(crate) hs_url: Option<String>,
    /// User JWT for it, or @file
    #[arg(long = "hs_jwt", alias = "hs-jwt", value_name = "JWT", requires_all = ["hs_url", "hs_seed"])]
    pub(crate) hs_jwt: Option<Secret>,
    /// The user's seed, or @file
    #[arg(long = "hs_seed", alias = "hs-seed", value_name = "SEED", requires = "hs_jwt")]
    pub(crate) hs_seed: Option<Secret>,
    /// NATS on which the triggers are subscribed [default: that of --hs_url, or else the node's]
    #[arg(long = "trigger_url", alias = "trigger-url", value_name = "URLS")]
    pub(crate) trigger_url: Option<String>,
    /// User JWT for it, or @file
    #[arg(long = "trigger_jwt", alias = "trigger-jwt", value_name = "JWT", requires_all = ["trigger_url", "trigger_seed"])]
    pub(crate) trigger_jwt: Option<Secret>,
    /// The user's seed, or @file
    #[arg(long = "trigger_seed", alias = "trigger-seed", value_name = "SEED", requires = "trigger_jwt")]
    pub(crate) trigger_seed: Option<Secret>,
}

/// A workload by its arguments, validated before anything is sent.
#[derive(Debug)]
pub(crate) struct WorkloadPlan {
    name: WorkloadName,
    r#type: WorkloadType,
    argv: Vec<String>,
    environment: Variables,
    essential: bool,
    triggers: Triggers,
    limits: RequestedLimits,
    machine_class: Option<String>,
    isolation: Option<Isolation>,
    settle: Option<Duration>,
    policy: Option<RunPolicy>,
    host_services: Option<ConnectionDetails>,
    trigger_connection: Option<ConnectionDetails>,
}

impl WorkloadArgs {
    /// The words of `--argv`.
    fn words(&self) -> Result<Vec<String>, Usage> {
        let why = "--argv cannot be split into words: a quote is never closed, or the last character is a backslash";
        shlex::split(&self.argv).ok_or_else(|| Usage(format!("{why}; next: close the quote, or write \\ before the character")))
    }

    fn variables(&self, r#type: WorkloadType, arguments: &[String]) -> anyhow::Result<Variables> {
        let mut variables = environment::collect(&self.env_files, arguments)?;
        if let Some(from) = &self.nats_creds {
            check::takes_credentials(r#type)?;
            variables.credentials(from)?;
        }
        check::secrets_fit(r#type, self.policy.request()?.as_ref(), &variables.secrets)?;
        Ok(variables)
    }

    /// Validates the arguments.
    pub(crate) fn plan(&self, name: WorkloadName, r#type: WorkloadType, environment: &[String]) -> anyhow::Result<WorkloadPlan> {
        let mut triggers = Triggers { subjects: self.trigger_subject.clone(), ..Triggers::default() };
        triggers.extend(self.trigger.iter().cloned());
        triggers.fit(r#type, self.policy.job)?;
        Ok(WorkloadPlan {
            name,
            r#type,
            argv: self.words()?,
            environment: self.variables(r#type, environment)?,
            essential: self.essential,
            triggers,
            limits: self.limits.requested(),
            machine_class: self.machine.clone(),
            isolation: check::isolation(self.isolation, r#type, self.machine.is_some())?,
            policy: self.policy.policy(r#type)?,
            settle: match self.settle {
                Some(Settle(time)) => time,
                None => (!r#type.is_function() && !self.policy.job).then_some(SETTLE),
            },
            host_services: connection(self.hs_url.as_ref(), self.hs_jwt.as_ref(), self.hs_seed.as_ref())?,
            trigger_connection: connection(self.trigger_url.as_ref(), self.trigger_jwt.as_ref(), self.trigger_seed.as_ref())?,
        })
    }
}

impl WorkloadPlan {
    /// How far it is to be kept apart, if that was said.
    pub(crate) fn isolation(&self) -> Option<Isolation> {
        self.isolation
    }

    /// Name of the workload.
    pub(crate) fn name(&self) -> &WorkloadName {
        &self.name
    }

    /// Its type.
    pub(crate) fn r#type(&self) -> WorkloadType {
        self.r#type
    }

    /// The subjects that it will be called on.
    pub(crate) fn subjects(&self) -> Vec<String> {
        if self.is_called_by_its_name() { vec![self.name.to_string()] } else { self.triggers.subjects.clone() }
    }

    /// Whether HTTP requests call it.
    pub(crate) fn has_routes(&self) -> bool {
        !self.triggers.http.is_empty()
    }

    fn is_called_by_its_name(&self) -> bool {
        self.triggers == Triggers::default() && self.r#type.is_function()
    }

    /// The deployment of an artifact, and whether the function's trigger defaulted to its name.
    pub(crate) fn deployment(self, artifact: Artifact, description: String) -> (Deployment, bool) {
        let is_default = self.is_called_by_its_name();
        let fresh = Deployment::new(self.name, self.r#type, artifact);
        let deployment = Deployment {
            description,
            argv: self.argv,
            environment: self.environment.values,
            secrets: self.environment.secrets,
            essential: self.essential,
            triggers: if is_default { fresh.triggers } else { self.triggers.subjects },
            http: self.triggers.http,
            durable: self.triggers.durable,
            limits: self.limits,
            machine_class: self.machine_class,
            isolation: self.isolation,
            settle: self.settle,
            policy: self.policy,
            host_services: self.host_services,
            trigger_connection: self.trigger_connection,
            ..fresh
        };
        (deployment, is_default)
    }
}

fn connection(url: Option<&String>, jwt: Option<&Secret>, seed: Option<&Secret>) -> anyhow::Result<Option<ConnectionDetails>> {
    let text = |secret: Option<&Secret>| secret.map_or(Ok(String::new()), |secret| check::text_or_file(secret.expose()));
    let Some(url) = url else { return Ok(None) };
    Ok(Some(ConnectionDetails { nats_url: url.clone(), nats_user_jwt: text(jwt)?, nats_user_seed: text(seed)? }))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        workload: WorkloadArgs,
    }

    fn plan(line: &[&str], r#type: WorkloadType) -> anyhow::Result<WorkloadPlan> {
        let line = Line::try_parse_from(["x"].iter().chain(line))?;
        line.workload.plan("echo".parse()?, r#type, &["A=b".to_owned()])
    }

    fn artifact() -> Artifact {
        let digest = nex_protocol::digest::Digest::of(b"");
        Artifact { location: "nats://B/k".parse().unwrap(), jetstream_domain: None, digest, bytes: 0 }
    }

    #[test]
    fn every_argument_reaches_the_deployment() {
        let seed = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(seed.path(), "SUSEED\n").unwrap();
        let at_seed = format!("@{}", seed.path().display());
        let line = [
            "--argv",
            "-v 'two words'",
            "--essential",
            "--trigger_subject",
            "a.*",
            "--trigger-subject",
            "b",
            "--trigger",
            "stream:ORDERS?filter=orders.new",
            "--trigger",
            "subject:c.d",
            "--memory-mib",
            "64",
            "--call-timeout",
            "1500ms",
            "--concurrency",
            "4",
            "--cpu-time",
            "50ms",
            "--payload-bytes",
            "1000",
            "--reply-bytes",
            "2000",
            "--host-calls",
            "10",
            "--log-bytes",
            "3000",
            "--hs_url",
            "nats://h",
            "--hs_jwt",
            "JWT",
            "--hs_seed",
            &at_seed,
            "--trigger_url",
            "nats://t",
        ];
        let (deployment, is_default) = plan(&line, WorkloadType::Wasm).unwrap().deployment(artifact(), "why".into());
        assert_eq!(deployment.argv, ["-v", "two words"]);
        assert_eq!(deployment.triggers, ["a.*", "b", "c.d"]);
        assert_eq!(deployment.durable[0].to_string(), "stream:ORDERS?filter=orders.new");
        assert_eq!(deployment.environment["A"], "b");
        let limits = RequestedLimits {
            memory_mib: Some(64),
            call_timeout_ms: Some(1500),
            concurrency: Some(4),
            cpu_ms: Some(50),
            payload_bytes: Some(1000),
            reply_bytes: Some(2000),
            host_calls: Some(10),
            log_bytes: Some(3000),
        };
        assert_eq!(deployment.limits, limits);
        let host_services = deployment.host_services.unwrap();
        assert_eq!((host_services.nats_url.as_str(), host_services.nats_user_seed.as_str()), ("nats://h", "SUSEED"));
        assert_eq!(deployment.trigger_connection.unwrap().nats_url, "nats://t");
        assert!(deployment.essential && !is_default);
    }

    #[test]
    fn a_function_without_trigger_is_called_by_its_name_and_a_service_by_nothing() {
        let (function, is_default) = plan(&[], WorkloadType::V8).unwrap().deployment(artifact(), String::new());
        assert!(is_default && function.triggers == ["echo"]);
        let (service, is_default) = plan(&[], WorkloadType::Native).unwrap().deployment(artifact(), String::new());
        assert!(!is_default && service.triggers.is_empty());
        let (streaming, is_default) =
            plan(&["--trigger", "stream:A"], WorkloadType::V8).unwrap().deployment(artifact(), String::new());
        assert!(!is_default && streaming.triggers.is_empty() && streaming.durable.len() == 1);
        for line in [&["--trigger_subject", "a"], &["--trigger", "http:/a"]] {
            assert!(plan(line, WorkloadType::Native).is_err());
        }
        let (consumer, _) = plan(&["--trigger", "stream:A"], WorkloadType::Native).unwrap().deployment(artifact(), String::new());
        assert!(consumer.triggers.is_empty() && consumer.durable.len() == 1);
        assert!(plan(&["--trigger", "stream:A", "--job"], WorkloadType::Native).is_err());
    }

    #[test]
    fn invalid_arguments_are_refused_before_anything_is_sent() {
        for line in [
            &["--trigger_subject", "a..b"][..],
            &["--trigger", "a.b"],
            &["--trigger", "stream:A?max-deliver=none"],
            &["--argv", "'open"],
            &["--hs_jwt", "J", "--hs_seed", "S"],
            &["--concurrency", "0"],
            &["--memory-mib", "0"],
            &["--host-calls", "0"],
            &["--cpu-time", "0s"],
            &["--call-timeout", "soon"],
        ] {
            assert!(plan(line, WorkloadType::V8).is_err(), "{line:?}");
        }
    }
}
