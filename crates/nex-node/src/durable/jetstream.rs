//! Questions to `JetStream`, whose answers are told apart in one way; and what a server does not permit, which it tells elsewhere.

use async_nats::Client;
use async_nats::jetstream::{self, Context, context::RequestErrorKind, response::Response};
use nex_bus::denials::{Action, Denial, Denials};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::failure::TriggerFailure;

/// `JetStream` on a workload's connection. Cheap to clone.
#[derive(Clone)]
pub(super) struct JetStream {
    pub(super) client: Client,
    pub(super) context: Context,
    denials: Denials,
}

/// What an answer says.
pub(super) enum Answer<T> {
    Yes(T),
    No(jetstream::Error),
}

impl JetStream {
    pub(super) fn new((client, denials): (Client, Denials)) -> Self {
        Self { context: jetstream::new(client.clone()), client, denials }
    }

    /// Whether the server has said that something may not be published which nobody waits for an answer to.
    pub(super) fn check_denied(&self, is_this: impl Fn(&str) -> bool) -> Result<(), TriggerFailure> {
        match self.denials.take(|denial| denial.action == Action::Publish && is_this(&denial.subject)) {
            Some(denial) => Err(TriggerFailure::Denied(denial)),
            None => Ok(()),
        }
    }

    /// Waits until the server says that something may not be published.
    pub(super) async fn denied(&self, subject: &str) -> Denial {
        self.denials.next(|denial| denial.action == Action::Publish && denial.subject == subject).await
    }

    /// Asks, and ends as soon as the server says that this may not be asked.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        what: &'static str,
        subject: String,
        body: &impl Serialize,
    ) -> Result<Answer<T>, TriggerFailure> {
        let full = format!("$JS.API.{subject}");
        let is_this = |denial: &Denial| denial.subject == full;
        let answer = tokio::select! {
            answer = self.context.request(subject, body) => answer,
            denial = self.denials.next(is_this) => return Err(TriggerFailure::Denied(denial)),
        };
        match answer {
            Ok(Response::Ok(answer)) => Ok(Answer::Yes(answer)),
            Ok(Response::Err { error }) => Ok(Answer::No(error)),
            Err(error) => {
                let why = match error.kind() {
                    RequestErrorKind::NoResponders => "nobody is there".to_owned(),
                    RequestErrorKind::TimedOut => "no answer in time".to_owned(),
                    _ => nex_protocol::envelope::chain(&error),
                };
                Err(TriggerFailure::Unheard { what, why })
            }
        }
    }
}

impl<T> Answer<T> {
    /// What was asked for, if that was granted.
    pub(super) fn granted(self, what: &'static str) -> Result<T, TriggerFailure> {
        match self {
            Self::Yes(answer) => Ok(answer),
            Self::No(error) => Err(TriggerFailure::Refused { what, why: error.to_string() }),
        }
    }
}
