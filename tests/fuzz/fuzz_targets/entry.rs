//! Entries of the log, from whoever can write to the bus, and the fold at every point of a recorded log.
#![no_main]

use ceremonies::ceremony::Ceremony;
use ceremonies::log::{Entry, MAX_ENTRY};
use custody_fuzz::recorded::{ENTRIES, STAGES, context};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(entry) = Entry::decode(data) else { return };
    assert!(data.len() <= MAX_ENTRY);
    let again = Entry::decode(&entry.encode()).expect("an entry that was just encoded");
    assert!(again == entry && again.hash() == entry.hash(), "an entry changed on its way");

    // No agent's key is here: whatever the fold takes must be what that agent signed.
    let genuine = |at: usize| ENTRIES.get(at).is_some_and(|recorded| recorded.hash() == entry.hash());
    assert!(Ceremony::open(context(), &entry).is_err() || genuine(0), "a forged opening was taken");
    for (at, stage) in (1..).zip(STAGES.iter()) {
        let mut stage = stage.clone();
        let head = stage.head();
        if stage.apply(&entry).is_ok() {
            assert!(genuine(at), "a forged entry was taken");
        } else {
            assert_eq!(stage.head(), head, "a refused entry moved the head");
        }
    }
});
