//! What must not look finished, at a wallet whose key is disputed, whose shares were refreshed twice since, and whose
//! transaction was signed and not sent.

use ceremonies::ceremony::Ceremony;
use ceremonies::chain::address::{BitcoinAddress, BitcoinNetwork, ChainId, EthereumAddress};
use ceremonies::chain::transaction::bitcoin::{Bitcoin, Input, Outpoint, Output, Txid};
use ceremonies::chain::transaction::evm::{Evm, Transfer};
use ceremonies::chain::transaction::{Sats, Transaction, Wei};
use ceremonies::charter::CeremonyKind;
use ceremonies::curve::derive;
use ceremonies::script::Act;
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
    let sending = ceremony(&model, CeremonyKind::Transfer).script().step_for(Act::Broadcast).unwrap();
    assert!(screen.contains(&format!("! {}", sending.title)), "{screen}");
    assert!(!screen.contains(&format!("✓ {}", sending.title)) && screen.contains("✓ "), "{screen}");
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
fn past_generations_whose_copies_rebuild_a_key_are_named_in_their_order() {
    let mut model = withheld();
    model.screen = Screen::Wallets;
    let screen = drawn(&model, 160, 50);
    assert!(screen.contains("! copies of generations 1 and 2 can rebuild the key"), "{screen}");
    let place = |generation: &str| screen.find(generation).unwrap();
    assert!(place("generation 1: copies") < place("generation 2: copies"), "{screen}");
    assert!(place("generation 2: copies") < place("generation 3, in use: copies"), "{screen}");
}

#[test]
fn transaction_that_was_signed_before_is_refused_with_its_ceremony_and_another_is_not() {
    let model = withheld();
    let transfer = ceremony(&model, CeremonyKind::Transfer).manifest();
    let carried: &Transaction = transfer.transaction().unwrap();
    let refused = refusal(&model, carried).unwrap();
    assert!(matches!(&refused, RoomError::SignedBefore(id) if *id == transfer.ceremony), "{refused}");
    let said = refused.to_string();
    let sent = format!("`custody broadcast {}`", transfer.ceremony);
    for words in ["carries this very transaction", "take that ceremony to its end", &sent] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let Transaction::Evm(evm) = carried else { unreachable!("the recorded one is of an EVM chain") };
    let next = Transfer { nonce: evm.transfer().nonce + 1, ..*evm.transfer() };
    let next = Evm::new(evm.path().clone(), next).unwrap();
    assert!(refusal(&model, &Transaction::Evm(next)).is_none());
}

#[test]
fn transfer_that_pays_nobody_but_its_own_wallet_is_refused_whichever_of_its_addresses_it_names() {
    let model = withheld();
    let record = model.book.wallets().into_values().next().unwrap().record;
    let key = |path: &str| {
        derive(&record.public_key, &record.chain_code, &path.parse().unwrap()).unwrap().public_key
    };
    let ether = |path: &str, to: EthereumAddress| {
        let Some(Transaction::Evm(evm)) = ceremony(&model, CeremonyKind::Transfer)
            .manifest()
            .transaction()
            .map(|carried| Transaction::clone(carried))
        else {
            unreachable!("the recorded one is of an EVM chain")
        };
        let transfer = Transfer { nonce: 9, to, ..*evm.transfer() };
        Transaction::Evm(Evm::new(path.parse().unwrap(), transfer).unwrap())
    };
    let own = |path: &str| EthereumAddress::of(&key(path)).unwrap();
    for (path, to) in [("m", "m"), ("m/0/7", "m/0/7"), ("m/0/7", "m")] {
        let refused = refusal(&model, &ether(path, own(to))).unwrap();
        assert!(matches!(refused, RoomError::PaysItself { .. }), "{refused}");
        let said = refused.to_string();
        assert!(said.contains(&own(to).to_string()) && said.contains("nothing would leave it"), "{said}");
    }
    assert!(refusal(&model, &ether("m", EthereumAddress::from([7; 20]))).is_none());

    let network = BitcoinNetwork::Regtest;
    let address = |path: &str| BitcoinAddress::of(network, &key(path));
    let paying = |outputs: &[BitcoinAddress]| {
        let input = |byte: u8, path: &str| Input {
            outpoint: Outpoint { txid: Txid([byte; 32]), index: 0 },
            amount: Sats(50_000),
            address: address(path),
            path: path.parse().unwrap(),
        };
        let amount = Sats(99_000 / u64::try_from(outputs.len()).unwrap());
        let outputs = outputs.iter().map(|address| Output { amount, address: (*address).into() });
        let inputs = vec![input(1, "m"), input(2, "m/0/7")];
        Transaction::Bitcoin(Bitcoin::new(network, inputs, outputs.collect()).unwrap())
    };
    let stranger = BitcoinAddress::new(network, [9; 20]);
    for own in [vec![address("m")], vec![address("m/0/7"), address("m")]] {
        assert!(matches!(refusal(&model, &paying(&own)), Some(RoomError::PaysItself { .. })), "{own:?}");
    }
    for others in [vec![stranger], vec![address("m"), stranger]] {
        assert!(refusal(&model, &paying(&others)).is_none(), "change may come back: {others:?}");
    }
}

