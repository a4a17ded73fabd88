//! The enclave's KMS client, the unmodified AWS SDK in it, against the lab's KMS over real sockets.

#![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

mod agent;

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use aws_credential_types::Credentials;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ceremonies::attestation::{Measurement, Pcr};
use ceremonies::deploy::kms_policy::key_policy;
use ceremonies::ids::{Generation, Hash, NodeIndex, UnixMillis};
use enclave::context::SealContext;
use enclave::kms::{Clock, Dial, Kms, KmsConfig, KmsError, KmsKeys, Stream};
use enclave::seal::{SealError, SealedBlob, seal};
use lab::kms::{Credential, LabKms, LabKmsConfig, LabRoot, VerifiedDocument, encrypt_to};
use rustls::RootCertStore;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

const HOST: &str = "kms.eu-central-1.lab.internal";
const REGION: &str = "eu-central-1";
const KEY: &str = "arn:aws:kms:eu-central-1:111122223333:key/5f0b1e1c-7b9a-4f0e-9a44-3d1d3a9ad0c1";
const ADMIN: &str = "arn:aws:iam::111122223333:role/custody-key-admin";
const NODE: &str = "arn:aws:iam::111122223333:role/custody-node";
const SECRET: &str = "lab/secret/of/node/one";
const NOW: i64 = 1_795_000_000_000;

/// Time that a test can move, for the enclave and the KMS alike.
#[derive(Clone)]
struct Time(Arc<AtomicI64>);

impl Time {
    fn now(&self) -> UnixMillis {
        UnixMillis(self.0.load(Ordering::SeqCst))
    }

    fn advance(&self, millis: i64) {
        self.0.fetch_add(millis, Ordering::SeqCst);
    }
}

struct Tcp(SocketAddr);

#[async_trait]
impl Dial for Tcp {
    async fn dial(&self) -> io::Result<Box<dyn Stream>> {
        Ok(Box::new(TcpStream::connect(self.0).await?))
    }
}

fn measurement(image: u8) -> Measurement {
    let pcr = |register: u8| Pcr::from([image * 16 + register; 48]);
    Measurement { pcr0: pcr(10), pcr1: pcr(11), pcr2: pcr(12), pcr8: None, until: None }
}

/// A stand-in for an attestation document, since only the KMS's own rules are under test here: the facts in JSON, and a
/// word in place of a signature.
fn document(image: u8, keys: &KmsKeys, made: UnixMillis) -> Vec<u8> {
    let pcrs: BTreeMap<_, _> =
        measurement(image).registers().map(|(index, pcr)| (index, pcr.to_string())).collect();
    let spki = BASE64_STANDARD.encode(keys.spki_der());
    json!({"signed": "by the test", "pcrs": pcrs, "spki": spki, "made": made}).to_string().into_bytes()
}

fn verify(document: &[u8]) -> Result<VerifiedDocument, String> {
    let document: Value = serde_json::from_slice(document).map_err(|error| error.to_string())?;
    if document["signed"] != "by the test" {
        return Err("not signed".to_owned());
    }
    let pcrs: BTreeMap<u8, Pcr> = serde_json::from_value(document["pcrs"].clone()).unwrap();
    Ok(VerifiedDocument {
        pcrs: pcrs.into_iter().map(|(index, pcr)| (index, *pcr.as_bytes())).collect(),
        public_key: BASE64_STANDARD.decode(document["spki"].as_str().unwrap()).unwrap(),
        timestamp: serde_json::from_value(document["made"].clone()).unwrap(),
    })
}

fn context() -> SealContext {
    SealContext {
        charter: Hash::of_bytes(b"charter"),
        cluster: "lab".parse().unwrap(),
        wallet: "treasury".parse().unwrap(),
        node: NodeIndex::new(1).unwrap(),
        generation: Generation::FIRST,
    }
}

/// One enclave, one KMS, and what lies between them.
struct Lab {
    dir: tempfile::TempDir,
    time: Time,
    keys: Arc<KmsKeys>,
    kms: LabKms,
}

