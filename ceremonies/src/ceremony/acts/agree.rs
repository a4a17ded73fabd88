//! The verdict: people agree, or disagree with a reason.

use super::{Refused, Rules};
use crate::ceremony::Ceremony;
use crate::ids::PersonName;
use crate::statement::Answer;

pub(super) struct Agree;

impl Rules for Agree {
    fn check_answer(&self, _: &Ceremony, _: &PersonName, answer: &Answer) -> Result<(), Refused> {
        if matches!(answer, Answer::Agree | Answer::Disagree(_)) {
            Ok(())
        } else {
            Err(Refused::Asks("a verdict: agree, or disagree with a reason"))
        }
    }
}
