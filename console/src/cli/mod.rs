//! The subcommands: what the terminal shows, for scripts and for a plain line mode.

mod audit;
mod backup;
mod broadcast;
mod ceremony;
mod drill;
mod hand;
mod in_force;
mod list;
mod named;
mod offline;
mod output;
mod paper;
#[cfg(test)]
mod recorded;
mod status;
mod stream;
mod sweep;
mod wallet;

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow, bail};
use ceremonies::book::Book;
use ceremonies::charter::ClusterKind;
use ceremonies::ids::{CeremonyId, WalletName};
use ceremonies::listing::Wanted;
use ceremonies::log::Entry;
use ceremonies::wallet::Wallet;
use clap::{CommandFactory, Parser, Subcommand};
use thiserror::Error;

pub(crate) use self::ceremony::event_line;
use self::named::one_of;
pub use self::output::note;
use self::output::{NobodyReads, Output, written};
use crate::client::{Client, ClientError, Library, Outcome, Reading, Scope, SubmitError};
use crate::config::Cluster;
use crate::room::{self, RoomError};

/// What the program's exit says.
const EXIT_CODES: &str = "Exit codes: 0 done, and recorded by a quorum of nodes, or held by a majority while all \
    others are silent (the output says which); 1 refused or failed, with the reason on standard error; 2 usage error; \
    3 outcome unknown: what was signed may or may not be recorded, do not sign it again.";

/// The operator's console of Custody. Without a command, it opens the terminal screens.
#[derive(Parser)]
#[command(name = "custody", version, after_help = EXIT_CODES)]
pub struct Arguments {
    /// The cluster file: charter, bus, credentials, trusted root.
    #[arg(long, global = true, env = "CUSTODY_CLUSTER", value_name = "FILE")]
    cluster: Option<PathBuf>,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
    /// Record what the terminal screens show in a new file (asciicast v2); custody replay shows it again.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Show the health of the cluster.
    Status {
        /// Keep running, and print it again whenever it changes.
        #[arg(long)]
        watch: bool,
        /// Print what is checked, how soon it is shown, and what to do, instead.
        #[arg(long, conflicts_with = "watch")]
        checks: bool,
    },
    /// Wallets and their generations.
    #[command(subcommand)]
    Wallet(wallet::WalletCommand),
    /// Open, follow and sign ceremonies.
    #[command(subcommand)]
    Ceremony(ceremony::CeremonyCommand),
    /// List, prove and restore backups of shares.
    #[command(subcommand)]
    Backup(backup::BackupCommand),
    /// Build a transaction from a wallet and show it: a dust amount, or everything, to another wallet.
    Sweep(sweep::SweepArguments),
    /// Send a ceremony's signed transaction and sign which block it is in, or why it is not sent.
    Broadcast(broadcast::BroadcastArguments),
    /// Ceremony scripts.
    #[command(subcommand)]
    Script(offline::ScriptCommand),
    /// Evidence bundles.
    #[command(subcommand)]
    Evidence(EvidenceCommand),
    /// The record for those who watch over it.
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Break something on purpose, and time how soon it is shown and put right.
    #[command(subcommand)]
    Drill(drill::DrillCommand),
    /// Backups on paper.
    #[command(subcommand)]
    Paper(paper::PaperCommand),
    /// Charters.
    #[command(subcommand)]
    Charter(offline::CharterCommand),
    /// Show a recording of the terminal screens again; q ends it.
    Replay {
        /// The recording.
        file: PathBuf,
    },
    /// Print shell completions.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page.
    Man,
}

#[derive(Subcommand)]
enum EvidenceCommand {
    /// Write a ceremony's evidence bundle.
    Export {
        /// Which ceremony.
        id: CeremonyId,
        /// The file to write; an existing file is not overwritten.
        #[arg(short)]
        output: PathBuf,
    },
    /// Verify a bundle offline.
    Verify {
        /// The bundle.
        bundle: PathBuf,
        /// The kind of cluster that it must come from.
        #[arg(long, value_parser = one_of(&ClusterKind::ALL))]
        kind: Option<ClusterKind>,
        /// The words of the head, as written on paper.
        #[arg(long)]
        head: Option<String>,
        /// The attestation root that it must rest on, in PEM.
        #[arg(long)]
        root: Option<PathBuf>,
        /// The file of the cluster's first charter, or its hash.
        #[arg(long, value_name = "FILE|HASH")]
        charter: Option<String>,
    },
}

