//! What people do: open, sign what is open, withdraw, and repair a forked log.

use std::collections::BTreeMap;

use ceremonies::ceremony::{Duty, Phase, StepState};
use ceremonies::charter::{CeremonyKind, Role};
use ceremonies::ids::{CeremonyId, Generation, Hash};
use ceremonies::manifest::{Origin, Proposal, Way};
use ceremonies::script::{Act, Script};
use ceremonies::statement::{Answer, NAMESPACE, Release};
use ceremonies::wire::log::{self, event::Kind, signed};

use super::agent::Stop;
use super::charter::{NODES, PEOPLE, THRESHOLD};
use super::node::Store;
use super::world::World;
use crate::cluster::{line, node, ssh_sign};
use crate::kit::opened;

const MINUTE: i64 = 60_000;

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

impl World {
    /// The ceremonies that are not over, as one agent sees them.
    pub(super) fn under_way(&self, at: usize) -> Vec<CeremonyId> {
        let Some(agent) = &self.nodes[at].agent else { return Vec::new() };
        let now = self.clock(at);
        let is_open = |phase| matches!(phase, Phase::Gathering | Phase::Authorised | Phase::Committed);
        let open = agent.book.iter().filter(|(_, chapter)| is_open(chapter.ceremony.phase_at(now)));
        open.map(|(id, _)| id.clone()).collect()
    }

    fn has_share(&self, at: usize, record: &Hash) -> bool {
        self.nodes[at].store.share(record).is_some()
    }

    /// Opens a refresh, or where nodes have lost their shares a recovery, through this agent.
    pub(super) fn open(&mut self, at: usize) -> bool {
        let now = self.clock(at);
        let Some(agent) = &self.nodes[at].agent else { return false };
        let name = "treasury".parse().unwrap();
        let wallet = agent.book.wallet(&name).map(|wallet| wallet.record);
        let generation = agent.book.next_generation(&name, now);
        let lost: BTreeMap<_, _> = match &wallet {
            None => BTreeMap::new(),
            Some(record) => (0..usize::from(NODES))
                .filter(|other| !self.has_share(*other, &record.digest()))
                .map(|other| (node(u8::try_from(other).unwrap() + 1), Way::Repair))
                .collect(),
        };
        if lost.len() > usize::from(NODES) - THRESHOLD {
            return false;
        }
        let kind = match (&wallet, lost.is_empty()) {
            (None, _) => CeremonyKind::Dkg,
            (Some(_), true) => CeremonyKind::Refresh,
            (Some(_), false) => CeremonyKind::Recover,
        };
        let lifetime_ms = if self.strikes(4) { 3 * MINUTE } else { 30 * MINUTE };
        let proposal = Proposal {
            transaction: None,
            inventory: Vec::new(),
            kind,
            wallet: name,
            purpose: line("To see that it works"),
            administrator: "ada".parse().unwrap(),
            opened: now,
            lifetime_ms,
            nonce: self.nonce(),
            generation: if wallet.is_some() { generation } else { Generation::FIRST },
            origin: wallet.map(|record| Origin { record: record.digest(), ceremony: record.ceremony }),
            amendment: None,
            lost,
        };
        let script = Script::builtin(kind).unwrap();
        let manifest = proposal.manifest(self.context.charter(), &script).unwrap();
        let Some(agent) = &self.nodes[at].agent else { return false };
        if agent.book.check_opening(&manifest, now).is_err() {
            return false;
        }
        self.opened = self.opened.max(manifest.generation.0);
        self.note(format!("{} opens generation {}", manifest.ceremony, manifest.generation));
        self.submit(at, &manifest.ceremony, &opened(&manifest))
    }

    fn submit(&mut self, at: usize, id: &CeremonyId, kind: &Kind) -> bool {
        let appended = self.append(at, id, kind);
        let is_in = appended.is_ok();
        self.run(at, |world| {
            if matches!(appended, Err(Stop::Crash)) {
                return appended;
            }
            world.do_duties(at)
        });
        is_in
    }

    /// Whatever one person can sign now, if anyone can sign anything.
    pub(super) fn sign(&mut self, at: usize) -> bool {
        for id in self.under_way(at) {
            let mut choices = self.releases(at, &id);
            choices.extend(self.signatures(at, &id));
            if choices.is_empty() {
                continue;
            }
            let chosen = self.below(choices.len());
            let (step, role, person, answer) = choices.swap_remove(chosen);
            let Some(agent) = &self.nodes[at].agent else { return false };
            let Some(chapter) = agent.book.get(&id) else { return false };
            let name = person.parse().unwrap();
            let Ok(text) = chapter.ceremony.statement(&step.parse().unwrap(), role, &name, &answer) else {
                return false;
            };
            let signature = ssh_sign(&person, NAMESPACE, &text);
            let event = log::Signed {
                step: step.clone(),
                role: role.to_string(),
                person: person.clone(),
                answer: wire(&answer),
                signature,
            };
            self.note(format!("{person} signs {step} of {id} through {}", at + 1));
            let is_in = self.submit(at, &id, &Kind::Signed(event));
            if let Answer::Release(release) = &answer {
                let other = usize::from(release.node.get()) - 1;
                self.ask_again(other, &id, &Duty::Prove { node: release.node });
            }
            return is_in;
        }
        false
    }

