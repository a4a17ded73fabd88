//! Drills: something breaks on purpose, and the time is taken until it is shown, until every wallet can sign again, and
//! until everything is as well as before.
//!
//! What a drill is lies in `runbooks/drills`. Nothing here breaks, waits or listens; `cli` does.

mod course;
mod fault;
mod report;

use ceremonies::ids::NodeIndex;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use self::course::{Course, Patience, Shown, Stage, Start, Targets, Timed, Turn, Unwell};
pub use self::fault::Fault;
pub use self::report::{MAX_REPORT, NAMESPACE, NotSigned, Programs, Report, chart, seconds, signer};
use crate::checks::Check;

/// Every drill: its name, and its file in `runbooks/drills`.
const DRILLS: [(&str, &str); 9] = [
    ("node-stopped", include_str!("../../../runbooks/drills/node-stopped.toml")),
    ("enclave-frozen", include_str!("../../../runbooks/drills/enclave-frozen.toml")),
    ("broker-stopped", include_str!("../../../runbooks/drills/broker-stopped.toml")),
    ("network-split", include_str!("../../../runbooks/drills/network-split.toml")),
    ("store-refuses", include_str!("../../../runbooks/drills/store-refuses.toml")),
    ("kms-refuses", include_str!("../../../runbooks/drills/kms-refuses.toml")),
    ("backups-gone", include_str!("../../../runbooks/drills/backups-gone.toml")),
    ("clock-skewed", include_str!("../../../runbooks/drills/clock-skewed.toml")),
    ("bus-slow", include_str!("../../../runbooks/drills/bus-slow.toml")),
];

/// A drill, as its file has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drill {
    /// What happens, in a few words.
    pub title: String,
    /// What is read to those present before it begins.
    pub what: String,
    /// How the lab breaks it.
    pub fault: Fault,
    /// How people break it on any other cluster.
    pub by_hand: String,
    /// How the lab mends it.
    pub mend: Fault,
    /// How people mend it.
    pub mend_by_hand: String,
    /// The check that must be shown.
    pub check: Check,
    /// Of which node; if none, of any node or wallet.
    pub node: Option<NodeIndex>,
    /// The page and place of the runbooks to open.
    pub runbook: String,
    /// How soon.
    pub target_s: Targets,
}

/// Why there is no such drill.
#[derive(Debug, Error)]
pub enum DrillError {
    /// No file has this name.
    #[error("`{0}` is not a drill: `custody drill list` shows them")]
    Unknown(String),
    /// Its file is malformed.
    #[error("runbooks/drills/{name}.toml is malformed")]
    Malformed {
        /// Whose.
        name: &'static str,
        /// Why.
        source: Box<toml::de::Error>,
    },
}

impl Drill {
    /// The names of all drills.
    pub fn names() -> impl Iterator<Item = &'static str> {
        DRILLS.into_iter().map(|(name, _)| name)
    }

    /// The drill of this name.
    ///
    /// # Errors
    /// [`DrillError`] for any other name.
    pub fn named(name: &str) -> Result<Self, DrillError> {
        let found = DRILLS.into_iter().find(|(known, _)| *known == name);
        let (name, text) = found.ok_or_else(|| DrillError::Unknown(name.to_owned()))?;
        Self::parse(text).map_err(|source| DrillError::Malformed { name, source: Box::new(source) })
    }

    /// Reads a drill's file.
    ///
    /// # Errors
    /// When it is not one.
    pub fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    use super::*;

    fn runbooks() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../runbooks")
    }

    fn file(name: &str) -> &'static str {
        DRILLS.into_iter().find(|(known, _)| *known == name).unwrap().1
    }

    #[test]
    fn every_file_of_the_folder_is_a_drill_and_every_drill_is_in_it() {
        let files = std::fs::read_dir(runbooks().join("drills")).unwrap();
        let files: BTreeSet<String> =
            files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        let drills: BTreeSet<String> = Drill::names().map(|name| format!("{name}.toml")).collect();
        assert_eq!(files, drills);
    }

    #[test]
    fn every_drill_opens_a_place_of_the_runbooks_and_asks_for_no_more_than_its_check_promises() {
        for name in Drill::names() {
            let drill = Drill::named(name).unwrap();
            let (page, anchor) = drill.runbook.split_once('#').unwrap();
            let page = std::fs::read_to_string(runbooks().join(page)).unwrap();
            let mut headings = page.lines().filter(|line| line.starts_with('#'));
            let is_kept = |c: &char| c.is_alphanumeric() || *c == ' ';
            let link = |heading: &str| {
                let words: String = heading.trim_start_matches('#').trim().chars().filter(is_kept).collect();
                words.to_lowercase().replace(' ', "-")
            };
            assert!(headings.any(|heading| link(heading) == anchor), "{name}: {}", drill.runbook);
            assert!(Some(drill.target_s.detect) > drill.check.within_s(), "{name}");
            for text in [&drill.what, &drill.by_hand, &drill.mend_by_hand] {
                assert!(text.len() > 20 && text.trim() == text, "{name}: {text}");
            }
            assert!(drill.node.is_none_or(|node| node.get() <= 3), "{name}");
        }
    }

    #[test]
    fn what_is_no_drill_is_refused() {
        let text = file("node-stopped");
        assert!(Drill::parse(text).is_ok());
        for (from, to, why) in [
            ("node = 2", "node = 0", "node"),
            ("node = 2", "nodes = 2", "unknown field"),
            ("check = \"node-silent\"", "check = \"node-asleep\"", "is not in runbooks/checks.md"),
            ("fault = \"stop-node 2\"", "fault = \"stop-node\"", "is not a fault"),
            ("fault = \"stop-node 2\"", "fault = \"stop-node 2 3\"", "is not a fault"),
            ("fault = \"stop-node 2\"", "fault = \"stop-node two\"", "is not a node"),
            ("fault = \"stop-node 2\"", "fault = \"rm -rf 2\"", "is not a fault"),
            ("title = \"One node stopped\"", "", "missing field `title`"),
            ("service = 0", "service = -1", "-1"),
            ("service = 0", "", "missing field `service`"),
            ("service = 0", "service = 0\ndecide = 1", "unknown field"),
        ] {
            assert!(text.contains(from), "{from}");
            let refused = Drill::parse(&text.replace(from, to)).unwrap_err().to_string();
            assert!(refused.contains(why), "{to}: {refused}");
        }
        assert!(Drill::named("node-asleep").unwrap_err().to_string().contains("custody drill list"));
    }
}
