//! Backups from the command line: what there is, and releasing one to prove it or to restore from it.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use ceremonies::charter::{BackupRules, Role};
use ceremonies::ids::{CeremonyId, NodeIndex, PersonName, WalletName};
use ceremonies::script::Act;
use ceremonies::statement::Answer;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::ceremony::{ceremony, submit, write_release};
use super::hand::{self, Hand};
use super::output::note;
use super::{Desk, Output};
use crate::client::Scope;
use crate::config::Me;
use crate::custodian::{self, ReleaseError};
use crate::room::{self, Signature};
use crate::waiting::Waiting;

#[derive(Subcommand)]
pub(super) enum BackupCommand {
    /// List every backup in the log: where it is stored, until when it is locked, and whether its custodian has proven it.
    List {
        /// Only backups of this wallet.
        #[arg(long)]
        wallet: Option<WalletName>,
    },
    /// Release a backup to its node's enclave, which proves that it holds the share and forgets it.
    Prove(ReleaseArguments),
    /// Release a backup to the enclave of a node that lost its share.
    Restore(ReleaseArguments),
}

/// What a program does when nobody is there to type the word: every release is sealed anew, so the hash of its
/// statement cannot be known beforehand.
const UNATTENDED: &str = "a program passes --release FILE, reads the statement that this prints, and then signs it \
    with custody ceremony sign ID --step STEP --role custodian --release FILE --statement-hash SHA256";

#[derive(Args)]
pub(super) struct ReleaseArguments {
    /// Which ceremony.
    id: CeremonyId,
    /// Whose backup.
    #[arg(long)]
    node: NodeIndex,
    /// The age file as fetched [default: the file of that name in the cluster file's backup folder].
    #[arg(long, value_name = "FILE")]
    object: Option<PathBuf>,
    /// The keeper's age identities [default: those in the cluster file].
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
    /// The keeper's name; needed if the cluster file lists several keepers of this backup.
    #[arg(long)]
    person: Option<PersonName>,
    /// Do not sign here: write the release to this file and print the statement to be signed. An existing file is not
    /// overwritten.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["key", "statement_hash"])]
    release: Option<PathBuf>,
    #[command(flatten)]
    hand: Hand,
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
                if proven { "opened by its custodian" } else { "NOT PROVEN            " },
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
    if let Some(name) = wallet.filter(|_| lines.is_empty()) {
        room::wallet(&desk.book, name)?;
    }
    let text = match wallet {
        _ if !lines.is_empty() => lines.join("\n"),
        Some(name) => format!("the log has no backup of {name}"),
        None => "the log has no backup".to_owned(),
    };
    output.print(&Value::Array(values), &text)
}

/// Who of these people keeps a node's backups.
fn keeper<'a>(
    people: &'a [Me],
    rules: Option<&BackupRules>,
    person: Option<&PersonName>,
    node: NodeIndex,
) -> Result<&'a Me> {
    let opens = |me: &&Me| {
        me.role == Role::Custodian
            && person.is_none_or(|person| me.person == *person)
            && rules.is_some_and(|rules| rules.opens(&me.person, node))
    };
    people.iter().find(opens).with_context(|| match person {
        Some(person) => format!("{person} is not in the cluster file as a keeper of node {node}'s backups"),
        None => format!(
            "the cluster file lists nobody who keeps node {node}'s backups: give --person, --key and --identity"
        ),
    })
}

async fn release(desk: &Desk, output: Output, act: Act, arguments: ReleaseArguments) -> Result<()> {
    let ReleaseArguments { id, node, object, identity, person, release, hand } = arguments;
    let charter = desk.book.context().charter();
    room::must_be_among(node, &charter.roster(), "the charter")?;
    if let Some(person) = &person {
        ensure!(charter.person(person).is_some(), "{person} is not in the charter");
    }
    if release.is_none() {
        hand.must_be_able_to_ask(UNATTENDED)?;
    }
    let ceremony = ceremony(desk, &id)?;
    let kind = ceremony.manifest().kind;
    let step = ceremony.script().step_for(act).with_context(|| {
        format!("{id} is a ceremony of kind {kind}, in which no backup is released by this command")
    })?;
    ceremony.check_not_over(room::now())?;
    ceremony.open_step(&step.id)?;
    if ceremony.wanted_backup(act, node).is_none() {
        return Err(ReleaseError::NotAsked(node).into());
    }
    // With both given, the cluster file need not know the keeper.
    let (person, identity) = match (person, identity) {
        (Some(person), Some(identity)) => (person, identity),
        (person, identity) => {
            let me = keeper(&desk.cluster.me, charter.backup(), person.as_ref(), node)?;
            let identity = identity.or_else(|| me.identity.clone());
            let unknown = || format!("no age identity is known for {}: give --identity", me.person);
            (me.person.clone(), identity.with_context(unknown)?)
        }
    };
    let object = match object {
        Some(object) => object,
        None => room::backup_file(&desk.cluster, ceremony, act, node)
            .with_context(|| format!("the backup of node {node} was not found: give --object"))?,
    };
    let waiting = Waiting::telling(&note);
    let released = custodian::release(ceremony, act, node, &object, &identity, waiting)?;
    let step = step.id.clone();
    let answer = Answer::Release(released.release.clone());
    let signature = Signature { step, role: Role::Custodian, person, answer };
    let statement = signature.statement(ceremony, room::now())?;
    if let Some(file) = release {
        write_release(&file, &released.release)?;
        output.print_exactly(&hand::rendered(&statement), &statement)?;
        hand::submit_with(&format!(
            "custody ceremony submit {id} --step {} --role custodian --person {} --release {} --object {} --signature \
             FILE.sig",
            signature.step,
            signature.person,
            file.display(),
            object.display()
        ));
        return Ok(());
    }
    let armoured = hand.sign(desk, Role::Custodian, &signature.person, &statement)?;
    desk.client.hand_in(node, &id, released.object).await?;
    submit(desk, output, &id, &signature, armoured).await
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::super::recorded::book;
    use super::*;

    #[test]
    fn whoever_keeps_no_backup_of_a_node_is_told_so_and_what_to_give() {
        let book = book(6);
        let rules = book.context().charter().backup().unwrap();
        let (node, of_all) = (NodeIndex::new(2).unwrap(), rules.escrow.person.clone());
        let custodian = |person: &PersonName| Me {
            person: person.clone(),
            role: Role::Custodian,
            key: PathBuf::from("key"),
            identity: None,
        };
        let others = rules.custodians.iter().filter(|custodian| !custodian.nodes.contains(&node));
        let other = others.map(|custodian| custodian.person.clone()).find(|name| *name != of_all).unwrap();
        let people = [custodian(&other), Me { role: Role::Operator, ..custodian(&of_all) }];
        let refused = |rules, person| keeper(&people, rules, person, node).unwrap_err().to_string();
        let named = format!("{other} is not in the cluster file as a keeper of node 2's backups");
        assert_eq!(refused(Some(rules), Some(&other)), named);
        assert!(refused(Some(rules), Some(&of_all)).contains("as a keeper"), "an operator opens none");
        let unnamed =
            "the cluster file lists nobody who keeps node 2's backups: give --person, --key and --identity";
        assert_eq!(refused(Some(rules), None), unnamed);
        assert_eq!(refused(None, None), unnamed, "a charter without rules for backups");
        let keepers = [custodian(&other), custodian(&of_all)];
        assert_eq!(keeper(&keepers, Some(rules), None, node).unwrap().person, of_all);
    }
}
