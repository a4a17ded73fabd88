//! The direction of imports between the rooms of `src`: shell, then signer, then scheme, then session.

use std::fs;
use std::path::{Path, PathBuf};

/// A room, and what no line in it mentions.
const MENTIONS_NOTHING_OF: [(&str, &[&str]); 3] = [
    ("session", &["scheme", "dkls23", "secp256k1", "k256", "ECDSA", "crate::signer", "crate::shell"]),
    ("scheme", &["crate::signer", "crate::shell"]),
    (
        "signer",
        &[
            "shell",
            "kms",
            "attest::",
            "crate::seal",
            "tokio",
            "async",
            ".await",
            "channel",
            "thread",
            "Mutex",
            "Instant",
            "SystemTime",
            "rand::",
            "KeyShare",
        ],
    ),
];

fn files(folder: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn a_session_knows_no_scheme_and_a_signer_does_no_io_and_sees_no_share() {
    for (room, words) in MENTIONS_NOTHING_OF {
        let files = files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(room));
        assert!(files.len() > 5, "{room} has {} files", files.len());
        for file in files {
            let text = fs::read_to_string(&file).unwrap();
            for (number, line) in (1..).zip(text.lines()) {
                let found = words.iter().find(|word| line.contains(**word));
                assert!(found.is_none(), "{}:{number} mentions {found:?}: {line}", file.display());
            }
        }
    }
}
