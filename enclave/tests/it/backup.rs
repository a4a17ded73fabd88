//! Backups: what is written opens with a keeper's file key, unchanged, and nothing else opens at all.

use std::cell::Cell;
use std::process::Command;
use std::sync::OnceLock;

use age::secrecy::ExposeSecret as _;
use age_core::format::{FileKey, Stanza};
use enclave::backup::{self, BackupError, MAX_BACKUP};
use enclave::scheme::dkls23::KeyShare;
use prost::Message as _;
use zeroize::Zeroizing;

use crate::generation::{Generated, two_of_three};
use crate::network::node;
use crate::refresh::second_generation;

type Key = Zeroizing<[u8; 16]>;

/// A node's keepers.
struct Keepers {
    custodian: age::x25519::Identity,
    escrow: age::x25519::Identity,
}

fn keepers() -> &'static Keepers {
    static KEEPERS: OnceLock<Keepers> = OnceLock::new();
    let new = age::x25519::Identity::generate;
    KEEPERS.get_or_init(|| Keepers { custodian: new(), escrow: new() })
}

fn recipients() -> [String; 2] {
    [&keepers().custodian, &keepers().escrow].map(|keeper| keeper.to_public().to_string())
}

/// A file of this share, which says that it is this node's of this generation.
fn write(share: &KeyShare, of: &Generated, owner: u8) -> Vec<u8> {
    backup::write(share, &of.record, node(owner), recipients().iter().map(String::as_str)).unwrap()
}

fn open(file: &[u8], key: Key, of: &Generated, owner: u8) -> Result<KeyShare, BackupError> {
    backup::open(file, key, &of.record, node(owner))
}

/// Takes note of the file key that a keeper unwraps.
struct Noting<'a>(&'a age::x25519::Identity, Cell<Option<[u8; 16]>>);

impl age::Identity for Noting<'_> {
    fn unwrap_stanza(&self, stanza: &Stanza) -> Option<Result<FileKey, age::DecryptError>> {
        let unwrapped = self.0.unwrap_stanza(stanza);
        if let Some(Ok(key)) = &unwrapped {
            self.1.set(Some(*key.expose_secret()));
        }
        unwrapped
    }
}

fn released(file: &[u8], keeper: &age::x25519::Identity) -> Key {
    let noting = Noting(keeper, Cell::new(None));
    let identity = std::iter::once(&noting as &dyn age::Identity);
    assert!(age::Decryptor::new(file).unwrap().decrypt(identity).is_ok());
    Zeroizing::new(noting.1.get().unwrap())
}

fn key(file: &[u8]) -> Key {
    released(file, &keepers().custodian)
}

fn share(generated: &Generated, owner: u8) -> &KeyShare {
    &generated.shares[&node(owner)]
}

/// A file that somebody else encrypted to the keepers.
fn encrypted(plain: &[u8]) -> Vec<u8> {
    age::encrypt(&keepers().custodian.to_public(), plain).unwrap()
}

/// What is inside, as its format says.
#[derive(Clone, PartialEq, prost::Message)]
struct Plain {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(bytes, tag = "2")]
    record: Vec<u8>,
    #[prost(uint32, tag = "3")]
    node: u32,
    #[prost(bytes, tag = "4")]
    share: Vec<u8>,
}

fn plain(generated: &Generated, owner: u8) -> Plain {
    Plain {
        version: 1,
        record: generated.record.digest().as_bytes().to_vec(),
        node: owner.into(),
        share: share(generated, owner).encode().unwrap().to_vec(),
    }
}

#[test]
fn a_backup_opens_with_the_file_key_that_either_keeper_unwraps() {
    let generated = two_of_three();
    for owner in 1..=3 {
        let whole = share(generated, owner);
        for share in [whole.encode(), whole.root().encode()].map(Result::unwrap) {
            let file = write(&KeyShare::decode(&share).unwrap(), generated, owner);
            assert!(file.starts_with(b"age-encryption.org/v1\n"));
            for keeper in [&keepers().custodian, &keepers().escrow] {
                let opened = open(&file, released(&file, keeper), generated, owner).unwrap();
                assert_eq!(opened.encode().unwrap(), share);
            }
        }
    }
}

