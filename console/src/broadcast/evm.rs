//! Ethereum and other EVM chains: JSON-RPC 2.0, as every node speaks it.

use ceremonies::chain::address::ChainId;
use ceremonies::chain::transaction::{Confirmation, TransactionId};
use ceremonies::ids::{Hash, Line};
use serde_json::{Value, json};

use super::http::{Answer, Endpoint};
use super::{BroadcastError, Interface, Standing, is_other_interface, malformed, must_be, successful};

const SEND: &str = "eth_sendRawTransaction";
const RECEIPT: &str = "eth_getTransactionReceipt";
const KNOWN: &str = "eth_getTransactionByHash";

const JSON_RPC: Interface = Interface {
    spoken: "Ethereum's JSON-RPC",
    instead: "give the address of a node's JSON-RPC with its whole path",
};

/// What a node said to a call: a result, or why there is none.
type Said = Result<Value, Line>;

/// A signed transfer, and where it goes.
pub(super) struct Sender<'a> {
    pub(super) endpoint: &'a Endpoint,
    pub(super) chain: ChainId,
    pub(super) signed: &'a [u8],
    pub(super) id: TransactionId,
}

impl Sender<'_> {
    async fn call(&self, method: &'static str, params: Value) -> Result<Said, BroadcastError> {
        let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let answer = self.endpoint.post("", "application/json", request.to_string()).await?;
        said(method, &answer)
    }

    async fn ask(&self, method: &'static str, params: Value) -> Result<Value, BroadcastError> {
        let said = self.call(method, params).await?;
        said.map_err(|text| BroadcastError::Unanswered { to: method, text })
    }

    async fn number(&self, method: &'static str) -> Result<u64, BroadcastError> {
        let result = self.ask(method, json!([])).await?;
        quantity(&result).ok_or_else(|| malformed(method, "a number as 0x and hexadecimal digits"))
    }

    pub(super) async fn send(&self) -> Result<(), BroadcastError> {
        let theirs = self.number("eth_chainId").await?;
        if theirs != self.chain.get() {
            return Err(BroadcastError::OtherChain { theirs, ours: self.chain });
        }
        let raw = format!("0x{}", hex::encode(self.signed));
        match self.call(SEND, json!([raw])).await? {
            Ok(told) => must_be(self.id, told.as_str().unwrap_or_default()),
            // Every kind of node has its own words for a transaction that it knows or that is already in a block.
            Err(why) if !self.is_known().await? => Err(BroadcastError::Refused(why)),
            Err(_) => Ok(()),
        }
    }

    async fn is_known(&self) -> Result<bool, BroadcastError> {
        let known = self.ask(KNOWN, json!([self.id.to_string()])).await?;
        if known.is_null() {
            return Ok(false);
        }
        let told = known.get("hash").and_then(Value::as_str);
        must_be(self.id, told.ok_or_else(|| malformed(KNOWN, "a transaction with its hash"))?)?;
        Ok(true)
    }

    pub(super) async fn standing(&self) -> Result<Standing, BroadcastError> {
        let receipt = self.ask(RECEIPT, json!([self.id.to_string()])).await?;
        match confirmed(self.id, &receipt)? {
            None => Ok(Standing::Waiting),
            Some(confirmation) => Ok(Standing::in_block(confirmation, self.number("eth_blockNumber").await?)),
        }
    }
}

/// The one reply to the one request of a connection.
fn said(method: &'static str, answer: &Answer) -> Result<Said, BroadcastError> {
    let status = answer.status;
    if is_other_interface(status) {
        return Err(BroadcastError::OtherInterface { to: method, status, wanted: JSON_RPC });
    }
    let reply: Option<Value> = serde_json::from_slice(successful(method, JSON_RPC, answer)?).ok();
    let mut reply = reply
        .filter(|reply| reply.get("id") == Some(&json!(1)))
        .ok_or_else(|| malformed(method, "a JSON-RPC reply"))?;
    if let Some(error) = reply.get("error").filter(|error| !error.is_null()) {
        let text = error.get("message").and_then(Value::as_str).unwrap_or("it gives no reason");
        return Ok(Err(Line::lossy(text)));
    }
    let result = reply.get_mut("result").map(Value::take);
    result.map(Ok).ok_or_else(|| malformed(method, "a JSON-RPC reply with a result"))
}

/// Where a receipt says that the transaction is; nowhere while there is none.
fn confirmed(id: TransactionId, receipt: &Value) -> Result<Option<Confirmation>, BroadcastError> {
    let expected = |expected| move || malformed(RECEIPT, expected);
    let field = |name: &str| receipt.get(name).filter(|value| !value.is_null());
    if receipt.is_null() {
        return Ok(None);
    }
    let told = field("transactionHash").and_then(Value::as_str);
    must_be(id, told.ok_or_else(expected("a receipt with the transaction's hash"))?)?;
    let Some(block) = field("blockHash") else { return Ok(None) };
    let block = hash(block).ok_or_else(expected("a block's hash as 0x and 64 hexadecimal digits"))?;
    let height = field("blockNumber").and_then(quantity).ok_or_else(expected("a block's number"))?;
    match field("status").and_then(quantity) {
        Some(1) => Ok(Some(Confirmation { transaction: id, block, height })),
        Some(0) => Err(BroadcastError::Failed { height }),
        Some(_) | None => Err(malformed(RECEIPT, "a status of 0x0 or 0x1")),
    }
}

fn quantity(value: &Value) -> Option<u64> {
    let digits = value.as_str()?.strip_prefix("0x")?;
    // A sign would be read as well.
    digits.bytes().all(|digit| digit.is_ascii_hexdigit()).then(|| u64::from_str_radix(digits, 16).ok())?
}

fn hash(value: &Value) -> Option<Hash> {
    value.as_str()?.strip_prefix("0x")?.to_ascii_lowercase().parse().ok()
}
