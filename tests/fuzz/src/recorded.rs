//! The record of one key generation of a lab cluster, as the console's tests keep it.

use std::collections::BTreeMap;
use std::io::{Cursor, Read as _, Write as _};
use std::sync::{Arc, LazyLock};

use ceremonies::attestation::TrustRoot;
use ceremonies::ceremony::{Ceremony, Context};
use ceremonies::charter::Charter;
use ceremonies::evidence::Material;
use ceremonies::log::Entry;
use ceremonies::wire::log;
use prost::Message as _;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

/// The charter's file.
pub const CHARTER: &[u8] = include_bytes!("../../../console/tests/data/charter.toml");
/// The attestation root's PEM.
pub const ROOT: &[u8] = include_bytes!("../../../console/tests/data/root.pem");
/// The log, length-delimited.
pub const LOG: &[u8] = include_bytes!("../../../console/tests/data/log.binpb");
/// The whole bundle.
pub const BUNDLE: &[u8] = include_bytes!("../../../console/tests/data/bundle.zip");
/// A genuine Nitro document.
pub const NITRO: &[u8] = include_bytes!("../../../ceremonies/tests/data/nitro-attestation-2025-01.cose");

/// The log's entries.
pub static ENTRIES: LazyLock<Vec<Entry>> = LazyLock::new(|| {
    let mut bytes = LOG;
    let mut entries = Vec::new();
    while !bytes.is_empty() {
        entries.push(Entry::from_wire(log::Entry::decode_length_delimited(&mut bytes).unwrap()).unwrap());
    }
    entries
});

/// The lab's root.
pub static LAB_ROOT: LazyLock<TrustRoot> = LazyLock::new(|| TrustRoot::from_pem(ROOT).unwrap());

/// The ceremony after each of its entries.
pub static STAGES: LazyLock<Vec<Ceremony>> = LazyLock::new(|| {
    let (first, rest) = ENTRIES.split_first().unwrap();
    let mut stages = vec![Ceremony::open(context(), first).unwrap()];
    for entry in rest {
        let mut next = stages[stages.len() - 1].clone();
        next.apply(entry).unwrap();
        stages.push(next);
    }
    stages
});

/// The bundle's files.
pub static FILES: LazyLock<BTreeMap<String, Vec<u8>>> = LazyLock::new(|| {
    let mut archive = ZipArchive::new(Cursor::new(BUNDLE)).unwrap();
    let mut files = BTreeMap::new();
    for index in 0..archive.len() {
        let mut file = archive.by_index(index).unwrap();
        let mut content = Vec::new();
        file.read_to_end(&mut content).unwrap();
        files.insert(file.name().to_owned(), content);
    }
    files
});

/// The bundle of the ceremony's first entry alone: small enough to be mutated whole.
pub static FIRST_BUNDLE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let material = Material {
        charter: CHARTER.to_vec(),
        root: ROOT.to_vec(),
        amendments: Vec::new(),
        log: ENTRIES[..1].to_vec(),
        origins: Vec::new(),
        heads: Vec::new(),
        branches: Vec::new(),
    };
    material.bundle().unwrap()
});

/// What the fold knows beside the log.
#[must_use]
pub fn context() -> Context {
    let charter = Arc::new(Charter::parse(CHARTER).unwrap());
    Context::new(charter, Arc::new(LAB_ROOT.clone())).unwrap()
}

/// Packs files as bundles are packed.
#[must_use]
pub fn pack(files: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(zip::DateTime::default())
        .unix_permissions(0o644);
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in files {
        writer.start_file(name.as_str(), options).unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}
