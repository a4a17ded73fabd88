//! People's files: never read beyond a limit, and written whole or not at all.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use console::file::{FileError, Readers, read, replace, write_new};

use crate::data;

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

#[test]
fn a_write_that_fails_leaves_no_file_and_the_next_try_succeeds() {
    let folder = tempfile::tempdir().unwrap();
    let file = [b"age-encryption.org/v1\n".as_slice(), &[1; 4000]].concat();
    std::fs::write(folder.path().join("share.age"), file).unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (share, page) = (path("share.age"), path("page.html"));
    let record = "0".repeat(64);
    let print = [
        "paper",
        "print",
        &share,
        "--cluster-id",
        "lab-1",
        "--wallet",
        "treasury",
        "--generation",
        "1",
        "--node",
        "1",
        "--serial",
        "A-1",
        "--record",
        &record,
        "-o",
        &page,
    ];
    let full = within(4_000_000, "8", &print);
    let said = String::from_utf8_lossy(&full.stderr);
    assert_eq!(full.status.code(), Some(1), "{said}");
    assert!(said.contains("page.html cannot be written; no part of it was left behind"), "{said}");
    assert_eq!(names(folder.path()), ["share.age"]);
    let again = within(4_000_000, "unlimited", &print);
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
    assert!(std::fs::read_to_string(&page).unwrap().ends_with("</html>\n"));
}
