//! `custody status`: whether each wallet can sign, and how every node is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use ceremonies::attestation::Measurement;
use ceremonies::book::Book;
use ceremonies::charter::Charter;
use futures_util::StreamExt as _;
use serde_json::json;

use super::Output;
use super::output::note;
use crate::client::{Client, News, Scope};
use crate::config::Cluster;
use crate::health::{self, Health, Level, Moment};
use crate::readiness::{Answer, Readiness};

/// How long `status` listens for heartbeats, which come every second.
const LISTEN: Duration = Duration::from_millis(2_500);

pub(super) async fn run(cluster: Cluster, output: Output, watch: bool) -> Result<()> {
    let client = Client::connect(&cluster).await?;
    let mut news = Box::pin(client.news().await?);
    // Heartbeats alone tell the health of nodes. The record adds the wallets, who was excluded and who is accused, if it can
    // be read in the meantime.
    let reader = client.clone();
    let mut record = tokio::spawn(async move { reader.library(&Scope::Current).await });
    let mut book: Option<Book> = None;
    let mut record_is_read = false;
    let mut heartbeats = BTreeMap::new();
    let mut printed = None;
    loop {
        let until = tokio::time::Instant::now() + LISTEN;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(until) => break,
                read = &mut record, if book.is_none() => {
                    if let Ok(Ok(library)) = read {
                        library.set_back.iter().for_each(|set_back| note(&format!("WARNING: {set_back}")));
                        book = Some(library.book);
                        record_is_read = true;
                    } else {
                        book = Some(Book::clone(&client.amendments()));
                    }
                }
                heard = news.next() => {
                    let Some(heard) = heard else { bail!("the connection to the bus is closed") };
                    if let News::Health(heartbeat) = heard {
                        let node = heartbeat.node;
                        let before = heartbeats.remove(&node);
                        let heard = health::Heard::new(&cluster.context, *heartbeat, Moment::now(), before);
                        heartbeats.insert(node, heard);
                    }
                }
            }
        }
        let known = Arc::new(book.clone().unwrap_or_else(|| Book::clone(&client.amendments())));
        let health = health::health(&known, |node| heartbeats.get(&u32::from(node)), Moment::now());
        let is_connected = *client.connected().borrow();
        let charter = known.context().charter();
        let text = status_text(charter, &health, record_is_read);
        let levels: Vec<_> = health.nodes.iter().map(|node| (node.level, node.attestation.clone())).collect();
        let wallets: Vec<_> = health.wallets.iter().map(Readiness::text).collect();
        let seen = (levels, wallets);
        if printed.as_ref() != Some(&seen) {
            output.print(
                &json!({
                    "cluster": charter.cluster(), "kind": charter.kind(), "record_read": record_is_read,
                    "wallets": health.wallets, "nodes": health.nodes,
                }),
                &text,
            )?;
            printed = Some(seen);
        }
        if !watch {
            if !is_connected {
                bail!(client.why_not_connected().await);
            }
            return all_is_well(&health);
        }
    }
}

/// What `status` prints: first whether each wallet can sign, then how each node is.
fn status_text(charter: &Charter, health: &Health, record_is_read: bool) -> String {
    let mut text = format!("cluster {} ({})\n", charter.cluster(), charter.kind().to_string().to_uppercase());
    for wallet in &health.wallets {
        text += &format!(
            "wallet {} g{} {} {}\n",
            wallet.wallet,
            wallet.generation,
            wallet.can_sign.mark(),
            wallet.text()
        );
    }
    if !record_is_read {
        text += "wallets ? not known: the record could not be read from the nodes\n";
    } else if health.wallets.is_empty() {
        text += "no wallet has a key yet\n";
    }
    let image = health.nodes.first().and_then(|node| node.image);
    let is_one_image = health.nodes.iter().all(|node| node.image == image);
    for node in &health.nodes {
        text += &format!(
            "node {} {} {}\n       attestation {}\n",
            node.node,
            node.level.mark(),
            node.summary,
            node.attestation
        );
        text.extend(node.accused.iter().map(|accused| format!("       {accused}\n")));
        if !is_one_image {
            text.extend(node.image.iter().flat_map(registers));
        }
        text.extend(node.shares.iter().flatten().map(|share| format!("       share {share}\n")));
    }
    if is_one_image && let Some(image) = image {
        text += "every enclave runs the image\n";
        text.extend(registers(&image));
    }
    text.trim_end().to_owned()
}

fn registers(image: &Measurement) -> Vec<String> {
    image.registers().map(|(index, pcr)| format!("       PCR{index} {pcr}\n")).collect()
}

/// # Errors
/// What is not well, for the exit code.
fn all_is_well(health: &Health) -> Result<()> {
    let cannot: Vec<&str> = health
        .wallets
        .iter()
        .filter(|wallet| matches!(wallet.can_sign, Answer::No | Answer::Unknown))
        .map(|wallet| wallet.wallet.as_str())
        .collect();
    if !cannot.is_empty() {
        bail!("not enough shares are known to be there to sign with {}", cannot.join(", "));
    }
    let is_well = |level| matches!(level, Level::Good | Level::Excluded);
    let bad = health.nodes.iter().filter(|node| !is_well(node.level)).count();
    if bad > 0 {
        bail!("{bad} of {} nodes are not healthy", health.nodes.len());
    }
    Ok(())
}
