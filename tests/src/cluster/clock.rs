//! An agent whose machine has the wrong time.
//!
//! `libfaketime` gives the agent's process another wall clock and leaves what durations are measured with alone, as on a
//! machine whose time is set wrong. Every other process keeps the right time.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use tokio::process::Command;

/// The most by which a clock can be off, in seconds: a day.
const MAX_SKEW_S: u64 = 86_400;

/// Where Debian has the library, for any processor.
fn library() -> Result<PathBuf> {
    let folders = fs::read_dir("/usr/lib").context("reading /usr/lib")?.flatten();
    let mut found = folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
    found.find(|file| file.exists()).context("libfaketime is not installed: `apt install faketime`")
}

fn setting(folder: &Path) -> PathBuf {
    folder.join("clock-skew")
}

/// From its next start on, the agent with this folder has a clock that is ahead by so many seconds, or behind.
///
/// # Errors
/// When the library is missing, the skew is too large, or the file cannot be written.
pub(super) fn skew(folder: &Path, seconds: i64) -> Result<()> {
    if seconds.unsigned_abs() > MAX_SKEW_S {
        bail!("a clock is off by {MAX_SKEW_S} s at most");
    }
    library()?;
    fs::write(setting(folder), seconds.to_string()).context("writing the skew of the clock")
}

/// From its next start on, the agent has the right time; whether it had not.
///
/// # Errors
/// When the file cannot be removed.
pub(super) fn set_right(folder: &Path) -> Result<bool> {
    let was_wrong = setting(folder).exists();
    if was_wrong {
        fs::remove_file(setting(folder)).context("removing the skew of the clock")?;
    }
    Ok(was_wrong)
}

/// Gives a process that is about to be started the clock of its node.
///
/// # Errors
/// When it should have another one and the library is missing.
pub(super) fn give(folder: &Path, command: &mut Command) -> Result<()> {
    let Ok(seconds) = fs::read_to_string(setting(folder)) else { return Ok(()) };
    command
        .env("LD_PRELOAD", library()?)
        .env("FAKETIME", format!("{:+}s", seconds.trim().parse::<i64>()?))
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    Ok(())
}
