//! The node's copy of the logs: accepting entries one at a time, each stored before anything is built on it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ceremonies::book::{Examined, Next, NotTaken, SetAside, check_clock};
use ceremonies::charter::Charter;
use ceremonies::ids::{CeremonyId, Hash, NodeIndex};
use ceremonies::log::Entry;
use ceremonies::record::{Ballot, HOSTILE, Lock, Memory, SignedHead, Tip, Tree};
use ceremonies::text::chain;
use ceremonies::wire::log;
use prost::Message;
use tracing::{info, warn};

use super::append::Pending;
use super::writer::{Then, Work};
use super::{Core, StoreOp, StreamEntry};

/// The most entries of one writer in one ceremony that are kept of other branches, and of entries that follow nothing
/// known.
const MAX_ASIDE: usize = 128;
/// The most entries of one writer in a ceremony that follow nothing known.
const MAX_ORPHANS: usize = 64;
/// The same in all ceremonies, and their bytes.
const MAX_ORPHANS_IN_ALL: usize = 1024;
const MAX_ORPHAN_BYTES: usize = 4 * 1024 * 1024;

/// How long other nodes' heads are waited for before this node first does its duty in a log, in milliseconds: as long as
/// they take to be asked and to hand over what is missing.
const HEARD_MS: u64 = 3000;

/// One ceremony's log as this node has it, apart from its fold in the book.
pub(super) struct Log {
    pub(super) tree: Tree,
    pub(super) ballot: Ballot,
    /// Valid entries of branches that this node does not stand on.
    pub(super) aside: BTreeMap<Hash, Entry>,
    /// Entries that follow nothing that is known yet.
    pub(super) orphans: BTreeMap<Hash, Entry>,
    /// The stream's sequence of the last message of its subject; none where it must be looked up.
    pub(super) last: Option<u64>,
    /// Up to which message its subject was read, if further than the stream.
    pub(super) read_to: u64,
    /// The first message of its subject that was passed over and read only once.
    pub(super) doubted: Option<u64>,
    /// Up to which sequence such messages were read twice.
    pub(super) reread_to: u64,
    /// How many entries of the branch, from the first, are in the stream.
    pub(super) have: u64,
    /// How often another node was quicker to give the stream what it lacks of it.
    pub(super) conflicts: u32,
    /// When its first entry was taken, in steady milliseconds; 0 if it was known at the start.
    pub(super) known_since: u64,
    /// What is to be appended.
    pub(super) pending: VecDeque<Pending>,
    /// The statement that was last shown.
    pub(super) shown: Option<SignedHead>,
    /// Since when, in steady milliseconds, the branch has had an entry that is not locked.
    pub(super) unlocked_since: u64,
    /// When the node left a round.
    pub(super) left_at: u64,
    /// When anything changed.
    pub(super) changed_at: u64,
    /// Until when the stream is taken to have no more room for it: nodes then have the rest from each other alone.
    pub(super) full_until: u64,
    /// When another node last said that it stands elsewhere.
    pub(super) missed_at: u64,
    /// When it was recalled from the shelf, and the last entry that it had, which was recorded then.
    pub(super) recalled: Option<(u64, Tip)>,
    /// When each node was asked for entries, and from which number on it is asked next.
    pub(super) asked: BTreeMap<NodeIndex, (u64, u64)>,
}

impl Log {
    pub(super) fn new(me: NodeIndex, memory: Memory) -> Self {
        Self {
            tree: Tree::default(),
            ballot: Ballot::new(me, memory),
            aside: BTreeMap::new(),
            orphans: BTreeMap::new(),
            last: Some(0),
            read_to: 0,
            doubted: None,
            reread_to: 0,
            have: 0,
            conflicts: 0,
            known_since: 0,
            pending: VecDeque::new(),
            shown: None,
            unlocked_since: 0,
            left_at: 0,
            changed_at: 0,
            full_until: 0,
            missed_at: 0,
            recalled: None,
            asked: BTreeMap::new(),
        }
    }

