//! A signer at a desk: no enclave, agent, KMS or session is there; the test tells it what came of its effects.

use std::sync::{Arc, LazyLock};

use ceremonies::curve::Point;
use ceremonies::ids::Hash;
use ceremonies::wire::log;
use ceremonies::wire::log::event::Kind;
use ciborium::Value;
use enclave::scheme::dkls23::{NewShare, Product};
use enclave::session::{BootKeys, Outcome, SessionFailure};
use enclave::signer::{Effect, Input, News, OrderId, Signer, Work};
use enclave_link::message::{Credentials, Deliver, Log, Said, Start, Stored, Welcome, from_enclave};
use prost::Message as _;

use crate::cluster::{node, seed};
use crate::keys::Enclave;
use crate::kit::Paper;
use crate::machine::MACHINE;

/// The node whose signer it is. The certificates on paper name its sealed share by the digest of this one byte.
pub(crate) const OWN: u8 = 2;
/// One boot of its enclave.
const BOOT: &str = "the enclave at the desk";

/// What stands in for a share: nothing looks into it.
pub(crate) struct Share;

pub(crate) type Effects = Vec<Effect<Share>>;

pub(crate) struct Desk {
    pub(crate) signer: Signer<Share>,
    requests: u64,
}

fn keys() -> BootKeys {
    BootKeys::from_seeds(&seed(BOOT), &seed("sealing"))
}

/// The ceremony up to its approval, with the enclave at the desk.
pub(crate) fn authorised(mut paper: Paper) -> Paper {
    // On paper it signs the same.
    paper.enclaves.insert(OWN, Enclave::new(BOOT));
    for by in [1, 3, 4, 5] {
        paper.attest(by).unwrap();
    }
    let payload = MACHINE.payload(paper.manifest_hash().as_bytes(), paper.now, &keys().public());
    paper.attest_as(OWN, MACHINE.sign(&Value::Map(payload))).unwrap();
    paper.approve_all();
    paper
}

/// A wallet of one generation.
pub(crate) static FIRST: LazyLock<Paper> = LazyLock::new(Paper::closed);
/// A key generation that is approved.
pub(crate) static GENERATION: LazyLock<Paper> = LazyLock::new(|| authorised(Paper::dkg()));
/// A refresh of the wallet that is approved.
pub(crate) static REFRESH: LazyLock<Paper> = LazyLock::new(|| authorised(FIRST.refresh()));

impl Desk {
    /// A signer that has just been started, with an agent.
    pub(crate) fn new() -> Self {
        let root = Arc::new(MACHINE.root.clone());
        let mut desk = Self { signer: Signer::new(Arc::new(keys()), root), requests: 0 };
        assert!(desk.connect().said.is_empty());
        desk
    }

    pub(crate) fn feed(&mut self, input: Input<Share>, paper: &Paper) -> Effects {
        self.signer.handle(input, paper.now)
    }

    /// The agent connects and is welcomed.
    pub(crate) fn connect(&mut self) -> Welcome {
        match self.signer.handle(Input::Connected, crate::machine::NOW).remove(0) {
            Effect::Tell(from_enclave::Kind::Welcome(welcome)) => welcome,
            _ => panic!("no welcome"),
        }
    }

    pub(crate) fn lose(&mut self) -> Effects {
        self.signer.handle(Input::Lost, crate::machine::NOW)
    }

    /// What an honest agent orders that knows this ceremony and the first one.
    pub(crate) fn order(&mut self, paper: &Paper) -> Start {
        let encoded = |paper: &Paper| paper.log.iter().map(ceremonies::log::Entry::encode).collect();
        let others = paper.origins.iter().map(|origin| {
            let entries = origin.iter().map(ceremonies::log::Entry::encode).collect();
            Log { entries }
        });
        self.requests += 1;
        Start {
            request: self.requests,
            node: OWN.into(),
            charter: paper.ceremony.charter().text().as_bytes().to_vec(),
            log: encoded(paper),
            others: others.collect(),
            blob: vec![OWN],
            credentials: Some(Credentials::default()),
            backup: Vec::new(),
            records: Vec::new(),
        }
    }

    pub(crate) fn start(&mut self, paper: &Paper) -> Effects {
        let order = self.order(paper);
        self.feed(Input::Start(Box::new(order)), paper)
    }

    pub(crate) fn news(&mut self, id: OrderId, news: News<Share>) -> Effects {
        self.signer.handle(Input::News(id, news), crate::machine::NOW)
    }

    pub(crate) fn deliver(&mut self, label: Hash, from: u8, payload: Vec<u8>) -> Effects {
        let message = Deliver { label: label.as_bytes().to_vec(), from: from.into(), payload };
        self.signer.handle(Input::Deliver(message), crate::machine::NOW)
    }

    pub(crate) fn stored(&mut self, paper: &Paper, blob: Vec<u8>) -> Effects {
        let ceremony = paper.ceremony.manifest().ceremony.to_string();
        let stored = Stored { ceremony, blob, credentials: None };
        self.feed(Input::Stored(stored), paper)
    }
}

/// The order that has a session begun.
pub(crate) fn begun(effects: &Effects) -> OrderId {
    match effects.as_slice() {
        [Effect::Begin(id, _), ..] => *id,
        _ => panic!("no session begins: {} effects", effects.len()),
    }
}

