//! Backups: what counts as written, released, proven and restored, and which charters may have them.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::sync::LazyLock;

use ceremonies::ceremony::{Duty, Phase, Rejection, StepState};
use ceremonies::charter::{Article, Change, CharterDraft, CharterError, Role};
use ceremonies::ids::{Hash, UnixMillis};
use ceremonies::manifest::Way;
use ceremonies::script::Act;
use ceremonies::statement::{Answer, Release};
use ceremonies::wire::log::{self, event::Kind};

use crate::cluster::{BACKED, CHARTER, LOCK_DAYS, backed_draft, context_of, draft, node, recipient, written};
use crate::keys::{Enclave, OTHER_SHARING, REFRESHED, SHARING};
use crate::kit::{DAY, KEEPERS, MINUTE, Paper};
use crate::refused;

/// A key generation whose backups are due.
static DUE: LazyLock<Paper> = LazyLock::new(|| {
    let mut paper = Paper::dkg_under(context_of(&BACKED)).authorise();
    paper.prepare_all();
    paper.adopt_all();
    paper.read_words_back();
    paper.test_sign_all();
    paper
});
/// The same with its backups written.
static WRITTEN: LazyLock<Paper> = LazyLock::new(|| {
    let mut paper = DUE.clone();
    paper.back_up_all();
    paper
});
static CLOSED: LazyLock<Paper> = LazyLock::new(Paper::backed_up);

fn duties(paper: &Paper) -> Vec<Option<Duty>> {
    let duty = |by: u8| paper.ceremony.duty(node(by), &paper.enclaves[&by].keys(), paper.now);
    (1..=5).map(duty).collect()
}

fn state(paper: &Paper, id: &str) -> StepState {
    paper.ceremony.step_state(paper.ceremony.script().step(&id.parse().unwrap()).unwrap())
}

fn of_all(duty: impl Fn(u8) -> Duty) -> Vec<Option<Duty>> {
    (1..=5).map(|by| Some(duty(by))).collect()
}

#[test]
fn backups_are_written_and_proven_before_a_key_generation_ends() {
    let mut paper = DUE.clone();
    assert_eq!(duties(&paper), of_all(|by| Duty::Backup { node: node(by) }));
    paper.back_up_all();
    assert_eq!((state(&paper, "backup"), duties(&paper)), (StepState::Done, vec![None; 5]));
    for (by, keeper) in KEEPERS {
        assert!(matches!(state(&paper, "prove"), StepState::Open { .. }), "before {by}");
        refused!(
            paper.sign("agree", "omar", Role::Operator, Answer::Agree),
            Rejection::NotOpen { missing, .. } if missing.as_str() == "prove"
        );
        paper.release("prove", keeper, by, paper.written(by)).unwrap();
        let due: Vec<_> = duties(&paper).into_iter().flatten().collect();
        assert_eq!(due, [Duty::Prove { node: node(by) }]);
        paper.prove(by).unwrap();
    }
    assert_eq!((state(&paper, "prove"), duties(&paper)), (StepState::Done, vec![None; 5]));
    assert_eq!(CLOSED.ceremony.phase(), Phase::Closed);
    assert_eq!(CLOSED.ceremony.committed().unwrap().backups.len(), 5);
}

#[test]
fn backups_are_written_and_proven_before_a_refresh_can_be_committed() {
    let mut paper = CLOSED.refresh().authorise();
    paper.stage_all();
    paper.read_words_back();
    paper.test_sign_all();
    refused!(paper.commit("olga"), Rejection::NotOpen { missing, .. } if missing.as_str() == "backup");
    paper.back_up_all();
    for (by, keeper) in KEEPERS {
        refused!(paper.commit("olga"), Rejection::NotOpen { missing, .. } if missing.as_str() == "prove");
        paper.release("prove", keeper, by, paper.written(by)).unwrap();
        paper.prove(by).unwrap();
    }
    paper.let_through_now();
    paper.prepare_all();
    let new = paper.ceremony.committed().unwrap();
    assert_eq!(new.backups, *paper.ceremony.backups());
    assert_ne!(new.backups, CLOSED.ceremony.committed().unwrap().backups);
}

