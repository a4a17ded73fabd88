//! Drills as they are held in a lab: broken, shown, mended, reported, and never left broken.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use ceremonies::charter::Role;
use clap::Parser;
use console::drill::Drill;
use lab::cluster::Cluster;
use lab::control;
use lab::fault::Fault;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::ceremonies::node;
use crate::consoles::{custody, run};
use crate::faults::{Console, with_wallet};

/// The words of `cargo lab fault`.
#[derive(Parser)]
struct Words {
    #[command(subcommand)]
    fault: Fault,
}

#[test]
fn every_drill_orders_what_the_lab_understands_by_the_same_words() {
    for name in Drill::names() {
        let drill = Drill::named(name).unwrap();
        for fault in [drill.fault, drill.mend] {
            let words = fault.to_string();
            let typed = Words::try_parse_from(["fault"].into_iter().chain(words.split(' '))).unwrap().fault;
            let ordered = fault.order();
            let ordered: Fault = serde_json::from_str(ordered.strip_prefix("fault ").unwrap()).unwrap();
            assert_eq!(ordered, typed, "{name}: {words}");
        }
    }
}

fn drill(cluster: &Path, arguments: &[&str]) -> Result<String, String> {
    run(cluster, &[&["--json", "drill"], arguments].concat(), None)
}

/// Holds a drill that meets its targets, and returns the file of its report.
fn is_met(cluster: &Path, name: &str, person: Option<&str>) -> PathBuf {
    let signs: Vec<&str> = person.iter().flat_map(|person| ["--person", person]).collect();
    let held = drill(cluster, &[&["run", name], signs.as_slice()].concat()).unwrap();
    let held: Value = serde_json::from_str(&held).unwrap();
    let (report, expected) = (&held["report"], Drill::named(name).unwrap());
    let took = |index: usize| report["stages"][index]["ms"].as_u64().unwrap();
    let within = |index: usize, seconds: u32| assert!(took(index) <= u64::from(seconds) * 1000, "{report:#}");
    within(0, expected.target_s.detect);
    within(2, expected.target_s.service);
    within(3, expected.target_s.redundancy);
    assert!(took(0) > 0 && took(3) > 0, "{report:#}");
    assert_eq!(report["shown"]["check"], expected.check.id());
    assert_eq!(report["shown"]["node"], 2);
    assert_eq!((&report["met"], &report["failed"]), (&Value::Bool(true), &Value::Null));
    assert_eq!(held["signed_by"].as_str(), person);
    let heard = |index: usize, end: &str| report["stages"][index][end]["1"].as_i64().unwrap();
    assert!(heard(0, "heard_before") < heard(0, "heard_at_end"), "{report:#}");
    PathBuf::from(held["file"].as_str().unwrap())
}

/// A drill that somebody stops once something is broken is mended and has failed.
fn is_stopped(cluster: &Path, name: &str) {
    let mut held = custody()
        .arg("--cluster")
        .arg(cluster)
        .args(["drill", "run", name])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(held.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("broken: ")));
    let process = rustix::process::Pid::from_child(&held);
    rustix::process::kill_process(process, rustix::process::Signal::INT).unwrap();
    let told: Vec<String> = lines.collect();
    assert!(told.contains(&"FAILED: stopped by a signal".to_owned()), "{told:?}");
    let ended = held.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(1));
    let complaint = String::from_utf8(ended.stderr).unwrap();
    assert!(complaint.contains("the drill ended early, and is mended"), "{complaint}");
}