    /// The last number that this node is locked on.
    pub(super) fn locked_to(&self) -> u64 {
        let lock = self.ballot.memory().lock;
        lock.filter(|lock| self.tree.is_main(lock.tip)).map_or(0, |lock| lock.tip.seq)
    }

    /// Whether the stream has no more room for it.
    pub(super) fn is_full(&self, now: u64) -> bool {
        now < self.full_until
    }

    /// Whether this node is locked on the last entry, in its present round.
    pub(super) fn is_locked(&self) -> bool {
        let memory = self.ballot.memory();
        memory.lock == Some(Lock { round: memory.round, tip: self.tree.tip() })
    }

    /// Whether it has been known for no longer than it takes the others to say where they stand.
    pub(super) fn is_new(&self, now: u64) -> bool {
        now.saturating_sub(self.known_since) < HEARD_MS
    }

    /// Whether it was recalled, and still ends where it was recorded to end.
    pub(super) fn is_as_recalled(&self) -> bool {
        self.recalled.is_some_and(|(_, recorded)| recorded == self.tree.tip())
    }

    fn kept_of(&self, node: NodeIndex) -> usize {
        self.aside.values().chain(self.orphans.values()).filter(|entry| entry.node == node).count()
    }
}

/// An entry's place.
pub(super) fn tip_of(entry: &Entry) -> Tip {
    Tip { seq: entry.seq, hash: entry.hash() }
}

pub(super) fn place_before(entry: &Entry) -> Tip {
    Tip { seq: entry.seq.saturating_sub(1), hash: entry.prev }
}

impl Core {
    /// Puts back what was remembered.
    pub(super) fn remember(&mut self, mut ballots: BTreeMap<CeremonyId, Memory>, aside: Vec<Entry>) {
        let me = self.node();
        let known = self.stream.is_known();
        for (id, chapter) in self.book.iter() {
            let mut log = Log::new(me, ballots.remove(id).unwrap_or_default());
            log.tree = Tree::of(&chapter.entries);
            if known {
                log.have = chapter.ceremony.head().seq;
                log.last = None;
            }
            self.logs.insert(id.clone(), log);
        }
        // A ballot binds even if this node stands on nothing yet.
        for (id, memory) in ballots {
            self.logs.insert(id, Log::new(me, memory));
        }
        let mut left = Vec::new();
        for entry in aside {
            let id = entry.ceremony.clone();
            self.logs.entry(id.clone()).or_insert_with(|| Log::new(me, Memory::default()));
            let before = place_before(&entry);
            if let Some(log) = self.logs.get_mut(&id).filter(|log| log.tree.knows(before)) {
                log.tree.put_aside(entry.seq, entry.hash(), entry.prev);
                log.aside.insert(entry.hash(), entry.clone());
                left.push(entry);
            }
        }
        // This node may have been stopped before it had appended what was on a branch that it abandoned.
        for entry in &left {
            self.append_what_was_left(&entry.ceremony, std::slice::from_ref(entry));
        }
        let all: Vec<CeremonyId> = self.logs.keys().cloned().collect();
        self.running.extend(all.iter().cloned());
        self.work.extend(all.into_iter().map(Work::Settle));
    }

    /// Whose heads count: the nodes of the charter in force that it does not exclude.
    pub(super) fn members(&self) -> BTreeSet<NodeIndex> {
        self.book.context().charter().members().into_iter().collect()
    }

    /// The charters whose nodes may speak in a ceremony: the one in force, the one that it is held under and, for an
    /// amendment, the one that it proposes, because when every machine is lost there are no other nodes.
    pub(super) fn charters_of(&self, id: &CeremonyId) -> Vec<&Charter> {
        let ceremony = self.book.get(id).map(|chapter| &chapter.ceremony);
        let own = ceremony.map(ceremonies::ceremony::Ceremony::charter);
        let proposed = ceremony.and_then(|ceremony| ceremony.manifest().amendment().map(AsRef::as_ref));
        [Some(self.book.context().charter().as_ref()), own, proposed].into_iter().flatten().collect()
    }

