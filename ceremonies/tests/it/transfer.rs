//! Transactions: what people may say of one after it was signed, and what a bundle says of it.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::io::{Cursor, Read as _};
use std::sync::{Arc, LazyLock};

use ceremonies::book::{Book, OpeningError};
use ceremonies::ceremony::{Phase, Rejection, StepState};
use ceremonies::chain::address::{BitcoinAddress, BitcoinNetwork, ChainId, EthereumAddress};
use ceremonies::chain::transaction::bitcoin::{Bitcoin, Input, Outpoint, Output, Txid};
use ceremonies::chain::transaction::evm::{Evm, MIN_GAS, Transfer};
use ceremonies::chain::transaction::{Confirmation, Sats, Transaction, TransactionId, Wei};
use ceremonies::charter::{CeremonyKind, Role};
use ceremonies::curve::Path;
use ceremonies::evidence::{Expected, verify};
use ceremonies::ids::Hash;
use ceremonies::log::{EntryError, TestSigned};
use ceremonies::manifest::Subject;
use ceremonies::script::{Act, Script};
use ceremonies::statement::Answer;
use ceremonies::wire::log::{self, event::Kind};
use serde_json::{Value, json};
use zip::ZipArchive;

use crate::cluster::{context, line, node};
use crate::keys::SHARING;
use crate::kit::{MINUTE, Paper};
use crate::refused;

/// A wallet whose key generation is closed.
static WALLET: LazyLock<Paper> = LazyLock::new(Paper::closed);
/// A transfer of ether that waits for its broadcast.
static ETHER: LazyLock<Paper> = LazyLock::new(|| signed(ether(0)));
static BITCOIN: LazyLock<Paper> = LazyLock::new(|| signed(bitcoin()));

fn ether(nonce: u64) -> Transaction {
    let transfer = Transfer {
        chain: ChainId::new(1).unwrap(),
        nonce,
        max_priority_fee: Wei(1),
        max_fee: Wei(2_000_000),
        gas_limit: MIN_GAS,
        to: EthereumAddress::from([7; 20]),
        value: Wei(1),
    };
    Transaction::Evm(Evm::new(Path::default(), transfer).unwrap())
}

fn bitcoin() -> Transaction {
    let network = BitcoinNetwork::Regtest;
    let key = WALLET.ceremony.record().unwrap().public_key;
    let input = Input {
        outpoint: Outpoint { txid: Txid([1; 32]), index: 0 },
        amount: Sats(10_000),
        address: BitcoinAddress::of(network, &key),
        path: Path::default(),
    };
    let output = Output { amount: Sats(9800), address: BitcoinAddress::new(network, [9; 20]).into() };
    Transaction::Bitcoin(Bitcoin::new(network, vec![input], vec![output]).unwrap())
}

/// A transfer, approved and not yet signed.
fn approved(transaction: Transaction) -> Paper {
    let mut paper = WALLET.then(CeremonyKind::Transfer, |proposal| {
        proposal.subject = Subject::Transaction(Arc::new(transaction));
        proposal.signers = Some(vec![node(1), node(2), node(3)]);
    });
    for by in 1..=3 {
        paper.attest(by).unwrap();
    }
    paper.sign("read", "wendy", Role::Witness, Answer::None).unwrap();
    paper.approve_rest();
    paper
}

fn signed(transaction: Transaction) -> Paper {
    let mut paper = approved(transaction);
    let subset = paper.ceremony.due_subset().unwrap();
    let (r, s, recovery_id) = SHARING.ecdsa(&paper.ceremony.to_sign(&subset, 1, 0).unwrap().digest);
    for by in 1..=3 {
        let report = TestSigned { r, s, recovery_id, ..paper.test_signature(by, &subset, 1) };
        paper.report(&report).unwrap();
    }
    paper
}

fn block() -> Hash {
    Hash::of_bytes(b"a block")
}

fn confirmed(paper: &Paper) -> Confirmation {
    Confirmation { transaction: paper.ceremony.transaction_id().unwrap(), block: block(), height: 7 }
}

fn broadcast(paper: &mut Paper, person: &str, answer: Answer) -> Result<(), Rejection> {
    paper.sign("broadcast", person, Role::Operator, answer)
}

