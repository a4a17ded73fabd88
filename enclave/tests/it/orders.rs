//! Orders to a running enclave, over its link: which it follows, and which it refuses. Around it is a cluster on paper.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use ceremonies::attestation::EnclaveKeys;
use ceremonies::book::Book;
use ceremonies::ceremony::Ceremony;
use ceremonies::charter::{CeremonyKind, Role};
use ceremonies::ids::{CeremonyId, UnixMillis};
use ceremonies::log::{Entry, Event};
use ceremonies::wallet::Record;
use ceremonies::wire::log;
use ciborium::Value;
use enclave::attest::{AttestError, SecurityModule};
use enclave::shell::Enclave;
use enclave_link::message::{Attest, FromEnclave, Log, Start, ToEnclave, from_enclave, to_enclave};
use enclave_link::{Receiver, Sender, split};
use prost::Message as _;
use tokio::io::DuplexStream;

use crate::cluster::{CHARTER, context, context_of, group};
use crate::kit::{MINUTE, Paper};
use crate::machine::{MACHINE, NOW};

/// The node of the enclave that runs. All others are on paper.
const OWN: u8 = 2;
const PATIENCE: Duration = Duration::from_secs(30);

/// The machine's security module, at a time that the test sets.
struct Module(Arc<Mutex<UnixMillis>>);

#[async_trait]
impl SecurityModule for Module {
    async fn attest(&self, nonce: &[u8], user_data: &[u8], _: &[u8]) -> Result<Vec<u8>, AttestError> {
        let now = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let keys = EnclaveKeys::decode(user_data).unwrap();
        Ok(MACHINE.sign(&Value::Map(MACHINE.payload(nonce, now, &keys))))
    }
}

struct Agent {
    clock: Arc<Mutex<UnixMillis>>,
    receiver: Receiver<DuplexStream>,
    sender: Sender<DuplexStream>,
    requests: u64,
}

/// An order in the making: everything in it can be changed.
#[derive(Clone)]
struct Order {
    records: Vec<Vec<u8>>,
    others: Vec<Vec<Entry>>,
    log: Vec<Entry>,
}

impl Order {
    /// What an honest agent with this book sends.
    fn of(book: &Book, paper: &Paper) -> Self {
        let needed = book.needed_for(&id(paper), paper.now);
        Self {
            records: needed.records.into_iter().map(|record| record.as_bytes().to_vec()).collect(),
            others: needed.logs.into_iter().map(|log| log.entries.clone()).collect(),
            log: paper.log.clone(),
        }
    }
}