/// The recorded transaction with these changes.
fn like_the_recorded(model: &Model, change: impl Fn(&mut Transfer), path: &str) -> Transaction {
    let carried = ceremony(model, CeremonyKind::Transfer).manifest().transaction().unwrap();
    let Transaction::Evm(evm) = carried.as_ref() else { unreachable!("the recorded one is of an EVM chain") };
    let mut transfer = *evm.transfer();
    change(&mut transfer);
    Transaction::Evm(Evm::new(path.parse().unwrap(), transfer).unwrap())
}

#[test]
fn transaction_with_the_nonce_of_another_is_told_that_only_one_of_both_can_be_carried_out() {
    let model = withheld();
    let transfer = ceremony(&model, CeremonyKind::Transfer);
    let Transaction::Evm(recorded) = transfer.manifest().transaction().unwrap().as_ref() else {
        unreachable!("the recorded one is of an EVM chain")
    };
    let (nonce, path) = (recorded.transfer().nonce, recorded.path().to_string());
    let rivals = |wallet: &str, transaction: &Transaction| -> Vec<String> {
        let rivals = room::rivals(&model.book, &wallet.parse().unwrap(), transaction, model.now);
        rivals.iter().map(ToString::to_string).collect()
    };
    let dearer = like_the_recorded(&model, |transfer| transfer.max_fee = Wei(transfer.max_fee.0 + 1), &path);
    let said = format!(
        "same nonce {nonce} as transfer {}; only one of the two can be carried out",
        transfer.manifest().ceremony
    );
    assert_eq!(rivals("treasury", &dearer), [said], "it was not sent, and anybody who has it may send it");
    for (what, wallet, other) in [
        ("itself", "treasury", like_the_recorded(&model, |_| (), &path)),
        ("the next nonce", "treasury", like_the_recorded(&model, |transfer| transfer.nonce += 1, &path)),
        ("another account", "treasury", like_the_recorded(&model, |_| (), "m/0/7")),
        (
            "another chain",
            "treasury",
            like_the_recorded(&model, |transfer| transfer.chain = ChainId::new(424_242).unwrap(), &path),
        ),
        ("another wallet", "ops", dearer),
    ] {
        assert!(rivals(wallet, &other).is_empty(), "{what}");
    }
}

#[test]
fn file_that_is_not_a_transaction_is_refused_with_what_it_is() {
    let model = withheld();
    let refused = |bytes: &[u8]| {
        let refused =
            room::transfer(&model.book, "treasury".parse().unwrap(), bytes, Vec::new()).unwrap_err();
        ceremonies::text::chain(&refused)
    };
    let manifest = ceremony(&model, CeremonyKind::Transfer).manifest();
    let raw = like_the_recorded(&model, |_| (), "m");
    let Transaction::Evm(evm) = &raw else { unreachable!("made of an EVM chain") };
    for (bytes, seems) in [
        (b"Custody ceremony statement\nstep: open\n".as_slice(), "text"),
        (b"C", "a transaction or hash in hexadecimal digits"),
        (b"0x02f86c0180\n", "a transaction or hash in hexadecimal digits"),
        (b" {\"to\": 1}", "JSON"),
        (b"-----BEGIN SSH SIGNATURE-----\n", "a key, signature or certificate"),
        (b"", "empty"),
        (b"PK\x03\x04", "a zip archive, such as an evidence bundle"),
        (manifest.as_bytes(), "the manifest of a ceremony"),
        (&evm.unsigned(), "the bare bytes of an Ethereum transaction"),
    ] {
        let said = refused(bytes);
        assert!(said.contains(&format!("it seems to be {seems}; give the file that")), "{seems}: {said}");
        assert!(!said.contains("kind"), "{said}");
    }
    assert!(refused(&[9, 0, 0xff]).contains("of kind 9; use 1 (Ethereum) or 2 (Bitcoin)"));
    assert!(refused(&vec![b'x'; 17_000]).contains("at most 16384 are read"));
}

#[test]
fn address_and_key_are_whole_on_a_line_of_the_narrowest_usual_terminal() {
    let mut model = withheld();
    let transfer = ceremony(&model, CeremonyKind::Transfer);
    let Transaction::Evm(evm) = transfer.manifest().transaction().unwrap().as_ref() else {
        unreachable!("the recorded one is of an EVM chain")
    };
    let (id, paid) = (transfer.manifest().ceremony.clone(), evm.transfer().to.to_string());
    let mut finished = crate::model(56);
    finished.screen = Screen::Wallets;
    let key = finished.book.wallets().into_values().next().unwrap().record.public_key.to_string();
    for width in [80, 100, 160] {
        let wallets = drawn(&finished, width, 50);
        assert!(wallets.contains(&key), "{key} in {width}:\n{wallets}");
    }
    model.screen = Screen::Ceremonies;
    model.open = Some(id);
    for width in [80, 100, 160] {
        let screen = drawn(&model, width, 60);
        assert!(screen.contains(&paid), "{paid} in {width}:\n{screen}");
    }
}
