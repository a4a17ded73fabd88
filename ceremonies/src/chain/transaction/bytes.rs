//! Reading a transaction's bytes from the front, and the one part that both kinds share: the key's path.

use crate::curve::{InvalidPath, Path};

/// The bytes end before what is read does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Truncated;

/// What is left to read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next N bytes.
    pub(super) fn take<const N: usize>(&mut self) -> Result<[u8; N], Truncated> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Truncated)?;
        self.0 = rest;
        Ok(*taken)
    }

    /// The next byte.
    pub(super) fn byte(&mut self) -> Result<u8, Truncated> {
        self.take().map(|[byte]| byte)
    }

    /// The next bytes, so many.
    pub(super) fn some(&mut self, count: usize) -> Result<&'a [u8], Truncated> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    /// All that is left.
    pub(super) const fn rest(self) -> &'a [u8] {
        self.0
    }

    /// A path: the number of its levels in one byte, then each as four big-endian bytes.
    pub(super) fn path(&mut self) -> Result<Result<Path, InvalidPath>, Truncated> {
        let count = self.byte()?;
        let levels: Result<Vec<u32>, Truncated> =
            (0..count).map(|_| self.take().map(u32::from_be_bytes)).collect();
        Ok(Path::new(levels?))
    }
}

/// What [`Reader::path`] reads.
pub(super) fn put_path(bytes: &mut Vec<u8>, path: &Path) {
    // A path has at most eight levels.
    bytes.push(u8::try_from(path.levels().len()).unwrap_or(u8::MAX));
    for index in path.levels() {
        bytes.extend(index.to_be_bytes());
    }
}
