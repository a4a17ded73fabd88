//! Driving a ceremony with the lab's generated people: what a roomful of people does at their consoles, without key
//! presses.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use ceremonies::book::Book;
use ceremonies::ceremony::{Ceremony, Phase};
use ceremonies::charter::{CeremonyKind, Role};
use ceremonies::ids::{CeremonyId, Line, NodeIndex, WalletName};
use ceremonies::script::{Act, Step};
use ceremonies::statement::Answer;
use console::broadcast::{Endpoint, Patience, broadcast};
use console::client::{Client, ClientError, Reading, Receipt, Recorded, Scope};
use console::config::{Cluster, Me};
use console::custodian;
use console::room::{self, LIFETIME_MS, Opening, RoomError, Signature, Topic};
use console::waiting::Waiting;

/// How often the log is looked at while machines work.
const LOOK: Duration = Duration::from_millis(100);
/// How long a transaction may take to get into a block.
const SENDING: Duration = Duration::from_mins(2);

/// The lab's people at one console.
pub struct Room {
    /// The cluster as the console has it.
    pub cluster: Cluster,
    /// The bus.
    pub client: Client,
    /// All that has been folded.
    pub book: Book,
    /// Where signed transactions are sent; if none, they are not sent.
    pub endpoint: Option<Endpoint>,
}

impl Room {
    /// Opens a console on a cluster and waits until its nodes answer.
    ///
    /// # Errors
    /// When no node answers in time.
    pub async fn enter(cluster_file: &std::path::Path, patience: Duration) -> Result<Self> {
        let cluster = Cluster::load(cluster_file)?;
        let client = Client::connect(&cluster).await?;
        let begun = Instant::now();
        let book = loop {
            match client.library(&Scope::Current).await {
                Ok(library) => break library.book,
                Err(error) if begun.elapsed() > patience => return Err(error).context("no node answers"),
                Err(_) => tokio::time::sleep(LOOK).await,
            }
        };
        Ok(Self { cluster, client, book, endpoint: None })
    }

    /// The lab's people in a role.
    pub fn people(&self, role: Role) -> impl Iterator<Item = &Me> {
        self.cluster.me.iter().filter(move |me| me.role == role)
    }

