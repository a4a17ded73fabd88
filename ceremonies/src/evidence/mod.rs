//! The evidence bundle: what remains of a ceremony, and what a stranger checks offline.
//!
//! The log, the charter and the root are the authority, and beside them what nodes said of the log; every other file is
//! derived from these. To verify is to derive everything again and compare to the byte, so no file can say what the log
//! does not. Bytes in, bytes out: nothing here touches a disk or a network.

mod archive;
mod render;
mod said;
mod verify;

use std::collections::BTreeMap;
use std::sync::Arc;

use prost::Message;
use thiserror::Error;

pub use self::archive::{ArchiveError, MAX_BUNDLE};
pub use self::render::line;
pub use self::verify::{Check, Expected, Report, VerifyError, logs, verify};
use crate::attestation::{InvalidRoot, TrustRoot};
use crate::book::{Book, Chapter};
use crate::ceremony::{Ceremony, Context, ForeignRoot, Rejection};
use crate::charter::{Charter, CharterError};
use crate::ids::{CeremonyId, NodeIndex};
use crate::log::{Entry, EntryError};
use crate::record::{HeadError, SignedHead};
use crate::wire::log;

/// The log of this ceremony, length-delimited.
const LOG: &str = "log.binpb";
/// The logs of the ceremonies that made the generations up to the one that the ceremony works on, numbered.
const ORIGINS: &str = "origins/";
/// The logs of the amendments that led from the cluster's first charter to that of the ceremony, numbered.
const AMENDMENTS: &str = "amendments/";
const CHARTER: &str = "charter.toml";
const ROOT: &str = "root.pem";
const SUMS: &str = "SHA256SUMS";

/// What a bundle is made from.
#[derive(Debug, Clone)]
pub struct Material {
    /// The file of the cluster's first charter.
    pub charter: Vec<u8>,
    /// The entries of every amendment up to the charter that the ceremony is held under, in order.
    pub amendments: Vec<Vec<Entry>>,
    /// The attestation root's PEM.
    pub root: Vec<u8>,
    /// The ceremony's entries.
    pub log: Vec<Entry>,
    /// The entries of every ceremony that made a generation up to the one that this one works on, in order.
    pub origins: Vec<Vec<Entry>>,
    /// Where nodes stood when the bundle was made.
    pub heads: Vec<SignedHead>,
    /// Entries of branches beside the log, each behind the one that it follows.
    pub branches: Vec<Entry>,
}

