//! What must hold at every moment, and in the end.

use std::collections::BTreeMap;

use ceremonies::ids::{CeremonyId, Generation, Hash};
use ceremonies::log::{Entry, Event};
use node::store::ShareState;

use super::charter::{NODES, THRESHOLD};
use super::world::{Node, World};
use crate::simulation::charter::{node, place};

/// A generation that somebody has seen committed.
#[derive(Clone)]
pub(super) struct Committed {
    pub(super) record: Hash,
    before: Option<u32>,
}

fn holds(node: &Node, record: &Hash) -> bool {
    node.host.store.shares.get(record).is_some() || node.enclave.holds(record)
}

impl World {
    /// An entry that the stream has taken: what enclaves say in it must not contradict.
    pub(super) fn note_entry(&mut self, entry: &Entry) {
        let (by, word) = match &entry.event {
            Event::Prepared { node, record, blob, .. } => {
                (node, format!("prepared {} {blob}", Hash::of_bytes(record)))
            }
            Event::Aborted(aborted) if aborted.subset.parties().len() == NODES => {
                (&aborted.node, "aborted".to_owned())
            }
            _ => return,
        };
        let boot = self.nodes[place(*by)].enclave.boot.clone();
        let said = self.words.entry((entry.ceremony.clone(), boot)).or_default();
        said.insert(word);
        let said = said.clone();
        self.must(said.len() == 1, || format!("an enclave says {said:?} in {}", entry.ceremony));
    }

    /// Writes down what this node sees committed.
    pub(super) fn note_commits(&mut self, at: usize, id: &CeremonyId) {
        let Some(chapter) = self.core(at).and_then(|core| core.book().get(id)) else { return };
        if chapter.ceremony.prepared_nodes().len() < NODES {
            return;
        }
        let Some(wallet) = chapter.ceremony.committed() else { return };
        let before = chapter.ceremony.before().map(|before| before.record.generation.0);
        let (generation, record) = (wallet.record.generation.0, wallet.record.digest());
        if let Some(known) = self.committed.get(&generation) {
            return self.must(known.record == record, || {
                format!("generation {generation} is committed twice, in {id} too")
            });
        }
        self.note(|| format!("generation {generation} is committed"));
        self.committed.insert(generation, Committed { record, before });
        for (index, blob) in &wallet.blobs {
            let node = &self.nodes[place(*index)];
            let share = node.host.store.shares.get(&record);
            let is_there = share.is_some_and(|share| Hash::of_bytes(&share.stored.blob) == *blob)
                || node.enclave.holds(&record)
                || node.excused >= generation;
            self.must(is_there, || {
                format!("generation {generation} commits without a share at node {index}")
            });
        }
    }

    fn all_have_promoted(&self, generation: u32) -> bool {
        self.nodes.iter().all(|node| node.promoted.contains(&generation))
    }

    /// The generations of which no share may be lost: the last that is committed and, until every node has made it its
    /// own, the one before.
    fn needed(&self) -> Vec<(u32, Hash)> {
        let Some((last, committed)) = self.committed.last_key_value() else { return Vec::new() };
        let before = committed.before.filter(|_| !self.all_have_promoted(*last));
        let before = before.and_then(|before| Some((before, self.committed.get(&before)?.record)));
        std::iter::once((*last, committed.record)).chain(before).collect()
    }

    /// At most n - t nodes are without their shares at a time, and at most one without the record.
    pub(super) fn may_lose_store(&self, at: usize) -> bool {
        let needed = self.needed();
        (0..NODES).filter(|other| *other != at).all(|other| {
            let shares = &self.nodes[other].host.store.shares;
            needed.iter().all(|(_, record)| shares.get(record).is_some()) && !self.is_catching_up(other)
        })
    }

