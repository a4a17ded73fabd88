//! The store of an earlier version: what is kept for ever is read for ever.
//!
//! `tests/data/store` is that of node 1 of a lab, written by the version before old generations left memory: a key
//! generation, two refreshes and a test signing, of which there is a line; the share itself is blotted out.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ceremonies::attestation::TrustRoot;
use ceremonies::book::{Book, SetAside};
use ceremonies::ceremony::{Context, Phase};
use ceremonies::charter::Charter;
use ceremonies::ids::{CeremonyId, Generation, UnixMillis, WalletName};
use ceremonies::log::Entry;
use node::store::{Claim, Store, sqlite_url};

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/store");
/// After everything that is in it.
const LATER: UnixMillis = UnixMillis(1_800_000_000_000);

/// A copy that may be written to.
async fn copy(folder: &Path) -> Store {
    let path: PathBuf = folder.join("store.db");
    std::fs::copy(Path::new(DATA).join("store.db"), &path).unwrap();
    Store::open(&sqlite_url(&path)).await.unwrap()
}

async fn logs(store: &Store, ids: &[CeremonyId]) -> Vec<Vec<Entry>> {
    let mut logs = Vec::new();
    for id in ids {
        logs.push(store.log(id).await.unwrap().entries);
    }
    logs
}

fn gather(logs: Vec<Vec<Entry>>) -> (Book, Vec<SetAside>) {
    let read = |name| std::fs::read(Path::new(DATA).join(name)).unwrap();
    let charter = Charter::parse(&read("charter.toml")).unwrap();
    let root = TrustRoot::from_pem(&read("root.pem")).unwrap();
    Book::gather(Context::new(Arc::new(charter), Arc::new(root)).unwrap(), logs)
}

#[tokio::test]
async fn store_of_an_earlier_version_is_read_whole() {
    let folder = tempfile::tempdir().unwrap();
    let store = copy(folder.path()).await;
    // Another version's judgement is not believed: every log is folded again.
    assert!(store.shelf().await.unwrap().is_empty());
    let ids = store.ceremonies().await.unwrap();
    assert_eq!(ids.len(), 4);
    let (book, aside) = gather(logs(&store, &ids).await);
    assert!(aside.is_empty(), "{aside:?}");
    for (id, chapter) in book.iter() {
        assert_eq!(chapter.ceremony.phase_at(LATER), Phase::Closed, "{id}");
    }
    let wallet: WalletName = "treasury".parse().unwrap();
    let record = book.wallet(&wallet).unwrap().record;
    assert_eq!(record.generation, Generation(3));

    // What it has promised still binds it, and it has what it had.
    let ballots = store.ballots().await.unwrap();
    assert_eq!(ballots.len(), 4);
    for (id, memory) in &ballots {
        let head = book.get(id).unwrap().ceremony.head();
        assert_eq!(memory.lock.unwrap().tip.seq, head.seq, "{id}");
        assert!(!memory.proof.is_empty(), "{id}");
    }
    assert_eq!(store.read_to().await.unwrap().unwrap().seq, 221);
    assert!(store.share(&wallet, record.generation, &record.digest()).await.unwrap().is_some());
    let dkg = ids.iter().find(|id| id.as_str().starts_with("dkg")).unwrap();
    let again = format!("{dkg}/1+2+3/1/0");
    let digest = book.get(dkg).unwrap().ceremony.manifest().hash();
    let claim = store.claim_signing(&again, &digest, "m", "approved in the ceremony").await;
    assert!(!matches!(claim, Ok(Claim::New)), "a test signature is not begun twice");
}

#[tokio::test]
async fn store_of_an_earlier_version_that_was_changed_does_not_fold() {
    let folder = tempfile::tempdir().unwrap();
    let store = copy(folder.path()).await;
    let ids = store.ceremonies().await.unwrap();
    let mut logs = logs(&store, &ids).await;
    logs[0].remove(3);
    let (_, aside) = gather(logs);
    assert!(aside.iter().any(|log| log.from() == 5), "{aside:?}");
}
