//! `kv`: a key-value bucket of the workload's own.

use async_nats::Client;
use async_nats::jetstream;
use async_nats::jetstream::kv::{CreateErrorKind, Operation, Store, UpdateErrorKind};
use bytes::Bytes;
use futures::TryStreamExt as _;
use nex_protocol::agent::invocation::Headers;
use nex_protocol::host::{HostError, REVISION};
use serde_json::json;

use crate::bucket::{Bucket, Handles, Kind, is_full};
use crate::call::{CallContext, MAX_ANSWER, Sent};
use crate::config::BucketConfig;
use crate::error::{in_time, refuse, unknown_method};

/// How often a number is read again because another has changed it in between.
const MAX_INCREMENTS: u32 = 100;
/// Longest key; the rest of the subject must find room as well.
const MAX_KEY: usize = 1024;

#[derive(Debug)]
pub(crate) struct KeyValue {
    config: BucketConfig,
    stores: Handles<Store>,
}

impl KeyValue {
    pub(crate) fn new(config: BucketConfig) -> Self {
        Self { config, stores: Handles::new() }
    }

    pub(crate) fn forget(&self, nats: &Client) {
        self.stores.forget(nats);
    }

    /// The bucket of a caller.
    pub(crate) fn bucket(&self, caller: &CallContext) -> Bucket<'_> {
        Bucket::new(Kind::KeyValue, &self.config, caller)
    }

    pub(crate) async fn call(&self, caller: &CallContext, method: &str, key: &str, sent: Sent) -> Result<Bytes, HostError> {
        match method {
            "get" | "set" | "delete" | "entry" | "update" | "increment" => check_key(key)?,
            "keys" => {}
            _ => return Err(unknown_method("kv", method, "get, set, delete, keys, entry, update and increment")),
        }
        let Sent { body, headers } = sent;
        let bucket = self.bucket(caller);
        let answer = in_time("kv", async {
            let store = self.stores.get_or_open(caller, &bucket, || open(caller, &bucket)).await?;
            match method {
                "get" => get(&store, key).await,
                "set" => set(&store, &caller.nats, key, body).await,
                "delete" => delete(&store, key).await,
                "entry" => entry(&store, key).await,
                "update" => update(&store, &caller.nats, key, body, revision(&headers)?).await,
                "increment" => increment(&store, key, &body).await,
                _ => Box::pin(keys(&store)).await,
            }
        });
        let answer = answer.await;
        self.stores.judge(caller, &bucket, &answer);
        answer
    }
}

async fn open(caller: &CallContext, bucket: &Bucket<'_>) -> Result<Store, HostError> {
    let jetstream = jetstream::new(caller.nats.clone());
    bucket.ensure(&jetstream).await?;
    let store = jetstream.get_key_value(bucket.name.clone()).await;
    store.map_err(|error| refuse(500, format!("could not resolve k/v store: {error}")))
}

