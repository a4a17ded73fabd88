//! The links between agents and enclaves, and what is on its way on them.

use enclave::signer::Input;
use enclave_link::message::from_enclave;
use node::core::Event;

use super::enclave::Enclave;
use super::world::{Happening, World};
use crate::simulation::charter::node;

/// What comes to an agent through its link.
pub(super) enum LinkNews {
    Message(from_enclave::Kind),
    Lost,
}

impl World {
    pub(super) fn disconnect_enclave(&mut self, at: usize) {
        if std::mem::take(&mut self.nodes[at].is_linked) {
            self.nodes[at].to_enclave.clear();
            self.feed_enclave(at, Input::Lost);
        }
    }

    /// The link to the enclave breaks. Of what was on its way to the agent, the beginning may still arrive.
    pub(super) fn break_link(&mut self, at: usize) {
        if !self.nodes[at].is_linked {
            return;
        }
        self.note(|| format!("the link of {} breaks", node(at)));
        self.disconnect_enclave(at);
        let kept = self.below(self.nodes[at].to_agent.len() + 1);
        self.nodes[at].to_agent.truncate(kept);
        self.reaches_agent(at, LinkNews::Lost);
        self.within(100..3000, Happening::Link(at));
    }

    pub(super) fn kill_enclave(&mut self, at: usize) {
        self.note(|| format!("enclave {} dies", node(at)));
        self.break_link(at);
        let (seed, node) = (self.seed, &mut self.nodes[at]);
        node.enclave_boots += 1;
        node.is_behind = false;
        let boot = format!("enclave {}, boot {}, seed {seed}", at + 1, node.enclave_boots);
        node.enclave = Enclave::new(boot, self.context.root());
    }

    pub(super) fn link(&mut self, at: usize) {
        if self.core(at).is_none() || self.nodes[at].is_linked {
            return;
        }
        self.nodes[at].is_linked = true;
        self.nodes[at].links += 1;
        self.feed(at, Event::LinkState(Ok(())));
        self.feed_enclave(at, Input::Connected);
    }

    pub(super) fn tell_agent(&mut self, at: usize, kind: from_enclave::Kind) {
        if self.nodes[at].is_linked {
            self.reaches_agent(at, LinkNews::Message(kind));
        }
    }

    fn reaches_agent(&mut self, at: usize, news: LinkNews) {
        self.nodes[at].to_agent.push_back(news);
        self.on_the_link(Happening::FromEnclave(at));
    }

    /// Either side may be busy with something else.
    pub(super) fn on_the_link(&mut self, happening: Happening) {
        let delays = if self.strikes(20) { 300..4000 } else { 1..30 };
        self.within(delays, happening);
    }

    pub(super) fn agent_hears(&mut self, at: usize) {
        match self.nodes[at].to_agent.pop_front() {
            Some(LinkNews::Message(kind)) => self.feed(at, Event::Enclave(kind)),
            Some(LinkNews::Lost) => {
                self.feed(at, Event::EnclaveLost);
                self.feed(at, Event::LinkState(Err("the enclave closed the link".into())));
            }
            None => {}
        }
    }
}
