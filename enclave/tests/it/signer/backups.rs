//! Backups: written of the very share that is due, opened only as they were released, and as often as it is ordered.

use std::sync::{Arc, LazyLock};

use ceremonies::curve::Point;
use ceremonies::ids::Hash;
use ceremonies::manifest::Way;
use ceremonies::wallet::{Record, backed_up_message, release_info};
use ceremonies::wire::log::event::Kind;
use enclave::signer::{Effect, Input, News, OrderId, Work};
use enclave_link::message::from_enclave;

use super::desk::{Desk, Effects, OWN, Share, authorised, begun, opened, refused, said, undone};
use crate::cluster::{BACKED, context_of, node};
use crate::kit::Paper;

/// The custodian of the backups of the node at the desk.
const KEEPER: &str = "cora";

/// A key generation whose backups are due.
static DUE: LazyLock<Paper> = LazyLock::new(|| {
    let mut paper = authorised(Paper::dkg_under(context_of(&BACKED)));
    paper.prepare_all();
    paper.adopt_all();
    paper.read_words_back();
    paper.test_sign_all();
    paper
});

/// The same with its backups written.
static WRITTEN: LazyLock<Paper> = LazyLock::new(|| {
    let mut paper = DUE.clone();
    paper.back_up_all();
    paper
});

/// The same with the backup of the node at the desk released to it.
static RELEASED: LazyLock<Paper> = LazyLock::new(|| {
    let mut paper = WRITTEN.clone();
    paper.release("prove", KEEPER, OWN, paper.written(OWN)).unwrap();
    paper
});

/// A recovery of the share of the node at the desk, whose backup is released to it.
static RECOVERY: LazyLock<Paper> = LazyLock::new(|| {
    let closed = Paper::backed_up();
    let mut paper = authorised(closed.recover(&[(OWN, Way::Backup)]));
    paper.release("recover", KEEPER, OWN, closed.written(OWN)).unwrap();
    paper
});

/// The bytes of which backups on paper have the digest.
fn file(paper: &Paper) -> Vec<u8> {
    let made = paper.origins.first().unwrap_or(&paper.log);
    format!("{}/{OWN}/whole", made[0].ceremony).into_bytes()
}

fn start_with(desk: &mut Desk, paper: &Paper, backup: Vec<u8>) -> Effects {
    let mut order = desk.order(paper);
    order.backup = backup;
    desk.feed(Input::Start(Box::new(order)), paper)
}

/// The work on a released backup: to prove it, or to restore from it.
fn released(effects: &Effects, restores: bool) -> (OrderId, &enclave::signer::Released) {
    match effects.as_slice() {
        [Effect::Work(id, work)] => match &**work {
            Work::Prove(released) if !restores => (*id, released),
            Work::Restore(released) if restores => (*id, released),
            Work::Prove(_) | Work::Restore(_) | Work::Open(_) | Work::Seal(_) | Work::BackUp(_) => {
                panic!("other work")
            }
        },
        _ => panic!("no work on a backup: {} effects", effects.len()),
    }
}

