//! An enclave under AWS's `nitro-cli`.
//!
//! The tool is called with a list of arguments, never through a shell, and never with `--debug-mode`.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use async_trait::async_trait;
use ceremonies::attestation::Measurement;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::process::Command;
use tracing::{info, warn};

use super::answer::{Described, Flags, Image, Started, State, Terminated};
use super::{EnclaveHost, HostError, Running};
use crate::config::Nitro;

/// How long the tool may take: it hands the enclave all its memory and waits for its heartbeat.
const PATIENCE: Duration = Duration::from_mins(3);
/// How much of what the tool says is repeated.
const MAX_SAID: usize = 1000;

const DESCRIBE_IMAGE: &str = "describe-eif";
const DESCRIBE: &str = "describe-enclaves";
const RUN: &str = "run-enclave";
const TERMINATE: &str = "terminate-enclave";
const CONSOLE: &str = "console";

/// This node's enclave on a Nitro host.
pub struct NitroHost {
    tool: PathBuf,
    settings: Nitro,
    allowed: Vec<Measurement>,
}

impl NitroHost {
    /// An enclave with these `settings` that runs one of the `allowed` images, by way of `tool`.
    #[must_use]
    pub fn new(tool: PathBuf, settings: Nitro, allowed: Vec<Measurement>) -> Self {
        Self { tool, settings, allowed }
    }

    /// The enclave's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.settings.name.as_str()
    }

    /// Measures the image's file, before anything runs from it.
    ///
    /// # Errors
    /// [`HostError::Measurement`] names the register that the charter does not allow.
    pub async fn examine_image(&self) -> Result<Measurement, HostError> {
        let image = &self.settings.image;
        let arguments = [OsStr::new("--eif-path"), image.as_os_str()];
        let described: Image = self.ask(DESCRIBE_IMAGE, &arguments).await?;
        described.measured.among(&image.display().to_string(), &self.allowed)
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        verb: &'static str,
        arguments: &[&OsStr],
    ) -> Result<T, HostError> {
        let mut command = Command::new(&self.tool);
        // Half a start is worse than a late one, so a start is never cut off.
        command.arg(verb).args(arguments).stdin(Stdio::null()).kill_on_drop(verb != RUN);
        let output = tokio::time::timeout(PATIENCE, command.output())
            .await
            .map_err(|_| HostError::Silent { verb, patience: PATIENCE })?
            .map_err(|source| HostError::Tool { tool: self.tool.clone(), source })?;
        if !output.status.success() {
            return Err(HostError::Failed { verb, status: output.status, said: said(&output) });
        }
        serde_json::from_slice(&output.stdout).map_err(|source| HostError::Answer { verb, source })
    }

    /// The enclave of this name, whatever may be wrong with it.
    async fn find(&self) -> Result<Option<Described>, HostError> {
        let all: Vec<Value> = self.ask(DESCRIBE, &[]).await?;
        // Of other people's enclaves, only the names are read.
        let mut own = all.into_iter().filter(|enclave| {
            enclave.get("EnclaveName").and_then(Value::as_str) == Some(self.settings.name.as_str())
        });
        let Some(enclave) = own.next() else { return Ok(None) };
        match own.count() {
            0 => serde_json::from_value(enclave)
                .map(Some)
                .map_err(|source| HostError::Answer { verb: DESCRIBE, source }),
            others => Err(HostError::Several { name: self.name().to_owned(), count: others + 1 }),
        }
    }

    fn examine(&self, enclave: Described) -> Result<Running, HostError> {
        let Described { id, cid: found, state, flags, measured } = enclave;
        match flags {
            Flags::None => {}
            Flags::DebugMode => return Err(HostError::Debug { id }),
        }
        match state {
            State::Running => {}
            State::Empty | State::Terminating => return Err(HostError::Ending { id }),
        }
        let measurement = measured.among(&format!("enclave {id}"), &self.allowed)?;
        match u32::try_from(found) {
            Ok(cid) if cid == self.settings.cid => Ok(Running { id, cid, measurement }),
            _ => Err(HostError::OtherCid { id, found, expected: self.settings.cid }),
        }
    }

    async fn run(&self) -> Result<Running, HostError> {
        self.examine_image().await?;
        let Nitro { image, memory_mib, cpus, cid, name } = &self.settings;
        let (memory, cpus, cid) = (memory_mib.to_string(), cpus.to_string(), cid.to_string());
        let arguments = [
            OsStr::new("--enclave-name"),
            OsStr::new(name.as_str()),
            OsStr::new("--eif-path"),
            image.as_os_str(),
            OsStr::new("--memory"),
            OsStr::new(&memory),
            OsStr::new("--cpu-count"),
            OsStr::new(&cpus),
            OsStr::new("--enclave-cid"),
            OsStr::new(&cid),
        ];
        let started: Started = self.ask(RUN, &arguments).await?;
        if started.name != self.name() {
            self.take_back(&started.id).await;
            return Err(HostError::NameTaken { name: self.name().to_owned(), got: started.name });
        }
        let Some(enclave) = self.find().await?.filter(|enclave| enclave.id == started.id) else {
            return Err(HostError::Vanished { id: started.id });
        };
        // The file may have been replaced by the time it was run.
        match self.examine(enclave) {
            Ok(running) => Ok(running),
            Err(refused) => {
                self.take_back(&started.id).await;
                Err(refused)
            }
        }
    }

    /// Stops an enclave that this call has started and that nobody has used.
    async fn take_back(&self, id: &str) {
        if let Err(error) = self.end(id).await {
            warn!(%id, %error, "could not stop an enclave that must not run");
        }
    }

    async fn end(&self, id: &str) -> Result<(), HostError> {
        let answer: Terminated = self.ask(TERMINATE, &[OsStr::new("--enclave-id"), OsStr::new(id)]).await?;
        if answer.terminated && answer.id == id {
            Ok(())
        } else {
            Err(HostError::NotEnded { id: id.to_owned() })
        }
    }
}

