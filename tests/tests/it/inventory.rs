//! Paper and destroyed identities in the ledger of copies: what keeps an old generation dangerous, and what ends that.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::path::Path;
use std::sync::Arc;

use ceremonies::book::Exposure;
use ceremonies::charter::{CeremonyKind, Charter, Role};
use ceremonies::evidence::{Expected, verify};
use ceremonies::ids::{CeremonyId, Generation, Line, WalletName};
use ceremonies::inventory::{Change, Item};
use ceremonies::manifest::Origin;
use console::ledger::rows;
use console::room::{Topic, now};
use lab::drive::Room;
use lab::people::{self, LabPerson};

use crate::ceremonies::{PATIENCE, material, node, open, with_treasury};

fn treasury() -> WalletName {
    "treasury".parse().unwrap()
}

fn line(text: &str) -> Line {
    text.parse().unwrap()
}

async fn closes(room: &mut Room, id: &CeremonyId) {
    room.lead_to_close(id, PATIENCE, |_| ()).await.unwrap();
    let bundle = material(room, id).bundle().unwrap();
    assert!(verify(&bundle, &Expected::default()).unwrap().complete);
}

fn item(change: Change, by: u8, what: &str) -> Item {
    Item::Copy { node: node(by), change, what: line(what) }
}

fn identity(recipient: &str) -> Item {
    Item::IdentityDestroyed { recipient: line(recipient) }
}

/// An inventory of the generation that this key generation made.
fn inventory(room: &Room, dkg: &CeremonyId, items: Vec<Item>) -> Topic {
    let record = room.ceremony(dkg).unwrap().committed().unwrap().record.digest();
    let origin = Origin { ceremony: dkg.clone(), record };
    Topic::copies(treasury(), Generation::FIRST, origin, items)
}

async fn refuses(room: &Room, dkg: &CeremonyId, item: Item, why: &str) {
    let opened = room.open_about(inventory(room, dkg, vec![item]), line("What cannot be")).await;
    let refused = format!("{:#}", opened.unwrap_err());
    assert!(refused.contains(why), "{refused}");
}

async fn enters(room: &mut Room, dkg: &CeremonyId, items: Vec<Item>) -> CeremonyId {
    let id = room.open_about(inventory(room, dkg, items), line("What people have seen")).await.unwrap();
    closes(room, &id).await;
    id
}

/// The charter with a new identity for every keeper, who have them from now on.
fn renewed(room: &mut Room, folder: &Path) -> Arc<Charter> {
    std::fs::create_dir_all(folder).unwrap();
    let first = room.cluster.charter().clone();
    let keepers: Vec<LabPerson> = room
        .people(Role::Custodian)
        .map(|me| LabPerson { name: me.person.clone(), role: me.role, key: folder.join(me.person.as_str()) })
        .collect();
    let mut draft = first.draft();
    draft.amends = Some(first.hash());
    draft.backup = Some(people::keepers(&keepers, &first.roster()).unwrap());
    for keeper in keepers {
        let me = room.cluster.me.iter_mut().find(|me| me.person == keeper.name).unwrap();
        me.identity = Some(people::identity(&keeper));
    }
    Arc::new(Charter::parse(draft.to_toml().unwrap().as_bytes()).unwrap())
}

fn old(room: &Room) -> Exposure {
    let mut ledger = room.book.exposure(&treasury());
    assert_eq!(ledger.len(), 2);
    ledger.pop().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn old_sheets_and_locked_backups_are_warned_of_until_identities_and_sheets_are_destroyed() {
    let folder = tempfile::tempdir().unwrap();
    let (cluster, mut room, dkg) = with_treasury(folder.path()).await;
    let unaware = Room::enter(&cluster.layout().console(), PATIENCE).await.unwrap();
    let sheets = (1..=3).map(|by| item(Change::SheetPrinted, by, &format!("S-{by}"))).collect();
    enters(&mut room, &dkg, sheets).await;
    let twice = item(Change::SheetPrinted, 4, "S-1");
    refuses(&room, &dkg, twice.clone(), "another sheet of this wallet already has serial S-1").await;
    // A console that has not heard of it is refused by the nodes.
    refuses(&unaware, &dkg, twice, "another sheet of this wallet already has serial S-1").await;

    let before = room.cluster.charter().backup().unwrap().clone();
    let next = renewed(&mut room, &folder.path().join("renewed"));
    let amendment = room.open_about(Topic::charter(Arc::clone(&next)), line("New keys")).await.unwrap();
    closes(&mut room, &amendment).await;
    let refresh = open(&room, CeremonyKind::Refresh, "treasury").await;
    closes(&mut room, &refresh).await;
    assert!(old(&room).warns(now()) && old(&room).clears().is_none(), "paper does not clear by itself");

    let backup = room.ceremony(&dkg).unwrap().backups()[&node(4)].root.key.clone();
    refuses(&room, &dkg, item(Change::BackupDeleted, 4, backup.as_str()), "locked until").await;
    let in_use = &next.backup().unwrap().escrow.recipient;
    refuses(&room, &dkg, identity(in_use), "no backup of this generation").await;

    let burned = (1..=3).map(|by| item(Change::SheetDestroyed, by, &format!("S-{by}")));
    let custodians = before.custodians.iter().take(3).map(|custodian| identity(&custodian.recipient));
    enters(&mut room, &dkg, burned.chain(custodians).collect()).await;
    assert!(old(&room).warns(now()), "the escrow trustee opens the backups still");
    assert!(old(&room).clears().is_some(), "until their locks end");
    let last = enters(&mut room, &dkg, vec![identity(&before.escrow.recipient)]).await;
    assert!(!old(&room).warns(now()), "{:?}", old(&room));
    assert_eq!(old(&room).exposed(now()), [node(4), node(5)].into());

    let told = rows(&old(&room), now());
    let crossed: Vec<&str> = told.iter().filter(|row| row.crossed_out).map(|row| row.text.as_str()).collect();
    assert_eq!(crossed.len(), 9, "two backups and a sheet of three nodes: {crossed:?}");
    let ends =
        |start: &str, end: &str| crossed.iter().any(|text| text.starts_with(start) && text.ends_with(end));
    assert!(ends("x node 1 backup ", &format!(": destroyed in {last}")), "{crossed:?}");
    assert!(ends("x node 1 sheet S-1: destroyed in inventory-treasury-", ""), "{crossed:?}");
    cluster.stop().await;
}
