//! The transfer: a transaction, signed by as many nodes as sign together.

use super::{Carries, CeremonyKind, Rules, Shares};
use crate::book::{Book, OpeningError};
use crate::ids::UnixMillis;
use crate::manifest::Manifest;
use crate::script::Act;
use crate::wire::log;

pub(super) struct Transfer;

impl Rules for Transfer {
    fn name(&self) -> &'static str {
        "transfer"
    }

    fn wire(&self) -> log::Kind {
        log::Kind::Transfer
    }

    fn script(&self) -> &'static [u8] {
        include_bytes!("../../scripts/transfer.toml")
    }

    fn acts(&self) -> &'static [Act] {
        &[Act::Open, Act::Attest, Act::Approve, Act::Sign, Act::Broadcast, Act::Agree, Act::Close]
    }

    fn shares(&self) -> Shares {
        Shares::Used
    }

    fn carries(&self) -> Carries {
        Carries::Transaction
    }

    fn has_a_signer_set(&self) -> bool {
        true
    }

    fn check_opening(&self, book: &Book, manifest: &Manifest, now: UnixMillis) -> Result<(), OpeningError> {
        book.check_current(manifest)?;
        book.check_free(manifest, now, |kind| kind == CeremonyKind::Refresh)
    }
}
