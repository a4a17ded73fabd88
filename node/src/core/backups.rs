//! Backups: the preflight before anything changes, putting the enclave's files into the vault, and accepting what
//! keepers hand in for the enclave.

use ceremonies::ceremony::{Ceremony, Duty};
use ceremonies::ids::{CeremonyId, Hash, NodeIndex, UnixMillis};
use ceremonies::script::Act;
use ceremonies::wire::{VERSION, bus, log};
use enclave_link::message;
use prost::Message;
use tracing::{info, warn};

use super::duties::order_label;
use super::{Core, Effect, Failure, Object, Request, StoreOp, Waiting};

/// How much longer than the charter requires a backup is locked, in milliseconds: the log's clocks may differ.
const LOCK_MARGIN_MS: i64 = 60 * 60 * 1000;
/// How long to leave alone a vault that accepted nothing, in milliseconds.
const VAULT_PAUSE_MS: u64 = 15_000;
/// Whether the ceremony will write backups.
fn writes_backups(ceremony: &Ceremony) -> bool {
    ceremony.manifest().kind.makes_shares() && ceremony.charter().backup().is_some()
}

impl Core {
    /// Whether the vault can be written to, if a ceremony will write backups: checked before this node attests, so that
    /// a broken vault stops a ceremony before anything has changed.
    pub(super) fn vault_is_ready(&mut self, id: &CeremonyId) -> bool {
        let Some(chapter) = self.book.get(id) else { return false };
        !writes_backups(&chapter.ceremony) || self.vault_took_a_file()
    }

    /// Puts what the enclave encrypted where it cannot be changed.
    pub(super) fn put_backups(&mut self, backups: message::Backups) {
        let Ok(id) = backups.ceremony.parse::<CeremonyId>() else {
            warn!("the enclave named a malformed ceremony");
            return;
        };
        match self.objects(&id, &backups) {
            Ok((objects, until)) => {
                let waiting = Waiting::Put(id, Box::new(backups), objects.clone());
                let ticket = self.ticket(waiting);
                self.effect(Effect::Put(ticket, objects, until));
            }
            Err(trouble) => self.not_backed_up(&id, &trouble),
        }
    }

    /// The digest is part of the name: what is written again after a crash is another object next to the first.
    fn objects(
        &self,
        id: &CeremonyId,
        backups: &message::Backups,
    ) -> Result<(Vec<Object>, UnixMillis), Failure> {
        let ceremony = &self.book.get(id).ok_or("the ceremony is not known")?.ceremony;
        let rules = ceremony.charter().backup().ok_or("the charter does not ask for backups")?;
        if self.pace.vault_check_ms.is_none() {
            return Err("this node has no [vault] in its configuration".into());
        }
        let manifest = ceremony.manifest();
        let folder = format!(
            "{}/{}/generation-{}",
            ceremony.charter().cluster(),
            manifest.wallet,
            manifest.generation
        );
        let node = self.node();
        let names = [format!("{folder}/node-{node}"), format!("{folder}/node-{node}-root")];
        let objects = names.iter().zip([&backups.whole, &backups.root]).map(|(name, bytes)| {
            let digest = Hash::of_bytes(bytes);
            let key = format!("{name}-{digest:.16}.age").parse().map_err(|error| Failure::of(&error))?;
            Ok(Object { key, bytes: bytes.clone() })
        });
        let until = self.now.wall.plus(rules.lock_ms() + LOCK_MARGIN_MS);
        Ok((objects.collect::<Result<_, Failure>>()?, until))
    }

    fn not_backed_up(&mut self, id: &CeremonyId, trouble: &str) {
        warn!(ceremony = %id, %trouble, "backup not written");
        self.observed.vault.rose(trouble, self.now);
        self.vault_rests_until = self.now.steady + VAULT_PAUSE_MS;
        self.ask_again(id, &Duty::Backup { node: self.node() });
    }

    /// What the vault answered.
    pub(super) fn put(&mut self, ticket: super::Ticket, result: Result<Vec<(String, UnixMillis)>, Failure>) {
        let Some(Waiting::Put(id, backups, objects)) = self.waiting.remove(&ticket) else { return };
        let puts = match result {
            Ok(puts) if puts.len() == objects.len() => puts,
            Ok(_) => return self.not_backed_up(&id, "the vault did not confirm every file"),
            Err(trouble) => return self.not_backed_up(&id, &trouble),
        };
        let mut stored = objects.iter().zip(puts).map(|(object, (version, locked_until))| log::Object {
            key: object.key.to_string(),
            version,
            digest: Hash::of_bytes(&object.bytes).as_bytes().to_vec(),
            locked_until_ms: locked_until.0,
        });
        let backed_up = log::BackedUp {
            node: self.node().into(),
            whole: stored.next(),
            root: stored.next(),
            signature: backups.signature,
        };
        info!(ceremony = %id, "backups written");
        self.observed.vault.cleared();
        self.append_once(&id, log::event::Kind::BackedUp(backed_up));
    }

    /// A keeper hands in a backup that they are about to release.
    pub(super) fn take_released(&mut self, request: Request) {
        match self.check_released(&request.payload) {
            Ok((id, object)) => {
                let waiting = Waiting::ReleasedKept(id.clone(), Box::new(request));
                self.store(StoreOp::KeepReleased(id, object), waiting);
            }
            Err(refusal) => self.answer(&request, &bus::BackupReply { refusal: refusal.to_string() }),
        }
    }

    fn check_released(&self, payload: &[u8]) -> Result<(CeremonyId, Vec<u8>), Failure> {
        let backup = bus::Backup::decode(payload).map_err(|_| "the backup cannot be decoded")?;
        if backup.version != VERSION {
            return Err(format!("this node does not know version {}", backup.version).into());
        }
        let id: CeremonyId = backup.ceremony.parse().map_err(|_| "the ceremony's id is malformed")?;
        let chapter = self.book.get(&id).ok_or_else(|| format!("ceremony {id} is not known here"))?;
        let digest = Hash::of_bytes(&backup.object);
        if !is_wanted(&chapter.ceremony, self.node(), &digest) {
            return Err(format!(
                "{digest} is not the backup of node {} that {id} asks for: it is damaged, or of another generation",
                self.node()
            )
            .into());
        }
        Ok((id, backup.object))
    }

    pub(super) fn released_kept(&mut self, id: &CeremonyId, request: &Request, result: Result<(), Failure>) {
        if result.is_ok() {
            for act in [Act::Prove, Act::Recover] {
                self.ask_again(id, &released_duty(act, self.node()));
            }
        }
        let refusal = result.err().map(|failure| failure.to_string()).unwrap_or_default();
        self.answer(request, &bus::BackupReply { refusal });
    }

    /// Lets an order be given again on this connection.
    pub(super) fn ask_again(&mut self, id: &CeremonyId, duty: &Duty) {
        let label = self.book.get(id).and_then(|chapter| order_label(&chapter.ceremony, duty));
        label.map(|label| self.ordered.remove(&label));
    }
}

fn released_duty(act: Act, node: NodeIndex) -> Duty {
    if act == Act::Prove { Duty::Prove { node } } else { Duty::Restore { node } }
}

/// Whether a step of the ceremony asks for the release of this backup of this node.
fn is_wanted(ceremony: &Ceremony, node: NodeIndex, digest: &Hash) -> bool {
    let wanted = [Act::Prove, Act::Recover].into_iter().filter_map(|act| ceremony.wanted_backup(act, node));
    wanted.flat_map(|backup| [&backup.whole, &backup.root]).any(|object| object.digest == *digest)
}
