//! Drills: what counts as shown, as service and as whole again, and who stands for a report.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ceremonies::attestation::AWS_NITRO_G1_FINGERPRINT;
use ceremonies::charter::{ClusterKind, Person};
use ceremonies::ids::{Generation, NodeIndex, UnixMillis};
use ceremonies::statement::{SignatureError, verify};
use console::checks::Check;
use console::config::{Cluster, ConfigError};
use console::drill::{
    Course, Drill, NAMESPACE, NotSigned, Patience, Programs, Report, Stage, Start, Turn, chart, signer,
};
use console::health::{Health, Level, NodeStatus};
use console::readiness::{Answer, Held, Readiness};
use console::signer::{sign, sign_in};
use console::waiting::Waiting;
use proptest::prelude::*;
use ssh_key::private::Ed25519Keypair;
use ssh_key::{LineEnding, PrivateKey};

use crate::data;

/// When the fault is injected, in milliseconds of these tests' clock.
const INJECTED: u64 = 10_000;

fn node(index: u8) -> NodeIndex {
    NodeIndex::new(index).unwrap()
}

/// Five nodes, of whom these show a check, and a wallet. Heartbeats are dated by the clock of these tests.
fn health(ms: u64, checks: &[(u8, Check)], can_sign: Answer) -> Health {
    let status = |index| {
        let check = checks.iter().find(|(of, _)| *of == index).map(|(_, check)| *check);
        NodeStatus {
            node: node(index),
            level: check.map_or(Level::Good, Check::level),
            check,
            summary: check.map_or("healthy", Check::id).to_owned(),
            attestation: "accepted".to_owned(),
            image: None,
            shares: None,
            heard_ms_ago: Some(0),
            build: String::new(),
            started: None,
            lately: Vec::new(),
            accused: None,
            held: Some(Held {
                at: UnixMillis(ms.try_into().unwrap()),
                in_use: None,
                opens: true,
                latest: BTreeMap::new(),
            }),
        }
    };
    let wallet = Readiness {
        wallet: "treasury".parse().unwrap(),
        generation: Generation(1),
        threshold: 3,
        shares: BTreeMap::new(),
        recovering: BTreeSet::new(),
        unfinished: None,
        blind: None,
        late: false,
        can_sign,
    };
    Health { wallets: vec![wallet], nodes: (1..=5).map(status).collect() }
}

fn well(ms: u64) -> Health {
    health(ms, &[], Answer::Yes)
}

const SILENT: &[(u8, Check)] = &[(2, Check::Silent)];

/// A drill of one node that is stopped: shown within 15 s, never out of service, whole within 60 s.
struct Trial {
    zero: Instant,
    course: Course,
}

impl Trial {
    fn begin(drill: &Drill) -> Self {
        let zero = Instant::now();
        let start = Start::of(&well(INJECTED - 500)).unwrap();
        let injected = zero + Duration::from_millis(INJECTED);
        Self { zero, course: Course::begin(drill, Patience::LAB, start, injected) }
    }

    fn at(&self, ms: u64) -> Instant {
        self.zero + Duration::from_millis(ms)
    }

    fn sees(&mut self, ms: u64, checks: &[(u8, Check)], can_sign: Answer) -> Vec<Turn> {
        self.course.observe(self.at(ms), &health(ms, checks, can_sign))
    }

    fn mends(&mut self, ms: u64) {
        self.course.mending_begins(self.at(ms));
    }

    fn took(&self, stage: Stage) -> Option<u64> {
        self.course.timed().iter().find(|timed| timed.stage == stage).unwrap().ms
    }
}

fn stopped() -> Trial {
    Trial::begin(&Drill::named("node-stopped").unwrap())
}

