//! What an enclave that has just been started is shown, and what somebody who writes an order could slip in.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use ceremonies::book::{Book, Needed, NotTaken};
use ceremonies::ceremony::Rejection;
use ceremonies::charter::{CeremonyKind, Role};
use ceremonies::ids::{CeremonyId, Hash, UnixMillis};
use ceremonies::log::Entry;
use ceremonies::manifest::{Manifest, Origin, Subject, Way};
use ceremonies::script::Script;
use ceremonies::wallet::Record;
use ceremonies::wire::log;
use proptest::prelude::*;
use prost::Message as _;

use crate::cluster::{BACKED, CHARTER, context, context_of, group, node};
use crate::keys::OTHER_SHARING;
use crate::kit::{MINUTE, Paper, entry, first_place, opened, proposal};
use crate::machine::NOW;
use crate::refused;

const SOON: UnixMillis = NOW.plus(40 * MINUTE);
/// The most that an order may hold, however long a wallet has existed.
const MAX_ORDER: usize = 512 * 1024;

pub(crate) fn id(paper: &Paper) -> CeremonyId {
    paper.ceremony.manifest().ceremony.clone()
}

pub(crate) fn take(book: &mut Book, log: &[Entry]) -> Result<(), NotTaken> {
    log.iter().try_for_each(|entry| book.take(entry.clone()).map(drop))
}

pub(crate) fn book<'a>(papers: impl IntoIterator<Item = &'a Paper>) -> Book {
    let mut book = Book::new(context());
    for paper in papers {
        take(&mut book, &paper.log).unwrap();
    }
    book
}

pub(crate) fn record(paper: &Paper) -> Record {
    paper.ceremony.committed().unwrap().record
}

/// The book of an enclave that has just been started and is shown these records.
fn fresh(records: &[&Record]) -> Book {
    let mut book = Book::new(context());
    book.rest_on(records.iter().map(|record| Record::parse(record.as_bytes()).unwrap()));
    book
}

/// What that enclave makes of an order.
fn shown(needed: &Needed<'_>, log: &[Entry]) -> Book {
    let mut book = fresh(&needed.records);
    for other in &needed.logs {
        take(&mut book, &other.entries).unwrap();
    }
    take(&mut book, log).unwrap();
    book
}

fn ids(needed: &Needed<'_>) -> Vec<CeremonyId> {
    needed.logs.iter().map(|log| log.ceremony.manifest().ceremony.clone()).collect()
}

fn size(needed: &Needed<'_>, log: &[Entry]) -> usize {
    let logs = needed.logs.iter().flat_map(|log| &log.entries).chain(log);
    let records = needed.records.iter().map(|record| record.as_bytes().len());
    logs.map(Entry::size).sum::<usize>() + records.sum::<usize>()
}

/// What follows a ceremony, opened in this minute; it keeps nothing of what came before. A recovery is of node 1.
pub(crate) fn next(before: &Paper, kind: CeremonyKind, number: u32, minute: i64) -> Paper {
    let mut paper = Paper { origins: Vec::new(), ..before.clone() }.then(kind, |proposal| {
        proposal.nonce[..4].copy_from_slice(&number.to_be_bytes());
        proposal.opened = NOW.plus(minute * MINUTE);
        if kind.recovers() {
            proposal.subject = Subject::Losses([(node(1), Way::Repair)].into());
        }
    });
    paper.origins.clear();
    paper
}

/// The same, brought to its end.
fn made(before: &Paper, kind: CeremonyKind, number: u32, minute: i64) -> Paper {
    let mut paper = next(before, kind, number, minute).authorise();
    if kind.recovers() {
        paper.get_back(1).unwrap();
    }
    paper.stage_all();
    paper.read_words_back();
    paper.finish();
    paper
}

/// A wallet's first six generations, the third and the fifth by recoveries of node 1, opened four minutes apart.
pub(crate) static GENERATIONS: LazyLock<Vec<Paper>> = LazyLock::new(|| {
    let mut papers = vec![Paper::closed()];
    for (number, kind) in [
        (2, CeremonyKind::Refresh),
        (3, CeremonyKind::Recover),
        (4, CeremonyKind::Refresh),
        (5, CeremonyKind::Recover),
        (6, CeremonyKind::Refresh),
    ] {
        let paper = made(papers.last().unwrap(), kind, number, 4 * i64::from(number) - 4);
        papers.push(paper);
    }
    papers
});

