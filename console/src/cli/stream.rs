//! Making the stream of the log, as the broker's administrator.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use ceremonies::charter::{Charter, MAX_CHARTER};
use clap::Args;
use serde_json::json;

use super::Output;
use crate::file::{MAX_SETTINGS, read};
use crate::keeper::{KeeperError, Made, make_stream};

#[derive(Args)]
pub(super) struct StreamArguments {
    /// The charter of the cluster that the stream is for.
    file: PathBuf,
    /// The broker's URL.
    #[arg(long, value_name = "URL")]
    server: String,
    /// The file with the seed of the keeper's NKey, whose public half was passed to `nats-config --keeper`.
    #[arg(long, value_name = "FILE")]
    seed: PathBuf,
    /// The number of servers that keep the stream: 3 on a broker cluster of three.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=5))]
    replicas: u8,
}

pub(super) async fn run(output: Output, arguments: StreamArguments) -> Result<()> {
    let StreamArguments { file, server, seed, replicas } = arguments;
    let charter = Charter::parse(&read("charter", &file, MAX_CHARTER)?)?;
    let seed = zeroize::Zeroizing::new(read("keeper seed", &seed, MAX_SETTINGS)?);
    let seed = std::str::from_utf8(&seed).ok().context("the keeper's seed is not text")?;
    let (made, said) = match make_stream(&server, seed, replicas).await {
        Ok(Made::New) => (true, "now made, with the required settings"),
        Ok(Made::There) => (false, "already there, with the required settings"),
        Err(KeeperError::Differs(differences)) => {
            let lines: Vec<String> = differences.iter().map(|difference| format!("  {difference}")).collect();
            bail!(
                "the stream on {server} does not have the required settings, and agents do not write to it:\n{}",
                lines.join("\n")
            );
        }
        Err(error) => return Err(error.into()),
    };
    output.print(
        &json!({ "cluster": charter.cluster(), "made": made }),
        &format!("the stream of {} is {said}", charter.cluster()),
    )
}
