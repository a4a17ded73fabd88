//! The broker's configuration, from the charter: accounts, NKeys and subject permissions. Production and lab
//! are configured by this one generator.
//!
//! The stream of the log, each node and each console has an account of its own. Nothing that is said in one is heard in
//! another unless the one exports it and the other imports it: from a node comes what is said under its own number, and
//! nothing else. That is decided here and not by users' permissions, because a message may name any subject for its
//! answer, and the broker delivers the answer there, unasked, within the account of whoever named it. Permissions say
//! the same once more, so that the broker's log names whoever tries.
//!
//! A node that the charter excludes has no account. Nobody may subscribe to the log's subjects, so that nobody sees where
//! another node waits for its acknowledgement; only the stream's keeper may make it.

mod stream;

use std::iter;
use std::path::Path;

use crate::charter::{Charter, ConsoleKey, Node};
use crate::deploy::subject;
use crate::ids::NodeIndex;

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

/// The account of the stream.
const LOG_ACCOUNT: &str = "LOG";

/// The JetStream request that describes the stream.
const INFO: &str = "$JS.API.STREAM.INFO.CEREMONIES";
/// The JetStream request that reads one message of it.
const READ: &str = "$JS.API.STREAM.MSG.GET.CEREMONIES";
/// The same for agents of the version before, which have one message at a time of it now.
const READ_BEFORE: &str = "$JS.API.DIRECT.GET.CEREMONIES";
/// The JetStream request about limits, which nobody makes. Whoever does not import it from elsewhere is given all of
/// JetStream's requests by the broker, for streams of its own, and would have two answers to each.
const LIMITS: &str = "$JS.API.INFO";
/// The JetStream request that makes it. The stream itself denies deleting and purging.
const CREATE: &str = "$JS.API.STREAM.CREATE.CEREMONIES";

/// What nodes ask of the log's account.
const OF_THE_LOG: [&str; 5] = [LIMITS, INFO, READ, READ_BEFORE, subject::LOGS];

/// Where answers to another account go: the broker puts this in the place of the inbox there.
const ANSWERS: &str = "_R_.>";

/// The inbox prefix of the stream's keeper.
pub const KEEPER_INBOX: &str = "_INBOX_keeper";

/// What one account lets others import, and what it imports of theirs.
/// The most subscriptions of one connection, many times what agents and consoles have: each takes the broker some three
/// kilobytes.
const MAX_SUBSCRIPTIONS: u32 = 64;
/// How long the broker waits for an answer before it forgets who asked: longer than anybody here waits for one.
const FORGOTTEN_AFTER: &str = "15s";

#[derive(Default)]
struct Crossings {
    exports: Vec<String>,
    imports: Vec<String>,
}

impl Crossings {
    /// Others may ask here, and are answered. The broker remembers for so long to whom an answer goes that never comes.
    fn answers(&mut self, subject: &str) {
        self.exports.push(format!("{{ service: {subject:?}, threshold: {FORGOTTEN_AFTER:?} }}"));
    }

    /// Others may hear this.
    fn says(&mut self, subject: &str) {
        self.exports.push(format!("{{ stream: {subject:?} }}"));
    }

    /// What it asks another account.
    fn asks(&mut self, account: &str, subject: &str) {
        self.imports.push(format!("{{ service: {{ account: {account}, subject: {subject:?} }} }}"));
    }

    /// What it hears of another account.
    fn hears(&mut self, account: &str, subject: &str) {
        self.imports.push(format!("{{ stream: {{ account: {account}, subject: {subject:?} }} }}"));
    }
}

/// What consoles ask a node.
fn services(node: NodeIndex) -> [String; 4] {
    [subject::submissions_to(node), subject::reads_of(node), subject::list(node), subject::backup(node)]
}

fn account_of(node: NodeIndex) -> String {
    format!("NODE_{node}")
}

/// The account of the stream: its keeper, and what nodes ask of it.
fn log_account(keeper: &str) -> String {
    let publish = [CREATE, INFO].map(str::to_owned);
    let user = user(keeper, &publish, &[format!("{KEEPER_INBOX}.>")]);
    let mut crossings = Crossings::default();
    // Each has one answer, so that the broker forgets where that goes as soon as it was given.
    for asked in OF_THE_LOG {
        crossings.answers(asked);
    }
    account(LOG_ACCOUNT, Limits { jetstream: true, connections: 8 }, &user, &crossings)
}

