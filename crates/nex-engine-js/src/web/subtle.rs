//! What Web Crypto computes with keys, by ring: signatures, AES-GCM, derivation. Names and lengths are checked by the caller.

use std::num::NonZeroU32;

use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::SystemRandom;
use ring::rsa::{KeyPair as RsaKeyPair, KeyPairComponents, PublicKeyComponents};
use ring::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use ring::{hkdf, pbkdf2};

use super::keys::Jwk;
use super::{bytes, text};
use crate::value::{Fresh, Scope, Thrown, Value};

/// Most rounds of a derivation, of all its blocks together: nothing interrupts it.
const MAX_ROUNDS: f64 = 2_000_000.0;
/// Bytes of the smallest block.
const BLOCK: usize = 20;

/// `(format, kind, bytes or JWK)`; a whole JWK, or undefined.
pub(crate) fn import<'a>(scope: Scope<'a>, given: &[Value<'a>]) -> Result<Fresh<'a>, Thrown> {
    let (format, kind) = (text(scope, given, 0)?, text(scope, given, 1)?);
    let key = match format.as_str() {
        "jwk" => Jwk::parse(&kind, &text(scope, given, 2)?),
        _ => Jwk::read(&format, &kind, &bytes(scope, given, 2)),
    };
    key.map_or_else(|| Ok(scope.undefined()), |key| scope.text(&serde_json::to_string(&key).unwrap_or_default()))
}

/// `(format, kind, JWK)`
pub(crate) fn export<'a>(scope: Scope<'a>, given: &[Value<'a>]) -> Result<Fresh<'a>, Thrown> {
    let key = Jwk::parse(&text(scope, given, 1)?, &text(scope, given, 2)?);
    given_or_undefined(scope, key.and_then(|key| key.write(text(scope, given, 0).ok()?.as_str())))
}

/// `(curve)`; a JWK.
pub(crate) fn generate<'a>(scope: Scope<'a>, given: &[Value<'a>]) -> Result<Fresh<'a>, Thrown> {
    let (curve, random) = (text(scope, given, 0)?, SystemRandom::new());
    let made = match curve.as_str() {
        "Ed25519" => {
            // Ring writes the second version, which has the public key behind; the seed is all that is needed.
            let seed: Result<[u8; 32], _> = ring::rand::generate(&random).map(ring::rand::Random::expose);
            seed.ok().and_then(|seed| {
                let mut key = Jwk::read("raw", &curve, &ed25519_public(&seed)?)?;
                key.members.d = seed.to_vec();
                Some(key)
            })
        }
        _ => ecdsa(&curve).and_then(|(algorithm, _)| {
            let made = EcdsaKeyPair::generate_pkcs8(algorithm, &random).ok()?;
            Jwk::read("pkcs8", &curve, made.as_ref())
        }),
    };
    made.map_or_else(|| Ok(scope.undefined()), |key| scope.text(&serde_json::to_string(&key).unwrap_or_default()))
}

/// `(algorithm, hash, kind, JWK, bytes)`
pub(crate) fn sign<'a>(scope: Scope<'a>, given: &[Value<'a>]) -> Result<Fresh<'a>, Thrown> {
    let (algorithm, hash, kind) = (text(scope, given, 0)?, text(scope, given, 1)?, text(scope, given, 2)?);
    let (key, data) = (Jwk::parse(&kind, &text(scope, given, 3)?), bytes(scope, given, 4));
    given_or_undefined(scope, key.and_then(|key| signed(&algorithm, &hash, &key, &data)))
}

/// `(algorithm, hash, kind, JWK, signature, bytes)`; 1 if it is right.
pub(crate) fn verify<'a>(scope: Scope<'a>, given: &[Value<'a>]) -> Result<Fresh<'a>, Thrown> {
    let (algorithm, hash, kind) = (text(scope, given, 0)?, text(scope, given, 1)?, text(scope, given, 2)?);
    let key = Jwk::parse(&kind, &text(scope, given, 3)?);
    let (signature, data) = (bytes(scope, given, 4), bytes(scope, given, 5));
    let is_right = key.is_some_and(|key| is_signed(&algorithm, &hash, &key, (&signature, &data)));
    Ok(scope.number(f64::from(u8::from(is_right))))
}

/// `(seal, key, iv, additional data, bytes)`
pub(crate) fn aes_gcm<'a>(scope: Scope<'a>, given: &[Value<'a>]) -> Result<Fresh<'a>, Thrown> {
    let seals = given.first().is_some_and(|seals| scope.to_bool(*seals));
    let [key, iv, more, data] = [1, 2, 3, 4].map(|at| bytes(scope, given, at));
    given_or_undefined(scope, ciphered(seals, &key, &iv, (&more, data)))
}

/// `(hash, password, salt, rounds, bytes)`
pub(crate) fn pbkdf2<'a>(scope: Scope<'a>, given: &[Value<'a>]) -> Result<Fresh<'a>, Thrown> {
    let [rounds, length] = [3, 4].map(|at| given.get(at).map_or(Ok(0.0), |number| scope.to_number(*number)));
    let (rounds, length) = (rounds?, count(length?));
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    let blocks = length.div_ceil(BLOCK) as f64;
    if rounds * blocks > MAX_ROUNDS {
        return Err(scope.throw_text(&format!(
            "PBKDF2 has at most {MAX_ROUNDS} rounds here, counted for each {BLOCK} bytes that are derived"
        )));
    }
    let algorithm = match text(scope, given, 0)?.as_str() {
        "SHA-1" => pbkdf2::PBKDF2_HMAC_SHA1,
        "SHA-384" => pbkdf2::PBKDF2_HMAC_SHA384,
        "SHA-512" => pbkdf2::PBKDF2_HMAC_SHA512,
        _ => pbkdf2::PBKDF2_HMAC_SHA256,
    };
    let mut derived = vec![0; length];
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "cut to its bounds")]
    let rounds = NonZeroU32::new(rounds.max(1.0) as u32).unwrap_or(NonZeroU32::MIN);
    pbkdf2::derive(algorithm, rounds, &bytes(scope, given, 2), &bytes(scope, given, 1), &mut derived);
    scope.bytes(&derived)
}

/// `(hash, key, salt, info, bytes)`
pub(crate) fn hkdf<'a>(scope: Scope<'a>, given: &[Value<'a>]) -> Result<Fresh<'a>, Thrown> {
    let algorithm = match text(scope, given, 0)?.as_str() {
        "SHA-1" => hkdf::HKDF_SHA1_FOR_LEGACY_USE_ONLY,
        "SHA-384" => hkdf::HKDF_SHA384,
        "SHA-512" => hkdf::HKDF_SHA512,
        _ => hkdf::HKDF_SHA256,
    };
    let [key, salt, info] = [1, 2, 3].map(|at| bytes(scope, given, at));
    let mut derived = vec![0; count(given.get(4).map_or(Ok(0.0), |length| scope.to_number(*length))?)];
    let filled = hkdf::Salt::new(algorithm, &salt)
        .extract(&key)
        .expand(&[&info], Length(derived.len()))
        .and_then(|okm| okm.fill(&mut derived));
    given_or_undefined(scope, filled.ok().map(|()| derived))
}

/// The public key of a seed.
pub(crate) fn ed25519_public(seed: &[u8]) -> Option<Vec<u8>> {
    Some(Ed25519KeyPair::from_seed_unchecked(seed).ok()?.public_key().as_ref().to_vec())
}

struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// A length of what is derived, at most 8 KiB.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "cut to its bounds")]
fn count(length: f64) -> usize {
    length.clamp(0.0, 8192.0) as usize
}

fn given_or_undefined(scope: Scope<'_>, bytes: Option<Vec<u8>>) -> Result<Fresh<'_>, Thrown> {
    bytes.map_or_else(|| Ok(scope.undefined()), |bytes| scope.bytes(&bytes))
}

type Ecdsa = (&'static signature::EcdsaSigningAlgorithm, &'static signature::EcdsaVerificationAlgorithm);

fn ecdsa(curve: &str) -> Option<Ecdsa> {
    match curve {
        "P-256" => Some((&signature::ECDSA_P256_SHA256_FIXED_SIGNING, &signature::ECDSA_P256_SHA256_FIXED)),
        "P-384" => Some((&signature::ECDSA_P384_SHA384_FIXED_SIGNING, &signature::ECDSA_P384_SHA384_FIXED)),
        _ => None,
    }
}

type Rsa = (&'static dyn signature::RsaEncoding, &'static signature::RsaParameters);

fn rsa(algorithm: &str, hash: &str) -> Option<Rsa> {
    let rsa: Rsa = match (algorithm, hash) {
        ("RSASSA-PKCS1-v1_5", "SHA-256") => (&signature::RSA_PKCS1_SHA256, &signature::RSA_PKCS1_2048_8192_SHA256),
        ("RSASSA-PKCS1-v1_5", "SHA-384") => (&signature::RSA_PKCS1_SHA384, &signature::RSA_PKCS1_2048_8192_SHA384),
        ("RSASSA-PKCS1-v1_5", "SHA-512") => (&signature::RSA_PKCS1_SHA512, &signature::RSA_PKCS1_2048_8192_SHA512),
        ("RSA-PSS", "SHA-256") => (&signature::RSA_PSS_SHA256, &signature::RSA_PSS_2048_8192_SHA256),
        ("RSA-PSS", "SHA-384") => (&signature::RSA_PSS_SHA384, &signature::RSA_PSS_2048_8192_SHA384),
        ("RSA-PSS", "SHA-512") => (&signature::RSA_PSS_SHA512, &signature::RSA_PSS_2048_8192_SHA512),
        _ => return None,
    };
    Some(rsa)
}

fn signed(algorithm: &str, hash: &str, key: &Jwk, data: &[u8]) -> Option<Vec<u8>> {
    let (members, random) = (&key.members, SystemRandom::new());
    match key.kty.as_str() {
        "RSA" => {
            let public_key = PublicKeyComponents { n: &members.n, e: &members.e };
            let pair = RsaKeyPair::from_components(&KeyPairComponents {
                public_key,
                d: &members.d,
                p: &members.p,
                q: &members.q,
                dP: &members.dp,
                dQ: &members.dq,
                qInv: &members.qi,
            });
            let pair = pair.ok()?;
            let mut signature = vec![0; pair.public().modulus_len()];
            pair.sign(rsa(algorithm, hash)?.0, &random, data, &mut signature).ok()?;
            Some(signature)
        }
        "EC" => {
            let (signing, _) = ecdsa(&key.crv)?;
            let pair = EcdsaKeyPair::from_private_key_and_public_key(signing, &members.d, &key.point()?, &random).ok()?;
            Some(pair.sign(&random, data).ok()?.as_ref().to_vec())
        }
        _ => Some(Ed25519KeyPair::from_seed_and_public_key(&members.d, &members.x).ok()?.sign(data).as_ref().to_vec()),
    }
}

fn is_signed(algorithm: &str, hash: &str, key: &Jwk, (signature, data): (&[u8], &[u8])) -> bool {
    let verified = match key.kty.as_str() {
        "RSA" => rsa(algorithm, hash).map(|(_, parameters)| {
            PublicKeyComponents { n: &key.members.n, e: &key.members.e }.verify(parameters, data, signature)
        }),
        "EC" => ecdsa(&key.crv)
            .zip(key.point())
            .map(|((_, verifies), point)| UnparsedPublicKey::new(verifies, point).verify(data, signature)),
        _ => key.point().map(|point| UnparsedPublicKey::new(&signature::ED25519, point).verify(data, signature)),
    };
    verified.is_some_and(|verified| verified.is_ok())
}

fn ciphered(seals: bool, key: &[u8], iv: &[u8], (more, mut data): (&[u8], Vec<u8>)) -> Option<Vec<u8>> {
    let algorithm = if key.len() == AES_128_GCM.key_len() { &AES_128_GCM } else { &AES_256_GCM };
    let key = LessSafeKey::new(UnboundKey::new(algorithm, key).ok()?);
    let nonce = Nonce::assume_unique_for_key(<[u8; NONCE_LEN]>::try_from(iv).ok()?);
    if seals {
        key.seal_in_place_append_tag(nonce, Aad::from(more), &mut data).ok()?;
        return Some(data);
    }
    let opened = key.open_in_place(nonce, Aad::from(more), &mut data).ok()?;
    Some(opened.to_vec())
}
