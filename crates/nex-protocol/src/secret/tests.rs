//! Who opens a secret, and what becomes of a record that was moved, forged or changed.

use super::*;
use proptest::prelude::*;

struct Fixture {
    issuer: KeyPair,
    node: NodeId,
    xkey: XKey,
    namespace: Namespace,
    name: SecretName,
}

impl Fixture {
    fn new() -> Self {
        Self {
            issuer: KeyPair::new_account(),
            node: KeyPair::new_server().public_key().parse().unwrap(),
            xkey: XKey::new(),
            namespace: "shop".parse().unwrap(),
            name: "db".parse().unwrap(),
        }
    }

    fn read(&self, record: &[u8]) -> Result<Secret, SecretError> {
        Secret::read(record, Place { namespace: &self.namespace, issuer: &self.issuer.public_key(), name: &self.name })
    }

    fn secret(&self) -> Secret {
        let mut secret = Secret::new(&self.namespace, &self.name, &self.issuer, 7, "s3cret").unwrap();
        secret.seal_to(&self.node, &self.xkey.public_key(), &self.issuer).unwrap();
        secret
    }
}

#[test]
fn only_the_nodes_it_is_sealed_to_open_it_and_the_record_shows_nothing() {
    let it = Fixture::new();
    let record = it.secret().sign(&it.issuer).unwrap();
    assert!(!String::from_utf8_lossy(&record).contains("s3cret"));
    let read = it.read(&record).unwrap();
    assert_eq!((read.open(&it.node, &it.xkey).unwrap().as_str(), read.version()), ("s3cret", 7));
    let (other, key): (NodeId, _) = (KeyPair::new_server().public_key().parse().unwrap(), XKey::new());
    assert_eq!(read.open(&other, &key), Err(SecretError::NotForThisNode));
    assert_eq!(read.open(&it.node, &key), Err(SecretError::NotForThisNode));
    // Whoever puts himself in another's place has no key that fits.
    let mut forged = read.clone();
    let stolen = forged.0.nodes[&it.node].seed.clone();
    forged.0.nodes.insert(other.clone(), SealedToNode { xkey: key.public_key(), seed: stolen });
    assert!(matches!(forged.open(&other, &key), Err(SecretError::Seal(_))));
}

#[test]
fn it_is_sealed_to_more_nodes_by_whoever_has_the_issuers_key_and_nobody_else() {
    let it = Fixture::new();
    let mut read = it.read(&it.secret().sign(&it.issuer).unwrap()).unwrap();
    let (late, key): (NodeId, _) = (KeyPair::new_server().public_key().parse().unwrap(), XKey::new());
    assert!(read.seal_to(&late, &key.public_key(), &KeyPair::new_account()).is_err());
    let elsewhere = KeyPair::from_seed(&it.issuer.seed().unwrap()).unwrap();
    read.seal_to(&late, &key.public_key(), &elsewhere).unwrap();
    assert!(read.is_for(&late, &key.public_key()) && read.is_for(&it.node, &it.xkey.public_key()));
    assert_eq!(it.read(&read.sign(&elsewhere).unwrap()).unwrap().open(&late, &key).unwrap(), "s3cret");
    assert_eq!(read.sign(&KeyPair::new_account()), Err(SecretError::Key));
}

#[test]
fn a_record_is_of_no_use_in_another_place_or_under_another_signature() {
    let it = Fixture::new();
    let record = it.secret().sign(&it.issuer).unwrap();
    let issuer = it.issuer.public_key();
    let (other, elsewhere) = ("other".parse().unwrap(), "elsewhere".parse().unwrap());
    let read = |place| Secret::read(&record, place);
    assert_eq!(read(Place { namespace: &it.namespace, issuer: &issuer, name: &other }), Err(SecretError::OfAnotherPlace));
    assert_eq!(read(Place { namespace: &elsewhere, issuer: &issuer, name: &it.name }), Err(SecretError::OfAnotherPlace));
    let thief = KeyPair::new_account().public_key();
    assert_eq!(read(Place { namespace: &it.namespace, issuer: &thief, name: &it.name }), Err(SecretError::Signature));
    let text = String::from_utf8(record).unwrap();
    let changed = text.replacen("\\\"version\\\":7", "\\\"version\\\":8", 1);
    assert_ne!(changed, text);
    assert_eq!(it.read(changed.as_bytes()), Err(SecretError::Signature));
    assert_eq!(it.read(b"{}"), Err(SecretError::Malformed));
    assert_eq!(it.read(&vec![b' '; MAX_RECORD + 1]), Err(SecretError::Malformed));
    assert_eq!(it.read(br#"{"secret":"x","signature":"AAAA"}"#), Err(SecretError::Signature));
}

#[test]
fn values_are_bounded() {
    let it = Fixture::new();
    let new = |value: &str| Secret::new(&it.namespace, &it.name, &it.issuer, 1, value).map(|_| ());
    assert_eq!(new(&"x".repeat(MAX_VALUE)), Ok(()));
    for value in [String::new(), "x".repeat(MAX_VALUE + 1), "a\0b".to_owned()] {
        assert_eq!(new(&value), Err(SecretError::Value));
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let it = Fixture::new();
        drop(it.read(&bytes));
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let signature = BASE64.encode(&it.issuer.sign(statement(&text).as_bytes()).unwrap());
        drop(it.read(&serde_json::to_vec(&Signed { secret: text, signature }).unwrap()));
    }
}
