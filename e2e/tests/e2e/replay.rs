//! Messages that functions are called with once more: nothing is done a second time, what differs is said, and nobody else learns a secret.

use data_encoding::BASE64;
use futures::StreamExt as _;
use serde_json::Value;

use crate::triggers::stream;
use crate::world::World;

const TRIGGER: &str = "stream:ORDERS?filter=orders.new&max-deliver=2&backoff=10ms";
const SECRET: &str = "s3cret-of-the-shop";

/// Counts in its bucket, tells the shop with its token, and fails where there is no total.
const BROKEN: &str = r#"
const bytes = (text) => new TextEncoder().encode(text);
export default (subject, payload) => {
  const { kv, messaging } = hostServices;
  const order = JSON.parse(new TextDecoder().decode(payload));
  let seen = 0;
  try { seen = Number(new TextDecoder().decode(kv.get("seen"))); } catch {}
  kv.set("seen", bytes(String(seen + 1)));
  messaging.publish("shop.told", bytes(`${order.id} with ${env.TOKEN}`));
  if (!order.total) throw new Error(`no total in order ${order.id}, of ${seen + 1}`);
  return { total: order.total };
};
"#;

fn dead(world: &World) -> Vec<Value> {
    world.nex(&["dead", "ls", "--json"]).expect(0).json().as_array().unwrap().clone()
}