#[test]
fn backup_is_refused_before_its_step() {
    let mut paper = Paper::dkg_under(context_of(&BACKED)).authorise();
    refused!(paper.back_up(1), Rejection::NoBackupDue(_));
    paper.prepare_all();
    paper.adopt_all();
    paper.read_words_back();
    refused!(paper.back_up(1), Rejection::NoBackupDue(_));
    assert!(matches!(state(&paper, "backup"), StepState::Blocked { .. }));
}

#[test]
fn backup_is_refused_under_a_lock_shorter_than_the_charter_asks_for() {
    let mut paper = DUE.clone();
    let shorter = |by_ms: i64, whole: bool, root: bool| {
        let mut backup = paper.backup(1);
        // The entry is a second later than the clock that made the lock.
        let until = paper.now.plus(1000 + i64::from(LOCK_DAYS) * DAY - by_ms).0;
        for object in [(whole, &mut backup.whole), (root, &mut backup.root)] {
            if let (true, Some(object)) = object {
                object.locked_until_ms = until;
            }
        }
        backup
    };
    let hour = 60 * MINUTE;
    let wrong = [
        shorter(hour + 1, true, false),
        shorter(hour + 1, false, true),
        shorter(hour + 1, true, true),
        shorter(i64::from(LOCK_DAYS) * DAY, true, true),
        shorter(i64::MAX / 2, false, true),
    ];
    let right = shorter(hour, true, true);
    for backup in wrong {
        let attempt = paper.clone().back_up_with(1, backup);
        refused!(attempt, Rejection::ShortLock { node: of, .. } if of == node(1));
    }
    paper.back_up_with(1, right).unwrap();
}

#[test]
fn backup_is_refused_when_another_agent_or_enclave_speaks_for_it() {
    let mut paper = DUE.clone();
    paper.back_up(1).unwrap();
    let mut backup = paper.backup(2);
    backup.node = 3;
    backup.signature = vec![0; 64];
    refused!(paper.append(2, Kind::BackedUp(backup)), Rejection::SpeaksForAnother { .. });
    for impostor in [paper.enclaves[&1].clone(), Enclave::new("unknown")] {
        let enclaves = [(2, impostor)].into();
        refused!(Paper { enclaves, ..paper.clone() }.back_up(2), Rejection::EnclaveSignature(_));
    }
    let mut stranger = paper.backup(2);
    stranger.node = 6;
    stranger.signature = vec![0; 64];
    refused!(paper.append(2, Kind::BackedUp(stranger)), Rejection::NoSuchNode(_));
}

#[test]
fn backup_is_refused_when_the_enclave_signed_other_digests() {
    let mut paper = DUE.clone();
    let mut signed = paper.clone();
    signed.back_up(1).unwrap();
    let entry = &signed.ceremony.backups()[&node(1)];
    let mut swapped = paper.backup(1);
    swapped.signature = entry.signature.to_vec();
    std::mem::swap(&mut swapped.whole, &mut swapped.root);
    refused!(paper.append(1, Kind::BackedUp(swapped)), Rejection::EnclaveSignature(_));
    let mut other = paper.backup(1);
    other.signature = entry.signature.to_vec();
    other.root = paper.backup(2).root;
    refused!(paper.append(1, Kind::BackedUp(other)), Rejection::EnclaveSignature(_));
}

#[test]
fn backup_is_refused_a_second_time() {
    let mut paper = DUE.clone();
    paper.back_up(1).unwrap();
    refused!(paper.back_up(1), Rejection::SaidAlready(_));
    let mut other = paper.backup(1);
    other.whole = paper.backup(2).whole;
    refused!(paper.back_up_with(1, other), Rejection::SaidAlready(_));
}

#[test]
fn release_is_refused_before_every_backup_is_written() {
    let mut paper = DUE.clone();
    for by in 1..=5 {
        let object = Hash::of_bytes(b"any");
        let refused = paper.release("prove", "cora", 1, object).unwrap_err().to_string();
        assert!(refused.contains("step `prove` is not open: `backup` must be done first"), "{refused}");
        paper.back_up(by).unwrap();
    }
    paper.release("prove", "cora", 1, paper.written(1)).unwrap();
}

