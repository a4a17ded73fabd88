//! The console through its public interface: what it shows, what keys do, what the program answers.

#![expect(clippy::wildcard_enum_match_arm, reason = "a test looks at the variants that it is about")]
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod again;
mod agent;
mod broadcast;
mod bus;
mod custodian;
mod drill;
mod file;
mod health;
mod hearing;
mod inventory;
mod keys;
mod live;
#[path = "../../../ceremonies/tests/it/machine.rs"]
mod machine;
mod named;
mod outdated;
mod paper;
mod program;
mod quotes;
mod readiness;
mod reading;
mod reference;
mod screens;
mod set_aside;
mod standing;
mod terminal;

use std::path::Path;

use ceremonies::ids::{NodeIndex, UnixMillis};
use ceremonies::log::Entry;
use ceremonies::record::Verdict;
use ceremonies::wire::log;
use console::client::Recorded;
use console::config::{Cluster, Me};
use console::fork::Fork;
use console::tui::{Model, Screen, Standing};
use prost::Message as _;

/// A moment in the recorded ceremony, after its last entry.
const NOW: UnixMillis = UnixMillis(1_795_265_820_000);

fn data(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn entries() -> Vec<Entry> {
    let bytes = std::fs::read(data("log.binpb")).unwrap();
    let mut bytes = bytes.as_slice();
    let mut entries = Vec::new();
    while !bytes.is_empty() {
        entries.push(Entry::from_wire(log::Entry::decode_length_delimited(&mut bytes).unwrap()).unwrap());
    }
    entries
}

fn cluster(folder: &Path) -> Cluster {
    let seed = "SUAA";
    std::fs::write(folder.join("seed"), seed).unwrap();
    let file = folder.join("cluster.toml");
    let text = format!(
        "charter = \"{}\"\nroot = \"{}\"\n[nats]\nservers = [\"nats://127.0.0.1:4222\"]\nseed = \"seed\"\n",
        data("charter.toml").display(),
        data("root.pem").display()
    );
    std::fs::write(&file, text).unwrap();
    let mut cluster = Cluster::load(&file).unwrap();
    cluster.folder = "/custody/lab".into();
    let people = ["administrator-1", "operator-1", "operator-2", "operator-3", "witness-1", "auditor-1"];
    cluster.me = people
        .iter()
        .map(|name| Me {
            identity: None,
            person: name.parse().unwrap(),
            role: name.rsplit_once('-').unwrap().0.parse().unwrap(),
            key: format!("/keys/{name}").into(),
        })
        .collect();
    cluster
}

fn nodes(indices: &[u8]) -> Vec<NodeIndex> {
    indices.iter().map(|index| NodeIndex::new(*index).unwrap()).collect()
}

/// Sets where nodes stand on the last entry of the open ceremony.
fn stand(model: &mut Model, verdict: &Verdict, fork: Option<Fork>) {
    let Some((id, head)) = model.ceremony().map(|open| (open.manifest().ceremony.clone(), open.head().hash))
    else {
        return;
    };
    let recorded = Recorded::new(verdict, 5);
    model.standings.insert(id, Standing { head, recorded, fork });
}

/// The terminal after the first `count` entries of the recorded ceremony, with that ceremony open.
fn model(count: usize) -> Model {
    let folder = tempfile::tempdir().unwrap();
    let mut model = Model::new(cluster(folder.path()), NOW, true);
    let entries: Vec<Entry> = entries().into_iter().take(count).collect();
    model.now = entries.last().map_or(NOW, |entry| entry.time);
    model.open = entries.first().map(|entry| entry.ceremony.clone());
    for entry in entries {
        model.book.take(entry).unwrap();
    }
    stand(&mut model, &Verdict::Recorded { by: nodes(&[1, 2, 3, 4]) }, None);
    model.loaded = true;
    model.connected = true;
    model.screen = Screen::Ceremonies;
    model
}
