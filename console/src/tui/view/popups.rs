//! Pop-ups: help, messages, forms, the statement to be signed.

use ceremonies::charter::ClusterKind;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, BorderType, Clear, Paragraph};

use super::screens::places;
use super::{
    ABOVE, BOLD, FAINT, SELECTED, few, inner_height, inner_width, key_name, mark, qr, scrolled, tail, window,
    wrap,
};
use crate::tui::model::{FIELDS, Model, OpenForm, Page, Popup, Review, Typing, TypingFor, Who, WhoFor};
use crate::tui::update::SIGN_WORD;
use crate::tui::{node, wallet};

/// How a message is closed.
const CLOSES: &str = "Enter or Esc closes";

const HELP: &str = "\
1-4, Tab   Cluster, Ceremonies, Wallets, Log
↑ ↓        move in a list          Enter  show what is selected
g          go where you are asked  o      open a ceremony
s          sign the open step      w      withdraw a ceremony
f          fingerprint, as a code  /      filter
:          command                 Esc    back, cancel
Ctrl-L     redraw                  Ctrl-U, Ctrl-W  clear, word
Home, End, PageUp, PageDown  move      q, Ctrl-C       quit

One key press never signs: read the statement to its end, then
type the word `sign` under it.

Marks: ✓ done, healthy   ▶ now   · later   ! look   ✗ bad
       ? not known   ⊘ excluded";

/// What a popup has shown.
#[derive(Default)]
pub(super) struct Front {
    /// The lines of a statement, if that can be signed.
    pub(super) page: Option<Page>,
    /// How many lines of a text do not fit.
    pub(super) beyond: usize,
}

/// Draws a popup.
pub(super) fn view(model: &Model, popup: &Popup, frame: &mut Frame<'_>, area: Rect) -> Front {
    let at = model.popup_scroll;
    let beyond = match popup {
        Popup::Help => {
            let help = format!("{HELP}\n\nWhere everything is:\n{}", places(model).join("\n"));
            text(frame, area, " Help ", (&help, at), CLOSES)
        }
        Popup::Message { title, text: message } => {
            text(frame, area, &format!(" {title} "), (message, at), CLOSES)
        }
        Popup::Node(node) => {
            let known = node::text(model, *node);
            text(frame, area, &format!(" Node {node} "), (&known, at), CLOSES)
        }
        Popup::Wallet(wallet) => {
            let known = wallet::text(model, wallet);
            text(frame, area, &format!(" Wallet {wallet} "), (&known, at), CLOSES)
        }
        Popup::Fingerprint { title, words, code } => {
            fingerprint(frame, area, title, words, code);
            0
        }
        Popup::Open(form) => {
            open(model, frame, area, form);
            0
        }
        Popup::Who(list) => {
            who(frame, area, list);
            0
        }
        Popup::Type(typing) => typed(model, frame, area, typing),
        Popup::Verdict { me } => {
            let message = format!(
                "{} as {}: does the record say what you saw?\n\na  agree\nd  disagree, with a reason\n\n\
                 Disagreeing is no offence. You sign either after reading the statement.",
                me.person, me.role
            );
            text(frame, area, " Verdict ", (&message, 0), "Esc cancels")
        }
        Popup::Review(statement) => return Front { page: review(frame, area, statement), beyond: 0 },
        Popup::Passphrase { review, typed } => {
            let dots = "•".repeat(typed.chars().count());
            let message = format!("Passphrase of {}:\n\n{dots}▏", key_name(&review.me.key));
            text(frame, area, " Key is locked ", (&message, END), "Enter signs, Esc cancels")
        }
        Popup::Quit => {
            let goes_on = match model.charter().kind() {
                ClusterKind::Lab => {
                    "If this console was started by `cargo lab`, the lab ends with it, and the ceremony stands still \
                     until the lab is started again."
                }
                ClusterKind::Production | ClusterKind::Rehearsal => {
                    "It goes on without this console; start the console again to resume."
                }
            };
            let message = format!("A ceremony is under way. {goes_on}\n\nQuit? y: quit, any other key: stay");
            text(frame, area, " Quit ", (&message, 0), "")
        }
    };
    Front { page: None, beyond }
}

/// A box in the middle for lines of text.
fn boxed(area: Rect, width: usize, lines: usize) -> Rect {
    let width = u16::try_from(width + 2).unwrap_or(u16::MAX).min(area.width);
    let height = u16::try_from(lines + 2).unwrap_or(u16::MAX).min(area.height);
    Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height }
}

