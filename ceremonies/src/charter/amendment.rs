//! What differs between two charters, article by article, and which of it an amendment may change.
//!
//! People read these changes before they sign. No part of a charter may be left out of its articles.

use std::collections::BTreeMap;
use std::fmt;

use ssh_key::HashAlg;

use super::{CeremonyKind, Charter, CharterDraft, CharterError};
use crate::attestation::{Measurement, Pcr};
use crate::ids::{NodeIndex, PersonName, UnixMillis};
use crate::text::shortened;

/// Largest amended charter, in bytes: it has to fit into an entry of the log.
const MAX_AMENDED: usize = 40 * 1024;
/// What is shown of a value where a line is all there is, in characters.
const MAX_SHOWN: usize = 200;

/// What a part of a charter is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Article {
    /// The cluster's id.
    Cluster,
    /// What the cluster is for.
    Kind,
    /// How many shares sign.
    Threshold,
    /// The broker's administrator.
    SystemKey,
    /// The root that attestation documents chain to.
    Root,
    /// The key that wraps the shares' data keys.
    Kms,
    /// A node.
    Node(NodeIndex),
    /// That a node takes part in nothing.
    Exclusion(NodeIndex),
    /// A console's credential.
    Console(PersonName),
    /// How old an attestation document may be.
    MaxAge,
    /// An image, by its registers.
    Image([Option<Pcr>; 4]),
    /// Who must approve a kind of ceremony.
    Quorum(CeremonyKind),
    /// A person.
    Person(PersonName),
    /// How long backups are locked, and how often shares are refreshed.
    Backups,
    /// Who keeps which nodes' backups.
    Custodian(PersonName),
    /// The escrow trustee.
    Escrow,
}

impl Change {
    /// Shares and their seals rest on the other articles as the cluster was founded with them. A node or console can be
    /// given another key, but none can be added or removed.
    fn is_allowed(&self) -> bool {
        if let Article::Node(_) | Article::Console(_) = &self.article {
            self.before.is_some() && self.after.is_some()
        } else {
            self.article.may_change()
        }
    }
}

impl Article {
    fn may_change(&self) -> bool {
        match self {
            Self::MaxAge
            | Self::Image(_)
            | Self::Quorum(_)
            | Self::Person(_)
            | Self::SystemKey
            | Self::Exclusion(_)
            | Self::Backups
            | Self::Custodian(_)
            | Self::Escrow => true,
            Self::Cluster
            | Self::Kind
            | Self::Threshold
            | Self::Root
            | Self::Kms
            | Self::Node(_)
            | Self::Console(_) => false,
        }
    }
}

/// Shortened in the alternate form, where a line is all there is.
impl fmt::Display for Article {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster => f.write_str("cluster"),
            Self::Kind => f.write_str("kind"),
            Self::Threshold => f.write_str("threshold"),
            Self::SystemKey => f.write_str("system_nkey"),
            Self::Root => f.write_str("attestation root"),
            Self::Kms => f.write_str("KMS key"),
            Self::Node(index) => write!(f, "node {index}"),
            Self::Exclusion(index) => write!(f, "exclusion of node {index}"),
            Self::Console(name) => write!(f, "console {name}"),
            Self::MaxAge => f.write_str("age of attestations"),
            Self::Image(pcrs) => {
                f.write_str("image")?;
                let named = [0, 1, 2, 8].into_iter().zip(pcrs);
                named.filter_map(|(index, pcr)| Some((index, (*pcr)?.to_string()))).try_for_each(
                    |(index, pcr)| {
                        if f.alternate() { write!(f, " {pcr:.8}…") } else { write!(f, " PCR{index} {pcr}") }
                    },
                )
            }
            Self::Quorum(kind) => write!(f, "quorum of a {kind}"),
            Self::Person(name) => write!(f, "person {name}"),
            Self::Backups => f.write_str("backups"),
            Self::Custodian(name) => write!(f, "backups kept by {name}"),
            Self::Escrow => f.write_str("escrow trustee"),
        }
    }
}

/// One article that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which.
    pub article: Article,
    /// What it says in the charter before; none where it is not there.
    pub before: Option<String>,
    /// What it says in the charter after.
    pub after: Option<String>,
}

/// Shortened in the alternate form.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match (&self.before, &self.after) {
            (None, _) => '+',
            (Some(_), None) => '-',
            (Some(_), Some(_)) => '~',
        };
        write!(f, "{mark} ")?;
        fmt::Display::fmt(&self.article, f)?;
        let said = |value: &str| shortened(value, if f.alternate() { MAX_SHOWN } else { usize::MAX });
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => write!(f, ": {}, was {}", said(after), said(before)),
            (Some(only), None) | (None, Some(only)) => write!(f, ": {}", said(only)),
            (None, None) => Ok(()),
        }
    }
}

fn list<T: fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

