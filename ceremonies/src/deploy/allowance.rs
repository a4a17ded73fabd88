//! What one sender may send on the bus, and how much of it may wait.
//!
//! Whoever listens keeps an [`Intake`] for each sender, and drops the rest unread, before anything is decoded or any
//! signature is checked: junk costs the others no more than this, however much of it there is. A subject names its sender,
//! as the broker has it ([`crate::deploy::broker`]): that is enough to count by, and never enough to believe.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use prost::encoding::{WireType, decode_key, decode_varint};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// Bytes that one sender may send on subjects of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// For as long as it likes, in a second.
    pub per_second: u64,
    /// At once, after it has been quiet; also what may wait to be read.
    pub at_once: u64,
}

/// News of heads. The largest honest message tells of a fork: where each of 20 nodes stands, with the votes of 20.
pub const HEADS: Limit = Limit { per_second: 256 * KIB, at_once: 2 * MIB };
/// Heartbeats: one a second.
pub const HEALTH: Limit = Limit { per_second: 64 * KIB, at_once: MIB };
/// Progress: each phase of a session, and who is awaited in it, once a second.
pub const PROGRESS: Limit = Limit { per_second: 64 * KIB, at_once: MIB };
/// What nodes ask of each other, and the entries that they answer with. What is too much at once is asked for again.
pub const PEERS: Limit = Limit { per_second: 2 * MIB, at_once: 8 * MIB };
/// Protocol messages. Their largest is the bus's.
pub const SESSIONS: Limit = Limit { per_second: 4 * MIB, at_once: 16 * MIB };
/// What consoles ask of a node: all consoles together.
pub const REQUESTS: Limit = Limit { per_second: MIB, at_once: 8 * MIB };

/// What each message counts for besides its bytes: it has to be carried and read, however short it is.
const EACH: u64 = 512;
/// The most heads in one message of news, and the most votes with one of them. Honest nodes send no more.
const MAX_HEADS: usize = 64;

