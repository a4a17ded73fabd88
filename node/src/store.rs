//! The node's store: its own copy of the logs, its sealed shares, what it signed, and the bans.
//!
//! One schema and one set of queries for PostgreSQL and SQLite. It holds nothing that its host may not see. A share
//! becomes current in one transaction, and nothing here ever overwrites one.

mod file;
mod perform;
mod record;
mod released;
mod shares;
mod shelf;

use std::fs::File;
use std::time::Duration;

use ceremonies::ids::{CeremonyId, Generation, Hash, InvalidId, NodeIndex, WalletName};
use ceremonies::wire::log;
use sqlx::any::{AnyConnectOptions, AnyPoolOptions, AnyRow};
use sqlx::error::DatabaseError;
use sqlx::migrate::MigrateError;
use sqlx::{AnyConnection, AnyPool, Connection as _, Executor, Row};
use thiserror::Error;

use self::file::PrivateFile;
pub use self::file::{FileError, sqlite_url};
pub use self::shares::{PendingShare, ShareState, StoredShare};

/// Connections held open: the agent's one task uses one at a time.
const MAX_CONNECTIONS: u32 = 2;
/// How long a query waits for a connection before the store counts as lost.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long one more try may take to say why there is no connection.
const ONE_TRY: Duration = Duration::from_secs(2);

/// Why the store failed to do what was asked.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The URL names neither PostgreSQL nor SQLite.
    #[error("store URL must begin with postgres: or sqlite:")]
    Url,
    /// Something is wrong with SQLite's file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A pooler gives every transaction another connection, and none knows the statements of the others.
    #[error(
        "the store is reached through a pooler in transaction mode, which loses prepared statements: connect to the \
         PostgreSQL server itself, or have the pooler keep sessions (PgBouncer: pool_mode=session)"
    )]
    Pooler(#[source] sqlx::Error),
    /// SQLite's write-ahead log could not be truncated.
    #[error(
        "old shares are deleted, but the store's write-ahead log may still hold them, because another program is \
         reading the store's file: end that program (`fuser` names it)"
    )]
    NotErased,
    /// The database failed.
    #[error("the store failed to {what}")]
    Database {
        /// What was asked of it.
        what: &'static str,
        /// Why it failed.
        source: sqlx::Error,
    },
    /// The schema could not be brought up to date.
    #[error("store schema cannot be brought up to date")]
    Migration(#[source] sqlx::migrate::MigrateError),
    /// A value in the store is not what this program wrote.
    #[error("store holds a malformed {what}; restore it from a copy")]
    Malformed {
        /// What.
        what: &'static str,
    },
    /// Another entry is stored at this place.
    #[error("entry {seq} of {ceremony} is already stored with hash {stored}, not {offered}: the log forks")]
    Fork {
        /// Which ceremony.
        ceremony: CeremonyId,
        /// Its number.
        seq: u64,
        /// The hash that is stored.
        stored: String,
        /// The hash of the other.
        offered: Hash,
    },
    /// Another share is stored for this very record.
    #[error(
        "a different sealed share of {wallet}, generation {generation}, is already stored for the same record"
    )]
    OtherShare {
        /// The wallet.
        wallet: WalletName,
        /// The generation.
        generation: Generation,
    },
    /// There is nothing pending or current that could be promoted.
    #[error("no share of {wallet}, generation {generation}, is stored for the committed record")]
    NothingToPromote {
        /// The wallet.
        wallet: WalletName,
        /// The generation.
        generation: Generation,
    },
}

/// Whether a request may be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// It was not known before; from now on it is known, for ever.
    New,
    /// It has been claimed before.
    Used,
}

/// The store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    pool: AnyPool,
    options: AnyConnectOptions,
    /// SQLite's file; none with PostgreSQL.
    file: Option<PrivateFile>,
}

fn failed(what: &'static str) -> impl FnOnce(sqlx::Error) -> StoreError {
    move |source| {
        if lost_its_statements(&source) {
            StoreError::Pooler(source)
        } else {
            StoreError::Database { what, source }
        }
    }
}

