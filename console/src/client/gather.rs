//! A book from whole logs, whatever order they come in. What does not fold is set aside.

use ceremonies::book::{Book, NotTaken};
use ceremonies::ceremony::Context;
use ceremonies::entry::Entry;
use ceremonies::ids::CeremonyId;

/// A log that is not in the book.
#[derive(Debug)]
pub struct SetAside {
    /// Which ceremony's.
    pub ceremony: CeremonyId,
    /// Its entries.
    pub entries: Vec<Entry>,
    /// Why it does not fold.
    pub why: NotTaken,
}

/// A book of everything that folds of these logs, and what does not.
#[must_use]
pub(super) fn gather(first: Context, logs: Vec<Vec<Entry>>) -> (Book, Vec<SetAside>) {
    let mut book = Book::new(first);
    let mut open: Vec<Vec<Entry>> = logs.into_iter().filter(|log| !log.is_empty()).collect();
    loop {
        let before = open.len();
        let mut aside = Vec::new();
        for log in open {
            if let Err((seq, source)) = book.read(&log) {
                let ceremony = log[0].ceremony.clone();
                let why = NotTaken::Rejected { ceremony: ceremony.clone(), seq, source: Box::new(source) };
                aside.push(SetAside { ceremony, entries: log, why });
            }
        }
        if aside.is_empty() || aside.len() == before {
            return (book, aside);
        }
        open = aside.into_iter().map(|aside| aside.entries).collect();
    }
}
