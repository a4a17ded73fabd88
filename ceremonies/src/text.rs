//! Text for people: what an error says with its causes, words from outside, and which characters a person can see.
//!
//! What is read and signed must be seen whole, so text is judged by Unicode properties and in columns of a terminal, never
//! by lists of characters that somebody thought of.

use std::fmt;

use icu_properties::props::{
    BinaryProperty, DefaultIgnorableCodePoint, EmojiModifier, EnumeratedProperty, GeneralCategory,
    RegionalIndicator,
};
use unicode_segmentation::UnicodeSegmentation;
use unicode_width::UnicodeWidthChar;

/// An error and its causes, on one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Longest foreign words that are repeated, in characters.
const MAX_WORDS: usize = 400;

/// A text of at most this many characters: where there are more, the last one shows that.
#[must_use]
pub fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some(_) => text.chars().take(most.saturating_sub(1)).chain(['…']).collect(),
    }
}

/// Words from outside, fit for a line of a log or screen: what cannot be seen becomes a space, and many spaces one, so
/// that words cannot be placed where another line would have them.
#[must_use]
pub fn one_line(text: &str) -> String {
    let mut line = String::new();
    for c in shortened(text, MAX_WORDS).chars().map(|c| if flaw_of(c).is_some() { ' ' } else { c }) {
        if c != ' ' || !line.ends_with(' ') {
            line.push(c);
        }
    }
    line
}

/// Text of several lines, fit for any terminal: whatever could move its cursor, or could not be seen, is written as its
/// code point.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match flaw_of(c) {
            Some(Flaw::Control | Flaw::Invisible) if c != '\n' => {
                shown.extend(c.escape_unicode());
            }
            Some(_) | None => shown.push(c),
        }
    }
    shown
}

/// What a file that should be text in UTF-8 is instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Two bytes a character, as some editors and shells of Windows write.
    Utf16,
    /// Four bytes a character.
    Utf32,
    /// It holds NUL bytes.
    Binary,
    /// The bytes from this one on, counted from 0, are those of another encoding.
    Unknown(usize),
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Utf16 => f.write_str("text in UTF-16"),
            Self::Utf32 => f.write_str("text in UTF-32"),
            Self::Binary => f.write_str("binary data, with NUL bytes"),
            Self::Unknown(at) => write!(f, "not text in UTF-8 from byte {at} on"),
        }
    }
}

/// Outside bytes as text without NUL bytes. The error says what they are instead, and repeats none of them.
///
/// # Errors
/// What the bytes are.
pub fn utf8(bytes: &[u8]) -> Result<&str, Encoding> {
    let text = std::str::from_utf8(bytes);
    match (text, bytes) {
        (_, [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..]) => Err(Encoding::Utf32),
        (_, [0xff, 0xfe, ..] | [0xfe, 0xff, ..]) => Err(Encoding::Utf16),
        (_, [0, a, 0, b, ..] | [a, 0, b, 0, ..]) if *a != 0 && *b != 0 => Err(Encoding::Utf16),
        (Ok(_), bytes) if bytes.contains(&0) => Err(Encoding::Binary),
        (Ok(text), _) => Ok(text),
        (Err(error), _) => Err(Encoding::Unknown(error.valid_up_to())),
    }
}

/// Why a character is not taken in text that people read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// It commands a terminal, or breaks the line.
    Control,
    /// Nobody sees it, or it only changes how others look.
    Invisible,
    /// It looks like a space but is another character.
    Space,
    /// It has no meaning in Unicode, so that everybody draws it differently.
    Unassigned,
    /// Terminals disagree about its width, so that it shifts what stands beside it.
    Shifting,
    /// It joins the character before it, where there is none to join or too much has joined already.
    Stray,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Control => "a control character",
            Self::Invisible => "invisible",
            Self::Space => "a look-alike of the space",
            Self::Unassigned => "not an assigned Unicode character",
            Self::Shifting => "a flag or skin tone, which terminals draw in different widths",
            Self::Stray => "a combining mark without a base character, or one too many",
        })
    }
}

/// Symbols and letters that are drawn as nothing, though their Unicode properties do not say so.
const BLANK: [char; 6] = ['\u{2800}', '\u{fffc}', '\u{13441}', '\u{13442}', '\u{16fe4}', '\u{1d159}'];

/// Most characters without a column of their own on one that has: terminals draw no more.
const MAX_MARKS: usize = 2;