#[test]
fn release_is_refused_by_somebody_who_does_not_keep_that_node() {
    let mut paper = WRITTEN.clone();
    for (by, keeper) in KEEPERS {
        for person in ["cora", "carl", "coby"].into_iter().filter(|person| *person != keeper) {
            let refusal = paper.release("prove", person, by, paper.written(by));
            refused!(refusal, Rejection::NotKeeper { node: of, .. } if of == node(by));
        }
        paper.release("prove", keeper, by, paper.written(by)).unwrap();
    }
}

#[test]
fn release_is_refused_by_anybody_who_does_not_act_as_custodian() {
    let mut paper = WRITTEN.clone();
    let release = Answer::Release(Release { node: node(5), object: paper.written(5), sealed: vec![6; 64] });
    refused!(
        paper.sign("prove", "coby", Role::Operator, release.clone()),
        Rejection::NotSignedBy { role: Role::Operator, .. }
    );
    refused!(paper.sign("prove", "cora", Role::Operator, release.clone()), Rejection::NotInRole { .. });
    refused!(paper.sign("prove", "olga", Role::Custodian, release.clone()), Rejection::NotInRole { .. });
    refused!(paper.sign("prove", "otto", Role::Operator, release.clone()), Rejection::NotSignedBy { .. });
    refused!(paper.sign("prove", "nobody", Role::Custodian, release), Rejection::NoSuchPerson(_));

    let mut acted = Paper::dkg_under(context_of(&BACKED));
    acted.attest_all();
    acted.confirm();
    acted.approve("coby", Role::Operator).unwrap();
    acted.approve_rest();
    acted.prepare_all();
    acted.adopt_all();
    acted.read_words_back();
    acted.test_sign_all();
    acted.back_up_all();
    let refusal = acted.release("prove", "coby", 5, acted.written(5));
    refused!(refusal, Rejection::TwoRoles { role: Role::Operator, .. });
    acted.release("prove", "esther", 5, acted.written(5)).unwrap();
}

#[test]
fn release_is_refused_of_another_object_or_of_a_node_that_is_not_asked_for() {
    let mut paper = WRITTEN.clone();
    let root = paper.ceremony.backups()[&node(1)].root.digest;
    for object in [paper.written(2), root, Hash::ZERO, CLOSED.refresh().ceremony.manifest().hash()] {
        let refusal = paper.release("prove", "cora", 1, object);
        refused!(refusal, Rejection::OtherObject { node: of, .. } if of == node(1));
    }
    refused!(paper.release("prove", "cora", 6, paper.written(1)), Rejection::NoReleaseDue(_));
    paper.release("prove", "cora", 1, paper.written(1)).unwrap();
    paper.prove(1).unwrap();
    refused!(paper.release("prove", "cora", 1, paper.written(1)), Rejection::NoReleaseDue(_));
}

#[test]
fn release_is_refused_when_something_else_is_answered_or_another_text_is_signed() {
    let mut paper = WRITTEN.clone();
    for answer in [Answer::None, Answer::Agree, Answer::Words("abandon".into())] {
        refused!(paper.sign("prove", "cora", Role::Custodian, answer), Rejection::Answer { .. });
    }
    let release = |sealed: u8| {
        Answer::Release(Release { node: node(1), object: paper.written(1), sealed: vec![sealed; 64] })
    };
    let (step, person) = ("prove".parse().unwrap(), "cora".parse().unwrap());
    let text = paper.ceremony.statement(&step, Role::Custodian, &person, &release(6)).unwrap();
    let (right, wrong) = (release(6), release(7));
    let signature = crate::cluster::ssh_sign("cora", ceremonies::statement::NAMESPACE, &text);
    refused!(
        paper.sign_with("prove", "cora", Role::Custodian, wrong, signature.clone()),
        Rejection::Signature(_)
    );
    paper.sign_with("prove", "cora", Role::Custodian, right, signature).unwrap();
    refused!(
        paper.sign("approve", "cora", Role::Custodian, release_of(&paper, 1)),
        Rejection::NotSignedBy { .. }
    );
}

