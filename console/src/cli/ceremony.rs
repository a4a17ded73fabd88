//! Ceremonies from the command line: also the plain line mode for screen readers.

mod shown;
mod step;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use ceremonies::book::Book;
use ceremonies::ceremony::{Ceremony, WITHDRAW, opening_statement};
use ceremonies::chain::transaction::MAX_TRANSACTION;
use ceremonies::charter::{CeremonyKind, MAX_CHARTER, Role};
use ceremonies::ids::{CeremonyId, Line, NodeIndex, PersonName, WalletName};
use ceremonies::manifest::{MAX_MANIFEST, Manifest, Way};
use ceremonies::script::Script;
use ceremonies::sshsig::{self, MAX_SIGNATURE};
use ceremonies::statement::Answer;
use ceremonies::text::chain;
use clap::Subcommand;
use serde_json::json;

pub(crate) use self::shown::event_line;
pub(super) use self::shown::head_words;
use self::shown::{described, follow, rendered};
use self::step::{StepArguments, statement};
pub(super) use self::step::{someone, submit, write_release};
use super::hand::{self, Hand};
use super::list::{Filter, list};
use super::named::one_of;
use super::status::{warn_of_doubts, warn_of_shares};
use super::{Desk, Output, misused, note};
use crate::client::{Reading, Scope};
use crate::config::Me;
use crate::file::{Readers, read, write_new};
use crate::inventory::Entries;
use crate::room::{self, LIFETIME_MS, Opening, RoomError, Signature, Topic, now};

#[derive(Subcommand)]
pub(super) enum CeremonyCommand {
    /// Open a ceremony as its administrator.
    Open {
        /// Which kind.
        #[arg(value_parser = one_of(&CeremonyKind::ALL))]
        kind: CeremonyKind,
        /// The wallet; for an amendment, give --charter instead.
        #[arg(long, conflicts_with = "charter")]
        wallet: Option<WalletName>,
        /// The new charter, for an amendment.
        #[arg(long, value_name = "FILE")]
        charter: Option<PathBuf>,
        /// A node that has lost its share, for a recovery or rebuild; repeat it for each node.
        #[arg(long, value_name = "NODE[=WAY]", value_parser = room::lost_node)]
        lost: Vec<(NodeIndex, Way)>,
        /// The transaction that `custody sweep` wrote, for a transfer.
        #[arg(long, value_name = "FILE")]
        transaction: Option<PathBuf>,
        /// The nodes that sign it [default: the first that can sign together].
        #[arg(long, value_delimiter = ',')]
        signers: Vec<NodeIndex>,
        /// Why it is held.
        #[arg(long)]
        purpose: Line,
        /// Minutes until it expires.
        #[arg(long, default_value_t = LIFETIME_MS / 60_000)]
        minutes: i64,
        /// The administrator's name; needed if the cluster file lists none, or several.
        #[arg(long)]
        person: Option<PersonName>,
        /// The administrator's key.
        #[arg(long)]
        key: Option<PathBuf>,
        /// Do not sign here: write the manifest to this file and print the statement to be signed. An existing file is
        /// not overwritten.
        #[arg(long, value_name = "FILE", conflicts_with = "key")]
        manifest: Option<PathBuf>,
        #[command(flatten)]
        entries: Box<Entries>,
    },
    /// Open a ceremony that `open --manifest` prepared, with a signature made elsewhere or made here.
    SubmitOpening {
        /// The manifest that `open --manifest` wrote.
        #[arg(long)]
        manifest: PathBuf,
        /// The armoured signature; without it, the statement is signed here.
        #[arg(long, conflicts_with_all = ["key", "statement_hash"])]
        signature: Option<PathBuf>,
        #[command(flatten)]
        hand: Hand,
    },
    /// List ceremonies, newest first.
    List(Filter),
    /// Show one ceremony: phase, steps, signatures.
    Show {
        /// Which.
        id: CeremonyId,
    },
    /// Print what happens, line by line, until the ceremony ends.
    Follow {
        /// Which.
        id: CeremonyId,
    },
    /// Print the exact statement to be signed. The step `withdraw` ends the ceremony.
    Statement(StepArguments),
    /// Sign a step with a key file or through the SSH agent.
    Sign {
        #[command(flatten)]
        step: StepArguments,
        #[command(flatten)]
        hand: Hand,
    },
    /// Submit a signature made elsewhere with `ssh-keygen -Y sign -n custody-ceremony`.
    Submit {
        #[command(flatten)]
        step: StepArguments,
        /// The armoured signature.
        #[arg(long)]
        signature: PathBuf,
    },
    /// Withdraw a ceremony: it ends without being completed.
    #[command(visible_alias = "withdraw")]
    Abort {
        /// Which.
        id: CeremonyId,
        /// Why; it stays in the record.
        #[arg(long)]
        reason: Line,
        /// In which role [default: the person's in the cluster file, else administrator].
        #[arg(long, value_parser = one_of(&Role::ALL))]
        role: Option<Role>,
        /// Who.
        #[arg(long)]
        person: Option<PersonName>,
        #[command(flatten)]
        hand: Hand,
    },
}

