//! Which ceremonies there are, as nodes report them: none of it is folded, and differences are shown.

use std::collections::{BTreeMap, BTreeSet};

use ceremonies::deploy::subject;
use ceremonies::ids::{CeremonyId, Hash, NodeIndex, UnixMillis};
use ceremonies::listing::{Line, Wanted};
use ceremonies::record::{HOSTILE, Tip, quorum};
use ceremonies::text::one_line;
use ceremonies::wire::{VERSION, bus};
use prost::Message;

use super::answer;
use super::failover;
use super::trouble::{Trouble, Troubles, named, those};
use super::voices::Voices;
use super::{Bus, ClientError, Nodes, PACE, malformed};
use crate::fork::is_settling;

/// Most ceremonies that are listed by one node: what the stream holds, with room.
const MAX_LISTED: usize = 40_000;

/// A ceremony as one node has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Its last entry.
    pub tip: Tip,
    /// Which kind, in the node's word.
    pub kind: String,
    /// The wallet it is about.
    pub wallet: String,
    /// Which generation.
    pub generation: u32,
    /// Where it stood at its last entry.
    pub phase: String,
    /// When it was opened.
    pub opened: UnixMillis,
    /// When its last entry was appended.
    pub last: UnixMillis,
}

/// One node's answer, with whether it is a stranger's.
type Page = (Vec<(CeremonyId, Summary)>, usize, bool);

/// A ceremony as all the nodes that were heard have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Which.
    pub id: CeremonyId,
    /// Each node's word.
    pub said: BTreeMap<NodeIndex, Summary>,
}

impl Row {
    /// The nodes at each end of the log.
    #[must_use]
    pub fn heads(&self) -> BTreeMap<Tip, Vec<NodeIndex>> {
        let mut heads: BTreeMap<Tip, Vec<NodeIndex>> = BTreeMap::new();
        for (node, summary) in &self.said {
            heads.entry(summary.tip).or_default().push(*node);
        }
        heads
    }

    /// The end that most nodes name (the latest, if several tie), and who names it.
    #[must_use]
    pub fn head(&self) -> Option<(Tip, Vec<NodeIndex>)> {
        self.heads().into_iter().max_by_key(|(tip, nodes)| (nodes.len(), tip.seq))
    }

    /// What most nodes say of the end that most of them name.
    #[must_use]
    pub fn summary(&self) -> Option<&Summary> {
        let (tip, _) = self.head()?;
        let same = |one: &Summary| self.said.values().filter(|other| *other == one).count();
        self.said.values().filter(|summary| summary.tip == tip).max_by_key(|summary| same(summary))
    }

    /// Whether nodes that name the same end tell different things of it: one of them lies.
    fn is_contradicted(&self) -> bool {
        let summary = self.summary();
        self.said.values().any(|other| summary.is_some_and(|one| one.tip == other.tip && one != other))
    }

    /// Whether any node's report of it matches.
    #[must_use]
    pub fn is_wanted(&self, wanted: &Wanted) -> bool {
        self.said.values().any(|summary| {
            wanted.takes(Line {
                ceremony: self.id.as_str(),
                wallet: &summary.wallet,
                kind: &summary.kind,
                phase: &summary.phase,
                opened: summary.opened,
            })
        })
    }

    /// Whether nodes name two ends because two entries were appended at once, between which they are about to settle: the
    /// earlier of the two is of now.
    fn is_settling(&self, now: UnixMillis) -> bool {
        let ends = self.heads();
        let has_rival = |tip: Tip| ends.keys().any(|end| end.seq == tip.seq && *end != tip);
        let rivals = self.said.values().filter(|summary| has_rival(summary.tip));
        rivals.map(|summary| summary.last).min().is_some_and(|first| is_settling(first, now))
    }

    /// How far nodes agree at this moment, out of this many that were heard: in words.
    #[must_use]
    pub fn agreement(&self, nodes: usize, now: UnixMillis) -> String {
        let heads = self.heads();
        if heads.len() > 1 {
            let each = heads.iter().rev().map(|(tip, nodes)| format!("entry {} ({})", tip.seq, named(nodes)));
            // Nodes at different places may be on one log, and some behind. Two ends at one place are two logs.
            let places: BTreeSet<u64> = heads.keys().map(|tip| tip.seq).collect();
            let what = if places.len() == heads.len() {
                "nodes are at different entries"
            } else if self.is_settling(now) {
                "two entries at once, nodes are settling which comes first"
            } else {
                "NODES DIFFER"
            };
            return format!("{what}: {}", each.collect::<Vec<_>>().join(", "));
        }
        if self.is_contradicted() {
            let each = self.said.iter().map(|(node, summary)| format!("node {node} says {}", summary.phase));
            return format!("NODES DIFFER: {}", each.collect::<Vec<_>>().join(", "));
        }
        let by: Vec<NodeIndex> = self.said.keys().copied().collect();
        if by.len() <= HOSTILE && nodes > by.len() {
            return format!("only {}", those(&by, "knows it"));
        }
        format!("listed by {} of {nodes}", by.len())
    }
}

/// The ceremonies that nodes list.
#[derive(Debug, Default)]
pub struct Catalogue {
    /// Latest first.
    pub rows: Vec<Row>,
    /// How many more there are than were asked for, by the node that knows of the most.
    pub left: usize,
    /// The nodes that were heard.
    pub heard: BTreeSet<NodeIndex>,
    /// What became of the others.
    pub troubles: Troubles,
}

impl Catalogue {
    /// Whether more nodes list a ceremony than may be hostile; nobody can tell where no more are heard.
    #[must_use]
    pub fn is_vouched(&self, id: &CeremonyId) -> bool {
        self.heard.len() <= HOSTILE || self.row(id).is_some_and(|row| row.said.len() > HOSTILE)
    }

