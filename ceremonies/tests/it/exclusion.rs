//! Exclusion of a node: who decides it, what the node no longer takes part in, and that its old share never counts
//! again.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::path::Path as FilePath;
use std::sync::Arc;

use ceremonies::book::{self, Book, Copy, OpeningError};
use ceremonies::ceremony::{Ceremony, Phase, Rejection};
use ceremonies::chain::address::{BitcoinAddress, BitcoinNetwork};
use ceremonies::chain::transaction::bitcoin::{Bitcoin, Input, Outpoint, Output, Txid};
use ceremonies::chain::transaction::{Sats, Transaction};
use ceremonies::charter::{CeremonyKind, Charter, CharterDraft, CharterError, Role};
use ceremonies::curve::Path;
use ceremonies::deploy::broker::{BrokerHost, nats_config};
use ceremonies::evidence::{Expected, Material, verify};
use ceremonies::ids::{NodeIndex, UnixMillis};
use ceremonies::log::Place;
use ceremonies::manifest::{Manifest, ManifestError, Proposal, Subject, Way};
use ceremonies::script::Script;
use ceremonies::statement::Answer;
use ceremonies::wallet::Wallet;
use ceremonies::wire::log::{self, event::Kind};
use prost::Message as _;

use crate::cluster::{CHARTER, QUORUM, context, draft, nkey, node, written};
use crate::kit::{MINUTE, Paper, entry, first_place, opened_under, proposal};
use crate::machine::{MACHINE, NOW};
use crate::refused;

/// A time long after the key generation.
const LATER: UnixMillis = NOW.plus(10 * MINUTE);

fn without_node_4() -> Arc<Charter> {
    Arc::new(CHARTER.excluding(node(4)).unwrap())
}

fn new_nkey() -> String {
    nkey("node 4 anew").public_key()
}

fn with_node_4_again() -> Arc<Charter> {
    Arc::new(without_node_4().readmitting(node(4), &new_nkey()).unwrap())
}

fn manifest(charter: &Charter, proposal: &Proposal) -> Manifest {
    proposal.manifest(charter, &Script::builtin(proposal.kind).unwrap()).unwrap()
}

fn take(book: &mut Book, paper: &Paper) {
    for entry in &paper.log {
        book.take(entry.clone()).unwrap();
    }
}

/// An amendment of the charter in force, opened.
fn amendment(book: &Book, next: &Arc<Charter>, opened: UnixMillis) -> Paper {
    let proposal = Proposal {
        wallet: "charter".parse().unwrap(),
        opened,
        nonce: *next.hash().as_bytes().first_chunk().unwrap(),
        subject: Subject::Charter(Arc::clone(next)),
        ..proposal(CeremonyKind::Amend, None, 1)
    };
    Paper::start(book.context().clone(), &manifest(book.context().charter(), &proposal), Vec::new())
}

fn approve(paper: &mut Paper, people: &[(&str, Role)]) {
    paper.sign("compare", "wendy", Role::Witness, Answer::None).unwrap();
    for (person, role) in people {
        paper.approve(person, *role).unwrap();
    }
}

/// The book after this charter was put in force.
fn amend(book: &mut Book, next: &Arc<Charter>, opened: UnixMillis) -> Paper {
    let mut paper = amendment(book, next, opened);
    approve(&mut paper, &QUORUM);
    take(book, &paper);
    assert_eq!(book.context().charter().hash(), next.hash());
    paper
}

/// A wallet whose node 4 was excluded after its key was made.
fn excluded() -> (Book, Paper) {
    let dkg = Paper::closed();
    let mut book = Book::new(context());
    take(&mut book, &dkg);
    amend(&mut book, &without_node_4(), LATER);
    (book, dkg)
}

/// The same with node 4 taken back.
fn readmitted() -> (Book, Paper) {
    let (mut book, dkg) = excluded();
    amend(&mut book, &with_node_4_again(), LATER.plus(MINUTE));
    (book, dkg)
}

fn lost(nodes: &[u8]) -> impl FnOnce(&mut Proposal) {
    let nodes = nodes.iter().map(|index| (node(*index), Way::Repair)).collect();
    |proposal| proposal.subject = Subject::Losses(nodes)
}