fn withheld() -> Answer {
    Answer::Withheld(line("The trustee sends it"))
}

fn finish(paper: &mut Paper) {
    paper.sign("agree", "omar", Role::Operator, Answer::Agree).unwrap();
    paper.sign("agree", "wendy", Role::Witness, Answer::Agree).unwrap();
    paper.sign("agree", "arthur", Role::Auditor, Answer::Agree).unwrap();
    paper.sign("close", "ada", Role::Administrator, Answer::None).unwrap();
    assert_eq!(paper.ceremony.phase(), Phase::Closed);
}

/// The verdict on a report of this node's enclave, of the signature that the transfer waits for.
fn report(paper: &mut Paper, by: u8) -> Result<(), Rejection> {
    let subset = paper.ceremony.cover()[0].clone();
    let (r, s, recovery_id) = SHARING.ecdsa(&paper.ceremony.to_sign(&subset, 1, 0).unwrap().digest);
    let report = TestSigned { r, s, recovery_id, ..paper.test_signature(by, &subset, 1) };
    paper.report(&report)
}

#[test]
fn transaction_is_signed_with_the_first_report_whoever_keeps_silent_and_nothing_takes_it_back() {
    let mut paper = approved(ether(0));
    let mut given_up = paper.clone();
    given_up.withdraw("olga", Role::Operator).unwrap();
    report(&mut paper, 2).unwrap();
    assert_eq!(paper.ceremony.phase(), Phase::Committed);
    assert!(paper.ceremony.signed_transaction().is_some());
    refused!(paper.withdraw("olga", Role::Operator), Rejection::Signed);
    refused!(paper.withdraw("ada", Role::Administrator), Rejection::Signed);
    let duty = |by: u8| paper.ceremony.duty(node(by), &paper.enclaves[&by].keys(), paper.now);
    assert_eq!((1..=3).map(duty).collect::<Vec<_>>(), vec![None; 3]);
    report(&mut paper, 1).unwrap();
    paper.now = paper.ceremony.manifest().expires.plus(1);
    let confirmation = confirmed(&paper);
    broadcast(&mut paper, "olga", Answer::Broadcast(confirmation)).unwrap();
    finish(&mut paper);
}

#[test]
fn signed_transaction_that_nobody_closes_does_not_hold_up_a_refresh() {
    let book = |papers: &[&Paper]| {
        let mut book = Book::new(context());
        for entry in papers.iter().flat_map(|paper| &paper.log) {
            book.take(entry.clone()).unwrap();
        }
        book
    };
    let refresh = WALLET.then(CeremonyKind::Refresh, |proposal| proposal.nonce = [9; 16]);
    let manifest = refresh.ceremony.manifest();
    let open = approved(ether(0));
    let under_way = Err(OpeningError::UnderWay(open.ceremony.manifest().ceremony.clone()));
    let now = manifest.opened.plus(MINUTE);
    assert_eq!(book(&[&WALLET, &open]).check_opening(manifest, now), under_way);
    assert_eq!(book(&[&WALLET, &ETHER]).check_opening(manifest, now), Ok(()));
}

/// What a bundle's `broadcast.json` says, and what its verification says.
fn evidence(paper: &Paper) -> (Value, String) {
    let bundle = paper.material().bundle().unwrap();
    let report = verify(&bundle, &Expected::default()).unwrap();
    let mut archive = ZipArchive::new(Cursor::new(bundle)).unwrap();
    let mut content = Vec::new();
    archive.by_name("broadcast.json").unwrap().read_to_end(&mut content).unwrap();
    (serde_json::from_slice(&content).unwrap(), report.to_string())
}

#[test]
fn confirmation_is_signed_with_its_block_and_stands_in_the_bundle() {
    for paper in [&*ETHER, &*BITCOIN] {
        let mut paper = paper.clone();
        let confirmation = confirmed(&paper);
        let id = confirmation.transaction.to_string();
        broadcast(&mut paper, "olga", Answer::Broadcast(confirmation)).unwrap();
        let text = paper.ceremony.signatures().last().unwrap().text.clone();
        for said in [format!("broadcast: {id}\n"), format!("{}\n", block()), "height: 7\n".to_owned()] {
            assert!(text.contains(&said), "{said} in {text}");
        }
        finish(&mut paper);
        let (file, report) = evidence(&paper);
        assert_eq!(file["transaction"], id);
        assert_eq!((&file["said"][0]["person"], &file["said"][0]["height"]), (&json!("olga"), &json!(7)));
        assert_eq!(file["said"][0]["block"], confirmation.block());
        assert!(report.contains(&format!("olga says: {confirmation}")), "{report}");
    }
}

