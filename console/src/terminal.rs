//! The terminal itself: asking for a secret without showing it, and giving the screen back whatever happens.

use std::io::{self, IsTerminal, Write as _};

use crossterm::event::{Event, KeyCode, KeyEventKind, KeyModifiers};
use crossterm::terminal::{disable_raw_mode, enable_raw_mode};
use zeroize::Zeroizing;

/// Longest passphrase read.
const MAX_SECRET: usize = 1024;

/// Gives the screen back, also when the program panics or an error ends it.
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
        enable_raw_mode()?;
        // From here on dropping the guard gives back what has been taken.
        let screen = Self;
        crossterm::execute!(
            io::stdout(),
            crossterm::terminal::EnterAlternateScreen,
            crossterm::event::EnableBracketedPaste,
            crossterm::cursor::Hide
        )?;
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            before(panic);
        }));
        Ok(screen)
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

/// Asks for a secret on the terminal without showing it.
///
/// # Errors
/// When there is no terminal, or the question is cancelled.
pub fn ask_hidden(question: &str) -> io::Result<Zeroizing<String>> {
    if !io::stdin().is_terminal() {
        return Err(io::Error::other("the key needs a passphrase, and there is no terminal to ask for it"));
    }
    eprint!("{question}");
    io::stderr().flush()?;
    enable_raw_mode()?;
    let secret = read_hidden();
    disable_raw_mode()?;
    eprintln!();
    secret
}

fn read_hidden() -> io::Result<Zeroizing<String>> {
    // Room from the start: a growing buffer would leave copies behind.
    let mut secret = Zeroizing::new(String::with_capacity(MAX_SECRET * 4));
    loop {
        let Event::Key(key) = crossterm::event::read()? else { continue };
        if key.kind == KeyEventKind::Release {
            continue;
        }
        match key.code {
            KeyCode::Enter => return Ok(secret),
            KeyCode::Esc => return Err(io::Error::other("cancelled")),
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                return Err(io::Error::other("cancelled"));
            }
            KeyCode::Backspace => {
                secret.pop();
            }
            KeyCode::Char(c) if secret.chars().count() < MAX_SECRET => secret.push(c),
            _ => {}
        }
    }
}
