//! Fuzz targets, one for every parser of untrusted bytes: it must not panic, and what it accepts must keep its invariants. The corpus
//! test and the coverage-guided fuzzer (`cargo-fuzz/`) call them.
#![expect(clippy::missing_panics_doc, reason = "a target reports a finding by a panic")]

use std::path::Path;
use std::str::FromStr;
use std::sync::LazyLock;

use nex_bus::context::{self, Directories};
use nex_bus::denials::Denial;
use nex_node::{NodeConfig, RawConfig};
use nex_protocol::claims::Claims;
use nex_protocol::deploy::{DeployRequest, Location, StopRequest, request_digest};
use nex_protocol::digest::Digest;
use nex_protocol::envelope::{kind, open};
use nex_protocol::event::CloudEvent;
use nex_protocol::host::Service;
use nex_protocol::id::{Namespace, NodeId, WorkloadId, WorkloadName};
use nex_protocol::image_store::{ImageName, ImageRecord, Key};
use nex_protocol::log::LogLine;
use nex_protocol::reply::ReplySubject;
use nex_protocol::subject::{Control, LogSource, ServiceQuestion, covers, is_valid_pattern, overlap};
use nex_protocol::{agent, control, guest, seal};
use nkeys::XKey;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A parser under test.
pub type Target = fn(&[u8]);

/// All targets, named like their corpus directories.
pub const TARGETS: [(&str, Target); 23] = [
    ("control", control_body),
    ("deploy", deploy_body),
    ("location", location),
    ("subject", subject),
    ("name", name),
    ("claims", claims),
    ("sealed", sealed),
    ("agent", agent_message),
    ("event", event_or_log),
    ("config", node_config),
    ("context", nats_context),
    ("guest", guest_channel),
    ("qmp", qmp_line),
    ("firecracker", firecracker_answer),
    ("cni", cni_documents),
    ("netlink", netlink_datagram),
    ("alias", device_alias),
    ("layer", image_layer),
    ("image", image_of_a_workload),
    ("oci", oci_document),
    ("kernel", kernel_library),
    ("zip", zip_file),
    ("erofs", erofs_superblock),
];

/// Decodes JSON, and checks that an accepted value survives a round trip.
fn round_trip<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let value: T = serde_json::from_slice(bytes).ok()?;
    let written = serde_json::to_vec(&value).unwrap_or_default();
    let again: Option<T> = serde_json::from_slice(&written).ok();
    let again = again.and_then(|again| serde_json::to_vec(&again).ok());
    assert_eq!(again.as_deref(), Some(written.as_slice()), "what was written is not read as the same");
    Some(value)
}

/// Parses text, and checks that an accepted value survives a round trip.
fn text_round_trip<T: FromStr + ToString + PartialEq>(text: &str) -> Option<T> {
    let value: T = text.parse().ok()?;
    assert!(value.to_string().parse::<T>().is_ok_and(|again| again == value), "what was displayed is not parsed as the same");
    Some(value)
}

/// Bodies of AUCTION, and all replies.
pub fn control_body(bytes: &[u8]) {
    if let Some(auction) = round_trip::<control::AuctionRequest>(bytes) {
        drop(auction.mismatches(&control::Tags::new(), true, &[]));
    }
    drop(round_trip::<control::HistoryRequest>(bytes));
    drop(round_trip::<control::HistoryResponse>(bytes));
    drop(open::<control::NodeSummary>(kind::AUCTION, bytes));
    drop(open::<control::WorkloadPingResponse>(kind::PING, bytes));
    drop(open::<control::InfoResponse>(kind::INFO, bytes));
    drop(open::<control::LameDuckResponse>(kind::LAME_DUCK, bytes));
    drop(open::<serde_json::Value>(kind::RUN, bytes));
}

/// Bodies of DEPLOY and STOP.
pub fn deploy_body(bytes: &[u8]) {
    round_trip::<DeployRequest>(bytes);
    round_trip::<StopRequest>(bytes);
    drop(request_digest(bytes));
}

/// Locations of artifacts, as JSON and as text.
pub fn location(bytes: &[u8]) {
    round_trip::<Location>(bytes);
    text_round_trip::<Location>(&String::from_utf8_lossy(bytes));
}

/// Subjects and patterns; checks the overlap of two lines.
pub fn subject(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (left, right) = text.split_once('\n').unwrap_or((&text, "$NEX.>"));
    drop((
        Control::parse(left),
        ServiceQuestion::parse(left),
        LogSource::parse(left),
        agent::subject::FromAgent::parse(left),
        agent::subject::Verb::parse(left),
    ));
    if let Ok(reply) = ReplySubject::parse(left) {
        assert!(!reaches_server(reply.as_str()), "an answer goes where it is an order: {reply}");
    }
    if is_valid_pattern(left) && is_valid_pattern(right) && covers(left, right) {
        assert!(overlap(left, right), "what is covered is not overlapped");
    }
    assert_eq!(overlap(left, right), overlap(right, left), "overlap is not symmetric");
    if is_valid_pattern(left) {
        assert!(overlap(left, left) && overlap(left, ">"), "a pattern does not overlap itself");
    }
}

fn reaches_server(subject: &str) -> bool {
    subject.starts_with('$') || subject.contains(['*', '>', '\r', '\n', ' '])
}

