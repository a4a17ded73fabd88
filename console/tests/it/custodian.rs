//! The custodian's desk: a key that does not open a backup is told from one that fails, and the file key goes only to
//! the attested enclave.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::error::Error as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use age::secrecy::ExposeSecret as _;
use age_core::format::{FileKey, Stanza};
use ceremonies::attestation::EnclaveKeys;
use ceremonies::ceremony::{Ceremony, Context, opening_statement};
use ceremonies::charter::{CeremonyKind, Charter};
use ceremonies::ids::{Generation, Hash, NodeIndex};
use ceremonies::log::{Entry, Event, Place};
use ceremonies::manifest::{Origin, Proposal, Subject, Way};
use ceremonies::script::{Act, Script};
use ceremonies::statement::NAMESPACE;
use ceremonies::text::chain;
use ceremonies::wallet::{BackedUp, Object, Record, Wallet, release_info};
use ceremonies::wire::log::{self, event::Kind};
use console::custodian::{ReleaseError, Released, release};
use console::waiting::Waiting;
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable as _, Kem, OpModeR, Serializable as _};
use nkeys::{KeyPair, KeyPairType};
use ssh_key::private::Ed25519Keypair;
use ssh_key::{HashAlg, LineEnding, PrivateKey};

use crate::data;
use crate::machine::{MACHINE, NOW};
use crate::reference::has;

type SecretKey = <X25519HkdfSha256 as Kem>::PrivateKey;

fn node(index: u8) -> NodeIndex {
    NodeIndex::new(index).unwrap()
}

/// The recorded wallet's cluster, but that the machine of these tests attests, and this key leads and writes.
fn charter(leader: &PrivateKey, agent: &KeyPair) -> Charter {
    let mut charter: toml::Table = std::fs::read_to_string(data("charter.toml")).unwrap().parse().unwrap();
    let attestation = charter["attestation"].as_table_mut().unwrap();
    attestation["root_sha256"] = MACHINE.root.fingerprint().to_string().into();
    let measurement = toml::Table::try_from(crate::machine::allowed()).unwrap();
    attestation["measurements"] = vec![measurement].into();
    let people = charter["person"].as_array_mut().unwrap();
    people[0]["keys"] = vec![leader.public_key().to_openssh().unwrap()].into();
    charter["node"].as_array_mut().unwrap()[1]["nkey"] = agent.public_key().into();
    let quorum = charter["quorum"]["dkg"].clone();
    charter["quorum"].as_table_mut().unwrap().insert("recover".into(), quorum);
    Charter::parse(toml::to_string(&charter).unwrap().as_bytes()).unwrap()
}

/// The wallet of the recorded ceremony, with node 2's backups of these digests.
fn wallet(whole: &[u8], root: &[u8]) -> Wallet {
    let record = crate::entries().into_iter().find_map(|entry| match entry.event {
        Event::Prepared { record, .. } => Some(Record::parse(&record).unwrap()),
        _ => None,
    });
    let object = |bytes: &[u8]| Object {
        key: "backup.age".parse().unwrap(),
        version: "1".parse().unwrap(),
        digest: Hash::of_bytes(bytes),
        locked_until: NOW,
    };
    let (whole, root) = (object(whole), object(root));
    let backup = BackedUp { node: node(2), whole, root, signature: [0; 64] };
    Wallet { record: record.unwrap(), blobs: BTreeMap::new(), backups: [(node(2), backup)].into() }
}

/// A recovery from node 2's backup, and what its custodian has.
struct Desk {
    ceremony: Ceremony,
    agent: KeyPair,
    sealing: SecretKey,
    folder: tempfile::TempDir,
}

