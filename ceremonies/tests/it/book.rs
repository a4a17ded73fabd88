//! All ceremonies of a cluster together: which may be opened alongside which, and which generation is in use.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::sync::Arc;

use ceremonies::attestation::Measurement;
use ceremonies::book::{Book, NotTaken, OpeningError};
use ceremonies::ceremony::{Phase, Rejection, Void};
use ceremonies::charter::{CeremonyKind, Charter, Role};
use ceremonies::ids::{CeremonyId, Generation, UnixMillis};
use ceremonies::manifest::{Manifest, Proposal, Subject, Way};
use ceremonies::script::Script;
use ceremonies::statement::Answer;
use ceremonies::wallet::Wallet;

use crate::cluster::{BACKED, CHARTER, QUORUM, context, context_of, node};
use crate::kit::{MINUTE, Paper, proposal};
use crate::machine::{NOW, allowed, pcr};
use crate::refused;

/// Within the lifetime of all that is opened here.
const SOON: UnixMillis = NOW.plus(20 * MINUTE);
/// After it.
const LATE: UnixMillis = NOW.plus(600 * MINUTE);

fn book(papers: &[&Paper]) -> Book {
    let mut book = Book::new(context());
    for entry in papers.iter().flat_map(|paper| &paper.log) {
        book.take(entry.clone()).unwrap();
    }
    book
}

fn id(paper: &Paper) -> CeremonyId {
    paper.ceremony.manifest().ceremony.clone()
}

fn wallet(paper: &Paper) -> Wallet {
    paper.ceremony.committed().unwrap()
}

fn manifest_with(
    kind: CeremonyKind,
    wallet: Option<&Wallet>,
    change: impl FnOnce(&mut Proposal),
) -> Manifest {
    let mut proposal = proposal(kind, wallet, 77);
    if kind == CeremonyKind::Recover {
        proposal.subject = Subject::Losses([(node(1), Way::Repair)].into());
    }
    change(&mut proposal);
    proposal.manifest(&CHARTER, &Script::builtin(kind).unwrap()).unwrap()
}

/// The verdict on another ceremony of this kind on this wallet.
fn another(book: &Book, kind: CeremonyKind, wallet: &Wallet, now: UnixMillis) -> Result<(), OpeningError> {
    let named = if kind == CeremonyKind::Dkg { None } else { Some(wallet) };
    let next = book.next_generation(&wallet.record.wallet, now);
    let manifest = manifest_with(kind, named, |proposal| {
        if kind.renews() {
            proposal.generation = next;
        }
    });
    book.check_opening(&manifest, now)
}

const ABOUT_A_WALLET: [CeremonyKind; 3] =
    [CeremonyKind::TestSign, CeremonyKind::Refresh, CeremonyKind::Recover];

/// A refresh of what this ceremony made, brought to its end.
fn refreshed(before: &Paper) -> Paper {
    let mut paper = before.refresh().authorise();
    paper.stage_all();
    paper.read_words_back();
    paper.finish();
    paper
}

/// The same, brought to the point where some have committed and others no longer can.
fn in_doubt(before: &Paper) -> Paper {
    let mut paper = before.refresh().authorise();
    paper.stage_all();
    paper.read_words_back();
    paper.test_sign_all();
    paper.let_through_now();
    paper.prepare(1).unwrap();
    paper.prepare(2).unwrap();
    paper.withdraw("ada", Role::Administrator).unwrap();
    assert!(matches!(paper.ceremony.phase(), Phase::Void(Void::Withdrawn { .. })));
    paper
}

#[test]
fn anything_about_a_wallet_may_be_opened_when_nothing_is_under_way() {
    let dkg = Paper::closed();
    let book = book(&[&dkg]);
    for kind in ABOUT_A_WALLET {
        assert_eq!(another(&book, kind, &wallet(&dkg), SOON), Ok(()), "{kind}");
    }
}

