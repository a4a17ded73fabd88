//! What nodes said of a log, in its evidence: who recorded it, and what once branched off it.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::BTreeMap;

use ceremonies::evidence::{EvidenceError, Expected, Material, Report, VerifyError, verify};
use ceremonies::ids::{CeremonyId, Hash, UnixMillis};
use ceremonies::log::{Entry, Place};
use ceremonies::record::{Head, Lock, SignedHead, Tip};
use ceremonies::text::chain;
use ceremonies::wire::log;
use prost::Message as _;

use crate::cluster::{CHARTER, nkey, node};
use crate::evidence::{pack, unpack};
use crate::kit::Paper;
use crate::machine::NOW;
use crate::refused;

type Files = BTreeMap<String, Vec<u8>>;

/// A ceremony under way: opened, and attested by all.
fn paper() -> Paper {
    let mut paper = Paper::dkg();
    paper.attest_all();
    paper
}

fn tip(entry: &Entry) -> Tip {
    Tip { seq: entry.seq, hash: entry.hash() }
}

fn end(log: &[Entry]) -> Tip {
    tip(log.last().unwrap())
}

/// The head of a node that stands on a branch, locked on it or not, signed by somebody's key.
fn head_signed_by(key: u8, by: u8, ceremony: &CeremonyId, tip: Tip, is_locked: bool) -> SignedHead {
    let head = Head {
        cluster: CHARTER.cluster().clone(),
        ceremony: ceremony.clone(),
        node: node(by),
        round: 0,
        votes: true,
        tip,
        lock: is_locked.then_some(Lock { round: 0, tip }),
        time: NOW,
    };
    SignedHead::create(head, |message| nkey(&format!("node {key}")).sign(message)).unwrap()
}

fn locked(by: u8, paper: &Paper, tip: Tip) -> SignedHead {
    head_signed_by(by, by, &paper.log[0].ceremony, tip, true)
}

/// What the last entry of a log says, appended by another node at its place.
fn beside(log: &[Entry], by: u8) -> Entry {
    follows(log, by, by)
}

fn follows(log: &[Entry], by: u8, key: u8) -> Entry {
    let (last, rest) = log.split_last().unwrap();
    let before = rest.last().unwrap();
    let event = log::EntryBody::decode(last.raw().body.as_slice()).unwrap().event.unwrap();
    let place = Place {
        ceremony: last.ceremony.clone(),
        seq: last.seq,
        prev: before.hash(),
        time: UnixMillis(last.time.0 + 1),
        node: node(by),
    };
    let sign = |message: &[u8]| {
        nkey(&format!("node {key}")).sign(message).map_err(Box::<dyn std::error::Error>::from)
    };
    Entry::create(place, event, sign).unwrap()
}

fn report(material: &Material) -> Report {
    verify(&material.bundle().unwrap(), &Expected::default()).unwrap()
}

#[test]
fn bundle_says_which_nodes_have_recorded_its_log() {
    let paper = paper();
    let with = |heads: &[SignedHead]| {
        report(&paper.material().with_what_nodes_said(&paper.ceremony, heads.to_vec(), []))
    };
    let whole: Vec<SignedHead> = (1..=5).map(|by| locked(by, &paper, end(&paper.log))).collect();
    let recorded = with(&whole[..4]);
    assert!(recorded.recorded);
    assert_eq!(recorded.holders, "recorded by 4 of 5: nodes 1, 2, 3, 4");
    assert!(!recorded.to_string().contains("NOT SHOWN"));

    let fewer = with(&whole[2..]);
    assert!(!fewer.recorded);
    assert_eq!(fewer.holders, "held by 3 of 5: nodes 3, 4, 5; no head from nodes 1, 2");
    assert!(fewer.to_string().contains("NOT SHOWN TO BE RECORDED: held by 3 of 5"));

    // What is locked is one entry short of the log.
    let short = end(&paper.log[..paper.log.len() - 1]);
    let behind: Vec<SignedHead> = (1..=5).map(|by| locked(by, &paper, short)).collect();
    assert!(!with(&behind).recorded);
}

#[test]
fn bundle_without_heads_says_that_it_has_none() {
    let report = report(&paper().material());
    assert!(!report.recorded);
    assert_eq!(report.holders, "the bundle has no signed head from any node");
    assert!(report.to_string().contains("NOT SHOWN TO BE RECORDED"));
}

