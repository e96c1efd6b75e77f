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
