//! What went wrong inside becomes what the wire says of it: here and nowhere else.

use nex_protocol::agent::RejectCode;
use nex_protocol::envelope::{ErrorCode, Failure, chain};

use crate::admission::AdmissionError;
use crate::artifacts::FetchError;
use crate::connections::ConnectionError;
use crate::policy::{DeployRefusal, StopRefusal};
use crate::registry::NoRoom;
use crate::workload::launch_error::LaunchError;

impl From<AdmissionError> for Failure {
    fn from(error: AdmissionError) -> Self {
        match error {
            AdmissionError::Refused(error) => error.into(),
            AdmissionError::NoRoom(error) => error.into(),
            AdmissionError::Fetch(error) => error.into(),
            AdmissionError::Launch(error) => error.into(),
        }
    }
}

impl From<DeployRefusal> for Failure {
    fn from(error: DeployRefusal) -> Self {
        use DeployRefusal as R;
        let code = match &error {
            R::Body(_)
            | R::TriggersOfAService(_)
            | R::NoTriggers
            | R::TooMany { .. }
            | R::NotASubject(_)
            | R::Environment(_)
            | R::NoToken
            | R::Token(_)
            | R::Name(_)
            | R::NoTokenId
            | R::NoLocation
            | R::EmptyArtifact(_)
            | R::Domain(_)
            | R::Revision
            | R::MachineClass { .. } => ErrorCode::BadRequest,
            R::UnsupportedType(_)
            | R::DeniedTrigger(_)
            | R::TriggerNotAllowed(_)
            | R::EnvironmentOfAnother
            | R::Times(_)
            | R::TokenTooOld
            | R::TokenLivesTooLong
            | R::Place(_)
            | R::TokenStops
            | R::RequestChanged
            | R::ArtifactChanged { .. }
            | R::Issuer(_)
            | R::Memory(_)
            | R::CallTimeout(_)
            | R::DigestDemanded
            | R::BoundClaimsDemanded
            | R::BoundEnvironmentDemanded => ErrorCode::Denied,
        };
        Self::new(code, error.to_string())
    }
}

impl From<StopRefusal> for Failure {
    fn from(error: StopRefusal) -> Self {
        let code = match error {
            StopRefusal::NotFound => ErrorCode::NotFound,
            StopRefusal::Token(_) => ErrorCode::BadRequest,
            StopRefusal::Claims(_)
            | StopRefusal::StartClaims
            | StopRefusal::Subject
            | StopRefusal::Issuer
            | StopRefusal::OtherWorkload
            | StopRefusal::Unbound
            | StopRefusal::BoundClaimsDemanded
            | StopRefusal::OlderThanTheWorkload
            | StopRefusal::TooOld => ErrorCode::Denied,
        };
        Self::new(code, error.to_string())
    }
}

impl From<LaunchError> for Failure {
    fn from(error: LaunchError) -> Self {
        let code = match error {
            LaunchError::Fetch(error) => return error.into(),
            LaunchError::Connection(error) => return error.into(),
            LaunchError::Journal(_) => return Self::new(ErrorCode::Internal, chain(&error)),
            LaunchError::Stopped | LaunchError::NodeStopping | LaunchError::Pool(_) => ErrorCode::Unavailable,
            LaunchError::MachineClass(_) => ErrorCode::BadRequest,
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
        Self::new(code, error.to_string())
    }
}

impl From<ConnectionError> for Failure {
    fn from(error: ConnectionError) -> Self {
        let code = match &error {
            ConnectionError::NotListed | ConnectionError::TriggerDenied(_) => ErrorCode::Denied,
            ConnectionError::Unreachable | ConnectionError::Namespace(_) => ErrorCode::Failed,
        };
        Self::new(code, error.to_string())
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
