//! Amendments of the charter: what may change, who decides it, and when and for whom it takes effect.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::sync::Arc;

use ceremonies::attestation::{AttestationError, Measurement};
use ceremonies::book::{Book, NotTaken};
use ceremonies::ceremony::{Ceremony, Context, Phase, Rejection, Void};
use ceremonies::charter::{CeremonyKind, Charter, CharterDraft, ConsoleKey, Node, Role};
use ceremonies::evidence::{EvidenceError, Expected, Material, VerifyError, verify};
use ceremonies::ids::{Generation, Hash, UnixMillis};
use ceremonies::log::Entry;
use ceremonies::manifest::{Manifest, ManifestError, Proposal, Subject};
use ceremonies::script::Script;
use ceremonies::statement::Answer;
use ciborium::Value;

use crate::cluster::{CHARTER, QUORUM, context, draft, line, nkey, node, written};
use crate::kit::{LIFETIME, MINUTE, Paper, entry, first_place, opened};
use crate::machine::{MACHINE, NOW, allowed, pcr};
use crate::refused;

const UNTIL: UnixMillis = NOW.plus(60 * MINUTE);

fn new_image() -> Measurement {
    new_image_of(7)
}

pub(crate) fn new_image_of(register: u8) -> Measurement {
    Measurement { pcr0: pcr(register), ..allowed() }
}

/// The charter that allows a new image for good and the old one for an hour.
pub(crate) fn rotated() -> Arc<Charter> {
    Arc::new(CHARTER.allowing(&new_image(), Some(UNTIL)).unwrap())
}

pub(crate) fn proposal(charter: &Charter, amendment: Option<Arc<Charter>>, opened: UnixMillis) -> Proposal {
    let (kind, wallet) = match amendment {
        Some(_) => (CeremonyKind::Amend, "charter"),
        None => (CeremonyKind::Dkg, "treasury"),
    };
    Proposal {
        kind,
        wallet: wallet.parse().unwrap(),
        purpose: line("Another image"),
        administrator: "ada".parse().unwrap(),
        opened,
        lifetime_ms: LIFETIME,
        nonce: *amendment.as_deref().unwrap_or(charter).hash().as_bytes().first_chunk().unwrap(),
        generation: Generation::FIRST,
        origin: None,
        subject: amendment.map_or(Subject::Wallet, Subject::Charter),
        signers: None,
    }
}

pub(crate) fn manifest(charter: &Charter, amendment: Option<Arc<Charter>>, opened: UnixMillis) -> Manifest {
    let proposal = proposal(charter, amendment, opened);
    proposal.manifest(charter, &Script::builtin(proposal.kind).unwrap()).unwrap()
}

pub(crate) fn opening(manifest: &Manifest) -> Entry {
    entry(first_place(manifest, manifest.opened), opened(manifest))
}

/// An amendment of the first charter that lacks one approval.
fn nearly(next: Arc<Charter>) -> Paper {
    nearly_at(next, NOW)
}

pub(crate) fn nearly_at(next: Arc<Charter>, opened: UnixMillis) -> Paper {
    let manifest = manifest(&CHARTER, Some(next), opened);
    let mut paper = Paper::start(context(), &manifest, Vec::new());
    paper.sign("compare", "wendy", Role::Witness, Answer::None).unwrap();
    for (person, role) in &QUORUM[..5] {
        paper.approve(person, *role).unwrap();
    }
    paper
}

/// Everybody who has to approves.
pub(crate) fn approve(paper: &mut Paper) {
    paper.sign("compare", "wendy", Role::Witness, Answer::None).unwrap();
    for (person, role) in &QUORUM {
        paper.approve(person, *role).unwrap();
    }
}

pub(crate) fn approved(next: Arc<Charter>) -> Paper {
    let mut paper = nearly(next);
    paper.approve("arthur", Role::Auditor).unwrap();
    paper
}

fn closed(next: Arc<Charter>) -> Paper {
    let mut paper = approved(next);
    for (person, role) in [("omar", Role::Operator), ("wendy", Role::Witness), ("arthur", Role::Auditor)] {
        paper.sign("agree", person, role, Answer::Agree).unwrap();
    }
    paper.sign("close", "ada", Role::Administrator, Answer::None).unwrap();
    paper
}

fn book_of(logs: &[&[Entry]]) -> Book {
    let mut book = Book::new(context());
    for entry in logs.iter().copied().flatten() {
        book.take(entry.clone()).unwrap();
    }
    book
}

fn in_force(book: &Book) -> Hash {
    book.context().charter().hash()
}

