//! Manifests, as an opening carries them.
#![no_main]

use ceremonies::ceremony::opening_statement;
use ceremonies::charter::{CeremonyKind, Charter};
use ceremonies::manifest::{MAX_LIFETIME_MS, MAX_MANIFEST, Manifest};
use ceremonies::script::Script;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(manifest) = Manifest::parse(data) else { return };
    assert!(data.len() <= MAX_MANIFEST && manifest.as_bytes() == data);
    let lifetime = manifest.expires.0.checked_sub(manifest.opened.0).expect("a lifetime");
    assert!((1..=MAX_LIFETIME_MS).contains(&lifetime));
    assert_eq!(manifest.origin.is_some(), manifest.kind == CeremonyKind::TestSign);
    // Times and names are shown to people as they are.
    let script = Script::builtin(manifest.kind).expect("a script of this build");
    let charter = Charter::parse(include_bytes!("../corpus/charter/lab.toml")).expect("a charter");
    if let Ok(text) = opening_statement(&manifest, &charter, &script) {
        let lines = text.lines().filter(|line| line.starts_with("person: ")).count();
        assert_eq!(lines, 1, "a name that makes a line of its own");
    }
});
