//! The reference tools decide: what `ssh-keygen` and `age` accept is accepted, or refused with the true reason, and
//! they accept what is stored.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bech32::Fe32;
use bech32::primitives::iter::{ByteIterExt as _, Fe32IterExt as _};
use ceremonies::charter::{Charter, Person};
use ceremonies::sshsig::{self, canonical};
use ceremonies::statement::{NAMESPACE, verify};
use ceremonies::text::Encoding;
use console::signer::{SignError, Unusable, sign};
use data_encoding::BASE64;
use p256::ecdsa::signature::hazmat::PrehashSigner as _;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, TestRunner};
use sha2::{Digest as _, Sha256};
use ssh_key::private::Ed25519Keypair;
use ssh_key::public::{KeyData, SkEcdsaSha2NistP256};
use ssh_key::{Algorithm, HashAlg, LineEnding, PrivateKey, PublicKey, SshSig};

use crate::data;

const TEXT: &str = "a statement\nof two lines\n";
/// Variants that a reference tool is asked about.
const CASES: u32 = 96;

/// Whether this machine has a tool; in CI it must.
pub(crate) fn has(tool: &str, test: &str) -> bool {
    let found = Command::new(tool).arg("--help").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    assert!(found || std::env::var_os("CI").is_none(), "{tool} is not installed, and CI must not skip it");
    if !found {
        eprintln!("SKIPPED: {test}: {tool} is not installed");
    }
    found
}

/// A folder with a person's key, as `ssh-keygen` wants it.
struct Desk {
    folder: tempfile::TempDir,
    person: Person,
}

impl Desk {
    fn of(key: &PublicKey) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let line = format!("olga {}\n", key.to_openssh().unwrap());
        std::fs::write(folder.path().join("signers"), line).unwrap();
        std::fs::write(folder.path().join("text"), TEXT).unwrap();
        let person = Person {
            name: "olga".parse().unwrap(),
            roles: BTreeSet::new(),
            keys: vec![key.clone()],
            verified: false,
        };
        Self { folder, person }
    }

    fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// What `ssh-keygen -Y verify` says.
    fn verifies(&self, signature: &[u8]) -> bool {
        self.file("sig", signature);
        let text = std::fs::File::open(self.folder.path().join("text")).unwrap();
        let status = Command::new("ssh-keygen")
            .args(["-Y", "verify", "-f", "signers", "-I", "olga", "-n", NAMESPACE, "-s", "sig"])
            .current_dir(&self.folder)
            .stdin(text)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        status.unwrap().success()
    }
}

fn private() -> PrivateKey {
    PrivateKey::from(Ed25519Keypair::from_seed(&[7; 32]))
}

fn signed(key: &PrivateKey) -> Vec<u8> {
    sshsig::write(&key.sign(NAMESPACE, HashAlg::Sha512, TEXT.as_bytes()).unwrap()).unwrap()
}

