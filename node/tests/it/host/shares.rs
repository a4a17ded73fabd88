//! A store's sealed shares, by the rules of `node::store`. There is one wallet.

use ceremonies::ids::{CeremonyId, Generation, Hash};
use ceremonies::wire::bus::HeldShare;
use node::store::{PendingShare, ShareState, StoredShare};

/// A share with what it belongs to.
#[derive(Debug, Clone)]
pub(crate) struct Share {
    pub(crate) generation: Generation,
    pub(crate) ceremony: CeremonyId,
    pub(crate) record: Hash,
    pub(crate) stored: StoredShare,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Shares(Vec<Share>);

impl Shares {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Share> {
        self.0.iter()
    }

    /// As a heartbeat lists them.
    pub(super) fn held(&self) -> Vec<HeldShare> {
        let held = |share: &Share| HeldShare {
            wallet: "treasury".to_owned(),
            generation: share.generation.0,
            record: share.record.as_bytes().to_vec(),
            ..HeldShare::default()
        };
        self.0.iter().map(held).collect()
    }

    pub(crate) fn get(&self, record: &Hash) -> Option<&Share> {
        self.0.iter().find(|share| share.record == *record)
    }

    pub(crate) fn current(&self) -> Option<&Share> {
        self.0.iter().find(|share| share.stored.state == ShareState::Current)
    }

    /// Puts it unless another is there for the same record, and reads back what is there now.
    pub(super) fn put_pending(&mut self, share: PendingShare) -> Result<StoredShare, String> {
        let PendingShare { generation, ceremony, record, blob, .. } = share;
        match self.get(&record) {
            Some(there) if there.stored.blob != blob => Err("another share is stored".to_owned()),
            Some(there) => Ok(there.stored.clone()),
            None => {
                let stored = StoredShare { state: ShareState::Pending, blob };
                self.0.push(Share { generation, ceremony, record, stored: stored.clone() });
                Ok(stored)
            }
        }
    }

    /// One transaction: all of it or nothing.
    pub(crate) fn promote(&mut self, record: &Hash) -> Result<(), String> {
        if self.get(record).is_none_or(|share| share.stored.state == ShareState::Retired) {
            return Err("no share is stored for the committed record".to_owned());
        }
        for share in &mut self.0 {
            if share.record == *record {
                share.stored.state = ShareState::Current;
            } else if share.stored.state == ShareState::Current {
                share.stored.state = ShareState::Retired;
            }
        }
        Ok(())
    }

    pub(super) fn discard_pending(&mut self, ceremony: &CeremonyId) -> u64 {
        self.keep(|share| share.ceremony != *ceremony || share.stored.state != ShareState::Pending)
    }

    pub(crate) fn delete_before(&mut self, generation: Generation) -> u64 {
        self.keep(|share| share.generation >= generation)
    }

    /// Returns how many are gone.
    fn keep(&mut self, stays: impl FnMut(&Share) -> bool) -> u64 {
        let before = self.0.len();
        self.0.retain(stays);
        u64::try_from(before - self.0.len()).unwrap()
    }
}