/// A proposal for a wallet, under this charter.
fn about(
    charter: &Charter,
    kind: CeremonyKind,
    wallet: &Wallet,
    change: impl FnOnce(&mut Proposal),
) -> Manifest {
    let mut proposal = proposal(kind, Some(wallet), 7);
    proposal.opened = LATER.plus(2 * MINUTE);
    change(&mut proposal);
    manifest(charter, &proposal)
}

/// The verdict of a book on opening it under the charter in force.
fn opening(
    book: &Book,
    kind: CeremonyKind,
    wallet: &Wallet,
    change: impl FnOnce(&mut Proposal),
) -> Result<(), OpeningError> {
    let manifest = about(book.context().charter(), kind, wallet, change);
    // After everything that these tests have happen.
    book.check_opening(&manifest, manifest.opened.plus(10 * MINUTE))
}

/// The same, opened with restarted enclaves.
fn started(book: &Book, before: &Paper, kind: CeremonyKind, change: impl FnOnce(&mut Proposal)) -> Paper {
    let wallet = before.ceremony.committed().unwrap();
    let manifest = about(book.context().charter(), kind, &wallet, change);
    let context = book.context().with_wallet(Some(Arc::new(wallet)));
    Paper::start(context, &manifest, vec![before.log.clone()])
}

/// The manifest with another roster, as from a console that does not check what it proposes.
fn among(manifest: &Manifest, roster: &[u32]) -> Manifest {
    let mut wire = log::Manifest::decode(manifest.as_bytes()).unwrap();
    wire.roster = roster.to_vec();
    Manifest::parse(&wire.encode_to_vec()).unwrap()
}

/// The fold's verdict on the opening of a manifest under the charter in force.
fn folded(book: &Book, wallet: &Wallet, manifest: &Manifest) -> Result<Ceremony, Rejection> {
    let context = book.context().with_wallet(Some(Arc::new(wallet.clone())));
    let opened = opened_under(context.charter(), manifest);
    Ceremony::open(context, &entry(first_place(manifest, manifest.opened), opened))
}

fn error<T: std::fmt::Debug>(result: Result<T, CharterError>) -> String {
    result.unwrap_err().to_string()
}

fn changed(from: &Charter, change: impl FnOnce(&mut CharterDraft)) -> Result<(), CharterError> {
    let mut draft = CharterDraft { amends: Some(from.hash()), ..from.draft() };
    change(&mut draft);
    from.check_amendment(&written(&draft)?)
}

#[test]
fn a_clusters_first_charter_excludes_nobody() {
    let mut first = draft();
    first.nodes[3].excluded = true;
    let refused = error(written(&first));
    assert!(refused.contains("node 4") && refused.contains("first charter"), "{refused}");
}

#[test]
fn as_many_nodes_as_sign_together_are_never_excluded() {
    let exclude = |nodes: &[usize]| {
        changed(&CHARTER, |draft| nodes.iter().for_each(|place| draft.nodes[*place].excluded = true))
    };
    exclude(&[3]).unwrap();
    exclude(&[3, 4]).unwrap();
    let refused = error(exclude(&[2, 3, 4]));
    assert!(refused.contains("exclusions leave 2 nodes, and the threshold is 3"), "{refused}");
}

#[test]
fn an_excluded_node_comes_back_with_another_nkey_or_not_at_all() {
    let without = without_node_4();
    changed(&without, |draft| {
        draft.nodes[3].excluded = false;
        draft.nodes[3].nkey = new_nkey();
    })
    .unwrap();
    let refused = error(changed(&without, |draft| draft.nodes[3].excluded = false));
    assert!(refused.contains("node 4 is taken back with the NKey that it had"), "{refused}");
    let old = nkey("node 4").public_key();
    assert_eq!(error(without.readmitting(node(4), &old)), refused);
    // Nor by way of another NKey in between, under which the one that it had would count as new.
    for refused in [
        error(changed(&without, |draft| draft.nodes[3].nkey = new_nkey())),
        error(changed(&CHARTER, |draft| {
            draft.nodes[3].excluded = true;
            draft.nodes[3].nkey = new_nkey();
        })),
    ] {
        assert!(refused.contains("node 4 is excluded but its NKey changes"), "{refused}");
    }
}

