//! Inventories: what people may enter in the exposure ledger, who must agree to it, and what it then counts.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use ceremonies::book::{Book, Copy, Exposure, ItemError, OpeningError, Place};
use ceremonies::ceremony::{Phase, Rejection};
use ceremonies::charter::{CeremonyKind, Charter, Quorum, Role};
use ceremonies::evidence::{Expected, verify};
use ceremonies::ids::{CeremonyId, Generation, NodeIndex, UnixMillis};
use ceremonies::inventory::{Change, Item, MAX_ITEMS};
use ceremonies::manifest::{Manifest, ManifestError, Origin, Proposal, Subject, Way};
use ceremonies::script::Script;
use ceremonies::statement::Answer;
use ceremonies::wire::log;
use prost::Message as _;

use crate::cluster::{BACKED, LOCK_DAYS, QUORUM, backed_draft, context_of, line, node, recipient, written};
use crate::kit::{DAY, LIFETIME, MINUTE, Paper, proposal};
use crate::machine::NOW;
use crate::refused;

const SOON: UnixMillis = NOW.plus(20 * MINUTE);
/// When every lock of the first generations has ended.
const UNLOCKED: UnixMillis = NOW.plus((LOCK_DAYS as i64 + 1) * DAY);

/// A key generation with backups, closed.
static FIRST: LazyLock<Paper> = LazyLock::new(Paper::backed_up);
/// A refresh of it, closed: the first generation is a past one.
static SECOND: LazyLock<Paper> = LazyLock::new(|| {
    let mut paper = FIRST.refresh().authorise();
    paper.stage_all();
    paper.read_words_back();
    paper.finish();
    paper
});
/// A refresh of it that was withdrawn after its backups were written: generation 2, given up.
static GIVEN_UP: LazyLock<Paper> = LazyLock::new(|| {
    let mut paper = FIRST.then(CeremonyKind::Refresh, |proposal| proposal.nonce = [50; 16]).authorise();
    paper.stage_all();
    paper.read_words_back();
    paper.test_sign_all();
    paper.back_up_all();
    paper.withdraw("ada", Role::Administrator).unwrap();
    paper
});

fn id(paper: &Paper) -> CeremonyId {
    paper.ceremony.manifest().ceremony.clone()
}

fn book(papers: &[&Paper]) -> Book {
    let mut book = Book::new(context_of(&BACKED));
    for entry in papers.iter().flat_map(|paper| &paper.log) {
        book.take(entry.clone()).unwrap();
    }
    book
}

fn ledger(papers: &[&Paper]) -> Vec<Exposure> {
    book(papers).exposure(&"treasury".parse().unwrap())
}

/// The first generation, where a second is in use.
fn old(inventories: &[&Paper]) -> Exposure {
    let all: Vec<&Paper> = [&*FIRST, &*SECOND].into_iter().chain(inventories.iter().copied()).collect();
    ledger(&all).into_iter().find(|exposure| exposure.ceremony == id(&FIRST)).unwrap()
}

fn nodes(of: impl IntoIterator<Item = u8>) -> BTreeSet<NodeIndex> {
    of.into_iter().map(node).collect()
}

fn item(change: Change, by: u8, what: &str) -> Item {
    Item::Copy { node: node(by), change, what: line(what) }
}

fn sheet(by: u8, serial: &str) -> Item {
    item(Change::SheetPrinted, by, serial)
}

fn identity(person: &str) -> Item {
    Item::IdentityDestroyed { recipient: line(&recipient(person)) }
}

/// An inventory of what this ceremony made.
fn proposed(made: &Paper, nonce: u8, opened: UnixMillis, items: &[Item]) -> Proposal {
    let wallet = made.ceremony.made().unwrap();
    let subject = Subject::Copies(items.to_vec());
    Proposal { nonce: [nonce; 16], opened, subject, ..proposal(CeremonyKind::Inventory, Some(&wallet), 1) }
}

fn manifest_of(proposal: &Proposal) -> Result<Manifest, ManifestError> {
    proposal.manifest(&BACKED, &Script::builtin(proposal.kind).unwrap())
}

