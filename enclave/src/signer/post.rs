//! Messages from the bus for sessions: those that come before their session has begun here, and those that come after
//! it has ended. Nothing here may be kept or answered without bound.

use std::collections::VecDeque;

use ceremonies::ids::{Hash, NodeIndex};
use enclave_link::message::{Deliver, Send, from_enclave};

use super::{Effect, OrderId, Signer};
use crate::session::Finished;

/// Session messages that may wait for their session to be ordered, since other nodes can be quicker. They are hellos,
/// one from every peer in a handful of sessions; a lost hello is repeated.
const MAX_EARLY: usize = 64;
/// Largest early message in bytes: a hello has a few hundred.
const MAX_EARLY_BYTES: usize = 4096;

/// What is kept of the sessions of one connection that do not run.
#[derive(Default)]
pub(super) struct Post {
    pub(super) finished: Finished,
    early: VecDeque<Deliver>,
}

impl Post {
    fn keep(&mut self, message: Deliver) {
        if message.payload.len() > MAX_EARLY_BYTES {
            return;
        }
        if self.early.len() >= MAX_EARLY {
            self.early.pop_front();
        }
        self.early.push_back(message);
    }

    /// Takes out what came early for this session.
    fn take(&mut self, label: &Hash) -> Vec<Vec<u8>> {
        let early = std::mem::take(&mut self.early).into_iter();
        let (of_this, others): (Vec<_>, _) = early.partition(|message| message.label == label.as_bytes());
        self.early = others.into();
        of_this.into_iter().map(|message| message.payload).collect()
    }
}

impl<S> Signer<S> {
    pub(super) fn deliver(&mut self, message: Deliver) {
        let Ok(label) = Hash::try_from(message.label.as_slice()) else { return };
        if let Some(id) = self.running(&label) {
            self.effects.push(Effect::Hand(id, message.payload));
        } else if let Ok(from) = NodeIndex::try_from(message.from)
            && let Some(envelope) = self.post.finished.answer(&label, from)
        {
            self.send(&label, from, envelope);
        } else {
            self.post.keep(message);
        }
    }

    /// Hands a session that begins what came early for it.
    pub(super) fn hand_early(&mut self, id: OrderId) {
        let early = self.post.take(&id.label);
        self.effects.extend(early.into_iter().map(|payload| Effect::Hand(id, payload)));
    }

    pub(super) fn send(&mut self, label: &Hash, to: NodeIndex, payload: Vec<u8>) {
        self.tell(from_enclave::Kind::Send(Send {
            label: label.as_bytes().to_vec(),
            to: to.into(),
            payload,
        }));
    }
}