/// The order that has a share opened, and the digest that it must have.
pub(crate) fn opened(effects: &Effects) -> (OrderId, Hash) {
    match effects.as_slice() {
        [Effect::Work(id, work)] => match &**work {
            Work::Open(open) => (*id, open.expected),
            Work::Seal(_) | Work::BackUp(_) | Work::Prove(_) | Work::Restore(_) => panic!("other work"),
        },
        _ => panic!("no share is opened: {} effects", effects.len()),
    }
}

/// What was signed for the log, if that is all that was done.
pub(crate) fn said(effects: &Effects) -> Kind {
    match effects.as_slice() {
        [Effect::Tell(from_enclave::Kind::Said(said))] => event(said),
        _ => panic!("not one word: {} effects", effects.len()),
    }
}

/// Why an order was refused, if that is all that was done.
pub(crate) fn refused(effects: &Effects) -> &str {
    match effects.as_slice() {
        [Effect::Tell(from_enclave::Kind::Refused(refused))] => &refused.reason,
        _ => panic!("no refusal: {} effects", effects.len()),
    }
}

pub(crate) fn event(said: &Said) -> Kind {
    log::Event::decode(said.event.as_slice()).unwrap().kind.unwrap()
}

/// The reason of an abort.
pub(crate) fn reason(kind: &Kind) -> &str {
    let Kind::Aborted(aborted) = kind else { panic!("{kind:?}") };
    &aborted.reason
}

fn ended(product: Product<Share>) -> News<Share> {
    News::Finished(Box::new(Outcome {
        session: Hash::from([3; 32]),
        transcript: Hash::from([4; 32]),
        product,
        last_letters: vec![(node(1), b"last".to_vec())],
    }))
}

/// A session ends with the shares that all enclaves on paper have.
pub(crate) fn shared(paper: &Paper) -> News<Share> {
    let point = |x: u8| Point::decode(&paper.sharing().point(x)).unwrap();
    ended(Product::Share(Box::new(NewShare {
        share: Share,
        public_key: point(0),
        chain_code: Hash::from([2; 32]),
        public_shares: (1..=5).map(|x| (node(x), point(x))).collect(),
    })))
}

/// A session of a repair ends for a helper.
pub(crate) fn helped() -> News<Share> {
    ended(Product::Helped)
}

pub(crate) fn failed(reason: &str, ban: Option<u8>) -> News<Share> {
    let peer = ban.map(node);
    let evidence = peer.map(|_| b"signed".to_vec()).into_iter().collect();
    News::Failed(SessionFailure { reason: reason.to_owned(), culprit: peer, ban: peer }, evidence)
}

pub(crate) fn undone(reason: &str) -> News<Share> {
    News::Undone(reason.to_owned())
}

/// Everything that a session or work can come to.
pub(crate) fn all_news(paper: &Paper) -> [News<Share>; 10] {
    [
        News::Send { to: node(1), bytes: b"late".to_vec() },
        News::Progress(enclave::session::SessionProgress {
            phase: "late",
            number: 1,
            count: 2,
            waiting_for: vec![],
        }),
        shared(paper),
        failed("late", Some(1)),
        News::Opened(Arc::new(Share)),
        News::Sealed(vec![OWN]),
        News::BackedUp { whole: vec![1], root: vec![2] },
        News::Proved(Point::decode(&paper.sharing().point(OWN)).unwrap()),
        News::Restored(Arc::new(Share)),
        undone("late"),
    ]
}

/// How far a refresh has come at this signer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    Opening,
    Running,
    Sealing,
    Storing,
    Reopening,
}

pub(crate) const EVERYWHERE: [At; 5] = [At::Opening, At::Running, At::Sealing, At::Storing, At::Reopening];

impl Desk {
    /// A refresh that has come this far.
    pub(crate) fn refreshing(at: At) -> (Self, OrderId) {
        let mut desk = Self::new();
        let (id, _) = opened(&desk.start(&REFRESH));
        let steps: [(At, Input<Share>); 4] = [
            (At::Opening, Input::News(id, News::Opened(Arc::new(Share)))),
            (At::Running, Input::News(id, shared(&REFRESH))),
            (At::Sealing, Input::News(id, News::Sealed(vec![OWN]))),
            (
                At::Storing,
                Input::Stored(Stored {
                    ceremony: REFRESH.ceremony.manifest().ceremony.to_string(),
                    blob: vec![OWN],
                    credentials: None,
                }),
            ),
        ];
        for (left, input) in steps {
            if left == at {
                break;
            }
            assert!(!desk.feed(input, &REFRESH).is_empty(), "{left:?}");
        }
        (desk, id)
    }

    /// Does the session that this order begins, up to the word about the new share.
    pub(crate) fn generates(&mut self, effects: &Effects, paper: &Paper) -> Kind {
        let id = begun(effects);
        self.news(id, shared(paper));
        self.news(id, News::Sealed(vec![OWN]));
        let (_, expected) = opened(&self.stored(paper, vec![OWN]));
        assert_eq!(expected, Hash::of_bytes(&[OWN]));
        said(&self.news(id, News::Opened(Arc::new(Share))))
    }
}
