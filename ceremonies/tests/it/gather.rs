//! A book gathered from whole logs: in no order, by no clock, and never stopped by a log that does not fold.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

use std::sync::{Arc, LazyLock};

use ceremonies::book::{
    Book, Examined, MAX_AHEAD_MS, NotTaken, OpeningError, SetAside, WhySetAside, check_clock,
};
use ceremonies::ceremony::{Phase, Rejection};
use ceremonies::charter::{CeremonyKind, Role};
use ceremonies::ids::{CeremonyId, Generation, Hash, UnixMillis};
use ceremonies::log::Entry;
use ceremonies::manifest::{Manifest, ManifestError, Origin, Way};
use ceremonies::script::Script;
use ceremonies::wire::log::{self, event::Kind};
use proptest::prelude::*;

use crate::amendment::{self, approved, rotated};
use crate::cluster::{BACKED, CHARTER, context, context_of, node};
use crate::kit::{MINUTE, Paper, entry, first_place, opened, proposal};
use crate::machine::NOW;

type Log = Vec<Entry>;

fn gather(logs: &[&Log]) -> (Book, Vec<SetAside>) {
    Book::gather(context(), logs.iter().map(|log| (*log).clone()))
}

fn id(log: &Log) -> CeremonyId {
    log[0].ceremony.clone()
}

fn in_book(book: &Book, log: &Log) -> usize {
    book.get(&id(log)).map_or(0, |chapter| chapter.entries.len())
}

/// The opening of this manifest as node 1 dates it, one entry long.
fn opening_at(manifest: &Manifest, time: UnixMillis) -> Log {
    vec![entry(first_place(manifest, time), opened(manifest))]
}

/// The opening of a ceremony that claims to rest on another, whatever that is.
fn resting_on(nonce: u8, origin: &CeremonyId) -> Log {
    let mut proposal = proposal(CeremonyKind::Refresh, None, nonce);
    proposal.generation = Generation(2);
    proposal.origin = Some(Origin { ceremony: origin.clone(), record: Hash::of_bytes(b"record") });
    let manifest = proposal.manifest(&CHARTER, &Script::builtin(CeremonyKind::Refresh).unwrap()).unwrap();
    opening_at(&manifest, manifest.opened)
}

fn refresh_id(nonce: u8) -> CeremonyId {
    let nonce = hex::encode([nonce; 4]);
    format!("refresh-treasury-{nonce}").parse().unwrap()
}

/// A refresh of what this ceremony made, brought to its end.
fn refreshed(before: &Paper) -> Paper {
    let mut paper = before.refresh().authorise();
    paper.stage_all();
    paper.read_words_back();
    paper.finish();
    paper
}

/// The ceremony's log with this entry, counted from 1, left out: what follows does not fold any more.
fn without(paper: &Paper, seq: usize) -> Log {
    let mut log = paper.log.clone();
    log.remove(seq - 1);
    log
}

struct Everything {
    logs: Vec<Log>,
    folds: Vec<Log>,
    /// Not as a whole.
    does_not: Vec<Log>,
}

static EVERYTHING: LazyLock<Everything> = LazyLock::new(|| {
    let dkg = Paper::closed();
    let second = refreshed(&dkg);
    let signing = second.test_signing().authorise();
    let beside = dkg.test_signing();
    let amending = approved(rotated());
    let after = amendment::opening(&amendment::manifest(&rotated(), None, amending.now.plus(MINUTE)));
    let in_time = amendment::opening(&amendment::manifest(&CHARTER, None, amending.now.plus(14 * MINUTE)));
    let mut overdue = amendment::proposal(&CHARTER, None, amending.now.plus(16 * MINUTE));
    (overdue.nonce, overdue.wallet) = ([9; 16], "overdue".parse().unwrap());
    let overdue = overdue.manifest(&CHARTER, &Script::builtin(CeremonyKind::Dkg).unwrap()).unwrap();
    let mut fork = beside.clone();
    fork.attest(1).unwrap();
    let mut other = beside.clone();
    other.attest(2).unwrap();
    let folds = vec![dkg.log, second.log, signing.log, amending.log, vec![after], vec![in_time]];
    let does_not = vec![
        vec![amendment::opening(&overdue)],
        fork.log,
        other.log,
        resting_on(60, &refresh_id(61)),
        resting_on(61, &refresh_id(60)),
        resting_on(62, &refresh_id(60)),
        resting_on(63, &refresh_id(63)),
        resting_on(64, &refresh_id(99)),
        resting_on(65, &refresh_id(64)),
        without(&Paper::dkg_with(70).authorise(), 4),
        without(&Paper::dkg_with(71).authorise(), 1),
    ];
    let logs = folds.iter().chain(&does_not).cloned().collect();
    Everything { logs, folds, does_not }
});

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn book_is_the_same_in_whatever_order_logs_come(
        logs in Just(EVERYTHING.logs.clone()).prop_shuffle()
    ) {
        let sorted = Book::gather(context(), EVERYTHING.logs.clone());
        prop_assert_eq!(format!("{:?}", Book::gather(context(), logs)), format!("{sorted:?}"));
    }

    #[test]
    fn book_is_the_same_from_copies_that_end_early(
        logs in Just(EVERYTHING.folds.clone()).prop_shuffle(),
        ends in proptest::collection::vec(1..40_usize, 6),
    ) {
        let cut = logs.iter().zip(ends).map(|(log, end)| log[..end.min(log.len())].to_vec());
        let copies: Vec<Log> = cut.chain(logs.iter().cloned()).collect();
        let (book, aside) = Book::gather(context(), copies);
        prop_assert!(aside.is_empty());
        prop_assert_eq!(format!("{book:?}"), format!("{:?}", Book::gather(context(), logs).0));
    }
}

