//! Building the program of an image: static, of the locked sources, and without a trace of this computer.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;

/// Where the workspace, cargo's home and the outputs are said to be.
const PLACES: [&str; 3] = ["/custody", "/cargo", "/target"];

/// A program that can be the first process of an image.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub enum Program {
    /// What production runs.
    #[default]
    CustodyEnclave,
    /// The same library, wired to a laboratory's stand-ins.
    LabEnclave,
}

impl Program {
    fn package_and_name(self) -> (&'static str, &'static str) {
        match self {
            Self::CustodyEnclave => ("enclave", "custody-enclave"),
            Self::LabEnclave => ("lab-enclave", "lab-enclave"),
        }
    }

    /// The profile with which it is built: a laboratory builds its image again and again, and measures no speed in it.
    fn profile(self) -> &'static str {
        match self {
            Self::CustodyEnclave => "image",
            Self::LabEnclave => "lab-image",
        }
    }

    /// Builds the program and returns its place.
    ///
    /// # Errors
    /// When cargo fails, or where cargo's home is not known.
    pub fn build(self, target_dir: &Path) -> Result<PathBuf> {
        let (package, name) = self.package_and_name();
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
        std::fs::create_dir_all(target_dir).with_context(|| format!("creating {}", target_dir.display()))?;
        let target_dir = target_dir.canonicalize()?;
        let here = [workspace.clone(), cargo_home()?, target_dir.clone()];
        // The last of several that fit is taken: the outputs may lie in the workspace.
        let option = |name| {
            let maps = here.iter().zip(PLACES);
            maps.map(move |(here, there)| format!("{name}={}={there}", here.display()))
                .collect::<Vec<_>>()
                .join(" ")
        };
        let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo
            .current_dir(&workspace)
            .args(["build", "--quiet", "--locked", "--profile", self.profile(), "--bins"])
            .args(["--package", package, "--target", &triple, "--target-dir"])
            .arg(&target_dir)
            .env("RUSTFLAGS", format!("-C target-feature=+crt-static {}", option("--remap-path-prefix")))
            .env("CFLAGS", option("-ffile-prefix-map"));
        // What cargo tells this program of its own package is none of the other build's business.
        for (name, _) in std::env::vars_os() {
            if name
                .to_str()
                .is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"))
            {
                cargo.env_remove(name);
            }
        }
        ensure!(cargo.status().context("running cargo")?.success(), "cargo could not build {name}");
        Ok(target_dir.join(triple).join(self.profile()).join(name))
    }
}

fn cargo_home() -> Result<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    home.context("where is cargo's home? set CARGO_HOME")?.canonicalize().context("finding cargo's home")
}