#[test]
fn backup_is_of_the_generation_that_was_made_and_for_the_keepers_of_the_charter() {
    let mut desk = Desk::new();
    let record = DUE.ceremony.record().unwrap();
    for again in [false, true] {
        let mut effects = desk.start(&DUE);
        if !again {
            let (id, expected) = opened(&effects);
            assert_eq!(expected, Hash::of_bytes(&[OWN]));
            effects = desk.news(id, News::Opened(Arc::new(Share)));
        }
        let [Effect::Work(id, work)] = effects.as_slice() else { panic!("{} effects", effects.len()) };
        let Work::BackUp(backup) = &**work else { panic!("other work") };
        let id = *id;
        assert_eq!((backup.node, &backup.record), (node(OWN), record));
        let rules = BACKED.backup().unwrap();
        assert_eq!(backup.recipients, rules.recipients(node(OWN)).map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(backup.recipients.len(), 2, "a custodian and the trustee");
        let effects = desk.news(id, News::BackedUp { whole: b"whole".to_vec(), root: b"root".to_vec() });
        let [Effect::Tell(from_enclave::Kind::Backups(told))] = effects.as_slice() else {
            panic!("{} effects", effects.len())
        };
        let message = backed_up_message(
            &record.digest(),
            node(OWN),
            &Hash::of_bytes(b"whole"),
            &Hash::of_bytes(b"root"),
        );
        assert_eq!(told.signature, DUE.enclaves[&OWN].sign(&message));
        assert_eq!((told.whole.as_slice(), told.root.as_slice()), (&b"whole"[..], &b"root"[..]));
    }
}

#[test]
fn backup_that_cannot_be_written_is_told_to_the_agent_and_ends_no_ceremony() {
    let mut desk = Desk::new();
    let (id, _) = opened(&desk.start(&DUE));
    desk.news(id, News::Opened(Arc::new(Share)));
    assert_eq!(refused(&desk.news(id, undone("no entropy"))), "backup of node 2: no entropy");
    desk.lose();
    assert!(desk.connect().said.is_empty(), "nothing is signed about it");
}

#[test]
fn no_backup_is_opened_that_nobody_released() {
    let mut desk = Desk::new();
    for paper in [&*WRITTEN, &*DUE] {
        let effects = start_with(&mut desk, paper, file(paper));
        let is_opened = effects.iter().any(|effect| {
            matches!(effect, Effect::Work(_, work) if matches!(**work, Work::Prove(_) | Work::Restore(_)))
        });
        assert!(!is_opened);
    }
    assert!(refused(&start_with(&mut desk, &WRITTEN, file(&WRITTEN))).contains("nothing"));
}

#[test]
fn only_the_very_backup_that_was_released_is_opened() {
    for (paper, restores) in [(&*RELEASED, false), (&*RECOVERY, true)] {
        let mut desk = Desk::new();
        let other = [file(paper), b"!".to_vec()].concat();
        for wrong in [other, Vec::new()] {
            let effects = start_with(&mut desk, paper, wrong);
            assert!(refused(&effects).contains("was released"), "{}", refused(&effects));
        }
        let effects = start_with(&mut desk, paper, file(paper));
        let (_, work) = released(&effects, restores);
        let object = Hash::of_bytes(&file(paper));
        assert_eq!((work.node, &work.backup, work.key.as_slice()), (node(OWN), &file(paper), &[6; 64][..]));
        assert_eq!(work.info, release_info(&paper.manifest_hash(), node(OWN), &object));
        let of: &Record = if restores {
            &paper.ceremony.before().unwrap().record
        } else {
            paper.ceremony.record().unwrap()
        };
        assert_eq!(work.record, *of);
    }
}

#[test]
fn proof_names_the_backup_and_the_share_that_was_in_it() {
    let mut desk = Desk::new();
    let effects = start_with(&mut desk, &RELEASED, file(&RELEASED));
    let (id, _) = released(&effects, false);
    let point = RELEASED.sharing().point(OWN);
    let Kind::Proved(proved) = said(&desk.news(id, News::Proved(Point::decode(&point).unwrap()))) else {
        panic!("no proof")
    };
    assert_eq!(proved.object, Hash::of_bytes(&file(&RELEASED)).as_bytes());
    assert_eq!(proved.point, point);
    let mut paper = RELEASED.clone();
    paper.append(OWN, Kind::Proved(proved)).unwrap();
}

#[test]
fn restored_share_serves_what_follows_without_a_store() {
    let mut desk = Desk::new();
    let effects = start_with(&mut desk, &RECOVERY, file(&RECOVERY));
    let (id, _) = released(&effects, true);
    let word = said(&desk.news(id, News::Restored(Arc::new(Share))));
    let mut paper = RECOVERY.clone();
    paper.append(OWN, word).unwrap();
    begun(&desk.start(&paper));
}

#[test]
fn backup_that_does_not_restore_is_told_and_can_be_tried_again() {
    let mut desk = Desk::new();
    for _ in 0..2 {
        let effects = start_with(&mut desk, &RECOVERY, file(&RECOVERY));
        let (id, _) = released(&effects, true);
        let told = desk.news(id, undone("another share"));
        assert_eq!(refused(&told), "backup of node 2: another share");
    }
    assert!(desk.connect().said.is_empty());
}
