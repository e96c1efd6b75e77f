//! Runs a program to its end and returns its bounded output: for `nft` and for plug-ins.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use nex_process::{ChildSpec, Deadline, Exit, LineSink, Output};

/// More than any answer of `nft` or a plug-in has.
const MAX_OUTPUT: usize = 256 << 10;

/// The exit and the output of a program.
#[derive(Debug)]
pub(crate) struct CommandOutput {
    pub(crate) exit: Exit,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs it. At the deadline it is killed.
pub(crate) async fn run(spec: ChildSpec, by: Deadline) -> io::Result<CommandOutput> {
    let (stdout, stderr) = (Collected::default(), Collected::default());
    let spec = spec.stdout(Output::Lines(stdout.sink())).stderr(Output::Lines(stderr.sink()));
    let child = spec.spawn().map_err(io::Error::other)?;
    let exit = by.bound(child.exited()).await.map_err(|_elapsed| io::Error::from(io::ErrorKind::TimedOut))?;
    Ok(CommandOutput { exit, stdout: stdout.text(), stderr: stderr.text() })
}

#[derive(Default)]
struct Collected(Arc<Mutex<String>>);

impl Collected {
    fn sink(&self) -> LineSink {
        let text = Arc::clone(&self.0);
        Arc::new(move |line| {
            let mut text = text.lock().unwrap_or_else(PoisonError::into_inner);
            if text.len() + line.len() < MAX_OUTPUT {
                text.push_str(line);
                text.push('\n');
            }
        })
    }

    fn text(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
