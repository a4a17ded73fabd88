//! Backups from the command line: what there is, and releasing one to prove it or to restore from it.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use ceremonies::charter::Role;
use ceremonies::ids::{CeremonyId, NodeIndex, PersonName, WalletName};
use ceremonies::script::Act;
use ceremonies::statement::Answer;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Desk, Output};
use crate::client::Scope;
use crate::config::Me;
use crate::custodian;
use crate::room::{self, Signature};

#[derive(Subcommand)]
pub(super) enum BackupCommand {
    /// Every backup in the log: where it lies, until when it is locked, and whether it was proven.
    List {
        /// Of this wallet only.
        #[arg(long)]
        wallet: Option<WalletName>,
    },
    /// Release a backup to its node's enclave, which proves that it holds the share and forgets it.
    Prove(ReleaseArguments),
    /// Release a backup to the enclave of a node that lost its share.
    Restore(ReleaseArguments),
}

#[derive(Args)]
pub(super) struct ReleaseArguments {
    /// Which ceremony.
    id: CeremonyId,
    /// Whose backup.
    #[arg(long)]
    node: NodeIndex,
    /// The age file as it was fetched; without it, the one of that name in the cluster file's folder of backups.
    #[arg(long, value_name = "FILE")]
    object: Option<PathBuf>,
    /// The keeper's age identities; without it, those that the cluster file names.
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
    /// The keeper's name; needed where the cluster file knows several who could.
    #[arg(long)]
    person: Option<PersonName>,
    /// The keeper's SSH key.
    #[arg(long)]
    key: Option<PathBuf>,
}

pub(super) async fn run(path: Option<PathBuf>, output: Output, command: BackupCommand) -> Result<()> {
    let (act, arguments) = match command {
        BackupCommand::List { wallet } => {
            let scope = wallet.clone().map_or(Scope::Current, Scope::Wallet);
            return list(&Desk::open(path, scope).await?, output, wallet.as_ref());
        }
        BackupCommand::Prove(arguments) => (Act::Prove, arguments),
        BackupCommand::Restore(arguments) => (Act::Recover, arguments),
    };
    let (desk, _) = Desk::open_at(path, &arguments.id).await?;
    release(&desk, output, act, arguments).await
}

fn list(desk: &Desk, output: Output, wallet: Option<&WalletName>) -> Result<()> {
    let (mut lines, mut values) = (Vec::new(), Vec::new());
    for (id, chapter) in desk.book.iter() {
        let ceremony = &chapter.ceremony;
        let manifest = ceremony.manifest();
        if wallet.is_some_and(|wallet| manifest.wallet != *wallet) {
            continue;
        }
        for (node, backup) in ceremony.backups() {
            let proven = ceremony.proved_nodes().contains(node);
            let whole = &backup.whole;
            lines.push(format!(
                "{} g{} node {node}  locked until {}  {}  {} version {}",
                manifest.wallet,
                manifest.generation,
                whole.locked_until,
                if proven { "proven    " } else { "NOT PROVEN" },
                whole.key,
                whole.version
            ));
            values.push(json!({
                "ceremony": id,
                "wallet": manifest.wallet,
                "generation": manifest.generation,
                "node": node,
                "key": whole.key,
                "version": whole.version,
                "sha256": whole.digest,
                "root_key": backup.root.key,
                "root_version": backup.root.version,
                "root_sha256": backup.root.digest,
                "locked_until": whole.locked_until.to_string(),
                "proven": proven,
            }));
        }
    }
    let text = if lines.is_empty() { "no backup was written yet".to_owned() } else { lines.join("\n") };
    output.print(&Value::Array(values), &text)
}

fn keeper<'a>(desk: &'a Desk, person: Option<&PersonName>, node: NodeIndex) -> Result<&'a Me> {
    let opens = |me: &&Me| {
        me.role == Role::Custodian
            && person.is_none_or(|person| me.person == *person)
            && desk.book.context().charter().backup().is_some_and(|rules| rules.opens(&me.person, node))
    };
    let mut keepers = desk.cluster.me.iter().filter(opens);
    keepers.next().with_context(|| {
        format!("the cluster file knows nobody who keeps node {node}'s backups: give --person, --key and --identity")
    })
}

async fn release(desk: &Desk, output: Output, act: Act, arguments: ReleaseArguments) -> Result<()> {
    let ReleaseArguments { id, node, object, identity, person, key } = arguments;
    let chapter = desk.book.get(&id).with_context(|| format!("no ceremony `{id}` is known"))?;
    let ceremony = &chapter.ceremony;
    let me = match (&person, &key, &identity) {
        (Some(person), Some(key), Some(identity)) => Me {
            person: person.clone(),
            role: Role::Custodian,
            key: key.clone(),
            identity: Some(identity.clone()),
        },
        _ => keeper(desk, person.as_ref(), node)?.clone(),
    };
    let Some(identity) = identity.or_else(|| me.identity.clone()) else {
        bail!("with which age identity does {} open the backup? give --identity", me.person)
    };
    let object = match object {
        Some(object) => object,
        None => room::backup_file(&desk.cluster, ceremony, act, node)
            .with_context(|| format!("where is the backup of node {node}? give --object"))?,
    };
    let released = custodian::release(ceremony, act, node, &object, &identity)?;
    let step = ceremony.script().step_for(act).context("no such step")?;
    let signature = Signature::by(&me, step.id.clone(), Answer::Release(released.release));
    let key = key.as_ref().unwrap_or(&me.key);
    let signed = (&signature, released.object);
    let receipt = room::release(&desk.client, &desk.book, &id, signed, key, None).await?;
    let text = format!("{} released the backup of node {node} to its enclave: {receipt}", me.person);
    output.print(&super::ceremony::receipt_rendered(&receipt), &text)
}
