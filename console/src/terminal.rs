//! The terminal itself: what keys do to typed text, asking for a secret without showing it, and giving the screen back
//! whatever happens. The terminal is the shell's and only lent to us: no signal may leave it raw.

use std::io::{self, BufRead as _, IsTerminal, Read as _, Write as _};
use std::sync::Once;

use crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use crossterm::terminal::{disable_raw_mode, enable_raw_mode, is_raw_mode_enabled};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;
use zeroize::Zeroizing;

/// Longest passphrase read.
const MAX_SECRET: usize = 1024;

/// Longest word read that is shown.
const MAX_WORD: u64 = 64;

/// Whether a key types its character: alone or with Shift, and never as a command.
#[must_use]
pub fn types(key: &KeyEvent) -> bool {
    (key.modifiers - KeyModifiers::SHIFT).is_empty()
}

/// What a key does to text being typed, at most this many characters long; false if its character no longer fits. Keys
/// without a meaning here change nothing.
#[expect(clippy::wildcard_enum_match_arm, reason = "all other keys do nothing here, or are typed")]
pub fn edit(text: &mut String, key: &KeyEvent, limit: usize) -> bool {
    let with_control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        KeyCode::Char('h') if with_control => {
            text.pop();
        }
        KeyCode::Char('u') if with_control => text.clear(),
        KeyCode::Char('w') if with_control => {
            let kept = text.trim_end().rfind(' ').map_or(0, |space| space + 1);
            text.truncate(kept);
        }
        KeyCode::Backspace => {
            text.pop();
        }
        KeyCode::Char(c) if types(key) => return write(text, c, limit),
        _ => {}
    }
    true
}

/// Adds a character, if it fits.
fn write(text: &mut String, c: char, limit: usize) -> bool {
    let fits = text.chars().count() < limit;
    if fits {
        text.push(c);
    }
    fits
}

/// Adds pasted text, and returns how many characters of it did not fit: line ends and tabs become spaces, so that words stay
/// apart, and what commands a terminal is left out.
pub fn paste(text: &mut String, pasted: &str, limit: usize) -> usize {
    let mut pasted = pasted.trim_end_matches(['\r', '\n']).chars().peekable();
    let mut left = 0;
    while let Some(c) = pasted.next() {
        let fits = match c {
            // The line feed behind it is the space.
            '\r' if pasted.peek() == Some(&'\n') => true,
            '\n' | '\r' | '\t' => write(text, ' ', limit),
            c if c.is_control() => true,
            c => write(text, c, limit),
        };
        left += usize::from(!fits);
    }
    left
}

/// Gives the screen back, even if the program panics or an error ends it.
pub struct Screen;

impl Screen {
    /// Takes the screen: raw mode, the alternate screen, no cursor.
    ///
    /// # Errors
    /// When this is no terminal.
    pub fn take() -> io::Result<Self> {
        if !io::stdout().is_terminal() {
            return Err(io::Error::other("not a terminal: use the subcommands (custody --help)"));
        }
        // From here on dropping the guard gives back what has been taken.
        let screen = Self;
        screen.retake()?;
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            before(panic);
        }));
        Ok(screen)
    }

    /// Takes it again after the shell had it for a while, whatever the shell did to it.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn retake(&self) -> io::Result<()> {
        disable_raw_mode()?;
        enable_raw_mode()?;
        crossterm::execute!(
            io::stdout(),
            crossterm::terminal::EnterAlternateScreen,
            crossterm::event::EnableBracketedPaste,
            crossterm::cursor::Hide
        )
    }

    /// Gives it back and stops the program, as `SIGTSTP` asks; returns when the program goes on.
    ///
    /// # Errors
    /// When the program cannot be stopped.
    pub fn suspend(&self) -> io::Result<()> {
        give_back();
        emulate_default_handler(SIGTSTP)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// Undoes everything [`Screen::take`] did; harmless when nothing was taken.
pub fn give_back() {
    let _ = crossterm::execute!(
        io::stdout(),
        crossterm::event::DisableBracketedPaste,
        crossterm::terminal::LeaveAlternateScreen,
        crossterm::cursor::Show
    );
    let _ = disable_raw_mode();
}

/// Asks for a word on the terminal, and shows it as it is typed.
///
/// # Errors
/// When there is no terminal to ask on.
pub fn ask(question: &str) -> io::Result<String> {
    must_be_terminal()?;
    let mut screen = io::stderr();
    write!(screen, "{question}")?;
    screen.flush()?;
    let mut word = String::new();
    io::stdin().lock().take(MAX_WORD).read_line(&mut word)?;
    Ok(word.trim().to_owned())
}

fn must_be_terminal() -> io::Result<()> {
    if io::stdin().is_terminal() { Ok(()) } else { Err(io::Error::other("there is no terminal to ask on")) }
}

/// Asks for a secret on the terminal without showing it.
///
/// # Errors
/// When there is no terminal, or the question is cancelled.
pub fn ask_hidden(question: &str) -> io::Result<Zeroizing<String>> {
    must_be_terminal()?;
    watch_signals()?;
    let mut screen = io::stderr();
    write!(screen, "{question}")?;
    screen.flush()?;
    enable_raw_mode()?;
    let secret = read_hidden();
    disable_raw_mode()?;
    writeln!(screen)?;
    secret
}

/// Gives the terminal back before a signal ends or stops the program, and takes it again when the program goes on. Set
/// up once and for good: removing a handler leaves its signal ignored.
fn watch_signals() -> io::Result<()> {
    static WATCHED: Once = Once::new();
    if WATCHED.is_completed() {
        return Ok(());
    }
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGTSTP, SIGCONT])?;
    WATCHED.call_once(|| {
        std::thread::spawn(move || {
            for signal in signals.forever() {
                let was_raw = is_raw_mode_enabled().unwrap_or(false);
                let _ = disable_raw_mode();
                // It returns only from a stop. Continuing needs only the terminal, which the shell has changed.
                if signal != SIGCONT {
                    let _ = emulate_default_handler(signal);
                }
                if was_raw {
                    let _ = enable_raw_mode();
                }
            }
        });
    });
    Ok(())
}

