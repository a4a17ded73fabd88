//! The console's frame with 20 nodes and 10,000 entries.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use ceremonies::attestation::heartbeat_nonce;
use ceremonies::charter::{CeremonyKind, Role};
use ceremonies::ids::{Hash, NodeIndex, UnixMillis};
use ceremonies::log::{Entry, EntryError, Place};
use ceremonies::statement::Answer;
use ceremonies::wire::{bus, log};
use console::client::News;
use console::config::{Cluster, Me};
use console::health::Moment;
use console::room::{self, LIFETIME_MS, Opening, Signature, Topic};
use console::signer;
use console::tui::{Event as TuiEvent, Model, Screen, update, view};
use lab::cluster::{Plan, Programs, found};
use lab::nsm::{DocumentSpec, LabRoot};
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use crate::report::Report;

const NODES: u8 = 20;
/// Each has two entries: its opening and its withdrawal.
const CEREMONIES: usize = 5_000;
const FRAMES: u32 = 50;

/// A cluster on paper: nothing of it runs.
struct Paper {
    cluster: Cluster,
    agent: nkeys::KeyPair,
    root: LabRoot,
    now: UnixMillis,
}

impl Paper {
    fn found(folder: &Path) -> Self {
        let program = folder.join("program");
        std::fs::write(&program, b"an enclave program that is only measured").unwrap();
        let layout = found(&Plan {
            folder: folder.join("cluster"),
            nodes: NODES,
            threshold: 3,
            stores: BTreeMap::new(),
            programs: Programs { node: program.clone(), enclave: program },
            machines: None,
        })
        .unwrap();
        let seed =
            std::fs::read_to_string(layout.node(NodeIndex::new(1).unwrap()).join("nats.seed")).unwrap();
        Self {
            cluster: Cluster::load(&layout.console()).unwrap(),
            agent: nkeys::KeyPair::from_seed(seed.trim()).unwrap(),
            root: LabRoot::open(&layout.folder().join("nsm")).unwrap(),
            now: room::now(),
        }
    }

    fn entry(&self, before: Option<&Entry>, ceremony: &str, event: log::Event) -> Entry {
        let place = Place {
            ceremony: ceremony.parse().unwrap(),
            seq: before.map_or(1, |entry| entry.seq + 1),
            prev: before.map_or(Hash::ZERO, Entry::hash),
            time: self.now,
            node: NodeIndex::new(1).unwrap(),
        };
        Entry::create(place, event, |message| Ok::<_, EntryError>(self.agent.sign(message).unwrap())).unwrap()
    }

    fn administrator(&self) -> &Me {
        self.cluster.me.iter().find(|me| me.role == Role::Administrator).unwrap()
    }

    /// A ceremony that was opened and withdrawn.
    fn ceremony(&self, model: &mut Model) {
        let me = self.administrator();
        let opening = Opening {
            topic: Topic::of(CeremonyKind::Dkg, "treasury".parse().unwrap()),
            purpose: "a bench".parse().unwrap(),
            administrator: me.person.clone(),
            lifetime_ms: LIFETIME_MS,
        };
        let (manifest, statement) = room::prepare(&model.book, &opening).unwrap();
        let signature = signer::sign(&me.key, &statement, None).unwrap();
        let id = manifest.ceremony.clone();
        let first = self.entry(None, id.as_str(), room::opened(&manifest, signature));
        model.book.take(first.clone()).unwrap();
        let withdraw =
            Signature::by(me, "withdraw".parse().unwrap(), Answer::Withdraw("a bench".parse().unwrap()));
        let statement = withdraw.statement(&model.book.get(&id).unwrap().ceremony, model.now).unwrap();
        let signature = signer::sign(&me.key, &statement, None).unwrap();
        model.book.take(self.entry(Some(&first), id.as_str(), withdraw.event(signature))).unwrap();
        model.open = Some(id);
    }

    fn heartbeat(&self, node: u32) -> bus::Heartbeat {
        let measurement = self.cluster.charter().attestation().measurements[0];
        let keys = enclave::session::BootKeys::generate().public();
        let nonce = heartbeat_nonce(self.cluster.charter().cluster(), NodeIndex::try_from(node).unwrap());
        let spec = DocumentSpec::new(&measurement, self.now)
            .user_data(&keys.encode())
            .public_key(&[1; 294])
            .nonce(nonce.as_bytes());
        let document = self.root.sign(&spec).unwrap();
        let peers = (1..=u32::from(NODES)).filter(|peer| *peer != node);
        bus::Heartbeat {
            version: 1,
            node,
            time_ms: self.now.0,
            build: "bench".to_owned(),
            charter: self.cluster.charter().hash().as_bytes().to_vec(),
            enclave: Some(bus::EnclaveHealth { document, ..Default::default() }),
            peers: peers.map(|node| bus::PeerHealth { node, ..Default::default() }).collect(),
            ..Default::default()
        }
    }
}

/// Times every screen.
pub(crate) fn frames(report: &mut Report) {
    let folder = tempfile::tempdir().unwrap();
    let paper = Paper::found(folder.path());
    let mut model = Model::new(paper.cluster.clone(), paper.now, true);
    model.loaded = true;
    for _ in 0..CEREMONIES {
        paper.ceremony(&mut model);
    }
    let heartbeats: Vec<_> = (1..=u32::from(NODES)).map(|node| paper.heartbeat(node)).collect();
    for heartbeat in &heartbeats {
        update(&mut model, TuiEvent::News(News::Health(Box::new(heartbeat.clone()))));
    }
    let healthy = model.health().nodes.iter().filter(|node| node.image.is_some()).count();
    assert_eq!(healthy, heartbeats.len(), "{:?}", model.health().nodes[0].attestation);
    let entries: usize = model.book.iter().map(|(_, chapter)| chapter.entries.len()).sum();
    let size: usize = heartbeats.iter().map(prost::Message::encoded_len).sum();
    let bench = format!("frames of a console with {healthy} nodes and {entries} entries, 160×50");
    report.put(&bench, "heartbeats of all nodes", size as f64, "bytes");
    let mut terminal = Terminal::new(TestBackend::new(160, 50)).unwrap();
    let last = model.open.take();
    for (screen, open) in
        Screen::ALL.map(|screen| (screen, None)).into_iter().chain([(Screen::Ceremonies, last)])
    {
        let title = if open.is_some() { "one ceremony" } else { screen.title() };
        (model.screen, model.open) = (screen, open);
        let begun = Instant::now();
        for number in 0..FRAMES {
            let heartbeat = heartbeats[usize::try_from(number).unwrap() % heartbeats.len()].clone();
            update(&mut model, TuiEvent::News(News::Health(Box::new(heartbeat))));
            update(&mut model, TuiEvent::Tick(Moment { wall: paper.now, steady: Instant::now() }));
            terminal
                .draw(|frame| {
                    view(&model, frame);
                })
                .unwrap();
        }
        let frame = begun.elapsed().as_secs_f64() * 1000.0 / f64::from(FRAMES);
        report.put_beside(&bench, title, frame, "ms a frame with its heartbeat", "< 16");
    }
}
