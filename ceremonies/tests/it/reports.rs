//! What enclaves and agents report: attestations, results, adoptions, aborts and faults.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use ceremonies::attestation::AttestationError;
use ceremonies::ceremony::{Duty, Phase, Rejection, Void};
use ceremonies::charter::Role;
use ceremonies::ids::UnixMillis;
use ceremonies::wire::log::{self, event::Kind};
use ciborium::Value;

use crate::cluster::{MAX_AGE_S, group, node};
use crate::keys::{Enclave, OTHER_SHARING, SHARING};
use crate::kit::{MINUTE, Paper};
use crate::machine::MACHINE;
use crate::refused;

fn everyone() -> ceremonies::subsets::Subset {
    group(&[1, 2, 3, 4, 5])
}

/// This enclave's document, with PCRs that a function of their index gives.
fn document_with(paper: &Paper, pcr: impl Fn(u8) -> u8) -> Vec<u8> {
    let keys = paper.enclaves[&1].keys();
    let mut payload = MACHINE.payload(paper.manifest_hash().as_bytes(), paper.now, &keys);
    let pcrs = (0..16).map(|index| (Value::from(index), Value::Bytes(vec![pcr(index); 48])));
    payload[3].1 = Value::Map(pcrs.collect());
    MACHINE.sign(&Value::Map(payload))
}

#[test]
fn attestation_is_refused_when_made_for_another_ceremony() {
    let (mut paper, other) = (Paper::dkg(), Paper::dkg_with(9));
    let document = other.document(&paper.enclaves[&1]);
    refused!(
        paper.attest_as(1, document),
        Rejection::Attestation { source: AttestationError::Nonce { .. }, .. }
    );
}

#[test]
fn attestation_is_refused_when_stale_and_taken_just_before() {
    let age = i64::from(MAX_AGE_S) * 1000;
    let mut paper = Paper::dkg();
    let document = paper.document(&paper.enclaves[&1]);
    let mut late = paper.clone();
    late.now = late.now.plus(age);
    refused!(
        late.attest_as(1, document.clone()),
        Rejection::Attestation { source: AttestationError::Stale { .. }, .. }
    );
    paper.now = paper.now.plus(age - 1000);
    paper.attest_as(1, document).unwrap();
}

#[test]
fn attestation_is_refused_in_debug_mode_and_of_another_image() {
    let mut paper = Paper::dkg();
    let zero = document_with(&paper, |_| 0);
    refused!(paper.attest_as(1, zero), Rejection::Attestation { source: AttestationError::Debug(0), .. });
    let other = document_with(&paper, |index| if index == 2 { 99 } else { index + 1 });
    refused!(
        paper.attest_as(1, other),
        Rejection::Attestation { source: AttestationError::Measurement { pcr: 2, .. }, .. }
    );
    let right = document_with(&paper, |index| index + 1);
    paper.attest_as(1, right).unwrap();
}

#[test]
fn attestation_is_refused_with_keys_that_another_node_has_shown() {
    let mut paper = Paper::dkg();
    paper.attest(1).unwrap();
    let first = paper.enclaves[&1].clone();
    let copies = [first.clone(), paper.enclaves[&2].with_sealing_of(&first), {
        first.with_sealing_of(&paper.enclaves[&2])
    }];
    for copy in copies {
        let document = paper.document(&copy);
        refused!(paper.attest_as(2, document), Rejection::SharedKeys { other, .. } if other == node(1));
    }
    refused!(paper.attest(1), Rejection::AttestedAlready(_));
}

#[test]
fn agent_is_refused_when_it_speaks_for_another_node() {
    let mut paper = Paper::authorised();
    let document = paper.document(&Enclave::new("fresh"));
    let attested = Kind::Attested(log::Attested { node: 2, document });
    refused!(paper.append(1, attested), Rejection::SpeaksForAnother { .. });
    let faulted = Kind::Faulted(log::Faulted { node: 2, reason: "power cut".into() });
    refused!(paper.append(1, faulted), Rejection::SpeaksForAnother { .. });
    paper.prepare_all();
    let record = paper.ceremony.record().unwrap().digest().as_bytes().to_vec();
    let adopted = Kind::Adopted(log::Adopted { node: 2, record });
    refused!(paper.append(1, adopted), Rejection::SpeaksForAnother { .. });
}

#[test]
fn report_is_refused_of_a_node_outside_the_ceremony() {
    let mut paper = Paper::authorised();
    let faulted = Kind::Faulted(log::Faulted { node: 6, reason: "power cut".into() });
    refused!(paper.append(1, faulted), Rejection::NoSuchNode(other) if other == node(6));
}

#[test]
fn enclave_may_be_replaced_before_people_sign_for_it() {
    let mut paper = Paper::dkg();
    paper.attest_all();
    let before = paper.ceremony.approved_or_current_enclaves();
    paper.restart(3).unwrap();
    assert_ne!(paper.ceremony.approved_or_current_enclaves(), before);
    assert_eq!(paper.ceremony.enclaves()[&node(3)].keys, paper.enclaves[&3].keys());
    paper.approve_all();
    paper.prepare_all();
    assert_eq!(paper.ceremony.phase(), Phase::Committed);
}

