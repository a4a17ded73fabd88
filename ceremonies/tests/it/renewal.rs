//! Refreshes and recoveries: new shares of a known key, staged alongside those in use, and when they replace them.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::sync::Arc;

use ceremonies::ceremony::{Ceremony, Duty, Phase, Rejection, StepState, Void, test_digest};
use ceremonies::charter::{CeremonyKind, Role};
use ceremonies::ids::{Generation, Hash};
use ceremonies::log::Entry;
use ceremonies::manifest::{ManifestError, Subject, Way};
use ceremonies::script::Script;
use ceremonies::statement::Answer;
use ceremonies::wallet::{prepared_message, staged_message};
use ceremonies::wire::log::{self, event::Kind};
use prost::Message as _;

use crate::cluster::{CHARTER, context, group, node};
use crate::keys::{Enclave, HALF_REFRESHED, OTHER_SHARING, REFRESHED, REFRESHED_AGAIN, SHARING};
use crate::kit::{MINUTE, Paper, entry, first_place, opened, proposal};
use crate::refused;

fn duty(paper: &Paper, by: u8) -> Option<Duty> {
    paper.ceremony.duty(node(by), &paper.enclaves[&by].keys(), paper.now)
}

fn duties(paper: &Paper) -> Vec<Option<Duty>> {
    (1..=5).map(|by| duty(paper, by)).collect()
}

fn refresh() -> Paper {
    Paper::committed().refresh().authorise()
}

fn recovery(lost: &[(u8, Way)]) -> Paper {
    Paper::committed().recover(lost).authorise()
}

#[test]
fn refresh_goes_from_opening_to_close() {
    let before = Paper::closed();
    let mut paper = before.refresh();
    assert_eq!(paper.ceremony.phase(), Phase::Gathering);
    paper = paper.authorise();
    assert_eq!(duties(&paper), vec![Some(Duty::Generate); 5]);
    paper.stage_all();
    assert_eq!(paper.ceremony.phase(), Phase::Authorised);
    assert_eq!(paper.ceremony.committed(), None);
    assert_eq!(paper.ceremony.made(), paper.ceremony.staged_wallet());
    paper.read_words_back();
    paper.test_sign_all();
    paper.let_through_now();
    for by in 1..=5 {
        assert_eq!(paper.ceremony.phase(), Phase::Authorised, "before the word of {by}");
        paper.prepare(by).unwrap();
    }
    assert_eq!(paper.ceremony.phase(), Phase::Committed);
    assert_eq!(duties(&paper), vec![Some(Duty::Adopt); 5]);
    paper.adopt_all();
    assert_eq!(duties(&paper), vec![Some(Duty::Retire); 5]);
    paper.retire_all();
    assert_eq!(duties(&paper), vec![None; 5]);
    paper.sign("agree", "omar", Role::Operator, Answer::Agree).unwrap();
    paper.sign("agree", "wendy", Role::Witness, Answer::Agree).unwrap();
    paper.sign("agree", "arthur", Role::Auditor, Answer::Agree).unwrap();
    paper.sign("close", "ada", Role::Administrator, Answer::None).unwrap();
    assert_eq!(paper.ceremony.phase(), Phase::Closed);
    assert!(paper.ceremony.script().steps().iter().all(|step| paper.ceremony.is_done(step)));

    let (old, new) = (before.ceremony.committed().unwrap(), paper.ceremony.committed().unwrap());
    assert_eq!(new.record.public_key, old.record.public_key);
    assert_eq!(new.record.generation, Generation(2));
    assert_eq!(paper.ceremony.before(), Some(&old));
}

#[test]
fn recovery_goes_from_opening_to_close() {
    let mut paper = recovery(&[(2, Way::Repair), (5, Way::Repair)]);
    paper.get_back(2).unwrap();
    paper.get_back(5).unwrap();
    paper.stage_all();
    paper.read_words_back();
    paper.finish();
    assert_eq!(paper.ceremony.phase(), Phase::Closed);
    assert!(paper.ceremony.script().steps().iter().all(|step| paper.ceremony.is_done(step)));
}

#[test]
fn folding_the_log_of_a_refresh_again_gives_the_same_ceremony() {
    let mut paper = Paper::staged();
    paper.read_words_back();
    paper.finish();
    let log: Vec<Entry> = paper.log.iter().map(|entry| Entry::decode(&entry.encode()).unwrap()).collect();
    let held = context().with_wallet(paper.ceremony.before().cloned().map(Arc::new));
    let again = Ceremony::fold(held, &log).unwrap();
    assert_eq!(format!("{again:?}"), format!("{:?}", paper.ceremony));
    refused!(Ceremony::fold(context(), &log), (1, Rejection::Wallet));
}