/// What people and their programs do to a file in transit.
#[derive(Debug, Clone)]
enum Change {
    Fold(usize),
    Windows,
    Before(&'static str),
    After(&'static str),
    Insert(Index, char),
    Remove(Index),
    Cut(Index),
    /// A byte of what the armour holds.
    Byte(Index, u8),
    Trailing(usize),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let blank = select(vec![' ', '\t', '\n', '\r', '\x0b', '\x0c', '-', '=', 'A', '\u{a0}']);
    let around = vec!["\n", " ", "text\n", "\u{feff}", "-----BEGIN SSH SIGNATURE-----\n"];
    let change = prop_oneof![
        (1_usize..100).prop_map(Change::Fold),
        Just(Change::Windows),
        select(around.clone()).prop_map(Change::Before),
        select(around).prop_map(Change::After),
        (any::<Index>(), blank).prop_map(|(at, blank)| Change::Insert(at, blank)),
        any::<Index>().prop_map(Change::Remove),
        any::<Index>().prop_map(Change::Cut),
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Byte(at, byte)),
        (1_usize..4).prop_map(Change::Trailing),
    ];
    proptest::collection::vec(change, 0..3)
}

/// First line, base64, and last line of a file in armour.
fn parts(file: &str) -> Option<(&str, String, &str)> {
    let begin = file.lines().find(|line| line.starts_with("-----BEGIN"))?;
    let end = file.lines().find(|line| line.starts_with("-----END"))?;
    Some((begin, file.lines().filter(|line| !line.starts_with('-')).collect(), end))
}

fn rebuilt(file: &str, width: usize, change: impl Fn(&mut Vec<u8>)) -> Option<String> {
    let (begin, body, end) = parts(file)?;
    let mut bytes = BASE64.decode(body.as_bytes()).ok()?;
    change(&mut bytes);
    let body = BASE64.encode(&bytes);
    let lines: Vec<&str> =
        body.as_bytes().chunks(width).map(|line| std::str::from_utf8(line).unwrap()).collect();
    Some(format!("{begin}\n{}\n{end}\n", lines.join("\n")))
}

fn changed(mut file: String, changes: &[Change]) -> String {
    let place = |file: &str, at: &Index| {
        let places: Vec<usize> = file.char_indices().map(|(at, _)| at).collect();
        if places.is_empty() { 0 } else { places[at.index(places.len())] }
    };
    for change in changes {
        match change {
            Change::Fold(width) => file = rebuilt(&file, *width, |_| {}).unwrap_or(file),
            Change::Windows => file = file.replace('\n', "\r\n"),
            Change::Before(text) => file.insert_str(0, text),
            Change::After(text) => file.push_str(text),
            Change::Insert(at, blank) => file.insert(place(&file, at), *blank),
            Change::Remove(at) if !file.is_empty() => _ = file.remove(place(&file, at)),
            Change::Cut(at) => file.truncate(place(&file, at)),
            Change::Byte(at, byte) => {
                let set = |bytes: &mut Vec<u8>| {
                    let at = at.index(bytes.len());
                    bytes[at] = *byte;
                };
                file = rebuilt(&file, 70, set).unwrap_or(file);
            }
            Change::Trailing(count) => {
                file = rebuilt(&file, 70, |bytes| bytes.extend(vec![0; *count])).unwrap_or(file);
            }
            Change::Remove(_) => {}
        }
    }
    file
}

#[test]
fn signatures_are_taken_as_ssh_keygen_takes_them_and_stored_as_it_writes_them() {
    if !has("ssh-keygen", "signatures_are_taken_as_ssh_keygen_takes_them_and_stored_as_it_writes_them") {
        return;
    }
    let key = private();
    let desk = Desk::of(key.public_key());
    let good = String::from_utf8(signed(&key)).unwrap();
    let mut runner = TestRunner::new(Config::with_cases(CASES));
    let done = runner.run(&changes(), |changes| {
        let file = changed(good.clone(), &changes);
        // The one thing that is read more loosely, and stored as it should be.
        let unix = file.replace("\r\n", "\n");
        let form = canonical(file.as_bytes()).ok();
        let is_good = form.as_ref().is_some_and(|form| verify(&desk.person, TEXT, form).is_ok());
        prop_assert_eq!(is_good, desk.verifies(unix.as_bytes()), "{}", file);
        if let Some(form) = form {
            prop_assert_eq!(is_good, desk.verifies(&form), "{}", file);
        }
        if verify(&desk.person, TEXT, file.as_bytes()).is_ok() {
            prop_assert!(desk.verifies(file.as_bytes()), "in the record, and no good: {}", file);
        }
        Ok(())
    });
    done.unwrap();
}

#[test]
fn a_signature_of_an_ecdsa_security_key_is_written_as_openssh_writes_it() {
    if !has("ssh-keygen", "a_signature_of_an_ecdsa_security_key_is_written_as_openssh_writes_it") {
        return;
    }
    let secret = p256::ecdsa::SigningKey::from_slice(&[9; 32]).unwrap();
    let point = secret.verifying_key().to_encoded_point(false);
    let public = SkEcdsaSha2NistP256::new(ssh_key::sec1::EncodedPoint::from_bytes(point).unwrap(), "ssh:");
    let key = PublicKey::from(KeyData::from(public));
    let desk = Desk::of(&key);
    let touched = [1, 0, 0, 0, 3];
    let message = SshSig::signed_data(NAMESPACE, HashAlg::Sha512, TEXT.as_bytes()).unwrap();
    let digest = |bytes: &[u8]| Sha256::digest(bytes).to_vec();
    let signed = [digest(b"ssh:"), touched.to_vec(), digest(&message)].concat();
    let (r, s) =
        secret.sign_prehash(&digest(&signed)).map(|made: p256::ecdsa::Signature| made.split_bytes()).unwrap();
    let mut bytes = Vec::new();
    for number in [r, s] {
        ssh_encoding::Encode::encode(&ssh_key::Mpint::from_positive_bytes(&number).unwrap(), &mut bytes)
            .unwrap();
    }
    bytes.extend(touched);
    let made = ssh_key::Signature::new(Algorithm::SkEcdsaSha2NistP256, bytes).unwrap();
    let made = SshSig::new(key.key_data().clone(), NAMESPACE, HashAlg::Sha512, made).unwrap();
    let file = sshsig::write(&made).unwrap();
    assert!(desk.verifies(&file), "{}", String::from_utf8_lossy(&file));
    assert_eq!(canonical(&file).unwrap(), file);
    let presence = verify(&desk.person, TEXT, &file).unwrap();
    assert!(presence.hardware && presence.present && !presence.verified);
    assert!(verify(&desk.person, "another text\n", &file).is_err());
}

#[test]
fn private_keys_are_read_as_ssh_keygen_reads_them() {
    if !has("ssh-keygen", "private_keys_are_read_as_ssh_keygen_reads_them") {
        return;
    }
    let key = private();
    let desk = Desk::of(key.public_key());
    let good = key.to_openssh(LineEnding::LF).unwrap().to_string();
    let mut runner = TestRunner::new(Config::with_cases(CASES));
    let done = runner.run(&changes(), |changes| {
        let path = desk.file("key", changed(good.clone(), &changes).as_bytes());
        let read = Command::new("ssh-keygen").args(["-y", "-P", "", "-f"]).arg(&path).output().unwrap();
        // ssh-keygen does not look at every byte of what it reads; a key that was damaged anywhere is refused as that.
        let is_damaged = changes.iter().any(|change| matches!(change, Change::Byte(..)));
        match sign(&path, TEXT, None) {
            _ if !read.status.success() => {}
            Ok(signature) => prop_assert!(desk.verifies(&signature)),
            Err(SignError::Format(_, Unusable::Damaged)) if is_damaged => {}
            Err(error) => return Err(TestCaseError::fail(format!("{error}"))),
        }
        Ok(())
    });
    done.unwrap();
}

#[test]
fn keys_that_cannot_sign_are_refused_with_what_they_are() {
    if !has("ssh-keygen", "keys_that_cannot_sign_are_refused_with_what_they_are") {
        return;
    }
    let desk = Desk::of(private().public_key());
    let folder = desk.folder.path();
    let make = |name: &str, arguments: &[&str]| {
        let status = Command::new("ssh-keygen")
            .args(["-q", "-N", "", "-f", name])
            .args(arguments)
            .current_dir(folder)
            .status();
        assert!(status.unwrap().success(), "{name}");
        folder.join(name)
    };
    let pem = make("pem", &["-t", "ecdsa", "-m", "PEM"]);
    let ecdsa = make("ecdsa", &["-t", "ecdsa"]);
    let plain = make("plain", &["-t", "ed25519"]);
    let export =
        Command::new("ssh-keygen").args(["-e", "-f", "plain.pub"]).current_dir(folder).output().unwrap();
    let rfc4716 = desk.file("rfc4716", &export.stdout);
    let certified = Command::new("ssh-keygen")
        .args(["-q", "-s", "plain", "-I", "me", "plain.pub"])
        .current_dir(folder)
        .status();
    assert!(certified.unwrap().success());
    let text = std::fs::read_to_string(&plain).unwrap();
    let cut = desk.file("cut", &text.as_bytes()[..200]);
    let flipped = desk.file("flipped", text.replacen("b3BlbnNzaC1", "b3BlbnNzaC2", 1).as_bytes());
    let rsa = make("rsa", &["-t", "rsa"]);
    let pkcs8 = Command::new("ssh-keygen")
        .args(["-e", "-m", "PKCS8", "-f", "rsa.pub"])
        .current_dir(folder)
        .output()
        .unwrap();
    let pkcs1 = Command::new("ssh-keygen")
        .args(["-e", "-m", "PEM", "-f", "rsa.pub"])
        .current_dir(folder)
        .output()
        .unwrap();
    let utf16 = |text: &str, bom: &str| -> Vec<u8> {
        format!("{bom}{text}").encode_utf16().flat_map(u16::to_le_bytes).collect()
    };
    let public = std::fs::read_to_string(folder.join("plain.pub")).unwrap();
    for (path, expected) in [
        (rsa, Unusable::Kind),
        (folder.join("rsa.pub"), Unusable::Kind),
        (folder.join("ecdsa.pub"), Unusable::Kind),
        (desk.file("dsa.pub", b"ssh-dss AAAAB3NzaC1kc3MAAACBAI olga\n"), Unusable::Kind),
        (desk.file("pkcs8", &pkcs8.stdout), Unusable::PublicPem),
        (desk.file("pkcs1", &pkcs1.stdout), Unusable::PublicPem),
        (desk.file("utf16", &utf16(&text, "\u{feff}")), Unusable::Encoding(Encoding::Utf16)),
        (desk.file("bare16", &utf16(&text, "")), Unusable::Encoding(Encoding::Utf16)),
        (desk.file("utf16.pub", &utf16(&public, "\u{feff}")), Unusable::Encoding(Encoding::Utf16)),
        (pem, Unusable::Pem),
        (ecdsa, Unusable::Kind),
        (rfc4716, Unusable::Rfc4716),
        (folder.join("plain-cert.pub"), Unusable::Certificate),
        (cut, Unusable::CutOff),
        (flipped, Unusable::Damaged),
        (desk.file("putty", b"PuTTY-User-Key-File-3: ssh-ed25519\n"), Unusable::Putty),
        (desk.file("binary", &[0xff; 40]), Unusable::Unknown),
        (desk.file("empty", b""), Unusable::Unknown),
    ] {
        let refused = sign(&path, TEXT, None).unwrap_err();
        assert!(matches!(&refused, SignError::Format(_, found) if *found == expected), "{refused}");
        assert!(refused.to_string().contains(&*path.to_string_lossy()), "{refused}");
    }
    let too_large = desk.file("large", &vec![b'-'; 70_000]);
    assert!(sign(&too_large, TEXT, None).unwrap_err().to_string().contains("65536 bytes"));
}

#[test]
fn private_keys_that_others_can_read_are_refused_as_ssh_keygen_refuses_them() {
    if !has("ssh-keygen", "private_keys_that_others_can_read_are_refused_as_ssh_keygen_refuses_them") {
        return;
    }
    let key = private();
    let desk = Desk::of(key.public_key());
    let path = desk.file("key", key.to_openssh(LineEnding::LF).unwrap().as_bytes());
    for mode in [0o600, 0o400, 0o700, 0o640, 0o604, 0o644, 0o620, 0o601, 0o610, 0o777] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let theirs = Command::new("ssh-keygen")
            .args(["-q", "-Y", "sign", "-n", NAMESPACE, "-f", "key"])
            .current_dir(&desk.folder)
            .stdin(std::fs::File::open(desk.folder.path().join("text")).unwrap())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        let ours = sign(&path, TEXT, None);
        assert_eq!(ours.is_ok(), theirs.success(), "{mode:o}");
        if let Err(refused) = ours {
            let said = refused.to_string();
            assert!(matches!(refused, SignError::Exposed { mode: named, .. } if named == mode), "{said}");
            assert!(said.contains("chmod 600") && said.contains(&*path.to_string_lossy()), "{said}");
        }
    }
}

