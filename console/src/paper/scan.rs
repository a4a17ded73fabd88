//! From paper back to the file: codes in any order, from a camera, a scanner that types, or a person who types.
//!
//! A pure state machine: it opens no file and reads no terminal. What is refused changes nothing.

use std::collections::BTreeSet;
use std::fmt;

use thiserror::Error;

use super::armour::{self, ArmourError};
use super::photo::{self, PhotoError};
use super::{Code, InvalidCode, MAGIC, Place, SetId};

/// Why something scanned is refused, or the file is not complete yet.
#[derive(Debug, Error)]
pub enum ScanError {
    /// Not a whole, undamaged code.
    #[error(transparent)]
    Code(#[from] InvalidCode),
    /// From a file other than that of the codes taken before.
    #[error(
        "code {place} is of set {found}, but the codes scanned before are of set {expected}: scan the codes of one \
         sheet at a time"
    )]
    OtherSet {
        /// Which code.
        place: Place,
        /// Its set.
        found: SetId,
        /// The set of what was taken before.
        expected: SetId,
    },
    /// Same file, other parts.
    #[error(
        "code {place} of set {set} contradicts the codes scanned before: scan the codes of one printed sheet"
    )]
    Contradiction {
        /// Which code.
        place: Place,
        /// Its set.
        set: SetId,
    },
    /// An image without codes.
    #[error(transparent)]
    Photo(#[from] PhotoError),
    /// Typed text that is not the file.
    #[error(transparent)]
    Armour(#[from] ArmourError),
    /// Nothing at all was taken.
    #[error("nothing has been scanned yet: scan every code of the sheet")]
    Nothing,
    /// Not everything was taken.
    #[error("of {count} codes, these are missing: {}; scan them", listed(missing))]
    Missing {
        /// Which.
        missing: Vec<u32>,
        /// Of how many.
        count: u32,
    },
    /// The codes fit together, but the file is another: somebody made them so.
    #[error(
        "the codes claim to be set {expected}, but together they make a file of set {found}: do not trust this sheet, \
         use another copy"
    )]
    OtherFile {
        /// What every code says.
        expected: SetId,
        /// What the file is.
        found: SetId,
    },
}

/// Numbers as people say them: `2, 3, 5`.
fn listed(numbers: &[u32]) -> String {
    numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// A code that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Of which file.
    pub set: SetId,
    /// Which.
    pub place: Place,
    /// Whether it was known before.
    pub is_repeated: bool,
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let again = if self.is_repeated { ", again" } else { "" };
        write!(f, "code {} of set {}{again}", self.place, self.set)
    }
}

/// What an image gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The codes.
    pub taken: Vec<Taken>,
    /// How many more look like codes but could not be read.
    pub unread: usize,
}

#[derive(Debug, Clone, Default)]
enum Progress {
    #[default]
    Nothing,
    Codes {
        set: SetId,
        parts: Vec<Option<Vec<u8>>>,
    },
    /// Typed as text.
    Whole(Vec<u8>),
}

/// The codes of one file, as far as they have come.
#[derive(Debug, Clone, Default)]
pub struct Gathering {
    progress: Progress,
}

impl Gathering {
    /// Takes a code's text, as a scanner types it.
    ///
    /// # Errors
    /// [`ScanError`] names the code; nothing has changed then.
    pub fn take_line(&mut self, line: &str) -> Result<Taken, ScanError> {
        let Code { set, place, part } = line.parse()?;
        if let Some(expected) = self.set().filter(|expected| *expected != set) {
            return Err(ScanError::OtherSet { place, found: set, expected });
        }
        let count = place.count as usize;
        if self.set().is_none() {
            self.progress = Progress::Codes { set, parts: vec![None; count] };
        }
        let known = match &mut self.progress {
            Progress::Codes { parts, .. } => parts,
            Progress::Nothing | Progress::Whole(_) => return Ok(Taken { set, place, is_repeated: true }),
        };
        let length = known.len();
        match known.get_mut(place.number as usize - 1) {
            Some(slot @ None) if length == count => {
                *slot = Some(part);
                Ok(Taken { set, place, is_repeated: false })
            }
            Some(Some(before)) if length == count && *before == part => {
                Ok(Taken { set, place, is_repeated: true })
            }
            Some(_) | None => Err(ScanError::Contradiction { place, set }),
        }
    }

