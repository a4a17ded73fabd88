//! People at consoles: they open, sign, withdraw and read, through whichever node answers.

use std::collections::BTreeSet;

use ceremonies::ceremony::{Phase, opening_statement};
use ceremonies::charter::{CeremonyKind, Role};
use ceremonies::deploy::subject;
use ceremonies::ids::{CeremonyId, Generation, NodeIndex};
use ceremonies::log::Entry;
use ceremonies::manifest::{Proposal, Subject};
use ceremonies::record::{SignedHead, Standing, Tip, Tree};
use ceremonies::said::{self, Topic};
use ceremonies::script::{Act, Script};
use ceremonies::statement::Answer;
use ceremonies::wire::log::{self, event::Kind};
use ceremonies::wire::{VERSION, bus};
use node::core::{Request, RequestKind};
use prost::Message as _;
use rand::RngExt as _;

use super::charter::{CONTEXT, NODES, PEOPLE, image, line, node, ssh_sign};
use super::world::{BEGIN, World};
use std::sync::Arc;

const MINUTE: i64 = 60_000;
/// Most ceremonies of a schedule.
const CEREMONIES: usize = 7;

/// What a console has asked a node.
pub(super) struct Question {
    pub(super) at: usize,
    pub(super) ceremony: CeremonyId,
    /// What was submitted; none where the log was read.
    pub(super) event: Option<log::Event>,
    subject: String,
    payload: Vec<u8>,
    /// Whether the node has got it.
    pub(super) has_arrived: bool,
    /// Whether the node still owes it an outcome.
    pub(super) is_owed: bool,
    /// Whether the node said that it stands in its log.
    has_place: bool,
}

impl World {
    fn person_clock(&mut self) -> ceremonies::ids::UnixMillis {
        BEGIN.plus(i64::try_from(self.now).unwrap() + self.draw().random_range(-1500..1500))
    }

    pub(super) fn people_act(&mut self) {
        let running: Vec<usize> = (0..NODES).filter(|at| self.hosts[*at].core.is_some()).collect();
        let Some(viewer) = self.any(&running) else { return };
        match self.below(20) {
            0..=4 => self.read_a_log(),
            5 | 6 => self.withdraw(viewer),
            7 | 8 => self.open(viewer),
            _ => self.sign(viewer),
        }
        if self.pool.is_empty() {
            self.open(viewer);
        }
    }

    fn submit(&mut self, ceremony: &CeremonyId, kind: Kind) {
        let event = log::Event { kind: Some(kind) };
        let to: BTreeSet<usize> = (0..=self.below(3)).map(|_| self.below(NODES)).collect();
        for at in to {
            let nonce: [u8; 16] = self.draw().random();
            let submit = bus::Submit { version: VERSION, event: Some(event.clone()), nonce: nonce.to_vec() };
            let subject = subject::submit(ceremony, node(at));
            self.put_question(at, ceremony, Some(event.clone()), subject, submit.encode_to_vec());
        }
    }

    fn put_question(
        &mut self,
        at: usize,
        ceremony: &CeremonyId,
        event: Option<log::Event>,
        subject: String,
        payload: Vec<u8>,
    ) {
        let kind = match &event {
            Some(_) => RequestKind::Submit(ceremony.clone()),
            None => RequestKind::Read(ceremony.clone()),
        };
        let reply = format!("console.{}", self.questions.len());
        let question = Question {
            at,
            ceremony: ceremony.clone(),
            event,
            subject: subject.clone(),
            payload: payload.clone(),
            has_arrived: false,
            is_owed: false,
            has_place: false,
        };
        self.questions.push(question);
        self.ask(at, Request { kind, subject, payload, reply });
    }

    /// The request has reached a core: from now on, the node owes the submission an outcome.
    pub(super) fn is_asked(&mut self, at: usize, request: &Request) {
        let number = request.reply.strip_prefix("console.").and_then(|number| number.parse::<usize>().ok());
        if let Some(question) = number.and_then(|number| self.questions.get_mut(number)) {
            question.has_arrived = true;
            question.is_owed = question.event.is_some() && at != self.hostile;
        }
    }

