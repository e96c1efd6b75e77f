//! Exit codes, and the errors that cause them. A failure never exits 0.

use anyhow::Error;
use nex_bus::connect::ConnectError;
use nex_bus::context::ContextError;
use nex_bus::denials::Denial;
use nex_client::auction::{NobodyBids, TriggerTaken};
use nex_client::call::CallError;
use nex_client::deploy::{DeployError, StopError};
use nex_client::gather::GatherError;
use nex_client::replay::ReplayError;
use nex_client::request::RequestError;
use nex_process::Signal;
use nex_protocol::control::{ExitCause, LastExit};
use nex_protocol::envelope::ErrorCode;

use crate::check::Usage;
use crate::output::Closed;

/// Outcome of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Success, or the reader of the output has gone.
    Done,
    /// Any other failure.
    Failed,
    /// Invalid command line; clap exits with the same code.
    Usage,
    /// A node refused (issuer, claims, policy), or NATS did not permit it.
    Denied,
    /// No node accepts the workload.
    NobodyBid,
    /// The answer timed out.
    Deadline,
    /// There is no connection to NATS.
    NotConnected,
    /// A message that was replayed came to something else than before.
    Differs,
    /// Ctrl-C; as a shell tells it.
    Interrupted,
    /// A job that was waited for has failed; as a shell tells it.
    Job(u8),
}

/// A message that was replayed came to something else than its record says.
#[derive(Debug)]
pub(crate) struct Differs;

impl std::fmt::Display for Differs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the replay differs from what was recorded")
    }
}

impl std::error::Error for Differs {}

/// A deploy was interrupted.
#[derive(Debug)]
pub(crate) struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(
            "interrupted; next: a deploy that a node has begun goes on there: see it with `nex ps`, end it with `nex stop`",
        )
    }
}

impl std::error::Error for Interrupted {}

/// All that the server did not permit a command.
#[derive(Debug)]
pub(crate) struct Denied(pub(crate) Vec<Denial>);

impl std::fmt::Display for Denied {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = self.0.first().map(ToString::to_string).unwrap_or_default();
        let (what, next) = text.split_once("; next: ").unwrap_or((&text, ""));
        f.write_str(what)?;
        self.0.iter().skip(1).try_for_each(|it| write!(f, ", nor {} \"{}\"", it.action.verb(), it.subject))?;
        write!(f, "; next: {next}")
    }
}

impl std::error::Error for Denied {}

/// A job that was waited for did not end well.
#[derive(Debug)]
pub(crate) struct JobEnded(pub(crate) LastExit);

impl std::fmt::Display for JobEnded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let LastExit { code, cause, reason, .. } = &self.0;
        match cause {
            ExitCause::Exit => write!(f, "the job has failed with exit code {code}"),
            _ => write!(f, "the job has failed ({cause}): {reason}"),
        }
    }
}

impl std::error::Error for JobEnded {}

impl JobEnded {
    /// Its own code; 124 at its deadline, as `timeout` has it; 128 and the signal that ended it, as shells have it; else 1.
    fn code(&self) -> u8 {
        let LastExit { code, cause, reason, .. } = &self.0;
        let signal = || reason.rsplit_once('(')?.1.trim_end_matches(')').parse::<Signal>().ok();
        match (u8::try_from(*code), cause) {
            (Ok(code @ 1..), _) => code,
            (_, ExitCause::Deadline) => 124,
            (_, ExitCause::OutOfMemory) => 137,
            (_, ExitCause::Signal) => signal().and_then(|signal| u8::try_from(128 + signal as i32).ok()).unwrap_or(1),
            _ => 1,
        }
    }
}

impl Exit {
    /// The exit code.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Denied => 3,
            Self::NobodyBid => 4,
            Self::Deadline => 5,
            Self::NotConnected => 6,
            Self::Differs => 7,
            Self::Interrupted => 130,
            Self::Job(code) => code,
        }
    }

    /// Classifies an error by the first error in its chain that has a code.
    pub(crate) fn of(error: &Error) -> Self {
        error.chain().find_map(Self::of_part).unwrap_or(Self::Failed)
    }

    fn of_part(part: &(dyn std::error::Error + 'static)) -> Option<Self> {
        if part.is::<Closed>() {
            return Some(Self::Done);
        }
        if part.is::<Usage>() {
            return Some(Self::Usage);
        }
        if let Some(job) = part.downcast_ref::<JobEnded>() {
            return Some(Self::Job(job.code()));
        }
        if part.is::<Differs>() {
            return Some(Self::Differs);
        }
        if part.is::<Interrupted>() {
            return Some(Self::Interrupted);
        }
        if part.is::<NobodyBids>() {
            return Some(Self::NobodyBid);
        }
        if part.is::<Denial>() || part.is::<Denied>() || part.is::<TriggerTaken>() {
            return Some(Self::Denied);
        }
        if part.is::<ConnectError>() {
            return Some(Self::NotConnected);
        }
        if let Some(error) = part.downcast_ref::<ContextError>() {
            let usage = matches!(error, ContextError::Unknown { .. } | ContextError::Name(_) | ContextError::NoneSelected);
            return Some(if usage { Self::Usage } else { Self::NotConnected });
        }
        if let Some(GatherError::Silence(_)) = part.downcast_ref() {
            return Some(Self::Deadline);
        }
        if let Some(error) = part.downcast_ref::<CallError>() {
            return matches!(error, CallError::TimedOut { .. }).then_some(Self::Deadline);
        }
        Self::of_request(request_in(part)?)
    }

    fn of_request(error: &RequestError) -> Option<Self> {
        match error {
            RequestError::TimedOut { .. } => Some(Self::Deadline),
            RequestError::Refused(failure) if failure.code == ErrorCode::Denied => Some(Self::Denied),
            // Nodes of 0.2.7 send no code; these texts mean a denial.
            RequestError::Refused(failure) => ["invalid workload issuer", "Invalid stop request", "deny list"]
                .iter()
                .any(|text| failure.message.contains(text))
                .then_some(Self::Denied),
            RequestError::NotThere { .. } | RequestError::Malformed { .. } | RequestError::NotSent { .. } => None,
        }
    }
}

