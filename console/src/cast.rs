//! What a console has shown, written down while it is shown and shown again later: asciicast v2
//! (<https://docs.asciinema.org/manual/asciicast/v2/>), which other players read too.
//!
//! Only what was drawn on the screen goes into a recording: never what was typed where nothing is shown. A recording that
//! is shown again moves the cursor, sets colours and writes text; whatever else it holds for a terminal is left out.

use std::io::{self, BufRead, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ceremonies::text::printable;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Largest recording, in bytes: a day of a busy screen has less.
pub const MAX_CAST: u64 = 256 * 1024 * 1024;
/// Longest line of a recording that is read, in bytes: a frame of the largest screens has less.
const MAX_LINE: u64 = 4 * 1024 * 1024;
/// Longest sequence for a terminal, in characters: colours of text and ground, and what is bold, have fewer.
const MAX_SEQUENCE: usize = 64;
/// Longest pause between two frames that are shown again.
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// Why a file is not a recording, or its next frame cannot be shown.
#[derive(Debug, Error)]
pub enum CastError {
    /// The file cannot be read.
    #[error("the recording cannot be read")]
    Read(#[from] io::Error),
    /// Its first line is not a recording's.
    #[error("not a recording of a console: its first line must be the header of an asciicast of version 2")]
    Header,
    /// A line is not a frame.
    #[error("line {0} is not a frame of a recording: the frames before it were shown")]
    Frame(usize),
    /// A line is too long.
    #[error("line {0} is longer than {MAX_LINE} bytes: the frames before it were shown")]
    Length(usize),
}

#[derive(Serialize, Deserialize)]
struct Header {
    version: u8,
    width: u16,
    height: u16,
    /// Seconds since 1970.
    timestamp: i64,
    title: String,
}

/// A recording that is being written. One that cannot be written any more ends, and says so once.
pub struct Tape<F> {
    file: Option<F>,
    began: Instant,
    frame: Vec<u8>,
    left: u64,
    trouble: Option<String>,
}

impl<F: Write> Tape<F> {
    /// Begins a recording of a screen of this many columns and lines.
    ///
    /// # Errors
    /// When the file's first line cannot be written.
    pub fn new(file: F, (width, height): (u16, u16), timestamp: i64, title: String) -> io::Result<Self> {
        let (file, frame) = (Some(file), Vec::new());
        let mut tape = Self { file, began: Instant::now(), frame, left: MAX_CAST, trouble: None };
        tape.write(&Header { version: 2, width, height, timestamp, title })?;
        Ok(tape)
    }

    /// Why the recording has ended, said once.
    pub fn trouble(&mut self) -> Option<String> {
        self.trouble.take()
    }

    /// Notes that the screen has another size now.
    pub fn resized(&mut self, (width, height): (u16, u16)) {
        self.note("r", &format!("{width}x{height}"));
    }

    fn drawn(&mut self, bytes: &[u8]) {
        if self.file.is_some() {
            self.frame.extend(bytes);
        }
    }

    fn end_frame(&mut self) {
        let frame = std::mem::take(&mut self.frame);
        if !frame.is_empty() {
            self.note("o", &String::from_utf8_lossy(&frame));
        }
    }

    fn note(&mut self, kind: &str, data: &str) {
        let at = self.began.elapsed().as_secs_f64();
        if let Err(error) = self.write(&(at, kind, data)) {
            self.file = None;
            self.trouble = Some(format!("The recording has ended: {error}. The console goes on."));
        }
    }

    fn write(&mut self, line: &impl Serialize) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut line = serde_json::to_string(line)?;
        line.push('\n');
        let full = || io::Error::other(format!("it has reached {} MB", MAX_CAST / 1024 / 1024));
        self.left = self.left.checked_sub(line.len() as u64).ok_or_else(full)?;
        file.write_all(line.as_bytes())?;
        file.flush()
    }
}

/// The terminal, with a tape beside it that gets what the terminal gets.
pub struct Recorder<T, F> {
    terminal: T,
    tape: Option<Arc<Mutex<Tape<F>>>>,
}

impl<T, F> Recorder<T, F> {
    /// With this tape, or without one.
    pub const fn new(terminal: T, tape: Option<Arc<Mutex<Tape<F>>>>) -> Self {
        Self { terminal, tape }
    }
}

impl<T: Write, F: Write> Write for Recorder<T, F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.terminal.write(bytes)?;
        if let Some(tape) = &self.tape {
            locked(tape).drawn(bytes.get(..written).unwrap_or_default());
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.terminal.flush()?;
        if let Some(tape) = &self.tape {
            locked(tape).end_frame();
        }
        Ok(())
    }
}