#[test]
fn an_amendment_is_in_force_from_the_last_approval_that_is_needed_and_for_good() {
    let next = rotated();
    let mut paper = nearly(Arc::clone(&next));
    assert_eq!(in_force(&book_of(&[&paper.log])), CHARTER.hash(), "one approval short");
    paper.approve("arthur", Role::Auditor).unwrap();
    let at = paper.now;
    // More than the quorum, later, changes nothing.
    paper.approve("hanna", Role::Operator).unwrap();
    assert_eq!(paper.ceremony.amended(), Some((&next, at)));
    assert_eq!(paper.ceremony.phase(), Phase::Committed);
    assert_eq!(paper.ceremony.phase_at(at.plus(LIFETIME * 2)), Phase::Committed, "no deadline takes it back");
    let book = book_of(&[&paper.log]);
    assert_eq!(in_force(&book), next.hash());
    assert_eq!(book.first().charter().hash(), CHARTER.hash());
}

#[test]
fn an_amendment_that_was_withdrawn_or_expired_before_its_approval_never_is_in_force() {
    let mut paper = nearly(rotated());
    paper.withdraw("ada", Role::Administrator).unwrap();
    refused!(paper.approve("arthur", Role::Auditor), Rejection::Over(_));
    assert!(matches!(paper.ceremony.phase(), Phase::Void(Void::Withdrawn { .. })));
    assert_eq!(in_force(&book_of(&[&paper.log])), CHARTER.hash());

    let mut paper = nearly(rotated());
    paper.now = NOW.plus(LIFETIME);
    refused!(paper.approve("arthur", Role::Auditor), Rejection::Expired { .. });
    assert_eq!(in_force(&book_of(&[&paper.log])), CHARTER.hash());
}

#[test]
fn no_node_has_anything_to_do_in_an_amendment() {
    let paper = approved(rotated());
    for (index, enclave) in &paper.enclaves {
        assert_eq!(paper.ceremony.duty(crate::cluster::node(*index), &enclave.keys(), paper.now), None);
    }
}

#[test]
fn a_ceremony_is_held_under_the_charter_that_is_in_force_when_it_is_opened() {
    let next = rotated();
    let amendment = approved(Arc::clone(&next));
    let at = |minutes| amendment.now.plus(minutes * MINUTE);
    let under = |charter: &Charter, opened| opening(&manifest(charter, None, opened));
    let mut before = Book::new(context());
    let refused_charter = |error: NotTaken| match error {
        NotTaken::Rejected { source, .. } => {
            matches!(*source, Rejection::Manifest(ManifestError::Elsewhere { what: "charter", .. }))
        }
        NotTaken::Gap { .. } | NotTaken::Fork { .. } => false,
    };
    assert!(refused_charter(before.take(under(&next, at(1))).unwrap_err()), "not in force yet");
    let book = book_of(&[&amendment.log]);
    for (charter, minutes, taken) in [
        (&*next, 1, true),
        (&*next, 60, true),
        (&**CHARTER, 1, true),
        (&**CHARTER, 14, true),
        (&**CHARTER, 16, false),
    ] {
        match book.clone().take(under(charter, at(minutes))) {
            Ok(_) => assert!(taken, "{minutes} minutes after"),
            Err(error) => assert!(!taken && refused_charter(error), "{minutes} minutes after"),
        }
    }
}

#[test]
fn of_several_amendments_of_one_charter_the_first_to_be_approved_is_in_force_in_whatever_order_they_come() {
    let other = Measurement { pcr0: pcr(9), ..allowed() };
    let first = approved(rotated());
    let mut second = nearly(Arc::new(CHARTER.allowing(&other, Some(UNTIL)).unwrap()));
    second.now = first.now.plus(MINUTE);
    second.approve("arthur", Role::Auditor).unwrap();
    for logs in [[&*first.log, &*second.log], [&*second.log, &*first.log]] {
        assert_eq!(in_force(&book_of(&logs)), rotated().hash());
    }
}

#[test]
fn amendments_follow_each_other() {
    let next = rotated();
    let first = approved(Arc::clone(&next));
    let third = Arc::new(
        next.allowing(&Measurement { pcr0: pcr(8), ..allowed() }, Some(UNTIL.plus(MINUTE))).unwrap(),
    );
    let manifest = manifest(&next, Some(Arc::clone(&third)), first.now.plus(MINUTE));
    let mut book = book_of(&[&first.log]);
    let mut paper = Paper::start(book.context().clone(), &manifest, Vec::new());
    approve(&mut paper);
    for entry in &paper.log {
        book.take(entry.clone()).unwrap();
    }
    assert_eq!(in_force(&book), third.hash());
    assert_eq!(book.amendments().count(), 2);
    let images = &third.attestation().measurements;
    assert_eq!(
        images.iter().map(|image| image.until).collect::<Vec<_>>(),
        [Some(UNTIL), Some(UNTIL.plus(MINUTE)), None]
    );
}