/// The ceremony that a command is about; none where it may be about any.
fn about_one(command: &CeremonyCommand) -> Option<&CeremonyId> {
    match command {
        CeremonyCommand::Open { .. } | CeremonyCommand::SubmitOpening { .. } | CeremonyCommand::List(_) => {
            None
        }
        CeremonyCommand::Show { id } | CeremonyCommand::Follow { id } | CeremonyCommand::Abort { id, .. } => {
            Some(id)
        }
        CeremonyCommand::Statement(step)
        | CeremonyCommand::Sign { step, .. }
        | CeremonyCommand::Submit { step, .. } => Some(&step.id),
    }
}

pub(super) async fn run(path: Option<PathBuf>, output: Output, command: CeremonyCommand) -> Result<()> {
    if let CeremonyCommand::List(filter) = &command {
        return list(path, output, filter).await;
    }
    match about_one(&command).cloned() {
        Some(id) => {
            let (desk, reading) = Desk::open_at(path, &id).await?;
            run_in(desk, reading, output, command).await
        }
        None => open(Desk::open(path, Scope::Current).await?, output, command).await,
    }
}

/// Commands that open a ceremony: any other ceremony may stand against it.
async fn open(desk: Desk, output: Output, command: CeremonyCommand) -> Result<()> {
    match command {
        CeremonyCommand::Open {
            kind,
            wallet,
            charter,
            lost,
            transaction,
            signers,
            purpose,
            minutes,
            person,
            key: given,
            manifest: file,
            entries,
        } => {
            room::must_choose_no_signers(kind, &signers)?;
            let charter = charter.as_deref().map(|file| read("charter", file, MAX_CHARTER)).transpose()?;
            let topic = match (kind, transaction, wallet) {
                (CeremonyKind::Transfer, Some(file), Some(wallet)) => room::transfer(
                    &desk.book,
                    wallet,
                    &read("transaction", &file, MAX_TRANSACTION)?,
                    signers,
                )?,
                (CeremonyKind::Inventory, None, Some(wallet)) => entries.topic(&desk.book, wallet)?,
                (_, None, _) if !entries.is_empty() => return Err(RoomError::Generation.into()),
                (_, None, wallet) => Topic::new(kind, wallet, charter.as_deref(), room::lost_nodes(lost)?)?,
                _ => {
                    return Err(misused(
                        "a transfer needs --wallet and --transaction, and no other ceremony takes --transaction",
                    ));
                }
            };
            let administrator = match person {
                Some(person) => person,
                None => someone(&desk, Role::Administrator, None)?.person.clone(),
            };
            let lifetime_ms = minutes.saturating_mul(60_000);
            let opening = Opening { topic, purpose, administrator: administrator.clone(), lifetime_ms };
            let (manifest, statement) = room::prepare(&desk.book, &opening)?;
            warn_of_shares(&desk, &manifest).await?;
            tell_of_rivals(&desk.book, &manifest);
            if let Some(file) = file {
                write_new(&file, manifest.as_bytes(), Readers::Anyone)?;
                return output.print_exactly(&hand::rendered(&statement), &statement);
            }
            let hand = Hand::asking(given);
            hand.must_be_able_to_ask(
                "a program passes --manifest FILE, reads the statement that this prints, and then opens the ceremony \
                 with submit-opening --manifest FILE --key KEY --statement-hash SHA256",
            )?;
            let signature = hand.sign(&desk, Role::Administrator, &administrator, &statement)?;
            submit_opening(&desk, output, &manifest, signature).await
        }
        CeremonyCommand::SubmitOpening { manifest, signature, hand } => {
            let manifest = Manifest::parse(&read("manifest", &manifest, MAX_MANIFEST)?)
                .with_context(|| format!("{} is not a manifest", manifest.display()))?;
            warn_of_shares(&desk, &manifest).await?;
            tell_of_rivals(&desk.book, &manifest);
            let signature = if let Some(file) = signature {
                read_signature(&file)?
            } else {
                let script = Script::builtin(manifest.kind)?;
                let statement = opening_statement(&manifest, desk.book.context().charter(), &script)?;
                hand.sign(&desk, Role::Administrator, &manifest.administrator, &statement)?
            };
            submit_opening(&desk, output, &manifest, signature).await
        }
        CeremonyCommand::List(_)
        | CeremonyCommand::Show { .. }
        | CeremonyCommand::Follow { .. }
        | CeremonyCommand::Statement(_)
        | CeremonyCommand::Sign { .. }
        | CeremonyCommand::Submit { .. }
        | CeremonyCommand::Abort { .. } => bail!("this command does not open a ceremony"),
    }
}