impl Agent {
    /// An enclave that has just been started, on a thread that ends with the link, and its agent.
    fn start() -> Self {
        let clock = Arc::new(Mutex::new(NOW.plus(MINUTE)));
        let module = Arc::new(Module(Arc::clone(&clock)));
        let (agent, served) = tokio::io::duplex(1024 * 1024);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let roots = rustls::RootCertStore::empty();
                let mut enclave = Enclave::boot(module, MACHINE.root.clone(), roots).await.unwrap();
                drop(enclave.serve(served).await);
            });
        });
        let (receiver, sender) = split(agent);
        Self { clock, receiver, sender, requests: 0 }
    }

    async fn send(&mut self, kind: to_enclave::Kind) {
        self.sender.send(&ToEnclave { kind: Some(kind) }).await.unwrap();
    }

    async fn hear(&mut self) -> from_enclave::Kind {
        let message = tokio::time::timeout(PATIENCE, self.receiver.receive::<FromEnclave>()).await.unwrap();
        message.unwrap().unwrap().kind.unwrap()
    }

    /// Has the enclave attest in a ceremony, between the others.
    async fn attest(&mut self, paper: &mut Paper) {
        *self.clock.lock().unwrap() = paper.now;
        self.requests += 1;
        let nonce = paper.manifest_hash().as_bytes().to_vec();
        self.send(to_enclave::Kind::Attest(Attest { request: self.requests, nonce })).await;
        loop {
            if let from_enclave::Kind::Attestation(attestation) = self.hear().await {
                return paper.attest_as(OWN, attestation.document).unwrap();
            }
        }
    }

    /// The ceremony up to its approval, with this enclave.
    async fn authorised(&mut self, mut paper: Paper) -> Paper {
        for by in [1, 3, 4, 5] {
            paper.attest(by).unwrap();
        }
        self.attest(&mut paper).await;
        paper.approve_all();
        paper
    }

    /// Gives an order. Returns that it was followed, or why not.
    async fn orders(&mut self, order: Order) -> Result<(), String> {
        let encoded = |log: &[Entry]| log.iter().map(Entry::encode).collect();
        self.requests += 1;
        let request = self.requests;
        let start = Start {
            request,
            node: OWN.into(),
            charter: CHARTER.text().as_bytes().to_vec(),
            log: encoded(&order.log),
            others: order.others.iter().map(|log| Log { entries: encoded(log) }).collect(),
            records: order.records,
            // The sealed share that the certificates on paper name and nobody can open: the session begins and is given
            // up.
            blob: vec![OWN],
            credentials: None,
            backup: Vec::new(),
        };
        self.send(to_enclave::Kind::Start(start)).await;
        loop {
            match self.hear().await {
                from_enclave::Kind::Refused(refused) if refused.request == request => {
                    return Err(refused.reason);
                }
                from_enclave::Kind::Said(said) => {
                    let event = log::Event::decode(said.event.as_slice()).unwrap();
                    let Some(log::event::Kind::Aborted(aborted)) = event.kind else { panic!("{event:?}") };
                    assert!(aborted.reason.contains("sealed share"), "{}", aborted.reason);
                    return Ok(());
                }
                _ => {}
            }
        }
    }

    /// Gives an order that is refused for this reason.
    async fn is_refused(&mut self, order: Order, why: &str) {
        let answer = self.orders(order).await;
        assert!(answer.is_err(), "{why}");
        let reason = answer.unwrap_err();
        assert!(reason.contains(why), "{reason}");
    }
}

fn id(paper: &Paper) -> CeremonyId {
    paper.ceremony.manifest().ceremony.clone()
}

fn book<'a>(papers: impl IntoIterator<Item = &'a Paper>) -> Book {
    let mut book = Book::new(context());
    for entry in papers.into_iter().flat_map(|paper| &paper.log) {
        book.take(entry.clone()).unwrap();
    }
    book
}

fn next(before: &Paper, kind: CeremonyKind, number: u8) -> Paper {
    before.then(kind, |proposal| proposal.nonce = [number; 16])
}

fn refreshed(before: &Paper) -> Paper {
    let mut paper = before.refresh().authorise();
    paper.stage_all();
    paper.read_words_back();
    paper.finish();
    paper
}

/// A wallet's first four generations.
fn generations() -> [Paper; 4] {
    let first = Paper::closed();
    let second = refreshed(&first);
    let third = refreshed(&second);
    let fourth = refreshed(&third);
    [first, second, third, fourth]
}

fn record(paper: &Paper) -> Record {
    paper.ceremony.committed().unwrap().record
}

#[tokio::test]
async fn enclave_works_on_a_generation_by_its_certificate_and_a_record_of_what_came_before() {
    let papers = generations();
    for kind in [CeremonyKind::TestSign, CeremonyKind::Refresh] {
        let mut agent = Agent::start();
        let paper = agent.authorised(next(&papers[3], kind, 90)).await;
        let order = Order::of(&book(papers.iter().chain([&paper])), &paper);
        assert_eq!((order.others.len(), order.records.len()), (2, 1));
        agent.orders(order.clone()).await.unwrap();
        agent.is_refused(order, "already begun that session").await;
    }
}

