//! Test signatures: which count, and when a signer set has failed.
#![expect(clippy::wildcard_enum_match_arm, reason = "a test looks at the variants that it is about")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::sync::Arc;

use ceremonies::ceremony::{Context, Duty, MAX_ATTEMPTS, Phase, Rejection, StepState};
use ceremonies::charter::{Charter, Role};
use ceremonies::ids::Hash;
use ceremonies::log::TestSigned;
use ceremonies::subsets::{Subset, subsets};

use crate::cluster::{CHARTER, context, node};
use crate::keys::{OTHER_SHARING, SHARING, high};
use crate::kit::Paper;
use crate::refused;

/// A wallet ready to test-sign, the signer set that is due, and its first member.
fn due() -> (Paper, Subset, u8) {
    let paper = Paper::read_back();
    let subset = paper.ceremony.due_subset().unwrap();
    let by = subset.parties()[0].get();
    (paper, subset, by)
}

fn waiting_for(paper: &Paper) -> String {
    match paper.ceremony.step_state(paper.ceremony.current_step().unwrap()) {
        StepState::Open { waiting_for } => waiting_for,
        other => panic!("{other:?}"),
    }
}

#[test]
fn test_signature_counts_when_all_its_signers_report_it() {
    let (mut paper, subset, _) = due();
    for (place, party) in subset.parties().iter().enumerate() {
        assert!(paper.ceremony.tests().iter().all(|test| !test.is_complete()), "after {place}");
        let keys = paper.enclaves[&party.get()].keys();
        let duty = Duty::TestSign { subset: subset.clone(), attempt: 1, input: 0 };
        assert_eq!(paper.ceremony.duty(*party, &keys, paper.now), Some(duty));
        paper.test_sign(party.get(), &subset, 1).unwrap();
    }
    assert!(paper.ceremony.tests()[0].is_complete());
    assert_ne!(paper.ceremony.due_subset(), Some(subset));
}

#[test]
fn test_signature_is_refused_before_its_step() {
    let mut paper = Paper::committed();
    let subset = paper.ceremony.cover()[0].clone();
    let by = subset.parties()[0].get();
    refused!(paper.test_sign(by, &subset, 1), Rejection::NotDue(_));
    refused!(paper.abort(by, &subset, 1), Rejection::NotDue(_));
    refused!(paper.fault(by), Rejection::NotDue(_));
}

#[test]
fn test_signature_is_refused_of_a_group_or_member_that_is_not_due() {
    let (mut paper, subset, _) = due();
    let cover = paper.ceremony.cover().to_vec();
    let roster = paper.ceremony.manifest().roster.clone();
    for size in 2..=5 {
        for other in subsets(&roster, size).filter(|other| !cover.contains(other)) {
            let by = other.parties()[0].get();
            refused!(paper.test_sign(by, &other, 1), Rejection::NotDue(_));
        }
    }
    let outsider = roster.iter().find(|party| !subset.contains(**party)).unwrap().get();
    refused!(paper.test_sign(outsider, &subset, 1), Rejection::NotDue(_));
}

#[test]
fn test_signature_is_refused_of_an_attempt_that_is_not_due() {
    let (mut paper, subset, by) = due();
    for attempt in [0, 2, MAX_ATTEMPTS, u32::MAX] {
        refused!(paper.test_sign(by, &subset, attempt), Rejection::NotDue(_));
        refused!(paper.abort(by, &subset, attempt), Rejection::NotDue(_));
    }
}

#[test]
fn test_signature_is_refused_when_it_does_not_verify_for_this_group_and_attempt() {
    let (mut paper, subset, by) = due();
    let right = paper.test_signature(by, &subset, 1);
    let digest = ceremonies::ceremony::test_digest(
        &paper.manifest_hash(),
        &paper.ceremony.record().unwrap().digest(),
        &subset,
        1,
    );
    let (r, s, _) = OTHER_SHARING.ecdsa(&digest);
    let others = paper.ceremony.cover();
    let other_group = paper.test_signature(by, &others[1], 1);
    let other_attempt = paper.test_signature(by, &subset, 2);
    for (r, s) in [
        (r, s),
        (right.r, high(&right.s)),
        (other_group.r, other_group.s),
        (other_attempt.r, other_attempt.s),
        (right.s, right.r),
        ([0; 32], right.s),
        (right.r, [0; 32]),
        ([0xff; 32], [0xff; 32]),
    ] {
        refused!(paper.report(&TestSigned { r, s, ..right.clone() }), Rejection::TestSignature);
    }
    paper.report(&right).unwrap();
}

#[test]
fn test_signature_is_refused_when_reported_twice_or_differently() {
    let (mut paper, subset, by) = due();
    paper.test_sign(by, &subset, 1).unwrap();
    refused!(paper.test_sign(by, &subset, 1), Rejection::SaidAlready(_));
    let second = paper.test_signature(subset.parties()[1].get(), &subset, 1);
    let session = Hash::of_bytes(b"another session");
    refused!(paper.report(&TestSigned { session, ..second.clone() }), Rejection::TestDiffers);
    // As good a signature of the same digest, made with another nonce.
    let (r, s, recovery_id) = SHARING.ecdsa_again(&paper.ceremony.tests()[0].digest);
    refused!(paper.report(&TestSigned { r, s, recovery_id, ..second.clone() }), Rejection::TestDiffers);
    paper.report(&second).unwrap();
}