fn check_key(key: &str) -> Result<(), HostError> {
    if key.is_empty() {
        return Err(refuse(400, "key is required"));
    }
    if key.len() > MAX_KEY {
        return Err(refuse(400, format!("the key is {} bytes long; at most {MAX_KEY} are taken", key.len())));
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-/_=.".contains(&b);
    if !key.bytes().all(plain) || key.split('.').any(str::is_empty) {
        let text = "expected letters, digits, '-', '_', '/', '=' and '.', the last neither at an end nor twice in a row";
        return Err(refuse(400, format!("'{key}' is not a key: {text}")));
    }
    Ok(())
}

async fn get(store: &Store, key: &str) -> Result<Bytes, HostError> {
    match store.get(key).await {
        Ok(Some(value)) if value.len() > MAX_ANSWER => {
            let text = format!("the value of '{key}' is {} bytes; a function can be given at most {MAX_ANSWER}", value.len());
            Err(refuse(413, text))
        }
        Ok(Some(value)) => Ok(value),
        Ok(None) => Err(refuse(404, format!("failed to get value for key '{key}': there is no such key"))),
        Err(error) => Err(refuse(500, format!("failed to get value for key '{key}': {error}"))),
    }
}

/// The value of a key after eight bytes with its revision, the most significant first; 0 and no value where there is none.
async fn entry(store: &Store, key: &str) -> Result<Bytes, HostError> {
    let found = read(store, key).await?;
    let (revision, value) = found.unwrap_or_default();
    let mut answer = Vec::with_capacity(size_of::<u64>() + value.len());
    answer.extend(revision.to_be_bytes());
    answer.extend(&value);
    Ok(answer.into())
}

/// A key's revision and value. A deleted key is not there.
async fn read(store: &Store, key: &str) -> Result<Option<(u64, Bytes)>, HostError> {
    let failed = |error: &dyn std::fmt::Display| refuse(500, format!("failed to get value for key '{key}': {error}"));
    let found = store.entry(key).await.map_err(|error| failed(&error))?;
    match found.filter(|found| found.operation == Operation::Put) {
        Some(found) if found.value.len() > MAX_ANSWER => {
            let len = found.value.len();
            Err(refuse(413, format!("the value of '{key}' is {len} bytes; a function can be given at most {MAX_ANSWER}")))
        }
        Some(found) => Ok(Some((found.revision, found.value))),
        None => Ok(None),
    }
}

/// The revision that an update replaces.
fn revision(headers: &Headers) -> Result<u64, HostError> {
    let given = headers.iter().find(|(name, _)| name == REVISION).and_then(|(_, value)| value.parse().ok());
    given.ok_or_else(|| refuse(400, "an update says which revision it replaces, 0 if there is none"))
}

/// Sets a key whose revision is still this one.
async fn update(store: &Store, nats: &Client, key: &str, value: Bytes, revision: u64) -> Result<Bytes, HostError> {
    check_size(nats, key, &value)?;
    match replace(store, key, value, revision).await? {
        Some(revision) => Ok(json!({"revision": revision, "success": true}).to_string().into()),
        None => Err(refuse(409, format!("failed to update key '{key}': it has another revision than {revision} by now"))),
    }
}

/// The new revision, or none if another was faster.
async fn replace(store: &Store, key: &str, value: Bytes, revision: u64) -> Result<Option<u64>, HostError> {
    let failed = |error: &dyn std::fmt::Display| refuse(500, format!("failed to update key '{key}': {error}"));
    if revision == 0 {
        return match store.create(key, value).await {
            Ok(revision) => Ok(Some(revision)),
            Err(error) if error.kind() == CreateErrorKind::AlreadyExists => Ok(None),
            Err(error) => Err(failed(&error)),
        };
    }
    match store.update(key, value, revision).await {
        Ok(revision) => Ok(Some(revision)),
        Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => Ok(None),
        Err(error) => Err(failed(&error)),
    }
}

/// Adds to a number, which is decimal text; what is not there is 0. Gives the sum.
async fn increment(store: &Store, key: &str, delta: &[u8]) -> Result<Bytes, HostError> {
    let number = |bytes: &[u8]| std::str::from_utf8(bytes).ok().and_then(|text| text.parse::<i64>().ok());
    let delta = number(delta).ok_or_else(|| refuse(400, "what is to be added is no number of 64 bits"))?;
    for _ in 0..MAX_INCREMENTS {
        let (revision, value) = read(store, key).await?.unwrap_or_default();
        let present = if revision == 0 { Some(0) } else { number(&value) };
        let present = present.ok_or_else(|| refuse(400, format!("the value of '{key}' is no number of 64 bits")))?;
        let sum = present.checked_add(delta).ok_or_else(|| refuse(400, format!("the sum of '{key}' has more than 64 bits")))?;
        let sum = Bytes::from(sum.to_string());
        if replace(store, key, sum.clone(), revision).await?.is_some() {
            return Ok(sum);
        }
    }
    Err(refuse(503, format!("failed to add to '{key}': too many others do so at once; try again")))
}

fn check_size(nats: &Client, key: &str, value: &Bytes) -> Result<(), HostError> {
    let limit = nats.max_payload();
    if value.len() > limit {
        let text = format!("failed to write value for key '{key}': it is {} bytes, and NATS takes at most {limit}", value.len());
        return Err(refuse(413, text));
    }
    Ok(())
}

async fn set(store: &Store, nats: &Client, key: &str, value: Bytes) -> Result<Bytes, HostError> {
    check_size(nats, key, &value)?;
    match store.put(key, value).await {
        Ok(revision) => Ok(json!({"revision": revision, "success": true}).to_string().into()),
        Err(error) if is_full(&error) => {
            let text = format!(
                "failed to write value for key '{key}': the bucket {} is full; delete keys, or raise its max_bytes",
                store.name
            );
            Err(refuse(507, text))
        }
        Err(error) => Err(refuse(500, format!("failed to write value for key '{key}': {error}"))),
    }
}

async fn delete(store: &Store, key: &str) -> Result<Bytes, HostError> {
    store.delete(key).await.map_err(|error| refuse(500, format!("failed to delete key '{key}': {error}")))?;
    Ok(Bytes::from_static(br#"{"success":true}"#))
}

async fn keys(store: &Store) -> Result<Bytes, HostError> {
    let failed = |why: String| refuse(500, format!("failed to resolve keys: {why}"));
    let mut found = store.keys().await.map_err(|error| failed(error.to_string()))?;
    let (mut keys, mut size) = (Vec::new(), 2);
    while let Some(key) = found.try_next().await.map_err(|error| failed(error.to_string()))? {
        size += key.len() + 3;
        if size > MAX_ANSWER {
            return Err(refuse(413, format!("failed to resolve keys: there are more than fit into {MAX_ANSWER} bytes")));
        }
        keys.push(key);
    }
    Ok(json!(keys).to_string().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_cannot_break_its_subject() {
        for key in ["a", "a.b/c=d_e-F9", "="] {
            assert_eq!(check_key(key), Ok(()), "{key}");
        }
        for key in ["", ".", "a.", ".a", "a..b", "a b", "a*", ">", "é", "a\r\n", &"x".repeat(MAX_KEY + 1)] {
            assert_eq!(check_key(key).unwrap_err().code, 400, "{key}");
        }
    }
}