/// The verdict on opening an amendment to a charter whose text was changed.
fn opening_with(change: impl Fn(&str) -> String) -> Result<Ceremony, Rejection> {
    let next = Arc::new(Charter::parse(change(rotated().text()).as_bytes()).unwrap());
    let proposal = proposal(&CHARTER, Some(next), NOW);
    // A console that does not check what it is given.
    let manifest = proposal.manifest(&CHARTER, &Script::builtin(CeremonyKind::Amend).unwrap()).unwrap();
    Ceremony::open(context(), &opening(&manifest))
}

#[test]
fn an_amendment_changes_images_people_quorums_and_keys_and_nothing_that_shares_rest_on() {
    assert!(opening_with(str::to_owned).is_ok());
    for name in ["node 2", "desk", "system"] {
        let (before, after) = (nkey(name).public_key(), nkey(&format!("{name} anew")).public_key());
        assert!(opening_with(|text| text.replace(&before, &after)).is_ok(), "{name}");
    }
    assert!(opening_with(|text| text.replace("max_age_s = ", "max_age_s = 1")).is_ok());
    let amends = CHARTER.hash().to_string();
    for (from, to) in [
        (amends.as_str(), Hash::of_bytes(b"another").to_string().as_str()),
        ("cluster = \"paper\"", "cluster = \"other\""),
        ("threshold = 3", "threshold = 2"),
        ("key = \"alias/k\"", "key = \"alias/mine\""),
        ("host = \"kms.local\"", "host = \"kms.evil\""),
        ("name = \"desk\"", "name = \"desk-2\""),
    ] {
        assert!(rotated().text().contains(from), "{from}");
        refused!(
            opening_with(|text| text.replace(from, to)),
            Rejection::Manifest(ManifestError::Amendment(_))
        );
    }
}

#[test]
fn an_amendment_is_refused_when_a_node_or_console_comes_or_goes() {
    type Change = fn(&mut CharterDraft);
    let amended = |change: Change| {
        let mut draft = CharterDraft { amends: Some(CHARTER.hash()), ..draft() };
        change(&mut draft);
        CHARTER.check_amendment(&written(&draft).unwrap()).map_err(|error| error.to_string())
    };
    let changes: [(Change, &str); 4] = [
        (|draft| drop(draft.nodes.pop()), "- node 5"),
        (
            |draft| {
                let (nkey, zone) = (nkey("node 6").public_key(), line("zone 6"));
                draft.nodes.push(Node { index: node(6), zone, nkey, excluded: false });
            },
            "+ node 6",
        ),
        (|draft| drop(draft.consoles.pop()), "- console desk"),
        (
            |draft| {
                let (name, nkey) = ("other".parse().unwrap(), nkey("other").public_key());
                draft.consoles.push(ConsoleKey { name, nkey });
            },
            "+ console other",
        ),
    ];
    for (change, told) in changes {
        let error = amended(change).unwrap_err();
        assert!(error.contains(told), "{told}: {error}");
    }
    let long = amended(|draft| draft.kms.key = "key".repeat(10_000)).unwrap_err();
    assert!(long.contains("~ KMS key") && long.len() < 1000, "{long}");
    amended(|draft| draft.nodes[0].zone = line("zone 9")).unwrap();
}

#[test]
fn an_amendment_that_changes_nothing_or_does_not_fit_into_the_log_is_refused() {
    let with = |text: String| CHARTER.check_amendment(&Charter::parse(text.as_bytes()).unwrap());
    let amends = format!("amends = \"{}\"\n", CHARTER.hash());
    let error = with(amends.clone() + CHARTER.text()).unwrap_err();
    assert!(error.to_string().contains("changes nothing"), "{error}");
    let error = with(rotated().text().to_owned() + &"# more\n".repeat(6000)).unwrap_err();
    assert!(error.to_string().contains("fit into the log"), "{error}");
}

#[test]
fn an_amendment_needs_no_smaller_quorum_than_anything_it_could_lower() {
    let lower = CHARTER.text().replace(
        "[quorum.amend]\nadministrator = 1\noperator = 3",
        "[quorum.amend]\nadministrator = 1\noperator = 2",
    );
    assert_ne!(lower, CHARTER.text());
    assert!(Charter::parse(lower.as_bytes()).is_err());
    let higher = CHARTER.text().replace(
        "[quorum.dkg]\nadministrator = 1\noperator = 3",
        "[quorum.dkg]\nadministrator = 1\noperator = 4",
    );
    assert_ne!(higher, CHARTER.text());
    let error = Charter::parse(higher.as_bytes()).unwrap_err();
    assert!(error.to_string().contains("quorum.amend"), "{error}");
}

