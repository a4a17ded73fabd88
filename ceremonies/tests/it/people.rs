//! What people sign: which signature counts, and which does not.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use ceremonies::ceremony::{Phase, Rejection, StepState, Void};
use ceremonies::charter::Role;
use ceremonies::sshsig::FormatError;
use ceremonies::statement::{Answer, NAMESPACE, SignatureError};

use ceremonies::text::chain;
use ssh_key::{Algorithm, HashAlg};

use crate::cluster::{QUORUM, TOUCHED, VERIFIED, hardware_sign, hardware_sign_labelled, line, ssh_sign};
use crate::kit::Paper;
use crate::refused;

pub(crate) fn confirmed() -> Paper {
    let mut paper = Paper::dkg();
    paper.attest_all();
    paper.confirm();
    paper
}

pub(crate) fn text(paper: &Paper, step: &str, person: &str, role: Role) -> String {
    paper.ceremony.statement(&step.parse().unwrap(), role, &person.parse().unwrap(), &Answer::None).unwrap()
}

#[test]
fn key_generation_is_not_authorised_when_any_one_approval_is_missing() {
    for (missing, (person, role)) in QUORUM.into_iter().enumerate() {
        let mut paper = confirmed();
        for (place, (other, role)) in QUORUM.iter().enumerate() {
            if place != missing {
                paper.approve(other, *role).unwrap();
            }
        }
        let all = ceremonies::subsets::Subset::new(paper.ceremony.manifest().roster.clone());
        assert_eq!(paper.ceremony.phase(), Phase::Gathering);
        refused!(paper.prepare(1), Rejection::NotAuthorised(_));
        refused!(paper.abort(1, &all, 1), Rejection::NotAuthorised(_));
        refused!(paper.fault(1), Rejection::NotAuthorised(_));
        paper.approve(person, role).unwrap();
        paper.prepare(1).unwrap();
    }
}

#[test]
fn fourth_operator_does_not_stand_in_for_a_missing_witness() {
    let mut paper = confirmed();
    for (person, role) in QUORUM.iter().filter(|(_, role)| *role != Role::Witness) {
        paper.approve(person, *role).unwrap();
    }
    paper.approve("hanna", Role::Operator).unwrap();
    paper.approve("both", Role::Operator).unwrap();
    assert_eq!(paper.ceremony.phase(), Phase::Gathering);
}

#[test]
fn approval_is_refused_when_signed_for_another_ceremony_step_role_or_set_of_enclaves() {
    let mut other = Paper::dkg_with(9);
    other.attest_all();
    other.confirm();
    let mut restarted = Paper::dkg();
    restarted.attest_all();
    restarted.restart(3).unwrap();
    restarted.confirm();
    let mut paper = confirmed();
    let right = text(&paper, "approve", "both", Role::Operator);
    for wrong in [
        text(&other, "approve", "both", Role::Operator),
        text(&restarted, "approve", "both", Role::Operator),
        text(&paper, "approve", "both", Role::Witness),
        text(&paper, "approve", "olga", Role::Operator),
        right.replace("(LAB)", "(PRODUCTION)"),
        right.replace("step: approve", "step: close"),
        String::new(),
    ] {
        assert_ne!(wrong, right);
        let signature = ssh_sign("both", NAMESPACE, &wrong);
        refused!(
            paper.sign_with("approve", "both", Role::Operator, Answer::None, signature),
            Rejection::Signature(SignatureError::Text(_))
        );
    }
    let signature = ssh_sign("both", NAMESPACE, &right);
    paper.sign_with("approve", "both", Role::Operator, Answer::None, signature).unwrap();
}

#[test]
fn approval_of_a_statement_that_another_program_saved_is_refused_with_what_it_changed() {
    let mut paper = confirmed();
    let right = text(&paper, "approve", "both", Role::Operator);
    let windows = right.replace('\n', "\r\n");
    for (wrong, expected) in [
        (windows.clone(), "Windows line endings"),
        (windows.trim_end().to_owned(), "Windows line endings and without the last"),
        (right.trim_end().to_owned(), "without its final line feed"),
        (format!("{right}\n"), "an extra empty line at its end"),
        (format!("\u{feff}{right}"), "byte order mark"),
    ] {
        let signature = ssh_sign("both", NAMESPACE, &wrong);
        let refused =
            paper.sign_with("approve", "both", Role::Operator, Answer::None, signature).unwrap_err();
        assert!(chain(&refused).contains(expected), "{refused}");
        refused!(Err::<(), _>(refused), Rejection::Signature(SignatureError::Resaved { .. }));
    }
}

#[test]
fn approval_is_refused_in_another_namespace_by_another_key_or_without_form() {
    let mut paper = confirmed();
    let text = text(&paper, "approve", "olga", Role::Operator);
    let mut with = |signature| paper.sign_with("approve", "olga", Role::Operator, Answer::None, signature);
    refused!(
        with(ssh_sign("olga", "file", &text)),
        Rejection::Signature(SignatureError::Namespace { found, .. }) if found == "file"
    );
    refused!(with(ssh_sign("omar", NAMESPACE, &text)), Rejection::Signature(SignatureError::Key { .. }));
    refused!(with(ssh_sign("nobody", NAMESPACE, &text)), Rejection::Signature(SignatureError::Key { .. }));
    refused!(with(b"-----BEGIN".to_vec()), Rejection::Signature(SignatureError::Format(FormatError::Begin)));
    with(ssh_sign("olga", NAMESPACE, &text)).unwrap();
}

