//! Checks of microVMs: monitor, kernel, root image with this agent, nft, and plug-ins if the network uses CNI. Does not boot a machine;
//! the node does when it starts.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

use nex_image::resources::{CNI_BIN_PATH, Layout, ResourcePaths, ResourceStatus, Vmm, find, verify};
use nex_image::rootfs::agent_id;
use nex_node::NodeConfig;
use nex_node::config::SandboxChoice;
use nex_node::sandbox::{MissingRequirement, network_lacks};

use super::check::Check;
use crate::args::NodeArgs;
use crate::env::Env;

/// Requirements of microVMs by the configuration.
#[derive(Debug)]
pub(super) struct Wanted {
    /// The monitor.
    pub(super) vmm: Vmm,
    /// Whether somebody asked for microVMs, so that what is missing may be installed.
    pub(super) is_asked: bool,
    /// Whether the node does not start without them; else it falls back to jailed processes.
    is_required: bool,
    /// Paths of the resources.
    pub(super) paths: ResourcePaths,
    /// Requirements of the guests' network that the host does not meet.
    lacks: Vec<MissingRequirement>,
}

impl Wanted {
    /// `None` if workloads run in jailed processes.
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
        let paths = ResourcePaths {
            layout: Layout::new(args.resources(config, env)?),
            kernel: config.microvm.kernel.clone(),
            rootfs: config.microvm.rootfs.clone(),
            bin_path: config.bin_path.clone(),
            path: env.path.clone(),
            cni_bin_path,
            agent: agent.map(agent_id).transpose()?,
        };
        let is_required = vmm != Vmm::Either;
        let is_asked = vmm != Vmm::Either || is_configured(args);
        Ok(Some(Self { vmm, is_asked, is_required, paths, lacks: network_lacks(config) }))
    }

    /// Finds the resources.
    pub(super) fn find(&self) -> Vec<ResourceStatus> {
        find(self.vmm, &self.paths)
    }

    /// The results of all checks.
    pub(super) fn checks(&self, is_verified: bool) -> Vec<Check> {
        let mut checks = vec![self.kvm()];
        for found in self.find() {
            let required = found.required && self.is_required;
            let Some(path) = &found.path else {
                checks.push(Check::new(found.resource.to_string(), required, Err(anyhow::anyhow!("{}", found.why)), &found.next));
                continue;
            };
            checks.push(Check::new(found.resource.to_string(), required, Ok(path.display().to_string()), ""));
            if is_verified {
                checks.extend(self.verified(&found, path));
            }
        }
        checks.extend(self.network());
        checks
    }

    /// Privileges and devices for the network. Missing programs have their own lines.
    fn network(&self) -> Vec<Check> {
        const WHAT: &str = "guests' network";
        if self.lacks.is_empty() {
            let found = "rights, /dev/net/tun and the packet filter's program".to_owned();
            return vec![Check::new(WHAT, self.is_required, Ok(found), "")];
        }
        let programs: Vec<&str> = self.find().iter().filter_map(|found| found.resource.program()).collect();
        let lacks = self.lacks.iter().filter(|lack| !programs.iter().any(|program| lack.what.ends_with(&format!(" {program}"))));
        lacks.map(|lack| Check::new(WHAT, self.is_required, Err(anyhow::anyhow!("no {}", lack.what)), &lack.advice)).collect()
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

    fn verified(&self, found: &ResourceStatus, path: &Path) -> Option<Check> {
        let what = format!("{}, as it was installed", found.resource);
        let next = "run 'nex node preflight --force --verify' to install it anew";
        match verify(found.resource, path, &self.paths) {
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
fn is_configured(args: &NodeArgs) -> bool {
    args.sandbox.is_some() || args.load().is_ok_and(|loaded| loaded.file.is_some())
}
