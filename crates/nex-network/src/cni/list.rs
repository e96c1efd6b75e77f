//! The list of plug-ins: the operator's `<network>.conflist`, or one generated into our own directory. Read once, at open.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::config::{CniConfig, is_name};
use crate::error::NetworkError;

/// Versions of the specification that hand results on from plug-in to plug-in in the way done here.
const VERSIONS: [&str; 6] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0", "1.1.1"];
/// The version of a generated list: as in 0.2.7; every plug-in supports it.
const GENERATED_VERSION: &str = "0.4.0";
/// More than any list has.
const MAX_BYTES: u64 = 256 << 10;
const MAX_PLUGINS: usize = 16;
/// Makes the tap; where it is not installed, we do its work.
pub(crate) const TAP_PLUGIN: &str = "tc-redirect-tap";

/// A list whose plug-ins are all installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct List {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) plugins: Vec<Plugin>,
}

/// One link of the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plugin {
    pub(crate) kind: String,
    pub(crate) program: PathBuf,
    pub(crate) config: Map<String, Value>,
}

/// The operator's list, if there is one.
pub(crate) fn read(cni: &CniConfig) -> Result<Option<Value>, NetworkError> {
    let path = path(cni);
    match fs::metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Ok(data) if data.len() > MAX_BYTES => {
            return Err(wrong(&path, format!("it has {} bytes, more than {MAX_BYTES}", data.len())));
        }
        _ => {}
    }
    let text = fs::read_to_string(&path).map_err(|error| wrong(&path, error.to_string()))?;
    serde_json::from_str(&text).map(Some).map_err(|error| wrong(&path, error.to_string()))
}

/// The subnet and gateway that a list's address management names, if it does.
pub(crate) fn subnet(list: &Value) -> Option<(Ipv4Net, Option<Ipv4Addr>)> {
    let plugins = list.get("plugins")?.as_array()?;
    plugins.iter().filter_map(|plugin| plugin.get("ipam")).find_map(|ipam| {
        let range = if ipam.get("subnet").is_some() { ipam } else { ipam.get("ranges")?.get(0)?.get(0)? };
        let subnet: Ipv4Net = range.get("subnet")?.as_str()?.parse().ok()?;
        let gateway = range.get("gateway").and_then(Value::as_str).and_then(|gateway| gateway.parse().ok());
        Some((subnet.trunc(), gateway))
    })
}

/// A list like that of 0.2.7, except that leases are in the network's directory and address translation is left to its packet filter.
pub(crate) fn generate(cni: &CniConfig, subnet: Ipv4Net, gateway: Ipv4Addr) -> Value {
    let ptp = json!({
        "type": "ptp",
        "ipMasq": false,
        "dns": { "nameservers": cni.nameservers },
        "ipam": { "type": "host-local", "subnet": subnet.to_string(), "gateway": gateway.to_string() },
    });
    json!({ "name": cni.network_name, "cniVersion": GENERATED_VERSION, "plugins": [ptp, { "type": TAP_PLUGIN }] })
}

/// Checks a list and finds its programs. Leases go to the network's directory unless the list names another.
pub(crate) fn resolve(cni: &CniConfig, list: &Value, leases: &Path) -> Result<List, NetworkError> {
    let path = path(cni);
    let name = list.get("name").and_then(Value::as_str).unwrap_or_default();
    if !is_name(name, 64) {
        return Err(wrong(&path, format!("its name {name:?} is no plain file name")));
    }
    let version = list.get("cniVersion").and_then(Value::as_str).unwrap_or_default();
    if !VERSIONS.contains(&version) {
        return Err(wrong(&path, format!("its cniVersion {version:?} is none of {}", VERSIONS.join(", "))));
    }
    let plugins = list.get("plugins").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if plugins.is_empty() || plugins.len() > MAX_PLUGINS {
        return Err(wrong(&path, format!("it has {} plug-ins; 1 to {MAX_PLUGINS} are possible", plugins.len())));
    }
    let mut resolved = Vec::new();
    for plugin in plugins {
        let kind = plugin.get("type").and_then(Value::as_str).unwrap_or_default();
        let (true, Some(config)) = (is_name(kind, 64), plugin.as_object()) else {
            return Err(wrong(&path, "a plug-in has no usable type".to_owned()));
        };
        let mut config = config.clone();
        match find(&cni.bin_path, kind) {
            Some(program) => {
                keep_leases(&mut config, leases);
                resolved.push(Plugin { kind: kind.to_owned(), program, config });
            }
            None if kind == TAP_PLUGIN => {}
            None => return Err(NetworkError::NoPlugin { plugin: kind.to_owned() }),
        }
    }
    Ok(List { name: name.to_owned(), version: version.to_owned(), plugins: resolved })
}

