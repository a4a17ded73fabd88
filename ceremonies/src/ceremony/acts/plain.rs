//! Opening, confirming and closing: people sign, and say nothing else.

use super::Rules;

/// What the script's signers complete.
pub(super) struct Plain;

impl Rules for Plain {}

/// What the log's first entry completes.
pub(super) struct Open;

impl Rules for Open {
    fn is_for_people(&self) -> bool {
        false
    }
}
