//! What must not look finished, at a wallet whose key is disputed, whose shares were refreshed twice since, and whose
//! transaction was signed and not sent.

use ceremonies::ceremony::Ceremony;
use ceremonies::charter::CeremonyKind;
use ceremonies::transaction::Transaction;
use ceremonies::transaction::evm::{Evm, Transfer};
use console::readiness::readiness;
use console::room::{self, RoomError};
use console::standing;
use console::tui::{Model, Screen};

use crate::screens::{drawn, of_bundle};

const DISPUTED: &str = "DISPUTED, do not fund it";

fn withheld() -> Model {
    let mut model = of_bundle("withheld");
    model.open = None;
    model
}

/// Why no ceremony of the wallet's is opened with a transaction.
fn refusal(model: &Model, transaction: &Transaction) -> Option<RoomError> {
    room::transfer(&model.book, "treasury".parse().unwrap(), &transaction.encode(), Vec::new()).err()
}

fn ceremony(model: &Model, kind: CeremonyKind) -> &Ceremony {
    let mut all = model.book.iter().map(|(_, chapter)| &chapter.ceremony);
    all.find(|ceremony| ceremony.manifest().kind == kind).unwrap()
}

#[test]
fn transaction_that_was_not_sent_is_marked_in_the_list_and_on_its_own_screen() {
    let mut model = withheld();
    let transfer = ceremony(&model, CeremonyKind::Transfer).manifest().ceremony.clone();
    let said = ["olga as operator: The trustee sends it".to_owned()];
    assert_eq!(standing::withheld(ceremony(&model, CeremonyKind::Transfer)), said);
    model.screen = Screen::Ceremonies;
    for (width, height) in [(80, 24), (160, 50)] {
        let list = drawn(&model, width, height);
        let marked: Vec<&str> = list.lines().filter(|line| line.contains("closed NOT SENT")).collect();
        assert!(matches!(marked[..], [line] if line.contains(transfer.as_str())), "{list}");
    }
    model.open = Some(transfer);
    let screen = drawn(&model, 160, 50);
    assert!(screen.contains("! NOT SENT from here, says olga as operator: The trustee sends it"), "{screen}");
    model.open = Some(ceremony(&model, CeremonyKind::Refresh).manifest().ceremony.clone());
    assert!(!drawn(&model, 160, 50).contains("NOT SENT"));
}

#[test]
fn key_that_is_disputed_stays_marked_after_a_refresh_that_nobody_disputes_in_the_same_words_everywhere() {
    let mut model = withheld();
    assert!(standing::disputes(ceremony(&model, CeremonyKind::Refresh)).is_empty());
    let wallet = model.book.wallets().into_values().next().unwrap();
    assert_eq!(wallet.record.generation.0, 3);
    let made = ceremony(&model, CeremonyKind::Dkg).manifest().ceremony.clone();
    let why = standing::unfinished(&model.book, &wallet.record, model.now).unwrap().to_string();
    assert!(why.starts_with(&format!("{DISPUTED}: its key was made in {made}: arthur as auditor")), "{why}");
    let status = readiness(&model.book, &[], model.now)[0].text();
    assert!(status.ends_with(&format!("; {DISPUTED} (see the wallet)")), "{status}");
    for (screen, width) in [(Screen::Cluster, 160), (Screen::Wallets, 80), (Screen::Wallets, 160)] {
        model.screen = screen;
        model.loaded = true;
        let drawn = drawn(&model, width, 50);
        assert!(drawn.contains(DISPUTED) && !drawn.contains("NOT FINISHED"), "{drawn}");
    }
}

#[test]
fn transaction_that_was_signed_before_is_refused_with_its_ceremony_and_another_is_not() {
    let model = withheld();
    let transfer = ceremony(&model, CeremonyKind::Transfer).manifest();
    let carried = transfer.transaction.as_deref().unwrap();
    let refused = refusal(&model, carried).unwrap();
    assert!(matches!(&refused, RoomError::SignedBefore(id) if *id == transfer.ceremony), "{refused}");
    assert!(refused.to_string().contains(transfer.ceremony.as_str()), "{refused}");
    let Transaction::Evm(evm) = carried else { unreachable!("the recorded one is of an EVM chain") };
    let next = Transfer { nonce: evm.transfer().nonce + 1, ..*evm.transfer() };
    let next = Evm::new(evm.path().clone(), next).unwrap();
    assert!(refusal(&model, &Transaction::Evm(next)).is_none());
}
