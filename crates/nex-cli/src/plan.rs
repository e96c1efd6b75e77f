//! What `nex apply` has to do so that what runs is what should run: a comparison of revisions, without any I/O.

use nex_client::discover::{Ended, Running};
use nex_protocol::control::EndedWorkload;
use nex_protocol::deploy::{OnSecretChange, WorkloadType};
use nex_protocol::digest::Digest;
use nex_protocol::id::{NodeId, WorkloadName};
use nex_protocol::seal::file_variable;
use nkeys::KeyPair;
use serde_json::json;

use crate::cmd::stop::StopTarget;
use crate::manifest::Settings;

/// In the place of a project where somebody deployed by hand. No project is called so.
pub(crate) const BY_HAND: &str = "~";
/// Digits of each digest in a revision: enough that no two versions are taken for one another.
const DIGITS: usize = 24;

/// Which version of a workload: its project, its artifact, its settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Revision {
    project: String,
    artifact: String,
    settings: String,
}

impl Revision {
    /// The revision of an artifact with these settings, and these versions of the secrets that they name, in their order. The settings
    /// are signed before they are hashed: whoever sees the revision cannot guess at secrets by it, and a signature of Ed25519 is the same
    /// each time.
    pub(crate) fn new(
        project: &str,
        artifact: &Digest,
        (name, r#type): (&WorkloadName, WorkloadType),
        (settings, secrets): (&Settings, &[u64]),
        issuer: &KeyPair,
    ) -> Result<Self, nkeys::error::Error> {
        let fixed = fixed_versions(r#type, settings, secrets);
        let mut settings_of = serde_json::to_value(settings).unwrap_or_default();
        // A function that is called by its name alone may say so or not.
        if r#type.is_function() && settings_of.get("triggers") == Some(&json!([name])) && settings_of.get("durable").is_none() {
            settings_of.as_object_mut().and_then(|members| members.insert("triggers".to_owned(), json!([])));
        }
        let bytes = serde_json::to_vec(&(r#type.as_str(), settings_of, fixed)).unwrap_or_default();
        let signed = issuer.sign(&[b"nex apply: ", bytes.as_slice()].concat())?;
        let digits = |digest: &Digest| digest.to_string().chars().take(DIGITS).collect();
        Ok(Self { project: project.to_owned(), artifact: digits(artifact), settings: digits(&Digest::of(&signed)) })
    }

    /// The project that a revision names, if it is one of `nex apply`, or [`BY_HAND`].
    pub(crate) fn project_of(text: &str) -> Option<String> {
        Self::parse(text).map(|revision| revision.project)
    }

    /// Whether a workload of the other revision is what this one wants: started by this project's file, or by hand in the same version.
    fn is_met_by(&self, other: &Self) -> bool {
        let same = self.artifact == other.artifact && self.settings == other.settings;
        same && (self.project == other.project || other.project == BY_HAND)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':').map(str::to_owned);
        let revision = Self { project: parts.next()?, artifact: parts.next()?, settings: parts.next()? };
        parts.next().is_none().then_some(revision)
    }
}

impl std::fmt::Display for Revision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { project, artifact, settings } = self;
        write!(f, "{project}:{artifact}:{settings}")
    }
}

/// The versions of those secrets that a copy keeps as long as it runs: what nodes renew while it runs makes no other version of it.
fn fixed_versions(r#type: WorkloadType, settings: &Settings, versions: &[u64]) -> Vec<u64> {
    let reaction = settings.policy.as_ref().and_then(|policy| policy.on_secret_change.as_deref());
    let is_renewed = r#type.is_function() || reaction.and_then(|what| what.parse().ok()) == Some(OnSecretChange::Restart);
    let secrets = settings.secrets.keys().zip(versions);
    secrets.filter(|(member, _)| !is_renewed && file_variable(member).is_none()).map(|(_, version)| *version).collect()
}

/// What is to be done about one workload.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) name: WorkloadName,
    /// Copies that are as they should be.
    pub(crate) unchanged: usize,
    /// The nodes of those that run.
    pub(crate) kept_on: Vec<NodeId>,
    /// Copies to be replaced by new ones.
    pub(crate) replace: Vec<StopTarget>,
    /// Copies to be started besides.
    pub(crate) start: usize,
    /// Copies that are too many.
    pub(crate) stop: Vec<StopTarget>,
    /// Why any is replaced, for people.
    pub(crate) why: Option<&'static str>,
}

impl Change {
    /// Whether all is as it should be.
    pub(crate) fn is_none(&self) -> bool {
        self.replace.is_empty() && self.start == 0 && self.stop.is_empty()
    }
}

/// What the issuer runs, compared with what should run.
pub(crate) struct Comparison<'a> {
    pub(crate) running: &'a [Running],
    /// What has ended within the last day.
    pub(crate) ended: &'a [Ended],
    pub(crate) issuer: &'a str,
}

