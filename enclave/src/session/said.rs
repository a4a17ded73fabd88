//! What a party has said, kept for peers that did not hear it: messages sent while the bus is down are lost. It must
//! never keep more than a peer can still miss: no party advances without every party's message, so no peer is further
//! behind than one slot.

use ceremonies::ids::NodeIndex;

use super::plan::Millis;

/// After how long in a slot its messages are first repeated; then after twice that, and so on.
const REPEAT_AFTER_MS: Millis = 1000;

/// An envelope and whom it is for.
pub(super) type Letter = (NodeIndex, Vec<u8>);

/// What was said in this slot and in the one before.
#[derive(Default)]
pub(super) struct Said {
    before: Vec<Letter>,
    now: Vec<Letter>,
    next: Millis,
    wait: Millis,
}

impl Said {
    /// A new slot begins with these.
    pub(super) fn say(&mut self, now: Millis, letters: Vec<Letter>) {
        self.before = std::mem::replace(&mut self.now, letters);
        self.wait = REPEAT_AFTER_MS;
        self.next = now.saturating_add(self.wait);
    }

    /// What is to be repeated now, and to every party: a peer that was heard need not have heard.
    pub(super) fn again(&mut self, now: Millis) -> Vec<Letter> {
        if now < self.next {
            return Vec::new();
        }
        self.wait = self.wait.saturating_mul(2);
        self.next = now.saturating_add(self.wait);
        self.before.iter().chain(&self.now).cloned().collect()
    }

    /// What a finished party's peers may still miss.
    pub(super) fn last(&mut self) -> Vec<Letter> {
        std::mem::take(&mut self.now)
    }
}
