//! What people sign: approvals, confirmations, read-backs, verdicts, the close, and the withdrawal.

use super::acts::Refused;
use super::{Ceremony, Ending, Phase, Rejection, StepSignature};
use crate::charter::{Charter, Person, Quorum, Role};
use crate::ids::{Line, PersonName, StepId, UnixMillis};
use crate::log::Entry;
use crate::manifest::Manifest;
use crate::script::{Act, Script, Step};
use crate::statement::{Answer, Established, Statement};
use crate::words::{self, FINGERPRINT_WORDS};

/// What a withdrawal's statement has in place of a step.
pub const WITHDRAW: &str = "withdraw";

/// The statement with which an administrator opens a ceremony.
///
/// # Errors
/// [`Rejection::Opening`] for a script without an opening step, which no checked script is.
pub fn opening_statement(
    manifest: &Manifest,
    charter: &Charter,
    script: &Script,
) -> Result<String, Rejection> {
    Ok(opening_words(manifest, charter, script)?.text())
}

fn opening_words<'a>(
    manifest: &'a Manifest,
    charter: &'a Charter,
    script: &Script,
) -> Result<Statement<'a>, Rejection> {
    let step = script.step_for(Act::Open).ok_or(Rejection::Opening)?;
    Ok(Statement {
        manifest,
        charter,
        established: Established::default(),
        step: step.id.clone(),
        title: step.title.clone(),
        role: Role::Administrator,
        person: &manifest.administrator,
        answer: &Answer::None,
    })
}

impl Ceremony {
    pub(super) fn opening(&self, signature: &[u8], entry: &Entry) -> Result<StepSignature, Rejection> {
        let name = self.manifest.administrator.clone();
        let person = self.person(&name, Role::Administrator)?;
        let words = opening_words(&self.manifest, &self.context.charter, &self.script)?;
        let (text, presence) = words.verify(person, signature)?;
        let open = self.script.step_for(Act::Open).ok_or(Rejection::Opening)?;
        Ok(StepSignature {
            seq: entry.seq,
            time: entry.time,
            step: open.id.clone(),
            role: Role::Administrator,
            person: name,
            answer: Answer::None,
            text,
            signature: signature.to_vec(),
            presence,
        })
    }

    /// The person, if they may act in this role in this ceremony.
    fn person(&self, name: &PersonName, role: Role) -> Result<&Person, Rejection> {
        let person =
            self.context.charter.person(name).ok_or_else(|| Rejection::NoSuchPerson(name.clone()))?;
        if !person.roles.contains(&role) {
            return Err(Rejection::NotInRole { person: name.clone(), role });
        }
        let earlier = self.signatures.iter().find(|signed| signed.person == *name && signed.role != role);
        if let Some(earlier) = earlier {
            return Err(Rejection::TwoRoles { person: name.clone(), role: earlier.role });
        }
        if role == Role::Administrator && *name != self.manifest.administrator {
            return Err(Rejection::OtherAdministrator(self.manifest.administrator.clone()));
        }
        Ok(person)
    }

    /// How many of which role must sign this step.
    #[must_use]
    pub fn signers(&self, step: &Step) -> Quorum {
        step.act.rules().signers(self, step)
    }

    /// The step, if people sign it and everything it needs is done.
    ///
    /// # Errors
    /// [`Rejection`] says what must be done first, or that nobody is asked to sign it.
    pub fn open_step(&self, id: &StepId) -> Result<&Step, Rejection> {
        let step = self.script.step(id).filter(|step| step.act.rules().is_for_people());
        let step = step.ok_or_else(|| Rejection::NoSuchStep(id.clone()))?;
        match self.missing_before(step) {
            Some(missing) => Err(Rejection::NotOpen { step: id.clone(), missing: missing.id.clone() }),
            None if !step.act.rules().asks_people(self) => Err(Rejection::NoReleases(id.clone())),
            None => Ok(step),
        }
    }

