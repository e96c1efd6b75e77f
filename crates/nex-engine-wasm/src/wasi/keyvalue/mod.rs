//! `wasi:keyvalue`: the workload's own bucket. The two drafts in use differ in shape; what they do is here.

mod draft;
mod draft2;

use bytes::Bytes;
use nex_protocol::host::HostError;
use wasmtime::component::Linker;

use crate::state::State;

/// Names under which a workload opens its bucket.
const NAMES: [&str; 2] = ["", "default"];
/// Status of a service that says no: there is none, it is not allowed, somebody else was first.
const NOT_THERE: u16 = 404;
const DENIED: u16 = 403;
const CONFLICT: u16 = 409;

/// The one bucket of a workload.
#[expect(unreachable_pub, reason = "bindings export it again")]
pub struct Bucket;

pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    draft::add_to_linker(linker)?;
    draft2::add_to_linker(linker)
}

impl State {
    async fn kv_get(&mut self, key: &str) -> wasmtime::Result<Result<Option<Vec<u8>>, HostError>> {
        Ok(match self.host.kv("get", key, Bytes::new()).await? {
            Ok(value) => Ok(Some(value.into())),
            Err(error) if error.code == NOT_THERE => Ok(None),
            Err(error) => Err(error),
        })
    }

    async fn kv_set(&mut self, key: &str, value: Vec<u8>) -> wasmtime::Result<Result<(), HostError>> {
        Ok(self.host.kv("set", key, value.into()).await?.map(drop))
    }

    async fn kv_delete(&mut self, key: &str) -> wasmtime::Result<Result<(), HostError>> {
        Ok(self.host.kv("delete", key, Bytes::new()).await?.map(drop))
    }

    /// Sets one after the other, until one is refused.
    async fn kv_set_all(&mut self, pairs: Vec<(String, Vec<u8>)>) -> wasmtime::Result<Result<(), HostError>> {
        for (key, value) in pairs {
            if let Err(error) = self.kv_set(&key, value).await? {
                return Ok(Err(error));
            }
        }
        Ok(Ok(()))
    }

    /// Deletes one after the other, until one is refused.
    async fn kv_delete_all(&mut self, keys: Vec<String>) -> wasmtime::Result<Result<(), HostError>> {
        for key in keys {
            if let Err(error) = self.kv_delete(&key).await? {
                return Ok(Err(error));
            }
        }
        Ok(Ok(()))
    }

    async fn kv_keys(&mut self) -> wasmtime::Result<Result<Vec<String>, HostError>> {
        let listed = self.host.kv("keys", "", Bytes::new()).await?;
        let unreadable = |error: serde_json::Error| HostError { code: 500, message: format!("the keys are unreadable: {error}") };
        Ok(listed.and_then(|keys| serde_json::from_slice(&keys).map_err(unreadable)))
    }

    /// Adds to a number, which is kept as decimal text; gives the sum.
    async fn kv_increment(&mut self, key: &str, delta: i64) -> wasmtime::Result<Result<i64, HostError>> {
        let unreadable = |_error| HostError { code: 500, message: "the sum is no number".into() };
        let summed = self.host.kv("increment", key, delta.to_string().into()).await?;
        Ok(summed.and_then(|sum| std::str::from_utf8(&sum).unwrap_or_default().parse().map_err(unreadable)))
    }
}

/// What is the same in both drafts.
macro_rules! store {
    ($cursor:ty) => {
        fn refusal(error: HostError) -> Error {
            match error.code {
                DENIED => Error::AccessDenied,
                _ => Error::Other(error.to_string()),
            }
        }

        impl store::Host for State {
            async fn open(&mut self, identifier: String) -> wasmtime::Result<Result<Resource<Bucket>, Error>> {
                match NAMES.contains(&identifier.as_str()) {
                    true => Ok(Ok(self.table().push(Bucket)?)),
                    false => Ok(Err(Error::NoSuchStore)),
                }
            }
        }

        impl store::HostBucket for State {
            async fn get(&mut self, _bucket: Resource<Bucket>, key: String) -> wasmtime::Result<Result<Option<Vec<u8>>, Error>> {
                Ok(self.kv_get(&key).await?.map_err(refusal))
            }

            async fn set(
                &mut self,
                _bucket: Resource<Bucket>,
                key: String,
                value: Vec<u8>,
            ) -> wasmtime::Result<Result<(), Error>> {
                Ok(self.kv_set(&key, value).await?.map_err(refusal))
            }

            async fn delete(&mut self, _bucket: Resource<Bucket>, key: String) -> wasmtime::Result<Result<(), Error>> {
                Ok(self.kv_delete(&key).await?.map_err(refusal))
            }

            async fn exists(&mut self, _bucket: Resource<Bucket>, key: String) -> wasmtime::Result<Result<bool, Error>> {
                Ok(self.kv_get(&key).await?.map(|value| value.is_some()).map_err(refusal))
            }

            async fn list_keys(
                &mut self,
                _bucket: Resource<Bucket>,
                cursor: Option<$cursor>,
            ) -> wasmtime::Result<Result<KeyResponse, Error>> {
                // All keys come at once, so there is nothing after them.
                let keys = if cursor.is_some() { Ok(Vec::new()) } else { self.kv_keys().await? };
                Ok(keys.map(|keys| KeyResponse { keys, cursor: None }).map_err(refusal))
            }

            async fn drop(&mut self, bucket: Resource<Bucket>) -> wasmtime::Result<()> {
                self.table().delete(bucket)?;
                Ok(())
            }
        }
    };
}
use store;
