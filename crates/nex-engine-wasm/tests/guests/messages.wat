;; A handler of wasi:messaging. The first byte of a message says what it does.
(module
  (import "wasi:messaging/types@0.2.0-draft" "[static]client.connect" (func $connect (param i32 i32 i32)))
  (import "wasi:messaging/types@0.2.0-draft" "[constructor]message" (func $message (param i32 i32) (result i32)))
  (import "wasi:messaging/types@0.2.0-draft" "[method]message.data" (func $data (param i32 i32)))
  (import "wasi:messaging/types@0.2.0-draft" "[method]message.add-metadata" (func $add (param i32 i32 i32 i32 i32 i32)))
  (import "wasi:messaging/producer@0.2.0-draft" "send" (func $send (param i32 i32 i32 i32 i32)))
  (import "wasi:messaging/request-reply@0.2.0-draft" "request" (func $request (param i32 i32 i32 i32 i32 i32 i32)))
  (import "wasi:messaging/request-reply@0.2.0-draft" "reply" (func $reply (param i32 i32 i32)))
  (memory (export "memory") 4)
  (data (i32.const 16) "other.subject")
  (data (i32.const 32) "x-mine")
  (data (i32.const 48) "refused")
  (data (i32.const 64) "two\0alines")
  (global $free (mut i32) (i32.const 65536))

  (func (export "cabi_realloc") (param $old i32) (param $old-size i32) (param $align i32) (param $size i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
    (global.set $free (i32.add (local.get $at) (local.get $size)))
    (local.get $at))

  (func $ok (param $at i32) (result i32)
    (if (i32.load8_u (local.get $at)) (then unreachable))
    (i32.load offset=4 (local.get $at)))

  (func (export "wasi:messaging/incoming-handler@0.2.0-draft#handle") (param $in i32) (result i32)
    (local $what i32) (local $at i32) (local $size i32) (local $new i32) (local $client i32)
    (call $data (local.get $in) (i32.const 1024))
    (local.set $at (i32.load (i32.const 1024)))
    (local.set $size (i32.load (i32.const 1028)))
    (local.set $what (i32.load8_u (local.get $at)))
    (i32.store8 (i32.const 2048) (i32.const 0))
    ;; f: fail with a text
    (if (i32.eq (local.get $what) (i32.const 102))
      (then
        (i32.store8 (i32.const 2048) (i32.const 1))
        (i32.store8 (i32.const 2052) (i32.const 3))
        (i32.store (i32.const 2056) (i32.const 48))
        (i32.store (i32.const 2060) (i32.const 7))
        (return (i32.const 2048))))
    ;; n: no reply
    (if (i32.eq (local.get $what) (i32.const 110)) (then (return (i32.const 2048))))
    ;; k: keep messages without an end
    (if (i32.eq (local.get $what) (i32.const 107))
      (then (loop $forever (drop (call $message (i32.const 65536) (i32.const 100000))) (br $forever))))
    (local.set $new (call $message (local.get $at) (local.get $size)))
    (call $add (local.get $new) (i32.const 32) (i32.const 6) (i32.const 48) (i32.const 7) (i32.const 1040))
    (if (i32.load8_u (i32.const 1040)) (then unreachable))
    ;; What is no header is refused.
    (call $add (local.get $new) (i32.const 32) (i32.const 6) (i32.const 64) (i32.const 9) (i32.const 1040))
    (if (i32.eqz (i32.load8_u (i32.const 1040))) (then unreachable))
    (call $connect (i32.const 16) (i32.const 5) (i32.const 1040))
    (local.set $client (call $ok (i32.const 1040)))
    ;; s: send it elsewhere
    (if (i32.eq (local.get $what) (i32.const 115))
      (then
        (call $send (local.get $client) (i32.const 16) (i32.const 13) (local.get $new) (i32.const 1040))
        (drop (call $ok (i32.const 1040)))
        (return (i32.const 2048))))
    ;; r: reply with what another says
    (if (i32.eq (local.get $what) (i32.const 114))
      (then
        (call $request (local.get $client) (i32.const 16) (i32.const 13) (local.get $new) (i32.const 0) (i32.const 0) (i32.const 1040))
        (local.set $new (i32.load (call $ok (i32.const 1040))))))
    ;; Anything else: the message is the reply; t: twice, of which the second is refused.
    (call $reply (local.get $in) (local.get $new) (i32.const 1040))
    (drop (call $ok (i32.const 1040)))
    (if (i32.eq (local.get $what) (i32.const 116))
      (then
        (call $reply (local.get $in) (call $message (i32.const 16) (i32.const 5)) (i32.const 1040))
        (if (i32.eqz (i32.load8_u (i32.const 1040))) (then unreachable))))
    (i32.const 2048)))