    /// Whether no quorum of this many nodes can have recorded a ceremony: one is heard, and no more list it than may be
    /// hostile.
    #[must_use]
    pub fn is_lone(&self, id: &CeremonyId, nodes: usize) -> bool {
        self.heard.len() >= quorum(nodes) && !self.is_vouched(id)
    }

    /// Merges the lists of several nodes.
    #[must_use]
    pub fn merged(lists: BTreeMap<NodeIndex, Vec<(CeremonyId, Summary)>>, troubles: Troubles) -> Self {
        let heard = lists.keys().copied().collect();
        let mut rows: BTreeMap<CeremonyId, Row> = BTreeMap::new();
        for (node, list) in lists {
            for (id, summary) in list {
                let row = rows.entry(id.clone()).or_insert_with(|| Row { id, said: BTreeMap::new() });
                row.said.insert(node, summary);
            }
        }
        let mut rows: Vec<Row> = rows.into_values().collect();
        // By what most nodes say, and last what only one of several lists: no one node decides the order.
        let several = rows.iter().any(|row| row.said.len() > HOSTILE);
        rows.sort_by_cached_key(|row| {
            let opened = row.summary().map(|summary| summary.opened);
            (several && row.said.len() <= HOSTILE, std::cmp::Reverse(opened), row.id.clone())
        });
        Self { rows, left: 0, heard, troubles }
    }

    /// Adds what another list has besides.
    pub fn extend(&mut self, other: Self) {
        let known: BTreeSet<CeremonyId> = self.rows.iter().map(|row| row.id.clone()).collect();
        self.rows.extend(other.rows.into_iter().filter(|row| !known.contains(&row.id)));
    }

    /// A ceremony's row.
    #[must_use]
    pub fn row(&self, id: &CeremonyId) -> Option<&Row> {
        self.rows.iter().find(|row| row.id == *id)
    }
}

fn summary(raw: bus::Summary) -> Result<(CeremonyId, Summary), Trouble> {
    let id: CeremonyId = raw.ceremony.try_into().map_err(malformed)?;
    let hash: Hash = raw.last_hash.as_slice().try_into().map_err(malformed)?;
    let summary = Summary {
        tip: Tip { seq: raw.last_seq, hash },
        kind: one_line(&raw.kind),
        wallet: one_line(&raw.wallet),
        generation: raw.generation,
        phase: one_line(&raw.phase),
        opened: UnixMillis(raw.opened_ms),
        last: UnixMillis(raw.last_ms),
    };
    Ok((id, summary))
}

impl<B: Bus> Nodes<B> {
    /// One node's list, page by page. Lists from strangers are kept apart.
    async fn list_of(&self, voices: &Voices, node: NodeIndex, wanted: &[Wanted]) -> Result<Page, Trouble> {
        let wanted: Vec<bus::Wanted> = wanted.iter().map(Wanted::to_wire).collect();
        let subject = subject::list(node);
        let mut list: Vec<(CeremonyId, Summary)> = Vec::new();
        let mut seen: BTreeSet<CeremonyId> = BTreeSet::new();
        let (mut after, mut strange) = (String::new(), false);
        loop {
            let request = bus::List {
                version: VERSION,
                nonce: answer::nonce(),
                after: after.clone(),
                wanted: wanted.clone(),
            };
            let request = request.encode_to_vec();
            let bytes = self.ask(subject.clone(), request.clone()).await?;
            let page = answer::read::<bus::ListReply>(voices, node, (&subject, &request), &bytes)?;
            strange |= page.unverified.is_some();
            let before = list.len();
            for raw in page.body.summaries {
                let (id, summary) = summary(raw)?;
                after = id.to_string();
                if seen.insert(id.clone()) {
                    list.push((id, summary));
                }
                if list.len() > MAX_LISTED {
                    return Err(Trouble::Overfull("a list of ceremonies"));
                }
            }
            // After a page that brings nothing new, others could follow without end.
            if !page.body.more || list.len() == before {
                let left = usize::try_from(page.body.left).unwrap_or(usize::MAX);
                return Ok((list, left, strange));
            }
        }
    }

    /// The ceremonies that the nodes list and that match any of these wishes; without wishes, all. If no node of the
    /// charter is heard, what others list is returned with no node to vouch for it: those logs must prove themselves.
    ///
    /// # Errors
    /// [`ClientError`] if no node gave a list.
    pub async fn catalogue(&self, wanted: &[Wanted]) -> Result<Catalogue, ClientError> {
        let voices = self.voices(None);
        let list = |node| self.list_of(&voices, node, wanted);
        let everyone = failover::everyone(&voices.nodes(), &self.quiet(), PACE, list).await;
        self.remember_quiet(&everyone.troubles);
        let mut troubles = everyone.troubles;
        let (mut listed, mut strange) = (BTreeMap::new(), BTreeMap::new());
        let mut most_left = 0;
        for (node, (list, left, is_strange)) in everyone.answers {
            most_left = left.max(most_left);
            if is_strange {
                strange.insert(node, list);
            } else {
                self.heard(node);
                listed.insert(node, list);
            }
        }
        if listed.is_empty() && strange.is_empty() {
            return Err(ClientError::nodes(troubles));
        }
        let nobody = listed.is_empty();
        let mut catalogue = if nobody {
            Catalogue::merged(strange, Troubles::default())
        } else {
            for node in strange.keys() {
                troubles.add(*node, Trouble::Refused("it signs with a key that no charter lists".to_owned()));
            }
            Catalogue::merged(listed, troubles)
        };
        if nobody {
            catalogue.heard.clear();
        }
        catalogue.left = most_left;
        Ok(catalogue)
    }
}