#[test]
fn staging_is_refused_where_no_share_is_in_use_and_where_none_is_made() {
    let mut key_generation = Paper::authorised();
    refused!(key_generation.stage(1), Rejection::NothingToStage);
    refused!(key_generation.get_back(1), Rejection::NotLost(_));
    refused!(key_generation.commit("olga"), Rejection::NoSuchStep(_));
    let mut test_signing = Paper::closed().test_signing().authorise();
    refused!(test_signing.stage(1), Rejection::NothingToStage);
    refused!(test_signing.prepare(1), Rejection::NoGeneration);
    refused!(test_signing.get_back(1), Rejection::NotLost(_));
}

#[test]
fn enclaves_are_refused_whatever_they_say_before_the_approval() {
    let lost = [(1, Way::Repair)];
    for mut paper in [Paper::committed().refresh(), Paper::committed().recover(&lost)] {
        refused!(paper.stage(1), Rejection::NotAttested(_));
        paper.attest_all();
        paper.approve_but_one();
        assert_eq!(duties(&paper), vec![None; 5]);
        refused!(paper.stage(1), Rejection::NotAuthorised(_));
        refused!(paper.prepare(1), Rejection::NotAuthorised(_));
        refused!(paper.get_back(1), Rejection::NotAuthorised(_));
        refused!(paper.abort(1, &group(&[1, 2, 3, 4, 5]), 1), Rejection::NotAuthorised(_));
        refused!(paper.commit("olga"), Rejection::NotOpen { missing, .. } if missing.as_str() == "approve");
    }
}

#[test]
fn commitment_is_refused_to_anything_but_what_its_own_node_has_staged() {
    let mut paper = refresh();
    let record = paper.record(&REFRESHED);
    refused!(paper.prepare(1), Rejection::NotStaged(of) if of == node(1));
    paper.stage(1).unwrap();
    refused!(paper.prepare(2), Rejection::NotStaged(of) if of == node(2));
    refused!(paper.prepare_with(1, &paper.record(&REFRESHED_AGAIN)), Rejection::NotStaged(_));
    refused!(paper.prepare_with(1, &paper.record(&OTHER_SHARING)), Rejection::NotStaged(_));
    refused!(paper.prepare_blob(1, &record, &Hash::of_bytes(&[2])), Rejection::NotStaged(_));
    for by in 2..=5 {
        paper.stage(by).unwrap();
    }
    refused!(paper.prepare_blob(1, &record, &Hash::of_bytes(&[2])), Rejection::NotStaged(_));
    assert!(paper.ceremony.prepared_nodes().is_empty());
}

#[test]
fn commitment_is_refused_when_said_twice_or_by_another_enclave() {
    let mut paper = Paper::let_through();
    let other = Paper { enclaves: [(1, paper.enclaves[&2].clone())].into(), ..paper.clone() };
    refused!({ other }.prepare(1), Rejection::EnclaveSignature(_));
    paper.prepare(1).unwrap();
    refused!(paper.prepare(1), Rejection::SaidAlready(_));
}

#[test]
fn new_shares_are_refused_when_they_are_of_another_key() {
    let mut paper = refresh();
    let right = paper.record(&REFRESHED);
    let other_code = log::GenerationRecord { chain_code: vec![9; 32], ..right.clone() };
    for wrong in [paper.record(&OTHER_SHARING), other_code] {
        refused!(paper.stage_with(1, &wrong), Rejection::OtherKey(of) if of == node(1));
    }
    paper.stage_with(1, &right).unwrap();
    refused!(paper.stage_with(2, &paper.record(&OTHER_SHARING)), Rejection::OtherKey(_));
    assert_eq!(paper.ceremony.staged_nodes(), [node(1)].into());
}

#[test]
fn new_shares_are_refused_when_any_one_is_as_it_was() {
    let mut paper = refresh();
    refused!(paper.stage_with(1, &paper.record(&SHARING)), Rejection::SameShare { of, .. } if of == node(1));
    refused!(
        paper.stage_with(5, &paper.record(&HALF_REFRESHED)),
        Rejection::SameShare { node: by, of } if (by, of) == (node(5), node(3))
    );
    paper.stage(1).unwrap();
}

