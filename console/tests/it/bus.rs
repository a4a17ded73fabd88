//! The program on a bus: a broker on the loopback interface, and behind it the nodes of a charter, which say how they are
//! and answer what they are asked.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ceremonies::charter::Charter;
use ceremonies::deploy::subject::health;
use ceremonies::ids::{Hash, NodeIndex};
use ceremonies::said::{Topic, say};
use ceremonies::wire::{VERSION, bus};
use nkeys::KeyPair;
use prost::Message as _;
use serde_json::Value;

use crate::data;

const PATIENCE: Duration = Duration::from_mins(1);
/// How often each node says how it is.
const BEAT: Duration = Duration::from_millis(200);

/// The nodes, and what they list.
struct Nodes {
    charter: Charter,
    keys: BTreeMap<NodeIndex, KeyPair>,
    listed: Vec<&'static str>,
    /// Whether the broker passes anything on.
    is_frozen: AtomicBool,
}

impl Nodes {
    fn say(&self, topic: Topic, node: NodeIndex, body: Vec<u8>) -> Vec<u8> {
        say(self.charter.cluster(), topic, node, body, |bytes| self.keys[&node].sign(bytes)).unwrap()
    }

    fn heartbeat(&self, node: NodeIndex) -> Vec<u8> {
        let beat = bus::Heartbeat {
            version: VERSION,
            node: node.into(),
            time_ms: console::room::now().0,
            charter: self.charter.hash().as_bytes().to_vec(),
            store_trouble: "the disk is full".to_owned(),
            ..Default::default()
        };
        self.say(Topic::Heartbeat, node, beat.encode_to_vec())
    }

    fn answer(&self, subject: &str, request: &[u8]) -> Vec<u8> {
        let node = subject.rsplit('.').next().unwrap().parse().unwrap();
        let summary = |id: &&str| bus::Summary {
            ceremony: (*id).to_owned(),
            last_seq: 1,
            last_hash: Hash::ZERO.as_bytes().to_vec(),
            kind: "dkg".to_owned(),
            wallet: "treasury".to_owned(),
            ..Default::default()
        };
        let body = match subject.split('.').nth(1).unwrap() {
            "list" => {
                let summaries = self.listed.iter().map(summary).collect();
                bus::ListReply { summaries, more: false, left: 0 }.encode_to_vec()
            }
            "read" => bus::ReadReply { refusal: "no such ceremony".to_owned(), ..Default::default() }
                .encode_to_vec(),
            other => unreachable!("nobody is asked for {other}"),
        };
        self.say(Topic::answer_to(subject, request), node, body)
    }
}

/// Whether a subscription takes a subject.
fn takes(pattern: &str, subject: &str) -> bool {
    let (mut pattern, mut subject) = (pattern.split('.'), subject.split('.'));
    loop {
        match (pattern.next(), subject.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some(one), Some(other)) if one == "*" || one == other => {}
            _ => return false,
        }
    }
}

/// One client of the broker.
#[derive(Clone)]
struct Client {
    nodes: Arc<Nodes>,
    stream: Arc<Mutex<TcpStream>>,
    subscriptions: Arc<Mutex<Vec<(String, String)>>>,
}

impl Client {
    fn deliver(&self, subject: &str, payload: &[u8]) -> std::io::Result<()> {
        if self.nodes.is_frozen.load(Ordering::Relaxed) {
            return Ok(());
        }
        let subscriptions = self.subscriptions.lock().unwrap().clone();
        for (_, id) in subscriptions.iter().filter(|(pattern, _)| takes(pattern, subject)) {
            let head = format!("MSG {subject} {id} {}\r\n", payload.len());
            self.stream.lock().unwrap().write_all(&[head.as_bytes(), payload, b"\r\n"].concat())?;
        }
        Ok(())
    }

