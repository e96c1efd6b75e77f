//! May a workload have these triggers, in this namespace?
//!
//! Subjects as 0.2.7 has them. Of streams, a namespace may use what is not a node's, a server's or another namespace's; where the operator
//! says which subjects its triggers may have, only messages on those.

use nex_protocol::deploy::{DeployRequest, WorkloadType};
use nex_protocol::id::Namespace;
use nex_protocol::subject::{self, DEAD_LETTER_STREAMS, SERVICE_SUBJECTS, dead_letter, dead_letter_stream};
use nex_protocol::trigger::http::HTTP_SUBJECTS;
use nex_protocol::trigger::{DurableTrigger, Source, Trigger};

use super::refusal::DeployRefusal;
use super::trigger_refusal::TriggerRefusal;
use crate::config::NodeConfig;

/// Most triggers of a kind.
const MAX_TRIGGERS: usize = 256;
/// What names of streams begin with that are nodes', and of the buckets that artifacts, images and secrets lie in.
const NODES: [&str; 4] = ["NEX_", "NEXCLIFILES", "NEXIMAGES_", "NEXSECRETS_"];
/// What names of buckets begin with that host services keep for their workloads.
const HOST_SERVICES: &str = "hs_";

/// The triggers of a workload.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Triggers {
    /// Subjects that call it.
    pub subjects: Vec<String>,
    /// Streams that call it.
    pub durable: Vec<DurableTrigger>,
}

/// The triggers of a request.
pub(super) fn read(
    request: &DeployRequest,
    kind: WorkloadType,
    namespace: &Namespace,
    denied: &[String],
) -> Result<Triggers, DeployRefusal> {
    let mut triggers = Triggers { subjects: request.trigger_subjects.clone().unwrap_or_default(), durable: Vec::new() };
    for text in request.triggers.iter().flatten().take(MAX_TRIGGERS + 1) {
        match text.parse().map_err(TriggerRefusal::Invalid)? {
            Trigger::Subject(subject) => triggers.subjects.push(subject),
            Trigger::Http(route) => triggers.subjects.push(route.subject(namespace)),
            Trigger::Durable(trigger) => triggers.durable.push(trigger),
        }
    }
    let Triggers { subjects, durable } = &triggers;
    let is_none = subjects.is_empty() && durable.is_empty();
    if !kind.is_function() && !subjects.is_empty() {
        return Err(DeployRefusal::TriggersOfAService(kind));
    }
    if !is_none && request.policy.as_ref().is_some_and(|policy| policy.job.is_some()) {
        return Err(DeployRefusal::TriggersOfAJob);
    }
    if kind.is_function() && is_none {
        return Err(DeployRefusal::NoTriggers);
    }
    if subjects.len() > MAX_TRIGGERS || durable.len() > MAX_TRIGGERS {
        return Err(DeployRefusal::TooMany { what: "trigger subjects", most: MAX_TRIGGERS });
    }
    for trigger in subjects {
        if !subject::is_valid_pattern(trigger) {
            return Err(DeployRefusal::NotASubject(trigger.chars().take(100).collect()));
        }
        check_subject(trigger, denied)?;
    }
    for (at, trigger) in durable.iter().enumerate() {
        if let Some(filter) =
            trigger.source.filter().filter(|filter| !is_of_a_bucket(filter) && !filter.starts_with("$NEX.dead."))
        {
            check_subject(&filter, denied)?;
        }
        if let Some(other) = durable.iter().take(at).find(|other| overlap(&other.source, &trigger.source)) {
            let (one, other) = (other.source.to_string(), trigger.source.to_string());
            return Err(TriggerRefusal::Overlap { one, other }.into());
        }
    }
    Ok(triggers)
}

fn check_subject(pattern: &str, denied: &[String]) -> Result<(), DeployRefusal> {
    if subject::reaches_reserved(pattern) || denied.iter().any(|no| subject::overlap(no, pattern)) {
        return Err(DeployRefusal::DeniedTrigger(pattern.to_owned()));
    }
    Ok(())
}

fn is_of_a_bucket(filter: &str) -> bool {
    filter.starts_with("$KV.") || filter.starts_with("$O.")
}

fn overlap(one: &Source, other: &Source) -> bool {
    let subjects = |source: &Source| source.filter().unwrap_or_else(|| ">".to_owned());
    if matches!(one, Source::Schedule(_)) {
        return one == other;
    }
    one.stream() == other.stream() && subject::overlap(&subjects(one), &subjects(other))
}

