//! The broker's configuration, from the charter: accounts, NKeys and subject permissions. Production and lab
//! are configured by this one generator.
//!
//! Nodes, operators, signing clients and the broker's administrator live in accounts of their own. A node
//! may publish only under its own number; a console may ask and listen, and write nothing. A node that the charter
//! excludes has no user.

use std::fmt::Write as _;
use std::path::Path;

use crate::charter::{Charter, Node};
use crate::subject;

/// What is the host's, not the charter's.
#[derive(Debug, Clone, Copy)]
pub struct BrokerHost<'a> {
    /// `host:port` to listen on.
    pub listen: &'a str,
    /// Where the streams are stored.
    pub store: &'a Path,
}

/// The JetStream requests a node needs: to make the stream as it must be, to see it, and to read from it.
/// Updating, purging and deleting are not among them, and the stream itself denies the last two.
const NODE_API: [&str; 4] = [
    "$JS.API.STREAM.CREATE.CEREMONIES",
    "$JS.API.STREAM.INFO.CEREMONIES",
    "$JS.API.DIRECT.GET.CEREMONIES",
    "$JS.API.DIRECT.GET.CEREMONIES.>",
];

fn list(subjects: &[String]) -> String {
    let quoted: Vec<String> = subjects.iter().map(|subject| format!("{subject:?}")).collect();
    format!("[{}]", quoted.join(", "))
}

fn owned(subjects: &[&str]) -> Vec<String> {
    subjects.iter().map(|subject| (*subject).to_owned()).collect()
}

fn node_user(node: &Node) -> String {
    let i = node.index;
    let mut publish =
        vec![subject::LOGS.to_owned(), format!("mpc.*.*.{i}"), subject::health(i), format!("progress.*.{i}")];
    publish.extend(owned(&NODE_API));
    let mut subscribe =
        vec![subject::sessions_to(i), subject::backup(i), format!("{}.>", subject::node_inbox(i))];
    subscribe.extend(owned(&[
        subject::SUBMISSIONS,
        subject::READS,
        subject::LIST,
        subject::LOGS,
        subject::HEALTH,
    ]));
    user(&node.nkey, &publish, &subscribe, true)
}

fn user(nkey: &str, publish: &[String], subscribe: &[String], responds: bool) -> String {
    let responses = if responds { "\n          allow_responses: { max: 1, expires: \"1m\" }" } else { "" };
    format!(
        "      {{\n        nkey: {nkey}\n        permissions: {{\n          publish: {{ allow: {} }}\n          \
         subscribe: {{ allow: {} }}{responses}\n        }}\n      }}\n",
        list(publish),
        list(subscribe)
    )
}

/// The configuration of a `nats-server` (2.11 or later) for this charter's cluster.
#[must_use]
pub fn nats_config(charter: &Charter, host: BrokerHost<'_>) -> String {
    let services = [subject::SUBMISSIONS, subject::READS, subject::LIST, subject::BACKUPS];
    let streams = [subject::LOGS, subject::HEALTH, subject::PROGRESS];
    let mut text = format!(
        "# Made from charter {}. Change the charter, not this file.\n\
         server_name: \"{}\"\nlisten: \"{}\"\nmax_payload: {}\n\n\
         # Every acknowledged entry is on disk.\n\
         jetstream {{\n  store_dir: {:?}\n  sync_interval: always\n}}\n\n\
         system_account: SYS\n\naccounts {{\n",
        charter.hash(),
        charter.cluster(),
        host.listen,
        subject::MAX_PAYLOAD,
        host.store.display().to_string(),
    );
    text.push_str("  NODES {\n    jetstream: enabled\n    users: [\n");
    for node in charter.nodes().iter().filter(|node| !node.excluded) {
        text.push_str(&node_user(node));
    }
    text.push_str("    ]\n    exports: [\n");
    for service in services {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "      {{ service: {service:?}, accounts: [OPERATORS] }}");
    }
    for stream in streams {
        let _ = writeln!(text, "      {{ stream: {stream:?}, accounts: [OPERATORS] }}");
    }
    text.push_str("    ]\n  }\n  OPERATORS {\n    users: [\n");
    for console in charter.consoles() {
        let mut subscribe = vec![format!("{}.>", subject::console_inbox(console.name.as_str()))];
        subscribe.extend(owned(&streams));
        text.push_str(&user(&console.nkey, &owned(&services), &subscribe, false));
    }
    text.push_str("    ]\n    imports: [\n");
    for service in services {
        let _ = writeln!(text, "      {{ service: {{ account: NODES, subject: {service:?} }} }}");
    }
    for stream in streams {
        let _ = writeln!(text, "      {{ stream: {{ account: NODES, subject: {stream:?} }} }}");
    }
    let _ = write!(
        text,
        "    ]\n  }}\n  # Signing clients are admitted with the signing policy.\n  CLIENTS {{ users: [] }}\n  \
         SYS {{ users: [ {{ nkey: {} }} ] }}\n}}\n",
        charter.system_nkey()
    );
    text
}