#[expect(clippy::wildcard_enum_match_arm, reason = "all other keys do nothing here, or are typed")]
fn read_hidden() -> io::Result<Zeroizing<String>> {
    // Allocated in full at the start: a growing buffer would leave copies behind.
    let mut secret = Zeroizing::new(String::with_capacity(MAX_SECRET * 4));
    loop {
        let Event::Key(key) = crossterm::event::read()? else { continue };
        if key.kind == KeyEventKind::Release {
            continue;
        }
        let with_control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Enter => return Ok(secret),
            // A line feed, with which programs that type for people end lines.
            KeyCode::Char('j') if with_control => return Ok(secret),
            KeyCode::Esc => return Err(io::Error::other("cancelled")),
            KeyCode::Char('c' | 'd') if with_control => return Err(io::Error::other("cancelled")),
            _ if edit(&mut secret, &key, MAX_SECRET) => {}
            _ => return Err(io::Error::other(format!("more than {MAX_SECRET} characters: none were taken"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(keys: &[(char, KeyModifiers)]) -> String {
        let mut text = String::new();
        for (c, modifiers) in keys {
            edit(&mut text, &KeyEvent::new(KeyCode::Char(*c), *modifiers), 12);
        }
        text
    }

    fn plain(text: &str) -> Vec<(char, KeyModifiers)> {
        text.chars().map(|c| (c, KeyModifiers::NONE)).collect()
    }

    #[test]
    fn control_keys_edit_and_all_others_with_modifiers_type_nothing() {
        let after = |before: &str, key| typed(&[plain(before), vec![(key, KeyModifiers::CONTROL)]].concat());
        assert_eq!(after("two words", 'h'), "two word");
        assert_eq!(after("two words", 'u'), "");
        assert_eq!(after("two words", 'w'), "two ");
        assert_eq!(after("two words ", 'w'), "two ");
        assert_eq!(after("", 'w'), "");
        for c in ('a'..='z').filter(|c| !['h', 'u', 'w'].contains(c)) {
            assert_eq!(after("x", c), "x", "Ctrl-{c}");
            let alt = typed(&[plain("x"), vec![(c, KeyModifiers::ALT)]].concat());
            assert_eq!(alt, "x", "Alt-{c}");
        }
        assert_eq!(typed(&[('A', KeyModifiers::SHIFT), ('b', KeyModifiers::NONE)]), "Ab");
        assert_eq!(typed(&plain("more than fits")), "more than fi");
    }

    #[test]
    fn pasted_lines_stay_apart_and_command_nothing() {
        let pasted = |text: &str| {
            let mut into = "<".to_owned();
            paste(&mut into, text, 20);
            into
        };
        assert_eq!(pasted("one\ntwo\r\nthree\tfour\n"), "<one two three four");
        assert_eq!(pasted("a\u{1b}[2Jb\u{9b}c"), "<a[2Jbc");
        assert_eq!(pasted("\n"), "<");
        assert_eq!(pasted(&"x".repeat(40)).len(), 20);
    }

    #[test]
    fn what_no_longer_fits_is_counted() {
        let mut into = "<".to_owned();
        assert_eq!(paste(&mut into, "one\r\ntwo\u{1b}\n", 8), 0);
        assert_eq!(paste(&mut into, &"x".repeat(40), 20), 28);
        assert_eq!(paste(&mut into, "y\u{1b}\n", 20), 1);
        let key = |code| KeyEvent::new(code, KeyModifiers::NONE);
        assert!(!edit(&mut into, &key(KeyCode::Char('y')), 20), "it is full");
        assert!(edit(&mut into, &key(KeyCode::Backspace), 20));
        assert!(edit(&mut into, &key(KeyCode::Char('y')), 20));
    }
}
