//! `nex.toml` from what runs: what a node tells of a workload's deploy becomes the fields that would deploy it again. Values of the
//! environment become files, so that the manifest can be shown and checked in.

use std::collections::BTreeMap;
use std::path::PathBuf;

use nex_protocol::deploy::{
    DeployRequest, DeployedSettings, JobPolicy, RequestedHealth, RequestedPlacement, RunPolicy, WorkloadType,
};
use nex_protocol::id::WorkloadName;
use nex_protocol::seal::{FILE, NATS_CREDS};

use super::raw::{RawFrom, RawManifest, RawValue, RawWorkload};
use crate::args::{SETTLE, milliseconds};

/// A workload that runs.
#[derive(Debug)]
pub(crate) struct Exported {
    pub(crate) name: WorkloadName,
    pub(crate) copies: usize,
    pub(crate) settings: DeployedSettings,
}

/// A manifest, and the files that it names.
#[derive(Default)]
pub(crate) struct Written {
    pub(crate) toml: String,
    /// Values of environments, by path below the manifest's directory.
    pub(crate) files: BTreeMap<PathBuf, String>,
    /// Workloads that cannot be said in a manifest, and why.
    pub(crate) left_out: Vec<(WorkloadName, &'static str)>,
}

impl std::fmt::Debug for Written {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The files hold secrets.
        f.debug_struct("Written").field("files", &self.files.len()).finish_non_exhaustive()
    }
}

/// Writes a manifest whose files lie in the directory `values`.
pub(crate) fn written(project: &str, workloads: Vec<Exported>, values: &str) -> Result<Written, toml::ser::Error> {
    let mut written = Written::default();
    let mut raw = RawManifest { project: Some(project.to_owned()), ..RawManifest::default() };
    for Exported { name, copies, settings } in workloads {
        if let Some(why) = unsayable(&settings) {
            written.left_out.push((name, why));
            continue;
        }
        let DeployedSettings { request, environment } = settings;
        let (mut workload, directory) = (of_request(request, &name), PathBuf::from(values).join(name.as_str()));
        workload.copies = (copies != 1).then_some(copies);
        for (key, value) in environment {
            let file = directory.join(if key == NATS_CREDS { "nats.creds" } else { key.as_str() });
            // The line break is not part of the value where it is read.
            let text = if value.ends_with('\r') { value } else { value + "\n" };
            written.files.insert(file.clone(), text);
            match key == NATS_CREDS {
                true => workload.nats_creds = Some(RawFrom::File(file)),
                false => drop(workload.environment.insert(key, RawValue::From(RawFrom::File(file)))),
            }
        }
        raw.workloads.insert(name.to_string(), workload);
    }
    written.toml = toml::to_string(&raw)?;
    Ok(written)
}

/// What a manifest has no words for.
fn unsayable(settings: &DeployedSettings) -> Option<&'static str> {
    let DeployedSettings { request, environment } = settings;
    // Each becomes the name of a file.
    let is_file = |key: &String| key == NATS_CREDS || (!key.starts_with('.') && crate::environment::check_name(key, "").is_ok());
    match () {
        () if request.host_services.is_some() || request.trigger_connection.is_some() => {
            Some("it has NATS connections of its own (--hs_url, --trigger_url)")
        }
        () if request.location.is_none() || request.r#type.is_none() => Some("nobody knows where its file lies"),
        () if !environment.keys().all(is_file) => Some("a variable of its environment has a name that no file can have"),
        () => None,
    }
}

fn of_secret(member: &str, name: String) -> (String, RawValue) {
    match member.strip_prefix(FILE) {
        Some(variable) => (variable.to_owned(), RawValue::From(RawFrom::SecretFile(name))),
        None => (member.to_owned(), RawValue::From(RawFrom::Secret(name))),
    }
}