#[test]
fn each_stage_takes_the_time_from_where_it_begins_and_lies_between_heartbeats() {
    let mut held = stopped();
    assert_eq!(held.sees(12_000, &[], Answer::Yes), []);
    let turns = held.sees(16_200, SILENT, Answer::Degraded);
    let shown = held.course.shown().unwrap();
    assert_eq!(turns, [Turn::Shown(shown.clone())]);
    assert_eq!((shown.check.as_str(), shown.node), ("node-silent", Some(node(2))));
    held.mends(20_000);
    held.sees(21_000, SILENT, Answer::Degraded);
    for ms in [27_500, 28_500, 29_500] {
        assert_eq!(held.sees(ms, &[], Answer::Yes), []);
    }
    assert_eq!(held.sees(30_500, &[], Answer::Yes), [Turn::Whole(Duration::from_millis(27_500 - INJECTED))]);
    let times = [Stage::Detect, Stage::Decide, Stage::Service, Stage::Redundancy].map(|of| held.took(of));
    assert_eq!(times, [Some(6_200), Some(3_800), Some(0), Some(7_500)]);
    assert!(held.course.met() && held.course.stage().is_none() && held.course.failure().is_none());
    let heard = |map: &BTreeMap<NodeIndex, UnixMillis>| map[&node(1)].0;
    let between = held.course.timed().map(|timed| (heard(&timed.heard_before), heard(&timed.heard_at_end)));
    assert_eq!(between, [(9_500, 16_200), (16_200, 16_200), (9_500, 9_500), (16_200, 27_500)]);
}

#[test]
fn check_of_another_node_another_check_or_one_from_before_the_fault_is_not_what_is_sought() {
    let mut held = stopped();
    let before = held.at(INJECTED - 1);
    assert_eq!(held.course.observe(before, &health(1, SILENT, Answer::No)), []);
    assert_eq!(held.sees(12_000, &[(3, Check::Silent)], Answer::Degraded), []);
    assert_eq!(held.sees(13_000, &[(2, Check::Enclave)], Answer::Degraded), []);
    held.mends(13_500);
    assert_eq!(held.course.stage(), Some(Stage::Detect), "nobody mends what was not shown");
    assert_eq!(held.sees(14_000, SILENT, Answer::Degraded).len(), 1);
    // An observation that comes out of order is one of the past.
    let early = held.at(13_900);
    assert_eq!(held.course.observe(early, &health(2, &[], Answer::No)), []);
    assert_eq!(held.took(Stage::Detect), Some(4_000));
}

#[test]
fn drill_without_a_node_takes_its_check_of_any_node_or_wallet() {
    for (name, checks, can_sign, of) in [
        ("backups-gone", &[(4, Check::Backups)][..], Answer::Yes, Some(node(4))),
        ("kms-refuses", &[(4, Check::Kms)], Answer::No, None),
    ] {
        let mut held = Trial::begin(&Drill::named(name).unwrap());
        held.sees(12_000, checks, can_sign);
        assert_eq!(held.course.shown().unwrap().node, of, "{name}");
    }
}

#[test]
fn fault_that_is_never_shown_fails_the_drill_after_several_times_its_target() {
    let mut held = stopped();
    held.sees(INJECTED + 60_000, &[], Answer::Yes);
    assert_eq!(held.course.stage(), Some(Stage::Detect));
    let turns = held.sees(INJECTED + 60_001, &[], Answer::Yes);
    assert_eq!(turns, [Turn::Failed("node-silent of node 2 was not shown within 60 s".to_owned())]);
    assert!(!held.course.met());
    assert_eq!(held.took(Stage::Service), None, "nobody knows whether it would have stopped");
    assert_eq!(held.sees(80_000, SILENT, Answer::No), [], "it is over");
    assert!(held.course.shown().is_none());
}

#[test]
fn drill_that_nobody_mends_or_that_is_not_whole_again_fails_with_what_is_wrong() {
    let mut held = stopped();
    held.sees(15_000, SILENT, Answer::Degraded);
    assert_eq!(held.sees(75_000, SILENT, Answer::Degraded), []);
    assert_eq!(
        held.sees(75_001, SILENT, Answer::Degraded),
        [Turn::Failed("nobody began to mend it".to_owned())]
    );

    let mut held = stopped();
    held.sees(15_000, SILENT, Answer::Degraded);
    held.mends(20_000);
    held.sees(260_001, &[(3, Check::Peers)], Answer::Yes);
    let why = held.course.failure().unwrap();
    assert_eq!(why, "not everything is as well as before: node 3: node-peers");
    assert!(!held.course.met() && held.took(Stage::Redundancy).is_none());
}