#[test]
fn withholding_completes_the_step_with_its_reason() {
    let mut paper = ETHER.clone();
    broadcast(&mut paper, "olga", withheld()).unwrap();
    let text = &paper.ceremony.signatures().last().unwrap().text;
    assert!(text.contains("broadcast: not from here, because: The trustee sends it\n"), "{text}");
    finish(&mut paper);
    let (file, report) = evidence(&paper);
    assert_eq!(file["said"][0]["answer"], "not sent from here: The trustee sends it");
    assert_eq!(file["said"][0]["block"], Value::Null);
    assert!(report.contains("olga says: not sent from here"), "{report}");
}

#[test]
fn bundle_of_a_signed_transaction_that_nobody_sent_says_so() {
    let (file, report) = evidence(&ETHER);
    assert_eq!(file["said"], json!([]));
    assert!(report.contains("signed as 0x") && !report.contains("says"), "{report}");
}

#[test]
fn transaction_that_was_withheld_may_still_be_confirmed_by_another() {
    let mut paper = ETHER.clone();
    broadcast(&mut paper, "olga", withheld()).unwrap();
    let answer = Answer::Broadcast(confirmed(&paper));
    refused!(broadcast(&mut paper, "olga", answer.clone()), Rejection::SignedAlready { .. });
    broadcast(&mut paper, "omar", answer).unwrap();
    let (file, _) = evidence(&paper);
    assert_eq!(file["said"].as_array().unwrap().len(), 2);
}

#[test]
fn confirmation_of_another_transaction_is_refused() {
    let mut paper = ETHER.clone();
    let right = confirmed(&paper);
    let TransactionId::Evm(hash) = right.transaction else { unreachable!() };
    let others = [
        confirmed(&BITCOIN).transaction,
        signed(ether(1)).ceremony.transaction_id().unwrap(),
        TransactionId::Evm(Hash::ZERO),
        TransactionId::Bitcoin(Txid(*hash.as_bytes())),
    ];
    for transaction in others {
        let answer = Answer::Broadcast(Confirmation { transaction, ..right });
        refused!(broadcast(&mut paper, "olga", answer), Rejection::OtherTransaction { .. });
    }
    broadcast(&mut paper, "olga", Answer::Broadcast(right)).unwrap();
}

#[test]
fn step_asks_for_a_confirmation_or_a_reason_and_nothing_else() {
    let mut paper = ETHER.clone();
    for answer in [Answer::None, Answer::Agree, Answer::Disagree(line("no")), Answer::Words("no".into())] {
        refused!(broadcast(&mut paper, "olga", answer), Rejection::Answer { .. });
    }
    let confirmation = Answer::Broadcast(confirmed(&paper));
    broadcast(&mut paper, "olga", confirmation.clone()).unwrap();
    for answer in [confirmation, withheld()] {
        refused!(paper.sign("agree", "omar", Role::Operator, answer), Rejection::Answer { .. });
    }
}

