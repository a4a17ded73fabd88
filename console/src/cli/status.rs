//! `custody status`: whether each wallet can sign, and how every node is.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use ceremonies::attestation::Measurement;
use ceremonies::book::Book;
use ceremonies::ceremony::Ceremony;
use ceremonies::charter::{CeremonyKind, Charter};
use ceremonies::ids::{NodeIndex, UnixMillis};
use ceremonies::manifest::Manifest;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::output::note;
use super::{Desk, Output};
use crate::checks::{self, Check};
use crate::client::{Client, ClientError, Library, News, Scope};
use crate::config::Cluster;
use crate::health::{Health, Hearing, Level, Moment, NodeStatus};
use crate::readiness::{Answer, Readiness, named};
use crate::watch::{LISTEN, Watch};

/// How often the cluster is looked at while somebody watches: what has turned is shown as soon as it is known.
const LOOK: Duration = Duration::from_secs(1);

/// How often this console notices that it runs.
const TICK: Duration = Duration::from_millis(250);

/// How long a record that is read again is waited for before the health is shown by the one before.
const READ_WITHIN: Duration = Duration::from_secs(2);

/// The record as it is read, and read again while somebody watches: wallets are made, refreshed and lost.
#[derive(Default)]
struct Record {
    reading: Option<JoinHandle<Result<Library, ClientError>>>,
    book: Option<Book>,
    is_read: bool,
    /// Whether nodes have said since that there is more.
    is_stale: bool,
    /// What was last warned of.
    warned: Vec<String>,
}

/// Why it is not known which wallets there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unknown {
    /// The record is long, or slow to come.
    Reading,
    Unreadable,
}

impl Unknown {
    fn why(self) -> &'static str {
        match self {
            Self::Reading => "the record is still being read",
            Self::Unreadable => "the record could not be read",
        }
    }
}

impl Record {
    fn unknown(&self) -> Option<Unknown> {
        match &self.reading {
            _ if self.is_read => None,
            Some(_) => Some(Unknown::Reading),
            None => Some(Unknown::Unreadable),
        }
    }

    fn read(&mut self, client: &Client) {
        let client = client.clone();
        self.is_stale = false;
        self.reading = Some(tokio::spawn(async move { client.library(&Scope::Current).await }));
    }

    fn read_again(&mut self, client: &Client) {
        if self.is_wanted() {
            self.read(client);
        }
    }

    fn is_wanted(&self) -> bool {
        self.reading.is_none() && (self.is_stale || !self.is_read)
    }

    /// What was read, or nothing where it could not be. Waits for ever while nothing is being read.
    async fn done(&mut self) -> Option<Library> {
        match &mut self.reading {
            Some(reading) => {
                let read = reading.await;
                self.reading = None;
                read.ok()?.ok()
            }
            None => std::future::pending().await,
        }
    }

    /// Takes what was read. Where nothing could be, the amendments alone tell who the nodes are.
    fn take(&mut self, library: Option<Library>, amendments: impl FnOnce() -> Book) {
        let Some(library) = library else {
            // It is still wanted.
            self.is_stale = true;
            self.book.get_or_insert_with(amendments);
            return;
        };
        self.is_read = library.is_read();
        let mut warnings: Vec<String> =
            library.set_back.iter().map(|set_back| format!("WARNING: {set_back}")).collect();
        let aside = library.aside.first().filter(|_| !self.is_read);
        warnings.extend(
            aside.map(|aside| format!("note: the log of {} {aside}, and is set aside", aside.ceremony)),
        );
        for warning in warnings.iter().filter(|warning| !self.warned.contains(warning)) {
            note(warning);
        }
        self.warned = warnings;
        self.book = Some(library.book);
    }
}

