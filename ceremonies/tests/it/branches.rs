//! Another branch of a log in place of the known one: the same events in another order, and nothing undone.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::sync::Arc;

use ceremonies::attestation::Measurement;
use ceremonies::book::{Book, BranchError, NotTaken};
use ceremonies::ceremony::Phase;
use ceremonies::charter::{CeremonyKind, Role};
use ceremonies::ids::CeremonyId;
use ceremonies::log::{Entry, Event};
use ceremonies::manifest::{Subject, Way};
use ceremonies::script::Script;
use ceremonies::statement::Answer;
use ceremonies::wire::log;
use prost::Message as _;

use crate::cluster::{BACKED, CHARTER, QUORUM, context, context_of, group};
use crate::kit::{MINUTE, Paper, proposal};
use crate::machine::{allowed, pcr};
use crate::refused;

fn id(paper: &Paper) -> CeremonyId {
    paper.ceremony.manifest().ceremony.clone()
}

fn book_under(book: Book, papers: &[&Paper]) -> Book {
    let mut book = book;
    for entry in papers.iter().flat_map(|paper| &paper.log) {
        book.take(entry.clone()).unwrap();
    }
    book
}

fn book(papers: &[&Paper]) -> Book {
    book_under(Book::new(context()), papers)
}

fn event(entry: &Entry) -> log::event::Kind {
    let body = log::EntryBody::decode(entry.raw().body.as_slice()).unwrap();
    body.event.unwrap().kind.unwrap()
}

/// The ceremony as it was when it was opened.
fn opening(paper: &Paper) -> Paper {
    let mut start = paper.clone();
    start.log.truncate(1);
    let context =
        context_of(paper.ceremony.charter()).with_wallet(paper.ceremony.before().cloned().map(Arc::new));
    start.ceremony = ceremonies::ceremony::Ceremony::fold(context, &start.log).unwrap();
    start.now = paper.ceremony.manifest().opened;
    start
}

/// The branch that has these entries' events instead, without those that the fold refuses there.
fn branch<'a>(paper: &Paper, entries: impl IntoIterator<Item = &'a Entry>) -> Paper {
    let mut branch = opening(paper);
    for entry in entries {
        // A fork begins where two nodes append at once.
        let _ = branch.append(entry.node.get(), event(entry));
    }
    branch
}

/// All events but those that this leaves out.
fn without(paper: &Paper, leaves_out: impl Fn(&Event) -> bool) -> Paper {
    branch(paper, paper.log[1..].iter().filter(|entry| !leaves_out(&entry.event)))
}

/// The same events, with the first of each of these kinds after all others of its kind.
fn reordered(paper: &Paper, moves: impl Fn(&Event) -> bool) -> Paper {
    let mut entries: Vec<&Entry> = paper.log[1..].iter().collect();
    let first = entries.iter().position(|entry| moves(&entry.event)).unwrap();
    let last = entries.iter().rposition(|entry| moves(&entry.event)).unwrap();
    let entry = entries.remove(first);
    entries.insert(last, entry);
    branch(paper, entries)
}

fn is_approval(event: &Event) -> bool {
    matches!(event, Event::Signed { step, .. } if step.as_str() == "approve")
}

fn takes_back(known: &Book, branch: &Paper) {
    refused!(known.with_branch(&branch.log), BranchError::TakesBack(of) if of == id(branch));
}

#[test]
fn branch_with_the_same_words_in_another_order_takes_the_place_of_the_known_one() {
    let dkg = Paper::closed();
    let mut signing = dkg.test_signing().authorise();
    signing.abort_banning(1, &group(&[1, 2, 3]), 1, Some(2)).unwrap();
    for (known, paper, moves) in [
        (book(&[&dkg]), &dkg, is_approval as fn(&Event) -> bool),
        (book(&[&dkg]), &dkg, |event| matches!(event, Event::Prepared { .. })),
        (book(&[&dkg, &signing]), &signing, is_approval),
    ] {
        let other = reordered(paper, moves);
        assert_eq!(other.log.len(), paper.log.len());
        let at = (1..).zip(&other.log).find(|(_, entry)| !paper.log.contains(entry)).unwrap();
        let mut unhealed = known.clone();
        refused!(unhealed.take(at.1.clone()), NotTaken::Fork { seq, .. } if seq == at.0);
        let healed = known.with_branch(&other.log).unwrap();
        assert_eq!(healed.get(&id(paper)).unwrap().entries, other.log);
        let treasury = "treasury".parse().unwrap();
        assert_eq!(healed.wallet(&treasury), known.wallet(&treasury));
        assert_eq!(healed.bans().collect::<Vec<_>>(), known.bans().collect::<Vec<_>>());
    }
}