fn release_of(paper: &Paper, by: u8) -> Answer {
    Answer::Release(Release { node: node(by), object: paper.written(by), sealed: vec![6; 64] })
}

#[test]
fn custodian_releases_the_backups_of_several_nodes_and_each_release_once() {
    let mut paper = WRITTEN.clone();
    let cora = "cora".parse().unwrap();
    assert_eq!(paper.ceremony.releases_wanted(Act::Prove, &cora), [node(1), node(2)]);
    paper.release("prove", "cora", 1, paper.written(1)).unwrap();
    assert_eq!(paper.ceremony.releases_wanted(Act::Prove, &cora), [node(2)]);
    refused!(paper.release("prove", "cora", 1, paper.written(1)), Rejection::SignedAlready { .. });
    paper.release("prove", "cora", 2, paper.written(2)).unwrap();
    assert_eq!(paper.ceremony.releases_wanted(Act::Prove, &cora), []);
    // One that did not open is given again, sealed anew; the last one counts.
    let again = Release { node: node(1), object: paper.written(1), sealed: vec![7; 64] };
    paper.sign("prove", "cora", Role::Custodian, Answer::Release(again.clone())).unwrap();
    assert_eq!(paper.ceremony.release(Act::Prove, node(1)), Some(&again));
    refused!(paper.release("prove", "cora", 2, paper.written(2)), Rejection::SignedAlready { .. });
}

#[test]
fn escrow_trustee_may_release_every_backup() {
    let mut paper = WRITTEN.clone();
    let esther = "esther".parse().unwrap();
    assert_eq!(paper.ceremony.releases_wanted(Act::Prove, &esther).len(), 5);
    for by in 1..=5 {
        paper.release("prove", "esther", by, paper.written(by)).unwrap();
        paper.prove(by).unwrap();
    }
    assert_eq!(state(&paper, "prove"), StepState::Done);
    refused!(paper.release("prove", "esther", 1, paper.written(1)), Rejection::NoReleases(_));
}

#[test]
fn proof_is_refused_with_another_point_object_or_enclave() {
    let mut paper = WRITTEN.clone();
    let (object, point) = (paper.written(1), SHARING.point(1));
    for wrong in [SHARING.point(2), SHARING.point(0), OTHER_SHARING.point(1), REFRESHED.point(1)] {
        refused!(paper.prove_with(1, &object, &wrong), Rejection::OtherBackup(_));
    }
    let root = paper.ceremony.backups()[&node(1)].root.digest;
    for wrong in [paper.written(2), root, Hash::ZERO] {
        refused!(paper.prove_with(1, &wrong, &point), Rejection::NotWritten(_));
    }
    for impostor in [paper.enclaves[&2].clone(), Enclave::new("unknown")] {
        let enclaves = [(1, impostor)].into();
        refused!(Paper { enclaves, ..paper.clone() }.prove(1), Rejection::EnclaveSignature(_));
    }
    paper.prove(1).unwrap();
    refused!(paper.prove(1), Rejection::SaidAlready(_));
    assert_eq!(*paper.ceremony.proved_nodes(), [node(1)].into());
}

#[test]
fn proof_is_refused_before_every_backup_is_written() {
    let mut paper = DUE.clone();
    let object = Hash::of_bytes(b"any");
    refused!(paper.prove_with(1, &object, &SHARING.point(1)), Rejection::NotWritten(_));
    for by in 1..=4 {
        paper.back_up(by).unwrap();
        refused!(paper.prove(1), Rejection::NotWritten(_));
    }
    paper.back_up(5).unwrap();
    paper.prove(1).unwrap();
}

#[test]
fn proof_of_a_refresh_is_of_the_new_share() {
    let mut paper = CLOSED.refresh().authorise();
    paper.stage_all();
    paper.read_words_back();
    paper.test_sign_all();
    paper.back_up_all();
    let old = CLOSED.ceremony.backups()[&node(1)].whole.digest;
    refused!(paper.release("prove", "cora", 1, old), Rejection::OtherObject { .. });
    refused!(paper.prove_with(1, &paper.written(1), &SHARING.point(1)), Rejection::OtherBackup(_));
    refused!(paper.prove_with(1, &old, &SHARING.point(1)), Rejection::NotWritten(_));
    paper.prove(1).unwrap();
}

