//! Writing and opening the files of backups.

use thiserror::Error;

use super::Core;
use crate::backup::{self, BackupError};
use crate::scheme::dkls23::{KeyShare, ShareError};
use crate::signer::{BackUp, Released};
use ceremonies::curve::Point;

/// Why a backup is not written or opened.
#[derive(Debug, Error)]
pub(super) enum Failure {
    #[error("the released key was sealed for another enclave or ceremony: have it released again")]
    Sealed,
    #[error(transparent)]
    Backup(#[from] BackupError),
    #[error(transparent)]
    Share(#[from] ShareError),
}

/// The files of the whole share and of the root share alone.
pub(super) fn write(order: &BackUp<KeyShare>) -> Result<(Vec<u8>, Vec<u8>), Failure> {
    let BackUp { record, node, share, recipients } = order;
    let recipients = || recipients.iter().map(String::as_str);
    let whole = backup::write(share, record, *node, recipients())?;
    let root = backup::write(&share.root(), record, *node, recipients())?;
    Ok((whole, root))
}

/// Opens the backup that was released to this enclave.
pub(super) fn open(core: &Core, order: &Released) -> Result<KeyShare, Failure> {
    let key = core.keys.unseal(&order.info, &order.key).ok_or(Failure::Sealed)?;
    Ok(backup::open(&order.backup, backup::file_key(&key)?, &order.record, order.node)?)
}

/// The public point of the share in a backup that was released to this enclave.
pub(super) fn prove(core: &Core, order: &Released) -> Result<Point, Failure> {
    Ok(open(core, order)?.public_point()?)
}
