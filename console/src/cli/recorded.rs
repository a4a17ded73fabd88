//! The recorded ceremonies, for tests of what subcommands make of a record.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::path::Path;
use std::sync::Arc;

use ceremonies::attestation::TrustRoot;
use ceremonies::book::Book;
use ceremonies::ceremony::Context;
use ceremonies::charter::Charter;
use ceremonies::evidence::{self, Expected};
use ceremonies::log::Entry;
use ceremonies::wire::log;
use prost::Message as _;

fn data(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)).unwrap()
}

fn first(folder: &str) -> Book {
    let charter = Arc::new(Charter::parse(&data(&format!("{folder}charter.toml"))).unwrap());
    let root = Arc::new(TrustRoot::from_pem(&data(&format!("{folder}root.pem"))).unwrap());
    Book::new(Context::new(charter, root).unwrap())
}

/// The ceremony whose bundle is in this folder, and those that it rests on.
pub(super) fn book_of(folder: &str) -> Book {
    let mut book = first(&format!("{folder}/"));
    let bundle = data(&format!("{folder}/bundle.zip"));
    for entry in evidence::logs(&bundle, &Expected::default()).unwrap().into_iter().flatten() {
        book.take(entry).unwrap();
    }
    book
}

/// All entries: with the last one it is closed.
pub(super) const CLOSED: usize = 56;

/// The recorded key generation after so many of its entries.
pub(super) fn book(entries: usize) -> Book {
    let mut book = first("");
    let log = data("log.binpb");
    let mut log = log.as_slice();
    for _ in 0..entries {
        let entry = log::Entry::decode_length_delimited(&mut log).unwrap();
        book.take(Entry::from_wire(entry).unwrap()).unwrap();
    }
    book
}