    /// What has been established by the time of this step.
    fn established(&self, step: &Step) -> Established {
        let after = |act| self.script.follows(step, act);
        Established {
            enclaves: after(Act::Attest).then(|| self.approved_or_current_enclaves()),
            record: match self.manifest.kind {
                kind if kind.makes_shares() && !after(Act::Generate) => None,
                _ => self.record().map(crate::wallet::Record::digest),
            },
            signatures: (after(Act::TestSign) || after(Act::Sign)).then(|| self.signatures_hash()),
        }
    }

    /// The step, if it is open and this person may sign it in this role.
    fn signable(&self, step: &StepId, role: Role, person: &PersonName) -> Result<&Step, Rejection> {
        self.person(person, role)?;
        let step = self.open_step(step)?;
        if self.signers(step).get(&role).is_none_or(|count| *count == 0) {
            return Err(Rejection::NotSignedBy { step: step.id.clone(), role });
        }
        Ok(step)
    }

    /// The signature for which another by this person with this answer to this step would be refused.
    #[must_use]
    pub fn on_record(&self, step: &StepId, person: &PersonName, answer: &Answer) -> Option<&StepSignature> {
        let same = |signed: &&StepSignature| match (&signed.answer, answer) {
            // One custodian may keep several nodes' backups, and a release that did not open is given again.
            (Answer::Release(before), Answer::Release(now)) => before == now,
            _ => true,
        };
        self.signed(step).filter(|signed| signed.person == *person).find(same)
    }

    /// Whether this person could sign this step now, for the first time and with whatever answer: for callers who act
    /// before they sign.
    ///
    /// # Errors
    /// [`Rejection`] says why the ceremony would refuse a signature.
    pub fn may_sign(
        &self,
        step: &StepId,
        role: Role,
        person: &PersonName,
        now: UnixMillis,
    ) -> Result<(), Rejection> {
        self.check_not_over(now)?;
        let step = self.signable(step, role, person)?;
        if self.signed(&step.id).any(|signed| signed.person == *person) {
            return Err(Rejection::SignedAlready { person: person.clone(), step: step.id.clone() });
        }
        Ok(())
    }

    /// Whether this person could withdraw the ceremony now.
    ///
    /// # Errors
    /// [`Rejection`] says why the ceremony would refuse the withdrawal.
    pub fn may_withdraw(&self, role: Role, person: &PersonName, now: UnixMillis) -> Result<(), Rejection> {
        self.check_not_over(now)?;
        self.person(person, role)?;
        if self.is_signed() { Err(Rejection::Signed) } else { Ok(()) }
    }

    /// The text that this person signs for this step, in this role, with this answer.
    ///
    /// # Errors
    /// [`Rejection`] says why the ceremony would refuse that signature.
    pub fn statement(
        &self,
        step: &StepId,
        role: Role,
        person: &PersonName,
        answer: &Answer,
    ) -> Result<String, Rejection> {
        Ok(self.words(step, role, person, answer)?.text())
    }