/// Ids, names and digests; accepted ones must be safe in subjects and paths.
pub fn name(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let accepted = [
        text_round_trip::<Namespace>(&text).map(String::from),
        text_round_trip::<WorkloadName>(&text).map(String::from),
        text_round_trip::<WorkloadId>(&text).map(String::from),
        text_round_trip::<NodeId>(&text).map(String::from),
        text_round_trip::<Digest>(&text).map(String::from),
    ];
    for name in accepted.into_iter().flatten() {
        assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'), "unsafe name: {name}");
    }
    drop((Service::from_str(&text), Digest::from_object_store(&text), ImageRecord::read(&text)));
    if let Some(image) = text_round_trip::<ImageName>(&text) {
        assert!(!image.name.contains("..") && !image.name.starts_with('/'), "unsafe name: {image}");
    }
    if let Some(key) = Key::of(&text) {
        assert_eq!(key.to_string(), text, "what was read is not written as the same");
    }
}

/// Workload claims.
pub fn claims(bytes: &[u8]) {
    if let Ok(claims) = Claims::decode(&String::from_utf8_lossy(bytes)) {
        drop(claims.check_times(0));
    }
}

/// Sealed environments, as base64 for a fixed recipient.
pub fn sealed(bytes: &[u8]) {
    static KEYS: LazyLock<(XKey, String)> =
        LazyLock::new(|| (XKey::new_from_raw([1; 32]), XKey::new_from_raw([2; 32]).public_key()));
    let text = String::from_utf8_lossy(bytes);
    let (recipient, sender) = &*KEYS;
    drop(seal::open(&text, recipient, sender));
    drop(seal::open("", recipient, &text));
    static NODE: LazyLock<NodeId> =
        LazyLock::new(|| nkeys::KeyPair::new_server().public_key().parse().unwrap_or_else(|error| unreachable!("{error}")));
    assert!(!seal::is_xkey_of(&NODE, sender, &text), "nobody has signed this");
}

/// What agents say on the internal bus.
pub fn agent_message(bytes: &[u8]) {
    round_trip::<agent::Handshake>(bytes);
    round_trip::<agent::Welcome>(bytes);
    round_trip::<agent::Answer>(bytes);
    round_trip::<agent::EventAck>(bytes);
    round_trip::<agent::Logs>(bytes);
    round_trip::<agent::AgentEvent>(bytes);
    round_trip::<agent::Deploy>(bytes);
    round_trip::<agent::Undeploy>(bytes);
    round_trip::<agent::Identity>(bytes);
}

/// Events and log lines, as clients read them.
pub fn event_or_log(bytes: &[u8]) {
    round_trip::<CloudEvent>(bytes);
    round_trip::<LogLine>(bytes);
}

/// A node's configuration: what is accepted can be given its meaning, or all that is wrong with it is said.
pub fn node_config(bytes: &[u8]) {
    if let Ok(raw) = RawConfig::parse(&String::from_utf8_lossy(bytes)) {
        match NodeConfig::resolve(raw) {
            Ok(config) => assert!(config.pool_size > 0 && config.workload_limits.concurrency > 0, "a limit was lost"),
            Err(invalid) => assert!(!invalid.0.is_empty(), "refused without a reason"),
        }
    }
}

/// A context of the NATS CLI.
pub fn nats_context(bytes: &[u8]) {
    let directories = Directories { config: "/config".into(), home: Some("/home".into()) };
    drop(context::parse(&String::from_utf8_lossy(bytes), Path::new("context.json"), &directories));
    drop(Denial::parse(&String::from_utf8_lossy(bytes)));
}

/// What a node and the init of a guest say to each other, and what the metadata service holds.
pub fn guest_channel(bytes: &[u8]) {
    round_trip::<guest::FromGuest>(bytes);
    round_trip::<guest::ToGuest>(bytes);
    round_trip::<guest::GuestIdentity>(bytes);
}

/// What QEMU says.
pub fn qmp_line(bytes: &[u8]) {
    drop(nex_vmm::fuzz::qmp(bytes));
}

/// What Firecracker answers.
pub fn firecracker_answer(bytes: &[u8]) {
    let _verdict = nex_vmm::fuzz::firecracker(bytes);
}

/// Lists of plug-ins, and what plug-ins answer.
pub fn cni_documents(bytes: &[u8]) {
    nex_network::fuzz::cni(bytes);
}

/// What the kernel says of devices, addresses and routes.
pub fn netlink_datagram(bytes: &[u8]) {
    nex_network::fuzz::netlink(bytes);
}

/// Whose a device is.
pub fn device_alias(bytes: &[u8]) {
    nex_network::fuzz::alias(bytes);
}

/// Archives of images, as a client packs and as a node builds them, and configurations of images.
pub fn image_of_a_workload(bytes: &[u8]) {
    drop(nex_image::fuzz::workload(bytes));
    drop(nex_image::fuzz::pack(bytes));
    drop(nex_image::fuzz::config(bytes));
    assert!(nex_protocol::image::signal(&String::from_utf8_lossy(bytes)).is_none_or(|number| (1..=31).contains(&number)));
}

/// Tarballs and layers of images.
pub fn image_layer(bytes: &[u8]) {
    drop(nex_image::fuzz::layer(bytes));
}

/// Indexes, manifests and names of images.
pub fn oci_document(bytes: &[u8]) {
    drop(nex_image::fuzz::document(bytes));
}

/// Libraries with a kernel: what is accepted is a file that monitors boot.
pub fn kernel_library(bytes: &[u8]) {
    if let Ok(kernel) = nex_image::fuzz::kernel(bytes) {
        assert!(kernel.starts_with(b"\x7fELF") && kernel.len() <= bytes.len() + 4096, "no kernel was made of it");
    }
}

/// Zip files.
pub fn zip_file(bytes: &[u8]) {
    drop(nex_image::fuzz::zip(bytes));
}

/// Superblocks of images.
pub fn erofs_superblock(bytes: &[u8]) {
    let _found = nex_erofs::fuzz::superblock(bytes);
}