/// The tape, also after a panic beside it: it holds nothing that could be half done.
pub fn locked<F>(tape: &Mutex<Tape<F>>) -> MutexGuard<'_, Tape<F>> {
    tape.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A frame of a recording.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    /// How long after the one before it is shown.
    pub pause: Duration,
    /// What is written to the terminal.
    pub text: String,
}

/// Reads a recording, frame by frame.
pub struct Player<R> {
    file: R,
    line: usize,
    at: f64,
    /// Columns and lines of the screen that was recorded.
    pub size: (u16, u16),
}

impl<R: BufRead> Player<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// [`CastError`] when this is not a recording.
    pub fn open(file: R) -> Result<Self, CastError> {
        let mut player = Self { file, line: 0, at: 0.0, size: (0, 0) };
        let line = player.next_line()?.ok_or(CastError::Header)?;
        let header: Header = serde_json::from_str(&line).map_err(|_| CastError::Header)?;
        if header.version != 2 {
            return Err(CastError::Header);
        }
        player.size = (header.width, header.height);
        Ok(player)
    }

    fn next_line(&mut self) -> Result<Option<String>, CastError> {
        let mut line = String::new();
        self.line += 1;
        let read = io::Read::take(&mut self.file, MAX_LINE + 1).read_line(&mut line)?;
        if read as u64 > MAX_LINE {
            return Err(CastError::Length(self.line));
        }
        Ok((read > 0).then_some(line))
    }

    /// The next frame, or none at the end.
    ///
    /// # Errors
    /// [`CastError`] when the next line is not one.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, CastError> {
        while let Some(line) = self.next_line()? {
            let (at, kind, data): (f64, String, String) =
                serde_json::from_str(&line).map_err(|_| CastError::Frame(self.line))?;
            if kind == "o" {
                let pause = Duration::try_from_secs_f64(at - self.at).unwrap_or_default().min(MAX_PAUSE);
                self.at = at;
                return Ok(Some(Frame { pause, text: harmless(&data) }));
            }
        }
        Ok(None)
    }
}

/// What of a frame moves the cursor, sets colours, clears or writes text. A recording comes from somebody else: what would
/// set a title, fill the clipboard or ask the terminal something is left out.
fn harmless(frame: &str) -> String {
    let mut kept = String::new();
    let mut rest = frame.chars();
    while let Some(c) = rest.next() {
        if c == '\u{1b}' {
            let mut sequence = String::from(c);
            for c in rest.by_ref().take(MAX_SEQUENCE) {
                sequence.push(c);
                let is_first = sequence.len() == 2;
                if is_first && c != '[' || !is_first && ('@'..='~').contains(&c) {
                    break;
                }
            }
            let ends_well = sequence.ends_with(['m', 'H', 'J', 'K', 'A', 'B', 'C', 'D', 'G', 'd']);
            let asks_nothing =
                sequence.chars().skip(2).all(|c| c.is_ascii_digit() || c == ';' || c.is_ascii_alphabetic());
            if sequence.starts_with("\u{1b}[") && ends_well && asks_nothing {
                kept.push_str(&sequence);
            }
        } else if is_shown(c) || c == '\n' || c == '\r' {
            kept.push(c);
        }
    }
    kept
}

