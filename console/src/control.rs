//! Orders to the supervisor of a lab: one line in, one line out. No other kind of cluster has one.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ceremonies::text::one_line;
use thiserror::Error;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

/// How long an order may take: a part that is started again may have to start first.
const OBEYING: Duration = Duration::from_mins(2);
/// Longest answer read.
const MAX_ANSWER: u64 = 4096;

/// Why an order was not carried out, or may not have been.
#[derive(Debug, Error)]
pub enum ControlError {
    /// Nobody listens.
    #[error("no lab is running at {0}; start one with `cargo lab up`")]
    NoLab(PathBuf, #[source] io::Error),
    /// The connection broke.
    #[error("the lab's answer cannot be read")]
    Cut(#[from] io::Error),
    /// It was not carried out.
    #[error("{0}")]
    Refused(String),
    /// Nothing that is an answer.
    #[error("the lab gave no answer")]
    NoAnswer,
}

/// Sends an order to the supervisor that listens at this socket, and returns what it did.
///
/// # Errors
/// [`ControlError`]; only with [`ControlError::Refused`] and [`ControlError::NoLab`] nothing was done.
pub async fn order(control: &Path, line: &str) -> Result<String, ControlError> {
    let stream = UnixStream::connect(control).await;
    let stream = stream.map_err(|error| ControlError::NoLab(control.to_owned(), error))?;
    let said = tokio::time::timeout(OBEYING, converse(stream, line)).await;
    let said = said.map_err(|_| ControlError::NoAnswer)??;
    match said.trim().split_once(' ') {
        Some(("ok", done)) => Ok(one_line(done)),
        Some(("refused", why)) => Err(ControlError::Refused(one_line(why))),
        _ => Err(ControlError::NoAnswer),
    }
}

async fn converse(mut stream: UnixStream, line: &str) -> io::Result<String> {
    stream.write_all(format!("{line}\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER).read_to_string(&mut answer).await?;
    Ok(answer)
}
