//! The attacker: a hostile host on the bus, a compromised parent between an agent and its enclave, and a byzantine
//! enclave in place of a node's own. The last two take a list of misdeeds, which tests change while they run.
//!
//! `tests/ATTACKS.md` says which attack is stopped where, and which test tries it.

mod host;
mod parent;
mod peer;
mod raw;

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use ceremonies::ids::NodeIndex;

pub use self::host::Host;
pub use self::parent::{Boundary, Misdeed, Parent, Passing, Side};
pub use self::peer::{Peer, PeerMisdeed};
pub use self::raw::{Published, Raw};
use crate::cluster::Cluster;

/// Makes a node's agent take another socket for its enclave's, and restarts the agent.
async fn redirect(cluster: &Cluster, node: NodeIndex, socket: &str) -> Result<()> {
    let file = cluster.layout().node(node).join("node.toml");
    let mut config: toml::Table = fs::read_to_string(&file)?.parse()?;
    let enclave = config.get_mut("enclave").and_then(toml::Value::as_table_mut);
    let enclave = enclave.with_context(|| format!("{} does not name an enclave", file.display()))?;
    enclave.insert("unix".to_owned(), socket.into());
    fs::write(&file, toml::to_string(&config)?)?;
    cluster.agent(node)?.kill().await;
    Ok(())
}

/// A listener in place of what was there.
fn listen(socket: &Path) -> Result<tokio::net::UnixListener> {
    match fs::remove_file(socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        Ok(()) | Err(_) => {}
    }
    tokio::net::UnixListener::bind(socket).with_context(|| format!("listening on {}", socket.display()))
}

/// Flips a bit well past the middle, which in a signature's messages is among the oblivious transfers.
fn flip(bytes: &mut [u8]) {
    let late = bytes.len() * 3 / 4;
    if let Some(byte) = bytes.get_mut(late) {
        *byte ^= 1;
    }
}
