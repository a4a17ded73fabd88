//! `custody drill`: what can be drilled, one drill, and the reports of those that were held.

mod course;
mod reports;

use std::path::PathBuf;

use anyhow::Result;
use ceremonies::ids::PersonName;
use clap::builder::PossibleValuesParser;
use clap::{ArgGroup, Args, Subcommand};
use serde_json::json;

use self::reports::Reports;
use super::Output;
use crate::drill::Drill;

#[derive(Subcommand)]
pub(super) enum DrillCommand {
    /// List the drills: what breaks, which check must be shown, and the targets.
    List,
    /// Hold a drill: break something in a lab, or have people break it, and time how soon it is shown and put right.
    Run(RunArguments),
    /// List the drills that were held, newest first, and who signed each report.
    Report(Reports),
}

#[derive(Args)]
#[command(group = ArgGroup::new("which").required(true).args(["name", "all"]))]
pub(super) struct RunArguments {
    /// Which drill.
    #[arg(value_parser = PossibleValuesParser::new(Drill::names()))]
    name: Option<String>,
    /// Every drill, one after another. Where one cannot be held, those after it are not begun.
    #[arg(long)]
    all: bool,
    /// Have people break and mend it in a lab too. On any other cluster they always do.
    #[arg(long)]
    by_hand: bool,
    #[command(flatten)]
    reports: Reports,
    /// Who signs the report, with the key that the cluster file names unless --key is given. Nobody is asked again:
    /// it is signed as it is measured.
    #[arg(long)]
    person: Option<PersonName>,
    /// The private key file, or a public key file if the SSH agent holds its private half. Without --person and --key
    /// the report is not signed.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

pub(super) async fn run(path: Option<PathBuf>, output: Output, command: DrillCommand) -> Result<()> {
    match command {
        DrillCommand::List => list(output),
        DrillCommand::Run(arguments) => course::run(path, output, arguments).await,
        DrillCommand::Report(reports) => reports::list(path, output, &reports).await,
    }
}

fn list(output: Output) -> Result<()> {
    let (mut lines, mut values) = (Vec::new(), Vec::new());
    for name in Drill::names() {
        let drill = Drill::named(name)?;
        let (check, targets) = (drill.check.id(), drill.target_s);
        let node = drill.node.map_or_else(String::new, |node| format!(" of node {node}"));
        lines.push(format!(
            "{name:<15} {}\n    {check}{node} within {} s, every wallet signs within {} s, mended within {} s; opens \
             runbooks/{}",
            drill.title, targets.detect, targets.service, targets.redundancy, drill.runbook
        ));
        values.push(json!({ "name": name, "drill": drill }));
    }
    output.print(&json!(values), &lines.join("\n"))
}