    /// A node that crashes forgets what is not in its log yet.
    pub(super) fn forget_questions(&mut self, at: usize) {
        for question in self.questions.iter_mut().filter(|question| question.at == at && !question.has_place)
        {
            question.is_owed = false;
        }
    }

    pub(super) fn console_hears(&mut self, number: usize, payload: &[u8]) {
        let question = &self.questions[number];
        let topic = Topic::answer_to(&question.subject, &question.payload);
        let charter = CONTEXT.charter();
        let (speaker, body) = said::hear(charter, topic, payload).unwrap();
        assert_eq!(speaker, node(question.at));
        if question.event.is_none() {
            let reply = bus::ReadReply::decode(body.as_slice()).unwrap();
            return self.console_reads(number, reply);
        }
        let outcome = bus::SubmitReply::decode(body.as_slice()).unwrap().outcome;
        self.note(|| format!("{speaker} answers question {number}: {outcome:?}"));
        let question = &mut self.questions[number];
        match outcome {
            Some(bus::submit_reply::Outcome::Seq(_)) => question.has_place = true,
            Some(bus::submit_reply::Outcome::Rejection(_)) => question.is_owed = false,
            // It neither refuses nor promises anything: whoever asked has to ask again.
            Some(bus::submit_reply::Outcome::Unknown(why)) if why.starts_with("not kept") => {
                question.is_owed = false;
            }
            Some(bus::submit_reply::Outcome::Unknown(_)) | None => {}
        }
    }

    /// What a console that believes one node's log and whatever heads it is shown would call recorded.
    fn console_reads(&mut self, number: usize, reply: bus::ReadReply) {
        let ceremony = self.questions[number].ceremony.clone();
        let charter = CONTEXT.charter();
        let entries: Vec<Entry> =
            reply.entries.into_iter().map(|raw| Entry::from_wire(raw).unwrap()).collect();
        let heads: Vec<SignedHead> = reply
            .heads
            .into_iter()
            .filter_map(|news| SignedHead::from_wire(news.head?).ok())
            .filter(|head| head.ceremony == ceremony && head.is_by_its_node(charter))
            .collect();
        let tree = Tree::of(&entries);
        let members: BTreeSet<NodeIndex> = (0..NODES).map(node).collect();
        let seq = Standing::new(&tree, &heads, &members).recorded_to();
        if seq > 0 {
            let tip: Tip = tree.at(seq).unwrap();
            self.console_believes(&ceremony, tip);
        }
    }

    fn read_a_log(&mut self) {
        let Some(ceremony) = self.any_ceremony() else { return };
        let at = self.below(NODES);
        let nonce: [u8; 16] = self.draw().random();
        let read = bus::Read { version: VERSION, from_seq: 1, nonce: nonce.to_vec() };
        let subject = subject::read(&ceremony, node(at));
        self.put_question(at, &ceremony, None, subject, read.encode_to_vec());
    }

    fn open(&mut self, viewer: usize) {
        if self.pool.len() >= CEREMONIES {
            return;
        }
        let opened = self.person_clock();
        let number = u8::try_from(self.pool.len()).unwrap() + 10;
        let administrator = if self.strikes(2) { "ada" } else { "alma" };
        let kind = if self.strikes(3) { CeremonyKind::Dkg } else { CeremonyKind::Amend };
        let nonce: [u8; 16] = self.draw().random();
        let Some(core) = &self.hosts[viewer].core else { return };
        let book = core.book();
        let charter = Arc::clone(book.context().charter());
        let amendment = charter.allowing(&image(number), None).ok().map(Arc::new);
        let (wallet, amendment) = match kind {
            CeremonyKind::Amend => ("charter".to_owned(), amendment),
            _ => (format!("wallet-{number}"), None),
        };
        let proposal = Proposal {
            kind,
            wallet: wallet.parse().unwrap(),
            purpose: line("To see that it works"),
            administrator: administrator.parse().unwrap(),
            opened,
            lifetime_ms: 30 * MINUTE,
            nonce,
            generation: Generation::FIRST,
            origin: None,
            subject: amendment.map_or(Subject::Wallet, Subject::Charter),
            signers: None,
        };
        let script = Script::builtin(kind).unwrap();
        let manifest = proposal.manifest(&charter, &script).unwrap();
        if book.check_opening(&manifest, opened).is_err() {
            return;
        }
        let text = opening_statement(&manifest, &charter, &script).unwrap();
        let signature = ssh_sign(administrator, &text);
        self.note(|| format!("{administrator} opens {}", manifest.ceremony));
        let opened = log::Opened { manifest: manifest.as_bytes().to_vec(), signature };
        self.submit(&manifest.ceremony, Kind::Opened(opened));
    }