fn of_request(request: DeployRequest, name: &WorkloadName) -> RawWorkload {
    let kind = request.r#type.as_deref().and_then(|text| text.parse::<WorkloadType>().ok());
    let is_function = kind.is_some_and(WorkloadType::is_function);
    let (limits, policy) = (request.limits.unwrap_or_default(), request.policy.unwrap_or_default());
    let RunPolicy { restart, stop_signal, stop_grace_ms, health, job, on_secret_change } = policy;
    let RequestedHealth { probe, interval_ms, timeout_ms, threshold } = health.clone().unwrap_or_default();
    let (is_job, JobPolicy { retries, deadline_ms }) = (job.is_some(), job.unwrap_or_default());
    let mut triggers = request.trigger_subjects.unwrap_or_default();
    triggers.extend(request.triggers.unwrap_or_default());
    if triggers == [name.as_str()] {
        triggers.clear();
    }
    let usual = if is_function || is_job { None } else { Some(milliseconds(SETTLE)) };
    let secrets = request.secrets.unwrap_or_default().into_iter();
    let RequestedPlacement { nodes, tags, spread } = request.placement.unwrap_or_default();
    let (credentials, secrets): (Vec<_>, Vec<_>) = secrets.partition(|(key, _)| key == NATS_CREDS);
    RawWorkload {
        url: request.location.map(|location| location.to_string()),
        r#type: request.r#type,
        settle: match request.settle_ms {
            settle if settle == usual => None,
            None => Some("none".to_owned()),
            Some(settle) => Some(time(settle)),
        },
        description: request.description.unwrap_or_default(),
        argv: request.argv.unwrap_or_default(),
        environment: secrets.into_iter().map(|(member, name)| of_secret(&member, name)).collect(),
        nats_creds: credentials.into_iter().map(|(_, name)| RawFrom::Secret(name)).next(),
        essential: request.essential.unwrap_or_default(),
        restart,
        stop_signal,
        stop_grace: stop_grace_ms.map(time),
        health: health.map(|_| probe),
        health_interval: interval_ms.map(time),
        health_timeout: timeout_ms.map(time),
        health_threshold: threshold,
        on_secret_change,
        job: is_job,
        retries,
        deadline: deadline_ms.map(time),
        triggers,
        memory_mib: limits.memory_mib,
        call_timeout: limits.call_timeout_ms.map(time),
        concurrency: limits.concurrency,
        cpu_time: limits.cpu_ms.map(time),
        payload_bytes: limits.payload_bytes,
        reply_bytes: limits.reply_bytes,
        host_calls: limits.host_calls,
        log_bytes: limits.log_bytes,
        machine: request.machine_class,
        isolation: request.isolation,
        nodes,
        tags,
        spread,
        ..RawWorkload::default()
    }
}

fn time(milliseconds: u64) -> String {
    format!("{milliseconds}ms")
}

#[cfg(test)]
mod tests {
    use nex_protocol::deploy::RequestedLimits;
    use nex_protocol::digest::Digest;
    use nkeys::KeyPair;
    use proptest::prelude::*;

    use super::super::{Manifest, Source};
    use super::*;
    use crate::plan::{BY_HAND, Revision};

    fn settings(kind: &str) -> DeployedSettings {
        let request = DeployRequest {
            r#type: Some(kind.to_owned()),
            location: "nats://B/k".parse().ok(),
            essential: Some(false),
            description: Some("what".to_owned()),
            ..DeployRequest::default()
        };
        DeployedSettings { request, environment: BTreeMap::new() }
    }

