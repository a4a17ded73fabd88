//! What somebody finds out who has the bundle, the page of formats, and none of this project's code.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::path::Path;
use std::process::Command;

fn verifier() -> Command {
    let mut python = Command::new("python3");
    python.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/verifier")).env("PYTHONDONTWRITEBYTECODE", "1");
    python
}

/// What the verifier of strangers says of a bundle that it finds right.
pub(crate) fn finds_right(bundle: &Path) -> String {
    let done = verifier().arg("verify.py").arg(bundle).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

#[test]
fn bundles_are_verified_and_changed_ones_refused_by_a_program_made_from_the_formats_alone() {
    let done = verifier().args(["-m", "unittest", "test_verify"]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}