#[test]
fn key_generation_is_refused_for_a_name_that_has_or_may_get_a_key() {
    let other = manifest_with(CeremonyKind::Dkg, None, |proposal| proposal.wallet = "other".parse().unwrap());
    for dkg in [Paper::dkg(), Paper::authorised(), Paper::committed(), Paper::closed()] {
        let book = book(&[&dkg]);
        let manifest = manifest_with(CeremonyKind::Dkg, None, |_| {});
        let taken = OpeningError::Taken { wallet: manifest.wallet.clone(), rival: id(&dkg) };
        assert_eq!(book.check_opening(&manifest, SOON), Err(taken));
        assert_eq!(book.check_opening(&other, SOON), Ok(()));
    }
    let mut withdrawn = Paper::dkg();
    withdrawn.withdraw("ada", Role::Administrator).unwrap();
    let manifest = manifest_with(CeremonyKind::Dkg, None, |_| {});
    assert_eq!(book(&[&withdrawn]).check_opening(&manifest, SOON), Ok(()));
    assert_eq!(book(&[&Paper::dkg()]).check_opening(&manifest, LATE), Ok(()), "expired unapproved");
    assert!(book(&[&Paper::authorised()]).check_opening(&manifest, LATE).is_err(), "expired in doubt");
}

#[test]
fn key_generation_is_refused_for_a_name_whose_key_was_refreshed() {
    let dkg = Paper::closed();
    let refresh = refreshed(&dkg);
    let manifest = manifest_with(CeremonyKind::Dkg, None, |_| {});
    refused!(book(&[&dkg, &refresh]).check_opening(&manifest, LATE), OpeningError::Taken { .. });
}

#[test]
fn test_signing_is_refused_while_a_refresh_is_open() {
    let dkg = Paper::closed();
    let mut authorised = dkg.refresh();
    let opened = authorised.clone();
    authorised = authorised.authorise();
    let mut staged = authorised.clone();
    staged.stage_all();
    let under_way = Err(OpeningError::UnderWay(id(&opened)));
    for refresh in [&opened, &authorised, &staged] {
        let book = book(&[&dkg, refresh]);
        assert_eq!(another(&book, CeremonyKind::TestSign, &wallet(&dkg), SOON), under_way);
        assert_eq!(another(&book, CeremonyKind::TestSign, &wallet(&dkg), LATE), Ok(()), "it has expired");
    }
    staged.withdraw("ada", Role::Administrator).unwrap();
    assert_eq!(another(&book(&[&dkg, &staged]), CeremonyKind::TestSign, &wallet(&dkg), SOON), Ok(()));
}

#[test]
fn test_signing_goes_on_beside_a_recovery_and_a_recovery_beside_it() {
    let dkg = Paper::closed();
    let recovery = dkg.recover(&[(1, Way::Repair)]);
    assert_eq!(another(&book(&[&dkg, &recovery]), CeremonyKind::TestSign, &wallet(&dkg), SOON), Ok(()));
    let signing = dkg.test_signing().authorise();
    assert_eq!(another(&book(&[&dkg, &signing]), CeremonyKind::Recover, &wallet(&dkg), SOON), Ok(()));
}

#[test]
fn refresh_is_refused_while_anything_else_is_open_with_its_wallet() {
    let dkg = Paper::closed();
    for open in
        [dkg.test_signing(), dkg.test_signing().authorise(), dkg.refresh(), dkg.recover(&[(1, Way::Repair)])]
    {
        let book = book(&[&dkg, &open]);
        let under_way = Err(OpeningError::UnderWay(id(&open)));
        assert_eq!(another(&book, CeremonyKind::Refresh, &wallet(&dkg), SOON), under_way);
        assert_eq!(another(&book, CeremonyKind::Refresh, &wallet(&dkg), LATE), Ok(()));
    }
    let committed = Paper::committed();
    assert_eq!(
        another(&book(&[&committed]), CeremonyKind::Refresh, &wallet(&committed), LATE),
        Err(OpeningError::UnderWay(id(&committed))),
        "its key generation is not closed"
    );
}

#[test]
fn recovery_is_refused_beside_another_renewal_and_by_nothing_else() {
    let dkg = Paper::closed();
    for open in [dkg.refresh(), dkg.recover(&[(2, Way::Repair)])] {
        let under_way = Err(OpeningError::UnderWay(id(&open)));
        assert_eq!(another(&book(&[&dkg, &open]), CeremonyKind::Recover, &wallet(&dkg), SOON), under_way);
    }
    let unfinished = Paper::committed();
    assert_eq!(
        another(&book(&[&unfinished]), CeremonyKind::Recover, &wallet(&unfinished), SOON),
        Ok(()),
        "the lost node may have left it behind"
    );
}

