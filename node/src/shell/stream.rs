//! The broker's stream: looking at it, reading it in batches, and appending to it.
//!
//! An acknowledgement is only a hint. What was appended is read back, and only what is found there counts.

use std::time::Duration;

use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::message::PublishMessage;
use async_nats::{Client, HeaderMap, Message, StatusCode, jetstream};
use ceremonies::deploy::subject;
use ceremonies::ids::CeremonyId;
use futures_util::StreamExt;
use serde_json::{Value, json};

use super::bus::MAX_WAITING;
use crate::core::{Mark, StreamEntry, StreamError, StreamSeen};

/// How long the broker may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// Messages in one batch, and their bytes. With the status that ends it, a batch fits into what may wait.
const BATCH: (u32, u32) = (240, 1024 * 1024);
const _: () = assert!((BATCH.0 as usize) < MAX_WAITING);
/// The last number that a stream's message may have: no stream comes near it, and there is always a next one.
const MAX_SEQUENCE: u64 = u64::MAX / 2;
/// How much of a broker's own words is repeated, in characters.
const MAX_ERROR: usize = 200;
/// JetStream's request for a message of the stream.
const GET: &str = "$JS.API.DIRECT.GET.CEREMONIES";
/// JetStream's request for a description of the stream.
const INFO: &str = "$JS.API.STREAM.INFO.CEREMONIES";
/// What ends a batch.
const END_OF_BATCH: u16 = 204;
/// JetStream's code for a stream that is not there.
const NOT_FOUND: i64 = 10059;

/// The stream, as one task uses it.
pub(super) struct LogStream {
    client: Client,
    jetstream: jetstream::Context,
}

fn unavailable(error: impl std::fmt::Display) -> StreamError {
    StreamError::Unavailable(error.to_string())
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(async_nats::HeaderValue::as_str)
}

/// A message of the stream, as a direct read gives it.
fn entry(message: &Message) -> Option<StreamEntry> {
    let headers = message.headers.as_ref()?;
    let ceremony = subject::ceremony(header(headers, "Nats-Subject")?).ok();
    let seq = header(headers, "Nats-Sequence")?.parse().ok().filter(|seq| *seq <= MAX_SEQUENCE)?;
    Some(StreamEntry { ceremony, seq, payload: message.payload.to_vec() })
}

impl LogStream {
    pub(super) fn new(client: Client) -> Self {
        let mut jetstream = jetstream::new(client.clone());
        jetstream.set_timeout(PATIENCE);
        Self { client, jetstream }
    }

    async fn ask(&self, subject: &str, request: &Value) -> Result<Message, StreamError> {
        let request = serde_json::to_vec(request).map_err(unavailable)?;
        let answer = self.client.request(subject.to_owned(), request.into());
        let answer = tokio::time::timeout(PATIENCE, answer).await;
        answer.map_err(|_| unavailable("no answer within 3 s"))?.map_err(unavailable)
    }

    /// One message of the stream; none where there is none.
    async fn get(&self, which: &Value) -> Result<Option<StreamEntry>, StreamError> {
        let answer = self.ask(GET, which).await?;
        match answer.status {
            None => entry(&answer).map(Some).ok_or_else(|| unavailable("a message without its sequence")),
            Some(StatusCode::NOT_FOUND) => Ok(None),
            Some(status) => Err(unavailable(format!("status {status}"))),
        }
    }

