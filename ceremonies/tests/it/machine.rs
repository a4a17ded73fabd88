//! A machine that makes attestation documents, under certificates of its own.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::sync::LazyLock;
use std::time::Duration;

use ceremonies::attestation::{EnclaveKeys, Measurement, Pcr, TrustRoot};
use ceremonies::ids::UnixMillis;
use ciborium::Value;
use coset::{CborSerializable as _, CoseSign1, CoseSign1Builder, HeaderBuilder, iana};
use p384::ecdsa::{Signature, SigningKey, signature::Signer as _};
use p384::pkcs8::DecodePrivateKey as _;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PKCS_ECDSA_P384_SHA384};

/// When the machine's certificates begin to be valid, for three hours.
pub(crate) const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

/// A machine with certificates of its own, which signs whatever payload a test writes.
pub(crate) struct Machine {
    pub(crate) root: TrustRoot,
    pub(crate) bundle: Vec<Vec<u8>>,
    pub(crate) leaf: Vec<u8>,
    pub(crate) key: SigningKey,
}

pub(crate) static MACHINE: LazyLock<Machine> = LazyLock::new(Machine::new);

pub(crate) fn key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap()
}

pub(crate) fn params(name: &str, ca: bool) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.not_before = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_millis(NOW.0.unsigned_abs());
    params.not_after = params.not_before + Duration::from_hours(3);
    params.is_ca = if ca { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::ExplicitNoCa };
    params
}

impl Machine {
    pub(crate) fn new() -> Self {
        let root = CertifiedIssuer::self_signed(params("root", true), key()).unwrap();
        let middle = CertifiedIssuer::signed_by(params("middle", true), key(), &root).unwrap();
        let leaf_key = key();
        let leaf = params("leaf", false).signed_by(&leaf_key, &middle).unwrap();
        Self {
            root: TrustRoot::from_der(root.der()).unwrap(),
            bundle: vec![root.der().to_vec(), middle.der().to_vec()],
            leaf: leaf.der().to_vec(),
            key: SigningKey::from_pkcs8_der(leaf_key.serialized_der()).unwrap(),
        }
    }

    pub(crate) fn payload(&self, nonce: &[u8], at: UnixMillis, keys: &EnclaveKeys) -> Vec<(Value, Value)> {
        let pcrs = (0..16u8).map(|index| (Value::from(index), Value::Bytes(vec![index + 1; 48]))).collect();
        let bundle = self.bundle.iter().cloned().map(Value::Bytes).collect();
        [
            ("module_id", Value::from("i-1-enc1")),
            ("digest", Value::from("SHA384")),
            ("timestamp", Value::from(at.0)),
            ("pcrs", Value::Map(pcrs)),
            ("certificate", Value::Bytes(self.leaf.clone())),
            ("cabundle", Value::Array(bundle)),
            ("public_key", Value::Bytes(vec![7; 294])),
            ("user_data", Value::Bytes(keys.encode())),
            ("nonce", Value::Bytes(nonce.to_vec())),
        ]
        .map(|(name, value)| (Value::from(name), value))
        .into()
    }

    pub(crate) fn message(&self, payload: &Value) -> CoseSign1 {
        let mut bytes = Vec::new();
        ciborium::into_writer(payload, &mut bytes).unwrap();
        CoseSign1Builder::new()
            .protected(HeaderBuilder::new().algorithm(iana::Algorithm::ES384).build())
            .payload(bytes)
            .create_signature(b"", |signed| {
                let signature: Signature = self.key.sign(signed);
                signature.to_vec()
            })
            .build()
    }

    pub(crate) fn sign(&self, payload: &Value) -> Vec<u8> {
        self.message(payload).to_vec().unwrap()
    }
}

pub(crate) fn pcr(byte: u8) -> Pcr {
    Pcr::from([byte; 48])
}

pub(crate) fn allowed() -> Measurement {
    Measurement { pcr0: pcr(1), pcr1: pcr(2), pcr2: pcr(3), pcr8: None, until: None }
}
