//! The verdict on attestation documents: a genuine one, and many that are each wrong in one way.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use ceremonies::attestation::{
    AttestationError, EnclaveKeys, Expectation, MAX_DOCUMENT, Measurement, TrustRoot, check, parse_and_verify,
};
use ceremonies::ids::UnixMillis;
use ciborium::Value;
use coset::{CborSerializable as _, CoseSign1Builder, HeaderBuilder, TaggedCborSerializable as _, iana};
use p384::ecdsa::{Signature, SigningKey, signature::Signer as _};
use p384::pkcs8::DecodePrivateKey as _;
use proptest::prelude::*;
use rcgen::CertifiedIssuer;

use crate::machine::{MACHINE, Machine, NOW, allowed, key, params, pcr};

const GENUINE: &[u8] = include_bytes!("../data/nitro-attestation-2025-01.cose");
const GENUINE_TIME: UnixMillis = UnixMillis(1_736_179_625_472);
const NONCE: &[u8] = b"the manifest's hash";
const KEYS: EnclaveKeys = EnclaveKeys { identity: [1; 32], sealing: [2; 32] };

fn fields(machine: &Machine) -> Vec<(Value, Value)> {
    machine.payload(NONCE, NOW, &KEYS)
}

fn expectation<'a>(machine: &'a Machine, allowed: &'a [Measurement]) -> Expectation<'a> {
    Expectation { root: &machine.root, allowed, nonce: Some(NONCE), at: NOW, max_age_ms: 60_000 }
}

/// The usual document, with one field replaced; `None` leaves it out.
fn with(field: &str, value: impl Into<Option<Value>>) -> Vec<u8> {
    let mut payload = fields(&MACHINE);
    let at = payload.iter().position(|(name, _)| name.as_text() == Some(field)).unwrap();
    match value.into() {
        Some(value) => payload[at].1 = value,
        None => drop(payload.remove(at)),
    }
    MACHINE.sign(&Value::Map(payload))
}

fn good() -> Vec<u8> {
    MACHINE.sign(&Value::Map(fields(&MACHINE)))
}

fn verdict(bytes: &[u8]) -> Result<(), AttestationError> {
    check(bytes, &expectation(&MACHINE, &[allowed()])).map(drop)
}

#[test]
fn genuine_document_verifies_under_the_aws_root_at_its_own_time() {
    let document = parse_and_verify(GENUINE, &TrustRoot::aws_nitro_g1()).unwrap();
    assert_eq!(document.timestamp, GENUINE_TIME);
    assert_eq!(document.module_id, "i-0bee92034f3d60691-enc01943c5eaab3ad6a");
    assert_eq!(document.digest, "SHA384");
    assert_eq!(document.pcrs.len(), 16);
    assert_eq!(document.pcr(0).unwrap().to_string()[..8], *"8bb159f2");
    assert_eq!(document.cabundle.len(), 4);
    assert_eq!(document.public_key.unwrap().len(), 294);
    assert_eq!((document.user_data, document.nonce), (None, None));
}

#[test]
fn genuine_document_fails_under_another_root() {
    let error = parse_and_verify(GENUINE, &MACHINE.root).unwrap_err();
    assert!(matches!(error, AttestationError::Chain { .. }), "{error}");
}

#[test]
fn genuine_document_is_refused_for_its_age_and_for_lacking_keys() {
    let root = TrustRoot::aws_nitro_g1();
    let document = parse_and_verify(GENUINE, &root).unwrap();
    let allowed = [Measurement {
        pcr0: document.pcr(0).unwrap(),
        pcr1: document.pcr(1).unwrap(),
        pcr2: document.pcr(2).unwrap(),
        pcr8: None,
        until: None,
    }];
    let expected = Expectation { root: &root, allowed: &allowed, nonce: None, at: NOW, max_age_ms: 300_000 };
    assert!(matches!(check(GENUINE, &expected), Err(AttestationError::Stale { made: GENUINE_TIME, .. })));
    let then = Expectation { at: GENUINE_TIME, ..expected };
    assert_eq!(check(GENUINE, &then), Err(AttestationError::Keys));
}

