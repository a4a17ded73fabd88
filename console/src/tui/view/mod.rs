//! Drawing the state. It reads only the model; it cuts what does not fit, and never hides anything behind colour.

mod ceremony;
mod popups;
mod qr;
mod screens;
mod summary;

use ceremonies::charter::ClusterKind;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, BorderType, Paragraph};
use unicode_segmentation::UnicodeSegmentation;
use unicode_width::UnicodeWidthStr;

use super::model::{self, Model, Screen, Shown};
use crate::health::Level;

/// Below this size there is nothing sensible to show.
const SMALLEST: (u16, u16) = (60, 15);

/// Draws everything, and returns what of it can be signed.
pub fn view(model: &Model, frame: &mut Frame<'_>) -> Shown {
    let area = frame.area();
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        let text = format!("Too small: needs at least {}×{}. Ctrl-C quits.", SMALLEST.0, SMALLEST.1);
        let lines: Vec<Line<'_>> = wrap(&text, area.width.into()).into_iter().map(Line::raw).collect();
        frame.render_widget(Paragraph::new(lines), area);
        return Shown { fits: false, page: None, beyond: 0, beyond_popup: 0 };
    }
    let warnings = warnings(model, inner_width(area));
    let message = message(model, inner_width(area));
    let rows = |lines: &[Line<'_>]| u16::try_from(lines.len()).unwrap_or(0);
    let [top, second, warned, middle, bottom] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(rows(&warnings)),
        Constraint::Fill(1),
        Constraint::Length(rows(&message) + 1),
    ])
    .areas(area);
    title(model, frame, top);
    frame.render_widget(Paragraph::new(summary::summary(model, second.width.into())), second);
    frame.render_widget(Paragraph::new(warnings), warned);
    let mut beyond = 0;
    match (model.screen, model.ceremony()) {
        (Screen::Cluster, _) => screens::cluster(model, frame, middle),
        (Screen::Ceremonies, Some(ceremony)) => beyond = ceremony::view(model, ceremony, frame, middle),
        (Screen::Ceremonies, None) => screens::ceremonies(model, frame, middle),
        (Screen::Wallets, _) => screens::wallets(model, frame, middle),
        (Screen::Log, _) => screens::log(model, frame, middle),
    }
    footer(model, frame, bottom, message);
    let front = model.popup.as_ref().map(|popup| popups::view(model, popup, frame, middle));
    let popups::Front { page, beyond: beyond_popup } = front.unwrap_or_default();
    Shown { fits: true, page, beyond, beyond_popup }
}

/// The most lines of warnings: the screen behind them must stay usable.
const MAX_WARNINGS: usize = 5;

/// What must be seen on every screen: from when it is, that nodes show less than this console has seen, and why there is no
/// bus.
fn warnings<'a>(model: &Model, width: usize) -> Vec<Line<'a>> {
    let style = colour(model, Color::Red).add_modifier(Modifier::BOLD | Modifier::REVERSED);
    let more = model.set_back.len().saturating_sub(1);
    let more = if more == 0 { String::new() } else { format!(" ({more} more ceremonies)") };
    let set_back = model.set_back.values().next().map(|set_back| format!("WARNING: {set_back}{more}"));
    let no_bus = Some(&model.load_trouble).filter(|why| !model.connected && !why.is_empty());
    let said = outdated(model).into_iter().chain(set_back).chain(no_bus.cloned());
    let said: Vec<String> = said.collect();
    let lines = few(&said.join("\n"), width, MAX_WARNINGS).into_iter();
    lines.map(|line| Line::styled(format!(" {line} "), style)).collect()
}

/// That what is shown is from earlier, and from when.
fn outdated(model: &Model) -> Option<String> {
    let from = model.as_of()?;
    let (clock, ago) = (from.clock(), model.now.since(from).max(0) / 1000);
    Some(if model.is_catching_up() {
        format!("? What is shown is from {clock}; what came since is being read.")
    } else {
        format!("? Nothing heard since {clock} ({ago} s): what is shown is from then.")
    })
}

/// The end of a title of what is shown from earlier.
fn as_of(model: &Model) -> String {
    model.as_of().map(|from| format!("as of {} ", from.clock())).unwrap_or_default()
}

/// A colour where colours are used, else the terminal's own.
fn colour(model: &Model, colour: Color) -> Style {
    if model.colour { Style::new().fg(colour) } else { Style::new() }
}

fn level_style(model: &Model, level: Level) -> Style {
    match level {
        Level::Good => colour(model, Color::Green),
        Level::Unknown | Level::Warn => colour(model, Color::Yellow).add_modifier(Modifier::BOLD),
        Level::Bad => colour(model, Color::Red).add_modifier(Modifier::BOLD),
        Level::Excluded => FAINT,
    }
}

const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const FAINT: Style = Style::new().add_modifier(Modifier::DIM);
const SELECTED: Style = Style::new().add_modifier(Modifier::REVERSED);