    /// Writes what runs and reads it again.
    fn again(settings: DeployedSettings) -> Manifest {
        let directory = tempfile::tempdir().unwrap();
        let exported = Exported { name: "a".parse().unwrap(), copies: 2, settings };
        let Written { toml, files, left_out } = written("shop", vec![exported], "values").unwrap();
        assert!(left_out.is_empty());
        for (path, text) in files {
            let path = directory.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let path = directory.path().join("nex.toml");
        std::fs::write(&path, &toml).unwrap();
        Manifest::read(&path, |_| None).unwrap_or_else(|error| panic!("{error:#}\n{toml}"))
    }

    #[test]
    fn every_field_comes_back() {
        let mut service = settings("native");
        service.request.argv = Some(vec!["-v".into(), "two words".into()]);
        service.request.settle_ms = Some(1_000);
        service.request.machine_class = Some("large".into());
        service.request.secrets = Some(
            [("PASSWORD", "db"), (NATS_CREDS, "bus"), ("nex:file:K", "k")].map(|(a, b)| (a.to_owned(), b.to_owned())).into(),
        );
        service.request.policy = serde_json::from_str(
            r#"{"restart":"always","stop_signal":"SIGTERM","stop_grace_ms":1500,"health":{"probe":"http:80/ok","threshold":2},"on_secret_change":"restart"}"#,
        )
        .unwrap();
        let manifest = again(service.clone());
        let one = &manifest.workloads[0];
        assert_eq!((manifest.project.as_str(), one.copies, one.settle), ("shop", 2, None));
        assert!(matches!(&one.source, Source::Stored(location) if location.to_string() == "nats://B/k"));
        assert_eq!((&one.settings.policy, &one.settings.argv), (&service.request.policy, &service.request.argv.clone().unwrap()));
        assert_eq!((one.settings.secrets["PASSWORD"].as_str(), one.settings.secrets[NATS_CREDS].as_str()), ("db", "bus"));
        assert_eq!(one.settings.secrets["nex:file:K"].as_str(), "k");
        let node = KeyPair::new_server().public_key();
        service.request.placement = Some(RequestedPlacement {
            nodes: vec![node.clone()],
            tags: [("region".to_owned(), "eu".to_owned())].into(),
            spread: true,
        });
        let placed = &again(service.clone()).workloads[0];
        assert_eq!((placed.nodes[0].as_str(), placed.tags["region"].as_str(), placed.spread), (node.as_str(), "eu", true));
        service.request.settle_ms = None;
        assert_eq!(again(service).workloads[0].settle.unwrap().0, None);
        let mut function = settings("v8");
        function.request.trigger_subjects = Some(vec!["a.b".into()]);
        function.request.triggers = Some(vec!["http:GET /a/{b}".into(), "stream:A?start=all".into()]);
        function.request.isolation = Some("isolate".into());
        function.request.limits = Some(RequestedLimits { cpu_ms: Some(50), log_bytes: Some(9), ..RequestedLimits::default() });
        let read = again(function.clone());
        let read_back = &read.workloads[0].settings;
        assert_eq!((read_back.triggers.len(), read_back.durable.len(), read_back.http.len()), (1, 1, 1));
        assert_eq!(read_back.isolation, Some(nex_protocol::deploy::Isolation::Isolate));
        assert_eq!(Some(read.workloads[0].settings.limits), function.request.limits);
    }

    #[test]
    fn what_a_manifest_has_no_words_for_is_left_out_with_why() {
        let mut connected = settings("v8");
        connected.request.host_services = Some(nex_protocol::deploy::ConnectionDetails::default());
        let mut odd = settings("v8");
        odd.environment.insert("../x".into(), "y".into());
        for settings in [connected, odd] {
            let exported = Exported { name: "a".parse().unwrap(), copies: 1, settings };
            let Written { toml, files, left_out } = written("shop", vec![exported], "values").unwrap();
            assert!(left_out.len() == 1 && files.is_empty() && !toml.contains("workloads.a"), "{toml}");
        }
    }

    proptest! {
        #[test]
        fn whatever_the_environment_holds_the_version_is_the_same(values in proptest::collection::vec("[^\\x00]{0,40}", 0..4)) {
            let mut deployed = settings("native");
            deployed.request.settle_ms = Some(1_000);
            deployed.environment = values.into_iter().enumerate().map(|(at, value)| (format!("K{at}"), value)).collect();
            let manifest = again(deployed.clone());
            let (issuer, name) = (KeyPair::new_account(), "a".parse().unwrap());
            let ran = super::super::Settings {
                description: "what".into(),
                argv: Vec::new(),
                environment: deployed.environment.clone(),
                secrets: BTreeMap::new(),
                essential: false,
                policy: None,
                triggers: Vec::new(),
                durable: Vec::new(),
                http: Vec::new(),
                limits: RequestedLimits::default(),
                machine: None,
                isolation: None,
            };
            let of = |settings| Revision::new(BY_HAND, &Digest::of(b""), (&name, WorkloadType::Native), (settings, &[]), &issuer).unwrap();
            prop_assert_eq!(of(&ran), of(&manifest.workloads[0].settings));
        }
    }
}
