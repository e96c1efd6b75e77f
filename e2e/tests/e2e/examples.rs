//! The examples, run as they are: their files are applied, and what they promise is counted.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;

use async_nats::jetstream::{self, kv, object_store, stream};
use futures::StreamExt as _;
use nex_protocol::digest::Digest;
use nex_testkit::skip;
use serde_json::{Value, json};

use crate::running::Running;
use crate::world::{World, free_port};

fn example(name: &str) -> String {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name);
    root.to_str().unwrap().to_owned()
}

/// A node that has time for development builds, and listens for HTTP.
fn world() -> (World, Running, u16) {
    let (world, port) = (World::new(), free_port());
    world.file("config.json", r#"{"deploy_timeout_ms": 120000, "workload_types": ["native", "v8", "wasm"]}"#);
    let up = world.up(&["--http", &format!("127.0.0.1:{port}")]);
    (world, up, port)
}

fn context(world: &World) -> jetstream::Context {
    let client = world.client();
    world.block_on(async { jetstream::new(client) })
}

fn make_stream(world: &World, name: &str, subject: &str) {
    let (name, subjects) = (name.to_owned(), vec![subject.to_owned()]);
    let config = stream::Config { name, subjects, duplicate_window: Duration::from_secs(600), ..stream::Config::default() };
    let client = world.client();
    world.block_on(async { jetstream::new(client).create_stream(config).await.unwrap() });
}

fn publish(world: &World, subject: &str, body: &Value) {
    let context = context(world);
    world.block_on(async { context.publish(subject.to_owned(), body.to_string().into()).await.unwrap().await.unwrap() });
}

/// How many messages a stream has on a subject.
fn count(world: &World, stream: &str, subject: &str) -> usize {
    let context = context(world);
    world.block_on(async {
        let mut found = context.get_stream(stream).await.unwrap().info_with_subjects(subject).await.unwrap();
        let mut all = 0;
        while let Some(Ok((_, count))) = found.next().await {
            all += count;
        }
        all
    })
}

/// As RFC 2104 has it, of a key of up to a block.
fn hmac(key: &[u8], text: &[u8]) -> String {
    let mut block = [0; 64];
    block[..key.len()].copy_from_slice(key);
    let padded = |pad: u8| block.map(|byte| byte ^ pad).to_vec();
    let inner = Digest::of(&[padded(0x36), text.to_vec()].concat());
    Digest::of(&[padded(0x5c), inner.bytes().to_vec()].concat()).to_string()
}

#[test]
fn the_webhook_takes_what_is_signed_once_and_says_what_is_wrong_with_others() {
    let (world, _up, port) = world();
    make_stream(&world, "EVENTS", "events.>");
    world.nex_reading(&["secret", "set", "webhook"], b"key of the sender").expect(0);
    world.nex(&["apply", &example("webhook/nex.toml")]).expect(0);
    let post = |body: &str, key: &[u8]| {
        let (length, signature) = (body.len(), hmac(key, body.as_bytes()));
        let request = format!(
            "POST /events HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Signature-256: sha256={signature}\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let (key, event) = (&b"key of the sender"[..], r#"{"id":"1","type":"paid"}"#);
    let first = post(event, key);
    assert!(first.contains(" 202 ") && first.contains(r#"{"stored":1,"duplicate":false}"#), "{first}");
    assert!(post(event, key).contains(r#"{"stored":1,"duplicate":true}"#), "a sender may try again");
    assert!(post(event, b"another key").contains(" 401 "));
    assert!(post("{", key).contains(" 400 ") && post(r#"{"id":"2","type":"A B"}"#, key).contains(" 422 "));
    assert_eq!(count(&world, "EVENTS", "events.>"), 1);
}

#[test]
fn orders_are_charged_once_though_the_payments_fail_and_what_makes_no_sense_is_kept() {
    let (world, _up, _port) = world();
    make_stream(&world, "ORDERS", "orders.>");
    world.nex(&["apply", &example("orders/nex.toml")]).expect(0);
    // A service that is busy at first, and declines what is dear.
    let (client, mut tries) = (world.client(), std::collections::BTreeMap::<u64, u32>::new());
    let mut asked = world.block_on(client.subscribe("payments.charge")).unwrap();
    world.block_on(client.flush()).unwrap();
    for id in 1..=3 {
        publish(&world, "orders.new", &json!({ "id": id, "quantity": 2, "price": id * 100 }));
    }
    publish(&world, "orders.new", &json!({ "id": 4, "quantity": 0, "price": 1 }));
    while tries.values().filter(|tries| **tries >= 2).count() < 3 {
        let request =
            world.block_on(async { tokio::time::timeout(Duration::from_secs(30), asked.next()).await }).unwrap().unwrap();
        let order: Value = serde_json::from_slice(&request.payload).unwrap();
        let tried = tries.entry(order["order"].as_u64().unwrap()).or_default();
        *tried += 1;
        let status = match (*tried, order["amount"].as_u64().unwrap()) {
            (1, _) => "busy",
            (_, 600) => "declined",
            _ => "charged",
        };
        let answer = json!({ "status": status }).to_string();
        world.block_on(client.publish(request.reply.unwrap(), answer.into())).unwrap();
    }
    world.eventually("all have come to an end", || {
        (count(&world, "ORDERS", "orders.charged"), count(&world, "ORDERS", "orders.declined")) == (2, 1)
    });
    let dead = || world.nex(&["dead", "ls", "--json"]).expect(0).json().as_array().unwrap().clone();
    world.eventually("one is kept", || dead().len() == 1);
    assert!(dead()[0]["reason"].as_str().unwrap().contains("order 4 makes no sense"));
}

#[test]
fn pictures_in_the_object_store_get_thumbnails() {
    const TEST: &str = "pictures_in_the_object_store_get_thumbnails";
    let (mut world, _up, _port) = world();
    let home = std::env::var("HOME").unwrap_or_default();
    world.set("GOCACHE", &std::env::var("GOCACHE").unwrap_or_else(|_unset| format!("{home}/.cache/go-build")));
    if world.end(world.command("go", &["version"])).code != 0 {
        skip!(TEST, "no Go");
    }
    let wasm = world.text_path("thumbnails.wasm");
    let mut build = world.command("go", &["build", "-o", &wasm, "."]);
    build.current_dir(example("thumbnails")).env("GOOS", "wasip1").env("GOARCH", "wasm");
    world.end(build).expect(0);
    // The bucket of the function is there once it is used.
    let bucket = "hs_default_thumbnails_obj";
    let context = context(&world);
    let name = bucket.to_owned();
    let config = object_store::Config { bucket: name, ..object_store::Config::default() };
    let store = world.block_on(context.create_object_store(config)).unwrap();
    let trigger = format!("object:{bucket}?backoff=200ms");
    world
        .nex(&[
            "devrun",
            &wasm,
            "--name",
            "thumbnails",
            "--trigger",
            &trigger,
            "--memory-mib",
            "256",
            "--call-timeout",
            "60s",
            "--timeout",
            "180s",
        ])
        .expect(0);
    for (name, bytes) in [("red.png", png(200, 100)), ("notes.txt", b"no picture".to_vec())] {
        world.block_on(async { store.put(name, &mut bytes.as_slice()).await.unwrap() });
    }
    world.eventually("there is a thumbnail", || world.block_on(store.info("thumbnails/red.png")).is_ok());
    let small = world.block_on(async {
        let mut bytes = Vec::new();
        let mut object = store.get("thumbnails/red.png").await.unwrap();
        tokio::io::AsyncReadExt::read_to_end(&mut object, &mut bytes).await.unwrap();
        bytes
    });
    let number = |at: usize| u32::from_be_bytes(small[at..at + 4].try_into().unwrap());
    assert_eq!((&small[1..4], number(16), number(20)), (&b"PNG"[..], 64, 32));
    assert!(world.block_on(store.info("thumbnails/notes.txt")).is_err());
    assert!(world.nex(&["dead", "ls", "--json"]).expect(0).json().as_array().unwrap().is_empty());
}

/// A red picture: a PNG whose data is stored as it is.
fn png(width: u32, height: u32) -> Vec<u8> {
    let row: Vec<u8> = std::iter::once(0).chain([255, 0, 0].repeat(width as usize)).collect();
    let rows = row.repeat(height as usize);
    let (mut a, mut b) = (1_u32, 0_u32);
    for byte in &rows {
        a = (a + u32::from(*byte)) % 65_521;
        b = (b + a) % 65_521;
    }
    let mut data = vec![0x78, 1];
    let last = rows.chunks(60_000).count() - 1;
    for (index, block) in rows.chunks(60_000).enumerate() {
        let length = u16::try_from(block.len()).unwrap();
        data.push(u8::from(index == last));
        data.extend([length.to_le_bytes(), (!length).to_le_bytes()].concat());
        data.extend(block);
    }
    data.extend((b << 16 | a).to_be_bytes());
    let crc = |bytes: &[u8]| {
        !bytes
            .iter()
            .fold(!0_u32, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1))))
    };
    let chunk = |name: &[u8], data: &[u8]| {
        let named = [name, data].concat();
        [&u32::try_from(data.len()).unwrap().to_be_bytes(), &named[..], &crc(&named).to_be_bytes()].concat()
    };
    let head = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
    [b"\x89PNG\r\n\x1a\n".to_vec(), chunk(b"IHDR", &head), chunk(b"IDAT", &data), chunk(b"IEND", &[])].concat()
}

#[test]
fn sales_are_added_up_and_reported_on_time() {
    let (world, _up, _port) = world();
    world.nex(&["apply", &example("report/nex.toml")]).expect(0);
    world.nex(&["describe", "report"]).expect(0).says(&["cron:0 7 * * mon-fri?tz=Europe/Berlin", "active"]);
    for (item, amount) in [("tea", 3), ("cake", 2), ("tea", 4)] {
        world.nex(&["call", "sales", &json!({ "item": item, "amount": amount }).to_string()]).expect(0);
    }
    world.nex(&["call", "sales", "{}"]).expect(1).says(&["expected an item"]);
    let client = world.client();
    let mut reports = world.block_on(client.subscribe("reports.sales")).unwrap();
    world.block_on(client.flush()).unwrap();
    // Nobody waits for the morning.
    let file = format!("{}/report.mjs", example("report"));
    world.nex(&["devrun", &file, "--name", "report", "--trigger_subject", "sales", "--trigger", "every:1s"]).expect(0);
    let report = world.block_on(async { tokio::time::timeout(Duration::from_secs(30), reports.next()).await }).unwrap().unwrap();
    let report: Value = serde_json::from_slice(&report.payload).unwrap();
    assert_eq!((&report["items"]["tea"]["amount"], &report["items"]["cake"]["amount"]), (&7.into(), &2.into()), "{report}");
    assert_eq!((&report["number"], &report["schedule"]), (&1.into(), &"every:1s".into()));
}

#[test]
fn prices_that_change_much_are_told_once_and_small_changes_are_not() {
    let (world, _up, _port) = world();
    let context = context(&world);
    let config = kv::Config { bucket: "PRICES".to_owned(), history: 10, ..kv::Config::default() };
    let bucket = world.block_on(context.create_key_value(config)).unwrap();
    let client = world.client();
    let mut changed = world.block_on(client.subscribe("prices.changed")).unwrap();
    world.block_on(client.flush()).unwrap();
    world.nex(&["apply", &example("prices/nex.toml")]).expect(0);
    let next = |changed: &mut async_nats::Subscriber| {
        let message = world.block_on(async { tokio::time::timeout(Duration::from_secs(30), changed.next()).await });
        serde_json::from_slice::<Value>(&message.unwrap().unwrap().payload).unwrap()
    };
    let set = |price: &str| world.block_on(bucket.put("tea", price.to_owned().into())).unwrap();
    let settled = |done: u64| {
        world.eventually("it is dealt with", || {
            let told = world.nex(&["describe", "prices", "--json"]).expect(0).json();
            told[0]["trigger_states"][0]["done"].as_u64() == Some(done)
        });
    };
    for (index, price) in ["100", "105", "120"].iter().enumerate() {
        set(price);
        settled(index as u64 + 1);
    }
    assert_eq!(next(&mut changed), json!({ "item": "tea", "before": 100, "price": 120 }));
    set("119");
    settled(4);
    world.block_on(bucket.delete("tea")).unwrap();
    settled(5);
    set("60");
    settled(6);
    assert_eq!(next(&mut changed), json!({ "item": "tea", "before": 120, "price": 60 }), "and of nothing between");
}

#[test]
fn ten_thousand_tasks_are_done_once_each() {
    const TASKS: usize = 10_000;
    let (world, _up, _port) = world();
    make_stream(&world, "FAN", "fan.>");
    world.nex(&["apply", &example("fan-out/nex.toml")]).expect(0);
    publish(&world, "fan.job", &json!({ "job": "a", "count": TASKS }));
    world.eventually("all are done", || count(&world, "FAN", "fan.result") >= TASKS);
    assert_eq!((count(&world, "FAN", "fan.task"), count(&world, "FAN", "fan.result")), (TASKS, TASKS));
    let context = context(&world);
    let tasks: BTreeSet<u64> = world.block_on(async {
        let stream = context.get_stream("FAN").await.unwrap();
        let config = jetstream::consumer::pull::OrderedConfig {
            filter_subject: "fan.result".to_owned(),
            ..jetstream::consumer::pull::OrderedConfig::default()
        };
        let messages = stream.create_consumer(config).await.unwrap().messages().await.unwrap();
        let read = |message: Result<jetstream::Message, _>| {
            serde_json::from_slice::<Value>(&message.unwrap().payload).unwrap()["task"].as_u64().unwrap()
        };
        messages.take(TASKS).map(read).collect().await
    });
    assert_eq!(tasks.len(), TASKS, "each of them");
    assert!(world.nex(&["dead", "ls", "--json"]).expect(0).json().as_array().unwrap().is_empty());
}
