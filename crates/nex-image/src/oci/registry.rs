//! Pulls an image from a registry, anonymously or with a login. Layers are applied while they are downloaded; no blob is stored.

use std::io::Read;

use data_encoding::BASE64;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use ureq::http::{Response, StatusCode, header};
use ureq::{Agent, Body};

use super::blobs::{BlobKind, Blobs};
use super::credentials::Credentials;
use super::document::{Descriptor, Document, MAX_DOCUMENT};
use super::error::{OciError, RegistryError};
use super::image;
use super::reference::Reference;
use crate::file::hex;
use crate::http::agent;
use crate::layers::ImageBuilder;
use crate::progress::{Progress, Report};

const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";
/// Largest response of a token server, in bytes.
const MAX_TOKEN: u64 = 256 * 1024;

struct Client<'a> {
    agent: Agent,
    base: String,
    reference: &'a Reference,
    plain_http: bool,
    credentials: Option<&'a Credentials>,
    /// Value of `Authorization`, after a challenge.
    authorization: Option<String>,
}

/// Loads an image of a registry; returns the digest of the document that the reference names.
pub(crate) fn load(
    reference: &Reference,
    plain_http: bool,
    credentials: Option<&Credentials>,
    builder: &mut ImageBuilder,
    report: &mut Report<'_>,
) -> Result<String, OciError> {
    let scheme = if plain_http { "http" } else { "https" };
    let base = format!("{scheme}://{}/v2/{}", reference.registry, reference.repository);
    let mut client = Client { agent: agent(!plain_http), base, reference, plain_http, credentials, authorization: None };
    report(Progress::Begin { what: "Asking the registry", bytes: None });
    let bytes = client.fetch_top()?;
    let digest = format!("sha256:{}", hex(&Sha256::digest(&bytes)));
    if let Some(wanted) = &reference.digest
        && wanted.to_string() != digest
    {
        let source = std::io::Error::other(format!("the registry sent {digest} for it"));
        return Err(OciError::Blob { digest: wanted.clone(), source });
    }
    image::load(&mut client, Document::parse(&bytes, "the manifest")?, builder, report)?;
    Ok(digest)
}

impl Blobs for Client<'_> {
    fn open(&mut self, blob: &Descriptor, kind: BlobKind) -> Result<Box<dyn Read + '_>, OciError> {
        let place = if kind == BlobKind::Document { "manifests" } else { "blobs" };
        let response = self.get(&format!("{}/{place}/{}", self.base, blob.digest))?;
        Ok(Box::new(response.into_body().into_reader()))
    }
}

impl Client<'_> {
    /// Fetches the document that the reference names.
    fn fetch_top(&mut self) -> Result<Vec<u8>, OciError> {
        let name = self.reference.digest.as_ref().map_or_else(|| self.reference.tag.clone(), ToString::to_string);
        let url = format!("{}/manifests/{name}", self.base);
        let response = self.get(&url)?;
        read(response, MAX_DOCUMENT).map_err(|source| RegistryError::Http { url, source: Box::new(source) }.into())
    }

    /// Sends a request, and once more with authorization if challenged.
    fn get(&mut self, url: &str) -> Result<Response<Body>, RegistryError> {
        let mut response = self.send(url, self.authorization.clone())?;
        if response.status() == StatusCode::UNAUTHORIZED {
            let challenge = response.headers().get(header::WWW_AUTHENTICATE).and_then(|value| value.to_str().ok());
            self.authorization = Some(self.login(challenge.unwrap_or_default())?);
            response = self.send(url, self.authorization.clone())?;
        }
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(RegistryError::Refused { url: url.to_owned(), status: response.status() })
        }
    }

    fn send(&self, url: &str, authorization: Option<String>) -> Result<Response<Body>, RegistryError> {
        let mut request = self.agent.get(url).header(header::ACCEPT, ACCEPT);
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        // Error responses carry the challenge. ureq drops the authorization on redirects to another host.
        let answer = request.config().http_status_as_error(false).build().call();
        answer.map_err(|source| RegistryError::Http { url: url.to_owned(), source: Box::new(source) })
    }

    /// Answers a challenge; returns the value for `Authorization`.
    fn login(&self, challenge: &str) -> Result<String, RegistryError> {
        let basic =
            self.credentials.map(|who| format!("Basic {}", BASE64.encode(format!("{}:{}", who.name, who.password).as_bytes())));
        let unknown = || RegistryError::Challenge(challenge.chars().take(200).collect());
        let (scheme, parameters) = challenge.split_once(' ').ok_or_else(unknown)?;
        if scheme.eq_ignore_ascii_case("basic") {
            return basic.ok_or_else(|| RegistryError::Refused { url: self.base.clone(), status: StatusCode::UNAUTHORIZED });
        }
        let realm = parameter(parameters, "realm").ok_or_else(unknown)?;
        let is_allowed = realm.starts_with("https://") || (self.plain_http && realm.starts_with("http://"));
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