#[test]
fn new_shares_are_refused_when_for_anything_else_than_was_approved() {
    let mut paper = refresh();
    let right = paper.record(&REFRESHED);
    let changes: [fn(&mut log::GenerationRecord); 10] = [
        |record| record.generation = 1,
        |record| record.generation = 3,
        |record| record.enclaves = vec![9; 32],
        |record| record.cluster = "other".into(),
        |record| record.ceremony = "dkg-treasury-01010101".into(),
        |record| record.manifest = vec![9; 32],
        |record| record.wallet = "other".into(),
        |record| record.threshold = 4,
        |record| drop(record.public_shares.pop()),
        |record| record.public_shares[4].point = OTHER_SHARING.point(5),
    ];
    for change in changes {
        let mut record = right.clone();
        change(&mut record);
        refused!(paper.stage_with(1, &record), Rejection::OtherRecord(_) | Rejection::Record { .. });
    }
    let of_the_restarted = {
        let mut other = Paper::committed().refresh();
        other.attest_all();
        other.restart(4).unwrap();
        other.approve_all();
        other.record(&REFRESHED)
    };
    refused!(paper.stage_with(1, &of_the_restarted), Rejection::OtherRecord(_));
    paper.stage_with(1, &right).unwrap();
}

#[test]
fn new_share_is_refused_when_staged_twice_or_not_signed_by_the_attested_enclave() {
    let mut paper = refresh();
    paper.stage(1).unwrap();
    refused!(paper.stage(1), Rejection::SaidAlready(_));
    refused!(paper.stage_with(1, &paper.record(&REFRESHED_AGAIN)), Rejection::SaidAlready(_));
    for impostor in [paper.enclaves[&1].clone(), Enclave::new("unknown")] {
        let enclaves = [(2, impostor)].into();
        refused!(Paper { enclaves, ..paper.clone() }.stage(2), Rejection::EnclaveSignature(_));
    }
}

#[test]
fn what_an_enclave_said_of_staging_is_no_commitment_and_the_other_way_round() {
    let mut paper = refresh();
    let record = paper.record(&REFRESHED).encode_to_vec();
    let digest = Hash::of_parts("custody/generation-record/v1", &[&record]);
    let blob = Hash::of_bytes(&[1]);
    let (node, key) = (node(1), paper.enclaves[&1].clone());
    let as_committed = log::Staged {
        node: node.into(),
        record: record.clone(),
        blob: blob.as_bytes().to_vec(),
        signature: key.sign(&prepared_message(&digest, node, &blob)),
    };
    refused!(paper.append(1, Kind::Staged(as_committed)), Rejection::EnclaveSignature(_));
    paper.stage(1).unwrap();
    let as_staged = log::Prepared {
        node: node.into(),
        record,
        blob: blob.as_bytes().to_vec(),
        signature: key.sign(&staged_message(&digest, node, &blob)),
    };
    refused!(paper.append(1, Kind::Prepared(as_staged)), Rejection::EnclaveSignature(_));
    paper.prepare(1).unwrap();
}

#[test]
fn differing_new_shares_void_for_good() {
    let mut paper = refresh();
    paper.stage(1).unwrap();
    paper.stage_with(2, &paper.record(&REFRESHED_AGAIN)).unwrap();
    assert_eq!(paper.ceremony.phase(), Phase::Void(Void::ResultsDiffer));
    for by in 3..=5 {
        paper.stage(by).unwrap();
    }
    assert_eq!((paper.ceremony.staged_wallet(), paper.ceremony.committed()), (None, None));
    assert!(paper.ceremony.can_never_commit());
    assert_eq!(duties(&paper), vec![None; 5]);
    let words = Answer::Words(paper.ceremony.spoken_words().unwrap());
    refused!(paper.sign("read-back", "olga", Role::Operator, words), Rejection::Over(_));
}

#[test]
fn test_signatures_are_refused_until_all_have_staged_and_the_words_are_read_back() {
    let mut paper = refresh();
    let cover = paper.ceremony.cover().to_vec();
    let by = cover[0].parties()[0].get();
    paper.stage(1).unwrap();
    for next in 2..=5 {
        assert_eq!(paper.ceremony.due_subset(), None);
        refused!(paper.test_sign(by, &cover[0], 1), Rejection::NotDue(_));
        let words = Answer::Words(paper.ceremony.spoken_words().unwrap());
        refused!(
            paper.sign("read-back", "olga", Role::Operator, words),
            Rejection::NotOpen { missing, .. } if missing.as_str() == "generate"
        );
        paper.stage(next).unwrap();
    }
    refused!(paper.test_sign(by, &cover[0], 1), Rejection::NotDue(_));
    paper.read_words_back();
    paper.test_sign(by, &cover[0], 1).unwrap();
}