/// Why no bundle can be made.
#[derive(Debug, Error)]
pub enum EvidenceError {
    /// The charter is refused.
    #[error("{CHARTER} is refused")]
    Charter(#[from] CharterError),
    /// The root is no certificate.
    #[error("{ROOT} is refused")]
    Root(#[from] InvalidRoot),
    /// The root is not the charter's.
    #[error("{ROOT} is not the attestation root that {CHARTER} names")]
    Foreign(#[from] ForeignRoot),
    /// A log cannot be read.
    #[error("{file}: entry {seq} cannot be read")]
    Entry {
        /// Which log.
        file: &'static str,
        /// Its place.
        seq: usize,
        /// Why.
        source: EntryError,
    },
    /// A log is not length-delimited entries.
    #[error("{0} is cut short or damaged")]
    Delimiters(&'static str),
    /// A log does not fold.
    #[error("{file}: entry {seq} is refused")]
    Rejected {
        /// Which log.
        file: &'static str,
        /// Its place.
        seq: u64,
        /// Why.
        #[source]
        source: Box<Rejection>,
    },
    /// The amendments do not lead from the first charter to that of the ceremony, or lead past it.
    #[error("the amendments do not lead from charter.toml to the charter of the ceremony")]
    Amendments,
    /// The origins do not lead from the wallet's key generation to the generation that the ceremony works on, or past it.
    #[error("the logs in origins/ are not those that the ceremony's wallet rests on")]
    Origins,
    /// A head is no head.
    #[error("heads.binpb contains something other than a head")]
    HeadForm(#[from] HeadError),
    /// A head is of another ceremony, or not signed by its node.
    #[error("heads.binpb: the head of node {0} is not signed by that node, or not for this ceremony")]
    Head(NodeIndex),
    /// An entry beside the log is of another ceremony, follows nothing, or is not signed by its node.
    #[error("branches.binpb: entry {0} follows no other, or is not signed by its node for this ceremony")]
    Branch(u64),
    /// A file could not be rendered.
    #[error("{0} could not be rendered")]
    Render(&'static str),
    /// The archive could not be made.
    #[error("the archive could not be made")]
    Archive(#[from] ArchiveError),
}

fn read_log(file: &'static str, book: &mut Book, log: &[Entry]) -> Result<Ceremony, EvidenceError> {
    book.read(log).map_err(|(seq, source)| EvidenceError::Rejected { file, seq, source: Box::new(source) })
}

fn numbered(folder: &str, number: u32) -> String {
    format!("{folder}{number:03}.binpb")
}

fn delimited(log: &[Entry]) -> Vec<u8> {
    log.iter().flat_map(|entry| entry.raw().encode_length_delimited_to_vec()).collect()
}

fn undelimited(file: &'static str, mut bytes: &[u8]) -> Result<Vec<Entry>, EvidenceError> {
    let mut entries = Vec::new();
    while !bytes.is_empty() {
        let raw =
            log::Entry::decode_length_delimited(&mut bytes).map_err(|_| EvidenceError::Delimiters(file))?;
        let seq = entries.len() + 1;
        entries.push(Entry::from_wire(raw).map_err(|source| EvidenceError::Entry { file, seq, source })?);
    }
    Ok(entries)
}

impl Material {
    /// What a book has of a ceremony; none if it does not know it.
    #[must_use]
    pub fn of(book: &Book, root: Vec<u8>, id: &CeremonyId) -> Option<Self> {
        let chapter = book.get(id)?;
        let entries = |chapter: &Chapter| chapter.entries.clone();
        let last = chapter.ceremony.charter().hash();
        let is_before = |amendment: &&Chapter| amendment.ceremony.charter().hash() != last;
        Some(Self {
            charter: book.first().charter().text().as_bytes().to_vec(),
            amendments: book.amendments().take_while(is_before).map(entries).collect(),
            root,
            log: entries(chapter),
            origins: book.origins(id).into_iter().map(entries).collect(),
            heads: Vec::new(),
            branches: Vec::new(),
        })
    }

    /// Folds the logs.
    ///
    /// # Errors
    /// [`EvidenceError`] names the first thing that does not hold.
    pub fn fold(&self) -> Result<Ceremony, EvidenceError> {
        let charter = Arc::new(Charter::parse(&self.charter)?);
        let root = Arc::new(TrustRoot::from_pem(&self.root)?);
        let mut book = Book::new(Context::new(charter, root)?);
        for amendment in &self.amendments {
            read_log(AMENDMENTS, &mut book, amendment)?;
        }
        if book.amendments().count() != self.amendments.len() {
            return Err(EvidenceError::Amendments);
        }
        let last = book.context().charter().hash();
        for origin in &self.origins {
            read_log(ORIGINS, &mut book, origin)?;
        }
        let ceremony = read_log(LOG, &mut book, &self.log)?;
        let named = book.origins(&ceremony.manifest().ceremony);
        if !named.into_iter().map(|chapter| &chapter.entries).eq(&self.origins) {
            return Err(EvidenceError::Origins);
        }
        if ceremony.charter().hash() == last { Ok(ceremony) } else { Err(EvidenceError::Amendments) }
    }

    /// Every file of the bundle, by name.
    fn files(&self, ceremony: &Ceremony) -> Result<BTreeMap<String, Vec<u8>>, EvidenceError> {
        let mut files = BTreeMap::from([
            (CHARTER.to_owned(), self.charter.clone()),
            (ROOT.to_owned(), self.root.clone()),
            (LOG.to_owned(), delimited(&self.log)),
            ("script.toml".to_owned(), ceremony.script().text().as_bytes().to_vec()),
            ("README.txt".to_owned(), render::readme(ceremony, self).into_bytes()),
            ("log.jsonl".to_owned(), render::log("log.jsonl", &self.log)?),
            ("allowed_signers".to_owned(), render::allowed_signers(ceremony.charter())?.into_bytes()),
            ("signatures.json".to_owned(), render::signatures(ceremony)?),
        ]);
        files.extend(self.said_files()?);
        for (folder, logs) in [(AMENDMENTS, &self.amendments), (ORIGINS, &self.origins)] {
            for (number, log) in (1..).zip(logs) {
                files.insert(numbered(folder, number), delimited(log));
            }
        }
        if let Some(charter) = ceremony.manifest().amendment() {
            files.insert("new-charter.toml".to_owned(), charter.text().as_bytes().to_vec());
        }
        if let Some(transaction) = ceremony.manifest().transaction() {
            files.insert("transaction.txt".to_owned(), (transaction.words().join("\n") + "\n").into_bytes());
        }
        if !ceremony.manifest().inventory().is_empty() {
            let lines = ceremony.manifest().inventory().iter().map(|item| format!("{item}\n"));
            files.insert("inventory.txt".to_owned(), lines.collect::<String>().into_bytes());
        }
        if !ceremony.backups().is_empty() {
            files.insert("backups.json".to_owned(), render::backups(ceremony)?);
        }
        if let Some(signed) = ceremony.signed_transaction() {
            files.insert("signed-transaction.hex".to_owned(), (hex::encode(signed) + "\n").into_bytes());
            files.insert("broadcast.json".to_owned(), render::broadcast(ceremony)?);
        }
        if let Some(record) = ceremony.record() {
            files.insert("wallet.json".to_owned(), render::wallet(record, ceremony.charter().kind())?);
        }
        for (node, enclave) in ceremony.enclaves() {
            files.insert(format!("attestations/node-{node}.cbor"), enclave.document.clone());
        }
        for (number, signed) in (1..).zip(ceremony.signatures()) {
            let name = format!("statements/{number:03}-{}-{}-{}", signed.step, signed.role, signed.person);
            files.insert(format!("{name}.txt"), signed.text.clone().into_bytes());
            files.insert(format!("{name}.sig"), signed.signature.clone());
        }
        files.insert(SUMS.to_owned(), render::sums(&files).into_bytes());
        Ok(files)
    }

    /// The bundle: a zip archive, the same bytes for the same log.
    ///
    /// # Errors
    /// [`EvidenceError`] when the log does not hold.
    pub fn bundle(&self) -> Result<Vec<u8>, EvidenceError> {
        let ceremony = self.fold()?;
        self.said(&ceremony)?;
        Ok(archive::write(&self.files(&ceremony)?)?)
    }

    /// The material in a bundle's files.
    fn read(files: &BTreeMap<String, Vec<u8>>) -> Result<Self, VerifyError> {
        let file = |name: &'static str| files.get(name).cloned().ok_or(VerifyError::Missing(name));
        let logs = |folder: &'static str| {
            let files = (1..).map_while(move |number| files.get(&numbered(folder, number)));
            files.map(move |bytes| undelimited(folder, bytes)).collect::<Result<_, _>>()
        };
        Ok(Self {
            charter: file(CHARTER)?,
            root: file(ROOT)?,
            log: undelimited(LOG, &file(LOG)?)?,
            origins: logs(ORIGINS)?,
            amendments: logs(AMENDMENTS)?,
            heads: files.get(said::HEADS).map_or_else(|| Ok(Vec::new()), |bytes| said::read_heads(bytes))?,
            branches: files
                .get(said::BRANCHES)
                .map_or_else(|| Ok(Vec::new()), |bytes| undelimited(said::BRANCHES, bytes))?,
        })
    }
}
