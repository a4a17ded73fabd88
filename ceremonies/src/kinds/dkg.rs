//! The key generation: the first generation of a new wallet.

use super::{Outlasts, Rules, Shares, WorksOn};
use crate::act::Act;
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

    fn works_on(&self) -> WorksOn {
        WorksOn::NewWallet
    }

    fn outlasts_its_end(&self) -> Outlasts {
        Outlasts::WithItsGeneration
    }
}
