//! Holes in what the broker and the stores give back: flipped bits, copies of an older day, and two brokers at once.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ceremonies::ceremony::{Ceremony, Phase};
use ceremonies::charter::{CeremonyKind, Role};
use ceremonies::ids::CeremonyId;
use ceremonies::log::{Entry, Event};
use ceremonies::script::Act;
use ceremonies::statement::Answer;
use console::room::{self, Signature, now};
use lab::attack::Host;
use lab::cluster::Cluster;
use lab::drive::Room;
use lab::service::{Launched, Launcher, Service, logged};
use node::store::Store;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, copy};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::ceremonies::{PATIENCE, node, open};
use crate::record::{HEALED, cluster, heartbeat, of_one_mind};

const ALL: [u8; 5] = [1, 2, 3, 4, 5];
/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Has a node's agent connect to this broker from now on.
async fn point(cluster: &Cluster, index: u8, url: &str) {
    let agent = cluster.agent(node(index)).unwrap();
    agent.hold().await;
    let file = cluster.layout().node(node(index)).join("node.toml");
    let lines = fs::read_to_string(&file).unwrap();
    let lines = lines.lines().map(|line| match line.strip_prefix("servers = ") {
        Some(_) => format!("servers = [\"{url}\"]\n"),
        None => format!("{line}\n"),
    });
    fs::write(&file, lines.collect::<String>()).unwrap();
    agent.resume().await;
}

/// The entries that the nodes have seen on other branches.
async fn aside(cluster: &Cluster) -> usize {
    let mut count = 0;
    for index in ALL {
        let store = Store::open(&cluster.store_url(node(index))).await.unwrap();
        count += store.aside().await.unwrap().len();
    }
    count
}

/// What comes before a message of the stream in the broker's answer.
const FIELD: &[u8] = br#""data":""#;