impl Desk {
    fn with(whole: &[u8], root: &[u8]) -> Self {
        let leader = PrivateKey::from(Ed25519Keypair::from_seed(&[7; 32]));
        let agent = KeyPair::new_from_raw(KeyPairType::User, [8; 32]).unwrap();
        let charter = charter(&leader, &agent);
        let wallet = wallet(whole, root);
        let script = Script::builtin(CeremonyKind::Recover).unwrap();
        let proposal = Proposal {
            kind: CeremonyKind::Recover,
            wallet: wallet.record.wallet.clone(),
            purpose: "To see that it works".parse().unwrap(),
            administrator: "administrator-1".parse().unwrap(),
            opened: NOW.plus(1000),
            lifetime_ms: 60_000,
            nonce: [1; 16],
            generation: Generation(wallet.record.generation.0 + 1),
            origin: Some(Origin { ceremony: wallet.record.ceremony.clone(), record: wallet.record.digest() }),
            subject: Subject::Losses([(node(2), Way::Backup)].into()),
            signers: None,
        };
        let manifest = proposal.manifest(&charter, &script).unwrap();
        let text = opening_statement(&manifest, &charter, &script).unwrap();
        let signature = leader.sign(NAMESPACE, HashAlg::Sha512, text.as_bytes()).unwrap();
        let signature = signature.to_pem(LineEnding::LF).unwrap().into_bytes();
        let opened = Kind::Opened(log::Opened { manifest: manifest.as_bytes().to_vec(), signature });
        let place = Place {
            ceremony: manifest.ceremony.clone(),
            seq: 1,
            prev: Hash::ZERO,
            time: manifest.opened,
            node: node(2),
        };
        let context = Context::new(Arc::new(charter), Arc::new(MACHINE.root.clone())).unwrap();
        let ceremony =
            Ceremony::open(context.with_wallet(Some(Arc::new(wallet))), &entry(&agent, place, opened))
                .unwrap();
        let (sealing, _) = X25519HkdfSha256::derive_keypair(&[9; 32]);
        Self { ceremony, agent, sealing, folder: tempfile::tempdir().unwrap() }
    }

    /// The agent of a node hands in its enclave's attestation.
    fn attest(&mut self, index: u8, sealing: [u8; 32]) {
        let identity = Ed25519Keypair::from_seed(&[index; 32]).public.0;
        let (manifest, head) = (self.ceremony.manifest(), self.ceremony.head());
        let now = head.time.plus(1);
        let payload = MACHINE.payload(manifest.hash().as_bytes(), now, &EnclaveKeys { identity, sealing });
        let document = MACHINE.sign(&ciborium::Value::Map(payload));
        let place = Place {
            ceremony: manifest.ceremony.clone(),
            seq: head.seq + 1,
            prev: head.hash,
            time: now,
            node: node(index),
        };
        let attested = Kind::Attested(log::Attested { node: index.into(), document });
        self.ceremony.apply(&entry(&self.agent, place, attested)).unwrap();
    }

    /// The recovery, with the enclave of node 2 attested.
    fn attested(whole: &[u8], root: &[u8]) -> Self {
        let mut desk = Self::with(whole, root);
        let sealing = X25519HkdfSha256::sk_to_pk(&desk.sealing).to_bytes();
        desk.attest(2, sealing.as_slice().try_into().unwrap());
        desk
    }

    fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn release(&self, object: &[u8], identity: &str) -> Result<Released, ReleaseError> {
        let (object, identity) = (self.file("backup.age", object), self.file("identity", identity));
        release(&self.ceremony, Act::Recover, node(2), &object, &identity, Waiting::quiet())
    }

    /// As [`Desk::release`], with a plugin that is waited for this long; and what the person is told meanwhile.
    fn release_within(
        &self,
        limit: Duration,
        object: &[u8],
        identity: &str,
    ) -> (Result<Released, ReleaseError>, Vec<String>) {
        let (object, identity) = (self.file("backup.age", object), self.file("identity", identity));
        let told = RefCell::new(Vec::new());
        let tell = |line: &str| told.borrow_mut().push(line.to_owned());
        let waiting = Waiting { limit, tell: &tell };
        let released = release(&self.ceremony, Act::Recover, node(2), &object, &identity, waiting);
        (released, told.into_inner())
    }

    /// What the enclave finds in what was sealed to it.
    fn unsealed(&self, released: &Released, info: &Hash) -> Option<Vec<u8>> {
        let (encapsulated, ciphertext) = released.release.sealed.split_at(32);
        hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
            &OpModeR::Base,
            &self.sealing,
            &<X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(encapsulated).unwrap(),
            info.as_bytes(),
            ciphertext,
            &[],
        )
        .ok()
    }

    fn info(&self, object: &[u8]) -> Hash {
        release_info(&self.ceremony.manifest().hash(), node(2), &Hash::of_bytes(object))
    }
}