    /// Opens a ceremony as the lab's administrator.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn open(&self, kind: CeremonyKind, wallet: &WalletName, purpose: Line) -> Result<CeremonyId> {
        self.open_about(Topic::new(kind, Some(wallet.clone()), None, BTreeMap::new())?, purpose).await
    }

    /// Opens a ceremony as the administrator.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn open_about(&self, topic: Topic, purpose: Line) -> Result<CeremonyId> {
        let me = self.people(Role::Administrator).next().context("no administrator")?;
        let opening = Opening { topic, purpose, administrator: me.person.clone(), lifetime_ms: LIFETIME_MS };
        Ok(room::open(&self.client, &self.book, &opening, &me.key, None).await?)
    }

    /// The ceremony as this console has it.
    ///
    /// # Errors
    /// When it has none of this id.
    pub fn ceremony(&self, id: &CeremonyId) -> Result<&Ceremony> {
        Ok(&self.book.get(id).with_context(|| format!("no ceremony {id}"))?.ceremony)
    }

    /// Reads on, and returns where nodes stand; none if no node gave the log this time.
    ///
    /// # Errors
    /// When what nodes gave does not verify.
    pub async fn look(&mut self, id: &CeremonyId) -> Result<Option<Reading>> {
        match self.client.catch_up(&mut self.book, id).await {
            Ok(reading) => Ok(Some(reading)),
            // Nodes may answer next time, or have the ceremony then.
            Err(ClientError::Nodes(_) | ClientError::NotConnected) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until a quorum of nodes has recorded the ceremony's last entry.
    ///
    /// # Errors
    /// When they have not in time, with where they stand.
    pub async fn wait_recorded(&mut self, id: &CeremonyId, patience: Duration) -> Result<Recorded> {
        let begun = Instant::now();
        loop {
            let recorded = self.look(id).await?.map(|reading| reading.recorded());
            match recorded {
                Some(recorded) if recorded.recorded => return Ok(recorded),
                Some(recorded) if begun.elapsed() > patience => bail!("the last entry of {id} is {recorded}"),
                None if begun.elapsed() > patience => bail!("no node gave the log of {id}"),
                Some(_) | None => tokio::time::sleep(LOOK).await,
            }
        }
    }

    /// Waits until the ceremony is as asked.
    ///
    /// # Errors
    /// When it is not in time, with where it stands.
    pub async fn wait(
        &mut self,
        id: &CeremonyId,
        patience: Duration,
        until: impl Fn(&Ceremony) -> bool,
    ) -> Result<()> {
        let begun = Instant::now();
        loop {
            self.look(id).await?;
            if self.book.get(id).is_some_and(|chapter| until(&chapter.ceremony)) {
                return Ok(());
            }
            if begun.elapsed() > patience {
                let standing = self.book.get(id).map(|chapter| {
                    let step = chapter.ceremony.current_step();
                    let state = step.map(|step| chapter.ceremony.step_state(step));
                    format!(
                        "{}, at {:?}, {state:?}",
                        chapter.ceremony.phase_at(room::now()),
                        step.map(|s| &s.id)
                    )
                });
                bail!("{id} is not as expected after {patience:?}: {standing:?}");
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Withdraws the ceremony as its administrator.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn withdraw(&mut self, id: &CeremonyId, reason: Line) -> Result<()> {
        let me = self.people(Role::Administrator).next().context("no administrator")?.clone();
        let end = Signature::by(&me, "withdraw".parse()?, Answer::Withdraw(reason));
        room::sign(&self.client, &self.book, id, &end, &me.key, None).await?;
        self.look(id).await?;
        Ok(())
    }

    /// Signs a step as one person.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn sign(
        &self,
        id: &CeremonyId,
        step: &Step,
        me: &Me,
        answer: Answer,
    ) -> Result<Receipt, RoomError> {
        let signature = Signature::by(me, step.id.clone(), answer);
        room::sign(&self.client, &self.book, id, &signature, &me.key, None).await
    }

    /// Who of the lab's people the step still needs.
    #[must_use]
    pub fn unsigned(&self, ceremony: &Ceremony, step: &Step) -> Vec<Me> {
        let signed = |me: &&Me| ceremony.signed(&step.id).any(|signed| signed.person == me.person);
        let missing = |(role, count): (Role, u32)| {
            let done = ceremony.signed(&step.id).filter(|signed| signed.role == role).count();
            let open = usize::try_from(count).unwrap_or(usize::MAX).saturating_sub(done);
            self.people(role).filter(move |me| !signed(me)).take(open).cloned()
        };
        ceremony.signers(step).into_iter().flat_map(missing).collect()
    }

    /// Has everyone sign whom the step still needs.
    ///
    /// # Errors
    /// When a signature is refused.
    pub async fn sign_all(&mut self, id: &CeremonyId, step: &Step) -> Result<()> {
        let ceremony = self.ceremony(id)?;
        let answer = match step.act {
            Act::ReadBack => Answer::Words(ceremony.spoken_words().context("no words to read back")?),
            Act::Agree => Answer::Agree,
            Act::Broadcast => self.sent(ceremony).await?,
            Act::Open
            | Act::Attest
            | Act::Confirm
            | Act::Approve
            | Act::Recover
            | Act::Generate
            | Act::TestSign
            | Act::Sign
            | Act::Backup
            | Act::Prove
            | Act::Commit
            | Act::Retire
            | Act::Close => Answer::None,
        };
        let signers = self.unsigned(ceremony, step);
        for me in signers {
            self.sign(id, step, &me, answer.clone()).await?;
            self.look(id).await?;
        }
        Ok(())
    }

    /// Sends the signed transaction and waits until it is in a block, or says why it is not sent.
    async fn sent(&self, ceremony: &Ceremony) -> Result<Answer> {
        let Some(endpoint) = &self.endpoint else {
            return Ok(Answer::Withheld("The lab was given no endpoint".parse()?));
        };
        let transaction = ceremony.manifest().transaction().map(AsRef::as_ref).context("no transaction")?;
        let signed = ceremony.signed_transaction().context("it is not signed")?;
        let patience = Patience { confirmations: 1, wait: SENDING, look: LOOK };
        Ok(Answer::Broadcast(broadcast(endpoint, transaction, &signed, &patience, |_| ()).await?))
    }

    /// Has every custodian release the backups that a step of this act asks for.
    ///
    /// # Errors
    /// When a release is refused.
    pub async fn release_all(&mut self, id: &CeremonyId, act: Act) -> Result<()> {
        for me in self.people(Role::Custodian).cloned().collect::<Vec<_>>() {
            for node in self.ceremony(id)?.releases_wanted(act, &me.person) {
                self.release(id, act, node, &me).await?;
                self.look(id).await?;
            }
        }
        Ok(())
    }

    /// Releases one node's backup, as the vault has it, for a step of this act.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn release(&self, id: &CeremonyId, act: Act, node: NodeIndex, me: &Me) -> Result<Receipt> {
        let ceremony = self.ceremony(id)?;
        let object = room::backup_file(&self.cluster, ceremony, act, node).context("no backup is due")?;
        let identity = me.identity.as_ref().context("a custodian without an identity")?;
        let released = custodian::release(ceremony, act, node, &object, identity, Waiting::quiet())?;
        let step = ceremony.script().step_for(act).context("no such step")?;
        let signature = Signature::by(me, step.id.clone(), Answer::Release(released.release));
        let signed = (&signature, released.object);
        Ok(room::release(&self.client, &self.book, id, signed, &me.key, None).await?)
    }

    /// Leads a ceremony on until this step is open, reporting what happens.
    ///
    /// # Errors
    /// When the ceremony ends before that.
    pub async fn lead_to(&mut self, id: &CeremonyId, act: Act, patience: Duration) -> Result<()> {
        self.lead(
            id,
            patience,
            |ceremony| ceremony.current_step().is_some_and(|step| step.act == act),
            |_| (),
        )
        .await
    }

    /// Leads a ceremony to its close.
    ///
    /// # Errors
    /// When it ends otherwise.
    pub async fn lead_to_close(
        &mut self,
        id: &CeremonyId,
        patience: Duration,
        tell: impl FnMut(&str),
    ) -> Result<()> {
        self.lead(id, patience, |ceremony| ceremony.phase() == Phase::Closed, tell).await
    }

    async fn lead(
        &mut self,
        id: &CeremonyId,
        patience: Duration,
        until: impl Fn(&Ceremony) -> bool,
        mut tell: impl FnMut(&str),
    ) -> Result<()> {
        self.wait(id, patience, |_| true).await?;
        loop {
            let ceremony = self.ceremony(id)?;
            if until(ceremony) {
                return Ok(());
            }
            match ceremony.phase_at(room::now()) {
                Phase::Gathering | Phase::Authorised | Phase::Committed => {}
                end @ (Phase::Closed | Phase::Abandoned(_) | Phase::Void(_)) => bail!("{id} ended: {end}"),
            }
            let Some(step) = ceremony.current_step().cloned() else { bail!("{id} has no open step") };
            tell(step.title.as_str());
            if matches!(step.act, Act::Recover | Act::Prove) {
                self.release_all(id, step.act).await?;
            }
            if step.act == Act::Approve || step.act.has_signers() {
                self.sign_all(id, &step).await?;
                let done = step.clone();
                self.wait(id, patience, |ceremony| ceremony.is_done(&done)).await?;
            } else {
                let waited = step.clone();
                self.wait(id, patience, |ceremony| {
                    ceremony.is_done(&waited) || matches!(ceremony.phase_at(room::now()), Phase::Void(_))
                })
                .await?;
            }
        }
    }
}
