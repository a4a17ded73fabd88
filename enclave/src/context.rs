//! What a sealed share belongs to, as bound both by the KMS and by the share's own encryption.

use std::collections::HashMap;

use ceremonies::ids::{ClusterId, Generation, Hash, NodeIndex, WalletName};

const DOMAIN: &str = "custody/sealed-share/v1";

/// What a sealed share belongs to. It opens for nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealContext {
    /// The hash of the cluster's first charter: a host could write another with people of its own.
    pub charter: Hash,
    /// The cluster.
    pub cluster: ClusterId,
    /// The wallet.
    pub wallet: WalletName,
    /// The node whose share it is.
    pub node: NodeIndex,
    /// The generation of the wallet's shares.
    pub generation: Generation,
}

impl SealContext {
    /// The context as the KMS takes it. It appears in clear in AWS's audit log.
    #[must_use]
    pub fn encryption_context(&self) -> HashMap<String, String> {
        HashMap::from([
            ("custody:charter".to_owned(), self.charter.to_string()),
            ("custody:cluster".to_owned(), self.cluster.to_string()),
            ("custody:wallet".to_owned(), self.wallet.to_string()),
            ("custody:node".to_owned(), self.node.to_string()),
            ("custody:generation".to_owned(), self.generation.to_string()),
        ])
    }

    /// What the share's encryption authenticates besides the share.
    pub(crate) fn associated_data(&self, wrapped_key: &[u8]) -> Hash {
        Hash::of_parts(
            DOMAIN,
            &[
                self.charter.as_bytes(),
                self.cluster.as_str().as_bytes(),
                self.wallet.as_str().as_bytes(),
                &[self.node.get()],
                &self.generation.0.to_be_bytes(),
                wrapped_key,
            ],
        )
    }
}