#[test]
fn test_signature_is_refused_with_a_recovery_id_that_gives_another_key() {
    let (mut paper, subset, by) = due();
    let right = paper.test_signature(by, &subset, 1);
    for recovery_id in (0..4).filter(|id| *id != right.recovery_id) {
        refused!(paper.report(&TestSigned { recovery_id, ..right.clone() }), Rejection::TestSignature);
    }
}

#[test]
fn test_signature_is_refused_when_another_enclave_vouches_for_it() {
    let (mut paper, subset, by) = due();
    let other = paper.enclaves[&subset.parties()[1].get()].clone();
    paper.enclaves.insert(by, other);
    refused!(paper.test_sign(by, &subset, 1), Rejection::EnclaveSignature(_));
}

#[test]
fn failure_makes_a_new_attempt_due() {
    let (mut paper, subset, by) = due();
    let second = subset.parties()[1].get();
    paper.test_sign(by, &subset, 1).unwrap();
    paper.abort(second, &subset, 1).unwrap();
    assert_eq!(paper.ceremony.attempt(&subset), 2);
    refused!(paper.abort(second, &subset, 1), Rejection::SaidAlready(_));
    paper.fault(by).unwrap();
    assert_eq!(paper.ceremony.attempt(&subset), 3);
    assert_eq!(paper.ceremony.phase(), Phase::Committed);
    for party in subset.parties() {
        paper.test_sign(party.get(), &subset, 3).unwrap();
    }
    assert_ne!(paper.ceremony.due_subset(), Some(subset));
    paper.finish();
    assert_eq!(paper.ceremony.phase(), Phase::Closed);
}

#[test]
fn group_is_hopeless_after_its_last_attempt() {
    let (mut paper, subset, by) = due();
    for attempt in 1..=MAX_ATTEMPTS {
        assert!(!paper.ceremony.is_hopeless(&subset));
        paper.abort(by, &subset, attempt).unwrap();
    }
    assert!(paper.ceremony.is_hopeless(&subset));
    let keys = paper.enclaves[&by].keys();
    assert_eq!(paper.ceremony.duty(node(by), &keys, paper.now), None);
    assert!(waiting_for(&paper).contains("failed for good"));
    refused!(paper.test_sign(by, &subset, MAX_ATTEMPTS + 1), Rejection::NotDue(_));
    refused!(paper.abort(by, &subset, MAX_ATTEMPTS + 1), Rejection::NotDue(_));
    refused!(paper.fault(by), Rejection::NotDue(_));
}

#[test]
fn ban_makes_the_groups_of_both_hopeless() {
    let (mut paper, subset, by) = due();
    let peer = subset.parties()[1];
    paper.abort_banning(by, &subset, 1, Some(peer.get())).unwrap();
    assert!(paper.ceremony.bans().contains(&(node(by), peer)));
    for group in paper.ceremony.cover() {
        let both = group.contains(node(by)) && group.contains(peer);
        assert_eq!(paper.ceremony.is_hopeless(group), both, "{group}");
    }
    for party in subset.parties() {
        let keys = paper.enclaves[&party.get()].keys();
        assert_eq!(paper.ceremony.duty(*party, &keys, paper.now), None);
    }
    assert!(waiting_for(&paper).contains("failed for good"));
}

#[test]
fn ban_of_a_stranger_is_refused() {
    let (mut paper, subset, by) = due();
    refused!(paper.abort_banning(by, &subset, 1, Some(6)), Rejection::NoSuchNode(_));
}

#[test]
fn failure_makes_a_new_attempt_due_where_all_nodes_sign() {
    let charter =
        CHARTER.text().replace("threshold = 3", "threshold = 5").replace("operator = 3", "operator = 5");
    let charter = Arc::new(Charter::parse(charter.as_bytes()).unwrap());
    let context = Context::new(charter, context().root().clone()).unwrap();
    let mut paper = Paper::dkg_under(context);
    paper.attest_all();
    paper.approve_all();
    paper.approve("both", Role::Operator).unwrap();
    paper.approve("hanna", Role::Operator).unwrap();
    paper.prepare_all();
    let everyone = paper.ceremony.cover()[0].clone();
    refused!(paper.abort(1, &everyone, 1), Rejection::PreparedAndAborted(_));
    paper.adopt_all();
    paper.read_words_back();

    assert_eq!(paper.ceremony.due_subset(), Some(everyone.clone()));
    paper.abort(1, &everyone, 1).unwrap();
    assert_eq!(paper.ceremony.attempt(&everyone), 2);
    paper.finish();
    assert_eq!(paper.ceremony.phase(), Phase::Closed);
}