#[test]
fn nobody_speaks_of_a_transaction_before_it_is_signed_or_in_another_role() {
    let mut paper = approved(ether(0));
    assert_eq!(paper.ceremony.transaction_id(), None);
    let id = confirmed(&ETHER);
    for answer in [Answer::Broadcast(id), withheld()] {
        refused!(broadcast(&mut paper, "olga", answer), Rejection::NotOpen { .. });
    }
    let mut paper = ETHER.clone();
    for (person, role) in [("wendy", Role::Witness), ("ada", Role::Administrator), ("arthur", Role::Auditor)]
    {
        refused!(paper.sign("broadcast", person, role, withheld()), Rejection::NotSignedBy { .. });
    }
    refused!(paper.sign("agree", "omar", Role::Operator, Answer::Agree), Rejection::NotOpen { .. });
    let [step, olga, wendy] = ["broadcast", "olga", "wendy"];
    let may = |paper: &Paper, person: &str| {
        let role = if person == wendy { Role::Witness } else { Role::Operator };
        paper.ceremony.may_sign(&step.parse().unwrap(), role, &person.parse().unwrap(), paper.now)
    };
    may(&paper, olga).unwrap();
    refused!(may(&paper, wendy), Rejection::NotSignedBy { .. });
    refused!(may(&approved(ether(0)), olga), Rejection::NotOpen { .. });
    paper.now = paper.ceremony.manifest().expires.plus(1);
    let mut late = approved(ether(0));
    late.now = paper.now;
    refused!(may(&late, olga), Rejection::Expired { .. });
    may(&paper, olga).unwrap();
    broadcast(&mut paper, olga, withheld()).unwrap();
    refused!(may(&paper, olga), Rejection::SignedAlready { .. });
}

#[test]
fn signature_over_another_block_height_or_reason_is_refused() {
    let mut paper = ETHER.clone();
    let right = confirmed(&paper);
    let answer = |confirmation| Answer::Broadcast(confirmation);
    let step = "broadcast".parse().unwrap();
    let signature = |paper: &Paper, answer: &Answer| {
        let text = paper.ceremony.statement(&step, Role::Operator, &"olga".parse().unwrap(), answer).unwrap();
        crate::cluster::ssh_sign("olga", ceremonies::statement::NAMESPACE, &text)
    };
    let made = signature(&paper, &answer(right));
    let others = [
        answer(Confirmation { height: 8, ..right }),
        answer(Confirmation { block: Hash::ZERO, ..right }),
        withheld(),
    ];
    for other in others {
        let refusal = paper.sign_with("broadcast", "olga", Role::Operator, other, made.clone());
        refused!(refusal, Rejection::Signature(_));
    }
}

#[test]
fn malformed_confirmations_are_no_entries() {
    let good = log::Confirmation {
        transaction: ETHER.ceremony.transaction_id().unwrap().to_string(),
        block: vec![1; 32],
        height: 7,
    };
    let read = |answer| {
        let signed = log::Signed {
            step: "broadcast".into(),
            role: "operator".into(),
            person: "olga".into(),
            answer: Some(answer),
            signature: vec![1],
        };
        ceremonies::log::Event::try_from(log::Event { kind: Some(Kind::Signed(signed)) })
    };
    let confirmed = |change: &dyn Fn(&mut log::Confirmation)| {
        let mut changed = good.clone();
        change(&mut changed);
        read(log::signed::Answer::Broadcast(changed))
    };
    confirmed(&|_| ()).unwrap();
    refused!(confirmed(&|c| c.block = vec![1; 31]), EntryError::Field(_));
    for text in ["", "0x", "0x12"] {
        assert!(confirmed(&|c| text.clone_into(&mut c.transaction)).is_err(), "{text}");
    }
    assert!(confirmed(&|c| c.transaction = c.transaction.to_uppercase()).is_err());
    for reason in [String::new(), " x".into(), "a\nrole: auditor".into(), "x".repeat(241)] {
        assert!(read(log::signed::Answer::Withheld(reason.clone())).is_err(), "{reason}");
    }
}

#[test]
fn script_of_a_transfer_needs_its_broadcast_between_signing_and_verdict() {
    let script = Script::builtin(CeremonyKind::Transfer).unwrap();
    let step = script.step_for(Act::Broadcast).unwrap();
    assert!(script.follows(step, Act::Sign));
    let paper = ETHER.clone();
    let state = paper.ceremony.step_state(step);
    assert_eq!(state, StepState::Open { waiting_for: "1 operator".into() });
    for (from, to) in [
        ("act = \"broadcast\"\nsigners = { operator = 1 }", "act = \"confirm\"\nsigners = { operator = 1 }"),
        ("needs = [\"broadcast\"]", "needs = [\"sign\"]"),
        ("signers = { operator = 1 }\nneeds = [\"sign\"]", "needs = [\"sign\"]"),
    ] {
        let changed = script.text().replacen(from, to, 1);
        assert_ne!(changed, script.text());
        assert!(Script::parse(changed.as_bytes()).is_err(), "{from}");
    }
}
