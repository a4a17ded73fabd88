//! What runbooks quote of the programs, in italics or as the bold beginning of a paragraph, is what the programs say.

use std::fs;
use std::path::{Path, PathBuf};

/// The fewest quotations that there are: a test that finds none would hold nothing.
const SOME: usize = 80;

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn files(folder: &Path, ends: &[&str]) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let is_wanted =
        |path: &PathBuf| path.extension().is_some_and(|end| ends.iter().any(|wanted| end == *wanted));
    let files = files.into_iter().filter(is_wanted);
    files.chain(folders.iter().flat_map(|folder| self::files(folder, ends))).collect()
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// All that the programs and scripts can say, with what else is in their sources. A literal that goes on in the next line
/// is whole.
fn said() -> String {
    let rooms =
        ["console/src", "ceremonies/src", "ceremonies/scripts", "node/src", "enclave/src", "enclave/link"];
    let sources = rooms.iter().flat_map(|room| files(&workspace().join(room), &["rs", "toml"]));
    let texts = sources.map(|file| {
        let text = fs::read_to_string(&file).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let whole = lines.iter().map(|line| {
            line.strip_suffix('\\')
                .map_or_else(|| format!("{} ", line.trim()), |goes_on| goes_on.trim_start().to_owned())
        });
        one_line(&whole.collect::<String>())
    });
    texts.collect::<Vec<_>>().join("\n")
}

/// A text without its code.
fn without_code(text: &str) -> String {
    text.split('`').step_by(2).collect()
}

/// What a paragraph quotes: the code in what is bold, and what is in italics.
fn quotations(paragraph: &str) -> Vec<String> {
    let mut quoted = Vec::new();
    for (place, part) in paragraph.split("**").enumerate() {
        if place % 2 == 1 {
            quoted.extend(part.split('`').skip(1).step_by(2).map(one_line));
        } else {
            quoted.extend(without_code(part).split('*').skip(1).step_by(2).map(one_line));
        }
    }
    quoted
}

/// The parts of a quotation between what differs from case to case: names, numbers, marks.
fn parts(quoted: &str) -> Vec<Vec<&str>> {
    let mut parts = vec![Vec::new()];
    for word in quoted.split(' ') {
        let bare = word.trim_matches([',', ';', '.', ':']);
        let differs = !bare.chars().any(char::is_alphabetic)
            || bare.contains('…')
            || bare.chars().any(|c| c.is_ascii_digit())
            || ["node", "nodes", "s", "treasury"].contains(&bare);
        let ends = word.ends_with([',', ';', '.', ':']);
        if !differs && let Some(part) = parts.last_mut() {
            part.push(bare);
        }
        if differs || ends {
            parts.push(Vec::new());
        }
    }
    parts.retain(|part| part.len() > 1);
    parts
}

/// Whether programs say it: all of it, or all but its last word, which may begin what differs.
fn is_said(part: &[&str], said: &str) -> bool {
    let all_but_one = &part[..part.len() - 1];
    said.contains(&part.join(" ")) || (all_but_one.len() > 2 && said.contains(&all_but_one.join(" ")))
}

#[test]
fn what_runbooks_quote_of_the_programs_is_what_those_say() {
    let said = said();
    let mut count = 0;
    let mut strange = Vec::new();
    for runbook in files(&workspace().join("runbooks"), &["md"]) {
        let text = fs::read_to_string(&runbook).unwrap();
        // What is indented is a file or a command.
        for quoted in text.split("\n\n").filter(|part| !part.starts_with("    ")).flat_map(quotations) {
            count += 1;
            let wrong = parts(&quoted).into_iter().filter(|part| !is_said(part, &said));
            strange.extend(wrong.map(|part| format!("{}: `{quoted}`: {part:?}", runbook.display())));
        }
    }
    assert!(count > SOME, "{count}");
    assert!(strange.is_empty(), "no program says this:\n{}", strange.join("\n"));
}

#[test]
fn quotation_that_differs_from_what_programs_say_is_found() {
    let said = said();
    for (quoted, is_right) in [
        ("attestation of node 3", true),
        ("adoption by node 3", true),
        ("adoption from node 3", false),
        ("does not take the transaction", false),
        ("not known: no node has been heard for 12 s", true),
        ("not known: no node was ever heard for 12 s", false),
    ] {
        assert_eq!(parts(quoted).iter().all(|part| is_said(part, &said)), is_right, "{quoted}");
    }
    assert_eq!(quotations("**`a b`, or `c`.** See *d\n e* and `f*g`, `*`."), ["a b", "c", "d e"]);
}
