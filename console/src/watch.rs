//! Watching a cluster: what its nodes announce, and how they are by it.

use std::pin::Pin;
use std::time::Duration;

use ceremonies::book::Book;
use ceremonies::ids::NodeIndex;
use futures_util::{Stream, StreamExt as _};
use thiserror::Error;

use crate::client::{Client, ClientError, News};
use crate::health::{Health, Hearing, LOST_MS, Moment};

/// How long a look lasts.
const LOOK: Duration = Duration::from_millis(250);

/// How long a console listens at most before it says how a node is that it has not heard: as long as a node may be silent,
/// and a heartbeat more.
pub const LISTEN: Duration = Duration::from_millis(LOST_MS.unsigned_abs() + 1_500);

/// The connection to the bus was closed for good.
#[derive(Debug, Error)]
#[error("the connection to the bus is closed")]
pub struct Closed;

/// A console that listens, with a record that it has read before.
pub struct Watch {
    client: Client,
    book: Book,
    news: Pin<Box<dyn Stream<Item = News> + Send>>,
    hearing: Hearing,
}

impl Watch {
    /// Begins to listen.
    ///
    /// # Errors
    /// [`ClientError::Subscribe`].
    pub async fn begin(client: Client, book: Book) -> Result<Self, ClientError> {
        let news = Box::pin(client.news().await?);
        Ok(Self { client, book, news, hearing: Hearing::begin(Moment::now()) })
    }

    /// How the cluster is once each of these nodes was heard or, at the latest, after this long.
    ///
    /// # Errors
    /// [`Closed`].
    pub async fn settled(&mut self, nodes: &[NodeIndex], patience: Duration) -> Result<Health, Closed> {
        let until = tokio::time::Instant::now() + patience;
        loop {
            let (_, health) = self.look().await?;
            if self.hearing.has_heard(nodes) || tokio::time::Instant::now() >= until {
                return Ok(health);
            }
        }
    }

    /// Those of these nodes that were not heard yet.
    #[must_use]
    pub fn unheard(&self, nodes: &[NodeIndex]) -> Vec<NodeIndex> {
        nodes.iter().copied().filter(|node| !self.hearing.has_heard([node])).collect()
    }

    /// How the cluster is, a moment later. If nobody waits for the end of that, nothing that was heard is lost.
    ///
    /// # Errors
    /// [`Closed`].
    pub async fn look(&mut self) -> Result<(Moment, Health), Closed> {
        self.hearing.begins_again(Moment::now());
        let until = tokio::time::Instant::now() + LOOK;
        while tokio::time::Instant::now() < until
            && let Ok(news) = tokio::time::timeout_at(until, self.news.next()).await
        {
            let now = Moment::now();
            self.hearing.runs(now);
            self.hearing.hear(self.book.context(), news.ok_or(Closed)?, now);
        }
        let (now, is_connected) = (Moment::now(), *self.client.connected().borrow());
        self.hearing.runs(now);
        self.hearing.has_bus(is_connected, now);
        Ok((now, self.hearing.health(&self.book, is_connected, now)))
    }
}