    /// Looks at all ballots again if the nodes whose heads count have changed.
    fn recount(&mut self, before: &BTreeSet<NodeIndex>) {
        if self.members() != *before {
            self.unsettled.extend(self.logs.keys().cloned());
        }
    }

    /// Drops what no charter allows now, and takes again what this one allows: the charter in force may change more
    /// than once while nodes disagree about an amendment. Ballots bind all the while.
    fn follow_charter(&mut self, before: &Hash, out: Vec<SetAside>) {
        for log in out {
            warn!(ceremony = %log.ceremony, why = %chain(&log.why), "set aside: another charter is in force");
            let Some(known) = self.logs.remove(&log.ceremony) else { continue };
            let forgotten = Log::new(self.node(), known.ballot.memory().clone());
            self.logs.insert(log.ceremony.clone(), forgotten);
            let entries = log.entries.into_iter().chain(known.aside.into_values()).collect();
            self.not_allowed.insert(log.ceremony, entries);
        }
        if self.book.context().charter().hash() == *before {
            return;
        }
        self.drop_overdue_lines();
        let is_allowed =
            |entries: &[Entry]| entries.first().is_some_and(|first| self.book.examine(first.clone()).is_ok());
        let allowed: Vec<Vec<Entry>> =
            self.not_allowed.extract_if(.., |_, entries| is_allowed(entries)).map(|(_, log)| log).collect();
        for entry in allowed.into_iter().flatten() {
            self.plan(Work::Take(Box::new(entry)));
        }
    }

    pub(super) fn log_of(&mut self, id: &CeremonyId) -> &mut Log {
        let me = self.identity.node;
        self.logs.entry(id.clone()).or_insert_with(|| Log::new(me, Memory::default()))
    }

    /// A message of the stream. Even one that is not an entry of its ceremony takes up a place.
    pub(super) fn streamed(&mut self, message: StreamEntry) {
        let Some(id) = message.ceremony else { return };
        match Entry::decode(&message.payload) {
            Ok(entry) if entry.ceremony == id => self.take(entry, Some(message.seq)),
            Ok(_) | Err(_) => {
                self.passes_over(&id, message.seq);
                self.observed.junk += 1;
            }
        }
    }

    fn passes_over(&mut self, id: &CeremonyId, stream: u64) {
        // A message about a ceremony that was never opened needs no place: nobody appends to it.
        if let Some(log) = self.logs.get_mut(id) {
            log.last = log.last.max(Some(stream));
            if stream > log.reread_to {
                log.doubted.get_or_insert(stream);
            }
        }
    }

    /// Takes an entry, if it follows the head and the fold accepts it.
    pub(super) fn take(&mut self, entry: Entry, stream: Option<u64>) {
        let id = entry.ceremony.clone();
        match self.book.examine(entry.clone()) {
            Ok(Examined::Known) => {
                if let Some(stream) = stream {
                    self.stands_in_stream(&entry, stream);
                }
            }
            Ok(Examined::New(next)) => match check_clock(&entry, self.now.wall) {
                Err(ahead) if !self.is_locked_elsewhere(&entry) => {
                    let refused = (id.clone(), entry.hash());
                    // It comes again and again until its time has come.
                    if self.observed.ahead.as_ref() != Some(&refused) {
                        warn!(ceremony = %id, %ahead, "entry refused for now");
                        self.observed.ahead = Some(refused);
                    }
                    if let Some(stream) = stream {
                        self.passes_over(&id, stream);
                    }
                }
                Ok(()) | Err(_) => self.write(StoreOp::Append(entry), Then::Commit(next, stream, None)),
            },
            Err(refused) => {
                if let Some(stream) = stream {
                    self.passes_over(&id, stream);
                }
                self.take_aside(entry, &refused);
            }
        }
    }

