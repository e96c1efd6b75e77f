//! The program of an image, found in its root as a container engine would: entrypoint and command, its `PATH`, its working directory.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use nex_protocol::image::{ImageRun, MAX_RUN_FILE};
use rustix::process::Signal;

use super::program::Program;
use crate::error::StartError;

/// Where programs are looked for if neither image nor deployer says.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Reads what an image says and puts what its deployer says over it.
pub(super) fn program(file: &Path, argv: Vec<String>, environment: BTreeMap<String, String>) -> Result<Program, StartError> {
    let mut text = Vec::new();
    let read = File::open(file).and_then(|file| file.take(MAX_RUN_FILE).read_to_end(&mut text));
    read.map_err(|error| StartError::host("read what the image says of its program", error))?;
    let run: ImageRun = serde_json::from_slice(&text)
        .map_err(|error| StartError::Invalid(format!("what the image says is unreadable: {error}")))?;
    let environment = merge(&run, environment)?;
    let directory = PathBuf::from(&run.directory);
    if !directory.is_dir() {
        return Err(StartError::Invalid(format!("the image's working directory {} is no directory in it", run.directory)));
    }
    let mut words = run.entrypoint;
    words.extend(if argv.is_empty() { run.command } else { argv });
    if let Some(word) = words.iter().find(|word| word.contains('\0')) {
        return Err(StartError::Invalid(format!("argument {word:?} has a NUL byte")));
    }
    if words.is_empty() {
        let why = "the image names no program; next: say what to run with --argv";
        return Err(StartError::Invalid(why.to_owned()));
    }
    let name = words.remove(0);
    let search = environment.get("PATH").map_or(PATH, String::as_str);
    let path = find(&name, search, &directory)?;
    Ok(Program { path, name, argv: words, environment, directory, stop_signal: Signal::from_named_raw(run.stop_signal) })
}

/// The image's variables, and over them the deployer's, as they are written.
fn merge(run: &ImageRun, given: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, StartError> {
    let mut environment: BTreeMap<String, String> = BTreeMap::new();
    let own = run.environment.iter().filter_map(|variable| variable.split_once('='));
    environment.extend(own.map(|(key, value)| (key.to_owned(), value.to_owned())));
    environment.extend(given);
    environment.entry("PATH".to_owned()).or_insert_with(|| PATH.to_owned());
    environment.entry("HOME".to_owned()).or_insert_with(|| run.home.clone());
    match environment.iter().find(|(key, value)| key.is_empty() || key.contains(['=', '\0']) || value.contains('\0')) {
        Some((key, _)) => Err(StartError::Invalid(format!("environment variable {key:?} has an empty name, '=' or a NUL byte"))),
        None => Ok(environment),
    }
}

fn find(name: &str, search: &str, directory: &Path) -> Result<PathBuf, StartError> {
    if name.contains('/') {
        let path = directory.join(name);
        return match executable(&path) {
            Some(true) => Ok(path),
            Some(false) => Err(StartError::Invalid(format!("the image's {name} may not be executed by the image's user"))),
            None => Err(StartError::Invalid(format!("the image has no program {name}"))),
        };
    }
    let found = search.split(':').map(|place| directory.join(place).join(name)).find(|path| executable(path) == Some(true));
    found.ok_or_else(|| StartError::Invalid(format!("the image has no program {name:?} in its PATH, which is {search}")))
}

/// Whether a file may be executed, if it is one.
fn executable(path: &Path) -> Option<bool> {
    let found = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    Some(found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(run: &ImageRun) -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let program = root.path().join("serve");
        fs::write(&program, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o555)).unwrap();
        fs::write(root.path().join("data"), "").unwrap();
        let run = ImageRun { directory: root.path().display().to_string(), ..run.clone() };
        let file = root.path().join("run.json");
        fs::write(&file, serde_json::to_vec(&run).unwrap()).unwrap();
        (root, file)
    }

    fn words(list: &[&str]) -> Vec<String> {
        list.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn arguments_take_the_commands_place_and_variables_win() {
        let run = ImageRun {
            entrypoint: words(&["./serve", "-v"]),
            command: words(&["--port", "80"]),
            environment: words(&["A=image", "lower=kept", "no value"]),
            home: "/home/web".into(),
            stop_signal: 3,
            ..ImageRun::default()
        };
        let (root, file) = image(&run);
        let of = |argv: &[&str], pairs: &[(&str, &str)]| {
            let given = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            program(&file, words(argv), given).unwrap()
        };
        let plain = of(&[], &[]);
        assert_eq!((plain.name.as_str(), &plain.argv), ("./serve", &words(&["-v", "--port", "80"])));
        assert_eq!(plain.path, root.path().join("./serve"));
        assert_eq!((plain.environment["HOME"].as_str(), plain.environment["PATH"].as_str()), ("/home/web", PATH));
        assert_eq!((plain.environment.len(), plain.stop_signal), (4, Some(Signal::QUIT)));
        let given = of(&["--help"], &[("A", "deployer"), ("HOME", "/x")]);
        assert_eq!(given.argv, words(&["-v", "--help"]));
        let value = |key: &str| given.environment[key].as_str();
        assert_eq!((value("A"), value("HOME"), value("lower")), ("deployer", "/x", "kept"));
    }

    #[test]
    fn a_program_is_found_in_the_images_path() {
        let run = ImageRun { command: words(&["serve"]), ..ImageRun::default() };
        let (root, file) = image(&run);
        let search = |path: String| program(&file, Vec::new(), BTreeMap::from([("PATH".to_owned(), path)]));
        let here = root.path().display();
        assert_eq!(search(format!("/nowhere:{here}")).unwrap().path, root.path().join("serve"));
        assert!(search("/nowhere".into()).unwrap_err().to_string().contains("no program \"serve\" in its PATH"));
    }

    #[test]
    fn what_cannot_be_run_is_refused_with_what_it_is() {
        let refused = |run: &ImageRun, argv: &[&str]| {
            let (_root, file) = image(run);
            program(&file, words(argv), BTreeMap::new()).unwrap_err().to_string()
        };
        assert!(refused(&ImageRun::default(), &[]).contains("--argv"));
        assert!(refused(&ImageRun::default(), &["./data"]).contains("may not be executed"));
        assert!(refused(&ImageRun::default(), &["/none/such"]).contains("no program /none/such"));
        assert!(refused(&ImageRun::default(), &["a\0b"]).contains("NUL"));
        let (root, file) = image(&ImageRun::default());
        fs::write(&file, br#"{"entrypoint":[],"command":[],"environment":[],"directory":"/none","home":"/","stop_signal":15}"#)
            .unwrap();
        assert!(program(&file, words(&["a"]), BTreeMap::new()).unwrap_err().to_string().contains("working directory /none"));
        fs::write(&file, "{").unwrap();
        assert!(program(&file, words(&["a"]), BTreeMap::new()).unwrap_err().to_string().contains("unreadable"));
        drop(root);
    }
}
