//! The rules that a charter must keep. None may be left out because some other part of the program checks it too.

use std::collections::{BTreeMap, BTreeSet};

use bech32::primitives::decode::CheckedHrpstring;
use curve25519_dalek::MontgomeryPoint;

use super::{
    CeremonyKind, CharterDraft, CharterError, ClusterKind, MAX_ATTESTATION_AGE_S, MAX_LOCK_DAYS, MAX_NODES,
    Person, Quorum, Role,
};
use crate::attestation::{AWS_NITRO_G1_FINGERPRINT, Measurement, Pcr};
use crate::text::{Flaw, unseen};

/// What the text of an age recipient begins with.
const AGE: bech32::Hrp = bech32::Hrp::parse_unchecked("age");

fn rule(broken: bool, text: impl FnOnce() -> String) -> Result<(), CharterError> {
    if broken { Err(CharterError::Rule(text())) } else { Ok(()) }
}

/// The value that occurs a second time, if one does.
fn repeated<T: Ord>(values: impl IntoIterator<Item = T>) -> Option<T> {
    let mut seen = BTreeSet::new();
    values.into_iter().find_map(|value| seen.replace(value))
}

/// Nitro reports zero registers for an enclave started in debug mode, whose memory its host can read.
fn is_debug(measurement: &Measurement) -> bool {
    [measurement.pcr0, measurement.pcr1, measurement.pcr2].iter().any(Pcr::is_zero)
}

/// An X25519 recipient as age writes it: 32 bytes in Bech32 (age-encryption.org/v1), and no others, since age encrypts
/// to no others. Nor does it encrypt to a point of low order, with which anyone could read along.
fn is_recipient(text: &str) -> bool {
    let decoded = CheckedHrpstring::new::<bech32::Bech32>(text).ok();
    let key = decoded.and_then(|key| <[u8; 32]>::try_from(key.byte_iter().collect::<Vec<u8>>()).ok());
    let is_written =
        |key: &[u8; 32]| bech32::encode::<bech32::Bech32>(AGE, key).is_ok_and(|written| written == text);
    key.filter(is_written)
        .is_some_and(|key| MontgomeryPoint(key).mul_clamped([1; 32]) != MontgomeryPoint([0; 32]))
}

fn check_nkey(whose: &str, nkey: &str) -> Result<(), CharterError> {
    let user = nkey.starts_with('U') && nkeys::KeyPair::from_public_key(nkey).is_ok();
    rule(!user, || format!("{whose}: nkey `{nkey}` is not a NATS user public key (it starts with U)"))
}

/// The file as people read it, its comments too: no character in it may command their terminal, or hide.
pub(super) fn check_file(text: &str) -> Result<(), CharterError> {
    for (number, line) in (1..).zip(text.lines()) {
        for c in line.chars().filter(|c| *c != '\t') {
            let found = unseen(c.encode_utf8(&mut [0; 4])).map(|(_, _, flaw)| flaw);
            if let Some(flaw @ (Flaw::Control | Flaw::Invisible)) = found {
                let code = u32::from(c);
                return Err(CharterError::Rule(format!(
                    "line {number} contains U+{code:04X}, {flaw}: leave it out"
                )));
            }
        }
    }
    Ok(())
}

/// A field that programs use: letters, digits and signs that are the same on every keyboard.
fn check_plain(field: &str, value: &str) -> Result<(), CharterError> {
    let odd = value.chars().find(|c| !c.is_ascii_graphic());
    odd.map_or(Ok(()), |c| {
        let code = u32::from(c);
        Err(CharterError::Rule(format!(
            "{field} contains U+{code:04X}: write it in plain ASCII, without spaces"
        )))
    })
}

impl CharterDraft {
    pub(super) fn check(&self) -> Result<(), CharterError> {
        if self.version != 1 {
            return Err(CharterError::Version(self.version));
        }
        self.check_nodes()?;
        self.check_exclusions()?;
        self.check_attestation()?;
        self.check_people()?;
        self.check_nkeys()?;
        self.check_backup()?;
        for kind in CeremonyKind::ALL {
            self.check_quorum(kind)?;
        }
        rule(self.kms.key.is_empty() || self.kms.region.is_empty() || self.kms.host.is_empty(), || {
            "kms: key, region and host must all be given".to_owned()
        })?;
        self.check_text()
    }

    /// Checks values that a file can write with escapes, so that they do not show in its text.
    fn check_text(&self) -> Result<(), CharterError> {
        for (field, value) in
            [("kms.key", &self.kms.key), ("kms.region", &self.kms.region), ("kms.host", &self.kms.host)]
        {
            check_plain(field, value)?;
        }
        for (person, key) in
            self.people.iter().flat_map(|person| person.keys.iter().map(move |key| (person, key)))
        {
            if let Some((_, c, flaw)) = unseen(key.comment()) {
                let code = u32::from(c);
                return Err(CharterError::Rule(format!(
                    "{}: the comment of a key contains U+{code:04X}, {flaw}: leave it out",
                    person.name
                )));
            }
        }
        Ok(())
    }

