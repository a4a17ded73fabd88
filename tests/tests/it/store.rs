//! The node's store, on both engines.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use ceremonies::ids::{Generation, Hash, NodeIndex};
use lab::postgres::{self, Postgres};
use node::store::{Claim, PendingShare, ShareState, Store, StoreError};

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

#[tokio::test]
async fn the_store_keeps_its_promises_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    behaves(&format!("sqlite:{}", folder.path().join("store.db").display())).await;
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
}

#[tokio::test]
async fn a_store_of_another_kind_is_refused() {
    assert!(matches!(Store::open("mysql://host/db").await, Err(StoreError::Url)));
}