    /// Whether enough nodes have locked an entry of this place or a later one that more than one of them is honest:
    /// they cannot all have fast clocks.
    fn is_locked_elsewhere(&self, entry: &Entry) -> bool {
        let Some(log) = self.logs.get(&entry.ceremony) else { return false };
        let locked =
            log.ballot.heads().filter(|(head, _)| head.lock.is_some_and(|lock| lock.tip.seq >= entry.seq));
        locked.count() > HOSTILE + 1
    }

    fn stands_in_stream(&mut self, entry: &Entry, stream: u64) {
        if let Some(log) = self.logs.get_mut(&entry.ceremony) {
            log.last = log.last.max(Some(stream));
            if entry.seq == log.have + 1 && log.tree.is_main(tip_of(entry)) {
                log.have = entry.seq;
            }
        }
    }

    /// An entry that does not follow the head: one of another branch, one whose turn comes later, or junk.
    fn take_aside(&mut self, entry: Entry, refused: &NotTaken) {
        let (id, before) = (entry.ceremony.clone(), place_before(&entry));
        let tree = self.logs.get(&id).map(|log| &log.tree);
        if tree.is_some_and(|tree| tree.knows(tip_of(&entry))) {
            return;
        }
        if before == tree.map_or(Tip::ROOT, Tree::tip) {
            self.observed.junk += 1;
            info!(ceremony = %id, node = %entry.node, refused = %chain(refused), "entry refused");
            return;
        }
        let authored = self.charters_of(&id).into_iter().any(|charter| entry.is_by_its_node(charter));
        let kept = self.logs.get(&id).map_or(0, |log| log.kept_of(entry.node));
        if !authored || kept >= MAX_ASIDE {
            self.observed.junk += 1;
            return;
        }
        let follows = before == Tip::ROOT || self.logs.get(&id).is_some_and(|log| log.tree.knows(before));
        if !follows {
            if self.has_room_for(&entry) {
                self.log_of(&id).orphans.insert(entry.hash(), entry);
            } else {
                self.observed.junk += 1;
            }
            return;
        }
        if self.entries_of(&id, before).is_some_and(|mut entries| {
            entries.push(entry.clone());
            self.book.fold_branch(&entries).is_ok()
        }) {
            self.write(StoreOp::PutAside(entry.clone()), Then::Aside(Box::new(entry)));
        } else {
            self.observed.junk += 1;
        }
    }

    /// Whether an entry that follows on nothing known may wait for what comes before it. The limits are on its writer:
    /// a host may write such entries for any number of ceremonies that nobody opened.
    fn has_room_for(&self, entry: &Entry) -> bool {
        let of_writer = |log: &Log| {
            let orphans = log.orphans.values().filter(|orphan| orphan.node == entry.node);
            orphans.fold((0, 0), |(count, bytes), orphan| (count + 1, bytes + orphan.size()))
        };
        let here = self.logs.get(&entry.ceremony).map_or(0, |log| of_writer(log).0);
        let (all, bytes) = self
            .logs
            .values()
            .filter(|log| !log.orphans.is_empty())
            .map(of_writer)
            .fold((0, 0), |(count, bytes), (more, size)| (count + more, bytes + size));
        here < MAX_ORPHANS && all < MAX_ORPHANS_IN_ALL && bytes + entry.size() <= MAX_ORPHAN_BYTES
    }

    /// The entries of the branch that ends here, where all are known.
    pub(super) fn entries_of(&self, id: &CeremonyId, tip: Tip) -> Option<Vec<Entry>> {
        let log = self.logs.get(id)?;
        let main = self.book.get(id).map(|chapter| chapter.entries.as_slice()).unwrap_or_default();
        let entry = |place: &Tip| {
            let index = usize::try_from(place.seq).ok()?.checked_sub(1)?;
            let main = main.get(index).filter(|entry| entry.hash() == place.hash);
            main.or_else(|| log.aside.get(&place.hash)).cloned()
        };
        log.tree.branch(tip)?.iter().map(entry).collect()
    }

