//! What an agent is built from: it is trusted with nothing, so what handles shares is not in its program.

use std::process::Command;

/// The names of all packages that an agent's program is built from.
fn packages() -> Vec<String> {
    let tree = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--locked",
            "--package",
            "node",
            "--edges",
            "normal",
            "--prefix",
            "none",
            "--format",
            "{lib}",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    String::from_utf8(tree.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn agent_holds_neither_the_protocol_nor_the_kms_client_nor_the_cipher_of_backups() {
    let packages = packages();
    assert!(packages.iter().any(|package| package == "enclave_link"), "the agent speaks to its enclave");
    for foreign in ["enclave", "dkls23", "dkls23_core", "aws_sdk_kms", "age", "hpke"] {
        assert!(!packages.iter().any(|package| package == foreign), "the agent is built from {foreign}");
    }
}
