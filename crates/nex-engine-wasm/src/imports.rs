//! The import module `nex` of core modules: host services for guests of any language, without bindings.
//!
//! | function | parameters | result |
//! |---|---|---|
//! | `call` | service, method, target, body: each an address and a length | 200, or why not, as a status of HTTP |
//! | `answer_len` | | bytes of the last call's answer, or of its error's text |
//! | `answer_read` | an address | writes the answer there |

use bytes::Bytes;
use nex_protocol::agent::invocation::Headers;
use nex_protocol::host::{HostError, HostRequest, Service};
use wasmtime::{Caller, Error, Extern, Linker, Memory};

use crate::host::MAX_BODY;
use crate::state::State;

const MODULE: &str = "nex";
/// Longest service, method or target.
const MAX_NAME: usize = 8 * 1024;
/// Longest name of a method.
const MAX_METHOD: usize = 32;
const DONE: u16 = 200;

/// Where something is in the guest's memory.
type Slice = (u32, u32);

pub(crate) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.func_wrap_async(
        MODULE,
        "call",
        |mut caller: Caller<'_, State>, (s, sl, m, ml, t, tl, b, bl): (u32, u32, u32, u32, u32, u32, u32, u32)| {
            Box::new(async move { call(&mut caller, (s, sl), (m, ml), [(t, tl), (b, bl)]).await })
        },
    )?;
    linker.func_wrap(MODULE, "answer_len", |caller: Caller<'_, State>| {
        u32::try_from(caller.data().answer.len()).map_err(Error::from)
    })?;
    linker.func_wrap(MODULE, "answer_read", |mut caller: Caller<'_, State>, at: u32| {
        let (memory, answer) = (memory(&mut caller)?, caller.data().answer.clone());
        memory.write(&mut caller, at as usize, &answer).map_err(Error::from)
    })?;
    Ok(())
}

async fn call(
    caller: &mut Caller<'_, State>,
    service: Slice,
    method: Slice,
    [target, body]: [Slice; 2],
) -> wasmtime::Result<u32> {
    let [service, method, target, body] = {
        let memory = memory(caller)?;
        let data = memory.data(&caller);
        let read = |(at, len): Slice, limit: usize| -> wasmtime::Result<Vec<u8>> {
            let (at, len) = (at as usize, len as usize);
            let bytes = data.get(at..).and_then(|rest| rest.get(..len)).filter(|_| len <= limit);
            Ok(bytes.ok_or_else(|| Error::msg("what is given to nex.call is too long or not in memory"))?.to_vec())
        };
        [read(service, MAX_NAME)?, read(method, MAX_NAME)?, read(target, MAX_NAME)?, read(body, MAX_BODY)?]
    };
    let [service, method, target] = [service, method, target].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let state = caller.data_mut();
    // It becomes a token of a subject.
    let is_method = !method.is_empty() && method.len() <= MAX_METHOD && method.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let unknown = || HostError { code: 404, message: "no such method of a host service".to_owned() };
    let answer = match service.parse::<Service>().and_then(|service| is_method.then_some(service).ok_or_else(unknown)) {
        Ok(service) => {
            let request = HostRequest { service, method, target, body: body.into(), headers: Headers::new() };
            state.host.call(request).await?
        }
        Err(error) => Err(error),
    };
    let (code, answer) = match answer {
        Ok(answer) => (DONE, answer),
        Err(error) => (error.code, Bytes::from(error.message)),
    };
    state.answer = answer;
    Ok(code.into())
}

fn memory(caller: &mut Caller<'_, State>) -> wasmtime::Result<Memory> {
    caller.get_export("memory").and_then(Extern::into_memory).ok_or_else(|| Error::msg("the module exports no memory"))
}
