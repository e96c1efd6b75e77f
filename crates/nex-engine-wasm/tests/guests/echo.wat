;; Copies standard input to standard output in pieces of up to 32 KiB; the first of two vectors is always empty.
(module $echo
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func $write_all (param $at i32) (param $len i32)
    (block $done
      (loop $more
        (br_if $done (i32.eqz (local.get $len)))
        (i32.store (i32.const 0) (local.get $at))
        (i32.store (i32.const 4) (i32.const 0))
        (i32.store (i32.const 8) (local.get $at))
        (i32.store (i32.const 12) (local.get $len))
        (if (call $write (i32.const 1) (i32.const 0) (i32.const 2) (i32.const 16)) (then unreachable))
        (local.set $at (i32.add (local.get $at) (i32.load (i32.const 16))))
        (local.set $len (i32.sub (local.get $len) (i32.load (i32.const 16))))
        (br $more))))
  (func (export "_start") (local $count i32)
    (block $end
      (loop $next
        (i32.store (i32.const 0) (i32.const 1024))
        (i32.store (i32.const 4) (i32.const 0))
        (i32.store (i32.const 8) (i32.const 1024))
        (i32.store (i32.const 12) (i32.const 32768))
        (if (call $read (i32.const 0) (i32.const 0) (i32.const 2) (i32.const 16)) (then unreachable))
        (local.set $count (i32.load (i32.const 16)))
        (br_if $end (i32.eqz (local.get $count)))
        (call $write_all (i32.const 1024) (local.get $count))
        (br $next)))))
