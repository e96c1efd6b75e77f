//! What went wrong inside becomes what the wire says of it: here and nowhere else.

use nex_protocol::agent::RejectCode;
use nex_protocol::envelope::{ErrorCode, Failure, chain};

use crate::admission::AdmissionError;
use crate::artifacts::FetchError;
use crate::compiler::CompileError;
use crate::config::IsolationRefusal;
use crate::connections::ConnectionError;
use crate::durable::TriggerFailure;
use crate::history::HistoryError;
use crate::images::ImageError;
use crate::policy::{DeployRefusal, StopRefusal};
use crate::quota::TooFast;
use crate::registry::NoRoom;
use crate::secrets::SecretFailure;
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
            R::Trigger(refusal) if refusal.is_malformed() => ErrorCode::BadRequest,
            R::Trigger(_) | R::Isolation(IsolationRefusal::UnderTheFloor { .. }) => ErrorCode::Denied,
            R::Body(_)
            | R::TriggersOfAService(_)
            | R::TriggersOfAJob
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
            | R::SecretVariable(_)
            | R::SecretName(_)
            | R::Policy(_)
            | R::PolicyOfAFunction(_)
            | R::Isolation(_)
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
            | R::Limit { .. }
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
            LaunchError::Connection(error) | LaunchError::Durable(TriggerFailure::Connection(error)) => return error.into(),
            LaunchError::Durable(ref failure) if failure.is_denied() => ErrorCode::Denied,
            LaunchError::Secrets(SecretFailure::Missing(_) | SecretFailure::Unheard { .. }) => ErrorCode::Failed,
            LaunchError::Secrets(_) => ErrorCode::Denied,
            LaunchError::Journal(_) => return Self::new(ErrorCode::Internal, chain(&error)),
            LaunchError::Stopped | LaunchError::NodeStopping | LaunchError::Pool(_) | LaunchError::SharedAgent(_) => {
                ErrorCode::Unavailable
            }
            LaunchError::Image(ImageError::Late) | LaunchError::Compile(CompileError::Late) => ErrorCode::Unavailable,
            LaunchError::MachineClass(_) => ErrorCode::BadRequest,
            LaunchError::Adoption(_)
            | LaunchError::Unhealthy(_)
            | LaunchError::Engine(_)
            | LaunchError::Image(_)
            | LaunchError::Compile(_)
            | LaunchError::ImageAgent(_)
            | LaunchError::Network(_)
            | LaunchError::Artifact(_)
            | LaunchError::Seal(_)
            | LaunchError::Durable(_)
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
            NoRoom::Workloads | NoRoom::TotalBytes | NoRoom::Quota(_) => ErrorCode::Unavailable,
            NoRoom::WorkloadBytes | NoRoom::Trigger(_) => ErrorCode::Denied,
        };
        Self::new(code, error.to_string())
    }
}

impl From<HistoryError> for Failure {
    fn from(error: HistoryError) -> Self {
        let HistoryError::Late = error;
        Self::new(ErrorCode::Unavailable, error.to_string())
    }
}

impl From<TooFast> for Failure {
    fn from(error: TooFast) -> Self {
        Self::new(ErrorCode::Unavailable, error.to_string())
    }
}

impl From<FetchError> for Failure {
    fn from(error: FetchError) -> Self {
        Self::new(ErrorCode::Failed, error.to_string())
    }
}