/// Commands within one ceremony.
async fn run_in(mut desk: Desk, reading: Reading, output: Output, command: CeremonyCommand) -> Result<()> {
    match command {
        CeremonyCommand::Open { .. } | CeremonyCommand::SubmitOpening { .. } | CeremonyCommand::List(_) => {
            bail!("this command is not about one ceremony")
        }
        CeremonyCommand::Show { id } => {
            let ceremony = ceremony(&desk, &id)?;
            warn_of_rivals(&desk, ceremony).await;
            output.print(&rendered(ceremony, &reading), &described(ceremony, &reading))
        }
        CeremonyCommand::Follow { id } => follow(&mut desk, output, &id).await,
        CeremonyCommand::Statement(step) => {
            let ceremony = ceremony(&desk, &step.id)?;
            let statement = statement(&step.signature(&desk, ceremony)?, ceremony, &reading)?;
            warn_of_rivals(&desk, ceremony).await;
            output.print_exactly(&hand::rendered(&statement), &statement)
        }
        CeremonyCommand::Sign { step, hand } => {
            let ceremony = ceremony(&desk, &step.id)?;
            let signature = step.signature(&desk, ceremony)?;
            let statement = statement(&signature, ceremony, &reading)?;
            warn_of_doubts(&desk, ceremony).await?;
            warn_of_rivals(&desk, ceremony).await;
            let armoured = hand.sign(&desk, step.role, &signature.person, &statement)?;
            step.submit(&desk, output, &signature, armoured).await
        }
        CeremonyCommand::Submit { step, signature: file } => {
            let ceremony = ceremony(&desk, &step.id)?;
            let signature = step.signature(&desk, ceremony)?;
            statement(&signature, ceremony, &reading)?;
            step.submit(&desk, output, &signature, read_signature(&file)?).await
        }
        CeremonyCommand::Abort { id, reason, role, person, hand } => {
            let ceremony = ceremony(&desk, &id)?;
            let role = role.unwrap_or_else(|| usual_role(&desk.cluster.me, person.as_ref()));
            let person = match person {
                Some(person) => person,
                None => someone(&desk, role, None)?.person.clone(),
            };
            let step = WITHDRAW.parse()?;
            let signature = Signature { step, role, person, answer: Answer::Withdraw(reason) };
            let statement = signature.statement(ceremony, now())?;
            let armoured = hand.sign(&desk, role, &signature.person, &statement)?;
            submit(&desk, output, &id, &signature, armoured).await
        }
    }
}