    fn signatures(&self, at: usize, id: &CeremonyId) -> Vec<(String, Role, String, Answer)> {
        let Some(chapter) = self.nodes[at].agent.as_ref().and_then(|agent| agent.book.get(id)) else {
            return Vec::new();
        };
        let ceremony = &chapter.ceremony;
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
                let signed: Vec<String> = ceremony
                    .signed(&step.id)
                    .filter(|signed| signed.role == role)
                    .map(|signed| signed.person.to_string())
                    .collect();
                if signed.len() >= usize::try_from(count).unwrap() {
                    continue;
                }
                let able = PEOPLE
                    .iter()
                    .filter(|(person, of)| *of == role && !signed.iter().any(|signed| signed == person));
                choices.extend(
                    able.map(|(person, _)| (step.id.to_string(), role, (*person).to_owned(), answer.clone())),
                );
            }
        }
        choices
    }

    /// Backups that wait for their keepers, also those that were released to an enclave that is gone.
    fn releases(&self, at: usize, id: &CeremonyId) -> Vec<(String, Role, String, Answer)> {
        let Some(chapter) = self.nodes[at].agent.as_ref().and_then(|agent| agent.book.get(id)) else {
            return Vec::new();
        };
        let ceremony = &chapter.ceremony;
        let Some(step) = ceremony.script().step_for(Act::Prove) else {
            return Vec::new();
        };
        if !matches!(ceremony.step_state(step), StepState::Open { .. }) {
            return Vec::new();
        }
        let mut choices = Vec::new();
        for index in 1..=NODES {
            let Some(backup) = ceremony.wanted_backup(Act::Prove, node(index)) else { continue };
            let enclave = &self.nodes[usize::from(index) - 1].enclave;
            let sealed = enclave.boot.as_bytes().to_vec();
            let is_attested =
                ceremony.enclaves().get(&node(index)).is_some_and(|it| it.keys == enclave.keys.keys());
            let known = ceremony.release(Act::Prove, node(index));
            if !is_attested || known.is_some_and(|release| release.sealed == sealed) {
                continue;
            }
            let release = Release { node: node(index), object: backup.whole.digest, sealed };
            choices.push((
                step.id.to_string(),
                Role::Custodian,
                format!("carl-{index}"),
                Answer::Release(release),
            ));
        }
        choices
    }

    pub(super) fn withdraw(&mut self, at: usize, id: &CeremonyId) -> bool {
        let people = [("ada", Role::Administrator), ("wendy", Role::Witness), ("arthur", Role::Auditor)];
        let (person, role) = people[self.below(people.len())];
        let Some(chapter) = self.nodes[at].agent.as_ref().and_then(|agent| agent.book.get(id)) else {
            return false;
        };
        let reason = line("The building is on fire");
        let Ok(text) = chapter.ceremony.withdrawal(role, &person.parse().unwrap(), &reason) else {
            return false;
        };
        let signature = ssh_sign(person, NAMESPACE, &text);
        let (person, role) = (person.into(), role.to_string());
        self.note(format!("{person} withdraws {id} through {}", at + 1));
        self.submit(
            at,
            id,
            &Kind::Withdrawn(log::Withdrawn { person, role, reason: reason.into(), signature }),
        )
    }

    /// Ceremonies of which two nodes have contradictory logs.
    pub(super) fn forked(&self) -> Vec<CeremonyId> {
        let mut forked = Vec::new();
        let ids = self.nodes.iter().flat_map(|node| node.store.logs.keys());
        for id in ids.collect::<std::collections::BTreeSet<_>>() {
            let logs: Vec<_> = self.nodes.iter().filter_map(|node| node.store.logs.get(id)).collect();
            let contradict = |a: &[_], b: &[_]| {
                let both = a.len().min(b.len());
                a[..both] != b[..both]
            };
            if logs.iter().any(|log| contradict(log, logs[0]))
                || logs.len() > 2 && contradict(logs[1], logs[2])
            {
                forked.push(id.clone());
            }
        }
        forked
    }

    /// People decide which log of a ceremony stands, one with a certificate if there is one, and start the others' nodes
    /// again with it.
    pub(super) fn mend(&mut self, id: &CeremonyId) {
        let weight = |store: &Store, book: &ceremonies::book::Book| {
            let is_committed = book.get(id).is_some_and(|chapter| chapter.ceremony.committed().is_some());
            (is_committed, store.logs.get(id).map_or(0, Vec::len))
        };
        for at in 0..self.nodes.len() {
            self.kill_agent(at);
        }
        let best = (0..self.nodes.len())
            .max_by_key(|at| weight(&self.nodes[*at].store, &self.nodes[*at].before_crash));
        let log = self.nodes[best.unwrap()].store.logs[id].clone();
        self.note(format!("{id} is mended after node {}", best.unwrap() + 1));
        for at in 0..self.nodes.len() {
            if Some(at) == best {
                self.start_agent(at);
                continue;
            }
            self.kill_enclave(at);
            if self.nodes[at].store.logs.contains_key(id) {
                self.nodes[at].store.logs.insert(id.clone(), log.clone());
                self.nodes[at].before_crash = self.fold_again(at);
            }
            self.start_agent(at);
        }
    }
}
