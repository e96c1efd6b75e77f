//! Pulls an image from a registry, anonymously or with a login. Nothing is stored here: what is pulled goes where the caller says while
//! it is downloaded.

use std::io::{Cursor, Read};

use data_encoding::BASE64;
use serde::Deserialize;
use ureq::http::{Response, StatusCode, header};
use ureq::{Agent, Body};

use super::blobs::{BlobKind, Blobs, Region};
use super::credentials::RegistryAccess;
use super::document::{Descriptor, Document, MAX_DOCUMENT, Platform};
use super::download;
use super::error::{OciError, RegistryError};
use super::image;
use super::reference::{Digest, Reference};
use crate::http::agent;
use crate::layers::ImageBuilder;
use crate::progress::{Progress, Report};

const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";
/// Largest response of a token server, in bytes.
const MAX_TOKEN: u64 = 256 * 1024;

/// Whether it is the type of an index or a manifest that is understood.
pub(super) fn is_known_type(media_type: &str) -> bool {
    ACCEPT.split(", ").any(|known| known == media_type)
}

/// A registry, and the image that is asked of it.
#[derive(Clone)]
pub(super) struct Client<'a> {
    agent: Agent,
    base: String,
    reference: &'a Reference,
    access: &'a RegistryAccess,
    /// Only images for one of these are there; for any if there is none.
    platforms: Vec<Platform>,
    /// The document that the reference names, which is asked for once.
    top: Vec<u8>,
    /// Value of `Authorization`, after a challenge.
    authorization: Option<String>,
}

/// The digest of what a reference names now.
///
/// # Errors
/// [`OciError`]
pub fn resolve(reference: &Reference, access: &RegistryAccess, report: &mut Report<'_>) -> Result<Digest, OciError> {
    let (_, _, top) = Client::open(reference, access, Vec::new(), report)?;
    Ok(top.digest)
}

/// Loads an image of a registry; returns the digest of the document that the reference names.
pub(crate) fn load(
    reference: &Reference,
    access: &RegistryAccess,
    builder: &mut ImageBuilder,
    report: &mut Report<'_>,
) -> Result<String, OciError> {
    let (mut client, document, top) = Client::open(reference, access, Vec::new(), report)?;
    image::load(&mut client, document, builder, report)?;
    Ok(top.digest.to_string())
}

impl Blobs for Client<'_> {
    fn open(&mut self, blob: &Descriptor, kind: BlobKind) -> Result<Box<dyn Read + '_>, OciError> {
        if kind == BlobKind::Document && blob.digest == Digest::of(&self.top) {
            return Ok(Box::new(Cursor::new(&self.top)));
        }
        let place = if kind == BlobKind::Document { "manifests" } else { "blobs" };
        let response = self.get(&format!("{}/{place}/{}", self.base, blob.digest), None)?;
        Ok(Box::new(response.into_body().into_reader()))
    }

    fn has(&self, blob: &Descriptor) -> bool {
        let wanted = |platform: &Platform| self.platforms.is_empty() || self.platforms.contains(platform);
        blob.platform.as_ref().is_none_or(wanted)
    }

    fn fill(&mut self, blobs: Vec<(&Descriptor, Region<'_>)>, report: &mut Report<'_>) -> Result<(), OciError> {
        download::all(self, blobs, report)
    }
}

impl<'a> Client<'a> {
    /// Asks for the document that a reference names; of an index, only images for these platforms count, or all of them.
    pub(super) fn open(
        reference: &'a Reference,
        access: &'a RegistryAccess,
        platforms: Vec<Platform>,
        report: &mut Report<'_>,
    ) -> Result<(Self, Document, Descriptor), OciError> {
        let scheme = if access.plain_http { "http" } else { "https" };
        let base = format!("{scheme}://{}/v2/{}", reference.registry, reference.repository);
        let agent = agent(!access.plain_http);
        let mut client = Self { agent, base, reference, access, platforms, top: Vec::new(), authorization: None };
        report(Progress::Begin { what: "Asking the registry", bytes: None });
        let (bytes, media_type) = client.fetch_top()?;
        let digest = Digest::of(&bytes);
        if let Some(wanted) = &reference.digest
            && *wanted != digest
        {
            let source = std::io::Error::other(format!("the registry sent {digest} for it"));
            return Err(OciError::Blob { digest: wanted.clone(), source });
        }
        let document = Document::parse(&bytes, "the manifest")?;
        let top = Descriptor { media_type, ..Descriptor::new(digest, bytes.len() as u64) };
        client.top = bytes;
        Ok((client, document, top))
    }

    /// Fetches the document that the reference names, and what type it says it has.
    fn fetch_top(&mut self) -> Result<(Vec<u8>, Option<String>), OciError> {
        let name = self.reference.digest.as_ref().map_or_else(|| self.reference.tag.clone(), ToString::to_string);
        let url = format!("{}/manifests/{name}", self.base);
        let response = self.get(&url, None)?;
        let media_type = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media_type = media_type.filter(|value| is_known_type(value)).map(str::to_owned);
        let bytes = read(response, MAX_DOCUMENT).map_err(|source| RegistryError::Http { url, source: Box::new(source) })?;
        Ok((bytes, media_type))
    }