/// The same, opened.
fn opened(made: &Paper, nonce: u8, opened: UnixMillis, items: &[Item]) -> Paper {
    let manifest = manifest_of(&proposed(made, nonce, opened, items)).unwrap();
    let wallet = made.ceremony.made().map(Arc::new);
    let origins = [&*made.origins, std::slice::from_ref(&made.log)].concat();
    Paper::start(context_of(&BACKED).with_wallet(wallet), &manifest, origins)
}

fn approve(paper: &mut Paper) {
    for (person, role) in &QUORUM {
        paper.approve(person, *role).unwrap();
    }
}

fn close(mut paper: Paper) -> Paper {
    approve(&mut paper);
    paper.sign("agree", "wendy", Role::Witness, Answer::Agree).unwrap();
    paper.sign("close", "ada", Role::Administrator, Answer::None).unwrap();
    paper
}

/// An inventory of the first generation, closed.
fn closed(nonce: u8, at: UnixMillis, items: &[Item]) -> Paper {
    close(opened(&FIRST, nonce, at, items))
}

/// The verdict on opening an inventory of the first generation.
fn verdict(inventories: &[&Paper], at: UnixMillis, items: &[Item]) -> Result<(), OpeningError> {
    let all: Vec<&Paper> = [&*FIRST, &*SECOND].into_iter().chain(inventories.iter().copied()).collect();
    let manifest = manifest_of(&proposed(&FIRST, 99, at, items)).unwrap();
    book(&all).check_opening(&manifest, at)
}

fn refusal(inventories: &[&Paper], at: UnixMillis, items: &[Item]) -> ItemError {
    let error = verdict(inventories, at, items).unwrap_err();
    let of_item = if let OpeningError::Item(error) = error { Some(error) } else { None };
    of_item.unwrap()
}

#[test]
fn sheets_and_found_copies_count_until_an_inventory_says_that_they_were_destroyed() {
    assert!(old(&[]).warns(SOON) && !old(&[]).warns(UNLOCKED), "locked backups alone");
    let printed =
        closed(1, SOON, &[sheet(1, "S-1"), sheet(2, "S-2"), item(Change::CopyFound, 3, "a laptop")]);
    let exposed = old(&[&printed]);
    assert_eq!(exposed.exposed(UNLOCKED), nodes([1, 2, 3]));
    assert!(exposed.warns(UNLOCKED) && exposed.clears().is_none(), "paper does not end by itself");

    let gone = [item(Change::SheetDestroyed, 2, "S-2"), item(Change::CopyDestroyed, 3, "a laptop")];
    let struck = closed(2, UNLOCKED, &gone);
    let exposed = old(&[&printed, &struck]);
    assert_eq!(exposed.exposed(UNLOCKED), nodes([1]));
    assert!(!exposed.warns(UNLOCKED) && exposed.clears().is_some());
    let crossed: Vec<&Copy> = exposed.copies.iter().filter(|copy| copy.destroyed.is_some()).collect();
    assert_eq!(crossed.iter().map(|copy| copy.node).collect::<Vec<_>>(), [node(2), node(3)], "still listed");
    assert!(crossed.iter().all(|copy| copy.destroyed == Some(id(&struck))));
}

#[test]
fn deleted_backups_and_destroyed_stores_are_crossed_out() {
    let keys = |by: u8| {
        let backup = &FIRST.ceremony.backups()[&node(by)];
        [&backup.whole, &backup.root].map(|object| item(Change::BackupDeleted, by, object.key.as_str()))
    };
    let deleted = closed(1, UNLOCKED, &[keys(1), keys(4)].concat());
    let exposed = old(&[&deleted]);
    assert_eq!(exposed.exposed(SOON), nodes([2, 3, 5]));
    assert_eq!(exposed.copies.len(), 10);

    let store = closed(3, SOON, &[item(Change::StoreDestroyed, 5, "disk 12, shredded")]);
    let ledger = ledger(&[&FIRST, &store]);
    let place = |copy: &&Copy| copy.place == Place::Store && copy.node == node(5);
    assert_eq!(ledger[0].copies.iter().find(place).unwrap().destroyed, Some(id(&store)));
}