fn show(frame: &mut Frame<'_>, place: Rect, title: &str, hint: &str, lines: Vec<Line<'_>>) {
    let block = Block::bordered()
        .border_type(BorderType::Rounded)
        .title(title.to_owned())
        .title_bottom(if hint.is_empty() { String::new() } else { format!(" {hint} ") });
    frame.render_widget(Clear, place);
    frame.render_widget(Paragraph::new(lines).block(block), place);
}

/// Shows the end of a text, where somebody types.
const END: usize = usize::MAX;

/// Shows a text from this line on, and returns how many lines do not fit.
fn text(frame: &mut Frame<'_>, area: Rect, title: &str, (text, from): (&str, usize), hint: &str) -> usize {
    let width = 66.min(usize::from(area.width).saturating_sub(4));
    let lines: Vec<Line<'_>> =
        wrap(text, width).into_iter().map(|line| Line::raw(format!(" {line}"))).collect();
    let (lines, beyond) = scrolled(lines, from, inner_height(area));
    show(frame, boxed(area, width + 1, lines.len()), title, hint, lines);
    beyond
}

fn fingerprint(frame: &mut Frame<'_>, area: Rect, title: &str, words: &str, code: &str) {
    let width = usize::from(area.width).saturating_sub(4).min(74);
    let mut lines: Vec<Line<'_>> =
        wrap(words, width).into_iter().map(|line| Line::styled(format!(" {line}"), BOLD)).collect();
    let height = usize::from(area.height).saturating_sub(lines.len() + 2);
    if let Some(code) = qr::lines(code, usize::from(area.width) - 2, height) {
        lines.extend(code);
    } else {
        lines.push(Line::raw(format!(" {code}")));
        lines.push(Line::styled(" Enlarge the terminal to see the code.", FAINT));
    }
    show(frame, boxed(area, width + 1, lines.len()), &format!(" {title} "), CLOSES, lines);
}

fn open(model: &Model, frame: &mut Frame<'_>, area: Rect, form: &OpenForm) {
    let field = |number: usize, value: &str| {
        let name = FIELDS[number];
        let (style, end) = if form.field == number { (SELECTED, "▏") } else { (Style::new(), "") };
        let value = tail(value, usize::from(area.width).min(76).saturating_sub(12));
        Line::from(vec![Span::raw(format!(" {name:<9}")), Span::styled(format!("{value}{end}"), style)])
    };
    let mut lines = vec![
        field(0, &format!("{}  (← → changes)", form.kind)),
        field(1, &form.wallet),
        field(2, &form.purpose),
    ];
    if form.fields() > 3 {
        lines.push(field(3, &form.lost));
        lines.push(Line::styled(
            " Who lost a share: 4, or 2,4=backup. A bare number: repaired by others.",
            FAINT,
        ));
    }
    lines.extend([
        Line::raw(""),
        Line::styled(format!(" charter {}", model.charter().hash()), FAINT),
        Line::styled(" The statement is shown before anything is signed.", FAINT),
    ]);
    if !form.trouble.is_empty() {
        let trouble = wrap(&format!("! {}", form.trouble), usize::from(area.width).min(76).saturating_sub(3));
        lines.extend(trouble.into_iter().map(|line| Line::styled(format!(" {line}"), BOLD)));
    }
    show(
        frame,
        boxed(area, 76, lines.len()),
        " Open a ceremony ",
        "Tab next field, Enter continues, Esc cancels",
        lines,
    );
}

fn who(frame: &mut Frame<'_>, area: Rect, who: &Who) {
    let lines: Vec<Line<'_>> = window(who.selected, who.people.len(), inner_height(area))
        .map(|place| {
            let me = &who.people[place];
            let selected = place == who.selected;
            let (mark, key) = (mark(selected), key_name(&me.key));
            let text = format!("{mark}{:<20} {:<14} {key} ", me.person, me.role);
            Line::styled(text, if selected { SELECTED } else { Style::new() })
        })
        .collect();
    let title = match who.purpose {
        WhoFor::Step => " Who signs? ",
        WhoFor::Withdraw => " Who ends the ceremony? ",
    };
    show(frame, boxed(area, 60, lines.len()), title, "↑ ↓, Enter, Esc", lines);
}