fn entry(agent: &KeyPair, place: Place, event: Kind) -> Entry {
    Entry::create(place, log::Event { kind: Some(event) }, |bytes| {
        agent.sign(bytes).map_err(Box::<dyn std::error::Error>::from)
    })
    .unwrap()
}

fn keeper() -> age::x25519::Identity {
    age::x25519::Identity::generate()
}

fn line(identity: &age::x25519::Identity) -> String {
    identity.to_string().expose_secret().to_owned()
}

/// A backup encrypted to this keeper; its content does not matter here.
fn backup(keeper: &age::x25519::Identity) -> Vec<u8> {
    age::encrypt(&keeper.to_public(), b"a share").unwrap()
}

/// The file key that age itself finds.
fn file_key(keeper: &age::x25519::Identity, file: &[u8]) -> Vec<u8> {
    struct Noting<'a>(&'a age::x25519::Identity, std::cell::Cell<[u8; 16]>);
    impl age::Identity for Noting<'_> {
        fn unwrap_stanza(&self, stanza: &Stanza) -> Option<Result<FileKey, age::DecryptError>> {
            self.0.unwrap_stanza(stanza).inspect(|key| self.1.set(*key.as_ref().unwrap().expose_secret()))
        }
    }
    let noting = Noting(keeper, [0; 16].into());
    let identity = std::iter::once(&noting as &dyn age::Identity);
    assert!(age::Decryptor::new(file).unwrap().decrypt(identity).is_ok());
    noting.1.get().to_vec()
}

fn refusal(result: Result<Released, ReleaseError>) -> ReleaseError {
    result.err().unwrap()
}

#[test]
fn a_release_seals_the_file_key_to_the_attested_enclave_for_this_object_alone() {
    let keeper = keeper();
    let (whole, root) = (backup(&keeper), backup(&keeper));
    let desk = Desk::attested(&whole, &root);
    for file in [&whole, &root] {
        let released = desk.release(file, &line(&keeper)).unwrap();
        assert_eq!(released.object, *file);
        assert_eq!((released.release.node, released.release.object), (node(2), Hash::of_bytes(file)));
        assert_eq!(desk.unsealed(&released, &desk.info(file)), Some(file_key(&keeper, file)));
        let other = if file == &whole { &root } else { &whole };
        assert_eq!(desk.unsealed(&released, &desk.info(other)), None, "bound to its object");
    }
    let mut elsewhere = Desk::attested(&whole, &root);
    let released = desk.release(&whole, &line(&keeper)).unwrap();
    elsewhere.sealing = X25519HkdfSha256::derive_keypair(&[10; 32]).0;
    assert_eq!(elsewhere.unsealed(&released, &desk.info(&whole)), None, "another enclave's key");
}

#[test]
fn of_several_identities_in_a_file_the_one_that_fits_is_used() {
    let right = keeper();
    let file = backup(&right);
    let desk = Desk::attested(&file, b"root");
    let identities =
        format!("# keys of the custodian\n{}\n{}\n{}\n", line(&keeper()), line(&right), line(&keeper()));
    let released = desk.release(&file, &identities).unwrap();
    assert_eq!(desk.unsealed(&released, &desk.info(&file)), Some(file_key(&right, &file)));
}

#[test]
fn an_identity_of_somebody_else_is_told_that_it_is_no_keeper_s() {
    let file = backup(&keeper());
    let refused = refusal(Desk::attested(&file, b"root").release(&file, &line(&keeper())));
    assert!(matches!(refused, ReleaseError::NotKeeper(named) if named == node(2)), "{refused}");
}

#[test]
fn a_damaged_backup_is_refused_with_both_digests() {
    let keeper = keeper();
    let file = backup(&keeper);
    let desk = Desk::attested(&file, b"root");
    let mut damaged = file.clone();
    *damaged.last_mut().unwrap() ^= 1;
    let refused = refusal(desk.release(&damaged, &line(&keeper)));
    let [ours, theirs] = [&damaged, &file].map(|bytes| Hash::of_bytes(bytes));
    assert!(
        matches!(&refused, ReleaseError::Damaged { node: named, found, expected }
            if *named == node(2) && *found == ours && *expected == theirs),
        "{refused}"
    );
    for what in ["node 2".to_owned(), ours.to_string(), theirs.to_string()] {
        assert!(refused.to_string().contains(&what), "{refused}");
    }
}