/// Whether a namespace may have these triggers.
pub(super) fn check_allowed(triggers: &Triggers, namespace: &str, config: &NodeConfig) -> Result<(), DeployRefusal> {
    // Requests of HTTP, and what services are asked.
    let is_of_others = |pattern: &&String| {
        let is_others = |kind: &str| {
            subject::overlap(&format!("{kind}>"), pattern) && !subject::covers(&format!("{kind}{namespace}.>"), pattern)
        };
        is_others(HTTP_SUBJECTS) || is_others(SERVICE_SUBJECTS)
    };
    if let Some(subject) = triggers.subjects.iter().find(is_of_others) {
        return Err(DeployRefusal::TriggerNotAllowed(subject.clone()));
    }
    let allowed = config.allow_triggers.as_ref().map(|allowed| allowed.get(namespace).map_or(&[][..], Vec::as_slice));
    let is_allowed = |pattern: &str| allowed.is_none_or(|allowed| allowed.iter().any(|wide| subject::covers(wide, pattern)));
    if let Some(subject) = triggers.subjects.iter().find(|subject| !is_allowed(subject)) {
        return Err(DeployRefusal::TriggerNotAllowed(subject.clone()));
    }
    for trigger in &triggers.durable {
        let is_own_dead = check_source(trigger, namespace)?;
        let is_clock = matches!(trigger.source, Source::Schedule(_));
        if !is_own_dead && !is_clock && !trigger.source.filter().map_or(allowed.is_none(), |filter| is_allowed(&filter)) {
            return Err(TriggerRefusal::NotAllowed(trigger.source.to_string()).into());
        }
    }
    Ok(())
}

/// Whose the stream is. Says whether it is the one of the namespace's own dead letters.
fn check_source(trigger: &DurableTrigger, namespace: &str) -> Result<bool, TriggerRefusal> {
    let of_others = || Err(TriggerRefusal::OfOthers(trigger.source.to_string()));
    let begins = |name: &str, with: &str| name.get(..with.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(with));
    let is_nodes = |name: &str| NODES.iter().any(|with| begins(name, with));
    match &trigger.source {
        Source::Stream { stream, .. } if stream.starts_with("KV_") || stream.starts_with("OBJ_") => {
            Err(TriggerRefusal::Bucket(stream.clone()))
        }
        Source::Stream { stream, filter } if stream.starts_with(DEAD_LETTER_STREAMS) => {
            let own: Option<Namespace> = namespace.parse().ok();
            let is_own = own.as_ref().is_some_and(|own| {
                let all = dead_letter(own, ">");
                *stream == dead_letter_stream(own) && filter.as_ref().is_none_or(|filter| subject::covers(&all, filter))
            });
            match is_own {
                false => of_others(),
                true if trigger.delivery.keeps_dead => Err(TriggerRefusal::DeadLettersOfDeadLetters(stream.clone())),
                true => Ok(true),
            }
        }
        Source::Stream { stream, .. } if is_nodes(stream) || stream.starts_with('$') => of_others(),
        // A filter on letters that are not in that stream finds nothing.
        Source::Stream { filter: Some(filter), .. } if filter.starts_with('$') => of_others(),
        Source::Stream { .. } | Source::Schedule(_) => Ok(false),
        Source::Kv { bucket, .. } | Source::Object { bucket } => {
            let is_own = !bucket.starts_with(HOST_SERVICES) || bucket.starts_with(&format!("{HOST_SERVICES}{namespace}_"));
            if is_nodes(bucket) || !is_own { of_others() } else { Ok(false) }
        }
    }
}

#[cfg(test)]
mod tests {
    use nex_protocol::deploy::{JobPolicy, RunPolicy};

    use super::*;
    use crate::config::RawConfig;

    fn config(text: &str) -> NodeConfig {
        NodeConfig::resolve(RawConfig::parse(text).unwrap()).unwrap()
    }

    fn judge(triggers: &[&str], config: &NodeConfig) -> Result<Triggers, DeployRefusal> {
        let request = DeployRequest {
            triggers: Some(triggers.iter().map(|text| (*text).to_owned()).collect()),
            ..DeployRequest::default()
        };
        let triggers = read(&request, WorkloadType::V8, &"acme".parse().unwrap(), &config.deny_triggers)?;
        check_allowed(&triggers, "acme", config).map(|()| triggers)
    }