    fn check_nodes(&self) -> Result<(), CharterError> {
        let n = self.nodes.len();
        rule(n > MAX_NODES, || format!("{n} nodes; at most {MAX_NODES} are supported"))?;
        rule(self.threshold < 2 || usize::from(self.threshold) > n, || {
            format!(
                "threshold is {} with {n} nodes; it must be at least 2 and at most the number of nodes",
                self.threshold
            )
        })?;
        for (position, node) in (1..).zip(&self.nodes) {
            rule(u32::from(node.index) != position, || {
                format!(
                    "node {} is listed where node {position} belongs: list nodes 1 to n in order",
                    node.index
                )
            })?;
        }
        Ok(())
    }

    fn check_attestation(&self) -> Result<(), CharterError> {
        let rules = &self.attestation;
        let aws = rules.root_sha256.to_string() == AWS_NITRO_G1_FINGERPRINT;
        match self.kind {
            ClusterKind::Production | ClusterKind::Rehearsal => rule(!aws, || {
                format!(
                    "attestation.root_sha256 is {}; a {} cluster accepts only the AWS Nitro root {}",
                    rules.root_sha256, self.kind, AWS_NITRO_G1_FINGERPRINT
                )
            })?,
            ClusterKind::Lab => rule(aws, || {
                "attestation.root_sha256 is the AWS Nitro root; a lab cluster has a root of its own"
                    .to_owned()
            })?,
        }
        rule(rules.max_age_s == 0 || rules.max_age_s > MAX_ATTESTATION_AGE_S, || {
            format!("attestation.max_age_s is {}; it must be 1 to {MAX_ATTESTATION_AGE_S}", rules.max_age_s)
        })?;
        rule(rules.measurements.is_empty(), || {
            "attestation.measurements is empty: no enclave could ever attest".to_owned()
        })?;
        let images = rules.measurements.iter().map(|image| Measurement { until: None, ..*image });
        rule(repeated(images).is_some(), || "attestation.measurements lists an image twice".to_owned())?;
        rule(rules.measurements.iter().any(is_debug), || {
            "attestation.measurements has PCRs of zeros, which an enclave shows in debug mode".to_owned()
        })
    }

    fn check_people(&self) -> Result<(), CharterError> {
        if let Some(name) = repeated(self.people.iter().map(|person| &person.name)) {
            return Err(CharterError::Rule(format!("two people are called `{name}`")));
        }
        for person in &self.people {
            rule(person.keys.is_empty() || person.roles.is_empty(), || {
                format!("{}: give at least one role and one key", person.name)
            })?;
            for key in &person.keys {
                let kind = key.algorithm();
                let hardware =
                    matches!(kind, ssh_key::Algorithm::SkEd25519 | ssh_key::Algorithm::SkEcdsaSha2NistP256);
                rule(!hardware && kind != ssh_key::Algorithm::Ed25519, || {
                    format!("{}: key kind {kind} is not accepted; use ssh-ed25519 or an sk- key", person.name)
                })?;
                rule(person.verified && !hardware, || {
                    format!("{}: `verified` requires hardware keys, but one is {kind}", person.name)
                })?;
            }
        }
        let keys = self.people.iter().flat_map(|person| &person.keys);
        if let Some(key) = repeated(keys.map(|key| key.fingerprint(ssh_key::HashAlg::Sha256).to_string())) {
            return Err(CharterError::Rule(format!("key {key} belongs to two people, or is listed twice")));
        }
        Ok(())
    }

    fn check_backup(&self) -> Result<(), CharterError> {
        let Some(backup) = &self.backup else { return Ok(()) };
        let keepers = backup.custodians.iter().map(|custodian| (&custodian.person, &custodian.recipient));
        for (person, recipient) in keepers.chain([(&backup.escrow.person, &backup.escrow.recipient)]) {
            let is_custodian =
                |known: &&Person| known.name == *person && known.roles.contains(&Role::Custodian);
            rule(self.people.iter().find(is_custodian).is_none(), || {
                format!("backup: this charter lists no {person} in the role of custodian")
            })?;
            rule(!is_recipient(recipient), || {
                format!(
                    "backup: `{recipient}` of {person} is not an age X25519 recipient (age1…, from age-keygen)"
                )
            })?;
        }
        // Articles are identified by person, and the limit on nodes applies to a person.
        if let Some(person) = repeated(backup.custodians.iter().map(|custodian| &custodian.person)) {
            return Err(CharterError::Rule(format!(
                "backup: {person} is listed as custodian twice; list each custodian once, with all of their nodes"
            )));
        }
        for node in &self.nodes {
            let keep = backup.custodians.iter().filter(|custodian| custodian.nodes.contains(&node.index));
            rule(keep.count() != 1, || format!("backup: node {} needs exactly one custodian", node.index))?;
        }
        for custodian in &backup.custodians {
            rule(custodian.nodes.len() >= usize::from(self.threshold), || {
                format!(
                    "backup: {} keeps the backups of {} nodes, which reaches the threshold; split them between \
                     custodians",
                    custodian.person,
                    custodian.nodes.len()
                )
            })?;
        }
        let keys = backup.custodians.iter().map(|custodian| &custodian.recipient);
        rule(repeated(keys.chain([&backup.escrow.recipient])).is_some(), || {
            "backup: two keepers have the same recipient".to_owned()
        })?;
        let days = backup.refresh_days == 0 || backup.lock_days > MAX_LOCK_DAYS;
        rule(days || backup.lock_days < backup.refresh_days, || {
            format!(
                "backup: locked for {} days with a refresh every {}: a backup must stay locked until the next refresh, \
                 and for at most {MAX_LOCK_DAYS} days",
                backup.lock_days, backup.refresh_days
            )
        })
    }