#[test]
fn an_exclusion_that_changes_nothing_or_names_no_node_is_refused() {
    assert!(error(without_node_4().excluding(node(4))).contains("changes nothing"));
    assert!(error(CHARTER.readmitting(node(4), &new_nkey())).contains("node 4 is not excluded"));
    for refused in [CHARTER.excluding(node(6)), CHARTER.readmitting(node(6), &new_nkey())] {
        assert!(error(refused).contains("node 6"));
    }
    let taken = nkey("node 3").public_key();
    assert!(error(without_node_4().readmitting(node(4), &taken)).contains("given twice"));
    assert!(error(without_node_4().readmitting(node(4), "no key")).contains("`no key`"));
}

#[test]
fn no_node_is_excluded_without_the_operators() {
    for operators in [0, 2] {
        let mut draft = draft();
        draft.quorum.get_mut(&CeremonyKind::Amend).unwrap().insert(Role::Operator, operators);
        assert!(error(written(&draft)).contains("quorum.amend"), "{operators} operators");
    }
    let mut book = Book::new(context());
    let mut paper = amendment(&book, &without_node_4(), LATER);
    let others: Vec<_> = QUORUM.into_iter().filter(|(person, _)| *person != "otto").collect();
    approve(&mut paper, &others);
    take(&mut book, &paper);
    assert_eq!(book.context().charter().hash(), CHARTER.hash(), "one operator short");
}

#[test]
fn an_exclusion_and_its_end_stand_in_the_changes_and_in_what_people_sign() {
    let (without, again) = (without_node_4(), with_node_4_again());
    let told = |from: &Charter, to: &Charter| -> Vec<String> {
        from.changes(to).iter().map(ToString::to_string).collect()
    };
    assert_eq!(told(&CHARTER, &without), ["+ exclusion of node 4: takes part in nothing"]);
    let back = told(&without, &again);
    assert!(back[0].starts_with("~ node 4: ") && back[0].contains(&new_nkey()), "{back:?}");
    assert_eq!(back[1..], ["- exclusion of node 4: takes part in nothing"]);

    let approval = |book: &Book, next: &Arc<Charter>| {
        let mut paper = amendment(book, next, LATER);
        approve(&mut paper, &[]);
        let approve = "approve".parse().unwrap();
        let text =
            paper.ceremony.statement(&approve, Role::Operator, &"olga".parse().unwrap(), &Answer::None);
        assert!(paper.ceremony.signatures()[0].text.contains("node 4"), "the opening says it too");
        text.unwrap()
    };
    let first = Book::new(context());
    let (book, dkg) = excluded();
    let text = approval(&first, &without);
    assert!(text.contains("\nexcludes: node 4, which takes part in nothing any more\n"), "{text}");
    let text = approval(&book, &again);
    assert!(
        text.contains("\ntakes back: node 4, with another NKey; its old shares stay out of use\n"),
        "{text}"
    );

    let signing = started(&book, &dkg, CeremonyKind::TestSign, |_| {});
    assert!(signing.ceremony.signatures()[0].text.contains("\nexcluded: node 4\n"));
    assert!(!dkg.ceremony.signatures()[0].text.contains("exclu"), "nothing is said where nobody is");
}

