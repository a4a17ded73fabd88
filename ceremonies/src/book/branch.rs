//! Replacing the known branch of a log by another: after a fork has healed, its events are in a different order.

use thiserror::Error;

use super::Book;
use crate::ceremony::{Ceremony, Rejection};
use crate::ids::{CeremonyId, Hash};
use crate::log::Entry;

/// Why a branch does not replace the known one.
#[derive(Debug, Error)]
pub enum BranchError {
    /// The fold refuses it.
    #[error("entry {seq} of the other branch is refused")]
    Rejected {
        /// The entry's number.
        seq: u64,
        /// Why.
        #[source]
        source: Box<Rejection>,
    },
    /// Something that may have been built on does not follow from it.
    #[error(
        "the other branch of {0} takes back what this one shows: a certificate, a result, a ban, an approval, or the \
         charter in force"
    )]
    TakesBack(CeremonyId),
}

impl Book {
    /// The ceremony that this whole branch of its log gives, alongside the other known ceremonies. The book stays as it
    /// is.
    ///
    /// # Errors
    /// [`Rejection`] of the first entry that is refused, with its number.
    pub fn fold_branch(&self, log: &[Entry]) -> Result<Ceremony, (u64, Rejection)> {
        let context = log.first().map_or_else(|| self.context().clone(), |first| self.context_of(first));
        Ceremony::fold(context, log)
    }

    /// The book with another whole branch of a ceremony's log in place of the known one. Nothing that the known one
    /// shows may be lost by that, see [`Ceremony::upholds`](crate::ceremony::Ceremony::upholds), and charters in force
    /// stay in force.
    ///
    /// # Errors
    /// [`BranchError`].
    pub fn with_branch(&self, log: &[Entry]) -> Result<Self, BranchError> {
        let mut next = self.clone();
        let rejected = |(seq, source)| BranchError::Rejected { seq, source: Box::new(source) };
        let branch = next.read(log).map_err(rejected)?;
        let id = &branch.manifest().ceremony;
        let upheld = self.get(id).is_none_or(|known| branch.upholds(&known.ceremony));
        if upheld && next.charters_in_force().starts_with(&self.charters_in_force()) {
            Ok(next)
        } else {
            Err(BranchError::TakesBack(id.clone()))
        }
    }

    /// The charters that amendments have put in force, in their order.
    fn charters_in_force(&self) -> Vec<Hash> {
        self.amendments.iter().map(|amendment| amendment.context.charter().hash()).collect()
    }
}
