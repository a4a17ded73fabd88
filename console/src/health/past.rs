//! What was wrong with a node and is over, as the node tells it.

use std::fmt;

use ceremonies::ids::UnixMillis;
use ceremonies::text::one_line;
use ceremonies::wire::bus::Heartbeat;
use serde::Serialize;

/// A trouble of one of a node's parts that is over, as the node tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PastTrouble {
    /// Of which part.
    pub part: String,
    /// What was wrong.
    pub text: String,
    /// When it was first found, by the node's clock.
    pub since: UnixMillis,
    /// When it was over.
    pub until: UnixMillis,
}

impl fmt::Display for PastTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}, {}: {}", self.since, self.until, self.part, self.text)
    }
}

/// For how long what is over is still shown, in milliseconds.
const LATELY_MS: i64 = 60 * 60 * 1000;
/// How far in the future it may end, in milliseconds.
const MAX_AHEAD_MS: i64 = 10 * 60 * 1000;
/// The most of it: what one node says must not fill the screen.
const MAX_LATELY: usize = 8;

pub(super) fn lately(heartbeat: &Heartbeat, now: UnixMillis) -> Vec<PastTrouble> {
    let past = heartbeat.past.iter().take(MAX_LATELY).map(|past| PastTrouble {
        part: one_line(&past.part),
        text: one_line(&past.text),
        since: UnixMillis(past.since_ms),
        until: UnixMillis(past.until_ms),
    });
    // A node's clock may be off; what is said to end much later is made up.
    past.filter(|past| (-MAX_AHEAD_MS..=LATELY_MS).contains(&now.since(past.until))).collect()
}

#[cfg(test)]
mod tests {
    use ceremonies::wire::bus;

    use super::*;

    #[test]
    fn what_is_over_is_shown_for_an_hour_eight_lines_at_most_and_in_plain_text() {
        let now = UnixMillis(100 * LATELY_MS);
        let past = |text: &str, ago| bus::PastTrouble {
            part: "store".to_owned(),
            text: text.to_owned(),
            since_ms: now.0 - ago - 1000,
            until_ms: now.0 - ago,
        };
        let shown = |past| {
            let heartbeat = Heartbeat { past, ..Heartbeat::default() };
            lately(&heartbeat, now).into_iter().map(|past| past.text).collect::<Vec<_>>()
        };
        assert_eq!(
            shown(vec![past("full", LATELY_MS), past("old", LATELY_MS + 1), past("a\u{1b}[2Jb", -5000)]),
            ["full", &one_line("a\u{1b}[2Jb")]
        );
        assert!(!shown(vec![past("a\u{1b}[2Jb", 0)])[0].contains('\u{1b}'));
        assert_eq!(shown(vec![past("full", 0); 100]).len(), MAX_LATELY);
        assert!(shown(Vec::new()).is_empty());
    }
}
