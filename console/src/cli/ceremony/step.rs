//! Signing a step: what is answered, by whom, and what becomes of the signature.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use ceremonies::ceremony::{Ceremony, Rejection, WITHDRAW};
use ceremonies::chain::transaction::Confirmation;
use ceremonies::charter::Role;
use ceremonies::ids::{CeremonyId, Hash, InvalidId, Line, PersonName, StepId};
use ceremonies::script::Act;
use ceremonies::statement::{Answer, Release};
use ceremonies::wire::log;
use ceremonies::words;
use clap::Args;
use prost::Message as _;
use serde_json::{Value, json};

use super::super::named::one_of;
use super::super::{Desk, Output, misused};
use super::ceremony;
use crate::client::{Reading, Receipt};
use crate::config::Me;
use crate::custodian::MAX_BACKUP;
use crate::file::{MAX_SETTINGS, Readers, read, write_new};
use crate::room::{self, RoomError, Signature, now};

#[derive(Args)]
pub(in crate::cli) struct StepArguments {
    /// Which ceremony.
    pub(super) id: CeremonyId,
    /// Which step.
    #[arg(long)]
    pub(super) step: StepId,
    /// In which role.
    #[arg(long, value_parser = one_of(&Role::ALL))]
    pub(super) role: Role,
    /// Who signs; needed if the cluster file lists several people in the role.
    #[arg(long)]
    person: Option<PersonName>,
    /// The words as you heard them, for a read-back.
    #[arg(long, group = "answer")]
    words: Option<String>,
    /// Agree.
    #[arg(long, group = "answer")]
    agree: bool,
    /// Disagree, with the reason.
    #[arg(long, group = "answer", value_name = "REASON")]
    disagree: Option<Line>,
    /// Record that the signed transaction is not sent from here, with the reason.
    #[arg(long, group = "answer", value_name = "REASON")]
    withhold: Option<Line>,
    /// The hash of the block that contains the signed transaction, as its network writes it.
    #[arg(long, group = "answer", value_name = "HASH", requires = "height", value_parser = block)]
    block: Option<Hash>,
    /// The height of that block.
    #[arg(long, value_name = "N", requires = "block")]
    height: Option<u64>,
    /// The release of a backup that `custody backup prove` or `restore` wrote.
    #[arg(long, group = "answer", value_name = "FILE")]
    release: Option<PathBuf>,
    /// The backup that is released [default: the file of that name in the cluster file's backup folder].
    #[arg(long, value_name = "FILE", requires = "release")]
    object: Option<PathBuf>,
    /// Why the ceremony ends, for the step `withdraw`.
    #[arg(long, group = "answer", value_name = "REASON")]
    reason: Option<Line>,
}

/// Reads a block's hash as Ethereum or Bitcoin writes it.
fn block(text: &str) -> Result<Hash, InvalidId> {
    text.strip_prefix("0x").unwrap_or(text).parse()
}

impl StepArguments {
    fn answer(&self, ceremony: &Ceremony) -> Result<Answer> {
        if let Some(typed) = &self.words {
            return Ok(Answer::Words(words::normalise(typed)));
        }
        if let Some(reason) = &self.disagree {
            return Ok(Answer::Disagree(reason.clone()));
        }
        if let Some(reason) = &self.withhold {
            return Ok(Answer::Withheld(reason.clone()));
        }
        if let Some(reason) = &self.reason {
            return Ok(Answer::Withdraw(reason.clone()));
        }
        if let Some((block, height)) = self.block.zip(self.height) {
            let transaction = ceremony.transaction_id().context("the transaction is not signed yet")?;
            return Ok(Answer::Broadcast(Confirmation { transaction, block, height }));
        }
        if let Some(file) = &self.release {
            return Ok(Answer::Release(read_release(file)?));
        }
        Ok(if self.agree { Answer::Agree } else { Answer::None })
    }

    pub(super) fn signature(&self, desk: &Desk, ceremony: &Ceremony) -> Result<Signature> {
        let withdraws = self.step.as_str() == WITHDRAW;
        let steps = || ceremony.script().steps().iter().map(|step| step.id.as_str());
        if !withdraws && !steps().any(|step| step == self.step.as_str()) {
            let steps = steps().collect::<Vec<_>>().join(", ");
            return Err(misused(format!(
                "`{}` is not a step of {}: its steps are {steps}; `{WITHDRAW}` ends it",
                self.step, self.id
            )));
        }
        if withdraws != self.reason.is_some() {
            return Err(misused(format!("the step `{WITHDRAW}` needs --reason, and no other step takes it")));
        }
        let person = match &self.person {
            Some(person) => person.clone(),
            None => someone(desk, self.role, Some((ceremony, &self.step)))?.person.clone(),
        };
        Ok(Signature { step: self.step.clone(), role: self.role, person, answer: self.answer(ceremony)? })
    }

