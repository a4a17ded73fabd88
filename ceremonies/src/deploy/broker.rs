//! The broker's configuration, from the charter: accounts, NKeys and subject permissions. Production and lab
//! are configured by this one generator.
//!
//! Nodes, operators, signing clients and the broker's administrator live in accounts of their own. A node may publish
//! only under its own number; a console may ask and listen, but not write. A node that the charter excludes has no
//! user. Nobody may subscribe to the log's subjects, so that nobody sees where another node waits for its
//! acknowledgement; only the stream's keeper may make it.
//!
//! Nodes answer consoles on the subjects that the broker makes up for answers from one account to another. They may not
//! answer on whatever subject a request names (`allow_responses`): a node that asks itself would choose any.

mod stream;

use std::fmt::Write as _;
use std::path::Path;

use crate::charter::{Charter, Node};
use crate::deploy::subject;

pub use self::stream::{Difference, stream_config, stream_differences};

/// What the host decides, not the charter.
#[derive(Debug, Clone, Copy)]
pub struct BrokerHost<'a> {
    /// `host:port` to listen on.
    pub listen: &'a str,
    /// Where the streams are stored.
    pub store: &'a Path,
    /// The NKey that makes the stream of the log and changes nothing else.
    pub keeper: &'a str,
}

/// The JetStream requests that a node needs: to inspect the stream and to read from it. Making, updating, purging and
/// deleting are not among them, and the stream itself denies the last two.
const NODE_API: [&str; 2] = ["$JS.API.STREAM.INFO.CEREMONIES", "$JS.API.DIRECT.GET.CEREMONIES"];

/// What the stream's keeper needs.
const KEEPER_API: [&str; 2] = ["$JS.API.STREAM.CREATE.CEREMONIES", "$JS.API.STREAM.INFO.CEREMONIES"];

/// Where answers to another account go: the broker puts this in the place of a console's inbox.
const ANSWERS: &str = "_R_.>";

/// The inbox prefix of the stream's keeper.
pub const KEEPER_INBOX: &str = "_INBOX_keeper";

fn list(subjects: &[String]) -> String {
    let quoted: Vec<String> = subjects.iter().map(|subject| format!("{subject:?}")).collect();
    format!("[{}]", quoted.join(", "))
}

fn owned(subjects: &[&str]) -> Vec<String> {
    subjects.iter().map(|subject| (*subject).to_owned()).collect()
}

fn node_user(node: &Node) -> String {
    let i = node.index;
    let mut publish = vec![
        subject::LOGS.to_owned(),
        format!("mpc.*.*.{i}"),
        subject::health(i),
        format!("progress.*.{i}"),
        subject::head(i),
        format!("record.*.{i}"),
        ANSWERS.to_owned(),
    ];
    publish.extend(owned(&NODE_API));
    let subscribe = [
        subject::sessions_to(i),
        subject::backup(i),
        format!("{}.>", subject::node_inbox(i)),
        subject::submissions_to(i),
        subject::reads_of(i),
        subject::list(i),
        subject::peers_to(i),
        subject::HEALTH.to_owned(),
        subject::HEADS.to_owned(),
    ];
    user(&node.nkey, &publish, &subscribe)
}

fn user(nkey: &str, publish: &[String], subscribe: &[String]) -> String {
    format!(
        "      {{\n        nkey: {nkey}\n        permissions: {{\n          publish: {{ allow: {} }}\n          \
         subscribe: {{ allow: {} }}\n        }}\n      }}\n",
        list(publish),
        list(subscribe)
    )
}

/// The configuration of a `nats-server` (2.11 or later) for this charter's cluster.
#[must_use]
pub fn nats_config(charter: &Charter, host: BrokerHost<'_>) -> String {
    let services = [subject::SUBMISSIONS, subject::READS, subject::LISTS, subject::BACKUPS];
    let streams = [subject::HEADS, subject::HEALTH, subject::PROGRESS];
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
    text.push_str(&user(host.keeper, &owned(&KEEPER_API), &[format!("{KEEPER_INBOX}.>")]));
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
        text.push_str(&user(&console.nkey, &owned(&services), &subscribe));
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
