//! A local file that is called once in a function's stead: deployed under a name of its own, on a subject that nobody knows, and stopped.

use std::path::Path;

use anyhow::Context as _;
use nex_client::artifact::LocalFile;
use nex_client::deploy::{Deployment, Keys};
use nex_protocol::control::AuctionRequest;
use nex_protocol::deploy::DeployedSettings;
use nex_protocol::id::{NodeId, WorkloadName};
use nkeys::XKey;

use super::Called;
use crate::check::Usage;
use crate::cmd::stop::StopTarget;
use crate::cmd::upload::{BucketArgs, upload};
use crate::local::LocalArtifact;
use crate::output::Output;
use crate::placement::Placement;
use crate::session::Session;

/// Its file, and in whose stead.
pub(super) struct Trial<'a> {
    pub(super) file: &'a Path,
    pub(super) name: &'a WorkloadName,
    pub(super) nodes: &'a [NodeId],
    pub(super) keys: &'a Keys,
    pub(super) session: &'a Session,
}

impl Trial<'_> {
    /// Deploys it.
    pub(super) async fn start(&self, output: &mut Output) -> anyhow::Result<Called> {
        let Self { file, session, keys, .. } = self;
        let local = LocalArtifact::open(file, None, output)?;
        if !local.r#type.is_function() {
            let why = "has host calls of its own, which nobody can answer; next: replay with a function";
            return Err(Usage(format!("{} is {}, and {why}", file.display(), local.what)).into());
        }
        let settings = self.settings(output).await?;
        // A key is as good as any random text.
        let random = XKey::new().public_key().to_ascii_lowercase();
        let short: String = random.chars().skip(1).take(10).collect();
        let name: WorkloadName = format!("replay-{short}").parse().context("the name is none")?;
        // The next deploy of the same file finds it there.
        let uploaded = Box::pin(upload(LocalFile::read(local.file()).await?, BucketArgs::default(), self.name, session, output));
        let artifact = uploaded.await?.artifact;
        let deployment = Deployment {
            r#type: local.r#type,
            description: format!("replay in the stead of {}", self.name),
            argv: Vec::new(),
            triggers: vec![format!("nex.replay.{random}")],
            http: Vec::new(),
            durable: Vec::new(),
            revision: None,
            ..Deployment::again(name.clone(), settings, artifact)?
        };
        let asked = AuctionRequest {
            issuer: Some(keys.issuer.public_key()),
            memory_mib: deployment.limits.memory_mib,
            machine_class: deployment.machine_class.clone(),
            isolation: deployment.isolation.map(|isolation| isolation.to_string()),
            ..local.auction.clone()
        };
        let auction = session.client.auction(&asked, session.discovery_timeout).await?;
        let targets = Placement { auction: &auction, allowed: self.nodes, spread: false }.place(&[None], &[])?;
        let target = targets.into_iter().next().context("nobody takes it")?;
        let started = session.client.deploy(&deployment, &target, keys).await?;
        Ok(Called { name: name.to_string(), id: started.id, target })
    }

    /// How the function is deployed that runs; nothing where none of ours does.
    async fn settings(&self, output: &Output) -> anyhow::Result<DeployedSettings> {
        let Self { session, keys, name, .. } = self;
        let found = session.client.settings_of(name, &keys.sender, session.discovery_timeout).await?;
        if found.is_none() {
            output.note(format_args!("No copy of '{name}' of ours runs: the file is called without its environment and limits"));
        }
        Ok(found.unwrap_or_default())
    }

    /// Stops it.
    pub(super) async fn stop(&self, called: &Called) -> anyhow::Result<()> {
        let Called { id, target, name } = called;
        let target =
            StopTarget { node: target.node.clone(), id: id.parse()?, name: name.parse()?, grace: std::time::Duration::ZERO };
        let stopped = target.stop(&self.session.client, &self.keys.issuer).await;
        stopped.with_context(|| format!("the trial runs still; next: nex stop {id}"))
    }
}
