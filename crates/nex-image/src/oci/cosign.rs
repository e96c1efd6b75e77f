//! Signatures of images as `cosign sign --key` keeps them: beside the image, under the tag `sha256-<digest>.sig`, an image whose layers are
//! what was signed (which names the digest) and whose annotations are the signatures. Signatures without a key of ours, by identities and
//! certificates, and those that are kept as referrers are not looked for.

use std::io::Read as _;

use data_encoding::BASE64;
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use serde::Deserialize;
use ureq::http::StatusCode;

use super::blobs::{BlobKind, Blobs as _};
use super::credentials::RegistryAccess;
use super::document::Descriptor;
use super::error::{OciError, RegistryError};
use super::reference::{Digest, Reference};
use super::registry::Client;
use super::verify::Verifying;
use crate::progress::Report;

/// The annotation that a signature stands in.
const ANNOTATION: &str = "dev.cosignproject.cosign/signature";
/// Most signatures of an image that are looked at.
const MAX_SIGNATURES: usize = 50;
/// Most bytes of what was signed.
const MAX_PAYLOAD: u64 = 64 * 1024;
/// What stands before the point of a key of the curve P-256 (RFC 5480).
const P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03,
    0x01, 0x07, 0x03, 0x42, 0x00,
];
/// Bytes of such a point, uncompressed.
const POINT: usize = 65;

/// Why an image does not count as signed.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    /// The key is none.
    #[error("it is {0}, and no public key for ECDSA on P-256 in PEM; next: give the cosign.pub of 'cosign generate-key-pair'")]
    Key(&'static str),
    /// There is no signature.
    #[error(
        "{image} is not signed: {registry} has no tag {tag} for it; next: sign it with 'cosign sign --key', or leave --verify-key out"
    )]
    Missing {
        /// The image.
        image: Digest,
        /// Where it was looked for.
        registry: String,
        /// Under which tag.
        tag: String,
    },
    /// There are signatures, and none counts.
    #[error("none of the {count} signatures of {image} counts: {why}; next: check who has signed it and with which key")]
    None {
        /// The image.
        image: Digest,
        /// How many were looked at.
        count: usize,
        /// What the matter is with the last of them.
        why: Wrong,
    },
    /// The signatures cannot be read.
    #[error("the signatures of the image cannot be read")]
    Registry(#[from] OciError),
}

/// What is the matter with a signature.
#[derive(Debug, thiserror::Error)]
pub enum Wrong {
    /// There is none in it.
    #[error("it has no annotation {ANNOTATION} with a signature in base64")]
    NoSignature,
    /// What was signed is not what cosign signs.
    #[error("what was signed is not what cosign signs")]
    NoPayload,
    /// Another key has signed.
    #[error("it was not made with this key")]
    OtherKey,
    /// The key has signed another image.
    #[error("it was made with this key for another image, {0}")]
    OtherImage(String),
}

/// A public key whose signatures count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyKey([u8; POINT]);

/// What cosign signs: the parts that are looked at.
#[derive(Deserialize)]
struct Payload {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    image: SignedImage,
    r#type: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct SignedImage {
    docker_manifest_digest: String,
}

impl VerifyKey {
    /// Reads a key in PEM, as `cosign.pub` has it.
    ///
    /// # Errors
    /// [`SignatureError::Key`]
    pub fn of_pem(text: &str) -> Result<Self, SignatureError> {
        if text.contains("PRIVATE KEY-----") {
            return Err(SignatureError::Key("a private key"));
        }
        let body =
            text.split_once("-----BEGIN PUBLIC KEY-----").and_then(|(_, rest)| rest.split_once("-----END PUBLIC KEY-----"));
        let (body, _) = body.ok_or(SignatureError::Key("something else"))?;
        let body: String = body.split_whitespace().collect();
        let der = BASE64.decode(body.as_bytes()).map_err(|_none| SignatureError::Key("damaged"))?;
        let point = der.strip_prefix(&P256).ok_or(SignatureError::Key("a key of another kind"))?;
        match <[u8; POINT]>::try_from(point) {
            Ok(point @ [4, ..]) => Ok(Self(point)),
            _ => Err(SignatureError::Key("a key of another kind")),
        }
    }

    /// Whether a signature of an image counts.
    pub(super) fn check(&self, image: &Digest, payload: &[u8], signature: Option<&str>) -> Result<(), Wrong> {
        let signature = signature.and_then(|text| BASE64.decode(text.trim().as_bytes()).ok()).ok_or(Wrong::NoSignature)?;
        // What was not signed is not even parsed.
        let verified = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, self.0).verify(payload, &signature);
        verified.map_err(|_unspecified| Wrong::OtherKey)?;
        let payload: Payload = serde_json::from_slice(payload).map_err(|_json| Wrong::NoPayload)?;
        let Critical { image: signed, r#type } = payload.critical;
        if r#type != "cosign container image signature" {
            return Err(Wrong::NoPayload);
        }
        match signed.docker_manifest_digest == image.to_string() {
            true => Ok(()),
            false => Err(Wrong::OtherImage(signed.docker_manifest_digest.chars().take(80).collect())),
        }
    }
}

