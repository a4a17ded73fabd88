//! The fold, under people, agents and enclaves that sign whatever comes, at whatever time.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| custody_fuzz::paper::play(data));
