//! The broker's stream: looking at it, reading it, and appending to it.
//!
//! An acknowledgement is only a hint. What was appended is read back, and only what is found there counts.
//!
//! A message is read by a request whose answer is JSON. A direct read would answer with the message as it was published:
//! with headers of its publisher's making before the broker's own, or with bytes that no client reads, at which the
//! connection ends.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::message::PublishMessage;
use async_nats::{Client, jetstream};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use ceremonies::deploy::subject;
use ceremonies::ids::CeremonyId;
use ceremonies::log::MAX_ENTRY;
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::bus::MAX_WAITING;
use crate::core::{Mark, StreamEntry, StreamError, StreamSeen};

/// How long the broker may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// The most messages that are read before they are handed over.
const BATCH: usize = 240;
/// The most that are asked for at once. Their answers fit into what may wait.
const AT_ONCE: u8 = 64;
const _: () = assert!((AT_ONCE as usize) < MAX_WAITING);
/// An entry's bytes in base64, at most.
const MAX_DATA: usize = MAX_ENTRY.div_ceil(3) * 4;
/// The last number that a stream's message may have: no stream comes near it, and there is always a next one.
const MAX_SEQUENCE: u64 = u64::MAX / 2;
/// How much of a broker's own words is repeated, in characters.
const MAX_ERROR: usize = 200;
/// JetStream's request for a message of the stream.
const GET: &str = "$JS.API.STREAM.MSG.GET.CEREMONIES";
/// JetStream's request for a description of the stream.
const INFO: &str = "$JS.API.STREAM.INFO.CEREMONIES";
/// JetStream's code for a stream that is not there.
const NOT_FOUND: i64 = 10059;
/// JetStream's code for a message that is not there.
const NO_MESSAGE: i64 = 10037;
/// What the broker says where a subject has as many messages as it may (`ErrMaxMsgsPerSubject` of nats-server): the
/// number of that error stands for others as well.
const FULL: &str = "maximum messages per subject exceeded";

/// The stream, as one task uses it.
pub(super) struct LogStream {
    client: Client,
    jetstream: jetstream::Context,
}

fn unavailable(error: impl std::fmt::Display) -> StreamError {
    StreamError::Unavailable(error.to_string())
}

/// A message of the stream.
fn entry(message: &Value) -> Option<StreamEntry> {
    let ceremony = message["subject"].as_str().and_then(|name| subject::ceremony(name).ok());
    let seq = message["seq"].as_u64().filter(|seq| *seq <= MAX_SEQUENCE)?;
    // What is longer is nothing that is kept.
    let data = message["data"].as_str().filter(|data| data.len() <= MAX_DATA).unwrap_or_default();
    let payload = BASE64.decode(data).ok()?;
    Some(StreamEntry { ceremony, seq, payload })
}

impl LogStream {
    pub(super) fn new(client: Client) -> Self {
        let mut jetstream = jetstream::new(client.clone());
        jetstream.set_timeout(PATIENCE);
        Self { client, jetstream }
    }

    /// The answer to a request, unless JetStream has this error.
    async fn ask(&self, subject: &str, request: &Value, absent: i64) -> Result<Option<Value>, StreamError> {
        let request = serde_json::to_vec(request).map_err(unavailable)?;
        let answer = self.client.request(subject.to_owned(), request.into());
        let answer = tokio::time::timeout(PATIENCE, answer).await;
        let answer = answer.map_err(|_| unavailable("no answer within 3 s"))?.map_err(unavailable)?;
        let answer: Value = serde_json::from_slice(&answer.payload).map_err(unavailable)?;
        if answer["error"]["err_code"].as_i64() == Some(absent) {
            return Ok(None);
        }
        match answer["error"]["description"].as_str() {
            Some(error) => Err(unavailable(error.chars().take(MAX_ERROR).collect::<String>())),
            None => Ok(Some(answer)),
        }
    }

    /// One message of the stream; none where there is none.
    async fn get(&self, which: &Value) -> Result<Option<StreamEntry>, StreamError> {
        let Some(answer) = self.ask(GET, which, NO_MESSAGE).await? else { return Ok(None) };
        entry(&answer["message"]).map(Some).ok_or_else(|| unavailable("a message without its sequence"))
    }

    /// The stream's description, and the message at a mark.
    pub(super) async fn inspect(&self, mark: Option<Mark>) -> Result<StreamSeen, StreamError> {
        let info = self.ask(INFO, &json!({}), NOT_FOUND).await?.ok_or(StreamError::Absent)?;
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
        let mut entries = BTreeMap::new();
        let (mut from, mut many) = (after + 1, 1);
        // Each request is for the first message from a place on, so that together they pass over none; more and more of
        // them, as most often there is one message, or none.
        while entries.len() < BATCH {
            let next = |seq| async move { self.get(&json!({ "seq": seq, "next_by_subj": subjects })).await };
            let answers = join_all((from..from.saturating_add(many)).map(next)).await;
            let mut is_over = false;
            for answer in answers {
                match answer {
                    Ok(Some(entry)) if entry.seq < from => {
                        return Err(unavailable("a message that was not asked for"));
                    }
                    Ok(Some(entry)) => drop(entries.insert(entry.seq, entry)),
                    Ok(None) => is_over = true,
                    // What has arrived is complete up to here; the rest is asked for again.
                    Err(_) if !entries.is_empty() => return Ok(entries.into_values().collect()),
                    Err(error) => return Err(error),
                }
            }
            match entries.last_key_value() {
                Some((last, _)) if !is_over => (from, many) = (last + 1, (2 * many).min(AT_ONCE.into())),
                Some(_) | None => break,
            }
        }
        Ok(entries.into_values().collect())
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
            Ok(Err(error)) => {
                let why = ceremonies::text::chain(&error);
                return Err(if why.contains(FULL) { StreamError::Full } else { unavailable(why) });
            }
            Err(_) => return Err(unavailable("no acknowledgement within 3 s")),
        };
        let stands = self.get(&json!({ "seq": acknowledged.sequence })).await?;
        let written = stands
            .is_some_and(|stands| stands.ceremony.as_ref() == Some(ceremony) && stands.payload == bytes);
        if written { Ok(acknowledged.sequence) } else { Err(StreamError::Forged) }
    }
}
