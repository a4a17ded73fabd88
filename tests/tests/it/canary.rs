//! Secrets stay in the enclaves. The test opens every sealed share with what only the laboratory's owner has, and
//! looks for pieces of what it finds in everything else: logs, stores, streams, bundles, sockets' folders.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aho_corasick::AhoCorasick;
use async_trait::async_trait;
use aws_credential_types::Credentials;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use ceremonies::attestation::Measurement;
use ceremonies::charter::CeremonyKind;
use ceremonies::ids::{CeremonyId, NodeIndex};
use ceremonies::wallet::{Record, Wallet};
use console::room::now;
use enclave::context::SealContext;
use enclave::kms::{Clock, Dial, Kms, KmsConfig, KmsError, KmsKeys, Stream};
use enclave::seal::SealedBlob;
use lab::cluster::Cluster;
use lab::drive::Room;
use lab::nsm::{DocumentSpec, LabRoot};
use node::store::Store;
use rustls::RootCertStore;
use tokio::net::TcpStream;

use crate::ceremonies::{PATIENCE, material, node, open, plan};

/// Length of a piece: too long to be anywhere by chance.
const PIECE: usize = 24;
/// Pieces of each share.
const PIECES: usize = 64;

struct Tcp(SocketAddr);

#[async_trait]
impl Dial for Tcp {
    async fn dial(&self) -> io::Result<Box<dyn Stream>> {
        Ok(Box::new(TcpStream::connect(self.0).await?))
    }
}

/// The KMS as an enclave with an allowed image sees it.
fn kms(cluster: &Cluster, room: &Room, keys: &Arc<KmsKeys>) -> Kms {
    let mut roots = RootCertStore::empty();
    roots.add(cluster.kms().root().certificate().clone()).unwrap();
    let rules = room.cluster.charter().kms();
    let config = KmsConfig {
        region: rules.region.clone(),
        host: rules.host.clone(),
        key: rules.key.clone(),
        roots,
        clock: Clock::new(now),
        connect_timeout: KmsConfig::CONNECT_TIMEOUT,
        call_deadline: KmsConfig::CALL_DEADLINE,
    };
    let lent = fs::read(cluster.layout().node(node(1)).join("aws.json")).unwrap();
    let lent: serde_json::Value = serde_json::from_slice(&lent).unwrap();
    let part = |name: &str| lent[name].as_str().unwrap().to_owned();
    let credentials = Credentials::from_keys(part("AccessKeyId"), part("SecretAccessKey"), None);
    Kms::new(config, Arc::clone(keys), Arc::new(Tcp(cluster.kms().addr())), credentials).unwrap()
}

/// What a node's sealed share holds, and the key it is sealed with, as an enclave with this image gets at them.
pub(crate) async fn secrets_of(
    cluster: &Cluster,
    room: &Room,
    wallet: &Wallet,
    holder: NodeIndex,
    image: &Measurement,
) -> Result<[Vec<u8>; 2], KmsError> {
    let record = &wallet.record;
    let url = format!("sqlite:{}", cluster.layout().node(holder).join("store.db").display());
    let stored = Store::open(&url).await.unwrap();
    let stored = stored.share(&record.wallet, record.generation, &record.digest()).await.unwrap().unwrap();
    let blob = SealedBlob::read(stored.blob, &wallet.blobs[&holder]).unwrap();
    let keys = Arc::new(KmsKeys::generate().unwrap());
    let module = LabRoot::open(&cluster.layout().folder().join("nsm")).unwrap();
    let document = module.sign(&DocumentSpec::new(image, now()).public_key(keys.spki_der())).unwrap();
    let context = SealContext {
        charter: room.cluster.charter().hash(),
        cluster: record.cluster.clone(),
        wallet: record.wallet.clone(),
        node: holder,
        generation: record.generation,
    };
    let key = kms(cluster, room, &keys).decrypt(document, blob.wrapped_key(), &context).await?;
    let share = blob.open(&context, &key.key).unwrap();
    Ok([key.key.to_vec(), share.to_vec()])
}

