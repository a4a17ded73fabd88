//! A node's store with ten wallets and with 100,000: listing, finding one, and giving one its next generation.

use std::time::{Duration, Instant};

use ceremonies::ids::{Generation, Hash};
use node::store::{PendingShare, Store};

use crate::millis;
use crate::report::Report;

/// Bytes of a sealed share are not what is measured here: a small one stands for them.
const BLOB: usize = 512;
const ROUNDS: u32 = 50;

fn share(number: u32, generation: u32) -> PendingShare {
    PendingShare {
        wallet: format!("wallet-{number:06}").parse().unwrap(),
        generation: Generation(generation),
        ceremony: format!("dkg-wallet-{number:06}").parse().unwrap(),
        record: Hash::of_parts("bench", &[&number.to_be_bytes(), &generation.to_be_bytes()]),
        blob: vec![7; BLOB],
    }
}

async fn put(store: &Store, share: &PendingShare) {
    store.put_pending(share).await.unwrap();
    store.promote(&share.wallet, share.generation, &share.record).await.unwrap();
}

async fn timed<F: Future<Output = ()>>(work: impl Fn(u32) -> F) -> Duration {
    let begun = Instant::now();
    for round in 0..ROUNDS {
        work(round).await;
    }
    begun.elapsed() / ROUNDS
}

/// Fills stores and prints what they take.
pub(crate) async fn store(report: &mut Report) {
    for wallets in [10, 100_000] {
        let folder = tempfile::tempdir().unwrap();
        let store =
            Store::open(&format!("sqlite:{}", folder.path().join("store.db").display())).await.unwrap();
        for number in 0..wallets {
            put(&store, &share(number, 1)).await;
        }
        let place = |round: u32| round * 7919 % wallets;
        let listing = timed(|_| async { drop(store.held(100).await.unwrap()) }).await;
        let finding = timed(|round| {
            let (store, share) = (&store, share(place(round), 1));
            async move {
                let found = store.share(&share.wallet, share.generation, &share.record).await.unwrap();
                assert!(found.is_some(), "{}", share.wallet);
            }
        })
        .await;
        let refreshing = timed(|round| {
            let (store, next) = (&store, share(place(round), 2 + round));
            async move {
                put(store, &next).await;
                store.delete_before(&next.wallet, next.generation).await.unwrap();
            }
        })
        .await;
        for (what, time) in [("listing", listing), ("finding", finding), ("refreshing", refreshing)] {
            report.put("store", &format!("{what}, of {wallets} wallets"), millis(time), "ms");
        }
    }
}