pub(super) async fn run(cluster: Cluster, output: Output, watch: bool) -> Result<()> {
    let client = Client::connect(&cluster).await?;
    let mut news = Box::pin(client.news().await?);
    // Heartbeats alone tell the health of nodes. The record adds the wallets, who was excluded and who is accused, if it can
    // be read in the meantime.
    let mut record = Record::default();
    record.read(&client);
    let mut hearing = Hearing::begin(Moment::now());
    let mut connected = client.connected();
    let mut printed = None;
    let mut patience = LISTEN;
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let until = tokio::time::Instant::now() + patience;
        let mut is_complete = false;
        while !is_complete && tokio::time::Instant::now() < until {
            let heard = tokio::select! {
                _ = tick.tick() => None,
                changed = connected.changed() => {
                    changed.context("the connection to the bus is closed")?;
                    // What follows from that is shown at once.
                    is_complete = printed.is_some();
                    None
                }
                library = record.done() => {
                    let has_come = library.is_some();
                    record.take(library, || Book::clone(&client.amendments()));
                    if has_come {
                        record.read_again(&client);
                    }
                    None
                }
                heard = news.next() => Some(heard.context("the connection to the bus is closed")?),
            };
            let now = Moment::now();
            hearing.runs(now);
            hearing.has_bus(*connected.borrow(), now);
            match heard {
                Some(News::Log(_)) => {
                    record.is_stale = true;
                    record.read_again(&client);
                }
                Some(news) => hearing.hear(&cluster.context, news, now),
                None => {}
            }
            let members = record.book.as_ref().map(|book| book.context().charter().members());
            is_complete |= printed.is_none() && members.is_some_and(|members| hearing.has_heard(&members));
        }
        // What nodes say of their shares is judged by the record as it is now: one that is just being read is waited for.
        let is_being_read = record.reading.is_some() && record.is_read && *connected.borrow();
        if is_being_read && let Ok(library) = tokio::time::timeout(READ_WITHIN, record.done()).await {
            record.take(library, || Book::clone(&client.amendments()));
        }
        let known = Arc::new(record.book.clone().unwrap_or_else(|| Book::clone(&client.amendments())));
        let (now, is_connected) = (Moment::now(), *connected.borrow());
        hearing.runs(now);
        hearing.has_bus(is_connected, now);
        let health = hearing.health(&known, is_connected, now);
        let charter = known.context().charter();
        let text = status_text(charter, &health, record.unknown(), now.wall);
        let levels: Vec<_> =
            health.nodes.iter().map(|node| (node.level, node.check, node.attestation.clone())).collect();
        let wallets: Vec<_> = health.wallets.iter().map(Readiness::text).collect();
        let seen = (levels, wallets, record.unknown());
        if printed.as_ref() != Some(&seen) {
            output.print(
                &json!({
                    "cluster": charter.cluster(), "kind": charter.kind(), "time": now.wall.to_string(),
                    "record_read": record.is_read,
                    "wallets": health.wallets.iter().map(wallet).collect::<Vec<_>>(), "nodes": health.nodes,
                }),
                &text,
            )?;
            printed = Some(seen);
        }
        if !watch {
            if !is_connected {
                bail!(client.why_not_connected().await);
            }
            return all_is_well(&health, record.unknown());
        }
        patience = LOOK;
        record.read_again(&client);
    }
}

/// A wallet with the check that fails, as nodes have theirs.
pub(super) fn wallet(readiness: &Readiness) -> Value {
    let mut wallet = json!(readiness);
    wallet["check"] = json!(readiness.can_sign.check());
    wallet
}

/// Every check, whatever the cluster is like.
pub(super) fn checks(output: Output) -> Result<()> {
    let rows = Check::ALL.map(|check| {
        json!({
            "check": check, "level": check.level(), "within_s": check.within_s(), "when": check.when(),
            "what_to_do": check.what_to_do(),
        })
    });
    output.print(&json!(rows), checks::page().trim_end())
}

/// How long nodes are listened to before somebody signs: each is heard every second.
const LISTEN_BEFORE: Duration = Duration::from_millis(2_500);

/// How long nodes are listened to before whoever waits is told for whom.
const LISTEN_QUIETLY: Duration = Duration::from_millis(1_500);

/// How the cluster is once each of these nodes was heard or, at the latest, after this long.
pub(super) async fn settled(watch: &mut Watch, nodes: &[NodeIndex], patience: Duration) -> Result<Health> {
    let health = watch.settled(nodes, patience.min(LISTEN_QUIETLY)).await?;
    let (unheard, left) = (watch.unheard(nodes), patience.saturating_sub(LISTEN_QUIETLY));
    if unheard.is_empty() || left.is_zero() {
        return Ok(health);
    }
    note(&format!("still listening for {}, for {} s at most", named(&unheard), left.as_secs() + 1));
    Ok(watch.settled(nodes, left).await?)
}

/// Warns of nodes that could not do their part in a ceremony as they are, before somebody signs in vain.
pub(super) async fn warn_of_doubts(desk: &Desk, ceremony: &Ceremony) -> Result<()> {
    let mut watch = Watch::begin(desk.client.clone(), desk.book.clone()).await?;
    let health = settled(&mut watch, &ceremony.manifest().roster, LISTEN_BEFORE).await?;
    for warning in doubts(&health, ceremony.manifest()) {
        note(&warning);
    }
    Ok(())
}