    /// The stream's description, and the message at a mark.
    pub(super) async fn inspect(&self, mark: Option<Mark>) -> Result<StreamSeen, StreamError> {
        let answer = self.ask(INFO, &json!({})).await?;
        let info: Value = serde_json::from_slice(&answer.payload).map_err(unavailable)?;
        if info["error"]["err_code"].as_i64() == Some(NOT_FOUND) {
            return Err(StreamError::Absent);
        }
        if let Some(error) = info["error"]["description"].as_str() {
            return Err(unavailable(error.chars().take(MAX_ERROR).collect::<String>()));
        }
        let number = |field: &str| info["state"][field].as_u64().unwrap_or_default().min(MAX_SEQUENCE);
        let has_mark = match mark {
            Some(mark) => {
                let found = self.get(&json!({ "seq": mark.seq })).await?;
                found.is_some_and(|entry| entry.mark() == mark)
            }
            None => true,
        };
        Ok(StreamSeen {
            config: info["config"].clone(),
            first: number("first_seq"),
            last: number("last_seq"),
            has_mark,
        })
    }

    /// The next messages on subjects like this after a sequence, in order; none at the stream's end.
    pub(super) async fn read(&self, subjects: &str, after: u64) -> Result<Vec<StreamEntry>, StreamError> {
        let inbox = self.client.new_inbox();
        let mut answers = self.client.subscribe(inbox.clone()).await.map_err(unavailable)?;
        let request = json!({
            "seq": after + 1, "next_by_subj": subjects, "batch": BATCH.0, "max_bytes": BATCH.1,
        });
        let request = serde_json::to_vec(&request).map_err(unavailable)?;
        self.client.publish_with_reply(GET, inbox, request.into()).await.map_err(unavailable)?;
        let mut entries: Vec<StreamEntry> = Vec::new();
        let collect = async {
            while let Some(answer) = answers.next().await {
                match answer.status {
                    // The end of the batch, or of the stream.
                    Some(status) if status == StatusCode::NOT_FOUND || status.as_u16() == END_OF_BATCH => {
                        return Ok(());
                    }
                    Some(status) => return Err(unavailable(format!("status {status}"))),
                    None => {}
                }
                let next = entry(&answer).ok_or_else(|| unavailable("a message without its sequence"))?;
                let last = entries.last().map_or(after, |last| last.seq);
                if next.seq <= last || entries.len() >= BATCH.0 as usize {
                    return Err(unavailable("messages that were not asked for"));
                }
                entries.push(next);
            }
            Err(unavailable("the connection was closed"))
        };
        let done = tokio::time::timeout(PATIENCE, collect).await;
        match done {
            Ok(result) => result?,
            // What has arrived is in order; the rest is asked for again.
            Err(_) if !entries.is_empty() => {}
            Err(_) => return Err(unavailable("no answer within 3 s")),
        }
        Ok(entries)
    }

    /// Appends to a ceremony's log, reads back what stands there, and returns its sequence.
    pub(super) async fn append(
        &self,
        ceremony: &CeremonyId,
        expected: Option<u64>,
        read_to: u64,
        bytes: Vec<u8>,
    ) -> Result<u64, StreamError> {
        let subject = subject::log(ceremony);
        let expected = match expected {
            Some(expected) => expected,
            None => self.get(&json!({ "last_by_subj": subject })).await?.map_or(0, |last| last.seq),
        };
        if expected > read_to {
            return Err(StreamError::Conflict);
        }
        let message =
            PublishMessage::build().payload(bytes.clone().into()).expected_last_subject_sequence(expected);
        let sent = tokio::time::timeout(PATIENCE, async {
            self.jetstream.send_publish(subject, message).await?.await
        });
        let acknowledged = match sent.await {
            Ok(Ok(acknowledged)) => acknowledged,
            Ok(Err(error)) if error.kind() == PublishErrorKind::WrongLastSequence => {
                return Err(StreamError::Conflict);
            }
            Ok(Err(error)) => return Err(unavailable(ceremonies::text::chain(&error))),
            Err(_) => return Err(unavailable("no acknowledgement within 3 s")),
        };
        let stands = self.get(&json!({ "seq": acknowledged.sequence })).await?;
        let written = stands
            .is_some_and(|stands| stands.ceremony.as_ref() == Some(ceremony) && stands.payload == bytes);
        if written { Ok(acknowledged.sequence) } else { Err(StreamError::Forged) }
    }
}
