//! Bitcoin: the REST interface of Esplora, which block explorers and companion servers of nodes offer.

use ceremonies::chain::transaction::{Confirmation, TransactionId};
use ceremonies::ids::{Hash, Line};
use hyper::StatusCode;
use serde::Deserialize;

use super::http::{Answer, Endpoint};
use super::{BroadcastError, Interface, Standing, is_other_interface, malformed, must_be, successful};

const SEND: &str = "POST /tx";
const KNOWN: &str = "GET /tx/TXID";
const STATUS: &str = "GET /tx/TXID/status";
const TIP: &str = "GET /blocks/tip/height";

const ESPLORA: Interface = Interface {
    spoken: "Esplora's REST interface",
    instead: "give the address of an Esplora server with its whole path; with your own bitcoind, send the transaction with \
        `bitcoin-cli sendrawtransaction` and record that with --withhold",
};

/// A signed transaction, and where it goes.
pub(super) struct Sender<'a> {
    pub(super) endpoint: &'a Endpoint,
    pub(super) signed: &'a [u8],
    pub(super) id: TransactionId,
}

/// The part of a transaction that matters here.
#[derive(Deserialize)]
struct Known {
    txid: String,
}

#[derive(Deserialize)]
struct Status {
    confirmed: bool,
    block_height: Option<u64>,
    block_hash: Option<Hash>,
}

impl Sender<'_> {
    pub(super) async fn send(&self) -> Result<(), BroadcastError> {
        let answer = self.endpoint.post("/tx", "text/plain", hex::encode(self.signed)).await?;
        let refusal = match text(SEND, &answer) {
            Ok(told) => return must_be(self.id, told),
            Err(refusal) => refusal,
        };
        // Only a server that read the transaction refuses it.
        if !answer.status.is_client_error() || is_other_interface(answer.status) {
            return Err(refusal);
        }
        // It refuses a transaction that it knows or that is already in a block, in words that differ from node to node.
        if self.is_known().await? {
            return Ok(());
        }
        Err(BroadcastError::Refused(Line::lossy(&refusal.to_string())))
    }

    async fn is_known(&self) -> Result<bool, BroadcastError> {
        let answer = self.endpoint.get(&format!("/tx/{}", self.id)).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(false);
        }
        let known: Known = read(KNOWN, "a transaction with its txid, in JSON", &answer)?;
        must_be(self.id, &known.txid)?;
        Ok(true)
    }

    /// The status of one that the endpoint does not know is that it is not confirmed.
    pub(super) async fn standing(&self) -> Result<Standing, BroadcastError> {
        let answer = self.endpoint.get(&format!("/tx/{}/status", self.id)).await?;
        let expected = "a status in JSON, with the height and hash of the confirming block";
        let Status { confirmed, block_height, block_hash } = read(STATUS, expected, &answer)?;
        if !confirmed {
            return Ok(Standing::Waiting);
        }
        let (height, block) = block_height.zip(block_hash).ok_or_else(|| malformed(STATUS, expected))?;
        let confirmation = Confirmation { transaction: self.id, block, height };
        Ok(Standing::in_block(confirmation, self.tip().await?))
    }

    async fn tip(&self) -> Result<u64, BroadcastError> {
        let answer = self.endpoint.get("/blocks/tip/height").await?;
        let digits = text(TIP, &answer)?;
        digits.trim().parse().map_err(|_| malformed(TIP, "a number"))
    }
}

/// What was answered; a status for other requests than Esplora's is named as that.
fn body<'a>(to: &'static str, answer: &'a Answer) -> Result<&'a [u8], BroadcastError> {
    let status = answer.status;
    // What Esplora may fail to find is a transaction; it always finds where to send one.
    if is_other_interface(status) && (to == SEND || status != StatusCode::NOT_FOUND) {
        return Err(BroadcastError::OtherInterface { to, status, wanted: ESPLORA });
    }
    successful(to, ESPLORA, answer)
}

fn text<'a>(to: &'static str, answer: &'a Answer) -> Result<&'a str, BroadcastError> {
    std::str::from_utf8(body(to, answer)?).map_err(|_| malformed(to, "text"))
}

fn read<'a, T: Deserialize<'a>>(
    to: &'static str,
    expected: &'static str,
    answer: &'a Answer,
) -> Result<T, BroadcastError> {
    serde_json::from_slice(body(to, answer)?).map_err(|_| malformed(to, expected))
}