/// A pool that waited in vain for a connection does not say why it got none: one more is tried by hand.
async fn true_reason(error: sqlx::Error, options: &AnyConnectOptions) -> sqlx::Error {
    if !matches!(error, sqlx::Error::PoolTimedOut) {
        return error;
    }
    match tokio::time::timeout(ONE_TRY, AnyConnection::connect_with(options)).await {
        Ok(Err(why)) => why,
        Ok(Ok(_)) | Err(_) => error,
    }
}

/// Whether PostgreSQL has a prepared statement twice, or not at all, which means that two programs share a connection.
fn lost_its_statements(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .and_then(DatabaseError::code)
        .is_some_and(|code| matches!(&*code, "42P05" | "26000"))
}

#[expect(clippy::wildcard_enum_match_arm, reason = "a library's enum, of which two causes are told apart")]
fn not_migrated(error: MigrateError) -> StoreError {
    match error {
        MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _)
            if lost_its_statements(&source) =>
        {
            StoreError::Pooler(source)
        }
        error => StoreError::Migration(error),
    }
}

fn malformed(what: &'static str) -> impl Fn(InvalidId) -> StoreError {
    move |_| StoreError::Malformed { what }
}

fn index(row: &AnyRow, column: usize, what: &'static str) -> Result<NodeIndex, StoreError> {
    let index: i64 = row.try_get(column).map_err(failed(what))?;
    let index = u32::try_from(index).ok().and_then(|index| NodeIndex::try_from(index).ok());
    index.ok_or(StoreError::Malformed { what: "node index" })
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

impl Store {
    /// Opens the store and brings its schema up to date.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be reached or is not a store.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        if !(url.starts_with("postgres:") || url.starts_with("postgresql:") || url.starts_with("sqlite:")) {
            return Err(StoreError::Url);
        }
        sqlx::any::install_default_drivers();
        let file = url.strip_prefix("sqlite:").map(PrivateFile::create).transpose()?;
        let is_sqlite = file.is_some();
        let url = file.as_ref().map_or_else(|| url.to_owned(), PrivateFile::url);
        let options: AnyConnectOptions = url.parse().map_err(failed("read its URL"))?;
        let pool = AnyPoolOptions::new()
            .max_connections(MAX_CONNECTIONS)
            .acquire_timeout(PATIENCE)
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    if is_sqlite {
                        // Durable at every commit, as PostgreSQL is by default.
                        connection
                            .execute(
                                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
                                 PRAGMA busy_timeout = 5000; PRAGMA secure_delete = ON",
                            )
                            .await?;
                    }
                    Ok(())
                })
            })
            .connect_with(options.clone())
            .await;
        let pool = match pool {
            Ok(pool) => pool,
            Err(error) => return Err(failed("connect")(true_reason(error, &options).await)),
        };
        sqlx::migrate!().run(&pool).await.map_err(not_migrated)?;
        let store = Self { pool, options, file };
        store.check_file()?;
        Ok(store)
    }

    /// Keeps every other agent on this machine from a store that is a file, until what is returned is dropped. Of a
    /// database on a server, whoever runs it must see to that.
    ///
    /// # Errors
    /// [`StoreError`] when another agent has it.
    pub fn claim(&self) -> Result<Option<File>, StoreError> {
        Ok(self.file.as_ref().map(PrivateFile::claim).transpose()?)
    }

    /// Whether the open file is still the one under the store's name: what is written to any other is lost when this
    /// program ends.
    fn check_file(&self) -> Result<(), StoreError> {
        Ok(self.file.as_ref().map_or(Ok(()), PrivateFile::check)?)
    }

    /// Truncates SQLite's write-ahead log, which holds what was overwritten in the file.
    async fn erase(&self, what: &'static str) -> Result<(), StoreError> {
        if self.file.is_none() {
            return Ok(());
        }
        let row = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)")
            .fetch_one(&self.pool)
            .await
            .map_err(failed(what))?;
        let busy: i64 = row.try_get(0).map_err(failed(what))?;
        if busy == 0 { Ok(()) } else { Err(StoreError::NotErased) }
    }

    /// The ceremonies that have stored entries and are not shelved.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn ceremonies(&self) -> Result<Vec<CeremonyId>, StoreError> {
        let what = "list ceremonies";
        let rows = sqlx::query(
            "SELECT ceremony FROM entries WHERE seq = 1 AND ceremony NOT IN (SELECT ceremony FROM shelf)",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(failed(what))?;
        rows.iter()
            .map(|row| {
                let text: String = row.try_get(0).map_err(failed(what))?;
                text.parse().map_err(malformed("ceremony id"))
            })
            .collect()
    }

    /// A ceremony's entries from a number on, in order.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn entries_from(&self, ceremony: &CeremonyId, seq: u64) -> Result<Vec<log::Entry>, StoreError> {
        let what = "read entries";
        let rows =
            sqlx::query("SELECT body, signature FROM entries WHERE ceremony = $1 AND seq >= $2 ORDER BY seq")
                .bind(ceremony.as_str())
                .bind(number(seq))
                .fetch_all(&self.pool)
                .await
                .map_err(failed(what))?;
        rows.iter().map(|row| record::raw_entry(row, what)).collect()
    }

    /// Claims a request id, once and for all.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn claim_signing(
        &self,
        request: &str,
        digest: &Hash,
        path: &str,
        decision: &str,
    ) -> Result<Claim, StoreError> {
        let done = sqlx::query(
            "INSERT INTO signings (request, digest, path, decision, at_ms) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (request) DO NOTHING",
        )
        .bind(request)
        .bind(digest.to_string())
        .bind(path)
        .bind(decision)
        .bind(jiff::Timestamp::now().as_millisecond())
        .execute(&self.pool)
        .await
        .map_err(failed("claim a signature"))?;
        Ok(if done.rows_affected() == 1 { Claim::New } else { Claim::Used })
    }

    /// Keeps a signed envelope on which an accusation rests. Keeping it again changes nothing.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn keep_evidence(
        &self,
        ceremony: &CeremonyId,
        culprit: NodeIndex,
        envelope: &[u8],
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO evidence (ceremony, culprit, digest, envelope) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (ceremony, culprit, digest) DO NOTHING",
        )
        .bind(ceremony.as_str())
        .bind(i64::from(culprit.get()))
        .bind(Hash::of_bytes(envelope).to_string())
        .bind(envelope.to_vec())
        .execute(&self.pool)
        .await
        .map_err(failed("keep evidence"))?;
        Ok(())
    }

    /// The envelopes kept for a ceremony, with the node that each accuses.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn evidence(&self, ceremony: &CeremonyId) -> Result<Vec<(NodeIndex, Vec<u8>)>, StoreError> {
        let what = "read evidence";
        let rows = sqlx::query("SELECT culprit, envelope FROM evidence WHERE ceremony = $1 ORDER BY digest")
            .bind(ceremony.as_str())
            .fetch_all(&self.pool)
            .await
            .map_err(failed(what))?;
        rows.iter().map(|row| Ok((index(row, 0, what)?, row.try_get(1).map_err(failed(what))?))).collect()
    }

    /// Records a ban. It stays.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn record_ban(
        &self,
        reporter: NodeIndex,
        peer: NodeIndex,
        ceremony: &CeremonyId,
        reason: &str,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO bans (reporter, peer, ceremony, reason) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (reporter, peer) DO NOTHING",
        )
        .bind(i64::from(reporter.get()))
        .bind(i64::from(peer.get()))
        .bind(ceremony.as_str())
        .bind(reason)
        .execute(&self.pool)
        .await
        .map_err(failed("record a ban"))?;
        Ok(())
    }

    /// All bans: who reported whom.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn bans(&self) -> Result<Vec<(NodeIndex, NodeIndex)>, StoreError> {
        let what = "list bans";
        let rows = sqlx::query("SELECT reporter, peer FROM bans ORDER BY reporter, peer")
            .fetch_all(&self.pool)
            .await
            .map_err(failed(what))?;
        rows.iter().map(|row| Ok((index(row, 0, what)?, index(row, 1, what)?))).collect()
    }
}
