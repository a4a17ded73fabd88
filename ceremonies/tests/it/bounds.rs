//! How much one node, or one person, can put into a ceremony's log.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use ceremonies::ceremony::{MAX_APPENDED, MAX_ATTEMPTS, MAX_ATTESTATIONS, MAX_RELEASES, Rejection};
use ceremonies::charter::Role;
use ceremonies::ids::Hash;
use ceremonies::log::{Entry, EntryError, MAX_ENTRY, MAX_SEQ};
use ceremonies::statement::{Answer, Release};
use ceremonies::wire::log;
use prost::Message as _;

use crate::cluster::{BACKED, context_of, nkey, node};
use crate::kit::Paper;
use crate::refused;

#[test]
fn attestations_of_one_node_come_to_an_end() {
    let mut paper = Paper::dkg();
    for _ in 0..MAX_ATTESTATIONS {
        paper.restart(1).unwrap();
    }
    refused!(paper.restart(1), Rejection::TooManyAttestations(by) if by == node(1));
    let fresh = crate::keys::Enclave::new("one more").keys();
    assert_eq!(
        paper.ceremony.duty(node(1), &fresh, paper.now),
        None,
        "nothing is asked for that is not taken"
    );
    paper.attest(2).unwrap();
}

#[test]
fn entry_at_a_place_that_no_log_reaches_is_refused_before_anybody_counts_on() {
    let paper = Paper::dkg();
    let raw = paper.log.last().unwrap().raw();
    let at = |seq: u64| {
        let mut body = log::EntryBody::decode(raw.body.as_slice()).unwrap();
        body.seq = seq;
        Entry::from_wire(log::Entry { body: body.encode_to_vec(), signature: raw.signature.clone() })
    };
    assert_eq!(at(MAX_SEQ).unwrap().seq, MAX_SEQ);
    for seq in [MAX_SEQ + 1, u64::MAX - 1, u64::MAX] {
        assert!(matches!(at(seq), Err(EntryError::Value(_))), "{seq}");
    }
}

/// Bytes in a field that nobody knows: readers pass over them, and they are signed and hashed like all others.
fn padded(paper: &Paper, entry: &Entry, length: usize) -> Entry {
    let mut body = entry.raw().body.clone();
    prost::encoding::bytes::encode(1000, &vec![0; length], &mut body);
    let message = Hash::of_parts("custody/entry-author/v1", &[&body]);
    let signature = nkey(&format!("node {}", entry.node)).sign(message.as_bytes()).unwrap();
    let padded = Entry::from_wire(log::Entry { body, signature }).unwrap();
    assert_eq!(padded.prev, paper.ceremony.head().hash);
    padded
}

#[test]
fn bytes_that_one_node_appends_come_to_an_end_and_others_go_on() {
    let mut paper = Paper::dkg();
    let long = MAX_ENTRY - 8 * 1024;
    let mut appended = 0;
    loop {
        let mut twin = paper.clone();
        twin.restart(5).unwrap();
        let entry = padded(&paper, twin.log.last().unwrap(), long);
        if appended + entry.size() > MAX_APPENDED {
            refused!(paper.take(entry), Rejection::TooMuch(by) if by == node(5));
            break;
        }
        appended += entry.size();
        paper.now = twin.now;
        paper.enclaves = twin.enclaves;
        paper.take(entry).unwrap();
    }
    assert!(appended > MAX_APPENDED - MAX_ENTRY);
    for by in 1..=4 {
        paper.attest(by).unwrap();
    }
    let bytes: usize = paper.log.iter().map(Entry::size).sum();
    assert!(bytes < MAX_APPENDED + 64 * 1024);
}

#[test]
fn honest_node_that_appends_everything_stays_far_below_the_bound() {
    let paper = Paper::backed_up();
    let bytes: usize = paper.log.iter().map(Entry::size).sum();
    assert!(bytes < MAX_APPENDED / 2, "{bytes}");
}

#[test]
fn releases_of_one_backup_come_to_an_end() {
    let mut paper = Paper::dkg_under(context_of(&BACKED)).authorise();
    paper.prepare_all();
    paper.adopt_all();
    paper.read_words_back();
    paper.test_sign_all();
    paper.back_up_all();
    let mut release = |number: usize, to: u8| {
        let release = Release {
            node: node(to),
            object: paper.written(to),
            sealed: vec![u8::try_from(number).unwrap(); 64],
        };
        paper.sign("prove", "cora", Role::Custodian, Answer::Release(release))
    };
    for number in 0..MAX_RELEASES {
        release(number, 1).unwrap();
    }
    refused!(release(MAX_RELEASES, 1), Rejection::TooManyReleases(of) if of == node(1));
    release(0, 2).unwrap();
}

#[test]
fn faults_and_aborts_of_one_node_come_to_an_end() {
    let mut paper = Paper::closed().test_signing().authorise();
    let tries = (0..100).take_while(|_| paper.fault(1).is_ok()).count();
    assert_eq!(tries, usize::try_from(MAX_ATTEMPTS).unwrap());
    let subset = paper.ceremony.cover()[0].clone();
    for attempt in 1..=MAX_ATTEMPTS {
        refused!(paper.abort(1, &subset, attempt), Rejection::SaidAlready(_));
    }
    let mut void = Paper::authorised();
    void.fault(1).unwrap();
    refused!(void.fault(1), Rejection::Over(_));
}
