//! Doing what the core asks of the store.

use ceremonies::ids::NodeIndex;

use super::{Store, StoreError, true_reason};
use crate::core::{StoreOp, StoreReply};

impl Store {
    /// Does one thing that the core of this node asks for.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn perform(&self, node: NodeIndex, op: StoreOp) -> Result<StoreReply, StoreError> {
        match self.try_to(node, op).await {
            Err(StoreError::Database { what, source }) => {
                Err(StoreError::Database { what, source: true_reason(source, &self.options).await })
            }
            done => done,
        }
    }

    async fn try_to(&self, node: NodeIndex, op: StoreOp) -> Result<StoreReply, StoreError> {
        self.check_file()?;
        match op {
            StoreOp::Append(entry) => self.append_entry(&entry).await?,
            StoreOp::Switch { ceremony, keep, entries, memory } => {
                self.switch_branch(&ceremony, keep, &entries, &memory).await?;
            }
            StoreOp::PutAside(entry) => self.put_aside(&entry).await?,
            StoreOp::Remember(ceremony, memory) => self.remember_ballot(&ceremony, &memory).await?,
            StoreOp::ReadTo(mark) => self.set_read_to(mark).await?,
            StoreOp::Shelve(line) => self.shelve(&line).await?,
            StoreOp::Recall(ceremony) => {
                return Ok(StoreReply::Log(Box::new(self.log(&ceremony).await?)));
            }
            StoreOp::PutPending(share) => {
                self.put_pending(&share).await?;
                let stored = self.share(&share.wallet, share.generation, &share.record).await?;
                return Ok(StoreReply::Share(stored));
            }
            StoreOp::Share(wallet, generation, record) => {
                return Ok(StoreReply::Share(self.share(&wallet, generation, &record).await?));
            }
            StoreOp::Promote(wallet, generation, record) => {
                self.promote(&wallet, generation, &record).await?;
            }
            StoreOp::DiscardPending(ceremony) => {
                return Ok(StoreReply::Count(self.discard_pending(&ceremony).await?));
            }
            StoreOp::DeleteBefore(wallet, generation) => {
                return Ok(StoreReply::Count(self.delete_before(&wallet, generation).await?));
            }
            StoreOp::ClaimSigning { request, digest, path } => {
                let claim = self.claim_signing(&request, &digest, &path, "approved in the ceremony").await?;
                return Ok(StoreReply::Claim(claim));
            }
            StoreOp::KeepReleased(ceremony, object) => self.keep_released(&ceremony, &object).await?,
            StoreOp::Released(digest) => return Ok(StoreReply::Object(self.released(&digest).await?)),
            StoreOp::DropReleased(ceremony) => self.drop_released(&ceremony).await?,
            StoreOp::RecordBan { peer, ceremony, reason } => {
                self.record_ban(node, peer, &ceremony, &reason).await?;
            }
            StoreOp::KeepEvidence(ceremony, culprit, envelopes) => {
                for envelope in envelopes {
                    self.keep_evidence(&ceremony, culprit, &envelope).await?;
                }
            }
            StoreOp::Probe(most) => {
                self.probe().await?;
                return Ok(StoreReply::Held(self.held(most).await?));
            }
        }
        Ok(StoreReply::Done)
    }
}