#[test]
fn words_read_back_are_those_of_the_new_generation() {
    let mut paper = Paper::staged();
    let old = Paper::committed().ceremony.spoken_words().unwrap();
    assert_ne!(paper.ceremony.spoken_words(), Some(old.clone()));
    refused!(
        paper.sign("read-back", "olga", Role::Operator, Answer::Words(old)),
        Rejection::WrongWords { .. }
    );
}

#[test]
fn test_signature_is_refused_when_it_is_bound_to_the_generation_in_use() {
    let mut paper = Paper::staged();
    paper.read_words_back();
    let subset = paper.ceremony.due_subset().unwrap();
    let by = subset.parties()[0].get();
    let right = paper.test_signature(by, &subset, 1);
    let old = paper.ceremony.before().unwrap().record.digest();
    let digest = test_digest(&paper.manifest_hash(), &old, &subset, 1);
    let (r, s, recovery_id) = SHARING.ecdsa(&digest);
    let mut wrong = right.clone();
    (wrong.r, wrong.s, wrong.recovery_id) = (r, s, recovery_id);
    refused!(paper.report(&wrong), Rejection::TestSignature);
    paper.report(&right).unwrap();
    assert_ne!(paper.ceremony.tests()[0].digest, digest);
}

#[test]
fn test_signing_needs_the_new_share_and_making_it_the_old_one() {
    let paper = refresh();
    let of = |paper: &Paper, duty: &Duty| {
        paper.ceremony.share_for(duty, node(1)).map(|wallet| wallet.record.generation)
    };
    assert_eq!(of(&paper, &Duty::Generate), Some(Generation(1)));
    let mut paper = Paper::staged();
    paper.read_words_back();
    let subset = paper.ceremony.due_subset().unwrap();
    assert_eq!(of(&paper, &Duty::TestSign { subset, attempt: 1, input: 0 }), Some(Generation(2)));
    assert_eq!(of(&paper, &Duty::Prepare), None);
    let paper = recovery(&[(1, Way::Repair)]);
    assert_eq!(of(&paper, &Duty::Generate), None, "it has lost it");
    assert_eq!(of(&paper, &Duty::Repair { lost: node(1) }), None);
    assert!(paper.ceremony.share_for(&Duty::Repair { lost: node(1) }, node(2)).is_some());
}

#[test]
fn commit_is_not_open_before_every_test_signature() {
    let mut paper = Paper::staged();
    refused!(paper.commit("olga"), Rejection::NotOpen { missing, .. } if missing.as_str() == "read-back");
    paper.read_words_back();
    while let Some(subset) = paper.ceremony.due_subset() {
        for party in subset.parties() {
            refused!(paper.commit("olga"), Rejection::NotOpen { missing, .. } if missing.as_str() == "test-sign");
            paper.test_sign(party.get(), &subset, 1).unwrap();
        }
    }
    paper.commit("olga").unwrap();
}

#[test]
fn commit_is_refused_by_anybody_but_operators_and_counts_each_once() {
    let mut paper = Paper::tested();
    refused!(paper.sign("commit", "ada", Role::Administrator, Answer::None), Rejection::NotSignedBy { .. });
    refused!(paper.sign("commit", "arthur", Role::Auditor, Answer::None), Rejection::NotSignedBy { .. });
    refused!(paper.sign("commit", "olga", Role::Operator, Answer::Agree), Rejection::Answer { .. });
    paper.commit("olga").unwrap();
    refused!(paper.commit("olga"), Rejection::SignedAlready { .. });
    assert_eq!(duties(&paper), vec![None; 5], "one operator lets nothing through");
}

#[test]
fn nodes_commit_only_what_the_operators_have_let_through() {
    let mut paper = Paper::tested();
    let commit = paper.ceremony.script().step(&"commit".parse().unwrap()).unwrap().clone();
    assert_eq!(duties(&paper), vec![None; 5]);
    paper.let_through_now();
    assert_eq!(duties(&paper), vec![Some(Duty::Prepare); 5]);
    assert!(matches!(paper.ceremony.step_state(&commit), StepState::Open { .. }));
    paper.prepare(3).unwrap();
    assert_eq!((duty(&paper, 3), duty(&paper, 4)), (None, Some(Duty::Prepare)));
    assert_eq!(paper.ceremony.session(&Duty::Prepare), None);
}

