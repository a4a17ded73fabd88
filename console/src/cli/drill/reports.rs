//! The folder of reports: written once, never over another, and never believed.

use std::collections::BTreeMap;
use std::fs::{self, TryLockError};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use ceremonies::charter::Person;
use ceremonies::ids::UnixMillis;
use ceremonies::sshsig::MAX_SIGNATURE;
use ceremonies::text::one_line;
use clap::Args;
use serde_json::{Value, json};

use super::super::output::note;
use super::super::{Desk, Output, cluster};
use crate::client::Scope;
use crate::config::Cluster;
use crate::drill::{Drill, MAX_REPORT, Report, Stage, chart, seconds, signer};
use crate::file::{Readers, read, write_new};
use crate::memory::Memory;

/// How many names of a folder are looked at, and how many reports are read, those with the latest names first.
const MAX_NAMES: usize = 100_000;
const MAX_REPORTS: usize = 1000;
/// How many times a chart shows, the latest.
const CHARTED: usize = 40;

#[derive(Debug, Args)]
pub(in crate::cli) struct Reports {
    /// The folder of the reports [default: `drills` where this console keeps what it remembers of the cluster].
    #[arg(long, value_name = "DIR")]
    reports: Option<PathBuf>,
}

impl Reports {
    /// The folder.
    fn folder(&self, cluster: &Cluster) -> Result<PathBuf> {
        let folder = self.reports.clone().or_else(|| Memory::of(cluster).drills());
        folder.context("this console has no folder for reports: give --reports DIR")
    }

    /// The folder, which is made if need be.
    pub(super) fn made(&self, cluster: &Cluster) -> Result<PathBuf> {
        let folder = self.folder(cluster)?;
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.with_context(|| format!("making the folder {}", folder.display()))?;
        Ok(folder)
    }
}

/// Keeps any other drill that reports to this folder from being held, until it is dropped.
pub(super) fn alone(folder: &Path) -> Result<fs::File> {
    let opened =
        fs::File::open(folder).with_context(|| format!("opening the folder {}", folder.display()))?;
    match opened.try_lock() {
        Ok(()) => Ok(opened),
        Err(TryLockError::WouldBlock) => {
            bail!("another drill is being held, which reports to {}: wait for its end", folder.display())
        }
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("locking the folder {}", folder.display()))
        }
    }
}

/// The file of a report: names sort as the drills were held.
pub(super) fn file(folder: &Path, drill: &str, began: UnixMillis) -> PathBuf {
    let time = began.to_string().replace([':', '-'], "");
    folder.join(format!("{time}-{drill}.json"))
}

/// The file of its signature.
fn beside(report: &Path) -> PathBuf {
    report.with_added_extension("sig")
}

/// Writes a report, and the signature beside it if there is one.
pub(super) fn write(file: &Path, report: &str, signature: Option<&[u8]>) -> Result<()> {
    write_new(file, report.as_bytes(), Readers::Anyone)?;
    if let Some(signature) = signature {
        write_new(&beside(file), signature, Readers::Anyone)?;
    }
    Ok(())
}

/// Whether somebody stands for a report.
enum Standing {
    By(String),
    Unsigned,
    Bad(String),
}

impl Standing {
    fn of(file: &Path, report: &[u8], people: &[Person]) -> Self {
        let signature = beside(file);
        if !signature.exists() {
            return Self::Unsigned;
        }
        let checked = read("signature", &signature, MAX_SIGNATURE)
            .map_err(|error| error.to_string())
            .and_then(|bytes| signer(people, report, &bytes).map_err(|error| error.to_string()));
        match checked {
            Ok(person) => Self::By(person.to_string()),
            Err(why) => Self::Bad(one_line(&why)),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::By(person) => format!("signed by {person}"),
            Self::Unsigned => "unsigned".to_owned(),
            Self::Bad(why) => format!("BAD: {why}"),
        }
    }

    fn rendered(&self) -> Value {
        match self {
            Self::By(person) => json!({ "signed_by": person }),
            Self::Unsigned => json!("unsigned"),
            Self::Bad(why) => json!({ "bad": why }),
        }
    }
}

fn is_report(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|ending| ending == "json")
}