    fn words<'a>(
        &'a self,
        step: &StepId,
        role: Role,
        person: &'a PersonName,
        answer: &'a Answer,
    ) -> Result<Statement<'a>, Rejection> {
        let step = self.signable(step, role, person)?;
        self.check_answer(step, person, answer)?;
        Ok(Statement {
            manifest: &self.manifest,
            charter: &self.context.charter,
            established: self.established(step),
            step: step.id.clone(),
            title: step.title.clone(),
            role,
            person,
            answer,
        })
    }

    /// The text with which a person withdraws the ceremony.
    ///
    /// # Errors
    /// [`Rejection`] when the person has no such role here.
    pub fn withdrawal(&self, role: Role, person: &PersonName, reason: &Line) -> Result<String, Rejection> {
        Ok(self.last_words(role, person, &Answer::Withdraw(reason.clone()))?.text())
    }

    /// The withdrawal with this answer, which says why.
    fn last_words<'a>(
        &'a self,
        role: Role,
        person: &'a PersonName,
        why: &'a Answer,
    ) -> Result<Statement<'a>, Rejection> {
        self.person(person, role)?;
        let malformed = |_| Rejection::Opening;
        Ok(Statement {
            manifest: &self.manifest,
            charter: &self.context.charter,
            established: Established::default(),
            step: WITHDRAW.parse().map_err(malformed)?,
            title: "End the ceremony".parse().map_err(malformed)?,
            role,
            person,
            answer: why,
        })
    }

    /// The words that must be read back, once there is a record.
    #[must_use]
    pub fn spoken_words(&self) -> Option<String> {
        self.record().map(|record| words::spoken(&record.fingerprint()))
    }

    pub(super) fn check_words(&self, typed: &str) -> Result<(), Rejection> {
        let spoken = self.spoken_words().unwrap_or_default();
        if spoken == typed {
            return Ok(());
        }
        let given = typed.split_whitespace().count();
        if given != FINGERPRINT_WORDS {
            return Err(Rejection::CountOfWords(given));
        }
        let same = spoken.split(' ').zip(typed.split(' ')).take_while(|(one, other)| one == other);
        Err(Rejection::WrongWords { place: same.count() + 1 })
    }

    fn check_answer(&self, step: &Step, person: &PersonName, answer: &Answer) -> Result<(), Rejection> {
        match step.act.rules().check_answer(self, person, answer) {
            Ok(()) => Ok(()),
            Err(Refused::Asks(asked)) => Err(Rejection::Answer { step: step.id.clone(), asked }),
            Err(Refused::Wrong(rejection)) => Err(rejection),
        }
    }

    /// Refuses what comes after the end, or, before anything is committed, after the manifest's expiry.
    ///
    /// # Errors
    /// [`Rejection`] says how it ended.
    pub fn check_not_over(&self, at: UnixMillis) -> Result<(), Rejection> {
        match self.phase_at(at) {
            Phase::Gathering | Phase::Authorised | Phase::Committed => Ok(()),
            Phase::Void(super::Void::Expired) => Err(Rejection::Expired { expired: self.manifest.expires }),
            phase @ (Phase::Closed | Phase::Abandoned(_) | Phase::Void(_)) => {
                Err(Rejection::Over(phase.to_string()))
            }
        }
    }

    pub(super) fn judge(
        &self,
        entry: &Entry,
        step: &StepId,
        role: Role,
        person: &PersonName,
        answer: &Answer,
        signature: &[u8],
    ) -> Result<StepSignature, Rejection> {
        self.check_not_over(entry.time)?;
        let words = self.words(step, role, person, answer)?;
        if self.on_record(step, person, answer).is_some() {
            return Err(Rejection::SignedAlready { person: person.clone(), step: step.clone() });
        }
        let (text, presence) = words.verify(self.person(person, role)?, signature)?;
        Ok(StepSignature {
            seq: entry.seq,
            time: entry.time,
            step: step.clone(),
            role,
            person: person.clone(),
            answer: answer.clone(),
            text,
            signature: signature.to_vec(),
            presence,
        })
    }

    pub(super) fn record_signature(&mut self, signed: StepSignature) {
        let after_attestation =
            self.script.step(&signed.step).is_some_and(|step| self.script.follows(step, Act::Attest));
        if after_attestation && self.approved_enclaves.is_none() {
            self.approved_enclaves = Some(self.current_enclaves());
        }
        self.signatures.push(signed);
    }

    /// The signatures of people who disagreed with the record.
    pub fn disagreements(&self) -> impl Iterator<Item = &StepSignature> {
        self.signatures.iter().filter(|signed| matches!(signed.answer, Answer::Disagree(_)))
    }

    pub(super) fn withdrawn(
        &mut self,
        entry: &Entry,
        person: &PersonName,
        role: Role,
        reason: &Line,
        signature: &[u8],
    ) -> Result<(), Rejection> {
        self.may_withdraw(role, person, entry.time)?;
        let why = Answer::Withdraw(reason.clone());
        let (text, presence) =
            self.last_words(role, person, &why)?.verify(self.person(person, role)?, signature)?;
        self.signatures.push(StepSignature {
            seq: entry.seq,
            time: entry.time,
            step: WITHDRAW.parse().map_err(|_| Rejection::Opening)?,
            role,
            person: person.clone(),
            answer: why,
            text,
            signature: signature.to_vec(),
            presence,
        });
        // An earlier ending was beaten by the commit, or the ceremony would be over.
        self.ending = Some(Ending::Withdrawn { person: person.clone(), reason: reason.clone() });
        Ok(())
    }
}
