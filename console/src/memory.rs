//! What a console remembers from one start to the next: logs it has folded, and recorded heads it has seen.
//!
//! The files are the console's own, private and replaced whole. A log in them saves reading it again but proves
//! nothing: it is folded like any other. The heads tell a record that was rolled back from one that never was.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use ceremonies::ids::{CeremonyId, Hash, NodeIndex, UnixMillis};
use ceremonies::log::Entry;
use ceremonies::record::Tip;
use ceremonies::wire::log;
use prost::Message;
use serde::{Deserialize, Serialize};

use crate::client::{Reading, Row, those};
use crate::config::Cluster;
use crate::file;
use crate::room::now;

/// Largest file that is read.
const MAX_FILE: usize = 64 * 1024 * 1024;
/// How long after a head was seen recorded one node alone may lag without a warning, in milliseconds.
const LAGGING_MS: i64 = 60_000;

/// The console's folder for one cluster. Without one, nothing is remembered.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    folder: Option<PathBuf>,
}

/// A head that a quorum had locked when this console saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The entry's number.
    pub seq: u64,
    /// Its hash.
    pub hash: Hash,
    /// When this console saw it recorded.
    pub at: UnixMillis,
}

impl Seen {
    fn tip(&self) -> Tip {
        Tip { seq: self.seq, hash: self.hash }
    }
}

/// Nodes that show less than this console has seen recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SetBack {
    /// Of which ceremony.
    pub ceremony: CeremonyId,
    /// What was seen.
    pub seen: Seen,
    /// Who shows something else.
    pub nodes: Vec<NodeIndex>,
    /// Whether it is another log, and not only a shorter one.
    pub other: bool,
}

impl std::fmt::Display for SetBack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let who = if self.nodes.is_empty() {
            "no node shows any".to_owned()
        } else {
            let verb = if self.nodes.len() == 1 { "shows" } else { "show" };
            those(&self.nodes, &format!("{verb} {}", if self.other { "another" } else { "an older" }))
        };
        let why = if self.nodes.len() == 1 && !self.other {
            "it lost its store and reads the record again, or somebody rolled its store back"
        } else {
            "somebody rolled stores back"
        };
        write!(
            f,
            "{who} log of {} than this console has seen: it saw entry {} recorded at {}; {why}",
            self.ceremony, self.seen.seq, self.seen.at
        )
    }
}

/// Whether it is worth a warning that this many of the nodes that were heard show less: one alone may lag for a while.
fn is_set_back(behind: usize, seen: &Seen, at: UnixMillis) -> bool {
    behind > ceremonies::record::HOSTILE || (behind > 0 && at.since(seen.at) > LAGGING_MS)
}

/// Whether a reading shows less than was seen recorded.
#[must_use]
pub fn set_back_in(seen: &Seen, reading: &Reading, at: UnixMillis) -> Option<SetBack> {
    let tree = reading.branches().tree();
    let stands: Vec<(NodeIndex, Tip)> =
        reading.heads().own().iter().map(|(node, head)| (*node, head.tip)).collect();
    let lacks = |tip: Tip| tree.contains(tip, seen.tip()) != Some(true) && tip != seen.tip();
    let behind: Vec<(NodeIndex, Tip)> = stands.into_iter().filter(|(_, tip)| lacks(*tip)).collect();
    let other = behind.iter().any(|(_, tip)| tip.seq >= seen.seq);
    let nodes: Vec<NodeIndex> = behind.into_iter().map(|(node, _)| node).collect();
    let set_back = SetBack { ceremony: reading.ceremony().clone(), seen: *seen, nodes, other };
    is_set_back(set_back.nodes.len(), seen, at).then_some(set_back)
}

/// Whether a list shows less than was seen recorded. About a longer log, a list says too little.
#[must_use]
pub fn set_back_in_list(
    id: &CeremonyId,
    seen: &Seen,
    row: Option<&Row>,
    heard: &[NodeIndex],
    at: UnixMillis,
) -> Option<SetBack> {
    let tip = |node: &NodeIndex| row.and_then(|row| row.said.get(node)).map(|summary| summary.tip);
    let lacks = |tip: Tip| tip.seq < seen.seq || (tip.seq == seen.seq && tip.hash != seen.hash);
    let behind: Vec<NodeIndex> = heard.iter().copied().filter(|node| tip(node).is_none_or(lacks)).collect();
    let other = behind.iter().filter_map(tip).any(|tip| tip.seq == seen.seq);
    let set_back = SetBack { ceremony: id.clone(), seen: *seen, nodes: behind, other };
    is_set_back(set_back.nodes.len(), seen, at).then_some(set_back)
}