/// What came of the request to a node that failed, if that is what failed.
pub(crate) fn request_error(error: &Error) -> Option<&RequestError> {
    error.chain().find_map(request_in)
}

/// The request error in an error: transparent variants hide it from the chain.
fn request_in<'a>(part: &'a (dyn std::error::Error + 'static)) -> Option<&'a RequestError> {
    if let Some(DeployError::Request(error)) = part.downcast_ref() {
        return Some(error);
    }
    if let Some(StopError::Request(error)) = part.downcast_ref() {
        return Some(error);
    }
    if let Some(ReplayError::Request(error)) = part.downcast_ref() {
        return Some(error);
    }
    part.downcast_ref()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use nex_bus::denials::Action;
    use nex_protocol::envelope::Failure;

    use super::*;

    #[test]
    fn a_job_ends_with_its_code_as_a_shell_tells_it() {
        for (code, cause, reason, expected) in [
            (7, ExitCause::Exit, "", 7),
            (-1, ExitCause::Signal, "Exited workload: a; vm: b; status: -1 (SIGSEGV)", 139),
            (-1, ExitCause::Signal, "who knows", 1),
            (-1, ExitCause::Deadline, "its deadline is over", 124),
            (-1, ExitCause::OutOfMemory, "", 137),
            (-1, ExitCause::Stopped, "", 1),
            (256, ExitCause::Exit, "", 1),
        ] {
            let ended = JobEnded(LastExit { code, cause, reason: reason.into(), at: 0 });
            assert_eq!(Exit::of(&ended.into()).code(), expected, "{code} {cause}");
        }
    }

    #[test]
    fn all_that_was_denied_is_told_at_once() {
        let denied = |action, subject: &str| Denial { action, subject: subject.into() };
        let all = Denied(vec![denied(Action::Publish, "a"), denied(Action::Subscribe, "b")]).to_string();
        assert!(all.starts_with(r#"denied: this user may not publish to "a", nor subscribe to "b"; next: permit it"#), "{all}");
    }

    fn refused(code: ErrorCode, text: &str) -> RequestError {
        RequestError::Refused(Failure::new(code, text))
    }

    #[test]
    fn each_kind_of_failure_has_its_exit_code() {
        let node: nex_protocol::id::NodeId = nkeys::KeyPair::new_server().public_key().parse().unwrap();
        let late = || RequestError::TimedOut { verb: "INFO", node: node.clone(), waited: Duration::from_secs(1) };
        let cases: Vec<(Error, u8)> = vec![
            (Closed.into(), 0),
            (anyhow::anyhow!("x"), 1),
            (refused(ErrorCode::Failed, "could not start").into(), 1),
            (RequestError::NotThere { verb: "INFO", node: node.clone() }.into(), 1),
            (Usage("x".into()).into(), 2),
            (ContextError::NoneSelected.into(), 2),
            (refused(ErrorCode::Denied, "no").into(), 3),
            (refused(ErrorCode::Failed, "invalid workload issuer: A").into(), 3),
            (DeployError::Request(refused(ErrorCode::Denied, "no")).into(), 3),
            (ReplayError::Request(refused(ErrorCode::Denied, "no")).into(), 3),
            (Error::from(StopError::Request(refused(ErrorCode::Denied, "no"))).context("outer"), 3),
            (Denial { action: Action::Publish, subject: "a".into() }.into(), 3),
            (Denied(vec![]).into(), 3),
            (NobodyBids { declined: vec![] }.into(), 4),
            (TriggerTaken { subject: "a".into(), node: "N".into() }.into(), 3),
            (Differs.into(), 7),
            (Interrupted.into(), 130),
            (late().into(), 5),
            (DeployError::Request(late()).into(), 5),
            (CallError::TimedOut { subject: "a".into(), waited: Duration::ZERO }.into(), 5),
            (GatherError::Silence("$NEX.PING").into(), 5),
            (CallError::NobodyListens("a".into()).into(), 1),
        ];
        for (error, code) in cases {
            assert_eq!(Exit::of(&error).code(), code, "{error:?}");
        }
    }
}
