//! What people enter in the ledger of copies, and how its lines look.

use std::process::Command;

use ceremonies::book::{Copy, Exposure, Place};
use ceremonies::ids::{Generation, Line, NodeIndex, UnixMillis};
use ceremonies::inventory::{Change, Item};
use ceremonies::manifest::Subject;
use clap::{Args as _, FromArgMatches as _, Parser as _};
use console::cli::Arguments;
use console::inventory::{Entries, entering};
use console::ledger::rows;
use console::room::{LIFETIME_MS, Opening, prepare};

fn node(index: u8) -> NodeIndex {
    NodeIndex::new(index).unwrap()
}

fn line(text: &str) -> Line {
    text.parse().unwrap()
}

fn parsed(arguments: &[&str]) -> Result<Entries, clap::Error> {
    let command = Entries::augment_args(clap::Command::new("inventory").no_binary_name(true));
    Entries::from_arg_matches(&command.try_get_matches_from(arguments)?)
}

#[test]
fn command_that_enters_a_sheet_is_one_that_the_console_takes_whatever_its_serial() {
    for serial in ["S-0007", "box 4", "it's", "$(rm -rf)", "`a`", "a\"b\\", "-x", "a*b"] {
        let command = entering(&"treasury".parse().unwrap(), Generation(2), node(4), &line(serial));
        let print = format!("for a in {command}; do printf '%s\\0' \"$a\"; done");
        let words = Command::new("sh").args(["-c", &print]).output().unwrap().stdout;
        let words = String::from_utf8(words).unwrap();
        let words: Vec<&str> = words.trim_end_matches('\0').split('\0').collect();
        assert!(words.contains(&format!("4={serial}").as_str()), "{command}");
        assert!(Arguments::try_parse_from(&words).is_ok(), "{command}");
    }
}

#[test]
fn items_without_node_text_or_generation_are_refused() {
    assert!(!parsed(&["--generation", "1", "--sheet", "1=S-1", "--sheet", "2=a=b"]).unwrap().is_empty());
    assert!(parsed(&[]).unwrap().is_empty());
    for wrong in [
        &["--sheet", "1=S-1"][..],
        &["--generation", "1", "--sheet", "S-1"],
        &["--generation", "1", "--sheet", "0=S-1"],
        &["--generation", "1", "--found", "256=disk"],
        &["--generation", "1", "--found", "2="],
        &["--generation", "1", "--store-destroyed", "one=disk"],
        &["--generation", "1", "--backup-deleted", "1=a\nb"],
        &["--generation", "1", "--sheet", "1=été"],
        &["--generation", "one", "--sheet", "1=S-1"],
        &["--identity-destroyed", "age1x"],
        &["--made-by", "dkg-treasury-00000000"],
    ] {
        assert!(parsed(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn inventory_names_the_one_ceremony_that_made_its_generation() {
    let book = crate::model(56).book;
    let about = |arguments: &[&str]| {
        let topic = parsed(arguments).unwrap().topic(&book, "treasury".parse().unwrap());
        topic.map_err(|error| error.to_string())
    };
    let named = about(&["--generation", "1", "--sheet-destroyed", "2=S-2", "--sheet", "1=S-1"]).unwrap();
    let item = |change, index, what| Item::Copy { node: node(index), change, what: line(what) };
    let expected = [item(Change::SheetPrinted, 1, "S-1"), item(Change::SheetDestroyed, 2, "S-2")];
    let made = book.wallet(&"treasury".parse().unwrap()).unwrap().record;
    assert!(
        matches!((&named.subject, &named.past), (Subject::Copies(items), Some((_, origin)))
            if *items == expected && origin.ceremony == made.ceremony && origin.record == made.digest()),
        "{named:?}"
    );
    for wrong in [&["--generation", "2"][..], &["--generation", "1", "--made-by", "dkg-treasury-00000000"]] {
        assert!(about(wrong).unwrap_err().starts_with("no ceremony made generation"), "{wrong:?}");
    }
    assert!(about(&[]).unwrap_err().contains("as in --generation"));
}

#[test]
fn store_from_which_a_node_signs_is_not_entered_as_destroyed() {
    let book = crate::model(56).book;
    let opened = |item: &[&str]| {
        let entries = parsed(&[&["--generation", "1"], item].concat()).unwrap();
        let opening = Opening {
            topic: entries.topic(&book, "treasury".parse().unwrap()).unwrap(),
            purpose: line("A test"),
            administrator: "administrator-1".parse().unwrap(),
            lifetime_ms: LIFETIME_MS,
        };
        prepare(&book, &opening).map_err(|error| error.to_string())
    };
    for items in
        [&["--store-destroyed", "3=a disk"][..], &["--found", "1=a disk", "--store-destroyed", "3=it"]]
    {
        let refused = opened(items).unwrap_err();
        assert!(refused.starts_with("node 3's store cannot be entered as destroyed"), "{refused}");
        assert!(refused.contains("open recover --wallet treasury --lost 3`"), "{refused}");
    }
    assert!(opened(&["--found", "3=a disk"]).is_ok());
    let nobody = opened(&["--store-destroyed", "7=a disk"]).unwrap_err();
    assert!(!nobody.contains("recover"), "{nobody}");
}

#[test]
fn copies_that_are_gone_stay_in_the_list_with_a_mark_and_the_inventory_that_says_so() {
    let at = UnixMillis(1_800_000_000_000);
    let copy = |index, place| Copy { node: node(index), place, released: None, destroyed: None };
    let by = || Some("inventory-treasury-0a1b2c3d".parse().unwrap());
    let backup = |index, until| {
        copy(index, Place::Backup { key: line(&format!("k{index}")), locked_until: UnixMillis(until) })
    };
    let mut exposure = Exposure {
        generation: Generation(1),
        ceremony: "dkg-treasury-00000001".parse().unwrap(),
        current: false,
        threshold: 3,
        copies: vec![
            copy(1, Place::Store),
            Copy { destroyed: by(), ..copy(2, Place::Sheet { serial: line("S-2") }) },
            copy(3, Place::Sheet { serial: line("S-3") }),
            copy(4, Place::Found { what: line("stolen laptop") }),
            Copy { released: "recover-treasury-00000002".parse().ok(), ..backup(5, at.0 + 1000) },
            Copy { destroyed: by(), released: "recover-treasury-00000002".parse().ok(), ..backup(1, at.0) },
            backup(2, at.0),
        ],
    };
    let told = |exposure: &Exposure| -> Vec<String> {
        rows(exposure, at)
            .into_iter()
            .map(|row| format!("{}{}", u8::from(row.crossed_out), row.text))
            .collect()
    };
    assert_eq!(
        told(&exposure),
        [
            "0generation 1: copies of the shares of 4 nodes; 3 rebuild the key  !! WARNING",
            "0  does not clear by itself: finish the ceremony that retires the stores; destroy sheets and found \
             copies, and enter that in an inventory",
            "0  node 1 store",
            "1x node 2 sheet S-2: destroyed in inventory-treasury-0a1b2c3d",
            "0  node 3 sheet S-3",
            "0  node 4 found: stolen laptop",
            "0  node 5 backup k5: locked until 2027-01-15T08:00:01Z; released in recover-treasury-00000002",
            "1x node 1 backup k1: destroyed in inventory-treasury-0a1b2c3d; released in recover-treasury-00000002",
            "0  node 2 backup k2: lock ended at 2027-01-15T08:00:00Z, delete it",
        ]
    );
    exposure.copies[3].destroyed = by();
    assert!(told(&exposure)[1].starts_with("0  clears at 2027-01-15T08:00:01Z"), "{:?}", told(&exposure));
}
