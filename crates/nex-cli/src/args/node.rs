//! Arguments of a node: a configuration file, overridden by flags and `NEX_*` variables.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use nex_node::{NodeConfig, RawConfig};
use nex_process::confinement::Part;

use crate::check::Usage;
use crate::env::Env;

/// Default path of the configuration, as in 0.2.7.
const DEFAULT_CONFIG: &str = "config.json";

/// Flags of `up` and `node up`.
#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    /// Node configuration, JSON [default: ./config.json if it is there]
    #[arg(long, value_name = "FILE", env = "NEX_CONFIG", hide_env_values = true)]
    pub(crate) config: Option<PathBuf>,
    /// Where state is kept [default: nex in the user's data directory]
    #[arg(long, value_name = "DIR", env = "NEX_STATE_DIR", hide_env_values = true)]
    pub(crate) state_dir: Option<PathBuf>,
    /// Forget the workloads of the last process instead of going on with them
    #[arg(long)]
    pub(crate) fresh: bool,
    /// Name of the group of nodes
    #[arg(long, value_name = "NAME", env = "NEX_NEXUS", hide_env_values = true, default_value = "nexus")]
    pub(crate) nexus: String,
    /// Tag of the node, key=value; may be repeated
    #[arg(long = "tag", value_name = "K=V", env = "NEX_TAGS", hide_env_values = true, value_delimiter = ',')]
    pub(crate) tags: Vec<String>,
    /// Types of workloads taken: native, v8, wasm, oci
    #[arg(
        long = "workload-types",
        value_name = "TYPES",
        env = "NEX_WORKLOAD_TYPES",
        hide_env_values = true,
        value_delimiter = ','
    )]
    pub(crate) workload_types: Vec<String>,
    /// Agents kept warm
    #[arg(long, value_name = "N", env = "NEX_POOL_SIZE", hide_env_values = true)]
    pub(crate) pool_size: Option<usize>,
    /// Where agents live: auto, firecracker, qemu or process [default: the configuration's, or else auto]
    #[arg(long, value_name = "KIND", env = "NEX_SANDBOX", hide_env_values = true)]
    pub(crate) sandbox: Option<String>,
    /// Listen there for HTTP requests to functions, e.g. 127.0.0.1:8080 [default: the configuration's, or else not at all]
    #[arg(long, value_name = "ADDRESS", env = "NEX_HTTP", hide_env_values = true)]
    pub(crate) http: Option<String>,
    /// Layer of confinement that may be missing though the node is root: cgroup, network, ...; may be repeated
    #[arg(long, value_name = "LAYER", env = "NEX_WAIVE", hide_env_values = true, value_delimiter = ',')]
    pub(crate) waive: Vec<Part>,
    /// Where kernel, root image and programs of microVMs lie [default: resources in the user's data directory]
    #[arg(long, value_name = "DIR", env = "NEX_RESOURCE_DIR", hide_env_values = true)]
    pub(crate) resource_dir: Option<PathBuf>,
    /// The nats-server program [default: beside nex, then in PATH]
    #[arg(long, value_name = "FILE", env = "NEX_NATS_SERVER", hide_env_values = true)]
    pub(crate) nats_server: Option<PathBuf>,
    /// The nex-agent program [default: beside nex, then in the configured bin_path, then in PATH]
    #[arg(long, value_name = "FILE", env = "NEX_AGENT", hide_env_values = true)]
    pub(crate) agent: Option<PathBuf>,
}

/// A configuration and its file.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// The configuration.
    pub(crate) config: NodeConfig,
    /// The file, if one was read.
    pub(crate) file: Option<PathBuf>,
}

