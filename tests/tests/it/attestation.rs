//! The lab's security module: its documents verify exactly where they should, and say what the launcher
//! measured, whatever the enclave asks for.
#![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ceremonies::attestation::{
    AttestationError, EnclaveKeys, Expectation, MAX_NONCE, MAX_PUBLIC_KEY, MAX_USER_DATA, Measurement, Pcr,
    TrustRoot, check, parse_and_verify,
};
use ceremonies::ids::UnixMillis;
use enclave::attest::{AttestError, SecurityModule as _};
use enclave::shell::{BootError, Enclave};
use lab::kms::attested_under;
use lab::nsm::{DocumentSpec, LAB_BOOT, LabRoot, ModuleServer, measure, measure_bytes, register};
use lab_enclave::LabModule;
use rustls::RootCertStore;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

const NOW: UnixMillis = UnixMillis(1_795_000_000_000);
const GENUINE: &[u8] = include_bytes!("../../../ceremonies/tests/data/nitro-attestation-2025-01.cose");
const NONCE: &[u8] = b"the manifest's hash";
const KEYS: EnclaveKeys = EnclaveKeys { identity: [1; 32], sealing: [2; 32] };
const PROGRAM: &[u8] = b"an enclave program";
const ROOTS: [&[u8]; 2] = [b"attestation root", b"TLS root"];

fn root() -> (TempDir, LabRoot) {
    let dir = tempfile::tempdir().unwrap();
    let root = LabRoot::open(dir.path()).unwrap();
    (dir, root)
}

fn measured() -> Measurement {
    measure_bytes(PROGRAM, &ROOTS)
}

fn good() -> DocumentSpec {
    DocumentSpec::new(&measured(), NOW).nonce(NONCE).user_data(&KEYS.encode()).public_key(&[7; 294])
}

/// The verdict on a document of this root under `trusted`, expecting what [`good`] says.
fn verdict(root: &LabRoot, spec: &DocumentSpec, trusted: &TrustRoot) -> Result<(), AttestationError> {
    let allowed = [measured()];
    let expected =
        Expectation { root: trusted, allowed: &allowed, nonce: Some(NONCE), at: NOW, max_age_ms: 60_000 };
    let attested = check(&root.sign(spec).unwrap(), &expected)?;
    assert_eq!((attested.keys, attested.measurement), (KEYS, allowed[0]));
    Ok(())
}

#[test]
fn lab_document_verifies_under_its_own_root_alone() {
    let (_dir, root) = root();
    let (_other_dir, other) = self::root();
    assert_eq!(verdict(&root, &good(), root.trust()), Ok(()));
    for wrong in [&TrustRoot::aws_nitro_g1(), other.trust()] {
        assert!(matches!(verdict(&root, &good(), wrong), Err(AttestationError::Chain { .. })));
    }
}

#[test]
fn genuine_document_does_not_verify_in_the_lab() {
    let (_dir, root) = root();
    let error = parse_and_verify(GENUINE, root.trust()).unwrap_err();
    assert!(matches!(error, AttestationError::Chain { .. }), "{error}");
}

#[test]
fn forged_documents_are_refused_each_for_its_own_fault() {
    let (_dir, root) = root();
    let refusal = |spec: &DocumentSpec| verdict(&root, spec, root.trust()).unwrap_err();
    assert_eq!(refusal(&good().debug()), AttestationError::Debug(0));
    assert_eq!(refusal(&good().pcr(2, Pcr::from([0; 48]))), AttestationError::Debug(2));
    assert!(matches!(
        refusal(&good().pcr(1, Pcr::from([9; 48]))),
        AttestationError::Measurement { pcr: 1, .. }
    ));
    assert!(matches!(refusal(&good().nonce(b"another")), AttestationError::Nonce { .. }));
    for made in [NOW.plus(-60_001), NOW.plus(60_001)] {
        assert!(matches!(refusal(&good().timestamp(made)), AttestationError::Stale { .. }));
    }
    assert_eq!(refusal(&good().user_data(b"no keys")), AttestationError::Keys);
    assert_eq!(refusal(&DocumentSpec { public_key: None, ..good() }), AttestationError::NoPublicKey);
    assert!(matches!(
        refusal(&good().nonce(&[0; MAX_NONCE + 1])),
        AttestationError::Field { field: "nonce", .. }
    ));
    assert!(matches!(refusal(&good().module_id("")), AttestationError::Field { field: "module_id", .. }));
}

#[test]
fn lab_document_is_refused_when_altered() {
    let (_dir, root) = root();
    let bytes = root.sign(&good()).unwrap();
    for at in (0..bytes.len()).step_by(7) {
        let mut altered = bytes.clone();
        altered[at] ^= 1 << (at % 8);
        assert!(parse_and_verify(&altered, root.trust()).is_err(), "byte {at}");
    }
}

#[test]
fn document_of_any_time_carries_certificates_valid_then() {
    let (_dir, root) = root();
    for made in [UnixMillis(1), UnixMillis(1_000_000_000_000), NOW, UnixMillis(4_000_000_000_000)] {
        let bytes = root.sign(&good().timestamp(made)).unwrap();
        assert_eq!(parse_and_verify(&bytes, root.trust()).unwrap().timestamp, made);
    }
}

