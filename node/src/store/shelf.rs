//! Lines in place of logs: what an agent starts with of finished ceremonies.

use ceremonies::book::{origin_of, record_in};
use ceremonies::ceremony::Head;
use ceremonies::ids::{CeremonyId, Generation, UnixMillis};
use ceremonies::log::Entry;
use ceremonies::manifest::Origin;
use ceremonies::wallet::Record;
use ceremonies::wire::log;
use futures_util::{StreamExt as _, TryStreamExt as _};
use sqlx::Row;
use sqlx::any::AnyRow;

use super::record::{ballot, raw_entry, round, unsigned};
use super::{Store, StoreError, failed, malformed, number};
use crate::core::{FOLD, Shelved, StoredLog};

fn signed(row: &AnyRow, column: usize, what: &'static str) -> Result<i64, StoreError> {
    row.try_get(column).map_err(failed(what))
}

fn text(row: &AnyRow, column: usize, what: &'static str) -> Result<String, StoreError> {
    row.try_get(column).map_err(failed(what))
}

fn line(row: &AnyRow) -> Result<Shelved, StoreError> {
    let what = "read the shelf";
    let generation = u32::try_from(unsigned(row, 3, what)?);
    let charter = text(row, 6, what)?.parse().map_err(malformed("hash of a charter"))?;
    let hash = text(row, 9, what)?.parse().map_err(malformed("hash of an entry"))?;
    let kind = text(row, 1, what)?.parse();
    Ok(Shelved {
        ceremony: text(row, 0, what)?.parse().map_err(malformed("ceremony id"))?,
        kind: kind.map_err(|_| StoreError::Malformed { what: "kind of ceremony" })?,
        wallet: text(row, 2, what)?.parse().map_err(malformed("wallet"))?,
        generation: Generation(generation.map_err(|_| StoreError::Malformed { what: "generation" })?),
        phase: text(row, 4, what)?,
        opened: UnixMillis(signed(row, 5, what)?),
        charter,
        began: UnixMillis(signed(row, 7, what)?),
        head: Head { seq: unsigned(row, 8, what)?, hash, time: UnixMillis(signed(row, 10, what)?) },
        round: round(unsigned(row, 11, what)?)?,
        lock_round: round(unsigned(row, 12, what)?)?,
    })
}

impl Store {
    /// Puts a line in place of a log, which stays where it is.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn shelve(&self, line: &Shelved) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO shelf (ceremony, fold, kind, wallet, generation, phase, opened_ms, charter, began_ms, seq, hash, \
             time_ms, round, lock_round) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) \
             ON CONFLICT (ceremony) DO UPDATE SET fold = excluded.fold, phase = excluded.phase, seq = excluded.seq, \
             hash = excluded.hash, time_ms = excluded.time_ms, round = excluded.round, lock_round = excluded.lock_round",
        )
        .bind(line.ceremony.as_str())
        .bind(i64::from(FOLD))
        .bind(line.kind.to_string())
        .bind(line.wallet.as_str())
        .bind(i64::from(line.generation.0))
        .bind(line.phase.as_str())
        .bind(line.opened.0)
        .bind(line.charter.to_string())
        .bind(line.began.0)
        .bind(number(line.head.seq))
        .bind(line.head.hash.to_string())
        .bind(line.head.time.0)
        .bind(i64::from(line.round))
        .bind(i64::from(line.lock_round))
        .execute(&self.pool)
        .await
        .map_err(failed("shelve a log"))?;
        Ok(())
    }

    /// The lines that count, because log and ballot still are where they say; the others are deleted.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn shelf(&self) -> Result<Vec<Shelved>, StoreError> {
        let what = "read the shelf";
        sqlx::query(
            "DELETE FROM shelf WHERE fold <> $1 OR NOT EXISTS (SELECT 1 FROM entries WHERE \
             entries.ceremony = shelf.ceremony AND entries.seq = shelf.seq AND entries.hash = shelf.hash) OR EXISTS \
             (SELECT 1 FROM entries WHERE entries.ceremony = shelf.ceremony AND entries.seq = shelf.seq + 1) OR NOT EXISTS \
             (SELECT 1 FROM ballots WHERE ballots.ceremony = shelf.ceremony AND ballots.round = shelf.round AND \
             ballots.lock_round = shelf.lock_round AND ballots.undecided = 0)",
        )
        .bind(i64::from(FOLD))
        .execute(&self.pool)
        .await
        .map_err(failed(what))?;
        // Row by row: all rows at once weigh ten times the lines.
        let rows = sqlx::query(
            "SELECT ceremony, kind, wallet, generation, phase, opened_ms, charter, began_ms, seq, hash, time_ms, round, \
             lock_round FROM shelf",
        )
        .fetch(&self.pool);
        rows.map(|row| line(&row.map_err(failed(what))?)).try_collect().await
    }

    /// Takes every log off the shelf, so that all are folded.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn clear_shelf(&self) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM shelf").execute(&self.pool).await.map_err(failed("clear the shelf"))?;
        Ok(())
    }

    /// Takes a log off the shelf.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn unshelve(&self, ceremony: &CeremonyId) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM shelf WHERE ceremony = $1")
            .bind(ceremony.as_str())
            .execute(&self.pool)
            .await
            .map_err(failed("take a log off the shelf"))?;
        Ok(())
    }

    /// A log with what this node remembers about it.
    ///
    /// # Errors
    /// [`StoreError`], also where an entry is damaged.
    pub async fn log(&self, ceremony: &CeremonyId) -> Result<StoredLog, StoreError> {
        let what = "recall a log";
        let entry = |raw: log::Entry| {
            Entry::from_wire(raw).map_err(|_| StoreError::Malformed { what: "entry of a log" })
        };
        let entries = self.entries_from(ceremony, 1).await?.into_iter().map(entry);
        let aside = sqlx::query("SELECT body, signature FROM branches WHERE ceremony = $1 ORDER BY seq")
            .bind(ceremony.as_str())
            .fetch_all(&self.pool)
            .await
            .map_err(failed(what))?;
        let aside = aside.iter().map(|row| raw_entry(row, what).and_then(entry));
        let remembered = sqlx::query(
            "SELECT ceremony, round, undecided, COALESCE(lock_round, 0), COALESCE(lock_seq, 0), \
             COALESCE(lock_hash, ''), proof FROM ballots WHERE ceremony = $1",
        )
        .bind(ceremony.as_str())
        .fetch_optional(&self.pool)
        .await
        .map_err(failed(what))?;
        let memory = remembered.map(|row| ballot(&row, what)).transpose()?;
        let entries = entries.collect::<Result<Vec<Entry>, _>>()?;
        Ok(StoredLog {
            record: self.record_before(&entries).await?,
            entries,
            memory: memory.map(|(_, memory)| memory).unwrap_or_default(),
            aside: aside.collect::<Result<_, _>>()?,
        })
    }

    /// The record that a log's opening names, from the log of the ceremony that made it. None if the opening names none
    /// or this store does not have it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn record_before(&self, log: &[Entry]) -> Result<Option<Record>, StoreError> {
        let Some(Origin { ceremony, record }) = origin_of(log) else { return Ok(None) };
        let raw = self.entries_from(ceremony, 1).await?.into_iter();
        let made: Vec<Entry> = raw.filter_map(|raw| Entry::from_wire(raw).ok()).collect();
        Ok(record_in(&made, record))
    }
}
