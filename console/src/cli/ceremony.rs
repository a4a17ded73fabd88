//! Ceremonies from the command line: also the plain line mode for screen readers.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use ceremonies::ceremony::{Ceremony, Phase, StepState, WITHDRAW, opening_statement};
use ceremonies::charter::{CeremonyKind, MAX_CHARTER, Role};
use ceremonies::ids::{CeremonyId, Hash, InvalidId, Line, NodeIndex, PersonName, StepId, WalletName};
use ceremonies::manifest::{MAX_MANIFEST, Manifest, Way};
use ceremonies::script::Script;
use ceremonies::sshsig::{self, MAX_SIGNATURE};
use ceremonies::statement::{Answer, Release};
use ceremonies::transaction::{Confirmation, MAX_TRANSACTION};
use ceremonies::wire::log;
use ceremonies::words;
use clap::{Args, Subcommand};
use futures_util::StreamExt;
use prost::Message as _;
use serde_json::{Value, json};

use super::hand::{self, Hand};
use super::list::{Filter, list};
use super::named::one_of;
use super::status::warn_of_doubts;
use super::{Desk, Output, note};
use crate::client::{News, Reading, Receipt, Recorded, Scope};
use crate::config::Me;
use crate::custodian::MAX_BACKUP;
use crate::file::{MAX_SETTINGS, Readers, read, write_new};
use crate::fork::fork;
use crate::inventory::Entries;
use crate::room::{self, LIFETIME_MS, Opening, RoomError, Signature, Subject, now};
use crate::standing::disputes;