/// A node's account: what it says under its own number, what consoles ask it, and what it hears of the others.
fn node_account(node: &Node, nodes: &[NodeIndex]) -> String {
    let i = node.index;
    let said = [
        subject::head(i),
        subject::health(i),
        subject::progress_of(i),
        format!("record.*.{i}"),
        format!("mpc.*.*.{i}"),
    ];
    let mut crossings = Crossings::default();
    for subject in services(i) {
        crossings.answers(&subject);
    }
    for subject in &said {
        crossings.says(subject);
    }
    for asked in OF_THE_LOG {
        crossings.asks(LOG_ACCOUNT, asked);
    }
    for &other in nodes.iter().filter(|other| **other != i) {
        let heard = [
            subject::head(other),
            subject::health(other),
            subject::peer(i, other),
            subject::sessions_from(i, other),
        ];
        for subject in heard {
            crossings.hears(&account_of(other), &subject);
        }
    }
    let asked = [INFO, READ, READ_BEFORE, subject::LOGS, ANSWERS].map(str::to_owned);
    let heard = [
        format!("{}.>", subject::node_inbox(i)),
        subject::HEADS.to_owned(),
        subject::HEALTH.to_owned(),
        subject::peers_to(i),
        subject::sessions_to(i),
    ];
    let user =
        user(&node.nkey, &[said.as_slice(), &asked].concat(), &[services(i).as_slice(), &heard].concat());
    account(&account_of(i), Limits { jetstream: false, connections: 64 }, &user, &crossings)
}

/// A console's account: it may ask and hear every node, and say nothing.
fn console_account(console: &ConsoleKey, nodes: &[NodeIndex]) -> String {
    let mut crossings = Crossings::default();
    for &node in nodes {
        for subject in services(node) {
            crossings.asks(&account_of(node), &subject);
        }
        for subject in [subject::head(node), subject::health(node), subject::progress_of(node)] {
            crossings.hears(&account_of(node), &subject);
        }
    }
    let asked = [subject::SUBMISSIONS, subject::READS, subject::LISTS, subject::BACKUPS].map(str::to_owned);
    let inbox = format!("{}.>", subject::console_inbox(console.name.as_str()));
    let heard = [inbox.as_str(), subject::HEADS, subject::HEALTH, subject::PROGRESS].map(str::to_owned);
    let user = user(&console.nkey, &asked, &heard);
    let limits = Limits { jetstream: false, connections: 256 };
    account(&format!("CONSOLE_{}", console.name), limits, &user, &crossings)
}

/// What an account may have.
#[derive(Clone, Copy)]
struct Limits {
    jetstream: bool,
    /// Many times what is needed at once: those of a program that was cut off linger for a while.
    connections: u32,
}

fn account(name: &str, limits: Limits, user: &str, crossings: &Crossings) -> String {
    let Limits { jetstream, connections } = limits;
    let jetstream = if jetstream { "    jetstream: enabled\n" } else { "" };
    let lines =
        |lines: &[String]| lines.iter().fold(String::new(), |text, line| text + "      " + line + "\n");
    format!(
        "  {name} {{\n{jetstream}    limits: {{ max_connections: {connections}, max_subscriptions: \
         {MAX_SUBSCRIPTIONS} }}\n    users: [\n{user}    ]\n    exports: [\n{}    ]\n    imports: [\n{}    ]\n  \
         }}\n",
        lines(&crossings.exports),
        lines(&crossings.imports),
    )
}

fn list(subjects: &[String]) -> String {
    let quoted: Vec<String> = subjects.iter().map(|subject| format!("{subject:?}")).collect();
    format!("[{}]", quoted.join(", "))
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
    let admitted = || charter.nodes().iter().filter(|node| !node.excluded);
    let nodes: Vec<NodeIndex> = admitted().map(|node| node.index).collect();
    let accounts = iter::once(log_account(host.keeper))
        .chain(admitted().map(|node| node_account(node, &nodes)))
        .chain(charter.consoles().iter().map(|console| console_account(console, &nodes)));
    format!(
        "# Made from charter {}. Change the charter, not this file.\n\
         server_name: \"{}\"\nlisten: \"{}\"\nmax_payload: {}\n\n\
         # Every acknowledged entry is on disk.\n\
         jetstream {{\n  store_dir: {:?}\n  sync_interval: always\n}}\n\n\
         system_account: SYS\n\naccounts {{\n{}  # Signing clients are admitted with the signing policy.\n  \
         CLIENTS {{ users: [] }}\n  SYS {{ users: [ {{ nkey: {} }} ] }}\n}}\n",
        charter.hash(),
        charter.cluster(),
        host.listen,
        subject::MAX_PAYLOAD,
        host.store.display().to_string(),
        accounts.collect::<String>(),
        charter.system_nkey(),
    )
}