#[test]
fn a_charter_without_a_quorum_for_it_is_never_amended() {
    let text = CHARTER.text();
    let (before, rest) = text.split_once("[quorum.amend]").unwrap();
    let (_, after) = rest.split_once("\n\n").unwrap();
    let fixed = Arc::new(Charter::parse(format!("{before}{after}").as_bytes()).unwrap());
    let next = Arc::new(fixed.allowing(&new_image(), Some(UNTIL)).unwrap());
    let manifest = manifest(&fixed, Some(next), NOW);
    let context = Context::new(fixed, Arc::new(MACHINE.root.clone())).unwrap();
    refused!(Ceremony::open(context, &opening(&manifest)), Rejection::Manifest(ManifestError::Value(_)));
}

#[test]
fn only_an_amendment_carries_a_charter_or_is_about_it() {
    for (kind, wallet, amendment) in [
        (CeremonyKind::Amend, "charter", None),
        (CeremonyKind::Amend, "treasury", Some(rotated())),
        (CeremonyKind::Dkg, "charter", None),
        (CeremonyKind::Dkg, "treasury", Some(rotated())),
    ] {
        let proposal = Proposal {
            kind,
            wallet: wallet.parse().unwrap(),
            subject: amendment.map_or(Subject::Wallet, Subject::Charter),
            ..proposal(&CHARTER, None, NOW)
        };
        refused!(proposal.manifest(&CHARTER, &Script::builtin(kind).unwrap()), ManifestError::Value(_));
    }
}

#[test]
fn every_change_is_told() {
    let next = rotated();
    let told: Vec<String> = CHARTER.changes(&next).iter().map(ToString::to_string).collect();
    let image =
        |image: &Measurement| format!("image PCR0 {} PCR1 {} PCR2 {}", image.pcr0, image.pcr1, image.pcr2);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told.contains(&format!("~ {}: allowed until {UNTIL}, was allowed", image(&allowed()))),
        "{told:?}"
    );
    assert!(told.contains(&format!("+ {}: allowed", image(&new_image()))), "{told:?}");
    assert!(CHARTER.changes(&CHARTER).is_empty());
}

#[test]
fn an_image_is_refused_from_its_time_on_and_the_new_one_is_not() {
    let next = rotated();
    let amendment = approved(Arc::clone(&next));
    let book = book_of(&[&amendment.log]);
    let mut paper = Paper::start(book.context().clone(), &manifest(&next, None, amendment.now), Vec::new());
    paper.now = UNTIL.plus(-2000);
    paper.attest(1).unwrap();
    paper.now = UNTIL.plus(-1000);
    refused!(
        paper.attest(2),
        Rejection::Attestation { source: AttestationError::Aged { until: UNTIL, .. }, .. }
    );
    let mut payload =
        MACHINE.payload(paper.manifest_hash().as_bytes(), paper.now, &paper.enclaves[&2].keys());
    let (_, pcrs) = payload.iter_mut().find(|(name, _)| *name == Value::from("pcrs")).unwrap();
    pcrs.as_map_mut().unwrap()[0].1 = Value::Bytes(new_image().pcr0.as_bytes().to_vec());
    paper.attest_as(2, MACHINE.sign(&Value::Map(payload))).unwrap();
}

fn material(book: &Book, ceremony: &Ceremony) -> Material {
    let root = MACHINE.root.to_pem().unwrap().into_bytes();
    Material::of(book, root, &ceremony.manifest().ceremony).unwrap()
}

#[test]
fn bundles_carry_the_amendments_that_led_to_their_charter() {
    let next = rotated();
    let amendment = closed(Arc::clone(&next));
    let later = opening(&manifest(&next, None, amendment.now));
    let book = book_of(&[&amendment.log, std::slice::from_ref(&later)]);

    let report =
        verify(&material(&book, &amendment.ceremony).bundle().unwrap(), &Expected::default()).unwrap();
    assert!(report.complete);

    let dkg = &book.get(&later.ceremony).unwrap().ceremony;
    let whole = material(&book, dkg);
    let bundle = whole.bundle().unwrap();
    let first = Expected { charter: Some(CHARTER.hash()), ..Expected::default() };
    assert!(verify(&bundle, &first).is_ok());
    let other = Expected { charter: Some(next.hash()), ..Expected::default() };
    refused!(verify(&bundle, &other), VerifyError::Charter { .. });

    let without = Material { amendments: Vec::new(), ..whole.clone() };
    refused!(without.bundle(), EvidenceError::Rejected { .. });
    let unapproved = Material { amendments: vec![nearly(next).log], ..whole.clone() };
    refused!(unapproved.bundle(), EvidenceError::Amendments);
    let past = Material { log: Paper::dkg().log, ..whole };
    refused!(past.bundle(), EvidenceError::Amendments);
}
