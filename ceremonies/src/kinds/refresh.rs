//! The refresh: new shares of a wallet's key at every node, and the old ones deleted.

use super::{CeremonyKind, Rules, Shares};
use crate::book::{Book, OpeningError};
use crate::ids::UnixMillis;
use crate::manifest::Manifest;
use crate::script::Act;
use crate::wire::log;

pub(super) struct Refresh;

impl Rules for Refresh {
    fn name(&self) -> &'static str {
        "refresh"
    }

    fn wire(&self) -> log::Kind {
        log::Kind::Refresh
    }

    fn script(&self) -> &'static [u8] {
        include_bytes!("../../scripts/refresh.toml")
    }

    fn acts(&self) -> &'static [Act] {
        &[
            Act::Open,
            Act::Attest,
            Act::Approve,
            Act::Generate,
            Act::ReadBack,
            Act::TestSign,
            Act::Backup,
            Act::Prove,
            Act::Commit,
            Act::Retire,
            Act::Agree,
            Act::Close,
        ]
    }

    fn shares(&self) -> Shares {
        Shares::Renewed
    }

    fn check_opening(&self, book: &Book, manifest: &Manifest, now: UnixMillis) -> Result<(), OpeningError> {
        book.check_generation(manifest, now)?;
        book.check_free(manifest, now, CeremonyKind::uses_enclaves)
    }
}
