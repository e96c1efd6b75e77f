//! A node as a library, against a real nats-server, with real agents in real sandboxes.

#[cfg(test)]
mod node {
    use std::path::{Path, PathBuf};
    use std::time::Duration;

    use nex_bus::connect::{Persistence, connect};
    use nex_bus::settings::ConnectionSettings;
    use nex_client::Client;
    use nex_client::artifact::{DEFAULT_BUCKET, DEFAULT_BUCKET_BYTES, Upload};
    use nex_client::deploy::{Deployment, Keys, Target};
    use nex_node::{Node, NodeConfig, NodeOptions};
    use nex_protocol::control::AuctionRequest;
    use nex_protocol::deploy::{Location, WorkloadType};
    use nex_testkit::{NatsServer, dist_binary, guest, nats_server_binary};
    use nkeys::{KeyPair, XKey};

    struct World {
        node: Node,
        client: Client,
        keys: Keys,
        dir: tempfile::TempDir,
        _nats: NatsServer,
    }

    async fn world(config: NodeConfig) -> World {
        tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_test_writer().try_init().ok();
        let nats = NatsServer::start().await;
        let dir = tempfile::tempdir().unwrap();
        let connection = ConnectionSettings::to_servers(&nats.url());
        let node = Node::start(NodeOptions {
            connection: connection.clone(),
            config,
            state_dir: dir.path().join("state"),
            agent_binary: dist_binary("nex-agent"),
            nats_server: nats_server_binary(),
            nexus: "test".into(),
        })
        .await
        .unwrap();
        let client = Client::new(connect(&connection, Persistence::Once).await.unwrap(), "default".parse().unwrap());
        let keys = Keys { issuer: KeyPair::new_account(), sender: XKey::new() };
        World { node, client, keys, dir, _nats: nats }
    }

    impl World {
        async fn deploy(&self, name: &str, kind: WorkloadType, bytes: &[u8]) -> (Target, nex_protocol::deploy::DeployResponse) {
            let file: PathBuf = self.dir.path().join(name);
            std::fs::write(&file, bytes).unwrap();
            let deployment = self.deployment(name, kind, &file).await;
            let wanted = AuctionRequest { workload_types: Some(vec![kind.to_string()]), ..AuctionRequest::default() };
            let bid = self.client.auction(&wanted, Duration::from_secs(2)).await.unwrap().best().unwrap();
            let target = Target::from(&bid);
            let started = self.client.deploy(&deployment, &target, &self.keys).await.unwrap();
            (target, started)
        }

        async fn deployment(&self, name: &str, kind: WorkloadType, file: &Path) -> Deployment {
            let location = Location::new(DEFAULT_BUCKET, name).unwrap();
            let upload = Upload { location, jetstream_domain: None, bucket_bytes: DEFAULT_BUCKET_BYTES, file: file.to_owned() };
            let artifact = self.client.upload(&upload, |_, _| ()).await.unwrap().artifact;
            Deployment::new(name.parse().unwrap(), kind, artifact)
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn functions_of_both_kinds_are_deployed_called_and_stopped_and_nothing_is_left() {
        let world = world(NodeConfig::default()).await;
        world.node.warm().await.unwrap();
        let (target, js) = world.deploy("greet", WorkloadType::V8, guest::GREET_MJS.as_bytes()).await;
        let reply = world.client.call("greet", "world".into(), Duration::from_secs(5)).await.unwrap();
        assert_eq!(reply, "\"Hello, world!\"");
        world.deploy("echo", WorkloadType::Wasm, &guest::assemble(guest::ECHO_WAT)).await;
        let reply = world.client.call("echo", "ping".into(), Duration::from_secs(5)).await.unwrap();
        assert_eq!(reply, "ping");
        world.client.stop(&target.node, &js.id.parse().unwrap(), &js.name.parse().unwrap(), &world.keys.issuer).await.unwrap();
        world.node.stop().await;
        let left: Vec<_> = std::fs::read_dir(world.dir.path().join("state/agents")).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}