#[test]
fn whatever_does_not_fold_is_set_aside_and_the_rest_goes_on() {
    let everything = &*EVERYTHING;
    let (book, aside) = Book::gather(context(), everything.logs.clone());
    for log in &everything.folds {
        assert_eq!(in_book(&book, log), log.len(), "{}", id(log));
        assert!(aside.iter().all(|aside| aside.ceremony != id(log)));
    }
    for log in &everything.does_not {
        let is_whole = |aside: &SetAside| aside.ceremony == id(log) && aside.from() > 0;
        assert!(aside.iter().any(is_whole), "{}", id(log));
    }
    assert_eq!(book.context().charter().hash(), rotated().hash());
}

#[test]
fn every_log_that_is_set_aside_has_its_reason() {
    let aside = |logs: &[&Log], of: &Log| -> (u64, usize, WhySetAside) {
        let (_, aside) = gather(logs);
        let mut all = aside.into_iter().filter(|aside| aside.ceremony == id(of));
        let one = all.next().unwrap();
        assert!(all.next().is_none());
        (one.from(), one.entries.len(), one.why)
    };
    let (one, two) = (resting_on(60, &refresh_id(61)), resting_on(61, &refresh_id(60)));
    let on_both = resting_on(59, &refresh_id(60));
    let circle = [&on_both, &two, &one];
    assert!(matches!(aside(&circle, &one), (1, 1, WhySetAside::Circular(origin)) if origin == id(&two)));
    assert!(
        matches!(aside(&circle, &two), (1, 1, WhySetAside::OriginSetAside(origin)) if origin == id(&one))
    );
    assert!(
        matches!(aside(&circle, &on_both), (1, 1, WhySetAside::OriginSetAside(origin)) if origin == id(&one))
    );

    let itself = resting_on(63, &refresh_id(63));
    assert!(
        matches!(aside(&[&itself], &itself), (1, 1, WhySetAside::Circular(origin)) if origin == id(&itself))
    );

    let missing = resting_on(64, &refresh_id(99));
    let behind = resting_on(65, &refresh_id(64));
    let logs = [&behind, &missing];
    assert!(
        matches!(aside(&logs, &missing), (1, 1, WhySetAside::OriginMissing(origin)) if origin == refresh_id(99))
    );
    assert!(
        matches!(aside(&logs, &behind), (1, 1, WhySetAside::OriginSetAside(origin)) if origin == id(&missing))
    );

    let dkg = Paper::closed();
    let other_record = resting_on(66, &id(&dkg.log));
    let (_, _, why) = aside(&[&dkg.log, &other_record], &other_record);
    let WhySetAside::NotTaken(NotTaken::Rejected { seq: 1, source, .. }) = why else { panic!("{why:?}") };
    assert!(matches!(*source, Rejection::Wallet));

    let headless = dkg.log[3..].to_vec();
    let (from, left, why) = aside(&[&headless], &headless);
    assert_eq!((from, left), (4, headless.len()));
    assert!(matches!(why, WhySetAside::NotTaken(NotTaken::Gap { expected: 1, .. })), "{why:?}");
}

