//! `nex export`: a file for `nex apply` that says what runs.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use nex_client::discover::Running;
use nex_protocol::id::WorkloadName;
use serde_json::json;

use crate::args::{ConnectionArgs, KeyArgs};
use crate::check::Usage;
use crate::env::Env;
use crate::manifest::{Exported, Written, written};
use crate::output::Output;
use crate::plan::{BY_HAND, Revision};
use crate::session;

/// `nex export`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  nex export shop.toml              what we run in this namespace; values of environments in shop.env/
  nex apply shop.toml --dry-run     all is as it should be
  nex export -                      only the manifest, to standard output

Values of environments are told to nobody but who deployed them: ~/.nex/issuer.nk and ~/.nex/publisher.xk have to be
the same. Each becomes a file that only its owner can read. Secrets of `nex secret` stay names.")]
pub(crate) struct ExportArgs {
    /// The file to write, or - for standard output
    #[arg(value_name = "FILE", default_value = "nex.toml")]
    file: PathBuf,
    /// Only these workloads, by name [default: all of ours in the namespace]
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<WorkloadName>,
    /// Name of the project [default: that of the file they were applied from, or the directory's]
    #[arg(long, value_name = "NAME")]
    project: Option<String>,
    /// Write over files that are there
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    keys: KeyArgs,
}

/// Asks for each workload's settings, and writes them.
pub(crate) async fn run(args: &ExportArgs, connection: &ConnectionArgs, env: &Env, output: &mut Output) -> anyhow::Result<()> {
    let keys = args.keys.load(env, output)?;
    let session = session::open(connection, env).await?;
    let running = session.client.workloads(None, session.discovery_timeout).await?;
    let groups = groups(&running, &keys.issuer.public_key(), &args.names);
    if groups.is_empty() {
        let namespace = session.client.namespace();
        let names: Vec<&str> = args.names.iter().map(WorkloadName::as_str).collect();
        let called = if names.is_empty() { String::new() } else { format!(" called {}", names.join(" or ")) };
        let next = "see what runs, and whose it is, with `nex ps --json`";
        anyhow::bail!("nothing of ours{called} runs in namespace {namespace}; next: {next}");
    }
    let (mut exported, mut left_out) = (Vec::new(), Vec::new());
    for Group { name, newest, copies, differ } in groups {
        if differ {
            output.note(format_args!("Copies of '{name}' run in several versions; the newest is what the file says"));
        }
        match session.client.settings(&newest.workload.id, &keys.sender, session.discovery_timeout).await? {
            Some(settings) => exported.push(Exported { name, copies, settings }),
            None => {
                left_out.push((name, "another curve key than ~/.nex/publisher.xk has deployed it, or its node does not tell"));
            }
        }
    }
    let project = args.project.clone().unwrap_or_else(|| project(&running, &exported, &args.file));
    let stem = args.file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let mut written = written(&project, exported, &format!("{stem}.env")).context("cannot write what runs as TOML")?;
    written.left_out.extend(left_out);
    print(&written, args, output)
}

/// Copies of one name.
struct Group<'a> {
    name: WorkloadName,
    newest: &'a Running,
    copies: usize,
    differ: bool,
}

fn groups<'a>(running: &'a [Running], issuer: &str, names: &[WorkloadName]) -> Vec<Group<'a>> {
    let mut groups: BTreeMap<String, Group<'a>> = BTreeMap::new();
    for it in running.iter().filter(|it| it.workload.issuer == issuer) {
        let Ok(name) = it.workload.name.parse::<WorkloadName>() else { continue };
        if !names.is_empty() && !names.contains(&name) {
            continue;
        }
        let fresh = Group { name: name.clone(), newest: it, copies: 0, differ: false };
        let group = groups.entry(name.to_string()).or_insert(fresh);
        group.copies += 1;
        group.differ |= group.newest.workload.revision != it.workload.revision;
        // Ids begin with the time they were made.
        if it.workload.id > group.newest.workload.id {
            group.newest = it;
        }
    }
    groups.into_values().collect()
}

/// The project that all come from; else the name of the file's directory.
fn project(running: &[Running], exported: &[Exported], file: &Path) -> String {
    let of = |name: &WorkloadName| {
        let own = running.iter().filter(|it| it.workload.name == name.as_str());
        own.filter_map(|it| Revision::project_of(it.workload.revision.as_deref()?)).find(|project| project != BY_HAND)
    };
    let mut all: Vec<String> = exported.iter().filter_map(|one| of(&one.name)).collect();
    all.sort();
    all.dedup();
    if let [one] = all.as_slice() {
        return one.clone();
    }
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = directory.canonicalize().ok().and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    let legal = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.') { c } else { '-' };
    name.unwrap_or_else(|| "exported".to_owned()).chars().map(legal).take(64).collect()
}

fn print(written: &Written, args: &ExportArgs, output: &mut Output) -> anyhow::Result<()> {
    let is_stdout = args.file == Path::new("-");
    if !is_stdout {
        write_all(written, args)?;
    }
    for (name, why) in &written.left_out {
        output.note(format_args!("Left out '{name}': {why}"));
    }
    if output.is_json() {
        let left_out: Vec<_> = written.left_out.iter().map(|(name, why)| json!({ "name": name, "why": why })).collect();
        let files: Vec<_> = written.files.keys().map(|path| path.display().to_string()).collect();
        let file = (!is_stdout).then(|| args.file.display().to_string());
        return output.document(&json!({ "file": file, "manifest": written.toml, "values": files, "left_out": left_out }));
    }
    if is_stdout {
        output.note(format_args!("Values of environments are not written; {} files are named", written.files.len()));
        return output.line(written.toml.trim_end());
    }
    output.line(format_args!(
        "✅ Wrote {}, and {} values of environments beside it",
        args.file.display(),
        written.files.len()
    ))?;
    if !written.files.is_empty() {
        output.note("The values are secrets: keep their directory out of version control");
    }
    Ok(())
}

/// All or, where a file is there already, nothing.
fn write_all(written: &Written, args: &ExportArgs) -> anyhow::Result<()> {
    let directory = args.file.parent().unwrap_or(Path::new(""));
    let paths = || written.files.keys().map(|path| directory.join(path)).chain([args.file.clone()]);
    if let Some(there) = paths().find(|path| path.symlink_metadata().is_ok()).filter(|_| !args.force) {
        return Err(Usage(format!("{} is there already; next: name another file, or say --force", there.display())).into());
    }
    for (path, text) in &written.files {
        write(&directory.join(path), text)?;
    }
    write(&args.file, &written.toml)
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let written = || {
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        }
        // A new file: the mode of one that was there would stay.
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(text.as_bytes())
    };
    written().with_context(|| format!("cannot write {}; next: check the path and its permissions", path.display()))
}
