//! What goes wrong: a host with one node's NKey that does anything with it, a broker that lies, machines that fail.

use ceremonies::ids::{CeremonyId, Hash, NodeIndex};
use ceremonies::log::{Entry, Place};
use ceremonies::record::{Head, Lock, SignedHead, Tip};
use ceremonies::wire::record::{self, to_peer};
use ceremonies::wire::{VERSION, log};
use prost::Message as _;
use rand::RngExt as _;

use super::charter::{CONTEXT, NODES, node, node_key, place};
use super::world::World;
use crate::host::Message;
use crate::host::stream::Stream;

fn tip_of(entry: &Entry) -> Tip {
    Tip { seq: entry.seq, hash: entry.hash() }
}

fn event_of(entry: &Entry) -> log::Event {
    log::EntryBody::decode(entry.raw().body.as_slice()).unwrap().event.unwrap()
}

impl World {
    /// Machines, clocks and the broker.
    pub(super) fn go_wrong(&mut self) {
        let at = self.below(NODES);
        match self.below(if self.is_broker_hostile { 20 } else { 8 }) {
            0 | 1 => self.crash(at),
            2 => {
                let until = self.now + self.draw().random_range(300..5000);
                self.note(|| format!("{}'s store takes nothing until {until}", node(at)));
                self.hosts[at].store.refuses_until = until;
            }
            3 => {
                let off = self.draw().random_range(-150_000..150_000);
                self.note(|| format!("{}'s clock is {off} ms off", node(at)));
                self.hosts[at].clock = off;
            }
            4 => {
                self.is_cut[at] = !self.is_cut[at];
                let cut = self.is_cut[at];
                self.note(|| format!("{} is cut off: {cut}", node(at)));
            }
            5 => self.reconnect(at),
            6 => self.is_cut = [false; NODES],
            7 => {}
            8..=10 => {
                self.is_lied_to[at] = !self.is_lied_to[at];
                let lied = self.is_lied_to[at];
                self.note(|| format!("{} is lied to: {lied}", node(at)));
            }
            11 | 12 => self.split_broker(),
            13 => {
                let chosen = self.views[at];
                self.note(|| format!("all see stream {chosen}"));
                self.views = [chosen; NODES];
            }
            14 => {
                // Nodes may be on different brokers by turns.
                self.views[at] = self.below(self.streams.len());
            }
            _ => self.change_stream(at),
        }
    }

    fn split_broker(&mut self) {
        let view = self.views[self.below(NODES)];
        let copy = self.streams[view].clone();
        self.streams.push(copy);
        let new = self.streams.len() - 1;
        for at in 0..NODES {
            if self.strikes(2) {
                self.views[at] = new;
            }
        }
        let views = self.views;
        self.note(|| format!("two brokers: {views:?}"));
    }

    fn change_stream(&mut self, at: usize) {
        let view = self.views[at];
        let change = self.below(7);
        self.note(|| format!("stream {view} suffers {change}"));
        let (tail, head) = (self.draw().random_range(1..6), self.draw().random_range(1..4));
        let some = self.draw().random_range(1..40);
        match change {
            0 => self.streams[view] = None,
            1 => self.streams[view] = Some(Stream::foreign()),
            2 => self.streams[view] = Some(Stream::new()),
            3 => {
                if let Some(stream) = &mut self.streams[view] {
                    stream.shorten(tail);
                }
            }
            4 => {
                if let Some(stream) = &mut self.streams[view] {
                    stream.lose_head(head);
                }
            }
            _ => {
                if let Some(stream) = &mut self.streams[view] {
                    stream.lose_one(some);
                }
            }
        }
        for other in 0..NODES {
            if self.views[other] == view && self.strikes(2) {
                self.reconnect(other);
            }
        }
    }

    /// One act of the hostile host.
    pub(super) fn be_hostile(&mut self) {
        match self.below(16) {
            0..=2 => self.equivocate(),
            3..=5 => {
                self.forge_entry();
            }
            6..=9 => self.vote_anything(),
            10 | 11 => self.replay(),
            12 => self.send_junk(),
            13 => self.write_junk(),
            14 => self.tell_of_what_is_not(),
            _ => self.give_unasked(),
        }
    }

    fn some_honest(&mut self) -> Vec<usize> {
        (0..NODES).filter(|at| *at != self.hostile && self.draw().random_range(0..2) == 0).collect()
    }

    /// An entry of its own at any place.
    fn forge_entry(&mut self) -> Option<Entry> {
        let id = self.any_ceremony()?;
        let entries = self.pool[&id].clone();
        let parent = if self.strikes(3) { self.any(&entries) } else { entries.last().cloned() };
        self.forge_behind(&id, parent.as_ref())
    }