#[test]
fn what_an_identity_opened_is_crossed_out_when_the_last_that_opens_it_is_destroyed() {
    let printed = closed(1, SOON, &[sheet(1, "S-1"), sheet(3, "S-3"), item(Change::CopyFound, 2, "a disk")]);
    let escrow = closed(2, SOON.plus(DAY), &[identity("esther")]);
    let exposed = old(&[&printed, &escrow]);
    assert_eq!(exposed.exposed(SOON).len(), 5, "custodians open them still");
    assert!(exposed.copies.iter().all(|copy| copy.destroyed.is_none()));

    let custodian = closed(3, SOON.plus(2 * DAY), &[identity("cora")]);
    let exposed = old(&[&printed, &escrow, &custodian]);
    assert_eq!(exposed.exposed(SOON), nodes([2, 3, 4, 5]), "an identity opens no stolen disk");
    assert_eq!(exposed.exposed(UNLOCKED), nodes([2, 3]));
    for copy in &exposed.copies {
        let opened = matches!(copy.place, Place::Backup { .. } | Place::Sheet { .. });
        let by = (opened && copy.node.get() <= 2).then(|| id(&custodian));
        assert_eq!(copy.destroyed, by, "{copy:?}");
    }
    // The identity is gone for every generation that was encrypted to it.
    let all = ledger(&[&FIRST, &SECOND, &printed, &escrow, &custodian]);
    let of = |copy: &&Copy| copy.node == node(1) && copy.destroyed.is_some();
    assert_eq!(all[0].copies.iter().filter(of).count(), 2, "{:?}", all[0]);
    assert_eq!(all[0].exposed(SOON).len(), 5, "stores count");

    // A sheet that nobody can open any more may still be burned.
    let burned = [item(Change::SheetDestroyed, 1, "S-1")];
    assert_eq!(verdict(&[&printed, &escrow, &custodian], SOON, &burned), Ok(()));
}

#[test]
fn inventory_counts_from_its_close_and_never_without_it() {
    let mut paper = opened(&FIRST, 1, SOON, &[sheet(1, "S-1")]);
    let counted =
        |paper: &Paper| old(&[paper]).copies.iter().any(|copy| matches!(copy.place, Place::Sheet { .. }));
    approve(&mut paper);
    paper.sign("agree", "wendy", Role::Witness, Answer::Agree).unwrap();
    assert!(!counted(&paper));
    let mut withdrawn = paper.clone();
    withdrawn.withdraw("olga", Role::Operator).unwrap();
    refused!(withdrawn.sign("close", "ada", Role::Administrator, Answer::None), Rejection::Over(_));
    assert!(!counted(&withdrawn));
    let mut expired = paper.clone();
    expired.now = SOON.plus(LIFETIME);
    refused!(expired.sign("close", "ada", Role::Administrator, Answer::None), Rejection::Expired { .. });
    paper.sign("close", "ada", Role::Administrator, Answer::None).unwrap();
    assert_eq!(paper.ceremony.phase(), Phase::Closed);
    assert!(counted(&paper));
}

#[test]
fn inventory_that_somebody_disputes_strikes_nothing_and_adds_all_the_same() {
    let first = closed(1, SOON, &[sheet(1, "S-1")]);
    let items = [item(Change::SheetDestroyed, 1, "S-1"), item(Change::CopyFound, 2, "a laptop")];
    let mut disputed = opened(&FIRST, 2, SOON.plus(MINUTE), &items);
    approve(&mut disputed);
    let reason = Answer::Disagree(line("The sheet is still here"));
    disputed.sign("agree", "wendy", Role::Witness, reason).unwrap();
    disputed.sign("close", "ada", Role::Administrator, Answer::None).unwrap();
    let copies = old(&[&first, &disputed]).copies;
    assert!(copies.iter().all(|copy| copy.destroyed.is_none()));
    assert!(copies.iter().any(|copy| matches!(copy.place, Place::Found { .. })));
}

