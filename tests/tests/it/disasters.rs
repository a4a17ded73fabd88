//! What is done when shares are in the wrong hands, or the firm is gone: each ends in a verified signature of the same
//! key, or in a swept wallet.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path as FilePath;
use std::process::Command;
use std::sync::Arc;

use bitcoinconsensus::{VERIFY_ALL_PRE_TAPROOT, verify_with_flags};
use ceremonies::chain::address::{
    BitcoinAddress, BitcoinNetwork, BitcoinRecipient, ChainId, EthereumAddress,
};
use ceremonies::chain::transaction::bitcoin::{Bitcoin, Input, Outpoint, Output, Txid};
use ceremonies::chain::transaction::evm::{Evm, MIN_GAS, Transfer};
use ceremonies::chain::transaction::{Sats, Transaction, Wei};
use ceremonies::charter::{CeremonyKind, Charter, Role};
use ceremonies::curve::{Path, derive};
use ceremonies::evidence::{Expected, verify};
use ceremonies::ids::{CeremonyId, Generation, Hash, UnixMillis, WalletName};
use ceremonies::manifest::Way;
use ceremonies::script::Act;
use ceremonies::statement::Answer;
use ceremonies::wallet::Record;
use console::config::Me;
use console::custodian;
use console::paper::{Gathering, codes};
use console::room::{self, Signature, Topic, now};
use console::tui::{Event, Model, Popup, Screen, update, view};
use console::waiting::Waiting;
use lab::cluster::Cluster;
use lab::drive::Room;
use lab::hardhat::{self, Hardhat};
use lab::people::{LabPerson, generate};
use lab::programs;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use serde_json::json;

use crate::ceremonies::{PATIENCE, material, node, open, plan, with_treasury};

fn wallet(name: &str) -> WalletName {
    name.parse().unwrap()
}

async fn closes(room: &mut Room, id: &CeremonyId) {
    room.lead_to_close(id, PATIENCE, |_| ()).await.unwrap();
    let bundle = material(room, id).bundle().unwrap();
    assert!(verify(&bundle, &Expected::default()).unwrap().complete);
}

