//! One ceremony: the script on the left; on the right, what is read aloud, awaited and under way.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use ceremonies::ceremony::{Ceremony, Phase, StepState};
use ceremonies::charter::Role;
use ceremonies::ids::NodeIndex;
use ceremonies::script::Act;
use ceremonies::statement::Answer;
use ceremonies::text::one_line;
use ceremonies::words;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;
use ssh_key::HashAlg;
use unicode_width::UnicodeWidthStr;

use super::{BOLD, FAINT, as_of, block, colour, cut, inner_height, inner_width, scrolled, wrap};
use crate::standing::{disputes, is_unsent, withheld};
use crate::tui::model::{Model, Rounds};

/// After how long a node's progress is stale, in milliseconds: it is reported whenever something happens.
const STALE_MS: i64 = 10_000;

/// The last phase that an enclave reports of a session.
const FINISHED: &str = "finish";

/// Draws a ceremony, and returns how many of its lines do not fit.
pub(super) fn view(model: &Model, ceremony: &Ceremony, frame: &mut Frame<'_>, area: Rect) -> usize {
    let left_width = if area.width >= 120 { Constraint::Percentage(45) } else { Constraint::Percentage(44) };
    let [left, right] = Layout::horizontal([left_width, Constraint::Fill(1)]).areas(area);
    script(model, ceremony, frame, left).max(room(model, ceremony, frame, right))
}

/// How many columns are free between a text and the frame on its right.
const MARGIN: usize = 1;

/// Text on as many lines as it takes, each a column from the frame. Nothing is left out. A word that is whole only without
/// the margin takes it: at 80 columns, an Ethereum address.
fn said(text: &str, width: usize, style: Style) -> Vec<Line<'static>> {
    let longest = text.split_whitespace().map(UnicodeWidthStr::width).max();
    let width = if longest == Some(width + MARGIN) { width + MARGIN } else { width };
    wrap(text, width).into_iter().map(|line| Line::styled(format!(" {line}"), style)).collect()
}

const PLAIN: Style = Style::new();

fn script(model: &Model, ceremony: &Ceremony, frame: &mut Frame<'_>, area: Rect) -> usize {
    let manifest = ceremony.manifest();
    let width = inner_width(area);
    let about = match manifest.amendment() {
        None => format!("{} of {} g{}", manifest.kind, manifest.wallet, manifest.generation),
        Some(_) => "amendment of the charter".to_owned(),
    };
    let mut lines = said(&about, width.saturating_sub(1 + MARGIN), BOLD);
    lines.extend(said(manifest.purpose.as_str(), width.saturating_sub(1 + MARGIN), FAINT));
    let mut current = 0;
    let over = matches!(ceremony.phase_at(model.now), Phase::Void(_) | Phase::Abandoned(_));
    for step in ceremony.script().steps() {
        let (mark, style) = match ceremony.step_state(step) {
            StepState::Done if step.act == Act::Broadcast && is_unsent(ceremony) => ("!", BOLD),
            StepState::Done if step.act == Act::Agree && !disputes(ceremony).is_empty() => ("!", BOLD),
            StepState::Done => ("✓", colour(model, Color::Green)),
            StepState::Open { .. } if over => ("·", FAINT),
            StepState::Open { .. } => {
                current = lines.len();
                (if model.as_of().is_some() { "?" } else { "▶" }, BOLD)
            }
            StepState::Blocked { .. } => ("·", FAINT),
        };
        lines.push(Line::styled(cut(&format!(" {mark} {}", step.title), width), style));
        for signed in ceremony.signed(&step.id) {
            let touched = if signed.presence.verified {
                ", verified"
            } else if signed.presence.present {
                ", touched"
            } else {
                ""
            };
            let disagrees = matches!(signed.answer, Answer::Disagree(_));
            let (mark, style) = if disagrees { (" DISAGREES", alarm(model)) } else { ("", FAINT) };
            let text = format!("     {}{mark} {}{touched}", signed.person, signed.time.clock());
            lines.push(Line::styled(cut(&text, width), style));
        }
    }
    let height = inner_height(area);
    // The open step is in view until somebody scrolls.
    let scroll = if model.scroll == 0 { (current + 4).saturating_sub(height) } else { model.scroll };
    let (shown, beyond) = scrolled(lines, scroll, height);
    let title = format!(" {} ", manifest.ceremony);
    frame.render_widget(Paragraph::new(shown).block(block(model, title)), area);
    beyond
}