#[test]
fn what_was_let_through_is_under_way_even_after_its_expiry_until_somebody_withdraws_it() {
    let dkg = Paper::closed();
    let mut refresh = dkg.refresh().authorise();
    refresh.stage_all();
    refresh.read_words_back();
    refresh.test_sign_all();
    let is_open = |refresh: &Paper| {
        another(&book(&[&dkg, refresh]), CeremonyKind::Recover, &wallet(&dkg), LATE)
            == Err(OpeningError::UnderWay(id(refresh)))
    };
    assert!(!is_open(&refresh));
    refresh.let_through_now();
    assert!(is_open(&refresh));
    refresh.withdraw("ada", Role::Administrator).unwrap();
    assert!(!is_open(&refresh));
}

#[test]
fn ceremony_is_refused_about_a_generation_that_is_not_in_use() {
    let dkg = Paper::closed();
    let refresh = refreshed(&dkg);
    let book = book(&[&dkg, &refresh]);
    for kind in ABOUT_A_WALLET {
        let superseded = OpeningError::Superseded {
            wallet: "treasury".parse().unwrap(),
            current: Generation(2),
            origin: id(&dkg),
        };
        assert_eq!(another(&book, kind, &wallet(&dkg), SOON), Err(superseded), "{kind}");
        assert_eq!(another(&book, kind, &wallet(&refresh), SOON), Ok(()), "{kind}");
    }
}

#[test]
fn generation_is_refused_when_one_of_its_number_may_exist_already() {
    let dkg = Paper::closed();
    let doubt = in_doubt(&dkg);
    let book = book(&[&dkg, &doubt]);
    let (treasury, held) = (&wallet(&dkg).record.wallet, wallet(&dkg));
    assert_eq!(book.wallet(treasury).unwrap(), held, "the old shares are in use");
    assert_eq!(book.next_generation(treasury, SOON), Generation(3));
    assert_eq!(book.next_generation(treasury, LATE), Generation(3));
    for kind in [CeremonyKind::Refresh, CeremonyKind::Recover] {
        let numbered = |number| {
            let manifest =
                manifest_with(kind, Some(&held), |proposal| proposal.generation = Generation(number));
            book.check_opening(&manifest, SOON)
        };
        assert_eq!(numbered(2), Err(OpeningError::Generation(Generation(2), Generation(3))));
        assert_eq!(numbered(3), Ok(()));
        assert_eq!(numbered(4), Ok(()));
    }
    assert_eq!(another(&book, CeremonyKind::TestSign, &held, SOON), Ok(()));
}

#[test]
fn number_of_a_generation_is_free_again_when_it_is_proven_never_to_commit() {
    let dkg = Paper::closed();
    let treasury = "treasury".parse().unwrap();
    assert_eq!(Book::new(context()).next_generation(&treasury, SOON), Generation(1));
    assert_eq!(book(&[&dkg]).next_generation(&treasury, SOON), Generation(2));
    assert_eq!(book(&[&dkg]).next_generation(&"other".parse().unwrap(), SOON), Generation(1));
    let opened = dkg.refresh();
    assert_eq!(book(&[&dkg, &opened]).next_generation(&treasury, SOON), Generation(3));
    assert_eq!(book(&[&dkg, &opened]).next_generation(&treasury, LATE), Generation(2), "never approved");
    let mut withdrawn = dkg.refresh().authorise();
    withdrawn.stage_all();
    assert_eq!(book(&[&dkg, &withdrawn]).next_generation(&treasury, LATE), Generation(3));
    withdrawn.withdraw("ada", Role::Administrator).unwrap();
    assert_eq!(book(&[&dkg, &withdrawn]).next_generation(&treasury, SOON), Generation(2));
}

#[test]
fn generation_in_doubt_that_commits_late_does_not_replace_a_later_one() {
    let dkg = Paper::closed();
    let mut doubt = in_doubt(&dkg);
    let skipping = |dkg: &Paper| {
        dkg.then(CeremonyKind::Refresh, |proposal| {
            proposal.generation = Generation(3);
            proposal.nonce = [8; 16];
        })
    };
    let mut later = skipping(&dkg).authorise();
    later.stage_all();
    later.read_words_back();
    later.finish();
    for by in 3..=5 {
        doubt.prepare(by).unwrap();
    }
    let treasury = "treasury".parse().unwrap();
    for papers in [[&dkg, &doubt, &later], [&dkg, &later, &doubt]] {
        let book = book(&papers);
        assert_eq!(book.wallet(&treasury).unwrap(), wallet(&later));
        assert_eq!(book.wallets()[&treasury], wallet(&later));
        assert_eq!(book.next_generation(&treasury, LATE), Generation(4));
        refused!(
            another(&book, CeremonyKind::TestSign, &wallet(&doubt), LATE),
            OpeningError::Superseded { current: Generation(3), .. }
        );
    }
}

