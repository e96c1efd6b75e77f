//! Images that are not on this machine: of a registry, `oci://[HOST[:PORT]/]NAME[:TAG][@DIGEST]`, or of the namespace,
//! `image://NAME[:TAG][@DIGEST]`. The client pulls them and uploads them like any other file, so that nodes talk to no registry and run
//! what is in NATS.

mod cache;
mod login;
mod mirrors;
mod stored;

use std::fmt::Display;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use nex_image::base::Base;
use nex_image::oci::{
    Credentials, Digest, ImageSource, Packed, Platform, Reference, RegistryAccess, VerifyKey, resolve, verify_signature,
};
use nex_image::progress::Report;
use nex_protocol::control::InfoResponse;

use crate::check::{self, Usage};
use crate::env::Env;
use crate::local::LocalArtifact;
use crate::output::Output;
use crate::progress::steps_bar;
use crate::remote::Remote;
use crate::session::Session;
use cache::ImageCache;
pub(crate) use cache::PulledImage;
use mirrors::Mirrors;
pub(crate) use stored::pack as pack_stored;

/// Tag of a node that names its architecture.
const ARCHITECTURE: &str = "nex.arch";

/// How to talk to a registry.
#[derive(Debug, Clone, Args)]
pub(crate) struct RegistryArgs {
    /// Talk to the registry without TLS
    #[arg(long)]
    plain_http: bool,
    /// Name for the registry [default: the login of docker or podman]
    #[arg(long, value_name = "NAME", env = "NEX_REGISTRY_USER", hide_env_values = true)]
    registry_user: Option<String>,
    /// Password for the registry; only by its variable, for everybody sees what is typed
    #[arg(long, hide = true, env = "NEX_REGISTRY_PASSWORD", hide_env_values = true)]
    registry_password: Option<String>,
    /// Demand that the image was signed with this key, as by 'cosign sign --key': the file of the public one (cosign.pub)
    #[arg(long, value_name = "FILE")]
    verify_key: Option<PathBuf>,
}

impl RegistryArgs {
    /// Parses a base; the empty one if absent.
    pub(crate) async fn base(&self, text: Option<&str>, env: &Env) -> anyhow::Result<Base> {
        let Some(text) = text else { return Ok(Base::Empty) };
        Ok(match Base::of(text, self.as_given()?)? {
            Base::Registry { mut reference, .. } => {
                let access = self.access(&reference, env).await?;
                if let Some(key) = self.key()? {
                    let digest = tokio::task::block_in_place(|| signed_digest(&reference, &access, Some(&key), &mut |_| ()))?;
                    reference.digest = Some(digest);
                }
                Base::Registry { reference, access }
            }
            other => {
                self.is_of_registry(text)?;
                other
            }
        })
    }

    /// The key whose signatures count, if they are demanded.
    fn key(&self) -> anyhow::Result<Option<VerifyKey>> {
        let Some(path) = &self.verify_key else { return Ok(None) };
        let key = VerifyKey::of_pem(&check::small_file(path)?);
        Ok(Some(key.with_context(|| format!("cannot verify signatures with {}", path.display()))?))
    }

    /// That no signature is demanded of what comes from no registry: none would be looked for.
    pub(crate) fn is_of_registry(&self, what: impl Display) -> Result<(), Usage> {
        match self.verify_key {
            None => Ok(()),
            Some(_) => Err(Usage(format!(
                "{what} is of no registry, and signatures are kept in registries; next: leave --verify-key out, or name the image of \
                 the registry (for image://, verify it when it is pushed: nex image push oci://… --verify-key FILE)"
            ))),
        }
    }

    /// How to talk to the registry of an image: as the flags say, or logged in as docker or podman are.
    async fn access(&self, reference: &Reference, env: &Env) -> anyhow::Result<RegistryAccess> {
        let mut access = self.as_given()?;
        if access.credentials.is_none() {
            access.credentials = login::find(&reference.registry, env).await?;
        }
        Ok(access)
    }

    fn as_given(&self) -> Result<RegistryAccess, Usage> {
        let credentials = match (&self.registry_user, &self.registry_password) {
            (Some(name), Some(password)) => Some(Credentials { name: name.clone(), password: password.clone() }),
            (None, None) => None,
            _ => return Err(Usage("a login needs both: --registry-user, and NEX_REGISTRY_PASSWORD in the environment".into())),
        };
        Ok(RegistryAccess { plain_http: self.plain_http, credentials })
    }
}

