//! Verifying a bundle offline.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use thiserror::Error;

use super::{ArchiveError, EvidenceError, Material, archive};
use crate::attestation::TrustRoot;
use crate::ceremony::{Ceremony, Phase};
use crate::charter::ClusterKind;
use crate::curve::verifies;
use crate::ids::{Hash, NodeIndex};
use crate::log::Entry;
use crate::subsets::subsets;
use crate::words::{self, FINGERPRINT_WORDS};

/// The most subsets of public shares that are interpolated one by one; beyond it, the polynomial check that every
/// record passes says the same of all of them.
const MAX_SUBSETS: usize = 1000;

/// What the verifier expects of a bundle.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    /// The kind of cluster; if none, the bundle's is accepted and reported.
    pub kind: Option<ClusterKind>,
    /// The words of the head as somebody wrote them on paper.
    pub head: Option<String>,
    /// The attestation root; if none, the bundle's is accepted, whose fingerprint its charter names. For production and
    /// rehearsal a charter names the AWS root or is refused.
    pub root: Option<TrustRoot>,
    /// Hash of the cluster's first charter; if none, the bundle's is accepted and reported.
    pub charter: Option<Hash>,
}

/// Why a bundle does not verify.
#[derive(Debug, Error)]
pub enum VerifyError {
    /// Not an archive.
    #[error("not a bundle")]
    Archive(#[from] ArchiveError),
    /// A file that everything follows from is missing.
    #[error("the bundle has no {0}")]
    Missing(&'static str),
    /// The log, the charter or the root does not hold.
    #[error("the record does not hold")]
    Record(#[from] EvidenceError),
    /// A file is not there though the log calls for it.
    #[error("{0} is missing: the log calls for it")]
    FileMissing(String),
    /// A file differs from what follows from the log.
    #[error("{0} is not what follows from the log, charter and root")]
    FileDiffers(String),
    /// A file that no bundle has.
    #[error("{0} does not belong in a bundle")]
    FileUnknown(String),
    /// Bytes outside the files differ.
    #[error("the archive is not byte for byte what packing its files gives: it was changed or repacked")]
    Repacked,
    /// Another kind of cluster.
    #[error("this is the record of a {} cluster, not of a {expected} one", .found.to_uppercase())]
    Kind {
        /// What it is.
        found: String,
        /// What was expected.
        expected: ClusterKind,
    },
    /// Another root.
    #[error("the bundle's attestation root has SHA-256 {found}, not {expected}")]
    Root {
        /// The bundle's.
        found: Hash,
        /// The one given.
        expected: Hash,
    },
    /// Another charter.
    #[error("the record begins under charter {found}, not {expected}")]
    Charter {
        /// The bundle's first.
        found: Hash,
        /// The one given.
        expected: Hash,
    },
    /// Another head than on paper.
    #[error(
        "the head's words are `{found}`, not those on paper: entries are missing, or this is a different record"
    )]
    Head {
        /// The bundle's.
        found: String,
    },
    /// Fewer or more words than a head has: nothing was compared.
    #[error("a head has {FINGERPRINT_WORDS} words, and {0} were given: give all of them, in their order")]
    Words(usize),
    /// A subset of public shares does not give the key.
    #[error("the public shares of {0} do not interpolate to the public key")]
    Subset(String),
    /// A test signature does not verify.
    #[error("the test signature of {0} does not verify")]
    Signature(String),
}

/// One thing that was checked.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// What.
    pub name: &'static str,
    /// What was found.
    pub found: String,
}

/// What a bundle that verifies says.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The ceremony.
    pub ceremony: String,
    /// The cluster's kind.
    pub kind: ClusterKind,
    /// Where the ceremony stands.
    pub phase: String,
    /// Whether its script was completed and the record sealed.
    pub complete: bool,
    /// The head's hash.
    pub head: Hash,
    /// The head's words.
    pub head_words: String,
    /// Whether the bundle shows that a quorum of nodes has recorded the log to its head.
    pub recorded: bool,
    /// Which nodes hold it.
    pub holders: String,
    /// What was appended beside the log, and who stood there.
    pub branches: Vec<String>,
    /// Who disagreed, and why.
    pub disagreements: Vec<String>,
    /// Everything that was checked.
    pub checks: Vec<Check>,
    /// What only the bundle says, where nothing else was given to compare it with.
    pub not_compared: Vec<Check>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "ceremony {} of a {} cluster", self.ceremony, self.kind.to_string().to_uppercase())?;
        for check in &self.checks {
            writeln!(f, "  ok  {}: {}", check.name, check.found)?;
        }
        for taken in &self.not_compared {
            writeln!(f, "  ??  {}: NOT COMPARED: {}", taken.name, taken.found)?;
        }
        for disagreement in &self.disagreements {
            writeln!(f, "  !!  disagreed: {disagreement}")?;
        }
        for branch in &self.branches {
            writeln!(f, "  !!  another branch: {branch}")?;
        }
        let recorded = if self.recorded { "" } else { "NOT SHOWN TO BE RECORDED: " };
        writeln!(f, "nodes: {recorded}{}", self.holders)?;
        writeln!(f, "stands at: {}{}", self.phase, if self.complete { "" } else { " (NOT COMPLETE)" })?;
        writeln!(f, "head: {}", self.head_words)?;
        write!(f, "{}", self.verdict())
    }
}

