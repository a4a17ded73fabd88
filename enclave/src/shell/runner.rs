//! A session on a thread of its own: protocol phases compute for up to a second, and the shell must keep listening in the
//! meantime.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::scheme::dkls23::{KeyShare, Product};
use crate::session::{Action, Millis, Session, SessionProgress};
use crate::signer::{News, OrderId};

/// How often a session looks at the clock.
const TICK: Duration = Duration::from_millis(100);
/// Messages that may wait for a session: each peer is at most one round ahead, with replays.
const MAX_WAITING: usize = 256;

/// A session's thread, as the shell holds it. Dropping it ends the thread.
pub(super) struct RunningSession {
    inbox: SyncSender<Vec<u8>>,
}

impl RunningSession {
    /// Hands a message to the session, which loses it if it cannot keep up, as the bus could.
    pub(super) fn deliver(&self, payload: Vec<u8>) {
        let _ = self.inbox.try_send(payload);
    }
}

type Reports = mpsc::Sender<(OrderId, News<KeyShare>)>;

/// Runs a session until it is over or dropped.
pub(super) fn run(id: OrderId, session: Session<Product>, news: Reports) -> RunningSession {
    let (inbox, messages) = sync_channel(MAX_WAITING);
    tokio::task::spawn_blocking(move || drive(id, session, &messages, &news));
    RunningSession { inbox }
}

fn drive(id: OrderId, mut session: Session<Product>, messages: &Receiver<Vec<u8>>, news: &Reports) {
    let begun = Instant::now();
    let now = || Millis::try_from(begun.elapsed().as_millis()).unwrap_or(Millis::MAX);
    let mut actions = session.start(now());
    let mut told = Told::default();
    loop {
        for action in actions {
            let report = match action {
                Action::Send { to, bytes } => News::Send { to, bytes },
                Action::Progress(progress) if told.is_stale(&progress) => continue,
                Action::Progress(progress) => News::Progress(progress),
                Action::Finished(outcome) => News::Finished(outcome),
                Action::Failed(failure) => News::Failed(failure, session.evidence().to_vec()),
            };
            if news.blocking_send((id, report)).is_err() {
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