/// Pulls an image for these architectures, for all that there are if none is named, or finds it pulled.
pub(crate) async fn pull(
    remote: &Remote,
    architectures: Vec<String>,
    (args, env): (&RegistryArgs, &Env),
    session: &Session,
    output: &Output,
) -> anyhow::Result<PulledImage> {
    let of = |architecture| Platform { os: "linux".to_owned(), architecture };
    let platforms: Vec<Platform> = architectures.into_iter().map(of).collect();
    if let Remote::Stored(_) = remote {
        args.is_of_registry(remote)?;
    }
    let pulled = match remote {
        Remote::Registry(reference) => Box::pin(pull_from_registries(reference, platforms, args, env, output)).await,
        Remote::Stored(name) => Box::pin(stored::pull(name, platforms, env, session, output)).await,
    };
    pulled.with_context(|| format!("cannot pull {remote}"))
}

/// Asks the mirrors of a registry in their order, and the registry itself last.
async fn pull_from_registries(
    reference: &Reference,
    platforms: Vec<Platform>,
    args: &RegistryArgs,
    env: &Env,
    output: &Output,
) -> anyhow::Result<PulledImage> {
    let (places, key) = (Mirrors::read(env)?.places(reference)?, args.key()?);
    let (platforms, key) = (platforms.as_slice(), key.as_ref());
    let mut report = steps_bar(output);
    for mirror in places.mirrors {
        // The login that was typed is the registry's, not its mirror's.
        let credentials = login::find(&mirror.reference.registry, env).await?;
        let access = RegistryAccess { plain_http: mirror.plain_http, credentials };
        let pulled = tokio::task::block_in_place(|| pull_from(&mirror.reference, &access, (platforms, key), env, &mut report));
        match pulled {
            Ok(pulled) => return Ok(pulled),
            Err(error) => {
                let why = format!("{error:#}");
                output.note(format_args!(
                    "The mirror {} does not give it: {}",
                    mirror.reference,
                    why.split("; next:").next().unwrap_or_default()
                ));
            }
        }
    }
    let origin = places.origin;
    let mut access = args.access(&origin.reference, env).await?;
    access.plain_http |= origin.plain_http;
    tokio::task::block_in_place(|| pull_from(&origin.reference, &access, (platforms, key), env, &mut report))
}

/// The digest of an image, which is signed if there is a key. Blocks.
fn signed_digest(
    reference: &Reference,
    access: &RegistryAccess,
    key: Option<&VerifyKey>,
    report: &mut Report<'_>,
) -> anyhow::Result<Digest> {
    let digest = match &reference.digest {
        Some(digest) => digest.clone(),
        None => resolve(reference, access, report)?,
    };
    if let Some(key) = key {
        verify_signature(reference, &digest, access, key, report)?;
    }
    Ok(digest)
}

/// Pulls from one registry. Blocks.
fn pull_from(
    reference: &Reference,
    access: &RegistryAccess,
    (platforms, key): (&[Platform], Option<&VerifyKey>),
    env: &Env,
    report: &mut Report<'_>,
) -> anyhow::Result<PulledImage> {
    let cache = ImageCache::open(env)?;
    let digest = signed_digest(reference, access, key, report)?;
    if let Some(pulled) = cache.find(&digest, platforms) {
        return Ok(pulled);
    }
    let draft = cache.draft()?;
    let pinned = Reference { digest: Some(digest.clone()), ..reference.clone() };
    let source = ImageSource::Registry { reference: pinned, access: access.clone(), platforms: platforms.to_owned() };
    let Packed { platforms: packed, .. } = source.pack(draft.as_file(), report)?;
    cache.keep(draft, &digest, platforms, &packed)
}

/// Pulls an image for the nodes that would run one.
///
/// # Errors
/// That nobody would, before anything is pulled, is one.
pub(crate) async fn pull_for_nodes(
    remote: &Remote,
    args: &RegistryArgs,
    env: &Env,
    session: &Session,
    output: &Output,
) -> anyhow::Result<LocalArtifact> {
    let auction = session.client.auction(&LocalArtifact::image_auction(), session.discovery_timeout).await?;
    auction.best().with_context(|| format!("{remote} is an OCI image"))?;
    let architectures = auction.bids.iter().filter_map(|node| node.tags.get(ARCHITECTURE).cloned()).collect();
    let PulledImage { path, architectures } = pull(remote, architectures, (args, env), session, output).await?;
    Ok(LocalArtifact::of_packed(path, &architectures))
}

/// Pulls an image for one node.
pub(crate) async fn pull_for_node(
    remote: &Remote,
    node: &InfoResponse,
    how: (&RegistryArgs, &Env),
    session: &Session,
    output: &Output,
) -> anyhow::Result<LocalArtifact> {
    let architectures = node.tags.get(ARCHITECTURE).cloned().into_iter().collect();
    let PulledImage { path, architectures } = pull(remote, architectures, how, session, output).await?;
    Ok(LocalArtifact::of_packed(path, &architectures))
}
