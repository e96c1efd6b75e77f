//! `nex new`: begins a function or a service from a template.

use std::io::ErrorKind;
use std::path::Path;

use anyhow::Context as _;
use clap::Args;
use serde_json::json;

use crate::check::Usage;
use crate::new::{Kind, Language, Project, ProjectName, Template};
use crate::output::Output;
use crate::table::{Column, titled};

/// `nex new`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  nex new greet                                 a JavaScript function, in the directory greet
  nex new orders --template consumer --lang ts  what deals with the messages of a stream, in TypeScript
  nex new --list                                the templates that there are")]
pub(crate) struct NewArgs {
    /// Its name, and that of the directory to make: small letters, digits and '-'
    #[arg(value_name = "NAME", required_unless_present = "list")]
    name: Option<ProjectName>,
    /// What it is to be
    #[arg(long, short, value_name = "TEMPLATE", default_value = "function")]
    template: Kind,
    /// What it is written in
    #[arg(long, short, visible_alias = "language", value_name = "LANGUAGE")]
    lang: Option<Language>,
    /// List the templates and their languages
    #[arg(long, conflicts_with_all = ["name", "template", "lang"])]
    list: bool,
}

/// Writes the files, and says how to go on.
pub(crate) fn run(args: &NewArgs, output: &mut Output) -> anyhow::Result<()> {
    let Some(name) = args.name.clone().filter(|_| !args.list) else { return list(output) };
    let first = args.template.languages().next();
    let language = args.lang.or(first).context("this kind has no template")?;
    let template = Template { kind: args.template, language };
    if !template.exists() {
        let (kind, there) = (args.template.name(), languages(args.template));
        let why = format!(
            "there is no {kind} in {}; next: take one of {there}, or another template of `nex new --list`",
            language.name()
        );
        return Err(Usage(why).into());
    }
    let project = Project { name, template };
    let directory = project.name.as_str();
    match project.write(Path::new(directory)) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            Err(Usage(format!("{directory} is there already, and nothing is overwritten; next: choose another name")).into())
        }
        written => written.with_context(|| format!("cannot write {directory}; next: go to a directory that is yours")),
    }?;
    let files: Vec<&str> = project.files().into_iter().map(|(path, _)| path).collect();
    let next: Vec<String> = std::iter::once(format!("cd {directory}")).chain(project.steps()).collect();
    if output.is_json() {
        return output.document(&json!({
            "name": directory, "template": args.template.name(), "lang": language.name(), "directory": directory, "files": files,
            "next": next,
        }));
    }
    output.line(format_args!("Wrote {directory}: {}", files.join(", ")))?;
    let next: String = next.iter().map(|step| format!("\n  {step}")).collect();
    output.line(format_args!("{}{next}", output.style().dim("Next:")))?;
    output.note(output.style().dim(template.more()));
    Ok(())
}

fn list(output: &mut Output) -> anyhow::Result<()> {
    if output.is_json() {
        let all: Vec<_> = Template::all()
            .map(|Template { kind, language }| json!({"template": kind.name(), "lang": language.name(), "about": kind.about()}))
            .collect();
        return output.document(&all);
    }
    let mut kinds: Vec<Kind> = Template::all().map(|template| template.kind).collect();
    kinds.dedup();
    let columns = [Column::left("Template").whole(), Column::left("Languages").whole(), Column::left("What it is")];
    let rows = kinds.into_iter().map(|kind| vec![kind.name(), languages(kind), kind.about()]);
    output.table(&titled("Templates", &columns, rows))
}

fn languages(kind: Kind) -> String {
    kind.languages().map(Language::name).collect::<Vec<_>>().join(", ")
}
