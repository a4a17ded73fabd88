//! `custody audit tail`: the record as JSON lines, for whoever keeps watch over it elsewhere.
//!
//! Only what a quorum of nodes has recorded is printed, for that never changes. A cursor remembers how far each ceremony
//! was printed; it is written only after the lines have left this program, so that none is ever left out. A line that is
//! printed twice, because the program was killed between the two, is the same to the byte.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use ceremonies::charter::Charter;
use ceremonies::evidence;
use ceremonies::ids::{CeremonyId, Hash, UnixMillis};
use ceremonies::listing::Wanted;
use ceremonies::log::Entry;
use ceremonies::text::shortened;
use clap::{Args, Subcommand};
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};

use super::list::moment;
use super::output::json_line;
use super::{note, written};
use crate::client::{Client, News, Row, Scope};
use crate::config::Cluster;
use crate::file::{read, replace};
use crate::sentence::joined;

/// How many ceremonies are read at once.
const BATCH: usize = 32;
/// Most characters of names that one note repeats.
const MAX_NAMES: usize = 200;
/// How long to wait for news before looking all the same, and with `--once`, for what is being recorded.
const LOOK: Duration = Duration::from_secs(15);
/// How long to wait between two looks at what is being recorded.
const AGAIN: Duration = Duration::from_secs(1);
/// Largest cursor: some 100 bytes a ceremony.
const MAX_CURSOR: usize = 64 * 1024 * 1024;

#[derive(Subcommand)]
pub(super) enum AuditCommand {
    /// Print every recorded entry of every log once, as a JSON line, and go on as more is recorded.
    Tail(TailArguments),
}

#[derive(Args)]
pub(super) struct TailArguments {
    /// The file that remembers what was printed. If it does not exist, it is created, and everything is printed.
    #[arg(long, value_name = "FILE")]
    cursor: PathBuf,
    /// Leave out ceremonies opened before this time, such as 2026-11-01 or 2026-11-01T09:30:00Z.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<jiff::Timestamp>,
    /// End once everything that is recorded now has been printed.
    #[arg(long)]
    once: bool,
}

/// The last entry that was printed of a ceremony.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Printed {
    seq: u64,
    hash: Hash,
}

/// How far each ceremony was printed.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
struct Cursor(BTreeMap<CeremonyId, Printed>);

impl Cursor {
    fn load(path: &Path) -> Result<Self> {
        if !path.try_exists().with_context(|| format!("looking for {}", path.display()))? {
            return Ok(Self::default());
        }
        serde_json::from_slice(&read("cursor", path, MAX_CURSOR)?).with_context(|| {
            format!("{} is not a cursor: with another file, everything is printed again", path.display())
        })
    }

    fn save(&self, path: &Path) -> Result<()> {
        Ok(replace(path, &serde_json::to_vec(self)?)?)
    }

    /// What has not been printed of a log, and a warning where the log is not the
    /// one that was printed.
    fn new_of<'a>(&self, id: &CeremonyId, log: &'a [Entry]) -> (&'a [Entry], Option<String>) {
        let Some(printed) = self.0.get(id) else { return (log, None) };
        let count = usize::try_from(printed.seq).unwrap_or(usize::MAX);
        match count.checked_sub(1).and_then(|last| log.get(last)) {
            Some(entry) if entry.hash() == printed.hash => (&log[count..], None),
            _ => {
                let seq = printed.seq;
                (&[], Some(format!("entry {seq} of {id} was printed, and nodes no longer have it as it was")))
            }
        }
    }

    fn printed(&mut self, id: &CeremonyId, log: &[Entry]) {
        if let Some(last) = log.last() {
            self.0.insert(id.clone(), Printed { seq: last.seq, hash: last.hash() });
        }
    }
}

