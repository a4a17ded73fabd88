//! The one certificate in which a chain must end. It decides between production and lab, so it is always handed in and
//! never looked up.

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use thiserror::Error;
use x509_cert::der::pem::{LineEnding, encode_string};

use crate::ids::Hash;

/// SHA-256 of AWS's root certificate for Nitro enclaves (G1), as a production charter names it.
pub const AWS_NITRO_G1_FINGERPRINT: &str = "641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b";

const AWS_NITRO_G1: &[u8] = include_bytes!("../../data/aws-nitro-root-g1.der");
/// Longest accepted PEM file, in bytes; a P-384 root has less than a kilobyte.
const MAX_PEM: usize = 16 * 1024;

/// Why bytes are not a root certificate.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidRoot {
    /// Not a certificate that can anchor a chain.
    #[error("the root is not an X.509 v3 certificate in DER")]
    Certificate(#[source] webpki::Error),
    /// Not exactly one PEM section.
    #[error("the root's file must contain exactly one PEM certificate and at most {MAX_PEM} bytes")]
    Pem,
}

/// The root that attestation documents must chain to. Its own validity period is ignored: it is trusted because the
/// charter names its fingerprint.
#[derive(Clone, PartialEq, Eq)]
pub struct TrustRoot {
    der: CertificateDer<'static>,
}

impl TrustRoot {
    /// AWS's root for Nitro enclaves (G1), the only one for production.
    #[must_use]
    pub fn aws_nitro_g1() -> Self {
        Self { der: CertificateDer::from(AWS_NITRO_G1) }
    }

    /// Takes a certificate in DER.
    ///
    /// # Errors
    /// [`InvalidRoot::Certificate`] when it cannot anchor a chain.
    pub fn from_der(der: &[u8]) -> Result<Self, InvalidRoot> {
        let der = CertificateDer::from(der.to_vec());
        webpki::anchor_from_trusted_cert(&der).map_err(InvalidRoot::Certificate)?;
        Ok(Self { der })
    }

    /// Takes a file with exactly one certificate in PEM.
    ///
    /// # Errors
    /// [`InvalidRoot`] when it holds none, several, or one that cannot anchor a chain.
    pub fn from_pem(pem: &[u8]) -> Result<Self, InvalidRoot> {
        if pem.len() > MAX_PEM {
            return Err(InvalidRoot::Pem);
        }
        let mut certificates = CertificateDer::pem_slice_iter(pem);
        match (certificates.next(), certificates.next()) {
            (Some(Ok(der)), None) => Self::from_der(&der),
            _ => Err(InvalidRoot::Pem),
        }
    }

    /// SHA-256 of the certificate's DER: what a charter names the root by.
    #[must_use]
    pub fn fingerprint(&self) -> Hash {
        Hash::of_bytes(&self.der)
    }

    /// The certificate in PEM, for the evidence that strangers check with stock tools.
    ///
    /// # Errors
    /// [`InvalidRoot::Pem`] when the certificate is too large to be written.
    pub fn to_pem(&self) -> Result<String, InvalidRoot> {
        encode_string("CERTIFICATE", LineEnding::LF, &self.der).map_err(|_| InvalidRoot::Pem)
    }

    /// The certificate in DER.
    #[must_use]
    pub const fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }
}

impl std::fmt::Debug for TrustRoot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TrustRoot({})", self.fingerprint())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn aws_root_has_the_fingerprint_that_aws_publishes() {
        let root = TrustRoot::aws_nitro_g1();
        assert_eq!(root.fingerprint().to_string(), AWS_NITRO_G1_FINGERPRINT);
        assert_eq!(TrustRoot::from_der(AWS_NITRO_G1).unwrap(), root);
    }

    #[test]
    fn root_survives_pem_and_refuses_none_two_or_a_broken_one() {
        let root = TrustRoot::aws_nitro_g1();
        let pem = root.to_pem().unwrap();
        assert_eq!(TrustRoot::from_pem(pem.as_bytes()).unwrap(), root);
        assert_eq!(TrustRoot::from_pem(b""), Err(InvalidRoot::Pem));
        assert_eq!(TrustRoot::from_pem(pem.repeat(2).as_bytes()), Err(InvalidRoot::Pem));
        assert_eq!(TrustRoot::from_pem(&vec![b' '; MAX_PEM + 1]), Err(InvalidRoot::Pem));
        assert!(TrustRoot::from_pem(&pem.as_bytes()[..pem.len() / 2]).is_err());
        assert!(TrustRoot::from_der(&AWS_NITRO_G1[1..]).is_err());
        assert!(TrustRoot::from_der(b"").is_err());
    }
}
