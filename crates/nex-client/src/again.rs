//! What was deployed before, as it can be deployed again.

use std::time::Duration;

use nex_protocol::deploy::{DeployedSettings, WorkloadType};
use nex_protocol::id::{SecretName, WorkloadName};
use nex_protocol::trigger::Trigger;

use crate::artifact::Artifact;
use crate::deploy::Deployment;

/// A part of what was deployed before that this version does not understand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this version of nex does not understand how it was deployed: {what} is {value}")]
pub struct NotUnderstood {
    what: &'static str,
    value: String,
}

fn read<T: std::str::FromStr>(what: &'static str, text: &str) -> Result<T, NotUnderstood> {
    text.parse().map_err(|_unreadable| NotUnderstood { what, value: text.to_owned() })
}

impl Deployment {
    /// The deployment that led to these settings, of an artifact that was found where they say.
    ///
    /// # Errors
    /// [`NotUnderstood`] where a later version deployed it.
    pub fn again(name: WorkloadName, settings: DeployedSettings, artifact: Artifact) -> Result<Self, NotUnderstood> {
        let DeployedSettings { request, environment } = settings;
        let r#type = request.r#type.as_deref().map_or(Ok(WorkloadType::Native), |text| read("its type", text))?;
        let secret = |(variable, name): (String, String)| Ok((variable, read::<SecretName>("a secret's name", &name)?));
        let mut deployment = Self {
            description: request.description.unwrap_or_default(),
            argv: request.argv.unwrap_or_default(),
            environment,
            secrets: request.secrets.unwrap_or_default().into_iter().map(secret).collect::<Result<_, _>>()?,
            essential: request.essential.unwrap_or_default(),
            triggers: request.trigger_subjects.unwrap_or_default(),
            trigger_connection: request.trigger_connection,
            host_services: request.host_services,
            limits: request.limits.unwrap_or_default(),
            machine_class: request.machine_class,
            isolation: request.isolation.as_deref().map(|text| read("its isolation", text)).transpose()?,
            settle: request.settle_ms.map(Duration::from_millis),
            revision: request.revision,
            policy: request.policy,
            placement: request.placement.unwrap_or_default(),
            ..Self::new(name, r#type, artifact)
        };
        for text in request.triggers.unwrap_or_default() {
            match read("a trigger", &text)? {
                Trigger::Subject(subject) => deployment.triggers.push(subject),
                Trigger::Http(route) => deployment.http.push(route),
                Trigger::Durable(trigger) => deployment.durable.push(trigger),
            }
        }
        Ok(deployment)
    }
}

#[cfg(test)]
mod tests {
    use nex_protocol::deploy::{DeployRequest, Isolation, Location, RequestedLimits, RunPolicy};
    use nex_protocol::digest::Digest;
    use nex_protocol::id::{Namespace, NodeId};
    use nkeys::{KeyPair, XKey};

    use super::*;
    use crate::deploy::{Keys, Target};

    fn requested(deployment: &Deployment) -> DeployRequest {
        let (node, node_curve) = (KeyPair::new_server().public_key(), XKey::new().public_key());
        let target = Target { node: node.parse::<NodeId>().unwrap(), xkey: node_curve, is_signed: false };
        let keys = Keys { issuer: KeyPair::new_account(), sender: XKey::new() };
        let body = deployment.request(&target, (&"default".parse::<Namespace>().unwrap(), None), &keys).unwrap();
        serde_json::from_slice(&body).unwrap()
    }

    #[test]
    fn what_was_deployed_is_asked_for_again_as_it_was() {
        let location = Location::new("NEXCLIFILES", "shop").unwrap();
        let artifact = Artifact { location, digest: Digest::of(b"shop"), bytes: 4, jetstream_domain: Some("hub".into()) };
        let environment = [("GREETING".to_owned(), "hi".to_owned())];
        let before = Deployment {
            description: "a shop".into(),
            argv: vec!["--port".into(), "80".into()],
            environment: environment.clone().into(),
            secrets: [("TOKEN".to_owned(), "token".parse().unwrap())].into(),
            essential: true,
            triggers: vec!["shop.*".into()],
            http: vec![
                "http:GET /shop".parse::<Trigger>().map(|it| if let Trigger::Http(it) = it { it } else { panic!() }).unwrap(),
            ],
            durable: vec![
                "every:30s".parse::<Trigger>().map(|it| if let Trigger::Durable(it) = it { it } else { panic!() }).unwrap(),
            ],
            limits: RequestedLimits { memory_mib: Some(64), ..RequestedLimits::default() },
            machine_class: Some("large".into()),
            isolation: Some(Isolation::Process),
            settle: Some(Duration::from_millis(1_500)),
            revision: Some("r1".into()),
            policy: Some(RunPolicy { restart: Some("always".into()), ..RunPolicy::default() }),
            ..Deployment::new("shop".parse().unwrap(), WorkloadType::V8, artifact.clone())
        };
        let request = requested(&before);
        let settings = DeployedSettings { request: request.clone(), environment: environment.into() };
        let again = Deployment::again("shop".parse().unwrap(), settings, artifact).unwrap();
        assert_eq!(again.environment, before.environment);
        // Keys, token and sealed environment are of each request.
        let plain = |request: DeployRequest| {
            let of_one = (request.target_node.is_some(), request.workload_jwt.is_some(), request.environment.is_some());
            assert_eq!(of_one, (true, true, true));
            DeployRequest { target_node: None, workload_jwt: None, environment: None, sender_public_key: None, ..request }
        };
        assert_eq!(plain(requested(&again)), plain(request));
    }

    #[test]
    fn what_a_later_version_deployed_is_refused_by_its_part() {
        let artifact = Artifact {
            location: Location::new("NEXCLIFILES", "shop").unwrap(),
            digest: Digest::of(b"shop"),
            bytes: 4,
            jetstream_domain: None,
        };
        let later = |request: DeployRequest| {
            let settings = DeployedSettings { request, ..DeployedSettings::default() };
            Deployment::again("shop".parse().unwrap(), settings, artifact.clone()).unwrap_err().to_string()
        };
        let kind = later(DeployRequest { r#type: Some("quantum".into()), ..DeployRequest::default() });
        assert!(kind.contains("its type is quantum"), "{kind}");
        let trigger = later(DeployRequest { triggers: Some(vec!["moon:full".into()]), ..DeployRequest::default() });
        assert!(trigger.contains("a trigger is moon:full"), "{trigger}");
    }
}