pub(super) async fn run(cluster: Cluster, command: AuditCommand) -> Result<()> {
    let AuditCommand::Tail(arguments) = command;
    let mut cursor = Cursor::load(&arguments.cursor)?;
    // Before anything is printed that could not be remembered.
    cursor.save(&arguments.cursor)?;
    let client = Client::connect(&cluster).await?;
    if arguments.once {
        return print_once(&client, &arguments, &mut cursor).await;
    }
    let mut news = Box::pin(client.news().await?);
    let mut said = Vec::new();
    loop {
        let Missed { lone, .. } = print_new(&client, &arguments, &mut cursor).await?;
        if lone != said {
            say_lone(&lone);
            said = lone;
        }
        let hint = async {
            loop {
                match news.next().await {
                    Some(News::Log(_)) => return Ok(()),
                    Some(News::Health(_) | News::Backdated(_) | News::Surplus(_) | News::Progress(_)) => {}
                    None => bail!("the connection to the bus is closed"),
                }
            }
        };
        // Hints are lost now and then: without one, it looks all the same.
        tokio::time::timeout(LOOK, hint).await.unwrap_or(Ok(()))?;
    }
}

/// Prints what is new. What some nodes have and no quorum yet is waited for: it is on its way, or kept back.
async fn print_once(client: &Client, arguments: &TailArguments, cursor: &mut Cursor) -> Result<()> {
    let begun = Instant::now();
    loop {
        let Missed { unread: missed, lone } = print_new(client, arguments, cursor).await?;
        if missed == 0 && lone.is_empty() {
            return Ok(());
        }
        let is_over = begun.elapsed() >= LOOK;
        if missed == 0 && is_over {
            say_lone(&lone);
            return Ok(());
        }
        ensure!(
            !is_over,
            "{missed} ceremonies could not be read, or have entries that no quorum of nodes is known to have recorded, for \
             {} s; what was printed is remembered: run it again",
            LOOK.as_secs()
        );
        tokio::time::sleep(AGAIN).await;
    }
}

/// Says what is not read because one node alone lists it.
fn say_lone(lone: &[CeremonyId]) {
    if !lone.is_empty() {
        let lone = shortened(&joined(lone), MAX_NAMES);
        note(&format!(
            "note: one node alone lists {lone}: no quorum can have recorded that, and it is not read"
        ));
    }
}

/// What of the record was not printed.
#[derive(Default)]
struct Missed {
    /// How many ceremonies could not be read to what is recorded.
    unread: usize,
    /// What one node alone lists while a quorum is heard: it is on its way, or made up, and no quorum can have recorded it.
    lone: Vec<CeremonyId>,
}

/// Prints what is new, and returns what could not be printed.
async fn print_new(client: &Client, arguments: &TailArguments, cursor: &mut Cursor) -> Result<Missed> {
    let since = arguments.since.map(|since| UnixMillis(since.as_millisecond()));
    let listed = client.library(&Scope::Listed(Wanted { since, ..Wanted::default() })).await;
    let listed = match listed {
        Ok(listed) => listed,
        Err(error) if !arguments.once => {
            note(&format!("note: {error}"));
            return Ok(Missed::default());
        }
        Err(error) => return Err(error).context("reading the record from the nodes"),
    };
    let is_behind = |id: &&CeremonyId| {
        let head = listed.catalogue.row(id).and_then(Row::head).map(|(tip, _)| tip);
        let printed = cursor.0.get(*id);
        head.is_none_or(|tip| {
            printed.is_none_or(|printed| (printed.seq, printed.hash) != (tip.seq, tip.hash))
        })
    };
    // Nodes list what else a console reads, such as amendments, whatever was asked for.
    let is_asked_for =
        |row: &&Row| since.is_none_or(|since| row.said.values().any(|said| said.opened >= since));
    let rows = listed.catalogue.rows.iter().filter(is_asked_for).map(|row| &row.id);
    let behind = rows.rev().filter(is_behind).cloned();
    let nodes = client.charter().members().len();
    let is_lone = |id: &CeremonyId| listed.catalogue.is_lone(id, nodes);
    let (lone, behind): (Vec<CeremonyId>, Vec<CeremonyId>) = behind.partition(is_lone);
    let mut missed = 0;
    for batch in behind.chunks(BATCH) {
        let mut library = match client.library(&Scope::Ceremonies(batch.to_vec())).await {
            Ok(library) => library,
            Err(error) => {
                note(&format!("note: {error}"));
                missed += batch.len();
                continue;
            }
        };
        for id in batch {
            match client.catch_up(&mut library.book, id).await {
                Ok(reading) => {
                    let recorded = reading.recorded_tip().map_or(0, |tip| tip.seq);
                    let log =
                        library.book.get(id).map(|chapter| chapter.entries.as_slice()).unwrap_or_default();
                    let recorded = log.len().min(usize::try_from(recorded).unwrap_or(usize::MAX));
                    print_log(library.book.first().charter(), id, (log, recorded), cursor)?;
                    missed += usize::from(recorded < log.len());
                }
                Err(error) => {
                    note(&format!("note: {id} could not be read: {error}"));
                    missed += 1;
                }
            }
        }
        cursor.save(&arguments.cursor)?;
    }
    Ok(Missed { unread: missed, lone })
}

