//! The lab's certificates, in the shape of AWS's: a P-384 root kept in a file, an intermediate, and a leaf valid for a
//! few hours that signs one document.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair};
use ceremonies::attestation::TrustRoot;
use ceremonies::ids::UnixMillis;
use coset::{CborSerializable as _, CoseSign1Builder, HeaderBuilder, iana};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P384_SHA384,
};

use super::DocumentSpec;
use crate::kms::state;

/// How long before its document a certificate begins to be valid; the enclave's start, so to speak.
const BEFORE: Duration = Duration::from_mins(5);
/// How long after its document a leaf is valid, as on Nitro.
const LEAF_LIFE: Duration = Duration::from_hours(3);
/// How long an intermediate is valid.
const INTERMEDIATE_LIFE: Duration = Duration::from_hours(24);

/// The root of a lab's attestation, whose key is in the lab's state folder.
pub struct LabRoot {
    issuer: Issuer<'static, KeyPair>,
    trust: TrustRoot,
    pem: PathBuf,
}

impl LabRoot {
    /// Opens the root in `dir`, and makes it on first use.
    ///
    /// # Errors
    /// Says which file cannot be read, written or understood, or that they are not a pair.
    pub fn open(dir: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        let key_path = dir.join("root.key");
        let key = state::read_or_create(&key_path, || Ok(new_key()?.serialize_pem().into_bytes()))?;
        let key = String::from_utf8(key)
            .ok()
            .and_then(|pem| KeyPair::from_pem_and_sign_algo(&pem, &PKCS_ECDSA_P384_SHA384).ok())
            .with_context(|| format!("{} is not a P-384 key in PEM", key_path.display()))?;
        let params = authority("root", BasicConstraints::Unconstrained);
        let pem = dir.join("root.pem");
        let certificate = state::read_or_create(&pem, || {
            Ok(params.self_signed(&key).context("making the attestation root")?.pem().into_bytes())
        })?;
        let trust =
            TrustRoot::from_pem(&certificate).with_context(|| format!("reading {}", pem.display()))?;
        let root = Self { issuer: Issuer::new(params, key), trust, pem };
        root.check_pair().with_context(|| {
            format!("{} and {} are not a pair: remove both", key_path.display(), root.pem.display())
        })?;
        Ok(root)
    }

    /// A certificate beside another's key would make every later document fail, far from the cause.
    fn check_pair(&self) -> anyhow::Result<()> {
        let registers = super::measure_bytes(b"", &[]);
        let document = self.sign(&DocumentSpec::new(&registers, UnixMillis(1)))?;
        ceremonies::attestation::parse_and_verify(&document, &self.trust)?;
        Ok(())
    }

    /// The root as verifiers take it.
    #[must_use]
    pub const fn trust(&self) -> &TrustRoot {
        &self.trust
    }

    /// The file with the root's certificate, for the programs of the lab.
    #[must_use]
    pub fn pem(&self) -> &Path {
        &self.pem
    }

    /// Signs a document, whatever it says, with certificates made for the occasion.
    ///
    /// # Errors
    /// When a certificate for that time cannot be made.
    pub fn sign(&self, spec: &DocumentSpec) -> anyhow::Result<Vec<u8>> {
        let mut params = authority("intermediate", BasicConstraints::Constrained(0));
        set_validity(&mut params, spec.timestamp, INTERMEDIATE_LIFE);
        let intermediate = CertifiedIssuer::signed_by(params, new_key()?, &self.issuer)?;

        let mut params = named(&spec.module_id);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::ContentCommitment];
        set_validity(&mut params, spec.timestamp, LEAF_LIFE);
        let key = new_key()?;
        let leaf = params.signed_by(&key, &intermediate).context("making the leaf certificate")?;

        let root = self.trust.der();
        let payload = spec.payload(leaf.der(), &[root, intermediate.der()])?;
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, key.serialized_der())?;
        let message = CoseSign1Builder::new()
            .protected(HeaderBuilder::new().algorithm(iana::Algorithm::ES384).build())
            .payload(payload)
            .try_create_signature(b"", |signed| {
                key.sign(&SystemRandom::new(), signed).map(|signature| signature.as_ref().to_vec())
            })?
            .build();
        message.to_vec().map_err(|error| anyhow::anyhow!("encoding the document: {error}"))
    }
}

fn new_key() -> anyhow::Result<KeyPair> {
    KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).context("making a P-384 key")
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::OrganizationName, "Custody lab, not for production");
    params.distinguished_name.push(DnType::CommonName, name);
    params.use_authority_key_identifier_extension = true;
    params
}

fn authority(name: &str, constraints: BasicConstraints) -> CertificateParams {
    let mut params = named(&format!("{name}.lab.nitro-enclaves"));
    params.is_ca = IsCa::Ca(constraints);
    params.key_usages =
        vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn set_validity(params: &mut CertificateParams, made: UnixMillis, life: Duration) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let made = Duration::from_millis(made.0.max(0).unsigned_abs());
    params.not_before = epoch + made.saturating_sub(BEFORE);
    params.not_after = epoch + made + life;
}