#[test]
fn what_was_let_through_goes_on_after_the_expiry_and_what_was_not_does_not() {
    let mut late = Paper::let_through();
    late.prepare(1).unwrap();
    let mut held = Paper::tested();
    held.commit("olga").unwrap();
    for paper in [&mut late, &mut held] {
        paper.now = paper.ceremony.manifest().expires.plus(MINUTE);
    }
    assert_eq!(late.ceremony.phase_at(late.now), Phase::Authorised);
    assert_eq!(duty(&late, 2), Some(Duty::Prepare));
    for by in 2..=5 {
        late.prepare(by).unwrap();
    }
    assert_eq!(late.ceremony.phase(), Phase::Committed);
    late.adopt_all();
    late.retire_all();

    assert_eq!(held.ceremony.phase_at(held.now), Phase::Void(Void::Expired));
    assert_eq!(duties(&held), vec![None; 5]);
    refused!(held.commit("omar"), Rejection::Expired { .. });
    assert!(!held.ceremony.can_never_commit(), "by another clock it has not expired");
}

#[test]
fn withdrawal_before_the_commit_leaves_the_shares_in_use_as_they_are() {
    let mut one_short = Paper::tested();
    one_short.commit("olga").unwrap();
    for mut paper in [refresh(), Paper::staged(), Paper::tested(), one_short] {
        assert!(!paper.ceremony.can_never_commit());
        paper.withdraw("ada", Role::Administrator).unwrap();
        assert!(matches!(paper.ceremony.phase(), Phase::Void(Void::Withdrawn { .. })));
        assert!(paper.ceremony.can_never_commit());
        assert_eq!(duties(&paper), vec![None; 5]);
        refused!(paper.commit("omar"), Rejection::Over(_));
        refused!(paper.adopt(1), Rejection::NothingToAdopt(_));
        refused!(paper.retire(1), Rejection::NothingToRetire(_));
    }
}

#[test]
fn withdrawal_of_what_was_let_through_leaves_it_in_doubt_until_all_have_committed() {
    let mut paper = Paper::let_through();
    paper.prepare(1).unwrap();
    paper.withdraw("ada", Role::Administrator).unwrap();
    assert!(matches!(paper.ceremony.phase(), Phase::Void(Void::Withdrawn { .. })));
    assert!(!paper.ceremony.can_never_commit());
    assert_eq!(duties(&paper), vec![None; 5]);
    for by in 2..=5 {
        paper.prepare(by).unwrap();
    }
    assert!(matches!(paper.ceremony.phase(), Phase::Abandoned(_)));
    assert_eq!(duties(&paper), vec![Some(Duty::Adopt); 5]);
}

#[test]
fn withdrawal_after_the_commit_abandons_the_script_and_adoption_goes_on() {
    let mut paper = Paper::let_through();
    paper.prepare_all();
    paper.adopt(1).unwrap();
    paper.withdraw("ada", Role::Administrator).unwrap();
    assert!(matches!(paper.ceremony.phase(), Phase::Abandoned(_)));
    assert!(!paper.ceremony.can_never_commit());
    assert_eq!((duty(&paper, 1), duty(&paper, 2)), (None, Some(Duty::Adopt)));
    for by in 2..=5 {
        paper.adopt(by).unwrap();
    }
    assert_eq!(duties(&paper), vec![None; 5]);
    refused!(
        paper.sign("agree", "omar", Role::Operator, Answer::Agree),
        Rejection::NotOpen { .. } | Rejection::Over(_)
    );
}

#[test]
fn enclave_restarted_between_staging_and_the_commit_voids() {
    for mut paper in [Paper::staged(), Paper::tested()] {
        let fresh = Enclave::new("fresh").keys();
        assert_eq!(paper.ceremony.duty(node(3), &fresh, paper.now), Some(Duty::Attest));
        paper.restart(3).unwrap();
        assert_eq!(paper.ceremony.phase(), Phase::Void(Void::Replaced(node(3))));
        assert!(paper.ceremony.can_never_commit());
        refused!(paper.commit("olga"), Rejection::Over(_));
        refused!(paper.prepare(3), Rejection::EnclaveSignature(_));
    }
}

#[test]
fn enclave_lost_while_shares_are_made_voids_for_good() {
    let mut paper = refresh();
    paper.stage(1).unwrap();
    let fresh = Enclave::new("fresh").keys();
    assert_eq!(paper.ceremony.duty(node(3), &fresh, paper.now), Some(Duty::Fault));
    paper.fault(3).unwrap();
    assert!(matches!(paper.ceremony.phase(), Phase::Void(Void::Faulted { .. })));
    assert!(paper.ceremony.can_never_commit(), "nobody has let it through");
}