fn typed(model: &Model, frame: &mut Frame<'_>, area: Rect, typing: &Typing) -> usize {
    let sending = || {
        let id = model.open.as_ref().map_or("ID", |id| id.as_str());
        format!(
            "To send it, cancel this and run, where the network can be reached:\n\n\
             custody broadcast {id} --endpoint URL\n\n\
             It waits for the block and signs this step with it. If it is not sent from here: why? The reason stays in \
             the record."
        )
    };
    let (title, question) = match typing.question {
        TypingFor::Words => (" Read back ", "Type the eight words as you hear them.".to_owned()),
        TypingFor::Disagreement => {
            (" Disagree ", "What differs from what you saw? The reason stays in the record.".to_owned())
        }
        TypingFor::Withdrawal => {
            (" End the ceremony ", "Why does it end? The reason stays in the record.".to_owned())
        }
        TypingFor::Withholding => (" Send the transaction ", sending()),
    };
    let mut message = format!("{} as {}\n{question}\n\n{}▏", typing.me.person, typing.me.role, typing.text);
    if !typing.trouble.is_empty() {
        message += &format!("\n\n! Not taken: {}", typing.trouble);
    }
    text(frame, area, title, (&message, END), "Enter shows the statement, Esc cancels")
}

/// A statement with the place for the word under it. Only whole lines of the statement are drawn in its place, so that
/// whatever was on the screen was seen.
fn review(frame: &mut Frame<'_>, area: Rect, review: &Review) -> Option<Page> {
    let width = inner_width(area).saturating_sub(1);
    let asked = prompt(review, width);
    let height = inner_height(area).saturating_sub(asked.len() + 1);
    let code = if review.code { qr::lines(&review.statement, width, height) } else { None };
    let (mut lines, page) = match code {
        Some(code) => (code, None),
        None if review.code => {
            (vec![Line::raw(" The terminal is too small for the statement's code.")], None)
        }
        None => leaf(review, width, height),
    };
    lines.truncate(height);
    lines.resize(height, Line::raw(""));
    lines.push(Line::raw(""));
    lines.extend(asked);
    // A line of the statement is no place for this mark.
    let above = if page.is_some_and(|page| page.first > 0) { ABOVE } else { "" };
    show(
        frame,
        area,
        &format!(" Statement: read it, then sign{above} "),
        "Enter signs, Tab code, ↑ ↓ PageDown End, Esc cancels",
        lines,
    );
    page
}

/// The lines of a statement that fit, from where it is scrolled to.
fn leaf<'a>(review: &Review, width: usize, height: usize) -> (Vec<Line<'a>>, Option<Page>) {
    let wrapped = wrap(&review.statement, width);
    let lines = wrapped.len();
    let first = review.scroll.min(lines.saturating_sub(height));
    let is_all = lines <= first + height;
    let fit = if is_all { height } else { height.saturating_sub(1) };
    let rest = wrapped.into_iter().skip(first).take(fit);
    let mut shown: Vec<Line<'_>> = rest.map(|line| Line::raw(format!(" {line}"))).collect();
    let page = Page { first, height: shown.len(), lines };
    if !is_all {
        let left = lines - first - fit;
        shown.push(Line::styled(format!(" … {left} more lines: ↓, PageDown, End"), FAINT));
    }
    (shown, Some(page))
}

/// Who signs with which key and, once the statement has been read, the word as far as it has been typed.
fn prompt<'a>(review: &Review, width: usize) -> Vec<Line<'a>> {
    let who = format!("{} signs with {}.", review.me.person, key_name(&review.me.key));
    let mut lines: Vec<Line<'_>> =
        wrap(&who, width).into_iter().map(|line| Line::raw(format!(" {line}"))).collect();
    let more = |all: &[String]| if all.len() > 1 { " (and others)" } else { "" };
    let rival = review.rivals.first().map(|rival| format!("{rival}{}.", more(&review.rivals)));
    let doubt = review.doubts.first();
    let doubt = doubt.map(|doubt| format!("{doubt}{}: the ceremony may fail.", more(&review.doubts)));
    for warning in rival.into_iter().chain(doubt) {
        lines.extend(few(&warning, width, 2).into_iter().map(|l| Line::styled(format!(" {l}"), BOLD)));
    }
    lines.push(if review.read {
        let asked = format!(" Type `{SIGN_WORD}`: ");
        let typed = tail(&review.typed, width.saturating_sub(asked.len() + 1));
        let typed = Span::styled(format!("{typed}▏"), Style::new().add_modifier(Modifier::REVERSED));
        Line::from(vec![Span::raw(asked), typed])
    } else {
        Line::styled(" Read all of it before you sign: PageDown, or End.", BOLD)
    });
    lines
}
