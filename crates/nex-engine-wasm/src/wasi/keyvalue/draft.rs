//! `wasi:keyvalue@0.2.0-draft`, as wasmCloud's components have it.

use nex_protocol::host::HostError;
use wasmtime::component::{HasSelf, Linker, Resource};

use super::{Bucket, DENIED, NAMES};
use crate::state::State;
use bindings::wasi::keyvalue::store::{self, Error, KeyResponse};
use bindings::wasi::keyvalue::{atomics, batch};

#[expect(clippy::error_impl_error, reason = "the interface calls it so")]
mod bindings {
    wasmtime::component::bindgen!({
        path: "wit/keyvalue-draft",
        world: "imports",
        imports: { default: async | trappable },
        with: { "wasi:keyvalue/store.bucket": crate::wasi::keyvalue::Bucket },
    });
}

pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    bindings::Imports::add_to_linker::<_, HasSelf<_>>(linker, |state| state)
}

super::store!(u64);

impl atomics::Host for State {
    async fn increment(&mut self, _bucket: Resource<Bucket>, key: String, delta: u64) -> wasmtime::Result<Result<u64, Error>> {
        let negative = || Error::Other("the number is less than 0".to_owned());
        let Ok(delta) = i64::try_from(delta) else {
            return Ok(Err(Error::Other("the number is too large".to_owned())));
        };
        let sum = self.kv_increment(&key, delta).await?.map_err(refusal);
        Ok(sum.and_then(|sum| u64::try_from(sum).map_err(|_error| negative())))
    }
}

/// A pair that is there, or none.
type Found = Option<(String, Vec<u8>)>;

impl batch::Host for State {
    async fn get_many(&mut self, _bucket: Resource<Bucket>, keys: Vec<String>) -> wasmtime::Result<Result<Vec<Found>, Error>> {
        let mut found = Vec::new();
        for key in keys {
            match self.kv_get(&key).await? {
                Ok(value) => found.push(value.map(|value| (key, value))),
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