#[derive(Subcommand)]
pub(super) enum CeremonyCommand {
    /// Open a ceremony as its administrator.
    Open {
        /// Which kind.
        #[arg(value_parser = one_of(&CeremonyKind::ALL))]
        kind: CeremonyKind,
        /// The wallet; for an amendment, give --charter instead.
        #[arg(long, required_unless_present = "charter", conflicts_with = "charter")]
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
        #[arg(long, value_delimiter = ',', requires = "transaction")]
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

#[derive(Args)]
pub(super) struct StepArguments {
    /// Which ceremony.
    id: CeremonyId,
    /// Which step.
    #[arg(long)]
    step: StepId,
    /// In which role.
    #[arg(long, value_parser = one_of(&Role::ALL))]
    role: Role,
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

    fn signature(&self, desk: &Desk, ceremony: &Ceremony) -> Result<Signature> {
        ceremony.check_not_over(now())?;
        let withdraws = self.step.as_str() == WITHDRAW;
        if withdraws != self.reason.is_some() {
            bail!("the step `{WITHDRAW}` needs --reason, and no other step takes it");
        }
        let person = match &self.person {
            Some(person) => person.clone(),
            None => someone(desk, self.role, Some((ceremony, &self.step)))?.person.clone(),
        };
        Ok(Signature { step: self.step.clone(), role: self.role, person, answer: self.answer(ceremony)? })
    }

    /// Submits what was signed; before a release, its backup goes to the node.
    async fn submit(
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

/// The release of a backup as a file, for those who sign it elsewhere: what the log will hold, and no secret.
pub(super) fn write_release(file: &Path, release: &Release) -> Result<()> {
    let wire = log::Release {
        node: release.node.into(),
        object: release.object.as_bytes().to_vec(),
        sealed: release.sealed.clone(),
    };
    Ok(write_new(file, &wire.encode_to_vec(), Readers::Anyone)?)
}

fn read_release(file: &Path) -> Result<Release> {
    let malformed = || format!("{} is not a release of a backup", file.display());
    let wire =
        log::Release::decode(read("release", file, MAX_SETTINGS)?.as_slice()).with_context(malformed)?;
    let node = wire.node.try_into().with_context(malformed)?;
    let object = wire.object.as_slice().try_into().with_context(malformed)?;
    Ok(Release { node, object, sealed: wire.sealed })
}

/// The one person of the cluster file in a role, leaving out who has signed the step already.
pub(super) fn someone<'a>(desk: &'a Desk, role: Role, step: Option<(&Ceremony, &StepId)>) -> Result<&'a Me> {
    let signed =
        |me: &Me| step.is_some_and(|(ceremony, id)| ceremony.signed(id).any(|s| s.person == me.person));
    let mut people = desk.cluster.me.iter().filter(|me| me.role == role && !signed(me));
    let me = people.next().with_context(|| {
        format!("the cluster file lists no {role} who has not signed yet: give --person and --key")
    })?;
    if people.next().is_some() {
        bail!("the cluster file lists several people who could sign as {role}: give --person");
    }
    Ok(me)
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
            let charter = charter.as_deref().map(|file| read("charter", file, MAX_CHARTER)).transpose()?;
            let subject = match (kind, transaction, wallet) {
                (CeremonyKind::Transfer, Some(file), Some(wallet)) => room::transfer(
                    &desk.book,
                    wallet,
                    &read("transaction", &file, MAX_TRANSACTION)?,
                    signers,
                )?,
                (CeremonyKind::Inventory, None, Some(wallet)) => entries.subject(&desk.book, wallet)?,
                (_, None, _) if !entries.is_empty() => return Err(RoomError::Generation.into()),
                (_, None, wallet) => {
                    Subject::new(kind, wallet, charter.as_deref(), lost.into_iter().collect())?
                }
                _ => bail!(
                    "a transfer needs --wallet and --transaction, and no other ceremony takes --transaction"
                ),
            };
            let administrator = match person {
                Some(person) => person,
                None => someone(&desk, Role::Administrator, None)?.person.clone(),
            };
            let lifetime_ms = minutes.saturating_mul(60_000);
            let opening = Opening { subject, purpose, administrator: administrator.clone(), lifetime_ms };
            let (manifest, statement) = room::prepare(&desk.book, &opening)?;
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
            output.print(&rendered(ceremony, &reading), &described(ceremony, &reading))
        }
        CeremonyCommand::Follow { id } => follow(&mut desk, output, &id).await,
        CeremonyCommand::Statement(step) => {
            let ceremony = ceremony(&desk, &step.id)?;
            let statement = step.signature(&desk, ceremony)?.statement(ceremony, now())?;
            output.print_exactly(&hand::rendered(&statement), &statement)
        }
        CeremonyCommand::Sign { step, hand } => {
            let ceremony = ceremony(&desk, &step.id)?;
            let signature = step.signature(&desk, ceremony)?;
            let statement = signature.statement(ceremony, now())?;
            warn_of_doubts(&desk, ceremony).await?;
            let armoured = hand.sign(&desk, step.role, &signature.person, &statement)?;
            step.submit(&desk, output, &signature, armoured).await
        }
        CeremonyCommand::Submit { step, signature: file } => {
            let ceremony = ceremony(&desk, &step.id)?;
            let signature = step.signature(&desk, ceremony)?;
            step.submit(&desk, output, &signature, read_signature(&file)?).await
        }
        CeremonyCommand::Abort { id, reason, role, person, hand } => {
            let ceremony = ceremony(&desk, &id)?;
            let listed = desk.cluster.me.iter().find(|me| Some(&me.person) == person.as_ref());
            let role = role.or(listed.map(|me| me.role)).unwrap_or(Role::Administrator);
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

/// A receipt, for programs.
pub(super) fn receipt_rendered(receipt: &Receipt) -> Value {
    json!({ "seq": receipt.seq, "hash": receipt.hash, "record": receipt.recorded() })
}

pub(super) async fn submit(
    desk: &Desk,
    output: Output,
    id: &CeremonyId,
    signature: &Signature,
    armoured: Vec<u8>,
) -> Result<()> {
    let receipt = desk.client.submit(desk.known(id), id, signature.event(armoured)).await?;
    let what = match &signature.answer {
        Answer::Disagree(_) => format!("that they disagree ({})", signature.step),
        _ => signature.step.to_string(),
    };
    let text = format!("{} signed {what} as {}: {receipt}", signature.person, signature.role);
    output.print(&receipt_rendered(&receipt), &text)
}

/// Whether it has ended without effect, so that nobody is waited for.
fn is_void(ceremony: &Ceremony) -> bool {
    matches!(ceremony.phase_at(now()), Phase::Void(_))
}

/// The head in words for paper: only once it is recorded.
pub(super) fn head_words(ceremony: &Ceremony, recorded: &Recorded) -> Option<String> {
    recorded.recorded.then(|| words::spoken(&ceremony.head().hash))
}

fn rendered(ceremony: &Ceremony, reading: &Reading) -> Value {
    let recorded = reading.recorded();
    let manifest = ceremony.manifest();
    let steps: Vec<Value> = ceremony
        .script()
        .steps()
        .iter()
        .map(|step| {
            let state = match ceremony.step_state(step) {
                StepState::Done => json!("done"),
                StepState::Open { .. } if is_void(ceremony) => json!("not reached"),
                StepState::Open { waiting_for } => json!({ "open": waiting_for }),
                StepState::Blocked { by } => json!({ "blocked_by": by }),
            };
            let signed: Vec<Value> = ceremony
                .signed(&step.id)
                .map(|s| json!({ "person": s.person, "role": s.role, "time": s.time.to_string(), "answer": s.answer.to_string(), "presence": s.presence }))
                .collect();
            json!({ "id": step.id, "state": state, "signed": signed })
        })
        .collect();
    json!({
        "id": manifest.ceremony,
        "kind": manifest.kind,
        "wallet": manifest.wallet,
        "charter": manifest.amendment.as_ref().map(|charter| charter.hash()),
        "inventory": manifest.inventory,
        "lost": manifest.lost,
        "transaction": manifest.transaction.as_ref().map(|transaction| transaction.words()),
        "transaction_id": ceremony.transaction_id().map(|id| id.to_string()),
        "signing_nodes": manifest.transaction.is_some().then_some(&manifest.roster),
        "disputes": disputes(ceremony),
        "purpose": manifest.purpose,
        "phase": ceremony.phase_at(now()).to_string(),
        "manifest": manifest.hash(),
        "expires": manifest.expires.to_string(),
        "head": ceremony.head().hash,
        "entry": ceremony.head().seq,
        "head_words": head_words(ceremony, &recorded),
        "record": recorded,
        "recorded_to": reading.recorded_tip().map(|tip| tip.seq),
        "fork": fork(reading),
        "words": ceremony.spoken_words(),
        "steps": steps,
    })
}

/// What a ceremony is about, in a few words.
fn about(manifest: &Manifest) -> String {
    match &manifest.amendment {
        None => {
            let lost: Vec<_> = manifest
                .lost
                .iter()
                .map(|(node, way)| format!(", node {node} lost, {}", manifest.way_in_words(*way)))
                .collect();
            format!("wallet {}, generation {}{}", manifest.wallet, manifest.generation, lost.concat())
        }
        Some(charter) => format!("charter {}", charter.hash()),
    }
}

fn described(ceremony: &Ceremony, reading: &Reading) -> String {
    let manifest = ceremony.manifest();
    let recorded = reading.recorded();
    let mut text = format!(
        "{} of {}: {}\nphase    {}\nrecord   entry {}, {recorded}\nmanifest {}\nexpires  {}\n",
        manifest.ceremony,
        about(manifest),
        manifest.purpose,
        ceremony.phase_at(now()),
        ceremony.head().seq,
        manifest.hash(),
        manifest.expires
    );
    if !reading.is_proven() {
        text += "         NO NODE HAS SIGNED THIS: each entry is proven, but nothing shows that none is missing\n";
    }
    for dispute in disputes(ceremony) {
        text += &format!("         DISPUTED by {dispute}\n");
    }
    for line in fork(reading).iter().flat_map(crate::fork::Fork::lines) {
        text += &format!("{line}\n");
    }
    for change in manifest.amendment.iter().flat_map(|charter| ceremony.charter().changes(charter)) {
        text += &format!("  {change}\n");
    }
    for item in &manifest.inventory {
        text += &format!("  {item}\n");
    }
    for said in manifest.transaction.iter().flat_map(|transaction| transaction.words()) {
        text += &format!("  {said}\n");
    }
    if let Some(id) = ceremony.transaction_id() {
        text += &format!("  signed as {id}\n");
    }
    for step in ceremony.script().steps() {
        let (mark, more) = match ceremony.step_state(step) {
            StepState::Done => ("[x]", String::new()),
            StepState::Open { waiting_for } if !is_void(ceremony) => {
                ("[>]", format!(": waiting for {waiting_for}"))
            }
            StepState::Open { .. } | StepState::Blocked { .. } => ("[ ]", String::new()),
        };
        text += &format!("{mark} {} ({}){more}\n", step.title, step.id);
        for signed in ceremony.signed(&step.id) {
            text +=
                &format!("      {} as {}, {}: {}\n", signed.person, signed.role, signed.time, signed.answer);
        }
    }
    text += &match head_words(ceremony, &recorded) {
        Some(words) => format!("head     {words}"),
        None => "head     no words for paper yet: too few nodes have recorded the head".to_owned(),
    };
    text
}

async fn follow(desk: &mut Desk, output: Output, id: &CeremonyId) -> Result<()> {
    let mut news = Box::pin(desk.client.news().await?);
    let mut told = 0;
    loop {
        if let Some(chapter) = desk.book.get(id) {
            for entry in chapter.entries.iter().skip(told) {
                let what = event_line(&entry.event);
                output.print(
                    &json!({ "seq": entry.seq, "time": entry.time.to_string(), "event": what }),
                    &format!("{} {:>3} {what}", entry.time, entry.seq),
                )?;
            }
            told = chapter.entries.len();
            let phase = chapter.ceremony.phase_at(now());
            match phase {
                Phase::Gathering | Phase::Authorised | Phase::Committed => {}
                end @ (Phase::Closed | Phase::Abandoned(_) | Phase::Void(_)) => {
                    return output.print(
                        &json!({ "end": end.to_string() }),
                        &format!("the ceremony has ended: {end}"),
                    );
                }
            }
        }
        match tokio::time::timeout(std::time::Duration::from_secs(2), news.next()).await {
            Ok(Some(News::Progress(progress))) if progress.ceremony == id.as_str() => {
                let waiting: Vec<String> = progress.waiting_for.iter().map(ToString::to_string).collect();
                let what = format!(
                    "node {} at {} ({} of {}), waiting for {}",
                    progress.node,
                    progress.phase,
                    progress.phase_number,
                    progress.phase_count,
                    if waiting.is_empty() { "nobody".to_owned() } else { waiting.join(", ") }
                );
                output.print(&json!({ "progress": what }), &what)?;
            }
            Ok(None) => bail!("the connection to the bus is closed"),
            Ok(Some(_)) | Err(_) => {}
        }
        // Nodes may be silent for a while; what they say then is what counts.
        if let Err(error) = desk.catch_up(id).await {
            note(&format!("note: {error:#}"));
        }
    }
}

/// An event in one line.
pub(crate) fn event_line(event: &ceremonies::entry::Event) -> String {
    use ceremonies::entry::Event;
    match event {
        Event::Opened { manifest, .. } => {
            format!("opened by {}: {}", manifest.administrator, manifest.purpose)
        }
        Event::Attested { node, .. } => format!("enclave {node} attested"),
        // Narrow screens cut the end, and this must not be cut.
        Event::Signed { step, role, person, answer: Answer::Disagree(reason), .. } => {
            format!("DISAGREES: {person} as {role}, {step}: {reason}")
        }
        Event::Signed { step, role, person, answer, .. } => format!("{person} as {role}, {step}: {answer}"),
        Event::BackedUp(backed_up) => format!("node {} wrote its backups", backed_up.node),
        Event::Proved { node, .. } => format!("the backup of node {node} holds its share"),
        Event::Recovered { node, .. } => format!("enclave {node} has its share again"),
        Event::Staged { node, .. } => format!("enclave {node} sealed a new share alongside the one in use"),
        Event::Retired { node, .. } => format!("node {node} deleted its old shares"),
        Event::Prepared { node, .. } => format!("enclave {node} sealed its share and signed the result"),
        Event::Adopted { node, .. } => format!("node {node} adopted the generation"),
        Event::TestSigned(signed) => format!("enclave {} signed with {}", signed.node, signed.subset),
        Event::Aborted(aborted) => format!("enclave {} gave up: {}", aborted.node, aborted.reason),
        Event::Faulted { node, reason } => format!("node {node} gave up: {reason}"),
        Event::Withdrawn { person, reason, .. } => format!("{person} ended the ceremony: {reason}"),
    }
}
