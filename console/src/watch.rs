//! Watching a cluster: what its nodes announce, and how they are by it.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::Duration;

use ceremonies::book::Book;
use ceremonies::ids::NodeIndex;
use futures_util::{Stream, StreamExt as _};
use thiserror::Error;

use crate::client::{Client, ClientError, News};
use crate::health::{self, Health, Heard, Moment};

/// How long a look lasts.
const LOOK: Duration = Duration::from_millis(250);

/// The connection to the bus was closed for good.
#[derive(Debug, Error)]
#[error("the connection to the bus is closed")]
pub struct Closed;

/// A console that listens, with a record that it has read before.
pub struct Watch {
    client: Client,
    book: Book,
    news: Pin<Box<dyn Stream<Item = News> + Send>>,
    heard: BTreeMap<NodeIndex, Heard>,
}

impl Watch {
    /// Begins to listen.
    ///
    /// # Errors
    /// [`ClientError::Subscribe`].
    pub async fn begin(client: Client, book: Book) -> Result<Self, ClientError> {
        let news = Box::pin(client.news().await?);
        Ok(Self { client, book, news, heard: BTreeMap::new() })
    }

    /// How the cluster is, a moment later. If nobody waits for the end of that, nothing that was heard is lost.
    ///
    /// # Errors
    /// [`Closed`].
    pub async fn look(&mut self) -> Result<(Moment, Health), Closed> {
        let until = tokio::time::Instant::now() + LOOK;
        while tokio::time::Instant::now() < until
            && let Ok(news) = tokio::time::timeout_at(until, self.news.next()).await
        {
            self.hear(news.ok_or(Closed)?);
        }
        let now = Moment::now();
        let is_connected = *self.client.connected().borrow();
        let health = if is_connected {
            health::health(&self.book, |node| self.heard.get(&node), now)
        } else {
            health::without_bus(&self.book, now)
        };
        Ok((now, health))
    }

    fn hear(&mut self, news: News) {
        match news {
            News::Health(heartbeat) => {
                if let Ok(node) = NodeIndex::try_from(heartbeat.node) {
                    let before = self.heard.remove(&node);
                    let heard = Heard::new(self.book.context(), *heartbeat, Moment::now(), before);
                    self.heard.insert(node, heard);
                }
            }
            News::Backdated(node) => {
                if let Some(heard) = self.heard.get_mut(&node) {
                    heard.came_backdated(Moment::now().steady);
                }
            }
            News::Log(_) | News::Progress(_) => {}
        }
    }
}