/// A test signing with this wallet.
fn signing(wallet: &Paper) -> Paper {
    next(wallet, CeremonyKind::TestSign, 1000, 30).authorise()
}

#[test]
fn order_has_the_logs_of_two_generations_and_the_record_of_the_one_before() {
    let papers = &*GENERATIONS;
    let signing = signing(&papers[5]);
    let book = book(papers.iter().chain([&signing]));
    let needed = book.needed_for(&id(&signing), SOON);
    assert_eq!(ids(&needed), [id(&papers[4]), id(&papers[5])]);
    assert_eq!(needed.records, [&record(&papers[3])]);
    let needed = book.needed_for(&id(&papers[0]), SOON);
    assert_eq!(ids(&needed), [id(&papers[5])], "the newest is always shown");
    assert_eq!(needed.records, [&record(&papers[4])]);
    assert!(book.needed_for(&"dkg-unknown-00000000".parse().unwrap(), SOON).logs.is_empty());
}

/// `CUSTODY_GENERATIONS` is how many there are.
#[test]
fn order_does_not_grow_with_the_number_of_generations() {
    let count = std::env::var("CUSTODY_GENERATIONS").map_or(9, |text| text.parse().unwrap());
    let mut last = Paper::closed();
    let mut book = book([&last]);
    let mut sizes = Vec::new();
    for number in 2..=count {
        last = made(&last, CeremonyKind::Refresh, number, 1);
        take(&mut book, &last.log).unwrap();
        let signing = next(&last, CeremonyKind::TestSign, 1_000_000 + number, 1).authorise();
        take(&mut book, &signing.log).unwrap();
        let needed = book.needed_for(&id(&signing), SOON);
        assert!(needed.logs.len() < 3 && needed.records.len() < 2);
        sizes.push(size(&needed, &signing.log));
        if number == count {
            let enclave = shown(&needed, &signing.log);
            let folded = |book: &Book| format!("{:?}", book.get(&id(&signing)).unwrap().ceremony);
            assert_eq!(folded(&enclave), folded(&book));
        }
    }
    let (first, last) = (sizes[2], *sizes.last().unwrap());
    println!("an order has {last} bytes at generation {count}");
    assert!(last < first + first / 50, "{first} bytes grow to {last}");
    assert!(last < MAX_ORDER);
}

#[test]
fn enclave_makes_of_an_order_what_the_agent_makes_of_the_whole_history() {
    let papers = &*GENERATIONS;
    for (number, kind) in
        [CeremonyKind::TestSign, CeremonyKind::Refresh, CeremonyKind::Recover].into_iter().enumerate()
    {
        let paper = next(&papers[5], kind, 1000 + u32::try_from(number).unwrap(), 30).authorise();
        let agent = book(papers.iter().chain([&paper]));
        let enclave = shown(&agent.needed_for(&id(&paper), SOON), &paper.log);
        let manifest = paper.ceremony.manifest();
        let folded = |book: &Book| format!("{:?}", book.get(&id(&paper)).unwrap().ceremony);
        assert_eq!(folded(&enclave), folded(&agent), "{kind}");
        assert_eq!(enclave.wallet(&manifest.wallet), agent.wallet(&manifest.wallet), "{kind}");
        assert_eq!(enclave.out_of_use(manifest), agent.out_of_use(manifest), "{kind}");
    }
}

/// Refused because the generation that its manifest names is not known.
fn is_unknown(taken: Result<(), NotTaken>) -> bool {
    matches!(taken, Err(NotTaken::Rejected { source, .. }) if matches!(*source, Rejection::Wallet))
}

#[test]
fn generation_is_refused_without_the_very_record_that_it_follows() {
    let papers = &*GENERATIONS;
    let mut forged = log::GenerationRecord::decode(record(&papers[3]).as_bytes()).unwrap();
    forged.session = vec![9; 32];
    let forged = Record::parse(&forged.encode_to_vec()).unwrap();
    for wrong in [&[][..], &[&forged], &[&record(&papers[2])], &[&record(&papers[4])]] {
        assert!(is_unknown(take(&mut fresh(wrong), &papers[4].log)));
    }
    let mut book = fresh(&[&record(&papers[3])]);
    take(&mut book, &papers[4].log).unwrap();
    book.rest_on([]);
    assert!(is_unknown(take(&mut book, &papers[3].log)), "a record is good for one order");
}