#[test]
fn enclave_restarted_after_it_was_let_through_leaves_it_in_doubt() {
    let mut paper = Paper::let_through();
    let first = paper.enclaves.clone();
    for by in [1, 2] {
        paper.prepare(by).unwrap();
    }
    paper.restart(3).unwrap();
    assert_eq!(paper.ceremony.phase(), Phase::Void(Void::Replaced(node(3))));
    assert!(!paper.ceremony.can_never_commit(), "the lost enclave may have said its word");
    paper.enclaves = first;
    for by in [3, 4, 5] {
        paper.prepare(by).unwrap();
    }
    assert_eq!(paper.ceremony.phase(), Phase::Committed);
}

#[test]
fn enclave_may_be_restarted_after_the_commit_and_still_deletes_the_old_share() {
    let mut paper = Paper::let_through();
    paper.prepare_all();
    paper.adopt_all();
    paper.restart(3).unwrap();
    assert_eq!(duty(&paper, 3), Some(Duty::Retire));
    paper.retire_all();
}

#[test]
fn enclave_that_gave_up_never_commits() {
    let everyone = group(&[1, 2, 3, 4, 5]);
    let mut paper = refresh();
    paper.stage(1).unwrap();
    paper.abort(2, &everyone, 1).unwrap();
    assert!(matches!(paper.ceremony.phase(), Phase::Void(Void::Aborted { .. })));
    assert!(paper.ceremony.can_never_commit());
    refused!(paper.stage(2), Rejection::PreparedAndAborted(_));
    refused!(paper.prepare(2), Rejection::PreparedAndAborted(_));

    let mut paper = Paper::let_through();
    paper.prepare(1).unwrap();
    refused!(paper.abort(1, &everyone, 1), Rejection::NotDue(_));
    refused!(paper.fault(1), Rejection::NotDue(_));
}

#[test]
fn old_share_is_deleted_only_when_every_node_has_adopted_the_new_one() {
    let mut paper = Paper::let_through();
    refused!(paper.retire(1), Rejection::NothingToRetire(_));
    paper.prepare_all();
    for by in 1..=5 {
        assert_ne!(duty(&paper, 1), Some(Duty::Retire));
        refused!(paper.retire(1), Rejection::NothingToRetire(_));
        paper.adopt(by).unwrap();
    }
    let old = paper.ceremony.before().unwrap().record.digest();
    refused!(paper.retire_for(1, &old), Rejection::NothingToRetire(_));
    refused!(paper.retire_for(1, &Hash::ZERO), Rejection::NothingToRetire(_));
    for impostor in [paper.enclaves[&2].clone(), Enclave::new("unknown")] {
        let enclaves = [(1, impostor)].into();
        refused!(Paper { enclaves, ..paper.clone() }.retire(1), Rejection::EnclaveSignature(_));
    }
    paper.retire(1).unwrap();
    refused!(paper.retire(1), Rejection::SaidAlready(_));
    assert_eq!((duty(&paper, 1), duty(&paper, 2)), (None, Some(Duty::Retire)));
    refused!(
        paper.sign("agree", "omar", Role::Operator, Answer::Agree),
        Rejection::NotOpen { missing, .. } if missing.as_str() == "retire"
    );
}

#[test]
fn first_share_is_never_deleted_by_its_own_key_generation() {
    let mut paper = Paper::committed();
    paper.adopt_all();
    refused!(paper.retire(1), Rejection::NothingToRetire(_));
}

#[test]
fn renewal_is_refused_without_the_wallet_that_it_names_or_with_a_number_that_does_not_follow() {
    let before = Paper::committed();
    let wallet = before.ceremony.committed().unwrap();
    let second = Paper::let_through();
    let newer = {
        let mut paper = second;
        paper.prepare_all();
        paper.ceremony.committed().unwrap()
    };
    let open = |held: Option<&ceremonies::wallet::Wallet>,
                named: &ceremonies::wallet::Wallet,
                generation: u32| {
        let mut proposal = proposal(CeremonyKind::Refresh, Some(named), 9);
        proposal.generation = Generation(generation);
        let manifest = proposal.manifest(&CHARTER, &Script::builtin(CeremonyKind::Refresh).unwrap()).unwrap();
        let held = context().with_wallet(held.cloned().map(Arc::new));
        Ceremony::open(held, &entry(first_place(&manifest, manifest.opened), opened(&manifest))).map(drop)
    };
    open(Some(&wallet), &wallet, 2).unwrap();
    open(Some(&wallet), &wallet, 3).unwrap();
    open(Some(&newer), &newer, 3).unwrap();
    refused!(open(None, &wallet, 2), Rejection::Wallet);
    refused!(open(Some(&newer), &wallet, 3), Rejection::Wallet);
    refused!(open(Some(&wallet), &newer, 3), Rejection::Wallet);
    refused!(open(Some(&newer), &newer, 2), Rejection::Wallet);
}

