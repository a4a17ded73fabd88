//! Sending a signed transaction to an endpoint, and waiting until it is in a block.
//!
//! An endpoint is not trusted: its answers are bounded, and an id other than the transaction's own ends the attempt.
//! That a block holds the transaction is still only the endpoint's word; a person signs it as theirs. Everything here
//! may be repeated after a crash: a transaction that the endpoint already knows is waited for. Nothing here signs.

mod bitcoin;
mod evm;
mod http;

use std::fmt;
use std::time::Duration;

use ceremonies::chain::address::ChainId;
use ceremonies::chain::transaction::{Confirmation, Transaction, TransactionId};
use ceremonies::ids::Line;
use hyper::StatusCode;
use thiserror::Error;
use tokio::time::Instant;

use self::http::Answer;
pub use self::http::{Elsewhere, Endpoint, HttpError, InvalidEndpoint};

/// What to do about a status that has one usual cause.
fn hint(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            "; it wants to know who asks: give its token with --bearer FILE"
        }
        status if status.is_redirection() => "; it sends elsewhere: ask its operator for the right address",
        _ => "",
    }
}

/// What is spoken on a network, and what to do where it is not.
#[derive(Debug, Clone, Copy)]
pub struct Interface {
    spoken: &'static str,
    instead: &'static str,
}

/// Why there is no confirmation.
#[derive(Debug, Error)]
pub enum BroadcastError {
    /// No answer.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// An answer that reports an error at the endpoint.
    #[error("the endpoint answered {status} to {to}: {text}{}", hint(*status))]
    Status {
        /// To what.
        to: &'static str,
        /// The status.
        status: StatusCode,
        /// What it says, cut to a line.
        text: Line,
    },
    /// It sends elsewhere.
    #[error("the endpoint answered {status} to {to}: {elsewhere}")]
    Redirect {
        /// To what.
        to: &'static str,
        /// The status.
        status: StatusCode,
        /// Where, and what to do.
        elsewhere: Elsewhere,
    },
    /// A website is served there.
    #[error(
        "the endpoint answered {to} with a web page: that is the address of a website, not of {}: {}",
        .wanted.spoken,
        .wanted.instead
    )]
    WebPage {
        /// To what.
        to: &'static str,
        /// What should be there.
        wanted: Interface,
    },
    /// Something else is served there.
    #[error(
        "the endpoint does not speak {} (HTTP {status} to {to}): {}", .wanted.spoken, .wanted.instead
    )]
    OtherInterface {
        /// To what.
        to: &'static str,
        /// The status.
        status: StatusCode,
        /// What should be spoken.
        wanted: Interface,
    },
    /// An error to a question that has an answer.
    #[error("the endpoint did not answer {to}: {text}")]
    Unanswered {
        /// To what.
        to: &'static str,
        /// What it says, cut to a line.
        text: Line,
    },
    /// An answer that is none.
    #[error(
        "the endpoint's answer to {to} cannot be read: expected {expected}; give the address of another endpoint"
    )]
    Malformed {
        /// To what.
        to: &'static str,
        /// What should have come.
        expected: &'static str,
    },
    /// Another chain.
    #[error("the endpoint is on chain {theirs}, but the transaction is for chain {ours}: nothing was sent")]
    OtherChain {
        /// The endpoint's.
        theirs: u64,
        /// The transaction's.
        ours: ChainId,
    },
    /// The endpoint answered for another transaction.
    #[error(
        "the endpoint answered for transaction {told}, but {ours} was sent: do not trust it, use another endpoint"
    )]
    OtherTransaction {
        /// The id that it gave, cut to a line.
        told: Line,
        /// The id that follows from the signed bytes.
        ours: TransactionId,
    },
    /// The network does not take it.
    #[error("the endpoint refused the transaction: {0}")]
    Refused(Line),
    /// It is in a block but failed.
    #[error(
        "the transaction is in block {height} but failed: only the fee was paid, and its nonce is used up; record that \
         with --withhold"
    )]
    Failed {
        /// The block's height.
        height: u64,
    },
    /// Not in time.
    #[error(
        "after {} seconds, the transaction's status is: {last}; run the command again to keep waiting",
        .waited.as_secs()
    )]
    NotConfirmed {
        /// How long was waited.
        waited: Duration,
        /// Its status at the last look.
        last: String,
    },
}

impl BroadcastError {
    /// Whether the next look may succeed. Nonsense is not waited out.
    fn may_pass(&self) -> bool {
        match self {
            Self::Http(error) => match error {
                HttpError::Unreachable { .. } | HttpError::Slow { .. } | HttpError::Broken { .. } => true,
                HttpError::TooLarge(_) | HttpError::NoTls { .. } => false,
            },
            Self::Status { status, .. } => {
                status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS
            }
            Self::Unanswered { .. } => true,
            Self::Redirect { .. }
            | Self::WebPage { .. }
            | Self::OtherInterface { .. }
            | Self::Malformed { .. }
            | Self::OtherChain { .. }
            | Self::OtherTransaction { .. }
            | Self::Refused(_)
            | Self::Failed { .. }
            | Self::NotConfirmed { .. } => false,
        }
    }
}

