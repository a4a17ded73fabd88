//! What people do, through whichever agent they look at: open, sign what is open, hand in backups, withdraw. They know
//! no more than that agent shows them.

use std::collections::BTreeMap;

use ceremonies::ceremony::{Ceremony, Phase, StepState, opening_statement};
use ceremonies::charter::{CeremonyKind, Role};
use ceremonies::deploy::subject;
use ceremonies::ids::{CeremonyId, Generation, Hash, StepId};
use ceremonies::manifest::{Origin, Proposal, Subject, Way};
use ceremonies::script::{Act, Script};
use ceremonies::statement::{Answer, Release};
use ceremonies::wire::log::{self, event::Kind, signed};
use ceremonies::wire::{VERSION, bus};
use node::core::{Request, RequestKind};
use prost::Message as _;
use rand::RngExt as _;

use super::charter::{NODES, PEOPLE, THRESHOLD, custodian};
use super::world::World;
use crate::simulation::charter::{line, node, place, ssh_sign};

const MINUTE: i64 = 60_000;

/// Something that a person can sign now.
struct Choice {
    step: StepId,
    role: Role,
    person: String,
    answer: Answer,
}

fn wire(answer: &Answer) -> Option<signed::Answer> {
    Some(match answer {
        // What follows a transaction is in no schedule.
        Answer::None | Answer::Withdraw(_) | Answer::Broadcast(_) | Answer::Withheld(_) => return None,
        Answer::Words(words) => signed::Answer::Words(words.clone()),
        Answer::Agree | Answer::Disagree(_) => signed::Answer::Opinion(log::Opinion {
            verdict: log::Verdict::Agree.into(),
            reason: String::new(),
        }),
        Answer::Release(release) => signed::Answer::Release(log::Release {
            node: release.node.into(),
            object: release.object.as_bytes().to_vec(),
            sealed: release.sealed.clone(),
        }),
    })
}

fn signatures(ceremony: &Ceremony) -> Vec<Choice> {
    let mut choices = Vec::new();
    for step in ceremony.script().steps() {
        if !matches!(ceremony.step_state(step), StepState::Open { .. }) {
            continue;
        }
        let answer = match step.act {
            Act::ReadBack => Answer::Words(ceremony.spoken_words().unwrap_or_default()),
            Act::Agree => Answer::Agree,
            Act::Confirm | Act::Approve | Act::Commit | Act::Close => Answer::None,
            _ => continue,
        };
        for (role, count) in ceremony.signers(step) {
            let signed: Vec<&str> = ceremony
                .signed(&step.id)
                .filter(|signed| signed.role == role)
                .map(|signed| signed.person.as_str())
                .collect();
            if signed.len() >= usize::try_from(count).unwrap() {
                continue;
            }
            let able = PEOPLE.iter().filter(|(person, of)| *of == role && !signed.contains(person));
            choices.extend(able.map(|(person, _)| Choice {
                step: step.id.clone(),
                role,
                person: (*person).to_owned(),
                answer: answer.clone(),
            }));
        }
    }
    choices
}

impl World {
    pub(super) fn people_act(&mut self) {
        let viewer = self.below(NODES);
        if self.core(viewer).is_none() {
            return;
        }
        let under_way = self.under_way(viewer);
        let Some(id) = under_way.first() else {
            if self.below(4) == 0 {
                self.open(viewer);
            }
            return;
        };
        // The worst moment to change one's mind.
        if self.below(if self.is_committing(viewer) { 12 } else { 250 }) == 0 {
            self.withdraw(viewer, id);
        } else {
            self.sign(viewer);
        }
    }

    /// Whether enclaves are about to sign the certificate, or have begun to.
    fn is_committing(&self, at: usize) -> bool {
        self.core(at).is_some_and(|core| {
            core.book().iter().any(|(_, chapter)| {
                let ceremony = &chapter.ceremony;
                ceremony.phase() == Phase::Authorised && !ceremony.prepared_nodes().is_empty()
            })
        })
    }