#[test]
fn manifest_of_a_renewal_is_refused_when_its_generation_is_the_first_or_the_last_number() {
    let wallet = Paper::committed().ceremony.committed().unwrap();
    for kind in [CeremonyKind::Refresh, CeremonyKind::Recover] {
        let mut proposal = proposal(kind, Some(&wallet), 9);
        if kind == CeremonyKind::Recover {
            proposal.subject = Subject::Losses([(node(1), Way::Repair)].into());
        }
        let script = Script::builtin(kind).unwrap();
        proposal.manifest(&CHARTER, &script).unwrap();
        proposal.generation = Generation::FIRST;
        refused!(proposal.manifest(&CHARTER, &script), ManifestError::Value(_));
        proposal.generation = Generation(u32::MAX);
        refused!(proposal.manifest(&CHARTER, &script), ManifestError::Value(_));
        proposal.generation = Generation(2);
        proposal.origin = None;
        assert!(proposal.manifest(&CHARTER, &script).is_err(), "a {kind} of nothing");
    }
}

/// The verdict on the manifest of a ceremony of this kind with these lost nodes, as they stand in its bytes.
fn naming(kind: CeremonyKind, lost: &[(u32, log::Way)]) -> Result<(), ManifestError> {
    let wallet = Paper::committed().ceremony.committed().unwrap();
    let named = if kind == CeremonyKind::Dkg { None } else { Some(&wallet) };
    let mut proposal = proposal(kind, named, 9);
    if kind == CeremonyKind::Recover {
        proposal.subject = Subject::Losses([(node(1), Way::Repair)].into());
    }
    let manifest = proposal.manifest(&CHARTER, &Script::builtin(kind).unwrap()).unwrap();
    let mut wire = log::Manifest::decode(manifest.as_bytes()).unwrap();
    wire.lost = lost.iter().map(|(node, way)| log::Lost { node: *node, way: (*way).into() }).collect();
    ceremonies::manifest::Manifest::parse(&wire.encode_to_vec()).map(drop)
}

#[test]
fn manifest_of_a_recovery_is_refused_when_it_does_not_say_who_has_lost_a_share() {
    use log::Way::{Backup, Repair, Unspecified};
    let recover = |lost: &[(u32, log::Way)]| naming(CeremonyKind::Recover, lost);
    recover(&[(1, Repair)]).unwrap();
    recover(&[(5, Repair), (1, Backup)]).unwrap();
    recover(&[(1, Repair), (2, Repair)]).unwrap();
    recover(&[(1, Backup), (2, Backup), (3, Backup), (4, Repair), (5, Repair)]).unwrap();
    recover(&[(1, Backup), (2, Backup), (3, Backup), (4, Backup), (5, Backup)]).unwrap();
    for (lost, why) in [
        (&[][..], "must name the nodes"),
        (&[(6, Repair)], "not one of the wallet's nodes"),
        (&[(0, Repair)], "not one of the wallet's nodes"),
        (&[(257, Repair)], "not one of the wallet's nodes"),
        (&[(1, Repair), (1, Repair)], "twice"),
        (&[(1, Repair), (1, Backup)], "twice"),
        (&[(1, Unspecified)], "no known way"),
        (&[(1, Repair), (2, Repair), (3, Repair)], "fewer nodes than the threshold"),
        (
            &[(1, Repair), (2, Repair), (3, Repair), (4, Backup), (5, Backup)],
            "fewer nodes than the threshold",
        ),
    ] {
        let error = recover(lost).unwrap_err();
        assert!(error.to_string().contains(why), "{lost:?}: {error}");
    }
    for kind in [CeremonyKind::Dkg, CeremonyKind::TestSign, CeremonyKind::Refresh] {
        naming(kind, &[]).unwrap();
        let error = naming(kind, &[(1, Repair)]).unwrap_err();
        assert!(error.to_string().contains("must name the nodes"), "{kind}: {error}");
    }
}

