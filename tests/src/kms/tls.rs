//! The certificate authority that vouches for the lab's KMS, in place of the public web's.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::state;

/// A certificate authority whose key and certificate are in the lab's state folder.
pub struct LabRoot {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: PathBuf,
}

impl LabRoot {
    /// Opens the authority in `dir`, and makes it on first use.
    ///
    /// # Errors
    /// Says which file cannot be read, written or understood.
    pub fn open(dir: &Path) -> anyhow::Result<Self> {
        let key = state::read_or_create(&dir.join("root.key"), || {
            Ok(KeyPair::generate().context("making the TLS root's key")?.serialize_pem().into_bytes())
        })?;
        let key = String::from_utf8(key).ok().and_then(|pem| KeyPair::from_pem(&pem).ok());
        let key = key.context("root.key is not a private key in PEM")?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(DnType::CommonName, "Custody lab KMS root");
        let pem = dir.join("root.pem");
        let certificate = state::read_or_create(&pem, || {
            Ok(params.self_signed(&key).context("making the TLS root")?.pem().into_bytes())
        })?;
        let certificate =
            CertificateDer::from_pem_slice(&certificate).context("root.pem is not a certificate in PEM")?;
        Ok(Self { issuer: Issuer::new(params, key), certificate, pem })
    }

    /// The root's certificate: what an enclave of the lab is given to trust.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The file with the root's certificate.
    #[must_use]
    pub fn pem(&self) -> &Path {
        &self.pem
    }

    /// TLS for a server called `host`, with a certificate made for the occasion.
    ///
    /// # Errors
    /// Says what is wrong with the host's name.
    pub fn server_config(&self, host: &str) -> anyhow::Result<Arc<ServerConfig>> {
        let key = KeyPair::generate().context("making a TLS key")?;
        let mut params = CertificateParams::new([host.to_owned()]).context("the host's name")?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &self.issuer).context("making a TLS certificate")?;
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
        let config =
            ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()?
                .with_no_client_auth()
                .with_single_cert(vec![certificate.der().clone()], key)?;
        Ok(Arc::new(config))
    }
}