#[test]
fn nothing_is_taken_from_an_excluded_node() {
    let (book, dkg) = excluded();
    let wallet = dkg.ceremony.committed().unwrap();
    let manifest = about(book.context().charter(), CeremonyKind::TestSign, &wallet, |_| {});
    let place = Place { node: node(4), ..first_place(&manifest, manifest.opened) };
    let opening = entry(place, opened_under(book.context().charter(), &manifest));
    let context = book.context().with_wallet(Some(Arc::new(wallet)));
    refused!(Ceremony::open(context, &opening), Rejection::Excluded(by) if by == node(4));

    let mut test = started(&book, &dkg, CeremonyKind::TestSign, |_| {});
    refused!(test.attest(4), Rejection::Excluded(by) if by == node(4));
    for by in [1, 2, 3, 5] {
        test.attest(by).unwrap();
    }
    refused!(test.fault(4), Rejection::Excluded(_));
    // Nor its enclave's words from another agent.
    test.approve_all();
    let document = test.document(&test.enclaves[&4]);
    let attested = Kind::Attested(log::Attested { node: 4, document });
    refused!(test.append(1, attested), Rejection::NoSuchNode(_));
    let subset = test.ceremony.cover()[0].clone();
    let relayed = test.test_signature(4, &subset, 1);
    refused!(test.report(&relayed), Rejection::Excluded(_));
    // The key that lists it in the charter before says nothing either.
    assert_eq!(test.ceremony.charter().node(node(4)).unwrap().nkey, nkey("node 4").public_key());
}

#[test]
fn test_signing_is_held_among_those_that_are_left_and_its_bundle_verifies() {
    let (mut book, dkg) = excluded();
    let wallet = dkg.ceremony.committed().unwrap();
    assert_eq!(opening(&book, CeremonyKind::TestSign, &wallet, |_| {}), Ok(()));
    let mut test = started(&book, &dkg, CeremonyKind::TestSign, |_| {});
    let left = [1, 2, 3, 5].map(node);
    assert_eq!(test.ceremony.manifest().roster, left);
    let cover = test.ceremony.cover().to_vec();
    for (place, one) in left.iter().enumerate() {
        for other in &left[place + 1..] {
            assert!(cover.iter().any(|group| group.contains(*one) && group.contains(*other)));
        }
    }
    assert!(!cover.iter().any(|group| group.contains(node(4))));
    for by in left {
        test.attest(by.get()).unwrap();
    }
    test.approve_all();
    test.finish();
    assert_eq!(test.ceremony.phase(), Phase::Closed);
    take(&mut book, &test);
    let root = MACHINE.root.to_pem().unwrap().into_bytes();
    let bundle = Material::of(&book, root, &test.ceremony.manifest().ceremony).unwrap().bundle().unwrap();
    let first = Expected { charter: Some(CHARTER.hash()), ..Expected::default() };
    assert!(verify(&bundle, &first).unwrap().complete);
}

#[test]
fn test_signing_of_any_other_roster_is_refused() {
    let (book, dkg) = excluded();
    let wallet = dkg.ceremony.committed().unwrap();
    let right = about(book.context().charter(), CeremonyKind::TestSign, &wallet, |_| {});
    assert!(folded(&book, &wallet, &right).is_ok());
    for roster in [&[1, 2, 3, 4, 5][..], &[1, 2, 3, 4]] {
        refused!(
            folded(&book, &wallet, &among(&right, roster)),
            Rejection::Manifest(ManifestError::Excluded(by)) if by == node(4)
        );
    }
    for roster in [&[1, 2, 3][..], &[1, 2, 5, 3], &[1, 2, 3, 5, 5], &[1, 2, 3, 5, 6]] {
        refused!(
            folded(&book, &wallet, &among(&right, roster)),
            Rejection::Manifest(ManifestError::Elsewhere { what: "nodes", .. })
        );
    }
    let before = Book::new(context());
    refused!(
        folded(
            &before,
            &wallet,
            &among(&about(&CHARTER, CeremonyKind::TestSign, &wallet, |_| {}), &[1, 2, 3, 5])
        ),
        Rejection::Manifest(ManifestError::Elsewhere { what: "nodes", .. })
    );
}