/// The mark before a line of a list, so that the selected one stands out even without its style.
fn mark(selected: bool) -> &'static str {
    if selected { "▸" } else { " " }
}

/// The frame of a part of the screen; its lines show the kind of cluster without colour.
fn block<'a>(model: &Model, title: impl Into<Line<'a>>) -> Block<'a> {
    let lines = match model.charter().kind() {
        ClusterKind::Production => BorderType::Thick,
        ClusterKind::Rehearsal => BorderType::Double,
        ClusterKind::Lab => BorderType::Plain,
    };
    Block::bordered().border_type(lines).title(title)
}

fn kind_style(model: &Model) -> Style {
    let kind = match model.charter().kind() {
        ClusterKind::Production => Color::Red,
        ClusterKind::Rehearsal => Color::Yellow,
        ClusterKind::Lab => Color::Blue,
    };
    colour(model, kind).add_modifier(Modifier::BOLD | Modifier::REVERSED)
}

fn title(model: &Model, frame: &mut Frame<'_>, area: Rect) {
    let kind = model.charter().kind().to_string().to_uppercase();
    let left = |names: bool| {
        let mut left = vec![
            Span::styled(format!(" {kind} "), kind_style(model)),
            Span::styled(format!(" {}  ", model.charter().cluster()), BOLD),
        ];
        for (number, screen) in (1..).zip(Screen::ALL) {
            let is_here = screen == model.screen;
            let style = if is_here { SELECTED } else { Style::new() };
            let name = if names || is_here { format!(" {}", screen.title()) } else { String::new() };
            left.push(Span::styled(format!("{number}{name}"), style));
            left.push(Span::raw(" "));
        }
        Line::from(left)
    };
    // On a narrow terminal the date gives way to the screens' names; the log has it.
    let clock = model.now.to_string();
    let clock: String = clock.chars().skip(if area.width < 100 { 11 } else { 0 }).collect();
    let is_well = model.connected && (model.as_of().is_none() || model.is_catching_up());
    let connection = match (model.connected, is_well) {
        (false, _) => "✗ NO BUS",
        (true, false) => "? SILENT",
        (true, true) => "● bus",
    };
    let right = format!("{connection}  {clock} ");
    let width = u16::try_from(right.width()).unwrap_or(0).min(area.width);
    let all = left(true);
    let fits = all.width() <= usize::from(area.width - width);
    frame.render_widget(Paragraph::new(if fits { all } else { left(false) }), area);
    let place = Rect { x: area.right() - width, width, ..area };
    let style = if is_well { Style::new() } else { colour(model, Color::Red).add_modifier(Modifier::BOLD) };
    frame.render_widget(Paragraph::new(right).style(style), place);
}

/// The most lines of what happened last.
const MAX_MESSAGE: usize = 3;

/// What is typed at the bottom, or what happened last.
fn message(model: &Model, width: usize) -> Vec<Line<'static>> {
    let text = match &model.line {
        Some(model::Line::Command(text)) => typed(':', text, &model.message, width),
        Some(model::Line::Filter(text)) => typed('/', text, &model.message, width),
        None if model.busy => format!("… {}", model.message),
        None if !model.filter.is_empty() => {
            format!("filter: {} (Esc clears)  {}", model.filter, model.message)
        }
        None => model.message.clone(),
    };
    let is_in_front = model.screen == Screen::Ceremonies && model.open.is_some();
    let not_read = Some(model.not_read.as_str()).filter(|_| is_in_front).unwrap_or_default();
    let said: Vec<&str> = [text.as_str(), not_read].into_iter().filter(|said| !said.is_empty()).collect();
    let text = said.join("\n");
    let mut lines = few(&text, width, MAX_MESSAGE);
    lines.resize(lines.len().max(1), String::new());
    lines.into_iter().map(|line| Line::raw(format!(" {line}"))).collect()
}

/// A line that is typed, and what is said of it.
fn typed(sign: char, text: &str, said: &str, width: usize) -> String {
    let line = format!("{sign}{}▏", tail(text, width.saturating_sub(2)));
    if said.is_empty() { line } else { format!("{line}\n{said}") }
}

/// Fewest columns in which a person's name still says something.
const LEAST_NAME: usize = 8;

