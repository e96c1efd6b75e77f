//! `wasi:blobstore`: the workload's own object bucket, as its one container. Objects are whole: as large as the host service takes them.

mod value;

use std::collections::VecDeque;

use bytes::Bytes;
use nex_protocol::host::HostError;
use serde_json::Value;
use wasmtime::component::{HasSelf, Linker, Resource};
use wasmtime_wasi::p2::pipe::MemoryInputPipe;
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream};

use crate::state::State;
use bindings::wasi::blobstore::blobstore::{self, ObjectId};
use bindings::wasi::blobstore::container::{self, ContainerMetadata, ObjectMetadata};
use bindings::wasi::blobstore::types;
use value::{Incoming, Outgoing};

mod bindings {
    wasmtime::component::bindgen!({
        path: "wit/blobstore",
        world: "imports",
        imports: { default: async | trappable },
        with: {
            "wasi:io": wasmtime_wasi::p2::bindings::io,
            "wasi:blobstore/types.incoming-value": super::value::Incoming,
            "wasi:blobstore/types.outgoing-value": super::value::Outgoing,
            "wasi:blobstore/container.container": super::Container,
            "wasi:blobstore/container.stream-object-names": super::Names,
        },
    });
}

/// Names under which a workload opens its bucket.
const NAMES: [&str; 2] = ["", "default"];
/// Status of a service that has no such object.
const NOT_THERE: u16 = 404;
/// Most objects that a value is put as.
const MAX_TARGETS: usize = 16;

/// The one bucket of a workload, by the name that it was opened with.
#[expect(unreachable_pub, reason = "bindings export it again")]
pub struct Container(String);

/// Names of objects that were not read yet.
#[expect(unreachable_pub, reason = "bindings export it again")]
pub struct Names(VecDeque<String>);

/// What a host function gives: a trap, or what it was asked for, or why not.
type Answer<T> = wasmtime::Result<Result<T, String>>;

pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    types::add_to_linker::<_, HasSelf<_>>(linker, |state| state)?;
    container::add_to_linker::<_, HasSelf<_>>(linker, |state| state)?;
    blobstore::add_to_linker::<_, HasSelf<_>>(linker, |state| state)
}

impl State {
    fn container(&mut self, name: String) -> Answer<Resource<Container>> {
        if let Err(why) = check(&name) {
            return Ok(Err(why));
        }
        Ok(Ok(self.table().push(Container(name))?))
    }

    async fn object(&mut self, method: &str, name: &str, body: Bytes) -> wasmtime::Result<Result<Bytes, HostError>> {
        self.host.objects(method, name, body).await
    }

    async fn delete(&mut self, name: &str) -> Answer<()> {
        Ok(match self.object("delete", name, Bytes::new()).await? {
            Err(error) if error.code != NOT_THERE => Err(error.to_string()),
            _gone => Ok(()),
        })
    }

    async fn delete_all(&mut self, names: Vec<String>) -> Answer<()> {
        for name in names {
            if let Err(why) = self.delete(&name).await? {
                return Ok(Err(why));
            }
        }
        Ok(Ok(()))
    }