    pub(super) fn check(&self) {
        let needed = self.needed();
        let mut most = 0;
        for (generation, record) in &needed {
            let holders = self.nodes.iter().filter(|node| holds(node, record)).count();
            most = most.max(holders);
            for (at, it) in self.nodes.iter().enumerate() {
                let has = it.excused >= *generation || holds(it, record);
                self.must(has, || format!("{} has no share of generation {generation} any more", node(at)));
            }
        }
        self.must(needed.is_empty() || most >= THRESHOLD, || "too few nodes can sign".to_owned());
        for (at, it) in self.nodes.iter().enumerate() {
            let shares = it.host.store.shares.iter();
            let current: Vec<_> = shares.filter(|share| share.stored.state == ShareState::Current).collect();
            self.must(current.len() < 2, || format!("{} has two current shares", node(at)));
            for share in current {
                let committed = self.committed.get(&share.generation.0);
                let is_committed = committed.is_some_and(|committed| committed.record == share.record);
                self.must(is_committed, || format!("{} signs with what is not committed", node(at)));
            }
        }
    }

    /// Asked before a store deletes all its shares of the generations before this one.
    pub(super) fn check_deletion(&self, at: usize, generation: Generation) {
        let mut shares = self.nodes[at].host.store.shares.iter();
        let deletes = shares.any(|share| {
            let committed = self.committed.get(&share.generation.0);
            share.generation < generation
                && committed.is_some_and(|committed| committed.record == share.record)
        });
        self.must(!deletes || self.all_have_promoted(generation.0), || {
            format!("{} deletes before all have adopted generation {generation}", node(at))
        });
    }

    /// When nothing is left to do, no store keeps a share for a certificate that never comes. One whose ceremony is
    /// shelved goes with the shares of the generations before the one in use.
    pub(super) fn check_rest(&self) {
        for (at, it) in self.nodes.iter().enumerate() {
            let shares = it.host.store.shares.iter();
            for share in shares.filter(|share| share.stored.state == ShareState::Pending) {
                let chapter = self.core(at).and_then(|core| core.book().get(&share.ceremony));
                let is_hopeless = chapter.is_some_and(|chapter| chapter.ceremony.can_never_commit());
                self.must(!is_hopeless, || {
                    format!("{} keeps a share of {}, which never commits", node(at), share.ceremony)
                });
            }
        }
    }

    /// One generation everywhere, and one record.
    pub(super) fn check_end(&self) {
        let (last, committed) = self.committed.last_key_value().unwrap();
        let standing = self.standing();
        for (at, it) in self.nodes.iter().enumerate() {
            let shares = &it.host.store.shares;
            let current = shares.current().map(|share| (share.generation.0, share.record));
            self.must(current == Some((*last, committed.record)), || {
                format!("node {} ends with {current:?}, not with generation {last}", node(at))
            });
            self.must(shares.iter().count() == 1, || format!("node {} ends with several shares", node(at)));
            self.must(standing[at] == standing[0], || format!("node {} ends with another log", node(at)));
        }
    }

    /// Where every entry first stands in the stream, by its bytes.
    fn places_in_stream(&self) -> BTreeMap<&[u8], usize> {
        let mut places = BTreeMap::new();
        for (place, (_, bytes)) in self.stream.messages().enumerate() {
            places.entry(bytes).or_insert(place);
        }
        places
    }

    /// Whether the stream has every entry that the first node has.
    pub(super) fn stream_is_whole(&self) -> bool {
        let (book, places) = (self.nodes[0].host.store.fold(&self.context), self.places_in_stream());
        let mut entries = book.iter().flat_map(|(_, chapter)| &chapter.entries);
        entries.all(|entry| places.contains_key(entry.encode().as_slice()))
    }

    /// In the stream, no ceremony is opened before the end of the log that it rests on.
    pub(super) fn check_order_of_stream(&self) {
        let (book, places) = (self.nodes[0].host.store.fold(&self.context), self.places_in_stream());
        let place = |entry: &Entry| places[entry.encode().as_slice()];
        for (id, chapter) in book.iter() {
            let Some(origin) = &chapter.ceremony.manifest().origin else { continue };
            let before = book.get(&origin.ceremony).unwrap();
            let (end, opening) = (before.entries.last().unwrap(), chapter.entries.first().unwrap());
            self.must(place(end) < place(opening), || format!("{id} stands before what it rests on"));
        }
    }
}
