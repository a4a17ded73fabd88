//! What becomes of a transaction after the enclaves have signed it: people say whether it was sent, and which block it
//! is in.
//!
//! The fold holds their word to the one transaction that was signed here. It must never treat a block as proven: no log
//! can prove one, so the record keeps who said it.

use super::{Ceremony, Rejection, StepSignature};
use crate::chain::transaction::{Confirmation, TransactionId};
use crate::statement::Answer;

impl Ceremony {
    /// The id of the transaction that was signed here, once all its signatures are there.
    #[must_use]
    pub fn transaction_id(&self) -> Option<TransactionId> {
        let signed = self.signed_transaction()?;
        Some(self.manifest.transaction()?.id(&signed))
    }

    /// What people have said of its broadcast, in order: that it is in a block, or why it was not sent from here.
    pub fn said_of_broadcast(&self) -> impl Iterator<Item = &StepSignature> {
        let said =
            |signed: &&StepSignature| matches!(signed.answer, Answer::Broadcast(_) | Answer::Withheld(_));
        self.signatures.iter().filter(said)
    }

    pub(super) fn check_confirmation(&self, confirmation: &Confirmation) -> Result<(), Rejection> {
        let signed = self.transaction_id().ok_or(Rejection::NotSigned)?;
        if confirmation.transaction == signed {
            Ok(())
        } else {
            Err(Rejection::OtherTransaction { confirmed: confirmation.transaction, signed })
        }
    }
}
