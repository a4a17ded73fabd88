//! Ceremony scripts.
#![no_main]

use ceremonies::script::{Act, MAX_SCRIPT, Script};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(script) = Script::parse(data) else { return };
    assert!(data.len() <= MAX_SCRIPT && script.text().as_bytes() == data);
    for step in script.steps() {
        assert_eq!(script.step(&step.id), Some(step), "two steps of one name");
        if matches!(step.act, Act::TestSign | Act::Close) {
            assert!(script.follows(step, Act::Approve), "`{}` can be had without approval", step.id);
        }
        assert!(!script.follows(step, Act::Close), "`{}` comes after the close", step.id);
    }
});
