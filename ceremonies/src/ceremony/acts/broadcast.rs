//! The broadcast: people say which block the transaction is in, or why it is not sent from here.

use super::{Refused, Rules};
use crate::ceremony::Ceremony;
use crate::ids::PersonName;
use crate::statement::Answer;

pub(super) struct Broadcast;

impl Rules for Broadcast {
    fn check_answer(&self, ceremony: &Ceremony, _: &PersonName, answer: &Answer) -> Result<(), Refused> {
        match answer {
            Answer::Broadcast(confirmation) => Ok(ceremony.check_confirmation(confirmation)?),
            Answer::Withheld(_) => Ok(()),
            Answer::None
            | Answer::Words(_)
            | Answer::Agree
            | Answer::Disagree(_)
            | Answer::Withdraw(_)
            | Answer::Release(_) => Err(Refused::Asks(
                "the block that the transaction is in, or why it is not sent: custody broadcast",
            )),
        }
    }
}
