//! Checks of the user's NATS: whether it is there, has JetStream, and permits what a node does, by the node's own code.

use nex_bus::connect::{ConnectError, connect_with};
use nex_bus::denials::Denials;
use nex_bus::settings::{ConnectionSettings, DEFAULT_SERVER};
use nex_node::NodeConfig;
use nex_node::bus::server_lacks;
use nex_node::rehearsal::{self, NoJetStream};
use nex_node::service_users::{ServiceUsers, ServiceUsersError};

use super::check::Check;
use super::node::{SERVICE_USERS, advice};
use crate::args::{ConnectionArgs, NodeArgs};
use crate::env::Env;

const SERVER: &str = "NATS";
const JETSTREAM: &str = "NATS with JetStream";
const PERMISSION: &str = "permission on NATS";

/// Whether a check is one of these, which sandboxes do not need.
pub(super) fn is_of_nats(check: &Check) -> bool {
    [SERVER, JETSTREAM, PERMISSION, SERVICE_USERS].contains(&check.what.as_str())
}

/// Connects as the node would, and asks and subscribes as it does.
pub(super) async fn checks(args: &NodeArgs, config: &NodeConfig, connection: &ConnectionArgs, env: &Env) -> Vec<Check> {
    match found(args, config, connection, env).await {
        Ok(checks) => checks,
        Err(error) => vec![Check::new(SERVER, true, Err(error), "see what NATS says, and run preflight again")],
    }
}

async fn found(args: &NodeArgs, config: &NodeConfig, connection: &ConnectionArgs, env: &Env) -> anyhow::Result<Vec<Check>> {
    let settings = connection.settings(env)?;
    let denials = Denials::default();
    let client = match connect_with(&settings, &denials).await {
        Ok(client) => client,
        Err(error) => {
            // Who has not said where it is lets `nex up` start one, or starts it later.
            let is_there = !matches!(error, ConnectError::Unreachable { .. });
            let told = error.to_string();
            let advice = told.split_once("; next: ").map(|(_, advice)| advice).filter(|_| is_there);
            let start = "no node starts without it: start 'nats-server -js', let 'nex up' do it, or name the right one";
            let is_expected = is_there || settings.servers != [DEFAULT_SERVER];
            return Ok(vec![Check::new(JETSTREAM, is_expected, Err(error.into()), advice.unwrap_or(start))]);
        }
    };
    let shown = settings.shown_servers();
    let version = client.server_info().version;
    let mut checks = vec![Check::new(SERVER, true, Ok(format!("{shown}, version {version}")), "")];
    let lacks = server_lacks(&version).map(|lacks| anyhow::anyhow!("{lacks}"));
    checks.extend(lacks.map(|lacks| Check::new("version of NATS", false, Err(lacks), "update the server")));
    let enable = "start the server with -js, or have JetStream enabled for the account";
    let mut denied = Vec::new();
    match rehearsal::jetstream(&client, &denials).await {
        Ok(()) => checks.push(Check::new(JETSTREAM, false, Ok(shown), "")),
        Err(NoJetStream::Denied(denial)) => denied.push(denial),
        Err(lacking) => checks.push(Check::new(JETSTREAM, false, Err(lacking.into()), enable)),
    }
    let node = rehearsal::identity(&args.state_root(config, env)?.join("node"))?;
    denied.extend(rehearsal::denied(&client, &denials, &node).await.map_err(|error| anyhow::anyhow!("{error}"))?);
    checks.extend(service_users(config, &settings).await);
    let permit = "permit it (docs/security.md says who needs what), or connect as another user";
    if denied.is_empty() {
        checks.push(Check::new(PERMISSION, true, Ok("all that a node needs without host services and triggers".to_owned()), ""));
    }
    for denial in denied {
        let is_needed = rehearsal::is_needed(&denial);
        checks.push(Check::new(PERMISSION, is_needed, Err(denial.into()), permit));
    }
    Ok(checks)
}

/// Logs in as a user that the node would make for a service.
async fn service_users(config: &NodeConfig, settings: &ConnectionSettings) -> Option<Check> {
    // What is wrong with its key is told with the configuration.
    let users = ServiceUsers::load(config.service_credentials.as_ref()?).ok()?;
    let next = "see the reason";
    Some(match Box::pin(users.try_on(settings)).await {
        Ok(()) => Check::new(SERVICE_USERS, true, Ok(format!("of account {}, kept to what they may do", users.account())), ""),
        // A node starts then, and says so in its log.
        Err(error @ (ServiceUsersError::Connect(_) | ServiceUsersError::Silent)) => {
            Check::new(SERVICE_USERS, false, Err(error.into()), next)
        }
        Err(error) => {
            let next = advice(&error);
            Check::new(SERVICE_USERS, true, Err(error.into()), &next)
        }
    })
}
