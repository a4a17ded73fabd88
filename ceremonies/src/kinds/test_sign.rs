//! The test signing: worthless digests, signed with the generation in use, to prove that it can.

use super::{CeremonyKind, Rules, Shares};
use crate::book::{Book, OpeningError};
use crate::ids::UnixMillis;
use crate::manifest::Manifest;
use crate::script::Act;
use crate::wire::log;

pub(super) struct TestSign;

impl Rules for TestSign {
    fn name(&self) -> &'static str {
        "test-sign"
    }

    fn wire(&self) -> log::Kind {
        log::Kind::TestSign
    }

    fn script(&self) -> &'static [u8] {
        include_bytes!("../../scripts/test-sign.toml")
    }

    fn acts(&self) -> &'static [Act] {
        &[Act::Open, Act::Attest, Act::Approve, Act::TestSign, Act::Agree, Act::Close]
    }

    fn shares(&self) -> Shares {
        Shares::Used
    }

    fn is_indispensable(&self) -> bool {
        true
    }

    fn check_opening(&self, book: &Book, manifest: &Manifest, now: UnixMillis) -> Result<(), OpeningError> {
        book.check_current(manifest)?;
        book.check_free(manifest, now, |kind| kind == CeremonyKind::Refresh)
    }
}
