//! What was wrong with this node and is over, for whoever looks later: a console that was not there, or the people on
//! call in the morning. It is kept in memory: after a restart it begins anew, and the heartbeat says since when.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ceremonies::ids::{Line, UnixMillis};
use ceremonies::wire::bus;

use super::{Core, Now};

/// How many troubles are remembered: those that ended last.
const MAX_PAST: usize = 8;
/// What is over this soon after the start belongs to starting, in milliseconds.
const START_MS: u64 = 10_000;

/// The troubles of this node.
#[derive(Debug)]
pub(super) struct Past {
    started: Now,
    /// What is wrong with a part.
    now: BTreeMap<&'static str, Trouble>,
    /// The parts that were well at some time: only what was never well can still be starting.
    well: BTreeSet<&'static str>,
    /// What is over, the last first.
    over: VecDeque<bus::PastTrouble>,
}

/// What is wrong with a part, and since when.
#[derive(Debug)]
struct Trouble {
    /// The cause.
    first: Line,
    /// What came of it: the words of a recovery that is nearly done say nothing of the cause.
    last: Line,
    since: UnixMillis,
}

impl Trouble {
    /// The first words, and the last if they say something else. Where only a number has changed, the last say it all.
    fn words(&self) -> Line {
        let without_numbers = |line: &Line| line.as_str().replace(|c: char| c.is_ascii_digit(), "");
        if without_numbers(&self.first) == without_numbers(&self.last) {
            self.last.clone()
        } else {
            Line::lossy(&format!("{}; then: {}", self.first, self.last))
        }
    }
}

impl Past {
    pub(super) fn new(started: Now) -> Self {
        Self { started, now: BTreeMap::new(), well: BTreeSet::new(), over: VecDeque::new() }
    }

    /// Notes how a part is: what is wrong with it, or nothing.
    pub(super) fn note(&mut self, part: &'static str, trouble: &str, now: Now) {
        if !trouble.is_empty() {
            let last = Line::lossy(trouble);
            let first = last.clone();
            let begins = || Trouble { first: first.clone(), last: first, since: now.wall };
            let known = self.now.entry(part).or_insert_with(begins);
            known.last = last;
            return;
        }
        let was_well = !self.well.insert(part);
        if let Some(trouble) = self.now.remove(part)
            && (was_well || now.steady.saturating_sub(self.started.steady) > START_MS)
        {
            self.over.truncate(MAX_PAST - 1);
            self.over.push_front(bus::PastTrouble {
                part: part.to_owned(),
                text: trouble.words().to_string(),
                since_ms: trouble.since.0,
                until_ms: now.wall.0,
            });
        }
    }

    pub(super) fn started(&self) -> UnixMillis {
        self.started.wall
    }

    pub(super) fn told(&self) -> Vec<bus::PastTrouble> {
        self.over.iter().cloned().collect()
    }
}

impl Core {
    /// Notes what is wrong now, and what no longer is.
    pub(super) fn note_troubles(&mut self) {
        let now = self.now;
        let (enclave, stream) = (self.enclave_trouble(), self.stream_trouble().unwrap_or_default());
        let observed = &self.observed;
        for (part, trouble) in [
            ("enclave", enclave.as_str()),
            ("store", observed.store_trouble().text()),
            ("stream", &stream),
            ("KMS", observed.kms.text()),
            ("backups", observed.vault.text()),
        ] {
            self.past.note(part, trouble, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Now {
        Now {
            wall: UnixMillis(1_000_000 + i64::try_from(seconds * 1000).unwrap_or_default()),
            steady: seconds * 1000,
        }
    }

    fn told(past: &Past) -> Vec<(String, String, i64)> {
        let past = past.told().into_iter();
        past.map(|past| (past.part, past.text, (past.until_ms - past.since_ms) / 1000)).collect()
    }

    #[test]
    fn trouble_is_told_once_it_is_over_in_words_and_with_its_time() {
        let mut past = Past::new(at(0));
        past.note("enclave", "no answer for 11 s", at(20));
        past.note("enclave", "no answer for 12 s", at(21));
        assert!(told(&past).is_empty());
        past.note("store", "full", at(22));
        past.note("enclave", "", at(25));
        past.note("enclave", "", at(26));
        assert_eq!(told(&past), [("enclave".to_owned(), "no answer for 12 s".to_owned(), 5)]);
        past.note("store", "", at(27));
        assert_eq!(told(&past)[0], ("store".to_owned(), "full".to_owned(), 5));
    }

    #[test]
    fn trouble_is_told_in_its_first_words_and_in_its_last_if_they_say_something_else() {
        for (words, told_as) in [
            (&["full"][..], "full"),
            (&["full", "full"], "full"),
            (&["no answer for 9 s", "no answer for 12 s"], "no answer for 12 s"),
            (&["full (at 10:00)", "being read", "full (at 10:07)"], "full (at 10:07)"),
            (
                &["the broker is not connected", "not checked", "the stream is being read"],
                "the broker is not connected; then: the stream is being read",
            ),
        ] {
            let mut past = Past::new(at(0));
            past.note("stream", "", at(20));
            for (second, word) in (21..).zip(words) {
                past.note("stream", word, at(second));
            }
            past.note("stream", "", at(30));
            assert_eq!(told(&past)[0].1, told_as);
        }
        let mut past = Past::new(at(0));
        past.note("stream", &"x".repeat(9000), at(21));
        past.note("stream", &"y".repeat(9000), at(22));
        past.note("stream", "", at(30));
        assert!(told(&past)[0].1.len() <= Line::lossy(&"x".repeat(9000)).as_str().len(), "it has a limit");
    }

    #[test]
    fn start_is_no_trouble_unless_it_takes_long() {
        let mut past = Past::new(at(100));
        past.note("enclave", "not connected yet", at(100));
        past.note("stream", "not checked", at(100));
        past.note("stream", "", at(102));
        past.note("enclave", "", at(115));
        assert_eq!(told(&past), [("enclave".to_owned(), "not connected yet".to_owned(), 15)]);

        let mut quick = Past::new(at(100));
        quick.note("enclave", "not connected yet", at(100));
        quick.note("enclave", "", at(101));
        quick.note("enclave", "the link was lost", at(103));
        quick.note("enclave", "", at(104));
        assert_eq!(told(&quick), [("enclave".to_owned(), "the link was lost".to_owned(), 1)]);
    }

    #[test]
    fn those_that_ended_last_are_remembered() {
        let mut past = Past::new(at(0));
        for second in 100..150 {
            past.note("KMS", &format!("refusal {second}"), at(2 * second));
            past.note("KMS", "", at(2 * second + 1));
        }
        let told = told(&past);
        assert_eq!(told.len(), MAX_PAST);
        assert_eq!((told[0].1.as_str(), told[MAX_PAST - 1].1.as_str()), ("refusal 149", "refusal 142"));
    }
}
