//! What nodes said of the log: their signed heads, and entries of other branches. It does not follow from the log, and it
//! is what shows a stranger that the log was recorded, and where nodes once disagreed.
//!
//! Nothing here can make a log verify, or keep one from verifying. Whoever packs a bundle may leave heads out; nobody
//! can add one.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;
use serde_json::json;

use super::{EvidenceError, Material};
use crate::ceremony::Ceremony;
use crate::charter::Charter;
use crate::ids::{Hash, NodeIndex};
use crate::log::Entry;
use crate::record::{SignedHead, Standing, Tip, Tree, Verdict};
use crate::wire::record;

/// Where nodes stand, each signed head with its length before it.
pub(super) const HEADS: &str = "heads.binpb";
/// Entries of branches beside the log, each with its length before it and behind the one that it follows.
pub(super) const BRANCHES: &str = "branches.binpb";

/// What heads and branches tell a stranger.
pub(super) struct Said {
    /// Whether a quorum has locked the whole log.
    pub(super) recorded: bool,
    /// Who has it.
    pub(super) holders: String,
    /// Each branch beside the log.
    pub(super) branches: Vec<String>,
}

/// The charters whose nodes may speak: the ceremony's, and the one that it proposes.
fn charters(ceremony: &Ceremony) -> impl Iterator<Item = &Charter> {
    let proposed = ceremony.manifest().amendment().map(AsRef::as_ref);
    std::iter::once(ceremony.charter()).chain(proposed)
}

fn is_by_its_node(ceremony: &Ceremony, head: &SignedHead) -> bool {
    head.ceremony == ceremony.manifest().ceremony
        && charters(ceremony).any(|charter| head.is_by_its_node(charter))
}

fn is_written_by_its_node(ceremony: &Ceremony, entry: &Entry) -> bool {
    entry.ceremony == ceremony.manifest().ceremony
        && charters(ceremony).any(|charter| entry.is_by_its_node(charter))
}

fn tip_of(entry: &Entry) -> Tip {
    Tip { seq: entry.seq, hash: entry.hash() }
}

/// Adds an entry beside the log, if it follows one that is known.
fn grow(tree: &mut Tree, entry: &Entry) -> bool {
    let before = entry.seq.checked_sub(1).map(|seq| Tip { seq, hash: entry.prev });
    let follows = before.is_some_and(|before| before == Tip::ROOT || before.seq > 0 && tree.knows(before));
    let is_new = follows && !tree.knows(tip_of(entry));
    if is_new {
        tree.put_aside(entry.seq, entry.hash(), entry.prev);
    }
    is_new
}

impl Material {
    /// Adds what nodes have said of the log. What the ceremony's charters cannot vouch for is left out: a head under a
    /// key that a later charter gave a node proves nothing to someone who has only this bundle.
    #[must_use]
    pub fn with_what_nodes_said(
        self,
        ceremony: &Ceremony,
        heads: impl IntoIterator<Item = SignedHead>,
        branches: impl IntoIterator<Item = Entry>,
    ) -> Self {
        let mut heads: Vec<SignedHead> =
            heads.into_iter().filter(|head| is_by_its_node(ceremony, head)).collect();
        heads.sort_by_key(|head| (head.node, head.round, head.votes, head.tip, head.time));
        heads.dedup();
        let mut entries: Vec<Entry> =
            branches.into_iter().filter(|entry| is_written_by_its_node(ceremony, entry)).collect();
        entries.sort_by_key(tip_of);
        let mut tree = Tree::of(&self.log);
        entries.retain(|entry| grow(&mut tree, entry));
        Self { heads, branches: entries, ..self }
    }

    /// Checks heads and branches, and works out what they show.
    pub(super) fn said(&self, ceremony: &Ceremony) -> Result<Said, EvidenceError> {
        if let Some(head) = self.heads.iter().find(|head| !is_by_its_node(ceremony, head)) {
            return Err(EvidenceError::Head(head.node));
        }
        let mut tree = Tree::of(&self.log);
        for entry in &self.branches {
            if !is_written_by_its_node(ceremony, entry) || !grow(&mut tree, entry) {
                return Err(EvidenceError::Branch(entry.seq));
            }
        }
        // An amendment is recorded by the nodes of the charter that it has put in force.
        let charter = ceremony.amended().map_or(ceremony.charter(), |(charter, _)| charter);
        let members: BTreeSet<NodeIndex> = charter.members().into_iter().collect();
        let standing = Standing::new(&tree, &self.heads, &members);
        let verdict = standing.verdict(tree.tip().seq);
        Ok(Said {
            recorded: matches!(verdict, Verdict::Recorded { .. }),
            holders: self.holders(&verdict, members.len()),
            branches: self.describe_branches(&tree),
        })
    }

