//! Which node to ask, and when to ask another: no question ever waits for one node alone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ceremonies::ids::NodeIndex;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, timeout_at};

use super::trouble::{Trouble, Troubles};

/// How long to wait for a node.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// How long before another is asked as well.
    pub(super) patience: Duration,
    /// In all.
    pub(super) limit: Duration,
}

/// How long to wait for nodes that were silent before, once all others have answered.
const GRACE: Duration = Duration::from_millis(100);

/// Asks nodes in turn, the next as soon as the ones before have failed or kept silent for too long. The first answer wins.
pub(super) async fn first<T, F>(
    nodes: &[NodeIndex],
    pace: Pace,
    ask: impl Fn(NodeIndex) -> F,
) -> Result<(NodeIndex, T, Troubles), Troubles>
where
    F: Future<Output = Result<T, Trouble>>,
{
    let begun = Instant::now();
    let until = begun + pace.limit;
    let mut asked = FuturesUnordered::new();
    let mut pending: BTreeMap<NodeIndex, Instant> = BTreeMap::new();
    let mut troubles = Troubles::default();
    let mut rest = nodes.iter().copied().peekable();
    loop {
        if let Some(node) = rest.next() {
            let answer = ask(node);
            asked.push(async move { (node, answer.await) });
            pending.insert(node, Instant::now());
        }
        let wait = if rest.peek().is_some() { until.min(Instant::now() + pace.patience) } else { until };
        match timeout_at(wait, asked.next()).await {
            Ok(Some((node, Ok(answer)))) => {
                pending.remove(&node);
                silence(&mut troubles, &pending);
                return Ok((node, answer, troubles));
            }
            Ok(Some((node, Err(trouble)))) => {
                pending.remove(&node);
                troubles.add(node, trouble);
            }
            // Every node that was asked has failed.
            Ok(None) if rest.peek().is_none() => return Err(troubles),
            Err(_) if Instant::now() >= until => {
                silence(&mut troubles, &pending);
                return Err(troubles);
            }
            Ok(None) | Err(_) => {}
        }
    }
}

/// Those who were asked and have not answered, as far as they had time to.
fn silence(troubles: &mut Troubles, pending: &BTreeMap<NodeIndex, Instant>) {
    for (node, since) in pending {
        troubles.add(*node, Trouble::Silent(since.elapsed()));
    }
}

/// What all nodes answered.
#[derive(Debug)]
pub(super) struct Everyone<T> {
    pub(super) answers: BTreeMap<NodeIndex, T>,
    pub(super) troubles: Troubles,
}