#[test]
fn inventory_is_not_closed_without_its_quorum_and_its_witness() {
    let mut paper = opened(&FIRST, 1, SOON, &[sheet(1, "S-1")]);
    refused!(paper.sign("agree", "wendy", Role::Witness, Answer::Agree), Rejection::NotOpen { .. });
    for (person, role) in &QUORUM[..5] {
        paper.approve(person, *role).unwrap();
    }
    refused!(paper.sign("close", "ada", Role::Administrator, Answer::None), Rejection::NotOpen { .. });
    paper.approve("arthur", Role::Auditor).unwrap();
    refused!(paper.sign("close", "ada", Role::Administrator, Answer::None), Rejection::NotOpen { .. });
    refused!(paper.sign("agree", "olga", Role::Operator, Answer::Agree), Rejection::NotSignedBy { .. });
}

#[test]
fn no_node_has_anything_to_do_in_an_inventory() {
    let mut paper = opened(&FIRST, 1, SOON, &[sheet(1, "S-1")]);
    for _ in 0..2 {
        for (index, enclave) in &paper.enclaves {
            assert_eq!(paper.ceremony.duty(node(*index), &enclave.keys(), paper.now), None);
        }
        if paper.ceremony.phase() == Phase::Gathering {
            approve(&mut paper);
        }
    }
    assert_eq!(paper.ceremony.phase(), Phase::Authorised);
    refused!(paper.attest(1), Rejection::NoEnclaves);
    refused!(paper.prepare(1), Rejection::NotAttested(_));
    refused!(paper.stage(1), Rejection::NothingToStage);
}

#[test]
fn people_sign_every_item_and_the_generation_that_it_is_about() {
    let items = [
        sheet(1, "S-0007"),
        item(Change::SheetDestroyed, 2, "S-0002"),
        item(Change::BackupDeleted, 3, "treasury/3"),
        item(Change::StoreDestroyed, 4, "disk 12"),
        item(Change::CopyFound, 5, "node 1: S-0007"),
        item(Change::CopyDestroyed, 1, "a laptop"),
        identity("cora"),
    ];
    let paper = opened(&FIRST, 1, SOON, &items);
    let (step, person) = ("approve".parse().unwrap(), "wendy".parse().unwrap());
    let text = paper.ceremony.statement(&step, Role::Witness, &person, &Answer::None).unwrap();
    let said = format!(
        "kind: inventory\nwallet: treasury, generation 1\ninventory: sheet printed, node 1: S-0007\n\
         inventory: sheet destroyed, node 2: S-0002\ninventory: backup deleted, node 3: treasury/3\n\
         inventory: store destroyed, node 4: disk 12\ninventory: copy found, node 5: node 1: S-0007\n\
         inventory: found copy destroyed, node 1: a laptop\ninventory: identity destroyed: {}\n",
        recipient("cora")
    );
    assert!(text.contains(&said), "{text}");
    let record = FIRST.ceremony.committed().unwrap().record.digest();
    assert!(text.contains(&format!("record: {record}\n")), "{text}");
}

