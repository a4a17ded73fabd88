//! The program's answers without a cluster: exit 0 done, 1 refused, 2 usage error.

use std::process::{Command, Output, Stdio};

use console::cli::exit_code;
use console::client::{ClientError, Outcome, Refusal, SubmitError};
use console::room::RoomError;

use crate::data;

fn custody(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_custody"))
        .args(arguments)
        .env_remove("CUSTODY_CLUSTER")
        .output()
        .unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn complaint(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn a_recorded_bundle_verifies_offline_and_says_what_it_is() {
    let bundle = data("bundle.zip");
    let bundle = bundle.to_str().unwrap();
    let verified = custody(&["evidence", "verify", bundle]);
    assert_eq!(code(&verified), 0, "{}", complaint(&verified));
    let text = String::from_utf8(verified.stdout.clone()).unwrap();
    assert!(text.contains("10 subsets interpolate") && text.contains("stands at: closed"), "{text}");
    assert!(complaint(&verified).contains("lab cluster"));

    let production = custody(&["evidence", "verify", bundle, "--kind", "production"]);
    assert_eq!(code(&production), 1);
    assert!(complaint(&production).contains("LAB cluster"), "{}", complaint(&production));
    let head = custody(&["evidence", "verify", bundle, "--head", "other words"]);
    assert_eq!(code(&head), 1);
    let json = custody(&["--json", "evidence", "verify", bundle]);
    assert!(String::from_utf8(json.stdout).unwrap().contains("\"complete\":true"));
}

/// Whatever crashes the program, its memory is not dumped to a file.
#[cfg(target_os = "linux")]
#[test]
fn no_image_of_the_memory_is_written_when_the_program_crashes() {
    let folder = tempfile::tempdir().unwrap();
    let mut waits = Command::new("sh")
        .args([
            "-c",
            "ulimit -c unlimited 2>/dev/null; exec \"$0\" paper scan -o x",
            env!("CARGO_BIN_EXE_custody"),
        ])
        .current_dir(&folder)
        .stdin(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // What it says to a line shows that it has begun to read, long after it was started.
    std::io::Write::write_all(waits.stdin.as_mut().unwrap(), b"nonsense\n").unwrap();
    let mut said = [0; 8];
    std::io::Read::read_exact(waits.stderr.as_mut().unwrap(), &mut said).unwrap();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", waits.id())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    let values: Vec<&str> = core.split_whitespace().skip(4).take(2).collect();
    waits.kill().unwrap();
    waits.wait().unwrap();
    assert_eq!(values, ["0", "0"], "{core}");
}

#[test]
fn what_is_no_bundle_or_charter_is_refused_with_the_reason() {
    let readme = data("README.md");
    let readme = readme.to_str().unwrap();
    for arguments in
        [["evidence", "verify", readme], ["charter", "check", readme], ["script", "check", readme]]
    {
        let refused = custody(&arguments);
        assert_eq!(code(&refused), 1, "{arguments:?}");
        assert!(!complaint(&refused).is_empty());
    }
    let missing = custody(&["charter", "check", "/nowhere.toml"]);
    assert!(complaint(&missing).contains("/nowhere.toml"), "{}", complaint(&missing));
}

#[test]
fn charter_and_scripts_are_checked_and_rendered() {
    let charter = data("charter.toml");
    let charter = charter.to_str().unwrap();
    assert_eq!(code(&custody(&["charter", "check", charter])), 0);
    let keeper = nkeys::KeyPair::new_user().public_key();
    let config = custody(&["charter", "nats-config", charter, "--keeper", &keeper]);
    let config = String::from_utf8(config.stdout).unwrap();
    assert!(config.contains("mpc.*.*.5") && config.contains(&keeper));
    assert_eq!(code(&custody(&["charter", "nats-config", charter])), 2, "the keeper is not left out");
    for keeper in ["", "nobody", &nkeys::KeyPair::new_account().public_key()] {
        assert_eq!(code(&custody(&["charter", "nats-config", charter, "--keeper", keeper])), 2, "{keeper}");
    }
    let policy = custody(&[
        "charter",
        "kms-policy",
        charter,
        "--admin",
        "arn:aws:iam::111122223333:role/admin",
        "--role",
        "arn:aws:iam::111122223333:role/enclave",
    ]);
    assert!(String::from_utf8(policy.stdout).unwrap().contains("kms:RecipientAttestation:PCR0"));
    assert_eq!(code(&custody(&["script", "check"])), 0);
    assert_eq!(code(&custody(&["charter", "diff", charter, charter])), 0);
}

#[test]
fn stream_is_not_made_without_a_broker_or_a_seed() {
    let folder = tempfile::tempdir().unwrap();
    let seed = folder.path().join("keeper.seed");
    let charter = data("charter.toml");
    let make = |seed: &std::path::Path| {
        let fixed = ["charter", "make-stream", charter.to_str().unwrap(), "--server", "nats://127.0.0.1:1"];
        custody(&[&fixed[..], &["--seed", seed.to_str().unwrap()]].concat())
    };
    assert!(complaint(&make(&seed)).contains("keeper.seed"));
    for (content, why) in [("SUAA", "cannot be used"), ("", "cannot be used")] {
        std::fs::write(&seed, content).unwrap();
        let refused = make(&seed);
        assert_eq!(code(&refused), 1);
        assert!(complaint(&refused).contains(why), "{}", complaint(&refused));
    }
    std::fs::write(&seed, nkeys::KeyPair::new_user().seed().unwrap()).unwrap();
    let refused = make(&seed);
    assert_eq!(code(&refused), 1);
    assert!(complaint(&refused).contains("broker cannot be reached"), "{}", complaint(&refused));
}

#[test]
fn unknown_outcome_has_an_exit_code_of_its_own_however_it_is_wrapped() {
    let outcome =
        || Outcome { ceremony: "dkg-w-1".parse().unwrap(), standing: "entry 6, held by 2 of 5".to_owned() };
    let refusal = || Refusal { by: Vec::new(), why: "no".to_owned() };
    for (error, expected) in [
        (anyhow::Error::new(SubmitError::Unknown(outcome())), 3),
        (anyhow::Error::new(RoomError::Submit(SubmitError::Unknown(outcome()))).context("signing"), 3),
        (anyhow::Error::new(outcome()), 3),
        (anyhow::Error::new(SubmitError::Refused(refusal())), 1),
        (anyhow::Error::new(RoomError::Submit(SubmitError::Refused(refusal()))), 1),
        (anyhow::Error::new(SubmitError::Client(ClientError::NotConnected)), 1),
        (anyhow::anyhow!("anything else"), 1),
    ] {
        assert_eq!(exit_code(&error), expected, "{error:#}");
    }
    let help = String::from_utf8(custody(&["--help"]).stdout).unwrap();
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(help.contains("3 outcome unknown"), "{help}");
}

#[test]
fn cluster_file_that_nobody_named_is_misuse_and_one_that_is_not_there_is_not() {
    assert_eq!(code(&custody(&["no-such-command"])), 2);
    let status = custody(&["status"]);
    assert_eq!(code(&status), 2);
    assert!(complaint(&status).contains("CUSTODY_CLUSTER"));
    assert_eq!(code(&custody(&["--cluster", "/nowhere.toml", "status"])), 1);
}

#[test]
fn reader_that_has_had_enough_is_no_failure() {
    let bundle = data("bundle.zip");
    for arguments in [
        &["script", "show", "dkg"][..],
        &["man"],
        &["completions", "bash"],
        &["--help"],
        &["--json", "script", "list"],
        &["evidence", "verify", bundle.to_str().unwrap()],
    ] {
        let mut custody = Command::new(env!("CARGO_BIN_EXE_custody"));
        let mut running =
            custody.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(running.stdout.take());
        let ended = running.wait_with_output().unwrap();
        assert_eq!((code(&ended), complaint(&ended)), (0, String::new()), "{arguments:?}");
    }
}

/// Whether text could move a terminal's cursor, or hide something on it.
fn commands_a_terminal(text: &str) -> bool {
    text.chars().any(|c| (c.is_control() && c != '\n') || matches!(c, '\u{200b}'..='\u{202e}'))
}

#[test]
fn whatever_a_file_or_an_argument_holds_commands_no_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let charter = std::fs::read_to_string(data("charter.toml")).unwrap();
    let place = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let write = |name: &str, text: &str| {
        std::fs::write(place(name), text).unwrap();
        place(name)
    };
    let files = [
        write("host.toml", &charter.replacen("host = \"", "host = \"\\u001b]0;owned\\u0007", 1)),
        write("comment.toml", &format!("# \u{9b}31m\n{charter}")),
        write("unknown.toml", &format!("\"\u{9b}31m\u{202e}\" = 1\n{charter}")),
        write("escaped.toml", &format!("\"\\u001b[31m\" = 1\n{charter}")),
        write("kind.toml", &charter.replacen("kind = \"", "kind = \"\\u001b[2J", 1)),
        write("bytes.toml", "\u{1b}[2J = [\n"),
    ];
    let good = data("charter.toml");
    for file in &files {
        for arguments in [
            vec!["charter", "check", file],
            vec!["--json", "charter", "check", file],
            vec!["charter", "diff", good.to_str().unwrap(), file],
            vec!["evidence", "verify", file],
        ] {
            let refused = custody(&arguments);
            assert_eq!(code(&refused), 1, "{arguments:?}");
            assert!(
                !complaint(&refused).is_empty() && !commands_a_terminal(&complaint(&refused)),
                "{refused:?}"
            );
        }
    }
    for text in ["\u{1b}[2Ja", "a\u{9b}1m", "a\u{202e}b"] {
        for arguments in [
            vec!["ceremony", "show", text],
            vec![text],
            vec!["paper", "print", "f", "--serial", text],
            vec!["ceremony", "open", "dkg", "--wallet", "w", "--purpose", text],
            vec!["charter", "check", text],
        ] {
            let refused = custody(&arguments);
            assert_ne!(code(&refused), 0);
            assert!(!commands_a_terminal(&complaint(&refused)), "{:?}", complaint(&refused));
        }
    }
}

#[test]
fn text_that_nobody_sees_is_refused_at_the_command_line_with_its_code_point() {
    let open = |purpose: &str| {
        custody(&["ceremony", "open", "dkg", "--wallet", "w", "--manifest", "m", "--purpose", purpose])
    };
    for (hidden, code_point) in [
        ('\u{34f}', "U+034F"),
        ('\u{61c}', "U+061C"),
        ('\u{2064}', "U+2064"),
        ('\u{fe0e}', "U+FE0E"),
        ('\u{1d175}', "U+1D175"),
        ('\u{e0020}', "U+E0020"),
        ('\u{2005}', "U+2005"),
    ] {
        let refused = open(&format!("a{hidden}b"));
        assert_eq!(code(&refused), 2);
        assert!(complaint(&refused).contains(code_point), "{}", complaint(&refused));
    }
    assert!(complaint(&open("Schlüssel für 金庫")).contains("CUSTODY_CLUSTER"), "the text itself is taken");
    let sheet = |serial: &str| {
        custody(&[
            "ceremony",
            "open",
            "inventory",
            "--wallet",
            "w",
            "--generation",
            "1",
            "--purpose",
            "p",
            "--sheet",
            serial,
        ])
    };
    let refused = complaint(&sheet("1=Ѕ-0007"));
    assert!(refused.contains("plain ASCII"), "{refused}");
}
