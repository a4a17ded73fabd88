//! The node's store, on both engines.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::BTreeSet;

use ceremonies::ceremony::Head;
use ceremonies::charter::CeremonyKind;
use ceremonies::ids::{CeremonyId, Generation, Hash, NodeIndex, UnixMillis};
use ceremonies::log::{Entry, Place};
use ceremonies::record::{Lock, Memory, Tip};
use ceremonies::wire::log;
use lab::postgres::{self, Postgres};
use node::core::Shelved;
use node::store::{Claim, PendingShare, ShareState, Store, StoreError};

use crate::ceremonies::PATIENCE;

fn share(generation: u32, blob: &[u8]) -> PendingShare {
    PendingShare {
        wallet: "treasury".parse().unwrap(),
        generation: Generation(generation),
        ceremony: format!("dkg-treasury-{generation}").parse().unwrap(),
        record: Hash::of_bytes(&generation.to_be_bytes()),
        blob: blob.to_vec(),
    }
}

async fn state(store: &Store, share: &PendingShare) -> Option<ShareState> {
    let stored = store.share(&share.wallet, share.generation, &share.record).await.unwrap();
    stored.map(|stored| stored.state)
}

async fn behaves(url: &str) {
    let store = Store::open(url).await.unwrap();
    let (one, two) = (share(1, b"sealed one"), share(2, &[0, 255, 7]));
    let promote = |of: &PendingShare| {
        let (store, of) = (store.clone(), of.clone());
        async move { store.promote(&of.wallet, of.generation, &of.record).await }
    };

    assert!(matches!(promote(&one).await, Err(StoreError::NothingToPromote { .. })));
    store.put_pending(&one).await.unwrap();
    store.put_pending(&one).await.unwrap();
    assert_eq!(state(&store, &one).await, Some(ShareState::Pending));
    let slipped_in = PendingShare { blob: b"another".to_vec(), ..one.clone() };
    assert!(matches!(store.put_pending(&slipped_in).await, Err(StoreError::OtherShare { .. })));
    promote(&one).await.unwrap();
    promote(&one).await.unwrap();
    assert_eq!(state(&store, &one).await, Some(ShareState::Current));

    assert!(matches!(promote(&two).await, Err(StoreError::NothingToPromote { .. })));
    assert_eq!(state(&store, &one).await, Some(ShareState::Current), "a failed promotion changes nothing");
    store.put_pending(&two).await.unwrap();
    promote(&two).await.unwrap();
    assert_eq!(state(&store, &one).await, Some(ShareState::Retired));
    assert_eq!(state(&store, &two).await, Some(ShareState::Current));
    assert!(matches!(promote(&one).await, Err(StoreError::NothingToPromote { .. })));
    assert_eq!(state(&store, &two).await, Some(ShareState::Current), "a retired share does not come back");
    assert_eq!(store.discard_pending(&two.ceremony).await.unwrap(), 0, "a current share is not discarded");
    let three = share(3, b"never committed");
    store.put_pending(&three).await.unwrap();
    assert_eq!(store.discard_pending(&three.ceremony).await.unwrap(), 1);
    assert_eq!(state(&store, &three).await, None);

    let digest = Hash::of_bytes(b"digest");
    assert_eq!(store.claim_signing("request", &digest, "m", "test").await.unwrap(), Claim::New);
    let (reporter, peer) = (NodeIndex::new(1).unwrap(), NodeIndex::new(2).unwrap());
    store.record_ban(reporter, peer, &one.ceremony, "cheated").await.unwrap();
    for envelope in [b"first".as_slice(), b"second", b"first"] {
        store.keep_evidence(&one.ceremony, peer, envelope).await.unwrap();
    }
    drop(store);

    let store = Store::open(url).await.unwrap();
    let mut kept = store.evidence(&one.ceremony).await.unwrap();
    kept.sort();
    assert_eq!(kept, [(peer, b"first".to_vec()), (peer, b"second".to_vec())]);
    assert!(store.evidence(&two.ceremony).await.unwrap().is_empty());
    assert_eq!(store.claim_signing("request", &digest, "m", "test").await.unwrap(), Claim::Used);
    assert_eq!(store.bans().await.unwrap(), [(reporter, peer)]);
    let stored = store.share(&two.wallet, two.generation, &two.record).await.unwrap().unwrap();
    assert_eq!(stored.blob, two.blob, "a blob is stored to the byte");
}

/// The next entry of a log, as far as a store looks at it.
fn entry_behind(ceremony: &CeremonyId, before: Option<&Entry>) -> Entry {
    let place = Place {
        ceremony: ceremony.clone(),
        seq: before.map_or(1, |before| before.seq + 1),
        prev: before.map_or(Hash::ZERO, Entry::hash),
        time: UnixMillis(1_800_000_000_000),
        node: NodeIndex::new(1).unwrap(),
    };
    let adopted = log::Adopted { node: 1, record: vec![7; 32] };
    let event = log::Event { kind: Some(log::event::Kind::Adopted(adopted)) };
    let sign = |_: &[u8]| Ok::<_, Box<dyn std::error::Error>>(vec![7; 64]);
    Entry::create(place, event, sign).unwrap()
}

