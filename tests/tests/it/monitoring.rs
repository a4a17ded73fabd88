//! Metrics, alerts and board, with Prometheus itself.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ceremonies::charter::CeremonyKind;
use lab::cluster::Cluster;
use lab::drive::Room;
use lab::fault::Fault;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::ceremonies::{PATIENCE, node, open, plan};

const LOOK: Duration = Duration::from_millis(250);

fn runbooks() -> PathBuf {
    lab::programs::workspace().join("runbooks")
}

/// Whether Prometheus is installed; CI must not go without.
fn is_installed() -> bool {
    let is_there = Command::new("promtool").arg("--version").output().is_ok();
    assert!(is_there || std::env::var_os("CI").is_none(), "Prometheus is not installed (Debian: prometheus)");
    is_there
}

/// The body of what an address answers to a GET.
async fn get(address: &str, path: &str) -> Option<String> {
    let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok()?;
    let answer = String::from_utf8(answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.lines().next()?.contains(" 200 ").then(|| body.to_owned())
}

/// A Prometheus with a configuration. It ends when it is dropped.
struct Prometheus {
    child: Child,
    address: String,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Prometheus {
    fn start(config: &Path, folder: &Path) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("prometheus").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, address }
    }

    async fn ask(&self, path: &str) -> Option<Value> {
        let answer: Value = serde_json::from_str(&get(&self.address, path).await?).ok()?;
        (answer["status"] == "success").then(|| answer["data"].clone())
    }

    async fn query(&self, expression: &str) -> Option<Value> {
        Some(
            self.ask(&format!("/api/v1/query?query={}", utf8_percent_encode(expression, NON_ALPHANUMERIC)))
                .await?["result"]
                .clone(),
        )
    }

    /// The alerts that fire: name, and the part and node that they name.
    async fn firing(&self) -> Option<BTreeSet<(String, String, String)>> {
        let alerts = self.ask("/api/v1/alerts").await?;
        let firing = alerts["alerts"].as_array()?.iter().filter(|alert| alert["state"] == "firing");
        let label = |alert: &Value, name: &str| alert["labels"][name].as_str().unwrap_or_default().to_owned();
        Some(firing.map(|a| (label(a, "alertname"), label(a, "part"), label(a, "node"))).collect())
    }

    /// Waits until so many nodes are scraped.
    async fn scrapes(&self, nodes: u32) {
        let begun = Instant::now();
        let scraped = format!("count(custody_build_info) == {nodes}");
        while self.query(&scraped).await.is_none_or(|found| found.as_array().is_none_or(Vec::is_empty)) {
            assert!(begun.elapsed() < PATIENCE, "not scraped");
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn until(&self, what: &str, is_so: impl Fn(&BTreeSet<(String, String, String)>) -> bool) {
        let begun = Instant::now();
        loop {
            let firing = self.firing().await;
            if firing.as_ref().is_some_and(&is_so) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{what}: {firing:?}");
            tokio::time::sleep(LOOK).await;
        }
    }
}

#[test]
fn alerts_are_valid_and_each_names_a_page_and_a_heading_of_the_runbooks() {
    if !is_installed() {
        return;
    }
    let rules = runbooks().join("monitoring/alerts.yml");
    let checked = Command::new("promtool").args(["check", "rules"]).arg(&rules).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let text = fs::read_to_string(&rules).unwrap();
    let alerts = text.lines().filter(|line| line.contains("- alert:")).count();
    let pages: Vec<&str> = text.lines().filter_map(|line| line.trim().strip_prefix("runbook: ")).collect();
    assert_eq!(pages.len(), alerts, "an alert without a runbook");
    for page in pages {
        let (file, anchor) = page.split_once('#').unwrap();
        let page_text = fs::read_to_string(runbooks().join(file)).unwrap();
        let headings = page_text.lines().filter_map(|line| line.strip_prefix("## "));
        let mut anchors = headings.map(|heading| {
            let kept = heading.chars().filter(|c| c.is_alphanumeric() || *c == ' ');
            kept.collect::<String>().to_lowercase().replace(' ', "-")
        });
        assert!(anchors.any(|known| known == anchor), "{page}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_fires_for_what_broke_and_nothing_else_and_ends_it_once_healed() {
    if !is_installed() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(&plan(folder.path(), 3, 2)).await.unwrap();
    let mut room = Room::enter(&cluster.layout().console(), PATIENCE).await.unwrap();
    let dkg = open(&room, CeremonyKind::Dkg, "treasury").await;
    room.lead_to_close(&dkg, PATIENCE, |_| ()).await.unwrap();

    let served = get(&cluster.metrics_of(node(2)).unwrap(), "/metrics").await.unwrap();
    for line in [
        "custody_part_works{node=\"2\",part=\"store\"} 1",
        "custody_peer_heard{node=\"2\",peer=\"3\"} 1",
        "custody_wallet_generation{node=\"2\",wallet=\"treasury\"} 1",
        "custody_charter_threshold{node=\"2\"} 2",
    ] {
        assert!(served.contains(line), "{line} is not in\n{served}");
    }
    let mut lint = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    lint.stdin.take().unwrap().write_all(served.as_bytes()).unwrap();
    let linted = lint.wait_with_output().unwrap();
    assert!(linted.status.success(), "{}", String::from_utf8_lossy(&linted.stderr));

    let prometheus = Prometheus::start(&cluster.layout().prometheus(), folder.path());
    prometheus.scrapes(3).await;
    let board: Value =
        serde_json::from_str(&fs::read_to_string(runbooks().join("monitoring/dashboard.json")).unwrap())
            .unwrap();
    for target in
        board["panels"].as_array().unwrap().iter().flat_map(|panel| panel["targets"].as_array().unwrap())
    {
        let expression = target["expr"].as_str().unwrap();
        assert!(prometheus.query(expression).await.is_some(), "{expression}");
    }

    cluster.strike(&Fault::BreakStore { node: node(2) }).await.unwrap();
    let broken = ("CustodyPartBroken".to_owned(), "store".to_owned(), "2".to_owned());
    prometheus.until("the store fires", |firing| firing.contains(&broken)).await;
    assert_eq!(prometheus.firing().await.unwrap(), [broken].into());
    cluster.strike(&Fault::Heal).await.unwrap();
    prometheus.until("healed", BTreeSet::is_empty).await;

    cluster.strike(&Fault::StopNode { node: node(3) }).await.unwrap();
    let is_down = |firing: &BTreeSet<(String, String, String)>| {
        firing.iter().map(|(name, ..)| name.as_str()).eq(["CustodyNodeDown"])
    };
    prometheus.until("the node fires", is_down).await;
    cluster.strike(&Fault::StopNode { node: node(1) }).await.unwrap();
    let cannot_sign = |firing: &BTreeSet<(String, String, String)>| {
        firing.iter().any(|(name, ..)| name == "CustodyCannotSign")
    };
    prometheus.until("the wallet fires", cannot_sign).await;
    cluster.strike(&Fault::Heal).await.unwrap();
    prometheus.until("healed", BTreeSet::is_empty).await;
    cluster.stop().await;
}