#[test]
fn opening_is_refused_for_a_sheet_that_cannot_be_or_whose_serial_is_taken() {
    let printed = closed(1, SOON, &[sheet(1, "S-1")]);
    assert_eq!(verdict(&[&printed], SOON, &[sheet(1, "S-2")]), Ok(()), "a second sheet of one node");
    let taken = ItemError::Serial(line("S-1"));
    assert_eq!(refusal(&[&printed], SOON, &[sheet(2, "S-1")]), taken);
    assert_eq!(refusal(&[], SOON, &[sheet(1, "S-1"), sheet(2, "S-1")]), taken, "in one inventory");
    let burned = closed(2, SOON.plus(DAY), &[item(Change::SheetDestroyed, 1, "S-1")]);
    assert_eq!(refusal(&[&printed, &burned], SOON, &[sheet(1, "S-1")]), taken, "a serial is used once");
    let of_second = manifest_of(&proposed(&SECOND, 9, SOON, &[sheet(1, "S-1")])).unwrap();
    let known = book(&[&FIRST, &SECOND, &printed]);
    assert_eq!(known.check_opening(&of_second, SOON), Err(OpeningError::Item(taken)), "of any generation");

    let plain = Paper::closed();
    let wallet = plain.ceremony.committed().unwrap();
    let unbacked = Proposal {
        subject: Subject::Copies(vec![sheet(3, "S-1")]),
        ..proposal(CeremonyKind::Inventory, Some(&wallet), 7)
    };
    let charter: &Charter = plain.ceremony.charter();
    let manifest = unbacked.manifest(charter, &Script::builtin(CeremonyKind::Inventory).unwrap()).unwrap();
    let mut book = Book::new(context_of(charter));
    book.read(&plain.log).unwrap();
    assert_eq!(
        book.check_opening(&manifest, SOON),
        Err(OpeningError::Item(ItemError::NoBackup(node(3)))),
        "nothing to print"
    );
}

#[test]
fn opening_is_refused_for_the_end_of_a_copy_that_the_ledger_does_not_know_or_knows_to_be_gone() {
    let found = [sheet(1, "S-1"), item(Change::CopyFound, 2, "a laptop")];
    let printed = closed(1, SOON, &found);
    for unknown in [
        item(Change::SheetDestroyed, 1, "S-2"),
        item(Change::SheetDestroyed, 2, "S-1"),
        item(Change::SheetDestroyed, 2, "a laptop"),
        item(Change::CopyDestroyed, 2, "A laptop"),
        item(Change::CopyDestroyed, 1, "S-1"),
        item(Change::BackupDeleted, 1, "S-1"),
        item(Change::BackupDeleted, 2, FIRST.ceremony.backups()[&node(1)].whole.key.as_str()),
        item(Change::StoreDestroyed, 1, "it was deleted by the refresh"),
    ] {
        let refused = refusal(&[&printed], UNLOCKED, std::slice::from_ref(&unknown));
        assert_eq!(refused, ItemError::Unknown(unknown));
    }
    let gone = [item(Change::SheetDestroyed, 1, "S-1"), item(Change::CopyDestroyed, 2, "a laptop")];
    assert_eq!(verdict(&[&printed], SOON, &gone), Ok(()));
    let struck = closed(2, SOON.plus(DAY), &gone);
    for item in gone {
        let known = ItemError::Known { item: item.clone(), by: id(&struck) };
        assert_eq!(refusal(&[&printed, &struck], SOON, &[item]), known);
    }
    let again = item(Change::CopyFound, 2, "a laptop");
    refused!(Err::<(), _>(refusal(&[&printed, &struck], SOON, &[again])), ItemError::Words { .. });
}

#[test]
fn opening_is_refused_for_a_backup_that_was_locked_when_it_is_said_to_be_deleted() {
    let object = &FIRST.ceremony.backups()[&node(2)].root;
    let deleted = [item(Change::BackupDeleted, 2, object.key.as_str())];
    let until = object.locked_until;
    let locked = ItemError::Locked { item: deleted[0].clone(), until };
    assert_eq!(refusal(&[], until.plus(-1), &deleted), locked);
    assert_eq!(verdict(&[], until, &deleted), Ok(()));
    let early = closed(1, SOON, &deleted);
    assert!(old(&[&early]).copies.iter().all(|copy| copy.destroyed.is_none()), "were it ever closed");
}