#[test]
fn a_logged_object_that_is_no_age_file_or_whose_header_was_changed_is_refused() {
    let keeper = keeper();
    let refused = refusal(Desk::attested(b"hello", b"root").release(b"hello", &line(&keeper)));
    assert!(matches!(refused, ReleaseError::Format(named) if named == node(2)), "{refused}");
    // The header's MAC no longer fits: as if its enclave had written it so.
    let mut file = backup(&keeper);
    let mac = file.windows(4).position(|window| window == b"--- ").unwrap() + 4;
    file[mac] = if file[mac] == b'A' { b'B' } else { b'A' };
    let refused = refusal(Desk::attested(&file, b"root").release(&file, &line(&keeper)));
    assert!(matches!(refused, ReleaseError::Unwrap { .. }), "{refused}");
    assert!(refused.to_string().contains("node 2") && refused.source().is_some(), "{refused}");
}

#[test]
fn a_file_without_identities_is_named() {
    let keeper = keeper();
    let file = backup(&keeper);
    let desk = Desk::attested(&file, b"root");
    for text in ["", "# my key\n\n", "hello", "AGE-SECRET-KEY-1QQQ", &keeper.to_public().to_string()] {
        let refused = refusal(desk.release(&file, text));
        assert!(
            matches!(&refused, ReleaseError::Identity(path, _) if path.ends_with("identity")),
            "{text}: {refused}"
        );
    }
    let (object, missing) = (desk.file("backup.age", &file), Path::new("/nowhere"));
    for (object, identity) in [(&*object, missing), (missing, &*object)] {
        let refused =
            refusal(release(&desk.ceremony, Act::Recover, node(2), object, identity, Waiting::quiet()));
        assert!(refused.to_string().contains("/nowhere cannot be read"), "{refused}");
    }
}

#[test]
fn a_backup_that_no_step_asks_for_is_not_touched() {
    let desk = Desk::attested(b"whole", b"root");
    let nowhere = Path::new("/nowhere");
    for (act, index) in [(Act::Prove, 2), (Act::Recover, 1), (Act::Backup, 2), (Act::Recover, 9)] {
        let refused = refusal(release(&desk.ceremony, act, node(index), nowhere, nowhere, Waiting::quiet()));
        assert!(matches!(refused, ReleaseError::NotAsked(named) if named == node(index)), "{refused}");
    }
}

#[test]
fn nothing_is_sealed_before_the_node_has_attested_or_to_a_key_that_is_none() {
    let keeper = keeper();
    let file = backup(&keeper);
    let mut desk = Desk::with(&file, b"root");
    let refused = refusal(desk.release(&file, &line(&keeper)));
    assert!(matches!(refused, ReleaseError::NotAttested(named) if named == node(2)), "{refused}");
    desk.attest(2, [0; 32]);
    let refused = refusal(desk.release(&file, &line(&keeper)));
    assert!(matches!(refused, ReleaseError::Seal(named) if named == node(2)), "{refused}");
}

/// An identity of a plugin.
fn plugin(name: &str) -> String {
    age::plugin::Identity::default_for_plugin(name).unwrap().to_string()
}

#[test]
fn a_missing_plugin_is_named() {
    let file = backup(&keeper());
    let refused = refusal(Desk::attested(&file, b"root").release(&file, &plugin("nowhere")));
    assert!(matches!(&refused, ReleaseError::Plugin { .. }), "{refused}");
    let said = chain(&refused);
    assert!(said.contains("node 2") && said.contains("age-plugin-nowhere is not installed"), "{said}");
    assert!(said.is_ascii(), "nothing is hidden between the words: {said:?}");
}