/// The names of reports in a folder, the latest first; none if there is no folder yet.
fn names(folder: &Path) -> Result<Vec<String>> {
    if !folder.try_exists().with_context(|| format!("looking for {}", folder.display()))? {
        return Ok(Vec::new());
    }
    let files = fs::read_dir(folder).with_context(|| format!("reading the folder {}", folder.display()))?;
    let files = files.take(MAX_NAMES).filter_map(|file| file.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> = files.filter(|name| is_report(name)).collect();
    names.sort_unstable_by(|one, other| other.cmp(one));
    names.truncate(MAX_REPORTS);
    Ok(names)
}

fn load(file: &Path) -> Result<(Report, Vec<u8>)> {
    let bytes = read("report", file, MAX_REPORT)?;
    Ok((Report::parse(&bytes)?, bytes))
}

/// The people of the charter in force; of the first charter where no node can be asked.
async fn people(path: Option<PathBuf>, first: &Cluster) -> Vec<Person> {
    match Desk::open(path, Scope::Amendments).await {
        Ok(desk) => desk.book.context().charter().people().to_vec(),
        Err(error) => {
            note(&format!("note: signatures are checked against the first charter: {error:#}"));
            first.charter().people().to_vec()
        }
    }
}

pub(super) async fn list(path: Option<PathBuf>, output: Output, reports: &Reports) -> Result<()> {
    let cluster = cluster(path.clone())?;
    let folder = reports.folder(&cluster)?;
    let names = names(&folder)?;
    let people = if names.is_empty() { Vec::new() } else { people(path, &cluster).await };
    let (mut lines, mut values, mut bad) = (Vec::new(), Vec::new(), Vec::new());
    let mut charted: BTreeMap<String, Vec<Option<u64>>> = BTreeMap::new();
    for name in names {
        let (report, bytes) = match load(&folder.join(&name)) {
            Ok(loaded) => loaded,
            Err(error) => {
                lines.push(format!(
                    "{} is not a report: {}",
                    one_line(&name),
                    one_line(&format!("{error:#}"))
                ));
                values.push(json!({ "file": name, "not_a_report": format!("{error:#}") }));
                if beside(&folder.join(&name)).exists() {
                    bad.push(one_line(&name));
                }
                continue;
            }
        };
        let standing = Standing::of(&folder.join(&name), &bytes, &people);
        lines.push(line(&report, &standing));
        values.push(json!({ "file": name, "signature": standing.rendered(), "report": report }));
        if matches!(standing, Standing::Bad(_)) {
            bad.push(one_line(&name));
        } else {
            charted.entry(one_line(&report.drill)).or_default().push(report.took(Stage::Redundancy));
        }
    }
    if lines.is_empty() {
        lines.push(format!("no drill was held here: {} has no report", folder.display()));
    }
    if !charted.is_empty() {
        lines.push("redundancy, oldest to newest; ✗ never came".to_owned());
    }
    lines.extend(charted.iter().map(|(drill, times)| charted_line(drill, times)));
    output.print(&json!(values), &lines.join("\n"))?;
    if !bad.is_empty() {
        bail!("the signature is BAD of {}", bad.join(", "));
    }
    Ok(())
}

fn line(report: &Report, standing: &Standing) -> String {
    let took = |stage| report.took(stage).map_or_else(|| "–".to_owned(), seconds);
    let outcome = match (&report.failed, report.met) {
        (Some(why), _) => format!("FAILED: {}", one_line(why)),
        (None, true) => "met".to_owned(),
        (None, false) => "NOT MET".to_owned(),
    };
    format!(
        "{}  {:<15} {} ({})  detect {}, service {}, redundancy {}  {outcome}  [{}]",
        report.began,
        one_line(&report.drill),
        report.cluster,
        report.kind.to_string().to_uppercase(),
        took(Stage::Detect),
        took(Stage::Service),
        took(Stage::Redundancy),
        standing.text()
    )
}

/// The times of one drill, given newest first.
fn charted_line(drill: &str, times: &[Option<u64>]) -> String {
    let latest: Vec<Option<u64>> = times.iter().take(CHARTED).rev().copied().collect();
    let target = Drill::named(drill).map(|drill| format!("; target {} s", drill.target_s.redundancy));
    let came = || latest.iter().flatten().copied();
    let range = match (came().min(), came().max()) {
        (Some(least), Some(most)) if least < most => format!("{} to {}", seconds(least), seconds(most)),
        (Some(once), _) => seconds(once),
        (None, _) => "never".to_owned(),
    };
    format!("{drill:<15} {}  {range}{}", chart(&latest), target.unwrap_or_default())
}
