//! A backup on paper: printing a sheet, and reading it back. Offline, and without any key.

use std::io::{BufRead, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use ceremonies::ids::{ClusterId, Generation, Hash, InvalidId, Line, NodeIndex, WalletName};
use ceremonies::inventory::Change;
use ceremonies::words::spoken;
use clap::{Args, Subcommand};
use serde_json::json;

use super::{Output, note};
use crate::file::{Readers, read, write_new};
use crate::inventory::entering;
use crate::paper::{
    ArmourError, Gathering, MAX_FILE, MAX_PHOTO, ScanError, Seen, SetId, Sheet, codes, codes_in, page,
};

/// Longest typed line that is kept: a whole set whose codes a scanner separates by tabs. A pipe may never end a line.
const MAX_TYPED: usize = 64 * 1024;
/// Most bytes that are read for one sheet: many times what its codes have.
const MAX_SCANNED: u64 = 16 * 1024 * 1024;

#[derive(Subcommand)]
pub(super) enum PaperCommand {
    /// Make a printable page of a file that age encrypted.
    Print(PrintArguments),
    /// Read a sheet back from images, or as typed by a scanner or by hand.
    Scan {
        /// Photographs or scans of its codes (PNG, JPEG); without any, codes are read from standard input.
        images: Vec<PathBuf>,
        /// The file to write; an existing file is not overwritten.
        #[arg(short, value_name = "FILE")]
        output: PathBuf,
    },
}

#[derive(Args)]
pub(super) struct PrintArguments {
    /// The encrypted file, without armour.
    file: PathBuf,
    /// The cluster's name, as in the charter.
    #[arg(long, value_name = "NAME")]
    cluster_id: ClusterId,
    /// The wallet.
    #[arg(long)]
    wallet: WalletName,
    /// The generation of the wallet's shares.
    #[arg(long)]
    generation: u32,
    /// The node.
    #[arg(long)]
    node: u8,
    /// The sheet's serial, by which the ledger of copies knows it; never used twice for one wallet.
    #[arg(long, value_parser = serial)]
    serial: Line,
    /// The digest of the record that made the generation.
    #[arg(long, value_name = "HASH")]
    record: Hash,
    /// The page to write (HTML); an existing file is not overwritten.
    #[arg(short, value_name = "PAGE")]
    output: PathBuf,
}

fn serial(text: &str) -> Result<Line, InvalidId> {
    Change::SheetPrinted.named(text.parse()?)
}

pub(super) fn run(output: Output, command: PaperCommand) -> Result<()> {
    match command {
        PaperCommand::Print(arguments) => print(output, &arguments),
        PaperCommand::Scan { images, output: file } => scan(output, &images, &file),
    }
}

fn print(output: Output, arguments: &PrintArguments) -> Result<()> {
    let file = read("encrypted file", &arguments.file, MAX_FILE)?;
    let sheet = Sheet {
        cluster: arguments.cluster_id.clone(),
        wallet: arguments.wallet.clone(),
        generation: Generation(arguments.generation),
        node: NodeIndex::new(arguments.node)?,
        serial: arguments.serial.clone(),
        record: arguments.record,
        file: &file,
    };
    let refused = || format!("{} cannot be printed", arguments.file.display());
    let html = page(&sheet).with_context(refused)?;
    let count = codes(&file).with_context(refused)?.len();
    write_new(&arguments.output, html.as_bytes(), Readers::Owner)?;
    let (hash, target) = (Hash::of_bytes(&file), &arguments.output);
    let enter = entering(&sheet.wallet, sheet.generation, sheet.node, &sheet.serial);
    output.print(
        &json!({ "page": target, "bytes": file.len(), "codes": count, "set": SetId::of(&file).to_string(),
                 "sha256": hash, "words": spoken(&hash), "enter": enter }),
        &format!(
            "{} ({count} codes, set {})\nNOT CHECKED: wallet, generation, node and record are as you typed them; see that \
             `custody --json backup list` has this SHA-256 beside that node and generation\nSHA-256: {hash}\nwords: {}\nscan \
             the printed sheet once before you delete the file, then enter the sheet in an inventory:\n{enter}",
            target.display(),
            SetId::of(&file),
            spoken(&hash)
        ),
    )
}

fn scan(output: Output, images: &[PathBuf], target: &Path) -> Result<()> {
    if target.try_exists()? {
        bail!("{} already exists and is not overwritten: name another file", target.display());
    }
    let mut gathering = Gathering::default();
    if images.is_empty() {
        let mut input = std::io::stdin().lock().take(MAX_SCANNED);
        take_typed(&mut gathering, &mut input)?;
        if input.limit() == 0 {
            bail!(
                "{MAX_SCANNED} bytes were read, and no sheet came of them: this is not what a scanner types"
            );
        }
    }
    for image in images {
        match take_image(&mut gathering, image) {
            Ok(line) => note(&format!("{}: {line}", image.display())),
            Err(refused) => note(&format!("{}: {refused:#}", image.display())),
        }
    }
    let file = gathering.finish()?;
    write_new(target, &file, Readers::Owner)?;
    let hash = Hash::of_bytes(&file);
    output.print(
        &json!({ "file": target, "bytes": file.len(), "sha256": hash, "words": spoken(&hash) }),
        &format!(
            "{} ({} bytes)\nSHA-256: {hash}\nwords: {}\ncompare both with the sheet",
            target.display(),
            file.len(),
            spoken(&hash)
        ),
    )
}

fn take_image(gathering: &mut Gathering, image: &Path) -> Result<String> {
    let Seen { taken, unread } = gathering.take_image(&read("image", image, MAX_PHOTO)?)?;
    let mut parts: Vec<String> = taken.iter().map(ToString::to_string).collect();
    if unread > 0 {
        parts.push(format!("{unread} more seen, but not sharp enough to read"));
    }
    parts.push(outlook(gathering));
    Ok(parts.join("; "))
}

fn outlook(gathering: &Gathering) -> String {
    let missing: Vec<String> = gathering.missing().iter().map(u32::to_string).collect();
    if missing.is_empty() { "complete".to_owned() } else { format!("missing: {}", missing.join(", ")) }
}

/// Reads lines until the file is complete or the input ends; a refused line is asked for again.
fn take_typed(gathering: &mut Gathering, mut input: impl BufRead) -> Result<()> {
    let mut armour = None;
    while !gathering.is_complete() {
        let Some(line) = next_line(&mut input)? else { break };
        for piece in codes_in(&line) {
            match take(gathering, &mut armour, piece) {
                Ok(Some(said)) => note(&format!("{said}; {}", outlook(gathering))),
                Ok(None) => {}
                Err(refused) => note(&refused.to_string()),
            }
        }
    }
    // The text whose last line never came.
    if let Some(text) = armour.filter(|_| !gathering.is_complete())
        && let Err(refused) = gathering.take_armour(&text)
    {
        note(&refused.to_string());
    }
    Ok(())
}

/// What mail programs and editors put around a line that they quote. None of it is in a code or in armour.
const QUOTING: [char; 10] = ['>', '|', '"', '\'', '`', '“', '”', '„', '‘', '’'];

/// The character that an input method for Chinese or Japanese made full-width.
fn narrowed(c: char) -> char {
    const FULL_WIDTH: u32 = 0xfee0;
    match c {
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(u32::from(c) - FULL_WIDTH).unwrap_or(c),
        '\u{3000}' => ' ',
        c => c,
    }
}

/// The next line, whatever line ending its source uses and however it quotes. Codes and armour are ASCII: without its
/// zero bytes and its mark, UTF-16 reads the same.
fn next_line(input: &mut impl BufRead) -> Result<Option<String>> {
    let mut line = Vec::new();
    let mut is_ended = false;
    while !is_ended && line.len() < MAX_TYPED {
        let there = input.fill_buf()?;
        let end = there.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        let taken = end.map_or(there.len(), |end| end + 1).min(MAX_TYPED - line.len());
        is_ended = there.is_empty() || end.is_some_and(|end| end < taken);
        line.extend_from_slice(&there[..taken]);
        input.consume(taken);
    }
    let is_there = !line.is_empty();
    line.retain(|byte| *byte != 0);
    let text = String::from_utf8_lossy(&line);
    let text = text.trim_start_matches(['\u{feff}', char::REPLACEMENT_CHARACTER]);
    let text: String = text.chars().map(narrowed).collect();
    Ok(is_there.then(|| text.trim_matches(|c: char| c.is_whitespace() || QUOTING.contains(&c)).to_owned()))
}

/// Takes a code, or a line of armour, of which nothing is known before its last line.
fn take(
    gathering: &mut Gathering,
    armour: &mut Option<String>,
    line: &str,
) -> Result<Option<String>, ScanError> {
    if line.trim().is_empty() {
        return Ok(None);
    }
    let begins = line.trim().starts_with("-----BEGIN");
    if armour.is_none() && !begins && line.contains("AGE ENCRYPTED FILE") {
        return Err(ArmourError::Frame.into());
    }
    if begins {
        *armour = Some(String::new());
    }
    let Some(mut text) = armour.take() else { return gathering.take_line(line).map(|t| Some(t.to_string())) };
    text += line.trim_end();
    text.push('\n');
    if line.trim().starts_with("-----END") || text.len() > 4 * MAX_FILE {
        return gathering.take_armour(&text).map(|set| Some(format!("the text of set {set}")));
    }
    *armour = Some(text);
    Ok(None)
}
