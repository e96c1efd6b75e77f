//! Exit codes, and the errors that cause them. A failure never exits 0.

use anyhow::Error;
use nex_bus::connect::ConnectError;
use nex_bus::context::ContextError;
use nex_bus::denials::Denial;
use nex_client::auction::NobodyBids;
use nex_client::call::CallError;
use nex_client::deploy::{DeployError, StopError};
use nex_client::request::RequestError;
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
        if part.is::<NobodyBids>() {
            return Some(Self::NobodyBid);
        }
        if part.is::<Denial>() {
            return Some(Self::Denied);
        }
        if part.is::<ConnectError>() {
            return Some(Self::NotConnected);
        }
        if let Some(error) = part.downcast_ref::<ContextError>() {
            let usage = matches!(error, ContextError::Unknown { .. } | ContextError::Name(_) | ContextError::NoneSelected);
            return Some(if usage { Self::Usage } else { Self::NotConnected });
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

/// The request error in an error: transparent variants hide it from the chain.
fn request_in<'a>(part: &'a (dyn std::error::Error + 'static)) -> Option<&'a RequestError> {
    if let Some(DeployError::Request(error)) = part.downcast_ref() {
        return Some(error);
    }
    if let Some(StopError::Request(error)) = part.downcast_ref() {
        return Some(error);
    }
    part.downcast_ref()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use nex_protocol::envelope::Failure;

    use super::*;

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
            (Error::from(StopError::Request(refused(ErrorCode::Denied, "no"))).context("outer"), 3),
            (Denial { action: nex_bus::denials::Action::Publish, subject: "a".into() }.into(), 3),
            (NobodyBids { declined: vec![] }.into(), 4),
            (late().into(), 5),
            (DeployError::Request(late()).into(), 5),
            (CallError::TimedOut { subject: "a".into(), waited: Duration::ZERO }.into(), 5),
            (CallError::NobodyListens("a".into()).into(), 1),
        ];
        for (error, code) in cases {
            assert_eq!(Exit::of(&error).code(), code, "{error:?}");
        }
    }
}
