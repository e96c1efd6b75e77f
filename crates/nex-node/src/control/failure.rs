//! What went wrong inside becomes what the wire says of it: here and nowhere else.

use nex_protocol::agent::RejectCode;
use nex_protocol::envelope::{ErrorCode, Failure, chain};

use crate::artifacts::FetchError;
use crate::registry::NoRoom;
use crate::workload::launch_error::LaunchError;

impl From<LaunchError> for Failure {
    fn from(error: LaunchError) -> Self {
        let code = match &error {
            LaunchError::Fetch(failure) | LaunchError::Connection(failure) => return failure.clone(),
            LaunchError::Stopped | LaunchError::NodeStopping | LaunchError::Pool(_) => ErrorCode::Unavailable,
            LaunchError::MachineClass(_) => ErrorCode::BadRequest,
            LaunchError::Journal(_) => ErrorCode::Internal,
            LaunchError::Adoption(_)
            | LaunchError::Engine(_)
            | LaunchError::Network(_)
            | LaunchError::Artifact(_)
            | LaunchError::Seal(_)
            | LaunchError::Triggers(_) => ErrorCode::Failed,
            LaunchError::Agent(_) => match error.rejected() {
                Some(RejectCode::Full) => ErrorCode::Unavailable,
                _ => ErrorCode::Failed,
            },
        };
        Self::new(code, if matches!(error, LaunchError::Journal(_)) { chain(&error) } else { error.to_string() })
    }
}

impl From<NoRoom> for Failure {
    fn from(error: NoRoom) -> Self {
        let code = match error {
            NoRoom::Workloads | NoRoom::TotalBytes => ErrorCode::Unavailable,
            NoRoom::WorkloadBytes | NoRoom::Trigger(_) => ErrorCode::Denied,
        };
        Self::new(code, error.to_string())
    }
}

impl From<FetchError> for Failure {
    fn from(error: FetchError) -> Self {
        Self::new(ErrorCode::Failed, error.to_string())
    }
}
