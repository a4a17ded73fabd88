//! Generation records, as an enclave signs them and a log carries them.
#![no_main]

use ceremonies::subsets::subsets;
use ceremonies::wallet::Record;
use libfuzzer_sys::fuzz_target;

/// How many signer sets are tried one by one.
const GROUPS: usize = 12;

fuzz_target!(|data: &[u8]| {
    let Ok(record) = Record::parse(data) else { return };
    assert!(record.as_bytes() == data && record.digest() == Record::digest_of(data));
    assert!((2..=record.roster().len()).contains(&usize::from(record.threshold)));
    for group in subsets(&record.roster(), usize::from(record.threshold)).take(GROUPS) {
        assert_eq!(record.interpolate(&group, 0), Some(record.public_key), "{group} holds another key");
    }
});