    fn holders(&self, verdict: &Verdict, nodes: usize) -> String {
        if self.heads.is_empty() {
            return "the bundle has no signed head from any node".to_owned();
        }
        match verdict {
            Verdict::Recorded { by } => format!("recorded by {} of {nodes}: {}", by.len(), named(by)),
            Verdict::Majority { by, silent } => {
                format!("held by {} of {nodes}: {}; no head from {}", by.len(), named(by), named(silent))
            }
            Verdict::Unknown { by, .. } => format!("held by {} of {nodes}: {}", by.len(), named(by)),
        }
    }

    /// Each branch beside the log: from where to where, who wrote it, who stands on it.
    fn describe_branches(&self, tree: &Tree) -> Vec<String> {
        let followed: BTreeSet<Hash> = self.branches.iter().map(|entry| entry.prev).collect();
        let writers: BTreeMap<Hash, NodeIndex> =
            self.branches.iter().map(|entry| (entry.hash(), entry.node)).collect();
        let ends = self.branches.iter().map(tip_of).filter(|tip| !followed.contains(&tip.hash));
        let beside = ends.filter_map(|end| {
            let shared = tree.shared(end)?;
            let wrote: BTreeSet<NodeIndex> =
                tree.branch(end)?.iter().filter_map(|tip| writers.get(&tip.hash).copied()).collect();
            let stands =
                |head: &&SignedHead| head.tip.seq > shared && tree.contains(end, head.tip) == Some(true);
            let on_it: BTreeSet<NodeIndex> = self.heads.iter().filter(stands).map(|head| head.node).collect();
            let on_it = if on_it.is_empty() {
                "no node stands on it any more".to_owned()
            } else {
                format!("{} stood on it", named(&on_it))
            };
            let (from, to) = (shared + 1, end.seq);
            Some(format!("entries {from} to {to} ({}), appended by {}; {on_it}", end.hash, named(&wrote)))
        });
        let unknown = self.heads.iter().filter(|head| !tree.knows(head.tip) && head.tip != Tip::ROOT);
        let elsewhere = unknown.map(|head| {
            format!(
                "node {} stood at entry {} ({}), which the bundle lacks",
                head.node, head.tip.seq, head.tip.hash
            )
        });
        beside.chain(elsewhere).collect()
    }

    /// The files with what nodes said; none where they said nothing.
    pub(super) fn said_files(&self) -> Result<Vec<(String, Vec<u8>)>, EvidenceError> {
        let mut files = Vec::new();
        if !self.heads.is_empty() {
            let raw = self.heads.iter().flat_map(|head| head.raw().encode_length_delimited_to_vec());
            files.push((HEADS.to_owned(), raw.collect()));
            files.push(("heads.jsonl".to_owned(), render_heads(&self.heads)?));
        }
        if !self.branches.is_empty() {
            files.push((BRANCHES.to_owned(), super::delimited(&self.branches)));
            files.push(("branches.jsonl".to_owned(), super::render::log("branches.jsonl", &self.branches)?));
        }
        Ok(files)
    }
}

/// Heads as they appear in a file.
pub(super) fn read_heads(mut bytes: &[u8]) -> Result<Vec<SignedHead>, EvidenceError> {
    let mut heads = Vec::new();
    while !bytes.is_empty() {
        let raw = record::Head::decode_length_delimited(&mut bytes)
            .map_err(|_| EvidenceError::Delimiters(HEADS))?;
        heads.push(SignedHead::from_wire(raw)?);
    }
    Ok(heads)
}

fn render_heads(heads: &[SignedHead]) -> Result<Vec<u8>, EvidenceError> {
    let mut bytes = Vec::new();
    for head in heads {
        let lock =
            head.lock.map(|lock| json!({ "round": lock.round, "seq": lock.tip.seq, "hash": lock.tip.hash }));
        let line = json!({
            "node": head.node,
            "round": head.round,
            "votes": head.votes,
            "seq": head.tip.seq,
            "hash": head.tip.hash,
            "locked": lock,
            "time": head.time.to_string(),
        });
        serde_json::to_writer(&mut bytes, &line).map_err(|_| EvidenceError::Render("heads.jsonl"))?;
        bytes.push(b'\n');
    }
    Ok(bytes)
}

fn named<'a>(nodes: impl IntoIterator<Item = &'a NodeIndex>) -> String {
    let nodes: Vec<String> = nodes.into_iter().map(ToString::to_string).collect();
    match nodes.as_slice() {
        [node] => format!("node {node}"),
        nodes => format!("nodes {}", nodes.join(", ")),
    }
}
