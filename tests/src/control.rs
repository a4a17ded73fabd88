//! The supervisor's socket: one line in, one line out. `cargo lab status`, `down`, `fault` and others use it.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use ceremonies::ids::NodeIndex;
pub use console::control::order;
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
        ["key-policy", file] => {
            cluster.put_key_policy(Path::new(file))?;
            Ok(format!("the KMS key now has the policy of {file}"))
        }
        ["install-enclave", index, file] => {
            cluster.install_enclave(node(index)?, Path::new(file)).await?;
            Ok(format!("enclave {index} starts from {file}, with new keys"))
        }
        ["fault", fault] => cluster.strike(&serde_json::from_str(fault)?).await,
        _ => anyhow::bail!("`{line}` is not a known order"),
    }
}
