//! Sessions of several enclaves, without their rounds: which party comes to an end, and when.

use ceremonies::ids::Hash;
use enclave::signer::OrderId;
use rand::RngExt as _;

use super::world::World;

/// How long the parties wait for each other, in milliseconds.
const BARRIER_MS: u64 = 30_000;

/// A session of several enclaves.
#[derive(Clone)]
pub(super) struct Session {
    pub(super) parties: Vec<usize>,
    /// The parties, each as a boot of an enclave with a view of what the session is about.
    pub(super) joined: Vec<(usize, String, Hash)>,
    pub(super) began: u64,
    /// There from the last round on.
    pub(super) outcome: Option<Hash>,
}

enum Step {
    LastRound(Hash),
    Finish(usize, OrderId),
    GiveUp(usize, OrderId),
}

impl World {
    /// Whether nothing keeps the session over this label from its last round.
    fn is_complete(&self, session: &Session, label: &Hash) -> bool {
        let takes_part = |party: &usize| {
            session.joined.iter().any(|(at, boot, context)| {
                let enclave = &self.nodes[*at].enclave;
                at == party
                    && enclave.boot == *boot
                    && enclave.takes_part(label)
                    && Some(context) == session.joined.first().map(|(_, _, context)| context)
            })
        };
        session.parties.iter().all(takes_part)
    }

    /// What can happen next, each with a weight.
    fn session_steps(&self) -> Vec<(usize, Step)> {
        let mut steps = Vec::new();
        for (at, node) in self.nodes.iter().enumerate() {
            for id in node.enclave.parts.keys() {
                let label = &id.label;
                let Some(session) = self.sessions.get(label) else { continue };
                let is_gone = |(other, boot, _): &(usize, String, Hash)| {
                    let enclave = &self.nodes[*other].enclave;
                    enclave.boot != *boot || !enclave.takes_part(label)
                };
                let is_broken = session.joined.iter().any(is_gone);
                let is_complete = self.is_complete(session, label);
                let is_late = self.now - session.began > BARRIER_MS;
                match session.outcome {
                    Some(_) => steps.push((200, Step::Finish(at, *id))),
                    None if is_complete => steps.push((100, Step::LastRound(*label))),
                    None if is_broken || is_late => steps.push((50, Step::GiveUp(at, *id))),
                    None => {}
                }
                if !self.is_calm {
                    // The worst moment is when others have come to the end.
                    let is_worst = is_broken || session.outcome.is_some();
                    steps.push((if is_worst { 20 } else { 1 }, Step::GiveUp(at, *id)));
                }
            }
        }
        steps
    }

    /// Something happens in one of the sessions, or nothing.
    pub(super) fn sessions_go_on(&mut self) {
        let mut steps = self.session_steps();
        let total: usize = steps.iter().map(|(weight, _)| weight).sum();
        let mut left = self.below(total + 50);
        let chosen = steps.iter().position(|(weight, _)| {
            let is_it = left < *weight;
            left = left.saturating_sub(*weight);
            is_it
        });
        let Some(chosen) = chosen else { return };
        match steps.swap_remove(chosen).1 {
            Step::LastRound(label) => {
                let nonce: [u8; 16] = self.draw().random();
                let outcome = Hash::of_parts("session", &[label.as_bytes(), &nonce]);
                if let Some(session) = self.sessions.get_mut(&label) {
                    session.outcome = Some(outcome);
                }
            }
            Step::Finish(at, id) => self.finish(at, id),
            Step::GiveUp(at, id) => {
                self.note(|| format!("enclave {} gives up {:.8}", at + 1, id.label.to_string()));
                self.give_up(at, id);
            }
        }
    }
}
