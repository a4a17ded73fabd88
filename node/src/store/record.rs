//! The record: this node's copy of every log, the branches that it does not stand on, and its ballots.

use ceremonies::ids::{CeremonyId, Hash};
use ceremonies::log::Entry;
use ceremonies::record::{Lock, Memory, SignedHead, Tip};
use ceremonies::wire::{log, record};
use prost::Message;
use sqlx::any::AnyRow;
use sqlx::{Any, Executor, Row, Transaction};

use super::{PrivateFile, Store, StoreError, failed, malformed, number};
use crate::core::Mark;

/// The position of the stream.
const STREAM: &str = "stream";
/// The position that is written to show that the store can be written to.
const PROBE: &str = "probe";

pub(super) fn unsigned(row: &AnyRow, column: usize, what: &'static str) -> Result<u64, StoreError> {
    let value: i64 = row.try_get(column).map_err(failed(what))?;
    u64::try_from(value).map_err(|_| StoreError::Malformed { what: "number" })
}

pub(super) fn round(value: u64) -> Result<u32, StoreError> {
    u32::try_from(value).map_err(|_| StoreError::Malformed { what: "round" })
}

pub(super) fn raw_entry(row: &AnyRow, what: &'static str) -> Result<log::Entry, StoreError> {
    Ok(log::Entry {
        body: row.try_get(0).map_err(failed(what))?,
        signature: row.try_get(1).map_err(failed(what))?,
    })
}

/// A row of `ballots`.
pub(super) fn ballot(row: &AnyRow, what: &'static str) -> Result<(CeremonyId, Memory), StoreError> {
    let ceremony: String = row.try_get(0).map_err(failed(what))?;
    let hash: String = row.try_get(5).map_err(failed(what))?;
    let lock = if hash.is_empty() {
        None
    } else {
        let hash: Hash = hash.parse().map_err(malformed("hash of a lock"))?;
        let tip = Tip { seq: unsigned(row, 4, what)?, hash };
        Some(Lock { round: round(unsigned(row, 3, what)?)?, tip })
    };
    let proof: Vec<u8> = row.try_get(6).map_err(failed(what))?;
    let proof = record::News::decode(proof.as_slice())
        .map_err(|_| StoreError::Malformed { what: "proof of a lock" })?;
    let heads = proof.heads.into_iter().filter_map(|news| news.head);
    let memory = Memory {
        round: round(unsigned(row, 1, what)?)?,
        undecided: unsigned(row, 2, what)? != 0,
        lock,
        proof: heads.filter_map(|head| SignedHead::from_wire(head).ok()).collect(),
    };
    Ok((ceremony.parse().map_err(malformed("ceremony id"))?, memory))
}

async fn insert<'e>(entry: &Entry, into: impl Executor<'e, Database = Any>) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO entries (ceremony, seq, hash, body, signature) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (ceremony, seq) DO NOTHING",
    )
    .bind(entry.ceremony.as_str())
    .bind(number(entry.seq))
    .bind(entry.hash().to_string())
    .bind(entry.raw().body.clone())
    .bind(entry.raw().signature.clone())
    .execute(into)
    .await
    .map_err(failed("store an entry"))?;
    Ok(())
}

async fn remember<'e>(
    ceremony: &CeremonyId,
    memory: &Memory,
    into: impl Executor<'e, Database = Any>,
) -> Result<(), StoreError> {
    let heads =
        memory.proof.iter().map(|head| record::HeadNews { head: Some(head.raw().clone()), proof: vec![] });
    let proof = record::News { heads: heads.collect() }.encode_to_vec();
    sqlx::query(
        "INSERT INTO ballots (ceremony, round, undecided, lock_round, lock_seq, lock_hash, proof) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (ceremony) DO UPDATE SET round = excluded.round, \
         undecided = excluded.undecided, lock_round = excluded.lock_round, lock_seq = excluded.lock_seq, \
         lock_hash = excluded.lock_hash, proof = excluded.proof",
    )
    .bind(ceremony.as_str())
    .bind(i64::from(memory.round))
    .bind(i64::from(memory.undecided))
    .bind(memory.lock.map(|lock| i64::from(lock.round)))
    .bind(memory.lock.map(|lock| number(lock.tip.seq)))
    .bind(memory.lock.map(|lock| lock.tip.hash.to_string()))
    .bind(proof)
    .execute(into)
    .await
    .map_err(failed("remember a ballot"))?;
    Ok(())
}

async fn set_rest_aside(
    ceremony: &CeremonyId,
    keep: u64,
    transaction: &mut Transaction<'_, Any>,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO branches (ceremony, hash, seq, body, signature) \
         SELECT ceremony, hash, seq, body, signature FROM entries WHERE ceremony = $1 AND seq > $2 \
         ON CONFLICT (ceremony, hash) DO NOTHING",
    )
    .bind(ceremony.as_str())
    .bind(number(keep))
    .execute(&mut **transaction)
    .await
    .map_err(failed("put the rest of a log aside"))?;
    sqlx::query("DELETE FROM entries WHERE ceremony = $1 AND seq > $2")
        .bind(ceremony.as_str())
        .bind(number(keep))
        .execute(&mut **transaction)
        .await
        .map_err(failed("put the rest of a log aside"))?;
    Ok(())
}

