//! A template filled in: names put into its texts, and written where nothing is yet.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::str::FromStr;

use super::catalogue::{Kind, Language, Template};

/// Longest name.
const MAX_NAME: usize = 40;

/// A name that does for a directory, a workload, a package, a subject and a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProjectName(String);

/// A text that is no such name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct InvalidName(String);

impl std::fmt::Display for InvalidName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "'{}' cannot be its name: it has to be 1 to {MAX_NAME} small letters, digits and '-', a letter first and no '-' last",
            self.0
        )
    }
}

impl std::error::Error for InvalidName {}

impl FromStr for ProjectName {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let is_name = text.len() <= MAX_NAME && text.bytes().all(is_plain) && !text.ends_with('-');
        match text.bytes().next() {
            Some(first) if first.is_ascii_lowercase() && is_name => Ok(Self(text.to_owned())),
            _ => Err(InvalidName(text.chars().take(80).collect())),
        }
    }
}

impl ProjectName {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// A project to write.
#[derive(Debug)]
pub(crate) struct Project {
    pub(crate) name: ProjectName,
    pub(crate) template: Template,
}

impl Project {
    /// The commands that build, deploy and call it, each good for a shell in its directory.
    pub(crate) fn steps(&self) -> Vec<String> {
        let Template { kind, language } = self.template;
        let mut steps: Vec<&str> = self.template.build().into_iter().collect();
        if kind == Kind::Consumer {
            steps.push("nats stream add {{STREAM}} --subjects '{{name}}.>' --defaults");
        }
        steps.push("nex apply");
        steps.push(match kind {
            Kind::Function => "nex call {{name}} @sample.txt",
            Kind::Webhook => "curl -d @sample.json localhost:8080/{{name}}",
            Kind::Consumer => "nex call {{name}}.new @sample.json",
            Kind::Schedule => "nex logs {{name}} --since 5m --follow",
            Kind::Service => "nex call {{name}}.hello @sample.txt",
        });
        let mut steps: Vec<String> = steps.into_iter().map(|step| self.filled(step)).collect();
        if matches!(language, Language::Js | Language::Ts) {
            steps.push(self.watch());
        }
        steps
    }

    /// The command that deploys it with each save.
    fn watch(&self) -> String {
        let trigger = self.template.kind.trigger().map(|trigger| format!(" --trigger '{}'", self.filled(trigger)));
        let (file, name) = (self.template.artifact(), self.name.as_str());
        format!("nex devrun {file} --name {name}{} --watch", trigger.unwrap_or_default())
    }

    /// Paths and texts of its files.
    pub(crate) fn files(&self) -> Vec<(&'static str, String)> {
        let common = [
            ("nex.toml", include_str!("templates/shared/nex.toml.in")),
            ("README.md", include_str!("templates/shared/README.md.in")),
        ];
        self.template.files().into_iter().chain(common).map(|(path, text)| (path, self.filled(text))).collect()
    }

    /// A text of a template with its names and parts put in. What is put in by a part may name what stands below it here.
    fn filled(&self, text: &str) -> String {
        let Template { kind, .. } = self.template;
        let mut text = text.to_owned();
        if text.contains("{{steps}}") {
            text = text.replace("{{steps}}", &self.steps().join("\n"));
        }
        let stream = self.name.as_str().to_ascii_uppercase().replace('-', "_");
        for (place, value) in [
            ("{{what}}", format!("{}.", kind.about()).as_str()),
            ("{{more}}", self.template.more()),
            ("{{settings}}", kind.settings().trim_end()),
            ("{{file}}", self.template.artifact()),
            ("{{STREAM}}", &stream),
            ("{{name}}", self.name.as_str()),
        ] {
            text = text.replace(place, value);
        }
        text
    }

    /// Writes it into a directory that it makes: nothing that is there is touched.
    ///
    /// # Errors
    /// Of kind [`io::ErrorKind::AlreadyExists`] where there is something of that name; what was begun is removed.
    pub(crate) fn write(&self, directory: &Path) -> io::Result<()> {
        fs::create_dir(directory)?;
        let written = self.files().into_iter().try_for_each(|(path, text)| {
            let file = directory.join(path);
            file.parent().map_or(Ok(()), fs::create_dir_all)?;
            fs::File::create_new(file)?.write_all(text.as_bytes())
        });
        if written.is_err() {
            fs::remove_dir_all(directory).ok();
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Manifest;

    fn projects() -> impl Iterator<Item = Project> {
        Template::all().map(|template| Project { name: "my-shop".parse().unwrap(), template })
    }

    #[test]
    fn names_do_for_all_that_they_name() {
        for name in ["a", "my-shop", "v8"] {
            assert_eq!(name.parse::<ProjectName>().unwrap().as_str(), name);
            assert!(name.parse::<nex_protocol::id::WorkloadName>().is_ok());
        }
        for name in ["", "-a", "a-", "A", "a.b", "a b", "../a", "ä", "1a", "a/b", "$(id)", &"a".repeat(41)] {
            assert!(name.parse::<ProjectName>().unwrap_err().to_string().contains("cannot be its name"), "{name}");
        }
    }

    #[test]
    fn every_template_is_filled_in_and_its_manifest_is_one() {
        let directory = tempfile::tempdir().unwrap();
        for project in projects() {
            let at = directory.path().join(format!("{}-{}", project.template.kind.name(), project.template.language.name()));
            project.write(&at).unwrap();
            for (path, text) in project.files() {
                for place in ["name", "STREAM", "file", "settings", "what", "more", "steps"] {
                    assert!(!text.contains(&format!("{{{{{place}}}}}")), "{path}: {text}");
                }
                assert_eq!(fs::read_to_string(at.join(path)).unwrap(), text);
            }
            let manifest = Manifest::read(&at.join("nex.toml"), |_| None).unwrap();
            assert_eq!((manifest.project.as_str(), manifest.workloads[0].name.as_str()), ("my-shop", "my-shop"));
            let is_written = at.join(project.template.artifact()).is_file();
            assert_eq!(is_written, project.template.build().is_none(), "{:?}", project.template);
            assert!(project.steps().len() >= 3 || project.template.build().is_none(), "{:?}", project.steps());
        }
    }

    #[test]
    fn nothing_that_is_there_is_touched() {
        let directory = tempfile::tempdir().unwrap();
        let project = projects().next().unwrap();
        let taken = directory.path().join("taken");
        fs::write(&taken, "mine").unwrap();
        assert_eq!(project.write(&taken).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&taken).unwrap(), "mine");
        let empty = directory.path().join("empty");
        fs::create_dir(&empty).unwrap();
        assert_eq!(project.write(&empty).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_dir(&empty).unwrap().count(), 0);
    }
}
