//! Small guest programs as text; the well-behaved ones are in `examples/functions`.

/// JavaScript: replies with its subject and payload.
pub const ECHO_JS: &str = include_str!("../../../examples/functions/echo.js");
/// JavaScript module: greets the name in the payload.
pub const GREET_MJS: &str = include_str!("../../../examples/functions/greet.mjs");
/// JavaScript: counts its calls in the key-value service.
pub const KV_COUNTER_JS: &str = include_str!("../../../examples/functions/kv-counter.js");
/// JavaScript: throws.
pub const FAILING_JS: &str = "(subject, payload) => { throw new Error('it failed on purpose'); };\n";
/// JavaScript: never ends.
pub const LOOPING_JS: &str = "(subject, payload) => { for (;;) {} };\n";

/// WASI command, text: writes standard input to standard output.
pub const ECHO_WAT: &str = include_str!("../../../examples/functions/echo.wat");

/// WASI command, text: writes to standard error and exits with status 3.
pub const FAILING_WAT: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "it failed on purpose\n")
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 16))
    (i32.store (i32.const 4) (i32.const 21))
    (drop (call $fd_write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)))
    (call $proc_exit (i32.const 3))))
"#;

/// WASI command, text: never ends.
pub const LOOPING_WAT: &str = r#"(module
  (memory (export "memory") 1)
  (func (export "_start") (loop $forever (br $forever))))
"#;

/// WASI command, text: grows its memory until that fails, then traps.
pub const GREEDY_WAT: &str = r#"(module
  (memory (export "memory") 1)
  (func (export "_start")
    (loop $more (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
    unreachable))
"#;

/// Assembles the text of a WebAssembly module.
///
/// # Panics
/// When the text is no module.
#[must_use]
#[expect(clippy::panic, reason = "a fixture that does not assemble is a mistake in the test")]
pub fn assemble(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|error| panic!("the module does not assemble: {error}"))
}

/// A handler of `wasi:http`, text: the first letter of the path says what it does.
pub const WEB_WAT: &str = include_str!("../guests/http.wat");
/// The interfaces of `wasi:http` that it uses, and those of `wasi:io`.
pub const HTTP_WIT: &str = include_str!("../guests/http.wit");
/// The interfaces of `wasi:io` that guests use.
pub const IO_WIT: &str = include_str!("../guests/io.wit");
/// The world of that handler.
pub const WEB_WORLD: &str = "package nex:test;
world guest {
  import wasi:http/types@0.2.0;
  import wasi:http/outgoing-handler@0.2.0;
  export wasi:http/incoming-handler@0.2.0;
}";

/// Makes a core module a component of the world `guest`, as toolchains do; `packages` are those that the world names, in their order.
///
/// # Panics
/// When module or world are none, or do not fit.
#[must_use]
#[expect(clippy::panic, reason = "a fixture that does not assemble is a mistake in the test")]
pub fn component(text: &str, packages: &[&str], world: &str) -> Vec<u8> {
    let encoded = (|| {
        let mut resolve = wit_parser::Resolve::default();
        for (index, package) in packages.iter().enumerate() {
            resolve.push_str(format!("package{index}.wit"), package)?;
        }
        let package = resolve.push_str("guest.wit", world)?;
        let world = resolve.select_world(&[package], Some("guest"))?;
        let mut bytes = assemble(text);
        wit_component::embed_component_metadata(&mut bytes, &resolve, world, wit_component::StringEncoding::UTF8)?;
        wit_component::ComponentEncoder::default().module(&bytes)?.validate(true).encode()
    })();
    encoded.unwrap_or_else(|error| panic!("the component does not assemble: {error:#}"))
}

/// [`WEB_WAT`] as a component.
#[must_use]
pub fn web_component() -> Vec<u8> {
    component(WEB_WAT, &[IO_WIT, HTTP_WIT], WEB_WORLD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_module_assembles() {
        for text in [ECHO_WAT, FAILING_WAT, LOOPING_WAT, GREEDY_WAT] {
            assert!(assemble(text).starts_with(b"\0asm"));
        }
    }
}
