//! The subjects of the internal bus: built and parsed here and nowhere else.
//!
//! An agent's credentials let it publish `hostint.<agent>.>` and read `agentint.<agent>.>` and its own inbox, nothing else: the subject
//! says who speaks. Which instances are an agent's is the node's knowledge, never the agent's word.

use crate::id::{AgentId, InstanceId};

/// What the node subscribes to hear all agents.
pub const ALL_AGENTS: &str = "hostint.>";

/// What an agent publishes, read from its subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromAgent<'a> {
    /// `hostint.<agent>.handshake`
    Handshake,
    /// `hostint.<agent>.event.<instance>`
    Event(InstanceId),
    /// `hostint.<agent>.log.<instance>`
    Log(InstanceId),
    /// `hostint.<agent>.host.<instance>.<service>.<method>`
    HostCall {
        /// On whose behalf.
        instance: InstanceId,
        /// `<service>.<method>`
        call: &'a str,
    },
}

/// What a node asks of an agent, read from its subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    /// `agentint.<agent>.ping`
    Ping,
    /// `agentint.<agent>.deploy.<instance>`
    Deploy(InstanceId),
    /// `agentint.<agent>.undeploy.<instance>`
    Undeploy(InstanceId),
    /// `agentint.<agent>.update.<instance>`
    Update(InstanceId),
    /// `agentint.<agent>.invoke.<instance>`
    Invoke(InstanceId),
}

impl<'a> FromAgent<'a> {
    /// Reads a subject of [`ALL_AGENTS`].
    #[must_use]
    pub fn parse(subject: &'a str) -> Option<(AgentId, Self)> {
        let (agent, rest) = subject.strip_prefix("hostint.")?.split_once('.')?;
        let agent = agent.parse().ok()?;
        let said = match rest.split_once('.') {
            None if rest == "handshake" => Self::Handshake,
            Some(("event", instance)) => Self::Event(instance.parse().ok()?),
            Some(("log", instance)) => Self::Log(instance.parse().ok()?),
            Some(("host", rest)) => {
                let (instance, call) = rest.split_once('.')?;
                Self::HostCall { instance: instance.parse().ok()?, call }
            }
            _ => return None,
        };
        Some((agent, said))
    }
}

impl Verb {
    /// Reads a subject of [`verbs`].
    #[must_use]
    pub fn parse(subject: &str) -> Option<Self> {
        let (_agent, rest) = subject.strip_prefix("agentint.")?.split_once('.')?;
        match rest.split_once('.') {
            None if rest == "ping" => Some(Self::Ping),
            Some(("deploy", instance)) => Some(Self::Deploy(instance.parse().ok()?)),
            Some(("undeploy", instance)) => Some(Self::Undeploy(instance.parse().ok()?)),
            Some(("update", instance)) => Some(Self::Update(instance.parse().ok()?)),
            Some(("invoke", instance)) => Some(Self::Invoke(instance.parse().ok()?)),
            _ => None,
        }
    }
}

/// `hostint.<agent>.handshake`
#[must_use]
pub fn handshake(agent: &AgentId) -> String {
    format!("hostint.{agent}.handshake")
}

/// `hostint.<agent>.event.<instance>`
#[must_use]
pub fn event(agent: &AgentId, instance: &InstanceId) -> String {
    format!("hostint.{agent}.event.{instance}")
}

/// `hostint.<agent>.log.<instance>`
#[must_use]
pub fn log(agent: &AgentId, instance: &InstanceId) -> String {
    format!("hostint.{agent}.log.{instance}")
}

/// `hostint.<agent>.host.<instance>.<service>.<method>`
#[must_use]
pub fn host_call(agent: &AgentId, instance: &InstanceId, service: crate::host::Service, method: &str) -> String {
    format!("hostint.{agent}.host.{instance}.{service}.{method}")
}

/// All that an agent may publish unasked.
#[must_use]
pub fn from_agent(agent: &AgentId) -> String {
    format!("hostint.{agent}.>")
}

/// All verbs of an agent: what it subscribes.
#[must_use]
pub fn verbs(agent: &AgentId) -> String {
    format!("agentint.{agent}.>")
}