#[test]
fn replaced_enclave_voids_what_people_signed_for() {
    let mut confirmed = Paper::dkg();
    confirmed.attest_all();
    confirmed.confirm();
    for mut paper in [confirmed, Paper::authorised()] {
        paper.restart(3).unwrap();
        assert_eq!(paper.ceremony.phase(), Phase::Void(Void::Replaced(node(3))));
        refused!(paper.approve("hanna", Role::Operator), Rejection::Over(_));
        refused!(paper.attest(4), Rejection::Over(_));
        assert!(!paper.ceremony.can_never_commit());
    }
}

#[test]
fn enclave_may_be_replaced_after_the_commit() {
    let mut paper = Paper::committed();
    paper.restart(3).unwrap();
    assert_eq!(paper.ceremony.phase(), Phase::Committed);
    paper.adopt_all();
    paper.read_words_back();
    paper.finish();
    assert_eq!(paper.ceremony.phase(), Phase::Closed);
}

#[test]
fn result_is_refused_when_for_anything_else_than_was_approved() {
    let mut paper = Paper::authorised();
    let right = paper.record(&SHARING);
    let changes: [fn(&mut log::GenerationRecord); 8] = [
        |record| record.cluster = "other".into(),
        |record| record.ceremony = "dkg-other-00000000".into(),
        |record| record.manifest = vec![9; 32],
        |record| record.wallet = "other".into(),
        |record| record.generation = 2,
        |record| record.threshold = 4,
        |record| record.enclaves = vec![9; 32],
        |record| drop(record.public_shares.pop()),
    ];
    for change in changes {
        let mut record = right.clone();
        change(&mut record);
        refused!(paper.prepare_with(1, &record), Rejection::OtherRecord(_));
    }
    paper.prepare_with(1, &right).unwrap();
    refused!(paper.prepare_with(1, &right), Rejection::SaidAlready(_));
}

#[test]
fn result_is_refused_when_not_signed_by_the_attested_enclave() {
    let mut paper = Paper::authorised();
    let known = paper.enclaves.clone();
    for impostor in [known[&2].clone(), Enclave::new("unknown")] {
        paper.enclaves.insert(1, impostor);
        refused!(paper.prepare(1), Rejection::EnclaveSignature(_));
        refused!(paper.abort(1, &everyone(), 1), Rejection::EnclaveSignature(_));
    }
    let mut early = Paper::dkg();
    refused!(early.prepare(1), Rejection::NotAttested(_));
}

#[test]
fn enclave_that_signed_a_result_and_an_abort_is_refused_in_either_order() {
    let mut paper = Paper::authorised();
    paper.prepare(1).unwrap();
    refused!(paper.abort(1, &everyone(), 1), Rejection::PreparedAndAborted(_));
    assert_eq!(paper.ceremony.phase(), Phase::Authorised);

    let mut paper = Paper::authorised();
    paper.abort(1, &everyone(), 1).unwrap();
    refused!(paper.prepare(1), Rejection::PreparedAndAborted(_));
    refused!(paper.abort(1, &everyone(), 1), Rejection::SaidAlready(_));
    for by in 2..=5 {
        paper.prepare(by).unwrap();
    }
    assert!(matches!(paper.ceremony.phase(), Phase::Void(Void::Aborted { .. })));
    assert!(paper.ceremony.can_never_commit());
    assert_eq!(paper.ceremony.committed(), None);
}

#[test]
fn results_of_all_beat_fault_withdrawal_and_expiry() {
    let mut faulted = Paper::authorised();
    faulted.prepare(1).unwrap();
    faulted.fault(1).unwrap();
    assert!(matches!(faulted.ceremony.phase(), Phase::Void(Void::Faulted { .. })));
    refused!(faulted.fault(2), Rejection::Over(_));

    let mut withdrawn = Paper::authorised();
    withdrawn.prepare(1).unwrap();
    withdrawn.withdraw("ada", Role::Administrator).unwrap();
    assert!(matches!(withdrawn.ceremony.phase(), Phase::Void(Void::Withdrawn { .. })));

    let mut expired = Paper::authorised();
    expired.prepare(1).unwrap();
    expired.now = expired.ceremony.manifest().expires.plus(MINUTE);
    assert_eq!(expired.ceremony.phase_at(expired.now), Phase::Void(Void::Expired));

    for mut paper in [faulted, withdrawn, expired] {
        for by in 2..=5 {
            assert!(!paper.ceremony.can_never_commit());
            assert_eq!(paper.ceremony.committed(), None);
            paper.prepare(by).unwrap();
        }
        assert!(paper.ceremony.committed().is_some());
        assert!(matches!(paper.ceremony.phase(), Phase::Committed | Phase::Abandoned(_)));
        let keys = paper.enclaves[&4].keys();
        assert_eq!(paper.ceremony.duty(node(4), &keys, paper.now), Some(Duty::Adopt));
        paper.adopt_all();
        assert_eq!(paper.ceremony.duty(node(4), &keys, paper.now).filter(|duty| *duty == Duty::Adopt), None);
    }
}