impl Report {
    /// What it comes to, in one line.
    #[must_use]
    pub fn verdict(&self) -> String {
        let not_compared: Vec<&str> = self.not_compared.iter().map(|check| check.name).collect();
        let doubts: Vec<String> = [
            (self.kind == ClusterKind::Lab, "a lab's record proves nothing".to_owned()),
            (!self.complete, "the ceremony is not complete".to_owned()),
            (!self.disagreements.is_empty(), format!("{} disagreed", self.disagreements.len())),
            (!self.recorded, "the bundle does not show that the log was recorded".to_owned()),
            (!self.branches.is_empty(), "the log has forked".to_owned()),
            (!not_compared.is_empty(), format!("not compared: {}", not_compared.join(", "))),
        ]
        .into_iter()
        .filter_map(|(holds, doubt)| holds.then_some(doubt))
        .collect();
        if doubts.is_empty() {
            "VERIFIED: everything in the bundle follows from the signed log".to_owned()
        } else {
            format!("VERIFIED, BUT: {}", doubts.join("; "))
        }
    }
}

/// Verifies a bundle: derives every file again from log, charter and root, and compares them.
///
/// # Errors
/// [`VerifyError`] names the first thing that does not hold.
pub fn verify(bundle: &[u8], expected: &Expected) -> Result<Report, VerifyError> {
    let files = archive::read(bundle)?;
    let material = Material::read(&files)?;
    let ceremony = material.fold()?;
    let kind = ceremony.charter().kind();
    if let Some(expected) = expected.kind.filter(|expected| *expected != kind) {
        return Err(VerifyError::Kind { found: kind.to_string(), expected });
    }
    let root = ceremony.charter().attestation().root_sha256;
    if let Some(given) = expected.root.as_ref().map(TrustRoot::fingerprint).filter(|given| *given != root) {
        return Err(VerifyError::Root { found: root, expected: given });
    }
    let first = Hash::of_bytes(&material.charter);
    if let Some(given) = expected.charter.filter(|given| *given != first) {
        return Err(VerifyError::Charter { found: first, expected: given });
    }
    // Before the files that follow from them, which would be named instead.
    let said = material.said(&ceremony)?;
    compare(&files, &material.files(&ceremony)?)?;
    if archive::write(&files)? != bundle {
        return Err(VerifyError::Repacked);
    }
    let head_words = words::spoken(&ceremony.head().hash);
    if let Some(paper) = expected.head.as_deref().map(words::normalise) {
        let given = paper.split_whitespace().count();
        if given != FINGERPRINT_WORDS {
            return Err(VerifyError::Words(given));
        }
        if paper != head_words {
            return Err(VerifyError::Head { found: head_words });
        }
    }
    let mut checks = checks(&material, &ceremony, &files, root)?;
    let mut not_compared = Vec::new();
    let head = |found: &str| Check { name: "head", found: found.to_owned() };
    if expected.head.is_some() {
        checks.push(head("the words are those on paper"));
    } else {
        not_compared.push(head("compare the words below with those on paper, or pass them with --head"));
    }
    let charter = Check { name: "charter", found: charter(&material, &ceremony) };
    // Anybody can write a charter, hold a ceremony under it, and bundle both.
    if expected.charter.is_some() {
        checks.insert(2, charter);
    } else {
        not_compared.push(charter);
    }
    let phase = ceremony.phase();
    let disagreed = |signed: &crate::ceremony::StepSignature| {
        let crate::statement::Answer::Disagree(reason) = &signed.answer else { return None };
        Some(format!("{}: {reason}", signed.person))
    };
    Ok(Report {
        ceremony: ceremony.manifest().ceremony.to_string(),
        kind,
        complete: phase == Phase::Closed,
        phase: phase.to_string(),
        head: ceremony.head().hash,
        head_words,
        recorded: said.recorded,
        holders: said.holders,
        branches: said.branches,
        disagreements: ceremony.signatures().iter().filter_map(disagreed).collect(),
        checks,
        not_compared,
    })
}

