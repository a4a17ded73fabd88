//! The recovery: nodes that lost their shares get them back, and then every node gets a new one.

use super::{Carries, CeremonyKind, Rules, Shares};
use crate::book::{Book, OpeningError};
use crate::ids::UnixMillis;
use crate::manifest::Manifest;
use crate::script::Act;
use crate::wire::log;

pub(super) struct Recover;

/// The acts of a ceremony that brings lost shares back.
pub(super) const ACTS: &[Act] = &[
    Act::Open,
    Act::Attest,
    Act::Approve,
    Act::Recover,
    Act::Generate,
    Act::ReadBack,
    Act::TestSign,
    Act::Backup,
    Act::Prove,
    Act::Commit,
    Act::Retire,
    Act::Agree,
    Act::Close,
];

/// A lost node may have left a ceremony behind that it will never finish: only another renewal stands against it.
pub(super) fn check_opening(book: &Book, manifest: &Manifest, now: UnixMillis) -> Result<(), OpeningError> {
    book.check_generation(manifest, now)?;
    book.check_free(manifest, now, CeremonyKind::renews)
}

impl Rules for Recover {
    fn name(&self) -> &'static str {
        "recover"
    }

    fn wire(&self) -> log::Kind {
        log::Kind::Recover
    }

    fn script(&self) -> &'static [u8] {
        include_bytes!("../../scripts/recover.toml")
    }

    fn acts(&self) -> &'static [Act] {
        ACTS
    }

    fn shares(&self) -> Shares {
        Shares::Restored
    }

    fn carries(&self) -> Carries {
        Carries::Losses
    }

    fn check_opening(&self, book: &Book, manifest: &Manifest, now: UnixMillis) -> Result<(), OpeningError> {
        check_opening(book, manifest, now)
    }
}