    fn forge_behind(&mut self, id: &CeremonyId, parent: Option<&Entry>) -> Option<Entry> {
        let mut entries = self.pool[id].clone();
        // What people signed, in another order; what is in nobody's log yet.
        let mut events: Vec<log::Event> = entries.drain(..).map(|entry| event_of(&entry)).collect();
        events.extend(
            self.questions
                .iter()
                .filter(|question| question.ceremony == *id)
                .filter_map(|question| question.event.clone()),
        );
        let parent = parent.filter(|_| !self.strikes(12));
        let opened = events.first().cloned();
        let event = if parent.is_none() { opened? } else { self.any(&events)? };
        let now = self.clock(self.hostile);
        let ahead = match self.below(6) {
            0 => self.draw().random_range(-120_000..0),
            1 => self.draw().random_range(0..240_000),
            _ => 0,
        };
        let place = Place {
            ceremony: id.clone(),
            seq: parent.map_or(1, |parent| parent.seq + 1),
            prev: parent.map_or(Hash::ZERO, Entry::hash),
            time: parent.map_or(now, |parent| parent.time.max(now.plus(ahead))),
            node: node(self.hostile),
        };
        let key = node_key(self.hostile);
        let sign = |bytes: &[u8]| key.sign(bytes).map_err(Box::<dyn std::error::Error>::from);
        let entry = Entry::create(place, event, sign).ok()?;
        self.pool(&entry);
        if self.strikes(2) {
            let view = self.views[self.below(NODES)];
            if let Some(stream) = &mut self.streams[view] {
                stream.put(Some(id.clone()), entry.encode());
            }
        }
        let (seq, hash) = (entry.seq, entry.hash().to_string());
        self.note(|| format!("hostile forges {id} {seq} {hash:.8}"));
        Some(entry)
    }

    /// Two branches, each shown to some, with a vote for each.
    fn equivocate(&mut self) {
        let Some(id) = self.any_ceremony() else { return };
        let honest = self.honest();
        let Some(at) = self.any(&honest) else { return };
        let head = self.log_of(at, &id).pop();
        let (first, second) = (self.forge_behind(&id, head.as_ref()), self.forge_behind(&id, head.as_ref()));
        let round = self.any_round();
        for to in honest {
            let shown = if self.strikes(2) { &first } else { &second };
            if let Some(entry) = shown {
                let (tip, hash) = (tip_of(entry), entry.hash());
                self.feeds.insert((id.clone(), to), hash);
                let head = self.head(&id, round, true, tip, None);
                self.tell_head(to, &head, Vec::new());
            }
        }
    }

    fn any_round(&mut self) -> u32 {
        let known: Vec<u32> = self.known_heads().iter().map(|head| head.round).collect();
        let round = self.any(&known).unwrap_or_default();
        match self.below(8) {
            0 => round.saturating_add(1),
            1 => round.saturating_sub(1),
            2 => round.saturating_add(self.draw().random_range(1..100)),
            3 if self.strikes(8) => u32::MAX,
            _ => round,
        }
    }

    /// The heads of the last messages.
    fn known_heads(&mut self) -> Vec<SignedHead> {
        let mut heads = Vec::new();
        for message in self.history.iter().rev().take(60) {
            if let Message::Heads(bytes) = message
                && let Ok(news) = record::News::decode(bytes.as_slice())
            {
                let raw = news.heads.into_iter().filter_map(|news| news.head);
                heads.extend(raw.filter_map(|raw| SignedHead::from_wire(raw).ok()));
            }
        }
        heads
    }

    fn head(&self, id: &CeremonyId, round: u32, votes: bool, tip: Tip, lock: Option<Lock>) -> SignedHead {
        let head = Head {
            cluster: CONTEXT.charter().cluster().clone(),
            ceremony: id.clone(),
            node: node(self.hostile),
            round,
            votes,
            tip,
            lock,
            time: self.clock(self.hostile),
        };
        let key = node_key(self.hostile);
        SignedHead::create(head, |bytes| key.sign(bytes)).unwrap()
    }

    fn tell_head(&mut self, to: usize, head: &SignedHead, proof: Vec<record::Head>) {
        let news = record::News { heads: vec![record::HeadNews { head: Some(head.raw().clone()), proof }] };
        self.inject(to, Message::Heads(news.encode_to_vec()));
    }

