//! The supervisor's socket: one line in, one line out. `cargo lab status`, `down`, `fault` and others use it.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use ceremonies::ids::NodeIndex;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;

/// Longest line read.
const MAX_LINE: u64 = 4096;

/// Listens for orders until the cluster is stopped.
///
/// # Errors
/// When the socket cannot be made.
pub fn listen(cluster: Arc<Cluster>, stop: CancellationToken) -> Result<tokio::task::JoinHandle<()>> {
    let path = cluster.layout().control();
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).with_context(|| format!("listening on {}", path.display()))?;
    Ok(tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else { break };
            // A client that disconnects gets no answer.
            let _ = converse(stream, &cluster, &stop).await;
        }
        let _ = std::fs::remove_file(&path);
    }))
}

async fn converse(stream: UnixStream, cluster: &Cluster, stop: &CancellationToken) -> Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    BufReader::new(read.take(MAX_LINE)).read_line(&mut line).await?;
    let answer = match obey(line.trim(), cluster, stop).await {
        Ok(done) => format!("ok {done}\n"),
        Err(error) => format!("refused {error:#}\n"),
    };
    write.write_all(answer.as_bytes()).await?;
    Ok(())
}

async fn obey(line: &str, cluster: &Cluster, stop: &CancellationToken) -> Result<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let node = |text: &str| -> Result<NodeIndex> {
        Ok(NodeIndex::new(text.parse::<u8>().with_context(|| format!("`{text}` is not a node"))?)?)
    };
    match words.as_slice() {
        ["status"] => Ok(format!("running {}", std::process::id())),
        ["down"] => {
            stop.cancel();
            Ok("stopping".to_owned())
        }
        ["kill-node", index] => {
            cluster.agent(node(index)?)?.kill().await;
            Ok(format!("agent {index} killed; it is started again"))
        }
        ["stop-node", index] => {
            cluster.agent(node(index)?)?.hold().await;
            Ok(format!("agent {index} killed; `start-node {index}` starts it again"))
        }
        ["start-node", index] => {
            cluster.agent(node(index)?)?.resume().await;
            Ok(format!("agent {index} starts"))
        }
        ["pause-node", index] => {
            cluster.agent(node(index)?)?.freeze().await;
            Ok(format!("agent {index} frozen; `resume-node {index}` resumes it"))
        }
        ["resume-node", index] => {
            cluster.agent(node(index)?)?.thaw().await;
            Ok(format!("agent {index} resumed"))
        }
        ["kill-enclave", index] => {
            cluster.enclave(node(index)?)?.kill().await;
            Ok(format!("enclave {index} killed; it is started again, with new keys"))
        }
        ["lose-node", index] => {
            cluster.lose(node(index)?).await?;
            Ok(format!("node {index} has lost its store and restarts as a fresh machine would"))
        }
        ["key-policy", file] => {
            cluster.put_key_policy(Path::new(file))?;
            Ok(format!("the KMS key now has the policy of {file}"))
        }
        ["install-enclave", index, file] => {
            cluster.install_enclave(node(index)?, Path::new(file)).await?;
            Ok(format!("enclave {index} starts from {file}, with new keys"))
        }
        ["kill-broker"] => {
            cluster.broker().kill().await;
            Ok("broker killed; it is started again".to_owned())
        }
        _ => anyhow::bail!("`{line}` is not a known order"),
    }
}

/// Sends an order to the supervisor of the cluster in this folder, and returns its answer.
///
/// # Errors
/// When no supervisor runs there, or it refuses.
pub async fn order(control: &Path, line: &str) -> Result<String> {
    let mut stream = UnixStream::connect(control).await.with_context(|| {
        format!("no lab is running at {}; start one with `cargo lab up`", control.display())
    })?;
    stream.write_all(format!("{line}\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    match answer.trim().split_once(' ') {
        Some(("ok", done)) => Ok(done.to_owned()),
        Some(("refused", why)) => anyhow::bail!("{why}"),
        _ => anyhow::bail!("the lab gave no answer"),
    }
}