    fn beat(&self) {
        loop {
            for node in self.nodes.keys.keys() {
                if self.deliver(&health(*node), &self.nodes.heartbeat(*node)).is_err() {
                    return;
                }
            }
            std::thread::sleep(BEAT);
        }
    }

    fn serve(&self) -> std::io::Result<()> {
        let info = r#"{"server_id":"test","version":"2.11.0","proto":1,"headers":true,"max_payload":1048576,"nonce":"n"}"#;
        self.stream.lock().unwrap().write_all(format!("INFO {info}\r\n").as_bytes())?;
        let mut from = BufReader::new(self.stream.lock().unwrap().try_clone()?);
        let mut line = String::new();
        while from.read_line(&mut line)? > 0 {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["PING"] if !self.nodes.is_frozen.load(Ordering::Relaxed) => {
                    self.stream.lock().unwrap().write_all(b"PONG\r\n")?;
                }
                ["SUB", subject, .., id] => {
                    self.subscriptions.lock().unwrap().push(((*subject).to_owned(), (*id).to_owned()));
                }
                ["PUB" | "HPUB", subject, reply, sizes @ ..] => {
                    let size = |text: &&str| text.parse::<usize>().unwrap();
                    let (header, all) = match sizes {
                        [all] => (0, size(all)),
                        [header, all] => (size(header), size(all)),
                        _ => unreachable!("{line}"),
                    };
                    let mut payload = vec![0; all + 2];
                    from.read_exact(&mut payload)?;
                    let answer = self.nodes.answer(subject, &payload[header..all]);
                    self.deliver(reply, &answer)?;
                }
                _ => {}
            }
            line.clear();
        }
        Ok(())
    }
}

/// A broker with its nodes, and the cluster file of a console on it.
struct Bus {
    folder: tempfile::TempDir,
    nodes: Arc<Nodes>,
    clients: Arc<Mutex<Vec<TcpStream>>>,
    is_over: Arc<AtomicBool>,
    port: u16,
}

impl Bus {
    fn of_nodes_that_list(listed: &[&'static str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let console = KeyPair::new_user();
        let mut draft = Charter::parse(&std::fs::read(data("charter.toml")).unwrap()).unwrap().draft();
        draft.consoles[0].nkey = console.public_key();
        let mut keys = BTreeMap::new();
        for node in &mut draft.nodes {
            let key = KeyPair::new_user();
            node.nkey = key.public_key();
            keys.insert(node.index, key);
        }
        let charter = Charter::parse(draft.to_toml().unwrap().as_bytes()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("charter.toml", charter.text());
        write("seed", &console.seed().unwrap());
        std::fs::copy(data("root.pem"), folder.path().join("root.pem")).unwrap();
        write(
            "cluster.toml",
            &format!(
                "charter = \"charter.toml\"\nroot = \"root.pem\"\ncache = \"cache\"\n[nats]\n\
                 servers = [\"nats://127.0.0.1:{port}\"]\nseed = \"seed\"\n"
            ),
        );
        let is_frozen = AtomicBool::new(false);
        let nodes = Arc::new(Nodes { charter, keys, listed: listed.to_vec(), is_frozen });
        let bus = Self { folder, nodes, clients: Arc::default(), is_over: Arc::default(), port };
        let (nodes, clients, is_over) =
            (Arc::clone(&bus.nodes), Arc::clone(&bus.clients), Arc::clone(&bus.is_over));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                clients.lock().unwrap().push(stream.try_clone().unwrap());
                let stream = Arc::new(Mutex::new(stream));
                let client = Client { nodes: Arc::clone(&nodes), stream, subscriptions: Arc::default() };
                let beating = client.clone();
                std::thread::spawn(move || beating.beat());
                // Whoever hangs up has had enough.
                std::thread::spawn(move || drop(client.serve()));
            }
        });
        bus
    }

    /// Nothing comes over it any more, and nobody is told.
    fn freeze(&self) {
        self.nodes.is_frozen.store(true, Ordering::Relaxed);
    }

    /// Nobody listens at its address any more.
    fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        for client in self.clients.lock().unwrap().drain(..) {
            drop(client.shutdown(std::net::Shutdown::Both));
        }
    }

    fn custody(&self, arguments: &[&str]) -> Command {
        let file: PathBuf = self.folder.path().join("cluster.toml");
        let mut custody = Command::new(env!("CARGO_BIN_EXE_custody"));
        custody.arg("--cluster").arg(file).args(arguments).stdin(Stdio::null());
        custody
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        self.end();
    }
}