    /// The ceremonies that are not over, as one agent sees them.
    pub(super) fn under_way(&self, at: usize) -> Vec<CeremonyId> {
        let (Some(core), now) = (self.core(at), self.clock(at)) else { return Vec::new() };
        let is_open = |phase| matches!(phase, Phase::Gathering | Phase::Authorised | Phase::Committed);
        let open = core.book().iter().filter(|(_, chapter)| is_open(chapter.ceremony.phase_at(now)));
        open.map(|(id, _)| id.clone()).collect()
    }

    fn ceremony(&self, at: usize, id: &CeremonyId) -> Option<&Ceremony> {
        self.core(at)?.book().get(id).map(|chapter| &chapter.ceremony)
    }

    /// The nodes whose stores lack the share of a record.
    fn without_share(&self, record: &Hash) -> BTreeMap<ceremonies::ids::NodeIndex, Way> {
        let lacks = |at: &usize| self.nodes[*at].host.store.shares.get(record).is_none();
        (0..NODES).filter(lacks).map(|at| (node(at), Way::Repair)).collect()
    }

    /// Opens a refresh, or where nodes have lost their shares a recovery, through this agent.
    pub(super) fn open(&mut self, at: usize) -> Option<CeremonyId> {
        self.tally.let_go += self.check_shelf(at, None);
        let now = self.clock(at);
        let nonce = self.draw().random();
        let lifetime_ms = if self.strikes(4) { 3 * MINUTE } else { 30 * MINUTE };
        let book = self.core(at)?.book();
        let name = "treasury".parse().unwrap();
        let wallet = book.wallet(&name).map(|wallet| wallet.record);
        let generation = book.next_generation(&name, now);
        let lost = wallet.as_ref().map(|record| self.without_share(&record.digest())).unwrap_or_default();
        if lost.len() > NODES - THRESHOLD {
            return None;
        }
        let kind = match (&wallet, lost.is_empty()) {
            (None, _) => CeremonyKind::Dkg,
            (Some(_), true) => CeremonyKind::Refresh,
            (Some(_), false) => CeremonyKind::Recover,
        };
        let proposal = Proposal {
            kind,
            wallet: name,
            purpose: line("To see that it works"),
            administrator: "ada".parse().unwrap(),
            opened: now,
            lifetime_ms,
            nonce,
            generation: if wallet.is_some() { generation } else { Generation::FIRST },
            origin: wallet.map(|record| Origin { record: record.digest(), ceremony: record.ceremony }),
            subject: if lost.is_empty() { Subject::Wallet } else { Subject::Losses(lost) },
            signers: None,
        };
        let (charter, script) = (self.context.charter(), Script::builtin(kind).unwrap());
        let manifest = proposal.manifest(charter, &script).unwrap();
        book.check_opening(&manifest, now).ok()?;
        let text = opening_statement(&manifest, charter, &script).unwrap();
        let signature = ssh_sign("ada", &text);
        self.opened = self.opened.max(manifest.generation.0);
        self.note(|| {
            format!(
                "{} is opened through {} for generation {}",
                manifest.ceremony,
                at + 1,
                manifest.generation
            )
        });
        let opened = log::Opened { manifest: manifest.as_bytes().to_vec(), signature };
        self.submit(at, &manifest.ceremony, Kind::Opened(opened));
        Some(manifest.ceremony)
    }

    fn submit(&mut self, at: usize, id: &CeremonyId, kind: Kind) {
        let nonce: [u8; 16] = self.draw().random();
        let event = Some(log::Event { kind: Some(kind) });
        let submit = bus::Submit { version: VERSION, event, nonce: nonce.to_vec() };
        let subject = subject::submit(id, node(at));
        self.request(at, RequestKind::Submit(id.clone()), subject, submit.encode_to_vec());
    }

    fn request(&mut self, at: usize, kind: RequestKind, subject: String, payload: Vec<u8>) {
        self.ask(at, Request { kind, subject, payload, reply: "console.desk".to_owned() });
    }