fn footer(model: &Model, frame: &mut Frame<'_>, area: Rect, message: Vec<Line<'_>>) {
    let [said, keys] = Layout::vertical([Constraint::Fill(1), Constraint::Length(1)]).areas(area);
    frame.render_widget(Paragraph::new(message), said);
    let me = match model.cluster.me.as_slice() {
        [] => "nobody signs here".to_owned(),
        [me] => format!("{} ({}, {})", me.person, me.role, key_name(&me.key)),
        several => format!("{} people sign here", several.len()),
    };
    let is_over = model.ceremony().is_some_and(|ceremony| !model.is_running(ceremony));
    let hints = match (model.screen, model.open.is_some()) {
        (Screen::Ceremonies, true) if is_over => "f code  ↑ ↓ scroll  Esc list  ? help  q quit",
        (Screen::Ceremonies, true) => "s sign  f code  w withdraw  Esc list  ? help  q quit",
        (Screen::Ceremonies, false) => "o open  Enter show  / filter  ? help  q quit",
        (Screen::Cluster | Screen::Wallets | Screen::Log, _) => {
            "1-4 screens  Enter show  o open  / filter  ? help  q quit"
        }
    };
    // On a narrow terminal the keys are whole, and the person gives way.
    let left = usize::from(area.width).saturating_sub(hints.width() + 3);
    let me = if left < LEAST_NAME { String::new() } else { format!("{}  ", cut(&me, left)) };
    let line = Line::from(vec![Span::styled(format!(" {me}"), BOLD), Span::styled(hints, FAINT)]);
    frame.render_widget(Paragraph::new(line), keys);
}

fn key_name(path: &std::path::Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The part of a list that fits around the selected line: first line and how many.
fn window(selected: usize, length: usize, height: usize) -> std::ops::Range<usize> {
    let first = selected.saturating_sub(height.saturating_sub(1)).min(length.saturating_sub(height));
    first..(first + height).min(length)
}

/// Text wrapped to this many columns, at spaces where there are any. Nothing is left out.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.lines() {
        let mut line = String::new();
        for word in paragraph.split(' ') {
            let fits = line.width() + 1 + word.width() <= width;
            if !line.is_empty() && !fits {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            for grapheme in word.graphemes(true) {
                if !line.is_empty() && line.width() + grapheme.width() > width {
                    lines.push(std::mem::take(&mut line));
                }
                line.push_str(grapheme);
            }
        }
        lines.push(line);
    }
    lines
}

/// Text wrapped to at most this many lines, with a mark where something is missing.
fn few(text: &str, width: usize, most: usize) -> Vec<String> {
    let mut lines = wrap(text, width);
    if lines.len() > most {
        let rest = lines.split_off(most.saturating_sub(1)).join(" ");
        lines.push(cut(&rest, width));
    }
    lines
}

/// As much of a line as fits into this many columns, with a mark where something is missing.
fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut line = String::new();
    for grapheme in text.graphemes(true) {
        if line.width() + grapheme.width() >= width {
            break;
        }
        line.push_str(grapheme);
    }
    line + "…"
}

/// The end of what is typed, as much as fits, with a mark where something is missing.
fn tail(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut rest = text;
    while rest.width() >= width {
        let first = rest.graphemes(true).next().map_or(rest.len(), str::len);
        rest = &rest[first..];
    }
    format!("…{rest}")
}

/// What stands over and under lines that do not fit.
const ABOVE: &str = " ↑ more";
const BELOW: &str = " … more: ↓ and PageDown";

/// The lines that fit into a part of the screen from this one on, but no further than to the end, and how many do not fit.
/// Marks stand in place of the first and last where there is more.
fn scrolled(lines: Vec<Line<'_>>, from: usize, height: usize) -> (Vec<Line<'_>>, usize) {
    let beyond = lines.len().saturating_sub(height);
    let from = from.min(beyond);
    let mut shown: Vec<Line<'_>> = lines.into_iter().skip(from).take(height).collect();
    if from < beyond
        && let Some(last) = shown.last_mut()
    {
        *last = Line::styled(BELOW, FAINT);
    }
    if from > 0
        && let Some(first) = shown.first_mut()
    {
        *first = Line::styled(ABOVE, FAINT);
    }
    (shown, beyond)
}

fn inner_width(area: Rect) -> usize {
    usize::from(area.width.saturating_sub(2)).max(1)
}

fn inner_height(area: Rect) -> usize {
    usize::from(area.height.saturating_sub(2))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Text of the widths that terminals draw, with marks that take no column.
    fn text() -> impl Strategy<Value = String> {
        let word = "[a-z]{0,9}|[一-俿]{1,7}|(e\u{301}){1,5}|[０-９]{1,9}|👍{1,3}";
        proptest::collection::vec(word, 0..20).prop_map(|words| words.join(" "))
    }

    proptest! {
        #[test]
        fn wrapped_text_is_whole_and_fits(text in text(), width in 2..40usize) {
            let lines = wrap(&text, width);
            for line in &lines {
                prop_assert!(line.width() <= width, "{line:?} in {width}");
            }
            let letters = |text: &str| text.chars().filter(|c| *c != ' ').collect::<String>();
            prop_assert_eq!(letters(&lines.concat()), letters(&text));
        }

        #[test]
        fn cut_text_fits_and_shows_that_it_is_cut(text in text(), width in 2..40usize) {
            for short in [cut(&text, width), tail(&text, width)] {
                prop_assert!(short.width() <= width);
                prop_assert!(short == text || short.contains('…'));
            }
        }
    }
}