/// A charter with this recipient of its first custodian.
fn charter_with(recipient: &str) -> Result<Charter, ceremonies::charter::CharterError> {
    let mut charter: toml::Table = std::fs::read_to_string(data("charter.toml")).unwrap().parse().unwrap();
    charter["backup"]["custodian"].as_array_mut().unwrap()[0]["recipient"] = recipient.into();
    Charter::parse(toml::to_string(&charter).unwrap().as_bytes())
}

/// Whether age encrypts to a recipient.
fn encrypts(folder: &Path, recipient: &str) -> bool {
    let status = Command::new("age")
        .args(["-r", recipient, "-o", "/dev/null", "signers"])
        .current_dir(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.unwrap().success()
}

#[test]
fn recipients_are_taken_as_age_takes_them() {
    if !has("age", "recipients_are_taken_as_age_takes_them") {
        return;
    }
    let desk = Desk::of(private().public_key());
    let good = age::x25519::Identity::generate().to_public().to_string();
    let point = |bytes: &[u8]| {
        let hrp = bech32::Hrp::parse("age").unwrap();
        bech32::encode::<bech32::Bech32>(hrp, bytes).unwrap()
    };
    // The last character before the check has four bits that belong to no byte.
    let padded: String = {
        let mut fives: Vec<Fe32> = [9; 32].into_iter().bytes_to_fes().collect();
        *fives.last_mut().unwrap() = Fe32::try_from(fives.last().unwrap().to_u8() | 1).unwrap();
        fives
            .into_iter()
            .with_checksum::<bech32::Bech32>(&bech32::Hrp::parse("age").unwrap())
            .chars()
            .collect()
    };
    let table = [
        good.clone(),
        good.to_uppercase(),
        format!("{good} "),
        good.replacen("age", "aGe", 1),
        point(&[0; 32]),
        point(&[&[1][..], &[0; 31]].concat()),
        point(&[9; 31]),
        point(&[9; 33]),
        padded,
        String::new(),
    ];
    for recipient in table {
        let taken = charter_with(&recipient);
        assert_eq!(taken.is_ok(), encrypts(desk.folder.path(), &recipient), "`{recipient}`");
    }
    let mut runner = TestRunner::new(Config::with_cases(CASES / 3));
    let done = runner.run(&(any::<Index>(), select(vec!['q', 'l', 'B', '1', ' ', 'é'])), |(at, other)| {
        let mut characters: Vec<char> = good.chars().collect();
        let at = at.index(characters.len());
        characters[at] = other;
        let recipient: String = characters.into_iter().collect();
        prop_assert_eq!(
            charter_with(&recipient).is_ok(),
            encrypts(desk.folder.path(), &recipient),
            "{}",
            recipient
        );
        Ok(())
    });
    done.unwrap();
}