#[test]
fn kms_of_the_lab_reads_what_the_document_says() {
    let (_dir, root) = root();
    let bytes = root.sign(&good()).unwrap();
    let read = attested_under(root.trust().clone())(&bytes).unwrap();
    assert_eq!(read.pcrs[&0], *measured().pcr0.as_bytes());
    assert_eq!((read.public_key, read.timestamp), (vec![7; 294], NOW));
    assert!(attested_under(TrustRoot::aws_nitro_g1())(&bytes).is_err());
}

#[test]
fn measurement_follows_the_formula_of_aws() {
    // SHA384(0^48 ‖ SHA384("abc")), computed with stock tools.
    let abc =
        "93732e3733514a841c982cfa75ea76ab55fe011acb9cd980ef4523913c65be1b0998e04d77f8c174f81a82151619ca40";
    assert_eq!(register(b"abc").to_string(), abc);
    assert_eq!(measured().pcr0, register(PROGRAM));
    assert_eq!(measured().pcr1, register(LAB_BOOT));
}

#[test]
fn enclave_changed_by_one_byte_has_another_measurement() {
    let dir = tempfile::tempdir().unwrap();
    let [program, first, second] = ["enclave", "first.pem", "second.pem"].map(|name| dir.path().join(name));
    let measure_with = |contents: [&[u8]; 3]| {
        for (path, content) in [&program, &first, &second].into_iter().zip(contents) {
            fs::write(path, content).unwrap();
        }
        measure(&program, &[&first, &second]).unwrap()
    };
    let before = measure_with([PROGRAM, ROOTS[0], ROOTS[1]]);
    assert_eq!(before, measured());
    for at in 0..PROGRAM.len() {
        let mut changed = PROGRAM.to_vec();
        changed[at] ^= 1;
        let after = measure_with([&changed, ROOTS[0], ROOTS[1]]);
        assert_ne!(after.pcr0, before.pcr0, "byte {at}");
        assert_eq!((after.pcr1, after.pcr2), (before.pcr1, before.pcr2));
    }
    let moved = [&ROOTS[0][..15], b"tTLS root"];
    assert_eq!(moved.concat(), ROOTS.concat());
    for roots in [[ROOTS[0], b"another"], [b"another", ROOTS[1]], [ROOTS[1], ROOTS[0]], moved] {
        let after = measure_with([PROGRAM, roots[0], roots[1]]);
        assert_ne!(after.pcr2, before.pcr2);
        assert_eq!((after.pcr0, after.pcr1), (before.pcr0, before.pcr1));
    }
    fs::remove_file(&second).unwrap();
    assert!(measure(&program, &[&first, &second]).unwrap_err().to_string().contains("second.pem"));
}

#[test]
fn root_is_the_same_after_a_restart_and_its_key_is_the_owners_alone() {
    let (dir, root) = root();
    let again = LabRoot::open(dir.path()).unwrap();
    assert_eq!(again.trust(), root.trust());
    assert_eq!(verdict(&again, &good(), root.trust()), Ok(()));
    assert_eq!(&TrustRoot::from_pem(&fs::read(root.pem()).unwrap()).unwrap(), root.trust());
    let key = fs::metadata(dir.path().join("root.key")).unwrap();
    assert_eq!(key.permissions().mode() & 0o077, 0);
}

#[test]
fn root_refuses_files_that_are_broken_or_do_not_belong_together() {
    let (dir, root) = root();
    let (other, _root) = self::root();
    let error = |path: &Path| LabRoot::open(path).err().map(|error| format!("{error:#}")).unwrap();
    fs::copy(other.path().join("root.key"), dir.path().join("root.key")).unwrap();
    assert!(error(dir.path()).contains("are not a pair"));
    fs::write(root.pem(), b"-----BEGIN").unwrap();
    assert!(error(dir.path()).contains("root.pem"));
    fs::write(dir.path().join("root.key"), b"").unwrap();
    assert!(error(dir.path()).contains("root.key"));
}

/// A security module on a socket.
struct Module {
    dir: TempDir,
    socket: PathBuf,
    root: Arc<LabRoot>,
    server: ModuleServer,
}

impl Module {
    fn start() -> Self {
        let (dir, root) = root();
        let root = Arc::new(root);
        let socket = dir.path().join("module.sock");
        let server =
            ModuleServer::start_at(&socket, Arc::clone(&root), measured(), Arc::new(|| NOW)).unwrap();
        Self { dir, socket, root, server }
    }

    fn client(&self) -> LabModule {
        LabModule::Unix(self.socket.clone())
    }
}

#[tokio::test]
async fn enclave_gets_documents_with_its_own_words_and_the_launchers_measurement() {
    let module = Module::start();
    for nonce in [NONCE, b"", &[5; MAX_NONCE]] {
        let bytes = module.client().attest(nonce, &KEYS.encode(), &[7; 294]).await.unwrap();
        let allowed = [measured()];
        let root = module.root.trust();
        let expected = Expectation { root, allowed: &allowed, nonce: Some(nonce), at: NOW, max_age_ms: 0 };
        let attested = check(&bytes, &expected).unwrap();
        assert_eq!((attested.keys, attested.rsa_spki), (KEYS, vec![7; 294]));
    }
}