/// Where the plugin of the tests stands, for the test of this name: with the plugin on the search path it is run as
/// a process of its own, because that path is a whole process's.
fn beside_the_plugin(test: &str) -> Option<PathBuf> {
    const FOLDER: &str = "CUSTODY_TEST_PLUGIN";
    if let Some(folder) = std::env::var_os(FOLDER) {
        return Some(folder.into());
    }
    if Command::new("python3").arg("--version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "python3 is not installed, and CI must not skip it");
        eprintln!("SKIPPED: {test}: python3 is not installed");
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("age-plugin-lab");
    std::fs::write(&program, include_bytes!("../data/age-plugin-lab")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let search = std::env::var_os("PATH").unwrap_or_default();
    let search = std::iter::once(folder.path().to_owned()).chain(std::env::split_paths(&search));
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("custodian::{test}"), "--nocapture"])
        .env("PATH", std::env::join_paths(search).unwrap())
        .env(FOLDER, folder.path())
        .output()
        .unwrap();
    let [said, complaint] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(output.status.success() && said.contains("1 passed"), "{said}{complaint}");
    None
}

#[test]
fn a_plugin_that_holds_the_key_gives_the_same_file_key() {
    let Some(held) = beside_the_plugin("a_plugin_that_holds_the_key_gives_the_same_file_key") else { return };
    let keeper = keeper();
    std::fs::write(held.join("key"), line(&keeper)).unwrap();
    let file = {
        // Two keepers, as a node's backups have: the plugin finds its own stanza.
        let recipients = [age::x25519::Identity::generate().to_public(), keeper.to_public()];
        let recipients = recipients.iter().map(|recipient| recipient as &dyn age::Recipient);
        let mut file = Vec::new();
        let mut writer = age::Encryptor::with_recipients(recipients).unwrap().wrap_output(&mut file).unwrap();
        std::io::Write::write_all(&mut writer, &[1; 1000]).unwrap();
        writer.finish().unwrap();
        file
    };
    let desk = Desk::attested(&file, b"root");
    let released = desk.release(&file, &plugin("lab")).unwrap();
    assert_eq!(desk.unsealed(&released, &desk.info(&file)), Some(file_key(&keeper, &file)));
}

#[test]
fn a_plugin_that_holds_another_key_is_no_keeper_s() {
    let Some(held) = beside_the_plugin("a_plugin_that_holds_another_key_is_no_keeper_s") else { return };
    std::fs::write(held.join("key"), line(&keeper())).unwrap();
    let file = backup(&keeper());
    let refused = refusal(Desk::attested(&file, b"root").release(&file, &plugin("lab")));
    assert!(matches!(refused, ReleaseError::NotKeeper(named) if named == node(2)), "{refused}");
}

#[test]
fn what_a_plugin_complains_of_is_said_and_not_that_others_are_the_keepers() {
    let test = "what_a_plugin_complains_of_is_said_and_not_that_others_are_the_keepers";
    if beside_the_plugin(test).is_none() {
        return;
    }
    let file = backup(&keeper());
    let refused = refusal(Desk::attested(&file, b"root").release(&file, &plugin("lab")));
    assert!(matches!(refused, ReleaseError::Plugin { .. }), "{refused}");
    let source = refused.source().unwrap().to_string();
    assert_eq!(source, "age-plugin-lab says: the key is not plugged in");
}

/// A plugin that is this script of a shell, beside the plugin of the tests.
fn scripted(folder: &Path, name: &str, script: &str) -> String {
    let program = folder.join(format!("age-plugin-{name}"));
    std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    plugin(name)
}

#[test]
fn a_plugin_that_never_answers_is_ended_and_named() {
    let Some(folder) = beside_the_plugin("a_plugin_that_never_answers_is_ended_and_named") else { return };
    let file = backup(&keeper());
    let desk = Desk::attested(&file, b"root");
    // The last leaves a process behind that keeps its output open, and the third goes on asking for patience.
    for (name, script) in [
        ("silent", "exec sleep 600"),
        ("listens", "while read line; do :; done; exec sleep 600"),
        ("hasty", "while printf -- '-> msg\\nd2FpdA\\n'; do sleep 0.02; done"),
        ("parent", "sleep 20 & sleep 600"),
    ] {
        let identity = scripted(&folder, name, script);
        let begun = Instant::now();
        let (refused, told) = desk.release_within(Duration::from_millis(300), &file, &identity);
        assert!(begun.elapsed() < Duration::from_secs(15), "{name}");
        let said = chain(&refusal(refused));
        assert!(said.contains(&format!("age-plugin-{name} did not answer")), "{said}");
        assert!(told[0].contains("waiting at most") && told[0].contains(name), "{told:?}");
        assert_eq!(told.iter().any(|line| line.ends_with(": wait")), name == "hasty", "{told:?}");
    }
}