#[tokio::test]
async fn ancestor_that_is_missing_forged_or_of_another_generation_or_wallet_is_refused() {
    let papers = generations();
    let mut agent = Agent::start();
    let paper = agent.authorised(next(&papers[3], CeremonyKind::Refresh, 90)).await;
    let order = Order::of(&book(papers.iter().chain([&paper])), &paper);
    let changed = |change: fn(&mut log::GenerationRecord)| {
        let mut record = log::GenerationRecord::decode(order.records[0].as_slice()).unwrap();
        change(&mut record);
        record.encode_to_vec()
    };
    let unknown = "the wallet to sign with is unknown here";
    for (records, why) in [
        (vec![], unknown),
        (vec![record(&papers[0]).as_bytes().to_vec()], unknown),
        (vec![changed(|record| record.wallet = "other".into())], unknown),
        (vec![changed(|record| record.session = vec![9; 32])], unknown),
        (
            vec![changed(|record| record.public_key = vec![9; 33])],
            "record of an earlier generation is refused",
        ),
        (vec![vec![0xff; 40]], "record of an earlier generation is refused"),
        (vec![order.records[0].clone(); 1025], "has 1025 records"),
    ] {
        agent.is_refused(Order { records, ..order.clone() }, why).await;
    }
    // None of it stands in the way of the true one.
    agent.orders(order).await.unwrap();
}

#[tokio::test]
async fn nothing_is_begun_on_a_generation_whose_certificate_is_not_shown() {
    let papers = generations();
    let mut agent = Agent::start();
    let paper = agent.authorised(next(&papers[3], CeremonyKind::Refresh, 90)).await;
    let order = Order::of(&book(papers.iter().chain([&paper])), &paper);
    let mut records = order.records.clone();
    records.push(record(&papers[3]).as_bytes().to_vec());
    let is_prepared = |entry: &Entry| matches!(entry.event, Event::Prepared { .. });
    let last = papers[3].log.iter().rposition(is_prepared).unwrap();
    let without_certificate = vec![papers[2].log.clone(), papers[3].log[..last].to_vec()];
    for others in [vec![], vec![papers[2].log.clone()], without_certificate] {
        let order = Order { records: records.clone(), others, ..order.clone() };
        agent.is_refused(order, "which made the generation that the ceremony works on").await;
    }
    agent.orders(Order { records, ..order }).await.unwrap();
}

#[tokio::test]
async fn superseded_generations_rivals_and_bans_are_refused_as_ever() {
    let papers = generations();
    let mut agent = Agent::start();
    let old = agent.authorised(next(&papers[2], CeremonyKind::TestSign, 90)).await;
    let order = Order::of(&book(papers.iter().chain([&old])), &old);
    agent.is_refused(order, "at generation 4 and never goes back to 3").await;

    let mut agent = Agent::start();
    let rival = next(&papers[3], CeremonyKind::Refresh, 91).authorise();
    let later = papers[3].then(CeremonyKind::Refresh, |proposal| {
        proposal.nonce = [92; 16];
        proposal.opened = proposal.opened.plus(1000);
    });
    let later = agent.authorised(later).await;
    let order = Order::of(&book(papers.iter().chain([&rival, &later])), &later);
    agent.is_refused(order, "may yet make this generation").await;
    let mut ended = rival.clone();
    ended.withdraw("ada", Role::Administrator).unwrap();
    let order = Order::of(&book(papers.iter().chain([&ended, &later])), &later);
    agent.orders(order).await.unwrap();

    // The ban is older than three generations.
    let mut agent = Agent::start();
    let mut banning = papers[0].test_signing().authorise();
    banning.abort_banning(1, &group(&[1, 2, 3]), 1, Some(2)).unwrap();
    let signing = agent.authorised(next(&papers[3], CeremonyKind::TestSign, 93)).await;
    let order = Order::of(&book(papers.iter().chain([&banning, &signing])), &signing);
    agent.is_refused(order, "has a banned pair").await;
}

fn event(entry: &Entry) -> log::event::Kind {
    let body = log::EntryBody::decode(entry.raw().body.as_slice()).unwrap();
    body.event.unwrap().kind.unwrap()
}