fn line_at(entry: &Entry) -> Shelved {
    Shelved {
        ceremony: entry.ceremony.clone(),
        kind: CeremonyKind::TestSign,
        wallet: "treasury".parse().unwrap(),
        generation: Generation(3),
        phase: "void: withdrawn by olga: it's late".to_owned(),
        opened: UnixMillis(1_799_999_999_000),
        charter: Hash::of_bytes(b"charter"),
        began: UnixMillis(1_800_000_000_000),
        head: Head { seq: entry.seq, hash: entry.hash(), time: entry.time },
        round: 4,
        lock_round: 2,
    }
}

async fn shelves(url: &str) {
    let store = Store::open(url).await.unwrap();
    let [over, grown, other, voted, open] = ["over", "grown", "other", "voted", "open"]
        .map(|name| format!("test-sign-{name}").parse::<CeremonyId>().unwrap());
    let mut last = Vec::new();
    for id in [&over, &grown, &other, &voted, &open] {
        let first = entry_behind(id, None);
        let second = entry_behind(id, Some(&first));
        store.append_entry(&first).await.unwrap();
        store.append_entry(&second).await.unwrap();
        last.push(second);
    }
    let tip = Tip { seq: 2, hash: last[0].hash() };
    let memory = Memory { round: 4, undecided: false, lock: Some(Lock { round: 2, tip }), proof: Vec::new() };
    store.remember_ballot(&open, &Memory::default()).await.unwrap();
    let aside = entry_behind(&over, Some(&last[0]));
    store.put_aside(&aside).await.unwrap();
    for line in &last[..4] {
        store.remember_ballot(&line.ceremony, &memory).await.unwrap();
        store.shelve(&line_at(line)).await.unwrap();
    }
    // It has gone on to another round since.
    store.remember_ballot(&voted, &Memory { round: 5, ..memory.clone() }).await.unwrap();
    store.append_entry(&entry_behind(&grown, Some(&last[1]))).await.unwrap();
    let elsewhere = Head { hash: Hash::of_bytes(b"another branch"), ..line_at(&last[2]).head };
    store.shelve(&Shelved { head: elsewhere, ..line_at(&last[2]) }).await.unwrap();
    drop(store);

    let store = Store::open(url).await.unwrap();
    assert_eq!(store.shelf().await.unwrap(), [line_at(&last[0])], "a line counts where its log ends");
    let folded: BTreeSet<CeremonyId> = store.ceremonies().await.unwrap().into_iter().collect();
    assert_eq!(folded, [grown.clone(), other.clone(), voted.clone(), open.clone()].into());
    let ballots = store.ballots().await.unwrap();
    let ballots: BTreeSet<&CeremonyId> = ballots.iter().map(|(id, _)| id).collect();
    assert_eq!(ballots, [&grown, &other, &voted, &open].into());
    assert!(store.aside().await.unwrap().is_empty());

    let recalled = store.log(&over).await.unwrap();
    assert_eq!(recalled.entries.last(), last.first());
    assert_eq!((recalled.memory, recalled.aside), (memory, vec![aside.clone()]));
    store.unshelve(&over).await.unwrap();
    assert!(store.shelf().await.unwrap().is_empty());
    assert!(store.ceremonies().await.unwrap().contains(&over));
    assert_eq!(store.aside().await.unwrap(), [aside.raw().clone()]);
}

#[tokio::test]
async fn the_store_keeps_its_promises_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    behaves(&format!("sqlite:{}", folder.path().join("store.db").display())).await;
    shelves(&format!("sqlite:{}", folder.path().join("shelf.db").display())).await;
}

#[tokio::test]
async fn the_store_keeps_its_promises_on_postgresql() {
    if postgres::installed().is_none() {
        assert!(std::env::var_os("CI").is_none(), "PostgreSQL is not installed, and CI must not skip it");
        eprintln!("SKIPPED: the_store_keeps_its_promises_on_postgresql: PostgreSQL is not installed");
        return;
    }
    let server = Postgres::start().unwrap();
    behaves(&server.database("store").unwrap()).await;
    shelves(&server.database("shelf").unwrap()).await;
}

#[tokio::test]
async fn a_store_of_another_kind_is_refused() {
    assert!(matches!(Store::open("mysql://host/db").await, Err(StoreError::Url)));
}

#[tokio::test]
async fn pooler_that_shares_connections_is_named_and_one_that_does_not_works() {
    if postgres::installed().is_none() {
        assert!(std::env::var_os("CI").is_none(), "PostgreSQL is not installed (Debian: postgresql)");
        return;
    }
    let server = Postgres::start().unwrap();
    let direct = server.database("node").unwrap();
    let by_session = server.pooled("node", false).unwrap();
    behaves(by_session.url()).await;

    let by_transaction = server.pooled("node", true).unwrap();
    let trouble = async {
        loop {
            let store = Store::open(by_transaction.url()).await?;
            store.probe().await?;
        }
    };
    let trouble: Result<(), StoreError> = tokio::time::timeout(PATIENCE, trouble).await.unwrap();
    let said = trouble.unwrap_err().to_string();
    assert!(said.contains("pooler in transaction mode") && said.contains("pool_mode=session"), "{said}");
    Store::open(&direct).await.unwrap().probe().await.unwrap();
}