    async fn names(&mut self) -> Answer<Vec<String>> {
        let listed = match self.object("list", "", Bytes::new()).await? {
            Ok(listed) => listed,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let objects: Vec<Value> = match serde_json::from_slice(&listed) {
            Ok(objects) => objects,
            Err(error) => return Ok(Err(format!("the list of objects is unreadable: {error}"))),
        };
        let name = |object: Value| object.get("name").and_then(Value::as_str).map(str::to_owned);
        Ok(Ok(objects.into_iter().filter_map(name).collect()))
    }

    /// The size of an object, if it is there.
    async fn size(&mut self, name: &str) -> Answer<Option<u64>> {
        Ok(match self.object("info", name, Bytes::new()).await? {
            Ok(info) => {
                let info: Value = serde_json::from_slice(&info).unwrap_or_default();
                info.get("size").and_then(Value::as_u64).map(Some).ok_or_else(|| "the object's description is unreadable".into())
            }
            Err(error) if error.code == NOT_THERE => Ok(None),
            Err(error) => Err(error.to_string()),
        })
    }

    async fn copy(&mut self, from: &ObjectId, to: &ObjectId) -> Answer<()> {
        if let Err(why) = check(&from.container).and_then(|()| check(&to.container)) {
            return Ok(Err(why));
        }
        let copied = match self.object("get", &from.object, Bytes::new()).await? {
            Ok(body) => self.object("put", &to.object, body).await?,
            Err(error) => Err(error),
        };
        Ok(copied.map(drop).map_err(|error| error.to_string()))
    }
}

fn check(name: &str) -> Result<(), String> {
    match NAMES.contains(&name) {
        true => Ok(()),
        false => Err(format!("there is no container '{}'; a workload has one, 'default'", name.escape_default())),
    }
}

impl blobstore::Host for State {
    async fn create_container(&mut self, name: String) -> Answer<Resource<Container>> {
        self.container(name)
    }

    async fn get_container(&mut self, name: String) -> Answer<Resource<Container>> {
        self.container(name)
    }

    async fn delete_container(&mut self, _name: String) -> Answer<()> {
        Ok(Err("a workload's container is not deleted; clear it".to_owned()))
    }

    async fn container_exists(&mut self, name: String) -> Answer<bool> {
        Ok(Ok(NAMES.contains(&name.as_str())))
    }

    async fn copy_object(&mut self, from: ObjectId, to: ObjectId) -> Answer<()> {
        self.copy(&from, &to).await
    }

    async fn move_object(&mut self, from: ObjectId, to: ObjectId) -> Answer<()> {
        match self.copy(&from, &to).await? {
            // What is moved onto itself stays.
            Ok(()) if from.object != to.object => self.delete(&from.object).await,
            copied => Ok(copied),
        }
    }
}

impl container::Host for State {}

impl container::HostContainer for State {
    async fn name(&mut self, container: Resource<Container>) -> Answer<String> {
        Ok(Ok(self.table().get(&container)?.0.clone()))
    }

    async fn info(&mut self, container: Resource<Container>) -> Answer<ContainerMetadata> {
        Ok(Ok(ContainerMetadata { name: self.table().get(&container)?.0.clone(), created_at: 0 }))
    }

    async fn get_data(
        &mut self,
        _container: Resource<Container>,
        name: String,
        start: u64,
        end: u64,
    ) -> Answer<Resource<Incoming>> {
        let whole = match self.object("get", &name, Bytes::new()).await? {
            Ok(whole) => whole,
            Err(error) => return Ok(Err(error.to_string())),
        };
        // The end is the last byte's.
        let place = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX).min(whole.len());
        let (start, end) = (place(start), place(end.saturating_add(1)));
        let part = whole.get(start..end).unwrap_or_default();
        match self.room.hold(part.to_vec()) {
            Ok(part) => Ok(Ok(self.table().push(Incoming(part.into_bytes()))?)),
            Err(_full) => Ok(Err("too many values are held; read or drop them first".to_owned())),
        }
    }

    async fn write_data(&mut self, _container: Resource<Container>, name: String, data: Resource<Outgoing>) -> Answer<()> {
        let value = self.table().get_mut(&data)?;
        if value.targets.len() == MAX_TARGETS {
            return Ok(Err(format!("a value is written as at most {MAX_TARGETS} objects")));
        }
        value.targets.push(name);
        Ok(Ok(()))
    }

    async fn list_objects(&mut self, _container: Resource<Container>) -> Answer<Resource<Names>> {
        match self.names().await? {
            Ok(names) => Ok(Ok(self.table().push(Names(names.into()))?)),
            Err(why) => Ok(Err(why)),
        }
    }

    async fn delete_object(&mut self, _container: Resource<Container>, name: String) -> Answer<()> {
        self.delete(&name).await
    }

    async fn delete_objects(&mut self, _container: Resource<Container>, names: Vec<String>) -> Answer<()> {
        self.delete_all(names).await
    }