/// Warns of nodes that could not do their part, and of shares that are not known to be there, before somebody opens a
/// ceremony that would wait for them or fail.
pub(super) async fn warn_of_shares(desk: &Desk, manifest: &Manifest) -> Result<()> {
    if !manifest.kind.uses_enclaves() {
        return Ok(());
    }
    let mut watch = Watch::begin(desk.client.clone(), desk.book.clone()).await?;
    let health = settled(&mut watch, &manifest.roster, LISTEN).await?;
    let signs = matches!(manifest.kind, CeremonyKind::TestSign | CeremonyKind::Transfer);
    let wallet = health.wallets.iter().find(|readiness| signs && readiness.wallet == manifest.wallet);
    if let Some(why) = wallet.and_then(|readiness| readiness.lacking(&manifest.roster)) {
        let needs = if manifest.kind == CeremonyKind::TestSign {
            "a test signing needs every node's share"
        } else {
            "it needs the share of every node that signs"
        };
        note(&format!("WARNING: {}: {why}: {needs}, so it would fail", manifest.wallet));
    }
    let doubts = if signs { Vec::new() } else { doubts(&health, manifest) };
    for warning in doubts {
        note(&warning);
    }
    Ok(())
}

/// What is said of each node that stands in the way.
fn doubts(health: &Health, manifest: &Manifest) -> Vec<String> {
    let of = |status: &NodeStatus| {
        format!("WARNING: node {}: {}: what is signed now may be wasted", status.node, status.summary)
    };
    health.in_the_way_of(manifest).map(of).collect()
}

/// What `status` prints: first whether each wallet can sign, then how each node is.
fn status_text(charter: &Charter, health: &Health, unknown: Option<Unknown>, at: UnixMillis) -> String {
    let kind = charter.kind().to_string().to_uppercase();
    let mut text = format!("cluster {} ({kind}) at {at}\n", charter.cluster());
    for wallet in &health.wallets {
        text += &format!(
            "wallet {} g{} {} {}\n",
            wallet.wallet,
            wallet.generation,
            wallet.can_sign.mark(),
            wallet.text()
        );
    }
    if let Some(unknown) = unknown {
        text += &format!("wallets ? not known: {}\n", unknown.why());
    } else if health.wallets.is_empty() {
        text += "no wallet has a key yet\n";
    }
    let image = health.nodes.first().and_then(|node| node.image);
    let is_one_image = health.nodes.iter().all(|node| node.image == image);
    for node in &health.nodes {
        text += &format!(
            "node {} {} {}\n       attestation {}\n",
            node.node,
            node.level.mark(),
            node.summary,
            node.attestation
        );
        text.extend(node.started.iter().map(|at| format!("       agent runs since {at}\n")));
        text.extend(node.lately.iter().map(|past| format!("       over: {past}\n")));
        text.extend(node.accused.iter().map(|accused| format!("       {accused}\n")));
        if !is_one_image {
            text.extend(node.image.iter().flat_map(registers));
        }
        text.extend(node.shares.iter().flatten().map(|share| format!("       share {share}\n")));
    }
    if is_one_image && let Some(image) = image {
        text += "every enclave runs the image\n";
        text.extend(registers(&image));
    }
    if all_is_well(health, unknown).is_err() {
        text += "what to do: runbooks/something-is-wrong.md\n";
    }
    text.trim_end().to_owned()
}

fn registers(image: &Measurement) -> Vec<String> {
    image.registers().map(|(index, pcr)| format!("       PCR{index} {pcr}\n")).collect()
}

