//! Signs images as `cosign sign --key` does.

use data_encoding::BASE64;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::json;

use crate::image::digest;

/// Blobs by their digests in hexadecimal, and digests by tags.
pub type Signed = (Vec<(String, Vec<u8>)>, (String, String));

/// A key.
#[derive(Debug)]
pub struct Signer(EcdsaKeyPair);

#[expect(clippy::missing_panics_doc, clippy::expect_used, clippy::new_without_default, reason = "a machine has randomness")]
impl Signer {
    /// A new key.
    #[must_use]
    pub fn new() -> Self {
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).expect("a key");
        Self(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key.as_ref(), &random).expect("a key"))
    }

    /// The public key in PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        let head = b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00";
        let body = BASE64.encode(&[&head[..], self.0.public_key().as_ref()].concat());
        format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n")
    }

    /// The signature of one image, kept as that of another: the same one, if it is honest.
    #[must_use]
    pub fn sign(&self, signed: &str, kept_for: &str) -> Signed {
        let payload = json!({"critical": {
            "identity": {"docker-reference": "registry.test/shop"}, "image": {"docker-manifest-digest": format!("sha256:{signed}")},
            "type": "cosign container image signature",
        }, "optional": null});
        let payload = payload.to_string().into_bytes();
        let signature = BASE64.encode(self.0.sign(&SystemRandom::new(), &payload).expect("a signature").as_ref());
        let config = b"{}".to_vec();
        let descriptor = |bytes: &[u8]| json!({"digest": format!("sha256:{}", digest(bytes)), "size": bytes.len()});
        let mut layer = descriptor(&payload);
        if let Some(layer) = layer.as_object_mut() {
            layer.insert("annotations".into(), json!({"dev.cosignproject.cosign/signature": signature}));
            layer.insert("mediaType".into(), json!("application/vnd.dev.cosign.simplesigning.v1+json"));
        }
        let manifest = json!({"schemaVersion": 2, "config": descriptor(&config), "layers": [layer]}).to_string().into_bytes();
        let tag = (format!("sha256-{kept_for}.sig"), digest(&manifest));
        ([config, payload, manifest].map(|bytes| (digest(&bytes), bytes)).to_vec(), tag)
    }
}
