//! Messages of a protocol session: bytes from whoever can write to the bus, changed and repeated ones from
//! whoever carries them, and any body that one party signs.
//!
//! The input is a list of moves, so that it means the same under the keys of every run.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| custody_fuzz::session::play(data));
