;; A WASI command that answers with what it was called with: standard input, read to its end, is the payload,
;; standard output is the reply.
(module
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))

  (memory (export "memory") 2)

  ;; Where things are: an iovec (address, length) at 0, the count of bytes moved at 8, the buffer from 64 KiB.
  (global $buffer i32 (i32.const 65536))
  (global $size i32 (i32.const 65536))

  (func (export "_start")
    (local $filled i32)
    (block $end
      (loop $next
        (local.set $filled (call $read))
        (br_if $end (i32.eqz (local.get $filled)))
        (call $write_all (local.get $filled))
        (br $next))))

  ;; Reads once into the buffer; the count of bytes, 0 at the end of the input.
  (func $read (result i32)
    (i32.store (i32.const 0) (global.get $buffer))
    (i32.store (i32.const 4) (global.get $size))
    (call $check (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
    (i32.load (i32.const 8)))

  ;; Writes the first bytes of the buffer, in as many calls as it takes.
  (func $write_all (param $count i32)
    (local $done i32)
    (loop $more
      (i32.store (i32.const 0) (i32.add (global.get $buffer) (local.get $done)))
      (i32.store (i32.const 4) (i32.sub (local.get $count) (local.get $done)))
      (call $check (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
      (local.set $done (i32.add (local.get $done) (i32.load (i32.const 8))))
      (br_if $more (i32.lt_u (local.get $done) (local.get $count)))))

  ;; Any error number ends the program with status 1, which the caller sees as a failed call.
  (func $check (param $errno i32)
    (if (local.get $errno) (then (call $proc_exit (i32.const 1))))))