#[test]
fn charter_without_backups_takes_both_steps_as_done() {
    let mut paper = Paper::read_back();
    let before = |paper: &Paper| ["backup", "prove"].map(|id| state(paper, id));
    assert!(before(&paper).iter().all(|state| matches!(state, StepState::Blocked { .. })));
    paper.test_sign_all();
    assert_eq!(before(&paper), [StepState::Done, StepState::Done]);
    assert_eq!(duties(&paper), vec![None; 5]);
    refused!(paper.back_up(1), Rejection::NoBackupDue(_));
    refused!(paper.prove_with(1, &Hash::ZERO, &SHARING.point(1)), Rejection::NotWritten(_));
    refused!(paper.release("prove", "cora", 1, Hash::ZERO), Rejection::NoSuchPerson(_));
    let release = Answer::Release(Release { node: node(1), object: Hash::ZERO, sealed: vec![1] });
    refused!(paper.sign("prove", "omar", Role::Operator, release), Rejection::NoReleases(_));
}

#[test]
fn lost_shares_are_restored_from_their_released_backups_before_others_are_repaired() {
    let mut paper = CLOSED.recover(&[(1, Way::Repair), (3, Way::Backup), (5, Way::Backup)]).authorise();
    let old = |by: u8| CLOSED.ceremony.backups()[&node(by)].clone();
    assert_eq!(duties(&paper), vec![None; 5], "nothing is released");
    assert_eq!(paper.ceremony.due_recovery(), Some((node(3), Way::Backup)));
    paper.release("recover", "coby", 5, old(5).root.digest).unwrap();
    assert_eq!(duties(&paper), [None, None, None, None, Some(Duty::Restore { node: node(5) })]);
    paper.release("recover", "carl", 3, old(3).whole.digest).unwrap();
    paper.get_back(5).unwrap();
    assert_eq!(duties(&paper), [None, None, Some(Duty::Restore { node: node(3) }), None, None]);
    paper.get_back(3).unwrap();
    let repair = Some(Duty::Repair { lost: node(1) });
    assert_eq!(duties(&paper), [repair.clone(), repair.clone(), repair.clone(), repair, None]);
    paper.get_back(1).unwrap();
    assert_eq!(duties(&paper), vec![Some(Duty::Generate); 5]);
    paper.stage_all();
    paper.read_words_back();
    paper.finish();
    assert_eq!(paper.ceremony.phase(), Phase::Closed);
}

#[test]
fn release_to_restore_is_refused_for_a_node_that_is_not_restored_and_of_an_object_that_is_not_its_backup() {
    let mut paper = CLOSED.recover(&[(2, Way::Repair), (3, Way::Backup)]).authorise();
    let old = |by: u8| CLOSED.ceremony.backups()[&node(by)].whole.digest;
    refused!(paper.release("recover", "cora", 1, old(1)), Rejection::NoReleaseDue(_));
    refused!(paper.release("recover", "cora", 2, old(2)), Rejection::NoReleaseDue(_));
    refused!(paper.release("recover", "carl", 3, old(4)), Rejection::OtherObject { .. });
    refused!(paper.release("recover", "cora", 3, old(3)), Rejection::NotKeeper { .. });
    refused!(paper.release("prove", "carl", 3, old(3)), Rejection::NotOpen { .. });
    paper.release("recover", "esther", 3, old(3)).unwrap();
    paper.get_back(3).unwrap();
    refused!(paper.release("recover", "carl", 3, old(3)), Rejection::NoReleases(_));

    let mut repaired = CLOSED.recover(&[(2, Way::Repair)]).authorise();
    refused!(repaired.release("recover", "cora", 2, old(2)), Rejection::NoReleases(_));
}

#[test]
fn release_to_restore_is_refused_before_the_approval() {
    let mut paper = CLOSED.recover(&[(3, Way::Backup)]);
    paper.attest_all();
    paper.approve_but_one();
    let refusal = paper.release("recover", "carl", 3, CLOSED.ceremony.backups()[&node(3)].whole.digest);
    refused!(refusal, Rejection::NotOpen { missing, .. } if missing.as_str() == "approve");
}

