//! What each act of a script asks of people and enclaves. An act is read in one file.
//!
//! A new one is a variant of [`Act`], its file here, its line in [`Act::rules`] and its place in the kinds that need it.
//! Nothing here changes a ceremony: what is said in it is taken by the fold.

mod agree;
mod approve;
mod attest;
mod backup;
mod broadcast;
mod commit;
mod generate;
mod plain;
mod prove;
mod read_back;
mod recover;
mod retire;
mod sign;

use super::{Ceremony, Duty, Phase, Rejection};
use crate::charter::Quorum;
use crate::ids::{NodeIndex, PersonName};
use crate::script::{Act, Step};
use crate::statement::Answer;

/// What an act asks for. What is not said otherwise holds for an act that people complete with plain signatures.
pub(super) trait Rules: Sync {
    /// Whether people ever sign it once the ceremony is open.
    fn is_for_people(&self) -> bool {
        true
    }

    /// Whether anybody is asked to sign it in this ceremony.
    fn asks_people(&self, _: &Ceremony) -> bool {
        true
    }

    /// How many of which role must sign it.
    fn signers(&self, _: &Ceremony, step: &Step) -> Quorum {
        step.signers.clone()
    }

    /// Whether this is an answer that it takes.
    fn check_answer(&self, _: &Ceremony, _: &PersonName, answer: &Answer) -> Result<(), Refused> {
        if *answer == Answer::None { Ok(()) } else { Err(Refused::Asks("a signature and nothing else")) }
    }

    /// Whether everything that it asks for is there.
    fn is_done(&self, ceremony: &Ceremony, step: &Step) -> bool {
        ceremony.has_quorum(step)
    }

    /// What is missing, and from whom.
    fn waiting_for(&self, ceremony: &Ceremony, step: &Step) -> String {
        ceremony.missing_people(step)
    }

    /// What a node has to do for it in this phase.
    fn duty(&self, _: &Ceremony, _: NodeIndex, _: &Phase) -> Option<Duty> {
        None
    }
}

/// Why an answer is not taken.
pub(super) enum Refused {
    /// The act takes other answers: these.
    Asks(&'static str),
    /// It is wrong.
    Wrong(Rejection),
}

impl From<Rejection> for Refused {
    fn from(rejection: Rejection) -> Self {
        Self::Wrong(rejection)
    }
}

impl Act {
    /// Its rules.
    pub(super) fn rules(self) -> &'static dyn Rules {
        match self {
            Self::Open => &plain::Open,
            Self::Confirm | Self::Close => &plain::Plain,
            Self::Attest => &attest::Attest,
            Self::Approve => &approve::Approve,
            Self::Recover => &recover::Recover,
            Self::Generate => &generate::Generate,
            Self::ReadBack => &read_back::ReadBack,
            Self::TestSign | Self::Sign => &sign::Sign,
            Self::Broadcast => &broadcast::Broadcast,
            Self::Backup => &backup::Backup,
            Self::Prove => &prove::Prove,
            Self::Commit => &commit::Commit,
            Self::Retire => &retire::Retire,
            Self::Agree => &agree::Agree,
        }
    }
}

/// The nodes that have not done something yet, for people.
fn nodes_without(ceremony: &Ceremony, is_done: impl Fn(&NodeIndex) -> bool) -> String {
    let missing = ceremony.manifest.roster.iter().filter(|node| !is_done(node));
    missing.map(|node| format!("node {node}")).collect::<Vec<_>>().join(", ")
}