#[test]
fn what_needs_every_node_is_refused_with_the_excluded_one_and_the_ways_on() {
    let (book, dkg) = excluded();
    let wallet = dkg.ceremony.committed().unwrap();
    let charter = book.context().charter();
    let manifests = [
        manifest(charter, &Proposal { opened: LATER.plus(MINUTE), ..proposal(CeremonyKind::Dkg, None, 9) }),
        about(charter, CeremonyKind::Refresh, &wallet, |_| {}),
        about(charter, CeremonyKind::Recover, &wallet, lost(&[2])),
    ];
    for manifest in manifests {
        let whole = among(&manifest, &[1, 2, 3, 4, 5]);
        for manifest in [manifest, whole] {
            let refused = book.check_opening(&manifest, manifest.opened).unwrap_err();
            assert!(matches!(refused, OpeningError::Incomplete(_)), "{refused}");
            let said = refused.to_string();
            for named in [&manifest.kind.to_string(), "node 4", "new NKey", "recover", "sweep"] {
                assert!(said.contains(named), "{named}: {said}");
            }
            refused!(folded(&book, &wallet, &manifest), Rejection::Manifest(ManifestError::Incomplete(_)));
        }
    }
}

/// The wallet's whole balance to itself, signed by these nodes.
fn transfer(wallet: &Wallet, signers: &[u8]) -> impl FnOnce(&mut Proposal) {
    let address = BitcoinAddress::of(BitcoinNetwork::Regtest, &wallet.record.public_key);
    let outpoint = Outpoint { txid: Txid([1; 32]), index: 0 };
    let path = Path::default();
    let input = Input { outpoint, amount: Sats(50_000), address, path };
    let output = Output { amount: Sats(49_000), address: address.into() };
    let transaction = Bitcoin::new(BitcoinNetwork::Regtest, vec![input], vec![output]).unwrap();
    let signers: Vec<NodeIndex> = signers.iter().map(|index| node(*index)).collect();
    move |proposal| {
        proposal.subject = Subject::Transaction(Arc::new(Transaction::Bitcoin(transaction)));
        proposal.signers = Some(signers);
    }
}

#[test]
fn a_transfer_is_signed_by_others_than_an_excluded_node() {
    let (book, dkg) = excluded();
    let wallet = dkg.ceremony.committed().unwrap();
    let of = |signers: &[u8]| {
        let charter = book.context().charter();
        let manifest = about(charter, CeremonyKind::Transfer, &wallet, transfer(&wallet, signers));
        (book.check_opening(&manifest, manifest.opened), folded(&book, &wallet, &manifest))
    };
    let (checked, taken) = of(&[1, 2, 5]);
    assert!(checked.is_ok() && taken.is_ok(), "{checked:?} {taken:?}");
    let (checked, taken) = of(&[1, 2, 4]);
    assert_eq!(checked, Err(OpeningError::Excluded(node(4))));
    refused!(taken, Rejection::Manifest(ManifestError::Excluded(by)) if by == node(4));
}

#[test]
fn the_old_share_of_a_node_that_was_taken_back_stays_out_of_use_until_a_recovery_replaces_it() {
    let (mut book, dkg) = readmitted();
    let wallet = dkg.ceremony.committed().unwrap();
    let out = Err(OpeningError::OutOfUse(node(4)));
    for kind in [CeremonyKind::TestSign, CeremonyKind::Refresh] {
        assert_eq!(opening(&book, kind, &wallet, |_| {}), out, "{kind}");
    }
    assert_eq!(opening(&book, CeremonyKind::Recover, &wallet, lost(&[2])), out, "not as a helper either");
    assert_eq!(opening(&book, CeremonyKind::Transfer, &wallet, transfer(&wallet, &[1, 2, 4])), out);
    assert_eq!(opening(&book, CeremonyKind::Transfer, &wallet, transfer(&wallet, &[1, 2, 5])), Ok(()));
    assert_eq!(opening(&book, CeremonyKind::Recover, &wallet, lost(&[4])), Ok(()));

    let mut recovery = started(&book, &dkg, CeremonyKind::Recover, lost(&[4])).authorise();
    assert!(book.out_of_use(recovery.ceremony.manifest()).is_empty());
    assert_eq!(opening(&book, CeremonyKind::TestSign, &wallet, |_| {}), out, "it may yet fail");
    recovery.get_back(4).unwrap();
    recovery.stage_all();
    recovery.read_words_back();
    recovery.finish();
    take(&mut book, &recovery);
    let recovered = recovery.ceremony.committed().unwrap();
    for kind in [CeremonyKind::TestSign, CeremonyKind::Refresh] {
        assert_eq!(opening(&book, kind, &recovered, |_| {}), Ok(()), "{kind}");
    }
    let on_old = about(book.context().charter(), CeremonyKind::TestSign, &wallet, |_| {});
    assert_eq!(book.out_of_use(&on_old), [node(4)].into(), "the old share is what it was");
    let ledger = book.exposure(&wallet.record.wallet);
    let stores = |copies: &[Copy]| -> Vec<_> {
        let stores = copies.iter().filter(|copy| copy.place == book::Place::Store);
        stores.map(|copy| copy.node).collect()
    };
    assert_eq!(stores(&ledger[0].copies).len(), 5);
    assert_eq!(stores(&ledger[1].copies), [node(4)], "whoever has the old machine has it still");
}

