//! Backups: preflight before anything changes, putting the enclave's files into the vault, and taking what keepers
//! hand in for the enclave.

use ::enclave::wire::link;
use ceremonies::ceremony::{Ceremony, Duty};
use ceremonies::ids::{CeremonyId, Hash, NodeIndex, UnixMillis};
use ceremonies::script::Act;
use ceremonies::text::chain;
use ceremonies::wire::{VERSION, bus, log};
use prost::Message;
use tracing::{info, warn};

use super::duties::order_label;
use super::{Agent, now};
use crate::vault::ObjectKey;

/// How much longer than the charter asks a backup is locked, in milliseconds: the log's clocks may differ.
const LOCK_MARGIN_MS: i64 = 60 * 60 * 1000;

/// How long a vault that took nothing is left alone.
const VAULT_PAUSE_MS: i64 = 15_000;

/// Whether the ceremony will write backups.
fn writes_backups(ceremony: &Ceremony) -> bool {
    ceremony.manifest().kind.makes_shares() && ceremony.charter().backup().is_some()
}

impl Agent {
    /// Whether the vault can be written to, where a ceremony will write backups: asked before this node attests, so
    /// that a broken vault stops a ceremony before anything has changed.
    pub(super) async fn vault_is_ready(&mut self, id: &CeremonyId) -> bool {
        let Some(chapter) = self.book.get(id) else { return false };
        if !writes_backups(&chapter.ceremony) || self.preflighted.contains(id) {
            return true;
        }
        let checked = match &self.vault {
            Some(vault) => vault.preflight().await.map_err(|error| chain(&error)),
            None => {
                Err("this node has no [vault] in its configuration, and the charter asks for backups"
                    .to_owned())
            }
        };
        match checked {
            Ok(()) => {
                self.observed.vault_trouble.clear();
                self.preflighted.insert(id.clone());
                true
            }
            Err(trouble) => {
                if self.observed.vault_trouble != trouble {
                    warn!(ceremony = %id, %trouble, "not attested: backups could not be written");
                    self.observed.vault_trouble = trouble;
                }
                false
            }
        }
    }

    /// Puts what the enclave encrypted where it cannot be changed, and says so in the log.
    pub(super) async fn put_backups(&mut self, backups: link::Backups) {
        let Ok(ceremony) = backups.ceremony.parse::<CeremonyId>() else {
            warn!("the enclave named a malformed ceremony");
            return;
        };
        match self.backed_up(&ceremony, backups).await {
            Ok(backed_up) => {
                info!(%ceremony, "backups written");
                self.observed.vault_trouble.clear();
                self.append_own(&ceremony, log::event::Kind::BackedUp(backed_up)).await;
            }
            Err(trouble) => {
                warn!(%ceremony, %trouble, "backup not written");
                self.observed.vault_trouble = trouble;
                self.vault_rests_until = now().plus(VAULT_PAUSE_MS);
                self.ask_again(&ceremony, &Duty::Backup { node: self.node() });
            }
        }
    }

    async fn backed_up(&self, id: &CeremonyId, backups: link::Backups) -> Result<log::BackedUp, String> {
        let ceremony = &self.book.get(id).ok_or("the ceremony is not known")?.ceremony;
        let rules = ceremony.charter().backup().ok_or("the charter asks for no backups")?;
        let until = now().plus(rules.lock_ms() + LOCK_MARGIN_MS);
        let folder = format!(
            "{}/{}/generation-{}",
            ceremony.charter().cluster(),
            ceremony.manifest().wallet,
            ceremony.manifest().generation
        );
        let node = self.node();
        Ok(log::BackedUp {
            node: node.into(),
            whole: Some(self.put(&format!("{folder}/node-{node}"), &backups.whole, until).await?),
            root: Some(self.put(&format!("{folder}/node-{node}-root"), &backups.root, until).await?),
            signature: backups.signature,
        })
    }

    /// The digest is part of the name: what is written again after a crash is another object beside the first.
    async fn put(&self, name: &str, bytes: &[u8], until: UnixMillis) -> Result<log::Object, String> {
        let digest = Hash::of_bytes(bytes);
        let key: ObjectKey = format!("{name}-{digest:.16}.age").parse().map_err(|error| chain(&error))?;
        let vault = self.vault.as_ref().ok_or("this node has no [vault] in its configuration")?;
        let put = vault.put(&key, bytes, until).await.map_err(|error| chain(&error))?;
        Ok(log::Object {
            key: key.to_string(),
            version: put.version,
            digest: digest.as_bytes().to_vec(),
            locked_until_ms: put.locked_until.0,
        })
    }

    /// A keeper hands in a backup that they are about to release.
    pub(super) async fn take_released(&mut self, payload: &[u8]) -> bus::BackupReply {
        let refusal = match self.keep_released(payload).await {
            Ok(()) => String::new(),
            Err(refusal) => refusal,
        };
        bus::BackupReply { refusal }
    }

    async fn keep_released(&mut self, payload: &[u8]) -> Result<(), String> {
        let backup = bus::Backup::decode(payload).map_err(|_| "the backup cannot be decoded")?;
        if backup.version != VERSION {
            return Err(format!("version {} is not known to this node", backup.version));
        }
        let id: CeremonyId = backup.ceremony.parse().map_err(|_| "the ceremony's id is malformed")?;
        let chapter = self.book.get(&id).ok_or_else(|| format!("no ceremony {id} is known here"))?;
        let digest = Hash::of_bytes(&backup.object);
        if !is_wanted(&chapter.ceremony, self.node(), &digest) {
            return Err(format!(
                "{digest} is no backup of node {} that {id} asks for: it is damaged, or of another generation",
                self.node()
            ));
        }
        self.store.keep_released(&id, &backup.object).await.map_err(|error| chain(&error))?;
        for act in [Act::Prove, Act::Recover] {
            self.ask_again(&id, &released_duty(act, self.node()));
        }
        Ok(())
    }

    /// The backup that was released to the enclave; an error until it is handed in.
    pub(super) async fn released(&self, ceremony: &Ceremony, duty: &Duty) -> Result<Vec<u8>, String> {
        let act = match duty {
            Duty::Prove { .. } => Act::Prove,
            Duty::Restore { .. } => Act::Recover,
            _ => return Ok(Vec::new()),
        };
        let release = ceremony.release(act, self.node()).ok_or("nothing was released to this node")?;
        match self.store.released(&release.object).await {
            Ok(Some(object)) => Ok(object),
            Ok(None) => Err(format!("the backup {} was released but not handed in", release.object)),
            Err(error) => Err(chain(&error)),
        }
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