/// `agentint.<agent>.ping`
#[must_use]
pub fn ping(agent: &AgentId) -> String {
    format!("agentint.{agent}.ping")
}

/// `agentint.<agent>.deploy.<instance>`
#[must_use]
pub fn deploy(agent: &AgentId, instance: &InstanceId) -> String {
    format!("agentint.{agent}.deploy.{instance}")
}

/// `agentint.<agent>.undeploy.<instance>`
#[must_use]
pub fn undeploy(agent: &AgentId, instance: &InstanceId) -> String {
    format!("agentint.{agent}.undeploy.{instance}")
}

/// `agentint.<agent>.update.<instance>`
#[must_use]
pub fn update(agent: &AgentId, instance: &InstanceId) -> String {
    format!("agentint.{agent}.update.{instance}")
}

/// `agentint.<agent>.invoke.<instance>`
#[must_use]
pub fn invoke(agent: &AgentId, instance: &InstanceId) -> String {
    format!("agentint.{agent}.invoke.{instance}")
}

/// Prefix of an agent's own inboxes.
#[must_use]
pub fn inbox(agent: &AgentId) -> String {
    format!("_INBOX.{agent}")
}

/// Whether a node may answer an agent there. NATS checks no permission on a reply subject: without this an agent would publish
/// with the node's rights wherever it likes.
#[must_use]
pub fn is_inbox_of(agent: &AgentId, reply: &str) -> bool {
    let rest = reply.strip_prefix("_INBOX.").and_then(|rest| rest.strip_prefix(agent.as_str()));
    rest.is_some_and(|rest| rest.starts_with('.') && rest.len() > 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_subject_is_read_as_it_is_written() {
        let (agent, instance) = (AgentId::new(1), InstanceId::new(2));
        let read = |subject: String| FromAgent::parse(&subject).map(|(from, _)| from);
        assert_eq!(FromAgent::parse(&handshake(&agent)), Some((agent.clone(), FromAgent::Handshake)));
        assert_eq!(FromAgent::parse(&event(&agent, &instance)), Some((agent.clone(), FromAgent::Event(instance.clone()))));
        assert_eq!(FromAgent::parse(&log(&agent, &instance)), Some((agent.clone(), FromAgent::Log(instance.clone()))));
        let call = host_call(&agent, &instance, crate::host::Service::KeyValue, "get");
        assert_eq!(
            FromAgent::parse(&call),
            Some((agent.clone(), FromAgent::HostCall { instance: instance.clone(), call: "kv.get" }))
        );
        assert_eq!(Verb::parse(&ping(&agent)), Some(Verb::Ping));
        assert_eq!(Verb::parse(&deploy(&agent, &instance)), Some(Verb::Deploy(instance.clone())));
        assert_eq!(Verb::parse(&undeploy(&agent, &instance)), Some(Verb::Undeploy(instance.clone())));
        assert_eq!(Verb::parse(&update(&agent, &instance)), Some(Verb::Update(instance.clone())));
        assert_eq!(Verb::parse(&invoke(&agent, &instance)), Some(Verb::Invoke(instance)));
        for nonsense in ["hostint.a.handshake", "hostint.", "agentint.ping"] {
            assert_eq!(read(nonsense.to_owned()), None, "{nonsense}");
        }
    }

    #[test]
    fn an_answer_to_an_agent_goes_into_its_own_inbox_only() {
        let (agent, other) = (AgentId::new(1), AgentId::new(2));
        assert!(is_inbox_of(&agent, &format!("{}.abc.1", inbox(&agent))));
        for elsewhere in [
            inbox(&agent),
            format!("{}.", inbox(&agent)),
            format!("{}x.abc", inbox(&agent)),
            format!("{}.abc", inbox(&other)),
            undeploy(&other, &InstanceId::new(1)),
            handshake(&agent),
        ] {
            assert!(!is_inbox_of(&agent, &elsewhere), "{elsewhere}");
        }
    }

    proptest! {
        #[test]
        fn no_subject_makes_the_parsers_panic(subject in "(hostint|agentint)?[.a-v0-9*>]{0,80}") {
            drop(FromAgent::parse(&subject));
            drop(Verb::parse(&subject));
        }
    }
}
