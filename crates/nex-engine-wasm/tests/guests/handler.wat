;; A handler of wasmcloud:messaging, as toolchains lower it. The first byte of a message says what it does; what it publishes to the
;; message's reply-to is the reply.
(module
  (import "wasi:keyvalue/store@0.2.0-draft2" "open" (func $open (param i32 i32 i32)))
  (import "wasi:keyvalue/store@0.2.0-draft2" "[method]bucket.get" (func $get (param i32 i32 i32 i32)))
  (import "wasi:keyvalue/store@0.2.0-draft2" "[method]bucket.set" (func $set (param i32 i32 i32 i32 i32 i32)))
  (import "wasi:keyvalue/store@0.2.0-draft2" "[resource-drop]bucket" (func $drop-bucket (param i32)))
  (import "wasi:keyvalue/atomics@0.2.0-draft2" "increment" (func $increment (param i32 i32 i32 i64 i32)))
  (import "wasi:keyvalue/atomics@0.2.0-draft2" "[static]cas.new" (func $cas-new (param i32 i32 i32 i32)))
  (import "wasi:keyvalue/atomics@0.2.0-draft2" "swap" (func $swap (param i32 i32 i32 i32)))
  (import "wasi:config/store@0.2.0-rc.1" "get" (func $config (param i32 i32 i32)))
  (import "wasi:logging/logging@0.1.0-draft" "log" (func $log (param i32 i32 i32 i32 i32)))
  (import "wasmcloud:messaging/consumer@0.2.0" "publish" (func $publish (param i32 i32 i32 i32 i32 i32 i32 i32)))
  (import "wasmcloud:messaging/consumer@0.2.0" "request" (func $request (param i32 i32 i32 i32 i32 i32)))
  (memory (export "memory") 2)
  (data (i32.const 16) "default")
  (data (i32.const 32) "greeting")
  (data (i32.const 48) "number")
  (data (i32.const 64) "Name")
  (data (i32.const 80) "other.subject")
  (data (i32.const 96) "none")
  (data (i32.const 112) "refused")
  (data (i32.const 128) "here")
  (data (i32.const 144) "elsewhere")
  (global $free (mut i32) (i32.const 4096))

  (func $allocate (export "cabi_realloc") (param $old i32) (param $old-size i32) (param $align i32) (param $size i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
    (global.set $free (i32.add (local.get $at) (local.get $size)))
    (local.get $at))

  ;; The workload's bucket.
  (func $bucket (result i32)
    (call $open (i32.const 16) (i32.const 7) (i32.const 1024))
    (if (i32.load8_u (i32.const 1024)) (then unreachable))
    (i32.load (i32.const 1028)))

  (func $handle (export "wasmcloud:messaging/handler@0.2.0#handle-message")
    (param $subject i32) (param $subject-len i32) (param $body i32) (param $len i32)
    (param $has-reply i32) (param $reply i32) (param $reply-len i32) (result i32)
    (local $what i32) (local $bucket i32) (local $at i32) (local $size i32)
    (local.set $what (i32.load8_u (local.get $body)))
    (local.set $at (i32.const 96))
    (local.set $size (i32.const 4))
    (block $done
      ;; e: refuse the message
      (if (i32.eq (local.get $what) (i32.const 101))
        (then
          (i32.store8 (i32.const 2048) (i32.const 1))
          (i32.store (i32.const 2052) (i32.const 112))
          (i32.store (i32.const 2056) (i32.const 7))
          (return (i32.const 2048))))
      ;; g: the greeting
      (if (i32.eq (local.get $what) (i32.const 103))
        (then
          (local.set $bucket (call $bucket))
          (call $get (local.get $bucket) (i32.const 32) (i32.const 8) (i32.const 1024))
          (call $drop-bucket (local.get $bucket))
          (if (i32.load8_u (i32.const 1028))
            (then
              (local.set $at (i32.load (i32.const 1032)))
              (local.set $size (i32.load (i32.const 1036)))))
          (br $done)))
      ;; s: set the greeting
      (if (i32.eq (local.get $what) (i32.const 115))
        (then
          (call $set (call $bucket) (i32.const 32) (i32.const 8)
            (i32.add (local.get $body) (i32.const 1)) (i32.sub (local.get $len) (i32.const 1)) (i32.const 1024))
          (local.set $at (i32.const 1024))
          (local.set $size (i32.const 1))
          (br $done)))
      ;; i: add 5 to the number
      (if (i32.eq (local.get $what) (i32.const 105))
        (then
          (call $increment (call $bucket) (i32.const 48) (i32.const 6) (i64.const 5) (i32.const 1024))
          (local.set $at (i32.const 1032))
          (local.set $size (i32.const 8))
          (br $done)))
      ;; w: swap the greeting twice by one reading: the second is too late
      (if (i32.eq (local.get $what) (i32.const 119))
        (then
          (local.set $bucket (call $bucket))
          (call $cas-new (local.get $bucket) (i32.const 32) (i32.const 8) (i32.const 1024))
          (call $cas-new (local.get $bucket) (i32.const 32) (i32.const 8) (i32.const 1040))
          (call $swap (i32.load (i32.const 1028)) (i32.const 128) (i32.const 4) (i32.const 1056))
          (call $swap (i32.load (i32.const 1044)) (i32.const 144) (i32.const 9) (i32.const 1072))
          (i32.store8 (i32.const 1024) (i32.load8_u (i32.const 1056)))
          (i32.store8 (i32.const 1025) (i32.load8_u (i32.const 1072)))
          (i32.store8 (i32.const 1026) (i32.load8_u (i32.const 1076)))
          (local.set $at (i32.const 1024))
          (local.set $size (i32.const 3))
          (br $done)))
      ;; o: open a bucket of another name
      (if (i32.eq (local.get $what) (i32.const 111))
        (then
          (call $open (i32.const 144) (i32.const 9) (i32.const 1024))
          (local.set $at (i32.const 1024))
          (local.set $size (i32.const 1))
          (br $done)))
      ;; c: what the configuration says
      (if (i32.eq (local.get $what) (i32.const 99))
        (then
          (call $config (i32.const 64) (i32.const 4) (i32.const 1024))
          (local.set $at (i32.load (i32.const 1032)))
          (local.set $size (i32.load (i32.const 1036)))
          (br $done)))
      ;; l: log the message as a warning
      (if (i32.eq (local.get $what) (i32.const 108))
        (then
          (call $log (i32.const 3) (i32.const 128) (i32.const 4) (local.get $body) (local.get $len))
          (br $done)))
      ;; p: publish the message elsewhere
      (if (i32.eq (local.get $what) (i32.const 112))
        (then
          (call $publish (i32.const 80) (i32.const 13) (local.get $body) (local.get $len)
            (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1024))
          (local.set $at (i32.const 1024))
          (local.set $size (i32.const 1))
          (br $done)))
      ;; r: ask elsewhere
      (if (i32.eq (local.get $what) (i32.const 114))
        (then
          (call $request (i32.const 80) (i32.const 13) (local.get $body) (local.get $len) (i32.const 5000) (i32.const 1024))
          (local.set $at (i32.load (i32.const 1036)))
          (local.set $size (i32.load (i32.const 1040)))
          (br $done)))
      ;; f: host calls without an end
      (if (i32.eq (local.get $what) (i32.const 102))
        (then
          (local.set $bucket (call $bucket))
          (loop $forever
            (call $get (local.get $bucket) (i32.const 32) (i32.const 8) (i32.const 1024))
            (br $forever))))
      ;; n: no reply
      (if (i32.eq (local.get $what) (i32.const 110))
        (then (i32.store8 (i32.const 2048) (i32.const 0)) (return (i32.const 2048)))))
    (call $publish (local.get $reply) (local.get $reply-len) (local.get $at) (local.get $size)
      (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1060))
    (i32.store8 (i32.const 2048) (i32.const 0))
    (i32.const 2048)))