#[test]
fn document_fails_when_any_single_byte_is_flipped() {
    let root = TrustRoot::aws_nitro_g1();
    let mut bytes = GENUINE.to_vec();
    for at in 0..bytes.len() {
        // One bit, a different one from byte to byte; every bit of the unsigned head and of the signature's.
        let bits = if at < 16 || at + 104 > bytes.len() { 0..8 } else { at % 8..at % 8 + 1 };
        for bit in bits {
            bytes[at] ^= 1 << bit;
            assert!(parse_and_verify(&bytes, &root).is_err(), "byte {at}, bit {bit}");
            bytes[at] ^= 1 << bit;
        }
    }
    assert!(parse_and_verify(&bytes, &root).is_ok());
}

#[test]
fn document_fails_when_cut_short_or_continued() {
    let root = TrustRoot::aws_nitro_g1();
    for length in 0..GENUINE.len() {
        assert!(parse_and_verify(&GENUINE[..length], &root).is_err(), "{length} bytes");
    }
    let longer = [GENUINE, &[0]].concat();
    assert!(matches!(parse_and_verify(&longer, &root), Err(AttestationError::Malformed(_))));
}

#[test]
fn document_is_refused_unread_when_too_large() {
    let large = vec![0; MAX_DOCUMENT + 1];
    assert_eq!(verdict(&large), Err(AttestationError::TooLarge(MAX_DOCUMENT + 1)));
}

#[test]
fn document_is_refused_when_nested_deeply() {
    for byte in [0x81, 0xa1, 0xc1, 0xd2, 0x9f, 0xbf] {
        assert!(matches!(verdict(&vec![byte; MAX_DOCUMENT]), Err(AttestationError::Malformed(_))));
    }
}

#[test]
fn expected_document_is_accepted_with_its_keys_and_measurement() {
    let others = Measurement { pcr0: pcr(9), ..allowed() };
    let attested = check(&good(), &expectation(&MACHINE, &[others, allowed()])).unwrap();
    assert_eq!(attested.keys, KEYS);
    assert_eq!(attested.rsa_spki, [7; 294]);
    assert_eq!(attested.measurement, allowed());
    assert_eq!(attested.document.nonce.as_deref(), Some(NONCE));
}

#[test]
fn tag_18_is_accepted_and_any_other_refused() {
    let message = MACHINE.message(&Value::Map(fields(&MACHINE)));
    assert_eq!(verdict(&message.clone().to_tagged_vec().unwrap()), Ok(()));
    let mut other = vec![0xd1];
    other.extend(message.to_vec().unwrap());
    assert!(matches!(verdict(&other), Err(AttestationError::Malformed(_))));
}

#[test]
fn headers_are_refused_when_they_say_anything_but_es384() {
    let message = MACHINE.message(&Value::Map(fields(&MACHINE)));
    let mut unprotected = message.clone();
    unprotected.unprotected.key_id = b"k".to_vec();
    assert!(matches!(verdict(&unprotected.to_vec().unwrap()), Err(AttestationError::Malformed(_))));

    for header in [
        HeaderBuilder::new().build(),
        HeaderBuilder::new().algorithm(iana::Algorithm::ES256).build(),
        HeaderBuilder::new().algorithm(iana::Algorithm::ES384).key_id(b"k".to_vec()).build(),
    ] {
        let signed = CoseSign1Builder::new()
            .protected(header)
            .payload(message.payload.clone().unwrap())
            .create_signature(b"", |signed| {
                let signature: Signature = MACHINE.key.sign(signed);
                signature.to_vec()
            })
            .build();
        assert!(matches!(verdict(&signed.to_vec().unwrap()), Err(AttestationError::Malformed(_))));
    }
}

#[test]
fn signature_of_another_key_is_refused() {
    let attacker = Machine::new();
    let bytes = attacker.sign(&Value::Map(fields(&MACHINE)));
    assert!(matches!(verdict(&bytes), Err(AttestationError::Signature(_))));
}

#[test]
fn signature_of_another_length_is_refused() {
    for length in [0, 95, 97, 192] {
        let mut message = MACHINE.message(&Value::Map(fields(&MACHINE)));
        message.signature.resize(length, 1);
        assert!(matches!(verdict(&message.to_vec().unwrap()), Err(AttestationError::Malformed(_))));
    }
}

