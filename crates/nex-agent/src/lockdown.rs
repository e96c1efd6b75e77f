//! What an agent gives up before its first instance, by what that is: one that runs functions needs no other process ever again.

use std::sync::{Mutex, PoisonError};

use nex_process::jail::{self, JailError};

/// Why an instance cannot be on this agent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockdownError {
    /// Nothing can be executed any more.
    #[error("this agent runs functions and can start no process; deploy services to another one")]
    Functions,
    /// Services are processes, which it has to start and stop.
    #[error("this agent runs services; deploy functions to another one")]
    Services,
    /// The kernel does not take the filter.
    #[error("this agent cannot give up what functions do not need")]
    Jail(#[from] JailError),
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    Services,
    Functions,
}

/// What an agent is for from its first instance on.
#[derive(Debug, Default)]
pub(crate) struct Lockdown(Mutex<State>);

impl Lockdown {
    /// Before a service is started.
    pub(crate) fn for_service(&self) -> Result<(), LockdownError> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if *state == State::Functions {
            return Err(LockdownError::Functions);
        }
        *state = State::Services;
        Ok(())
    }

    /// Before an engine sees anything of a function.
    pub(crate) fn for_function(&self) -> Result<(), LockdownError> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match *state {
            State::Functions => Ok(()),
            State::Services => Err(LockdownError::Services),
            State::Open => {
                jail::restrict_to_functions()?;
                *state = State::Functions;
                Ok(())
            }
        }
    }
}