#[test]
fn nodes_are_not_excluded_one_after_the_other_until_too_few_shares_are_in_use() {
    let (mut book, dkg) = readmitted();
    let opened = LATER.plus(2 * MINUTE);
    let third = Arc::new(book.context().charter().excluding(node(5)).unwrap());
    amend(&mut book, &third, opened);
    let again = Arc::new(third.readmitting(node(5), &nkey("node 5 anew").public_key()).unwrap());
    amend(&mut book, &again, opened.plus(MINUTE));
    let one_more = Arc::new(again.excluding(node(1)).unwrap());
    let verdict = |book: &Book, next: &Arc<Charter>| {
        let asked = amendment(book, next, opened.plus(2 * MINUTE));
        book.check_opening(asked.ceremony.manifest(), opened.plus(2 * MINUTE))
    };
    let wallet = dkg.ceremony.manifest().wallet.clone();
    assert_eq!(verdict(&book, &one_more), Err(OpeningError::TooFewLeft { wallet, left: 2 }));
    let nobody_else = Arc::new(again.excluding(node(4)).unwrap());
    assert_eq!(verdict(&book, &nobody_else), Ok(()), "its share is out of use anyway");
}

#[test]
fn a_share_is_out_of_use_by_the_order_of_charters_and_not_by_the_order_of_entries() {
    let dkg = Paper::closed();
    let wallet = dkg.ceremony.committed().unwrap();
    let refresh = about(&CHARTER, CeremonyKind::Refresh, &wallet, |_| {});
    let recovery = about(&CHARTER, CeremonyKind::Recover, &wallet, lost(&[4]));
    let mut first = Book::new(context());
    take(&mut first, &dkg);
    for manifest in [&refresh, &recovery] {
        assert!(first.out_of_use(manifest).is_empty());
    }
    // An amendment that nobody here knew of when they were opened.
    let amending = amend(&mut first.clone(), &without_node_4(), LATER);
    let mut late = Book::new(context());
    take(&mut late, &amending);
    take(&mut late, &dkg);
    take(&mut first, &amending);
    for book in [&first, &late] {
        for manifest in [&refresh, &recovery] {
            assert_eq!(book.out_of_use(manifest), [node(4)].into(), "{}", manifest.kind);
            assert!(book.check_opening(manifest, manifest.opened).is_err());
        }
    }
}

#[test]
fn an_excluded_node_may_not_append_to_the_amendment_that_takes_it_back_with_its_old_nkey() {
    let (book, _) = excluded();
    let mut paper = amendment(&book, &with_node_4_again(), LATER.plus(MINUTE));
    let event = |paper: &Paper| {
        let reason = "made up".to_owned();
        (Place { node: node(4), ..paper.place(4) }, Kind::Faulted(log::Faulted { node: 4, reason }))
    };
    let (place, kind) = event(&paper);
    refused!(paper.take(entry(place, kind)), Rejection::Excluded(by) if by == node(4));
    let (place, kind) = event(&paper);
    let by_new = crate::kit::entry_by(&nkey("node 4 anew"), place, kind);
    refused!(paper.take(by_new), Rejection::NoSuchNode(_));
}

