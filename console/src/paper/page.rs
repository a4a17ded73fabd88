//! The sheet: one self-contained HTML page, for A4 and Letter.
//!
//! No script, no font, no picture from elsewhere: it prints the same from a machine that has no network. It
//! must not carry a time or anything else that differs between two prints of the same sheet.

use ceremonies::ids::{ClusterId, Generation, Hash, Line, NodeIndex, WalletName};
use ceremonies::words::spoken;
use qrcode::{Color, EcLevel, QrCode, types::QrError};
use thiserror::Error;

use super::armour::{self, armoured};
use super::{AGE, Code, MAX_FILE, MAX_PART, Place, SetId};

/// Light modules around a code, as ISO/IEC 18004 asks for.
const QUIET: usize = 4;

/// What one sheet says, and the file that it carries.
#[derive(Debug, Clone)]
pub struct Sheet<'a> {
    /// Of which cluster.
    pub cluster: ClusterId,
    /// Of which wallet.
    pub wallet: WalletName,
    /// Of which generation of its shares.
    pub generation: Generation,
    /// Of which node.
    pub node: NodeIndex,
    /// The sheet's own serial, used once in the wallet's life: the ledger of copies knows it by that.
    pub serial: Line,
    /// The digest of the record that made the generation.
    pub record: Hash,
    /// The file as age wrote it, without armour.
    pub file: &'a [u8],
}

/// Why a file is not printed.
#[derive(Debug, Error)]
pub enum PaperError {
    /// age's text form: paper carries the binary one, whose hash is on the sheet.
    #[error(
        "the file is in age's armour: remove that with `sed '/^-----/d' FILE | base64 -d > FILE.age`, then print the \
         result"
    )]
    Armoured,
    /// Not encrypted by age: nothing else is printed, lest a secret be.
    #[error(
        "the file is not encrypted by age (it does not begin with `age-encryption.org/v1`): encrypt it first"
    )]
    NotAge,
    /// More codes than anybody scans.
    #[error("the file is larger than the {MAX_FILE} bytes that a sheet carries: back up the share alone")]
    TooLarge,
    /// A code cannot be drawn.
    #[error("code {place} of the sheet cannot be drawn")]
    Drawing {
        /// Which.
        place: Place,
        /// Why.
        source: QrError,
    },
}

fn validated(file: &[u8]) -> Result<Vec<Code>, PaperError> {
    if file.trim_ascii_start().starts_with(armour::BEGIN.as_bytes()) {
        return Err(PaperError::Armoured);
    }
    if !file.starts_with(AGE) {
        return Err(PaperError::NotAge);
    }
    if file.len() > MAX_FILE {
        return Err(PaperError::TooLarge);
    }
    Ok(parts(file))
}

/// The file in even parts of whole base32 groups, so that the last code is not tiny.
fn parts(file: &[u8]) -> Vec<Code> {
    let size = file.len().div_ceil(file.len().div_ceil(MAX_PART)).next_multiple_of(5);
    let parts: Vec<&[u8]> = file.chunks(size).collect();
    let set = SetId::of(file);
    (1..)
        .zip(&parts)
        .filter_map(|(number, part)| Place::new(number, u32::try_from(parts.len()).ok()?).zip(Some(part)))
        .map(|(place, part)| Code { set, place, part: part.to_vec() })
        .collect()
}

/// The texts of a file's codes, in their order.
///
/// # Errors
/// [`PaperError`] for a file that is not printed.
pub fn codes(file: &[u8]) -> Result<Vec<String>, PaperError> {
    Ok(validated(file)?.iter().map(Code::to_string).collect())
}

/// At level M, a seventh of a code may be lost. A higher level makes smaller modules, which are lost first.
fn drawn(text: &str) -> Result<QrCode, QrError> {
    QrCode::with_error_correction_level(text, EcLevel::M)
}

/// One path: a rectangle per run of dark modules, so that no hairline shows between neighbours.
fn svg(code: &QrCode) -> String {
    let (width, modules) = (code.width(), code.to_colors());
    let size = width + 2 * QUIET;
    let mut path = String::new();
    for (y, row) in modules.chunks(width).enumerate() {
        let mut x = 0;
        for run in row.chunk_by(|a, b| a == b) {
            if run.first() == Some(&Color::Dark) {
                path += &format!("M{} {}h{length}v1h-{length}z", x + QUIET, y + QUIET, length = run.len());
            }
            x += run.len();
        }
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {size} {size}\" shape-rendering=\"crispEdges\">\
         <rect width=\"{size}\" height=\"{size}\" fill=\"#fff\"/><path fill=\"#000\" d=\"{path}\"/></svg>"
    )
}