/// A record that the manifest names, but that is not of the generation before.
#[test]
fn renewal_is_refused_on_the_record_of_another_wallet_ceremony_generation_threshold_or_set_of_nodes() {
    let dkg = Paper::closed();
    let right = log::GenerationRecord::decode(record(&dkg).as_bytes()).unwrap();
    let changes: [fn(&mut log::GenerationRecord); 6] = [
        |_| {},
        |record| record.wallet = "other".into(),
        |record| record.ceremony = "dkg-other-01010101".into(),
        |record| record.generation = 2,
        // Points of a polynomial of degree 2 lie on one of degree 3 as well.
        |record| record.threshold = 4,
        |record| drop(record.public_shares.pop()),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut other = right.clone();
        change(&mut other);
        let other = Record::parse(&other.encode_to_vec()).unwrap();
        let mut proposal = proposal(CeremonyKind::Refresh, Some(&dkg.ceremony.committed().unwrap()), 50);
        proposal.origin = Some(Origin { ceremony: id(&dkg), record: other.digest() });
        let manifest = proposal.manifest(&CHARTER, &Script::builtin(CeremonyKind::Refresh).unwrap()).unwrap();
        let opening = entry(first_place(&manifest, manifest.opened), opened(&manifest));
        let taken = take(&mut fresh(&[&other]), &[opening]);
        assert_eq!(is_unknown(taken), number > 0, "change {number}");
    }
}

#[test]
fn new_shares_are_held_against_a_record_as_against_a_whole_generation() {
    let dkg = Paper::closed();
    let mut refresh = dkg.refresh().authorise();
    let mut book = fresh(&[&record(&dkg)]);
    take(&mut book, &refresh.log).unwrap();
    let on_record = book.get(&id(&refresh)).unwrap().ceremony.clone();
    assert!(on_record.rests_on_a_record() && on_record.before().is_none());
    let mut cheated = Paper { ceremony: on_record, ..refresh.clone() };
    refused!(cheated.stage_with(1, &refresh.record(&OTHER_SHARING)), Rejection::OtherKey(_));
    refused!(cheated.stage_with(1, &refresh.record(dkg.sharing())), Rejection::SameShare { .. });
    refresh.stage(1).unwrap();
    cheated.stage(1).unwrap();
}

#[test]
fn generation_that_is_known_by_its_record_is_worked_on_only_once_its_certificate_is_shown() {
    let papers = &*GENERATIONS;
    let refresh = next(&papers[3], CeremonyKind::Refresh, 1000, 30).authorise();
    let mut book = fresh(&[&record(&papers[3]), &record(&papers[2])]);
    take(&mut book, &refresh.log).unwrap();
    let rests = |book: &Book| {
        let ceremony = &book.get(&id(&refresh)).unwrap().ceremony;
        assert_eq!(ceremony.before().is_none(), ceremony.rests_on_a_record());
        ceremony.rests_on_a_record()
    };
    let is_prepared = |entry: &Entry| matches!(entry.event, ceremonies::log::Event::Prepared { .. });
    let last = papers[3].log.iter().rposition(is_prepared).unwrap();
    for (known, expected) in [(&papers[3].log[..last], true), (&papers[3].log[..], false)] {
        assert!(rests(&book));
        take(&mut book, known).unwrap();
        book.fold_again(&id(&refresh)).unwrap();
        assert_eq!(rests(&book), expected);
    }
}

/// A recovery of node 4 from its backup, in which somebody releases another object; only who does not know the backups
/// of the generation before takes it.
fn with_another_release(dkg: &Paper) -> Paper {
    let mut wallet = dkg.ceremony.committed().unwrap();
    let other = Hash::of_bytes(b"another object");
    wallet.backups.get_mut(&node(4)).unwrap().whole.digest = other;
    let mut proposal = proposal(CeremonyKind::Recover, Some(&wallet), 51);
    proposal.subject = Subject::Losses([(node(4), Way::Backup)].into());
    let manifest = proposal.manifest(&BACKED, &Script::builtin(CeremonyKind::Recover).unwrap()).unwrap();
    let mut paper =
        Paper::start(context_of(&BACKED).with_wallet(Some(Arc::new(wallet))), &manifest, vec![]).authorise();
    paper.release("recover", "carl", 4, other).unwrap();
    paper
}

#[test]
fn releases_are_judged_again_when_the_backups_become_known() {
    let dkg = Paper::backed_up();
    let recovery = with_another_release(&dkg);
    let mut book = Book::new(context_of(&BACKED));
    book.rest_on([record(&dkg)]);
    take(&mut book, &recovery.log).unwrap();
    take(&mut book, &dkg.log).unwrap();
    let release = u64::try_from(recovery.log.len()).unwrap();
    refused!(
        book.fold_again(&id(&recovery)),
        (seq, Rejection::OtherObject { .. }) if seq == release
    );
    assert!(book.get(&id(&recovery)).unwrap().ceremony.before().is_none(), "nothing has changed");
}

