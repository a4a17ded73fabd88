//! A hostile host that speaks the broker's protocol itself: it says what no client library would.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ceremonies::ids::NodeIndex;
use nkeys::KeyPair;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::cluster::Cluster;

/// How long the broker may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The largest line of the broker that is read, in bytes.
const MAX_LINE: u64 = 64 * 1024;

/// What is published: a subject of any bytes, headers as they are sent, and a payload.
#[derive(Debug, Clone)]
pub struct Published {
    /// The subject.
    pub subject: Vec<u8>,
    /// What stands between the version's line and the blank one; none for a message without headers.
    pub headers: Option<Vec<u8>>,
    /// The payload.
    pub payload: Vec<u8>,
}

impl Published {
    fn encode(&self) -> Vec<u8> {
        let headers =
            self.headers.as_ref().map(|lines| [b"NATS/1.0\r\n", lines.as_slice(), b"\r\n\r\n"].concat());
        let (verb, headers) = headers.map_or(("PUB", Vec::new()), |headers| ("HPUB", headers));
        let all = headers.len() + self.payload.len();
        let sizes = if headers.is_empty() { all.to_string() } else { format!("{} {all}", headers.len()) };
        [
            verb.as_bytes(),
            b" ",
            &self.subject,
            b" ",
            sizes.as_bytes(),
            b"\r\n",
            &headers,
            &self.payload,
            b"\r\n",
        ]
        .concat()
    }
}

/// A connection with one node's credentials.
pub struct Raw(BufReader<TcpStream>);

impl Raw {
    /// Connects with a node's credentials.
    ///
    /// # Errors
    /// When the seed cannot be read, or the broker refuses it.
    pub async fn with_credentials_of(cluster: &Cluster, node: NodeIndex) -> Result<Self> {
        let seed = std::fs::read_to_string(cluster.layout().node(node).join("nats.seed"))?;
        let key = KeyPair::from_seed(seed.trim())?;
        let address = cluster.nats_url();
        let address = address.strip_prefix("nats://").context("the broker's address has another form")?;
        let mut raw = Self(BufReader::new(TcpStream::connect(address).await?));
        let info = raw.line().await?;
        let info: Value = serde_json::from_str(info.strip_prefix("INFO ").context("no INFO")?)?;
        let nonce = info["nonce"].as_str().context("no nonce")?;
        let connect = json!({
            "verbose": false, "pedantic": false, "headers": true, "lang": "none", "version": "0",
            "nkey": key.public_key(), "sig": BASE64_URL_SAFE_NO_PAD.encode(key.sign(nonce.as_bytes())?),
        });
        raw.0.write_all(format!("CONNECT {connect}\r\n").as_bytes()).await?;
        raw.arrives().await?;
        Ok(raw)
    }

    async fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        let mut limited = tokio::io::AsyncReadExt::take(&mut self.0, MAX_LINE);
        timeout(PATIENCE, limited.read_line(&mut line)).await??;
        ensure!(!line.is_empty(), "the broker closed the connection");
        Ok(line)
    }

    /// Waits until the broker has taken everything.
    async fn arrives(&mut self) -> Result<()> {
        self.0.write_all(b"PING\r\n").await?;
        loop {
            match self.line().await?.trim() {
                "PONG" => return Ok(()),
                "PING" => self.0.write_all(b"PONG\r\n").await?,
                refused if refused.starts_with("-ERR") => bail!("the broker refused: {refused}"),
                _ => {}
            }
        }
    }

    /// Publishes, and waits until the broker has taken it.
    ///
    /// # Errors
    /// When the broker refuses it.
    pub async fn publish(&mut self, message: &Published) -> Result<()> {
        self.0.write_all(&message.encode()).await?;
        self.arrives().await
    }

    /// Answers whatever is asked on these subjects with such headers, until the returned task is aborted.
    ///
    /// # Errors
    /// When the broker refuses to let it listen.
    pub async fn answer(mut self, subjects: &[String], headers: &[u8]) -> Result<JoinHandle<()>> {
        for (sid, subject) in subjects.iter().enumerate() {
            self.0.write_all(format!("SUB {subject} {sid}\r\n").as_bytes()).await?;
        }
        self.arrives().await?;
        let headers = headers.to_vec();
        Ok(tokio::spawn(async move {
            // Ends with the connection.
            while let Ok(asked) = self.0.fill_buf().await.map(<[u8]>::to_vec) {
                if asked.is_empty() {
                    return;
                }
                self.0.consume(asked.len());
                // A question that comes in two pieces goes unanswered, which is as bad.
                for line in String::from_utf8_lossy(&asked).lines() {
                    let reply = match line.split(' ').collect::<Vec<_>>().as_slice() {
                        ["MSG" | "HMSG", _, _, reply, _, ..] => (*reply).to_owned(),
                        ["PING"] => {
                            if self.0.write_all(b"PONG\r\n").await.is_err() {
                                return;
                            }
                            continue;
                        }
                        _ => continue,
                    };
                    let (subject, headers) = (reply.into_bytes(), Some(headers.clone()));
                    let answer = Published { subject, headers, payload: Vec::new() };
                    if self.0.write_all(&answer.encode()).await.is_err() {
                        return;
                    }
                }
            }
        }))
    }

    /// Publishes all of these, so many times a second, until the returned task is aborted.
    #[must_use]
    pub fn flood(mut self, messages: Vec<Published>, per_second: u32) -> JoinHandle<()> {
        let mut pace = tokio::time::interval(Duration::from_secs(1) / per_second.max(1));
        tokio::spawn(async move {
            loop {
                pace.tick().await;
                for message in &messages {
                    if self.publish(message).await.is_err() {
                        return;
                    }
                }
            }
        })
    }
}