#[test]
fn opening_is_refused_for_an_identity_that_opens_nothing_or_is_still_in_the_charter() {
    let unknown = refusal(&[], SOON, &[identity("nobody")]);
    assert_eq!(unknown, ItemError::Recipient(line(&recipient("nobody"))));
    let in_force = refusal(&[], SOON, &[identity("cora")]);
    assert_eq!(in_force, ItemError::InForce(line(&recipient("cora"))));

    let mut draft = backed_draft();
    draft.amends = Some(BACKED.hash());
    let rules = draft.backup.as_mut().unwrap();
    rules.custodians[0].recipient = recipient("cora anew");
    let next = Arc::new(written(&draft).unwrap());
    let amending = Proposal {
        kind: CeremonyKind::Amend,
        wallet: "charter".parse().unwrap(),
        subject: Subject::Charter(Arc::clone(&next)),
        ..proposal(CeremonyKind::Amend, None, 70)
    };
    let mut amendment = Paper::start(context_of(&BACKED), &manifest_of(&amending).unwrap(), Vec::new());
    amendment.sign("compare", "wendy", Role::Witness, Answer::None).unwrap();
    approve(&mut amendment);
    let book = book(&[&FIRST, &SECOND, &amendment]);
    let under_next = |items: &[Item]| {
        let script = Script::builtin(CeremonyKind::Inventory).unwrap();
        proposed(&FIRST, 71, SOON, items).manifest(&next, &script).unwrap()
    };
    // The generation in use is encrypted to all of them, whatever the charter says since.
    for person in ["cora", "carl", "esther"] {
        let refused = book.check_opening(&under_next(&[identity(person)]), SOON);
        refused!(refused, OpeningError::Item(ItemError::InForce(_)));
    }
    let twice = [identity("cora")];
    let once = closed(1, SOON, &twice);
    refused!(Err::<(), _>(refusal(&[&once], SOON, &twice)), ItemError::Known { .. });
}

#[test]
fn inventories_are_held_one_after_the_other_and_beside_everything_else() {
    let open = opened(&FIRST, 1, SOON, &[sheet(1, "S-1")]);
    let under_way = Err(OpeningError::UnderWay(id(&open)));
    assert_eq!(verdict(&[&open], SOON, &[sheet(2, "S-2")]), under_way);
    assert_eq!(verdict(&[&open], SOON.plus(2 * LIFETIME), &[sheet(2, "S-2")]), Ok(()), "it has expired");
    let refresh = SECOND.refresh().ceremony.manifest().clone();
    assert_eq!(book(&[&FIRST, &SECOND, &open]).check_opening(&refresh, SOON), Ok(()));
    let of_second = manifest_of(&proposed(&SECOND, 9, SOON, &[sheet(2, "S-2")])).unwrap();
    let renewing = SECOND.refresh();
    assert_eq!(book(&[&FIRST, &SECOND, &renewing]).check_opening(&of_second, SOON), Ok(()));
}

#[test]
fn ledger_is_the_same_in_whatever_order_the_logs_come_and_takes_of_two_that_contradict_the_first_closed() {
    // Two agents may each have let one be opened.
    let first = closed(9, SOON, &[sheet(1, "S-1"), sheet(2, "S-2")]);
    let second = closed(1, SOON.plus(MINUTE), &[sheet(3, "S-1"), item(Change::SheetDestroyed, 2, "S-2")]);
    let burned = closed(5, SOON.plus(2 * MINUTE), &[item(Change::SheetDestroyed, 3, "S-1")]);
    let expected = old(&[&first, &second, &burned]);
    for order in [[&second, &first, &burned], [&burned, &second, &first], [&first, &burned, &second]] {
        assert_eq!(old(&order), expected);
    }
    let sheets: Vec<_> = expected
        .copies
        .iter()
        .filter(|copy| matches!(copy.place, Place::Sheet { .. }))
        .map(|copy| (copy.node, copy.destroyed.clone()))
        .collect();
    assert_eq!(sheets, [(node(1), None), (node(2), Some(id(&second)))]);
}