#[test]
fn what_every_node_shows_accuses_none_of_them_of_it() {
    for check in [Check::AllSilent, Check::NoBus, Check::Late] {
        let zero = Instant::now();
        let start = Start::of(&well(INJECTED - 500)).unwrap();
        let drill = Drill { check, node: None, ..Drill::named("broker-stopped").unwrap() };
        let injected = zero + Duration::from_millis(INJECTED);
        let mut held = Trial { zero, course: Course::begin(&drill, Patience::LAB, start, injected) };
        let all: Vec<(u8, Check)> = (1..=5).map(|node| (node, check)).collect();
        held.sees(15_000, &all, Answer::Unknown);
        let shown = held.course.shown().unwrap();
        assert_eq!(
            (shown.node, shown.words.as_str()),
            (None, format!("every node: {}", check.id()).as_str())
        );
        held.mends(20_000);
        held.sees(300_000, &all, Answer::Unknown);
        let why = held.course.failure().unwrap();
        assert!(why.contains("every node: ") && !why.contains("node 1"), "{why}");
    }
    let silent: Vec<(u8, Check)> = (1..=5).map(|node| (node, Check::AllSilent)).collect();
    let unwell = Start::of(&health(INJECTED, &silent, Answer::Unknown)).unwrap_err().to_string();
    assert_eq!(unwell.matches("every node: all-silent").count(), 1, "{unwell}");
}

#[test]
fn what_is_well_only_now_and_then_is_not_whole() {
    let mut held = stopped();
    held.sees(15_000, SILENT, Answer::Degraded);
    held.mends(20_000);
    for ms in (21_000..250_000).step_by(4_000) {
        assert_eq!(held.sees(ms, &[], Answer::Yes), []);
        assert_eq!(held.sees(ms + 2_900, &[], Answer::Yes), []);
        assert_eq!(held.sees(ms + 3_100, SILENT, Answer::Degraded), []);
    }
    held.sees(253_000, &[], Answer::Yes);
    assert_eq!(
        held.sees(256_000, &[], Answer::Yes),
        [Turn::Whole(Duration::from_millis(253_000 - INJECTED))]
    );
    assert_eq!(held.took(Stage::Redundancy), Some(233_000), "from when it stayed so");
    assert!(!held.course.met());
}

#[test]
fn wallet_that_stops_being_able_to_sign_costs_the_time_until_it_can_for_good() {
    let mut held = stopped();
    assert!(matches!(&held.sees(11_000, &[], Answer::Unknown)[..], [Turn::ServiceLost(_)]));
    assert_eq!(held.sees(12_000, &[], Answer::Degraded), [Turn::ServiceBack]);
    held.sees(15_000, SILENT, Answer::No);
    held.mends(16_000);
    assert_eq!(held.course.stage(), Some(Stage::Service));
    held.sees(18_000, SILENT, Answer::Degraded);
    assert_eq!(held.course.stage(), Some(Stage::Redundancy));
    held.sees(20_000, &[], Answer::Yes);
    held.sees(23_000, &[], Answer::Yes);
    assert_eq!(held.took(Stage::Service), Some(8_000));
    assert!(held.course.failure().is_none() && !held.course.met(), "it may not stop at all");

    let mut held = stopped();
    held.sees(15_000, SILENT, Answer::No);
    held.mends(16_000);
    held.sees(INJECTED + 30_001, SILENT, Answer::No);
    let why = held.course.failure().unwrap();
    assert!(why.starts_with("not every wallet could sign again: wallet treasury: CANNOT SIGN"), "{why}");
}

#[test]
fn wallet_or_node_that_is_gone_is_not_as_well_as_before() {
    let mut held = stopped();
    held.sees(15_000, SILENT, Answer::Degraded);
    held.mends(16_000);
    let without_wallet = Health { wallets: Vec::new(), ..well(17_000) };
    let turns = held.course.observe(held.at(17_000), &without_wallet);
    assert_eq!(turns, [Turn::ServiceLost("wallet treasury is gone".to_owned())]);
    let without_node = Health { nodes: well(18_000).nodes.into_iter().skip(1).collect(), ..well(18_000) };
    for ms in [18_000, 40_000] {
        held.course.observe(held.at(ms), &without_node);
    }
    assert_eq!(held.course.stage(), Some(Stage::Redundancy));
}

#[test]
fn drill_that_is_given_up_has_failed_for_its_first_reason() {
    let mut held = stopped();
    held.sees(15_000, SILENT, Answer::Degraded);
    held.course.give_up("stopped by a signal".to_owned());
    held.course.give_up("another".to_owned());
    held.mends(16_000);
    held.sees(17_000, &[], Answer::Yes);
    assert_eq!(held.course.failure(), Some("stopped by a signal"));
    assert_eq!((held.took(Stage::Detect), held.took(Stage::Decide)), (Some(5_000), None));
}

