//! Whole ceremonies, and the chain that their entries make.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::sync::{Arc, LazyLock};

use ceremonies::attestation::TrustRoot;
use ceremonies::ceremony::{Ceremony, Context, Phase, Rejection, StepState};
use ceremonies::charter::{CeremonyKind, Role};
use ceremonies::ids::{Hash, UnixMillis};
use ceremonies::log::{Entry, MAX_SEQ, Place};
use ceremonies::statement::{Answer, NAMESPACE};
use ceremonies::wire::log::{self, event::Kind};
use proptest::prelude::*;

use crate::cluster::{CHARTER, context, nkey, node, ssh_sign};
use crate::kit::{LIFETIME, MINUTE, Paper, entry, entry_by, first_place, manifest, opened};
use crate::machine::Machine;
use crate::refused;

fn faulted(by: u8) -> Kind {
    Kind::Faulted(log::Faulted { node: by.into(), reason: "power cut".into() })
}

#[test]
fn key_generation_goes_from_opening_to_close() {
    let mut paper = Paper::dkg();
    assert_eq!(paper.ceremony.phase(), Phase::Gathering);
    paper.attest_all();
    paper.approve_but_one();
    assert_eq!(paper.ceremony.phase(), Phase::Gathering);
    paper.approve("arthur", Role::Auditor).unwrap();
    assert_eq!(paper.ceremony.phase(), Phase::Authorised);
    for by in 1..=4 {
        paper.prepare(by).unwrap();
    }
    assert_eq!((paper.ceremony.phase(), paper.ceremony.committed()), (Phase::Authorised, None));
    paper.prepare(5).unwrap();
    assert_eq!(paper.ceremony.phase(), Phase::Committed);
    assert_eq!(paper.ceremony.committed().unwrap().blobs.len(), 5);
    paper.adopt_all();
    let words = Answer::Words(paper.ceremony.spoken_words().unwrap());
    paper.sign("read-back", "otto", Role::Operator, words.clone()).unwrap();
    paper.sign("read-back", "arthur", Role::Auditor, words).unwrap();
    paper.finish();
    assert_eq!(paper.ceremony.phase(), Phase::Closed);
    assert_eq!(paper.ceremony.tests().len(), paper.ceremony.cover().len());
    assert!(paper.ceremony.script().steps().iter().all(|step| paper.ceremony.is_done(step)));
    assert_eq!(paper.ceremony.current_step(), None);
}

#[test]
fn test_signing_goes_from_opening_to_close() {
    let mut paper = Paper::closed().test_signing();
    paper.attest_all();
    paper.approve_all();
    assert_eq!(paper.ceremony.phase(), Phase::Authorised);
    refused!(paper.prepare(1), Rejection::NoGeneration);
    paper.finish();
    assert_eq!(paper.ceremony.phase(), Phase::Closed);
}

#[test]
fn folding_the_log_again_gives_the_same_ceremony() {
    let paper = Paper::closed();
    let bytes: Vec<Vec<u8>> = paper.log.iter().map(Entry::encode).collect();
    let log: Vec<Entry> = bytes.iter().map(|bytes| Entry::decode(bytes).unwrap()).collect();
    let again = Ceremony::fold(context(), &log).unwrap();
    assert_eq!(format!("{again:?}"), format!("{:?}", paper.ceremony));
}

#[test]
fn fold_names_the_first_entry_that_is_refused() {
    let paper = Paper::closed();
    refused!(Ceremony::fold(context(), &[]), (1, Rejection::Opening));
    refused!(Ceremony::fold(context(), &paper.log[1..]), (1, Rejection::Opening));
    for left_out in 1..paper.log.len() - 1 {
        let mut log = paper.log.clone();
        log.remove(left_out);
        let expected = left_out as u64 + 1;
        refused!(Ceremony::fold(context(), &log), (seq, Rejection::Sequence { .. }) if seq == expected);
    }
}

