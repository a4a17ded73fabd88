//! The last resort: what a rebuild may be opened for, who does what in it, and what people sign.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::sync::LazyLock;

use ceremonies::book::{Book, OpeningError};
use ceremonies::ceremony::{Duty, Phase, Rejection, StepState, Void};
use ceremonies::charter::{CeremonyKind, Charter, CharterDraft, Role};
use ceremonies::manifest::{ManifestError, Subject, Way};
use ceremonies::script::{Act, Script};
use ceremonies::statement::Answer;

use crate::cluster::{BACKED, context_of, group, node};
use crate::kit::{MINUTE, Paper, proposal};
use crate::machine::NOW;
use crate::refused;

/// A key generation whose backups are proven.
static CLOSED: LazyLock<Paper> = LazyLock::new(Paper::backed_up);

/// Everything is lost except three sheets of paper.
const SHEETS: [(u8, Way); 5] =
    [(1, Way::Backup), (2, Way::Repair), (3, Way::Backup), (4, Way::Backup), (5, Way::Repair)];

fn rebuild(lost: &[(u8, Way)]) -> Paper {
    CLOSED.then(CeremonyKind::Rebuild, |proposal| {
        proposal.subject = Subject::Losses(lost.iter().map(|(index, way)| (node(*index), *way)).collect());
    })
}

fn duties(paper: &Paper) -> Vec<Option<Duty>> {
    let keys = |by: u8| paper.enclaves[&by].keys();
    (1..=5).map(|by| paper.ceremony.duty(node(by), &keys(by), paper.now)).collect()
}

fn restore(paper: &mut Paper, keeper: &str, by: u8) {
    let sheet = CLOSED.ceremony.backups()[&node(by)].root.digest;
    paper.release("recover", keeper, by, sheet).unwrap();
    paper.get_back(by).unwrap();
}

/// A rebuild whose three sheets have been released.
fn restored() -> Paper {
    let mut paper = rebuild(&SHEETS).authorise();
    for (keeper, by) in [("cora", 1), ("carl", 3), ("carl", 4)] {
        assert!(!duties(&paper).contains(&Some(Duty::Rebuild)), "before every sheet is released");
        restore(&mut paper, keeper, by);
    }
    paper
}

#[test]
fn rebuild_goes_from_three_sheets_to_five_new_shares() {
    let mut paper = restored();
    assert_eq!(duties(&paper), vec![Some(Duty::Rebuild); 5]);
    paper.get_back(2).unwrap();
    assert_eq!(duties(&paper)[1], None, "node 2 has its share; node 5 has not");
    paper.get_back(5).unwrap();
    assert_eq!(duties(&paper), vec![Some(Duty::Generate); 5]);
    paper.stage_all();
    paper.read_words_back();
    paper.finish();
    assert_eq!(paper.ceremony.phase(), Phase::Closed);
    let (old, new) = (paper.ceremony.before().unwrap(), paper.ceremony.committed().unwrap());
    assert_eq!(old.record.public_key, new.record.public_key);
}

#[test]
fn rebuild_is_among_t_that_have_a_share_and_all_that_have_none() {
    for (lost, parties) in [
        (&SHEETS[..], &[1, 2, 3, 4, 5][..]),
        (
            &[(1, Way::Backup), (2, Way::Backup), (3, Way::Backup), (4, Way::Backup), (5, Way::Repair)],
            &[1, 2, 3, 5],
        ),
        (&[(3, Way::Repair), (4, Way::Backup), (5, Way::Repair)], &[1, 2, 3, 4, 5]),
        (&[(1, Way::Backup), (2, Way::Backup), (4, Way::Repair)], &[1, 3, 4, 5]),
    ] {
        let paper = rebuild(lost);
        assert_eq!(paper.ceremony.rebuilding(), group(parties), "{lost:?}");
        assert_eq!(
            paper.ceremony.manifest().dealer(),
            lost.iter().find(|(_, way)| *way == Way::Repair).map(|(index, _)| node(*index))
        );
    }
}