/// Plug-ins of a list that are not installed, those of its address management included.
pub(crate) fn missing(cni: &CniConfig, list: &Value) -> Vec<String> {
    let plugins = list.get("plugins").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let kinds = plugins.iter().flat_map(|plugin| [plugin.get("type"), plugin.get("ipam").and_then(|ipam| ipam.get("type"))]);
    let kinds = kinds.flatten().filter_map(Value::as_str).filter(|kind| *kind != TAP_PLUGIN && is_name(kind, 64));
    kinds.filter(|kind| find(&cni.bin_path, kind).is_none()).map(str::to_owned).collect()
}

fn keep_leases(config: &mut Map<String, Value>, leases: &Path) {
    let Some(ipam) = config.get_mut("ipam").and_then(Value::as_object_mut) else { return };
    if ipam.get("type").and_then(Value::as_str) == Some("host-local") && !ipam.contains_key("dataDir") {
        ipam.insert("dataDir".to_owned(), json!(leases));
    }
}

fn find(dirs: &[PathBuf], kind: &str) -> Option<PathBuf> {
    dirs.iter().map(|dir| dir.join(kind)).find(|path| path.is_file())
}

pub(crate) fn path(cni: &CniConfig) -> PathBuf {
    cni.conf_dir.join(format!("{}.conflist", cni.network_name))
}

fn wrong(path: &Path, why: String) -> NetworkError {
    NetworkError::List { path: path.to_owned(), why }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(dir: &Path) -> CniConfig {
        let (bin_path, conf_dir) = (vec![dir.to_owned()], dir.to_owned());
        CniConfig { network_name: "fcnet".into(), interface_name: "veth0".into(), bin_path, conf_dir, nameservers: vec![] }
    }

    #[test]
    fn a_list_of_the_earlier_product_is_read_and_its_leases_are_kept_by_us() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("ptp"), "").unwrap();
        let text = r#"{"name":"fcnet","cniVersion":"0.4.0","plugins":[{"type":"ptp","ipMasq":true,"ipam":{"type":"host-local",
            "subnet":"192.168.127.0/24","resolvConf":"/etc/resolv.conf"}},{"type":"tc-redirect-tap"}]}"#;
        fs::write(dir.path().join("fcnet.conflist"), text).unwrap();
        let cni = config(dir.path());
        let value = read(&cni).unwrap().unwrap();
        assert_eq!(subnet(&value), Some(("192.168.127.0/24".parse().unwrap(), None)));
        assert_eq!(missing(&cni, &value), ["host-local"]);
        let list = resolve(&cni, &value, Path::new("/state/leases")).unwrap();
        assert_eq!(list.plugins.len(), 1, "the tap's plug-in is not installed, so we do its work");
        assert_eq!(list.plugins[0].config["ipam"]["dataDir"], "/state/leases");
        assert_eq!(list.plugins[0].config["ipMasq"], true);
    }

    #[test]
    fn unusable_lists_are_refused_by_what_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let cni = config(dir.path());
        assert_eq!(read(&cni).unwrap(), None);
        for (list, expected) in [
            (json!({}), "name"),
            (json!({"name": "a/b"}), "name"),
            (json!({"name": "a", "cniVersion": "0.2.0"}), "cniVersion"),
            (json!({"name": "a", "cniVersion": "1.0.0", "plugins": []}), "plug-ins"),
            (json!({"name": "a", "cniVersion": "1.0.0", "plugins": [{"type": "../sh"}]}), "type"),
            (json!({"name": "a", "cniVersion": "1.0.0", "plugins": [{"type": "ptp"}]}), "bin_path"),
        ] {
            let error = resolve(&cni, &list, dir.path()).unwrap_err().to_string();
            assert!(error.contains(expected), "{list}: {error}");
        }
        fs::write(dir.path().join("fcnet.conflist"), "{").unwrap();
        assert!(read(&cni).is_err());
    }
}