#[test]
fn person_is_refused_in_a_second_role() {
    let mut paper = Paper::dkg();
    paper.attest_all();
    paper.sign("identities", "both", Role::Witness, Answer::None).unwrap();
    refused!(paper.approve("both", Role::Operator), Rejection::TwoRoles { role: Role::Witness, .. });
    refused!(paper.withdraw("both", Role::Operator), Rejection::TwoRoles { .. });
    paper.approve("both", Role::Witness).unwrap();
}

#[test]
fn person_is_refused_in_a_role_that_the_charter_does_not_give() {
    let mut paper = confirmed();
    for role in [Role::Administrator, Role::Witness, Role::Auditor] {
        refused!(paper.approve("olga", role), Rejection::NotInRole { role: refused, .. } if refused == role);
        refused!(paper.withdraw("olga", role), Rejection::NotInRole { .. });
    }
    refused!(paper.approve("nobody", Role::Operator), Rejection::NoSuchPerson(_));
}

#[test]
fn administrator_is_refused_when_another_opened() {
    let mut paper = confirmed();
    refused!(paper.approve("adam", Role::Administrator), Rejection::OtherAdministrator(_));
    refused!(paper.withdraw("adam", Role::Administrator), Rejection::OtherAdministrator(_));
}

#[test]
fn step_is_refused_by_a_role_that_does_not_sign_it() {
    let mut paper = Paper::dkg();
    paper.attest_all();
    for (person, role) in [("olga", Role::Operator), ("ada", Role::Administrator), ("arthur", Role::Auditor)]
    {
        refused!(paper.sign("identities", person, role, Answer::None), Rejection::NotSignedBy { .. });
    }
}

#[test]
fn step_is_refused_before_its_turn() {
    let mut paper = Paper::dkg();
    refused!(paper.approve("olga", Role::Operator), Rejection::NotOpen { missing, .. } if missing.as_str() == "attest");
    paper.attest_all();
    refused!(paper.approve("olga", Role::Operator), Rejection::NotOpen { missing, .. } if missing.as_str() == "identities");
    paper.approve_all();
    refused!(
        paper.sign("close", "ada", Role::Administrator, Answer::None),
        Rejection::NotOpen { missing, .. } if missing.as_str() == "generate"
    );
    refused!(
        paper.sign("read-back", "olga", Role::Operator, Answer::Words("aardvark".into())),
        Rejection::NotOpen { .. }
    );
    paper.prepare_all();
    let words = Answer::Words(paper.ceremony.spoken_words().unwrap());
    refused!(paper.sign("read-back", "olga", Role::Operator, words), Rejection::NotOpen { .. });
}

#[test]
fn step_that_people_do_not_sign_is_refused() {
    let mut paper = confirmed();
    for step in ["open", "attest", "generate", "test-sign", "withdraw", "nonsense"] {
        refused!(paper.sign(step, "ada", Role::Administrator, Answer::None), Rejection::NoSuchStep(_));
    }
}

#[test]
fn step_is_refused_with_an_answer_that_it_does_not_ask_for() {
    let mut paper = confirmed();
    for answer in [Answer::Agree, Answer::Disagree(line("no")), Answer::Words("aardvark".into())] {
        refused!(paper.sign("approve", "olga", Role::Operator, answer), Rejection::Answer { .. });
    }
    let mut paper = Paper::committed();
    paper.adopt_all();
    refused!(paper.sign("read-back", "olga", Role::Operator, Answer::None), Rejection::Answer { .. });
    let mut paper = Paper::read_back();
    paper.test_sign_all();
    refused!(paper.sign("agree", "olga", Role::Operator, Answer::None), Rejection::Answer { .. });
}

#[test]
fn second_signature_of_a_person_under_a_step_is_refused() {
    let mut paper = confirmed();
    paper.approve("olga", Role::Operator).unwrap();
    refused!(paper.approve("olga", Role::Operator), Rejection::SignedAlready { .. });
}

#[test]
fn wrong_words_leave_the_step_open() {
    let mut paper = Paper::committed();
    paper.adopt_all();
    let right = paper.ceremony.spoken_words().unwrap();
    let mut swapped: Vec<&str> = right.split(' ').collect();
    swapped.swap(0, 1);
    let (first, _) = right.rsplit_once(' ').unwrap();
    let signed = paper.sign("read-back", "olga", Role::Operator, Answer::Words(swapped.join(" ")));
    refused!(signed, Rejection::WrongWords { place: 1 });
    for (wrong, count) in [(first.to_owned(), 7), (format!("{right} aardvark"), 9)] {
        let signed = paper.sign("read-back", "olga", Role::Operator, Answer::Words(wrong));
        refused!(signed, Rejection::CountOfWords(given) if given == count);
    }
    let step = paper.ceremony.current_step().unwrap();
    assert_eq!(step.id.as_str(), "read-back");
    assert!(matches!(paper.ceremony.step_state(step), StepState::Open { .. }));
    paper.sign("read-back", "olga", Role::Operator, Answer::Words(right)).unwrap();
}