#[test]
fn own_root_in_the_bundle_does_not_replace_the_pinned_one() {
    let attacker = Machine::new();
    let bytes = attacker.sign(&Value::Map(fields(&attacker)));
    assert!(matches!(verdict(&bytes), Err(AttestationError::Chain { .. })));

    let mut payload = fields(&attacker);
    let theirs = &attacker.bundle;
    let bundle = [MACHINE.bundle[0].clone(), theirs[0].clone(), theirs[1].clone()];
    payload[5].1 = Value::Array(bundle.map(Value::Bytes).into());
    assert!(matches!(verdict(&attacker.sign(&Value::Map(payload))), Err(AttestationError::Chain { .. })));
}

#[test]
fn chain_is_refused_when_its_issuer_is_missing_or_is_no_ca() {
    let only_root = Value::Array(vec![Value::Bytes(MACHINE.bundle[0].clone())]);
    assert!(matches!(verdict(&with("cabundle", only_root)), Err(AttestationError::Chain { .. })));

    // A certificate that may not issue, used as an issuer.
    let root = CertifiedIssuer::self_signed(params("root", true), key()).unwrap();
    let middle = CertifiedIssuer::signed_by(params("middle", false), key(), &root).unwrap();
    let leaf_key = key();
    let leaf = params("leaf", false).signed_by(&leaf_key, &middle).unwrap();
    let machine = Machine {
        root: TrustRoot::from_der(root.der()).unwrap(),
        bundle: vec![root.der().to_vec(), middle.der().to_vec()],
        leaf: leaf.der().to_vec(),
        key: SigningKey::from_pkcs8_der(leaf_key.serialized_der()).unwrap(),
    };
    let bytes = machine.sign(&Value::Map(fields(&machine)));
    assert!(matches!(parse_and_verify(&bytes, &machine.root), Err(AttestationError::Chain { .. })));
}

#[test]
fn chain_is_refused_at_a_time_when_its_certificates_are_not_valid() {
    for time in [NOW.plus(-2_000), NOW.plus(4 * 3_600_000)] {
        let bytes = with("timestamp", Value::from(time.0));
        assert!(matches!(verdict(&bytes), Err(AttestationError::Chain { .. })), "{time}");
    }
}

#[test]
fn fields_are_refused_when_missing() {
    for field in ["module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle"] {
        assert_eq!(verdict(&with(field, None)), Err(AttestationError::MissingField(field)));
    }
}

#[test]
fn fields_are_refused_when_unknown_doubled_or_not_named_by_text() {
    let mut payload = fields(&MACHINE);
    payload.push((Value::from("moduleid"), Value::Null));
    let unknown = MACHINE.sign(&Value::Map(payload));
    assert_eq!(verdict(&unknown), Err(AttestationError::UnknownField("moduleid".into())));

    for at in 0..9 {
        let mut payload = fields(&MACHINE);
        payload.push(payload[at].clone());
        let doubled = MACHINE.sign(&Value::Map(payload));
        assert!(matches!(verdict(&doubled), Err(AttestationError::DuplicateField(_))));
    }

    let mut payload = fields(&MACHINE);
    payload.push((Value::from(1), Value::Null));
    assert!(matches!(verdict(&MACHINE.sign(&Value::Map(payload))), Err(AttestationError::Malformed(_))));
    assert!(matches!(verdict(&MACHINE.sign(&Value::Null)), Err(AttestationError::Malformed(_))));
}

