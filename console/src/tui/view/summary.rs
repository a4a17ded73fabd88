//! The second line of every screen: how much is wrong, and whose turn it is.

use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use super::{BOLD, FAINT, colour, cut, level_style};
use crate::health::Level;
use crate::readiness::Answer;
use crate::tui::model::Model;

/// How many columns the second half needs to be of use.
const TURN: usize = 36;
/// Longest name of a wallet, in columns.
const NAME: usize = 20;

/// The line, cut to so many columns.
pub(super) fn summary(model: &Model, width: usize) -> Line<'static> {
    let of_width = |spans: &[Span<'_>]| spans.iter().map(Span::width).sum::<usize>();
    let mut spans = troubles(model, true);
    if of_width(&spans) + TURN > width {
        spans = troubles(model, false);
    }
    spans.insert(0, Span::raw(" "));
    spans.push(Span::styled(" │ ", FAINT));
    let left = of_width(&spans);
    let (text, style) = turn(model);
    spans.push(Span::styled(cut(&text, width.saturating_sub(left)), style));
    Line::from(spans)
}

/// The wallets that cannot sign, and how many nodes are in trouble, by how bad it is; on a narrow screen with marks alone. A
/// wallet that only lacks a share has its cause in a node.
fn troubles(model: &Model, in_words: bool) -> Vec<Span<'static>> {
    let health = model.health();
    let cannot: Vec<String> = health
        .wallets
        .iter()
        .filter(|wallet| wallet.can_sign == Answer::No)
        .map(|wallet| cut(wallet.wallet.as_str(), NAME))
        .collect();
    let cannot = match cannot.as_slice() {
        [] => None,
        [wallet] => Some(format!("{} {wallet} CANNOT SIGN", Level::Bad.mark())),
        several => Some(format!("{} {} wallets CANNOT SIGN", Level::Bad.mark(), several.len())),
    };
    let count = |level| health.nodes.iter().filter(|status| status.level == level).count();
    let node = |(level, word): (Level, &str)| match (count(level), in_words) {
        (0, _) => None,
        (1, true) => Some((level, format!("{} 1 node {word}", level.mark()))),
        (count, true) => Some((level, format!("{} {count} nodes {word}", level.mark()))),
        (count, false) => Some((level, format!("{} {count}", level.mark()))),
    };
    let counted = [(Level::Bad, "critical"), (Level::Warn, "to see to"), (Level::Unknown, "not known")];
    let mut nodes: Vec<(Level, String)> = counted.into_iter().filter_map(node).collect();
    if let Some((_, last)) = nodes.last_mut().filter(|_| !in_words) {
        last.push_str(" nodes");
    }
    let mut parts: Vec<(Level, String)> =
        cannot.map(|text| (Level::Bad, text)).into_iter().chain(nodes).collect();
    if parts.is_empty() {
        parts.push((Level::Good, format!("{} all nodes well", Level::Good.mark())));
    }
    let mut spans: Vec<Span<'static>> = Vec::new();
    for (level, text) in parts {
        if !spans.is_empty() {
            spans.push(Span::raw("  "));
        }
        spans.push(Span::styled(text, level_style(model, level)));
    }
    spans
}

/// Whom the ceremonies under way wait for.
fn turn(model: &Model) -> (String, Style) {
    if model.as_of().is_some() && model.is_busy_with_a_ceremony() {
        return ("? whose turn it is now is not known".to_owned(), BOLD);
    }
    let turns = model.turns();
    if let Some((id, people)) = turns.first() {
        let people = people.iter().map(|me| me.person.to_string()).collect::<Vec<_>>().join(", ");
        let more = turns.len() - 1;
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        let style = colour(model, Color::Yellow).add_modifier(Modifier::BOLD);
        return (format!("▶ YOUR TURN (g) in {id}{more}: {people}"), style);
    }
    let text = if !model.loaded {
        "the record was not read: nobody knows whose turn it is"
    } else if model.is_busy_with_a_ceremony() {
        "a ceremony is under way; it waits for nobody here"
    } else if model.as_of().is_some() {
        "? whether a ceremony is under way is not known"
    } else {
        "no ceremony is under way"
    };
    (text.to_owned(), if model.loaded { Style::new() } else { BOLD })
}
