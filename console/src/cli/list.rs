//! The list of ceremonies, in the words of nodes: newest first, as many as are asked for.

use std::path::PathBuf;

use anyhow::Result;
use ceremonies::charter::CeremonyKind;
use ceremonies::ids::{UnixMillis, WalletName};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::{Desk, Output};
use crate::client::{Row, Scope, Summary};

/// How many ceremonies are listed where nobody says how many.
const PAGE: usize = 50;

/// Where a ceremony stands, as far as a list tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Standing {
    /// Not over: gathering, authorised or committed.
    Running,
    Gathering,
    Authorised,
    Committed,
    Closed,
    Abandoned,
    Void,
}

impl Standing {
    /// Whether a phase, in a node's words, is this.
    fn is(self, phase: &str) -> bool {
        let word = phase.split([':', ' ']).next().unwrap_or_default();
        match self {
            Self::Running => ["gathering", "authorised", "committed"].contains(&word),
            Self::Gathering => word == "gathering",
            Self::Authorised => word == "authorised",
            Self::Committed => word == "committed",
            Self::Closed => word == "closed",
            Self::Abandoned => word == "abandoned",
            Self::Void => word == "void",
        }
    }
}

/// Which ceremonies are listed. What nodes disagree about is listed if any node's word fits.
#[derive(Debug, Default, Args)]
pub(super) struct Filter {
    /// Only those about this wallet.
    #[arg(long)]
    wallet: Option<WalletName>,
    /// Only those of this kind.
    #[arg(long)]
    kind: Option<CeremonyKind>,
    /// Only those that stand here. What does not fold is always listed.
    #[arg(long)]
    phase: Option<Standing>,
    /// Only those opened at this time or later, such as 2026-11-01T00:00:00Z.
    #[arg(long, value_name = "TIME")]
    since: Option<jiff::Timestamp>,
    /// Only those opened before this time.
    #[arg(long, value_name = "TIME")]
    until: Option<jiff::Timestamp>,
    /// At most so many, the newest first.
    #[arg(long, value_name = "COUNT", default_value_t = PAGE, conflicts_with = "all")]
    limit: usize,
    /// However many there are.
    #[arg(long)]
    all: bool,
}

impl Filter {
    fn fits(&self, summary: &Summary, is_set_aside: bool) -> bool {
        let at = |time: &jiff::Timestamp| UnixMillis(time.as_millisecond());
        self.wallet.as_ref().is_none_or(|wallet| summary.wallet == wallet.as_str())
            && self.kind.is_none_or(|kind| summary.kind == kind.to_string())
            && self.phase.is_none_or(|phase| is_set_aside || phase.is(&summary.phase))
            && self.since.as_ref().is_none_or(|since| summary.opened >= at(since))
            && self.until.as_ref().is_none_or(|until| summary.opened < at(until))
    }

    fn takes(&self, row: &Row, is_set_aside: bool) -> bool {
        row.said.values().any(|summary| self.fits(summary, is_set_aside))
    }

    fn most(&self) -> usize {
        if self.all { usize::MAX } else { self.limit }
    }
}