/// The branch that has these entries' events.
fn branch<'a>(paper: &Paper, entries: impl IntoIterator<Item = &'a Entry>) -> Paper {
    let mut branch = paper.clone();
    branch.log.truncate(1);
    let before = paper.ceremony.before().cloned().map(Arc::new);
    let context = context_of(paper.ceremony.charter()).with_wallet(before);
    branch.ceremony = Ceremony::fold(context, &branch.log).unwrap();
    branch.now = paper.ceremony.manifest().opened;
    for entry in entries {
        branch.append(entry.node.get(), event(entry)).unwrap();
    }
    branch
}

/// The branch on which the first two approvals stand in the other order.
fn reordered(paper: &Paper) -> Paper {
    let is_approval =
        |entry: &&Entry| matches!(&entry.event, Event::Signed { step, .. } if step.as_str() == "approve");
    let mut entries: Vec<&Entry> = paper.log[1..].iter().collect();
    let first = entries.iter().position(is_approval).unwrap();
    entries.swap(first, first + 1);
    branch(paper, entries)
}

#[tokio::test]
async fn log_that_forks_is_taken_until_a_session_has_begun_in_it() {
    let papers = generations();
    let mut agent = Agent::start();
    let paper = agent.authorised(next(&papers[3], CeremonyKind::Refresh, 90)).await;
    let order = Order::of(&book(papers.iter().chain([&paper])), &paper);
    let known = paper.log.len() - 1;
    let early = Order { log: paper.log[..known].to_vec(), ..order.clone() };
    agent.is_refused(early, "calls for nothing").await;
    let healed = reordered(&paper);
    agent.orders(Order { log: healed.log.clone(), ..order.clone() }).await.unwrap();
    agent.is_refused(order, "forks at entry").await;

    // A branch that undoes an approval is not the branch of a healed fork.
    let mut agent = Agent::start();
    let paper = agent.authorised(next(&papers[3], CeremonyKind::TestSign, 91)).await;
    let mut given_up = paper.clone();
    given_up.abort_banning(3, &group(&[2, 3, 4]), 1, Some(4)).unwrap();
    given_up.withdraw("ada", Role::Administrator).unwrap();
    let order = Order::of(&book(papers.iter().chain([&given_up])), &given_up);
    agent.is_refused(order.clone(), "calls for nothing").await;
    agent.is_refused(Order { log: reordered(&paper).log, ..order }, "takes back what this one shows").await;
}

#[tokio::test]
async fn other_branch_of_another_ceremony_is_taken_once_that_is_over_and_nothing_is_lost() {
    let first = Paper::closed();
    let mut agent = Agent::start();
    // This enclave works in the key generation's wallet, and in a test signing that is closed later.
    let mut begun = agent.authorised(next(&first, CeremonyKind::TestSign, 90)).await;
    let order = Order::of(&book([&first, &begun]), &begun);
    agent.orders(order).await.unwrap();
    begun.abort_banning(3, &group(&[2, 3, 4]), 1, Some(4)).unwrap();

    let signing = agent.authorised(next(&first, CeremonyKind::TestSign, 91)).await;
    let order = Order::of(&book([&first, &begun, &signing]), &signing);
    assert_eq!(order.others, [first.log.clone(), begun.log.clone()]);
    let with = |origin: &Paper, banning: &Paper| Order {
        others: vec![origin.log.clone(), banning.log.clone()],
        ..order.clone()
    };
    let healed = reordered(&begun);
    agent.is_refused(with(&first, &healed), "forks at entry").await;
    let mut over = healed;
    over.withdraw("ada", Role::Administrator).unwrap();
    let closing = |paper: &Paper| {
        let last = paper.log.len() - 1;
        branch(paper, &paper.log[1..last])
    };
    let mut unbanned = closing(&closing(&over));
    unbanned.withdraw("ada", Role::Administrator).unwrap();
    assert!(unbanned.ceremony.bans().is_empty());
    // The enclave knows of the ban by now.
    agent.orders(with(&reordered(&first), &over)).await.unwrap();
    let again = agent.authorised(next(&first, CeremonyKind::TestSign, 92)).await;
    let again = |banning: &Paper| Order { log: again.log.clone(), ..with(&first, banning) };
    agent.is_refused(again(&unbanned), "forks at entry").await;
    agent.orders(again(&over)).await.unwrap();
}
