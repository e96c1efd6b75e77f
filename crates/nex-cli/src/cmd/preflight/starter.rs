//! `--init`: writes a starter configuration.

use std::path::Path;

use anyhow::Context as _;
use clap::ValueEnum;

use crate::output::Output;

/// Kinds of starter configuration.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Init {
    /// Workloads in microVMs
    Sandbox,
    /// Workloads in jailed processes
    Nosandbox,
}

/// Writes the configuration, unless the file exists.
pub(super) fn write(kind: Init, path: &Path, output: &Output) -> anyhow::Result<()> {
    if path.exists() {
        output.note(format_args!("{} exists and is kept", path.display()));
        return Ok(());
    }
    let mut starter = serde_json::json!({
        "machine_pool_size": 1,
        "machine_template": {"vcpu_count": 1, "memsize_mib": 256},
        "tags": {"simple": "true"},
        "workload_types": ["native", "v8", "wasm"],
    });
    if let Some(members) = starter.as_object_mut() {
        match kind {
            Init::Sandbox => members.insert("sandbox".into(), "auto".into()),
            Init::Nosandbox => members.insert("no_sandbox".into(), true.into()),
        };
    }
    let text = serde_json::to_string_pretty(&starter)?;
    std::fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    output.note(format_args!("wrote {}", path.display()));
    Ok(())
}