fn lost(nodes: &[u8], way: Way) -> Topic {
    let nodes: BTreeMap<_, _> = nodes.iter().map(|index| (node(*index), way)).collect();
    Topic::losses(CeremonyKind::Recover, wallet("treasury"), nodes)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_exposed_shares_are_made_worthless_and_the_ledger_says_what_old_copies_remain() {
    let folder = tempfile::tempdir().unwrap();
    let (cluster, mut room, _) = with_treasury(folder.path()).await;
    let due = room.book.refresh_due(&wallet("treasury")).unwrap();
    assert!(due > now().plus(89 * 24 * 60 * 60 * 1000));

    // The suspect nodes are rebuilt; the others restore their shares, and all get new ones.
    for suspect in [2, 3] {
        cluster.lose(node(suspect)).await.unwrap();
    }
    let recovery =
        room.open_about(lost(&[2, 3], Way::Repair), "Two are suspect".parse().unwrap()).await.unwrap();
    closes(&mut room, &recovery).await;

    let ledger = room.book.exposure(&wallet("treasury"));
    assert_eq!(ledger.iter().map(|e| e.generation).collect::<Vec<_>>(), [Generation(2), Generation(1)]);
    let old = &ledger[1];
    assert!(
        !ledger[0].warns(now()) && old.warns(now()),
        "five locked backups of generation 1 rebuild the key"
    );
    let clears = old.clears().unwrap();
    assert!(!old.warns(clears) && old.warns(UnixMillis(clears.0 - 1)));
    cluster.stop().await;
}

/// The key that a record has at a path.
fn key(record: &Record, path: &Path) -> ceremonies::curve::Point {
    derive(&record.public_key, &record.chain_code, path).unwrap().public_key
}

async fn transfers(room: &mut Room, transaction: Transaction, signers: &[u8]) -> Vec<u8> {
    let signers = signers.iter().map(|index| node(*index)).collect();
    let topic = room::transfer(&room.book, wallet("treasury"), &transaction.encode(), signers).unwrap();
    let id = room.open_about(topic, "Everything to the new wallet".parse().unwrap()).await.unwrap();
    room.lead_to(&id, Act::Broadcast, PATIENCE).await.unwrap();
    the_terminal_leads_through_the_broadcast(room, &id);
    closes(room, &id).await;
    room.ceremony(&id).unwrap().signed_transaction().unwrap()
}

/// The key that signs a step names the command that sends, and takes the reason for not sending.
fn the_terminal_leads_through_the_broadcast(room: &Room, id: &CeremonyId) {
    let mut model = Model::new(room.cluster.clone(), now(), true);
    model.book = room.book.clone();
    (model.loaded, model.connected) = (true, true);
    (model.screen, model.open) = (Screen::Ceremonies, Some(id.clone()));
    let press = |model: &mut Model, code| {
        update(model, Event::Key(KeyEvent::new(code, KeyModifiers::NONE)));
    };
    press(&mut model, KeyCode::Char('s'));
    press(&mut model, KeyCode::Enter);
    let mut terminal = Terminal::new(TestBackend::new(100, 30)).unwrap();
    terminal
        .draw(|frame| {
            view(&model, frame);
        })
        .unwrap();
    let drawn = terminal.backend().to_string();
    assert!(drawn.contains(&format!("custody broadcast {id}")) && drawn.contains("--endpoint"), "{drawn}");
    update(&mut model, Event::Paste("The trustee sends it".to_owned()));
    press(&mut model, KeyCode::Enter);
    let Some(Popup::Review(review)) = &model.popup else { panic!("{}", model.message) };
    assert!(review.statement.contains("broadcast: not from here, because: The trustee sends it\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_three_exposed_shares_everything_is_swept_to_a_new_wallet() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(&plan(folder.path(), 5, 3)).await.unwrap();
    let mut room = Room::enter(&cluster.layout().console(), PATIENCE).await.unwrap();
    for name in ["treasury", "treasury-2"] {
        let dkg = open(&room, CeremonyKind::Dkg, name).await;
        closes(&mut room, &dkg).await;
    }
    // Two nodes are gone for good; the rest sign.
    for gone in [1, 4] {
        cluster.agent(node(gone)).unwrap().hold().await;
    }
    let record = |name: &str| room.book.wallet(&wallet(name)).unwrap().record;
    let (old, new) = (record("treasury"), record("treasury-2"));
    sweeps_bitcoin(&mut room, &old, &new).await;
    sweeps_ether(&mut room, &cluster.layout().console(), &old, &new).await;
    cluster.stop().await;
}

async fn sweeps_bitcoin(room: &mut Room, old: &Record, new: &Record) {
    let network = BitcoinNetwork::Regtest;
    let paths: [Path; 2] = ["m".parse().unwrap(), "m/0/7".parse().unwrap()];
    let inputs: Vec<Input> = (1u8..)
        .zip(&paths)
        .map(|(byte, path)| Input {
            outpoint: Outpoint { txid: Txid([byte; 32]), index: 0 },
            amount: Sats(50_000),
            address: BitcoinAddress::of(network, &key(old, path)),
            path: path.clone(),
        })
        .collect();
    let output =
        Output { amount: Sats(99_000), address: BitcoinAddress::of(network, &key(new, &paths[0])).into() };
    let transaction = Bitcoin::new(network, inputs.clone(), vec![output]).unwrap();
    let signed = transfers(room, Transaction::Bitcoin(transaction), &[2, 3, 5]).await;
    for (place, input) in inputs.iter().enumerate() {
        let script = BitcoinRecipient::from(input.address).script();
        verify_with_flags(&script, input.amount.0, &signed, None, place, VERIFY_ALL_PRE_TAPROOT).unwrap();
    }
}

async fn sweeps_ether(room: &mut Room, console: &FilePath, old: &Record, new: &Record) {
    let installed = match hardhat::installed(&programs::target().unwrap()) {
        Ok(installed) => installed,
        Err(missing) => {
            assert!(std::env::var_os("CI").is_none(), "CI must not skip this: {missing:#}");
            eprintln!("SKIPPED: with_three_exposed_shares_everything_is_swept_to_a_new_wallet: {missing:#}");
            return;
        }
    };
    let chain = Hardhat::start(&installed).await.unwrap();
    let path: Path = "m/0/1".parse().unwrap();
    let (from, to) =
        (EthereumAddress::of(&key(old, &path)).unwrap(), EthereumAddress::of(&key(new, &path)).unwrap());
    chain.call("hardhat_setBalance", json!([from.to_string(), "0xde0b6b3a7640000"])).await.unwrap();
    let (max_fee, gas_limit) = (Wei(10_000_000_000), MIN_GAS);
    let value = Wei(1_000_000_000_000_000_000 - max_fee.0 * u128::from(gas_limit));
    let id = ChainId::new(hardhat::CHAIN).unwrap();
    let transfer =
        Transfer { chain: id, nonce: 0, max_priority_fee: Wei(1_000_000_000), max_fee, gas_limit, to, value };
    let transaction = Transaction::Evm(Evm::new(path, transfer).unwrap());
    sends(room, console, &chain, transaction).await;
    let balance = chain.call("eth_getBalance", json!([to.to_string(), "latest"])).await.unwrap();
    assert_eq!(balance, format!("{:#x}", value.0));
}

/// An operator sends what a transfer has signed with `custody broadcast`, after it was refused elsewhere.
async fn sends(room: &mut Room, console: &FilePath, chain: &Hardhat, transaction: Transaction) {
    let signers = [2, 3, 5].map(node).to_vec();
    let topic = room::transfer(&room.book, wallet("treasury"), &transaction.encode(), signers).unwrap();
    let id = room.open_about(topic, "Everything to the new wallet".parse().unwrap()).await.unwrap();
    let broadcast = |arguments: &[&str]| {
        let mut custody = Command::new(programs::folder().unwrap().join("custody"));
        custody.arg("--cluster").arg(console).args(["broadcast", id.as_str(), "--endpoint"]).arg(chain.url());
        let output = custody.args(arguments).output().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    let head = chain.call("eth_blockNumber", json!([])).await.unwrap();
    let (early, why) = broadcast(&["--person", "operator-1"]);
    assert!(!early && why.contains("must be done first"), "{why}");
    room.lead_to(&id, Act::Broadcast, PATIENCE).await.unwrap();
    let (witness, why) = broadcast(&["--person", "witness-1", "--role", "witness"]);
    assert!(!witness && why.contains("the role witness does not sign step"), "{why}");
    assert_eq!(chain.call("eth_blockNumber", json!([])).await.unwrap(), head, "what is refused is not sent");

    let (unread, why) = broadcast(&["--person", "operator-1"]);
    assert!(!unread && why.contains("there is no terminal"), "{why}");
    assert_eq!(
        chain.call("eth_blockNumber", json!([])).await.unwrap(),
        head,
        "what nobody can sign is not sent"
    );
    let (sent, told) = broadcast(&["--person", "operator-1", "--unsigned"]);
    assert!(sent && told.contains("custody ceremony submit"), "{told}");
    signs_what_became_of_it(&told, console, &id);
    let (again, why) = broadcast(&["--person", "operator-1", "--unsigned"]);
    assert!(!again && why.contains("already signed"), "{why}");
    closes(room, &id).await;
    let said = room.ceremony(&id).unwrap().transaction_id().unwrap();
    let report = verify(&material(room, &id).bundle().unwrap(), &Expected::default()).unwrap().to_string();
    let receipt = chain.call("eth_getTransactionReceipt", json!([said.to_string()])).await.unwrap();
    let [height, block] = ["blockNumber", "blockHash"].map(|name| receipt[name].as_str().unwrap());
    let height = u64::from_str_radix(height.trim_start_matches("0x"), 16).unwrap();
    let expected = format!("operator-1 says: transaction {said} is in block {height}, {block}");
    assert!(report.contains(&expected), "{report}");
}

/// A program reads the statement about the block that was found, and signs it.
fn signs_what_became_of_it(told: &str, console: &FilePath, id: &CeremonyId) {
    let submit = told.lines().find_map(|line| line.strip_prefix("submit it with: custody ")).unwrap();
    let arguments: Vec<&str> = submit.split(" --signature").next().unwrap().split(' ').skip(2).collect();
    assert_eq!(arguments[0], id.as_str());
    let custody = |what: &str, more: &[&str]| {
        let mut custody = Command::new(programs::folder().unwrap().join("custody"));
        custody.arg("--cluster").arg(console).args(["ceremony", what]).args(&arguments).args(more);
        let output = custody.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let statement = custody("statement", &[]);
    assert!(statement.contains("in block: 0x"), "{statement}");
    let hash = Hash::of_bytes(statement.as_bytes()).to_string();
    let said = custody("sign", &["--statement-hash", &hash]);
    // Two nodes are gone in this disaster.
    assert!(said.contains("held by 3 of 5 (nodes 1, 4 silent)"), "{said}");
}

/// The trustee's own people in every role that a quorum asks for; custodians and escrow trustee stay.
fn trustees(first: &Charter, folder: &FilePath) -> (Arc<Charter>, Vec<Me>) {
    std::fs::create_dir_all(folder).unwrap();
    let names = ["administrator-1", "operator-1", "operator-2", "operator-3", "witness-1", "auditor-1"];
    let people: Vec<LabPerson> = names
        .iter()
        .map(|name| LabPerson {
            name: format!("trustee-{name}").parse().unwrap(),
            role: name.split('-').next().unwrap().parse().unwrap(),
            key: folder.join(name),
        })
        .collect();
    let mut draft = first.draft();
    draft.amends = Some(first.hash());
    draft.people.retain(|person| person.roles == BTreeSet::from([Role::Custodian]));
    draft.people.extend(generate(&people).unwrap());
    let me =
        |person: LabPerson| Me { person: person.name, role: person.role, key: person.key, identity: None };
    let charter = Charter::parse(draft.to_toml().unwrap().as_bytes()).unwrap();
    (Arc::new(charter), people.into_iter().map(me).collect())
}

/// A sheet of paper as a scanner types it: the codes in another order, one of them twice.
fn through_paper(file: &[u8]) -> Vec<u8> {
    let mut typed = codes(file).unwrap();
    typed.reverse();
    typed.push(typed[0].clone());
    let mut gathering = Gathering::default();
    for line in &typed {
        gathering.take_line(line).unwrap();
    }
    gathering.finish().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trustee_recovers_a_dissolved_firms_wallet_from_paper() {
    let folder = tempfile::tempdir().unwrap();
    let (cluster, mut room, _) = with_treasury(folder.path()).await;
    let before = room.book.wallet(&wallet("treasury")).unwrap().record;

    // The firm's people hand over by their quorum; from then on only the trustee's people count.
    let (next, people) = trustees(room.cluster.charter(), &folder.path().join("trustee"));
    let amendment = room
        .open_about(Topic::charter(Arc::clone(&next)), "By order of the court".parse().unwrap())
        .await
        .unwrap();
    closes(&mut room, &amendment).await;
    let old = room.cluster.me.clone();
    let custodians: Vec<Me> = old.iter().filter(|me| me.role == Role::Custodian).cloned().collect();
    let refused = room
        .open_about(Topic::of(CeremonyKind::TestSign, wallet("treasury")), "As before".parse().unwrap())
        .await;
    assert!(
        format!("{:#}", refused.unwrap_err()).contains("is not an administrator of the charter in force")
    );
    room.cluster.me = people.into_iter().chain(custodians.clone()).collect();

    for index in 1..=5 {
        cluster.lose(node(index)).await.unwrap();
    }
    let id = room
        .open_about(lost(&[1, 2, 3, 4, 5], Way::Backup), "All that is left is paper".parse().unwrap())
        .await
        .unwrap();
    room.lead_to(&id, Act::Recover, PATIENCE).await.unwrap();
    // The escrow trustee opens every node's sheet.
    let escrow = &next.backup().unwrap().escrow.person;
    let me = custodians.iter().find(|me| me.person == *escrow).unwrap();
    for index in 1..=5 {
        releases_sheet(&mut room, &id, index, me, folder.path()).await;
    }
    closes(&mut room, &id).await;
    let test = open(&room, CeremonyKind::TestSign, "treasury").await;
    closes(&mut room, &test).await;
    assert_eq!(room.book.wallet(&wallet("treasury")).unwrap().record.public_key, before.public_key);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_sheets_of_paper_bring_a_wallet_back_through_one_enclave() {
    let folder = tempfile::tempdir().unwrap();
    let (cluster, mut room, _) = with_treasury(folder.path()).await;
    let before = room.book.wallet(&wallet("treasury")).unwrap().record;
    for index in 1..=5 {
        cluster.lose(node(index)).await.unwrap();
    }
    let sheets = [1, 3, 4];
    let way = |index| if sheets.contains(&index) { Way::Backup } else { Way::Repair };
    let all: BTreeMap<_, _> = (1..=5).map(|index| (node(index), way(index))).collect();
    let purpose = || "Three sheets are left".parse().unwrap();
    let recovery = Topic::losses(CeremonyKind::Recover, wallet("treasury"), all.clone());
    let id = room.open_about(recovery, purpose()).await.unwrap();
    room.lead_to(&id, Act::Recover, PATIENCE).await.unwrap();
    let escrow = room.cluster.charter().backup().unwrap().escrow.person.clone();
    let me = room.cluster.me.iter().find(|me| me.person == escrow).unwrap().clone();
    let refused = try_sheet(&mut room, &id, 1, &me, folder.path()).await.unwrap_err();
    assert!(refused.contains("open a rebuild"), "{refused}");
    room.withdraw(&id, "Paper cannot repair".parse().unwrap()).await.unwrap();

    let id = room
        .open_about(Topic::losses(CeremonyKind::Rebuild, wallet("treasury"), all), purpose())
        .await
        .unwrap();
    room.lead_to(&id, Act::Recover, PATIENCE).await.unwrap();
    for index in sheets {
        releases_sheet(&mut room, &id, index, &me, folder.path()).await;
    }
    closes(&mut room, &id).await;
    let test = open(&room, CeremonyKind::TestSign, "treasury").await;
    closes(&mut room, &test).await;
    let after = room.book.wallet(&wallet("treasury")).unwrap().record;
    assert_eq!((after.public_key, after.generation), (before.public_key, Generation(2)));
    assert!(room.book.exposure(&wallet("treasury"))[1].warns(now()), "the sheets still rebuild the key");
    cluster.stop().await;
}

async fn releases_sheet(room: &mut Room, id: &CeremonyId, index: u8, me: &Me, folder: &FilePath) {
    try_sheet(room, id, index, me, folder).await.unwrap();
}

async fn try_sheet(
    room: &mut Room,
    id: &CeremonyId,
    index: u8,
    me: &Me,
    folder: &FilePath,
) -> Result<(), String> {
    let ceremony = room.ceremony(id).unwrap();
    let small = &ceremony.wanted_backup(Act::Recover, node(index)).unwrap().root;
    let file = std::fs::read(room.cluster.backups.as_ref().unwrap().join(small.key.as_str())).unwrap();
    let sheet = folder.join(format!("sheet-{index}"));
    std::fs::write(&sheet, through_paper(&file)).unwrap();
    let identity = me.identity.as_ref().unwrap();
    let released =
        custodian::release(ceremony, Act::Recover, node(index), &sheet, identity, Waiting::quiet()).unwrap();
    let signature = Signature::by(me, "recover".parse().unwrap(), Answer::Release(released.release));
    let signed = (&signature, released.object);
    let released = room::release(&room.client, &room.book, id, signed, &me.key, None).await;
    released.map_err(|error| error.to_string())?;
    room.look(id).await.unwrap();
    Ok(())
}