/// Asks all nodes at once. Waits until each has answered or failed; once some have answered, waits no longer than
/// `patience` for the rest, and hardly at all for those that were `quiet` before.
pub(super) async fn everyone<T, F>(
    nodes: &BTreeSet<NodeIndex>,
    quiet: &BTreeSet<NodeIndex>,
    pace: Pace,
    ask: impl Fn(NodeIndex) -> F,
) -> Everyone<T>
where
    F: Future<Output = Result<T, Trouble>>,
{
    let begun = Instant::now();
    let mut asked = FuturesUnordered::new();
    for node in nodes {
        let (node, answer) = (*node, ask(*node));
        asked.push(async move { (node, answer.await) });
    }
    let mut pending: BTreeMap<NodeIndex, Instant> = nodes.iter().map(|node| (*node, begun)).collect();
    let mut answers = BTreeMap::new();
    let mut troubles = Troubles::default();
    loop {
        let mut until = begun + if answers.is_empty() { pace.limit } else { pace.patience };
        if !answers.is_empty() && pending.keys().all(|node| quiet.contains(node)) {
            until = until.min(Instant::now() + GRACE);
        }
        match timeout_at(until, asked.next()).await {
            Ok(Some((node, answer))) => {
                pending.remove(&node);
                match answer {
                    Ok(answer) => {
                        answers.insert(node, answer);
                    }
                    Err(trouble) => troubles.add(node, trouble),
                }
            }
            Ok(None) => break,
            Err(_) => {
                silence(&mut troubles, &pending);
                break;
            }
        }
    }
    Everyone { answers, troubles }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
    use super::*;

    const PACE: Pace = Pace { patience: Duration::from_millis(5), limit: Duration::from_millis(200) };

    fn nodes(indices: &[u8]) -> Vec<NodeIndex> {
        indices.iter().map(|index| NodeIndex::new(*index).unwrap()).collect()
    }

    /// Nodes from 10 on are silent for ever, those from 5 on fail at once.
    async fn answer(node: NodeIndex) -> Result<u8, Trouble> {
        match node.get() {
            index @ 0..5 => Ok(index),
            5..10 => Err(Trouble::Absent),
            _ => std::future::pending().await,
        }
    }

    async fn asked(indices: &[u8]) -> Result<(NodeIndex, u8, Troubles), Troubles> {
        first(&nodes(indices), PACE, answer).await
    }

    #[tokio::test]
    async fn first_node_alone_is_asked_when_it_answers() {
        let count = std::cell::Cell::new(0);
        let ask = |node| {
            count.set(count.get() + 1);
            answer(node)
        };
        let (node, _, troubles) = first(&nodes(&[2, 1, 3]), PACE, ask).await.unwrap();
        assert_eq!((node.get(), count.get(), troubles.is_empty()), (2, 1, true));
    }

    #[tokio::test]
    async fn silent_and_absent_nodes_are_passed_over_and_named() {
        let (node, _, troubles) = asked(&[10, 5, 11, 3]).await.unwrap();
        assert_eq!(node.get(), 3);
        assert_eq!(troubles.nodes().map(NodeIndex::get).collect::<BTreeSet<_>>(), [5, 10, 11].into());
        assert!(matches!(troubles.of(nodes(&[5])[0]), Some(Trouble::Absent)));
    }

    #[tokio::test]
    async fn question_ends_at_its_limit_when_everybody_is_silent() {
        let troubles = asked(&[10, 11]).await.unwrap_err();
        assert!(troubles.iter().all(|(_, trouble)| matches!(trouble, Trouble::Silent(_))), "{troubles}");
        assert_eq!(troubles.nodes().count(), 2);
    }

    #[tokio::test]
    async fn question_ends_at_once_when_everybody_failed() {
        let begun = Instant::now();
        let troubles = asked(&[5, 6]).await.unwrap_err();
        assert_eq!(troubles.nodes().count(), 2);
        assert!(begun.elapsed() < PACE.limit);
        assert!(asked(&[]).await.unwrap_err().is_empty());
    }

    #[tokio::test]
    async fn nobody_waits_long_for_a_silent_node_once_others_answered() {
        let begun = Instant::now();
        let all: BTreeSet<NodeIndex> = nodes(&[1, 2, 6, 10]).into_iter().collect();
        let everyone = everyone(&all, &BTreeSet::new(), PACE, answer).await;
        assert!(begun.elapsed() < PACE.limit);
        assert_eq!(everyone.answers.keys().map(|node| node.get()).collect::<Vec<_>>(), [1, 2]);
        assert!(matches!(everyone.troubles.of(nodes(&[10])[0]), Some(Trouble::Silent(_))));
        assert!(matches!(everyone.troubles.of(nodes(&[6])[0]), Some(Trouble::Absent)));
    }

    #[tokio::test]
    async fn everybody_is_waited_for_to_the_limit_while_nobody_answered() {
        let begun = Instant::now();
        let all: BTreeSet<NodeIndex> = nodes(&[6, 10]).into_iter().collect();
        let everyone = everyone(&all, &all, PACE, answer).await;
        assert!(everyone.answers.is_empty() && begun.elapsed() >= PACE.limit);
    }
}
