;; A handler of messages that keeps objects by wasi:blobstore. The first byte of a message says what it does.
(module
  (import "wasi:blobstore/blobstore@0.2.0-draft" "get-container" (func $open (param i32 i32 i32)))
  (import "wasi:blobstore/container@0.2.0-draft" "[method]container.get-data" (func $get (param i32 i32 i32 i64 i64 i32)))
  (import "wasi:blobstore/container@0.2.0-draft" "[method]container.write-data" (func $put (param i32 i32 i32 i32 i32)))
  (import "wasi:blobstore/container@0.2.0-draft" "[method]container.has-object" (func $has (param i32 i32 i32 i32)))
  (import "wasi:blobstore/container@0.2.0-draft" "[method]container.delete-object" (func $delete (param i32 i32 i32 i32)))
  (import "wasi:blobstore/container@0.2.0-draft" "[method]container.list-objects" (func $list (param i32 i32)))
  (import "wasi:blobstore/container@0.2.0-draft" "[method]stream-object-names.read-stream-object-names"
    (func $names (param i32 i64 i32)))
  (import "wasi:blobstore/types@0.2.0-draft" "[static]incoming-value.incoming-value-consume-sync" (func $consume (param i32 i32)))
  (import "wasi:blobstore/types@0.2.0-draft" "[static]outgoing-value.new-outgoing-value" (func $value (result i32)))
  (import "wasi:blobstore/types@0.2.0-draft" "[method]outgoing-value.outgoing-value-write-body" (func $body (param i32 i32)))
  (import "wasi:blobstore/types@0.2.0-draft" "[static]outgoing-value.finish" (func $finish (param i32 i32)))
  (import "wasi:blobstore/types@0.2.0-draft" "[resource-drop]outgoing-value" (func $drop-value (param i32)))
  (import "wasi:io/streams@0.2.0" "[method]output-stream.blocking-write-and-flush" (func $write (param i32 i32 i32 i32)))
  (import "wasi:io/streams@0.2.0" "[resource-drop]output-stream" (func $drop-stream (param i32)))
  (import "wasmcloud:messaging/consumer@0.2.0" "publish" (func $publish (param i32 i32 i32 i32 i32 i32 i32 i32)))
  (memory (export "memory") 4)
  (data (i32.const 16) "default")
  (data (i32.const 32) "thing")
  (data (i32.const 48) "elsewhere")
  (global $free (mut i32) (i32.const 65536))

  (func (export "cabi_realloc") (param $old i32) (param $old-size i32) (param $align i32) (param $size i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
    (global.set $free (i32.add (local.get $at) (local.get $size)))
    (local.get $at))

  (func $ok (param $at i32) (result i32)
    (if (i32.load8_u (local.get $at)) (then unreachable))
    (i32.load offset=4 (local.get $at)))

  (func $container (result i32)
    (call $open (i32.const 16) (i32.const 7) (i32.const 1024))
    (call $ok (i32.const 1024)))

  (func (export "wasmcloud:messaging/handler@0.2.0#handle-message")
    (param $subject i32) (param $subject-len i32) (param $in i32) (param $len i32)
    (param $has-reply i32) (param $reply i32) (param $reply-len i32) (result i32)
    (local $what i32) (local $at i32) (local $size i32) (local $value i32) (local $stream i32)
    (local.set $what (i32.load8_u (local.get $in)))
    ;; What most are answered with: whether it worked.
    (local.set $at (i32.const 1040))
    (local.set $size (i32.const 1))
    (block $done
      ;; w: write the rest as the thing; x: write it and give it up; f: write without an end
      (if (i32.or (i32.eq (local.get $what) (i32.const 102))
          (i32.or (i32.eq (local.get $what) (i32.const 119)) (i32.eq (local.get $what) (i32.const 120))))
        (then
          (local.set $value (call $value))
          (call $body (local.get $value) (i32.const 1024))
          (local.set $stream (call $ok (i32.const 1024)))
          (call $put (call $container) (i32.const 32) (i32.const 5) (local.get $value) (i32.const 1024))
          (drop (call $ok (i32.const 1024)))
          (loop $more
            (call $write (local.get $stream) (i32.add (local.get $in) (i32.const 1)) (i32.sub (local.get $len) (i32.const 1)) (i32.const 1040))
            (br_if $more (i32.and (i32.eq (local.get $what) (i32.const 102)) (i32.eqz (i32.load8_u (i32.const 1040))))))
          (call $drop-stream (local.get $stream))
          (if (i32.eq (local.get $what) (i32.const 119))
            (then (call $finish (local.get $value) (i32.const 1040)))
            (else (call $drop-value (local.get $value))))
          (br $done)))
      ;; r: the second to the fourth byte of the thing
      (if (i32.eq (local.get $what) (i32.const 114))
        (then
          (call $get (call $container) (i32.const 32) (i32.const 5) (i64.const 1) (i64.const 3) (i32.const 1040))
          (br_if $done (i32.load8_u (i32.const 1040)))
          (call $consume (i32.load (i32.const 1044)) (i32.const 1040))
          (local.set $at (i32.load (i32.const 1044)))
          (local.set $size (i32.load (i32.const 1048)))
          (br $done)))
      ;; h: whether there is a thing
      (if (i32.eq (local.get $what) (i32.const 104))
        (then
          (call $has (call $container) (i32.const 32) (i32.const 5) (i32.const 1040))
          (local.set $at (i32.const 1044))
          (br $done)))
      ;; d: delete it
      (if (i32.eq (local.get $what) (i32.const 100))
        (then (call $delete (call $container) (i32.const 32) (i32.const 5) (i32.const 1040)) (br $done)))
      ;; l: the first name
      (if (i32.eq (local.get $what) (i32.const 108))
        (then
          (call $list (call $container) (i32.const 1040))
          (call $names (call $ok (i32.const 1040)) (i64.const 10) (i32.const 1040))
          (local.set $value (call $ok (i32.const 1040)))
          (local.set $at (i32.load (local.get $value)))
          (local.set $size (i32.load offset=4 (local.get $value)))
          (br $done)))
      ;; o: open another container
      (call $open (i32.const 48) (i32.const 9) (i32.const 1040)))
    (call $publish (local.get $reply) (local.get $reply-len) (local.get $at) (local.get $size)
      (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1060))
    (i32.store8 (i32.const 2048) (i32.const 0))
    (i32.const 2048)))
