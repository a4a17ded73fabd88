//! Keys that follow from names: of a machine that attests, of enclaves, and of the wallet that all schedules are about.
//! Every run makes the same ones, so that a seed means the same schedule in each.

use std::sync::LazyLock;
use std::time::Duration;

use ceremonies::attestation::{EnclaveKeys, Measurement, Pcr, TrustRoot};
use ceremonies::ids::{Hash, UnixMillis};
use ciborium::Value;
use coset::{CborSerializable as _, CoseSign1Builder, HeaderBuilder, iana};
use enclave::session::BootKeys;
use k256::elliptic_curve::PrimeField as _;
use k256::elliptic_curve::group::GroupEncoding as _;
use k256::{ProjectivePoint, Scalar};
use p384::ecdsa::signature::Signer as _;
use p384::ecdsa::{DerSignature, Signature, SigningKey};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, PublicKeyData, SignatureAlgorithm};

/// When the machine's certificates begin to be valid, for a day.
pub(super) const BEGIN: UnixMillis = UnixMillis(1_800_000_000_000);

const SECRET: u64 = 0x5eed_0001;

fn seed(name: &str) -> [u8; 32] {
    *Hash::of_bytes(name.as_bytes()).as_bytes()
}

/// A P-384 key that signs the same in the same way.
struct Signer {
    key: SigningKey,
    public: Vec<u8>,
}

impl Signer {
    fn new(name: &str) -> Self {
        let key = SigningKey::from_slice(&[&seed(name)[..], &[7; 16]].concat()).unwrap();
        let public = key.verifying_key().to_encoded_point(false).as_bytes().to_vec();
        Self { key, public }
    }
}

impl PublicKeyData for Signer {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P384_SHA384
    }
}

impl rcgen::SigningKey for Signer {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature: DerSignature = self.key.sign(message);
        Ok(signature.as_bytes().to_vec())
    }
}

fn params(name: &str, is_ca: bool) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.not_before = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_millis(BEGIN.0.unsigned_abs());
    params.not_after = params.not_before + Duration::from_hours(24);
    params.is_ca = if is_ca { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::ExplicitNoCa };
    params
}

/// A machine whose documents verify under a root of its own.
pub(super) struct Machine {
    pub(super) root: TrustRoot,
    bundle: Vec<Vec<u8>>,
    leaf: Vec<u8>,
    key: Signer,
}

pub(super) static MACHINE: LazyLock<Machine> = LazyLock::new(Machine::new);

impl Machine {
    fn new() -> Self {
        let root = CertifiedIssuer::self_signed(params("root", true), Signer::new("root")).unwrap();
        let middle =
            CertifiedIssuer::signed_by(params("middle", true), Signer::new("middle"), &root).unwrap();
        let key = Signer::new("leaf");
        let leaf = params("leaf", false).signed_by(&key, &middle).unwrap();
        Self {
            root: TrustRoot::from_der(root.der()).unwrap(),
            bundle: vec![root.der().to_vec(), middle.der().to_vec()],
            leaf: leaf.der().to_vec(),
            key,
        }
    }

    /// The document in which the enclave with these keys answers with this nonce.
    pub(super) fn document(&self, nonce: &[u8], at: UnixMillis, keys: &EnclaveKeys) -> Vec<u8> {
        let pcrs = (0..16u8).map(|index| (Value::from(index), Value::Bytes(vec![index + 1; 48]))).collect();
        let bundle = self.bundle.iter().cloned().map(Value::Bytes).collect();
        let payload = [
            ("module_id", Value::from("i-1-enc1")),
            ("digest", Value::from("SHA384")),
            ("timestamp", Value::from(at.0)),
            ("pcrs", Value::Map(pcrs)),
            ("certificate", Value::Bytes(self.leaf.clone())),
            ("cabundle", Value::Array(bundle)),
            ("public_key", Value::Bytes(vec![7; 294])),
            ("user_data", Value::Bytes(keys.encode())),
            ("nonce", Value::Bytes(nonce.to_vec())),
        ];
        let payload = payload.map(|(name, value)| (Value::from(name), value)).into();
        let mut bytes = Vec::new();
        ciborium::into_writer(&Value::Map(payload), &mut bytes).unwrap();
        let signed = CoseSign1Builder::new()
            .protected(HeaderBuilder::new().algorithm(iana::Algorithm::ES384).build())
            .payload(bytes)
            .create_signature(b"", |message| {
                let signature: Signature = self.key.key.sign(message);
                signature.to_vec()
            });
        signed.build().to_vec().unwrap()
    }
}

/// The image that all enclaves run.
pub(super) fn image() -> Measurement {
    let pcr = |byte: u8| Pcr::from([byte; 48]);
    Measurement { pcr0: pcr(1), pcr1: pcr(2), pcr2: pcr(3), pcr8: None, until: None }
}

/// An enclave's keys, from a name that stands for one boot of it.
pub(super) fn boot_keys(boot: &str) -> BootKeys {
    BootKeys::from_seeds(&seed(boot), &seed(&format!("{boot} x")))
}

/// A sharing of the wallet's secret, of threshold 2: one for each session that shares it anew.
pub(super) struct Sharing {
    slope: u64,
}

impl Sharing {
    pub(super) fn of(session: &Hash) -> Self {
        let slope = u64::from_be_bytes(session.as_bytes()[..8].try_into().unwrap());
        Self { slope: slope | 1 }
    }

    /// The public share at a place; the public key at 0.
    pub(super) fn point(&self, x: u8) -> Vec<u8> {
        let share = Scalar::from(SECRET) + Scalar::from(self.slope) * Scalar::from(u64::from(x));
        (ProjectivePoint::GENERATOR * share).to_affine().to_bytes().to_vec()
    }
}

/// The wallet's signature: (r, s, recovery id), with s in the lower half.
pub(super) fn ecdsa(digest: &Hash) -> ([u8; 32], [u8; 32], u8) {
    let key = k256::ecdsa::SigningKey::from_bytes(&Scalar::from(SECRET).to_repr()).unwrap();
    let (signature, recovery) = key.sign_prehash_recoverable(digest.as_bytes());
    let (r, s) = signature.split_bytes();
    (r.into(), s.into(), recovery.to_byte())
}