#[test]
fn bundle_shows_what_was_appended_beside_its_log_and_who_stood_there() {
    let paper = paper();
    let other = beside(&paper.log, 3);
    let mut heads: Vec<SignedHead> = [1, 2, 4, 5].map(|by| locked(by, &paper, end(&paper.log))).into();
    heads.push(head_signed_by(3, 3, &other.ceremony, tip(&other), false));
    let material = paper.material().with_what_nodes_said(&paper.ceremony, heads, [other.clone()]);
    let report = report(&material);
    assert!(report.recorded);
    let expected = format!(
        "entries {seq} to {seq} ({}), appended by node 3; node 3 stood on it",
        other.hash(),
        seq = other.seq
    );
    assert_eq!(report.branches, [expected]);
    assert!(report.to_string().contains("!!  another branch: entries"));
    assert!(unpack(&material.bundle().unwrap()).contains_key("branches.jsonl"));
}

#[test]
fn bundle_names_a_node_that_stood_on_something_it_lacks() {
    let paper = paper();
    let nowhere = Tip { seq: 2, hash: Hash::of_bytes(b"nothing that is known") };
    let heads = [locked(2, &paper, nowhere)];
    let report = report(&paper.material().with_what_nodes_said(&paper.ceremony, heads, []));
    assert!(report.branches[0].starts_with("node 2 stood at entry 2"));
    assert!(report.branches[0].ends_with("which the bundle lacks"));
}

#[test]
fn what_no_node_of_the_charter_signed_stays_out_of_a_bundle() {
    let paper = paper();
    let id = &paper.log[0].ceremony;
    let other: CeremonyId = "dkg-treasury-other".parse().unwrap();
    let heads = [
        head_signed_by(2, 1, id, end(&paper.log), true),
        head_signed_by(3, 3, &other, end(&paper.log), true),
        head_signed_by(6, 6, id, end(&paper.log), true),
    ];
    let forged = follows(&paper.log, 3, 4);
    let known = paper.log[1].clone();
    let material = paper.material().with_what_nodes_said(&paper.ceremony, heads, [forged, known]);
    assert_eq!((material.heads, material.branches), (Vec::new(), Vec::new()));
}

#[test]
fn bundle_with_a_head_or_branch_that_nobody_signed_is_refused() {
    let paper = paper();
    let id = &paper.log[0].ceremony;
    let forged =
        Material { heads: vec![head_signed_by(2, 1, id, end(&paper.log), true)], ..paper.material() };
    refused!(forged.bundle(), EvidenceError::Head(by) if by == node(1));
    let unsigned = Material { branches: vec![follows(&paper.log, 3, 4)], ..paper.material() };
    refused!(unsigned.bundle(), EvidenceError::Branch(_));
    let in_the_log = Material { branches: vec![paper.log[1].clone()], ..paper.material() };
    refused!(in_the_log.bundle(), EvidenceError::Branch(2));
    let longer = [paper.log.clone(), vec![beside(&paper.log, 3)]].concat();
    let alone = Material { branches: vec![longer[longer.len() - 1].clone()], ..paper.material() };
    let cut = Material { log: paper.log[..1].to_vec(), ..alone };
    refused!(cut.bundle(), EvidenceError::Branch(_));
}

#[test]
fn bundle_is_refused_when_what_nodes_said_was_changed() {
    let paper = paper();
    let heads: Vec<SignedHead> = (1..=4).map(|by| locked(by, &paper, end(&paper.log))).collect();
    let material = paper.material().with_what_nodes_said(&paper.ceremony, heads, [beside(&paper.log, 3)]);
    let files = unpack(&material.bundle().unwrap());
    let changed = |change: &dyn Fn(&mut Files)| {
        let mut files = files.clone();
        change(&mut files);
        verify(&pack(&files), &Expected::default())
    };
    for name in ["heads.binpb", "branches.binpb"] {
        for at in (0..files[name].len()).step_by(5) {
            let flipped = changed(&|files| files.get_mut(name).unwrap()[at] ^= 1);
            assert!(flipped.is_err(), "{name}: byte {at} can be changed");
            let said = chain(&flipped.unwrap_err());
            assert!(said.contains(name), "{name}, byte {at}: {said}");
        }
        let cut = changed(&|files| {
            let file = files.get_mut(name).unwrap();
            file.truncate(file.len() - 1);
        });
        assert!(chain(&cut.unwrap_err()).contains(name));
        let other = changed(&|files| drop(files.insert(name.to_owned(), b"hello".to_vec())));
        assert!(chain(&other.unwrap_err()).contains(name));
    }
    for name in ["heads.jsonl", "branches.jsonl"] {
        let words = changed(&|files| files.get_mut(name).unwrap().push(b'\n'));
        refused!(words, VerifyError::FileDiffers(file) if file == name);
        let missing = changed(&|files| drop(files.remove(name)));
        refused!(missing, VerifyError::FileMissing(file) if file == name);
    }
    let unfounded = changed(&|files| drop(files.remove("heads.binpb")));
    assert!(unfounded.is_err());
}
