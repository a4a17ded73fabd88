//! Sealing a new share and opening a sealed one: KMS, cipher, and the checks that a share is the one that its record
//! names.

use std::sync::Arc;

use aws_credential_types::Credentials;
use ceremonies::charter::{Charter, CharterError};
use ceremonies::ids::{Generation, InvalidId, NodeIndex};
use ceremonies::wallet::Record;
use thiserror::Error;

use super::{BootError, Core, Tunnel};
use crate::context::SealContext;
use crate::kms::{Clock, Kms, KmsConfig, KmsError};
use crate::scheme::dkls23::{KeyShare, ShareError};
use crate::seal::{self, SealError, SealedBlob};
use crate::signer::{Open, Seal};
use enclave_link::message;

/// Why a share is not sealed or opened.
#[derive(Debug, Error)]
pub(super) enum SealingError {
    #[error("no attestation document for KMS")]
    Attestation(#[from] BootError),
    #[error("no data key from KMS")]
    Kms(#[from] KmsError),
    #[error("the share cannot be sealed or opened")]
    Seal(#[from] SealError),
    #[error("the opened share cannot be read")]
    Share(#[from] ShareError),
    #[error("the opened share is not node {0}'s share of the recorded generation")]
    OtherShare(NodeIndex),
    #[error(transparent)]
    Encoding(ShareError),
}

fn context(charter: &Charter, record: &Record, node: NodeIndex) -> SealContext {
    SealContext {
        charter: charter.hash(),
        cluster: record.cluster.clone(),
        wallet: record.wallet.clone(),
        node,
        generation: record.generation,
    }
}

fn kms(
    core: &Arc<Core>,
    tunnel: &Tunnel,
    charter: &Charter,
    lent: &message::Credentials,
) -> Result<Kms, KmsError> {
    let clock = Arc::clone(core);
    let token = Some(lent.session_token.clone()).filter(|token| !token.is_empty());
    Kms::new(
        KmsConfig {
            region: charter.kms().region.clone(),
            host: charter.kms().host.clone(),
            key: charter.kms().key.clone(),
            roots: core.tls_roots.clone(),
            clock: Clock::new(move || clock.clock.now()),
            connect_timeout: KmsConfig::CONNECT_TIMEOUT,
            call_deadline: KmsConfig::CALL_DEADLINE,
        },
        Arc::clone(&core.kms_keys),
        Arc::new(tunnel.clone()),
        Credentials::new(&lent.access_key_id, &lent.secret_access_key, token, None, "agent"),
    )
}

/// Seals a fresh share under a data key of its own.
pub(super) async fn seal(
    core: &Arc<Core>,
    tunnel: &Tunnel,
    order: Seal<KeyShare>,
) -> Result<Vec<u8>, SealingError> {
    let Seal { charter, credentials, record, node, share } = order;
    let encoded = share.encode().map_err(SealingError::Encoding)?;
    drop(share);
    let kms = kms(core, tunnel, &charter, &credentials)?;
    let context = context(&charter, &record, node);
    let data_key = kms.generate_data_key(core.attest(&[]).await?, &context).await?;
    Ok(seal::seal(&encoded, &context, &data_key)?.bytes().to_vec())
}

/// Why a trial of the KMS did not pass.
#[derive(Debug, Error)]
pub(super) enum TrialError {
    #[error("the order for a trial is malformed")]
    Malformed(#[from] InvalidId),
    #[error("the charter is refused")]
    Charter(#[from] CharterError),
    #[error("the order for a trial lacks credentials")]
    NoCredentials,
    #[error(transparent)]
    Sealing(#[from] SealingError),
    #[error(
        "KMS unwrapped a key other than the one that it made: do not use it; find out who answers for KMS"
    )]
    OtherKey,
}

/// Gets a data key, has it unwrapped, and forgets it: everything that sealing and opening a share requires of the KMS.
/// Nothing is ever sealed under it, and no share has its context: generations begin with 1.
pub(super) async fn try_kms(
    core: &Arc<Core>,
    tunnel: &Tunnel,
    order: message::TryKms,
) -> Result<(), TrialError> {
    let charter = Charter::parse(&order.charter)?;
    let lent = order.credentials.ok_or(TrialError::NoCredentials)?;
    let kms = kms(core, tunnel, &charter, &lent).map_err(SealingError::from)?;
    let context = SealContext {
        charter: charter.hash(),
        cluster: charter.cluster().clone(),
        wallet: "trial".parse()?,
        node: NodeIndex::try_from(order.node)?,
        generation: Generation(0),
    };
    let document = core.attest(&[]).await.map_err(SealingError::from)?;
    let made = kms.generate_data_key(document, &context).await.map_err(SealingError::from)?;
    let document = core.attest(&[]).await.map_err(SealingError::from)?;
    let unwrapped = kms.decrypt(document, &made.wrapped, &context).await.map_err(SealingError::from)?;
    if unwrapped.key == made.key { Ok(()) } else { Err(TrialError::OtherKey) }
}

/// Opens a stored share and checks it against the digest and the public share that the record's enclaves signed: a host
/// cannot substitute another, however well sealed.
pub(super) async fn open(core: &Arc<Core>, tunnel: &Tunnel, order: Open) -> Result<KeyShare, SealingError> {
    let Open { charter, credentials, record, node, blob, expected } = order;
    let blob = SealedBlob::read(blob, &expected)?;
    let kms = kms(core, tunnel, &charter, &credentials)?;
    let context = context(&charter, &record, node);
    let data_key = kms.decrypt(core.attest(&[]).await?, blob.wrapped_key(), &context).await?;
    let share = KeyShare::decode(&blob.open(&context, &data_key.key)?)?;
    if share.belongs_to(&record, node) { Ok(share) } else { Err(SealingError::OtherShare(node)) }
}
