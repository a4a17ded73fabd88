//! A session on a thread of its own: protocol phases compute for up to a second, and the service must keep listening in
//! the meantime.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use ceremonies::ids::NodeIndex;
use tokio::sync::mpsc;

use super::News;
use super::orders::Order;
use crate::scheme::dkls23::Product;
use crate::session::{Action, Millis, Outcome, Session, SessionFailure, SessionProgress};
use enclave_link::message;

/// How often a session looks at the clock.
const TICK: Duration = Duration::from_millis(100);
/// Messages that may wait for a session: each peer is at most one round ahead, with replays.
const MAX_WAITING: usize = 256;

/// What a session is run for.
pub(super) struct Job {
    pub(super) order: Order,
    pub(super) credentials: message::Credentials,
    /// The backup that was released, where one is.
    pub(super) backup: Vec<u8>,
    /// The agent's number of the order.
    pub(super) request: u64,
}

/// A session's thread, as the service holds it. Dropping it ends the thread.
pub(super) struct RunningSession {
    inbox: SyncSender<Vec<u8>>,
}

impl RunningSession {
    /// Hands a message to the session, which loses it if it cannot keep up, as the bus could.
    pub(super) fn deliver(&self, payload: Vec<u8>) {
        let _ = self.inbox.try_send(payload);
    }
}

/// What a session reports.
pub(super) struct SessionNews {
    pub(super) job: Arc<Job>,
    pub(super) kind: NewsKind,
}

pub(super) enum NewsKind {
    Send {
        to: NodeIndex,
        bytes: Vec<u8>,
    },
    Progress(SessionProgress),
    Finished(Box<Outcome<Product>>),
    /// With the envelopes that show it, if any do.
    Failed(SessionFailure, Vec<Vec<u8>>),
}

/// Runs a session until it is over or dropped.
pub(super) fn run(job: &Arc<Job>, session: Session<Product>, news: mpsc::Sender<News>) -> RunningSession {
    let (inbox, messages) = sync_channel(MAX_WAITING);
    let of = Arc::clone(job);
    tokio::task::spawn_blocking(move || drive(&of, session, &messages, &news));
    RunningSession { inbox }
}

fn drive(
    job: &Arc<Job>,
    mut session: Session<Product>,
    messages: &Receiver<Vec<u8>>,
    news: &mpsc::Sender<News>,
) {
    let begun = Instant::now();
    let now = || Millis::try_from(begun.elapsed().as_millis()).unwrap_or(Millis::MAX);
    let mut actions = session.start(now());
    let mut told = Told::default();
    loop {
        for action in actions {
            let kind = match action {
                Action::Send { to, bytes } => NewsKind::Send { to, bytes },
                Action::Progress(progress) if told.is_stale(&progress) => continue,
                Action::Progress(progress) => NewsKind::Progress(progress),
                Action::Finished(outcome) => NewsKind::Finished(outcome),
                Action::Failed(failure) => NewsKind::Failed(failure, session.evidence().to_vec()),
            };
            let report = News::Session(SessionNews { job: Arc::clone(job), kind });
            if news.blocking_send(report).is_err() {
                return;
            }
        }
        if session.is_over() {
            return;
        }
        actions = match messages.recv_timeout(TICK) {
            Ok(bytes) => session.receive(now(), &bytes),
            Err(RecvTimeoutError::Timeout) => session.tick(now()),
            Err(RecvTimeoutError::Disconnected) => return,
        };
    }
}

/// What was last reported of a session's progress. A new phase is reported at once; who is still awaited in it, once
/// per tick: reporting every message would slow down the session itself.
#[derive(Default)]
struct Told(Option<(SessionProgress, Instant)>);

impl Told {
    /// Whether this need not be reported; if it must be, it counts as reported from now on.
    fn is_stale(&mut self, progress: &SessionProgress) -> bool {
        let stale = self.0.as_ref().is_some_and(|(told, at)| {
            told == progress
                || (told.phase == progress.phase && told.number == progress.number && at.elapsed() < TICK)
        });
        if !stale {
            self.0 = Some((progress.clone(), Instant::now()));
        }
        stale
    }
}