#[test]
fn drill_begins_only_where_everything_is_well() {
    for (checks, can_sign, why) in [
        (SILENT, Answer::Degraded, "node 2: node-silent"),
        (&[(5, Check::Clock)], Answer::Yes, "node 5: node-clock"),
        (&[(1, Check::NoBus)], Answer::Yes, "every node: no-bus"),
        (&[], Answer::No, "wallet treasury: CANNOT SIGN"),
        (&[], Answer::Unknown, "wallet treasury: not known whether it can sign"),
    ] {
        let refused = Start::of(&health(1, checks, can_sign)).unwrap_err().to_string();
        assert!(refused.contains(why), "{refused}");
    }
    assert!(Start::of(&health(1, &[(3, Check::Excluded)], Answer::Yes)).is_ok());
    assert!(Start::of(&health(1, &[], Answer::Degraded)).is_ok());
}

fn any_health() -> impl Strategy<Value = (u64, Vec<(u8, Check)>, Answer)> {
    let check = prop::sample::select(vec![Check::Silent, Check::Enclave, Check::Clock]);
    let checks = prop_oneof![
        3 => Just(Vec::new()),
        2 => Just(SILENT.to_vec()),
        1 => prop::collection::vec((1..=5_u8, check), 1..3),
    ];
    let answer =
        prop::sample::select(vec![Answer::Yes, Answer::Yes, Answer::Degraded, Answer::Unknown, Answer::No]);
    (0..9_000_u64, checks, answer)
}

proptest! {
    #[test]
    fn whatever_is_seen_the_report_says_no_more_than_was_seen(
        seen in prop::collection::vec(any_health(), 0..60),
        mend_after in 0..60_usize,
    ) {
        let mut held = stopped();
        let (mut ms, mut was_lost, mut was_shown) = (INJECTED, false, false);
        for (index, (later, checks, can_sign)) in seen.iter().enumerate() {
            if held.course.stage().is_none() {
                break;
            }
            ms += later;
            if index == mend_after {
                held.mends(ms);
            }
            held.sees(ms, checks, *can_sign);
            was_lost |= matches!(can_sign, Answer::Unknown | Answer::No);
            was_shown |= checks.contains(&(2, Check::Silent));
            prop_assert!(held.course.shown().is_none() || was_shown);
            prop_assert_eq!(held.took(Stage::Service) == Some(0), held.course.stage().is_none()
                && held.course.failure().is_none() && !was_lost);
            if held.course.stage().is_none() && held.course.failure().is_none() {
                prop_assert!(checks.is_empty() && *can_sign == Answer::Yes, "it ends well");
                prop_assert!(was_shown && held.took(Stage::Redundancy).is_some());
            }
        }
        let timed = held.course.timed();
        for timed in &timed {
            prop_assert!(timed.ms.is_none_or(|took| took <= ms - INJECTED));
            prop_assert!(!timed.met || timed.ms.is_some());
        }
        prop_assert_eq!(held.course.met(), held.course.stage().is_none()
            && held.course.failure().is_none() && timed.iter().all(|timed| timed.met));
    }
}

/// A person with a key of their own, in a folder that `ssh-keygen` reads.
fn person(folder: &std::path::Path, name: &str, seed: u8) -> (Person, std::path::PathBuf) {
    let key = PrivateKey::from(Ed25519Keypair::from_seed(&[seed; 32]));
    let file = folder.join(name);
    key.write_openssh_file(&file, LineEnding::LF).unwrap();
    let keys = vec![key.public_key().clone()];
    let person = Person { name: name.parse().unwrap(), roles: BTreeSet::new(), keys, verified: false };
    (person, file)
}

fn report() -> Report {
    let mut held = stopped();
    held.sees(15_000, SILENT, Answer::Degraded);
    held.mends(16_000);
    held.sees(20_000, &[], Answer::Yes);
    held.sees(23_000, &[], Answer::Yes);
    Report {
        drill: "node-stopped".to_owned(),
        title: "One node stopped".to_owned(),
        cluster: "lab-1".parse().unwrap(),
        kind: ClusterKind::Lab,
        by_hand: false,
        began: UnixMillis(1_795_265_820_000),
        programs: Programs { console: "1".to_owned(), nodes: BTreeMap::from([(node(1), "1".to_owned())]) },
        wallets: vec!["treasury".parse().unwrap()],
        stages: held.course.timed().into(),
        shown: held.course.shown().cloned(),
        failed: None,
        met: held.course.met(),
    }
}

