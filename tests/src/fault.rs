//! What can be broken in a running cluster, and how it heals. A fault strikes a part as the world would: nothing in the
//! programs knows of it.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use ceremonies::ids::NodeIndex;
use clap::Subcommand;
use serde::{Deserialize, Serialize};

use crate::cluster::Cluster;
use crate::line::Line;

/// The longest delay of a bus, in milliseconds.
const MAX_DELAY_MS: u64 = 60_000;

/// Something that breaks, or is mended again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Subcommand)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// Kill an agent; it is started again.
    KillNode {
        /// Which node.
        node: NodeIndex,
    },
    /// Kill an agent and keep it down.
    StopNode {
        /// Which node.
        node: NodeIndex,
    },
    /// Start an agent that was kept down.
    StartNode {
        /// Which node.
        node: NodeIndex,
    },
    /// Freeze an agent.
    PauseNode {
        /// Which node.
        node: NodeIndex,
    },
    /// Resume a frozen agent.
    ResumeNode {
        /// Which node.
        node: NodeIndex,
    },
    /// Kill an enclave; it is started again, with new keys.
    KillEnclave {
        /// Which node.
        node: NodeIndex,
    },
    /// Freeze an enclave.
    StopEnclave {
        /// Which node.
        node: NodeIndex,
    },
    /// Destroy a node's store and restart its agent and enclave, as on a fresh machine.
    LoseNode {
        /// Which node.
        node: NodeIndex,
    },
    /// Cut nodes off from the broker, and so from all others: `partition 2,4`.
    Partition {
        /// Which nodes.
        #[arg(required = true, value_delimiter = ',')]
        nodes: Vec<NodeIndex>,
    },
    /// Have everything between the nodes and the broker arrive this many milliseconds late.
    SlowBus {
        /// How late.
        milliseconds: u64,
    },
    /// Kill the broker; it is started again.
    KillBroker,
    /// Freeze the broker.
    StopBroker,
    /// Have a node's store refuse every write (SQLite only).
    BreakStore {
        /// Which node.
        node: NodeIndex,
    },
    /// Set the clock of a node's agent so many seconds ahead, or behind: `skew-clock 2 -30`.
    SkewClock {
        /// Which node.
        node: NodeIndex,
        /// By how much.
        #[arg(allow_negative_numbers = true)]
        seconds: i64,
    },
    /// Have the KMS refuse every data key.
    BreakKms,
    /// Take away the folder in which backups are kept.
    BreakBackup,
    /// Mend everything that was broken here, shares that were lost excepted.
    Heal,
}

/// A node's store that is held so that nobody can write to it.
pub(crate) struct HeldStore {
    // The lock goes with the connection.
    _connection: sqlx::SqliteConnection,
}

