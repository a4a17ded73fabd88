//! Signing at a command line. The statement is shown first, and nothing is signed before somebody has read it: a person
//! types the word under it, a program gives the hash of the text.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use ceremonies::charter::Role;
use ceremonies::ids::{Hash, PersonName};
use ceremonies::statement::NAMESPACE;
use clap::Args;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::Desk;
use super::output::note;
use crate::signer::{SignError, sign_in};
use crate::terminal;
use crate::tui::SIGN_WORD;
use crate::waiting::Waiting;

/// The key that signs a statement, and the proof that the statement was read.
#[derive(Debug, Args)]
pub(super) struct Hand {
    /// The private key file, or a public key file if the SSH agent holds its private half [default: the cluster
    /// file's].
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// SHA-256 of the statement, given by a program that has read it: it is signed without asking for the word.
    #[arg(long, value_name = "SHA256")]
    statement_hash: Option<Hash>,
}

impl Hand {
    /// A hand that asks for the word.
    pub(super) fn asking(key: Option<PathBuf>) -> Self {
        Self { key, statement_hash: None }
    }

    /// Refuses to go on if nobody could sign in the end.
    pub(super) fn must_be_able_to_ask(&self, instead: &str) -> Result<()> {
        if self.statement_hash.is_none() && !is_at_terminal() {
            bail!("there is no terminal at which to read the statement: {instead}");
        }
        Ok(())
    }

    /// Shows a statement and signs it once it has been read.
    pub(super) fn sign(
        &self,
        desk: &Desk,
        role: Role,
        person: &PersonName,
        statement: &str,
    ) -> Result<Vec<u8>> {
        let key = key(desk, person, role, self.key.as_deref())?;
        show(statement)?;
        self.must_have_read(statement)?;
        unlocking(key, |passphrase| sign_in(NAMESPACE, key, statement, passphrase, Waiting::telling(&note)))
    }

    fn must_have_read(&self, statement: &str) -> Result<()> {
        match self.statement_hash {
            Some(hash) if hash == Hash::of_bytes(statement.as_bytes()) => return Ok(()),
            Some(hash) => bail!(
                "the SHA-256 of the statement above, which is the one to be signed, is not {hash}: read it again; \
                 nothing was signed"
            ),
            None => self.must_be_able_to_ask(
                "a program that has read it passes --statement-hash, the SHA-256 of the text; nothing was signed",
            )?,
        }
        let word = terminal::ask(&format!("Type `{SIGN_WORD}` to sign it: "))?;
        if !word.eq_ignore_ascii_case(SIGN_WORD) {
            bail!("`{SIGN_WORD}` was not typed: nothing was signed");
        }
        Ok(())
    }
}

/// Signs, and asks for the key's passphrase if it has one.
pub(super) fn unlocking(
    key: &Path,
    sign: impl Fn(Option<&Zeroizing<String>>) -> Result<Vec<u8>, SignError>,
) -> Result<Vec<u8>> {
    match sign(None) {
        Err(SignError::Locked(_)) => {
            let question = format!("passphrase of {}: ", key.display());
            let asked = terminal::ask_hidden(&question).context("the key needs a passphrase")?;
            Ok(sign(Some(&asked))?)
        }
        signed => Ok(signed?),
    }
}

/// Both input and output are needed: what is not shown cannot be read.
fn is_at_terminal() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// What cannot be shown cannot be signed.
fn show(statement: &str) -> Result<()> {
    let mut screen = io::stderr().lock();
    write!(screen, "{statement}").and_then(|()| screen.flush()).context("the statement cannot be shown")
}

/// A statement for programs, with the hash by which they confirm that they have read it.
pub(super) fn rendered(statement: &str) -> Value {
    json!({ "statement": statement, "sha256": Hash::of_bytes(statement.as_bytes()) })
}

fn key<'a>(desk: &'a Desk, person: &PersonName, role: Role, given: Option<&'a Path>) -> Result<&'a Path> {
    if let Some(key) = given {
        return Ok(key);
    }
    let me = desk.cluster.me.iter().find(|me| me.person == *person && me.role == role);
    Ok(&me.with_context(|| format!("no key is known for {person}: give --key"))?.key)
}

/// Says how to submit a signature that was made elsewhere.
pub(super) fn submit_with(command: &str) {
    note(&format!(
        "sign it with: ssh-keygen -Y sign -n custody-ceremony -f KEY FILE\nsubmit it with: {command}"
    ));
}
