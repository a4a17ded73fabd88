//! age's armour: the file as text, for typing by hand. Written strictly, read as people type.

use data_encoding::BASE64;
use thiserror::Error;

use super::{AGE, MAX_FILE, SetId};

/// The first line.
pub(super) const BEGIN: &str = "-----BEGIN AGE ENCRYPTED FILE-----";
/// The last line.
pub(super) const END: &str = "-----END AGE ENCRYPTED FILE-----";
/// Characters in every line but the last.
const WIDTH: usize = 64;
/// Bytes in every line but the last.
const BYTES: usize = 48;
/// Longest text that is read: [`MAX_FILE`] as armour, with room for blanks.
const MAX_TEXT: usize = 4 * MAX_FILE;

/// Why typed text is not the file.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ArmourError {
    /// First or last line missing.
    #[error("the text must begin with the line `{BEGIN}` and end with `{END}`: type both as printed")]
    Frame,
    /// More than a sheet holds.
    #[error("the text has {0} bytes, but a sheet's text has at most {MAX_TEXT}: give the text of one sheet")]
    TooLong(usize),
    /// A character too many or too few.
    #[error(
        "line {line} of the text has {length} characters, but every line except the last has {WIDTH}: compare it with \
         the sheet"
    )]
    Length {
        /// Which, as an editor counts.
        line: usize,
        /// How long it is.
        length: usize,
    },
    /// A character or an ending that base64 does not have.
    #[error("line {line} of the text is mistyped: it is not base64; compare it with the sheet")]
    Base64 {
        /// Which, as an editor counts.
        line: usize,
    },
    /// Typed well, or badly in the first line, but not an age file.
    #[error("the text is not an age file: compare its first lines with the sheet")]
    NotAge,
    /// Not the file of the codes.
    #[error(
        "the text is of set {found}, but the codes are of set {expected}: a character is mistyped, or they are not \
         from the same sheet"
    )]
    Differs {
        /// Of the codes.
        expected: SetId,
        /// Of the text.
        found: SetId,
    },
}

/// The armour of a file.
pub(super) fn armoured(file: &[u8]) -> String {
    let lines: Vec<String> = file.chunks(BYTES).map(|line| BASE64.encode(line)).collect();
    format!("{BEGIN}\n{}\n{END}", lines.join("\n"))
}

/// The file of an armour as somebody typed it: blank lines and blanks around or within lines do not matter.
pub(super) fn unarmoured(text: &str) -> Result<Vec<u8>, ArmourError> {
    if text.len() > MAX_TEXT {
        return Err(ArmourError::TooLong(text.len()));
    }
    let lines: Vec<(usize, &str)> =
        (1..).zip(text.lines().map(str::trim)).filter(|(_, line)| !line.is_empty()).collect();
    let [(_, BEGIN), body @ .., (_, END)] = lines.as_slice() else { return Err(ArmourError::Frame) };
    let mut file = Vec::new();
    for (place, (line, typed)) in body.iter().enumerate() {
        let text: String = typed.split_whitespace().collect();
        let (length, is_last) = (text.chars().count(), place + 1 == body.len());
        if length > WIDTH || (length < WIDTH && !is_last) {
            return Err(ArmourError::Length { line: *line, length });
        }
        let bytes = BASE64.decode(text.as_bytes()).map_err(|_| ArmourError::Base64 { line: *line })?;
        if bytes.len() < BYTES && !is_last {
            return Err(ArmourError::Base64 { line: *line });
        }
        file.extend(bytes);
    }
    if file.starts_with(AGE) { Ok(file) } else { Err(ArmourError::NotAge) }
}