fn figure(sheet: &Sheet<'_>, code: &Code) -> Result<String, PaperError> {
    let place = code.place;
    let drawing = drawn(&code.to_string()).map_err(|source| PaperError::Drawing { place, source })?;
    Ok(format!(
        "<figure>\n{}\n<figcaption><b>Code {place}</b> · set {} · sheet {}</figcaption>\n</figure>\n",
        svg(&drawing),
        code.set,
        escaped(sheet.serial.as_str())
    ))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Groups of four digits, which an eye can keep between two looks.
fn grouped(hash: &Hash) -> String {
    let text = hash.to_string();
    let halves: Vec<String> = text
        .as_bytes()
        .chunks(32)
        .map(|half| half.chunks(4).map(String::from_utf8_lossy).collect::<Vec<_>>().join(" "))
        .collect();
    halves.join("<br>")
}

/// What `base32 -d` still needs behind the joined data.
fn padding(file: &[u8]) -> &'static str {
    match file.len() % 5 {
        1 => "======",
        2 => "====",
        3 => "===",
        4 => "=",
        _ => "",
    }
}

const STYLE: &str = "\
@page { margin: 12mm }
* { box-sizing: border-box }
body { width: 180mm; margin: 0 auto; color: #000; background: #fff; font: 10pt/1.35 sans-serif }
h1 { font-size: 17pt; margin: 0 0 3mm }
h2 { font-size: 12pt; margin: 6mm 0 2mm; break-after: avoid }
th { text-align: left; vertical-align: top; padding-right: 5mm; white-space: nowrap }
pre, code, td { font-family: \"DejaVu Sans Mono\", Menlo, Consolas, monospace; font-size: 9.5pt }
pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; orphans: 4; widows: 4 }
.codes { display: flex; flex-wrap: wrap; gap: 4mm; justify-content: center }
figure { width: 87mm; margin: 0; text-align: center; break-inside: avoid }
figure:only-child { width: 120mm }
svg { display: block; width: 100% }
li { margin-bottom: 1.5mm }
";

fn facts(sheet: &Sheet<'_>) -> String {
    let hash = Hash::of_bytes(sheet.file);
    let rows = [
        ("Cluster", sheet.cluster.to_string()),
        ("Wallet", sheet.wallet.to_string()),
        ("Generation", sheet.generation.to_string()),
        ("Node", sheet.node.to_string()),
        ("Sheet", escaped(sheet.serial.as_str())),
        ("Record", grouped(&sheet.record)),
        ("File", format!("{} bytes, encrypted by age", sheet.file.len())),
        ("SHA-256", grouped(&hash)),
        ("Words", spoken(&hash)),
    ];
    let rows = rows.map(|(name, value)| format!("<tr><th>{name}<td>{value}\n"));
    format!("<table>\n{}</table>\n", rows.concat())
}

fn instructions(sheet: &Sheet<'_>, count: usize) -> String {
    let (padding, hash) = (padding(sheet.file), Hash::of_bytes(sheet.file));
    format!(
        "<ol>\n\
         <li>With Custody: photograph every code, sharp and with all four corners, then \
         <code>custody paper scan PHOTOS -o backup.age</code>. Without photographs it reads what a scanner types.\n\
         <li>Without Custody: <code>zbarimg --raw -q PHOTOS &gt; lines.txt</code>, or any scanner that writes the \
         text of a code on a line; {count} in all, each\n\
         <code>CUSTODY1/SET/NUMBER/COUNT/DATA/CHECK</code>. Then\n\
         <pre class=\"join\">(sort -t/ -k3,3n -u lines.txt | cut -d/ -f5 | tr -d '\\n'; printf '{padding}') |\n base32 -d &gt; backup.age</pre>\n\
         <li>Without a camera: type the text below, first and last line too, into <code>backup.txt</code>. Then\n\
         <pre class=\"typed\">sed '/^-----/d' backup.txt | base64 -d &gt; backup.age</pre>\n\
         <li>Either way <code>sha256sum backup.age</code> must print\n<pre>{hash}</pre>\n\
         <li>Do not decrypt <code>backup.age</code> outside of a recovery ceremony: <code>age -d</code> writes the \
         share in the clear, and whoever reads it has this node's part of the key.\n\
         </ol>\n"
    )
}

/// The sheet as one HTML page.
///
/// # Errors
/// [`PaperError`] for a file that is not printed.
pub fn page(sheet: &Sheet<'_>) -> Result<String, PaperError> {
    let codes = validated(sheet.file)?;
    let figures: String = codes.iter().map(|code| figure(sheet, code)).collect::<Result<_, _>>()?;
    let (wallet, node, serial) = (&sheet.wallet, sheet.node, escaped(sheet.serial.as_str()));
    Ok(format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <title>Paper backup: {wallet}, node {node}, sheet {serial}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <h1>Custody: paper backup of an encrypted share</h1>\n{facts}\
         <h2>Codes</h2>\n<div class=\"codes\">\n{figures}</div>\n\
         <h2>How to restore</h2>\n{instructions}\
         <h2>The file as text</h2>\n<pre class=\"armour\">{armour}</pre>\n</body>\n</html>\n",
        facts = facts(sheet),
        instructions = instructions(sheet, codes.len()),
        armour = armoured(sheet.file),
    ))
}