    pub(super) fn put_aside(&mut self, entry: Entry) {
        let id = entry.ceremony.clone();
        warn!(ceremony = %id, seq = entry.seq, node = %entry.node, "the log forks: keeping an entry of another branch");
        let (hash, now) = (entry.hash(), self.now.steady);
        let log = self.log_of(&id);
        log.tree.put_aside(entry.seq, hash, entry.prev);
        log.aside.insert(hash, entry);
        log.changed_at = now;
        self.take_orphans_of(&id, hash);
        self.plan(Work::Settle(id));
    }

    fn take_orphans_of(&mut self, id: &CeremonyId, before: Hash) {
        let Some(log) = self.logs.get_mut(id) else { return };
        let next: Vec<Hash> =
            log.orphans.values().filter(|orphan| orphan.prev == before).map(Entry::hash).collect();
        let next: Vec<Entry> = next.iter().filter_map(|hash| log.orphans.remove(hash)).collect();
        for orphan in next {
            self.plan_first(Work::Take(Box::new(orphan)));
        }
    }

    pub(super) fn commit(&mut self, next: Next, stream: Option<u64>, pending: Option<Box<Pending>>) {
        let entry = next.entry().clone();
        let (id, members) = (entry.ceremony.clone(), self.members());
        let charter = self.book.context().charter().hash();
        let out = self.book.commit(next);
        self.follow_charter(&charter, out);
        self.recount(&members);
        self.observed.entries += 1;
        self.running.insert(id.clone());
        self.duties_due = true;
        let now = self.now.steady;
        let log = self.log_of(&id);
        if log.locked_to() == log.tree.tip().seq {
            log.unlocked_since = now;
        }
        if log.tree.tip() == Tip::ROOT {
            log.known_since = now;
        }
        log.tree.grow(entry.hash());
        log.aside.remove(&entry.hash());
        log.changed_at = now;
        if let Some(stream) = stream {
            self.stands_in_stream(&entry, stream);
        }
        self.take_orphans_of(&id, entry.hash());
        self.plan_first(Work::Settle(id.clone()));
        if let Some(pending) = pending {
            info!(ceremony = %id, seq = entry.seq, "appended");
            self.is_appended(&pending, entry.seq);
        }
    }

    /// Moves to another branch, now that the store has it: what was on the previous one and is not on this one is
    /// appended again, for what people and enclaves signed does not depend on its place.
    pub(super) fn switched(&mut self, id: &CeremonyId, tip: Tip) {
        let Some(entries) = self.entries_of(id, tip) else { return };
        let before = self.book.get(id).map(|chapter| chapter.entries.clone()).unwrap_or_default();
        let members = self.members();
        let charter = self.book.context().charter().hash();
        match self.book.replace(&entries) {
            Ok(out) => self.follow_charter(&charter, out),
            Err((seq, refused)) => {
                warn!(ceremony = %id, seq, refused = %chain(&refused), "branch does not fold");
                return;
            }
        }
        self.recount(&members);
        warn!(ceremony = %id, seq = tip.seq, hash = %tip.hash, "the fork is healed here: this node now stands on \
            another branch");
        self.running.insert(id.clone());
        self.duties_due = true;
        let now = self.now.steady;
        let log = self.log_of(id);
        let keep = log.tree.shared(tip).unwrap_or_default();
        log.tree.stand_on(tip);
        log.have = log.have.min(keep);
        log.changed_at = now;
        let left: Vec<Entry> = before.into_iter().filter(|entry| entry.seq > keep).collect();
        for entry in &left {
            log.aside.insert(entry.hash(), entry.clone());
        }
        for entry in &entries {
            log.aside.remove(&entry.hash());
        }
        self.append_what_was_left(id, &left);
        self.plan_first(Work::Settle(id.clone()));
    }

    /// The event of an entry, as it was signed.
    pub(super) fn event_of(entry: &Entry) -> Option<log::Event> {
        log::EntryBody::decode(entry.raw().body.as_slice()).ok()?.event
    }
}