/// What a command works with: as much of the record as it is about.
struct Desk {
    cluster: Cluster,
    client: Client,
    library: Library,
    book: Book,
    /// Whether any of the record could be read.
    is_read: bool,
    /// What has been warned of.
    warned: BTreeSet<String>,
}

impl Desk {
    /// Reads this much of the record. What does not verify, is missing or was rolled back is reported on standard
    /// error; the rest goes on.
    async fn open(path: Option<PathBuf>, scope: Scope) -> Result<Self> {
        let cluster = cluster(path)?;
        let client = Client::connect(&cluster).await?;
        let read = client.library(&scope).await;
        let mut library = match read {
            Err(ClientError::NotConnected) => bail!(client.why_not_connected().await),
            read => read.context("reading the record from the nodes")?,
        };
        let mut warned = BTreeSet::new();
        for set_back in &library.set_back {
            warn_once(&mut warned, set_back.to_string());
        }
        for aside in &library.aside {
            note(&format!("note: the log of {} {aside}, and is set aside", aside.ceremony));
        }
        for (id, troubles) in library.missing.iter().filter(|(id, _)| !scope.names(id)) {
            note(&format!("note: {id} could not be read: {troubles}"));
        }
        let is_read = library.is_read();
        let book = std::mem::replace(&mut library.book, Book::new(cluster.context.clone()));
        Ok(Self { cluster, client, library, book, is_read, warned })
    }

    /// A wallet's generation in use.
    fn wallet(&self, name: &WalletName) -> Result<Wallet> {
        self.must_be_read()?;
        Ok(room::wallet(&self.book, name)?)
    }

    /// What could not be read is not known to be empty.
    fn must_be_read(&self) -> Result<()> {
        if !self.is_read {
            bail!("not known: no log of the record could be read");
        }
        Ok(())
    }

    /// Reads one ceremony with all that it rests on, and where nodes stand in it.
    async fn open_at(path: Option<PathBuf>, id: &CeremonyId) -> Result<(Self, Reading)> {
        let mut desk = Self::open(path, Scope::Ceremonies(vec![id.clone()])).await?;
        match desk.client.catch_up(&mut desk.book, id).await {
            Ok(reading) => {
                desk.warn_of_set_back(&reading);
                Ok((desk, reading))
            }
            Err(error) => Err(match desk.others_than(id).await {
                Some(others) => anyhow!("ceremony `{id}` is not known here: {others}"),
                None => anyhow::Error::new(error).context(format!("ceremony `{id}` is not known here")),
            }),
        }
    }

    /// Reads one wallet. If no wallet has this name, reads the others, so that they can be named.
    async fn open_wallet(path: Option<PathBuf>, name: &WalletName) -> Result<Self> {
        let desk = Self::open(path.clone(), Scope::Wallet(name.clone())).await?;
        if desk.book.wallet(name).is_some() {
            return Ok(desk);
        }
        Self::open(path, Scope::Current).await
    }

    /// Which ceremonies there are, if nodes list others and not this one.
    async fn others_than(&self, id: &CeremonyId) -> Option<String> {
        let wanted = Wanted { most: Some(list::NAMED), ..Wanted::default() };
        let catalogue = self.client.catalogue(&[wanted]).await.ok()?;
        catalogue.row(id).is_none().then(|| list::there_are(&catalogue))
    }

    async fn catch_up(&mut self, id: &CeremonyId) -> Result<Reading> {
        let read = self.client.catch_up(&mut self.book, id).await;
        let reading = read.with_context(|| format!("ceremony `{id}` is not known here"))?;
        self.warn_of_set_back(&reading);
        Ok(reading)
    }

    fn warn_of_set_back(&mut self, reading: &Reading) {
        if let Some(set_back) = self.client.set_back_of(reading) {
            warn_once(&mut self.warned, set_back.to_string());
        }
    }