#[test]
fn a_log_holds_up_to_its_first_bad_entry_and_what_rests_on_it_if_that_comes_later() {
    let dkg = Paper::closed();
    let committed = Paper::committed().log.len();
    let refresh = dkg.refresh();
    for (bad, folds) in [(committed, false), (committed + 1, true)] {
        let log = without(&dkg, bad);
        let (book, aside) = gather(&[&refresh.log, &log]);
        assert_eq!(in_book(&book, &log), bad - 1);
        assert_eq!(in_book(&book, &refresh.log), usize::from(folds));
        let of_dkg = aside.iter().find(|aside| aside.ceremony == id(&log)).unwrap();
        assert_eq!((of_dkg.from(), of_dkg.entries.len()), (bad as u64 + 1, log.len() + 1 - bad));
        let resting = aside.iter().find(|aside| aside.ceremony == id(&refresh.log));
        assert_eq!(resting.is_none(), folds);
        let is_right =
            |aside: &SetAside| matches!(&aside.why, WhySetAside::OriginSetAside(of) if *of == id(&log));
        assert!(resting.is_none_or(is_right));
    }
}

#[test]
fn a_bad_copy_gives_way_to_a_good_one_and_of_two_branches_one_is_kept_as_evidence() {
    let dkg = Paper::closed();
    let foreign = Paper::dkg_with(2).authorise().log[4..5].to_vec();
    let bad = [&dkg.log[..4], &foreign, &dkg.log[4..]].concat();
    let (book, aside) = gather(&[&bad, &dkg.log]);
    assert_eq!(in_book(&book, &dkg.log), dkg.log.len());
    let [SetAside { ceremony, entries, why: WhySetAside::NotTaken(NotTaken::Rejected { .. }) }] = &aside[..]
    else {
        panic!("{aside:?}")
    };
    assert_eq!((ceremony, entries.len()), (&id(&dkg.log), bad.len() - 4));
    let with_a_gap = without(&dkg, 5);
    assert!(gather(&[&with_a_gap, &dkg.log]).1.is_empty(), "all of it is known");

    let start = Paper::dkg();
    let (mut left, mut right) = (start.clone(), start);
    left.attest(1).unwrap();
    right.attest(2).unwrap();
    for logs in [[&left.log, &right.log], [&right.log, &left.log]] {
        let (book, aside) = gather(&logs);
        assert_eq!(in_book(&book, &left.log), 2);
        let [SetAside { entries, why, .. }] = &aside[..] else { panic!("{aside:?}") };
        let kept = book.get(&id(&left.log)).unwrap().entries[1].hash();
        let WhySetAside::NotTaken(NotTaken::Fork { seq: 2, ours, theirs, .. }) = why else {
            panic!("{why:?}")
        };
        assert_eq!((*ours, *theirs), (kept, entries[0].hash()));
    }
}

#[test]
fn logs_that_come_later_are_taken_on_top_of_what_is_known() {
    let dkg = Paper::closed();
    let refresh = refreshed(&dkg);
    let whole = gather(&[&dkg.log, &refresh.log]).0;
    let mut book = Book::new(context());
    let aside = book.take_logs([refresh.log.clone()]);
    assert!(matches!(&aside[..], [SetAside { why: WhySetAside::OriginMissing(_), .. }]));
    assert!(book.take_logs([dkg.log[..9].to_vec()]).is_empty());
    let mut later: Vec<Log> = aside.into_iter().map(|aside| aside.entries).collect();
    later.push(dkg.log[9..].to_vec());
    assert!(book.take_logs(later).is_empty());
    assert_eq!(format!("{book:?}"), format!("{whole:?}"));
    assert!(book.take_logs([dkg.log, Vec::new()]).is_empty(), "nothing new");
}

#[test]
fn backups_that_come_later_are_known_in_the_recovery_that_was_there_before() {
    let mut dkg = Paper::dkg_under(context_of(&BACKED)).authorise();
    dkg.prepare_all();
    dkg.adopt_all();
    dkg.read_words_back();
    dkg.test_sign_all();
    let known = dkg.log.len();
    dkg.back_up_all();
    let mut recovery = dkg.recover(&[(4, Way::Backup)]).authorise();
    recovery.release("recover", "carl", 4, dkg.written(4)).unwrap();
    let opening = recovery.log[..1].to_vec();
    let (mut book, aside) = Book::gather(context_of(&BACKED), [opening, dkg.log[..known].to_vec()]);
    assert!(aside.is_empty());
    assert!(book.take_logs([recovery.log.clone(), dkg.log.clone()]).is_empty());
    let (at_once, _) = Book::gather(context_of(&BACKED), [recovery.log, dkg.log]);
    assert_eq!(format!("{book:?}"), format!("{at_once:?}"));
}