/// The logs in a bundle that verifies, each before those that rest on it: what a new node needs to know.
///
/// # Errors
/// As [`verify`].
pub fn logs(bundle: &[u8], expected: &Expected) -> Result<Vec<Vec<Entry>>, VerifyError> {
    verify(bundle, expected)?;
    let material = Material::read(&archive::read(bundle)?)?;
    let mut logs: Vec<Vec<Entry>> = material.amendments.into_iter().chain(material.origins).collect();
    logs.push(material.log);
    // They verify in this order.
    Ok(logs)
}

/// Names the first file that is missing, different or unknown.
fn compare(
    found: &BTreeMap<String, Vec<u8>>,
    derived: &BTreeMap<String, Vec<u8>>,
) -> Result<(), VerifyError> {
    let sums = |name: &&String| name.as_str() == super::SUMS;
    // The sums differ whenever anything does; the file itself says more.
    for (name, content) in derived.iter().filter(|(name, _)| !sums(name)) {
        match found.get(name) {
            None => return Err(VerifyError::FileMissing(name.clone())),
            Some(found) if found != content => return Err(VerifyError::FileDiffers(name.clone())),
            Some(_) => {}
        }
    }
    if let Some(unknown) = found.keys().find(|name| !derived.contains_key(*name)) {
        return Err(VerifyError::FileUnknown(unknown.clone()));
    }
    if found.get(super::SUMS) == derived.get(super::SUMS) {
        Ok(())
    } else {
        Err(VerifyError::FileDiffers(super::SUMS.to_owned()))
    }
}

fn charter(material: &Material, ceremony: &Ceremony) -> String {
    let (first, held_under) = (Hash::of_bytes(&material.charter), ceremony.charter().hash());
    match material.amendments.len() {
        0 => first.to_string(),
        1 => format!("{held_under}, after one amendment of {first}"),
        count => format!("{held_under}, after {count} amendments of {first}"),
    }
}

fn checks(
    material: &Material,
    ceremony: &Ceremony,
    files: &BTreeMap<String, Vec<u8>>,
    root: Hash,
) -> Result<Vec<Check>, VerifyError> {
    let mut checks = vec![
        Check { name: "files", found: format!("{} files, each as derived from the record", files.len()) },
        Check { name: "chain", found: format!("{} entries, signed and chained", material.log.len()) },
        Check { name: "script", found: ceremony.script().hash().to_string() },
        Check {
            name: "attestation",
            found: format!("{} enclaves, under root {root}", ceremony.enclaves().len()),
        },
        Check { name: "statements", found: format!("{} signed by people", ceremony.signatures().len()) },
    ];
    if let Some(record) = ceremony.record() {
        let roster: Vec<NodeIndex> = record.roster();
        let mut count = 0;
        for subset in subsets(&roster, usize::from(record.threshold)).take(MAX_SUBSETS) {
            if record.interpolate(&subset, 0) != Some(record.public_key) {
                return Err(VerifyError::Subset(subset.to_string()));
            }
            count += 1;
        }
        checks.push(Check {
            name: "public shares",
            found: format!("{count} subsets interpolate to {}", record.public_key),
        });
        if !ceremony.manifest().kind.uses_enclaves() {
            return Ok(checks);
        }
        let mut signed = Vec::new();
        for test in ceremony.tests().iter().filter(|test| ceremony.counts(test)) {
            let to_sign = ceremony.to_sign(&test.subset, test.attempt, test.input);
            if !to_sign.is_some_and(|to_sign| verifies(&to_sign.key, &to_sign.digest, &test.r, &test.s)) {
                return Err(VerifyError::Signature(test.subset.to_string()));
            }
            signed.push(test.subset.to_string());
        }
        checks.push(Check {
            name: "test signatures",
            found: format!("{} ({})", signed.len(), signed.join(", ")),
        });
    }
    if let Some(id) = ceremony.transaction_id() {
        checks.push(Check { name: "transaction", found: format!("signed as {id}") });
        for signed in ceremony.said_of_broadcast() {
            checks.push(Check {
                name: "broadcast",
                found: format!("{} says: {}", signed.person, signed.answer),
            });
        }
    }
    Ok(checks)
}
