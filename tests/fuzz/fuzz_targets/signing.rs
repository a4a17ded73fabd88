//! Messages of the signature protocol, by a signer that cheats inside of what it signs.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(
    init: custody_fuzz::signing::prepare(),
    |data: &[u8]| custody_fuzz::signing::play(data)
);