/// Pieces of the secrets that are in no public record, each as it is, in hex and in base64 at every offset.
fn marks(secrets: &[Vec<u8>], record: &Record) -> Vec<Vec<u8>> {
    let public =
        |piece: &&[u8]| !record.as_bytes().windows(8).any(|known| piece.windows(8).any(|own| own == known));
    let varied = |piece: &&[u8]| piece.iter().collect::<BTreeSet<_>>().len() > PIECE / 2;
    let mut marks = Vec::new();
    for secret in secrets {
        let step = (secret.len() / PIECES).max(1);
        for piece in secret.windows(PIECE).step_by(step).filter(public).filter(varied) {
            marks.push(piece.to_vec());
            marks.push(hex::encode(piece).into_bytes());
            for offset in 0..3 {
                marks.push(BASE64_STANDARD_NO_PAD.encode(&piece[offset..offset + 18]).into_bytes());
            }
        }
    }
    marks
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let kind = fs::symlink_metadata(&path).unwrap().file_type();
        if kind.is_dir() {
            files(&path, found);
        } else if kind.is_file() {
            found.push(path);
        }
    }
}

fn marked(folder: &Path, marks: &AhoCorasick) -> Vec<PathBuf> {
    let mut found = Vec::new();
    files(folder, &mut found);
    // The broker removes and renames files as it likes.
    found.retain(|file| fs::read(file).is_ok_and(|bytes| marks.is_match(&bytes)));
    found
}

/// Looks for every node's secrets of a wallet in all that a cluster has written, and in the bundle of its ceremony.
pub(crate) async fn no_secret_is_outside(cluster: &Cluster, room: &Room, dkg: &CeremonyId) {
    let wallet = room.ceremony(dkg).unwrap().committed().unwrap();
    let image = room.cluster.charter().attestation().measurements[0];
    let mut secrets = Vec::new();
    for of in cluster.nodes() {
        secrets.extend(secrets_of(cluster, room, &wallet, of, &image).await.unwrap());
    }
    let marks = marks(&secrets, &wallet.record);
    assert!(marks.len() > 100 * secrets.len(), "{} marks of {} secrets", marks.len(), secrets.len());
    let search = AhoCorasick::new(&marks).unwrap();
    let folder = cluster.layout().folder();
    assert_eq!(marked(folder, &search), Vec::<PathBuf>::new());
    assert!(!search.is_match(&material(room, dkg).bundle().unwrap()));

    // The search finds what is there to be found, in each writing.
    let planted = tempfile::tempdir().unwrap();
    let file = planted.path().join("deep/planted");
    fs::create_dir(planted.path().join("deep")).unwrap();
    for mark in &marks[..5] {
        fs::write(&file, [b"before ", mark.as_slice(), b" after"].concat()).unwrap();
        assert_eq!(marked(planted.path(), &search), std::slice::from_ref(&file));
    }
}

/// The processes that run this program.
fn processes_of(program: &Path) -> Vec<PathBuf> {
    let program = fs::canonicalize(program).unwrap();
    let processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    processes.filter(|process| fs::read_link(process.join("exe")).is_ok_and(|exe| exe == program)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_a_log_store_stream_or_bundle_and_no_enclave_leaves_a_core() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(&plan(folder.path(), 3, 2)).await.unwrap();
    let mut room = Room::enter(&cluster.layout().console(), PATIENCE).await.unwrap();
    let dkg = open(&room, CeremonyKind::Dkg, "treasury").await;
    room.lead_to_close(&dkg, PATIENCE, |_| ()).await.unwrap();
    // An enclave that opens its share again, and a session that fails while shares are in use.
    cluster.enclave(node(2)).unwrap().kill().await;
    let test = open(&room, CeremonyKind::TestSign, "treasury").await;
    room.lead_to_close(&test, PATIENCE, |_| ()).await.unwrap();
    no_secret_is_outside(&cluster, &room, &dkg).await;

    let processes = processes_of(&cluster.layout().enclave_program(node(1)));
    assert_eq!(processes.len(), 1, "{processes:?}");
    let limits = fs::read_to_string(processes[0].join("limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    cluster.stop().await;
}
