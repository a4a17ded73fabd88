//! People's files: never read beyond a limit, and written whole or not at all.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use console::file::{FileError, Readers, read, read_within, replace, write_new};

use crate::data;
use crate::reference::has;

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Runs the program with little memory allowed, and files limited to this many bytes.
fn within(kilobytes: u32, blocks: &str, arguments: &[&str]) -> Output {
    // POSIX counts blocks of 512 bytes. A write beyond them fails, once the signal that would end the program is ignored.
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; ulimit -v {kilobytes}; exec \"$0\" \"$@\"");
    Command::new("sh")
        .args(["-c", &script, env!("CARGO_BIN_EXE_custody")])
        .args(arguments)
        .env_remove("CUSTODY_CLUSTER")
        .output()
        .unwrap()
}

#[test]
fn a_file_is_read_to_its_limit_and_not_a_byte_further() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    for (length, is_taken) in [(0, true), (9, true), (10, true), (11, false), (1000, false)] {
        std::fs::write(&path, vec![7; length]).unwrap();
        match read("thing", &path, 10) {
            Ok(bytes) => assert!(is_taken && bytes.len() == length, "{length}"),
            Err(FileError::TooLarge { limit: 10, .. }) => assert!(!is_taken, "{length}"),
            Err(other) => unreachable!("{other}"),
        }
    }
    assert!(matches!(read("thing", Path::new("/dev/zero"), 10), Err(FileError::TooLarge { .. })));
    assert!(matches!(read("thing", folder.path(), 10), Err(FileError::Read { .. })));
}

#[test]
fn every_command_refuses_what_never_ends_at_once_and_names_it() {
    let charter = data("charter.toml");
    let charter = charter.to_str().unwrap();
    let keeper = nkeys::KeyPair::new_user().public_key();
    for arguments in [
        vec!["evidence", "verify", "/dev/zero"],
        vec!["evidence", "verify", data("bundle.zip").to_str().unwrap(), "--root", "/dev/zero"],
        vec!["evidence", "verify", data("bundle.zip").to_str().unwrap(), "--charter", "/dev/zero"],
        vec!["charter", "check", "/dev/zero"],
        vec!["charter", "diff", charter, "/dev/zero"],
        vec!["charter", "allow", charter, "--measurement", "/dev/zero"],
        vec!["charter", "nats-config", "/dev/zero", "--keeper", &keeper],
        vec!["script", "check", "/dev/zero"],
        vec!["--cluster", "/dev/zero", "status"],
        vec!["paper", "scan", "/dev/zero", "-o", "/nowhere/x"],
    ] {
        let refused = within(1_000_000, "unlimited", &arguments);
        let said = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.contains("/dev/zero") && said.contains("bytes"), "{arguments:?}: {said}");
    }
}

#[test]
fn what_is_written_is_whole_private_where_it_must_be_and_replaces_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new");
    write_new(&path, b"all of it", Readers::Owner).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"all of it");
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(matches!(write_new(&path, b"other", Readers::Owner), Err(FileError::Exists(_))));
    assert_eq!(std::fs::read(&path).unwrap(), b"all of it");
    replace(&path, b"other").unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"other");
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(folder.path().join("nothing"), &link).unwrap();
    assert!(matches!(write_new(&link, b"x", Readers::Anyone), Err(FileError::Exists(_))));
    let nowhere = folder.path().join("no folder").join("x");
    assert!(matches!(write_new(&nowhere, b"x", Readers::Anyone), Err(FileError::Write(..))));
    let mut left = names(folder.path());
    left.sort();
    assert_eq!(left, ["link", "new"]);
}

/// The command that prints a share of this folder to a page of this name.
fn printing(folder: &Path, page: &str) -> Vec<String> {
    let file = [b"age-encryption.org/v1\n".as_slice(), &[1; 4000]].concat();
    std::fs::write(folder.join("share.age"), file).unwrap();
    let (share, page) = (folder.join("share.age"), folder.join(page));
    let record = "0".repeat(64);
    let print =
        ["paper", "print", share.to_str().unwrap(), "-o", page.to_str().unwrap(), "--record", &record];
    let sheet = ["--cluster-id", "lab-1", "--wallet", "treasury", "--generation", "1", "--node", "1"];
    let all = [&print[..], &sheet, &["--serial", "A-1"]].concat();
    all.into_iter().map(str::to_owned).collect()
}

#[test]
fn a_write_that_fails_leaves_no_file_and_the_next_try_succeeds() {
    let folder = tempfile::tempdir().unwrap();
    let print = printing(folder.path(), "page.html");
    let print: Vec<&str> = print.iter().map(String::as_str).collect();
    let page = folder.path().join("page.html");
    let full = within(4_000_000, "8", &print);
    let said = String::from_utf8_lossy(&full.stderr);
    assert_eq!(full.status.code(), Some(1), "{said}");
    assert!(said.contains("page.html cannot be written; no part of it was left behind"), "{said}");
    assert_eq!(names(folder.path()), ["share.age"]);
    let again = within(4_000_000, "unlimited", &print);
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
    assert!(std::fs::read_to_string(&page).unwrap().ends_with("</html>\n"));
}