    /// The ceremonies that are not over, as one node sees them.
    fn under_way(&self, viewer: usize) -> Vec<CeremonyId> {
        let Some(core) = &self.hosts[viewer].core else { return Vec::new() };
        let is_open = |phase| matches!(phase, Phase::Gathering | Phase::Authorised | Phase::Committed);
        let all = core.book().iter();
        all.filter(|(_, it)| is_open(it.ceremony.phase())).map(|(id, _)| id.clone()).collect()
    }

    fn sign(&mut self, viewer: usize) {
        let open = self.under_way(viewer);
        let Some(id) = self.any(&open) else { return };
        let (from, disagrees) = (self.below(PEOPLE.len()), self.strikes(3));
        let Some(core) = &self.hosts[viewer].core else { return };
        let ceremony = &core.book().get(&id).unwrap().ceremony;
        let steps = ceremony.script().steps();
        let mut choices = steps.iter().flat_map(|step| {
            let people = PEOPLE.iter().cycle().skip(from).take(PEOPLE.len());
            people.filter_map(move |(person, role)| {
                let answer = match step.act {
                    Act::Agree if disagrees => Answer::Disagree(line("I could not see the screen")),
                    Act::Agree => Answer::Agree,
                    _ => Answer::None,
                };
                let name = person.parse().unwrap();
                let signed = ceremony.signed(&step.id).any(|signed| signed.person == name);
                let text = ceremony.statement(&step.id, *role, &name, &answer).ok()?;
                (!signed).then_some((step.id.clone(), *role, *person, answer, text))
            })
        });
        let Some((step, role, person, answer, text)) = choices.next() else { return };
        drop(choices);
        let opinion = |verdict: log::Verdict, reason: String| {
            Some(log::signed::Answer::Opinion(log::Opinion { verdict: verdict.into(), reason }))
        };
        let answer = match answer {
            Answer::Agree => opinion(log::Verdict::Agree, String::new()),
            Answer::Disagree(reason) => opinion(log::Verdict::Disagree, reason.into()),
            _ => None,
        };
        let signature = ssh_sign(person, &text);
        self.note(|| format!("{person} signs {step} of {id}"));
        let signed = log::Signed {
            step: step.into(),
            role: role.to_string(),
            person: person.to_owned(),
            answer,
            signature,
        };
        self.submit(&id, Kind::Signed(signed));
    }

    fn withdraw(&mut self, viewer: usize) {
        let open = self.under_way(viewer);
        let Some(id) = self.any(&open) else { return };
        let people = [("wendy", Role::Witness), ("arthur", Role::Auditor), ("olga", Role::Operator)];
        let (person, role) = people[self.below(people.len())];
        let reason = line("The building is on fire");
        let Some(core) = &self.hosts[viewer].core else { return };
        let ceremony = &core.book().get(&id).unwrap().ceremony;
        let Ok(text) = ceremony.withdrawal(role, &person.parse().unwrap(), &reason) else { return };
        let signature = ssh_sign(person, &text);
        self.note(|| format!("{person} withdraws {id}"));
        let (person, role) = (person.to_owned(), role.to_string());
        self.submit(&id, Kind::Withdrawn(log::Withdrawn { person, role, reason: reason.into(), signature }));
    }
}
