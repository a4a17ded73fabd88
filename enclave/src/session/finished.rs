//! Sessions that are over for this party but perhaps not for its peers: a peer that repeats its last message has not
//! heard this party's. This module must never keep or answer without bound.

use std::collections::{BTreeMap, VecDeque};

use ceremonies::ids::{Hash, NodeIndex};

/// Sessions that are remembered.
const MAX_SESSIONS: usize = 64;
/// How often one peer is answered: peers that are both finished would answer each other for ever.
const MAX_ANSWERS: u32 = 4;

struct Last {
    envelope: Vec<u8>,
    answers: u32,
}

/// The last envelope of each finished session to each peer.
#[derive(Default)]
pub struct Finished(VecDeque<(Hash, BTreeMap<NodeIndex, Last>)>);

impl Finished {
    /// Remembers a finished session's [`super::action::Outcome::last_letters`].
    pub fn keep(&mut self, label: Hash, letters: Vec<(NodeIndex, Vec<u8>)>) {
        if self.0.len() >= MAX_SESSIONS {
            self.0.pop_front();
        }
        let last = letters.into_iter().map(|(to, envelope)| (to, Last { envelope, answers: 0 }));
        self.0.push_back((label, last.collect()));
    }

    /// What to repeat to a peer that was heard in a session; none if the session is not known, or the peer has been
    /// answered often enough.
    #[must_use]
    pub fn answer(&mut self, label: &Hash, peer: NodeIndex) -> Option<Vec<u8>> {
        let (_, last) = self.0.iter_mut().find(|(known, _)| known == label)?;
        let last = last.get_mut(&peer).filter(|last| last.answers < MAX_ANSWERS)?;
        last.answers += 1;
        Some(last.envelope.clone())
    }
}