impl Comparison<'_> {
    /// What to do so that so many copies of this revision run.
    pub(crate) fn change(&self, name: &WorkloadName, copies: usize, wanted: &Revision) -> Change {
        let own = self.own().filter(|(target, _)| target.name == *name);
        let (mut current, mut stale): (Vec<_>, Vec<_>) =
            own.partition(|(_, revision)| revision.as_ref().is_some_and(|own| wanted.is_met_by(own)));
        let mut stop: Vec<StopTarget> = current.drain(copies.min(current.len())..).map(|(target, _)| target).collect();
        let done = self.done(name, wanted).min(copies - current.len());
        let missing = copies - current.len() - done;
        let surplus = stale.split_off(missing.min(stale.len()));
        stop.extend(surplus.into_iter().map(|(target, _)| target));
        let why = stale.first().map(|(_, revision)| why(revision.as_ref(), wanted));
        let replace: Vec<StopTarget> = stale.into_iter().map(|(target, _)| target).collect();
        let kept_on = current.iter().map(|(target, _)| target.node.clone()).collect();
        Change {
            name: name.clone(),
            unchanged: current.len() + done,
            kept_on,
            start: missing - replace.len(),
            replace,
            stop,
            why,
        }
    }

    /// What was applied under this project's name, and is not in its file any more.
    pub(crate) fn orphans(&self, project: &str, names: &[&WorkloadName]) -> Vec<StopTarget> {
        let is_orphan = |(target, revision): &(StopTarget, Option<Revision>)| {
            revision.as_ref().is_some_and(|revision| revision.project == project) && !names.contains(&&target.name)
        };
        self.own().filter(is_orphan).map(|(target, _)| target).collect()
    }

    /// Jobs of this revision that have done their work: they need not be run again.
    fn done(&self, name: &WorkloadName, wanted: &Revision) -> usize {
        let is_done = |it: &&Ended| {
            let EndedWorkload { name: other, issuer, revision, exit, is_job, .. } = &it.workload;
            let revision = revision.as_deref().and_then(Revision::parse);
            *is_job
                && exit.code == 0
                && issuer == self.issuer
                && other == name.as_str()
                && revision.is_some_and(|own| wanted.is_met_by(&own))
        };
        self.ended.iter().filter(is_done).count()
    }

    fn own(&self) -> impl Iterator<Item = (StopTarget, Option<Revision>)> {
        let own = self.running.iter().filter(|running| running.workload.issuer == self.issuer);
        own.filter_map(|running| Some((StopTarget::of(running)?, running.workload.revision.as_deref().and_then(Revision::parse))))
    }
}

fn why(old: Option<&Revision>, new: &Revision) -> &'static str {
    match old {
        None => "it was not started by nex apply",
        Some(old) if old.project != new.project && old.project != BY_HAND => "another project started it",
        Some(old) => match (old.artifact != new.artifact, old.settings != new.settings) {
            (true, true) => "its file and its settings have changed",
            (true, false) => "its file has changed",
            _ => "its settings have changed",
        },
    }
}

#[cfg(test)]
mod tests {
    use nex_protocol::control::WorkloadSummary;
    use nex_protocol::deploy::RunPolicy;
    use nex_protocol::id::WorkloadId;
    use nex_protocol::seal::{Environment, NATS_CREDS};
    use proptest::prelude::*;

    use super::*;

    fn settings(secret: &str) -> Settings {
        Settings {
            description: String::new(),
            argv: Vec::new(),
            environment: Environment::from([("A".to_owned(), secret.to_owned())]),
            secrets: std::collections::BTreeMap::new(),
            policy: None,
            essential: false,
            triggers: Vec::new(),
            http: Vec::new(),
            durable: Vec::new(),
            limits: nex_protocol::deploy::RequestedLimits::default(),
            machine: None,
            isolation: None,
        }
    }

    fn revision(project: &str, artifact: &str, settings: &str) -> Revision {
        Revision { project: project.into(), artifact: artifact.into(), settings: settings.into() }
    }

    fn running(name: &str, issuer: &str, revision: Option<&Revision>) -> Running {
        let workload = WorkloadSummary {
            id: WorkloadId::new(1).to_string(),
            name: name.into(),
            issuer: issuer.into(),
            revision: revision.map(ToString::to_string),
            ..WorkloadSummary::default()
        };
        Running { node: KeyPair::new_server().public_key().parse().unwrap(), node_name: None, workload }
    }

    #[test]
    fn a_revision_changes_with_file_and_settings_and_tells_nothing_of_secrets() {
        let (mine, other) = (KeyPair::new_account(), KeyPair::new_account());
        let of = |bytes: &[u8], secret, key| {
            Revision::new("shop", &Digest::of(bytes), (&"a".parse().unwrap(), WorkloadType::V8), (&settings(secret), &[]), key)
                .unwrap()
        };
        let first = of(b"x", "1", &mine);
        assert_eq!(first, of(b"x", "1", &mine));
        assert_eq!(Revision::parse(&first.to_string()), Some(first.clone()));
        assert!(nex_protocol::deploy::is_revision(&first.to_string()));
        assert_eq!(why(Some(&first), &of(b"y", "1", &mine)), "its file has changed");
        assert_eq!(why(Some(&first), &of(b"x", "2", &mine)), "its settings have changed");
        assert_eq!(why(Some(&first), &of(b"y", "2", &mine)), "its file and its settings have changed");
        assert_ne!(first.settings, of(b"x", "1", &other).settings, "who has not the key cannot guess");
    }

