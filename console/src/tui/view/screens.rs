//! The screens that are lists: nodes, ceremonies, wallets, the log.

use ceremonies::ids::{NodeIndex, WalletName};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;
use unicode_width::UnicodeWidthStr;

use super::{
    BOLD, FAINT, SELECTED, as_of, block, cut, inner_height, inner_width, level_style, mark, window, wrap,
};
use crate::cli::event_line;
use crate::health::{Health, Level, NodeStatus};
use crate::ledger::Row;
use crate::readiness::Readiness;
use crate::standing;
use crate::tui::model::{Model, Standing};
use crate::tui::wallet;

/// The rows of the box that says where everything lies.
const FILES: u16 = 6;
/// The same on a small terminal, where the nodes need them: for its first line.
const FILES_AT_LEAST: u16 = 3;

pub(super) fn cluster(model: &Model, frame: &mut Frame<'_>, area: Rect) {
    let Health { wallets, nodes: statuses } = model.health();
    let answers = answers(model, &wallets, inner_width(area), usize::from(area.height) / 4);
    let rows = |lines: usize| u16::try_from(lines + 2).unwrap_or(u16::MAX);
    let height = if statuses.iter().any(|status| status.accused.is_some()) { 3 } else { 2 };
    let needed = rows(answers.len()).saturating_add(rows(height * statuses.len()));
    let files = area.height.saturating_sub(needed).clamp(FILES_AT_LEAST, FILES);
    let [signing, nodes, files] = Layout::vertical([
        Constraint::Length(rows(answers.len())),
        Constraint::Fill(1),
        Constraint::Length(files),
    ])
    .areas(area);
    frame.render_widget(
        Paragraph::new(answers).block(block(model, format!(" Can we sign? {}", as_of(model)))),
        signing,
    );
    let count = |level| statuses.iter().filter(|status| status.level == level).count();
    let (good, excluded) = (count(Level::Good), count(Level::Excluded));
    let out = if excluded == 0 { String::new() } else { format!(" {excluded} excluded,") };
    let left = statuses.len() - excluded;
    let fit = (inner_height(nodes) / height).max(1);
    let shown = window(model.selection(), statuses.len(), fit);
    let part = if shown.len() < statuses.len() {
        format!("{} shown (↑ ↓), ", shown.len())
    } else {
        String::new()
    };
    let title =
        format!(" {good} of {left} nodes healthy,{out} {part}threshold {} ", model.charter().threshold());
    let mut lines = Vec::new();
    for status in shown.map(|place| &statuses[place]) {
        let zone = model.charter().node(status.node).map(|node| node.zone.to_string()).unwrap_or_default();
        let style = level_style(model, status.level);
        let selected = mark(node_at(&statuses, model.selection()) == Some(status.node));
        let name = format!("{selected}{} node {:<3}", status.level.mark(), status.node);
        let left = inner_width(nodes).saturating_sub(name.width() + 15);
        lines.push(Line::from(vec![
            Span::styled(name, style),
            Span::styled(format!("{zone:<14} "), FAINT),
            Span::styled(cut(&status.summary, left), style),
        ]));
        let image = status.image.map(|image| format!(", PCR0 {:.16}…", image.pcr0)).unwrap_or_default();
        let shares = match status.shares.as_deref() {
            None => "shares unknown".to_owned(),
            Some([]) => "no shares".to_owned(),
            Some(shares) => shares.join(", "),
        };
        let width = inner_width(nodes);
        let attestation = format!("     attestation {}{image}; {shares}", status.attestation);
        lines.push(Line::styled(cut(&attestation, width), FAINT));
        let accused = status.accused.iter();
        lines.extend(accused.map(|accused| Line::styled(cut(&format!("     {accused}"), width), style)));
    }
    frame.render_widget(Paragraph::new(lines).block(block(model, title)), nodes);
    let width = inner_width(files);
    let help = "Enter shows all of a node; o opens a ceremony; ? help".to_owned();
    let lines =
        [help].into_iter().chain(places(model)).map(|line| Line::raw(cut(&format!(" {line}"), width)));
    let lines: Vec<Line<'_>> = lines.collect();
    let title = match lines.len().saturating_sub(inner_height(files)) {
        0 => " Where everything is ".to_owned(),
        left => format!(" Where everything is (… {left} more: ? shows them) "),
    };
    frame.render_widget(Paragraph::new(lines).block(block(model, title)), files);
}