/// Everything that a charter says, except which charter it amends.
fn articles(charter: &CharterDraft) -> BTreeMap<Article, String> {
    let CharterDraft {
        version: _,
        amends: _,
        cluster,
        kind,
        threshold,
        system_nkey,
        attestation,
        kms,
        backup,
        quorum,
        nodes,
        people,
        consoles,
    } = charter;
    let mut articles = BTreeMap::from([
        (Article::Cluster, cluster.to_string()),
        (Article::Kind, kind.to_string()),
        (Article::Threshold, threshold.to_string()),
        (Article::SystemKey, system_nkey.clone()),
        (Article::Root, attestation.root_sha256.to_string()),
        (Article::Kms, format!("{} in {} at {}", kms.key, kms.region, kms.host)),
        (Article::MaxAge, format!("{} s", attestation.max_age_s)),
    ]);
    articles.extend(attestation.measurements.iter().map(|image| {
        let allowed =
            image.until.map_or_else(|| "allowed".to_owned(), |until| format!("allowed until {until}"));
        (Article::Image([Some(image.pcr0), Some(image.pcr1), Some(image.pcr2), image.pcr8]), allowed)
    }));
    articles.extend(quorum.iter().map(|(kind, quorum)| {
        (Article::Quorum(*kind), list(quorum.iter().map(|(role, count)| format!("{count} {role}"))))
    }));
    articles.extend(
        nodes.iter().map(|node| (Article::Node(node.index), format!("{}, NKey {}", node.zone, node.nkey))),
    );
    articles.extend(
        nodes
            .iter()
            .filter(|node| node.excluded)
            .map(|node| (Article::Exclusion(node.index), "takes part in nothing".to_owned())),
    );
    articles.extend(people.iter().map(|person| {
        let keys = list(person.keys.iter().map(|key| key.fingerprint(HashAlg::Sha256)));
        let verified = if person.verified { ", verified by the key" } else { "" };
        (Article::Person(person.name.clone()), format!("{}; {keys}{verified}", list(&person.roles)))
    }));
    if let Some(backup) = backup {
        let days = format!("locked {} days, refreshed every {}", backup.lock_days, backup.refresh_days);
        articles.insert(Article::Backups, days);
        articles.insert(Article::Escrow, format!("{}, {}", backup.escrow.person, backup.escrow.recipient));
        articles.extend(backup.custodians.iter().map(|custodian| {
            let kept = format!("nodes {}, {}", list(&custodian.nodes), custodian.recipient);
            (Article::Custodian(custodian.person.clone()), kept)
        }));
    }
    articles.extend(
        consoles
            .iter()
            .map(|console| (Article::Console(console.name.clone()), format!("NKey {}", console.nkey))),
    );
    articles
}

impl Charter {
    /// Every article in which `next` differs from this charter, in order.
    #[must_use]
    pub fn changes(&self, next: &Self) -> Vec<Change> {
        let (mut before, mut after) = (articles(&self.file), articles(&next.file));
        let mut all: Vec<Article> = before.keys().chain(after.keys()).cloned().collect();
        all.sort();
        all.dedup();
        let change = |article: Article| Change {
            before: before.remove(&article),
            after: after.remove(&article),
            article,
        };
        all.into_iter().map(change).filter(|change| change.before != change.after).collect()
    }

    /// The charter that follows this one when `image` is allowed too, as it says; the others are refused from
    /// `others_until` on, where that is given, or earlier where this charter says so.
    ///
    /// # Errors
    /// As [`Charter::parse`] and [`Self::check_amendment`].
    pub fn allowing(
        &self,
        image: &Measurement,
        others_until: Option<UnixMillis>,
    ) -> Result<Self, CharterError> {
        let mut draft = self.draft();
        let images = &mut draft.attestation.measurements;
        images.retain(|known| !known.is_same_image(image));
        for known in &mut *images {
            known.until = [known.until, others_until].into_iter().flatten().min();
        }
        images.push(*image);
        self.followed_by(draft)
    }

    /// The charter that follows this one when it says what this draft does.
    pub(super) fn followed_by(&self, draft: CharterDraft) -> Result<Self, CharterError> {
        let draft = CharterDraft { amends: Some(self.hash()), ..draft };
        let text = draft.to_toml().map_err(|error| CharterError::Rule(error.to_string()))?;
        let next = Self::parse(text.as_bytes())?;
        self.check_amendment(&next)?;
        Ok(next)
    }

    /// Checks that `next` may follow this charter.
    ///
    /// # Errors
    /// [`CharterError::Rule`] says what stands against it.
    pub fn check_amendment(&self, next: &Self) -> Result<(), CharterError> {
        let refuse = |text: String| Err(CharterError::Rule(text));
        if next.amends() != Some(self.hash()) {
            return refuse(format!(
                "the new charter does not amend the one in force: it must contain amends = \"{}\"",
                self.hash()
            ));
        }
        if next.text().len() > MAX_AMENDED {
            return refuse(format!(
                "the new charter has {} bytes; at most {MAX_AMENDED} fit into the log",
                next.text().len()
            ));
        }
        let changes = self.changes(next);
        match changes.iter().find(|change| !change.is_allowed()) {
            Some(change) => refuse(format!(
                "an amendment can change images, people, quorums, backups, the keys of nodes and consoles, which nodes \
                 are excluded, and the age of attestations, but not this: {change:#}"
            )),
            None if changes.is_empty() => refuse("the new charter changes nothing".to_owned()),
            None => self.check_exclusion_changes(next),
        }
    }
}
