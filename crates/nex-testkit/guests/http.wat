;; A handler of wasi:http, as toolchains lower it. The first letter of the path says what it does.
(module
  (import "wasi:http/types@0.2.0" "[method]incoming-request.method" (func $method (param i32 i32)))
  (import "wasi:http/types@0.2.0" "[method]incoming-request.path-with-query" (func $path (param i32 i32)))
  (import "wasi:http/types@0.2.0" "[method]incoming-request.scheme" (func $scheme (param i32 i32)))
  (import "wasi:http/types@0.2.0" "[method]incoming-request.authority" (func $authority (param i32 i32)))
  (import "wasi:http/types@0.2.0" "[method]incoming-request.headers" (func $headers (param i32) (result i32)))
  (import "wasi:http/types@0.2.0" "[method]incoming-request.consume" (func $consume (param i32 i32)))
  (import "wasi:http/types@0.2.0" "[method]incoming-body.stream" (func $stream (param i32 i32)))
  (import "wasi:io/streams@0.2.0" "[method]input-stream.blocking-read" (func $read (param i32 i64 i32)))
  (import "wasi:http/types@0.2.0" "[constructor]fields" (func $fields (result i32)))
  (import "wasi:http/types@0.2.0" "[method]fields.get" (func $get (param i32 i32 i32 i32)))
  (import "wasi:http/types@0.2.0" "[method]fields.append" (func $append (param i32 i32 i32 i32 i32 i32)))
  (import "wasi:http/types@0.2.0" "[constructor]outgoing-response" (func $response (param i32) (result i32)))
  (import "wasi:http/types@0.2.0" "[method]outgoing-response.set-status-code" (func $set-status (param i32 i32) (result i32)))
  (import "wasi:http/types@0.2.0" "[method]outgoing-response.body" (func $body (param i32 i32)))
  (import "wasi:http/types@0.2.0" "[static]response-outparam.set"
    (func $set (param i32 i32 i32 i32 i64 i32 i32 i32 i32)))
  (import "wasi:http/types@0.2.0" "[method]outgoing-body.write" (func $write-stream (param i32 i32)))
  (import "wasi:http/types@0.2.0" "[static]outgoing-body.finish" (func $finish (param i32 i32 i32 i32)))
  (import "wasi:http/types@0.2.0" "[resource-drop]outgoing-body" (func $drop-body (param i32)))
  (import "wasi:io/streams@0.2.0" "[method]output-stream.blocking-write-and-flush" (func $write (param i32 i32 i32 i32)))
  (import "wasi:io/streams@0.2.0" "[resource-drop]output-stream" (func $drop-stream (param i32)))
  (import "wasi:http/types@0.2.0" "[constructor]outgoing-request" (func $request (param i32) (result i32)))
  (import "wasi:http/types@0.2.0" "[method]outgoing-request.set-method" (func $set-method (param i32 i32 i32 i32) (result i32)))
  (import "wasi:http/types@0.2.0" "[method]outgoing-request.set-authority"
    (func $set-authority (param i32 i32 i32 i32) (result i32)))
  (import "wasi:http/types@0.2.0" "[method]outgoing-request.set-path-with-query"
    (func $set-path (param i32 i32 i32 i32) (result i32)))
  (import "wasi:http/types@0.2.0" "[method]outgoing-request.set-scheme"
    (func $set-scheme (param i32 i32 i32 i32 i32) (result i32)))
  (import "wasi:http/types@0.2.0" "[method]outgoing-request.body" (func $request-body (param i32 i32)))
  (import "wasi:http/outgoing-handler@0.2.0" "handle" (func $send (param i32 i32 i32 i32)))
  (import "wasi:http/types@0.2.0" "[method]future-incoming-response.subscribe" (func $subscribe (param i32) (result i32)))
  (import "wasi:io/poll@0.2.0" "[method]pollable.block" (func $block (param i32)))
  (import "wasi:http/types@0.2.0" "[method]future-incoming-response.get" (func $answer (param i32 i32)))
  (import "wasi:http/types@0.2.0" "[method]incoming-response.status" (func $status (param i32) (result i32)))
  (import "wasi:http/types@0.2.0" "[method]incoming-response.consume" (func $consume-response (param i32 i32)))
  (memory (export "memory") 8)
  (data (i32.const 16) "x-mine")
  (data (i32.const 32) "x-asked")
  (data (i32.const 48) "denied.example")
  (data (i32.const 64) "user-agent")
  (data (i32.const 80) "guest")
  (global $free (mut i32) (i32.const 65536))
  (global $body (mut i32) (i32.const 0))
  (global $out (mut i32) (i32.const 0))

  (func (export "cabi_realloc") (param $old i32) (param $old-size i32) (param $align i32) (param $size i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
    (global.set $free (i32.add (local.get $at) (local.get $size)))
    (if (i32.gt_u (global.get $free) (i32.mul (memory.size) (i32.const 65536)))
      (then (drop (memory.grow (i32.add (i32.shr_u (local.get $size) (i32.const 16)) (i32.const 1))))))
    (local.get $at))

  (func $ok (param $at i32) (result i32)
    (if (i32.load8_u (local.get $at)) (then unreachable))
    (i32.load offset=4 (local.get $at)))

  ;; Begins the response: headers, status, body and its stream.
  (func $begin (param $outparam i32) (param $status i32)
    (local $response i32) (local $fields i32)
    (local.set $fields (call $fields))
    (call $append (local.get $fields) (i32.const 16) (i32.const 6) (i32.const 80) (i32.const 5) (i32.const 1024))
    (local.set $response (call $response (local.get $fields)))
    (if (call $set-status (local.get $response) (local.get $status)) (then unreachable))
    (call $body (local.get $response) (i32.const 1024))
    (global.set $body (call $ok (i32.const 1024)))
    (call $set (local.get $outparam) (i32.const 0) (local.get $response)
      (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))
    (call $write-stream (global.get $body) (i32.const 1024))
    (global.set $out (call $ok (i32.const 1024))))

  ;; Writes, 4096 bytes at most at once.
  (func $say (param $at i32) (param $len i32)
    (local $some i32)
    (loop $more
      (local.set $some (select (i32.const 4096) (local.get $len) (i32.gt_u (local.get $len) (i32.const 4096))))
      (call $write (global.get $out) (local.get $at) (local.get $some) (i32.const 1024))
      (local.set $at (i32.add (local.get $at) (local.get $some)))
      (local.set $len (i32.sub (local.get $len) (local.get $some)))
      (br_if $more (local.get $len))))
  (func $say-byte (param $byte i32)
    (i32.store8 (i32.const 2000) (local.get $byte))
    (call $say (i32.const 2000) (i32.const 1)))

  ;; Reads a body to its end and writes it to the stream.
  (func $copy (param $body i32) (param $to i32)
    (local $stream i32)
    (call $stream (local.get $body) (i32.const 1024))
    (local.set $stream (call $ok (i32.const 1024)))
    (global.set $free (i32.const 65536))
    (loop $more
      (call $read (local.get $stream) (i64.const 4096) (i32.const 1040))
      (if (i32.eqz (i32.load8_u (i32.const 1040)))
        (then
          (if (i32.load (i32.const 1048))
            (then (call $write (local.get $to) (i32.load (i32.const 1044)) (i32.load (i32.const 1048)) (i32.const 1024))))
          (global.set $free (i32.const 65536))
          (br $more)))))

  (func $end
    (call $drop-stream (global.get $out))
    (call $finish (global.get $body) (i32.const 0) (i32.const 0) (i32.const 1024)))

  ;; A request to http://denied.example, or the host in x-asked, with the path of ours, and the body of ours if it has one.
  (func $ask (param $incoming i32) (param $method i32) (result i32)
    (local $request i32) (local $fields i32) (local $body i32) (local $to i32)
    (local.set $fields (call $fields))
    (call $append (local.get $fields) (i32.const 64) (i32.const 10) (i32.const 80) (i32.const 5) (i32.const 1024))
    (local.set $request (call $request (local.get $fields)))
    (drop (call $set-method (local.get $request) (local.get $method) (i32.const 0) (i32.const 0)))
    (drop (call $set-scheme (local.get $request) (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 0)))
    (call $get (call $headers (local.get $incoming)) (i32.const 32) (i32.const 7) (i32.const 1100))
    (if (i32.load (i32.const 1104))
      (then
        (local.set $to (i32.load (i32.const 1100)))
        (drop (call $set-authority (local.get $request) (i32.const 1) (i32.load (local.get $to)) (i32.load offset=4 (local.get $to)))))
      (else (drop (call $set-authority (local.get $request) (i32.const 1) (i32.const 48) (i32.const 14)))))
    (call $path (local.get $incoming) (i32.const 1100))
    (drop (call $set-path (local.get $request) (i32.const 1) (i32.load (i32.const 1104)) (i32.load (i32.const 1108))))
    (if (i32.ne (local.get $method) (i32.const 0))
      (then
        (call $request-body (local.get $request) (i32.const 1024))
        (local.set $body (call $ok (i32.const 1024)))
        (call $write-stream (local.get $body) (i32.const 1024))
        (local.set $to (call $ok (i32.const 1024)))))
    (call $send (local.get $request) (i32.const 0) (i32.const 0) (i32.const 1200))
    (if (i32.load8_u (i32.const 1200)) (then unreachable))
    (if (i32.ne (local.get $method) (i32.const 0))
      (then
        (call $consume (local.get $incoming) (i32.const 1024))
        (call $copy (call $ok (i32.const 1024)) (local.get $to))
        (call $drop-stream (local.get $to))
        (call $finish (local.get $body) (i32.const 0) (i32.const 0) (i32.const 1024))))
    (i32.load (i32.const 1208)))

  (func (export "wasi:http/incoming-handler@0.2.0#handle") (param $incoming i32) (param $outparam i32)
    (local $what i32) (local $count i32) (local $future i32) (local $headers i32)
    (call $path (local.get $incoming) (i32.const 1100))
    (local.set $what (i32.load8_u (i32.add (i32.load (i32.const 1104)) (i32.const 1))))
    ;; n: no response
    (if (i32.eq (local.get $what) (i32.const 110)) (then (return)))
    ;; x: an error, of the configuration
    (if (i32.eq (local.get $what) (i32.const 120))
      (then
        (call $set (local.get $outparam) (i32.const 1) (i32.const 37)
          (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))
        (return)))
    ;; t: the response twice
    (if (i32.eq (local.get $what) (i32.const 116))
      (then (call $begin (local.get $outparam) (i32.const 200)) (call $begin (local.get $outparam) (i32.const 200)) (return)))
    ;; h: a trap after the head
    (if (i32.eq (local.get $what) (i32.const 104))
      (then (call $begin (local.get $outparam) (i32.const 200)) (call $say-byte (i32.const 104)) unreachable))
    ;; w: no end after the head
    (if (i32.eq (local.get $what) (i32.const 119))
      (then (call $begin (local.get $outparam) (i32.const 200)) (loop $forever (br $forever))))
    ;; l: a body that is left as it is
    (if (i32.eq (local.get $what) (i32.const 108))
      (then (call $begin (local.get $outparam) (i32.const 200)) (call $say-byte (i32.const 108)) (return)))
    ;; b: a body that is given up
    (if (i32.eq (local.get $what) (i32.const 98))
      (then
        (call $begin (local.get $outparam) (i32.const 200))
        (call $say-byte (i32.const 98))
        (call $drop-stream (global.get $out))
        (call $drop-body (global.get $body))
        (return)))
    ;; m: 300,000 bytes
    (if (i32.eq (local.get $what) (i32.const 109))
      (then (call $begin (local.get $outparam) (i32.const 200)) (call $say (i32.const 65536) (i32.const 300000)) (call $end) (return)))
    ;; e: a piece, and another one when what it asks was answered
    (if (i32.eq (local.get $what) (i32.const 101))
      (then
        (call $begin (local.get $outparam) (i32.const 200))
        (call $say-byte (i32.const 49))
        (call $block (call $subscribe (call $ask (local.get $incoming) (i32.const 0))))
        (call $say-byte (i32.const 50))
        (call $end)
        (return)))
    ;; s: a status that is a failure; i: one that is none
    (if (i32.eq (local.get $what) (i32.const 115))
      (then (call $begin (local.get $outparam) (i32.const 404)) (call $say (i32.const 48) (i32.const 6)) (call $end) (return)))
    (if (i32.eq (local.get $what) (i32.const 105))
      (then (call $begin (local.get $outparam) (i32.const 101)) (call $end) (return)))
    ;; f: requests without an end, and nobody waits for their responses
    (if (i32.eq (local.get $what) (i32.const 102))
      (then
        (loop $forever
          (global.set $free (i32.const 65536))
          (drop (call $ask (local.get $incoming) (i32.const 0)))
          (br $forever))))
    ;; g, p, d: what another answers: GET, POST, DELETE
    (if (i32.eq (local.get $what) (i32.const 103)) (then (local.set $count (i32.const 1))))
    (if (i32.eq (local.get $what) (i32.const 112)) (then (local.set $count (i32.const 3))))
    (if (i32.eq (local.get $what) (i32.const 100)) (then (local.set $count (i32.const 5))))
    (if (local.get $count)
      (then
        (local.set $future (call $ask (local.get $incoming) (i32.sub (local.get $count) (i32.const 1))))
        (call $block (call $subscribe (local.get $future)))
        (call $answer (local.get $future) (i32.const 1200))
        (call $begin (local.get $outparam) (i32.const 200))
        (if (i32.load8_u (i32.const 1216))
          (then
            ;; The number of the error, as a letter.
            (call $say-byte (i32.add (i32.load8_u (i32.const 1224)) (i32.const 48))))
          (else
            (call $say-byte (i32.add (i32.div_u (call $status (i32.load (i32.const 1224))) (i32.const 100)) (i32.const 48)))
            (call $consume-response (i32.load (i32.const 1224)) (i32.const 1024))
            (call $copy (call $ok (i32.const 1024)) (global.get $out))))
        (call $end)
        (return)))
    ;; Anything else: method and scheme by their numbers, authority, path, a header, the body.
    (call $begin (local.get $outparam) (i32.const 201))
    (call $method (local.get $incoming) (i32.const 1100))
    (call $say-byte (i32.add (i32.load8_u (i32.const 1100)) (i32.const 48)))
    (call $scheme (local.get $incoming) (i32.const 1100))
    (call $say-byte (i32.add (i32.load8_u (i32.const 1104)) (i32.const 48)))
    (call $authority (local.get $incoming) (i32.const 1100))
    (call $say-byte (i32.const 32))
    (call $say (i32.load (i32.const 1104)) (i32.load (i32.const 1108)))
    (call $path (local.get $incoming) (i32.const 1100))
    (call $say-byte (i32.const 32))
    (call $say (i32.load (i32.const 1104)) (i32.load (i32.const 1108)))
    (call $say-byte (i32.const 32))
    (local.set $headers (call $headers (local.get $incoming)))
    (call $get (local.get $headers) (i32.const 32) (i32.const 7) (i32.const 1100))
    (if (i32.load (i32.const 1104))
      (then
        (local.set $count (i32.load (i32.const 1100)))
        (call $say (i32.load (local.get $count)) (i32.load offset=4 (local.get $count)))))
    (call $say-byte (i32.const 32))
    (call $consume (local.get $incoming) (i32.const 1024))
    (call $copy (call $ok (i32.const 1024)) (global.get $out))
    (call $end)))