#[test]
fn approval_is_refused_after_the_expiry_and_taken_at_it() {
    let expires = Paper::dkg().ceremony.manifest().expires;
    let mut paper = confirmed();
    paper.now = expires.plus(-1000);
    paper.approve("olga", Role::Operator).unwrap();
    assert_eq!(paper.ceremony.head().time, expires);
    assert_eq!(paper.ceremony.phase(), Phase::Gathering);
    assert_eq!(paper.ceremony.phase_at(expires.plus(1)), Phase::Void(Void::Expired));
    refused!(paper.approve("omar", Role::Operator), Rejection::Expired { .. });
    refused!(paper.restart(1), Rejection::Expired { .. });
    refused!(paper.withdraw("ada", Role::Administrator), Rejection::Expired { .. });
}

#[test]
fn withdrawal_ends_the_ceremony_once() {
    let mut paper = confirmed();
    paper.withdraw("wendy", Role::Witness).unwrap();
    assert!(matches!(paper.ceremony.phase(), Phase::Void(Void::Withdrawn { .. })));
    refused!(paper.withdraw("ada", Role::Administrator), Rejection::Over(_));
    refused!(paper.approve("olga", Role::Operator), Rejection::Over(_));
    refused!(paper.restart(1), Rejection::Over(_));
}

#[test]
fn withdrawal_after_the_commit_abandons_the_script_and_keeps_the_wallet() {
    let mut paper = Paper::committed();
    paper.withdraw("ada", Role::Administrator).unwrap();
    assert!(matches!(paper.ceremony.phase(), Phase::Abandoned(_)));
    assert!(paper.ceremony.committed().is_some());
    paper.adopt(1).unwrap();
}

#[test]
fn withdrawal_abandons_a_commit_that_beat_a_fault() {
    let mut paper = Paper::authorised();
    paper.fault(3).unwrap();
    paper.prepare_all();
    assert_eq!(paper.ceremony.phase(), Phase::Committed);
    paper.withdraw("ada", Role::Administrator).unwrap();
    assert!(matches!(paper.ceremony.phase(), Phase::Abandoned(_)));
    refused!(paper.withdraw("ada", Role::Administrator), Rejection::Over(_));
}

#[test]
fn hardware_key_is_accepted_when_touched_and_refused_when_not() {
    let mut paper = confirmed();
    let text = text(&paper, "approve", "hanna", Role::Operator);
    let mut with = |signature| paper.sign_with("approve", "hanna", Role::Operator, Answer::None, signature);
    let untouched = with(hardware_sign("hanna", &text, 0));
    refused!(untouched, Rejection::Signature(SignatureError::NotPresent(_)));
    let verified_only = with(hardware_sign("hanna", &text, 4));
    refused!(verified_only, Rejection::Signature(SignatureError::NotPresent(_)));
    let other_text = with(hardware_sign("hanna", "something", TOUCHED));
    refused!(other_text, Rejection::Signature(SignatureError::Text(_)));
    with(hardware_sign("hanna", &text, TOUCHED)).unwrap();
    let presence = paper.ceremony.signatures().last().unwrap().presence;
    assert!(presence.hardware && presence.present && !presence.verified);
}

#[test]
fn untouched_hardware_key_is_refused_when_relabelled_as_another_kind() {
    let mut paper = confirmed();
    let text = text(&paper, "approve", "hanna", Role::Operator);
    let mut with = |flags, label| {
        let signature = hardware_sign_labelled("hanna", &text, flags, label);
        paper.sign_with("approve", "hanna", Role::Operator, Answer::None, signature)
    };
    let rsa = Algorithm::Rsa { hash: Some(HashAlg::Sha512) };
    for flags in [0, TOUCHED] {
        refused!(with(flags, rsa.clone()), Rejection::Signature(SignatureError::Algorithm { .. }));
    }
    with(TOUCHED, Algorithm::SkEd25519).unwrap();
}

#[test]
fn hardware_key_is_refused_without_verification_where_the_charter_asks_for_it() {
    let mut paper = confirmed();
    let text = text(&paper, "approve", "vera", Role::Operator);
    let mut with = |signature| paper.sign_with("approve", "vera", Role::Operator, Answer::None, signature);
    let touched = with(hardware_sign("vera", &text, TOUCHED));
    refused!(touched, Rejection::Signature(SignatureError::NotVerified(_)));
    let other_key = with(hardware_sign("hanna", &text, VERIFIED));
    refused!(other_key, Rejection::Signature(SignatureError::Key { .. }));
    with(hardware_sign("vera", &text, VERIFIED)).unwrap();
}