/// The role in which somebody ends a ceremony unless told otherwise: their own in the cluster file.
fn usual_role(people: &[Me], person: Option<&PersonName>) -> Role {
    let listed = people.iter().find(|me| Some(&me.person) == person);
    listed.map_or(Role::Administrator, |me| me.role)
}

/// Warns of other transfers that can be carried out only in the place of a manifest's, as far as the book has them.
fn tell_of_rivals(book: &Book, manifest: &Manifest) {
    if let Some(transaction) = manifest.transaction() {
        for rival in room::rivals(book, &manifest.wallet, transaction, now()) {
            note(&format!("WARNING: {rival}"));
        }
    }
}

/// The same of a ceremony under way. A command about one ceremony has read no other: its wallet's are read for this.
pub(super) async fn warn_of_rivals(desk: &Desk, ceremony: &Ceremony) {
    let manifest = ceremony.manifest();
    if manifest.transaction().is_none() {
        return;
    }
    match desk.client.library(&Scope::Wallet(manifest.wallet.clone())).await {
        Ok(library) => {
            for rival in room::rivals_of(&library.book, ceremony, now()) {
                note(&format!("WARNING: {rival}"));
            }
        }
        Err(error) => note(&format!(
            "note: the wallet's other transfers could not be read, and one of them may stand in the way of this one: {}",
            chain(&error)
        )),
    }
}

pub(super) fn ceremony<'a>(desk: &'a Desk, id: &CeremonyId) -> Result<&'a Ceremony> {
    Ok(&desk.book.get(id).with_context(|| format!("ceremony `{id}` is not known"))?.ceremony)
}

/// A signature made elsewhere, in the form in which it is stored.
fn read_signature(file: &Path) -> Result<Vec<u8>> {
    sshsig::canonical(&read("signature", file, MAX_SIGNATURE)?)
        .with_context(|| format!("{} is not a signature that ssh-keygen verifies", file.display()))
}

/// Prints the id alone, for programs that read it; the outcome of the opening goes to standard error.
async fn submit_opening(desk: &Desk, output: Output, manifest: &Manifest, signature: Vec<u8>) -> Result<()> {
    if let Some(chapter) = desk.book.get(&manifest.ceremony) {
        let phase = chapter.ceremony.phase_at(now());
        bail!(
            "{} was opened before, with this manifest; it is {phase}; nothing was sent now",
            manifest.ceremony
        );
    }
    let opened = room::opened(manifest, signature);
    let receipt = desk.client.submit(&[], &manifest.ceremony, opened).await?;
    if !output.json {
        note(&format!("opened: {receipt}"));
    }
    output.print(
        &json!({
            "id": manifest.ceremony,
            "manifest": manifest.hash(),
            "record": receipt.recorded(),
        }),
        manifest.ceremony.as_str(),
    )
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;

    #[test]
    fn whoever_ends_a_ceremony_does_so_in_their_own_role_and_else_as_administrator() {
        let me = |name: &str, role| Me {
            person: name.parse().unwrap(),
            role,
            key: PathBuf::from(name),
            identity: None,
        };
        let people = [me("olga", Role::Operator), me("wanda", Role::Witness)];
        let role = |name: &str| usual_role(&people, Some(&name.parse().unwrap()));
        assert_eq!((role("olga"), role("wanda")), (Role::Operator, Role::Witness));
        assert_eq!((role("nobody"), usual_role(&people, None)), (Role::Administrator, Role::Administrator));
    }
}