/// Prints that page. The signal that a limit of so many blocks sends ends the program half-way.
fn printed(folder: &Path, page: &str, blocks: &str) -> ExitStatus {
    let script = format!("ulimit -c 0; ulimit -f {blocks}; exec \"$0\" \"$@\"");
    let mut shell = Command::new("sh");
    shell.args(["-c", &script, env!("CARGO_BIN_EXE_custody")]).args(printing(folder, page));
    shell.output().unwrap().status
}

#[test]
fn what_a_killed_program_left_unfinished_is_removed_by_the_next_that_writes_the_same_file() {
    let folder = tempfile::tempdir().unwrap();
    for page in ["page.html", "other.html", "page.html"] {
        assert_eq!(printed(folder.path(), page, "8").code(), None, "{page}");
    }
    let left = names(folder.path()).into_iter().filter(|name| name.starts_with(".custody-"));
    assert_eq!(left.count(), 2, "{:?}", names(folder.path()));
    assert!(printed(folder.path(), "page.html", "unlimited").success());
    let mut left = names(folder.path());
    left.sort();
    assert!(
        matches!(&left[..], [other, page, share]
        if other.starts_with(".custody-") && page == "page.html" && share == "share.age"),
        "{left:?}"
    );
    assert!(printed(folder.path(), "other.html", "unlimited").success());
    assert_eq!(names(folder.path()).len(), 3);
}

#[test]
fn what_another_program_still_writes_is_left_to_it() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(printed(folder.path(), "page.html", "8").code(), None);
    let name = names(folder.path()).into_iter().find(|name| name.starts_with(".custody-")).unwrap();
    let unfinished = std::fs::File::open(folder.path().join(&name)).unwrap();
    unfinished.lock().unwrap();
    assert!(printed(folder.path(), "page.html", "unlimited").success());
    assert!(names(folder.path()).contains(&name));
    drop(unfinished);
}

#[test]
fn pipe_into_which_nobody_writes_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    let link = folder.path().join("link");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    std::os::unix::fs::symlink(&pipe, &link).unwrap();
    let charter = data("charter.toml");
    let bundle = data("bundle.zip");
    for path in [&pipe, &link] {
        let path = path.to_str().unwrap();
        for arguments in [
            vec!["charter", "check", path],
            vec!["charter", "diff", charter.to_str().unwrap(), path],
            vec!["evidence", "verify", path],
            vec!["evidence", "verify", bundle.to_str().unwrap(), "--charter", path],
            vec!["--cluster", path, "status"],
            vec!["paper", "scan", path, "-o", "/nowhere/x"],
        ] {
            let refused = Command::new("timeout")
                .args(["60", env!("CARGO_BIN_EXE_custody")])
                .args(&arguments)
                .env_remove("CUSTODY_CLUSTER")
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&refused.stderr);
            assert_eq!(refused.status.code(), Some(1), "{arguments:?}: {said}");
            assert!(said.contains(path) && said.contains("a pipe into which nobody writes"), "{said}");
        }
    }
}

#[test]
fn pipe_that_somebody_holds_open_in_silence_is_given_up_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    // Open for reading as well, so that opening it waits for nobody.
    let mut writer = std::fs::File::options().read(true).write(true).open(&pipe).unwrap();
    for sent in [b"".as_slice(), b"half of it"] {
        writer.write_all(sent).unwrap();
        let begun = Instant::now();
        let refused = read_within("thing", &pipe, 100, Duration::from_millis(100)).unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(20));
        assert!(matches!(&refused, FileError::Slow { .. }), "{refused}");
        let said = refused.to_string();
        assert!(said.contains(&*pipe.to_string_lossy()) && said.contains("did not end"), "{said}");
    }
    // What is too large is known before its end.
    writer.write_all(&[7; 101]).unwrap();
    let refused = read_within("thing", &pipe, 100, Duration::from_mins(1)).unwrap_err();
    assert!(matches!(refused, FileError::TooLarge { limit: 100, .. }), "{refused}");
}

#[test]
fn pipe_that_ends_in_time_is_read_whole() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for length in [0, 1, 4096, 50_000] {
        let mut writer = std::fs::File::options().read(true).write(true).open(&pipe).unwrap();
        let name = pipe.clone();
        let reader = std::thread::spawn(move || read_within("thing", &name, 60_000, Duration::from_mins(1)));
        writer.write_all(&vec![7; length]).unwrap();
        // Both ends are held until the reader has the pipe open, or it would find nobody.
        let is_read = || {
            let links = std::fs::read_dir("/proc/self/fd").unwrap();
            links.flatten().filter(|link| std::fs::read_link(link.path()).is_ok_and(|to| to == pipe)).count()
                == 2
        };
        let begun = Instant::now();
        while !is_read() && !reader.is_finished() {
            assert!(begun.elapsed() < Duration::from_mins(1));
            std::thread::yield_now();
        }
        drop(writer);
        assert_eq!(reader.join().unwrap().unwrap(), vec![7; length]);
    }
}