#[test]
fn report_comes_back_as_it_was_written_and_what_is_none_is_refused() {
    let written = report().to_json().unwrap();
    assert_eq!(Report::parse(written.as_bytes()).unwrap(), report());
    for (from, to) in [
        ("\"drill\"", "\"drills\""),
        ("\"kind\": \"lab\"", "\"kind\": \"pub\""),
        ("\"ms\": 5000", "\"ms\": -1"),
        ("\"stage\": \"detect\"", "\"stage\": \"guess\""),
        ("}\n", "} and more\n"),
    ] {
        assert!(written.contains(from), "{from}");
        assert!(Report::parse(written.replacen(from, to, 1).as_bytes()).is_err(), "{to}");
    }
}

#[test]
fn report_is_signed_for_this_purpose_alone_by_somebody_of_the_charter_as_ssh_keygen_verifies() {
    let folder = tempfile::tempdir().unwrap();
    let ((olga, olgas), (petra, petras)) =
        (person(folder.path(), "olga", 7), person(folder.path(), "petra", 8));
    let both = [petra.clone(), olga.clone()];
    let text = report().to_json().unwrap();
    let signature = sign_in(NAMESPACE, &olgas, &text, None, Waiting::quiet()).unwrap();
    assert_eq!(signer(&both, text.as_bytes(), &signature), Ok(&olga.name));

    let changed = text.replace("\"met\": true", "\"met\": false");
    assert_eq!(signer(&both, changed.as_bytes(), &signature), Err(NotSigned::Changed(olga.name.clone())));
    assert_eq!(signer(&[petra], text.as_bytes(), &signature), Err(NotSigned::Stranger));
    assert_eq!(signer(&[], text.as_bytes(), &signature), Err(NotSigned::Stranger));
    assert_eq!(signer(&both, b"\xff", &signature), Err(NotSigned::NotText));
    let anothers = sign_in(NAMESPACE, &petras, &text, None, Waiting::quiet()).unwrap();
    assert_eq!(signer(std::slice::from_ref(&olga), text.as_bytes(), &anothers), Err(NotSigned::Stranger));
    let statement = sign(&olgas, &text, None).unwrap();
    let refused = signer(&both, text.as_bytes(), &statement).unwrap_err().to_string();
    assert!(refused.contains("sign with `-n custody-drill`"), "{refused}");
    let refused = verify(&olga, &text, &signature).unwrap_err();
    assert!(matches!(refused, SignatureError::Namespace { found, .. } if found == NAMESPACE));
    for damaged in [&signature[..signature.len() - 9], b"", &[signature.as_slice(), b"\n"].concat()] {
        assert!(signer(&both, text.as_bytes(), damaged).is_err());
    }

    let line = format!("olga {}\n", olga.keys[0].to_openssh().unwrap());
    for (name, bytes) in [("signers", line.as_bytes()), ("text", text.as_bytes()), ("sig", &signature)] {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    let verified = Command::new("ssh-keygen")
        .args(["-Y", "verify", "-f", "signers", "-I", "olga", "-n", NAMESPACE, "-s", "sig"])
        .current_dir(&folder)
        .stdin(std::fs::File::open(folder.path().join("text")).unwrap())
        .stdout(Stdio::null())
        .status();
    assert!(verified.unwrap().success());
}

proptest! {
    #[test]
    fn no_byte_of_a_report_or_its_signature_changes_unnoticed(at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let folder = tempfile::tempdir().unwrap();
        let (olga, key) = person(folder.path(), "olga", 7);
        let text = report().to_json().unwrap().into_bytes();
        let signature = sign_in(NAMESPACE, &key, std::str::from_utf8(&text).unwrap(), None, Waiting::quiet()).unwrap();
        let people = [olga];
        let changed = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            let at = at.index(bytes.len());
            bytes[at] = to;
            bytes
        };
        let (other, damaged) = (changed(&text), changed(&signature));
        prop_assert_eq!(signer(&people, &other, &signature).is_ok(), other == text);
        prop_assert_eq!(signer(&people, &text, &damaged).is_ok(), damaged == signature);
    }
}

#[test]
fn chart_is_as_long_as_its_times_and_marks_those_that_never_came() {
    assert_eq!(chart(&[]), "");
    assert_eq!(chart(&[None]), "✗");
    assert_eq!(chart(&[Some(0)]), "▁");
    assert_eq!(chart(&[Some(1_000), None, Some(7_000), Some(14_000)]), "▁✗▄█");
    assert_eq!(chart(&[Some(u64::MAX), Some(u64::MAX / 2)]), "█▄");
}

