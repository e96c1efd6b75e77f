//! Files of a service's environment, and new texts of them while it runs.

use nex_protocol::agent::{Answer, RejectCode, Update, subject};
use nex_protocol::deploy::WorkloadType;
use nex_protocol::id::InstanceId;
use nex_protocol::seal::{Environment, NATS_CREDS};

use crate::node::Node;
use crate::rejected;

/// Tells what it reads when it starts, and with each SIGHUP; what it has started would be ended by one.
const SERVICE: &[u8] = b"#!/bin/sh
tell() { echo \"$(cat $DB_FILE), $(cat $NATS_CREDS), $(env | grep -c s3cret)\"; }
trap tell HUP
tell
sleep 1000 &
while kill -0 $!; do wait $!; done
echo 'what it has started has ended'
";

fn members(list: &[(&str, &str)]) -> Environment {
    list.iter().map(|(member, text)| ((*member).to_owned(), (*text).to_owned())).collect()
}

impl Node {
    async fn update(&self, instance: &InstanceId, files: &Environment, signal: Option<&str>) -> Answer {
        let (files, sealed_by) = self.seal(files);
        self.send_update(instance, &Update { files, sealed_by, signal: signal.map(|name| name.parse().unwrap()) }).await
    }

    async fn send_update(&self, instance: &InstanceId, update: &Update) -> Answer {
        let body = serde_json::to_vec(update).unwrap();
        let answer = self.ask(subject::update(&self.agent, instance), async_nats::HeaderMap::new(), body).await;
        serde_json::from_slice(&answer.payload).unwrap()
    }

    async fn line(&mut self) -> String {
        self.logs().await.lines.remove(0).text
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_has_files_and_new_texts_of_them_while_it_runs() {
    let mut node = Node::start().await;
    let (instance, absent) = (InstanceId::new(1), InstanceId::new(2));
    let mut service = node.prepare(WorkloadType::Native, "service", SERVICE).await;
    let given = members(&[("nex:file:DB_FILE", "s3cret one"), (NATS_CREDS, "s3cret jwt")]);
    (service.environment, service.sealed_by) = node.seal(&given);
    assert_eq!(node.deploy(&instance, &service).await, Answer::Done);
    assert_eq!(node.line().await, "s3cret one, s3cret jwt, 0", "V10");

    let new = members(&[("nex:file:DB_FILE", "s3cret two")]);
    assert_eq!(node.update(&instance, &new, Some("SIGHUP")).await, Answer::Done, "V11");
    assert_eq!(node.line().await, "s3cret two, s3cret jwt, 0", "V11");

    for (files, why) in [
        (members(&[("nex:file:DB_FILE", "three"), ("nex:file:OTHER", "x")]), "one that it was not started with"),
        (members(&[("PATH", "three")]), "a variable"),
    ] {
        let answer = node.update(&instance, &files, Some("SIGHUP")).await;
        assert_eq!(rejected(&answer), Some(RejectCode::Environment), "V11: {why}");
    }
    let unsealed = Update { files: "AAAA".into(), sealed_by: node.seal(&new).1, signal: None };
    assert_eq!(rejected(&node.send_update(&instance, &unsealed).await), Some(RejectCode::Environment), "V11");
    assert_eq!(rejected(&node.update(&absent, &new, None).await), Some(RejectCode::Absent), "V11");
    // None of these has told it anything, or changed a file.
    assert_eq!(node.update(&instance, &members(&[(NATS_CREDS, "s3cret new")]), Some("SIGHUP")).await, Answer::Done);
    assert_eq!(node.line().await, "s3cret two, s3cret new, 0", "V11");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_has_no_files_to_replace() {
    let node = Node::start().await;
    let instance = InstanceId::new(1);
    let function = node.prepare(WorkloadType::V8, "echo", b"() => 1").await;
    assert_eq!(node.deploy(&instance, &function).await, Answer::Done);
    let answer = node.update(&instance, &members(&[(NATS_CREDS, "x")]), None).await;
    assert_eq!(rejected(&answer), Some(RejectCode::Unsupported), "V11");
}