impl NodeArgs {
    /// Reads the file, applies the flags and resolves the configuration.
    pub(crate) fn load(&self) -> anyhow::Result<Loaded> {
        let default = || Some(PathBuf::from(DEFAULT_CONFIG)).filter(|path| path.is_file());
        let file = self.config.clone().or_else(default);
        let mut raw = match &file {
            Some(path) => RawConfig::read(path)?,
            None => RawConfig {
                workload_types: Some(["native", "v8", "wasm", "oci"].map(str::to_owned).to_vec()),
                ..RawConfig::default()
            },
        };
        for tag in &self.tags {
            let (key, value) =
                tag.split_once('=').ok_or_else(|| Usage(format!("'{tag}' is no tag; next: write it as key=value")))?;
            raw.tags.get_or_insert_default().insert(key.to_owned(), value.to_owned());
        }
        if !self.workload_types.is_empty() {
            raw.workload_types = Some(self.workload_types.clone());
        }
        if let Some(sandbox) = &self.sandbox {
            // The flag overrides both keys of the file.
            raw.sandbox = Some(sandbox.clone());
            raw.no_sandbox = None;
        }
        if let Some(listen) = &self.http {
            raw.http.get_or_insert_default().listen.clone_from(listen);
        }
        if !self.waive.is_empty() {
            raw.waive.get_or_insert_default().extend(&self.waive);
        }
        raw.default_resource_dir = self.resource_dir.clone().or(raw.default_resource_dir);
        raw.machine_pool_size = self.pool_size.or(raw.machine_pool_size);
        raw.state_dir = self.state_dir.clone().or(raw.state_dir);
        let config = NodeConfig { fresh: self.fresh, ..NodeConfig::resolve(raw)? };
        Ok(Loaded { config, file })
    }

    /// The state directory, absolute.
    pub(crate) fn state_root(&self, config: &NodeConfig, env: &Env) -> anyhow::Result<PathBuf> {
        let Some(root) = config.state_dir.clone().or_else(|| env.data.clone()) else {
            let why = "there is no home directory to keep state in; next: set HOME, or name one with --state-dir";
            return Err(Usage(why.to_owned()).into());
        };
        std::path::absolute(&root).with_context(|| format!("{} is no usable path", root.display()))
    }

    /// The directory of resources, absolute.
    pub(crate) fn resources(&self, config: &NodeConfig, env: &Env) -> anyhow::Result<PathBuf> {
        match (&config.microvm.resource_dir, &env.data) {
            (Some(dir), _) => Ok(std::path::absolute(dir)?),
            (None, Some(data)) => Ok(std::path::absolute(data.join("resources"))?),
            (None, None) => Ok(self.state_root(config, env)?.join("resources")),
        }
    }

    /// The `nats-server` program.
    pub(crate) fn nats_server(&self, env: &Env) -> anyhow::Result<PathBuf> {
        let found = nex_node::bus::find_nats_server(self.nats_server.as_deref(), &search_path(env, &[]))?;
        Ok(std::path::absolute(found)?)
    }

    /// The `nex-agent` program: the given one, or the first found.
    pub(crate) fn agent(&self, config: &NodeConfig, env: &Env) -> anyhow::Result<PathBuf> {
        find_agent(self.agent.as_deref(), &config.bin_path, env)
    }
}

/// The `nex-agent` program: the given one, or the first found next to nex, in these directories, or in `$PATH`.
pub(crate) fn find_agent(named: Option<&Path>, bin_path: &[PathBuf], env: &Env) -> anyhow::Result<PathBuf> {
    if let Some(named) = named {
        anyhow::ensure!(named.is_file(), "there is no nex-agent at {}; next: name another with --agent", named.display());
        return Ok(std::path::absolute(named)?);
    }
    let search = search_path(env, bin_path);
    let found = search.iter().map(|dir| dir.join("nex-agent")).find(|path| path.is_file()).ok_or_else(|| {
        let dirs = search.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(":");
        anyhow::anyhow!("nex-agent was not found in {dirs}; next: put it beside nex, or name it with --agent")
    })?;
    Ok(std::path::absolute(found)?)
}

fn search_path(env: &Env, more: &[PathBuf]) -> Vec<PathBuf> {
    let exe = std::env::current_exe().ok();
    let beside = exe.as_deref().and_then(Path::parent);
    let libexec = beside.and_then(Path::parent).map(|prefix| prefix.join("libexec/nex"));
    beside.map(Path::to_owned).into_iter().chain(libexec).chain(more.iter().cloned()).chain(env.path.iter().cloned()).collect()
}