/// A proxy to the broker that, on request, flips a bit in a message from the stream.
struct Flipper {
    url: String,
    flips: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Flipper {
    async fn before(broker: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("nats://{}", listener.local_addr().unwrap());
        let broker = broker.trim_start_matches("nats://").to_owned();
        let flips = Arc::new(AtomicBool::new(false));
        let flip = Arc::clone(&flips);
        let task = tokio::spawn(async move {
            while let Ok((agent, _)) = listener.accept().await {
                let Ok(broker) = TcpStream::connect(&broker).await else { continue };
                let ((mut from_agent, to_agent), (from_broker, mut to_broker)) =
                    (agent.into_split(), broker.into_split());
                tokio::spawn(async move { copy(&mut from_agent, &mut to_broker).await });
                tokio::spawn(relay(from_broker, to_agent, Arc::clone(&flip)));
            }
        });
        Self { url, flips, task }
    }

    fn flip_one(&self) {
        self.flips.store(true, Ordering::SeqCst);
    }

    async fn flipped(&self) {
        let begun = Instant::now();
        while self.flips.load(Ordering::SeqCst) {
            assert!(begun.elapsed() < PATIENCE, "the stream gave nothing to flip");
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// Where the base64 of a message of the stream is in the broker's answer, if it is one.
fn data(answer: &[u8]) -> Option<Range<usize>> {
    let start = FIELD.len() + answer.windows(FIELD.len()).position(|found| found == FIELD)?;
    let length = answer[start..].iter().position(|byte| *byte == b'"')?;
    (length > 0).then_some(start..start + length)
}

/// Passes on what the broker sends, message by message.
async fn relay(from: OwnedReadHalf, mut to: OwnedWriteHalf, flips: Arc<AtomicBool>) -> std::io::Result<()> {
    let mut from = BufReader::new(from);
    loop {
        let mut line = Vec::new();
        if from.read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        let words = String::from_utf8_lossy(&line).trim_end().to_owned();
        let words: Vec<&str> = words.split(' ').collect();
        let size = |place: usize| words.get(words.len() - place)?.parse::<usize>().ok();
        let total = if matches!(words[0], "MSG" | "HMSG") { size(1) } else { None };
        if let Some(total) = total {
            let mut message = vec![0; total + 2];
            from.read_exact(&mut message).await?;
            if let Some(data) = data(&message)
                && flips.swap(false, Ordering::SeqCst)
            {
                let middle = &mut message[usize::midpoint(data.start, data.end)];
                *middle = if *middle == b'A' { b'B' } else { b'A' };
            }
            line.extend(message);
        }
        to.write_all(&line).await?;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn flipped_bits_in_read_answers_make_no_fork() {
    let folder = tempfile::tempdir().unwrap();
    let (cluster, mut room) = cluster(folder.path()).await;
    let flipper = Flipper::before(&cluster.nats_url()).await;
    point(&cluster, 2, &flipper.url).await;
    let id = open(&room, CeremonyKind::Dkg, "treasury").await;
    let mut log = Vec::new();
    for act in [Act::Approve, Act::ReadBack, Act::Close] {
        flipper.flip_one();
        room.lead_to(&id, act, PATIENCE).await.unwrap();
        flipper.flipped().await;
        let longer = of_one_mind(&cluster, &ALL, &id, log.len() + 1).await;
        assert_eq!(longer[..log.len()], log[..]);
        log = longer;
    }
    room.lead_to_close(&id, PATIENCE, |_| ()).await.unwrap();
    assert!(room.wait_recorded(&id, HEALED).await.unwrap().recorded);
    assert_eq!(aside(&cluster).await, 0, "a node has seen a fork");
    flipper.task.abort();
    cluster.stop().await;
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        let to = to.join(file.file_name());
        if file.file_type().unwrap().is_dir() {
            copy_folder(&file.path(), &to);
        } else {
            fs::copy(file.path(), to).unwrap();
        }
    }
}

fn streams(cluster: &Cluster) -> PathBuf {
    cluster.layout().folder().join("nats/streams")
}

fn store_files(folder: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    files.filter(|file| file.file_name().unwrap().to_string_lossy().starts_with("store.db")).collect()
}

/// Does this while no agent and no broker runs.
async fn while_all_are_down(cluster: &Cluster, change: impl FnOnce()) {
    for index in ALL {
        cluster.agent(node(index)).unwrap().hold().await;
    }
    cluster.broker().hold().await;
    change();
    cluster.broker().resume().await;
    for index in ALL {
        cluster.agent(node(index)).unwrap().resume().await;
    }
}

/// Copies all stores and the stream.
async fn copy_all(cluster: &Cluster, to: &Path) {
    while_all_are_down(cluster, || {
        copy_folder(&streams(cluster), &to.join("streams"));
        for index in ALL {
            let copy = to.join(index.to_string());
            fs::create_dir_all(&copy).unwrap();
            for file in store_files(&cluster.layout().node(node(index))) {
                fs::copy(&file, copy.join(file.file_name().unwrap())).unwrap();
            }
        }
    })
    .await;
}

/// Rolls the stream and the stores of these nodes back to the copy.
async fn set_back(cluster: &Cluster, copy: &Path, nodes: &[u8]) {
    while_all_are_down(cluster, || {
        fs::remove_dir_all(streams(cluster)).unwrap();
        copy_folder(&copy.join("streams"), &streams(cluster));
        for index in nodes {
            let folder = cluster.layout().node(node(*index));
            for file in store_files(&folder) {
                fs::remove_file(file).unwrap();
            }
            copy_folder(&copy.join(index.to_string()), &folder);
        }
    })
    .await;
}

/// What `custody` warns of.
fn warnings(cluster: &Cluster, arguments: &[&str]) -> Vec<String> {
    let custody = lab::programs::folder().unwrap().join("custody");
    let output =
        Command::new(custody).arg("--cluster").arg(cluster.layout().console()).args(arguments).output();
    let said = String::from_utf8(output.unwrap().stderr).unwrap();
    said.lines().filter(|line| line.starts_with("WARNING: ")).map(str::to_owned).collect()
}

/// Waits until what `custody` warns of is as asked.
async fn warns(cluster: &Cluster, arguments: &[&str], until: impl Fn(&[String]) -> bool) {
    let begun = Instant::now();
    loop {
        let said = warnings(cluster, arguments);
        if until(&said) {
            return;
        }
        assert!(begun.elapsed() < HEALED, "{arguments:?} warns of {said:?}");
        tokio::time::sleep(LOOK).await;
    }
}

/// A ceremony of which a copy was made, and that then went on: its log, and how many entries of it the copy has.
async fn went_on_after_a_copy(
    cluster: &Cluster,
    room: &mut Room,
    copy: &Path,
) -> (CeremonyId, Vec<Entry>, usize) {
    let id = open(room, CeremonyKind::Dkg, "treasury").await;
    room.lead_to(&id, Act::Confirm, PATIENCE).await.unwrap();
    let before = of_one_mind(cluster, &ALL, &id, 6).await.len();
    copy_all(cluster, copy).await;
    assert!(room.wait_recorded(&id, HEALED).await.unwrap().recorded);
    room.lead_to(&id, Act::Approve, PATIENCE).await.unwrap();
    assert!(room.wait_recorded(&id, HEALED).await.unwrap().recorded);
    let log = of_one_mind(cluster, &ALL, &id, before + 1).await;
    assert_eq!(warnings(cluster, &["ceremony", "show", id.as_str()]), [""; 0]);
    (id, log, before)
}

#[tokio::test(flavor = "multi_thread")]
async fn stores_and_stream_that_are_set_back_are_noticed_by_a_console_that_had_seen_more() {
    let folder = tempfile::tempdir().unwrap();
    let copy = tempfile::tempdir().unwrap();
    let (cluster, mut room) = cluster(folder.path()).await;
    let (id, _, before) = went_on_after_a_copy(&cluster, &mut room, copy.path()).await;

    set_back(&cluster, copy.path(), &ALL).await;
    assert_eq!(of_one_mind(&cluster, &ALL, &id, 1).await.len(), before);
    for command in [vec!["ceremony", "show", id.as_str()], vec!["ceremony", "list"]] {
        warns(&cluster, &command, |said| {
            let all = "nodes 1, 2, 3, 4, 5 show an older log";
            matches!(said, [line] if line.contains(all) && line.contains("somebody rolled stores back"))
        })
        .await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_that_knows_more_gives_it_back() {
    let folder = tempfile::tempdir().unwrap();
    let copy = tempfile::tempdir().unwrap();
    let (cluster, mut room) = cluster(folder.path()).await;
    let (id, log, _) = went_on_after_a_copy(&cluster, &mut room, copy.path()).await;

    set_back(&cluster, copy.path(), &[1, 2, 3, 4]).await;
    let after = of_one_mind(&cluster, &ALL, &id, log.len()).await;
    assert_eq!(after[..log.len()], log[..]);
    assert!(room.wait_recorded(&id, HEALED).await.unwrap().recorded);
    warns(&cluster, &["ceremony", "show", id.as_str()], <[String]>::is_empty).await;
    stands_in_the_stream(&cluster, &id, &log).await;
    room.lead_to_close(&id, PATIENCE, |_| ()).await.unwrap();
    cluster.stop().await;
}

/// Waits until the stream has all of these entries.
async fn stands_in_the_stream(cluster: &Cluster, id: &CeremonyId, log: &[Entry]) {
    let host = Host::with_credentials_of(cluster, node(3)).await.unwrap();
    let begun = Instant::now();
    loop {
        let there = in_stream(&host).await;
        if log.iter().all(|entry| there.contains(&entry.encode())) {
            return;
        }
        let lacks = log.iter().filter(|entry| !there.contains(&entry.encode())).map(|entry| entry.seq);
        let lacks: Vec<u64> = lacks.collect();
        assert!(begun.elapsed() < HEALED, "the stream lacks entries {lacks:?} of {id}");
        tokio::time::sleep(LOOK).await;
    }
}

/// The messages that the broker gives of the stream, one by one.
async fn in_stream(host: &Host) -> Vec<Vec<u8>> {
    let ask = |subject: &'static str, request: String| async move {
        let answer = host.client().request(subject, request.into()).await;
        answer.map(|answer| (answer.status.is_none(), answer.payload.to_vec())).unwrap_or_default()
    };
    let (_, info) = ask("$JS.API.STREAM.INFO.CEREMONIES", "{}".to_owned()).await;
    let info: serde_json::Value = serde_json::from_slice(&info).unwrap_or_default();
    let mut there = Vec::new();
    for seq in 1..=info["state"]["last_seq"].as_u64().unwrap_or_default() {
        let (is_there, payload) = ask("$JS.API.DIRECT.GET.CEREMONIES", format!("{{\"seq\":{seq}}}")).await;
        if is_there {
            there.push(payload);
        }
    }
    there
}

/// The files in which the broker keeps messages.
fn blocks(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for file in fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        if path.is_dir() {
            found.extend(blocks(&path));
        } else if path.extension().is_some_and(|ending| ending == "blk") {
            found.push(path);
        }
    }
    found
}

/// A ceremony whose log is in the stream, where the disk has since flipped a bit in an entry.
async fn struck(cluster: &Cluster, room: &mut Room) -> (CeremonyId, Vec<Entry>) {
    let id = open(room, CeremonyKind::Dkg, "treasury").await;
    room.lead_to(&id, Act::Approve, PATIENCE).await.unwrap();
    let log = of_one_mind(cluster, &ALL, &id, 7).await;
    stands_in_the_stream(cluster, &id, &log).await;
    cluster.broker().hold().await;
    let struck = log[3].encode();
    let flips = |block: &PathBuf| {
        let mut bytes = fs::read(block).unwrap();
        let place = bytes.windows(struck.len()).position(|window| window == struck);
        let Some(place) = place else { return false };
        bytes[place + struck.len() / 2] ^= 1;
        fs::write(block, bytes).unwrap();
        true
    };
    assert_eq!(blocks(&streams(cluster)).iter().filter(|block| flips(block)).count(), 1);
    (id, log)
}

#[tokio::test(flavor = "multi_thread")]
async fn bit_flipped_in_a_block_of_the_stream_hides_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (cluster, mut room) = cluster(folder.path()).await;
    let (id, log) = struck(&cluster, &mut room).await;
    cluster.broker().resume().await;

    // What the broker has dropped, the nodes give back; whoever reads the stream anew finds all of it.
    heartbeat(&room, 3, |heartbeat| heartbeat.stream_trouble.is_empty()).await;
    stands_in_the_stream(&cluster, &id, &log).await;
    cluster.lose(node(4)).await.unwrap();
    let after = of_one_mind(&cluster, &ALL, &id, log.len()).await;
    assert_eq!(after[..log.len()], log[..]);
    assert_eq!(aside(&cluster).await, 0, "a node has seen a fork");
    let next = open(&room, CeremonyKind::Dkg, "savings").await;
    room.lead_to(&next, Act::Approve, PATIENCE).await.unwrap();
    assert!(room.wait_recorded(&next, HEALED).await.unwrap().recorded);
    cluster.stop().await;
}

fn is_void(ceremony: &Ceremony) -> bool {
    matches!(ceremony.phase_at(now()), Phase::Void(_))
}

fn free_port() -> u16 {
    std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// A second broker with a copy of the first one's streams.
async fn second_broker(cluster: &Cluster) -> (Service, String) {
    let (folder, port) = (cluster.layout().folder().to_owned(), free_port());
    cluster.broker().hold().await;
    copy_folder(&streams(cluster), &folder.join("nats/streams-2"));
    cluster.broker().resume().await;
    let address = format!("127.0.0.1:{port}");
    let first = cluster.nats_url();
    let config = fs::read_to_string(folder.join("nats/nats.conf")).unwrap();
    let config = config.replace(first.trim_start_matches("nats://"), &address);
    let store = streams(cluster).display().to_string();
    assert!(config.contains(&address) && config.contains(&store), "{config}");
    let file = folder.join("nats/nats-2.conf");
    fs::write(&file, config.replace(&store, &format!("{store}-2"))).unwrap();
    let program = lab::broker::nats_server(&cluster.layout().tools()).unwrap();
    let launcher: Launcher = Arc::new(move || {
        let log = folder.join("nats/nats-2.log");
        let child = logged(&program, &log)?.arg("--config").arg(&file).spawn()?;
        Ok(Launched { child, companion: None })
    });
    (Service::start("second broker".to_owned(), launcher).unwrap(), format!("nats://{address}"))
}

/// A console at another broker, with a memory of its own.
async fn room_at(cluster: &Cluster, url: &str) -> Room {
    let console = fs::read_to_string(cluster.layout().console()).unwrap();
    let console = console.replace(&cluster.nats_url(), url).replace("\"cache\"", "\"cache-2\"");
    let file = cluster.layout().folder().join("cluster-2.toml");
    fs::write(&file, console).unwrap();
    Room::enter(&file, PATIENCE).await.unwrap()
}

/// Signs where too few nodes answer for a receipt of a quorum.
async fn signs_before_a_few(room: &mut Room, id: &CeremonyId, role: Role, step: &str, answer: Answer) {
    room.look(id).await.unwrap();
    let person = room.people(role).next().unwrap().clone();
    let signature = Signature::by(&person, step.parse().unwrap(), answer);
    let signed = room::sign(&room.client, &room.book, id, &signature, &person.key, None).await;
    match signed {
        Ok(receipt) => assert!(!receipt.recorded().recorded, "{receipt}"),
        Err(error) => assert!(error.to_string().contains("do not sign again"), "{error}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_brokers_then_one() {
    let folder = tempfile::tempdir().unwrap();
    let (cluster, mut room) = cluster(folder.path()).await;
    let id = open(&room, CeremonyKind::Dkg, "treasury").await;
    room.lead_to(&id, Act::Confirm, PATIENCE).await.unwrap();
    let before = of_one_mind(&cluster, &ALL, &id, 6).await;
    let step = room.ceremony(&id).unwrap().current_step().unwrap().id.to_string();

    let (second, url) = second_broker(&cluster).await;
    for index in [4, 5] {
        point(&cluster, index, &url).await;
    }
    let mut elsewhere = room_at(&cluster, &url).await;
    signs_before_a_few(&mut room, &id, Role::Witness, &step, Answer::None).await;
    let end = Answer::Withdraw("stop".parse().unwrap());
    signs_before_a_few(&mut elsewhere, &id, Role::Operator, "withdraw", end).await;
    let left = of_one_mind(&cluster, &[1, 2, 3], &id, before.len() + 1).await;
    let right = of_one_mind(&cluster, &[4, 5], &id, before.len() + 1).await;
    assert_ne!(left[before.len()], right[before.len()], "two brokers, two branches");
    elsewhere.wait(&id, HEALED, is_void).await.unwrap();

    second.stop().await;
    for index in [4, 5] {
        point(&cluster, index, &cluster.nats_url()).await;
    }
    room.wait(&id, HEALED, is_void).await.unwrap();
    assert!(room.wait_recorded(&id, HEALED).await.unwrap().recorded);
    let log = of_one_mind(&cluster, &ALL, &id, before.len() + 2).await;
    assert_eq!(log[..before.len()], before[..]);
    assert!(log.iter().any(|entry| matches!(entry.event, Event::Withdrawn { .. })));
    // The agents fold what they stored: each of them tells a console the same phase.
    let mut again = Room::enter(&cluster.layout().console(), PATIENCE).await.unwrap();
    again.wait(&id, HEALED, is_void).await.unwrap();
    cluster.stop().await;
}
