//! A leaf node with a JetStream domain of its own: whoever deploys there need not say which domain it is.

use nex_testkit::{NatsOptions, NatsServer};

use crate::world::{World, free_port};

#[test]
fn what_is_deployed_from_a_leaf_is_fetched_from_its_domain_by_nodes_of_the_hub() {
    let port = free_port();
    let directory = tempfile::tempdir().unwrap();
    let with = |domain: &str, leafnodes: String| {
        let store = directory.path().join(domain);
        let config =
            format!("jetstream {{ store_dir: \"{}\", domain: {domain} }}\nleafnodes {{ {leafnodes} }}\n", store.display());
        NatsOptions { config, jetstream: false, ..NatsOptions::default() }
    };
    let world = World::with_nats_like(with("hub", format!("listen: \"127.0.0.1:{port}\"")));
    let leaf = world.block_on(NatsServer::start_with(with("leaf", format!("remotes: [{{ url: \"nats://127.0.0.1:{port}\" }}]"))));
    let _node = world.node_up(&[]);
    let script = world.file("echo.js", "(subject, payload) => payload\n");
    let url = leaf.url();
    world.eventually("the leaf is connected", || world.nex(&["-s", &url, "node", "ls", "--json"]).text().contains("node_id"));
    world.nex(&["-s", &url, "devrun", &script]).expect(0);
    world.eventually("it is called", || world.nex(&["-s", &url, "call", "echojs", "hi", "--timeout", "1s"]).code == 0);
    world.nex(&["call", "echojs", "hi"]).expect(0).says(&["hi"]);
    // Where somebody says a domain, that one counts.
    world.nex(&["-s", &url, "--jsdomain", "nosuch", "devrun", &script, "--name", "other"]).expect(1);
}