#[test]
fn two_backups_of_one_share_have_nothing_in_common() {
    let generated = two_of_three();
    let root = share(generated, 1).root();
    let files = [write(&root, generated, 1), write(&root, generated, 1)];
    assert_ne!(files[0], files[1]);
    assert_ne!(key(&files[0]), key(&files[1]));
    assert!(matches!(open(&files[0], key(&files[1]), generated, 1), Err(BackupError::Opening)));
}

#[test]
fn a_root_share_s_backup_is_small_enough_for_paper() {
    let file = write(&share(two_of_three(), 1).root(), two_of_three(), 1);
    assert!(file.len() < 1100, "{} bytes", file.len());
}

#[test]
fn a_changed_or_cut_backup_does_not_open() {
    let generated = two_of_three();
    let whole = write(share(generated, 1), generated, 1);
    let root = write(&share(generated, 1).root(), generated, 1);
    // Everything of the small one, and of the large one the header and samples of the rest.
    for (file, dense, step) in [(&root, root.len(), 1), (&whole, 600, whole.len() / 200)] {
        let key = key(file);
        let places = (0..dense).chain((dense..file.len()).step_by(step)).chain([file.len() - 1]);
        for place in places {
            let mut changed = file.clone();
            changed[place] ^= 1;
            let refused = open(&changed, key.clone(), generated, 1).err();
            assert!(matches!(refused, Some(BackupError::Opening)), "byte {place}: {refused:?}");
            let refused = open(&file[..place], key.clone(), generated, 1).err();
            assert!(matches!(refused, Some(BackupError::Opening)), "{place} bytes: {refused:?}");
        }
        let longer = [&file[..], &[0]].concat();
        assert!(matches!(open(&longer, key, generated, 1), Err(BackupError::Opening)), "a byte behind");
    }
}

#[test]
fn a_wrong_file_key_opens_nothing() {
    let generated = two_of_three();
    let file = write(&share(generated, 1).root(), generated, 1);
    for byte in 0..16 {
        let mut wrong = key(&file);
        wrong[byte] ^= 1;
        assert!(matches!(open(&file, wrong, generated, 1), Err(BackupError::Opening)));
    }
    assert!(open(&file, key(&file), generated, 1).is_ok());
}

fn other_share(file: &[u8], of: &Generated, owner: u8) {
    match open(file, key(file), of, owner) {
        Err(BackupError::OtherShare(named)) => assert_eq!(named, node(owner)),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it was taken for node {owner}'s"),
    }
}

#[test]
fn the_backup_of_another_node_or_generation_is_refused() {
    let (old, new) = (two_of_three(), second_generation());
    assert_eq!(old.record.public_key, new.record.public_key);
    let file = write(share(old, 1), old, 1);
    other_share(&file, old, 2);
    other_share(&file, new, 1);
    other_share(&write(share(new, 1), new, 1), old, 1);
}

#[test]
fn a_share_that_is_not_what_its_backup_says_is_refused() {
    let (old, new) = (two_of_three(), second_generation());
    // The right key on another polynomial, and another node's point of the right one.
    other_share(&write(share(old, 1), new, 1), new, 1);
    other_share(&write(&share(old, 1).root(), new, 1), new, 1);
    other_share(&write(share(old, 2), old, 1), old, 1);
    // The right share under another name.
    other_share(&write(share(old, 1), new, 1), old, 1);
    other_share(&write(share(old, 1), old, 2), old, 1);
}