#[test]
fn fields_are_refused_when_their_type_size_or_value_is_not_what_aws_specifies() {
    let bytes = |length: usize| Value::Bytes(vec![1; length]);
    let registers = |count: u8| Value::Map((0..count).map(|i| (Value::from(i), bytes(48))).collect());
    let register = |index: Value, value: Value| Value::Map(vec![(index, value)]);
    let wrong = [
        ("module_id", vec![Value::from(""), Value::from(1), bytes(3)]),
        ("digest", vec![Value::from("SHA256"), Value::from("sha384"), bytes(6)]),
        ("timestamp", vec![Value::from(0), Value::from(-1), Value::from(u64::MAX), Value::from("1")]),
        (
            "pcrs",
            vec![
                registers(0),
                registers(33),
                register(Value::from(32), bytes(48)),
                register(Value::from(-1), bytes(48)),
                register(Value::from("0"), bytes(48)),
                register(Value::from(0), bytes(47)),
                register(Value::from(0), bytes(0)),
                register(Value::from(0), Value::from("0")),
                Value::Map(vec![(Value::from(0), bytes(48)), (Value::from(0), bytes(48))]),
                Value::Array(vec![bytes(48)]),
            ],
        ),
        ("certificate", vec![bytes(0), bytes(1025), Value::Null, Value::from("x")]),
        (
            "cabundle",
            vec![
                Value::Array(vec![]),
                Value::Array(vec![bytes(0)]),
                Value::Array(vec![bytes(1025)]),
                Value::Array(vec![Value::Null]),
                bytes(10),
            ],
        ),
        ("public_key", vec![bytes(0), bytes(1025), Value::from("x"), Value::Bool(false)]),
        ("user_data", vec![bytes(513), Value::from("x")]),
        ("nonce", vec![bytes(513), Value::from("x")]),
    ];
    for (name, values) in wrong {
        for value in values {
            match verdict(&with(name, value.clone())) {
                Err(AttestationError::Field { field, .. }) => assert_eq!(field, name),
                other => panic!("{name} = {value:?}: {other:?}"),
            }
        }
    }
}

#[test]
fn largest_fields_aws_allows_are_accepted() {
    for (field, length) in [("public_key", 1024), ("user_data", 512), ("nonce", 512)] {
        let bytes = with(field, Value::Bytes(vec![1; length]));
        assert!(parse_and_verify(&bytes, &MACHINE.root).is_ok(), "{field}");
    }
}

#[test]
fn certificate_that_is_no_certificate_is_refused() {
    let bytes = with("certificate", Value::Bytes(vec![0x30; 700]));
    assert!(matches!(verdict(&bytes), Err(AttestationError::Signature(_))));
}

#[test]
fn measurement_is_refused_with_the_register_and_both_values_named() {
    let far = Measurement { pcr0: pcr(8), pcr1: pcr(8), pcr2: pcr(8), pcr8: None, until: None };
    let near = Measurement { pcr2: pcr(9), ..allowed() };
    let error = check(&good(), &expectation(&MACHINE, &[far, near])).unwrap_err();
    assert_eq!(error, AttestationError::Measurement { pcr: 2, allowed: pcr(9), found: pcr(3) });
    let text = error.to_string();
    assert!(text.contains("PCR2") && text.contains(&"09".repeat(48)) && text.contains(&"03".repeat(48)));
}

#[test]
fn measurement_compares_pcr8_only_where_it_is_named() {
    let signed = Measurement { pcr8: Some(pcr(9)), ..allowed() };
    assert!(check(&good(), &expectation(&MACHINE, &[signed])).is_ok());
    let other = Measurement { pcr8: Some(pcr(7)), ..allowed() };
    assert_eq!(
        check(&good(), &expectation(&MACHINE, &[other])),
        Err(AttestationError::Measurement { pcr: 8, allowed: pcr(7), found: pcr(9) })
    );
}

#[test]
fn measurement_is_refused_when_nothing_is_allowed() {
    assert_eq!(check(&good(), &expectation(&MACHINE, &[])), Err(AttestationError::NothingAllowed));
}

#[test]
fn measurement_is_refused_when_a_register_is_missing_or_no_sha384() {
    for missing in 0..3u8 {
        for length in [None, Some(32), Some(64)] {
            let pcrs = (0..4u8).filter_map(|index| {
                let length = if index == missing { length? } else { 48 };
                Some((Value::from(index), Value::Bytes(vec![index + 1; length])))
            });
            let bytes = with("pcrs", Value::Map(pcrs.collect()));
            assert_eq!(verdict(&bytes), Err(AttestationError::NoPcr(missing)));
        }
    }
}

#[test]
fn debug_mode_is_refused_even_where_a_charter_allows_it() {
    let zeros = |zeros: &[u8]| {
        let register = |index: u8| vec![if zeros.contains(&index) { 0 } else { index + 1 }; 48];
        let pcrs = (0..16u8).map(|index| (Value::from(index), Value::Bytes(register(index))));
        with("pcrs", Value::Map(pcrs.collect()))
    };
    let debug = Measurement { pcr0: pcr(0), pcr1: pcr(0), pcr2: pcr(0), pcr8: None, until: None };
    assert_eq!(check(&zeros(&[0, 1, 2]), &expectation(&MACHINE, &[debug])), Err(AttestationError::Debug(0)));
    for index in 0..3 {
        assert_eq!(verdict(&zeros(&[index])), Err(AttestationError::Debug(index)));
    }
}