#[test]
fn differing_results_void_for_good() {
    let mut paper = Paper::authorised();
    paper.prepare(1).unwrap();
    paper.prepare_with(2, &paper.record(&OTHER_SHARING)).unwrap();
    assert_eq!(paper.ceremony.phase(), Phase::Void(Void::ResultsDiffer));
    for by in 3..=5 {
        paper.prepare(by).unwrap();
    }
    refused!(paper.prepare(2), Rejection::SaidAlready(_));
    assert_eq!(paper.ceremony.committed(), None);
    assert!(paper.ceremony.can_never_commit());
}

#[test]
fn pending_shares_may_be_thrown_away_only_when_proven_useless() {
    let mut paper = Paper::authorised();
    assert!(!paper.ceremony.can_never_commit());
    paper.prepare(1).unwrap();
    paper.fault(2).unwrap();
    assert!(!paper.ceremony.can_never_commit(), "the lost enclave may have signed before it was lost");
    paper.abort(3, &everyone(), 1).unwrap();
    assert!(paper.ceremony.can_never_commit());
    assert!(!Paper::committed().ceremony.can_never_commit());
}

#[test]
fn adoption_is_refused_before_the_commit_of_another_record_and_twice() {
    let mut paper = Paper::authorised();
    paper.prepare(1).unwrap();
    refused!(paper.adopt(1), Rejection::NothingToAdopt(_));
    for by in 2..=5 {
        paper.prepare(by).unwrap();
    }
    let other = Kind::Adopted(log::Adopted { node: 1, record: vec![9; 32] });
    refused!(paper.append(1, other), Rejection::NothingToAdopt(_));
    paper.adopt(1).unwrap();
    refused!(paper.adopt(1), Rejection::SaidAlready(_));
}

#[test]
fn duty_follows_the_log() {
    let mut paper = Paper::dkg();
    let own = |paper: &Paper| paper.ceremony.duty(node(2), &paper.enclaves[&2].keys(), paper.now);
    assert_eq!(own(&paper), Some(Duty::Attest));
    paper.attest_all();
    assert_eq!(own(&paper), None);
    paper.approve_all();
    assert_eq!(own(&paper), Some(Duty::Generate));
    let lost = Enclave::new("fresh").keys();
    assert_eq!(paper.ceremony.duty(node(2), &lost, paper.now), Some(Duty::Fault));
    assert_eq!(paper.ceremony.duty(node(6), &lost, paper.now), None);
    let late = paper.ceremony.manifest().expires.plus(1);
    assert_eq!(paper.ceremony.duty(node(2), &paper.enclaves[&2].keys(), late), None);
    paper.prepare_all();
    assert_eq!(own(&paper), Some(Duty::Adopt));
    paper.adopt_all();
    assert_eq!(own(&paper), None);
    assert_eq!(own(&Paper::closed()), None);
}

#[test]
fn result_is_refused_when_its_record_is_not_one_key() {
    let mut paper = Paper::authorised();
    let mut split = paper.record(&SHARING);
    split.public_shares[4].point = OTHER_SHARING.point(5);
    refused!(paper.prepare_with(1, &split), Rejection::Record { .. });
    paper.prepare_all();
    assert_eq!(paper.ceremony.phase(), Phase::Committed);

    let mut second = Paper::authorised();
    second.prepare(1).unwrap();
    let mut split = second.record(&SHARING);
    split.public_shares[4].point = OTHER_SHARING.point(5);
    refused!(second.prepare_with(2, &split), Rejection::Record { .. });
    second.prepare(2).unwrap();
}

#[test]
fn wallet_is_taken_until_its_key_generation_is_proven_never_to_commit() {
    let wallet = Paper::dkg().ceremony.manifest().wallet.clone();
    let takes = |paper: &Paper| paper.ceremony.may_give_shares(&wallet, paper.now);
    assert!(takes(&Paper::dkg()));
    assert!(!Paper::dkg().ceremony.may_give_shares(&"other".parse().unwrap(), Paper::dkg().now));
    assert!(takes(&Paper::committed()));

    let mut withdrawn = Paper::dkg();
    withdrawn.withdraw("ada", Role::Administrator).unwrap();
    assert!(!takes(&withdrawn), "nothing can start it any more");
    let never_approved = Paper::dkg();
    assert!(!never_approved.ceremony.may_give_shares(&wallet, UnixMillis(i64::MAX)));

    let mut faulted = Paper::authorised();
    faulted.fault(3).unwrap();
    assert!(takes(&faulted), "its results may be on their way");
    faulted.abort(2, &everyone(), 1).unwrap();
    assert!(!takes(&faulted));
    let expired = Paper::authorised();
    assert!(expired.ceremony.may_give_shares(&wallet, UnixMillis(i64::MAX)));
}