    fn known(&self, id: &CeremonyId) -> &[Entry] {
        self.book.get(id).map(|chapter| chapter.entries.as_slice()).unwrap_or_default()
    }
}

fn warn_once(warned: &mut BTreeSet<String>, text: String) {
    if !warned.contains(&text) {
        note(&format!("WARNING: {text}"));
        warned.insert(text);
    }
}

/// Arguments that do not fit each other, or what they are about.
#[derive(Debug, Error)]
#[error("{0}")]
struct Misused(String);

fn misused(why: impl Into<String>) -> anyhow::Error {
    Misused(why.into()).into()
}

/// The program's exit code for an error: 3 if something was submitted and may or may not be recorded, 2 for arguments that
/// do not fit, 0 if only nobody read on.
#[must_use]
pub fn exit_code(error: &anyhow::Error) -> u8 {
    if error.is::<NobodyReads>() {
        return 0;
    }
    let unknown = |cause: &(dyn std::error::Error + 'static)| {
        cause.is::<Outcome>()
            || matches!(cause.downcast_ref(), Some(SubmitError::Unknown(_)))
            || matches!(cause.downcast_ref(), Some(RoomError::Submit(SubmitError::Unknown(_))))
    };
    if error.chain().any(unknown) {
        3
    } else if error.is::<Misused>() {
        2
    } else {
        1
    }
}

fn cluster(path: Option<PathBuf>) -> Result<Cluster> {
    let path = path.ok_or_else(|| misused("no cluster file: give --cluster FILE, or set CUSTODY_CLUSTER"))?;
    Ok(Cluster::load(&path)?)
}

/// Runs a subcommand, or the terminal where there is none.
///
/// # Errors
/// Whatever was refused or failed.
pub async fn run(arguments: Arguments) -> Result<()> {
    let Arguments { cluster: path, json, record, command } = arguments;
    let output = Output { json };
    if record.is_some() && command.is_some() {
        return Err(misused("only the terminal screens are recorded: leave the command out"));
    }
    match command {
        None => crate::tui::run(cluster(path)?, record.as_deref()).await,
        Some(Command::Replay { file }) => crate::tui::replay(&file).await,
        Some(Command::Status { checks: true, .. }) => status::checks(output),
        Some(Command::Status { watch, checks: false }) => status::run(cluster(path)?, output, watch).await,
        Some(Command::Wallet(command)) => wallet::run(path, output, command).await,
        Some(Command::Sweep(arguments)) => sweep::run(path, output, arguments).await,
        Some(Command::Broadcast(arguments)) => broadcast::run(path, output, arguments).await,
        Some(Command::Backup(command)) => backup::run(path, output, command).await,
        Some(Command::Ceremony(command)) => ceremony::run(path, output, command).await,
        Some(Command::Script(command)) => offline::script(output, command),
        Some(Command::Charter(offline::CharterCommand::InForce(command))) => {
            in_force::run(&Desk::open(path, Scope::Amendments).await?, output, command)
        }
        Some(Command::Charter(offline::CharterCommand::MakeStream(arguments))) => {
            stream::run(output, arguments).await
        }
        Some(Command::Charter(command)) => offline::charter(output, command),
        Some(Command::Evidence(EvidenceCommand::Export { id, output: file })) => {
            let (desk, reading) = Desk::open_at(path, &id).await?;
            offline::export(&desk, &reading, output, &file)
        }
        Some(Command::Evidence(EvidenceCommand::Verify { bundle, kind, head, root, charter })) => {
            offline::verify(output, &bundle, kind, head, root, charter)
        }
        Some(Command::Audit(command)) => audit::run(cluster(path)?, command).await,
        Some(Command::Drill(command)) => drill::run(path, output, command).await,
        Some(Command::Paper(command)) => paper::run(output, command),
        Some(Command::Completions { shell }) => {
            let mut program = Arguments::command();
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut program, "custody", &mut script);
            written(&script)
        }
        Some(Command::Man) => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Arguments::command()).render(&mut page)?;
            written(&page)
        }
    }
}
