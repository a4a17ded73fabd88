//! Which ceremonies made the generations of a wallet, one after the other, and which bans hold on one of them.
//!
//! A chain may end early: an enclave is shown no more of it than an order needs. A link counts only if its manifest is
//! the one that the next manifest vouches for, so that nobody can put another in its place; where the chain ends,
//! nothing earlier can lift a ban.

use std::collections::BTreeSet;

use super::{Book, Chapter};
use crate::ids::{CeremonyId, NodeIndex, UnixMillis};
use crate::manifest::{Manifest, Origin};

/// Reporter and peer.
pub(super) type Ban = (NodeIndex, NodeIndex);

/// The manifests from the oldest known generation to one ceremony.
pub(super) struct Lineage<'a>(Vec<&'a Manifest>);

impl Lineage<'_> {
    /// The newest ceremony, by its place, that was opened after this moment and gave one of the pair a new share: it ends a
    /// ban from a ceremony that was opened at that moment.
    pub(super) fn end(&self, opened: UnixMillis, (by, banned): Ban) -> Option<usize> {
        self.0.iter().rposition(|made| {
            made.opened > opened && (made.lost().contains_key(&by) || made.lost().contains_key(&banned))
        })
    }
}

impl Book {
    /// The ceremony that made the generation which a manifest names. The digest of the record binds the manifest under
    /// which it was made.
    pub(super) fn maker(&self, origin: &Origin) -> Option<&Chapter> {
        let chapter = self.get(&origin.ceremony)?;
        let made = chapter.ceremony.manifest().kind.makes_shares();
        let record = chapter.ceremony.record().filter(|_| made)?;
        (record.digest() == origin.record).then_some(chapter)
    }

    /// The ceremonies that made the generations before this manifest's, the latest first.
    pub(super) fn makers_back_from(&self, manifest: &Manifest) -> impl Iterator<Item = &Chapter> {
        let maker = |manifest: &Manifest| self.maker(manifest.origin.as_ref()?);
        std::iter::successors(maker(manifest), move |chapter| maker(chapter.ceremony.manifest()))
    }

    /// The same, the oldest first.
    pub(super) fn makers_before(&self, manifest: &Manifest) -> Vec<&Chapter> {
        let mut chain: Vec<&Chapter> = self.makers_back_from(manifest).collect();
        chain.reverse();
        chain
    }

    /// The ceremonies that a ceremony's wallet rests on: from the key generation to the one that made the generation it
    /// works on.
    #[must_use]
    pub fn origins(&self, id: &CeremonyId) -> Vec<&Chapter> {
        self.get(id).map(|chapter| self.makers_before(chapter.ceremony.manifest())).unwrap_or_default()
    }

    pub(super) fn lineage<'a>(&'a self, manifest: &'a Manifest) -> Lineage<'a> {
        let before = self.makers_before(manifest).into_iter().map(|chapter| chapter.ceremony.manifest());
        Lineage(before.chain([manifest]).collect())
    }

    /// All bans that any ceremony has recorded: reporter and peer.
    pub fn bans(&self) -> impl Iterator<Item = Ban> + '_ {
        self.chapters.values().flat_map(|chapter| chapter.ceremony.bans().iter().copied())
    }

    /// The ceremonies in which a node was banned, each ban with the moment of the ceremony's opening.
    pub(super) fn banning(&self) -> impl Iterator<Item = (&Chapter, UnixMillis, Ban)> {
        self.chapters.values().flat_map(|chapter| {
            let opened = chapter.ceremony.manifest().opened;
            chapter.ceremony.bans().iter().map(move |ban| (chapter, opened, *ban))
        })
    }

    /// The bans that hold in a ceremony of this manifest. A ban ends with the shares that it was about: it does not
    /// hold in a later recovery that gives either node's share to a newly attested enclave, nor on the generations that
    /// rest on that recovery. On the generation before, it holds for ever, whatever becomes of the recovery.
    #[must_use]
    pub fn bans_in(&self, manifest: &Manifest) -> BTreeSet<Ban> {
        let lineage = self.lineage(manifest);
        let hold = self.banning().filter(|(_, opened, ban)| lineage.end(*opened, *ban).is_none());
        hold.map(|(_, _, ban)| ban).collect()
    }
}