#[test]
fn nonce_is_refused_when_it_is_another_a_part_or_missing() {
    for other in [Value::Bytes(b"other".to_vec()), Value::Bytes(NONCE[1..].to_vec()), Value::Null] {
        assert!(matches!(verdict(&with("nonce", other)), Err(AttestationError::Nonce { .. })));
    }
    assert!(matches!(verdict(&with("nonce", None)), Err(AttestationError::Nonce { .. })));
}

#[test]
fn document_is_refused_when_too_old_or_from_the_future() {
    let at = |at| check(&good(), &Expectation { at, ..expectation(&MACHINE, &[allowed()]) }).map(drop);
    assert_eq!(at(NOW.plus(60_000)), Ok(()));
    assert_eq!(at(NOW.plus(-60_000)), Ok(()));
    for stale in [NOW.plus(60_001), NOW.plus(-60_001), UnixMillis(i64::MIN), UnixMillis(i64::MAX)] {
        assert!(matches!(at(stale), Err(AttestationError::Stale { .. })), "{}", stale.0);
    }
}

#[test]
fn keys_are_refused_when_not_exactly_encoded() {
    let keys = KEYS.encode();
    assert_eq!(EnclaveKeys::decode(&keys), Ok(KEYS));
    let mut other_tag = keys.clone();
    other_tag[22] = b'2';
    for wrong in [Vec::new(), keys[..86].to_vec(), [&keys[..], &[0]].concat(), other_tag] {
        assert_eq!(EnclaveKeys::decode(&wrong), Err(AttestationError::Keys));
        assert_eq!(verdict(&with("user_data", Value::Bytes(wrong))), Err(AttestationError::Keys));
    }
    assert_eq!(verdict(&with("user_data", Value::Null)), Err(AttestationError::Keys));
}

#[test]
fn document_without_a_public_key_is_refused() {
    assert_eq!(verdict(&with("public_key", Value::Null)), Err(AttestationError::NoPublicKey));
}

#[test]
fn measurement_in_a_charter_refuses_unknown_names_and_wrong_lengths() {
    let line = |name: &str, digits: usize| format!("{name} = \"{}\"\n", "a".repeat(digits));
    let three: String = ["pcr0", "pcr1", "pcr2"].map(|name| line(name, 96)).concat();
    let measurement: Measurement = toml::from_str(&three).unwrap();
    assert_eq!(measurement.pcr8, None);
    assert_eq!(toml::to_string(&measurement).unwrap(), three);
    assert!(toml::from_str::<Measurement>(&(three.clone() + &line("pcr8", 96))).is_ok());
    for wrong in [line("pcr3", 96), line("pcr8", 95), line("pcr8", 64), line("pcr8", 98)] {
        assert!(toml::from_str::<Measurement>(&(three.clone() + &wrong)).is_err(), "{wrong}");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(verdict(&bytes).is_err());
    }

    #[test]
    fn arbitrary_payloads_are_refused_without_a_panic(payload in prop::collection::vec(any::<u8>(), 0..300)) {
        let parts = [vec![0xa1, 0x01, 0x38, 0x22], payload, vec![1; 96]].map(Value::Bytes);
        let [protected, payload, signature] = parts;
        let message = Value::Array(vec![protected, Value::Map(vec![]), payload, signature]);
        let mut bytes = Vec::new();
        ciborium::into_writer(&message, &mut bytes).unwrap();
        prop_assert!(verdict(&bytes).is_err());
    }

    #[test]
    fn several_changed_bytes_are_refused(changes in prop::collection::vec((0..GENUINE.len(), 1..=255u8), 1..6)) {
        let mut bytes = GENUINE.to_vec();
        for (at, change) in &changes {
            bytes[*at] ^= change;
        }
        prop_assume!(bytes != GENUINE);
        prop_assert!(parse_and_verify(&bytes, &TrustRoot::aws_nitro_g1()).is_err());
    }
}