#[async_trait]
impl EnclaveHost for NitroHost {
    async fn running(&self) -> Result<Option<Running>, HostError> {
        self.find().await?.map(|enclave| self.examine(enclave)).transpose()
    }

    async fn start(&self) -> Result<Running, HostError> {
        if let Some(running) = self.running().await? {
            return Ok(running);
        }
        let refused = match self.run().await {
            Ok(running) => return Ok(running),
            Err(refused) => refused,
        };
        // A person and the agent may have started it at the same time; one of the two is enough.
        match self.running().await {
            Ok(Some(running)) => {
                info!(id = %running.id, "the enclave was already being started");
                Ok(running)
            }
            Ok(None) | Err(_) => Err(refused),
        }
    }

    async fn terminate(&self) -> Result<Option<String>, HostError> {
        let Some(enclave) = self.find().await? else { return Ok(None) };
        self.end(&enclave.id).await?;
        Ok(Some(enclave.id))
    }

    async fn console(&self) -> Result<(), HostError> {
        let Some(enclave) = self.find().await? else {
            return Err(HostError::NotRunning { name: self.name().to_owned() });
        };
        let output = Command::new(&self.tool)
            .args([CONSOLE, "--enclave-id", &enclave.id])
            .stdin(Stdio::null())
            .stdout(Stdio::inherit())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(|source| HostError::Tool { tool: self.tool.clone(), source })?;
        if output.status.success() { Ok(()) } else { Err(HostError::NoConsole { said: said(&output) }) }
    }
}

/// The tool's own words, on one line.
fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let words: Vec<&str> = text.split_whitespace().collect();
    if words.is_empty() { "nothing".to_owned() } else { words.join(" ").chars().take(MAX_SAID).collect() }
}