#[expect(clippy::wildcard_enum_match_arm, reason = "Unicode's thirty categories, most of them harmless")]
fn flaw_of(c: char) -> Option<Flaw> {
    if c.is_ascii() {
        return c.is_control().then_some(Flaw::Control);
    }
    match GeneralCategory::for_char(c) {
        GeneralCategory::Control | GeneralCategory::LineSeparator | GeneralCategory::ParagraphSeparator => {
            Some(Flaw::Control)
        }
        GeneralCategory::Format => Some(Flaw::Invisible),
        GeneralCategory::SpaceSeparator => Some(Flaw::Space),
        _ if DefaultIgnorableCodePoint::for_char(c) => Some(Flaw::Invisible),
        _ if RegionalIndicator::for_char(c) || EmojiModifier::for_char(c) => Some(Flaw::Shifting),
        _ if BLANK.contains(&c) => Some(Flaw::Space),
        GeneralCategory::Unassigned | GeneralCategory::PrivateUse | GeneralCategory::Surrogate => {
            Some(Flaw::Unassigned)
        }
        _ => None,
    }
}

/// Whether a character is drawn in no column of its own.
fn joins(c: char) -> bool {
    c.width() == Some(0)
}

/// The first flaw in a grapheme: what is drawn as one.
fn flaw_in(grapheme: &str) -> Option<(char, Flaw)> {
    if let Some(found) = grapheme.chars().find_map(|c| flaw_of(c).map(|flaw| (c, flaw))) {
        return Some(found);
    }
    // Nothing joins what is not there, or a space.
    let mut carried = MAX_MARKS;
    for c in grapheme.chars() {
        if !joins(c) {
            carried = if c == ' ' { MAX_MARKS } else { 0 };
        } else if carried == MAX_MARKS {
            return Some((c, Flaw::Stray));
        } else {
            carried += 1;
        }
    }
    None
}

/// The first character that a reader of a line would not see as what it is, with its place from 1.
#[must_use]
pub fn unseen(text: &str) -> Option<(usize, char, Flaw)> {
    // Most text is ASCII, in which nothing joins anything. Every text of a log comes by here whenever that is folded.
    if text.is_ascii() {
        return (1..).zip(text.chars()).find_map(|(place, c)| flaw_of(c).map(|flaw| (place, c, flaw)));
    }
    let mut before = 0;
    for grapheme in text.graphemes(true) {
        if let Some((c, flaw)) = flaw_in(grapheme) {
            let within = grapheme.chars().position(|other| other == c).unwrap_or(0);
            return Some((before + within + 1, c, flaw));
        }
        before += grapheme.chars().count();
    }
    None
}