/// What nodes list, in their words: nothing of it is folded for this but the amendments. Of what was found not to fold
/// that is told, and no phase. Where this console has seen the very head recorded, that is said.
pub(super) async fn list(path: Option<PathBuf>, output: Output, filter: &Filter) -> Result<()> {
    let desk = Desk::open(path, Scope::Amendments).await?;
    let catalogue = &desk.library.catalogue;
    let nodes = desk.book.context().charter().members().len();
    let seen: std::collections::BTreeMap<_, _> = desk.client.memory().all_seen().into_iter().collect();
    let aside_of = |row: &Row| desk.library.aside.iter().find(|log| log.ceremony == row.id);
    let fitting: Vec<&Row> =
        catalogue.rows.iter().filter(|row| filter.takes(row, aside_of(row).is_some())).collect();
    let (mut lines, mut values) = (Vec::new(), Vec::new());
    for row in fitting.iter().take(filter.most()) {
        let Some(summary) = row.summary() else { continue };
        let recorded = seen.get(&row.id).is_some_and(|seen| seen.hash == summary.tip.hash);
        let agreement = if recorded && row.heads().len() == 1 {
            "seen recorded".to_owned()
        } else {
            row.agreement(nodes)
        };
        let aside = aside_of(row);
        let state = aside.map_or_else(|| summary.phase.clone(), |log| format!("! SET ASIDE: it {log}"));
        lines.push(format!("{:<36} {state}  [{agreement}]", row.id));
        let heads: Vec<Value> = row
            .heads()
            .into_iter()
            .map(|(tip, nodes)| json!({ "seq": tip.seq, "hash": tip.hash, "nodes": nodes }))
            .collect();
        values.push(json!({
            "id": row.id,
            "kind": summary.kind,
            "wallet": summary.wallet,
            "generation": summary.generation,
            "phase": aside.is_none().then_some(&summary.phase),
            "set_aside": aside.map(|log| json!({ "from": log.from(), "why": log.to_string() })),
            "opened": summary.opened.to_string(),
            "last": summary.last.to_string(),
            "seen_recorded": recorded,
            "heads": heads,
        }));
    }
    if catalogue.rows.is_empty() {
        lines.push("no node that answered lists a ceremony".to_owned());
    } else if lines.is_empty() {
        lines.push(format!("none of {} ceremonies is such", catalogue.rows.len()));
    }
    let left = fitting.len().saturating_sub(filter.most());
    if left > 0 {
        lines.push(format!("{left} older ones are not shown: --all, or --limit COUNT"));
    }
    if !catalogue.troubles.is_empty() {
        lines.push(format!("not heard: {}", catalogue.troubles));
    }
    output.print(&json!(values), &lines.join("\n"))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use std::collections::BTreeMap;

    use ceremonies::ids::{Hash, NodeIndex};
    use ceremonies::record::Tip;
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        filter: Filter,
    }

    fn filter(arguments: &[&str]) -> Filter {
        Line::try_parse_from([&["list"], arguments].concat()).unwrap().filter
    }

    fn summary(phase: &str) -> Summary {
        Summary {
            tip: Tip { seq: 4, hash: Hash::ZERO },
            kind: "dkg".to_owned(),
            wallet: "treasury".to_owned(),
            generation: 1,
            phase: phase.to_owned(),
            opened: UnixMillis(1_800_000_000_000),
            last: UnixMillis(1_800_000_100_000),
        }
    }

    fn row(phases: &[&str]) -> Row {
        let said = (1..).zip(phases).map(|(node, phase)| (NodeIndex::new(node).unwrap(), summary(phase)));
        Row { id: "dkg-treasury-1".parse().unwrap(), said: said.collect::<BTreeMap<_, _>>() }
    }

    #[test]
    fn everything_is_listed_where_nothing_is_asked_for() {
        assert!(filter(&[]).takes(&row(&["closed"]), false));
        assert_eq!(filter(&[]).most(), PAGE);
        assert_eq!(filter(&["--limit", "3"]).most(), 3);
        assert_eq!(filter(&["--all"]).most(), usize::MAX);
    }

    #[test]
    fn ceremony_is_listed_by_wallet_kind_and_time() {
        let row = row(&["closed"]);
        for (arguments, takes) in [
            (["--wallet", "treasury"], true),
            (["--wallet", "treasury-2"], false),
            (["--kind", "dkg"], true),
            (["--kind", "refresh"], false),
            (["--since", "2027-01-15T08:00:00Z"], true),
            (["--since", "2027-01-15T08:00:01Z"], false),
            (["--until", "2027-01-15T08:00:00Z"], false),
            (["--until", "2027-01-15T08:00:01Z"], true),
        ] {
            assert_eq!(filter(&arguments).takes(&row, false), takes, "{arguments:?}");
        }
        assert!(!filter(&["--wallet", "treasury", "--kind", "refresh"]).takes(&row, false));
    }

    #[test]
    fn ceremony_is_listed_by_where_it_stands_whatever_the_reason() {
        for (phase, names) in [
            ("gathering", ["running", "gathering"]),
            ("authorised", ["running", "authorised"]),
            ("committed", ["running", "committed"]),
            ("closed", ["closed", "closed"]),
            ("abandoned after the commit: closed", ["abandoned", "abandoned"]),
            ("void: withdrawn by olga, closed", ["void", "void"]),
        ] {
            for standing in Standing::value_variants() {
                let name = standing.to_possible_value().unwrap().get_name().to_owned();
                let takes = filter(&["--phase", &name]).takes(&row(&[phase]), false);
                assert_eq!(takes, names.contains(&name.as_str()), "{phase} as {name}");
            }
        }
    }

    #[test]
    fn what_nodes_disagree_about_or_what_does_not_fold_is_not_hidden() {
        let filter = filter(&["--phase", "void"]);
        assert!(filter.takes(&row(&["closed", "void: expired"]), false));
        assert!(!filter.takes(&row(&["closed"]), false));
        assert!(filter.takes(&row(&["closed"]), true));
    }
}
