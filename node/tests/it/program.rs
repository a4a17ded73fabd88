//! `custody-node` as a person or a service manager runs it on a Nitro host.

use std::fs;
use std::process::{Child, Command, Output, Stdio};

use ceremonies::attestation::{Measurement, Pcr, TrustRoot};

use crate::config;
use crate::tool::{CHARTER, ID, Tool, allowed, described, described_with, image_described, until};

/// A host with charter, root, seed and configuration of node 1 beside the tool.
fn host(configuration: &str) -> Tool {
    let tool = Tool::new();
    let key = nkeys::KeyPair::new_user();
    let listed = CHARTER.lines().find(|line| line.starts_with("nkey")).unwrap();
    let charter = CHARTER.replacen(listed, &format!("nkey = \"{}\"", key.public_key()), 1);
    for (name, content) in [
        ("charter.toml", charter),
        ("root.pem", TrustRoot::aws_nitro_g1().to_pem().unwrap()),
        ("nats.seed", key.seed().unwrap()),
        ("node.toml", configuration.to_owned()),
    ] {
        fs::write(tool.folder().join(name), content).unwrap();
    }
    tool
}

fn custody_node(tool: &Tool, arguments: &[&str]) -> Command {
    let path = std::env::var("PATH").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_custody-node"));
    command.env("PATH", format!("{}:{path}", tool.folder().display()));
    command.arg("--config").arg(tool.folder().join("node.toml")).args(arguments);
    command
}

fn enclave(tool: &Tool, order: &str) -> Output {
    custody_node(tool, &["enclave", order]).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Ended with the test, whatever its outcome.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn agent_starts_its_enclave_again_when_it_vanishes_and_leaves_it_when_told_to_stop() {
    let tool = host(&config::nitro());
    let log = fs::File::create(tool.folder().join("log")).unwrap();
    let logged = || fs::read_to_string(tool.folder().join("log")).unwrap();
    let mut agent =
        Agent(custody_node(&tool, &[]).stderr(log).stdout(Stdio::null()).spawn().expect("the agent starts"));
    until("the first start", || tool.called("run-enclave") == 1);
    until("the agent's word about it", || logged().contains("enclave is running"));
    tool.shows(&[]);
    until("the second start", || tool.called("run-enclave") == 2);
    assert!(logged().contains("enclave vanished"), "{}", logged());

    let asked = Command::new("kill").args(["-TERM", &agent.0.id().to_string()]).status().unwrap();
    assert!(asked.success());
    until("the agent's end", || agent.0.try_wait().unwrap().is_some());
    assert!(agent.0.wait().unwrap().success(), "{}", logged());
    assert_eq!(tool.called("terminate-enclave"), 0);
}

#[test]
fn second_agent_with_the_same_store_is_refused_until_the_first_has_ended() {
    let tool = host(&config::without_host());
    let start = |name: &str| {
        let log = fs::File::create(tool.folder().join(name)).unwrap();
        Agent(custody_node(&tool, &[]).stderr(log).stdout(Stdio::null()).spawn().expect("the agent starts"))
    };
    let logged = |name: &str| fs::read_to_string(tool.folder().join(name)).unwrap();
    let first = start("first");
    until("the first agent", || logged("first").contains("agent started"));
    let mut second = start("second");
    until("the second agent's end", || second.0.try_wait().unwrap().is_some());
    assert!(!second.0.wait().unwrap().success());
    assert!(logged("second").contains("another agent is running with store"), "{}", logged("second"));
    let checked = custody_node(&tool, &["--check"]).output().unwrap();
    assert!(checked.status.success(), "it only reads: {}", text(&checked.stderr));
    drop(first);
    let _third = start("third");
    until("the third agent", || logged("third").contains("agent started"));
}

#[test]
fn enclave_is_started_shown_and_stopped_by_hand() {
    let tool = host(&config::nitro());
    let none = enclave(&tool, "status");
    assert!(!none.status.success() && text(&none.stderr).contains("no enclave called custody is running"));

    let started = enclave(&tool, "start");
    assert!(started.status.success(), "{}", text(&started.stderr));
    let status = text(&enclave(&tool, "status").stdout);
    assert!(status.contains(ID) && status.contains(&format!("PCR0 {}", allowed().pcr0)), "{status}");

    assert!(text(&enclave(&tool, "stop").stdout).contains("has stopped"));
    assert!(text(&enclave(&tool, "stop").stdout).contains("no enclave called custody is running"));
    assert_eq!((tool.called("run-enclave"), tool.called("terminate-enclave")), (1, 1));
}

#[test]
fn another_image_is_refused_by_check_and_start_with_its_register() {
    let tool = host(&config::nitro());
    let good = custody_node(&tool, &["--check"]).output().unwrap();
    assert!(good.status.success(), "{}", text(&good.stderr));

    let image = Measurement { pcr2: Pcr::from([7; 48]), ..allowed() };
    tool.answers("describe-eif", &image_described(&image));
    for arguments in [&["--check"][..], &["enclave", "start"]] {
        let refused = custody_node(&tool, arguments).output().unwrap();
        assert!(!refused.status.success());
        assert!(text(&refused.stderr).contains("PCR2 of"), "{}", text(&refused.stderr));
    }
    assert_eq!(tool.called("run-enclave"), 0);
}

#[test]
fn enclave_in_debug_mode_fails_the_status_and_can_be_stopped() {
    let tool = host(&config::nitro());
    tool.shows(&[described_with("Flags", "DEBUG_MODE")]);
    let status = enclave(&tool, "status");
    assert!(!status.status.success() && text(&status.stderr).contains("debug mode"));
    assert!(enclave(&tool, "stop").status.success());
}

#[test]
fn console_shows_why_there_is_none() {
    let tool = host(&config::nitro());
    tool.shows(&[described()]);
    tool.fails("console", "[ E44 ] Enclave console connection failure.");
    let console = enclave(&tool, "console");
    let said = text(&console.stderr);
    assert!(!console.status.success());
    assert!(said.contains("only in debug mode") && said.contains("E44"), "{said}");
}

#[test]
fn orders_about_an_enclave_need_a_host_that_runs_it() {
    let tool = host(&config::without_host());
    for order in ["start", "stop", "restart", "status", "console"] {
        let refused = enclave(&tool, order);
        assert!(!refused.status.success());
        assert!(text(&refused.stderr).contains("no [host.nitro]"), "{}", text(&refused.stderr));
    }
    assert_eq!(tool.calls(), Vec::<Vec<String>>::new());
}

#[test]
fn debug_mode_is_no_option() {
    let tool = host(&config::nitro());
    for option in ["--debug-mode", "--debug", "--attach-console"] {
        let refused = custody_node(&tool, &["enclave", "start", option]).output().unwrap();
        assert!(!refused.status.success());
    }
    assert_eq!(tool.called("run-enclave"), 0);
}