impl Limit {
    /// How long it takes until so many bytes may be sent again.
    fn time(&self, bytes: u64) -> Duration {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.per_second.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offered {
    /// It waits to be read.
    Taken,
    /// Its sender sends more than it may: it is dropped, and costs nothing of what may be sent later.
    TooMuch,
    /// Whoever reads is too slow, which is not its sender's fault: it is dropped.
    NoRoom,
}

/// Messages of one sender that wait to be read: no more than it may send.
#[derive(Debug)]
pub struct Intake<T> {
    limit: Limit,
    /// When it may send as much at once as ever.
    rested_at: Instant,
    waiting: VecDeque<(T, u64)>,
    waiting_bytes: u64,
}

impl<T> Intake<T> {
    /// Nothing, from a sender who has sent nothing yet.
    #[must_use]
    pub fn new(limit: Limit, now: Instant) -> Self {
        Self { limit, rested_at: now, waiting: VecDeque::new(), waiting_bytes: 0 }
    }

    /// Takes a message of so many bytes, if its sender may send it now and there is room.
    pub fn offer(&mut self, message: T, bytes: usize, now: Instant) -> Offered {
        let size = u64::try_from(bytes).unwrap_or(u64::MAX).saturating_add(EACH);
        let rested_at = self.rested_at.max(now) + self.limit.time(size);
        if rested_at > now + self.limit.time(self.limit.at_once) {
            return Offered::TooMuch;
        }
        self.rested_at = rested_at;
        if self.waiting_bytes + size > self.limit.at_once {
            return Offered::NoRoom;
        }
        self.waiting_bytes += size;
        self.waiting.push_back((message, size));
        Offered::Taken
    }

    /// The message that has waited longest.
    pub fn take(&mut self) -> Option<T> {
        let (message, size) = self.waiting.pop_front()?;
        self.waiting_bytes -= size;
        Some(message)
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

/// Whether this can be news of heads, by no more than its outline: as many heads and votes as honest nodes send.
#[must_use]
pub fn is_news(bytes: &[u8]) -> bool {
    let is_head = |head: &&[u8]| fields(head).is_some_and(|fields| fields.len() <= 1 + MAX_HEADS);
    fields(bytes).is_some_and(|heads| heads.len() <= MAX_HEADS && heads.iter().all(is_head))
}

/// The fields of a message that has only such as name their length, and not many more than news has.
fn fields(mut bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() && fields.len() <= 1 + MAX_HEADS {
        let (_, wire_type) = decode_key(&mut bytes).ok()?;
        let length = decode_varint(&mut bytes).ok().filter(|_| wire_type == WireType::LengthDelimited)?;
        let (field, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
        fields.push(field);
        bytes = rest;
    }
    Some(fields)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
    use std::convert::Infallible;

    use prost::Message as _;

    use super::*;
    use crate::ids::{CeremonyId, Hash, NodeIndex, UnixMillis};
    use crate::record::{Head, Lock, SignedHead, Tip};
    use crate::wire::record::{HeadNews, News};

    const LIMIT: Limit = Limit { per_second: 10_000, at_once: 30_000 };
    const BYTES: usize = 10_000 - 512;
    const SECOND: Duration = Duration::from_secs(1);

    fn offered(intake: &mut Intake<u8>, now: Instant, messages: u8) -> Vec<Offered> {
        let offer = |message| {
            let offered = intake.offer(message, BYTES, now);
            intake.take();
            offered
        };
        (0..messages).map(offer).collect()
    }

    #[test]
    fn sender_may_send_some_at_once_and_then_so_much_in_a_second() {
        use Offered::{Taken, TooMuch};
        let begun = Instant::now();
        let mut intake = Intake::new(LIMIT, begun);
        assert_eq!(offered(&mut intake, begun, 5), [Taken, Taken, Taken, TooMuch, TooMuch]);
        assert_eq!(offered(&mut intake, begun + SECOND, 3), [Taken, TooMuch, TooMuch]);
        // However long it was quiet, it may not send more at once.
        assert_eq!(offered(&mut intake, begun + 100 * SECOND, 4), [Taken, Taken, Taken, TooMuch]);
    }

    #[test]
    fn message_larger_than_everything_at_once_is_never_taken_and_costs_the_next_nothing() {
        let now = Instant::now();
        let mut intake = Intake::new(LIMIT, now);
        for too_large in [30_001, usize::MAX] {
            assert_eq!(intake.offer(0, too_large, now), Offered::TooMuch);
        }
        assert_eq!(offered(&mut intake, now, 3), [Offered::Taken; 3]);
    }

    #[test]
    fn empty_messages_are_counted_too() {
        let now = Instant::now();
        let mut intake = Intake::new(LIMIT, now);
        let taken = (0..1000).filter(|_| intake.offer((), 0, now) == Offered::Taken).count();
        assert!(taken < 60, "{taken}");
    }

    #[test]
    fn what_waits_is_bounded_and_a_slow_reader_is_not_its_senders_fault() {
        let begun = Instant::now();
        let mut intake = Intake::new(LIMIT, begun);
        let offers = (0..20).map(|second| intake.offer(second, BYTES, begun + 10 * second * SECOND));
        let offers: Vec<Offered> = offers.collect();
        assert_eq!(offers[..3], [Offered::Taken; 3]);
        assert_eq!(offers[3..], [Offered::NoRoom; 17]);
        let waiting: Vec<u32> = std::iter::from_fn(|| intake.take()).collect();
        assert_eq!(waiting, [0, 1, 2], "the oldest first");
        assert!(intake.is_empty());
    }

    /// The news of a fork in the largest cluster: where each node stands, with the votes of all, in the longest words.
    fn of_a_fork(heads: u8, votes: u8) -> Vec<u8> {
        let head = |node: u8| {
            let tip = Tip { seq: 1_000_000, hash: Hash::of_bytes(&[node]) };
            let head = Head {
                cluster: "c".repeat(64).parse().unwrap(),
                ceremony: format!("dkg-{}-0123456789abcdef", "w".repeat(40)).parse::<CeremonyId>().unwrap(),
                node: NodeIndex::new(node % 20 + 1).unwrap(),
                round: u32::MAX,
                votes: true,
                tip,
                lock: Some(Lock { round: u32::MAX, tip }),
                time: UnixMillis(1_795_000_000_000),
            };
            SignedHead::create(head, |_| Ok::<_, Infallible>(vec![0; 64])).unwrap().raw().clone()
        };
        let told = |node| HeadNews { head: Some(head(node)), proof: (0..votes).map(head).collect() };
        News { heads: (0..heads).map(told).collect() }.encode_to_vec()
    }

    #[test]
    fn largest_honest_news_is_taken_again_and_again() {
        let news = of_a_fork(20, 20);
        assert!(is_news(&news));
        let now = Instant::now();
        let mut intake = Intake::new(HEADS, now);
        for _ in 0..10 {
            assert_eq!(intake.offer((), news.len(), now), Offered::Taken, "{} bytes", news.len());
        }
        let later = now + Duration::from_secs(1);
        assert_eq!(intake.offer((), news.len(), later), Offered::Taken, "and one a second from then on");
    }

    #[test]
    fn news_of_more_heads_or_votes_than_nodes_send_is_none() {
        assert!(is_news(&[]) && is_news(&of_a_fork(64, 0)) && is_news(&of_a_fork(1, 64)));
        for junk in [
            of_a_fork(65, 0),
            of_a_fork(1, 65),
            of_a_fork(2, 1)[1..].to_vec(),
            [0x0a, 0x00].repeat(500_000),
            [[0x0a, 0xff, 0xff, 0x03].to_vec(), [0x12, 0x00].repeat(32_767)].concat(),
            vec![0xff; 40],
            vec![0x08, 0x01],
            b"{}".to_vec(),
        ] {
            assert!(!is_news(&junk), "{} bytes", junk.len());
        }
    }
}