/// What a cluster writes in which one node's clock is slow, from before that was checked.
#[test]
fn an_opening_that_is_dated_before_what_it_rests_on_folds_and_is_not_made_anew() {
    let dkg = Paper::closed();
    let made = Paper::committed().log.last().unwrap().clone();
    let refresh = dkg.refresh();
    let manifest = refresh.ceremony.manifest();
    for late in [61_000, 14 * MINUTE] {
        let slow = opening_at(manifest, dkg.log[0].time.plus(-late));
        let (book, aside) = gather(&[&slow, &dkg.log]);
        assert!(aside.is_empty(), "{aside:?}");
        assert_eq!(in_book(&book, &slow), 1);
    }
    let (book, _) = gather(&[&dkg.log]);
    // Of all whose dates are later than now, the first wrote one by its own clock; the others had to follow it.
    for fast in [&dkg.log[0], &made] {
        let before = fast.time.plus(-1);
        let first = dkg.log.iter().find(|entry| entry.time == fast.time).unwrap().node;
        let refused =
            OpeningError::BeforeOrigin { origin: id(&dkg.log), made: made.time, by: first, now: before };
        let text = refused.to_string();
        assert!(text.contains("clock of node") && text.contains(&made.time.to_string()), "{text}");
        assert_eq!(book.check_opening(manifest, before), Err(refused));
    }
    assert_eq!(book.check_opening(manifest, made.time), Ok(()));
}

#[test]
fn amendments_fold_however_wrong_their_nodes_clocks_are() {
    let next = rotated();
    let first = approved(Arc::clone(&next));
    let third = Arc::new(next.allowing(&amendment::new_image_of(8), None).unwrap());
    for minutes in [-600, 0, 600] {
        let opened = first.now.plus(minutes * MINUTE);
        let manifest = amendment::manifest(&next, Some(Arc::clone(&third)), opened);
        let mut second = Paper::start(gather(&[&first.log]).0.context().clone(), &manifest, Vec::new());
        amendment::approve(&mut second);
        let under = vec![amendment::opening(&amendment::manifest(&third, None, opened.plus(-9 * MINUTE)))];
        for logs in [[&under, &second.log, &first.log], [&first.log, &under, &second.log]] {
            let (book, aside) = gather(&logs);
            assert!(aside.is_empty(), "{minutes}: {aside:?}");
            assert_eq!(book.context().charter().hash(), third.hash());
            assert_eq!(book.amendments().count(), 2);
            assert_eq!(in_book(&book, &under), 1);
        }
    }
}

#[test]
fn an_opening_under_the_charter_before_is_judged_alike_before_and_after_the_amendment_is_known() {
    let amending = approved(rotated());
    let (last, nearly) = amending.log.split_last().unwrap();
    for (minutes, folds) in [(14, true), (16, false)] {
        let opened = amending.now.plus(minutes * MINUTE);
        let dkg = vec![amendment::opening(&amendment::manifest(&CHARTER, None, opened))];
        let resting = resting_on(5, &id(&dkg));
        let is_refused = |why: &WhySetAside| {
            let WhySetAside::NotTaken(NotTaken::Rejected { source, .. }) = why else { return false };
            matches!(**source, Rejection::Manifest(ManifestError::Elsewhere { what: "charter", .. }))
        };
        let (book, aside) = gather(&[&dkg, &resting, &amending.log]);
        assert_eq!(in_book(&book, &dkg), usize::from(folds));
        assert_eq!(aside.iter().any(|aside| aside.ceremony == id(&dkg) && is_refused(&aside.why)), !folds);

        let (mut before, _) = gather(&[&dkg, &nearly.to_vec()]);
        assert_eq!(in_book(&before, &dkg), 1, "nobody knows of the amendment yet");
        let mut by_logs = before.clone();
        let Examined::New(next) = before.examine(last.clone()).unwrap() else { panic!("known") };
        let out = before.commit(*next);
        assert_eq!(out.len(), usize::from(!folds));
        assert!(out.iter().all(|out| out.entries == dkg && is_refused(&out.why)));
        assert_eq!(by_logs.take_logs([amending.log.clone()]).len(), out.len());
        for other in [&before, &by_logs] {
            assert_eq!(format!("{other:?}"), format!("{book:?}"));
        }
    }
}

