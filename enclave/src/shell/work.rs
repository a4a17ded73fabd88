//! What the signer wants done with shares outside of sessions, and what comes of it.

use std::sync::Arc;

use ceremonies::text::chain;

use super::{Core, Tunnel, backups, sealing};
use crate::scheme::dkls23::KeyShare;
use crate::signer::{News, Work};

/// Does it, which may take until the KMS's deadline.
pub(super) async fn perform(core: &Arc<Core>, tunnel: &Tunnel, work: Work<KeyShare>) -> News<KeyShare> {
    let done = match work {
        Work::Open(order) => match sealing::open(core, tunnel, order).await {
            Ok(share) => Ok(News::Opened(Arc::new(share))),
            Err(error) => Err(chain(&error)),
        },
        Work::Seal(order) => match sealing::seal(core, tunnel, order).await {
            Ok(blob) => Ok(News::Sealed(blob)),
            Err(error) => Err(chain(&error)),
        },
        Work::BackUp(order) => backups::write(&order)
            .map(|(whole, root)| News::BackedUp { whole, root })
            .map_err(|failure| failure.to_string()),
        Work::Prove(order) => {
            backups::prove(core, &order).map(News::Proved).map_err(|failure| failure.to_string())
        }
        Work::Restore(order) => backups::open(core, &order)
            .map(|share| News::Restored(Arc::new(share)))
            .map_err(|failure| failure.to_string()),
    };
    done.unwrap_or_else(News::Undone)
}
