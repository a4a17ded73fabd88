//! Listening to nodes: no more of each than it may send is read, and no more than that waits. The rest is dropped unread,
//! and said.

use std::time::{Duration, Instant};

use async_nats::Message;
use ceremonies::deploy::allowance::{Intake, Limit, Offered};
use ceremonies::ids::NodeIndex;
use futures_util::{Stream, StreamExt, stream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::news::{Ear, News};
use super::{Bus, Nodes};

/// How long until it is said again that a node sends too much.
const SAY_AGAIN: Duration = Duration::from_secs(1);
/// Messages that are handed over and not read yet; others wait where they are counted.
const MAX_HANDED: usize = 1;

/// What comes from a node.
enum Heard {
    Message(Message),
    /// It sends more than it may.
    Surplus(NodeIndex),
}

/// Those that are listened to. A task for each subject of a node takes what arrives as soon as it does, whatever this
/// console is busy with: subscriptions count messages, and not their bytes.
pub(super) struct Listening {
    sender: mpsc::Sender<Heard>,
    heard: mpsc::Receiver<Heard>,
    tasks: JoinSet<()>,
}

impl Default for Listening {
    fn default() -> Self {
        let (sender, heard) = mpsc::channel(MAX_HANDED);
        Self { sender, heard, tasks: JoinSet::new() }
    }
}

impl Listening {
    /// Listens to what a node says on a subject.
    pub(super) fn to(
        &mut self,
        node: NodeIndex,
        limit: Limit,
        said: impl Stream<Item = Message> + Send + Unpin + 'static,
    ) {
        self.tasks.spawn(listen(node, limit, said, self.sender.clone()));
    }

    /// What is news of it.
    pub(super) fn news<B: Bus>(self, nodes: Nodes<B>) -> impl Stream<Item = News> + Send {
        let Self { sender, heard, tasks } = self;
        // The news ends when all subscriptions have.
        drop(sender);
        stream::unfold((heard, tasks, Ear::default()), move |(mut heard, tasks, mut ear)| {
            let nodes = nodes.clone();
            async move {
                loop {
                    let news = match heard.recv().await? {
                        Heard::Message(said) => {
                            ear.hear(&nodes.voices(None), said.subject.as_str(), &said.payload)
                        }
                        Heard::Surplus(node) => Some(News::Surplus(node)),
                    };
                    if let Some(news) = news {
                        return Some((news, (heard, tasks, ear)));
                    }
                }
            }
        })
    }
}

async fn listen(
    node: NodeIndex,
    limit: Limit,
    mut said: impl Stream<Item = Message> + Send + Unpin,
    to: mpsc::Sender<Heard>,
) {
    let mut intake = Intake::new(limit, Instant::now());
    let mut told: Option<Instant> = None;
    let (mut is_to_tell, mut is_over) = (false, false);
    loop {
        tokio::select! {
            message = said.next(), if !is_over => {
                let Some(message) = message else {
                    is_over = true;
                    continue;
                };
                let (bytes, now) = (message.payload.len(), Instant::now());
                if intake.offer(message, bytes, now) == Offered::TooMuch
                    && told.is_none_or(|at| now.duration_since(at) >= SAY_AGAIN)
                {
                    (told, is_to_tell) = (Some(now), true);
                }
            }
            permit = to.reserve(), if is_to_tell || !intake.is_empty() => {
                let Ok(permit) = permit else { return };
                if std::mem::take(&mut is_to_tell) {
                    permit.send(Heard::Surplus(node));
                } else if let Some(message) = intake.take() {
                    permit.send(Heard::Message(message));
                }
            }
            else => return,
        }
    }
}
