//! Starting: reading and checking everything before anything is connected, and the node's own copy of the logs.

use std::collections::BTreeSet;
use std::fs::File;
use std::sync::Arc;

use ceremonies::attestation::{InvalidRoot, TrustRoot};
use ceremonies::book::{Book, Examined, NotTaken, origin_of};
use ceremonies::ceremony::{Context, ForeignRoot};
use ceremonies::charter::{Charter, CharterError, MAX_CHARTER};
use ceremonies::evidence::{self, Expected, VerifyError};
use ceremonies::ids::{CeremonyId, NodeIndex};
use ceremonies::log::{Entry, EntryError};
use ceremonies::text::chain;
use thiserror::Error;
use tracing::{error, warn};

use super::BusError;
use crate::config::Config;
use crate::core::{Identity, Remembered, Shelved};
use crate::file::{self, MAX_SETTINGS};
use crate::store::{Store, StoreError};
use crate::vault::{Vault, VaultError};

/// Why an agent does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// A file of the configuration cannot be read.
    #[error("{what} {path} cannot be read")]
    Read {
        /// What it should be.
        what: &'static str,
        /// Where.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The charter is refused.
    #[error("the charter is refused")]
    Charter(#[from] CharterError),
    /// The root is no certificate.
    #[error("the attestation root is refused")]
    Root(#[from] InvalidRoot),
    /// The root is not the charter's.
    #[error("the attestation root is not the one that the charter names")]
    Foreign(#[from] ForeignRoot),
    /// The charter lists no such node, or the charter in force lists another key for it.
    #[error("the charter lists node {0} with an NKey other than the seed's, or not at all")]
    NotInCharter(NodeIndex),
    /// The charter in force excludes the node.
    #[error(
        "node {0} is excluded by the charter in force, and takes part in nothing until an amendment takes it back with \
         a new NKey"
    )]
    Excluded(NodeIndex),
    /// The seed is invalid.
    #[error("the NKey seed cannot be used")]
    Seed,
    /// The store cannot be opened.
    #[error("the store cannot be opened")]
    Store(#[from] StoreError),
    /// The bus cannot be set up.
    #[error("the bus cannot be set up")]
    Bus(#[from] BusError),
    /// The vault cannot be used.
    #[error("the vault cannot be used")]
    Vault(#[from] VaultError),
    /// The bundle does not verify.
    #[error("the bundle is refused")]
    Bundle(#[from] VerifyError),
    /// This node's copy of a log does not fold.
    #[error("entry {seq} of {ceremony} in this node's store is damaged; restore the store from a copy")]
    DamagedEntry {
        /// Which ceremony.
        ceremony: CeremonyId,
        /// Which entry.
        seq: u64,
        /// Why.
        source: EntryError,
    },
    /// An entry of the bundle differs from the store's.
    #[error("the bundle's log does not continue the log that this node has")]
    Taken(#[from] NotTaken),
}

fn read(what: &'static str, path: &std::path::Path, limit: usize) -> Result<Vec<u8>, StartError> {
    file::read(path, limit).map_err(|source| StartError::Read { what, path: path.to_owned(), source })
}

/// What an agent starts with.
pub(super) struct Ready {
    pub(super) identity: Identity,
    pub(super) store: Store,
    pub(super) claim: Option<File>,
    pub(super) remembered: Remembered,
    pub(super) vault: Option<Vault>,
}

/// Reads charter, root and seed, and checks that they belong together.
pub(super) fn identity(config: &Config) -> Result<(Identity, Context), StartError> {
    let charter = Arc::new(Charter::parse(&read("the charter", &config.charter, MAX_CHARTER)?)?);
    let root = TrustRoot::from_pem(&read("the attestation root", &config.root, MAX_SETTINGS)?)?;
    let context = Context::new(Arc::clone(&charter), Arc::new(root))?;
    let seed = zeroize::Zeroizing::new(read("the NKey seed", &config.nats.seed, MAX_SETTINGS)?);
    let seed = std::str::from_utf8(&seed).map_err(|_| StartError::Seed)?;
    let nkey = nkeys::KeyPair::from_seed(seed.trim()).map_err(|_| StartError::Seed)?;
    if charter.node(config.node).is_none() {
        return Err(StartError::NotInCharter(config.node));
    }
    Ok((Identity { node: config.node, charter, nkey }, context))
}

/// Reads everything that an agent starts with.
pub(super) async fn ready(config: &Config) -> Result<Ready, StartError> {
    let (identity, context) = identity(config)?;
    let store = Store::open(&config.store).await?;
    let claim = store.claim()?;
    let (book, shelf) = own_book(context, &store).await?;
    let charter = book.context().charter();
    if charter.excludes(identity.node) {
        warn!(node = %identity.node, "the charter in force excludes this node: it takes part in nothing");
    } else if !identity.is_listed(charter) {
        warn!(node = %identity.node, "the charter in force lists another NKey for this node: amend it");
    }
    let aside = store.aside().await?.into_iter().filter_map(|raw| Entry::from_wire(raw).ok());
    let remembered = Remembered {
        book,
        shelf,
        ballots: store.ballots().await?.into_iter().collect(),
        aside: aside.collect(),
        read_to: store.read_to().await?,
    };
    let vault = config.vault.as_ref().map(Vault::open).transpose()?;
    Ok(Ready { identity, store, claim, remembered, vault })
}

/// The charter that is in force by this node's own copy of the logs.
///
/// # Errors
/// [`StartError`].
pub async fn charter_in_force(config: &Config) -> Result<Arc<Charter>, StartError> {
    let (book, _) = own_book(identity(config)?.1, &Store::open(&config.store).await?).await?;
    Ok(Arc::clone(book.context().charter()))
}

/// Checks that the charter in force, by this node's own copy of the logs, lists the node with its key and does not
/// exclude it.
///
/// # Errors
/// [`StartError`].
pub async fn check(config: &Config) -> Result<(), StartError> {
    let (identity, _) = identity(config)?;
    let charter = charter_in_force(config).await?;
    if charter.excludes(config.node) {
        return Err(StartError::Excluded(config.node));
    }
    if identity.is_listed(&charter) { Ok(()) } else { Err(StartError::NotInCharter(config.node)) }
}

/// Puts the logs of an evidence bundle into the store of a node that has none: this is how a cluster that lost
/// everything gets its record back. Returns how many ceremonies the store knows then.
///
/// # Errors
/// [`StartError`], with the store as it was for the first log that is refused and those after it.
pub async fn take_bundle(config: &Config, bundle: &[u8]) -> Result<usize, StartError> {
    let (identity, context) = identity(config)?;
    let store = Store::open(&config.store).await?;
    let _claim = store.claim()?;
    store.clear_shelf().await?;
    let (mut book, _) = own_book(context, &store).await?;
    let expected = Expected { charter: Some(identity.charter.hash()), ..Expected::default() };
    for entry in evidence::logs(bundle, &expected)?.into_iter().flatten() {
        if let Examined::New(next) = book.examine(entry)? {
            store.append_entry(next.entry()).await?;
            book.commit(*next);
        }
    }
    Ok(book.iter().count())
}

/// The book of the logs in the store, and the lines of those that are shelved. A log that does not fold never keeps the
/// agent from starting: it is reported, and the rest of it is put aside, so that what belongs there can take its place.
async fn own_book(context: Context, store: &Store) -> Result<(Book, Vec<Shelved>), StartError> {
    let mut shelf = store.shelf().await?;
    let mut logs = Vec::new();
    for ceremony in store.ceremonies().await? {
        let mut log = Vec::new();
        for (seq, raw) in (1..).zip(store.entries_from(&ceremony, 1).await?) {
            let damaged = |source| StartError::DamagedEntry { ceremony: ceremony.clone(), seq, source };
            log.push(Entry::from_wire(raw).map_err(damaged)?);
        }
        logs.push(log);
    }
    let mut book = Book::new(context);
    let here: BTreeSet<&CeremonyId> = logs.iter().flatten().map(|entry| &entry.ceremony).collect();
    let rests_on_shelved =
        |log: &&Vec<Entry>| origin_of(log).is_some_and(|origin| !here.contains(&origin.ceremony));
    for log in logs.iter().filter(rests_on_shelved) {
        book.know_records(store.record_before(log).await?);
    }
    for log in book.take_logs(logs) {
        let (ceremony, from, why) = (&log.ceremony, log.from(), chain(&log.why));
        error!(%ceremony, from, %why, "this node's copy of a log does not fold and is set aside");
        if from > 1 {
            store.set_rest_aside(ceremony, from - 1).await?;
        }
    }
    let is_overdue = |line: &Shelved| book.is_overdue(&line.charter, line.began);
    let overdue: Vec<Shelved> = shelf.extract_if(.., |line| is_overdue(line)).collect();
    for line in overdue {
        error!(ceremony = %line.ceremony, "set aside: another charter was in force when it was opened");
        store.unshelve(&line.ceremony).await?;
    }
    Ok((book, shelf))
}
