//! What a node with microVMs needs: a monitor, a kernel, a root image with this agent, nft, plug-ins if the configuration has a network
//! made by them. Whether a machine really boots is not tried here: the node does, and says so.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

use nex_image::resources::{CNI_BIN_PATH, Found, Layout, Places, Vmm, find, verify};
use nex_image::rootfs::agent_id;
use nex_node::NodeConfig;
use nex_node::config::SandboxChoice;
use nex_node::sandbox::{MissingRequirement, network_lacks};

use super::check::Check;
use crate::args::NodeArgs;
use crate::env::Env;

/// What the configuration wants of microVMs.
#[derive(Debug)]
pub(super) struct Wanted {
    /// Which monitor.
    pub(super) vmm: Vmm,
    /// Whether somebody asked for it, or it would merely be better.
    pub(super) is_asked: bool,
    /// Where everything is.
    pub(super) places: Places,
    /// What the host lacks for the guests' network.
    lacks: Vec<MissingRequirement>,
}

impl Wanted {
    /// `None` where workloads run in jailed processes.
    pub(super) fn of(args: &NodeArgs, config: &NodeConfig, agent: Option<&Path>, env: &Env) -> anyhow::Result<Option<Self>> {
        let vmm = match config.sandbox {
            SandboxChoice::Process => return Ok(None),
            SandboxChoice::Auto => Vmm::Either,
            SandboxChoice::Firecracker => Vmm::Firecracker,
            SandboxChoice::Qemu => Vmm::Qemu,
        };
        let cni_bin_path = config.microvm.network.cni.as_ref().map(|cni| {
            let named: &[PathBuf] = cni.bin_path.as_deref().unwrap_or_default();
            named.iter().cloned().chain(CNI_BIN_PATH.map(PathBuf::from)).chain(env.path.iter().cloned()).collect()
        });
        let places = Places {
            layout: Layout::new(args.resources(config, env)?),
            kernel: config.microvm.kernel.clone(),
            rootfs: config.microvm.rootfs.clone(),
            bin_path: config.bin_path.clone(),
            path: env.path.clone(),
            cni_bin_path,
            agent: agent.map(agent_id).transpose()?,
        };
        // A node that nobody told anything runs jailed processes where it has to.
        let is_asked = vmm != Vmm::Either || is_configured(args);
        Ok(Some(Self { vmm, is_asked, places, lacks: network_lacks(config) }))
    }

    /// What is there now.
    pub(super) fn find(&self) -> Vec<Found> {
        find(self.vmm, &self.places)
    }

    /// The lines of the list.
    pub(super) fn checks(&self, is_verified: bool) -> Vec<Check> {
        let mut checks = vec![self.kvm()];
        for found in self.find() {
            let required = found.required && self.is_asked;
            let Some(path) = &found.path else {
                checks.push(Check::new(found.what.to_string(), required, Err(anyhow::anyhow!("{}", found.why)), &found.next));
                continue;
            };
            checks.push(Check::new(found.what.to_string(), required, Ok(path.display().to_string()), ""));
            if is_verified {
                checks.extend(self.verified(&found, path));
            }
        }
        checks.extend(self.network());
        checks
    }

    /// The network: rights and devices; programs that are missing have lines of their own.
    fn network(&self) -> Vec<Check> {
        const WHAT: &str = "guests' network";
        if self.lacks.is_empty() {
            let found = "rights, /dev/net/tun and the packet filter's program".to_owned();
            return vec![Check::new(WHAT, self.is_asked, Ok(found), "")];
        }
        let programs: Vec<&str> = self.find().iter().filter_map(|found| found.what.program()).collect();
        let lacks = self.lacks.iter().filter(|lack| !programs.iter().any(|program| lack.what.ends_with(&format!(" {program}"))));
        lacks.map(|lack| Check::new(WHAT, self.is_asked, Err(anyhow::anyhow!("no {}", lack.what)), &lack.advice)).collect()
    }

    fn kvm(&self) -> Check {
        const KVM: &str = "/dev/kvm";
        let opened = OpenOptions::new().read(true).write(true).open(KVM);
        let found = opened.map(|_| KVM.to_owned()).map_err(|error| anyhow::Error::from(error).context(KVM));
        let next =
            "load the kvm module and let this user open the device; without it QEMU emulates processors, many times slower";
        // That it opens says little: under another hypervisor guests may hang on it.
        Check::new("KVM's device; a node finds out by trying whether guests run on it", self.vmm == Vmm::Firecracker, found, next)
    }

    fn verified(&self, found: &Found, path: &Path) -> Option<Check> {
        let what = format!("{}, as it was installed", found.what);
        let next = "run 'nex node preflight --force --verify' to install it anew";
        match verify(found.what, path, &self.places) {
            Ok(None) => None,
            Ok(Some(true)) => Some(Check::new(what, true, Ok(path.display().to_string()), "")),
            Ok(Some(false)) => {
                let why = anyhow::anyhow!("{} is another file than the one pinned in this nex", path.display());
                Some(Check::new(what, true, Err(why), next))
            }
            Err(error) => Some(Check::new(what, true, Err(error.into()), next)),
        }
    }
}

/// Whether there is a file or flag that decides about sandboxes.
pub(super) fn is_configured(args: &NodeArgs) -> bool {
    args.sandbox.is_some() || args.load().is_ok_and(|loaded| loaded.file.is_some())
}