/// Prints what is new of a log as far as it is known to be recorded.
fn print_log(
    first: &Charter,
    id: &CeremonyId,
    (log, recorded): (&[Entry], usize),
    cursor: &mut Cursor,
) -> Result<()> {
    let (new, replaced) = cursor.new_of(id, log);
    let printed = log.len() - new.len();
    let new = &new[..recorded.saturating_sub(printed).min(new.len())];
    if let Some(warning) = replaced {
        note(&format!("WARNING: {warning}: go to runbooks/compromise.md"));
    }
    let mut lines = String::new();
    for entry in new {
        let mut line = evidence::line(entry);
        line["cluster"] = serde_json::json!(first.cluster());
        line["ceremony"] = serde_json::json!(id);
        lines += &json_line(&line)?;
    }
    if !new.is_empty() {
        written(lines.as_bytes())?;
        cursor.printed(id, &log[..recorded]);
    }
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;

    fn entries() -> Vec<Entry> {
        let bundle = include_bytes!("../../tests/data/bundle.zip");
        evidence::logs(bundle, &evidence::Expected::default()).unwrap().pop().unwrap()
    }

    #[test]
    fn each_entry_is_printed_once_however_the_log_grows() {
        let log = entries();
        let id = log[0].ceremony.clone();
        let mut cursor = Cursor::default();
        let mut printed = Vec::new();
        for upto in [0, 3, 3, 9, log.len(), log.len()] {
            let (new, warning) = cursor.new_of(&id, &log[..upto]);
            assert_eq!(warning, None);
            printed.extend(new.iter().map(Entry::hash));
            cursor.printed(&id, &log[..upto]);
        }
        assert_eq!(printed, log.iter().map(Entry::hash).collect::<Vec<_>>());
    }

    #[test]
    fn log_that_is_shorter_or_another_than_was_printed_is_warned_of_and_not_printed() {
        let log = entries();
        let id = log[0].ceremony.clone();
        let mut cursor = Cursor::default();
        cursor.printed(&id, &log[..5]);
        assert!(cursor.new_of(&id, &log[..4]).1.unwrap().starts_with("entry 5 of"));
        cursor.0.insert(id.clone(), Printed { seq: 5, hash: Hash::ZERO });
        let (new, warning) = cursor.new_of(&id, &log);
        assert!(new.is_empty() && warning.is_some());
    }

    #[test]
    fn cursor_comes_back_as_it_was_saved_and_what_is_none_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cursor.json");
        assert_eq!(Cursor::load(&path).unwrap(), Cursor::default());
        let mut cursor = Cursor::default();
        cursor.printed(&entries()[0].ceremony.clone(), &entries());
        cursor.save(&path).unwrap();
        assert_eq!(Cursor::load(&path).unwrap(), cursor);
        for text in ["", "[]", "{\"dkg-x\": 3}", "{\"dkg-x\": {\"seq\": 1}}"] {
            std::fs::write(&path, text).unwrap();
            assert!(Cursor::load(&path).unwrap_err().to_string().contains("is not a cursor"), "{text}");
        }
    }
}