    fn check_nkeys(&self) -> Result<(), CharterError> {
        for node in &self.nodes {
            check_nkey(&format!("node {}", node.index), &node.nkey)?;
        }
        for console in &self.consoles {
            check_nkey(&format!("console {}", console.name), &console.nkey)?;
        }
        check_nkey("system_nkey", &self.system_nkey)?;
        let all = self.nodes.iter().map(|node| &node.nkey);
        let all = all.chain(self.consoles.iter().map(|console| &console.nkey)).chain([&self.system_nkey]);
        match repeated(all) {
            Some(nkey) => Err(CharterError::Rule(format!("nkey {nkey} is given twice"))),
            None => Ok(()),
        }
    }

    /// A quorum must be possible with one role per person, and must need more than one person.
    fn check_quorum(&self, kind: CeremonyKind) -> Result<(), CharterError> {
        let Some(quorum) = self.quorum.get(&kind) else {
            // Nobody may hold a ceremony of a kind without a quorum: such a charter could never be changed.
            return rule(kind.rules().special.is_indispensable, || format!("quorum.{kind} is missing"));
        };
        let count = |role| quorum.get(&role).copied().unwrap_or(0);
        let full = [
            (Role::Administrator, 1),
            (Role::Operator, u32::from(self.threshold)),
            (Role::Witness, 1),
            (Role::Auditor, 1),
        ];
        let needed: &[(Role, u32)] = if kind.rules().special.needs_a_full_quorum { &full } else { &[] };
        for (role, least) in needed.iter().copied() {
            rule(count(role) < least, || {
                format!("quorum.{kind} asks for {} × {role}; at least {least} must approve", count(role))
            })?;
        }
        let (all, watching) = (
            quorum.values().copied().fold(0, u32::saturating_add),
            [Role::Witness, Role::Auditor].map(count),
        );
        rule(all < 2 || watching == [0, 0], || {
            format!("quorum.{kind} must ask for at least two people, one of them a witness or an auditor")
        })?;
        rule(count(Role::Administrator) > 1, || {
            format!("quorum.{kind} asks for several administrators; a ceremony has one")
        })?;
        let highest = |kind: CeremonyKind| Some((kind, kind.rules().special.has_the_highest_quorum?));
        for (highest, why) in CeremonyKind::ALL.into_iter().filter_map(highest) {
            let Some(most) = self.quorum.get(&highest) else { continue };
            let is_higher = |role: &&Role| most.get(role).copied().unwrap_or(0) < count(**role);
            if let Some(role) = Role::ALL.iter().find(is_higher) {
                return Err(CharterError::Rule(format!(
                    "quorum.{kind} asks for more {role}s than quorum.{highest}, {why}"
                )));
            }
        }
        match self.unfillable(quorum) {
            Some(role) => Err(CharterError::Rule(format!(
                "quorum.{kind} cannot be met: not enough people can act as {role} when each fills one role"
            ))),
            None => Ok(()),
        }
    }

    /// A role that stays short when every person fills one role, by augmenting paths (bipartite matching
    /// of seats to people).
    fn unfillable(&self, quorum: &Quorum) -> Option<Role> {
        let seats: Vec<Role> = quorum
            .iter()
            .flat_map(|(role, count)| std::iter::repeat_n(*role, (*count).min(1000) as usize))
            .collect();
        let mut seat_of: BTreeMap<usize, usize> = BTreeMap::new();
        (0..seats.len())
            .find(|seat| !self.seat(&seats, *seat, &mut seat_of, &mut BTreeSet::new()))
            .map(|seat| seats[seat])
    }

    fn seat(
        &self,
        seats: &[Role],
        seat: usize,
        seat_of: &mut BTreeMap<usize, usize>,
        tried: &mut BTreeSet<usize>,
    ) -> bool {
        for (index, person) in self.people.iter().enumerate() {
            if !person.roles.contains(&seats[seat]) || !tried.insert(index) {
                continue;
            }
            let held = seat_of.get(&index).copied();
            if held.is_none_or(|other| self.seat(seats, other, seat_of, tried)) {
                seat_of.insert(index, seat);
                return true;
            }
        }
        false
    }
}