/// Demands that an image of a registry was signed with a key.
///
/// # Errors
/// [`SignatureError`]
pub fn verify_signature(
    reference: &Reference,
    image: &Digest,
    access: &RegistryAccess,
    key: &VerifyKey,
    report: &mut Report<'_>,
) -> Result<(), SignatureError> {
    let tag = format!("sha256-{}.sig", image.hex());
    let kept = Reference { tag: tag.clone(), digest: None, ..reference.clone() };
    let (mut client, document, _) = match Client::open(&kept, access, Vec::new(), report) {
        Err(OciError::Registry(RegistryError::Refused { status: StatusCode::NOT_FOUND, .. })) => {
            let registry = format!("{}/{}", reference.registry, reference.repository);
            return Err(SignatureError::Missing { image: image.clone(), registry, tag });
        }
        opened => opened?,
    };
    let (mut count, mut why) = (0, Wrong::NoSignature);
    for layer in document.layers.unwrap_or_default().iter().take(MAX_SIGNATURES) {
        count += 1;
        let payload = read_payload(&mut client, layer)?;
        match key.check(image, &payload, layer.annotations.get(ANNOTATION).map(String::as_str)) {
            Ok(()) => return Ok(()),
            Err(wrong) => why = wrong,
        }
    }
    Err(SignatureError::None { image: image.clone(), count, why })
}

fn read_payload(client: &mut Client<'_>, layer: &Descriptor) -> Result<Vec<u8>, OciError> {
    if layer.size > MAX_PAYLOAD {
        return Err(OciError::Unsupported("what was signed has more than 64 KiB"));
    }
    let failed = |source| OciError::Blob { digest: layer.digest.clone(), source };
    let mut verifying = Verifying::new(client.open(layer, BlobKind::Layer)?, layer);
    let mut payload = Vec::new();
    verifying.read_to_end(&mut payload).map_err(failed)?;
    verifying.finish().map_err(failed)?;
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key and a signature that OpenSSL has made.
    const KEY: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEC5zGoCLDqyVD1ncsMGdHrdTlLAO0
aCyF9+goLdLTqHUd96jHHjD9K9NAg4Y0g9Om/UE1o06gVnb+ZgZ+2EyvMQ==
-----END PUBLIC KEY-----
";
    const SIGNATURE: &str = "MEUCIEqRFe0kHhV1CDBgAgT5gpSm+XvouwwCTLgbNVeNe2jpAiEAu3fPcDPwugFX+tn5OTAdZYE7ZlgItQK3WT/fKxOYD14=";
    /// One of another curve.
    const P384: &str = "-----BEGIN PUBLIC KEY-----
MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEgvbC9EGaODF7lwVyqfGdshTeO1eik58g
yf1EtZDdIs/G6PF1X50xpwP73eSfOJMrkzjcEj0mDBn9XHGg76DEid6g1YItml86
0kbh/s7DkA/L8UEJsTiT02Za/+YuA78P
-----END PUBLIC KEY-----";

    fn payload(digest: &Digest) -> String {
        format!(
            r#"{{"critical":{{"identity":{{"docker-reference":"ghcr.io/me/shop"}},"image":{{"docker-manifest-digest":"{digest}"}},"type":"cosign container image signature"}},"optional":null}}"#
        )
    }

    fn digest(digit: &str) -> Digest {
        format!("sha256:{}", digit.repeat(64)).try_into().unwrap()
    }

    #[test]
    fn a_signature_counts_for_its_image_and_its_key_only() {
        let (key, payload) = (VerifyKey::of_pem(KEY).unwrap(), payload(&digest("a")));
        key.check(&digest("a"), payload.as_bytes(), Some(SIGNATURE)).unwrap();
        let wrong = |image: &str, payload: &str, signature: Option<&str>| {
            key.check(&digest(image), payload.as_bytes(), signature).unwrap_err().to_string()
        };
        assert!(wrong("b", &payload, Some(SIGNATURE)).contains("for another image, sha256:aaaa"));
        assert!(wrong("a", &payload.replace("null", "true"), Some(SIGNATURE)).contains("not made with this key"));
        assert!(wrong("a", &payload, Some("MEUCIEqRFe0k")).contains("not made with this key"));
        assert!(wrong("a", &payload, Some("%")).contains("no annotation"));
        assert!(wrong("a", &payload, None).contains("no annotation"));
    }

    #[test]
    fn what_is_no_key_is_told_as_what_it_is() {
        let refused = |text: &str| VerifyKey::of_pem(text).unwrap_err().to_string();
        assert!(refused("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----").contains("a private key"));
        assert!(refused(P384).contains("another kind"));
        assert!(refused(&KEY.replace("MFkw", "%")).contains("damaged"));
        assert!(refused("ssh-ed25519 AAAA").contains("something else"));
        assert!(refused("").contains("cosign.pub"));
    }
}
