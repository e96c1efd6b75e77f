//! A terminal session that is also a test: commands are shown as one would type them, with what they print; a command that
//! fails, or does not say what it must, is noted and makes the whole session fail.

use std::io::{BufRead as _, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// Longest time a command may take.
const PATIENCE: Duration = Duration::from_secs(90);

/// A session in a directory of its own.
#[derive(Debug)]
pub(crate) struct Session {
    program: PathBuf,
    dir: PathBuf,
    environment: Vec<(String, String)>,
    failures: Vec<String>,
}

/// A command that goes on in the background; its lines arrive as they are written. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Background {
    child: Child,
    lines: Receiver<String>,
}

impl Session {
    /// A session that runs one program, with this environment and no other, in this directory.
    pub(crate) fn new(program: PathBuf, dir: PathBuf, environment: Vec<(String, String)>) -> Self {
        Self { program, dir, environment, failures: Vec::new() }
    }

    /// Runs a command to its end; prints and returns what it says. A failure is noted.
    pub(crate) fn run(&mut self, args: &[&str]) -> String {
        self.type_in(args, "");
        match self.finish(args) {
            Ok(said) => said,
            Err(error) => {
                self.fail(&format!("{error:#}"));
                String::new()
            }
        }
    }

    /// Runs a command that must say something; anything else is noted as a failure.
    pub(crate) fn run_expecting(&mut self, args: &[&str], expected: &str) -> String {
        let said = self.run(args);
        if !said.contains(expected) {
            self.fail(&format!("nex {} should have said: {expected}", args.join(" ")));
        }
        said
    }

    /// Starts a command and leaves it running.
    pub(crate) fn start(&mut self, args: &[&str]) -> Result<Background> {
        self.type_in(args, " &");
        let mut child = self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("cannot start nex")?;
        let (sender, lines) = channel();
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let streams: [Option<Box<dyn Read + Send>>; 2] = [out.map(|out| Box::new(out) as _), err.map(|err| Box::new(err) as _)];
        for stream in streams.into_iter().flatten() {
            let sender = sender.clone();
            // Ends with its stream, that is, with the command.
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        break;
                    }
                }
            });
        }
        Ok(Background { child, lines })
    }

    /// Notes a failure; the session goes on.
    pub(crate) fn fail(&mut self, what: &str) {
        println!("FAILED: {what}");
        self.failures.push(what.to_owned());
    }

    /// How the session ended: an error when anything in it failed.
    pub(crate) fn end(self) -> Result<()> {
        match self.failures.len() {
            0 => Ok(()),
            count => bail!("{count} steps failed: {}", self.failures.join("; ")),
        }
    }

    fn type_in(&self, args: &[&str], suffix: &str) {
        let quoted = args.iter().map(|arg| if arg.contains(' ') { format!("'{arg}'") } else { (*arg).to_owned() });
        println!("\n$ nex {}{suffix}", quoted.collect::<Vec<_>>().join(" "));
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(args).env_clear().current_dir(&self.dir).stdin(Stdio::null());
        command.envs(self.environment.iter().map(|(key, value)| (key, value)));
        command
    }

    fn finish(&self, args: &[&str]) -> Result<String> {
        let child = self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("cannot start nex")?;
        let pid = child.id();
        let (sender, ended) = channel();
        std::thread::spawn(move || drop(sender.send(child.wait_with_output())));
        let Ok(output) = ended.recv_timeout(PATIENCE) else {
            signal(pid, "KILL");
            bail!("nex {} did not end within {PATIENCE:?}", args.join(" "));
        };
        let output = output?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        print!("{said}{}", String::from_utf8_lossy(&output.stderr));
        if !said.is_empty() && !said.ends_with('\n') {
            println!();
        }
        if !output.status.success() {
            bail!("nex {} failed: {}", args.join(" "), output.status);
        }
        Ok(said)
    }
}

impl Background {
    /// Process id of the command.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Prints its lines until each of these texts was in one.
    pub(crate) fn wait_for(&self, texts: &[&str], patience: Duration) -> Result<()> {
        let end = Instant::now() + patience;
        let mut missing = texts.to_vec();
        while let Some(text) = missing.first() {
            let left = end.saturating_duration_since(Instant::now());
            let line = match self.lines.recv_timeout(left) {
                Ok(line) => line,
                Err(RecvTimeoutError::Disconnected) => bail!("it ended without saying '{text}'"),
                Err(RecvTimeoutError::Timeout) => bail!("it did not say '{text}' within {patience:?}"),
            };
            println!("{line}");
            missing.retain(|text| !line.contains(text));
        }
        Ok(())
    }

    /// Asks it to end as Ctrl-C does; prints what it still says. It must end well in time.
    pub(crate) fn interrupt(mut self, patience: Duration) -> Result<()> {
        println!("^C");
        signal(self.child.id(), "INT");
        let end = Instant::now() + patience;
        // Its lines end when it does.
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => println!("{line}"),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => bail!("it did not end within {patience:?} of SIGINT"),
            }
        }
        let status = self.child.wait()?;
        if !status.success() {
            bail!("it ended badly: {status}");
        }
        Ok(())
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Signals a process by the shell's own `kill`: the standard library knows only SIGKILL.
fn signal(pid: u32, name: &str) {
    drop(Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status());
}