#[test]
fn inventory_may_speak_of_a_past_generation_and_of_one_that_was_given_up_and_of_no_other() {
    let lost = opened(&GIVEN_UP, 1, SOON, &[sheet(1, "G-1")]);
    let lost = close(lost);
    let all = ledger(&[&FIRST, &GIVEN_UP, &SECOND, &lost]);
    let page = |of: &Paper| all.iter().find(|exposure| exposure.ceremony == id(of)).unwrap();
    let sheets =
        |of: &Paper| page(of).copies.iter().filter(|copy| matches!(copy.place, Place::Sheet { .. })).count();
    assert_eq!((sheets(&GIVEN_UP), sheets(&SECOND)), (1, 0), "both are generation 2");
    assert_eq!((page(&GIVEN_UP).current, page(&SECOND).current), (false, true));

    let mut unknown = proposed(&FIRST, 2, SOON, &[sheet(1, "S-1")]);
    unknown.generation = Generation(2);
    let manifest = manifest_of(&unknown).unwrap();
    let held = |wallet| context_of(&BACKED).with_wallet(wallet);
    let open = |manifest: &Manifest, wallet| {
        let first = crate::kit::entry(
            crate::kit::first_place(manifest, manifest.opened),
            crate::kit::opened(manifest),
        );
        ceremonies::ceremony::Ceremony::open(held(wallet), &first)
    };
    let wallet = FIRST.ceremony.made().map(Arc::new);
    refused!(open(&manifest, wallet.clone()), Rejection::Wallet);
    let right = manifest_of(&proposed(&FIRST, 2, SOON, &[sheet(1, "S-1")])).unwrap();
    refused!(open(&right, None), Rejection::Wallet);
    refused!(open(&right, SECOND.ceremony.made().map(Arc::new)), Rejection::Wallet);
    open(&right, wallet).unwrap();
    let nothing = Book::new(context_of(&BACKED)).check_opening(&right, SOON);
    assert_eq!(nothing, Err(OpeningError::Item(ItemError::Generation(Generation(1)))));
}

#[test]
fn backup_that_a_recovery_released_is_marked_and_counts_all_the_same() {
    let mut recovery = FIRST.recover(&[(3, Way::Backup), (5, Way::Backup)]).authorise();
    let root = FIRST.ceremony.backups()[&node(5)].root.digest;
    recovery.release("recover", "carl", 3, FIRST.written(3)).unwrap();
    recovery.release("recover", "coby", 5, root).unwrap();
    let printed = closed(1, SOON, &[sheet(5, "S-5"), sheet(3, "S-3")]);
    let ledger = ledger(&[&FIRST, &recovery, &printed]);
    let released: Vec<String> = ledger[0]
        .copies
        .iter()
        .filter(|copy| copy.released == Some(id(&recovery)))
        .map(|copy| format!("{} {:?}", copy.node, copy.place))
        .collect();
    assert_eq!(released.len(), 3, "{released:?}");
    for (place, said) in released.iter().zip(["3/whole", "5/root", "S-5"]) {
        assert!(place.contains(said), "{released:?}");
    }
    assert_eq!(ledger[0].exposed(SOON).len(), 5);
}