    async fn has_object(&mut self, _container: Resource<Container>, name: String) -> Answer<bool> {
        Ok(self.size(&name).await?.map(|size| size.is_some()))
    }

    async fn object_info(&mut self, container: Resource<Container>, name: String) -> Answer<ObjectMetadata> {
        let container = self.table().get(&container)?.0.clone();
        Ok(match self.size(&name).await? {
            Ok(Some(size)) => Ok(ObjectMetadata { name, container, created_at: 0, size }),
            Ok(None) => Err("there is no such object".to_owned()),
            Err(why) => Err(why),
        })
    }

    async fn clear(&mut self, _container: Resource<Container>) -> Answer<()> {
        match self.names().await? {
            Ok(names) => self.delete_all(names).await,
            Err(why) => Ok(Err(why)),
        }
    }

    async fn drop(&mut self, container: Resource<Container>) -> wasmtime::Result<()> {
        self.table().delete(container)?;
        Ok(())
    }
}

impl container::HostStreamObjectNames for State {
    async fn read_stream_object_names(&mut self, names: Resource<Names>, len: u64) -> Answer<(Vec<String>, bool)> {
        let Names(left) = self.table().get_mut(&names)?;
        let count = usize::try_from(len).unwrap_or(usize::MAX).min(left.len());
        let read = left.drain(..count).collect();
        Ok(Ok((read, left.is_empty())))
    }

    async fn skip_stream_object_names(&mut self, names: Resource<Names>, num: u64) -> Answer<(u64, bool)> {
        let Names(left) = self.table().get_mut(&names)?;
        let count = usize::try_from(num).unwrap_or(usize::MAX).min(left.len());
        left.drain(..count);
        Ok(Ok((count as u64, left.is_empty())))
    }

    async fn drop(&mut self, names: Resource<Names>) -> wasmtime::Result<()> {
        self.table().delete(names)?;
        Ok(())
    }
}

impl types::Host for State {}

impl types::HostOutgoingValue for State {
    async fn new_outgoing_value(&mut self) -> wasmtime::Result<Resource<Outgoing>> {
        Ok(self.table().push(Outgoing::default())?)
    }

    async fn outgoing_value_write_body(
        &mut self,
        value: Resource<Outgoing>,
    ) -> wasmtime::Result<Result<Resource<DynOutputStream>, ()>> {
        let room = self.room.clone();
        let Some(stream) = self.table().get_mut(&value)?.open(&room) else { return Ok(Err(())) };
        let stream: DynOutputStream = Box::new(stream);
        Ok(Ok(self.table().push_child(stream, &value)?))
    }

    /// Until here nothing is stored: a value that is dropped is none.
    async fn finish(&mut self, value: Resource<Outgoing>) -> Answer<()> {
        let value = self.table().delete(value)?;
        let body = value.finish();
        for name in &value.targets {
            if let Err(error) = self.object("put", name, body.clone()).await? {
                return Ok(Err(error.to_string()));
            }
        }
        Ok(Ok(()))
    }

    async fn drop(&mut self, value: Resource<Outgoing>) -> wasmtime::Result<()> {
        self.table().delete(value)?;
        Ok(())
    }
}

impl types::HostIncomingValue for State {
    async fn incoming_value_consume_sync(&mut self, value: Resource<Incoming>) -> Answer<Vec<u8>> {
        Ok(Ok(self.table().delete(value)?.0.to_vec()))
    }

    async fn incoming_value_consume_async(&mut self, value: Resource<Incoming>) -> Answer<Resource<DynInputStream>> {
        let Incoming(bytes) = self.table().delete(value)?;
        let stream: DynInputStream = Box::new(MemoryInputPipe::new(bytes));
        Ok(Ok(self.table().push(stream)?))
    }

    async fn size(&mut self, value: Resource<Incoming>) -> wasmtime::Result<u64> {
        Ok(self.table().get(&value)?.0.len() as u64)
    }

    async fn drop(&mut self, value: Resource<Incoming>) -> wasmtime::Result<()> {
        self.table().delete(value)?;
        Ok(())
    }
}
