//! A backup on paper of a file that age encrypted, and the way back.
//!
//! Paper outlives the machines that wrote it, so a sheet carries the file three times over for three kinds of reader:
//! QR codes for a camera, the same lines for a scanner that types, and age's own armour for typing by hand. What a
//! sheet says about itself is public; this module never decrypts, never sees what the file holds, and refuses to print
//! a file that age has not encrypted.
//!
//! A code reads `CUSTODY1/SET/NUMBER/COUNT/DATA/CHECK`:
//!
//! - `SET`: the first 8 bytes of the whole file's SHA-256, in hexadecimal; they are the first digits and the words
//!   that the sheet prints, so a person can tell whose code this is.
//! - `NUMBER` of `COUNT`: which part of the file.
//! - `DATA`: the part in base32 (RFC 4648, no padding).
//! - `CHECK`: the first 4 bytes of the SHA-256 of everything before the last `/`, in hexadecimal.
//!
//! Base32, because a scanner that types is a keyboard: capital letters and digits leave no case, space or
//! dead key to lose on the way, and they are the characters that QR packs most tightly. RFC 4648's alphabet,
//! because `base32 -d` is on every machine. Parts are whole 5-byte groups, so that the joined `DATA` is the
//! file's base32.

mod armour;
mod page;
mod photo;
mod scan;

use std::fmt;
use std::str::FromStr;

use ceremonies::ids::Hash;
use ceremonies::text::shortened;
use data_encoding::BASE32_NOPAD;
use thiserror::Error;

pub use self::armour::ArmourError;
pub use self::page::{PaperError, Sheet, codes, page};
pub use self::photo::{MAX_PHOTO, PhotoError};
pub use self::scan::{Gathering, ScanError, Seen, Taken};

/// The prefix of every code: whose it is, and the version of its form.
const MAGIC: &str = "CUSTODY1";
/// [`MAGIC`] from a scanner set to English on a computer set to German, which has Y and Z in each other's
/// place.
const MAGIC_QWERTZ: &str = "CUSTODZ1";
/// How every age file begins.
const AGE: &[u8] = b"age-encryption.org/v1\n";

/// Largest file for paper: root shares are a few hundred bytes, and nobody scans a hundred codes.
pub const MAX_FILE: usize = 16 * 1024;
/// The most bytes of the file in one code, which then has 101 modules across: ten of ten simulated photographs were
/// read at 8 pixels a module; with 900 bytes (121 modules) eight of ten, even at 12.
const MAX_PART: usize = 600;
/// Most codes of a set: what [`MAX_FILE`] needs.
const MAX_CODES: u32 = 28;
/// Longest line that is looked at: more than any code that this module prints.
const MAX_LINE: usize = 2_000;

/// Which file a code belongs to: the first 8 bytes of the file's SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetId([u8; 8]);

impl SetId {
    /// The id of this file's set.
    #[must_use]
    pub fn of(file: &[u8]) -> Self {
        let mut id = [0; 8];
        id.copy_from_slice(&Hash::of_bytes(file).as_bytes()[..8]);
        Self(id)
    }
}

impl fmt::Display for SetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&hex::encode_upper(self.0))
    }
}

/// Which code of its set: `2 of 5`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    number: u32,
    count: u32,
}

impl Place {
    fn new(number: u32, count: u32) -> Option<Self> {
        ((1..=count).contains(&number) && count <= MAX_CODES).then_some(Self { number, count })
    }

    /// The code's number, from 1.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.number
    }

    /// How many codes the set has.
    #[must_use]
    pub const fn count(self) -> u32 {
        self.count
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.number, self.count)
    }
}

/// Why a line is not one of our codes.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidCode {
    /// Something else, or typed with a keyboard layout that the scanner does not expect.
    #[error(
        "`{0}` does not begin with {MAGIC}/: scan a code of a Custody sheet; if a scanner typed this, set the \
         computer's keyboard layout to the scanner's (usually US English)"
    )]
    Foreign(String),
    /// As if a program had broken a longer line.
    #[error(
        "`{0}` does not begin with {MAGIC}/, but may be a part of a code that was broken into lines: put all of it on one \
         line; the text of a sheet begins with its line `{begin}`",
        begin = armour::BEGIN
    )]
    Part(String),
    /// Not six fields with numbers in their places.
    #[error(
        "`{0}` is not a complete code: scan it again at the beginning of a line; if it was broken into lines, put all of it \
         on one"
    )]
    Shape(String),
    /// A character is wrong.
    #[error("code {0} is damaged, its checksum does not match: scan it again")]
    Damaged(Place),
}