/// Where this console's files, the rules and the bus are.
pub(super) fn places(model: &Model) -> [String; 3] {
    [
        format!("files    {}", model.folder().display()),
        format!("charter  {}", model.charter().hash()),
        format!("bus      {}", model.cluster.nats.servers.join(", ")),
    ]
}

fn node_at(statuses: &[NodeStatus], selection: usize) -> Option<NodeIndex> {
    statuses.get(selection).map(|status| status.node)
}

/// Whether each wallet can sign, those first that cannot, on as many lines as there are for it.
fn answers<'a>(model: &Model, wallets: &[Readiness], width: usize, most: usize) -> Vec<Line<'a>> {
    if !model.loaded || wallets.is_empty() {
        return nothing(model, " No wallet has a key yet: press o to open a key generation.", width);
    }
    let mut worst_first: Vec<&Readiness> = wallets.iter().collect();
    worst_first.sort_by_key(|wallet| std::cmp::Reverse(wallet.can_sign));
    let mut lines = Vec::new();
    for (place, wallet) in worst_first.iter().enumerate() {
        let style = level_style(model, wallet.can_sign.level());
        let text =
            format!("{} {} g{} {}", wallet.can_sign.mark(), wallet.wallet, wallet.generation, wallet.text());
        let wrapped = wrap(&text, width.saturating_sub(1));
        let left = worst_first.len() - place;
        if lines.len() + wrapped.len() + usize::from(left > 1)
            > most.max(wrapped.len() + usize::from(left > 1))
        {
            lines.push(Line::styled(format!(" and {left} more: custody status"), BOLD));
            break;
        }
        lines.extend(wrapped.into_iter().map(|line| Line::styled(format!(" {line}"), style)));
    }
    lines
}

/// How many there are, as a title; a `?` for what was not read.
fn counted(model: &Model, count: usize, one: &str) -> String {
    let many = one.strip_suffix('y').map_or_else(|| format!("{one}s"), |stem| format!("{stem}ies"));
    if count == 0 && !model.loaded {
        return format!(" ? {many} ");
    }
    format!(" {count} {} {}", if count == 1 { one } else { &many }, as_of(model))
}

/// The text of an empty list: that there is nothing, that nothing passes the filter, or that it is not known.
fn nothing<'a>(model: &Model, none: &'static str, width: usize) -> Vec<Line<'a>> {
    if model.loaded && !model.filter.is_empty() {
        let text = cut(&format!(" Nothing here contains `{}`: Esc clears the filter.", model.filter), width);
        return vec![Line::styled(text, BOLD)];
    }
    if model.loaded && !model.is_nothing_shown() {
        return vec![Line::styled(none, FAINT)];
    }
    if model.loaded {
        let text = "Not known: no log of the record could be read; screen 2 says why.";
        let lines = wrap(text, width.saturating_sub(1)).into_iter();
        return lines.map(|line| Line::styled(format!(" {line}"), BOLD)).collect();
    }
    let reading =
        if model.connected { " Reading from the nodes…" } else { " Not read: the bus cannot be reached." };
    let mut lines = vec![Line::styled(reading, FAINT)];
    // Without a bus, the reason is already shown above.
    if model.connected && !model.load_trouble.is_empty() {
        let text = format!("Not known: {}", model.load_trouble);
        let text = wrap(&text, width.saturating_sub(1)).into_iter();
        lines.extend(text.map(|line| Line::styled(format!(" {line}"), BOLD)));
    }
    lines
}

/// The width from which on the list of ceremonies also says when and why each was opened.
const DAYS_FIT: usize = 110;

