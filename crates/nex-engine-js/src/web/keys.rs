//! Keys of Web Crypto between their formats: what is kept of an RSA key or of one on a curve is a JWK; files have SPKI and PKCS#8.

use data_encoding::BASE64URL_NOPAD;
use pkcs1::{RsaPrivateKey, RsaPublicKey, UintRef};
use pkcs8::der::asn1::{BitStringRef, OctetStringRef};
use pkcs8::der::{Decode as _, Encode as _};
use pkcs8::{AlgorithmIdentifierRef, ObjectIdentifier, PrivateKeyInfo, SubjectPublicKeyInfoRef};
use sec1::EcPrivateKey;
use serde::{Deserialize, Serialize};

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
/// Begins an uncompressed point.
const UNCOMPRESSED: u8 = 4;

/// An asymmetric key: `kty` `RSA`, `EC` (`crv` `P-256` or `P-384`) or `OKP` (`crv` `Ed25519`); a private one has `d`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Jwk {
    pub(crate) kty: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) crv: String,
    #[serde(flatten)]
    pub(crate) members: Members,
}

macro_rules! members {
    ($($name:ident),*) => {
        /// Numbers, big-endian; empty where there is none.
        #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default)]
        pub(crate) struct Members {
            $(#[serde(with = "base64url", skip_serializing_if = "Vec::is_empty")] pub(crate) $name: Vec<u8>),*
        }
    };
}
members!(n, e, d, p, q, dp, dq, qi, x, y);

mod base64url {
    use super::BASE64URL_NOPAD;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64URL_NOPAD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        BASE64URL_NOPAD.decode(text.as_bytes()).map_err(D::Error::custom)
    }
}

impl Jwk {
    /// Reads SPKI, PKCS#8, or the raw point of a public key on the curve `kind`; nothing where it is another key, or none.
    pub(crate) fn read(format: &str, kind: &str, bytes: &[u8]) -> Option<Self> {
        let key = match format {
            "spki" => Self::from_spki(&SubjectPublicKeyInfoRef::from_der(bytes).ok()?),
            "pkcs8" => Self::from_pkcs8(&PrivateKeyInfo::from_der(bytes).ok()?),
            "raw" => Self::from_point(kind, bytes),
            _ => None,
        };
        key.filter(|key| key.kind() == kind && key.is_whole())
    }

    /// Reads a JWK of that kind.
    pub(crate) fn parse(kind: &str, json: &str) -> Option<Self> {
        serde_json::from_str::<Self>(json).ok().filter(|key| key.kind() == kind && key.is_whole())
    }

    /// Writes it as SPKI, PKCS#8 or its raw point.
    pub(crate) fn write(&self, format: &str) -> Option<Vec<u8>> {
        match format {
            "spki" => self.to_spki(),
            "pkcs8" => self.to_pkcs8(),
            "raw" => self.point(),
            _ => None,
        }
    }

    /// `RSA`, or the curve's name.
    fn kind(&self) -> &str {
        if self.kty == "RSA" { "RSA" } else { &self.crv }
    }

    fn is_whole(&self) -> bool {
        let Members { n, e, d, p, q, dp, dq, qi, x, y } = &self.members;
        match (self.kty.as_str(), self.bytes()) {
            ("RSA", _) => {
                let private = [d, p, q, dp, dq, qi];
                !n.is_empty() && !e.is_empty() && private.iter().all(|one| one.is_empty() == d.is_empty())
            }
            ("EC", Some(bytes)) if self.crv != "Ed25519" => {
                x.len() == bytes && y.len() == bytes && (d.is_empty() || d.len() == bytes)
            }
            ("OKP", Some(bytes)) if self.crv == "Ed25519" => x.len() == bytes && (d.is_empty() || d.len() == bytes),
            _ => false,
        }
    }

    /// Bytes of a coordinate on its curve.
    fn bytes(&self) -> Option<usize> {
        match self.crv.as_str() {
            "P-256" | "Ed25519" => Some(32),
            "P-384" => Some(48),
            _ => None,
        }
    }

    /// The public key as a point of its curve.
    pub(crate) fn point(&self) -> Option<Vec<u8>> {
        let Members { x, y, .. } = &self.members;
        match self.kty.as_str() {
            "EC" => Some([&[UNCOMPRESSED], x.as_slice(), y].concat()),
            "OKP" => Some(x.clone()),
            _ => None,
        }
    }

    fn from_point(curve: &str, point: &[u8]) -> Option<Self> {
        if curve == "Ed25519" {
            let members = Members { x: point.to_vec(), ..Members::default() };
            return Some(Self { kty: "OKP".into(), crv: curve.into(), members });
        }
        let (first, rest) = point.split_first()?;
        let (x, y) = rest.split_at_checked(rest.len() / 2)?;
        let members = Members { x: x.to_vec(), y: y.to_vec(), ..Members::default() };
        (*first == UNCOMPRESSED).then(|| Self { kty: "EC".into(), crv: curve.into(), members })
    }

    fn from_spki(info: &SubjectPublicKeyInfoRef<'_>) -> Option<Self> {
        let bytes = info.subject_public_key.as_bytes()?;
        if info.algorithm.oid == RSA {
            let key = RsaPublicKey::from_der(bytes).ok()?;
            let members = Members { n: number(&key.modulus), e: number(&key.public_exponent), ..Members::default() };
            return Some(Self { kty: "RSA".into(), crv: String::new(), members });
        }
        Self::from_point(curve(&info.algorithm)?, bytes)
    }