#[test]
fn wallet_is_at_its_highest_committed_generation() {
    let dkg = Paper::closed();
    let second = refreshed(&dkg);
    let third = refreshed(&second);
    let treasury = "treasury".parse().unwrap();
    let mut book = Book::new(context());
    assert_eq!(book.wallet(&treasury), None);
    for paper in [&dkg, &second, &third] {
        for entry in &paper.log {
            book.take(entry.clone()).unwrap();
        }
        assert_eq!(book.wallet(&treasury), paper.ceremony.committed());
        assert_eq!(book.wallets().len(), 1);
        assert_eq!(book.wallets().get(&treasury), paper.ceremony.committed().as_ref());
    }
    assert_eq!(book.wallet(&treasury).unwrap().record.generation, Generation(3));
    let mut staged = third.refresh().authorise();
    staged.stage_all();
    for entry in &staged.log {
        book.take(entry.clone()).unwrap();
    }
    assert_eq!(book.wallet(&treasury).unwrap(), wallet(&third), "what is staged is not in use");
    assert_eq!(book.wallet(&"other".parse().unwrap()), None);
}

#[test]
fn ceremony_rests_on_every_one_that_made_a_generation_before() {
    let dkg = Paper::closed();
    let second = refreshed(&dkg);
    let third = refreshed(&second);
    let aside = dkg.test_signing().authorise();
    let signing = third.test_signing();
    let book = book(&[&dkg, &aside, &second, &third, &signing]);
    let origins = |of: &Paper| -> Vec<CeremonyId> {
        let chapters = book.origins(&id(of)).into_iter();
        chapters.map(|chapter| chapter.ceremony.manifest().ceremony.clone()).collect()
    };
    assert_eq!(origins(&signing), [id(&dkg), id(&second), id(&third)]);
    assert_eq!(origins(&third), [id(&dkg), id(&second)]);
    assert_eq!(origins(&aside), [id(&dkg)]);
    assert_eq!(origins(&dkg), []);
    assert!(book.origins(&"dkg-unknown-00000000".parse().unwrap()).is_empty());
}

#[test]
fn number_of_the_next_generation_can_be_told_after_the_highest_that_a_manifest_may_have() {
    let dkg = Paper::closed();
    let highest = dkg.then(CeremonyKind::Refresh, |proposal| proposal.generation = Generation(u32::MAX - 1));
    let book = book(&[&dkg, &highest]);
    let treasury = "treasury".parse().unwrap();
    assert_eq!(book.next_generation(&treasury, SOON), Generation(u32::MAX));
    assert_eq!(book.next_generation(&treasury, LATE), Generation(2));
}

/// Whether what a ceremony may release depends on when it was opened: the logs alone decide.
#[test]
fn backup_that_is_written_after_a_recovery_was_opened_can_be_released_in_it() {
    let mut dkg = Paper::dkg_under(context_of(&BACKED)).authorise();
    dkg.prepare_all();
    dkg.adopt_all();
    dkg.read_words_back();
    dkg.test_sign_all();
    for by in [1, 2, 3] {
        dkg.back_up(by).unwrap();
    }
    let known = dkg.log.len();
    let early = dkg.clone();
    for by in [4, 5] {
        dkg.back_up(by).unwrap();
    }
    let lost = [(4, Way::Backup)];
    let mut recovery = dkg.recover(&lost).authorise();
    let object = dkg.written(4);
    refused!(
        early.recover(&lost).authorise().release("recover", "carl", 4, object),
        Rejection::NoReleases(_)
    );
    recovery.release("recover", "carl", 4, object).unwrap();

    let opening = &recovery.log[..1];
    let orders = [
        [&dkg.log[..], &recovery.log, &[]],
        [&dkg.log[..known], opening, &dkg.log[known..]],
        [&dkg.log[..known], &recovery.log[..recovery.log.len() - 1], &dkg.log[known..]],
    ];
    for order in orders {
        let mut book = Book::new(context_of(&BACKED));
        for entry in order.into_iter().flatten().chain(&recovery.log) {
            book.take(entry.clone()).unwrap();
        }
        let folded = &book.get(&id(&recovery)).unwrap().ceremony;
        assert_eq!(format!("{folded:?}"), format!("{:?}", recovery.ceremony));
    }
    let mut book = Book::new(context_of(&BACKED));
    book.read(&dkg.log[..known]).unwrap();
    book.read(opening).unwrap();
    book.read(&dkg.log).unwrap();
    for entry in &recovery.log {
        book.take(entry.clone()).unwrap();
    }
}

