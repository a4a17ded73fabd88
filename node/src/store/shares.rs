//! Sealed shares: pending alongside current, made current in one transaction, and deleted when every node has the next
//! ones.

use std::str::FromStr;

use ceremonies::ids::{CeremonyId, Generation, Hash, WalletName};
use ceremonies::wire::bus;
use sqlx::Row;
use sqlx::any::AnyRow;

use super::{Store, StoreError, failed, malformed};

/// A sealed share that waits for its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingShare {
    /// The wallet.
    pub wallet: WalletName,
    /// The generation.
    pub generation: Generation,
    /// The ceremony that makes it.
    pub ceremony: CeremonyId,
    /// Digest of its generation's record.
    pub record: Hash,
    /// The sealed share.
    pub blob: Vec<u8>,
}

/// Where a stored share stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShareState {
    /// Its certificate is not there.
    Pending,
    /// It signs.
    Current,
    /// A later generation signs.
    Retired,
}

impl FromStr for ShareState {
    type Err = StoreError;
    fn from_str(text: &str) -> Result<Self, StoreError> {
        match text {
            "pending" => Ok(Self::Pending),
            "current" => Ok(Self::Current),
            "retired" => Ok(Self::Retired),
            _ => Err(StoreError::Malformed { what: "share state" }),
        }
    }
}

/// A sealed share as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredShare {
    /// Where it stands.
    pub state: ShareState,
    /// The sealed share.
    pub blob: Vec<u8>,
}

impl Store {
    /// Stores a new share as pending. Storing the same one again changes nothing.
    ///
    /// # Errors
    /// [`StoreError::OtherShare`] when another blob is stored for the same record.
    pub async fn put_pending(&self, share: &PendingShare) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO shares (wallet, generation, record, ceremony, state, blob) \
             VALUES ($1, $2, $3, $4, 'pending', $5) ON CONFLICT (wallet, generation, record) DO NOTHING",
        )
        .bind(share.wallet.as_str())
        .bind(i64::from(share.generation.0))
        .bind(share.record.to_string())
        .bind(share.ceremony.as_str())
        .bind(share.blob.clone())
        .execute(&self.pool)
        .await
        .map_err(failed("store a share"))?;
        match self.share(&share.wallet, share.generation, &share.record).await? {
            Some(stored) if stored.blob == share.blob => Ok(()),
            Some(_) | None => {
                Err(StoreError::OtherShare { wallet: share.wallet.clone(), generation: share.generation })
            }
        }
    }

    /// The share stored for a record.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn share(
        &self,
        wallet: &WalletName,
        generation: Generation,
        record: &Hash,
    ) -> Result<Option<StoredShare>, StoreError> {
        let what = "read a share";
        let row = sqlx::query(
            "SELECT state, blob FROM shares WHERE wallet = $1 AND generation = $2 AND record = $3",
        )
        .bind(wallet.as_str())
        .bind(i64::from(generation.0))
        .bind(record.to_string())
        .fetch_optional(&self.pool)
        .await
        .map_err(failed(what))?;
        let Some(row) = row else { return Ok(None) };
        let state: String = row.try_get(0).map_err(failed(what))?;
        Ok(Some(StoredShare { state: state.parse()?, blob: row.try_get(1).map_err(failed(what))? }))
    }

    /// Makes the committed share the current one, and the one before retired, in one transaction. Doing it
    /// again changes nothing. A retired share stays retired.
    ///
    /// # Errors
    /// [`StoreError::NothingToPromote`] when this node has no share for that record, or a retired one.
    pub async fn promote(
        &self,
        wallet: &WalletName,
        generation: Generation,
        record: &Hash,
    ) -> Result<(), StoreError> {
        let what = "make a share current";
        let mut transaction = self.pool.begin().await.map_err(failed(what))?;
        sqlx::query(
            "UPDATE shares SET state = 'retired' WHERE wallet = $1 AND state = 'current' \
             AND (generation <> $2 OR record <> $3)",
        )
        .bind(wallet.as_str())
        .bind(i64::from(generation.0))
        .bind(record.to_string())
        .execute(&mut *transaction)
        .await
        .map_err(failed(what))?;
        let changed = sqlx::query(
            "UPDATE shares SET state = 'current' WHERE wallet = $1 AND generation = $2 AND record = $3 \
             AND state <> 'retired'",
        )
        .bind(wallet.as_str())
        .bind(i64::from(generation.0))
        .bind(record.to_string())
        .execute(&mut *transaction)
        .await
        .map_err(failed(what))?;
        if changed.rows_affected() != 1 {
            transaction.rollback().await.map_err(failed(what))?;
            return Err(StoreError::NothingToPromote { wallet: wallet.clone(), generation });
        }
        transaction.commit().await.map_err(failed(what))
    }

    /// Forgets the pending share of a ceremony that is proven never to commit. Returns how many there were.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn discard_pending(&self, ceremony: &CeremonyId) -> Result<u64, StoreError> {
        let what = "discard a pending share";
        let done = sqlx::query("DELETE FROM shares WHERE ceremony = $1 AND state = 'pending'")
            .bind(ceremony.as_str())
            .execute(&self.pool)
            .await
            .map_err(failed(what))?;
        self.erase(what).await?;
        Ok(done.rows_affected())
    }

    /// Deletes every share of the generations before this one, as thoroughly as the store allows: SQLite overwrites the
    /// rows and truncates its write-ahead log, or this reports that it could not. What PostgreSQL's own log, or copies
    /// of either made outside, still hold is beyond its reach. Returns how many there were.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete_before(
        &self,
        wallet: &WalletName,
        generation: Generation,
    ) -> Result<u64, StoreError> {
        let what = "delete the shares of earlier generations";
        let done = sqlx::query("DELETE FROM shares WHERE wallet = $1 AND generation < $2")
            .bind(wallet.as_str())
            .bind(i64::from(generation.0))
            .execute(&self.pool)
            .await
            .map_err(failed(what))?;
        self.erase(what).await?;
        Ok(done.rows_affected())
    }

    /// The first shares held, by wallet and generation, at most this many: a store may hold those of 100,000 wallets.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn held(&self, most: u32) -> Result<Vec<bus::HeldShare>, StoreError> {
        let what = "list shares";
        let rows = sqlx::query(
            "SELECT wallet, generation, record, state FROM shares ORDER BY wallet, generation LIMIT $1",
        )
        .bind(i64::from(most))
        .fetch_all(&self.pool)
        .await
        .map_err(failed(what))?;
        let held = |row: &AnyRow| {
            let generation: i64 = row.try_get(1).map_err(failed(what))?;
            let record: String = row.try_get(2).map_err(failed(what))?;
            let record: Hash = record.parse().map_err(malformed("record digest"))?;
            Ok(bus::HeldShare {
                wallet: row.try_get(0).map_err(failed(what))?,
                generation: u32::try_from(generation)
                    .map_err(|_| StoreError::Malformed { what: "generation" })?,
                record: record.as_bytes().to_vec(),
                state: row.try_get(3).map_err(failed(what))?,
            })
        };
        rows.iter().map(held).collect()
    }
}