#[test]
fn branch_is_refused_that_takes_back_a_word_of_an_enclave() {
    let closed = Paper::closed();
    let mut signing = closed.test_signing().authorise();
    signing.abort_banning(1, &group(&[1, 2, 3]), 1, Some(2)).unwrap();
    takes_back(&book(&[&closed, &signing]), &without(&signing, |event| matches!(event, Event::Aborted(_))));

    let committed = Paper::committed();
    let last = |event: &Event| matches!(event, Event::Prepared { node, .. } if node.get() == 5);
    takes_back(&book(&[&committed]), &without(&committed, last));
    let mut begun = Paper::authorised();
    begun.prepare(1).unwrap();
    takes_back(&book(&[&begun]), &without(&begun, |event| matches!(event, Event::Prepared { .. })));

    let staged = Paper::staged();
    let dkg = Paper::committed();
    takes_back(&book(&[&dkg, &staged]), &without(&staged, |event| matches!(event, Event::Staged { .. })));
    let mut given_up = Paper::authorised();
    given_up.abort(1, &group(&[1, 2, 3, 4, 5]), 1).unwrap();
    takes_back(&book(&[&given_up]), &without(&given_up, |event| matches!(event, Event::Aborted(_))));
}

#[test]
fn branch_is_refused_that_takes_back_what_people_have_approved_or_let_through() {
    let dkg = Paper::committed();
    let authorised = Paper::authorised();
    takes_back(&book(&[&authorised]), &without(&authorised, is_approval));
    let withdrawn = {
        let mut paper = Paper::dkg();
        paper.withdraw("ada", Role::Administrator).unwrap();
        branch(&authorised, paper.log[1..].iter().chain(&authorised.log[1..]))
    };
    assert!(matches!(withdrawn.ceremony.phase(), Phase::Void(_)));
    takes_back(&book(&[&authorised]), &withdrawn);
    let let_through = Paper::let_through();
    let is_commit = |event: &Event| matches!(event, Event::Signed { step, .. } if step.as_str() == "commit");
    takes_back(&book(&[&dkg, &let_through]), &without(&let_through, is_commit));
    // What was neither approved nor reported may go.
    let opened = Paper::dkg();
    let known = book(&[&opened]);
    known.with_branch(&withdrawn_alone().log).unwrap();
}

fn withdrawn_alone() -> Paper {
    let mut paper = Paper::dkg();
    paper.attest(1).unwrap();
    paper.withdraw("ada", Role::Administrator).unwrap();
    paper
}

#[test]
fn branch_is_refused_that_takes_back_a_backup() {
    let dkg = Paper::backed_up();
    let known = book_under(Book::new(context_of(&BACKED)), &[&dkg]);
    let fifth = |event: &Event| matches!(event, Event::BackedUp(backup) if backup.node.get() == 5);
    takes_back(&known, &without(&dkg, fifth));
    let recovery = dkg.recover(&[(5, Way::Backup)]);
    let known = book_under(known, &[&recovery]);
    takes_back(&known, &without(&dkg, fifth));
}

#[test]
fn branch_is_refused_of_another_manifest_and_what_the_fold_refuses() {
    let (first, second) = (Paper::dkg_with(1), Paper::dkg_with(2));
    let known = book(&[&first]);
    let mut other = log::Manifest::decode(second.ceremony.manifest().as_bytes()).unwrap();
    other.ceremony = id(&first).to_string();
    let other = ceremonies::manifest::Manifest::parse(&other.encode_to_vec()).unwrap();
    takes_back(&known, &Paper::start(context(), &other, Vec::new()));
    let closed = Paper::closed();
    refused!(book(&[&closed]).with_branch(&closed.log[1..]), BranchError::Rejected { seq: 1, .. });
    let mut gap = closed.log.clone();
    gap.remove(3);
    refused!(book(&[&closed]).with_branch(&gap), BranchError::Rejected { seq: 4, .. });
}

/// An amendment that allows another image, approved this many minutes after its opening.
fn amendment(image: u8, minutes: i64) -> Paper {
    let next = CHARTER.allowing(&Measurement { pcr0: pcr(image), ..allowed() }, None).unwrap();
    let mut proposal = proposal(CeremonyKind::Amend, None, image);
    proposal.wallet = "charter".parse().unwrap();
    proposal.subject = Subject::Charter(Arc::new(next));
    let script = Script::builtin(CeremonyKind::Amend).unwrap();
    let mut paper = Paper::start(context(), &proposal.manifest(&CHARTER, &script).unwrap(), Vec::new());
    paper.now = paper.now.plus(minutes * MINUTE);
    paper.sign("compare", "wendy", Role::Witness, Answer::None).unwrap();
    for (person, role) in &QUORUM {
        paper.approve(person, *role).unwrap();
    }
    paper
}

/// The branch on which the same was said this many minutes after the opening.
fn said_later(paper: &Paper, minutes: i64) -> Paper {
    let mut later = opening(paper);
    later.now = later.now.plus(minutes * MINUTE);
    for entry in &paper.log[1..] {
        later.append(entry.node.get(), event(entry)).unwrap();
    }
    later
}

#[test]
fn branch_is_refused_that_takes_back_a_charter_or_puts_another_in_force() {
    // Both amend the same charter: the one that was approved first is in force.
    let (first, second) = (amendment(7, 1), amendment(8, 2));
    takes_back(&book(&[&first]), &without(&first, is_approval));
    let known = book(&[&first, &second]);
    let in_force = known.context().charter().hash();
    assert_eq!(in_force, first.ceremony.manifest().amendment().unwrap().hash());
    takes_back(&known, &said_later(&first, 3));
    takes_back(&known, &said_later(&second, 0));
    book(&[&first]).with_branch(&said_later(&first, 3).log).unwrap();
    let healed = known.with_branch(&said_later(&second, 3).log).unwrap();
    assert_eq!(healed.context().charter().hash(), in_force);
}
