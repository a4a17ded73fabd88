//! The programs of the lab, built by cargo next to the one that asks.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::cluster::Programs;

/// Builds `custody-node`, `custody` and `lab-enclave` in the profile of this program, and says where the
/// first and last are.
///
/// # Errors
/// When cargo fails.
pub fn build() -> Result<Programs> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--workspace", "--bins"]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let status = command.current_dir(env!("CARGO_MANIFEST_DIR")).status().context("running cargo")?;
    if !status.success() {
        bail!("cargo build failed");
    }
    let folder = folder()?;
    let program = |name: &str| {
        let path = folder.join(name);
        if path.exists() { Ok(path) } else { bail!("cargo built no {}", path.display()) }
    };
    program("custody")?;
    Ok(Programs { node: program("custody-node")?, enclave: program("lab-enclave")? })
}

/// The folder of the programs: this one's, or the one above for a test.
///
/// # Errors
/// When this program's place is not known.
pub fn folder() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own.parent().context("this program has no folder")?;
    if folder.ends_with("deps") {
        Ok(folder.parent().context("no folder above deps")?.to_owned())
    } else {
        Ok(folder.to_owned())
    }
}
