//! age plugins: programs that hold a keeper's key, often in hardware, and unwrap a file key with it (`identity-v1` of
//! age's plugin protocol).
//!
//! The age library speaks to plugins too, but it waits for them for ever and drops what they say as they fail.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek as _, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use age_core::format::{FileKey, Stanza};
use ceremonies::text::one_line;
use data_encoding::BASE64_NOPAD;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::waiting::Waiting;

/// Most bytes that a plugin's answer, and its complaint, may have.
const MAX_ANSWER: u64 = 1024 * 1024;
const MAX_COMPLAINT: u64 = 4 * 1024;
/// Columns of a stanza's body: a shorter line is its last.
const COLUMNS: usize = 64;
/// How long a plugin that has said everything may take to end.
const FAREWELL: Duration = Duration::from_secs(1);

/// Why a plugin did not unwrap a file key.
#[derive(Debug, Error)]
pub enum PluginError {
    /// It is not on this machine.
    #[error("{0} is not installed: install it where PATH leads")]
    Missing(String),
    /// It is there and does not start.
    #[error("{0} cannot be started")]
    Start(String, #[source] io::Error),
    /// It did not answer.
    #[error(
        "{name} did not answer within {} seconds, and was ended: see that its key is plugged in, and touch it when it \
         asks", limit.as_secs()
    )]
    Silent {
        /// The plugin.
        name: String,
        /// How long it was waited for.
        limit: Duration,
    },
    /// It ended too early.
    #[error("{name} ended before it answered ({status}), and {said}")]
    Ended {
        /// The plugin.
        name: String,
        /// How it ended.
        status: String,
        /// Its last words.
        said: String,
    },
    /// What it answers is not of the protocol.
    #[error("{0} does not keep to age's plugin protocol: update it")]
    Unintelligible(String),
    /// It has no key for this, and says why.
    #[error("{0} says: {1}")]
    Complained(String, String),
}

/// An identity that a plugin holds.
pub struct Plugin {
    name: String,
    identity: Zeroizing<String>,
}

/// What a plugin says while it is waited for.
enum Said {
    Message(String),
    Answer(io::Result<Answer>),
}

#[derive(Default)]
struct Answer {
    key: Option<FileKey>,
    complaint: Option<String>,
}

impl Plugin {
    /// The plugin of an `AGE-PLUGIN-…` line, if it is one.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let identity: age::plugin::Identity = line.parse().ok()?;
        let name = format!("age-plugin-{}", identity.plugin());
        Some(Self { name, identity: Zeroizing::new(line.to_owned()) })
    }

    /// Has the plugin unwrap the file key that one of these stanzas holds; none if its key opens none of them.
    ///
    /// # Errors
    /// [`PluginError`] names the plugin.
    pub fn unwrap(&self, stanzas: &[Stanza], waiting: Waiting<'_>) -> Result<Option<FileKey>, PluginError> {
        let started = |error| PluginError::Start(self.name.clone(), error);
        let mut complaint = tempfile::tempfile().map_err(started)?;
        let mut plugin = self.start(&complaint)?;
        let (to, from) = plugin
            .stdin
            .take()
            .zip(plugin.stdout.take())
            .ok_or_else(|| started(io::Error::other("it has no standard input and output")))?;
        let question = question(&self.identity, stanzas);
        let (sender, said) = channel();
        std::thread::spawn(move || {
            let answer = converse(to, from, &question, &sender);
            // Nobody listens any more once the wait was too long.
            let _ = sender.send(Said::Answer(answer));
        });
        (waiting.tell)(&format!("waiting at most {} seconds for {}", waiting.limit.as_secs(), self.name));
        let until = Instant::now() + waiting.limit;
        loop {
            match said.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Said::Message(text)) => (waiting.tell)(&format!("{}: {}", self.name, one_line(&text))),
                Ok(Said::Answer(answer)) => {
                    let status = ended(&mut plugin, FAREWELL);
                    return self.judge(answer, status, &mut complaint);
                }
                Err(_) => {
                    ended(&mut plugin, Duration::ZERO);
                    return Err(PluginError::Silent { name: self.name.clone(), limit: waiting.limit });
                }
            }
        }
    }

    fn start(&self, complaint: &File) -> Result<Child, PluginError> {
        let search = std::env::var_os("PATH").unwrap_or_default();
        let found =
            std::env::split_paths(&search).map(|folder| folder.join(&self.name)).find(|it| it.is_file());
        let program = found.ok_or_else(|| PluginError::Missing(self.name.clone()))?;
        let start = || {
            // Elsewhere, so that it does not depend on this folder, as age itself does it.
            Command::new(std::path::absolute(program)?)
                .arg("--age-plugin=identity-v1")
                .current_dir(std::env::temp_dir())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(complaint.try_clone()?)
                .spawn()
        };
        start().map_err(|error| PluginError::Start(self.name.clone(), error))
    }

    fn judge(
        &self,
        answer: io::Result<Answer>,
        status: Option<ExitStatus>,
        complaint: &mut File,
    ) -> Result<Option<FileKey>, PluginError> {
        let name = self.name.clone();
        match answer {
            Ok(Answer { key: Some(key), .. }) => Ok(Some(key)),
            Ok(Answer { complaint: Some(why), .. }) => Err(PluginError::Complained(name, one_line(&why))),
            Ok(Answer { key: None, complaint: None }) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(PluginError::Unintelligible(name))
            }
            Err(_) => {
                let status = status.map_or("it had to be ended".to_owned(), |status| status.to_string());
                Err(PluginError::Ended { name, status, said: last_words(complaint) })
            }
        }
    }
}

