//! Charters, from whoever hands one to an enclave or puts one into a bundle.
#![no_main]

use ceremonies::attestation::AWS_NITRO_G1_FINGERPRINT;
use ceremonies::charter::{Charter, CharterDraft, ClusterKind, MAX_CHARTER, MAX_NODES};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(charter) = Charter::parse(data) else { return };
    assert!(data.len() <= MAX_CHARTER && charter.text().as_bytes() == data);
    let nodes = charter.nodes().len();
    assert!((2..=nodes).contains(&usize::from(charter.threshold())) && nodes <= MAX_NODES);
    let aws = charter.attestation().root_sha256.to_string() == AWS_NITRO_G1_FINGERPRINT;
    assert_eq!(aws, charter.kind() != ClusterKind::Lab, "a root of another kind of cluster");

    let draft: CharterDraft = toml::from_str(charter.text()).expect("what was parsed before");
    let written = draft.to_toml().expect("a draft can be written");
    Charter::parse(written.as_bytes()).expect("a charter that is written again");
    let again: CharterDraft = toml::from_str(&written).expect("a charter that is written again");
    assert!(again == draft, "a charter changed when it was written again");
});
