//! The node's end of the channel to a guest's init.

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use data_encoding::BASE64;
use nex_network::Attachment;
use nex_process::Deadline;
use nex_protocol::guest::{FromGuest, GuestIdentity, GuestNetwork, MAX_LINE, METADATA_KEY, ToGuest};
use nex_vmm::{Mac, Machine, VmmError, VmmKind};
use rand::RngCore as _;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use super::shared::Shared;
use crate::error::{CreateError, GuestError};

/// Random bytes given to every guest.
const ENTROPY: usize = 64;

/// The channel to a guest: one request at a time, each answered.
#[derive(Debug)]
pub(super) struct Guest {
    stream: BufReader<UnixStream>,
}

impl Guest {
    /// Opens the channel and waits until the guest is ready for an identity.
    pub(super) async fn connect(machine: &dyn Machine, by: Deadline) -> Result<Self, CreateError> {
        let mut guest = Self::open(machine, by).await?;
        match guest.recv(by).await? {
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

    /// Opens the channel of a clone. Under QEMU the stream survives the snapshot, so the guest does not say again that it is ready.
    pub(super) async fn connect_clone(machine: &dyn Machine, kind: VmmKind, by: Deadline) -> Result<Self, CreateError> {
        match kind {
            VmmKind::Qemu => Self::open(machine, by).await,
            VmmKind::Firecracker => Self::connect(machine, by).await,
        }
    }

    /// Opens the channel to a guest that does not say first that it is ready: it has been asked before.
    pub(super) async fn open(machine: &dyn Machine, by: Deadline) -> Result<Self, CreateError> {
        Ok(Self { stream: BufReader::new(machine.channel(by).await?) })
    }

    /// Gives the guest its identity, by the metadata service where the monitor has one, and waits until it is applied.
    pub(super) async fn identify(
        &mut self,
        machine: &dyn Machine,
        kind: VmmKind,
        identity: GuestIdentity,
        by: Deadline,
    ) -> Result<(), CreateError> {
        match kind {
            VmmKind::Qemu => self.send(&ToGuest::Identity(Box::new(identity)), by).await?,
            VmmKind::Firecracker => {
                machine.set_metadata(&serde_json::json!({ METADATA_KEY: identity }), by).await?;
                self.send(&ToGuest::Metadata, by).await?;
            }
        }
        match self.answer(by).await? {
            FromGuest::Identified => Ok(()),
            FromGuest::Failed { message } => Err(GuestError::Failed(message).into()),
            other => Err(unexpected(&other).into()),
        }
    }

    /// Checks that a guest still answers while it waits for its identity: an attach is refused at this point.
    pub(super) async fn check_alive(&mut self, by: Deadline) -> Result<(), GuestError> {
        self.send(&ToGuest::Attach { slot: 0 }, by).await?;
        match self.answer(by).await? {
            FromGuest::Failed { .. } => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Has a drive mounted; returns where its file is.
    pub(super) async fn attach(&mut self, slot: u8, by: Deadline) -> Result<String, GuestError> {
        self.send(&ToGuest::Attach { slot }, by).await?;
        match self.answer(by).await? {
            FromGuest::Attached { slot: mounted, path } if mounted == slot => Ok(path),
            FromGuest::Failed { message } => Err(GuestError::Failed(message)),
            other => Err(unexpected(&other)),
        }
    }

    /// Asks the guest to end its agent and itself.
    pub(super) async fn power_off(&mut self, grace_ms: u64, by: Deadline) -> Result<(), GuestError> {
        self.send(&ToGuest::PowerOff { grace_ms }, by).await
    }

    async fn send(&mut self, message: &ToGuest, by: Deadline) -> Result<(), GuestError> {
        let mut line = serde_json::to_vec(message).map_err(io::Error::from)?;
        line.push(b'\n');
        by.bound(self.stream.get_mut().write_all(&line)).await.map_err(|_elapsed| GuestError::Late)?.map_err(GuestError::from)
    }

    /// The answer to a request. A clone whose stream broke on resume says again that it is ready, which is none.
    async fn answer(&mut self, by: Deadline) -> Result<FromGuest, GuestError> {
        loop {
            match self.recv(by).await? {
                FromGuest::Ready { .. } => {}
                answer => return Ok(answer),
            }
        }
    }

    async fn recv(&mut self, by: Deadline) -> Result<FromGuest, GuestError> {
        let mut line = Vec::new();
        let max = u64::try_from(MAX_LINE).unwrap_or(u64::MAX);
        let mut bounded = (&mut self.stream).take(max);
        let read = by.bound(bounded.read_until(b'\n', &mut line)).await.map_err(|_elapsed| GuestError::Late)??;
        if read == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        serde_json::from_slice(&line).map_err(|_unreadable| {
            GuestError::Unexpected(String::from_utf8_lossy(&line).chars().filter(|c| !c.is_control()).take(200).collect())
        })
    }
}

fn unexpected(message: &FromGuest) -> GuestError {
    GuestError::Unexpected(format!("{message:?}").chars().take(200).collect())
}

/// The identity of a new guest, with its network, limits and entropy, and the drive that its agent's root is made of.
pub(super) fn identity_of(
    shared: &Shared,
    identity: &[u8],
    link: &Attachment,
    root: Option<u8>,
) -> Result<GuestIdentity, VmmError> {
    let mut entropy = [0; ENTROPY];
    rand::rng().fill_bytes(&mut entropy);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let dns = if shared.config.dns.is_empty() { &link.nameservers } else { &shared.config.dns };
    Ok(GuestIdentity {
        identity: String::from_utf8_lossy(identity).into_owned(),
        hostname: link.id.clone(),
        network: Some(GuestNetwork {
            mac: Mac::try_from(link.mac)?.to_string(),
            address: link.address,
            prefix: link.prefix,
            gateway: link.gateway,
            mtu: link.mtu,
            dns: dns.clone(),
        }),
        time_unix_nanos: u64::try_from(now.as_nanos()).unwrap_or(u64::MAX),
        entropy: BASE64.encode(&entropy),
        limits: shared.config.limits,
        root,
    })
}