/// # Errors
/// What is not well, for the exit code.
fn all_is_well(health: &Health, unknown: Option<Unknown>) -> Result<()> {
    if let Some(unknown) = unknown {
        bail!("not known which wallets there are: {}", unknown.why());
    }
    let cannot: Vec<&str> = health
        .wallets
        .iter()
        .filter(|wallet| matches!(wallet.can_sign, Answer::No | Answer::Unknown))
        .map(|wallet| wallet.wallet.as_str())
        .collect();
    if !cannot.is_empty() {
        bail!("not enough shares are known to be there to sign with {}", cannot.join(", "));
    }
    let is_well = |level| matches!(level, Level::Good | Level::Excluded);
    let bad = health.nodes.iter().filter(|node| !is_well(node.level)).count();
    if bad > 0 {
        let are = if bad == 1 { "is" } else { "are" };
        bail!("{bad} of {} nodes {are} not healthy", health.nodes.len());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ceremonies::wire::bus::Heartbeat;

    use super::super::recorded::{CLOSED, book};
    use super::*;
    use crate::client::Catalogue;

    fn library(entries: usize) -> Library {
        Library {
            book: book(entries),
            aside: Vec::new(),
            catalogue: Catalogue::default(),
            missing: BTreeMap::new(),
            set_back: Vec::new(),
        }
    }

    #[test]
    fn record_that_is_watched_is_read_again_once_it_has_grown_or_could_not_be_read() {
        let nothing = || book(0);
        let wallets = |record: &Record| record.book.as_ref().map_or(0, |book| book.wallets().len());
        let mut record = Record::default();
        assert!(record.is_wanted(), "nothing was read yet");
        assert_eq!(record.unknown(), Some(Unknown::Unreadable));
        record.take(None, nothing);
        assert!(record.is_wanted() && !record.is_read, "it could not be read");
        record.take(Some(library(6)), nothing);
        record.is_stale = false;
        assert!(!record.is_wanted() && record.unknown().is_none());
        assert_eq!(wallets(&record), 0);
        // Nodes say that there is more, and that cannot be read.
        record.is_stale = true;
        assert!(record.is_wanted());
        record.take(None, nothing);
        assert!(record.is_wanted() && record.is_read, "what was known stays, and more is wanted");
        record.take(Some(library(CLOSED)), nothing);
        record.is_stale = false;
        assert!(!record.is_wanted());
        assert_eq!(wallets(&record), 1);
    }

    #[tokio::test]
    async fn record_that_is_slow_to_come_is_not_called_unreadable() {
        let book = book(6);
        let mut record = Record { reading: Some(tokio::spawn(std::future::pending())), ..Record::default() };
        let health = Hearing::begin(Moment::now()).health(&book, true, Moment::now());
        let is_said = |record: &Record, why: &str| {
            let text = status_text(book.context().charter(), &health, record.unknown(), UnixMillis(0));
            assert!(text.contains(&format!("wallets ? not known: {why}\n")), "{text}");
            let refused = all_is_well(&health, record.unknown()).err().map(|error| error.to_string());
            assert_eq!(refused, Some(format!("not known which wallets there are: {why}")));
        };
        is_said(&record, "the record is still being read");
        record.reading = None;
        is_said(&record, "the record could not be read");
    }

    #[test]
    fn charter_of_which_several_nodes_speak_and_this_console_has_not_read_accuses_none_of_them() {
        let (book, now) = (book(6), Moment::now());
        let health = |speaking: u32| {
            let mut hearing = Hearing::begin(now);
            for node in 1..=5 {
                let charter = if node <= speaking { vec![9; 32] } else { Vec::new() };
                let heartbeat = Heartbeat { node, time_ms: now.wall.0, charter, ..Heartbeat::default() };
                hearing.hear(book.context(), News::Health(Box::new(heartbeat)), now);
            }
            let checks: Vec<_> = hearing.health(&book, true, now).nodes;
            checks.into_iter().filter_map(|node| node.check).collect::<Vec<_>>()
        };
        assert_eq!(health(2)[..2], [Check::Charter; 2], "two may lie");
        assert_eq!(health(3)[..3], [Check::Unread; 3]);
        assert_eq!(health(3)[3..], [Check::Charter; 2], "whose charter only they have");
        assert_eq!(Check::Unread.level(), Level::Unknown);
    }

    #[test]
    fn node_in_the_way_is_named_with_its_trouble_before_somebody_signs_and_what_is_not_known_warns_of_nothing()
     {
        let book = book(6);
        let ceremonies: Vec<&Ceremony> = book.iter().map(|(_, chapter)| &chapter.ceremony).collect();
        let [ceremony] = ceremonies[..] else { unreachable!("one ceremony is recorded") };
        let now = Moment::now();
        let heartbeat = Heartbeat {
            node: 3,
            time_ms: now.wall.0,
            store_trouble: "the disk is full".to_owned(),
            ..Heartbeat::default()
        };
        let mut hearing = Hearing::begin(now);
        hearing.hear(book.context(), News::Health(Box::new(heartbeat)), now);
        let said = doubts(&hearing.health(&book, true, now), ceremony.manifest());
        let warning =
            |node: u8, why: &str| format!("WARNING: node {node}: {why}: what is signed now may be wasted");
        assert_eq!(said.len(), 5);
        assert_eq!(said[2], warning(3, "store: the disk is full"));
        assert_eq!(said[3], warning(4, "not heard yet since this console listens"));
        assert!(doubts(&hearing.health(&book, false, now), ceremony.manifest()).is_empty());
    }
}
