//! Runs a chain of plug-ins by the specification: ADD in order, each given the result before it; DEL in reverse order.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use nex_process::{ChildSpec, Deadline, Stdin};
use serde_json::{Map, Value};

use super::list::{List, Plugin};
use crate::error::NetworkError;
use crate::program;

/// Plug-ins call the system's tools (`iptables`, `modprobe`).
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Whom a chain is run for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Container<'a> {
    pub(crate) id: &'a str,
    pub(crate) netns: &'a Path,
    pub(crate) interface: &'a str,
    /// Where plug-ins find those they call themselves.
    pub(crate) bin_path: &'a [PathBuf],
}

/// Runs ADD through the chain: the last result.
pub(crate) async fn add(list: &List, container: Container<'_>, by: Deadline) -> Result<Value, NetworkError> {
    let mut result = Value::Null;
    for plugin in &list.plugins {
        let said = run(plugin, "ADD", &config(list, plugin, &result), (container, by)).await?;
        result = serde_json::from_str(&said).map_err(|error| failed(plugin, "ADD", format!("no result: {error}")))?;
    }
    Ok(result)
}

/// Runs DEL through the whole chain, even where a plug-in fails: the first failure.
pub(crate) async fn delete(list: &List, container: Container<'_>, result: &Value, by: Deadline) -> Result<(), NetworkError> {
    let mut outcome = Ok(());
    for plugin in list.plugins.iter().rev() {
        let done = run(plugin, "DEL", &config(list, plugin, result), (container, by)).await;
        outcome = outcome.and(done.map(drop));
    }
    outcome
}

fn config(list: &List, plugin: &Plugin, previous: &Value) -> Map<String, Value> {
    let mut config = plugin.config.clone();
    config.insert("name".to_owned(), list.name.clone().into());
    config.insert("cniVersion".to_owned(), list.version.clone().into());
    if !previous.is_null() {
        config.insert("prevResult".to_owned(), previous.clone());
    }
    config
}

async fn run(
    plugin: &Plugin,
    command: &'static str,
    config: &Map<String, Value>,
    (container, by): (Container<'_>, Deadline),
) -> Result<String, NetworkError> {
    let input = serde_json::to_vec(config).map_err(|error| failed(plugin, command, error.to_string()))?;
    let bin_path = container.bin_path.iter().map(|dir| dir.as_os_str().to_owned()).collect::<Vec<_>>().join(&OsString::from(":"));
    let spec = ChildSpec::new(&plugin.program)
        .env("PATH", PATH)
        .env("CNI_COMMAND", command)
        .env("CNI_CONTAINERID", container.id)
        .env("CNI_NETNS", container.netns)
        .env("CNI_IFNAME", container.interface)
        .env("CNI_PATH", bin_path)
        .stdin(Stdin::Bytes(input));
    let ran = program::run(spec, by).await.map_err(|error| failed(plugin, command, error.to_string()))?;
    if ran.exit.is_success() {
        return Ok(ran.stdout);
    }
    Err(failed(plugin, command, said(&ran)))
}

/// What a plug-in says about its failure: the fields of its error, or what it wrote.
fn said(ran: &program::CommandOutput) -> String {
    let error: Value = serde_json::from_str(&ran.stdout).unwrap_or_default();
    let field = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    if field("msg").is_empty() {
        return format!("{}: {} {}", ran.exit, ran.stdout.trim(), ran.stderr.trim());
    }
    let code = error.get("code").and_then(Value::as_u64).unwrap_or_default();
    format!("code {code}: {} {}", field("msg"), field("details")).trim_end().to_owned()
}

fn failed(plugin: &Plugin, command: &'static str, said: String) -> NetworkError {
    NetworkError::Plugin { plugin: plugin.kind.clone(), command, said }
}
