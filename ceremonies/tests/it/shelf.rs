//! Which ceremonies a book can do without, and what it still says without them.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use ceremonies::book::{Book, record_in};
use ceremonies::charter::CeremonyKind;
use ceremonies::ids::{CeremonyId, Generation, UnixMillis};
use ceremonies::inventory::{Change, Item};
use ceremonies::log::Entry;
use ceremonies::manifest::Subject;

use crate::cluster::{context, line, node};
use crate::kit::{MINUTE, Paper};
use crate::machine::NOW;
use crate::orders::{Banned, GENERATIONS, banning, book, id, next, record, take};

const SOON: UnixMillis = NOW.plus(40 * MINUTE);

fn shelvable(book: &Book) -> Vec<CeremonyId> {
    book.shelvable(SOON).into_iter().collect()
}

fn sorted<'a>(papers: impl IntoIterator<Item = &'a Paper>) -> Vec<CeremonyId> {
    let mut ids: Vec<CeremonyId> = papers.into_iter().map(id).collect();
    ids.sort();
    ids
}

/// The six generations, without those that may be shelved.
fn without_old() -> Book {
    let mut book = book(&*GENERATIONS);
    for id in book.shelvable(SOON) {
        book.shelve(&id);
    }
    book
}

#[test]
fn generations_before_the_last_two_may_go_and_the_wallet_stays() {
    let papers = &*GENERATIONS;
    assert_eq!(shelvable(&book(papers)), sorted(&papers[..4]));
    assert_eq!(shelvable(&book(&papers[..2])), [], "the one in use and the one before");
    let rest = without_old();
    let name = papers[0].ceremony.manifest().wallet.clone();
    assert_eq!(rest.wallet(&name).unwrap().record, record(&papers[5]));
    assert_eq!(rest.next_generation(&name, SOON), Generation(7));
    assert_eq!(shelvable(&rest), []);
}

#[test]
fn generation_that_something_in_the_book_works_on_stays_with_the_one_before_it() {
    let papers = &*GENERATIONS;
    let inventory = papers[2].then(CeremonyKind::Inventory, |proposal| {
        proposal.opened = SOON;
        let found = Item::Copy { node: node(1), change: Change::CopyFound, what: line("A laptop") };
        proposal.subject = Subject::Copies(vec![found]);
    });
    let signing = next(&papers[2], CeremonyKind::TestSign, 1000, 30);
    let refresh = next(&papers[2], CeremonyKind::Refresh, 1000, 30);
    for at_work in [inventory, signing] {
        let known = book(papers.iter().chain([&at_work]));
        let kind = at_work.ceremony.manifest().kind;
        assert_eq!(shelvable(&known), sorted([&papers[0], &papers[3]]), "{kind}");
    }
    let known = book(papers.iter().chain([&refresh]));
    assert_eq!(shelvable(&known), sorted([&papers[0]]), "nor what has made the same generation");
}

#[test]
fn attempt_that_came_to_nothing_goes_with_the_generation_that_it_was_to_make() {
    let papers = &*GENERATIONS;
    let failed = |before: &Paper, number| {
        let mut paper = next(before, CeremonyKind::Refresh, number, 30).authorise();
        paper.withdraw("ada", ceremonies::charter::Role::Administrator).unwrap();
        paper
    };
    let (old, new) = (failed(&papers[0], 1000), failed(&papers[5], 1001));
    let known = book(papers.iter().chain([&old, &new]));
    assert!(shelvable(&known).contains(&id(&old)));
    assert!(!shelvable(&known).contains(&id(&new)), "a later attempt is judged by it");
}

#[test]
fn nothing_that_made_shares_goes_while_anybody_is_banned() {
    let papers = &*GENERATIONS;
    let ban = banning(&papers[5], 1000, 30, Banned::First);
    let known = book(papers.iter().chain([&ban]));
    assert_eq!(shelvable(&known), []);
}

/// Two nodes might otherwise make a generation again that is long over, because they no longer know it.
#[test]
fn opening_that_would_make_a_generation_again_has_a_rival_though_that_generation_is_gone() {
    let papers = &*GENERATIONS;
    let again = next(&papers[1], CeremonyKind::Refresh, 1000, 30).authorise();
    let mut rest = without_old();
    rest.know_records([record(&papers[1])]);
    take(&mut rest, &again.log).unwrap();
    let ceremony = &rest.get(&id(&again)).unwrap().ceremony;
    assert_eq!(rest.rival(ceremony, SOON), Some(&id(&papers[5])));
    let next = next(&papers[5], CeremonyKind::Refresh, 1001, 31).authorise();
    take(&mut rest, &next.log).unwrap();
    let ceremony = &rest.get(&id(&next)).unwrap().ceremony;
    assert_eq!(rest.rival(ceremony, SOON), None, "the next one has none");
}

#[test]
fn log_is_read_again_on_the_record_in_the_log_before_it_and_not_on_another() {
    let papers = &*GENERATIONS;
    let origin = papers[3].ceremony.manifest().origin.clone().unwrap();
    let found = record_in(&papers[2].log, &origin.record).unwrap();
    assert_eq!(found, record(&papers[2]));
    let logs = || [papers[3].log.clone()];
    let mut fresh = Book::new(context());
    assert!(!fresh.take_logs(logs()).is_empty(), "without the record");
    fresh.know_records([found]);
    assert!(fresh.take_logs(logs()).is_empty());
    assert!(fresh.get(&id(&papers[3])).unwrap().ceremony.rests_on_a_record());
    let others: [&[Entry]; 3] = [&[], &papers[1].log, &papers[3].log];
    assert!(others.iter().all(|log| record_in(log, &origin.record).is_none()));
}
