//! The list of ceremonies as nodes report them: newest first, as many as are asked for.

use std::path::PathBuf;

use anyhow::{Result, anyhow};
use ceremonies::book::Book;
use ceremonies::ceremony::Ceremony;
use ceremonies::charter::CeremonyKind;
use ceremonies::ids::{CeremonyId, UnixMillis, WalletName};
use ceremonies::listing::{Standing, Wanted};
use clap::Args;
use serde_json::{Value, json};

use super::named::one_of;
use super::{Desk, Output};
use crate::client::{Catalogue, Row, Scope, Summary};
use crate::room::now;
use crate::sentence::joined;
use crate::standing::{NOT_SENT, is_unsent, withheld};

/// How many ceremonies are listed by default.
const PAGE: u32 = 50;

/// How many ceremonies are named to somebody who has named one that is not known.
pub(super) const NAMED: u32 = 5;

/// Which ceremonies there are, the newest of them by name.
pub(super) fn there_are(catalogue: &Catalogue) -> String {
    let named = usize::try_from(NAMED).unwrap_or(usize::MAX);
    let ids: Vec<&CeremonyId> = catalogue.rows.iter().map(|row| &row.id).take(named).collect();
    let more = catalogue.left.max(catalogue.rows.len() - ids.len());
    let more =
        if more == 0 { String::new() } else { format!(", and {more} older ones: custody ceremony list") };
    match ids.as_slice() {
        [] => "the nodes list no ceremony".to_owned(),
        [one] => format!("there is ceremony {one}{more}"),
        several => format!("there are ceremonies {}{more}", joined(several)),
    }
}

/// Which ceremonies are listed. A ceremony that nodes disagree about is listed if any node's report matches.
#[derive(Debug, Default, Args)]
pub(super) struct Filter {
    /// Only those of this wallet.
    #[arg(long)]
    wallet: Option<WalletName>,
    /// Only those of this kind.
    #[arg(long, value_parser = one_of(&CeremonyKind::ALL))]
    kind: Option<CeremonyKind>,
    /// Only those in this phase. Logs that do not fold are always listed.
    #[arg(long, value_parser = one_of(&Standing::ALL))]
    phase: Option<Standing>,
    /// Only those opened at this time or later, such as 2026-11-01 or 2026-11-01T09:30:00Z.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<jiff::Timestamp>,
    /// Only those opened before this time.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<jiff::Timestamp>,
    /// At most this many, newest first.
    #[arg(long, value_name = "COUNT", default_value_t = PAGE, conflicts_with = "all")]
    limit: u32,
    /// All of them.
    #[arg(long)]
    all: bool,
}

/// Reads a moment; a day is the moment at which it begins.
pub(super) fn moment(text: &str) -> Result<jiff::Timestamp> {
    let begins =
        |day: jiff::civil::Date| day.to_zoned(jiff::tz::TimeZone::UTC).map(|zoned| zoned.timestamp());
    let day = || jiff::civil::Date::strptime("%Y-%m-%d", text).and_then(begins);
    let read = text.parse().or_else(|_| day());
    read.map_err(|_| anyhow!("write a day, as in 2026-11-01, or a moment, as in 2026-11-01T09:30:00Z (UTC)"))
}

/// When a ceremony was opened, to the minute.
fn minute(time: UnixMillis) -> String {
    time.to_string().chars().take(16).map(|c| if c == 'T' { ' ' } else { c }).collect()
}

impl Filter {
    fn wanted(&self) -> Wanted {
        let at = |time: &jiff::Timestamp| UnixMillis(time.as_millisecond());
        Wanted {
            ceremony: None,
            wallet: self.wallet.clone(),
            kinds: self.kind.into_iter().collect(),
            standing: self.phase,
            since: self.since.as_ref().map(at),
            until: self.until.as_ref().map(at),
            most: (!self.all).then_some(self.limit),
        }
    }
}

/// Whether a row is listed. A log that does not fold has no phase, so no choice of phase hides it.
fn is_listed(wanted: &Wanted, row: &Row, is_set_aside: bool) -> bool {
    let anywhere = Wanted { standing: None, ..wanted.clone() };
    row.is_wanted(if is_set_aside { &anywhere } else { wanted })
}