#[tokio::test]
async fn largest_question_that_aws_allows_is_answered() {
    let client = Module::start();
    let (nonce, data, key) = ([1; MAX_NONCE], [2; MAX_USER_DATA], [3; MAX_PUBLIC_KEY]);
    let bytes = client.client().attest(&nonce, &data, &key).await.unwrap();
    let document = parse_and_verify(&bytes, client.root.trust()).unwrap();
    assert_eq!(document.public_key.as_deref(), Some(&key[..]));
}

#[tokio::test]
async fn question_is_refused_when_a_part_is_too_long_or_the_key_is_missing() {
    let module = Module::start();
    let client = module.client();
    for (nonce, data, key, named) in [
        (MAX_NONCE + 1, 0, 1, "nonce"),
        (0, MAX_USER_DATA + 1, 1, "user data"),
        (0, 0, MAX_PUBLIC_KEY + 1, "public key"),
        (0, 0, 0, "public key"),
    ] {
        let refused = client.attest(&vec![0; nonce], &vec![0; data], &vec![0; key]).await;
        assert!(matches!(&refused, Err(AttestError::Refused(why)) if why.contains(named)), "{refused:?}");
    }
    let refused = client.attest(&[0; 5000], b"", &[1]).await;
    assert!(matches!(refused, Err(AttestError::Unreachable(_))), "{refused:?}");
}

#[tokio::test]
async fn other_process_is_refused_once_the_enclave_is_known() {
    let ask = async |module: &Module| module.client().attest(NONCE, &KEYS.encode(), &[7; 294]).await;
    let started_for = "only the enclave it was started for";
    let module = Module::start();
    module.server.admit_only(1);
    let refused = ask(&module).await;
    assert!(matches!(&refused, Err(AttestError::Refused(why)) if why.contains(started_for)), "{refused:?}");
    // Admitting somebody else later changes nothing.
    module.server.admit_only(std::process::id());
    assert!(ask(&module).await.is_err());

    let module = Module::start();
    module.server.admit_only(std::process::id());
    assert!(ask(&module).await.is_ok());
}

#[tokio::test]
async fn documents_carry_this_machines_time_where_no_other_clock_is_given() {
    let (dir, root) = root();
    let socket = dir.path().join("module.sock");
    let root = Arc::new(root);
    let _server = ModuleServer::start(&socket, Arc::clone(&root), measured()).unwrap();
    let before = jiff::Timestamp::now().as_millisecond();
    let bytes = LabModule::Unix(socket).attest(NONCE, b"", &[1]).await.unwrap();
    let made = parse_and_verify(&bytes, root.trust()).unwrap().timestamp;
    assert!((before..=jiff::Timestamp::now().as_millisecond()).contains(&made.0), "{made}");
}

#[tokio::test]
async fn module_started_again_takes_the_socket_over() {
    let Module { dir, socket, root, server } = Module::start();
    drop(server);
    let _server = ModuleServer::start(&socket, Arc::clone(&root), measured()).unwrap();
    assert!(LabModule::Unix(socket).attest(NONCE, b"", &[1]).await.is_ok());
    assert!(ModuleServer::start(dir.path(), root, measured()).is_err());
}

#[tokio::test]
async fn garbage_is_hung_up_on_and_the_next_question_answered() {
    let module = Module::start();
    for garbage in [&[0xff; 64][..], &[0, 0, 0, 2, 0xff, 0xff], &[0, 0, 0x10, 0x01]] {
        let mut stream = UnixStream::connect(&module.socket).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        let mut answer = Vec::new();
        // Closed with or without a reset, but without an answer.
        drop(stream.read_to_end(&mut answer).await);
        assert!(answer.is_empty());
    }
    assert!(module.client().attest(NONCE, b"", &[1]).await.is_ok());
}

#[tokio::test]
async fn missing_or_stopped_module_is_unreachable() {
    let nowhere = LabModule::Unix(PathBuf::from("/nonexistent/nsm.sock"));
    assert!(matches!(nowhere.attest(b"", b"", &[1]).await, Err(AttestError::Unreachable(_))));
    let Module { dir: _dir, socket, server, .. } = Module::start();
    drop(server);
    let stopped = LabModule::Unix(socket).attest(b"", b"", &[1]).await;
    assert!(matches!(stopped, Err(AttestError::Unreachable(_))), "{stopped:?}");
}

#[tokio::test]
async fn enclave_boots_under_the_labs_root_and_not_under_awss() {
    let module = Module::start();
    let boot = |root| Enclave::boot(Arc::new(module.client()), root, RootCertStore::empty());
    assert!(boot(module.root.trust().clone()).await.is_ok());
    let refused = boot(TrustRoot::aws_nitro_g1()).await.err().unwrap();
    assert!(matches!(refused, BootError::Document(AttestationError::Chain { .. })), "{refused}");
}