/// The status of a sent transaction, as the endpoint reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Waiting,
    InBlock {
        confirmation: Confirmation,
        /// Its confirmations: its own block and those on top.
        blocks: u64,
    },
}

impl Standing {
    /// In a block, when the chain's last block has this height.
    fn in_block(confirmation: Confirmation, tip: u64) -> Self {
        let blocks = tip.saturating_sub(confirmation.height).saturating_add(1);
        Self::InBlock { confirmation, blocks }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waiting => f.write_str("not in a block yet"),
            Self::InBlock { confirmation, blocks } => {
                write!(f, "in block {}, {blocks} confirmations", confirmation.height)
            }
        }
    }
}

/// What to wait for, and how long.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// How many blocks must hold the transaction, its own included.
    pub confirmations: u64,
    /// How long all of it may take.
    pub wait: Duration,
    /// How long between two looks.
    pub look: Duration,
}

/// What is asked of which network.
enum Network<'a> {
    Evm(evm::Sender<'a>),
    Bitcoin(bitcoin::Sender<'a>),
}

impl Network<'_> {
    async fn send(&self) -> Result<(), BroadcastError> {
        match self {
            Self::Evm(sender) => sender.send().await,
            Self::Bitcoin(sender) => sender.send().await,
        }
    }

    async fn standing(&self) -> Result<Standing, BroadcastError> {
        match self {
            Self::Evm(sender) => sender.standing().await,
            Self::Bitcoin(sender) => sender.standing().await,
        }
    }
}

/// Sends what [`Transaction::signed`] has made of a transaction, and waits for its confirmation. Each change of its
/// status is reported.
///
/// # Errors
/// [`BroadcastError`]; for all but the transaction's own failure it can be repeated.
pub async fn broadcast(
    endpoint: &Endpoint,
    transaction: &Transaction,
    signed: &[u8],
    patience: &Patience,
    mut tell: impl FnMut(&str),
) -> Result<Confirmation, BroadcastError> {
    let begun = Instant::now();
    let id = transaction.id(signed);
    let network = match transaction {
        Transaction::Evm(evm) => {
            let chain = evm.transfer().chain;
            Network::Evm(evm::Sender { endpoint, chain, signed, id })
        }
        Transaction::Bitcoin(_) => Network::Bitcoin(bitcoin::Sender { endpoint, signed, id }),
    };
    network.send().await?;
    tell(&format!("{} has transaction {id}", endpoint.authority()));
    let mut last = String::new();
    loop {
        let standing = match network.standing().await {
            Ok(Standing::InBlock { confirmation, blocks }) if blocks >= patience.confirmations => {
                return Ok(confirmation);
            }
            Ok(standing) => standing.to_string(),
            Err(error) if error.may_pass() => error.to_string(),
            Err(error) => return Err(error),
        };
        if standing != last {
            tell(&standing);
            last = standing;
        }
        let waited = begun.elapsed();
        if waited >= patience.wait {
            return Err(BroadcastError::NotConfirmed { waited, last });
        }
        tokio::time::sleep(patience.look.min(patience.wait.saturating_sub(waited))).await;
    }
}

fn malformed(to: &'static str, expected: &'static str) -> BroadcastError {
    BroadcastError::Malformed { to, expected }
}

/// Refuses every id but the transaction's own.
fn must_be(ours: TransactionId, told: &str) -> Result<(), BroadcastError> {
    if told.trim().to_ascii_lowercase().parse() == Ok(ours) {
        Ok(())
    } else {
        Err(BroadcastError::OtherTransaction { told: Line::lossy(told), ours })
    }
}

/// An answer that speaks of success, and not to a browser.
///
/// # Errors
/// [`BroadcastError`] for any other.
fn successful<'a>(
    to: &'static str,
    wanted: Interface,
    answer: &'a Answer,
) -> Result<&'a [u8], BroadcastError> {
    if !answer.status.is_success() {
        Err(failed(to, answer))
    } else if answer.is_web_page() {
        Err(BroadcastError::WebPage { to, wanted })
    } else {
        Ok(&answer.body)
    }
}

fn failed(to: &'static str, answer: &Answer) -> BroadcastError {
    let status = answer.status;
    match answer.elsewhere.clone() {
        Some(elsewhere) => BroadcastError::Redirect { to, status, elsewhere },
        None => BroadcastError::Status { to, status, text: answer.words() },
    }
}

/// Whether a status says that no such requests are served there at all.
fn is_other_interface(status: StatusCode) -> bool {
    [StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED, StatusCode::NOT_IMPLEMENTED].contains(&status)
}