impl Lab {
    async fn start() -> Self {
        Self::with_policy(key_policy(ADMIN, NODE, &[measurement(1)]).unwrap()).await
    }

    async fn with_policy(policy: Value) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let time = Time(Arc::new(AtomicI64::new(NOW)));
        let kms = LabKms::start(dir.path(), config(policy, &time)).await.unwrap();
        Self { dir, time, keys: Arc::new(KmsKeys::generate().unwrap()), kms }
    }

    fn client(&self) -> Kms {
        self.client_to(self.kms.addr(), "AKIDNODE1", SECRET)
    }

    fn client_to(&self, addr: SocketAddr, access_key_id: &str, secret: &str) -> Kms {
        let credentials = Credentials::from_keys(access_key_id, secret, Some("token".to_owned()));
        Kms::new(self.config(), Arc::clone(&self.keys), Arc::new(Tcp(addr)), credentials).unwrap()
    }

    fn client_with(&self, addr: SocketAddr, config: KmsConfig) -> Result<Kms, KmsError> {
        let credentials = Credentials::from_keys("AKIDNODE1", SECRET, Some("token".to_owned()));
        Kms::new(config, Arc::clone(&self.keys), Arc::new(Tcp(addr)), credentials)
    }

    fn config(&self) -> KmsConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.kms.root().certificate().clone()).unwrap();
        let time = self.time.clone();
        KmsConfig {
            region: REGION.to_owned(),
            host: HOST.to_owned(),
            key: KEY.to_owned(),
            roots,
            clock: Clock::new(move || time.now()),
            connect_timeout: KmsConfig::CONNECT_TIMEOUT,
            call_deadline: KmsConfig::CALL_DEADLINE,
        }
    }

    fn document(&self, image: u8) -> Vec<u8> {
        document(image, &self.keys, self.time.now())
    }

    /// The last decision's reason, which must have been a refusal.
    fn last_refusal(&self) -> String {
        let last = self.kms.audit().pop().unwrap();
        assert!(!last.allowed, "{last:?}");
        last.reason
    }
}

fn config(policy: Value, time: &Time) -> LabKmsConfig {
    let time = time.clone();
    LabKmsConfig {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        host: HOST.to_owned(),
        region: REGION.to_owned(),
        key_arn: KEY.to_owned(),
        policy,
        credentials: vec![Credential {
            access_key_id: "AKIDNODE1".to_owned(),
            secret_access_key: SECRET.to_owned(),
            session_token: Some("token".to_owned()),
            principal: NODE.to_owned(),
        }],
        verifier: Arc::new(verify),
        clock: Arc::new(move || time.now()),
    }
}

