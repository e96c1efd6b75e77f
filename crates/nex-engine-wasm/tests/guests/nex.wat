;; A WASI command that calls a host service by the import module 'nex': its payload is the key to read, and the reply is the status as a byte
;; and what was answered.
(module
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "nex" "call" (func $call (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
  (import "nex" "answer_len" (func $answer-len (result i32)))
  (import "nex" "answer_read" (func $answer-read (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "kv")
  (data (i32.const 32) "get")
  (func (export "_start")
    (local $status i32)
    (i32.store (i32.const 0) (i32.const 1024))
    (i32.store (i32.const 4) (i32.const 512))
    (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
    (local.set $status
      (call $call (i32.const 16) (i32.const 2) (i32.const 32) (i32.const 3)
        (i32.const 1024) (i32.load (i32.const 8)) (i32.const 0) (i32.const 0)))
    (i32.store8 (i32.const 2048) (i32.shr_u (local.get $status) (i32.const 2)))
    (call $answer-read (i32.const 2049))
    (i32.store (i32.const 0) (i32.const 2048))
    (i32.store (i32.const 4) (i32.add (call $answer-len) (i32.const 1)))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))