/// One code: a part of a file, and where it belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Code {
    set: SetId,
    place: Place,
    part: Vec<u8>,
}

fn check(body: &str) -> String {
    hex::encode_upper(&Hash::of_bytes(body.as_bytes()).as_bytes()[..4])
}

/// The part of a line of any length that an error quotes.
fn excerpt(line: &str) -> String {
    shortened(line, 40)
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { number, count } = self.place;
        let body = format!("{MAGIC}/{}/{number}/{count}/{}", self.set, BASE32_NOPAD.encode(&self.part));
        write!(f, "{body}/{}", check(&body))
    }
}

/// Fewest characters by which a piece of a code or of the text is known: a barcode of something else has fewer.
const MIN_PART: usize = 16;

/// What a line is that does not begin as a code does.
fn without_magic(line: &str) -> InvalidCode {
    let is_of_ours = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '+' | '=');
    if line.chars().all(is_of_ours) && (line.len() >= MIN_PART || line.contains('/')) {
        InvalidCode::Part(excerpt(line))
    } else {
        InvalidCode::Foreign(excerpt(line))
    }
}

/// Where the codes in a text begin: no code has [`MAGIC`] anywhere else.
fn beginnings(text: &str) -> Vec<usize> {
    let capitals = text.to_ascii_uppercase();
    let mut found: Vec<usize> = [MAGIC, MAGIC_QWERTZ]
        .iter()
        .flat_map(|magic| capitals.match_indices(magic))
        .map(|(at, _)| at)
        .collect();
    found.sort_unstable();
    found
}

/// The codes in a line as a scanner sends it: after whatever it labels them with (`QR-Code:`, `]Q1`), and separated by
/// tabs, other control characters, or nothing. A line without any is one piece.
#[must_use]
pub fn codes_in(line: &str) -> Vec<&str> {
    let begin = beginnings(line);
    if begin.is_empty() {
        return vec![line];
    }
    let end = begin.iter().copied().skip(1).chain([line.len()]);
    let piece =
        |(from, to): (&usize, usize)| line[*from..to].split(char::is_control).next().unwrap_or_default();
    begin.iter().zip(end).map(piece).collect()
}

/// The line as it was before a keyboard changed it: capitals, `/` between fields, Y and Z in their places, and nothing
/// before the code.
///
/// What this gets wrong, the check finds.
fn untyped(line: &str) -> String {
    let line = &line[beginnings(line).first().copied().unwrap_or_default()..];
    let swapped = line.get(..MAGIC.len()).is_some_and(|magic| magic.eq_ignore_ascii_case(MAGIC_QWERTZ));
    let character = |c: char| match c.to_ascii_uppercase() {
        'Y' if swapped => 'Z',
        'Z' if swapped => 'Y',
        c if c.is_ascii_alphanumeric() => c,
        _ => '/',
    };
    line.chars().map(character).collect()
}

impl FromStr for Code {
    type Err = InvalidCode;
    fn from_str(line: &str) -> Result<Self, InvalidCode> {
        let line = line.trim();
        let shape = || InvalidCode::Shape(excerpt(line));
        if line.len() > MAX_LINE {
            return Err(shape());
        }
        let text = untyped(line);
        // Quotation marks and commas behind a code have become the same.
        let text = text.trim_end_matches('/');
        let (body, sum) = text.rsplit_once('/').ok_or_else(|| without_magic(line))?;
        let mut fields = body.split('/');
        if fields.next() != Some(MAGIC) {
            return Err(without_magic(line));
        }
        let fields: Vec<&str> = fields.collect();
        let [set, number, count, data] = fields.as_slice() else { return Err(shape()) };
        let place = number.parse().ok().zip(count.parse().ok());
        let place = place.and_then(|(number, count)| Place::new(number, count)).ok_or_else(shape)?;
        if check(body) != sum {
            return Err(InvalidCode::Damaged(place));
        }
        let mut id = [0; 8];
        hex::decode_to_slice(set, &mut id).map_err(|_| shape())?;
        let part = BASE32_NOPAD.decode(data.as_bytes()).map_err(|_| shape())?;
        Ok(Self { set: SetId(id), place, part })
    }
}
