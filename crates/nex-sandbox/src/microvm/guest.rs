//! The node's end of the conversation with a guest's init.

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use data_encoding::BASE64;
use nex_network::Attachment;
use nex_process::Deadline;
use nex_protocol::guest::{FromGuest, GuestNetwork, MAX_LINE, METADATA_KEY, ToGuest, Welcome};
use nex_vmm::{Machine, VmmKind};
use rand::RngCore as _;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use super::Shared;
use crate::CreateError;

/// Random bytes given to every guest.
const ENTROPY: usize = 64;

/// What goes wrong between node and guest. *Trust:* all that a guest says is bounded, and shown as text only.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// The stream broke.
    #[error("the guest's channel broke")]
    Broken(#[from] io::Error),
    /// It speaks another language.
    #[error("the guest said something else than was asked: {0}; next: rebuild the root image with this version's 'nex rootfs'")]
    Unexpected(String),
    /// It could not do it.
    #[error("the guest could not do it: {0}")]
    Failed(String),
    /// It said nothing in time.
    #[error("the guest did not answer in time")]
    Late,
}

/// A guest that can be spoken to: one question at a time, each with its answer.
#[derive(Debug)]
pub(super) struct Guest {
    stream: BufReader<UnixStream>,
}

impl Guest {
    /// Opens the channel and waits until the guest is ready for an identity.
    pub(super) async fn meet(machine: &dyn Machine, by: Deadline) -> Result<Self, CreateError> {
        let mut guest = Self::of(machine, by).await?;
        match guest.hear(by).await? {
            FromGuest::Ready { version } => {
                if version != env!("CARGO_PKG_VERSION") {
                    tracing::warn!(
                        agent = version,
                        node = env!("CARGO_PKG_VERSION"),
                        "the root image holds another version's agent; next: rebuild it with 'nex rootfs'"
                    );
                }
                Ok(guest)
            }
            other => Err(unexpected(&other).into()),
        }
    }

    /// Opens the channel of a clone: where the stream outlived the snapshot the guest has said that it is ready to somebody else.
    pub(super) async fn meet_clone(machine: &dyn Machine, kind: VmmKind, by: Deadline) -> Result<Self, CreateError> {
        match kind {
            VmmKind::Qemu => Self::of(machine, by).await,
            VmmKind::Firecracker => Self::meet(machine, by).await,
        }
    }

    async fn of(machine: &dyn Machine, by: Deadline) -> Result<Self, CreateError> {
        Ok(Self { stream: BufReader::new(machine.channel(by).await?) })
    }

    /// Tells the guest who it is: by the metadata service where the monitor has one.
    pub(super) async fn welcome(
        &mut self,
        machine: &dyn Machine,
        kind: VmmKind,
        welcome: Welcome,
        by: Deadline,
    ) -> Result<(), CreateError> {
        match kind {
            VmmKind::Qemu => self.say(&ToGuest::Welcome(Box::new(welcome)), by).await?,
            VmmKind::Firecracker => {
                machine.set_metadata(&serde_json::json!({ METADATA_KEY: welcome }), by).await?;
                self.say(&ToGuest::Metadata, by).await?;
            }
        }
        Ok(())
    }

    /// Finds out whether a guest that waits for its identity hears and speaks: asked for what it cannot do yet, it refuses.
    pub(super) async fn is_awake(&mut self, by: Deadline) -> Result<(), GuestError> {
        self.say(&ToGuest::Attach { slot: 0 }, by).await?;
        loop {
            match self.hear(by).await? {
                FromGuest::Failed { .. } => return Ok(()),
                FromGuest::Ready { .. } => {}
                other => return Err(unexpected(&other)),
            }
        }
    }

    /// Has a drive mounted; returns where its file is.
    pub(super) async fn attach(&mut self, slot: u8, by: Deadline) -> Result<String, GuestError> {
        self.say(&ToGuest::Attach { slot }, by).await?;
        // A clone whose stream broke when it woke up has said once more that it is ready, before it heard who it is.
        let mut answer = self.hear(by).await?;
        while matches!(answer, FromGuest::Ready { .. }) {
            answer = self.hear(by).await?;
        }
        match answer {
            FromGuest::Attached { slot: mounted, path } if mounted == slot => Ok(path),
            FromGuest::Failed { message } => Err(GuestError::Failed(message)),
            other => Err(unexpected(&other)),
        }
    }

    /// Asks the guest to end its agent and itself.
    pub(super) async fn power_off(&mut self, grace_ms: u64, by: Deadline) -> Result<(), GuestError> {
        self.say(&ToGuest::PowerOff { grace_ms }, by).await
    }

    async fn say(&mut self, words: &ToGuest, by: Deadline) -> Result<(), GuestError> {
        let mut line = serde_json::to_vec(words).map_err(io::Error::from)?;
        line.push(b'\n');
        by.bound(self.stream.get_mut().write_all(&line)).await.map_err(|_elapsed| GuestError::Late)?.map_err(GuestError::from)
    }

    async fn hear(&mut self, by: Deadline) -> Result<FromGuest, GuestError> {
        let mut line = Vec::new();
        let most = u64::try_from(MAX_LINE).unwrap_or(u64::MAX);
        let mut bounded = (&mut self.stream).take(most);
        let read = by.bound(bounded.read_until(b'\n', &mut line)).await.map_err(|_elapsed| GuestError::Late)??;
        if read == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        serde_json::from_slice(&line).map_err(|_unreadable| {
            GuestError::Unexpected(String::from_utf8_lossy(&line).chars().filter(|c| !c.is_control()).take(200).collect())
        })
    }
}

fn unexpected(words: &FromGuest) -> GuestError {
    GuestError::Unexpected(format!("{words:?}").chars().take(200).collect())
}

/// All that a new guest is told.
pub(super) fn welcome(shared: &Shared, identity: &[u8], link: &Attachment) -> Welcome {
    let mut entropy = [0; ENTROPY];
    rand::rng().fill_bytes(&mut entropy);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let dns = if shared.config.dns.is_empty() { &link.nameservers } else { &shared.config.dns };
    Welcome {
        identity: String::from_utf8_lossy(identity).into_owned(),
        hostname: link.id.clone(),
        network: Some(GuestNetwork {
            mac: mac(link.mac),
            address: link.address,
            prefix: link.prefix,
            gateway: link.gateway,
            mtu: link.mtu,
            dns: dns.clone(),
        }),
        time_unix_nanos: u64::try_from(now.as_nanos()).unwrap_or(u64::MAX),
        entropy: BASE64.encode(&entropy),
        limits: shared.config.limits,
    }
}

/// `aa:bb:cc:dd:ee:ff`
pub(super) fn mac([a, b, c, d, e, f]: [u8; 6]) -> String {
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}