fn phase_style(model: &Model, phase: &Phase) -> Style {
    match phase {
        Phase::Gathering | Phase::Authorised => BOLD,
        Phase::Committed | Phase::Closed => colour(model, Color::Green).patch(BOLD),
        Phase::Void(_) | Phase::Abandoned(_) => alarm(model),
    }
}

/// The phase; why it ended, exactly as written; and who says that the record is wrong.
fn standing<'a>(model: &Model, ceremony: &Ceremony, phase: &Phase, width: usize) -> Vec<Line<'a>> {
    let text = phase.to_string();
    let (word, why) = text.split_once(": ").unwrap_or((&text, ""));
    let disputes: Vec<String> = disputes(ceremony);
    let mark = if disputes.is_empty() { "" } else { ", DISPUTED" };
    let style = match (disputes.is_empty(), is_outdated(model, ceremony)) {
        (false, _) => alarm(model),
        (true, true) => BOLD,
        (true, false) => phase_style(model, phase),
    };
    let word = if is_outdated(model, ceremony) { format!("? {word}") } else { word.to_owned() };
    let texts = [format!("{}{mark}", word.to_uppercase()), why.to_owned()].into_iter().chain(disputes);
    let lines = texts.filter(|text| !text.is_empty()).flat_map(|text| said(&text, width, style));
    let unsent = withheld(ceremony).into_iter().map(|who| format!("! NOT SENT from here, says {who}"));
    lines.chain(unsent.flat_map(|text| said(&text, width, BOLD))).collect()
}

/// Whether a ceremony is shown as it was, and may have gone on since.
fn is_outdated(model: &Model, ceremony: &Ceremony) -> bool {
    model.as_of().is_some() && model.is_running(ceremony)
}

fn alarm(model: &Model) -> Style {
    colour(model, Color::Red).patch(BOLD)
}

