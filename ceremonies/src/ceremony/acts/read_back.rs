//! The read-back: people type the wallet's words as they hear them.

use super::{Refused, Rules};
use crate::ceremony::Ceremony;
use crate::ids::PersonName;
use crate::statement::Answer;

pub(super) struct ReadBack;

impl Rules for ReadBack {
    fn check_answer(&self, ceremony: &Ceremony, _: &PersonName, answer: &Answer) -> Result<(), Refused> {
        let Answer::Words(typed) = answer else { return Err(Refused::Asks("the words as you heard them")) };
        Ok(ceremony.check_words(typed)?)
    }
}
