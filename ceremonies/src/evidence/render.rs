//! The derived files of a bundle, for people and for stock tools.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{EvidenceError, Material};
use crate::ceremony::{Ceremony, Phase, Void};
use crate::chain::address::{BitcoinAddress, BitcoinNetwork, EthereumAddress, Network};
use crate::charter::{Charter, ClusterKind};
use crate::curve::{Signature, derive};
use crate::ids::Hash;
use crate::log::{Entry, Event};
use crate::statement::{Answer, NAMESPACE};
use crate::wallet::Object;
use crate::wallet::Record;
use crate::words;

pub(super) fn readme(ceremony: &Ceremony, material: &Material) -> String {
    let manifest = ceremony.manifest();
    let amended = match material.amendments.as_slice() {
        [] => "",
        _ => {
            "charter.toml is the cluster's first charter; amendments/ has the logs of the ceremonies that amended it\n\
             up to this one, which belong to what everything follows from.\n"
        }
    };
    let sent = match ceremony.signed_transaction() {
        None => "",
        Some(_) => {
            "signed-transaction.hex is what the network takes. broadcast.json says who sent it and in which block it\n\
             stands, or why it was not sent from there. No log proves a block: look it up with a node of your own.\n"
        }
    };
    let mut disputed = String::new();
    for signed in ceremony.disagreements() {
        let _ = writeln!(disputed, "DISPUTED: {} as {} says: {}.", signed.person, signed.role, signed.answer);
    }
    let heads = if material.heads.is_empty() {
        ""
    } else {
        "heads.binpb has what nodes signed of where they stand in the log, and branches.binpb what was once appended\n\
         beside it: they do not follow from the log, and the .jsonl beside each says the same for people. An entry\n\
         stays, whatever one node does, once half of the nodes and one more have locked it, or a later one, in one round.\n"
    };
    format!(
        "Evidence of ceremony {} ({}), cluster {} ({}).\n\
         It stands at: {}.\n{disputed}\
         Head: {}\n\
         Head in words: {}\n\n\
         Checking it whole, offline, with the console of Custody:\n\n\
         \x20   custody evidence verify BUNDLE.zip --kind {}\n\n\
         Checking it by hand, in the folder where it is unpacked:\n\n\
         \x20   sha256sum -c SHA256SUMS\n\
         \x20   for s in statements/*.sig; do\n\
         \x20     name=$(sed -n 's/^person: //p' \"${{s%.sig}}.txt\")\n\
         \x20     ssh-keygen -Y verify -f allowed_signers -I \"$name\" -n {NAMESPACE} -s \"$s\" < \"${{s%.sig}}.txt\"\n\
         \x20   done\n\n\
         log.binpb is the authority: the entries, each with its length before it, signed and chained by hash.\n\
         log.jsonl says the same for people. Every other file follows from the log, charter.toml and root.pem.\n\
         signatures.json holds digests, signatures (r, s and DER) for any ECDSA library, under the public key\n\
         in wallet.json (secp256k1, SEC1 compressed).\n{heads}{amended}{sent}",
        manifest.ceremony,
        manifest.kind,
        manifest.cluster,
        manifest.cluster_kind.to_uppercase(),
        phase(ceremony),
        ceremony.head().hash,
        words::spoken(&ceremony.head().hash),
        manifest.cluster_kind,
    )
}

/// The phase in the words that bundles have always had: those of earlier versions must still verify, byte for byte.
fn phase(ceremony: &Ceremony) -> String {
    let phase = ceremony.phase();
    if let Phase::Void(Void::Faulted { node, reason }) = &phase {
        format!("void: node {node} lost its enclave: {reason}")
    } else {
        phase.to_string()
    }
}

pub(super) fn sums(files: &BTreeMap<String, Vec<u8>>) -> String {
    let mut text = String::new();
    for (name, content) in files {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}  {name}", Hash::of_bytes(content));
    }
    text
}

pub(super) fn allowed_signers(charter: &Charter) -> Result<String, EvidenceError> {
    let mut text = String::new();
    for person in charter.people() {
        for key in &person.keys {
            let key = key.to_openssh().map_err(|_| EvidenceError::Render("allowed_signers"))?;
            let key = key.split(' ').take(2).collect::<Vec<_>>().join(" ");
            let _ = writeln!(text, "{} namespaces=\"{NAMESPACE}\" {key}", person.name);
        }
    }
    Ok(text)
}