#[test]
fn a_plugin_that_fails_is_named_with_its_status_and_its_last_words() {
    let test = "a_plugin_that_fails_is_named_with_its_status_and_its_last_words";
    let Some(folder) = beside_the_plugin(test) else { return };
    let file = backup(&keeper());
    let desk = Desk::attested(&file, b"root");
    for (name, script, words) in [
        ("status", "exit 3", vec!["exit status: 3", "said nothing"]),
        (
            "words",
            "echo first >&2; echo no reader >&2; echo >&2; exit 1",
            vec!["exit status: 1", "no reader"],
        ),
        ("ok", "exit 0", vec!["exit status: 0", "said nothing"]),
        ("killed", "kill -9 $$", vec!["signal: 9", "said nothing"]),
        ("colour", "printf '\\033[2Jred\\342\\200\\256' >&2; exit 1", vec!["exit status: 1", "[2Jred"]),
        ("long", "head -c 100000 /dev/zero | tr '\\0' x >&2; exit 1", vec!["exit status: 1", "xxx…"]),
        ("babble", "echo hello; cat >/dev/null", vec!["does not keep to age's plugin protocol"]),
        ("cut", "printf -- '-> file-key 0\\n'; exit 4", vec!["exit status: 4"]),
        ("short", "printf -- '-> file-key 0\\nAAAA\\n'; cat >/dev/null", vec!["plugin protocol"]),
    ] {
        let identity = scripted(&folder, name, script);
        let (refused, _) = desk.release_within(Duration::from_mins(1), &file, &identity);
        let said = chain(&refusal(refused));
        assert!(said.contains(&format!("age-plugin-{name} ")), "{name}: {said}");
        for word in words {
            assert!(said.contains(word), "{name}: {said}");
        }
        assert!(!said.contains(['\u{1b}', '\u{202e}', '\n']) && said.len() < 800, "{name}: {said:?}");
    }
}

#[test]
fn identities_are_taken_as_age_takes_them() {
    if !has("age", "identities_are_taken_as_age_takes_them") {
        return;
    }
    let keeper = keeper();
    let good = line(&keeper);
    let file = backup(&keeper);
    let desk = Desk::attested(&file, b"root");
    let utf16: Vec<u8> = good.encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (text, why) in [
        (good.clone().into_bytes(), ""),
        (format!("{good}\r\n").into_bytes(), ""),
        (format!("# comment\n\n{good}\n").into_bytes(), ""),
        (good.to_lowercase().into_bytes(), "line 1 is not in capitals"),
        (format!("#\n{}", good.to_lowercase()).into_bytes(), "line 2 is not in capitals"),
        (good.replacen("KEY", "kEY", 1).into_bytes(), "line 1 is something else"),
        (format!(" {good}").into_bytes(), "line 1 is something else"),
        (format!("{good} ").into_bytes(), "line 1 is something else"),
        (format!("\u{feff}{good}").into_bytes(), "line 1 is something else"),
        (format!("{good}\nhello").into_bytes(), "line 2 is something else"),
        (utf16, "UTF-16"),
    ] {
        let (object, identity) = (desk.file("backup.age", &file), desk.file("identity", &text));
        let age = Command::new("age").arg("-d").arg("-i").arg(&identity).arg(&object).output().unwrap();
        let taken = release(&desk.ceremony, Act::Recover, node(2), &object, &identity, Waiting::quiet());
        let shown = String::from_utf8_lossy(&text);
        assert_eq!(taken.is_ok(), age.status.success(), "{shown:?}");
        let Err(refused) = taken else { continue };
        let said = refused.to_string();
        assert!(!why.is_empty() && said.contains(why), "{shown:?}: {said}");
        assert!(
            !said.to_lowercase().contains(&good.to_lowercase()[16..30]),
            "a secret is not repeated: {said}"
        );
    }
}