pub(super) fn ceremonies(model: &Model, frame: &mut Frame<'_>, area: Rect) {
    let listed = model.listed();
    let mut lines = Vec::new();
    let others = not_listed(model, inner_width(area), inner_height(area) / 2);
    for place in window(model.selection(), listed.len(), inner_height(area) - others.len()) {
        let (id, chapter) = listed[place];
        let old = if model.as_of().is_some() && model.is_running(&chapter.ceremony) { "? " } else { "" };
        let phase = format!("{old}{}", standing::word(&chapter.ceremony, model.now));
        let step = if model.is_running(&chapter.ceremony) {
            chapter.ceremony.current_step().map(|step| step.title.to_string()).unwrap_or_default()
        } else {
            // Why it ended, where it did not simply close.
            let phase = chapter.ceremony.phase_at(model.now).to_string();
            phase.split_once(": ").map(|(_, why)| why.to_owned()).unwrap_or_default()
        };
        let selected = place == model.selection();
        let record = match model.standing(&chapter.ceremony) {
            Some(Standing { fork: Some(fork), .. }) if fork.is_alarm(model.now) => "FORK ",
            Some(Standing { recorded, .. }) if !recorded.recorded => "unrecorded ",
            Some(_) | None => "",
        };
        let width = inner_width(area);
        let manifest = chapter.ceremony.manifest();
        let opened = manifest.opened.to_string();
        let (day, purpose) = if width < DAYS_FIT {
            (String::new(), String::new())
        } else {
            (format!("{opened:.10} "), format!("  {}", manifest.purpose))
        };
        let text = format!("{}{id:<32} {day}{phase:<12} {record}{step}{purpose}", mark(selected));
        let text = cut(&text, width);
        let disputed = chapter.ceremony.disagreements().next().is_some();
        let style = match (selected, disputed) {
            (true, _) => SELECTED,
            (false, true) => level_style(model, Level::Bad),
            (false, false) => Style::new(),
        };
        lines.push(Line::styled(text, style));
    }
    lines.extend(others);
    if lines.is_empty() {
        lines.extend(nothing(model, " No ceremony yet: press o to open one.", inner_width(area)));
    }
    let older = match model.older {
        0 => String::new(),
        older => format!("and {older} older: custody ceremony list "),
    };
    let title = format!("{}{older}", counted(model, listed.len(), "ceremony"));
    frame.render_widget(Paragraph::new(lines).block(block(model, title)), area);
}

/// What nodes list besides the ceremonies that can be shown: what does not fold, and what could not be read.
fn not_listed<'a>(model: &Model, width: usize, most: usize) -> Vec<Line<'a>> {
    let aside = model.aside.iter().map(|(id, why)| (id, format!("! {id} SET ASIDE: it {why}")));
    let unread = model.unread.iter().map(|(id, why)| (id, format!("! {id}: listed but not shown: {why}")));
    let shown = aside.chain(unread).filter(|(id, _)| model.passes(id.as_str()));
    let mut texts: Vec<String> = shown.map(|(_, text)| cut(&text, width)).collect();
    if texts.len() > most {
        let more = texts.split_off(most.saturating_sub(1)).len();
        texts.push(format!("! {more} more that do not fold or could not be read: filter with /"));
    }
    texts.into_iter().map(|text| Line::styled(text, BOLD)).collect()
}

/// The lines of a wallet in the list, at most.
const WALLET_LINES: usize = 10;

pub(super) fn wallets(model: &Model, frame: &mut Frame<'_>, area: Rect) {
    let shown = model.wallets();
    let selected = shown.get(model.selection()).map(|wallet| &wallet.record.wallet);
    let copies = selected.map(|wallet| copies(model, wallet, inner_width(area))).unwrap_or_default();
    let [area, below] =
        Layout::vertical([Constraint::Fill(1), height_of_copies(area, shown.len(), copies.len())])
            .areas(area);
    let (health, width) = (model.health(), inner_width(area));
    let mut lines = Vec::new();
    for place in window(model.selection(), shown.len(), (inner_height(area) / WALLET_LINES).max(1)) {
        let record = &shown[place].record;
        let selected = place == model.selection();
        let style = if selected { SELECTED } else { BOLD };
        let title = format!("{}{} generation {} ", mark(selected), record.wallet, record.generation);
        lines.push(Line::styled(title, style));
        for fact in wallet::facts(model, record, &health) {
            let style = fact.level.map_or_else(Style::new, |level| level_style(model, level));
            lines.extend(labelled(fact.name, &fact.text, width).into_iter().map(|line| line.style(style)));
        }
        lines.push(Line::raw(""));
    }
    lines.pop();
    if lines.is_empty() {
        lines.extend(nothing(model, " No wallet has been committed yet.", width));
    }
    let lines = fitted(lines, inner_height(area));
    let title = counted(model, shown.len(), "wallet");
    frame.render_widget(Paragraph::new(lines).block(block(model, title)), area);
    if let Some(wallet) = selected {
        let title = format!(" Known copies of the shares of {wallet} ");
        let copies = fitted(copies, inner_height(below));
        frame.render_widget(Paragraph::new(copies).block(block(model, title)), below);
    }
}