    #[test]
    fn a_namespace_reads_what_is_its_own_and_nobody_elses() {
        let open = config("{}");
        for trigger in [
            "stream:ORDERS",
            "stream:ORDERS?filter=orders.>",
            "kv:SETTINGS",
            "object:PHOTOS",
            "kv:hs_acme_counter_kv",
            "stream:NEX_DEAD_acme?dead=none",
            "every:1s",
            "stream:NEX_DEAD_acme?filter=$NEX.dead.acme.a&dead=none",
        ] {
            let read = judge(&[trigger], &open);
            assert!(read.is_ok(), "{trigger}: {read:?}");
        }
        for trigger in [
            "stream:KV_SETTINGS",
            "stream:OBJ_PHOTOS",
            "stream:NEX_DEAD_other?dead=none",
            "stream:NEX_DEAD_acme",
            "stream:NEX_DEAD_acme?filter=$NEX.dead.other.>&dead=none",
            "stream:NEX_DEAD_acme?filter=$NEX.>&dead=none",
            "stream:NEX_SCHEDULES_acme",
            "stream:nex_x",
            "stream:$MQTT_msgs",
            "stream:A?filter=$NEX.dead.acme.x",
            "stream:A?filter=$NEX.>",
            "stream:A?filter=$KV.other.>",
            "stream:A?filter=_INBOX.>",
            "stream:A?filter=>",
            "kv:hs_other_counter_kv",
            "object:NEXCLIFILES",
            "object:NEXIMAGES_other",
            "object:neximages_acme",
            "kv:NEXSECRETS_other",
        ] {
            assert!(judge(&[trigger], &open).is_err(), "{trigger}");
        }
    }

    #[test]
    fn requests_are_those_of_ones_own_namespace() {
        let open = config("{}");
        let own = judge(&["http:POST /orders/{id}", "subject:nex.http.acme.GET.x"], &open).unwrap();
        assert_eq!(own.subjects, ["nex.http.acme.POST.orders.*", "nex.http.acme.GET.x"]);
        for subject in [
            "subject:nex.http.other.GET.x",
            "subject:nex.http.*.GET.x",
            "subject:nex.http.>",
            "subject:nex.*.other.GET.x",
            "subject:nex.svc.other.x",
            "subject:nex.svc.>",
        ] {
            assert!(matches!(judge(&[subject], &open), Err(DeployRefusal::TriggerNotAllowed(_))), "{subject}");
        }
        assert!(judge(&["subject:*.http.other.GET.x"], &open).is_err());
    }

    #[test]
    fn a_service_has_triggers_that_keep_their_messages_and_no_others() {
        let ask = |triggers: &[&str], policy: Option<RunPolicy>| {
            let triggers = Some(triggers.iter().map(|text| (*text).to_owned()).collect());
            let request = DeployRequest { triggers, policy, ..DeployRequest::default() };
            read(&request, WorkloadType::Native, &"acme".parse().unwrap(), &[])
        };
        assert_eq!(ask(&["stream:ORDERS", "kv:SETTINGS", "every:1m"], None).unwrap().durable.len(), 3);
        assert!(ask(&[], None).is_ok());
        for triggers in [&["subject:a.b"][..], &["stream:ORDERS", "http:/a"]] {
            let refusal = ask(triggers, None).unwrap_err();
            assert!(refusal.to_string().contains("have it subscribe its subjects itself"), "{refusal}");
        }
        let job = RunPolicy { job: Some(JobPolicy::default()), ..RunPolicy::default() };
        assert!(matches!(ask(&["every:1m"], Some(job)), Err(DeployRefusal::TriggersOfAJob)));
    }

    #[test]
    fn triggers_of_one_workload_have_no_message_in_common() {
        let open = config("{}");
        assert!(judge(&["stream:A?filter=a.*", "stream:A?filter=b.*", "stream:B"], &open).is_ok());
        for pair in [
            ["stream:A", "stream:A?start=all"],
            ["stream:A?filter=a.*", "stream:A?filter=a.b"],
            ["kv:B", "kv:B?key=x"],
            ["every:60s", "every:1m"],
        ] {
            let refusal = judge(&pair, &open).unwrap_err();
            assert!(refusal.to_string().contains("handled twice"), "{refusal}");
        }
    }

    #[test]
    fn where_subjects_are_allowed_by_namespace_streams_are_confined_to_them() {
        let closed =
            config(r#"{"allow_trigger_subjects": {"acme": ["acme.>", "$KV.acme.>"]}, "deny_trigger_subjects": ["acme.no.>"]}"#);
        for trigger in [
            "stream:A?filter=acme.x",
            "kv:acme",
            "kv:acme?key=a.*",
            "subject:acme.y",
            "every:1s",
            "stream:NEX_DEAD_acme?dead=none",
        ] {
            assert!(judge(&[trigger], &closed).is_ok(), "{trigger}");
        }
        for trigger in
            ["stream:A", "stream:A?filter=other.x", "kv:other", "object:acme", "subject:other", "stream:A?filter=acme.no.x"]
        {
            assert!(judge(&[trigger], &closed).is_err(), "{trigger}");
        }
    }
}
