//! The exposure ledger in lines, the same on the screen and on the command line. It must never leave out a copy: what
//! is gone is crossed out, by a mark and in words.

use ceremonies::book::{Copy, Exposure, Place};
use ceremonies::ids::UnixMillis;

/// A line of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// What it says.
    pub text: String,
    /// Whether it is about a copy that is gone.
    pub crossed_out: bool,
}

/// A generation and the copies of its shares.
#[must_use]
pub fn rows(exposure: &Exposure, at: UnixMillis) -> Vec<Row> {
    let head = format!(
        "generation {}{}: copies of the shares of {} nodes; {} rebuild the key{}",
        exposure.generation,
        if exposure.current { ", in use" } else { "" },
        exposure.exposed(at).len(),
        exposure.threshold,
        if exposure.warns(at) { "  !! WARNING" } else { "" }
    );
    let clears = exposure.warns(at).then(|| match exposure.clears() {
        Some(clears) => {
            format!("  clears at {clears}, when the locks have ended, once the backups are deleted")
        }
        None => {
            "  does not clear by itself: finish the ceremony that retires the stores; destroy sheets and found copies, \
             and enter that in an inventory"
                .to_owned()
        }
    });
    let plain = |text| Row { text, crossed_out: false };
    let copies = exposure
        .copies
        .iter()
        .map(|copy| Row { text: line(copy, exposure.current, at), crossed_out: copy.destroyed.is_some() });
    [head].into_iter().chain(clears).map(plain).chain(copies).collect()
}

fn line(copy: &Copy, current: bool, at: UnixMillis) -> String {
    let (what, standing) = match &copy.place {
        Place::Store => ("store".to_owned(), None),
        Place::Sheet { serial } => (format!("sheet {serial}"), None),
        Place::Found { what } => (format!("found: {what}"), None),
        Place::Backup { key, locked_until } if *locked_until <= at => {
            let advice = if current { "in use: keep it and refresh" } else { "delete it" };
            (format!("backup {key}"), Some(format!("lock ended at {locked_until}, {advice}")))
        }
        Place::Backup { key, locked_until } => {
            (format!("backup {key}"), Some(format!("locked until {locked_until}")))
        }
    };
    let (mark, standing) = match &copy.destroyed {
        Some(by) => ("x", Some(format!("destroyed in {by}"))),
        None => (" ", standing),
    };
    let released = copy.released.as_ref().map(|by| format!("released in {by}"));
    let said: Vec<String> = standing.into_iter().chain(released).collect();
    let said = if said.is_empty() { String::new() } else { format!(": {}", said.join("; ")) };
    format!("{mark} node {} {what}{said}", copy.node)
}
