//! Text that people sign: whatever a reader would not see is refused wherever it could enter.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use ceremonies::charter::{Charter, CharterDraft, CharterError, Role};
use ceremonies::ids::{Hash, Line};
use ceremonies::inventory::Change;
use ceremonies::manifest::Manifest;
use ceremonies::wire::log;
use prost::Message as _;

use crate::cluster::draft;
use crate::kit::Paper;

/// Characters of every refused kind, none of them in a list of ours.
const HIDDEN: [char; 14] = [
    '\u{7}',
    '\u{1b}',
    '\u{7f}',
    '\u{9d}',
    '\u{600}',
    '\u{1160}',
    '\u{17b5}',
    '\u{180c}',
    '\u{2003}',
    '\u{200f}',
    '\u{2028}',
    '\u{ffa0}',
    '\u{1d17a}',
    '\u{e007f}',
];

fn refusal(change: impl FnOnce(&mut CharterDraft)) -> String {
    let mut draft = draft();
    change(&mut draft);
    let error = Charter::parse(draft.to_toml().unwrap().as_bytes()).unwrap_err();
    ceremonies::text::chain(&error)
}

fn code(c: char) -> String {
    format!("U+{:04X}", u32::from(c))
}

#[test]
fn purpose_with_a_character_that_nobody_sees_makes_no_manifest() {
    let paper = Paper::dkg();
    let wire = log::Manifest::decode(paper.ceremony.manifest().as_bytes()).unwrap();
    assert!(Manifest::parse(&wire.encode_to_vec()).is_ok());
    for c in HIDDEN {
        let changed = log::Manifest { purpose: format!("Sweep{c} to ops"), ..wire.clone() };
        let error = Manifest::parse(&changed.encode_to_vec()).unwrap_err();
        assert!(ceremonies::text::chain(&error).contains(&code(c)), "{}: {error:?}", code(c));
    }
}

#[test]
fn charter_is_refused_when_a_field_holds_what_commands_a_terminal() {
    for c in HIDDEN {
        let text = format!("a{c}b");
        for (field, refused) in [
            ("kms.key", refusal(|draft| draft.kms.key.clone_from(&text))),
            ("kms.region", refusal(|draft| draft.kms.region.clone_from(&text))),
            ("kms.host", refusal(|draft| draft.kms.host.clone_from(&text))),
            ("comment of a key", refusal(|draft| draft.people[0].keys[0].set_comment(text.as_str()))),
        ] {
            assert!(refused.contains(&code(c)), "{field}, {}: {refused}", code(c));
        }
    }
    assert!(
        refusal(|draft| draft.kms.host = "kms.exämple.org".to_owned()).contains("kms.host contains U+00E4")
    );
}

#[test]
fn charter_is_refused_when_its_comments_hide_something() {
    let text = draft().to_toml().unwrap();
    let with = |comment: &str| Charter::parse(format!("# für 金庫\t\n# {comment}\r\n{text}").as_bytes());
    assert!(with("plain, 2\u{a0}of 3").is_ok());
    for c in ['\u{85}', '\u{200b}', '\u{202e}', '\u{feff}', '\u{e0041}'] {
        let error = with(&format!("a{c}b")).unwrap_err();
        let expected = format!("line 2 contains {}", code(c));
        assert!(matches!(&error, CharterError::Rule(rule) if rule.starts_with(&expected)), "{error:?}");
    }
}

#[test]
fn serials_names_and_recipients_are_plain_ascii_and_words_are_not() {
    let line = |text: &str| text.parse::<Line>().unwrap();
    // A Cyrillic letter that looks like a Latin one, a wide digit, a letter with an accent.
    for other in ["Ѕ-0007", "S-０007", "é-1"] {
        for change in [Change::SheetPrinted, Change::SheetDestroyed, Change::BackupDeleted] {
            let refused = change.named(line(other)).unwrap_err().to_string();
            assert!(refused.contains("plain ASCII"), "{refused}");
        }
        for change in [Change::StoreDestroyed, Change::CopyFound, Change::CopyDestroyed] {
            assert_eq!(change.named(line(other)), Ok(line(other)));
        }
    }
    assert_eq!(Change::SheetPrinted.named(line("S-0007")), Ok(line("S-0007")));
}

#[test]
fn statement_says_what_is_decided_first_and_hashes_last() {
    let mut paper = Paper::dkg();
    paper.attest_all();
    let reason: Line = "The room was not the one that was booked".parse().unwrap();
    let ceremony = &paper.ceremony;
    let withdrawal = ceremony.withdrawal(Role::Administrator, &"ada".parse().unwrap(), &reason).unwrap();
    let lines: Vec<&str> = withdrawal.lines().collect();
    assert_eq!(lines[0], "Custody ceremony statement, version 2");
    assert_eq!(lines[3], format!("verdict: withdraw, because: {reason}"));
    let is_hash = |line: &&&str| line.rsplit(' ').next().is_some_and(|word| word.parse::<Hash>().is_ok());
    let hashes = lines.iter().filter(is_hash).count();
    assert!(hashes >= 3 && lines.iter().rev().take(hashes).filter(is_hash).count() == hashes, "{withdrawal}");
    let verdict = lines.iter().filter(|line| line.starts_with("verdict")).count();
    assert_eq!(verdict, 1, "{withdrawal}");
}