/// A drill that people break and mend, in the midst of which no other begins.
async fn is_held_by_hand(cluster: &Cluster, file: &Path) {
    let mut held = custody()
        .arg("--cluster")
        .arg(file)
        .args(["drill", "run", "node-stopped", "--by-hand"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut hand = held.stdin.take().unwrap();
    let mut lines = BufReader::new(held.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.starts_with("press Enter")));
    cluster.strike(&Fault::StopNode { node: node(2) }).await.unwrap();
    hand.write_all(b"\n").unwrap();
    assert!(lines.any(|line| line.contains("shown as node-silent")));
    let second = drill(file, &["run", "enclave-frozen"]).unwrap_err();
    assert!(second.contains("another drill is being held"), "{second}");
    let elsewhere = file.with_file_name("reports");
    let elsewhere = ["--reports", elsewhere.to_str().unwrap()];
    let none = drill(file, &[&["run", "--all"][..], &elsewhere].concat()).unwrap_err();
    assert!(none.contains("drill node-stopped: the cluster is not well"), "{none}");
    let unwell = drill(file, &[&["run", "enclave-frozen"][..], &elsewhere].concat()).unwrap_err();
    assert!(
        unwell.contains("the cluster is not well") && unwell.contains("node 2: not heard from"),
        "{unwell}"
    );
    cluster.strike(&Fault::Heal).await.unwrap();
    hand.write_all(b"\n").unwrap();
    let told: Vec<String> = lines.collect();
    assert!(told.contains(&"every target was met".to_owned()), "{told:?}");
    assert!(held.wait().unwrap().success());
}

/// A report that is signed stands for itself, here and with `ssh-keygen`, until somebody changes it.
fn stands_until_it_is_changed(cluster: &Path, signed: &Path, person: &str) {
    let listed = run(cluster, &["drill", "report"], None).unwrap();
    let lines: Vec<&str> = listed.lines().collect();
    assert!(lines[1].contains("enclave-frozen") && lines[1].ends_with("met  [unsigned]"), "{listed}");
    assert!(
        lines[2].contains("node-stopped") && lines[2].contains(&format!("[signed by {person}]")),
        "{listed}"
    );
    let charted = lines.iter().filter(|line| line.contains("; target 60 s"));
    assert_eq!(charted.count(), 2, "{listed}");

    let folder = cluster.parent().unwrap();
    let key = std::fs::read_to_string(folder.join("people").join(person).with_extension("pub")).unwrap();
    std::fs::write(folder.join("signers"), format!("{person} {key}\n")).unwrap();
    let verified = Command::new("ssh-keygen")
        .args(["-Y", "verify", "-n", "custody-drill", "-I", person, "-f"])
        .arg(folder.join("signers"))
        .arg("-s")
        .arg(signed.with_added_extension("sig"))
        .stdin(std::fs::File::open(signed).unwrap())
        .stdout(Stdio::null())
        .status();
    assert!(verified.unwrap().success());

    let text = std::fs::read_to_string(signed).unwrap();
    std::fs::write(signed, text.replacen("\"ms\": ", "\"ms\": 1", 1)).unwrap();
    let is_bad = || {
        let refused = run(cluster, &["drill", "report"], None).unwrap_err();
        assert!(
            refused.contains("the signature is BAD of ") && refused.contains("node-stopped"),
            "{refused}"
        );
    };
    is_bad();
    std::fs::write(signed, "no report any more").unwrap();
    is_bad();
}

#[tokio::test(flavor = "multi_thread")]
async fn drill_is_held_timed_signed_and_mended_and_begins_only_where_all_is_well() {
    let folder = tempfile::tempdir().unwrap();
    let (cluster, room) = with_wallet(folder.path()).await;
    let cluster = Arc::new(cluster);
    let stop = CancellationToken::new();
    let listening = control::listen(Arc::clone(&cluster), stop.clone()).unwrap();
    let file = cluster.layout().console();
    let person = room.people(Role::Auditor).next().unwrap().person.to_string();
    let mut console = Console::at(&room).await;
    console.is_well().await;

    let signed = is_met(&file, "node-stopped", Some(&person));
    console.is_well().await;
    is_met(&file, "enclave-frozen", None);
    console.is_well().await;
    is_stopped(&file, "enclave-frozen");
    stands_until_it_is_changed(&file, &signed, &person);

    let nobody = drill(&file, &["run", "node-stopped", "--person", "nobody-1"]).unwrap_err();
    assert!(nobody.contains("nobody-1 is not in the charter"), "{nobody}");
    let alone = drill(&file, &["run", "node-stopped", "--by-hand"]).unwrap_err();
    assert!(alone.contains("nobody is there to press Enter"), "{alone}");
    is_held_by_hand(&cluster, &file).await;
    console.is_well().await;

    stop.cancel();
    listening.await.unwrap();
    Arc::into_inner(cluster).unwrap().stop().await;
}
