//! `nex whoami`: which key signs, which server is meant and by what, which user that makes, and what it may do.

use std::collections::BTreeSet;
use std::time::Duration;

use async_nats::Client;
use nex_bus::denials::Denials;
use nex_bus::settings::ConnectionSettings;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::args::ConnectionArgs;
use crate::env::Env;
use crate::output::Output;
use crate::table::{Grid, properties};
use crate::{keys, session};

/// What a server tells of the user who asks.
const USER_INFO: &str = "$SYS.REQ.USER.INFO";

/// The user as its server sees it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct User {
    user: String,
    account: String,
    permissions: Option<Permissions>,
    expires: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Permissions {
    publish: Option<Subjects>,
    subscribe: Option<Subjects>,
    responses: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Subjects {
    // A server tells them in another order each time.
    allow: BTreeSet<String>,
    deny: BTreeSet<String>,
}

#[derive(Debug, Deserialize)]
struct Answer {
    data: User,
}

/// Asks and prints; what is known without a server is printed all the same.
pub(crate) async fn run(connection: &ConnectionArgs, env: &Env, output: &mut Output) -> anyhow::Result<()> {
    let issuer = keys::known_issuer(None, env)?.map(|key| key.public_key());
    let (source, settings) = (connection.source(env), connection.settings(env));
    let session = session::open(connection, env).await;
    let told = match &session {
        Ok(session) => ask(session.client.nats(), &connection.denials, session.discovery_timeout).await,
        Err(_) => Err("there is no connection".to_owned()),
    };
    let server = session.as_ref().ok().map(|session| session.client.nats().server_info());
    let servers = settings.as_ref().map(ConnectionSettings::shown_servers).unwrap_or_default();
    if output.is_json() {
        let user = told.as_ref().ok();
        let subjects = |which: fn(&Permissions) -> Option<&Subjects>| {
            let found = user.and_then(|user| which(user.permissions.as_ref()?));
            found.map(|it| json!({ "allow": it.allow, "deny": it.deny }))
        };
        output.document(&json!({
            "issuer": issuer, "namespace": connection.namespace, "connection": source, "servers": servers,
            "server": server.as_ref().map(|it| json!({ "name": it.server_name, "version": it.version, "tls": it.tls_required })),
            "user": user.map(|it| &it.user), "account": user.map(|it| &it.account), "expires_ns": user.and_then(|it| it.expires),
            "publish": subjects(|it| it.publish.as_ref()), "subscribe": subjects(|it| it.subscribe.as_ref()),
            "not_told": told.as_ref().err(),
        }))?;
    } else {
        let mut rows = vec![
            ("Issuer", issuer.unwrap_or_else(|| "none yet: the first deploy makes one, in ~/.nex/issuer.nk".to_owned())),
            ("Namespace", connection.namespace.to_string()),
            ("Connection", source),
            ("Servers", servers),
        ];
        rows.extend(server.map(|it| ("Server", format!("{}, nats-server {}", it.server_name, it.version))));
        match &told {
            Ok(user) => rows.extend(of_user(user)),
            Err(why) => rows.push(("User", format!("not told: {why}"))),
        }
        output.table(&as_table(rows))?;
    }
    session.map(drop)
}

fn as_table(rows: Vec<(&'static str, String)>) -> Grid {
    properties("Who you are", rows)
}

async fn ask(nats: &Client, denials: &Denials, wait: Duration) -> Result<User, String> {
    let asked = tokio::time::timeout(wait, nats.request(USER_INFO, "".into()));
    let answer = tokio::select! {
        answer = asked => answer.map_err(|_late| "the server does not answer".to_owned())?.map_err(|error| error.to_string())?,
        denial = denials.first() => return Err(format!("this user may not {} \"{}\"", denial.action.verb(), denial.subject)),
    };
    serde_json::from_slice::<Answer>(&answer.payload)
        .map(|answer| answer.data)
        .map_err(|_other| "the server tells it in another way".to_owned())
}

fn of_user(user: &User) -> Vec<(&'static str, String)> {
    let mut rows = vec![("User", user.user.clone()), ("Account", user.account.clone())];
    if let Some(nanos) = user.expires.filter(|nanos| *nanos > 0) {
        rows.push(("Expires in", nex_protocol::control::uptime(Duration::from_nanos(nanos))));
    }
    let none = Permissions::default();
    let permissions = user.permissions.as_ref().unwrap_or(&none);
    rows.push(("May publish", subjects(permissions.publish.as_ref())));
    rows.push(("May subscribe", subjects(permissions.subscribe.as_ref())));
    if permissions.responses.is_some() {
        rows.push(("May answer", "whatever it is asked".to_owned()));
    }
    rows
}

fn subjects(subjects: Option<&Subjects>) -> String {
    let Some(Subjects { allow, deny }) = subjects else { return "everything".to_owned() };
    let list = |of: &BTreeSet<String>| of.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    let allowed = if allow.is_empty() { "everything".to_owned() } else { list(allow) };
    if deny.is_empty() { allowed } else { format!("{allowed}; not {}", list(deny)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_told_as_the_server_has_them() {
        let text = r#"{"data":{"user":"me","account":"$G","permissions":{"publish":{"allow":["b","a.>"],"deny":["a.x"]},
            "subscribe":{"deny":["c"]},"responses":{"max":1}},"expires":90000000000}}"#;
        let user = serde_json::from_str::<Answer>(text).unwrap().data;
        let rows: Vec<String> = of_user(&user).iter().map(|(name, value)| format!("{name}: {value}")).collect();
        assert_eq!(
            rows,
            [
                "User: me",
                "Account: $G",
                "Expires in: 1m30s",
                "May publish: a.>, b; not a.x",
                "May subscribe: everything; not c",
                "May answer: whatever it is asked",
            ]
        );
        let free = serde_json::from_str::<Answer>(r#"{"data":{"user":"me","account":"$G"}}"#).unwrap().data;
        assert!(of_user(&free).contains(&("May publish", "everything".to_owned())));
    }
}