    /// Takes every code of a PNG or JPEG; other people's codes in it are passed over.
    ///
    /// # Errors
    /// [`ScanError`] when there is none, or one is refused; nothing has changed then.
    pub fn take_image(&mut self, bytes: &[u8]) -> Result<Seen, ScanError> {
        let found = photo::texts(bytes, |texts| self.is_completed_by(texts))?;
        let mut next = self.clone();
        let ours = found.texts.iter().filter(|text| text.starts_with(MAGIC));
        let mut taken = ours.map(|text| next.take_line(text)).collect::<Result<Vec<_>, _>>()?;
        if taken.is_empty() {
            return Err(PhotoError::NoCode { unread: found.unread }.into());
        }
        taken.sort_by_key(|taken| taken.place.number);
        *self = next;
        Ok(Seen { taken, unread: found.unread })
    }

    fn is_completed_by(&self, texts: &BTreeSet<String>) -> bool {
        let mut next = self.clone();
        for text in texts {
            // A refusal is reported when the code is taken.
            _ = next.take_line(text);
        }
        next.is_complete()
    }

    /// Takes the whole file as armoured text that somebody typed. Only its length and form show a mistyped
    /// character where no code was scanned before: the caller shows its SHA-256 beside that of the sheet.
    ///
    /// # Errors
    /// [`ScanError::Armour`] names the line; nothing has changed then.
    pub fn take_armour(&mut self, text: &str) -> Result<SetId, ScanError> {
        let file = armour::unarmoured(text)?;
        let found = SetId::of(&file);
        if let Some(expected) = self.set().filter(|expected| *expected != found) {
            return Err(ArmourError::Differs { expected, found }.into());
        }
        self.progress = Progress::Whole(file);
        Ok(found)
    }

    /// Which file this is about, once something has been taken.
    #[must_use]
    pub fn set(&self) -> Option<SetId> {
        match &self.progress {
            Progress::Nothing => None,
            Progress::Codes { set, .. } => Some(*set),
            Progress::Whole(file) => Some(SetId::of(file)),
        }
    }

    /// The numbers of the codes that are still missing; also none if nothing has been taken yet.
    #[must_use]
    pub fn missing(&self) -> Vec<u32> {
        match &self.progress {
            Progress::Nothing | Progress::Whole(_) => Vec::new(),
            Progress::Codes { parts, .. } => {
                (1..).zip(parts).filter(|(_, part)| part.is_none()).map(|(number, _)| number).collect()
            }
        }
    }

    /// Whether [`Self::finish`] has everything that it needs.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.set().is_some() && self.missing().is_empty()
    }

    /// The file, whose SHA-256 begins as its codes say.
    ///
    /// # Errors
    /// [`ScanError`] names the codes that are missing.
    pub fn finish(&self) -> Result<Vec<u8>, ScanError> {
        let (expected, parts) = match &self.progress {
            Progress::Nothing => return Err(ScanError::Nothing),
            Progress::Whole(file) => return Ok(file.clone()),
            Progress::Codes { set, parts } => (*set, parts),
        };
        let missing = self.missing();
        if !missing.is_empty() {
            return Err(ScanError::Missing {
                missing,
                count: u32::try_from(parts.len()).unwrap_or(u32::MAX),
            });
        }
        let file: Vec<u8> = parts.iter().flatten().flatten().copied().collect();
        let found = SetId::of(&file);
        if found == expected { Ok(file) } else { Err(ScanError::OtherFile { expected, found }) }
    }
}