/// The rule that the charter breaks when its backups are changed so.
fn broken(change: impl FnOnce(&mut CharterDraft)) -> String {
    let mut draft = backed_draft();
    change(&mut draft);
    let error = written(&draft).unwrap_err();
    assert!(matches!(error, CharterError::Rule(_)), "{error:?}");
    error.to_string()
}

#[test]
fn charter_is_refused_when_a_node_has_no_custodian_or_two() {
    let rules = |draft: &mut CharterDraft| draft.backup.clone().unwrap();
    let text = broken(|draft| {
        let mut backup = rules(draft);
        backup.custodians.pop();
        draft.backup = Some(backup);
    });
    assert_eq!(text, "backup: node 5 needs exactly one custodian");
    let text = broken(|draft| draft.backup.as_mut().unwrap().custodians.clear());
    assert_eq!(text, "backup: node 1 needs exactly one custodian");
    let text = broken(|draft| draft.backup.as_mut().unwrap().custodians[2].nodes.push(node(1)));
    assert_eq!(text, "backup: node 1 needs exactly one custodian");
}

#[test]
fn charter_is_refused_when_a_custodian_keeps_as_many_nodes_as_sign_together() {
    let text = broken(|draft| {
        let custodians = &mut draft.backup.as_mut().unwrap().custodians;
        let last = custodians.pop().unwrap();
        custodians[0].nodes.extend(last.nodes);
    });
    assert_eq!(
        text,
        "backup: cora keeps the backups of 3 nodes, which reaches the threshold; split them between \
        custodians"
    );
    let text = broken(|draft| {
        // The same in two parts, with a recipient each.
        draft.backup.as_mut().unwrap().custodians[2].person = "cora".parse().unwrap();
    });
    assert_eq!(
        text,
        "backup: cora is listed as custodian twice; list each custodian once, with all of their nodes"
    );
}

#[test]
fn charter_is_refused_when_a_keeper_is_unknown_or_no_custodian() {
    for name in ["nobody", "olga", "ada"] {
        let text =
            broken(|draft| draft.backup.as_mut().unwrap().custodians[0].person = name.parse().unwrap());
        assert_eq!(text, format!("backup: this charter lists no {name} in the role of custodian"));
        let text = broken(|draft| draft.backup.as_mut().unwrap().escrow.person = name.parse().unwrap());
        assert_eq!(text, format!("backup: this charter lists no {name} in the role of custodian"));
    }
}

#[test]
fn charter_is_refused_when_a_recipient_is_malformed() {
    let right = recipient("cora");
    let hrp = |text| bech32::Hrp::parse(text).unwrap();
    let mut one_off = right.clone();
    one_off.replace_range(10..11, if &right[10..11] == "q" { "p" } else { "q" });
    for wrong in [
        String::new(),
        "age1".to_owned(),
        one_off,
        right[..right.len() - 1].to_owned(),
        format!(" {right}"),
        right.to_uppercase(),
        bech32::encode::<bech32::Bech32>(hrp("age"), &[7; 31]).unwrap(),
        bech32::encode::<bech32::Bech32>(hrp("age"), &[7; 33]).unwrap(),
        bech32::encode::<bech32::Bech32>(hrp("age-secret-key-"), &[7; 32]).unwrap(),
        bech32::encode::<bech32::Bech32m>(hrp("age"), &[7; 32]).unwrap(),
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA".to_owned(),
    ] {
        let text = broken(|draft| draft.backup.as_mut().unwrap().custodians[1].recipient.clone_from(&wrong));
        assert!(text.contains(&format!("`{wrong}` of carl is not an age X25519 recipient")), "{text}");
        let text = broken(|draft| draft.backup.as_mut().unwrap().escrow.recipient.clone_from(&wrong));
        assert!(text.contains("of esther is not an age X25519 recipient"), "{text}");
    }
}

#[test]
fn charter_is_refused_when_two_keepers_have_one_recipient() {
    for other in ["carl", "coby", "esther"] {
        let text = broken(|draft| draft.backup.as_mut().unwrap().custodians[0].recipient = recipient(other));
        assert_eq!(text, "backup: two keepers have the same recipient");
    }
}