#[test]
fn what_somebody_else_encrypted_to_the_keepers_is_refused_unless_it_is_the_share() {
    let generated = two_of_three();
    let opened = |plain: &[u8]| {
        let file = encrypted(plain);
        open(&file, key(&file), generated, 1)
    };
    assert!(opened(&plain(generated, 1).encode_to_vec()).is_ok());
    assert!(matches!(opened(b"\xff\xffgarbage"), Err(BackupError::Format)));
    assert!(opened(b"").is_err());
    for version in [0, 2] {
        let other = Plain { version, ..plain(generated, 1) };
        assert!(matches!(opened(&other.encode_to_vec()), Err(BackupError::Format)), "version {version}");
    }
    for share in [Vec::new(), b"garbage".to_vec(), [&plain(generated, 1).share[..], &[0]].concat()] {
        let other = Plain { share, ..plain(generated, 1) };
        assert!(matches!(opened(&other.encode_to_vec()), Err(BackupError::Share(_))));
    }
    for record in [Vec::new(), vec![0; 32], vec![0; 31]] {
        let other = Plain { record, ..plain(generated, 1) };
        assert!(matches!(opened(&other.encode_to_vec()), Err(BackupError::OtherShare(_))));
    }
}

#[test]
fn what_is_no_age_file_or_larger_than_any_share_is_refused() {
    let generated = two_of_three();
    for file in [&b""[..], b"age-encryption.org/v1\n", b"-----BEGIN AGE ENCRYPTED FILE-----\n", &[0; 1000]] {
        assert!(matches!(open(file, Key::default(), generated, 1), Err(BackupError::Opening)));
    }
    let mut huge = write(share(generated, 1), generated, 1);
    let key = key(&huge);
    huge.resize(MAX_BACKUP, 0);
    assert!(matches!(open(&huge, key.clone(), generated, 1), Err(BackupError::Opening)));
    huge.push(0);
    let refused = open(&huge, key, generated, 1).err();
    assert!(matches!(refused, Some(BackupError::Size(size)) if size == MAX_BACKUP + 1), "{refused:?}");
}

#[test]
fn a_recipient_that_is_none_is_named_and_without_any_nothing_is_written() {
    let generated = two_of_three();
    let write = |recipients: &[&str]| {
        backup::write(share(generated, 1), &generated.record, node(1), recipients.iter().copied())
    };
    let good = &recipients()[0];
    let secret = keepers().custodian.to_string();
    for bad in ["", "age1custodian", &good[..good.len() - 1], "ssh-ed25519 AAAA", secret.expose_secret()] {
        let refused = write(&[good, bad]).unwrap_err();
        assert!(matches!(&refused, BackupError::Recipient(named) if named == bad), "{refused}");
    }
    assert!(matches!(write(&[]), Err(BackupError::Encryption)));
}

#[test]
fn debian_s_age_opens_a_backup_with_a_keeper_s_identity() {
    if Command::new("age").arg("--version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "age is not installed, and CI must not skip it");
        eprintln!("SKIPPED: debian_s_age_opens_a_backup_with_a_keeper_s_identity: age is not installed");
        return;
    }
    let generated = two_of_three();
    let folder = tempfile::tempdir().unwrap();
    for keeper in [&keepers().custodian, &keepers().escrow] {
        let identity = folder.path().join("identity");
        std::fs::write(&identity, keeper.to_string().expose_secret()).unwrap();
        for (owner, root) in [(1, false), (2, true)] {
            let share = if root { &share(generated, owner).root() } else { share(generated, owner) };
            let file = folder.path().join("backup.age");
            std::fs::write(&file, write(share, generated, owner)).unwrap();
            let output = Command::new("age").arg("-d").arg("-i").arg(&identity).arg(&file).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let said = Plain::decode(output.stdout.as_slice()).unwrap();
            let share = share.encode().unwrap().to_vec();
            assert_eq!(said, Plain { share, ..plain(generated, owner) });
        }
    }
    let stranger = folder.path().join("stranger");
    std::fs::write(&stranger, age::x25519::Identity::generate().to_string().expose_secret()).unwrap();
    let file = folder.path().join("backup.age");
    let output = Command::new("age").arg("-d").arg("-i").arg(&stranger).arg(&file).output().unwrap();
    assert!(!output.status.success() && output.stdout.is_empty());
}
