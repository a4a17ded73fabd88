//! AWS credentials for the enclave's calls to the KMS and for the vault, as `credential_process` prints them.
//!
//! The agent lends them to the enclave or signs one write with them, and keeps none: they are read again at every use,
//! because they expire. A source that does not answer must never stop the agent, and no message may repeat what a
//! source answered.

mod file;
mod program;

use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use enclave_link::message;
use serde::Deserialize;
use serde_json::error::Category;
use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

pub use program::Said;

use crate::config::CredentialSource;
use crate::deadline::{DiskError, Within};

/// Longest wait for a source. AWS's own helpers answer in about a second, and the KMS and the vault wait for this.
const DEADLINE: Duration = Duration::from_secs(20);
/// Largest accepted answer of a source, in bytes: the longest session tokens are a few thousand.
const MAX_ANSWER: u16 = 16 * 1024;

/// Why there are no credentials.
#[derive(Debug, Error)]
pub enum CredentialError {
    /// The file cannot be read.
    #[error("AWS credentials file {0} cannot be read")]
    Read(PathBuf, #[source] std::io::Error),
    /// The file's disk gave no answer.
    #[error("AWS credentials file {0} cannot be read")]
    Disk(PathBuf, #[source] DiskError),
    /// The path is not a regular file, so reading it might never end.
    #[error("AWS credentials file {path} is {what}; name a regular file, or a program with `process`")]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What is there.
        what: &'static str,
    },
    /// The configuration names no program.
    #[error("credentials.process is empty: name a program")]
    NoProgram,
    /// The program cannot be run.
    #[error("AWS credential program {0} cannot be run")]
    Run(String, #[source] std::io::Error),
    /// The program failed.
    #[error("AWS credential program {program} failed with {status}{said}")]
    Failed {
        /// The program.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// What it said about it.
        said: Said,
    },
    /// The program did not end, and was killed.
    #[error("AWS credential program {program} did not exit {within} and was killed{said}")]
    Late {
        /// The program.
        program: String,
        /// The limit.
        within: Within,
        /// What it said until then.
        said: Said,
    },
    /// The program exited, but left another behind that could still have answered.
    #[error(
        "AWS credential program {program} exited, but a program that it started did not close its output {within} and \
         was killed{said}"
    )]
    HeldOpen {
        /// The program.
        program: String,
        /// The limit.
        within: Within,
        /// What both said until then.
        said: Said,
    },
    /// More came than credentials take.
    #[error(
        "{source_name} gave more than {MAX_ANSWER} bytes, so it is not the JSON of AWS's credential_process"
    )]
    TooLong {
        /// Which source.
        source_name: String,
    },
    /// What came is not credentials. Its content is not repeated.
    #[error("{source_name} did not give the JSON of AWS's credential_process, version 1: {what}{said}")]
    Format {
        /// Which source.
        source_name: String,
        /// What is wrong with it.
        what: &'static str,
        /// What a program said besides it.
        said: Said,
    },
}

#[derive(Deserialize, Zeroize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    version: u32,
    access_key_id: String,
    secret_access_key: String,
    #[serde(default)]
    session_token: String,
}

/// Reads the credentials now in force, and waits a limited time for them.
///
/// # Errors
/// [`CredentialError`] says which source failed and how.
pub async fn fetch(source: &CredentialSource) -> Result<message::Credentials, CredentialError> {
    fetch_within(source, DEADLINE).await
}

async fn fetch_within(
    source: &CredentialSource,
    limit: Duration,
) -> Result<message::Credentials, CredentialError> {
    let (source_name, text, said) = match source {
        CredentialSource::File(path) => {
            (format!("AWS credentials file {}", path.display()), file::read(path, limit).await?, None)
        }
        CredentialSource::Process(words) => {
            let printed = program::run(words, limit).await?;
            (format!("AWS credential program {}", printed.program), printed.text, Some(printed.said))
        }
    };
    parse(&text).map_err(|what| CredentialError::Format { source_name, what, said: said.unwrap_or_default() })
}

/// The buffer of an answer. It does not move as it grows, which would leave copies of secrets behind.
fn room() -> Zeroizing<Vec<u8>> {
    /// The extra that a reader asks for before it learns that nothing is left.
    const SPARE: usize = 64;
    Zeroizing::new(Vec::with_capacity(usize::from(MAX_ANSWER) + 1 + SPARE))
}

/// How much of an answer is read: enough to see that it is too long.
fn enough() -> u64 {
    u64::from(MAX_ANSWER) + 1
}

fn is_too_long(text: &[u8]) -> bool {
    text.len() > usize::from(MAX_ANSWER)
}

/// The credentials in an answer, or what is wrong with it. The parser's own words would repeat parts of it.
fn parse(text: &[u8]) -> Result<message::Credentials, &'static str> {
    if text.trim_ascii().is_empty() {
        return Err("it is empty");
    }
    let answer: Answer = serde_json::from_slice(text).map_err(|error| match error.classify() {
        Category::Syntax | Category::Eof | Category::Io => "it is not JSON",
        Category::Data => "Version, AccessKeyId or SecretAccessKey is missing or malformed",
    })?;
    if answer.version != 1 {
        return Err("its Version is not 1");
    }
    if answer.access_key_id.is_empty() || answer.secret_access_key.is_empty() {
        return Err("AccessKeyId or SecretAccessKey is empty");
    }
    Ok(message::Credentials {
        access_key_id: answer.access_key_id,
        secret_access_key: answer.secret_access_key,
        session_token: answer.session_token,
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
    use super::*;

    #[test]
    fn credentials_are_read_as_aws_documents_them() {
        let text = br#"{"Version": 1, "AccessKeyId": "a", "SecretAccessKey": "s", "SessionToken": "t",
            "Expiration": "2030-01-01T00:00:00Z"}"#;
        assert_eq!(parse(text).unwrap().session_token, "t");
    }

    #[test]
    fn unusable_answer_is_refused_with_its_fault_and_without_its_content() {
        let cases: [(&[u8], &str); 8] = [
            (b"", "empty"),
            (b" \n", "empty"),
            (b"hidden", "not JSON"),
            (br#"{"Version": 1, "AccessKeyId": "a", "SecretAccessKey": "hidden"#, "not JSON"),
            (br#"{"Version": "hidden", "AccessKeyId": "a", "SecretAccessKey": "hidden"}"#, "malformed"),
            (br#"{"Version": 1, "AccessKeyId": "hidden"}"#, "missing"),
            (br#"{"Version": 2, "AccessKeyId": "a", "SecretAccessKey": "hidden"}"#, "Version is not 1"),
            (br#"{"Version": 1, "AccessKeyId": "", "SecretAccessKey": "hidden"}"#, "is empty"),
        ];
        for (text, expected) in cases {
            let what = parse(text).unwrap_err();
            assert!(what.contains(expected) && !what.contains("hidden"), "{what}");
        }
    }
}