impl Cluster {
    /// Breaks or mends something, and says what was done.
    ///
    /// # Errors
    /// When there is no such part, or it cannot be broken so.
    pub async fn strike(&self, fault: &Fault) -> Result<String> {
        Ok(match fault {
            Fault::KillNode { node } => {
                self.agent(*node)?.kill().await;
                format!("agent {node} killed; it is started again")
            }
            Fault::StopNode { node } => {
                self.agent(*node)?.hold().await;
                format!("agent {node} killed; `start-node {node}` starts it again")
            }
            Fault::StartNode { node } => {
                self.agent(*node)?.resume().await;
                format!("agent {node} starts")
            }
            Fault::PauseNode { node } => {
                self.agent(*node)?.freeze().await;
                format!("agent {node} frozen; `resume-node {node}` resumes it")
            }
            Fault::ResumeNode { node } => {
                self.agent(*node)?.thaw().await;
                format!("agent {node} resumed")
            }
            Fault::KillEnclave { node } => {
                self.enclave(*node)?.kill().await;
                format!("enclave {node} killed; it is started again, with new keys")
            }
            Fault::StopEnclave { node } => {
                self.enclave(*node)?.freeze().await;
                format!("enclave {node} frozen; `heal` resumes it")
            }
            Fault::LoseNode { node } => {
                self.lose(*node).await?;
                format!("node {node} has lost its store and restarts as a fresh machine would")
            }
            Fault::Partition { nodes } => self.partition(&nodes.iter().copied().collect())?,
            Fault::SlowBus { milliseconds } => self.slow_bus(*milliseconds)?,
            Fault::KillBroker => {
                self.broker().kill().await;
                "broker killed; it is started again".to_owned()
            }
            Fault::StopBroker => {
                self.broker().freeze().await;
                "broker frozen; `heal` resumes it".to_owned()
            }
            Fault::BreakStore { node } => self.break_store(*node).await?,
            Fault::SkewClock { node, seconds } => {
                self.skew_clock(*node, *seconds).await?;
                format!(
                    "agent {node} restarts with a clock that is off by {seconds:+} s; `heal` sets it right"
                )
            }
            Fault::BreakKms => {
                self.kms()
                    .put_key_policy(&serde_json::json!({ "Version": "2012-10-17", "Statement": [] }))?;
                "the KMS refuses everything; `heal` gives the key its policy back".to_owned()
            }
            Fault::BreakBackup => {
                let (here, away) = self.backups();
                fs::rename(&here, &away).with_context(|| format!("moving {} away", here.display()))?;
                format!("{} is gone; `heal` brings it back", here.display())
            }
            Fault::Heal => self.heal().await?,
        })
    }

    /// Where backups are kept, and where they are while that is broken.
    fn backups(&self) -> (std::path::PathBuf, std::path::PathBuf) {
        let here = self.layout().backups();
        let away = here.with_extension("away");
        (here, away)
    }

    fn partition(&self, nodes: &BTreeSet<NodeIndex>) -> Result<String> {
        let lines = nodes.iter().map(|node| self.line(*node)).collect::<Result<Vec<_>>>()?;
        lines.into_iter().for_each(Line::cut);
        let named: Vec<String> = nodes.iter().map(ToString::to_string).collect();
        Ok(format!("cut off from the broker: {}; `heal` ends it", named.join(", ")))
    }

    fn slow_bus(&self, milliseconds: u64) -> Result<String> {
        if milliseconds > MAX_DELAY_MS {
            bail!("a delay is {MAX_DELAY_MS} ms at most");
        }
        for node in self.nodes() {
            self.line(node)?.open(Duration::from_millis(milliseconds));
        }
        Ok(format!("everything between nodes and broker is {milliseconds} ms late; `heal` ends it"))
    }

    async fn break_store(&self, node: NodeIndex) -> Result<String> {
        self.agent(node)?;
        self.store_files(node)?;
        let held = hold(&self.store_url(node)).await;
        let held = held.with_context(|| format!("holding the store of node {node}"))?;
        self.held_stores().insert(node, held);
        Ok(format!("the store of node {node} takes no writes; `heal` ends it"))
    }

    async fn heal(&self) -> Result<String> {
        self.held_stores().clear();
        let (here, away) = self.backups();
        if away.exists() {
            fs::rename(&away, &here).with_context(|| format!("moving {} back", here.display()))?;
        }
        self.put_key_policy(&self.layout().key_policy())?;
        self.set_clocks_right().await?;
        self.broker().thaw().await;
        self.broker().resume().await;
        for node in self.nodes() {
            if let Ok(line) = self.line(node) {
                line.open(Duration::ZERO);
            }
            for service in [self.agent(node)?, self.enclave(node)?] {
                service.thaw().await;
                service.resume().await;
            }
        }
        Ok("mended; if a share was lost, it needs a recovery".to_owned())
    }
}

/// Locks an SQLite file against everybody who writes. Readers go on.
async fn hold(url: &str) -> Result<HeldStore> {
    use sqlx::{Connection as _, Executor as _};
    let mut connection = sqlx::SqliteConnection::connect(url).await?;
    connection.execute("PRAGMA busy_timeout = 10000").await?;
    connection.execute("BEGIN IMMEDIATE").await?;
    Ok(HeldStore { _connection: connection })
}