    /// Submits what was signed; before a release, its backup goes to the node.
    pub(super) async fn submit(
        &self,
        desk: &Desk,
        output: Output,
        signature: &Signature,
        armoured: Vec<u8>,
    ) -> Result<()> {
        if let Answer::Release(release) = &signature.answer {
            let ceremony = ceremony(desk, &self.id)?;
            let step = ceremony.script().step(&self.step).context("no such step")?;
            let file =
                match &self.object {
                    Some(file) => file.clone(),
                    None => room::backup_file(&desk.cluster, ceremony, step.act, release.node).with_context(
                        || format!("the backup of node {} was not found: give --object", release.node),
                    )?,
                };
            desk.client.hand_in(release.node, &self.id, read("backup", &file, MAX_BACKUP)?).await?;
        }
        submit(desk, output, &self.id, signature, armoured).await
    }
}

/// The options that say what a step asks for.
fn said_with(ceremony: &Ceremony, step: &StepId) -> &'static str {
    match ceremony.script().step(step).map(|step| step.act) {
        Some(Act::ReadBack) => "give --words",
        Some(Act::Agree) => "give --agree or --disagree",
        Some(Act::Broadcast) => "give --block and --height, or --withhold",
        Some(Act::Prove | Act::Recover) => "give --release",
        Some(_) | None => "leave the others out",
    }
}

/// The statement to be signed for the first time. Of one that is on record, it says how well.
pub(super) fn statement(signature: &Signature, ceremony: &Ceremony, reading: &Reading) -> Result<String> {
    signature.statement(ceremony, now()).map_err(|error| {
        if let RoomError::OnRecord { seq, .. } = error {
            anyhow!("{error}; entry {seq} is {}", reading.recorded_at(seq))
        } else if let RoomError::Rejected(Rejection::Answer { .. }) = error {
            misused(format!("{error}: {}", said_with(ceremony, &signature.step)))
        } else {
            error.into()
        }
    })
}

/// The release of a backup as a file, for those who sign it elsewhere: what the log will hold, and no secret.
pub(in crate::cli) fn write_release(file: &Path, release: &Release) -> Result<()> {
    let wire = log::Release::from(release.clone());
    Ok(write_new(file, &wire.encode_to_vec(), Readers::Anyone)?)
}

fn read_release(file: &Path) -> Result<Release> {
    let malformed = || format!("{} is not a release of a backup", file.display());
    let wire =
        log::Release::decode(read("release", file, MAX_SETTINGS)?.as_slice()).with_context(malformed)?;
    wire.try_into().with_context(malformed)
}

/// The one person of the cluster file in a role who has not signed the step yet; where all have, the first of them.
pub(in crate::cli) fn someone<'a>(
    desk: &'a Desk,
    role: Role,
    step: Option<(&Ceremony, &StepId)>,
) -> Result<&'a Me> {
    let signed =
        |me: &Me| step.is_some_and(|(ceremony, id)| ceremony.signed(id).any(|s| s.person == me.person));
    let listed = || desk.cluster.me.iter().filter(|me| me.role == role);
    let mut people = listed().filter(|me| !signed(me));
    let me = people
        .next()
        .or_else(|| listed().next())
        .with_context(|| format!("the cluster file lists no {role}: give --person and --key"))?;
    if people.next().is_some() {
        return Err(misused(format!(
            "the cluster file lists several people who could sign as {role}: give --person"
        )));
    }
    Ok(me)
}

/// A receipt, for programs.
fn receipt_rendered(receipt: &Receipt) -> Value {
    json!({ "seq": receipt.seq, "hash": receipt.hash, "record": receipt.recorded() })
}

pub(in crate::cli) async fn submit(
    desk: &Desk,
    output: Output,
    id: &CeremonyId,
    signature: &Signature,
    armoured: Vec<u8>,
) -> Result<()> {
    let receipt = desk.client.submit(desk.known(id), id, signature.event(armoured)).await?;
    let what = if let Answer::Disagree(_) = &signature.answer {
        format!("that they disagree ({})", signature.step)
    } else {
        signature.step.to_string()
    };
    let text = format!("{} signed {what} as {}: {receipt}", signature.person, signature.role);
    output.print(&receipt_rendered(&receipt), &text)
}