#[test]
fn committed_recovery_by_backup_is_folded_on_a_record_by_those_who_keep_the_backups_alone() {
    let dkg = Paper::backed_up();
    let mut recovery = dkg.recover(&[(4, Way::Backup)]).authorise();
    let object = dkg.ceremony.committed().unwrap().backups[&node(4)].whole.digest;
    let on_record = |log: &[Entry]| {
        let mut book = Book::new(context_of(&BACKED));
        book.rest_on([record(&dkg)]);
        take(&mut book, log).map(|()| book)
    };
    let known = on_record(&recovery.log).unwrap().get(&id(&recovery)).unwrap().ceremony.clone();
    let mut cheated = Paper { ceremony: known, ..recovery.clone() };
    refused!(cheated.release("recover", "cora", 4, object), Rejection::NotKeeper { .. });
    refused!(cheated.release("recover", "carl", 3, object), Rejection::NoReleaseDue(_));
    recovery.release("recover", "carl", 4, object).unwrap();
    recovery.get_back(4).unwrap();
    recovery.stage_all();
    recovery.read_words_back();
    recovery.finish();
    let book = on_record(&recovery.log).unwrap();
    assert_eq!(book.wallet(&"treasury".parse().unwrap()), recovery.ceremony.committed());
}

/// Node 1 banned node 2, or 3 banned 4, or both.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Banned {
    First,
    Second,
    Both,
}

pub(crate) fn banning(wallet: &Paper, number: u32, minute: i64, banned: Banned) -> Paper {
    let mut paper = next(wallet, CeremonyKind::TestSign, number, minute).authorise();
    if matches!(banned, Banned::First | Banned::Both) {
        paper.abort_banning(1, &group(&[1, 2, 3]), 1, Some(2)).unwrap();
    }
    if matches!(banned, Banned::Second | Banned::Both) {
        paper.abort_banning(3, &group(&[2, 3, 4]), 1, Some(4)).unwrap();
    }
    paper
}

/// Ceremonies with bans, on old and newer shares, opened between the generations.
static BANS: LazyLock<Vec<Paper>> = LazyLock::new(|| {
    let mut papers = Vec::new();
    for of in [0, 2, 4] {
        for minute in [2, 7, 10, 15, 18, 23] {
            for banned in [Banned::First, Banned::Second, Banned::Both] {
                let number = 2000 + u32::try_from(papers.len()).unwrap();
                papers.push(banning(&GENERATIONS[of], number, minute, banned));
            }
        }
    }
    papers
});

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whoever is shown an order knows the same bans as whoever knows everything, whatever was banned when.
    #[test]
    fn enclave_knows_of_every_ban_that_holds_and_of_the_end_of_every_other(
        bans in proptest::sample::subsequence((0..54).collect::<Vec<usize>>(), 0..4),
        last in 0usize..6,
        kind in proptest::sample::select(vec![CeremonyKind::TestSign, CeremonyKind::Recover]),
    ) {
        let papers = &GENERATIONS[..=last];
        let paper = next(&papers[last], kind, 1000, 30).authorise();
        let banning = bans.iter().map(|ban| &BANS[*ban]);
        let known = banning.filter(|ban| papers.iter().any(|made| {
            ban.ceremony.manifest().origin.as_ref().unwrap().ceremony == id(made)
        }));
        let agent = book(papers.iter().chain(known).chain([&paper]));
        let needed = agent.needed_for(&id(&paper), SOON);
        let enclave = shown(&needed, &paper.log);
        let manifest = paper.ceremony.manifest();
        prop_assert_eq!(enclave.bans_in(manifest), agent.bans_in(manifest));
        // The enclave must find in the log what it said itself, even if a recovery ends it.
        let origin = agent.bans_in(papers[last].ceremony.manifest());
        let logged: BTreeSet<_> = enclave.bans().collect();
        prop_assert!(origin.is_subset(&logged));
    }
}

