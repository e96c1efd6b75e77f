//! A terminal session that is also a test: shows commands as typed, with their output. A command that fails or lacks its expected output
//! makes the whole session fail.

use std::io::{BufRead as _, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// Longest time a command may take.
const TIMEOUT: Duration = Duration::from_secs(90);

/// A session in a directory of its own.
#[derive(Debug)]
pub(crate) struct Session {
    program: PathBuf,
    dir: PathBuf,
    environment: Vec<(String, String)>,
    failures: Vec<String>,
}

/// A command that runs in the background; its lines arrive as they are written. Dropping it kills it.
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

    /// Runs a command to its end; prints and returns its output. A failure is recorded.
    pub(crate) fn run(&mut self, args: &[&str]) -> String {
        self.print_command(args, "");
        match self.finish(args) {
            Ok(output) => output,
            Err(error) => {
                self.fail(&format!("{error:#}"));
                String::new()
            }
        }
    }

    /// Runs a command whose output must contain a text; otherwise records a failure.
    pub(crate) fn run_expecting(&mut self, args: &[&str], expected: &str) -> String {
        let output = self.run(args);
        if !output.contains(expected) {
            self.fail(&format!("nex {} should have printed: {expected}", args.join(" ")));
        }
        output
    }

    /// Starts a command and leaves it running.
    pub(crate) fn start(&mut self, args: &[&str]) -> Result<Background> {
        self.print_command(args, " &");
        let mut child = self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("cannot start nex")?;
        let (sender, lines) = channel();
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let streams: [Option<Box<dyn Read + Send>>; 2] = [out.map(|out| Box::new(out) as _), err.map(|err| Box::new(err) as _)];
        for stream in streams.into_iter().flatten() {
            let sender = sender.clone();
            // The thread ends with the command's stream.
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

    /// Records a failure; the session continues.
    pub(crate) fn fail(&mut self, what: &str) {
        println!("FAILED: {what}");
        self.failures.push(what.to_owned());
    }

    /// Ends the session; an error if a step failed.
    pub(crate) fn end(self) -> Result<()> {
        match self.failures.len() {
            0 => Ok(()),
            count => bail!("{count} steps failed: {}", self.failures.join("; ")),
        }
    }

    fn print_command(&self, args: &[&str], suffix: &str) {
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
        let Ok(output) = ended.recv_timeout(TIMEOUT) else {
            signal(pid, "KILL");
            bail!("nex {} did not end within {TIMEOUT:?}", args.join(" "));
        };
        let output = output?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        print!("{text}{}", String::from_utf8_lossy(&output.stderr));
        if !text.is_empty() && !text.ends_with('\n') {
            println!();
        }
        if !output.status.success() {
            bail!("nex {} failed: {}", args.join(" "), output.status);
        }
        Ok(text)
    }
}

impl Background {
    /// Process id of the command.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Prints its lines until each of these texts was in one.
    pub(crate) fn wait_for(&self, texts: &[&str], timeout: Duration) -> Result<()> {
        let end = Instant::now() + timeout;
        let mut missing = texts.to_vec();
        while let Some(text) = missing.first() {
            let left = end.saturating_duration_since(Instant::now());
            let line = match self.lines.recv_timeout(left) {
                Ok(line) => line,
                Err(RecvTimeoutError::Disconnected) => bail!("it ended without printing '{text}'"),
                Err(RecvTimeoutError::Timeout) => bail!("it did not print '{text}' within {timeout:?}"),
            };
            println!("{line}");
            missing.retain(|text| !line.contains(text));
        }
        Ok(())
    }

    /// Interrupts it like Ctrl-C and prints its remaining output. It must exit with success in time.
    pub(crate) fn interrupt(mut self, timeout: Duration) -> Result<()> {
        println!("^C");
        signal(self.child.id(), "INT");
        let end = Instant::now() + timeout;
        // The channel closes when the command ends.
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => println!("{line}"),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => bail!("it did not end within {timeout:?} of SIGINT"),
            }
        }
        let status = self.child.wait()?;
        if !status.success() {
            bail!("it failed: {status}");
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

/// Signals a process by the shell's `kill`, because the standard library only sends SIGKILL.
fn signal(pid: u32, name: &str) {
    drop(Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status());
}