fn naming(kind: CeremonyKind, lost: &[(u8, Way)]) -> Result<(), ManifestError> {
    let wallet = CLOSED.ceremony.committed().unwrap();
    let mut proposal = proposal(kind, Some(&wallet), 9);
    proposal.subject = Subject::Losses(lost.iter().map(|(index, way)| (node(*index), *way)).collect());
    proposal.manifest(&BACKED, &Script::builtin(kind).unwrap()).map(drop)
}

#[test]
fn manifest_is_refused_where_no_enclave_needs_to_hold_the_key_or_nothing_can_be_rebuilt() {
    use Way::{Backup, Repair};
    naming(CeremonyKind::Rebuild, &SHEETS).unwrap();
    for (lost, why) in [
        (&[][..], "must name the nodes"),
        (&[(1, Backup), (2, Backup), (3, Backup), (4, Backup), (5, Backup)], "every lost node has a backup"),
        (&[(4, Backup), (5, Repair)], "enough nodes have their shares"),
        (&[(1, Repair)], "enough nodes have their shares"),
        (
            &[(1, Backup), (2, Backup), (3, Repair), (4, Repair), (5, Repair)],
            "fewer nodes than the threshold",
        ),
    ] {
        let error = naming(CeremonyKind::Rebuild, lost).unwrap_err();
        assert!(error.to_string().contains(why), "{lost:?}: {error}");
    }
    let error = naming(CeremonyKind::TestSign, &SHEETS).unwrap_err();
    assert!(error.to_string().contains("and no other ceremony may"), "{error}");
}

#[test]
fn opening_is_refused_for_a_sheet_that_no_log_knows_and_beside_another_renewal() {
    let book = |papers: &[&Paper]| {
        let mut book = Book::new(context_of(&BACKED));
        for entry in papers.iter().flat_map(|paper| &paper.log) {
            book.take(entry.clone()).unwrap();
        }
        book
    };
    let soon = NOW.plus(30 * MINUTE);
    let asked = rebuild(&SHEETS);
    assert_eq!(book(&[&CLOSED]).check_opening(asked.ceremony.manifest(), soon), Ok(()));
    let refresh = CLOSED.then(CeremonyKind::Refresh, |proposal| proposal.nonce = [9; 16]);
    let other = CLOSED.then(CeremonyKind::Rebuild, |proposal| {
        proposal.subject = Subject::Losses(SHEETS.map(|(index, way)| (node(index), way)).into());
        proposal.nonce = [9; 16];
        proposal.generation = ceremonies::ids::Generation(3);
    });
    let under_way = book(&[&CLOSED, &refresh]).check_opening(other.ceremony.manifest(), soon);
    assert!(matches!(under_way, Err(OpeningError::UnderWay(_))), "{under_way:?}");
    let mut without = Paper::dkg_under(context_of(&BACKED)).authorise();
    without.prepare_all();
    let missing = book(&[&without]).check_opening(asked.ceremony.manifest(), soon);
    assert_eq!(missing, Err(OpeningError::NoBackup(node(1))));
}

#[test]
fn rebuild_that_is_given_up_voids_and_only_its_parties_can_give_it_up() {
    let mut four =
        rebuild(&[(1, Way::Backup), (2, Way::Backup), (3, Way::Backup), (4, Way::Backup), (5, Way::Repair)])
            .authorise();
    refused!(four.abort(4, &group(&[1, 2, 3, 5]), 1), Rejection::NotDue(_));
    refused!(four.abort(1, &group(&[1, 2, 3, 4]), 1), Rejection::NotDue(_));
    four.abort(1, &group(&[1, 2, 3, 5]), 1).unwrap();
    assert!(matches!(four.ceremony.phase(), Phase::Void(Void::Aborted { .. })));
    assert!(four.ceremony.can_never_commit());
    assert_eq!(duties(&four), vec![None; 5]);
}