/// The lines of a wallet that fit; where some do not, the last one says how to see them.
fn fitted(mut lines: Vec<Line<'_>>, height: usize) -> Vec<Line<'_>> {
    if lines.len() > height {
        let left = lines.split_off(height.saturating_sub(1)).len();
        lines.push(Line::styled(format!(" … {left} more lines: Enter shows all, and scrolls"), FAINT));
    }
    lines
}

/// How far a value is indented beside its name, and under it.
const BESIDE: usize = 15;
const UNDER: usize = 5;

/// A whole value with its name, on as many lines as it takes: under its name if one of its words, such as a key, fits whole
/// only there.
fn labelled<'a>(name: &str, value: &str, width: usize) -> Vec<Line<'a>> {
    let longest = value.split(' ').map(UnicodeWidthStr::width).max().unwrap_or_default();
    if longest > width.saturating_sub(BESIDE) && longest <= width.saturating_sub(UNDER) {
        let lines = wrap(value, width.saturating_sub(UNDER)).into_iter();
        let lines = lines.map(|line| Line::raw(format!("{:UNDER$}{line}", "")));
        return [Line::raw(format!("   {name}"))].into_iter().chain(lines).collect();
    }
    let lines = wrap(value, width.saturating_sub(BESIDE)).into_iter().enumerate();
    let named = |(place, line): (usize, String)| {
        Line::raw(format!("   {:<12}{line}", if place == 0 { name } else { "" }))
    };
    lines.map(named).collect()
}

/// As much of the screen as the copies need and the wallets leave, which is at least half.
fn height_of_copies(area: Rect, wallets: usize, copies: usize) -> Constraint {
    let lines = |count: usize| u16::try_from(count + 2).unwrap_or(u16::MAX);
    let wallets = lines(wallets * WALLET_LINES).min(area.height / 2);
    Constraint::Length(if copies == 0 { 0 } else { lines(copies).min(area.height - wallets) })
}

/// Every generation of a wallet with its copies; what is gone is crossed out and has its mark.
fn copies<'a>(model: &Model, wallet: &WalletName, width: usize) -> Vec<Line<'a>> {
    let lines = |row: Row| {
        let style =
            if row.crossed_out { Style::new().add_modifier(Modifier::CROSSED_OUT) } else { Style::new() };
        // The mark of a gone copy takes the place of indentation; a continued line is indented further.
        let indent = row.text.len() - row.text.trim_start().len();
        let lines = wrap(row.text.trim_start(), width.saturating_sub(6)).into_iter().enumerate();
        lines.map(move |(place, line)| {
            let indent = if place == 0 { indent } else { 4 };
            Line::styled(format!(" {:indent$}{line}", ""), style)
        })
    };
    wallet::copies(model, wallet).into_iter().flat_map(lines).collect()
}

pub(super) fn log(model: &Model, frame: &mut Frame<'_>, area: Rect) {
    let shown = model.entries();
    let mut lines = Vec::new();
    for place in window(model.selection(), shown.len(), inner_height(area)) {
        let (id, entry) = shown[place];
        let selected = place == model.selection();
        let mark = mark(selected);
        let text = format!("{mark}{} {id} {:>3} {}", entry.time, entry.seq, event_line(&entry.event));
        let text = cut(&text, inner_width(area));
        let style = if selected { SELECTED } else { ratatui::style::Style::new() };
        lines.push(Line::styled(text, style));
    }
    if lines.is_empty() {
        lines.extend(nothing(model, " Nothing has been logged yet.", inner_width(area)));
    }
    frame
        .render_widget(Paragraph::new(lines).block(block(model, counted(model, shown.len(), "entry"))), area);
}