fn room(model: &Model, ceremony: &Ceremony, frame: &mut Frame<'_>, area: Rect) -> usize {
    let width = inner_width(area).saturating_sub(1 + MARGIN);
    let phase = ceremony.phase_at(model.now);
    let mut lines = standing(model, ceremony, &phase, width);
    let running = model.is_running(ceremony);
    lines.extend(record(model, ceremony, width));
    let open = ceremony.current_step().filter(|_| running);
    if let Some(StepState::Open { waiting_for }) = open.map(|step| ceremony.step_state(step)) {
        lines.push(Line::raw(""));
        let waits = if is_outdated(model, ceremony) { "? Waited then for" } else { "Waiting for" };
        lines.extend(said(&format!("{waits} {waiting_for}"), width, BOLD));
    }
    let doubts = model.doubts(ceremony);
    lines.extend(doubts.values().flat_map(|doubt| said(doubt, width, alarm(model))));
    // Placed before the words, so that a small terminal cuts those and not a node.
    if running {
        lines.extend(ladder(model, ceremony, width));
    }
    lines.extend(changes(ceremony, width));
    lines.extend(model.rivals(ceremony).iter().flat_map(|rival| said(rival, width, alarm(model))));
    if let Some(step) = open {
        lines.push(Line::raw(""));
        lines.extend(said("Read aloud:", width, FAINT));
        lines.extend(said(&step.words.split_whitespace().collect::<Vec<_>>().join(" "), width, PLAIN));
        if step.act == Act::Confirm {
            lines.extend(people(ceremony, width));
        }
        if matches!(step.act, Act::Backup | Act::Prove) {
            lines.extend(keepers(ceremony, width));
        }
        // The words are read by the administrator, who does not type them.
        if step.act == Act::ReadBack {
            if model.is_reading_back() {
                lines.extend(said("The wallet's words are hidden while they are typed.", width, FAINT));
            } else {
                lines.extend(said("The wallet's words:", width, FAINT));
                lines.extend(said(&ceremony.spoken_words().unwrap_or_default(), width, BOLD));
            }
        }
    }
    lines.push(Line::raw(""));
    if running {
        lines.extend(said("Manifest in words (f: as a code):", width, FAINT));
        let hash = ceremony.manifest().hash();
        lines.extend(said(&words::spoken(&hash), width, BOLD));
        // As statements have it.
        lines.extend(said(&hash.to_string(), width, FAINT));
    } else if let Some(why) = model.no_words(ceremony) {
        lines.extend(said(&why, width, PLAIN));
    } else {
        lines.extend(said("Head in words, for paper (f: as a code):", width, FAINT));
        lines.extend(said(&words::spoken(&ceremony.head().hash), width, BOLD));
    }
    let last = ceremony.head();
    let ends = if running {
        format!("expires {}, entry {}", ceremony.manifest().expires, last.seq)
    } else {
        format!("ended {}, entry {}", last.time, last.seq)
    };
    lines.extend(said(&ends, width, FAINT));
    if !running {
        let keep =
            format!("Keep the evidence: custody evidence export {} -o FILE", ceremony.manifest().ceremony);
        lines.extend(said(&keep, width, PLAIN));
    }
    let (lines, beyond) = scrolled(lines, model.scroll, inner_height(area));
    let title = if model.as_of().is_some() { format!(" ? {}", as_of(model)) } else { " Now ".to_owned() };
    frame.render_widget(Paragraph::new(lines).block(block(model, title)), area);
    beyond
}

/// Where nodes stand on the last entry, and both branches of a forked log.
fn record(model: &Model, ceremony: &Ceremony, width: usize) -> Vec<Line<'static>> {
    let Some(standing) = model.standing(ceremony) else {
        return said("the nodes have not been asked yet", width, FAINT);
    };
    let style = if standing.recorded.recorded { FAINT } else { BOLD };
    // What is recorded stays so.
    let is_old = !standing.recorded.recorded && model.as_of().is_some();
    let mark = if is_old { "? " } else { "" };
    let mut lines = said(&format!("{mark}{}", standing.recorded), width, style);
    if let Some(fork) = &standing.fork {
        let style = if fork.is_alarm(model.now) { alarm(model) } else { FAINT };
        lines.extend(fork.lines(model.now).iter().flat_map(|line| said(line, width, style)));
    }
    lines
}

/// What an amendment changes in the charter, an inventory in the ledger, or a transaction pays.
fn changes(ceremony: &Ceremony, width: usize) -> Vec<Line<'static>> {
    let manifest = ceremony.manifest();
    let articles = manifest.amendment().into_iter().flat_map(|charter| ceremony.charter().changes(charter));
    let articles = articles.map(|change| format!("{change:#}"));
    let pays = manifest.transaction().into_iter().flat_map(|transaction| transaction.words());
    let changes: Vec<String> =
        articles.chain(manifest.inventory().iter().map(ToString::to_string)).chain(pays).collect();
    if changes.is_empty() {
        return Vec::new();
    }
    let what = if manifest.transaction().is_some() { "Transaction" } else { "Changes" };
    let heading = format!("{what} (in full: custody ceremony show {}):", manifest.ceremony);
    let heading = [Line::raw("")].into_iter().chain(said(&heading, width, FAINT));
    heading.chain(changes.iter().flat_map(|change| said(change, width, PLAIN))).collect()
}