/// Text with a space in the place of everything that [`unseen`] would find.
#[must_use]
pub fn seen(text: &str) -> String {
    text.graphemes(true).map(|grapheme| if flaw_in(grapheme).is_some() { " " } else { grapheme }).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use proptest::prelude::*;
    use unicode_width::UnicodeWidthStr;

    use super::*;

    #[test]
    fn text_that_people_write_has_no_flaw() {
        for text in [
            "First key, año 2026",
            "Schlüssel für die Kasse",
            "金庫の鍵",
            "מפתח",
            "Tiê\u{301}ng",
            "क्षि",
            "👍 1️",
            "한글",
        ] {
            let plain = text.replace('\u{fe0f}', "");
            assert_eq!(unseen(&plain), None, "{plain}");
        }
    }

    #[test]
    fn character_that_nobody_sees_is_found_with_its_place_and_kind() {
        for (hidden, flaw) in [
            ("\u{1b}", Flaw::Control),
            ("\u{85}", Flaw::Control),
            ("\u{2029}", Flaw::Control),
            ("\u{200d}", Flaw::Invisible),
            ("\u{2069}", Flaw::Invisible),
            ("\u{1f1e9}\u{1f1ea}", Flaw::Shifting),
            ("\u{1f44d}\u{1f3fd}", Flaw::Shifting),
            ("\u{1160}", Flaw::Invisible),
            ("\u{fe00}", Flaw::Invisible),
            ("\u{e0100}", Flaw::Invisible),
            ("\u{fffb}", Flaw::Invisible),
            ("\u{3000}", Flaw::Space),
            ("\u{2007}", Flaw::Space),
            ("\u{2800}", Flaw::Space),
            ("\u{e000}", Flaw::Unassigned),
            ("\u{378}", Flaw::Unassigned),
            ("\u{10ffff}", Flaw::Unassigned),
            (" \u{301}", Flaw::Stray),
            ("\u{301}\u{302}\u{303}", Flaw::Stray),
            ("\u{1161}", Flaw::Stray),
        ] {
            let (place, c, found) = unseen(&format!("ab{hidden}c")).unwrap();
            assert_eq!(
                (hidden.contains(c), found, place > 2),
                (true, flaw, true),
                "{}",
                hidden.escape_unicode()
            );
        }
        assert_eq!(unseen("\u{301}a"), Some((1, '\u{301}', Flaw::Stray)));
    }

    #[test]
    fn bytes_that_are_no_text_are_called_what_they_are() {
        let utf16 = |text: &str, little: bool| -> Vec<u8> {
            text.encode_utf16()
                .flat_map(|unit| if little { unit.to_le_bytes() } else { unit.to_be_bytes() })
                .collect()
        };
        let utf32 = |text: &str| text.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect::<Vec<u8>>();
        for (bytes, expected) in [
            (utf16("\u{feff}kind", true), Encoding::Utf16),
            (utf16("\u{feff}kind", false), Encoding::Utf16),
            (utf16("kind", true), Encoding::Utf16),
            (utf16("kind", false), Encoding::Utf16),
            (utf32("\u{feff}kind"), Encoding::Utf32),
            (b"kind\0".to_vec(), Encoding::Binary),
            (vec![0; 40], Encoding::Binary),
            (b"kind\xff".to_vec(), Encoding::Unknown(4)),
            (b"\xfc".to_vec(), Encoding::Unknown(0)),
        ] {
            assert_eq!(utf8(&bytes), Err(expected), "{bytes:?}");
        }
        for text in ["", "a", "kind = \"lab\"\n", "\u{feff}kind", "金庫"] {
            assert_eq!(utf8(text.as_bytes()), Ok(text));
        }
    }

    #[test]
    fn escape_sequences_are_written_out() {
        assert_eq!(printable("a\u{1b}[31m\nb\u{9b}c\u{202e}"), "a\\u{1b}[31m\nb\\u{9b}c\\u{202e}");
        assert_eq!(one_line("a\u{9b}\u{200b}b     c"), "a b c");
    }

    #[test]
    fn text_that_is_cut_ends_with_a_mark_and_is_no_longer_than_it_may_be() {
        for (text, most, short) in
            [("", 0, ""), ("", 3, ""), ("año", 3, "año"), ("años", 3, "añ…"), ("ab", 1, "…")]
        {
            assert_eq!(shortened(text, most), short, "{text} to {most}");
        }
        let long = "a reason ".repeat(100);
        assert_eq!(one_line(&long).chars().count(), MAX_WORDS);
        assert!(one_line(&long).ends_with('…') && !one_line(&long[..MAX_WORDS]).contains('…'));
    }

    #[test]
    fn controls_are_the_only_flaws_in_ascii() {
        for c in '\0'..='\u{7f}' {
            let is_control = GeneralCategory::for_char(c) == GeneralCategory::Control;
            assert_eq!(unseen(&c.to_string()), is_control.then_some((1, c, Flaw::Control)));
        }
    }

    proptest! {
        #[test]
        fn ascii_is_judged_alone_as_it_is_beside_other_text(text in "[\\x00-\\x7f]{0,20}") {
            prop_assert_eq!(unseen(&text), unseen(&format!("{text} é")));
        }

        #[test]
        fn every_grapheme_without_a_flaw_takes_a_column(text in any::<String>()) {
            for grapheme in seen(&text).graphemes(true) {
                prop_assert!(grapheme.width() > 0, "{}", grapheme.escape_unicode());
            }
        }

        #[test]
        fn text_made_fit_has_no_flaw_and_text_without_flaw_stays(text in any::<String>()) {
            let fit = seen(&text);
            prop_assert_eq!(unseen(&fit), None);
            prop_assert_eq!(seen(&fit), fit);
        }

        #[test]
        fn what_is_printed_commands_no_terminal(text in any::<String>()) {
            prop_assert!(!printable(&text).chars().any(|c| c.is_control() && c != '\n'));
        }

        #[test]
        fn every_ignorable_and_format_character_is_refused(c in any::<char>()) {
            let ignorable = DefaultIgnorableCodePoint::for_char(c);
            if ignorable || GeneralCategory::for_char(c) == GeneralCategory::Format {
                let text = format!("a{c}b");
                prop_assert!(unseen(&text).is_some());
            }
        }
    }
}