    #[test]
    fn a_new_value_of_a_secret_is_another_version_where_no_node_brings_it_to_what_runs() {
        let (issuer, name) = (KeyPair::new_account(), "a".parse().unwrap());
        let of = |kind, members: &[&str], reaction: Option<&str>, versions: &[u64]| {
            let secrets = members.iter().map(|member| ((*member).to_owned(), "db".parse().unwrap())).collect();
            let policy = reaction.map(|what| RunPolicy { on_secret_change: Some(what.to_owned()), ..RunPolicy::default() });
            let settings = Settings { secrets, policy, ..settings("1") };
            Revision::new("shop", &Digest::of(b"x"), (&name, kind), (&settings, versions), &issuer).unwrap()
        };
        let native = WorkloadType::Native;
        for (kind, members, reaction, is_another) in [
            (native, &["A"][..], None, true),
            (native, &["A"], Some("none"), true),
            (native, &["A"], Some("restart"), false),
            (native, &["nex:file:A"], None, false),
            (native, &["nex:file:A"], Some("signal:SIGHUP"), false),
            (native, &[NATS_CREDS], None, false),
            (native, &["A", "nex:file:B"], None, true),
            (WorkloadType::V8, &["A"], None, false),
        ] {
            let [first, second] = [1, 2].map(|version| of(kind, members, reaction, &vec![version; members.len()]));
            assert_eq!(first != second, is_another, "{kind} {members:?} {reaction:?}");
        }
        assert_eq!(of(native, &["A", "nex:file:B"], None, &[1, 1]), of(native, &["A", "nex:file:B"], None, &[1, 2]));
    }

    #[test]
    fn what_was_deployed_by_hand_in_the_same_version_is_as_it_should_be() {
        let (issuer, name) = (KeyPair::new_account(), "a".parse().unwrap());
        let of = |project, settings: &Settings, versions: &[u64]| {
            Revision::new(project, &Digest::of(b"x"), (&name, WorkloadType::V8), (settings, versions), &issuer).unwrap()
        };
        let wanted = of("shop", &settings("1"), &[]);
        assert!(wanted.is_met_by(&of(BY_HAND, &settings("1"), &[])) && !wanted.is_met_by(&of("other", &settings("1"), &[])));
        assert!(!wanted.is_met_by(&of(BY_HAND, &settings("2"), &[])));
        let called = Settings { triggers: vec!["a".into()], ..settings("1") };
        assert_eq!(of("shop", &called, &[]), wanted, "its name calls it either way");
        assert_ne!(of("shop", &Settings { triggers: vec!["b".into()], ..settings("1") }, &[]), wanted);
    }

    #[test]
    fn what_is_left_of_a_project_is_an_orphan_and_nobody_elses_is() {
        let ours = revision("shop", "a", "s");
        let all = [
            running("kept", "me", Some(&ours)),
            running("gone", "me", Some(&ours)),
            running("gone", "you", Some(&ours)),
            running("gone", "me", Some(&revision("other", "a", "s"))),
            running("gone", "me", None),
        ];
        let comparison = Comparison { running: &all, ended: &[], issuer: "me" };
        let kept = "kept".parse().unwrap();
        let orphans = comparison.orphans("shop", &[&kept]);
        assert_eq!(orphans, [StopTarget::of(&all[1]).unwrap()]);
    }

    proptest! {
        #[test]
        fn afterwards_as_many_copies_of_the_wanted_revision_run_as_should(
            states in proptest::collection::vec((0..3_u8, any::<bool>()), 0..12), copies in 1..6_usize,
        ) {
            let wanted = revision("shop", "new", "s");
            let stale = revision("shop", "old", "s");
            let all: Vec<Running> = states.iter().map(|(state, mine)| {
                let revision = [Some(&wanted), Some(&stale), None][usize::from(*state)];
                running("a", if *mine { "me" } else { "you" }, revision)
            }).collect();
            let name = "a".parse().unwrap();
            let change = Comparison { running: &all, ended: &[], issuer: "me" }.change(&name, copies, &wanted);
            prop_assert_eq!(change.unchanged + change.replace.len() + change.start, copies);
            let own = states.iter().filter(|(_, mine)| *mine).count();
            // Every copy of ours is kept, replaced or stopped; nobody else's is touched.
            prop_assert_eq!(change.unchanged + change.replace.len() + change.stop.len(), own);
            // Nothing is stopped while a new copy could take its place.
            prop_assert!(change.start == 0 || change.stop.is_empty());
            let right = states.iter().filter(|(state, mine)| *mine && *state == 0).count();
            prop_assert_eq!(change.unchanged, right.min(copies));
        }
    }
}
