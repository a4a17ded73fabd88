//! Folding one of several branches of a log, where it forks.

use super::Book;
use crate::ceremony::{Ceremony, Rejection};
use crate::entry::Entry;

impl Book {
    /// The ceremony as this whole branch of its log makes it, beside the other ceremonies that are known. The book stays
    /// as it is.
    ///
    /// # Errors
    /// [`Rejection`] of the first entry that is refused, with its number.
    pub fn fold_branch(&self, log: &[Entry]) -> Result<Ceremony, (u64, Rejection)> {
        let context = log.first().map_or_else(|| self.context().clone(), |first| self.context_of(first));
        Ceremony::fold(context, log)
    }
}
