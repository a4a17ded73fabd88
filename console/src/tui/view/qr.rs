//! A QR code in half-block characters, black on white whatever the terminal's colours, with its quiet zone.

use qrcode::{Color as Module, EcLevel, QrCode};
use ratatui::style::{Color, Style};
use ratatui::text::Line;

/// Light modules around the code. ISO/IEC 18004 asks for four; phones read it with two, and with four a
/// hash's code would not fit on 80×24.
const QUIET: usize = 2;

/// The lines of a code for this text, or none when it does not fit into `width` × `height` characters.
pub(super) fn lines(text: &str, width: usize, height: usize) -> Option<Vec<Line<'static>>> {
    let code = QrCode::with_error_correction_level(text, EcLevel::L).ok()?;
    let size = code.width() + 2 * QUIET;
    if size > width || size.div_ceil(2) > height {
        return None;
    }
    let modules = code.to_colors();
    let inside = |at: usize| (QUIET..QUIET + code.width()).contains(&at).then(|| at - QUIET);
    let dark = |x: usize, y: usize| match (inside(x), inside(y)) {
        (Some(x), Some(y)) => modules[y * code.width() + x] == Module::Dark,
        _ => false,
    };
    let character = |x: usize, y: usize| match (dark(x, y), dark(x, y + 1)) {
        (true, true) => '█',
        (true, false) => '▀',
        (false, true) => '▄',
        (false, false) => ' ',
    };
    let style = Style::new().fg(Color::Black).bg(Color::White);
    let line = |y: usize| Line::styled((0..size).map(|x| character(x, y)).collect::<String>(), style);
    Some((0..size).step_by(2).map(line).collect())
}