#[test]
fn manifest_of_an_inventory_is_refused_when_its_items_are_malformed() {
    let parse = |change: &dyn Fn(&mut log::Manifest)| {
        let manifest = manifest_of(&proposed(&FIRST, 1, SOON, &[sheet(1, "S-1")])).unwrap();
        let mut wire = log::Manifest::decode(manifest.as_bytes()).unwrap();
        change(&mut wire);
        Manifest::parse(&wire.encode_to_vec())
    };
    let printed = |node: u32, what: &str| log::Item {
        kind: log::ItemKind::SheetPrinted.into(),
        node,
        what: what.to_owned(),
    };
    let many = |count: usize| (0..count).map(|number| printed(1, &format!("S-{number}"))).collect();
    assert_eq!(parse(&|wire| wire.inventory = many(MAX_ITEMS)).unwrap().inventory().len(), MAX_ITEMS);
    for (items, why) in [
        (vec![], "must have items"),
        (many(MAX_ITEMS + 1), "more than 64"),
        (vec![printed(1, "S-1"), printed(2, "S-2"), printed(1, "S-1")], "twice"),
        (vec![log::Item { kind: 0, ..printed(1, "S-1") }], "a kind that this build does not know"),
        (vec![log::Item { kind: 99, ..printed(1, "S-1") }], "a kind that this build does not know"),
        (
            vec![log::Item { kind: log::ItemKind::IdentityDestroyed.into(), ..printed(1, "age1x") }],
            "belongs to no node",
        ),
    ] {
        let error = parse(&|wire| wire.inventory.clone_from(&items)).unwrap_err();
        assert!(error.to_string().contains(why), "{why}: {error}");
    }
    for malformed in [printed(0, "S-1"), printed(1, ""), printed(1, "S-1\nrole: auditor"), printed(1, " S-1")]
    {
        refused!(parse(&|wire| wire.inventory = vec![malformed.clone()]), ManifestError::Item(_));
    }
    refused!(parse(&|wire| wire.origin.clear()), ManifestError::Field(_));
    for kind in [CeremonyKind::Dkg, CeremonyKind::TestSign, CeremonyKind::Refresh] {
        let wallet = FIRST.ceremony.committed().unwrap();
        let named = if kind == CeremonyKind::Dkg { None } else { Some(&wallet) };
        let other = Proposal { subject: Subject::Copies(vec![sheet(1, "S-1")]), ..proposal(kind, named, 3) };
        refused!(manifest_of(&other), ManifestError::Value(_));
    }
    let of_nothing = Proposal { origin: None::<Origin>, ..proposed(&FIRST, 1, SOON, &[sheet(1, "S-1")]) };
    refused!(manifest_of(&of_nothing), ManifestError::Field(_));
}

#[test]
fn charter_asks_two_people_for_an_inventory_one_of_whom_does_not_operate() {
    use Role::{Administrator, Auditor, Operator, Witness};
    let with = |quorum: &[(Role, u32)]| {
        let mut draft = backed_draft();
        draft.quorum.insert(CeremonyKind::Inventory, quorum.iter().copied().collect::<Quorum>());
        written(&draft)
    };
    for enough in [
        &[(Administrator, 1), (Witness, 1)][..],
        &[(Operator, 1), (Auditor, 1)],
        &[(Witness, 1), (Auditor, 1)],
        &[(Administrator, 1), (Operator, 3), (Witness, 1), (Auditor, 1)],
    ] {
        with(enough).unwrap();
    }
    for (short, why) in [
        (&[][..], "at least two people"),
        (&[(Administrator, 1)], "at least two people"),
        (&[(Auditor, 1)], "at least two people"),
        (&[(Administrator, 1), (Operator, 3)], "at least two people"),
        (&[(Administrator, 1), (Witness, 0)], "at least two people"),
        (&[(Administrator, 2), (Witness, 1)], "a ceremony has one"),
        (&[(Administrator, 1), (Witness, 2)], "quorum.amend"),
        (&[(Operator, u32::MAX), (Witness, u32::MAX)], "quorum.amend"),
    ] {
        let error = with(short).unwrap_err();
        assert!(error.to_string().contains(why), "{short:?}: {error}");
    }
    let mut draft = backed_draft();
    draft.quorum.remove(&CeremonyKind::Inventory);
    let without = written(&draft).unwrap();
    let script = Script::builtin(CeremonyKind::Inventory).unwrap();
    let manifest = proposed(&FIRST, 1, SOON, &[sheet(1, "S-1")]).manifest(&without, &script).unwrap();
    refused!(manifest.check(&without, &script), ManifestError::Value(_));
}

#[test]
fn bundle_of_an_inventory_verifies_and_lists_its_items() {
    let paper = closed(1, SOON, &[sheet(1, "S-1"), identity("cora")]);
    let bundle = paper.material().bundle().unwrap();
    let report = verify(&bundle, &Expected::default()).unwrap();
    assert!(report.complete, "{report}");
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(bundle)).unwrap();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut archive.by_name("inventory.txt").unwrap(), &mut text).unwrap();
    assert_eq!(text, format!("sheet printed, node 1: S-1\nidentity destroyed: {}\n", recipient("cora")));
}
