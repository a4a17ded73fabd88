//! The programs of the lab, built by cargo next to the program that asks.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::cluster::Programs;

/// Builds `custody-node`, `custody` and `lab-enclave` in the profile of this program, and says where the
/// first and last are.
///
/// # Errors
/// When cargo fails.
pub fn build() -> Result<Programs> {
    let mut command = cargo_build(&workspace());
    command.args(["--workspace", "--bins"]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    if is_test()? {
        command.arg("--quiet");
        // With the features that tests enable in dependencies: otherwise much of the workspace would be compiled again.
        command.arg("--tests");
    }
    let status = command.status().context("running cargo")?;
    if !status.success() {
        bail!("cargo build failed");
    }
    let folder = folder()?;
    let program = |name: &str| {
        let path = folder.join(name);
        if path.exists() { Ok(path) } else { bail!("cargo did not build {}", path.display()) }
    };
    program("custody")?;
    Ok(Programs { node: program("custody-node")?, enclave: program("lab-enclave")? })
}

/// A `cargo build` in a folder. What cargo told this program about its own package is not passed on: build scripts that
/// look at it would rerun, and everything that rests on them be rebuilt, at every change between the two.
pub(crate) fn cargo_build(folder: &Path) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(folder).arg("build");
    for (name, _) in std::env::vars_os() {
        let of_a_package =
            ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_", "OUT_DIR"];
        if name.to_str().is_some_and(|name| of_a_package.iter().any(|prefix| name.starts_with(prefix))) {
            command.env_remove(name);
        }
    }
    command
}

/// The workspace's folder.
#[must_use]
pub fn workspace() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_owned)
}

/// The folder of cargo's outputs: the one above the profile's.
///
/// # Errors
/// When this program's place is not known.
pub fn target() -> Result<PathBuf> {
    Ok(folder()?.parent().context("no folder above the profile's")?.to_owned())
}

/// The folder of the programs: this one's, or the one above for a test.
///
/// # Errors
/// When this program's place is not known.
pub fn folder() -> Result<PathBuf> {
    let own = own_folder()?;
    if is_test()? { Ok(own.parent().context("no folder above deps")?.to_owned()) } else { Ok(own) }
}

/// Whether this program is a test or bench: those are in a folder of their own.
fn is_test() -> Result<bool> {
    Ok(own_folder()?.ends_with("deps"))
}

fn own_folder() -> Result<PathBuf> {
    Ok(std::env::current_exe()?.parent().context("this program has no folder")?.to_owned())
}