    /// The rest of a blob, after this many bytes; all of it where the registry gives no parts.
    pub(super) fn rest(&mut self, blob: &Descriptor, from: u64) -> Result<(u64, impl Read + use<>), RegistryError> {
        let range = (from > 0).then(|| format!("bytes={from}-"));
        let response = self.get(&format!("{}/blobs/{}", self.base, blob.digest), range.as_deref())?;
        let start = if response.status() == StatusCode::PARTIAL_CONTENT { from } else { 0 };
        Ok((start, response.into_body().into_reader()))
    }

    /// Sends a request, and once more with authorization if challenged.
    fn get(&mut self, url: &str, range: Option<&str>) -> Result<Response<Body>, RegistryError> {
        let mut response = self.send(url, range, self.authorization.clone())?;
        if response.status() == StatusCode::UNAUTHORIZED {
            let challenge = response.headers().get(header::WWW_AUTHENTICATE).and_then(|value| value.to_str().ok());
            self.authorization = Some(self.login(challenge.unwrap_or_default())?);
            response = self.send(url, range, self.authorization.clone())?;
        }
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(RegistryError::Refused { url: url.to_owned(), status: response.status() })
        }
    }

    fn send(&self, url: &str, range: Option<&str>, authorization: Option<String>) -> Result<Response<Body>, RegistryError> {
        let mut request = self.agent.get(url).header(header::ACCEPT, ACCEPT);
        if let Some(range) = range {
            request = request.header(header::RANGE, range);
        }
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        // Error responses carry the challenge. ureq drops the authorization on redirects to another host.
        let answer = request.config().http_status_as_error(false).build().call();
        answer.map_err(|source| RegistryError::Http { url: url.to_owned(), source: Box::new(source) })
    }

    /// Answers a challenge; returns the value for `Authorization`.
    fn login(&self, challenge: &str) -> Result<String, RegistryError> {
        let login = self.access.credentials.as_ref();
        let basic = login.map(|who| format!("Basic {}", BASE64.encode(format!("{}:{}", who.name, who.password).as_bytes())));
        let unknown = || RegistryError::Challenge(challenge.chars().take(200).collect());
        let (scheme, parameters) = challenge.split_once(' ').ok_or_else(unknown)?;
        if scheme.eq_ignore_ascii_case("basic") {
            return basic.ok_or_else(|| RegistryError::Refused { url: self.base.clone(), status: StatusCode::UNAUTHORIZED });
        }
        let realm = parameter(parameters, "realm").ok_or_else(unknown)?;
        let is_allowed = realm.starts_with("https://") || (self.access.plain_http && realm.starts_with("http://"));
        if !scheme.eq_ignore_ascii_case("bearer") || !is_allowed {
            return Err(unknown());
        }
        let mut request = self.agent.get(&realm).query("scope", format!("repository:{}:pull", self.reference.repository));
        if let Some(service) = parameter(parameters, "service") {
            request = request.query("service", service);
        }
        if let Some(basic) = basic {
            request = request.header(header::AUTHORIZATION, basic);
        }
        let failed = |source| RegistryError::Http { url: realm.clone(), source: Box::new(source) };
        let answer = request.config().http_status_as_error(false).build().call().map_err(failed)?;
        if !answer.status().is_success() {
            return Err(RegistryError::Refused { url: realm, status: answer.status() });
        }
        let bytes = read(answer, MAX_TOKEN).map_err(failed)?;
        let token: Token = serde_json::from_slice(&bytes).map_err(|error| RegistryError::Challenge(error.to_string()))?;
        token.token.or(token.access_token).map(|token| format!("Bearer {token}")).ok_or_else(unknown)
    }
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

fn read(response: Response<Body>, limit: u64) -> Result<Vec<u8>, ureq::Error> {
    response.into_body().into_with_config().limit(limit).read_to_vec()
}

/// A parameter of a challenge: `key="value",key="value"`.
fn parameter(parameters: &str, key: &str) -> Option<String> {
    let mut rest = parameters;
    loop {
        let (name, after) = rest.trim_start_matches([' ', ',']).split_once("=\"")?;
        let (value, after) = after.split_once('"')?;
        if name.eq_ignore_ascii_case(key) {
            return Some(value.to_owned());
        }
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::parameter;

    #[test]
    fn parameters_of_challenges_are_parsed() {
        let text = r#"realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull,push""#;
        assert_eq!(parameter(text, "realm").as_deref(), Some("https://auth.example/token"));
        assert_eq!(parameter(text, "service").as_deref(), Some("registry.example"));
        assert_eq!(parameter(text, "error"), None);
        assert_eq!(parameter("realm=\"open", "realm"), None);
    }
}