#[test]
fn renewal_is_not_taken_before_the_ceremony_that_it_follows() {
    let dkg = Paper::closed();
    let refresh = dkg.refresh();
    let rejected = |book: &mut Book| match book.take(refresh.log[0].clone()) {
        Err(NotTaken::Rejected { source, .. }) => matches!(*source, Rejection::Wallet),
        _ => false,
    };
    let mut book = Book::new(context());
    assert!(rejected(&mut book));
    for entry in &Paper::authorised().log {
        book.take(entry.clone()).unwrap();
    }
    assert!(rejected(&mut book), "nothing is committed yet");
    let mut book = self::book(&[&dkg]);
    book.take(refresh.log[0].clone()).unwrap();
}

/// An amendment of the charter, opened or approved.
fn amendment(charter: &Charter, image: u8, approved: bool) -> Paper {
    let next = charter.allowing(&Measurement { pcr0: pcr(image), ..allowed() }, None).unwrap();
    let manifest = manifest_with(CeremonyKind::Amend, None, |proposal| {
        proposal.wallet = "charter".parse().unwrap();
        proposal.nonce = [image; 16];
        proposal.subject = Subject::Charter(Arc::new(next));
    });
    let mut paper = Paper::start(context(), &manifest, Vec::new());
    if approved {
        paper.sign("compare", "wendy", Role::Witness, Answer::None).unwrap();
        for (person, role) in &QUORUM {
            paper.approve(person, *role).unwrap();
        }
    }
    paper
}

#[test]
fn amendment_is_refused_while_another_is_open_or_when_one_is_in_force_since() {
    let (open, approved) = (amendment(&CHARTER, 7, false), amendment(&CHARTER, 8, true));
    let manifest = amendment(&CHARTER, 9, false).ceremony.manifest().clone();
    assert_eq!(Book::new(context()).check_opening(&manifest, SOON), Ok(()));
    let amending = Err(OpeningError::Amending(id(&open)));
    assert_eq!(book(&[&open]).check_opening(&manifest, SOON), amending);
    assert_eq!(book(&[&open]).check_opening(&manifest, LATE), Ok(()), "it has expired");
    assert_eq!(book(&[&approved]).check_opening(&manifest, SOON), Err(OpeningError::Amended));
    assert_eq!(book(&[&open, &approved]).check_opening(&manifest, SOON), Err(OpeningError::Amended));
    let dkg = Paper::closed();
    assert_eq!(book(&[&dkg]).check_opening(&manifest, SOON), Ok(()), "wallets do not matter");
    assert_eq!(another(&book(&[&dkg, &open]), CeremonyKind::Refresh, &wallet(&dkg), SOON), Ok(()));
}

/// A test signing of this wallet in which node 1 banned node 2.
fn banning(dkg: &Paper) -> Paper {
    let mut paper = dkg.test_signing().authorise();
    let subset = paper.ceremony.due_subset().unwrap();
    paper.abort_banning(1, &subset, 1, Some(2)).unwrap();
    paper
}

/// A recovery of these nodes that was opened a while later.
fn recovery(dkg: &Paper, lost: u8) -> Paper {
    dkg.then(CeremonyKind::Recover, |proposal| {
        proposal.subject = Subject::Losses([(node(lost), Way::Repair)].into());
        proposal.opened = proposal.opened.plus(MINUTE);
    })
}

/// A recovery brought to its end.
fn recovered(dkg: &Paper, lost: u8) -> Paper {
    let mut paper = recovery(dkg, lost).authorise();
    paper.get_back(lost).unwrap();
    paper.stage_all();
    paper.read_words_back();
    paper.finish();
    paper
}