#[test]
fn nothing_is_accepted_after_the_close() {
    let mut paper = Paper::read_back();
    let due = paper.ceremony.due_subset().unwrap();
    let by = due.parties()[0].get();
    paper.abort(by, &due, 1).unwrap();
    paper.finish();
    assert_eq!(paper.ceremony.phase(), Phase::Closed);

    let words = Answer::Words(paper.ceremony.spoken_words().unwrap());
    assert!(paper.attest(1).is_err());
    assert!(paper.restart(1).is_err());
    assert!(paper.approve("hanna", Role::Operator).is_err());
    assert!(paper.sign("read-back", "omar", Role::Operator, words).is_err());
    assert!(paper.sign("agree", "olga", Role::Operator, Answer::Agree).is_err());
    assert!(paper.sign("close", "ada", Role::Administrator, Answer::None).is_err());
    assert!(paper.withdraw("ada", Role::Administrator).is_err());
    let mut paper = Paper { enclaves: Paper::dkg().enclaves, ..paper };
    for by in 1..=5 {
        assert!(paper.prepare(by).is_err(), "result of {by}");
        assert!(paper.adopt(by).is_err(), "adoption by {by}");
        assert!(paper.fault(by).is_err(), "fault of {by}");
        let all = ceremonies::subsets::Subset::new(paper.ceremony.manifest().roster.clone());
        assert!(paper.abort(by, &all, 1).is_err(), "abort of {by}");
        for subset in paper.ceremony.cover().to_vec() {
            for attempt in 1..=2 {
                assert!(paper.abort(by, &subset, attempt).is_err(), "{by} gives up {subset}, try {attempt}");
                assert!(paper.test_sign(by, &subset, attempt).is_err(), "{by} in {subset}, try {attempt}");
            }
        }
    }
}

#[test]
fn entry_is_refused_when_its_node_did_not_sign_it() {
    let mut paper = Paper::authorised();
    for name in ["nobody", "node 2", "desk", "system"] {
        let entry = entry_by(&nkey(name), paper.place(1), faulted(1));
        refused!(paper.take(entry), Rejection::Author(by) if by == node(1));
    }
    let entry = entry_by(&nkey("node 6"), paper.place(6), faulted(6));
    refused!(paper.take(entry), Rejection::Author(by) if by == node(6));
}

#[test]
fn entry_is_refused_when_it_stands_elsewhere() {
    let mut paper = Paper::authorised();
    let place = paper.place(1);
    let head = paper.ceremony.head();
    for seq in [0, 1, head.seq, head.seq + 2, MAX_SEQ] {
        let wrong = entry(Place { seq, ..place.clone() }, faulted(1));
        refused!(paper.take(wrong), Rejection::Sequence { expected, .. } if expected == head.seq + 1);
    }
    for prev in [Hash::ZERO, paper.log[3].hash(), Hash::of_bytes(b"other")] {
        let wrong = entry(Place { prev, ..place.clone() }, faulted(1));
        refused!(paper.take(wrong), Rejection::Chain { expected, .. } if expected == head.hash);
    }
    for time in [head.time.plus(-1), UnixMillis(0), UnixMillis(i64::MIN)] {
        let wrong = entry(Place { time, ..place.clone() }, faulted(1));
        refused!(paper.take(wrong), Rejection::TimeRunsBack { .. });
    }
    let elsewhere = Place { ceremony: "dkg-treasury-00000000".parse().unwrap(), ..place.clone() };
    refused!(paper.take(entry(elsewhere, faulted(1))), Rejection::OtherCeremony { .. });
    paper.take(entry(place, faulted(1))).unwrap();
}

#[test]
fn second_opening_is_refused() {
    let mut paper = Paper::dkg();
    let opening = opened(paper.ceremony.manifest());
    refused!(paper.append(1, opening), Rejection::Opening);
}

#[test]
fn opening_is_refused_at_another_time_than_the_manifest_says() {
    let manifest = manifest(CeremonyKind::Dkg, None, 1);
    let at =
        |time| Ceremony::open(context(), &entry(first_place(&manifest, time), opened(&manifest))).map(drop);
    let opening = manifest.opened;
    at(opening.plus(15 * MINUTE)).unwrap();
    at(opening.plus(-15 * MINUTE)).unwrap();
    refused!(at(opening.plus(15 * MINUTE + 1)), Rejection::OpenedElsewhen { .. });
    refused!(at(opening.plus(-15 * MINUTE - 1)), Rejection::OpenedElsewhen { .. });
    refused!(at(opening.plus(LIFETIME + 1)), Rejection::Expired { .. });
}

#[test]
fn opening_is_refused_when_another_person_or_another_text_is_signed() {
    let manifest = manifest(CeremonyKind::Dkg, None, 1);
    let text = ceremonies::ceremony::opening_statement(
        &manifest,
        &CHARTER,
        &ceremonies::script::Script::builtin(CeremonyKind::Dkg).unwrap(),
    )
    .unwrap();
    let open = |signature: Vec<u8>| {
        let event = Kind::Opened(log::Opened { manifest: manifest.as_bytes().to_vec(), signature });
        Ceremony::open(context(), &entry(first_place(&manifest, manifest.opened), event)).map(drop)
    };
    open(ssh_sign("ada", NAMESPACE, &text)).unwrap();
    refused!(open(ssh_sign("adam", NAMESPACE, &text)), Rejection::Signature(_));
    refused!(open(ssh_sign("ada", NAMESPACE, &text.replace("dkg", "test-sign"))), Rejection::Signature(_));
    refused!(open(ssh_sign("ada", "file", &text)), Rejection::Signature(_));
}

