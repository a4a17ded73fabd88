//! The shares that are open. They live in the enclave's memory only; nothing here looks into them.

use std::collections::BTreeMap;
use std::sync::Arc;

use ceremonies::ids::{Generation, Hash, WalletName};
use ceremonies::wallet::Record;

/// A share, and the key that it is a share of.
struct Held<S> {
    wallet: WalletName,
    generation: Generation,
    share: Arc<S>,
}

/// Shares opened since boot, by their record's digest.
pub(super) struct Shares<S>(BTreeMap<Hash, Held<S>>);

impl<S> Default for Shares<S> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<S> Shares<S> {
    pub(super) fn get(&self, record: &Hash) -> Option<Arc<S>> {
        self.0.get(record).map(|held| Arc::clone(&held.share))
    }

    pub(super) fn keep(&mut self, record: &Record, share: Arc<S>) {
        let (wallet, generation) = (record.wallet.clone(), record.generation);
        self.0.insert(record.digest(), Held { wallet, generation, share });
    }

    /// Wipes every share of the generations before this record's, as soon as no session holds it.
    pub(super) fn forget_before(&mut self, record: &Record) {
        self.0.retain(|_, held| held.wallet != record.wallet || held.generation >= record.generation);
    }
}