/// Somebody in the KMS's place who answers every call with `body`.
async fn answer_with(root: &LabRoot, body: Value) -> (SocketAddr, JoinHandle<()>) {
    let acceptor = TlsAcceptor::from(root.server_config(HOST).unwrap());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let body = body.to_string();
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = vec![0; 64 * 1024];
            let _ = stream.read(&mut request).await;
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/x-amz-json-1.1\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(head.as_bytes()).await;
            let _ = stream.write_all(body.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    (addr, task)
}

fn refused_as(result: Result<enclave::kms::DataKey, KmsError>, expected: &str) {
    match result {
        Err(KmsError::Refused { code, .. }) => assert_eq!(code, expected),
        Err(other) => panic_with(&other),
        Ok(_) => unreachable!("a key was given"),
    }
}

#[expect(clippy::panic, reason = "a test's way to show the whole error")]
fn panic_with(error: &KmsError) -> ! {
    panic!("{error}: {error:?}")
}

#[tokio::test]
async fn share_sealed_with_a_generated_key_opens_with_the_decrypted_one() {
    let lab = Lab::start().await;
    let client = lab.client();
    let data_key = client.generate_data_key(lab.document(1), &context()).await.unwrap();
    let sealed = seal(b"a share", &context(), &data_key).unwrap();

    let stored = SealedBlob::read(sealed.bytes().to_vec(), &sealed.digest()).unwrap();
    let again = client.decrypt(lab.document(1), stored.wrapped_key(), &context()).await.unwrap();
    assert_eq!(**stored.open(&context(), &again.key).unwrap(), *b"a share");

    let another = client.generate_data_key(lab.document(1), &context()).await.unwrap();
    assert_ne!(*another.key, *data_key.key);
    assert_eq!(stored.open(&context(), &another.key), Err(SealError::Opening));

    let audit = lab.kms.audit();
    let seen: Vec<_> = audit.iter().map(|record| (record.action.as_str(), record.allowed)).collect();
    assert_eq!(seen, [("kms:GenerateDataKey", true), ("kms:Decrypt", true), ("kms:GenerateDataKey", true)]);
    assert!(audit.iter().all(|record| record.principal.as_deref() == Some(NODE)));
    assert_eq!(audit[0].context["custody:wallet"], "treasury");
}

#[tokio::test]
async fn restarted_kms_keeps_its_root_and_its_key() {
    let lab = Lab::start().await;
    let data_key = lab.client().generate_data_key(lab.document(1), &context()).await.unwrap();
    let root = std::fs::read(lab.kms.root_pem()).unwrap();
    let Lab { dir, time, keys, kms } = lab;
    kms.stop().await;

    let policy = key_policy(ADMIN, NODE, &[measurement(1)]).unwrap();
    let kms = LabKms::start(dir.path(), config(policy, &time)).await.unwrap();
    assert_eq!(std::fs::read(kms.root_pem()).unwrap(), root);
    let lab = Lab { dir, time, keys, kms };
    let again = lab.client().decrypt(lab.document(1), &data_key.wrapped, &context()).await.unwrap();
    assert_eq!(*again.key, *data_key.key);
}

#[tokio::test]
async fn another_image_gets_no_key() {
    let lab = Lab::start().await;
    let data_key = lab.client().generate_data_key(lab.document(1), &context()).await.unwrap();
    refused_as(lab.client().generate_data_key(lab.document(2), &context()).await, "AccessDeniedException");
    assert!(lab.last_refusal().contains("kms:RecipientAttestation:PCR0"), "{}", lab.last_refusal());
    let opened = lab.client().decrypt(lab.document(2), &data_key.wrapped, &context()).await;
    refused_as(opened, "AccessDeniedException");
}

#[tokio::test]
async fn wrapped_key_opens_in_no_other_context_and_not_when_changed() {
    let lab = Lab::start().await;
    let client = lab.client();
    let data_key = client.generate_data_key(lab.document(1), &context()).await.unwrap();
    let others = [
        SealContext { charter: Hash::of_bytes(b"another"), ..context() },
        SealContext { cluster: "lab-2".parse().unwrap(), ..context() },
        SealContext { wallet: "savings".parse().unwrap(), ..context() },
        SealContext { node: NodeIndex::new(2).unwrap(), ..context() },
        SealContext { generation: Generation(2), ..context() },
    ];
    for other in others {
        let opened = client.decrypt(lab.document(1), &data_key.wrapped, &other).await;
        refused_as(opened, "InvalidCiphertextException");
    }
    for at in [0, 1, 33, data_key.wrapped.len() - 1] {
        let mut wrapped = data_key.wrapped.clone();
        wrapped[at] ^= 1;
        let opened = client.decrypt(lab.document(1), &wrapped, &context()).await;
        refused_as(opened, "InvalidCiphertextException");
    }
}

#[tokio::test]
async fn expired_unsigned_and_early_documents_are_refused() {
    let lab = Lab::start().await;
    let old = lab.document(1);
    lab.time.advance(5 * 60 * 1000 + 1);
    refused_as(lab.client().generate_data_key(old, &context()).await, "ValidationException");
    assert!(lab.last_refusal().contains("expired"), "{}", lab.last_refusal());

    let early = document(1, &lab.keys, lab.time.now().plus(5 * 60 * 1000 + 1));
    refused_as(lab.client().generate_data_key(early, &context()).await, "ValidationException");

    let unsigned = String::from_utf8(lab.document(1)).unwrap().replace("by the test", "by nobody");
    refused_as(
        lab.client().generate_data_key(unsigned.into_bytes(), &context()).await,
        "ValidationException",
    );
}

#[tokio::test]
async fn callers_without_the_right_credentials_are_nobody() {
    let lab = Lab::start().await;
    let addr = lab.kms.addr();
    let wrong_secret = lab.client_to(addr, "AKIDNODE1", "another secret");
    let answer = wrong_secret.generate_data_key(lab.document(1), &context()).await;
    refused_as(answer, "InvalidSignatureException");
    let unknown_key = lab.client_to(addr, "AKIDNODE2", SECRET);
    let answer = unknown_key.generate_data_key(lab.document(1), &context()).await;
    refused_as(answer, "UnrecognizedClientException");
    assert!(lab.kms.audit().iter().all(|record| record.principal.is_none()));
}

#[tokio::test]
async fn relay_in_the_place_of_the_kms_is_refused_by_its_certificate() {
    let lab = Lab::start().await;
    let other = tempfile::tempdir().unwrap();
    let imposter = LabRoot::open(other.path()).unwrap();
    let (addr, task) = answer_with(&imposter, json!({"KeyId": KEY})).await;
    let answer =
        lab.client_to(addr, "AKIDNODE1", SECRET).generate_data_key(lab.document(1), &context()).await;
    assert!(matches!(answer, Err(KmsError::Untrusted { .. })), "{:?}", answer.err());
    task.abort();
}

#[tokio::test]
async fn kms_of_another_name_is_refused_though_its_root_is_trusted() {
    let lab = Lab::start().await;
    let config = LabKmsConfig {
        host: "kms.us-east-1.lab.internal".to_owned(),
        ..config(key_policy(ADMIN, NODE, &[measurement(1)]).unwrap(), &lab.time)
    };
    let other = LabKms::start(lab.dir.path(), config).await.unwrap();
    let client = lab.client_to(other.addr(), "AKIDNODE1", SECRET);
    let answer = client.generate_data_key(lab.document(1), &context()).await;
    assert!(matches!(answer, Err(KmsError::Untrusted { .. })), "{:?}", answer.err());
}

#[tokio::test]
async fn answers_that_others_could_have_made_or_read_are_refused() {
    let lab = Lab::start().await;
    let b64 = |bytes: &[u8]| BASE64_STANDARD.encode(bytes);
    let others = KmsKeys::generate().unwrap();
    let ours = encrypt_to(lab.keys.spki_der(), &[1; 32]).unwrap();
    let theirs = encrypt_to(others.spki_der(), &[1; 32]).unwrap();
    let short = encrypt_to(lab.keys.spki_der(), &[1; 16]).unwrap();
    let good = json!({"KeyId": KEY, "CiphertextBlob": b64(&[1; 64]), "CiphertextForRecipient": b64(&ours)});
    let with = |field: &str, value: Value| {
        let mut answer = good.clone();
        answer[field] = value;
        answer
    };
    let cases = [
        (good.clone(), None),
        (with("Plaintext", json!(b64(&[1; 32]))), Some("plaintext")),
        (with("CiphertextForRecipient", Value::Null), Some("no ciphertext")),
        (with("CiphertextForRecipient", json!(b64(&theirs))), Some("not for this enclave's")),
        (with("CiphertextForRecipient", json!(b64(&short))), Some("does not open")),
        (with("CiphertextForRecipient", json!(b64(&[0; 5000]))), Some("5000 bytes")),
        (with("KeyId", json!(format!("{KEY}0"))), Some("other than the one requested")),
        (with("KeyId", Value::Null), Some("other than the one requested")),
        (with("CiphertextBlob", Value::Null), Some("0 bytes")),
        (with("CiphertextBlob", json!(b64(&[1; 6145]))), Some("6145 bytes")),
        (json!("no object"), Some("")),
        (json!({"filler": "x".repeat(70_000)}), Some("unreachable")),
    ];
    for (answer, expected) in cases {
        let (addr, task) = answer_with(lab.kms.root(), answer.clone()).await;
        let client = lab.client_to(addr, "AKIDNODE1", SECRET);
        let got = client.generate_data_key(lab.document(1), &context()).await;
        match (got, expected) {
            (Ok(data_key), None) => assert_eq!(*data_key.key, [1; 32]),
            (Err(KmsError::Malformed { what, .. }), Some(expected)) => {
                assert!(what.contains(expected), "{what} for {answer}");
            }
            (Err(KmsError::Unreachable { .. }), Some("unreachable")) => {}
            (Err(error), _) => panic_with(&error),
            (Ok(_), Some(expected)) => unreachable!("accepted: {expected}"),
        }
        task.abort();
    }
}

#[tokio::test]
async fn silent_and_absent_endpoints_end_in_time() {
    let lab = Lab::start().await;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let silent = listener.local_addr().unwrap();
    let (short, long) = (Duration::from_millis(50), Duration::from_mins(1));
    let call = async |connect_timeout, call_deadline| {
        let client = lab.client_with(silent, KmsConfig { connect_timeout, call_deadline, ..lab.config() });
        client.unwrap().generate_data_key(lab.document(1), &context()).await.err().unwrap()
    };
    let error = call(short, long).await;
    assert!(matches!(error, KmsError::Unreachable { .. }), "{error:?}");
    let error = call(long, short).await;
    assert!(matches!(error, KmsError::Deadline { .. }), "{error:?}");
    drop(listener);
    let error = call(long, long).await;
    assert!(matches!(error, KmsError::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn enclave_judges_certificates_by_its_own_clock() {
    let lab = Lab::start().await;
    // Before the certificate's time, and no time at all.
    for now in [0, -1] {
        let config = KmsConfig { clock: Clock::new(move || UnixMillis(now)), ..lab.config() };
        let client = lab.client_with(lab.kms.addr(), config).unwrap();
        let answer = client.generate_data_key(lab.document(1), &context()).await;
        assert!(matches!(answer, Err(KmsError::Untrusted { .. })), "{:?}", answer.err());
    }
}

#[tokio::test]
async fn enclave_is_answered_alone_even_where_the_policy_asks_for_no_attestation() {
    let open = json!({"Version": "2012-10-17", "Statement": {
        "Effect": "Allow", "Principal": "*", "Action": "kms:*", "Resource": "*",
    }});
    let lab = Lab::with_policy(open).await;
    assert!(lab.client().generate_data_key(lab.document(2), &context()).await.is_ok());
}

#[tokio::test]
async fn configuration_that_cannot_be_trusted_is_refused() {
    let lab = Lab::start().await;
    for bad in [
        KmsConfig { host: String::new(), ..lab.config() },
        KmsConfig { host: "not a host".to_owned(), ..lab.config() },
        KmsConfig { key: String::new(), ..lab.config() },
        KmsConfig { key: "alias/custody".to_owned(), ..lab.config() },
        KmsConfig { roots: RootCertStore::empty(), ..lab.config() },
    ] {
        let shown = format!("{bad:?}");
        assert!(matches!(lab.client_with(lab.kms.addr(), bad), Err(KmsError::Config(_))), "{shown}");
    }
    assert!(LabKms::start(lab.dir.path(), config(json!({}), &lab.time)).await.is_err());
}

#[tokio::test]
async fn key_may_be_named_by_its_id_alone() {
    let lab = Lab::start().await;
    let (_, id) = KEY.rsplit_once('/').unwrap();
    let client = lab.client_with(lab.kms.addr(), KmsConfig { key: id.to_owned(), ..lab.config() }).unwrap();
    let data_key = client.generate_data_key(lab.document(1), &context()).await.unwrap();
    assert!(client.decrypt(lab.document(1), &data_key.wrapped, &context()).await.is_ok());
}