/// What a plugin said on standard error in the end.
fn last_words(complaint: &mut File) -> String {
    let mut bytes = Vec::new();
    let end = complaint.seek(io::SeekFrom::End(0)).unwrap_or_default();
    let read = complaint
        .seek(io::SeekFrom::Start(end.saturating_sub(MAX_COMPLAINT)))
        .and_then(|_| complaint.take(MAX_COMPLAINT).read_to_end(&mut bytes));
    let text = String::from_utf8_lossy(&bytes);
    match text.lines().map(one_line).rfind(|line| !line.trim().is_empty()) {
        Some(line) if read.is_ok() => format!("its last words were: {}", line.trim()),
        _ => "said nothing".to_owned(),
    }
}

/// Ends a plugin that does not end by itself in time. How it ended, if it did so by itself.
fn ended(plugin: &mut Child, within: Duration) -> Option<ExitStatus> {
    let until = Instant::now() + within;
    while Instant::now() < until {
        if let Ok(Some(status)) = plugin.try_wait() {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let _ = plugin.kill();
    let _ = plugin.wait();
    None
}

/// A stanza as it is sent.
fn stanza(words: &[&str], body: &[u8]) -> String {
    let text = Zeroizing::new(BASE64_NOPAD.encode(body));
    let mut sent = format!("-> {}\n", words.join(" "));
    let mut rest = text.as_str();
    while rest.len() >= COLUMNS {
        let (line, after) = rest.split_at(COLUMNS);
        sent.extend([line, "\n"]);
        rest = after;
    }
    sent.extend([rest, "\n"]);
    sent
}

/// Everything that is sent before a plugin answers.
fn question(identity: &str, stanzas: &[Stanza]) -> Zeroizing<String> {
    let mut question = Zeroizing::new(stanza(&["add-identity", identity], &[]));
    for held in stanzas {
        let words = ["recipient-stanza", "0", &held.tag];
        let words: Vec<&str> = words.into_iter().chain(held.args.iter().map(String::as_str)).collect();
        question.push_str(&stanza(&words, &held.body));
    }
    question.push_str(&stanza(&["done"], &[]));
    question
}

/// Asks a plugin, and hears it out.
fn converse(mut to: impl Write, from: impl Read, question: &str, tell: &Sender<Said>) -> io::Result<Answer> {
    to.write_all(question.as_bytes())?;
    to.flush()?;
    let mut from = BufReader::new(from.take(MAX_ANSWER));
    let mut answer = Answer::default();
    loop {
        let (words, body) = heard(&mut from)?;
        let text = || String::from_utf8_lossy(&body).into_owned();
        let reply = match words.first().map(String::as_str) {
            Some("done") => return Ok(answer),
            Some("file-key") => {
                let key = body.as_slice().try_into().map_err(|_| unintelligible())?;
                answer.key.get_or_insert_with(|| FileKey::new(Box::new(key)));
                "ok"
            }
            Some("error") => {
                answer.complaint.get_or_insert_with(text);
                "ok"
            }
            Some("msg") => {
                let _ = tell.send(Said::Message(text()));
                "ok"
            }
            // The console has no way to answer these.
            Some("confirm" | "request-public" | "request-secret") => "fail",
            Some(_) | None => "unsupported",
        };
        to.write_all(stanza(&[reply], &[]).as_bytes())?;
        to.flush()?;
    }
}

fn unintelligible() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

/// The next stanza: its words and its body.
fn heard(from: &mut impl BufRead) -> io::Result<(Vec<String>, Zeroizing<Vec<u8>>)> {
    let first = line(from)?;
    let words = first.strip_prefix("-> ").ok_or_else(unintelligible)?;
    let words = words.split(' ').map(str::to_owned).collect();
    let mut text = Zeroizing::new(String::with_capacity(COLUMNS));
    loop {
        let next = line(from)?;
        text.push_str(&next);
        match next.len() {
            COLUMNS => {}
            ..COLUMNS => break,
            _ => return Err(unintelligible()),
        }
    }
    let body = BASE64_NOPAD.decode(text.as_bytes()).map_err(|_| unintelligible())?;
    Ok((words, Zeroizing::new(body)))
}

fn line(from: &mut impl BufRead) -> io::Result<Zeroizing<String>> {
    let mut line = Zeroizing::new(String::with_capacity(COLUMNS + 1));
    from.read_line(&mut line)?;
    // Cut off, or never begun.
    if line.pop() == Some('\n') { Ok(line) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