#[test]
fn file_is_replaced_where_a_link_leads_and_the_link_stays() {
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = folder.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let (file, link) = (elsewhere.join("cursor"), folder.path().join("link"));
    std::fs::write(&file, b"old").unwrap();
    std::os::unix::fs::symlink("elsewhere/cursor", &link).unwrap();
    replace(&link, b"new").unwrap();
    assert_eq!(std::fs::read(&file).unwrap(), b"new");
    assert!(link.is_symlink() && file.is_file());
    std::fs::remove_file(&file).unwrap();
    let said = replace(&link, b"new").unwrap_err().to_string();
    assert!(said.contains("link cannot be written"), "{said}");
    assert!(link.is_symlink() && names(&elsewhere).is_empty());
}

#[test]
fn arguments_that_do_not_fit_end_with_2_and_say_what_would() {
    let help = Command::new(env!("CARGO_BIN_EXE_custody")).args(["sweep", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    assert!(help.contains("<--to-wallet <TO_WALLET>|--to <TO>>"), "{help}");
    for (arguments, says) in [
        (vec!["status"], "no cluster file: give --cluster FILE, or set CUSTODY_CLUSTER"),
        (vec!["--record", "r.cast", "script", "list"], "only the terminal screens are recorded"),
        (vec!["drill", "run"], "<NAME|--all>"),
        (vec!["sweep", "--wallet", "treasury", "-o", "t", "bitcoin"], "<--to-wallet <TO_WALLET>|--to <TO>>"),
        (vec!["broadcast", "transfer-treasury-00000000"], "<--endpoint <URL>|--withhold <REASON>>"),
        (
            vec!["broadcast", "x", "--withhold", "late", "--endpoint", "http://127.0.0.1:1"],
            "cannot be used with",
        ),
    ] {
        let ended = Command::new(env!("CARGO_BIN_EXE_custody"))
            .args(&arguments)
            .env_remove("CUSTODY_CLUSTER")
            .output()
            .unwrap();
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(says), "{arguments:?}: {said}");
    }
}

#[test]
fn output_that_cannot_be_written_is_a_failure_that_says_so() {
    let charter = data("charter.toml");
    for arguments in [
        vec!["script", "list"],
        vec!["--json", "script", "list"],
        vec!["charter", "check", charter.to_str().unwrap()],
        vec!["evidence", "verify", data("bundle.zip").to_str().unwrap()],
    ] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let ended =
            Command::new(env!("CARGO_BIN_EXE_custody")).args(&arguments).stdout(full).output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.contains("standard output cannot be written: No space left"), "{said}");
    }
}

#[test]
fn files_in_another_encoding_are_refused_with_its_name_and_not_dumped() {
    let folder = tempfile::tempdir().unwrap();
    let charter = std::fs::read_to_string(data("charter.toml")).unwrap();
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    for (name, bytes, encoding) in [
        ("bom", utf16(&format!("\u{feff}{charter}")), "UTF-16"),
        ("bare", utf16(&charter), "UTF-16"),
        ("nul", [charter.as_bytes(), b"\0"].concat(), "binary data, with NUL bytes"),
        ("latin", [charter.as_bytes(), b"# \xfc"].concat(), "not text in UTF-8"),
        ("zeros", vec![0; 4000], "binary data, with NUL bytes"),
    ] {
        let file = folder.path().join(name);
        std::fs::write(&file, bytes).unwrap();
        let file = file.to_str().unwrap();
        for arguments in [
            vec!["charter", "check", file],
            vec!["script", "check", file],
            vec!["charter", "allow", data("charter.toml").to_str().unwrap(), "--measurement", file],
            vec!["--cluster", file, "status"],
        ] {
            let refused = Command::new(env!("CARGO_BIN_EXE_custody")).args(&arguments).output().unwrap();
            let said = String::from_utf8(refused.stderr).unwrap();
            assert_eq!(refused.status.code(), Some(1), "{arguments:?}: {said}");
            assert!(said.contains(encoding) && said.contains("save it as UTF-8"), "{arguments:?}: {said}");
            assert!(said.len() < 400 && said.lines().count() == 1, "{arguments:?}: {said}");
        }
    }
}

#[test]
fn what_a_shell_substitutes_for_a_program_is_read_whole_even_if_it_comes_late() {
    if !has("bash", "what_a_shell_substitutes_for_a_program_is_read_whole_even_if_it_comes_late") {
        return;
    }
    // The program runs before its input is written.
    let script = "exec 3<&0; exec \"$0\" charter check <(cat <&3)";
    let mut running = Command::new("bash")
        .args(["-c", script, env!("CARGO_BIN_EXE_custody")])
        .env_remove("CUSTODY_CLUSTER")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let charter = std::fs::read(data("charter.toml")).unwrap();
    let (begin, end) = charter.split_at(1000);
    let mut input = running.stdin.take().unwrap();
    input.write_all(begin).unwrap();
    input.flush().unwrap();
    input.write_all(end).unwrap();
    drop(input);
    let checked = running.wait_with_output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}