#[test]
fn cluster_that_is_no_lab_has_no_lab_to_order_about() {
    let folder = tempfile::tempdir().unwrap();
    let charter = std::fs::read_to_string(data("charter.toml")).unwrap();
    let load = |kind: &str, lab: &str| {
        let mut charter = charter.replacen("kind = \"lab\"", &format!("kind = \"{kind}\""), 1);
        if kind != "lab" {
            let root = charter.find("root_sha256 = \"").unwrap() + "root_sha256 = \"".len();
            charter.replace_range(root..root + 64, AWS_NITRO_G1_FINGERPRINT);
        }
        std::fs::write(folder.path().join("charter.toml"), charter).unwrap();
        let text = format!(
            "charter = \"charter.toml\"\nroot = \"{}\"\n[nats]\nservers = [\"nats://127.0.0.1:4222\"]\nseed = \"s\"\n{lab}",
            data("root.pem").display()
        );
        let file = folder.path().join("cluster.toml");
        std::fs::write(&file, text).unwrap();
        Cluster::load(&file)
    };
    let lab = "[lab]\ncontrol = \"control.sock\"\n";
    assert_eq!(load("lab", lab).unwrap().lab, Some(folder.path().join("control.sock")));
    assert_eq!(load("lab", "").unwrap().lab, None);
    for kind in ["rehearsal", "production"] {
        assert!(matches!(load(kind, lab), Err(ConfigError::NotLab { .. })), "{kind}");
    }
    assert!(load("lab", "[lab]\n").is_err());
    assert!(load("lab", "[lab]\ncontrol = \"s\"\nforce = true\n").is_err());
}

#[test]
fn nothing_in_the_folder_of_reports_commands_a_terminal_or_is_taken_for_what_it_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let reports = folder.path().join("reports");
    std::fs::create_dir(&reports).unwrap();
    let mut sly = report();
    sly.drill = "\u{1b}[2Jnode\u{202e}".to_owned();
    sly.failed = Some("\u{9b}31m\nsigned by olga".to_owned());
    let write = |name: &str, bytes: &[u8]| std::fs::write(reports.join(name), bytes).unwrap();
    write("1.json", report().to_json().unwrap().as_bytes());
    write("2.json", sly.to_json().unwrap().as_bytes());
    write("3\u{1b}[2J.json", b"{}");
    write("4.json", &vec![b' '; 65 * 1024]);
    write("5.json", report().to_json().unwrap().as_bytes());
    write("5.json.sig", b"\x1b[2J");
    write("6.txt", b"not looked at");
    std::os::unix::fs::symlink("/dev/zero", reports.join("7.json")).unwrap();
    crate::cluster(folder.path());
    let listed = |arguments: &[&str]| {
        let listed = Command::new(env!("CARGO_BIN_EXE_custody"))
            .arg("--cluster")
            .arg(folder.path().join("cluster.toml"))
            .args(arguments)
            .args(["drill", "report", "--reports"])
            .arg(&reports)
            .output()
            .unwrap();
        let complaint = String::from_utf8_lossy(&listed.stderr).into_owned();
        assert!(
            listed.status.code() == Some(1) && complaint.contains("the signature is BAD of 5.json"),
            "{listed:?}"
        );
        let said = [listed.stdout.clone(), listed.stderr].concat();
        let commands = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!String::from_utf8(said).unwrap().contains(commands));
        String::from_utf8(listed.stdout).unwrap()
    };
    let text = listed(&[]);
    let lines: Vec<&str> = text.lines().collect();
    for (line, says) in lines.iter().zip([
        "7.json is not a report: report",
        "[BAD: ",
        "4.json is not a report: report",
        " [2J.json is not a report",
        "31m signed by olga  [unsigned]",
        "met  [unsigned]",
        "redundancy, oldest to newest",
    ]) {
        assert!(line.contains(says), "{says}: {text}");
    }
    assert!(lines.iter().any(|line| line.starts_with("node-stopped    █  4.0 s; target 60 s")), "{text}");
    let values: serde_json::Value = serde_json::from_str(&listed(&["--json"])).unwrap();
    assert_eq!(values.as_array().unwrap().len(), 6);
}