impl Memory {
    /// The memory for a cluster: in the folder that its file names, else in the person's cache folder.
    #[must_use]
    pub fn of(cluster: &Cluster) -> Self {
        let cache = || {
            let xdg = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
            xdg.or_else(|| std::env::home_dir().map(|home| home.join(".cache")))
        };
        let folder = cluster.cache.clone().or_else(|| cache().map(|cache| cache.join("custody")));
        let folder = folder.map(|folder| folder.join(cluster.charter().cluster().as_str()));
        Self::in_folder(folder)
    }

    /// A memory in this folder, which is made if possible.
    #[must_use]
    pub fn in_folder(folder: Option<PathBuf>) -> Self {
        let made =
            |folder: &PathBuf| fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).is_ok();
        Self { folder: folder.filter(made) }
    }

    /// The folder for reports of drills, unless another is named.
    #[must_use]
    pub fn drills(&self) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.join("drills"))
    }

    fn file(&self, id: &CeremonyId, ending: &str) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.join(format!("{id}.{ending}")))
    }

    fn read(path: &Path) -> Option<Vec<u8>> {
        file::read("memory", path, MAX_FILE).ok()
    }

    /// A ceremony's log as it was kept, as far as it can be read and chains. It proves nothing.
    #[must_use]
    pub fn log(&self, id: &CeremonyId) -> Vec<Entry> {
        let Some(bytes) = self.file(id, "binpb").and_then(|path| Self::read(&path)) else {
            return Vec::new();
        };
        let mut bytes = bytes.as_slice();
        let mut entries: Vec<Entry> = Vec::new();
        while !bytes.is_empty() {
            let Ok(raw) = log::Entry::decode_length_delimited(&mut bytes) else { break };
            let Ok(entry) = Entry::from_wire(raw) else { break };
            let before = entries.last().map_or(Hash::ZERO, Entry::hash);
            if entry.ceremony != *id || entry.seq != entries.len() as u64 + 1 || entry.prev != before {
                break;
            }
            entries.push(entry);
        }
        entries
    }

    /// Keeps a log that was folded. What cannot be written is read again the next time.
    pub fn keep(&self, id: &CeremonyId, log: &[Entry]) {
        let bytes: Vec<u8> =
            log.iter().flat_map(|entry| entry.raw().encode_length_delimited_to_vec()).collect();
        if let Some(path) = self.file(id, "binpb") {
            let _ = file::replace(&path, &bytes);
        }
    }

    /// The last head of a ceremony that was seen recorded.
    #[must_use]
    pub fn seen(&self, id: &CeremonyId) -> Option<Seen> {
        serde_json::from_slice(&Self::read(&self.file(id, "seen.json")?)?).ok()
    }

    /// Remembers a recorded head, unless a later one was seen before.
    pub fn saw(&self, id: &CeremonyId, tip: Tip) {
        if self.seen(id).is_some_and(|seen| seen.seq >= tip.seq) {
            return;
        }
        let seen = Seen { seq: tip.seq, hash: tip.hash, at: now() };
        if let (Some(path), Ok(bytes)) = (self.file(id, "seen.json"), serde_json::to_vec(&seen)) {
            let _ = file::replace(&path, &bytes);
        }
    }

    /// The heads that were last seen recorded, at most this many.
    #[must_use]
    pub fn last_seen(&self, most: usize) -> Vec<(CeremonyId, Seen)> {
        let Some(folder) = self.folder.as_ref().and_then(|folder| fs::read_dir(folder).ok()) else {
            return Vec::new();
        };
        let dated = |file: std::io::Result<fs::DirEntry>| {
            let file = file.ok()?;
            let name = file.file_name().into_string().ok()?;
            let id: CeremonyId = name.strip_suffix(".seen.json")?.parse().ok()?;
            Some((file.metadata().ok()?.modified().ok()?, id))
        };
        let mut dated: Vec<_> = folder.filter_map(dated).collect();
        dated.sort_unstable_by(|one, other| other.cmp(one));
        let ids = dated.into_iter().take(most).map(|(_, id)| id);
        ids.filter_map(|id| self.seen(&id).map(|seen| (id, seen))).collect()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
    use super::*;

    #[test]
    fn one_node_alone_that_shows_less_may_have_lost_its_store_and_several_were_set_back() {
        let said = |nodes: &[u8], other| {
            let nodes = nodes.iter().map(|node| NodeIndex::new(*node).unwrap()).collect();
            let seen = Seen { seq: 7, hash: Hash::ZERO, at: UnixMillis(0) };
            SetBack { ceremony: "dkg-w-1".parse().unwrap(), seen, nodes, other }.to_string()
        };
        assert!(
            said(&[4], false)
                .ends_with("it lost its store and reads the record again, or somebody rolled its store back")
        );
        for (nodes, other) in [(&[4][..], true), (&[1, 2], false), (&[], false)] {
            assert!(said(nodes, other).ends_with("; somebody rolled stores back"), "{nodes:?} {other}");
        }
    }
}