/// `custody status --watch`, report by report.
struct Watching {
    process: Child,
    reports: Receiver<Value>,
}

impl Drop for Watching {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

impl Watching {
    fn begin(bus: &Bus) -> Self {
        let mut custody = bus.custody(&["--json", "status", "--watch"]);
        let mut process = custody.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let output = process.stdout.take().unwrap();
        let (sender, reports) = channel();
        std::thread::spawn(move || {
            let reports = serde_json::Deserializer::from_reader(output).into_iter();
            for report in reports.map_while(Result::ok) {
                if sender.send(report).is_err() {
                    return;
                }
            }
        });
        Self { process, reports }
    }

    fn next(&self) -> Value {
        self.reports.recv_timeout(PATIENCE).unwrap()
    }

    /// Watches until the record is read and every node is known to be in this trouble.
    fn until(&self, check: &str) {
        loop {
            let report = self.next();
            if report["record_read"] == true && checks(&report).iter().all(|found| found == check) {
                return;
            }
        }
    }
}

/// What is wrong with each node of a report.
fn checks(report: &Value) -> Vec<String> {
    let nodes = report["nodes"].as_array().unwrap();
    nodes.iter().map(|node| node["check"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn first_report_to_a_watcher_after_the_bus_is_gone_says_that_it_is() {
    let bus = Bus::of_nodes_that_list(&[]);
    let watching = Watching::begin(&bus);
    watching.until("node-store");
    bus.end();
    let report = watching.next();
    assert_eq!(checks(&report), ["no-bus"; 5], "{report:#}");
    assert_eq!(report["nodes"][0]["summary"], "not known: the bus cannot be reached");
}

#[test]
fn watcher_of_a_bus_that_falls_silent_accuses_no_node_of_it() {
    let bus = Bus::of_nodes_that_list(&[]);
    let watching = Watching::begin(&bus);
    watching.until("node-store");
    bus.freeze();
    loop {
        let found = checks(&watching.next());
        if found.iter().all(|check| check == "all-silent") {
            return;
        }
        // Their last words came one after another.
        assert!(found.iter().all(|check| ["", "node-store"].contains(&check.as_str())), "{found:?}");
    }
}

fn refused(command: &mut Command) -> String {
    let Output { status, stderr, .. } = command.output().unwrap();
    let said = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(1), "{said}");
    said
}

#[test]
fn ceremony_or_wallet_that_is_not_there_is_answered_with_those_that_are() {
    for (listed, there_are) in [
        (&[][..], "the nodes list no ceremony"),
        (&["dkg-ops-1"], "there is ceremony dkg-ops-1"),
        (&["dkg-ops-1", "dkg-ops-2"], "there are ceremonies dkg-ops-1 and dkg-ops-2"),
    ] {
        let bus = Bus::of_nodes_that_list(listed);
        let said = refused(&mut bus.custody(&["ceremony", "show", "nope"]));
        assert!(said.contains(&format!("ceremony `nope` is not known here: {there_are}")), "{said}");
        assert!(!said.contains("usable answer"), "they all answered: {said}");
    }
    let bus = Bus::of_nodes_that_list(&[]);
    let said = refused(&mut bus.custody(&["wallet", "show", "nope"]));
    assert!(said.contains("wallet `nope` is not committed: there is no wallet yet"), "{said}");
}
