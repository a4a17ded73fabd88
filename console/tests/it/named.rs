//! Whoever names what does not exist is told what there is.

use std::collections::BTreeMap;
use std::process::Command;

use ceremonies::charter::CeremonyKind;
use ceremonies::ids::NodeIndex;
use ceremonies::manifest::Way;
use console::room::{self, Opening, RoomError, Topic};

use crate::{model, nodes};

const NO_NODE_9: &str = "there is no node 9 in this wallet: there are nodes 1, 2, 3, 4 and 5";

fn refused(topic: Topic) -> RoomError {
    let opening = Opening {
        topic,
        purpose: "A test".parse().unwrap(),
        administrator: "administrator-1".parse().unwrap(),
        lifetime_ms: room::LIFETIME_MS,
    };
    room::prepare(&model(56).book, &opening).unwrap_err()
}

#[test]
fn wallet_that_does_not_exist_is_answered_with_those_that_do() {
    let wallet = || "ops".parse().unwrap();
    for topic in [Topic::of(CeremonyKind::TestSign, wallet()), Topic::of(CeremonyKind::Refresh, wallet())] {
        let said = refused(topic).to_string();
        assert_eq!(said, "wallet `ops` is not committed: there is wallet treasury");
    }
    let none = room::wallet(&model(0).book, &wallet()).unwrap_err().to_string();
    assert_eq!(none, "wallet `ops` is not committed: there is no wallet yet");
    assert!(room::wallet(&model(56).book, &"treasury".parse().unwrap()).is_ok());
}

#[test]
fn lost_node_that_does_not_exist_is_answered_with_those_that_do() {
    let lost: BTreeMap<NodeIndex, Way> = [(NodeIndex::new(9).unwrap(), Way::Backup)].into();
    let treasury = || "treasury".parse().unwrap();
    for topic in [
        Topic::losses(CeremonyKind::Recover, treasury(), lost.clone()),
        Topic::losses(CeremonyKind::Rebuild, treasury(), lost),
    ] {
        assert_eq!(refused(topic).to_string(), NO_NODE_9);
    }
}

#[test]
fn node_is_looked_for_where_it_was_said_to_be() {
    let some = nodes(&[1, 3]);
    assert!(room::must_be_among(some[1], &some, "the charter").is_ok());
    for (known, there_are) in [
        (&some[..], "there are nodes 1 and 3"),
        (&some[..1], "there is node 1"),
        (&[], "there is no node yet"),
    ] {
        let said = room::must_be_among(nodes(&[2])[0], known, "the charter").unwrap_err().to_string();
        assert_eq!(said, format!("there is no node 2 in the charter: {there_are}"));
    }
}

#[test]
fn signers_are_chosen_for_a_transfer_alone_and_others_are_told_what_they_are_for() {
    let signers = nodes(&[1, 2, 3]);
    for kind in CeremonyKind::ALL {
        assert!(room::must_choose_no_signers(kind, &[]).is_ok(), "{kind}");
        let chosen = room::must_choose_no_signers(kind, &signers);
        assert_eq!(chosen.is_ok(), kind == CeremonyKind::Transfer, "{kind}");
    }
    let said = room::must_choose_no_signers(CeremonyKind::TestSign, &signers).unwrap_err().to_string();
    assert!(said.contains("of kind test-sign takes none: it tests every set of nodes"), "{said}");
}

#[test]
fn what_is_not_a_node_is_said_with_what_to_write() {
    for (text, why) in [
        ("abc", "`abc` is not a node: write its number, from 1 to 255"),
        ("0", "`0` is not a node"),
        ("256", "`256` is not a node"),
        ("-1", "`-1` is not a node"),
        ("", "`` is not a node"),
    ] {
        let said = text.parse::<NodeIndex>().unwrap_err().to_string();
        assert!(said.contains(why), "{said}");
    }
    let refused = Command::new(env!("CARGO_BIN_EXE_custody"))
        .args(["backup", "prove", "dkg-treasury-1", "--node", "abc"])
        .env_remove("CUSTODY_CLUSTER")
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let complaint = String::from_utf8(refused.stderr).unwrap();
    assert!(complaint.contains("`abc` is not a node: write its number"), "{complaint}");
}