#[test]
fn shares_are_refused_before_the_highest_quorum_has_approved() {
    let mut paper = rebuild(&SHEETS);
    paper.attest_all();
    paper.approve_but_one();
    refused!(paper.get_back(2), Rejection::NotAuthorised(_));
    let sheet = CLOSED.ceremony.backups()[&node(1)].root.digest;
    refused!(paper.release("recover", "cora", 1, sheet), Rejection::NotOpen { .. });
    paper.approve("arthur", Role::Auditor).unwrap();
    paper.release("recover", "cora", 1, sheet).unwrap();
    refused!(
        paper.release("recover", "cora", 2, CLOSED.ceremony.backups()[&node(2)].root.digest),
        Rejection::NoReleaseDue(_)
    );
}

#[test]
fn people_sign_whose_enclave_could_know_the_key() {
    let mut paper = rebuild(&SHEETS);
    paper.attest_all();
    paper.confirm();
    let (step, person) = ("approve".parse().unwrap(), "hanna".parse().unwrap());
    let text = paper.ceremony.statement(&step, Role::Operator, &person, &Answer::None).unwrap();
    for said in [
        "kind: rebuild\n",
        "lost: node 1, by backup\nlost: node 2, without any backup left, rebuilt in node 2's enclave\n",
        "lost: node 5, without any backup left, rebuilt in node 2's enclave\n",
        "whole key: for a moment within reach of node 2's enclave alone\n",
    ] {
        assert!(text.contains(said), "{said} is not in {text}");
    }
    let recover = paper.ceremony.script().step_for(Act::Recover).unwrap();
    let state = restored().ceremony.step_state(recover);
    assert!(
        matches!(&state, StepState::Open { waiting_for } if waiting_for.contains("rebuilt in node 2's enclave")),
        "{state:?}"
    );
    let mut recovery = CLOSED.recover(&[(2, Way::Repair)]);
    recovery.attest_all();
    recovery.confirm();
    let text = recovery.ceremony.statement(&step, Role::Operator, &person, &Answer::None).unwrap();
    assert!(!text.contains("whole key"), "{text}");
}

#[test]
fn root_share_is_refused_to_a_node_that_has_to_help_in_a_repair() {
    let old = |by: u8| CLOSED.ceremony.backups()[&node(by)].clone();
    let mixed = [(1, Way::Repair), (3, Way::Backup), (5, Way::Backup)];
    let mut paper = CLOSED.recover(&mixed).authorise();
    refused!(paper.release("recover", "carl", 3, old(3).root.digest), Rejection::RootHelpsNobody(of) if of == node(3));
    paper.release("recover", "carl", 3, old(3).whole.digest).unwrap();
    paper.release("recover", "coby", 5, old(5).root.digest).unwrap();
    let mut alone = CLOSED.recover(&[(3, Way::Backup), (5, Way::Backup)]).authorise();
    alone.release("recover", "carl", 3, old(3).root.digest).unwrap();
}

fn charter(change: impl FnOnce(&mut CharterDraft)) -> Result<(), String> {
    let mut draft = BACKED.draft();
    change(&mut draft);
    Charter::parse(draft.to_toml().unwrap().as_bytes()).map(drop).map_err(|error| error.to_string())
}

#[test]
fn charter_is_refused_when_any_quorum_is_higher_than_that_of_a_rebuild() {
    let lower = |draft: &mut CharterDraft, kind: CeremonyKind| {
        *draft.quorum.get_mut(&kind).unwrap().get_mut(&Role::Operator).unwrap() -= 1;
    };
    let raise = |draft: &mut CharterDraft| {
        for quorum in draft.quorum.values_mut() {
            quorum.insert(Role::Operator, 4);
        }
    };
    charter(raise).unwrap();
    charter(|draft| {
        raise(draft);
        lower(draft, CeremonyKind::Transfer);
    })
    .unwrap();
    let refused = charter(|draft| {
        raise(draft);
        lower(draft, CeremonyKind::Rebuild);
    });
    assert!(refused.unwrap_err().contains("which must have the highest of all"));
    charter(|draft| drop(draft.quorum.remove(&CeremonyKind::Rebuild))).unwrap();
}
