//! The keeper of the stream: makes it once, and shows how an existing stream differs from what the log needs.
//!
//! Its NKey makes the stream and can neither change nor delete it. It belongs to whoever administers the broker.

use std::time::Duration;

use async_nats::ConnectOptions;
use ceremonies::deploy::broker::{Difference, KEEPER_INBOX, stream_config, stream_differences};
use ceremonies::deploy::subject::STREAM;
use serde_json::Value;
use thiserror::Error;
use tokio::time::{Instant, sleep, timeout};

/// How long the broker may take to answer once it is connected.
const ANSWERING: Duration = Duration::from_secs(5);
/// How long the broker may take until it has a stream ready.
const LIMIT: Duration = Duration::from_secs(15);
/// Pause before the broker, which has just started, is asked again.
const PAUSE: Duration = Duration::from_millis(100);
/// Largest answer that is read, in bytes.
const MAX_ANSWER: usize = 256 * 1024;
/// JetStream's number for a stream that is not there.
const NOT_FOUND: u64 = 10_059;

/// Why there is no stream with the required settings.
#[derive(Debug, Error)]
pub enum KeeperError {
    /// The seed is invalid.
    #[error("the keeper's NKey seed cannot be used")]
    Seed,
    /// No connection.
    #[error("the broker cannot be reached as the stream's keeper")]
    Connect(#[source] async_nats::ConnectError),
    /// No connection in time.
    #[error("the broker did not answer within {} s", LIMIT.as_secs())]
    Silent,
    /// No answer.
    #[error("the broker did not answer the stream's keeper")]
    Request(#[source] async_nats::RequestError),
    /// An answer that is none.
    #[error("the broker gave an answer that cannot be read")]
    Answer,
    /// The broker says no.
    #[error("the broker refused: {0}")]
    Refused(String),
    /// There is a stream, but it orders nothing.
    #[error("the stream does not have the required settings: {}", list(.0))]
    Differs(Vec<Difference>),
}

fn list(differences: &[Difference]) -> String {
    differences.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// What was found or done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// The stream was made.
    New,
    /// It was there, with the required settings.
    There,
}

struct Keeper {
    nats: async_nats::Client,
}

enum Answer {
    Stream(Value),
    Absent,
    /// The broker has no streams yet, or no leader for this one.
    NotYet,
}

impl Keeper {
    async fn ask(&self, what: &str, request: Vec<u8>) -> Result<Answer, KeeperError> {
        let subject = format!("$JS.API.STREAM.{what}.{STREAM}");
        let answer = match timeout(ANSWERING, self.nats.request(subject, request.into())).await {
            Ok(Ok(answer)) => answer.payload,
            Err(_) => return Ok(Answer::NotYet),
            Ok(Err(error)) => {
                return match error.kind() {
                    async_nats::RequestErrorKind::NoResponders | async_nats::RequestErrorKind::TimedOut => {
                        Ok(Answer::NotYet)
                    }
                    async_nats::RequestErrorKind::InvalidSubject
                    | async_nats::RequestErrorKind::MaxPayloadExceeded
                    | async_nats::RequestErrorKind::Other => Err(KeeperError::Request(error)),
                };
            }
        };
        if answer.len() > MAX_ANSWER {
            return Err(KeeperError::Answer);
        }
        let answer: Value = serde_json::from_slice(&answer).map_err(|_| KeeperError::Answer)?;
        read(&answer)
    }
}

/// An answer of JetStream's API.
fn read(answer: &Value) -> Result<Answer, KeeperError> {
    let error = &answer["error"];
    if error.is_null() {
        return match answer.get("config") {
            Some(config) => Ok(Answer::Stream(config.clone())),
            None => Err(KeeperError::Answer),
        };
    }
    match (error["err_code"].as_u64(), error["code"].as_u64()) {
        (Some(NOT_FOUND), _) => Ok(Answer::Absent),
        (_, Some(503)) => Ok(Answer::NotYet),
        _ => {
            let why = error["description"].as_str().unwrap_or("it gives no reason");
            Err(KeeperError::Refused(ceremonies::text::one_line(why)))
        }
    }
}

/// Makes the stream on this broker as its keeper, unless there is one, and compares it with what the log needs.
///
/// # Errors
/// [`KeeperError`]; an existing stream that differs stays as it is.
pub async fn make_stream(server: &str, seed: &str, replicas: u8) -> Result<Made, KeeperError> {
    let seed = zeroize::Zeroizing::new(seed.trim().to_owned());
    nkeys::KeyPair::from_seed(&seed).map_err(|_| KeeperError::Seed)?;
    let connecting = ConnectOptions::with_nkey(seed.to_string())
        .name("stream keeper")
        .custom_inbox_prefix(KEEPER_INBOX)
        .request_timeout(Some(ANSWERING))
        .connect(server);
    let nats = timeout(LIMIT, connecting).await.map_err(|_| KeeperError::Silent)?;
    let keeper = Keeper { nats: nats.map_err(KeeperError::Connect)? };
    let config = stream_config(replicas).to_string().into_bytes();
    let begun = Instant::now();
    let mut made = Made::There;
    while begun.elapsed() < LIMIT {
        match keeper.ask("INFO", Vec::new()).await? {
            Answer::Stream(config) => {
                let differences = stream_differences(&config);
                return if differences.is_empty() {
                    Ok(made)
                } else {
                    Err(KeeperError::Differs(differences))
                };
            }
            Answer::Absent => match keeper.ask("CREATE", config.clone()).await? {
                Answer::Stream(_) => made = Made::New,
                Answer::Absent | Answer::NotYet => sleep(PAUSE).await,
            },
            Answer::NotYet => sleep(PAUSE).await,
        }
    }
    Err(KeeperError::Silent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn absent_stream_is_told_from_a_broker_that_is_not_ready_and_from_a_refusal() {
        let error = |code: u64, err_code: u64| {
            read(&json!({ "error": { "code": code, "err_code": err_code, "description": "no\nspace" } }))
        };
        assert!(matches!(error(404, NOT_FOUND), Ok(Answer::Absent)));
        assert!(matches!(error(503, 10_008), Ok(Answer::NotYet)));
        assert!(matches!(error(500, 10_047), Err(KeeperError::Refused(why)) if why == "no space"));
        assert!(matches!(read(&json!({ "error": { "code": 400 } })), Err(KeeperError::Refused(_))));
    }

    #[test]
    fn answer_without_a_configuration_is_none() {
        assert!(matches!(read(&json!({ "type": "io.nats" })), Err(KeeperError::Answer)));
        assert!(matches!(read(&json!({ "config": stream_config(1) })), Ok(Answer::Stream(_))));
    }
}
