//! AWS credentials for the enclave's calls to the KMS and for the vault, as `credential_process` prints them.
//!
//! The agent lends them to the enclave or signs one write with them, and keeps none: they are read again at
//! every use, because they expire.

use std::path::PathBuf;

use enclave::wire::link;
use serde::Deserialize;
use thiserror::Error;
use tokio::process::Command;
use zeroize::{Zeroize, Zeroizing};

use crate::config::CredentialSource;

/// Largest accepted answer of a credential source, in bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// Why there are no credentials.
#[derive(Debug, Error)]
pub enum CredentialError {
    /// The file cannot be read.
    #[error("AWS credentials file {0} cannot be read")]
    Read(PathBuf, #[source] std::io::Error),
    /// The program cannot be run.
    #[error("AWS credential program {0} cannot be run")]
    Run(String, #[source] std::io::Error),
    /// The program failed.
    #[error("AWS credential program {0} failed with {1}")]
    Failed(String, std::process::ExitStatus),
    /// The configuration names no program.
    #[error("credentials.process is empty: name a program")]
    NoProgram,
    /// What came is not credentials. Its content is not repeated.
    #[error("the credential source did not give the JSON of AWS's credential_process, version 1")]
    Format,
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

/// Reads the credentials now in force.
///
/// # Errors
/// [`CredentialError`] says which source failed and how.
pub async fn fetch(source: &CredentialSource) -> Result<link::Credentials, CredentialError> {
    let text = Zeroizing::new(match source {
        CredentialSource::File(path) => {
            tokio::fs::read(path).await.map_err(|error| CredentialError::Read(path.clone(), error))?
        }
        CredentialSource::Process(words) => run(words).await?,
    });
    parse(&text)
}

async fn run(words: &[String]) -> Result<Vec<u8>, CredentialError> {
    let (program, arguments) = words.split_first().ok_or(CredentialError::NoProgram)?;
    let output = Command::new(program)
        .args(arguments)
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| CredentialError::Run(program.clone(), error))?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(CredentialError::Failed(program.clone(), output.status))
    }
}

fn parse(text: &[u8]) -> Result<link::Credentials, CredentialError> {
    if text.len() > MAX_ANSWER {
        return Err(CredentialError::Format);
    }
    let answer: Answer = serde_json::from_slice(text).map_err(|_| CredentialError::Format)?;
    if answer.version != 1 || answer.access_key_id.is_empty() || answer.secret_access_key.is_empty() {
        return Err(CredentialError::Format);
    }
    Ok(link::Credentials {
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
    fn an_unusable_answer_is_refused_without_being_repeated() {
        let cases: [&[u8]; 3] = [
            b"",
            br#"{"Version": 2, "AccessKeyId": "a", "SecretAccessKey": "hidden"}"#,
            br#"{"Version": 1, "AccessKeyId": "", "SecretAccessKey": "hidden"}"#,
        ];
        for text in cases {
            assert!(!parse(text).unwrap_err().to_string().contains("hidden"));
        }
    }

    #[tokio::test]
    async fn a_failing_program_is_named() {
        let source = CredentialSource::Process(vec!["false".into()]);
        assert!(fetch(&source).await.unwrap_err().to_string().contains("false"));
    }
}
