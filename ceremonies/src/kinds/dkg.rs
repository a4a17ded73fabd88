//! The key generation: the first generation of a new wallet.

use super::{Rules, Shares};
use crate::book::{Book, OpeningError};
use crate::ids::UnixMillis;
use crate::manifest::Manifest;
use crate::script::Act;
use crate::wire::log;

pub(super) struct Dkg;

impl Rules for Dkg {
    fn name(&self) -> &'static str {
        "dkg"
    }

    fn wire(&self) -> log::Kind {
        log::Kind::Dkg
    }

    fn script(&self) -> &'static [u8] {
        include_bytes!("../../scripts/dkg.toml")
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
            Act::Agree,
            Act::Close,
        ]
    }

    fn shares(&self) -> Shares {
        Shares::Made
    }

    fn has_an_origin(&self) -> bool {
        false
    }

    fn is_indispensable(&self) -> bool {
        true
    }

    fn check_opening(&self, book: &Book, manifest: &Manifest, now: UnixMillis) -> Result<(), OpeningError> {
        book.check_new_wallet(&manifest.wallet, now)
    }
}
