//! `wasi:keyvalue@0.2.0-draft2`, as Spin's components have it: compare and set besides.

use bytes::Bytes;
use nex_protocol::host::HostError;
use wasmtime::component::{HasSelf, Linker, Resource};

use super::{Bucket, CONFLICT, DENIED, NAMES};
use crate::host::Entry;
use crate::state::State;
use bindings::wasi::keyvalue::atomics::{self, CasError};
use bindings::wasi::keyvalue::batch;
use bindings::wasi::keyvalue::store::{self, Error, KeyResponse};

#[expect(clippy::error_impl_error, reason = "the interface calls it so")]
mod bindings {
    wasmtime::component::bindgen!({
        path: "wit/keyvalue-draft2",
        world: "imports",
        imports: { default: async | trappable },
        with: {
            "wasi:keyvalue/store.bucket": crate::wasi::keyvalue::Bucket,
            "wasi:keyvalue/atomics.cas": super::Cas,
        },
    });
}

/// A key as it was read; it is set only if nobody else has set it since.
#[expect(unreachable_pub, reason = "bindings export it again")]
pub struct Cas {
    key: String,
    entry: Entry,
}

pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    bindings::Imports::add_to_linker::<_, HasSelf<_>>(linker, |state| state)
}

super::store!(String);

impl State {
    async fn read_for_swap(&mut self, key: String) -> wasmtime::Result<Result<Resource<Cas>, Error>> {
        match self.host.kv_entry(&key).await? {
            Ok(entry) => Ok(Ok(self.table().push(Cas { key, entry })?)),
            Err(error) => Ok(Err(refusal(error))),
        }
    }
}

impl atomics::HostCas for State {
    async fn new(&mut self, _bucket: Resource<Bucket>, key: String) -> wasmtime::Result<Result<Resource<Cas>, Error>> {
        self.read_for_swap(key).await
    }

    async fn current(&mut self, cas: Resource<Cas>) -> wasmtime::Result<Result<Option<Vec<u8>>, Error>> {
        let Cas { entry: Entry { revision, value }, .. } = self.table().get(&cas)?;
        Ok(Ok((*revision > 0).then(|| value.to_vec())))
    }

    async fn drop(&mut self, cas: Resource<Cas>) -> wasmtime::Result<()> {
        self.table().delete(cas)?;
        Ok(())
    }
}

impl atomics::Host for State {
    async fn increment(&mut self, _bucket: Resource<Bucket>, key: String, delta: i64) -> wasmtime::Result<Result<i64, Error>> {
        Ok(self.kv_increment(&key, delta).await?.map_err(refusal))
    }

    async fn swap(&mut self, cas: Resource<Cas>, value: Vec<u8>) -> wasmtime::Result<Result<(), CasError>> {
        let Cas { key, entry } = self.table().delete(cas)?;
        match self.host.kv_update(&key, Bytes::from(value), entry.revision).await? {
            Ok(_set) => Ok(Ok(())),
            // The guest tries again with what is there now.
            Err(error) if error.code == CONFLICT => {
                Ok(Err(self.read_for_swap(key).await?.map_or_else(CasError::StoreError, CasError::CasFailed)))
            }
            Err(error) => Ok(Err(CasError::StoreError(refusal(error)))),
        }
    }
}

/// A key, and its value if it has one.
type Found = (String, Option<Vec<u8>>);

impl batch::Host for State {
    async fn get_many(&mut self, _bucket: Resource<Bucket>, keys: Vec<String>) -> wasmtime::Result<Result<Vec<Found>, Error>> {
        let mut found = Vec::new();
        for key in keys {
            match self.kv_get(&key).await? {
                Ok(value) => found.push((key, value)),
                Err(error) => return Ok(Err(refusal(error))),
            }
        }
        Ok(Ok(found))
    }

    async fn set_many(
        &mut self,
        _bucket: Resource<Bucket>,
        pairs: Vec<(String, Vec<u8>)>,
    ) -> wasmtime::Result<Result<(), Error>> {
        Ok(self.kv_set_all(pairs).await?.map_err(refusal))
    }

    async fn delete_many(&mut self, _bucket: Resource<Bucket>, keys: Vec<String>) -> wasmtime::Result<Result<(), Error>> {
        Ok(self.kv_delete_all(keys).await?.map_err(refusal))
    }
}