#[test]
fn opening_is_refused_under_another_charter() {
    let manifest = manifest(CeremonyKind::Dkg, None, 1);
    let other = CHARTER.text().replace("zone 1", "zone 9");
    let charter = ceremonies::charter::Charter::parse(other.as_bytes()).unwrap();
    let root = context().root().clone();
    let context = Context::new(Arc::new(charter), root).unwrap();
    let first = entry(first_place(&manifest, manifest.opened), opened(&manifest));
    refused!(Ceremony::open(context, &first), Rejection::Manifest(_));
}

#[test]
fn context_is_refused_under_a_root_that_the_charter_does_not_name() {
    assert!(Context::new(CHARTER.clone(), Arc::new(Machine::new().root)).is_err());
    assert!(Context::new(CHARTER.clone(), Arc::new(TrustRoot::aws_nitro_g1())).is_err());
}

#[test]
fn test_signing_is_refused_without_the_very_wallet_it_names() {
    let paper = Paper::closed();
    let wallet = paper.ceremony.committed().unwrap();
    let opening = |wallet: &ceremonies::wallet::Wallet| {
        let manifest = manifest(CeremonyKind::TestSign, Some(wallet), 2);
        entry(first_place(&manifest, manifest.opened), opened(&manifest))
    };
    refused!(Ceremony::open(context(), &opening(&wallet)), Rejection::Wallet);

    let mut other = Paper::dkg_with(7);
    other.attest_all();
    other.approve_all();
    other.prepare_all();
    let other = other.ceremony.committed().unwrap();
    let held = context().with_wallet(Some(Arc::new(wallet.clone())));
    refused!(Ceremony::open(held.clone(), &opening(&other)), Rejection::Wallet);
    Ceremony::open(held, &opening(&wallet)).unwrap();
}

#[test]
fn step_is_blocked_until_all_that_it_needs_is_done() {
    let paper = Paper::dkg();
    let state = |id: &str| {
        let step = paper.ceremony.script().step(&id.parse().unwrap()).unwrap();
        paper.ceremony.step_state(step)
    };
    assert_eq!(state("open"), StepState::Done);
    assert!(matches!(state("attest"), StepState::Open { .. }));
    for later in ["identities", "approve", "generate", "read-back", "test-sign", "agree", "close"] {
        assert_eq!(state(later), StepState::Blocked { by: "attest".parse().unwrap() }, "{later}");
    }
}

/// Every entry of two whole ceremonies, with the ceremony before and after it.
type Moment = (Context, Option<Ceremony>, Entry, Ceremony);

static MOMENTS: LazyLock<Vec<Moment>> = LazyLock::new(|| {
    let dkg = Paper::closed();
    let mut signing = dkg.test_signing();
    signing.attest_all();
    signing.approve_all();
    signing.finish();
    let held = context().with_wallet(dkg.ceremony.committed().map(Arc::new));
    let mut moments = Vec::new();
    for (context, log) in [(context(), dkg.log), (held, signing.log)] {
        let mut before = None;
        for (length, entry) in (1..).zip(&log) {
            let after = Ceremony::fold(context.clone(), &log[..length]).unwrap();
            moments.push((context.clone(), before.replace(after.clone()), entry.clone(), after));
        }
    }
    moments
});

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn changed_byte_of_an_entry_is_refused_or_means_nothing(
        which in any::<prop::sample::Index>(),
        place in any::<prop::sample::Index>(),
        change in 1..=255u8,
    ) {
        let (context, before, entry, after) = which.get(&MOMENTS);
        let mut bytes = entry.encode();
        let at = place.index(bytes.len());
        bytes[at] ^= change;
        let Ok(changed) = Entry::decode(&bytes) else { return Ok(()) };
        let accepted = match before {
            None => Ceremony::open(context.clone(), &changed).ok(),
            Some(before) => {
                let mut next = before.clone();
                let accepted = next.apply(&changed).is_ok();
                if !accepted {
                    prop_assert_eq!(format!("{next:?}"), format!("{before:?}"));
                }
                accepted.then_some(next)
            }
        };
        if let Some(accepted) = accepted {
            prop_assert_eq!(accepted.head(), after.head());
            prop_assert_eq!(accepted.phase(), after.phase());
        }
    }
}
