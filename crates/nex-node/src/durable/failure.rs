//! Why a durable trigger cannot be served.

use nex_bus::denials::Denial;

use crate::connections::ConnectionError;

/// Why a durable trigger cannot be served, now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TriggerFailure {
    /// What it reads is not there.
    #[error("there is no stream {0}; next: create it, and it is found at the next try")]
    NoStream(String),
    /// What it would read is not for functions.
    #[error(
        "the stream {stream} has messages on {subject}, which is not for functions; next: give the trigger a filter without them"
    )]
    Reserved {
        /// The stream.
        stream: String,
        /// Some of its subjects.
        subject: String,
    },
    /// A consumer that is no trigger's.
    #[error("the stream {stream} has a consumer {consumer} already that is not this trigger's; next: delete it")]
    Foreign {
        /// The stream.
        stream: String,
        /// The consumer.
        consumer: String,
    },
    /// The server does not permit it.
    #[error("on the workload's NATS connection: {0}")]
    Denied(Denial),
    /// The server keeps no schedules.
    #[error("this NATS server does not keep such schedules ({0}); next: run nats-server 2.14 or newer")]
    NoSchedules(String),
    /// The server keeps no order.
    #[error(
        "this NATS server gives the messages of a consumer to more than one reader at a time, so that their order by key would be lost; next: run nats-server 2.11 or newer, or write order=all"
    )]
    NoOrder,
    /// A time that has come and gone.
    #[error("{0} is over; next: name a time to come")]
    Over(String),
    /// `JetStream` says no.
    #[error("JetStream refuses {what}: {why}; next: change what it says, and it is found at the next try")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// In its words.
        why: String,
    },
    /// `JetStream` says nothing.
    #[error("JetStream does not answer {what}: {why}; next: check that it is enabled for this account")]
    Unheard {
        /// What was asked.
        what: &'static str,
        /// What was heard instead.
        why: String,
    },
    /// It was there, and is not any more.
    #[error("its consumer was deleted; it is made again and goes on where it was")]
    Gone,
    /// The workload's connection.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
}

impl TriggerFailure {
    /// Whether it is the deployer who has to do something.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Denied(_) | Self::Reserved { .. } | Self::Connection(ConnectionError::NotListed))
    }
}