/// The people who may sign here with their keys, for the witness to compare with what they have brought.
fn people<'a>(ceremony: &Ceremony, width: usize) -> Vec<Line<'a>> {
    let signers: BTreeSet<Role> =
        ceremony.script().steps().iter().flat_map(|step| ceremony.signers(step).into_keys()).collect();
    let mut lines = vec![Line::raw("")];
    lines.extend(said("People and their keys:", width, FAINT));
    for person in ceremony.charter().people() {
        let roles: Vec<String> = person.roles.intersection(&signers).map(ToString::to_string).collect();
        if roles.is_empty() {
            continue;
        }
        let keys = person.keys.iter().map(|key| key.fingerprint(HashAlg::Sha256).to_string());
        let text = format!("{}, {}: {}", person.name, roles.join(" or "), keys.collect::<Vec<_>>().join(" "));
        lines.extend(said(&text, width, PLAIN));
    }
    lines
}

/// Whose keys the backups are encrypted to, for their keepers to compare with their own.
fn keepers<'a>(ceremony: &Ceremony, width: usize) -> Vec<Line<'a>> {
    let Some(rules) = ceremony.charter().backup() else { return Vec::new() };
    let of = rules.custodians.iter().map(|custodian| {
        let nodes: Vec<String> = custodian.nodes.iter().map(ToString::to_string).collect();
        format!("node {}: {} {}", nodes.join(", "), custodian.person, custodian.recipient)
    });
    let escrow = format!("every node: {} {}", rules.escrow.person, rules.escrow.recipient);
    let lines = of.chain([escrow]).flat_map(|line| said(&line, width, PLAIN));
    let heading = [Line::raw("")].into_iter().chain(said("Encrypted to:", width, FAINT));
    heading.chain(lines).collect()
}

/// The live ladder: each node's place among the phases of the running session.
fn ladder<'a>(model: &Model, ceremony: &Ceremony, width: usize) -> Vec<Line<'a>> {
    let id = &ceremony.manifest().ceremony;
    let step = ceremony.current_step();
    let open = step.map(|step| &step.id);
    let news = |node: &NodeIndex| {
        let rounds = model.progress.get(&(id.clone(), *node))?;
        (rounds.step.as_ref() == open).then_some(rounds)
    };
    let step = step.map(|step| step.act);
    let roster = &ceremony.manifest().roster;
    if !matches!(step, Some(Act::Recover | Act::Generate | Act::TestSign | Act::Sign))
        || !roster.iter().any(|node| news(node).is_some())
    {
        return Vec::new();
    }
    let mut lines = vec![Line::raw(""), Line::styled(" Rounds:", FAINT)];
    for node in roster {
        let sealed = ceremony.prepared_nodes().contains(node) || ceremony.staged_nodes().contains(node);
        let done = sealed && step == Some(Act::Generate);
        let text = match news(node) {
            _ if done => "sealed, signed".to_owned(),
            // It has nothing more to say in this session, which is no silence.
            Some(Rounds { progress, .. }) if progress.phase == FINISHED => "finished".to_owned(),
            Some(Rounds { progress, heard, .. }) => {
                let place = usize::try_from(progress.phase_number).unwrap_or(0);
                let count = usize::try_from(progress.phase_count).unwrap_or(0).min(32);
                let bar: String = (1..=count)
                    .map(|at| match at.cmp(&place) {
                        Ordering::Less => '█',
                        Ordering::Equal => '▓',
                        Ordering::Greater => '░',
                    })
                    .collect();
                let waits: Vec<String> = progress.waiting_for.iter().map(ToString::to_string).collect();
                let waits =
                    if waits.is_empty() { String::new() } else { format!("← {} ", waits.join(",")) };
                let phase = one_line(&progress.phase);
                // In a stall this is exactly what is needed: it stays, with its age.
                match model.now.since(*heard) {
                    silent if model.as_of().is_some() => {
                        format!("{bar} ? {} s ago {waits}{phase}", silent / 1000)
                    }
                    silent if silent > STALE_MS => {
                        format!("{bar} STALLED {} s {waits}{phase}", silent / 1000)
                    }
                    _ => format!("{bar} {waits}{phase}"),
                }
            }
            None => "waiting".to_owned(),
        };
        lines.push(Line::from(Span::raw(cut(&format!(" node {node} {text}"), width + 1))));
    }
    lines
}
