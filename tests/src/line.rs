//! The way between one agent and the broker, so that it can be cut, or made slow, without touching either.
//!
//! What is under way on a cut line waits, and goes on when it heals, as it does on a network that loses packets for a
//! while. Nothing is ever changed or reordered.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

/// How many pieces may be under way in one direction.
const UNDER_WAY: usize = 64;

/// How a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// What comes in goes out after this time.
    Open(Duration),
    /// Nothing goes out.
    Cut,
}

/// A line from a port of this machine to another. It ends when it is dropped.
pub(crate) struct Line {
    state: watch::Sender<State>,
    task: AbortHandle,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Line {
    /// Lays a line.
    pub(crate) async fn lay(from: u16, to: u16) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", from))
            .await
            .with_context(|| format!("port {from}, between an agent and the broker"))?;
        let (state, seen) = watch::channel(State::Open(Duration::ZERO));
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((agent, _)) = listener.accept().await {
                connections.spawn(connect(agent, to, seen.clone()));
            }
        });
        Ok(Self { state, task: task.abort_handle() })
    }

    pub(crate) fn cut(&self) {
        self.state.send_replace(State::Cut);
    }

    /// Lets everything through, this much later.
    pub(crate) fn open(&self, delay: Duration) {
        self.state.send_replace(State::Open(delay));
    }
}

/// Passes on what both sides say, until one of them ends.
async fn connect(agent: TcpStream, to: u16, mut state: watch::Receiver<State>) {
    if state.wait_for(|state| *state != State::Cut).await.is_err() {
        return;
    }
    let Ok(broker) = TcpStream::connect(("127.0.0.1", to)).await else { return };
    let ((from_agent, to_agent), (from_broker, to_broker)) = (agent.into_split(), broker.into_split());
    tokio::select! {
        () = pass(from_agent, to_broker, state.clone()) => {}
        () = pass(from_broker, to_agent, state) => {}
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut state: watch::Receiver<State>) {
    let (pieces, mut under_way) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    let now = state.clone();
    let take = async move {
        let mut piece = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from.read(&mut piece).await {
            let delay = match *now.borrow() {
                State::Open(delay) => delay,
                State::Cut => Duration::ZERO,
            };
            if pieces.send((Instant::now() + delay, piece[..length].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let give = async move {
        while let Some((due, piece)) = under_way.recv().await {
            tokio::time::sleep_until(due).await;
            let is_open = state.wait_for(|state| *state != State::Cut).await.is_ok();
            if !is_open || to.write_all(&piece).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(take, give);
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_millis(200);

    async fn laid() -> (Line, TcpStream, TcpStream) {
        let broker = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let free = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let (from, to) = (free.local_addr().unwrap().port(), broker.local_addr().unwrap().port());
        drop(free);
        let line = Line::lay(from, to).await.unwrap();
        let agent = TcpStream::connect(("127.0.0.1", from)).await.unwrap();
        let (broker, _) = broker.accept().await.unwrap();
        (line, agent, broker)
    }

    async fn arrives(at: &mut TcpStream) -> [u8; 5] {
        let mut got = [0; 5];
        at.read_exact(&mut got).await.unwrap();
        got
    }

    #[tokio::test]
    async fn what_is_sent_over_a_cut_line_arrives_once_it_is_whole_again() {
        let (line, mut agent, mut broker) = laid().await;
        agent.write_all(b"first").await.unwrap();
        assert_eq!(&arrives(&mut broker).await, b"first");
        line.cut();
        agent.write_all(b"then ").await.unwrap();
        assert!(tokio::time::timeout(WAIT, arrives(&mut broker)).await.is_err());
        line.open(Duration::ZERO);
        assert_eq!(&arrives(&mut broker).await, b"then ");
    }

    #[tokio::test]
    async fn slow_line_brings_everything_late_and_in_order() {
        let (line, mut agent, mut broker) = laid().await;
        line.open(WAIT);
        let begun = Instant::now();
        broker.write_all(b"12345").await.unwrap();
        broker.write_all(b"67890").await.unwrap();
        assert_eq!((&arrives(&mut agent).await, &arrives(&mut agent).await), (b"12345", b"67890"));
        assert!(begun.elapsed() >= WAIT);
    }

    #[tokio::test]
    async fn line_ends_with_either_side() {
        let (_line, agent, mut broker) = laid().await;
        drop(agent);
        assert_eq!(broker.read(&mut [0; 8]).await.unwrap(), 0);
    }
}