    /// Votes and locks, true or not, with or without proof, for some.
    fn vote_anything(&mut self) {
        let Some(id) = self.any_ceremony() else { return };
        let entries = self.pool[&id].clone();
        let Some(entry) = (if self.strikes(3) { self.any(&entries) } else { entries.last().cloned() }) else {
            return;
        };
        let known: Vec<SignedHead> =
            self.known_heads().into_iter().filter(|head| head.ceremony == id).collect();
        let like = self.any(&known);
        let tip = match &like {
            Some(like) if self.strikes(2) => like.tip,
            _ => tip_of(&entry),
        };
        let round = match &like {
            Some(like) if !self.strikes(3) => like.round,
            _ => self.any_round(),
        };
        let lock = match self.below(4) {
            0 => Some(Lock { round, tip }),
            1 => like.as_ref().and_then(|like| like.lock),
            2 => self.any(&entries).map(|entry| Lock { round: round.saturating_sub(1), tip: tip_of(&entry) }),
            _ => None,
        };
        let votes = !self.strikes(4);
        let head = self.head(&id, round, votes, tip, lock);
        let proof = if self.strikes(2) {
            known.iter().filter(|head| head.votes).take(8).map(|head| head.raw().clone()).collect()
        } else {
            Vec::new()
        };
        for to in self.some_honest() {
            self.tell_head(to, &head, proof.clone());
        }
    }

    fn replay(&mut self) {
        for _ in 0..=self.below(12) {
            let old: Vec<Message> = self.history.iter().cloned().collect();
            let Some(mut message) = self.any(&old) else { return };
            if self.strikes(5) {
                message = self.disguised(message);
            }
            let to = self.below(NODES);
            self.inject(to, message);
        }
    }

    fn send_junk(&mut self) {
        for _ in 0..=self.below(20) {
            let mut bytes = vec![0; self.below(200)];
            self.draw().fill(bytes.as_mut_slice());
            let message = self.disguised(Message::Heads(bytes));
            let to = self.below(NODES);
            self.inject(to, message);
        }
    }

    fn write_junk(&mut self) {
        let subject = self.any_ceremony();
        let bytes = match self.any_entry() {
            Some(entry) if !self.strikes(3) => entry.encode(),
            _ => vec![1, 2, 3],
        };
        let view = self.views[self.below(NODES)];
        for _ in 0..=self.below(3) {
            if let Some(stream) = &mut self.streams[view] {
                stream.put(subject.clone(), bytes.clone());
            }
        }
    }

    /// Ceremonies that nobody has opened, and entries that do not exist.
    fn tell_of_what_is_not(&mut self) {
        let many = if self.strikes(4) { 300 } else { 3 };
        let to = self.some_honest();
        let salt: u32 = self.draw().random();
        for number in 0..many {
            let id: CeremonyId = format!("aaa-{salt:x}-{number}").parse().unwrap();
            let tip = Tip { seq: 1 + number, hash: Hash::of_bytes(&number.to_be_bytes()) };
            let head = self.head(&id, 0, true, tip, None);
            for to in &to {
                self.tell_head(*to, &head, Vec::new());
            }
        }
    }

    /// An answer to a request that may never have been made.
    fn give_unasked(&mut self) {
        let Some(entry) = self.any_entry() else { return };
        for to in self.some_honest() {
            self.give_branch(to, &entry.ceremony, entry.hash());
        }
    }

    fn give_branch(&mut self, to: usize, id: &CeremonyId, end: Hash) {
        let Some(pool) = self.pool.get(id) else { return };
        let find = |hash: Hash| pool.iter().find(|entry| entry.hash() == hash);
        let line = std::iter::successors(find(end), |entry| find(entry.prev));
        let mut entries: Vec<log::Entry> = line.map(|entry| entry.raw().clone()).collect();
        entries.reverse();
        let kind = to_peer::Kind::Entries(record::Entries { ceremony: id.to_string(), entries, head: None });
        let bytes = record::ToPeer { version: VERSION, kind: Some(kind) }.encode_to_vec();
        let from = node(self.hostile);
        self.inject(to, Message::Peer(from, bytes));
    }

    /// Somebody asks the hostile host for entries.
    pub(super) fn hostile_hears(&mut self, from: NodeIndex, bytes: &[u8]) {
        if !self.is_hostile_active || self.strikes(4) {
            return;
        }
        let Ok(record::ToPeer { kind: Some(to_peer::Kind::Ask(ask)), .. }) = record::ToPeer::decode(bytes)
        else {
            return;
        };
        let Ok(id) = ask.ceremony.parse::<CeremonyId>() else { return };
        let to = place(from);
        let end = self.feeds.get(&(id.clone(), to)).copied();
        let pool = self.pool.get(&id).cloned().unwrap_or_default();
        let end = match end {
            Some(end) if !self.strikes(5) => Some(end),
            _ => self.any(&pool).map(|entry| entry.hash()),
        };
        if let Some(end) = end {
            self.give_branch(to, &id, end);
        }
    }
}