#[test]
fn what_rests_on_a_ceremony_that_is_taken_out_goes_with_it() {
    let dkg = Paper::closed();
    let refresh = refreshed(&dkg);
    let signing = refresh.test_signing();
    // The last approval of the amendment comes to light when the others are over.
    let mut amending = amendment::nearly_at(rotated(), NOW.plus(-50 * MINUTE));
    amending.approve("arthur", Role::Auditor).unwrap();
    let (mut book, aside) = gather(&[&dkg.log, &refresh.log, &signing.log]);
    assert!(aside.is_empty());
    let aside = book.take_logs([amending.log.clone()]);
    assert_eq!(book.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>(), [id(&amending.log)]);
    let why = |log: &Log| &aside.iter().find(|aside| aside.ceremony == id(log)).unwrap().why;
    assert!(matches!(why(&dkg.log), WhySetAside::NotTaken(NotTaken::Rejected { .. })));
    for log in [&refresh.log, &signing.log] {
        assert!(matches!(
            why(log),
            WhySetAside::NotTaken(NotTaken::Rejected { .. }) | WhySetAside::OriginSetAside(_)
        ));
    }
    let at_once = gather(&[&signing.log, &refresh.log, &dkg.log, &amending.log]).0;
    assert_eq!(format!("{book:?}"), format!("{at_once:?}"));
}

#[test]
fn an_amendment_that_does_not_fold_to_its_approval_puts_nothing_in_force() {
    let amending = approved(rotated());
    let bad = without(&amending, amending.log.len() - 1);
    let under = vec![amendment::opening(&amendment::manifest(&rotated(), None, amending.now))];
    let (book, aside) = gather(&[&under, &bad]);
    assert_eq!(book.context().charter().hash(), CHARTER.hash());
    assert_eq!(aside.len(), 2);
    assert_eq!(in_book(&book, &bad), amending.log.len() - 2);
    assert_eq!(book.get(&id(&bad)).unwrap().ceremony.phase(), Phase::Gathering);
}

#[test]
fn an_entry_from_a_fast_clock_is_not_taken_before_the_clock_here_is_near() {
    let paper = Paper::dkg();
    let entry = &paper.log[0];
    let here = |behind: i64| check_clock(entry, entry.time.plus(-behind));
    assert_eq!(here(MAX_AHEAD_MS), Ok(()));
    assert_eq!(here(-1_000_000_000), Ok(()), "an old entry is as good as ever");
    let ahead = here(MAX_AHEAD_MS + 1).unwrap_err();
    assert_eq!((ahead.node, ahead.ahead_ms), (node(1), MAX_AHEAD_MS + 1));
    assert_eq!(check_clock(entry, ahead.until()), Ok(()));
    assert!(check_clock(entry, ahead.until().plus(-1)).is_err());
    let text = here(3_600_000).unwrap_err().to_string();
    assert!(text.contains("3600 s ahead") && text.contains("clock of node 1"), "{text}");
    assert!(check_clock(entry, UnixMillis(i64::MIN)).is_err(), "no date overflows");
}

#[test]
fn a_log_that_mixes_ceremonies_or_does_not_begin_with_an_opening_is_set_aside() {
    let dkg = Paper::dkg_with(1).authorise();
    let other = Paper::dkg_with(2).authorise();
    let mixed = [&dkg.log[..2], &other.log[2..]].concat();
    let (book, aside) = gather(&[&mixed]);
    assert_eq!((in_book(&book, &dkg.log), in_book(&book, &other.log)), (2, 0));
    let [SetAside { why: WhySetAside::NotTaken(NotTaken::Rejected { source, .. }), .. }] = &aside[..] else {
        panic!("{aside:?}")
    };
    assert!(matches!(**source, Rejection::OtherCeremony { .. }));

    let place = first_place(dkg.ceremony.manifest(), NOW);
    let fault = Kind::Faulted(log::Faulted { node: 1, reason: "power cut".into() });
    let (book, aside) = gather(&[&vec![entry(place, fault)]]);
    assert!(book.iter().next().is_none());
    assert!(matches!(&aside[0].why, WhySetAside::NotTaken(NotTaken::Rejected { source, .. })
        if matches!(**source, Rejection::Opening)));
}