/// A world with a broken function that has given a message up, and the number of the dead letter.
fn with_a_dead_letter() -> (World, crate::running::Running, String) {
    let world = World::new();
    let up = world.up(&[]);
    stream(&world, "ORDERS", "orders.>");
    let file = world.file("orders.mjs", BROKEN);
    let token = format!("TOKEN={SECRET}");
    world.nex(&["devrun", &file, &token, "--name", "orders", "--trigger", TRIGGER]).expect(0);
    world.nex(&["call", "orders.new", r#"{"id":7}"#]).expect(0);
    world.eventually("it is given up", || dead(&world).len() == 1);
    let number = dead(&world)[0]["number"].to_string();
    (world, up, number)
}

#[test]
fn a_dead_letter_is_replayed_from_its_record_and_nothing_is_done_again() {
    let (world, _up, number) = with_a_dead_letter();
    let client = world.client();
    let mut told = world.block_on(client.subscribe("shop.told")).unwrap();
    world.block_on(client.flush()).unwrap();
    let reason = "no total in order 7, of 2";
    let same = world.nex(&["replay", &number]).expect(0);
    same.says(&["it failed: Error: no total in order 7, of 2", "3 now, 3 on record", "The same as on record"])
        .says_not("instead of");

    let fixed = BROKEN
        .replace("if (!order.total)", "if (false)")
        .replace("with ${", "by ${")
        .replace("String(seen + 1)", "String(seen + 2)");
    let fixed = world.file("fixed.mjs", fixed);
    let differs = world.nex(&["replay", &number, "--file", &fixed]).expect(7);
    let told_token = format!("\"7 by {SECRET}\" instead of \"7 with {SECRET}\"");
    differs.says(&[reason, "it replied", "~ kv.set seen: \"3\" instead of \"2\"", "~ messaging.publish shop.told", &told_token]);
    let json = world.nex(&["replay", &number, "--file", &fixed, "--json"]).expect(7).json();
    assert_eq!(
        (&json["now"]["outcome"], &json["is_same"], &json["is_recorded"]),
        (&"replied".into(), &false.into(), &true.into())
    );
    assert_eq!(json["differences"].as_array().unwrap().len(), 2, "{json}");

    let silent = world.file("silent.mjs", "export default (s, p) => { hostServices.objectStore.put('x', p) }");
    let unknown = world.nex(&["replay", &number, "--file", &silent]).expect(7);
    unknown.says(&["- kv.get seen is not made any more", "+ objectstore.put x is new", "refused in a replay"]);
    let names: Vec<_> = world.ps().iter().map(|it| it["name"].clone()).collect();
    assert_eq!(names, ["orders"], "nothing is left of the trials");
    let more = world.block_on(async { tokio::time::timeout(std::time::Duration::from_millis(1), told.next()).await });
    assert!(more.is_err(), "nobody was told a second time: {more:?}");
    assert_eq!(dead(&world).len(), 1, "it is where it was");
    world.nex(&["replay", "99"]).expect(1).says(&["there is no dead letter 99", "nex dead ls"]);
    world.nex(&["replay", "ORDERS:9", "--workload", "orders"]).expect(1).says(&["cannot read message 9 of stream ORDERS"]);
    world.nex(&["replay", "ORDERS"]).expect(2).says(&["STREAM:SEQUENCE"]);
    world.nex(&["replay", "ORDERS:1"]).expect(2).says(&["name one with --workload"]);
}

#[test]
fn a_stored_message_has_no_record_and_its_host_calls_are_refused_or_made() {
    let (world, _up, _number) = with_a_dead_letter();
    let client = world.client();
    let mut told = world.block_on(client.subscribe("shop.told")).unwrap();
    world.block_on(client.flush()).unwrap();
    let refused = world.nex(&["replay", "ORDERS:1", "--workload", "orders"]).expect(1);
    refused.says(&[
        "no record",
        "refused; next: make them with --live",
        "refused in a replay",
        "nothing on record to compare with",
    ]);
    let live = world.nex(&["replay", "ORDERS:1", "--workload", "orders", "--live"]).expect(1);
    live.says(&["all are made", "messaging.publish shop.told", "no total in order 7, of 3"]);
    let first = world.block_on(async { tokio::time::timeout(std::time::Duration::from_secs(10), told.next()).await });
    assert_eq!(first.unwrap().unwrap().payload, format!("7 with {SECRET}"));
    world.nex(&["call", "orders.new", r#"{"id":8,"total":3}"#]).expect(0);
    let good = world.nex(&["replay", "ORDERS:2", "--workload", "orders", "--live"]).expect(0);
    good.says(&["it replied", "{\"total\":3}"]);
}

#[test]
fn no_secret_is_to_be_had_by_replays_without_the_key_of_the_deployer() {
    let (mut world, _up, number) = with_a_dead_letter();
    // What is stored says nothing, in no form.
    let client = world.client();
    let letter = world.block_on(async {
        let stream = async_nats::jetstream::new(client.clone()).get_stream("NEX_DEAD_default").await.unwrap();
        stream.get_raw_message(number.parse().unwrap()).await.unwrap()
    });
    let record = letter.headers.get("Nex-Dead-Calls").unwrap().as_str().to_owned();
    let (_, sealed) = record.split_once(' ').unwrap();
    let opened = String::from_utf8_lossy(&BASE64.decode(sealed.as_bytes()).unwrap()).into_owned();
    for form in [SECRET.to_owned(), BASE64.encode(SECRET.as_bytes())] {
        assert!(!record.contains(&form) && !opened.contains(&form), "the token is there to be read");
    }
    world.nex(&["dead", "show", &number]).expect(0).says_not(SECRET);

    // Whoever redrives to himself gets the message, and not what the function did.
    let mut mine = world.block_on(client.subscribe("mine")).unwrap();
    world.block_on(client.flush()).unwrap();
    let takes = world.start(&["dead", "redrive", &number, "--to", "mine"]);
    let got = world.block_on(async { tokio::time::timeout(std::time::Duration::from_secs(10), mine.next()).await });
    let got = got.unwrap().unwrap();
    assert!(got.headers.is_none_or(|headers| headers.get("Nex-Dead-Calls").is_none()));
    takes.interrupt();

    // Requests that were overheard, changed, or made by a stranger.
    let node = world.node_id();
    let subject = format!("$NEX.REPLAY.default.{node}");
    let mut heard = world.block_on(client.subscribe(subject.clone())).unwrap();
    world.block_on(client.flush()).unwrap();
    world.nex(&["replay", &number]).expect(0);
    let asked = world.block_on(heard.next()).unwrap();
    let mut changed: Value = serde_json::from_slice(&asked.payload).unwrap();
    assert!(!String::from_utf8_lossy(&asked.payload).contains(SECRET));
    let ask = |body: String| {
        let answer = world.block_on(client.request(subject.clone(), body.into())).unwrap();
        String::from_utf8(answer.payload.to_vec()).unwrap()
    };
    let again = ask(String::from_utf8(asked.payload.to_vec()).unwrap());
    assert!(again.contains("it came before"), "{again}");
    changed["payload"] = serde_json::json!({ "text": "{\"id\":8}" });
    let forged = ask(changed.to_string());
    assert!(forged.contains("do not belong together"), "{forged}");
    changed["sealed"] = "AAAA".into();
    assert!(ask(changed.to_string()).contains("not sealed to this node"));
    assert!(ask("[]".to_owned()).contains("Unable to deserialize"));

    world.set("HOME", &world.text_path("stranger"));
    std::fs::create_dir(world.path("stranger")).unwrap();
    let stranger = world.nex(&["replay", &number]).expect(1);
    stranger.says(&["There is no record of host calls that we can open", "no copy of 'orders' of ours runs"]).says_not(SECRET);
    let issuer = world.text_path("home/.nex/issuer.nk");
    let half = world.nex(&["replay", &number, "--live", "--issuer", &issuer]).expect(3);
    half.says(&["not sealed to this node by the curve key that deployed the workload"]).says_not(SECRET);
}
