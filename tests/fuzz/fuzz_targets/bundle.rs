//! Evidence bundles, as strangers hand them around. The first byte says what the rest is: a whole archive, or
//! changes to the archive of the recorded ceremony, or changes to the files in it.
#![no_main]

use ceremonies::evidence::{Expected, verify};
use custody_fuzz::recorded::{BUNDLE, FILES, FIRST_BUNDLE, pack};
use libfuzzer_sys::{Corpus, fuzz_target};

fuzz_target!(|data: &[u8]| -> Corpus {
    let Some((kind, rest)) = data.split_first() else { return Corpus::Reject };
    let bundle = match kind {
        b'P' => rest.to_vec(),
        b'a' => changed(BUNDLE, rest),
        b'f' => repacked(rest),
        _ => return Corpus::Reject,
    };
    if verify(&bundle, &Expected::default()).is_ok() {
        assert!(bundle == BUNDLE || bundle == *FIRST_BUNDLE, "a changed bundle verifies");
    }
    Corpus::Keep
});

/// Replaces bytes: three of the input say where, modulo the length, one says by what.
fn changed(original: &[u8], edits: &[u8]) -> Vec<u8> {
    let mut bytes = original.to_vec();
    for edit in edits.chunks_exact(4) {
        let at = usize::from(edit[0]) << 16 | usize::from(edit[1]) << 8 | usize::from(edit[2]);
        if let Some(length) = at.checked_rem(bytes.len()) {
            bytes[length] = edit[3];
        }
    }
    bytes
}

/// Changes one file, as by [`changed`], or leaves it out, and packs the bundle again.
fn repacked(input: &[u8]) -> Vec<u8> {
    let mut files = FILES.clone();
    if let Some((which, edits)) = input.split_first()
        && let Some(name) = FILES.keys().nth(usize::from(*which) % FILES.len())
    {
        if edits.is_empty() {
            files.remove(name);
        } else {
            let bytes = changed(&FILES[name], edits);
            files.insert(name.clone(), bytes);
        }
    }
    pack(&files)
}