#[test]
fn ban_ends_with_the_shares_that_it_was_about_and_holds_on_them_for_ever() {
    let dkg = Paper::closed();
    let banning = banning(&dkg);
    let pair = [(node(1), node(2))].into();
    let on_old = dkg.test_signing();
    assert_eq!(book(&[&dkg, &banning]).bans_in(on_old.ceremony.manifest()), pair);
    for (lost, ends) in [(1, true), (2, true), (3, false)] {
        let recovery = recovery(&dkg, lost).authorise();
        let approved = book(&[&dkg, &banning, &recovery]);
        assert_eq!(approved.bans_in(recovery.ceremony.manifest()).is_empty(), ends, "in it, node {lost}");
        assert_eq!(approved.bans_in(on_old.ceremony.manifest()), pair, "a recovery may yet fail");

        let made = recovered(&dkg, lost);
        let committed = book(&[&dkg, &banning, &made]);
        let on_new = made.test_signing();
        assert_eq!(committed.bans_in(on_new.ceremony.manifest()).is_empty(), ends, "after it, node {lost}");
        assert_eq!(committed.bans_in(on_old.ceremony.manifest()), pair, "old shares are what they were");
        assert_eq!(committed.bans().count(), 1, "the record stays");
    }
}

#[test]
fn refresh_is_refused_while_a_ban_stands_and_a_recovery_must_be_of_one_of_the_pair() {
    let dkg = Paper::closed();
    let mut banning = banning(&dkg);
    banning.withdraw("ada", Role::Administrator).unwrap();
    let book = book(&[&dkg, &banning]);
    let banned = Err(OpeningError::Banned(node(1), node(2)));
    assert_eq!(another(&book, CeremonyKind::Refresh, &wallet(&dkg), SOON), banned);
    let of = |lost: u8| {
        let manifest = manifest_with(CeremonyKind::Recover, Some(&wallet(&dkg)), |proposal| {
            proposal.subject = Subject::Losses([(node(lost), Way::Repair)].into());
            proposal.generation = Generation(2);
        });
        book.check_opening(&manifest, SOON)
    };
    assert_eq!(of(4), banned);
    assert_eq!((of(1), of(2)), (Ok(()), Ok(())));
}

#[test]
fn recovery_by_backup_is_refused_where_no_backup_was_written() {
    let dkg = Paper::closed();
    let manifest = manifest_with(CeremonyKind::Recover, Some(&wallet(&dkg)), |proposal| {
        proposal.subject = Subject::Losses([(node(3), Way::Backup)].into());
        proposal.generation = Generation(2);
    });
    let checked = book(&[&dkg]).check_opening(&manifest, SOON);
    assert_eq!(checked, Err(OpeningError::NoBackup(node(3))));
}

#[test]
fn of_two_ceremonies_that_make_one_generation_the_later_is_the_rival_of_the_earlier() {
    let dkg = Paper::closed();
    let first = dkg.refresh().authorise();
    let second = dkg.then(CeremonyKind::Refresh, |proposal| {
        proposal.nonce = [99; 16];
        proposal.opened = proposal.opened.plus(MINUTE);
    });
    let both = book(&[&dkg, &first, &second]);
    assert_eq!(both.rival(&second.ceremony, SOON), Some(&id(&first)));
    assert_eq!(both.rival(&first.ceremony, SOON), None);
    let mut ended = first;
    ended.withdraw("ada", Role::Administrator).unwrap();
    assert_eq!(book(&[&dkg, &ended, &second]).rival(&second.ceremony, SOON), None, "it never commits");
}

#[test]
fn ledger_counts_every_copy_until_its_deletion_or_the_end_of_its_lock() {
    let dkg = Paper::closed();
    let name = wallet(&dkg).record.wallet;
    let staged = {
        let mut paper = dkg.refresh().authorise();
        paper.stage_all();
        paper
    };
    let before = book(&[&dkg, &staged]).exposure(&name);
    let exposed: Vec<_> =
        before.iter().map(|e| (e.generation, e.current, e.exposed(SOON).len(), e.warns(SOON))).collect();
    let (new, old) = ((Generation(2), false, 5, true), (Generation(1), true, 5, false));
    assert_eq!(exposed, [new, old], "what is staged rebuilds the key as well");
    assert_eq!(before[0].clears(), None, "stores are not cleared by time");

    let after = book(&[&dkg, &refreshed(&dkg)]).exposure(&name);
    let exposed: Vec<_> = after.iter().map(|e| (e.current, e.exposed(SOON).len())).collect();
    assert_eq!(exposed, [(true, 5), (false, 0)]);
    assert_eq!(after[1].clears(), Some(UnixMillis(0)));
}