#[test]
fn recoveries_that_ended_other_bans_of_a_log_are_shown_with_all_that_rests_on_them() {
    let papers = &*GENERATIONS;
    // Opened before the recovery of generation 3 alone: that one ended the first ban and not the second.
    let both = banning(&papers[0], 3000, 7, Banned::Both);
    let wallet = &papers[3];
    let signing = signing(wallet);
    let book = book(papers[..4].iter().chain([&both, &signing]));
    let needed = book.needed_for(&id(&signing), SOON);
    let shown_ids: BTreeSet<_> = ids(&needed).into_iter().collect();
    assert_eq!(shown_ids, [id(&papers[2]), id(&papers[3]), id(&both)].into());
    let pair = [(node(3), node(4))].into();
    assert_eq!(shown(&needed, &signing.log).bans_in(signing.ceremony.manifest()), pair);
}

#[test]
fn ban_holds_for_an_enclave_that_is_not_shown_the_recovery_that_ended_it() {
    let papers = &*GENERATIONS;
    let ban = banning(&papers[0], 3000, 2, Banned::First);
    let signing = signing(&papers[5]);
    let manifest = signing.ceremony.manifest();
    let agent = book(papers.iter().chain([&ban, &signing]));
    assert!(agent.bans_in(manifest).is_empty());
    let mut enclave = fresh(&[&record(&papers[4]), &record(&papers[0])]);
    for paper in [&papers[5], &ban, &signing] {
        take(&mut enclave, &paper.log).unwrap();
    }
    assert_eq!(enclave.bans_in(manifest), [(node(1), node(2))].into());
}

/// The same manifest under another ceremony's id.
fn in_the_place_of(manifest: &Manifest, ceremony: &CeremonyId) -> Manifest {
    let mut wire = log::Manifest::decode(manifest.as_bytes()).unwrap();
    wire.ceremony = ceremony.to_string();
    Manifest::parse(&wire.encode_to_vec()).unwrap()
}

/// An administrator and one host open a recovery under the id of an ancestor, to lift a ban.
#[test]
fn ancestor_that_somebody_makes_up_lifts_no_ban() {
    let papers = &*GENERATIONS;
    let ban = banning(&papers[0], 3000, 1, Banned::First);
    let refreshed = made(&papers[1], CeremonyKind::Refresh, 3001, 8);
    let signing = signing(&refreshed);
    let made_up = next(&papers[0], CeremonyKind::Recover, 3002, 5);
    let made_up = in_the_place_of(made_up.ceremony.manifest(), &id(&papers[1]));
    let opening = entry(first_place(&made_up, made_up.opened), opened(&made_up));

    let mut enclave = fresh(&[&record(&papers[0]), &record(&papers[1])]);
    take(&mut enclave, &[opening]).unwrap();
    for paper in [&ban, &refreshed, &signing] {
        take(&mut enclave, &paper.log).unwrap();
    }
    let known = &enclave.get(&id(&papers[1])).unwrap().ceremony;
    assert!(known.manifest().lost().contains_key(&node(1)), "it stands in the ancestor's place");
    assert_eq!(enclave.bans_in(signing.ceremony.manifest()), [(node(1), node(2))].into());
    assert_eq!(enclave.origins(&id(&signing)).len(), 1);
}

#[test]
fn order_shows_the_rival_that_stands_and_the_last_of_those_that_failed() {
    let dkg = Paper::closed();
    let standing = next(&dkg, CeremonyKind::Refresh, 4000, 1).authorise();
    let failed: Vec<Paper> = (0..12)
        .map(|number| {
            let minute = 2 + i64::from(number);
            let mut paper = next(&dkg, CeremonyKind::Refresh, 4001 + number, minute);
            paper.withdraw("ada", Role::Administrator).unwrap();
            paper
        })
        .collect();
    let refresh = next(&dkg, CeremonyKind::Refresh, 5000, 20).authorise();
    let later = next(&dkg, CeremonyKind::Refresh, 5001, 21).authorise();
    let agent = book([&dkg, &standing, &refresh, &later].into_iter().chain(&failed));
    let needed = agent.needed_for(&id(&refresh), SOON);
    let mut expected: BTreeSet<_> = failed[4..].iter().map(id).collect();
    expected.extend([id(&dkg), id(&standing)]);
    assert_eq!(ids(&needed).into_iter().collect::<BTreeSet<_>>(), expected);
    let enclave = shown(&needed, &refresh.log);
    assert_eq!(enclave.rival(&refresh.ceremony, SOON), Some(&id(&standing)));

    let signing = signing(&dkg);
    let mut agent = agent;
    take(&mut agent, &signing.log).unwrap();
    assert_eq!(ids(&agent.needed_for(&id(&signing), SOON)), [id(&dkg)], "a signature has no rivals");
}