#[test]
fn share_is_refused_back_to_a_node_that_lost_none_and_a_second_time() {
    let mut paper = recovery(&[(2, Way::Repair)]);
    for by in [1, 3, 4, 5] {
        refused!(paper.get_back(by), Rejection::NotLost(of) if of == node(by));
    }
    let enclaves = [(2, Enclave::new("unknown"))].into();
    refused!(Paper { enclaves, ..paper.clone() }.get_back(2), Rejection::EnclaveSignature(_));
    paper.get_back(2).unwrap();
    refused!(paper.get_back(2), Rejection::SaidAlready(_));
    refused!(refresh().get_back(2), Rejection::NotLost(_));
}

#[test]
fn repair_is_for_the_lost_node_and_the_first_whole_ones() {
    for (lost, helpers) in [
        (&[1][..], &[2, 3, 4][..]),
        (&[2], &[1, 3, 4]),
        (&[5], &[1, 2, 3]),
        (&[1, 3], &[2, 4, 5]),
        (&[4, 5], &[1, 2, 3]),
    ] {
        let named: Vec<(u8, Way)> = lost.iter().map(|by| (*by, Way::Repair)).collect();
        let mut paper = recovery(&named);
        for target in lost {
            let parties = group(&[helpers, &[*target]].concat());
            let repair = Duty::Repair { lost: node(*target) };
            for by in 1..=5 {
                let due = parties.contains(node(by)).then(|| repair.clone());
                assert_eq!(duty(&paper, by), due, "node {by}, {target} of {lost:?} lost");
            }
            let session = paper.ceremony.session(&repair).unwrap();
            assert!(session.parties.keys().eq(parties.parties()), "{:?}", session.parties.keys());
            paper.get_back(*target).unwrap();
        }
        assert_eq!(duties(&paper), vec![Some(Duty::Generate); 5]);
    }
}

#[test]
fn new_shares_are_made_only_when_every_lost_one_is_back() {
    let mut paper = recovery(&[(1, Way::Repair), (4, Way::Repair)]);
    let step = |paper: &Paper, id: &str| {
        let step = paper.ceremony.script().step(&id.parse().unwrap()).unwrap();
        paper.ceremony.step_state(step)
    };
    for by in [1, 4] {
        assert!(!duties(&paper).contains(&Some(Duty::Generate)), "before {by} is back");
        assert!(matches!(step(&paper, "recover"), StepState::Open { .. }));
        assert_eq!(step(&paper, "generate"), StepState::Blocked { by: "recover".parse().unwrap() });
        paper.get_back(by).unwrap();
    }
    assert_eq!(step(&paper, "recover"), StepState::Done);
    assert_eq!(duties(&paper), vec![Some(Duty::Generate); 5]);
}

#[test]
fn repair_that_is_given_up_voids_and_only_its_parties_can_give_it_up() {
    let paper = recovery(&[(2, Way::Repair)]);
    let repair = group(&[1, 2, 3, 4]);
    refused!(paper.clone().abort(5, &repair, 1), Rejection::NotDue(_));
    refused!(paper.clone().abort(1, &group(&[1, 3, 4]), 1), Rejection::NotDue(_));
    refused!(paper.clone().abort(1, &group(&[1, 2, 3, 5]), 1), Rejection::NotDue(_));
    let restored = [(5, Way::Backup), (2, Way::Repair)];
    refused!(recovery(&restored).abort(1, &group(&[1, 3, 4, 5]), 1), Rejection::NotDue(_));
    recovery(&restored).abort(1, &repair, 1).unwrap();
    for by in 1..=4 {
        let mut paper = paper.clone();
        paper.abort(by, &repair, 1).unwrap();
        assert!(matches!(paper.ceremony.phase(), Phase::Void(Void::Aborted { .. })));
        assert!(paper.ceremony.can_never_commit());
        assert_eq!(duties(&paper), vec![None; 5]);
    }
}

#[test]
fn people_sign_what_is_replaced_who_has_lost_a_share_and_how_it_comes_back() {
    let approval = |paper: &Paper| {
        let (step, person) = ("approve".parse().unwrap(), "hanna".parse().unwrap());
        paper.ceremony.statement(&step, Role::Operator, &person, &Answer::None).unwrap()
    };
    let paper = recovery(&[(2, Way::Repair), (4, Way::Backup)]);
    let old = paper.ceremony.before().unwrap().record.digest();
    let text = approval(&paper);
    for said in [
        "kind: recover\n",
        "wallet: treasury, generation 2\n",
        &format!("replaces: {old}\n"),
        "lost: node 2, by repair\nlost: node 4, by backup\n",
    ] {
        assert!(text.contains(said), "{said} is not in {text}");
    }
    let text = approval(&refresh());
    assert!(text.contains(&format!("replaces: {old}\n")) && !text.contains("lost: "), "{text}");
}