    /// Whatever one person can sign now, if anyone can sign anything.
    pub(super) fn sign(&mut self, at: usize) -> bool {
        for id in self.under_way(at) {
            let Some(ceremony) = self.ceremony(at, &id) else { continue };
            let mut choices = signatures(ceremony);
            choices.extend(self.releases(ceremony));
            if choices.is_empty() {
                continue;
            }
            let chosen = self.below(choices.len());
            let Choice { step, role, person, answer } = choices.swap_remove(chosen);
            if let Answer::Release(release) = &answer {
                self.hand_in(&id, release);
            }
            let name = person.parse().unwrap();
            let statement =
                self.ceremony(at, &id).and_then(|it| it.statement(&step, role, &name, &answer).ok());
            let Some(text) = statement else { continue };
            let signature = ssh_sign(&person, &text);
            self.note(|| format!("{person} signs {step} of {id} through {}", at + 1));
            let signed = log::Signed {
                step: step.to_string(),
                role: role.to_string(),
                person,
                answer: wire(&answer),
                signature,
            };
            self.submit(at, &id, Kind::Signed(signed));
            return true;
        }
        false
    }

    /// Backups that wait for their keepers, also those that were released to an enclave that is gone.
    fn releases(&self, ceremony: &Ceremony) -> Vec<Choice> {
        let step = ceremony.script().step_for(Act::Prove);
        let step = step.filter(|step| matches!(ceremony.step_state(step), StepState::Open { .. }));
        let Some(step) = step else { return Vec::new() };
        let wanted = |at: usize| {
            let backup = ceremony.wanted_backup(Act::Prove, node(at))?;
            let enclave = &self.nodes[at].enclave;
            let attested = ceremony.enclaves().get(&node(at))?;
            let release = Release {
                node: node(at),
                object: backup.whole.digest,
                sealed: enclave.boot.clone().into_bytes(),
            };
            (attested.keys == enclave.keys()).then_some(Choice {
                step: step.id.clone(),
                role: Role::Custodian,
                person: custodian(at),
                answer: Answer::Release(release),
            })
        };
        (0..NODES).filter_map(wanted).collect()
    }

    /// A keeper hands a backup in at the node whose it is, before they release it.
    fn hand_in(&mut self, id: &CeremonyId, release: &Release) {
        let Some(object) = self.vault.get(&release.object).cloned() else { return };
        let at = place(release.node);
        let nonce: [u8; 16] = self.draw().random();
        let backup =
            bus::Backup { version: VERSION, ceremony: id.to_string(), object, nonce: nonce.to_vec() };
        self.request(at, RequestKind::Backup, subject::backup(node(at)), backup.encode_to_vec());
    }

    pub(super) fn withdraw(&mut self, at: usize, id: &CeremonyId) {
        let people = [("ada", Role::Administrator), ("wendy", Role::Witness), ("arthur", Role::Auditor)];
        let (person, role) = people[self.below(people.len())];
        let reason = line("The building is on fire");
        let Some(ceremony) = self.ceremony(at, id) else { return };
        let Ok(text) = ceremony.withdrawal(role, &person.parse().unwrap(), &reason) else { return };
        let signature = ssh_sign(person, &text);
        self.note(|| format!("{person} withdraws {id} through {}", at + 1));
        let (person, role) = (person.to_owned(), role.to_string());
        self.submit(
            at,
            id,
            Kind::Withdrawn(log::Withdrawn { person, role, reason: reason.into(), signature }),
        );
    }

    /// Machines, links and the broker.
    pub(super) fn go_wrong(&mut self) {
        let at = self.below(NODES);
        match self.below(16) {
            0..=2 => self.crash(at),
            3..=5 => self.kill_enclave(at),
            6 | 7 => self.break_link(at),
            8 => self.disconnect(at),
            9..=11 => {
                let tail = self.draw().random_range(1..9);
                self.lose_tail(tail);
            }
            12 | 13 if self.may_lose_store(at) => self.lose_store(at),
            14 => self.sleep(),
            _ => {}
        }
    }
}
