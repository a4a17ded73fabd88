//! Losing what a node has stored: a machine that is gone, and one that is rolled back to an earlier state.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use ceremonies::charter::Charter;
use ceremonies::ids::NodeIndex;
use tokio::process::Command;

use super::Cluster;
use super::founding::new_nkey;
use super::starting::{wait_for_broker, write_broker};

/// A SQLite database and the files beside it.
const STORE: [&str; 3] = ["store.db", "store.db-wal", "store.db-shm"];

/// A node's store as it was.
pub struct StoreCopy(Vec<(PathBuf, Vec<u8>)>);

fn delete(files: &[PathBuf]) -> Result<()> {
    for file in files.iter().filter(|file| file.exists()) {
        fs::remove_file(file).with_context(|| format!("deleting {}", file.display()))?;
    }
    Ok(())
}

impl Cluster {
    /// The URL of a node's store.
    #[must_use]
    pub fn store_url(&self, node: NodeIndex) -> String {
        format!("sqlite:{}", self.layout.node(node).join(STORE[0]).display())
    }

    pub(crate) fn store_files(&self, node: NodeIndex) -> Result<[PathBuf; 3]> {
        let files = STORE.map(|name| self.layout.node(node).join(name));
        ensure!(
            files[0].exists(),
            "node {node} keeps its store in a database server: only a store in a file can be lost here"
        );
        Ok(files)
    }

    async fn while_down<T>(&self, node: NodeIndex, change: impl FnOnce() -> Result<T>) -> Result<T> {
        let (agent, enclave) = (self.agent(node)?, self.enclave(node)?);
        agent.hold().await;
        enclave.hold().await;
        let changed = change();
        enclave.resume().await;
        agent.resume().await;
        changed
    }

    /// Destroys the broker's streams. The broker restarts empty, without the log's stream until somebody makes it.
    ///
    /// # Errors
    /// When the files cannot be deleted, or the broker does not start again.
    pub async fn lose_streams(&self) -> Result<()> {
        self.broker.hold().await;
        let lost = fs::remove_dir_all(self.layout.streams()).context("deleting the streams");
        self.broker.resume().await;
        lost?;
        wait_for_broker(self.settings.nats_port, &self.layout.nats().join("nats.log")).await
    }

    /// Destroys what a node has stored and restarts it, as on a fresh machine.
    ///
    /// # Errors
    /// When there is no such node, or its store is not a file.
    pub async fn lose(&self, node: NodeIndex) -> Result<()> {
        self.agent(node)?;
        let files = self.store_files(node)?;
        self.while_down(node, || delete(&files)).await
    }

    /// Puts a fresh machine in a node's place, with an empty store and a new credential, and returns that one's public
    /// half: no charter lists it yet.
    ///
    /// # Errors
    /// As [`Self::lose`].
    pub async fn replace(&self, node: NodeIndex) -> Result<String> {
        let files = self.store_files(node)?;
        let seed = self.layout.node(node).join("nats.seed");
        self.while_down(node, || {
            delete(&files)?;
            delete(std::slice::from_ref(&seed))?;
            new_nkey(&seed)
        })
        .await
    }

    /// Loses every machine: all stores, the broker's streams, and every node's credential. What is left are the
    /// charter, the people with their keys, the backups, and these bundles; fresh machines with new credentials start
    /// with them. Returns the charter that lists the new credentials, which is still to be put in force.
    ///
    /// # Errors
    /// When a file cannot be written, or a bundle is refused.
    pub async fn lose_all(&self, node_program: &Path, bundles: &[PathBuf]) -> Result<Arc<Charter>> {
        let first = Charter::parse(&fs::read(self.layout.charter())?)?;
        let nodes: Vec<NodeIndex> = self.nodes().collect();
        for node in &nodes {
            self.agent(*node)?.hold().await;
            self.enclave(*node)?.hold().await;
        }
        self.broker.hold().await;
        fs::remove_dir_all(self.layout.streams())?;
        let mut draft = first.draft();
        draft.amends = Some(first.hash());
        for node in &mut draft.nodes {
            for file in self.store_files(node.index)?.iter().filter(|file| file.exists()) {
                fs::remove_file(file)?;
            }
            let seed = self.layout.node(node.index).join("nats.seed");
            fs::remove_file(&seed)?;
            node.nkey = new_nkey(&seed)?;
        }
        let next = Charter::parse(draft.to_toml()?.as_bytes())?;
        write_broker(&self.layout, &self.settings, &next)?;
        self.broker.resume().await;
        let log = self.layout.nats().join("nats.log");
        wait_for_broker(self.settings.nats_port, &log).await?;
        self.make_stream().await?;
        for node in nodes {
            let taken = Command::new(node_program)
                .arg("--config")
                .arg(self.layout.node(node).join("node.toml"))
                .arg("take")
                .args(bundles)
                .output()
                .await?;
            ensure!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));
            self.enclave(node)?.resume().await;
            self.agent(node)?.resume().await;
        }
        Ok(Arc::new(next))
    }

    /// Copies what a node has stored.
    ///
    /// # Errors
    /// As [`Self::lose`].
    pub async fn copy_store(&self, node: NodeIndex) -> Result<StoreCopy> {
        let files = self.store_files(node)?;
        self.while_down(node, || {
            let there = files.into_iter().filter(|file| file.exists());
            let read = there.map(|file| Ok((file.clone(), fs::read(&file)?)));
            Ok(StoreCopy(read.collect::<Result<_>>()?))
        })
        .await
    }

    /// Rolls a node back to what it had stored when the copy was made.
    ///
    /// # Errors
    /// As [`Self::lose`].
    pub async fn set_store_back(&self, node: NodeIndex, copy: &StoreCopy) -> Result<()> {
        let files = self.store_files(node)?;
        self.while_down(node, || {
            for file in files.iter().filter(|file| file.exists()) {
                fs::remove_file(file)?;
            }
            for (file, bytes) in &copy.0 {
                fs::write(file, bytes).with_context(|| format!("writing {}", file.display()))?;
            }
            Ok(())
        })
        .await
    }
}
