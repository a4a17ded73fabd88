//! What the broker says about its streams to a node that it lies to.

use ceremonies::ids::CeremonyId;
use ceremonies::log::Entry;
use node::core::{Mark, StreamEntry, StreamError, StreamSeen};
use rand::RngExt as _;
use serde_json::json;

use super::world::World;
use crate::host::stream::{Stream, unavailable};

impl World {
    /// The stream as this node's broker has it.
    fn stream_of(&mut self, at: usize) -> Result<&mut Stream, StreamError> {
        if self.is_cut[at] || self.is_without_stream {
            return Err(unavailable());
        }
        let view = self.views[at];
        self.streams[view].as_mut().ok_or(StreamError::Absent)
    }

    pub(super) fn inspect(&mut self, at: usize, mark: Option<Mark>) -> Result<StreamSeen, StreamError> {
        let lie = if self.is_lied_to[at] { self.below(8) } else { 0 };
        let mut seen = self.stream_of(at)?.seen(mark);
        match lie {
            1 => seen.has_mark = true,
            2 => seen.has_mark = false,
            3 => seen.config = Stream::foreign().config,
            4 => return Err(StreamError::Absent),
            5 => seen.first = 7,
            _ => {}
        }
        Ok(seen)
    }

    pub(super) fn read_stream(
        &mut self,
        at: usize,
        ceremony: Option<&CeremonyId>,
        after: u64,
    ) -> Result<Vec<StreamEntry>, StreamError> {
        let lie = if self.is_lied_to[at] { self.below(12) } else { 0 };
        let mut read = self.stream_of(at)?.read(ceremony, after);
        if read.is_empty() {
            return if lie == 1 { Err(unavailable()) } else { Ok(read) };
        }
        let chosen = self.below(read.len());
        match lie {
            1 => return Err(unavailable()),
            2 => return Ok(Vec::new()),
            3 => drop(read.remove(chosen)),
            4 => {
                let bit = self.below(read[chosen].payload.len().max(1));
                if let Some(byte) = read[chosen].payload.get_mut(bit) {
                    *byte ^= 1 << self.draw().random_range(0..8);
                }
            }
            5 => read[chosen].ceremony = self.any_ceremony(),
            6 => read[chosen].ceremony = None,
            7 => {
                if let Some(last) = read.last_mut() {
                    last.seq += 1000;
                }
            }
            8 => {
                if let Some(last) = read.last_mut() {
                    last.seq = u64::MAX;
                }
            }
            9 => read[chosen].payload = self.any_entry().map(|entry| entry.encode()).unwrap_or_default(),
            _ => {}
        }
        Ok(read)
    }

    /// An append as the shell does it: what was acknowledged is read back. A hostile broker answers that as it likes.
    pub(super) fn append_to_stream(
        &mut self,
        at: usize,
        ceremony: &CeremonyId,
        expected: Option<u64>,
        read_to: u64,
        bytes: Vec<u8>,
    ) -> Result<u64, StreamError> {
        let lie = if self.is_lied_to[at] { self.below(10) } else { 0 };
        let stream = self.stream_of(at)?;
        match lie {
            1 => Err(StreamError::Conflict),
            2 => Err(StreamError::Forged),
            3 => Err(unavailable()),
            4 => Ok(stream.len() + 1),
            5 => Ok(u64::MAX),
            6 => Ok(1),
            7 => {
                let _ = stream.append(ceremony, expected, read_to, bytes);
                Err(unavailable())
            }
            9 => Err(StreamError::Full),
            8 => {
                // Only this node sees what it has written.
                let mut alone = stream.clone();
                let appended = alone.append(ceremony, expected, read_to, bytes);
                self.views[at] = self.streams.len();
                self.streams.push(Some(alone));
                appended
            }
            _ => stream.append(ceremony, expected, read_to, bytes),
        }
    }

    /// Has every node see one stream again: an existing one with the required settings, if any.
    pub(super) fn mend_stream(&mut self) {
        let good = |stream: &Option<Stream>| {
            stream.as_ref().is_some_and(|stream| stream.config["storage"] == json!("file"))
        };
        let usable: Vec<usize> = (0..self.streams.len()).filter(|at| good(&self.streams[*at])).collect();
        let chosen = if usable.is_empty() || self.strikes(6) {
            self.streams.push(Some(Stream::new()));
            self.streams.len() - 1
        } else {
            usable[self.below(usable.len())]
        };
        self.note(|| format!("from now on all see stream {chosen}"));
        self.views = [chosen; super::charter::NODES];
    }

    /// The stream loses every copy of an entry.
    pub(super) fn lose_what_all_have_read(&mut self) {
        let book = self.whole_book(self.honest()[0]).unwrap();
        let entries: Vec<&Entry> = book.iter().flat_map(|(_, chapter)| &chapter.entries).collect();
        let lost = entries[entries.len() / 2].encode();
        let view = self.views[0];
        self.streams[view].as_mut().unwrap().lose_all_of(&lost);
    }

    /// The stream is made anew, empty and with the required settings.
    pub(super) fn lose_stream(&mut self) {
        self.streams.push(Some(Stream::new()));
        self.views = [self.streams.len() - 1; super::charter::NODES];
    }
}