fn is_transfer(summary: &Summary) -> bool {
    summary.kind == CeremonyKind::Transfer.name()
}

/// The transfers among these rows. That a transaction was not sent is in the log, and not in what nodes list.
async fn transfers(desk: &Desk, rows: &[&Row]) -> Option<Book> {
    let are_transfers = |row: &&&Row| row.summary().is_some_and(is_transfer);
    let ids: Vec<_> = rows.iter().filter(are_transfers).map(|row| row.id.clone()).collect();
    if ids.is_empty() {
        return None;
    }
    Some(desk.client.library(&Scope::Ceremonies(ids)).await.ok()?.book)
}

/// Where a ceremony stands, in the words of the nodes; of a transfer that ended well, with whether it was sent, by its log.
fn phase(summary: &Summary, log: Option<&Ceremony>) -> String {
    let phase = &summary.phase;
    match log {
        Some(ceremony) if is_unsent(ceremony) => format!("{phase}{NOT_SENT}"),
        None if is_transfer(summary) && Standing::Closed.is(phase) => {
            format!("{phase}, not known whether it was sent")
        }
        Some(_) | None => phase.clone(),
    }
}

/// What nodes list, in their words: only the amendments and transfers are folded for this. A log found not to fold is shown as such,
/// without a phase. If this console has seen the very head recorded, it says so.
pub(super) async fn list(path: Option<PathBuf>, output: Output, filter: &Filter) -> Result<()> {
    let wanted = filter.wanted();
    let desk = Desk::open(path, Scope::Listed(wanted.clone())).await?;
    let catalogue = &desk.library.catalogue;
    let nodes = desk.book.context().charter().members().len();
    let aside_of = |row: &Row| desk.library.aside.iter().find(|log| log.ceremony == row.id);
    let fitting: Vec<&Row> =
        catalogue.rows.iter().filter(|row| is_listed(&wanted, row, aside_of(row).is_some())).collect();
    let most = wanted.most.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
    let (mut lines, mut values) = (Vec::new(), Vec::new());
    let listed = &fitting[..fitting.len().min(most)];
    let transfers = transfers(&desk, listed).await;
    for row in listed {
        let Some(summary) = row.summary() else { continue };
        let seen = desk.client.memory().seen(&row.id);
        let recorded = seen.is_some_and(|seen| seen.hash == summary.tip.hash);
        let agreement = if recorded && row.heads().len() == 1 {
            "seen recorded".to_owned()
        } else {
            row.agreement(nodes, now())
        };
        let aside = aside_of(row);
        let log = transfers.as_ref().and_then(|book| book.get(&row.id)).map(|chapter| &chapter.ceremony);
        let state = aside.map_or_else(|| phase(summary, log), |log| format!("! SET ASIDE: it {log}"));
        lines.push(format!("{}  {:<36} {state}  [{agreement}]", minute(summary.opened), row.id));
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
            "withheld": log.map(withheld),
            "set_aside": aside.map(|log| json!({ "from": log.from(), "why": log.to_string() })),
            "opened": summary.opened.to_string(),
            "last": summary.last.to_string(),
            "seen_recorded": recorded,
            "heads": heads,
        }));
    }
    if fitting.is_empty() {
        lines.push("none of the nodes that answered lists a ceremony that fits".to_owned());
    }
    let left = catalogue.left.max(fitting.len().saturating_sub(most));
    if left > 0 {
        let older = if left == 1 { "1 older ceremony is" } else { &format!("{left} older ceremonies are") };
        lines.push(format!("{older} not shown: use --all or --limit COUNT"));
    }
    if !catalogue.troubles.is_empty() {
        lines.push(format!("no list from: {}", catalogue.troubles));
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

    use super::super::recorded::book_of;
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
    fn whoever_names_a_ceremony_that_is_not_there_is_told_of_the_newest_that_are() {
        let listed = |count: usize, left| {
            let rows = (1..=count).rev().map(|number| Row {
                id: format!("dkg-treasury-{number}").parse().unwrap(),
                said: BTreeMap::new(),
            });
            there_are(&Catalogue { rows: rows.collect(), left, ..Catalogue::default() })
        };
        assert_eq!(listed(0, 0), "the nodes list no ceremony");
        assert_eq!(listed(1, 0), "there is ceremony dkg-treasury-1");
        assert_eq!(listed(2, 0), "there are ceremonies dkg-treasury-2 and dkg-treasury-1");
        for (count, left) in [(5, 7), (12, 0)] {
            let said = listed(count, left);
            assert_eq!(said.matches("dkg-treasury-").count(), 5, "{said}");
            assert!(said.ends_with(", and 7 older ones: custody ceremony list"), "{said}");
        }
    }

    #[test]
    fn the_newest_are_listed_where_nobody_says_how_many() {
        assert_eq!(filter(&[]).wanted(), Wanted { most: Some(PAGE), ..Wanted::default() });
        assert_eq!(filter(&["--limit", "3"]).wanted().most, Some(3));
        assert_eq!(filter(&["--all"]).wanted(), Wanted::default());
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
            (["--since", "2027-01-15"], true),
            (["--since", "2027-01-16"], false),
            (["--until", "2027-01-15T08:00:00Z"], false),
            (["--until", "2027-01-15T08:00:01Z"], true),
            (["--phase", "closed"], true),
            (["--phase", "void"], false),
            (["--phase", "disputed"], false),
        ] {
            assert_eq!(is_listed(&filter(&arguments).wanted(), &row, false), takes, "{arguments:?}");
        }
        assert!(!is_listed(&filter(&["--wallet", "treasury", "--kind", "refresh"]).wanted(), &row, false));
    }

    #[test]
    fn transfer_that_was_not_sent_is_marked_and_one_whose_log_was_not_read_is_not_known() {
        let book = book_of("withheld");
        let ceremony = |kind| {
            let mut all = book.iter().map(|(_, chapter)| &chapter.ceremony);
            all.find(|ceremony| ceremony.manifest().kind == kind).unwrap()
        };
        let transfer = Summary { kind: "transfer".to_owned(), ..summary("closed") };
        assert_eq!(phase(&transfer, Some(ceremony(CeremonyKind::Transfer))), "closed NOT SENT");
        assert_eq!(phase(&transfer, Some(ceremony(CeremonyKind::Refresh))), "closed");
        assert_eq!(phase(&transfer, None), "closed, not known whether it was sent");
        for (kind, standing) in
            [("transfer", "void: withdrawn"), ("transfer", "gathering"), ("dkg", "closed")]
        {
            let other = Summary { kind: kind.to_owned(), ..summary(standing) };
            assert_eq!(phase(&other, None), standing);
        }
    }

    #[test]
    fn what_is_not_a_moment_kind_or_phase_is_answered_with_what_is() {
        let refused = |arguments: [&str; 2]| {
            Line::try_parse_from([&["list"], arguments.as_slice()].concat())
                .map(|_| ())
                .unwrap_err()
                .to_string()
        };
        for text in ["yesterday", "2027-13-01", "2027-01-15T08:00", "2027-01-15 and more", ""] {
            assert!(refused(["--since", text]).contains("as in 2026-11-01T09:30:00Z"), "{text:?}");
        }
        assert!(refused(["--kind", "dkgs"]).contains("dkg, test-sign, amend"));
        assert!(refused(["--phase", "open"]).contains("running, gathering"));
    }

    #[test]
    fn what_nodes_disagree_about_or_what_does_not_fold_is_not_hidden() {
        let wanted = filter(&["--phase", "void"]).wanted();
        assert!(is_listed(&wanted, &row(&["closed", "void: expired"]), false));
        assert!(!is_listed(&wanted, &row(&["closed"]), false));
        assert!(is_listed(&wanted, &row(&["closed"]), true));
        let disputed = filter(&["--phase", "disputed"]).wanted();
        assert!(is_listed(&disputed, &row(&["closed", "closed DISPUTED"]), false));
    }
}