    fn from_pkcs8(info: &PrivateKeyInfo<'_>) -> Option<Self> {
        if info.algorithm.oid == RSA {
            let key = RsaPrivateKey::from_der(info.private_key).ok()?;
            let members = Members {
                n: number(&key.modulus),
                e: number(&key.public_exponent),
                d: number(&key.private_exponent),
                p: number(&key.prime1),
                q: number(&key.prime2),
                dp: number(&key.exponent1),
                dq: number(&key.exponent2),
                qi: number(&key.coefficient),
                ..Members::default()
            };
            return Some(Self { kty: "RSA".into(), crv: String::new(), members });
        }
        let curve = curve(&info.algorithm)?;
        let (d, public) = match curve {
            "Ed25519" => {
                let seed = OctetStringRef::from_der(info.private_key).ok()?.as_bytes();
                (seed, super::subtle::ed25519_public(seed)?)
            }
            _ => {
                let key = EcPrivateKey::from_der(info.private_key).ok()?;
                (key.private_key, key.public_key?.to_vec())
            }
        };
        let mut key = Self::from_point(curve, &public)?;
        key.members.d = d.to_vec();
        Some(key)
    }

    fn to_spki(&self) -> Option<Vec<u8>> {
        let point = match self.kty.as_str() {
            "RSA" => RsaPublicKey { modulus: uint(&self.members.n)?, public_exponent: uint(&self.members.e)? }.to_der().ok()?,
            _ => self.point()?,
        };
        let subject_public_key = BitStringRef::from_bytes(&point).ok()?;
        self.with_algorithm(|algorithm| SubjectPublicKeyInfoRef { algorithm, subject_public_key }.to_der().ok())
    }

    fn to_pkcs8(&self) -> Option<Vec<u8>> {
        let Members { n, e, d, p, q, dp, dq, qi, .. } = &self.members;
        if d.is_empty() {
            return None;
        }
        let private = match self.kty.as_str() {
            "RSA" => RsaPrivateKey {
                modulus: uint(n)?,
                public_exponent: uint(e)?,
                private_exponent: uint(d)?,
                prime1: uint(p)?,
                prime2: uint(q)?,
                exponent1: uint(dp)?,
                exponent2: uint(dq)?,
                coefficient: uint(qi)?,
                other_prime_infos: None,
            }
            .to_der()
            .ok()?,
            "OKP" => OctetStringRef::new(d).ok()?.to_der().ok()?,
            _ => EcPrivateKey { private_key: d, parameters: None, public_key: Some(&self.point()?) }.to_der().ok()?,
        };
        self.with_algorithm(|algorithm| PrivateKeyInfo::new(algorithm, &private).to_der().ok())
    }

    fn with_algorithm<T>(&self, done: impl FnOnce(AlgorithmIdentifierRef<'_>) -> Option<T>) -> Option<T> {
        match self.kind() {
            "RSA" => done(AlgorithmIdentifierRef { oid: RSA, parameters: Some(pkcs8::der::AnyRef::NULL) }),
            "P-256" => done(AlgorithmIdentifierRef { oid: EC, parameters: Some((&P256).into()) }),
            "P-384" => done(AlgorithmIdentifierRef { oid: EC, parameters: Some((&P384).into()) }),
            "Ed25519" => done(AlgorithmIdentifierRef { oid: ED25519, parameters: None }),
            _ => None,
        }
    }
}

fn curve(algorithm: &AlgorithmIdentifierRef<'_>) -> Option<&'static str> {
    if algorithm.oid == ED25519 {
        return Some("Ed25519");
    }
    let curve = (algorithm.oid == EC).then(|| algorithm.parameters_oid().ok())??;
    match curve {
        P256 => Some("P-256"),
        P384 => Some("P-384"),
        _ => None,
    }
}

fn number(uint: &UintRef<'_>) -> Vec<u8> {
    uint.as_bytes().to_vec()
}

fn uint(bytes: &[u8]) -> Option<UintRef<'_>> {
    UintRef::new(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn whatever_is_no_key_is_none(bytes: Vec<u8>, format in "spki|pkcs8|raw", kind in "RSA|P-256|P-384|Ed25519") {
            if let Some(key) = Jwk::read(&format, &kind, &bytes) {
                prop_assert_eq!(key.write(&format).is_some(), true);
            }
        }

        #[test]
        fn a_key_is_read_as_it_is_written(d: [u8; 32], x: [u8; 32], y: [u8; 32]) {
            let members = Members { d: d.to_vec(), x: x.to_vec(), y: y.to_vec(), ..Members::default() };
            let key = Jwk { kty: "EC".into(), crv: "P-256".into(), members };
            prop_assert_eq!(Jwk::read("pkcs8", "P-256", &key.write("pkcs8").unwrap()), Some(key.clone()));
            prop_assert_eq!(Jwk::parse("P-256", &serde_json::to_string(&key).unwrap()), Some(key.clone()));
            prop_assert_eq!(Jwk::parse("P-384", &serde_json::to_string(&key).unwrap()), None);
            let public = Jwk::read("spki", "P-256", &key.write("spki").unwrap()).unwrap();
            prop_assert_eq!(public.members, Members { d: Vec::new(), ..key.members });
        }
    }
}