#[test]
fn charter_is_refused_when_a_lock_ends_before_the_next_refresh_or_never() {
    for (lock, refresh, named) in
        [(89, 90, "89"), (0, 1, "0"), (0, 0, "0"), (10, 0, "10"), (3651, 90, "3651")]
    {
        let text = broken(|draft| {
            let backup = draft.backup.as_mut().unwrap();
            (backup.lock_days, backup.refresh_days) = (lock, refresh);
        });
        assert!(text.starts_with(&format!("backup: locked for {named} days")), "{text}");
    }
    for (lock, refresh) in [(90, 90), (1, 1), (3650, 90)] {
        let mut draft = backed_draft();
        let backup = draft.backup.as_mut().unwrap();
        (backup.lock_days, backup.refresh_days) = (lock, refresh);
        written(&draft).unwrap();
    }
}

#[test]
fn amendment_of_who_keeps_backups_and_for_how_long_is_allowed_and_told() {
    let person = |name: &str| Article::Custodian(name.parse().unwrap());
    let changed = |change: &dyn Fn(&mut CharterDraft)| -> Vec<Article> {
        let mut draft = CharterDraft { amends: Some(BACKED.hash()), ..backed_draft() };
        change(&mut draft);
        let next = written(&draft).unwrap();
        BACKED.check_amendment(&next).unwrap();
        BACKED.changes(&next).into_iter().map(|change| change.article).collect()
    };
    let rules = |draft: &mut CharterDraft| draft.backup.take().unwrap();
    assert_eq!(changed(&|draft| draft.backup.as_mut().unwrap().lock_days = 200), [Article::Backups]);
    assert_eq!(changed(&|draft| draft.backup.as_mut().unwrap().refresh_days = 30), [Article::Backups]);
    assert_eq!(
        changed(&|draft| draft.backup.as_mut().unwrap().escrow.recipient = recipient("new")),
        [Article::Escrow]
    );
    assert_eq!(
        changed(&|draft| draft.backup.as_mut().unwrap().custodians[0].recipient = recipient("new")),
        [person("cora")]
    );
    assert_eq!(
        changed(&|draft| {
            let mut backup = rules(draft);
            let moved = backup.custodians[0].nodes.pop();
            backup.custodians[2].nodes.extend(moved);
            draft.backup = Some(backup);
        }),
        [person("coby"), person("cora")]
    );
    assert_eq!(
        changed(&|draft| drop(rules(draft))),
        [Article::Backups, person("carl"), person("coby"), person("cora"), Article::Escrow]
    );
}

#[test]
fn amendment_may_begin_backups_and_says_all_of_them() {
    let next = written(&CharterDraft { amends: Some(CHARTER.hash()), ..backed_draft() }).unwrap();
    CHARTER.check_amendment(&next).unwrap();
    let changes = CHARTER.changes(&next);
    let told =
        |article: Article| changes.iter().find(|change| change.article == article).map(Change::to_string);
    assert_eq!(told(Article::Backups).unwrap(), "+ backups: locked 180 days, refreshed every 90");
    assert_eq!(told(Article::Escrow).unwrap(), format!("+ escrow trustee: esther, {}", recipient("esther")));
    assert_eq!(
        told(Article::Custodian("carl".parse().unwrap())).unwrap(),
        format!("+ backups kept by carl: nodes 3, 4, {}", recipient("carl"))
    );
    assert!(CHARTER.check_amendment(&written(&draft()).unwrap()).is_err());
}

#[test]
fn lock_is_counted_from_the_entry_and_not_from_the_ceremony() {
    let mut paper = DUE.clone();
    let early = paper.backup(1);
    paper.now = paper.now.plus(DAY);
    refused!(paper.back_up_with(1, early), Rejection::ShortLock { .. });
    let until = |object: Option<log::Object>| UnixMillis(object.unwrap().locked_until_ms);
    assert!(until(paper.backup(1).whole) > paper.now.plus(i64::from(LOCK_DAYS - 1) * DAY));
    paper.back_up(1).unwrap();
}