#[test]
fn the_broker_knows_no_excluded_node() {
    let config = |charter: &Charter| {
        let store = FilePath::new("/var/lib/nats");
        nats_config(charter, BrokerHost { listen: "0.0.0.0:4222", store, keeper: "UKEEPER" })
    };
    let names = |config: &str| {
        [&nkey("node 4").public_key(), "mpc.*.*.4", "health.4"].map(|name| config.contains(name))
    };
    assert_eq!(names(&config(&CHARTER)), [true; 3]);
    assert_eq!(names(&config(&without_node_4())), [false; 3]);
    assert!(config(&with_node_4_again()).contains(&new_nkey()));
}

/// The accounts of a broker's configuration: name, and all that is in it.
fn accounts(config: &str) -> Vec<(&str, &str)> {
    let accounts = config.split_once("accounts {\n").unwrap().1;
    let named = accounts.split("\n  }\n").filter_map(|account| account.trim_start().split_once(" {\n"));
    named.filter(|(name, _)| !name.starts_with('#')).collect()
}

#[test]
fn from_a_nodes_account_comes_only_what_is_said_under_its_number() {
    let config =
        nats_config(&CHARTER, BrokerHost { listen: "[::]:4222", store: FilePath::new("/nats"), keeper: "U" });
    let accounts = accounts(&config);
    for node in 1..=5_u8 {
        let (_, account) = accounts.iter().find(|(name, _)| *name == format!("NODE_{node}")).unwrap();
        assert_eq!(account.matches("nkey:").count(), 1, "nobody else is where node {node} has its answers");
        let (_, exports) = account.split_once("exports: [\n").unwrap();
        let (exports, imports) = exports.split_once("]\n").unwrap();
        let exports: Vec<&str> = exports.lines().filter(|line| !line.trim().is_empty()).collect();
        assert!(!exports.is_empty(), "node {node} answers nothing");
        for export in exports {
            let subject = export.split('"').nth(1).unwrap();
            assert!(subject.ends_with(&format!(".{node}")), "{export}");
            assert!(
                export.contains("{ stream:") || export.contains("threshold: \"15s\""),
                "{export}: the broker forgets soon who asked"
            );
        }
        for line in imports.lines().filter(|line| line.contains("{ stream:")) {
            let from = line.split_once("account: NODE_").unwrap().1.split(',').next().unwrap();
            assert!(line.ends_with(&format!(".{from}\" }} }}")) && from != node.to_string(), "{line}");
        }
    }
    assert!(!config.contains("response:"), "each request has one answer");
    assert_eq!(config.matches("jetstream: enabled").count(), 1, "only the log's account has a stream");
    for (name, account) in &accounts {
        assert!(account.matches("nkey:").count() <= 1, "{name} has users who could answer as each other");
    }
}

#[test]
fn accusers_are_those_who_banned_a_node_on_shares_that_are_still_in_use() {
    let dkg = Paper::closed();
    let mut book = Book::new(context());
    take(&mut book, &dkg);
    let mut banning = dkg.test_signing().authorise();
    for by in [1, 2] {
        let group = banning.ceremony.cover().iter().find(|group| group.contains(node(by))).unwrap().clone();
        banning.abort_banning(by, &group, 1, Some(3)).unwrap();
    }
    take(&mut book, &banning);
    assert_eq!(book.accusers(node(3)), [node(1), node(2)].into());
    for innocent in [1, 2, 4, 5] {
        assert!(book.accusers(node(innocent)).is_empty(), "node {innocent}");
    }
    let recovery = dkg.then(CeremonyKind::Recover, |proposal| {
        lost(&[3])(proposal);
        proposal.opened = LATER;
    });
    let mut recovery = recovery.authorise();
    recovery.get_back(3).unwrap();
    recovery.stage_all();
    recovery.read_words_back();
    recovery.finish();
    take(&mut book, &recovery);
    assert!(book.accusers(node(3)).is_empty(), "it has another share on another enclave");
}

#[test]
fn a_charter_that_excludes_says_so_when_it_is_written_and_no_other_does() {
    assert!(!CHARTER.draft().to_toml().unwrap().contains("excluded"));
    assert!(!with_node_4_again().text().contains("excluded"));
    assert_eq!(without_node_4().text().matches("excluded = true").count(), 1);
}