impl Store {
    /// Stores an entry. Storing the same one again changes nothing.
    ///
    /// # Errors
    /// [`StoreError::Fork`] when another entry has its place.
    pub async fn append_entry(&self, entry: &Entry) -> Result<(), StoreError> {
        insert(entry, &self.pool).await?;
        let row = sqlx::query("SELECT hash FROM entries WHERE ceremony = $1 AND seq = $2")
            .bind(entry.ceremony.as_str())
            .bind(number(entry.seq))
            .fetch_one(&self.pool)
            .await
            .map_err(failed("store an entry"))?;
        let stored: String = row.try_get(0).map_err(failed("store an entry"))?;
        if stored == entry.hash().to_string() {
            return Ok(());
        }
        Err(StoreError::Fork {
            ceremony: entry.ceremony.clone(),
            seq: entry.seq,
            stored,
            offered: entry.hash(),
        })
    }

    /// Puts the entries after number `keep` aside, stores others in their place, and remembers the ballot that says so,
    /// in one transaction.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn switch_branch(
        &self,
        ceremony: &CeremonyId,
        keep: u64,
        entries: &[Entry],
        memory: &Memory,
    ) -> Result<(), StoreError> {
        let what = "change the branch of a log";
        let mut transaction = self.pool.begin().await.map_err(failed(what))?;
        self::set_rest_aside(ceremony, keep, &mut transaction).await?;
        for entry in entries {
            insert(entry, &mut *transaction).await?;
        }
        remember(ceremony, memory, &mut *transaction).await?;
        transaction.commit().await.map_err(failed(what))
    }

    /// Puts the entries after number `keep` aside.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn set_rest_aside(&self, ceremony: &CeremonyId, keep: u64) -> Result<(), StoreError> {
        let what = "put the rest of a log aside";
        let mut transaction = self.pool.begin().await.map_err(failed(what))?;
        self::set_rest_aside(ceremony, keep, &mut transaction).await?;
        transaction.commit().await.map_err(failed(what))
    }

    /// Keeps an entry of a branch that this node does not stand on. Keeping it again changes nothing.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn put_aside(&self, entry: &Entry) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO branches (ceremony, hash, seq, body, signature) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (ceremony, hash) DO NOTHING",
        )
        .bind(entry.ceremony.as_str())
        .bind(entry.hash().to_string())
        .bind(number(entry.seq))
        .bind(entry.raw().body.clone())
        .bind(entry.raw().signature.clone())
        .execute(&self.pool)
        .await
        .map_err(failed("keep an entry of another branch"))?;
        Ok(())
    }

    /// The entries of all branches that this node does not stand on, by their numbers, of ceremonies that are not
    /// shelved.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn aside(&self) -> Result<Vec<log::Entry>, StoreError> {
        let what = "read entries of other branches";
        let rows = sqlx::query(
            "SELECT body, signature FROM branches WHERE ceremony NOT IN (SELECT ceremony FROM shelf) \
             ORDER BY ceremony, seq",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(failed(what))?;
        rows.iter().map(|row| raw_entry(row, what)).collect()
    }

    /// Remembers a ballot.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn remember_ballot(&self, ceremony: &CeremonyId, memory: &Memory) -> Result<(), StoreError> {
        remember(ceremony, memory, &self.pool).await
    }

    /// The ballots that are remembered in ceremonies that are not shelved.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn ballots(&self) -> Result<Vec<(CeremonyId, Memory)>, StoreError> {
        let what = "read ballots";
        let rows = sqlx::query(
            "SELECT ceremony, round, undecided, COALESCE(lock_round, 0), COALESCE(lock_seq, 0), \
             COALESCE(lock_hash, ''), proof FROM ballots WHERE ceremony NOT IN (SELECT ceremony FROM shelf)",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(failed(what))?;
        rows.iter().map(|row| ballot(row, what)).collect()
    }

    async fn set_position(&self, name: &str, seq: i64, hash: &str) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO positions (name, seq, hash) VALUES ($1, $2, $3) \
             ON CONFLICT (name) DO UPDATE SET seq = excluded.seq, hash = excluded.hash",
        )
        .bind(name)
        .bind(seq)
        .bind(hash)
        .execute(&self.pool)
        .await
        .map_err(failed("write a position"))?;
        Ok(())
    }

    /// Remembers how far the stream was read.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn set_read_to(&self, mark: Mark) -> Result<(), StoreError> {
        self.set_position(STREAM, number(mark.seq), &mark.hash.to_string()).await
    }

    /// How far the stream was read.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn read_to(&self) -> Result<Option<Mark>, StoreError> {
        let what = "read a position";
        let row = sqlx::query("SELECT seq, hash FROM positions WHERE name = $1")
            .bind(STREAM)
            .fetch_optional(&self.pool)
            .await
            .map_err(failed(what))?;
        let Some(row) = row else { return Ok(None) };
        let hash: String = row.try_get(1).map_err(failed(what))?;
        Ok(Some(Mark { seq: unsigned(&row, 0, what)?, hash: hash.parse().map_err(malformed("hash"))? }))
    }

    /// Shows that the store can be written to.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn probe(&self) -> Result<(), StoreError> {
        self.set_position(PROBE, jiff::Timestamp::now().as_millisecond(), "").await?;
        Ok(self.file.as_ref().map_or(Ok(()), PrivateFile::check_log)?)
    }
}
