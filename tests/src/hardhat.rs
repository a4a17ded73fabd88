//! An Ethereum chain of the lab's own: Hardhat from npm, pinned by a lock file, on a loopback port.
//!
//! It shares no code with what it judges: a transaction that it mines is valid, whatever our own code thinks.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use ceremonies::ids::Hash;
use http_body_util::{BodyExt as _, Full};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

/// The package and, with the hash of each, everything that it needs.
const PACKAGE: &str = include_str!("../hardhat/package.json");
const LOCK: &str = include_str!("../hardhat/package-lock.json");
const CONFIG: &str = include_str!("../hardhat/hardhat.config.js");
/// What Node.js runs.
const PROGRAM: &str = "node_modules/hardhat/internal/cli/cli.js";
/// The id of its chain.
pub const CHAIN: u64 = 31337;
/// How long it may take to start, and to answer.
const PATIENCE: Duration = Duration::from_mins(1);

/// Installs Hardhat below `folder` unless it is there, and returns its folder.
///
/// # Errors
/// When Node.js or npm is missing, or npm cannot get what the lock file names.
pub fn installed(folder: &Path) -> Result<PathBuf> {
    let node = Command::new("node").arg("--version").output();
    node.context("Hardhat needs Node.js and npm (Debian: nodejs, npm)")?;
    let version = Hash::of_parts("lab/hardhat", &[PACKAGE.as_bytes(), LOCK.as_bytes(), CONFIG.as_bytes()]);
    let place = folder.join(format!("hardhat-{version:.16}"));
    if place.join(PROGRAM).exists() {
        return Ok(place);
    }
    fs::create_dir_all(folder)?;
    // Under another name first: another process may be installing too, and must never run half of it.
    let partial = tempfile::tempdir_in(folder)?;
    for (name, content) in
        [("package.json", PACKAGE), ("package-lock.json", LOCK), ("hardhat.config.js", CONFIG)]
    {
        fs::write(partial.path().join(name), content)?;
    }
    let output = Command::new("npm")
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"])
        .current_dir(partial.path())
        .output()
        .context("Hardhat needs npm (Debian: npm)")?;
    if !output.status.success() {
        bail!("npm could not install Hardhat: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    if fs::rename(partial.path(), &place).is_err() && !place.join(PROGRAM).exists() {
        bail!("Hardhat could not be put into {}", place.display());
    }
    Ok(place)
}

/// A running chain, empty at first. It stops, and its folder goes, when dropped.
pub struct Hardhat {
    child: Child,
    address: String,
    _folder: tempfile::TempDir,
}

impl Hardhat {
    /// Starts a chain with what [`installed`] returned.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start(installed: &Path) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let log = folder.path().join("log");
        let output = fs::File::create(&log)?;
        let child = Command::new("node")
            .arg(PROGRAM)
            .args(["node", "--hostname", "127.0.0.1", "--port", "0"])
            .current_dir(installed)
            // It keeps notes in the user's home.
            .env("HOME", folder.path())
            .env("HARDHAT_DISABLE_TELEMETRY_PROMPT", "true")
            // With CI set it writes in colour, even into a file.
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .context("running node")?;
        let mut chain = Self { child, address: String::new(), _folder: folder };
        chain.address = listening(&mut chain.child, &log).await?;
        Ok(chain)
    }

    /// Where it is reached.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Calls a JSON-RPC method and returns its result.
    ///
    /// # Errors
    /// When it does not answer, or with an error.
    pub async fn call(&self, method: &str, params: Value) -> Result<Value> {
        let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let answer = tokio::time::timeout(PATIENCE, self.post(request.to_string()));
        let mut answer: Value = serde_json::from_slice(&answer.await.context("Hardhat did not answer")??)?;
        if let Some(error) = answer.get("error") {
            bail!("Hardhat refused {method}: {error}");
        }
        Ok(answer.get_mut("result").context("Hardhat answered without a result")?.take())
    }

    async fn post(&self, body: String) -> Result<Vec<u8>> {
        let stream = TokioIo::new(TcpStream::connect(&self.address).await?);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
        let connection = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(connection));
        let request = hyper::Request::post("/")
            .header(HOST, &self.address)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::<bytes::Bytes>::from(body))?;
        let answer = sender.send_request(request).await?.into_body().collect().await?;
        drop(connection);
        Ok(answer.to_bytes().to_vec())
    }
}

impl Drop for Hardhat {
    fn drop(&mut self) {
        // It keeps nothing; one that has ended by itself needs no stop.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until it has printed its address.
async fn listening(child: &mut Child, log: &Path) -> Result<String> {
    let begun = Instant::now();
    loop {
        let text = fs::read_to_string(log)?;
        let found = text.split_once(" at http://").and_then(|(_, rest)| rest.split_once('/'));
        if let Some((address, _)) = found {
            return Ok(address.to_owned());
        }
        if let Some(status) = child.try_wait()? {
            bail!("Hardhat exited with {status}: {}", text.trim());
        }
        if begun.elapsed() > PATIENCE {
            bail!("Hardhat did not start: {}", text.trim());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