fn pretty(name: &'static str, value: &Value) -> Result<Vec<u8>, EvidenceError> {
    let mut bytes = serde_json::to_vec_pretty(value).map_err(|_| EvidenceError::Render(name))?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// The paths whose addresses a bundle shows.
const PATHS: [&str; 2] = ["m", "m/0/0"];

/// Addresses for any BIP-32 library to compare: of the wallet's own key and of its first child.
fn addresses(record: &Record, kind: ClusterKind) -> Result<Vec<Value>, EvidenceError> {
    let failed = || EvidenceError::Render("wallet.json");
    let bitcoin = match kind {
        ClusterKind::Production => BitcoinNetwork::Main,
        ClusterKind::Rehearsal => BitcoinNetwork::Testnet,
        ClusterKind::Lab => BitcoinNetwork::Regtest,
    };
    let address = |path: &str| -> Option<Value> {
        let key = derive(&record.public_key, &record.chain_code, &path.parse().ok()?).ok()?.public_key;
        Some(json!({
            "path": path,
            "public_key": key.to_string(),
            "ethereum": EthereumAddress::of(&key).ok()?.to_string(),
            Network::Bitcoin(bitcoin).to_string(): BitcoinAddress::of(bitcoin, &key).to_string(),
        }))
    };
    PATHS.iter().map(|path| address(path).ok_or_else(failed)).collect()
}

pub(super) fn wallet(record: &Record, kind: ClusterKind) -> Result<Vec<u8>, EvidenceError> {
    let shares: BTreeMap<String, String> =
        record.public_shares.iter().map(|(node, point)| (node.to_string(), point.to_string())).collect();
    pretty(
        "wallet.json",
        &json!({
            "wallet": record.wallet,
            "generation": record.generation,
            "curve": "secp256k1",
            "public_key": record.public_key.to_string(),
            "chain_code": record.chain_code,
            "threshold": record.threshold,
            "public_shares": shares,
            "record": record.digest(),
            "words": words::spoken(&record.fingerprint()),
            "addresses": addresses(record, kind)?,
        }),
    )
}

pub(super) fn signatures(ceremony: &Ceremony) -> Result<Vec<u8>, EvidenceError> {
    let complete = ceremony.tests().iter().filter(|test| ceremony.counts(test));
    let rendered: Vec<Value> = complete
        .map(|test| {
            let signature = Signature { r: test.r, s: test.s, recovery_id: test.recovery_id };
            let der = signature.to_der().map_err(|_| EvidenceError::Render("signatures.json"))?;
            Ok(json!({
                "subset": test.subset,
                "attempt": test.attempt,
                "input": test.input,
                "session": test.session,
                "digest": test.digest,
                "r": hex::encode(test.r),
                "s": hex::encode(test.s),
                "v": test.recovery_id,
                "der": hex::encode(der),
            }))
        })
        .collect::<Result<_, EvidenceError>>()?;
    pretty("signatures.json", &Value::Array(rendered))
}

/// Where every backup lies, and whether it was proven to restore.
pub(super) fn backups(ceremony: &Ceremony) -> Result<Vec<u8>, EvidenceError> {
    let object = |object: &Object| {
        json!({
            "key": object.key,
            "version": object.version,
            "sha256": object.digest,
            "locked_until": object.locked_until.to_string(),
        })
    };
    let backups = ceremony.backups().values().map(|backup| {
        json!({
            "node": backup.node,
            "proven": ceremony.proved_nodes().contains(&backup.node),
            "whole": object(&backup.whole),
            "root": object(&backup.root),
        })
    });
    pretty("backups.json", &Value::Array(backups.collect()))
}

/// Whether the signed transaction was sent, and where it stands: who said what, and when.
pub(super) fn broadcast(ceremony: &Ceremony) -> Result<Vec<u8>, EvidenceError> {
    let said = ceremony.said_of_broadcast().map(|signed| {
        let mut said = json!({
            "person": signed.person,
            "role": signed.role,
            "time": signed.time.to_string(),
            "answer": signed.answer.to_string(),
        });
        if let Answer::Broadcast(confirmation) = &signed.answer {
            said["block"] = json!(confirmation.block());
            said["height"] = json!(confirmation.height);
        }
        said
    });
    let said: Vec<Value> = said.collect();
    let id = ceremony.transaction_id().map(|id| id.to_string());
    pretty("broadcast.json", &json!({ "transaction": id, "said": said }))
}

/// An entry for people and for programs that watch: what `log.jsonl` says of it.
#[must_use]
pub fn line(entry: &Entry) -> Value {
    json!({
        "seq": entry.seq,
        "hash": entry.hash(),
        "prev": entry.prev,
        "time": entry.time.to_string(),
        "time_ms": entry.time,
        "appended_by": entry.node,
        "event": event(&entry.event),
    })
}

pub(super) fn log(name: &'static str, entries: &[Entry]) -> Result<Vec<u8>, EvidenceError> {
    let mut bytes = Vec::new();
    for entry in entries {
        serde_json::to_writer(&mut bytes, &line(entry)).map_err(|_| EvidenceError::Render(name))?;
        bytes.push(b'\n');
    }
    Ok(bytes)
}

/// An event for people.
fn event(event: &Event) -> Value {
    match event {
        Event::Opened { manifest, .. } => {
            let mut opened = json!({
                "kind": manifest.kind,
                "wallet": manifest.wallet,
                "generation": manifest.generation,
                "purpose": manifest.purpose,
                "administrator": manifest.administrator,
                "expires": manifest.expires.to_string(),
                "manifest": manifest.hash(),
                "charter": manifest.charter,
                "script": manifest.script_hash,
            });
            if let Some(charter) = manifest.amendment() {
                opened["new_charter"] = json!(charter.hash());
            }
            if let Some(transaction) = manifest.transaction() {
                opened["transaction"] = json!(transaction.words());
            }
            if !manifest.lost().is_empty() {
                opened["lost"] = json!(manifest.lost());
            }
            if !manifest.inventory().is_empty() {
                opened["inventory"] = json!(manifest.inventory());
            }
            json!({ "opened": opened })
        }
        Event::Attested { node, document } => {
            json!({ "attested": { "node": node, "document_sha256": Hash::of_bytes(document) } })
        }
        Event::Signed { step, role, person, answer, .. } => json!({
            "signed": { "step": step, "role": role, "person": person, "answer": answer.to_string() }
        }),
        Event::Prepared { node, record, blob, .. } => json!({
            "prepared": { "node": node, "record": Record::digest_of(record), "sealed_share_sha256": blob }
        }),
        Event::BackedUp(backed_up) => {
            let object = |object: &Object| {
                json!({
                    "key": object.key,
                    "version": object.version,
                    "sha256": object.digest,
                    "locked_until": object.locked_until.to_string(),
                })
            };
            json!({
                "backed_up": {
                    "node": backed_up.node,
                    "whole": object(&backed_up.whole),
                    "root": object(&backed_up.root),
                }
            })
        }
        Event::Proved { node, object, point, .. } => {
            json!({ "proved": { "node": node, "backup_sha256": object, "public_share": point.to_string() } })
        }
        Event::Recovered { node, .. } => json!({ "recovered": { "node": node } }),
        Event::Staged { node, record, blob, .. } => json!({
            "staged": { "node": node, "record": Record::digest_of(record), "sealed_share_sha256": blob }
        }),
        Event::Retired { node, record, .. } => json!({ "retired": { "node": node, "record": record } }),
        Event::Adopted { node, record } => json!({ "adopted": { "node": node, "record": record } }),
        Event::TestSigned(signed) => json!({
            "test_signed": {
                "node": signed.node,
                "subset": signed.subset,
                "attempt": signed.attempt,
                "session": signed.session,
                "r": hex::encode(signed.r),
                "s": hex::encode(signed.s),
                "v": signed.recovery_id,
            }
        }),
        Event::Aborted(aborted) => json!({
            "aborted": {
                "node": aborted.node,
                "subset": aborted.subset,
                "attempt": aborted.attempt,
                "reason": aborted.reason,
                "culprit": aborted.culprit,
                "banned": aborted.banned,
            }
        }),
        Event::Faulted { node, reason } => json!({ "faulted": { "node": node, "reason": reason } }),
        Event::Withdrawn { person, role, reason, .. } => {
            json!({ "withdrawn": { "person": person, "role": role, "reason": reason } })
        }
    }
}
