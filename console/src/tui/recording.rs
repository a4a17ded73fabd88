//! Recordings of the terminal screens: begun in a file of their own, and shown again.

use std::fs::File;
use std::io::{BufReader, Write as _, stdout};
use std::path::Path;
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result, ensure};
use crossterm::event::{Event, EventStream, KeyCode, KeyEventKind, KeyModifiers};
use futures_util::StreamExt as _;
use tokio::time::{Instant, timeout_at};

use crate::cast::{Player, Tape};
use crate::config::Cluster;
use crate::terminal::Screen;
use crate::{file, room};

/// Begins to record in a new file, which its owner alone may read.
pub(super) fn begin(path: &Path, cluster: &Cluster) -> Result<Arc<Mutex<Tape<File>>>> {
    let title = format!("custody of {}", cluster.charter().cluster());
    let file = file::create_new(path)?;
    let tape = Tape::new(file, crossterm::terminal::size()?, room::now().0 / 1000, title)?;
    Ok(Arc::new(Mutex::new(tape)))
}

/// Shows a recording again until its end, or until somebody presses `q`. Its last frame stays until a key is pressed.
///
/// # Errors
/// [`CastError`](crate::cast::CastError) for a file that is not a recording; a terminal that is too small, or none.
pub async fn replay(path: &Path) -> Result<()> {
    let file = File::open(path).with_context(|| format!("{} cannot be opened", path.display()))?;
    let mut player = Player::open(BufReader::new(file))?;
    let screen = Screen::take()?;
    let ((columns, lines), (wide, high)) = (crossterm::terminal::size()?, player.size);
    ensure!(
        columns >= wide && lines >= high,
        "the recording shows a screen of {wide}×{high}, and this terminal has {columns}×{lines}: enlarge it"
    );
    let mut keys = EventStream::new();
    while let Some(frame) = player.next_frame()? {
        let until = Instant::now() + frame.pause;
        while let Ok(Some(event)) = timeout_at(until, keys.next()).await {
            if is_end(&event?) {
                return Ok(());
            }
        }
        stdout().write_all(frame.text.as_bytes())?;
        stdout().flush()?;
    }
    while let Some(event) = keys.next().await {
        if matches!(event?, Event::Key(key) if key.kind == KeyEventKind::Press) {
            break;
        }
    }
    drop(screen);
    Ok(())
}

fn is_end(event: &Event) -> bool {
    let Event::Key(key) = event else { return false };
    let with_control = key.modifiers.contains(KeyModifiers::CONTROL);
    key.code == KeyCode::Char('q')
        || key.code == KeyCode::Esc
        || key.code == KeyCode::Char('c') && with_control
}
