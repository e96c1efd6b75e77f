;; Does what the first byte of its input says.
(module $moods
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (global $calls (mut i32) (i32.const 0))
  (func $recurse (call $recurse) (call $recurse))
  (func $say (param $len i32)
    (i32.store (i32.const 0) (i32.const 1024))
    (i32.store (i32.const 4) (local.get $len))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16))))
  (func (export "_start") (local $mood i32)
    (i32.store (i32.const 0) (i32.const 1024))
    (i32.store (i32.const 4) (i32.const 64))
    (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 16)))
    (local.set $mood (i32.load8_u (i32.const 1024)))
    ;; "0", "3", "x": exit codes
    (if (i32.eq (local.get $mood) (i32.const 0x30)) (then (call $say (i32.const 4)) (call $exit (i32.const 0))))
    (if (i32.eq (local.get $mood) (i32.const 0x33)) (then (call $exit (i32.const 3))))
    (if (i32.eq (local.get $mood) (i32.const 0x78)) (then (call $exit (i32.const 4000))))
    ;; "u": trap
    (if (i32.eq (local.get $mood) (i32.const 0x75)) (then unreachable))
    ;; "r": endless recursion
    (if (i32.eq (local.get $mood) (i32.const 0x72)) (then (call $recurse)))
    ;; "l": endless loop, "w": endless loop of writes
    (if (i32.eq (local.get $mood) (i32.const 0x6c)) (then (loop $forever (br $forever))))
    (if (i32.eq (local.get $mood) (i32.const 0x77)) (then (loop $forever (call $say (i32.const 60000)) (br $forever))))
    ;; "s": sleeps an hour in the host
    (if (i32.eq (local.get $mood) (i32.const 0x73)) (then
      (i32.store (i32.const 2064) (i32.const 1))
      (i64.store (i32.const 2072) (i64.const 3600000000000))
      (drop (call $poll (i32.const 2048) (i32.const 4096) (i32.const 1) (i32.const 16)))))
    ;; "m": takes memory until there is none, and fails; "g": copes with it
    (if (i32.eq (local.get $mood) (i32.const 0x6d)) (then
      (loop $more (if (i32.eq (memory.grow (i32.const 16)) (i32.const -1)) (then unreachable)) (br $more))))
    (if (i32.eq (local.get $mood) (i32.const 0x67)) (then
      (drop (memory.grow (i32.const 60000)))))
    ;; "b": writes 600 000 bytes
    (if (i32.eq (local.get $mood) (i32.const 0x62)) (then
      (loop $more
        (call $say (i32.const 60000))
        (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
        (br_if $more (i32.lt_u (global.get $calls) (i32.const 10)))) return))
    ;; anything else, and "g": one more than the number of calls this instance has seen, which is always "1"
    (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
    (i32.store8 (i32.const 1024) (i32.add (global.get $calls) (i32.const 0x30)))
    (call $say (i32.const 1))))