fn is_shown(c: char) -> bool {
    c == ' ' || c.is_ascii_graphic() || !c.is_ascii() && printable(&c.to_string()).chars().eq([c])
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
    use proptest::prelude::*;

    use super::*;

    const SIZE: (u16, u16) = (80, 24);

    /// Draws frames; what the screen has got.
    fn draw<F: Write>(frames: &[&str], tape: &Arc<Mutex<Tape<F>>>) -> Vec<u8> {
        let mut screen = Vec::new();
        let mut recorder = Recorder::new(&mut screen, Some(Arc::clone(tape)));
        for frame in frames {
            recorder.write_all(frame.as_bytes()).unwrap();
            recorder.flush().unwrap();
        }
        screen
    }

    fn recorded(frames: &[&str]) -> (Vec<u8>, Vec<u8>) {
        let mut file = Vec::new();
        let tape = Arc::new(Mutex::new(Tape::new(&mut file, SIZE, 1, "custody".to_owned()).unwrap()));
        let screen = draw(frames, &tape);
        drop(tape);
        (screen, file)
    }

    fn shown(file: &[u8]) -> Result<Vec<String>, CastError> {
        let mut player = Player::open(file)?;
        let mut shown = Vec::new();
        while let Some(frame) = player.next_frame()? {
            shown.push(frame.text);
        }
        Ok(shown)
    }

    #[test]
    fn what_was_shown_is_shown_again() {
        let frames = ["\u{1b}[2J\u{1b}[1;1HCustody", "\u{1b}[3;4H\u{1b}[38;5;2mgreen ●\u{1b}[0m"];
        let (screen, file) = recorded(&frames);
        assert_eq!(String::from_utf8(screen).unwrap(), frames.concat());
        assert_eq!(shown(&file).unwrap(), frames);
        assert_eq!(Player::open(file.as_slice()).unwrap().size, SIZE);
    }

    #[test]
    fn recording_that_cannot_be_written_ends_and_says_so_while_the_screen_goes_on() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                if bytes.starts_with(b"{") { Ok(bytes.len()) } else { Err(io::ErrorKind::StorageFull.into()) }
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let tape = Arc::new(Mutex::new(Tape::new(Full, SIZE, 1, String::new()).unwrap()));
        assert_eq!(draw(&["frame", "frame"], &tape), b"frameframe");
        let trouble = locked(&tape).trouble().unwrap();
        assert!(trouble.contains("no storage space"), "{trouble}");
        assert!(locked(&tape).trouble().is_none(), "said twice");
    }

    #[test]
    fn what_else_a_recording_tells_a_terminal_is_left_out() {
        for (frame, left) in [
            ("\u{1b}]0;title\u{7}text", "0;titletext"),
            ("\u{1b}]52;c;aGFjaw==\u{7}", "52;c;aGFjaw=="),
            ("\u{1b}[6n", ""),
            ("\u{1b}[?1049l", ""),
            ("\u{1b}[>c\u{1b}[21t", ""),
            ("\u{1b}c\u{1b}P+q\u{1b}\\", "+q"),
            ("\u{9b}6n\u{8}\u{0}", "6n"),
            ("\u{1b}", ""),
            ("\u{1b}[31", ""),
            ("a\u{202e}b\u{200b}c\u{2028}d", "abcd"),
        ] {
            assert_eq!(harmless(frame), left, "{frame:?}");
        }
        let endless = format!("\u{1b}[{}m", "1".repeat(1000));
        assert!(!harmless(&endless).contains('\u{1b}'));
    }

    #[test]
    fn what_is_not_a_recording_is_refused_and_a_broken_one_shown_up_to_the_break() {
        for file in
            ["", "no", "{}", "{\"version\":1,\"width\":1,\"height\":1,\"timestamp\":1,\"title\":\"\"}"]
        {
            assert!(matches!(shown(file.as_bytes()), Err(CastError::Header)), "{file}");
        }
        let (_, mut file) = recorded(&["one"]);
        file.extend(b"[1,\"o\"]\n");
        let mut player = Player::open(file.as_slice()).unwrap();
        assert_eq!(player.next_frame().unwrap().unwrap().text, "one");
        assert!(matches!(player.next_frame(), Err(CastError::Frame(3))));
        let (_, mut file) = recorded(&[]);
        file.extend(vec![b'x'; usize::try_from(MAX_LINE).unwrap() + 2]);
        assert!(matches!(shown(&file), Err(CastError::Length(2))));
    }

    #[test]
    fn pauses_are_short_whatever_the_times_say() {
        let (_, mut file) = recorded(&[]);
        file.extend(b"[1e300,\"o\",\"a\"]\n[-5,\"o\",\"b\"]\n[9000,\"r\",\"100x30\"]\n[9001,\"o\",\"c\"]\n");
        let mut player = Player::open(file.as_slice()).unwrap();
        while let Some(frame) = player.next_frame().unwrap() {
            assert!(frame.pause <= MAX_PAUSE, "{frame:?}");
        }
    }

    proptest! {
        #[test]
        fn no_frame_leaves_a_terminal_anything_but_text_and_harmless_sequences(frame in ".{0,200}") {
            let kept = harmless(&frame);
            prop_assert_eq!(harmless(&kept), kept.clone());
            let strange = ['\u{7}', '\u{9b}', '\u{9d}', '\u{90}'];
            prop_assert!(!kept.contains(strange));
        }
    }
}
