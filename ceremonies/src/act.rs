//! The acts of a script, by name. What each asks for is in `ceremony/acts`.

use serde::{Deserialize, Serialize};

/// What happens in a step, and thereby what completes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    /// The administrator opens the ceremony with its manifest.
    Open,
    /// Every enclave attests, with the manifest's hash as nonce.
    Attest,
    /// The signers confirm what they have seen.
    Confirm,
    /// The charter's quorum approves manifest and attested enclaves. Then enclaves may act.
    Approve,
    /// Nodes that lost their shares get them back.
    Recover,
    /// The enclaves generate the key, commit and adopt it; or they make new shares of a key and stage them.
    Generate,
    /// The signers type the wallet's words as they hear them.
    ReadBack,
    /// The enclaves sign worthless digests until every node and every pair has signed.
    TestSign,
    /// The enclaves sign the transaction.
    Sign,
    /// The signers say that the signed transaction is in a block, or why it is not sent from here.
    Broadcast,
    /// Every enclave encrypts its new share for its custodian and the escrow trustee; agents put it under lock.
    Backup,
    /// Custodians release every backup to its node's enclave, which proves that it holds the share.
    Prove,
    /// The signers let the staged generation take the place of the one in use; enclaves commit, agents adopt.
    Commit,
    /// Every node deletes its shares of the generations before.
    Retire,
    /// The signers agree or disagree, with a reason.
    Agree,
    /// The administrator ends the ceremony.
    Close,
}

impl Act {
    /// Whether people complete it with signatures counted by the script.
    #[must_use]
    pub fn has_signers(self) -> bool {
        match self {
            Self::Confirm
            | Self::ReadBack
            | Self::Broadcast
            | Self::Commit
            | Self::Agree
            | Self::Close
            | Self::Open => true,
            Self::Attest
            | Self::Approve
            | Self::Recover
            | Self::Generate
            | Self::TestSign
            | Self::Sign
            | Self::Backup
            | Self::Prove
            | Self::Retire => false,
        }
    }
}
