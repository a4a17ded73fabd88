//! Sending a signed transaction to endpoints that tell the truth, lie, talk nonsense or say nothing.
//!
//! The stand-in reads one strict HTTP request per connection and answers as each test tells it.

#![expect(clippy::panic, reason = "a test fails by panicking")]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ceremonies::chain::address::{BitcoinAddress, BitcoinNetwork, ChainId, EthereumAddress};
use ceremonies::chain::transaction::bitcoin::{Bitcoin, Input, Outpoint, Output, Txid};
use ceremonies::chain::transaction::evm::{Evm, MIN_GAS, Transfer};
use ceremonies::chain::transaction::{Confirmation, Sats, Transaction, Wei};
use ceremonies::curve::Path;
use console::broadcast::{BroadcastError, HttpError, Patience, broadcast};
use serde_json::{Value, json};

/// The bytes that are sent. No endpoint here looks into them; a real one does in the lab.
const SIGNED: &[u8] = b"a signed transaction";
const SOON: Patience =
    Patience { confirmations: 1, wait: Duration::from_secs(30), look: Duration::from_millis(1) };
/// For what never comes.
const AT_ONCE: Patience = Patience { wait: Duration::ZERO, ..SOON };
const BLOCK: &str = "00000000000000000001b2505ffc9cbc4a39b3b8b0a5e1fa1ae5f6e2aeb1c0d5";

/// What a stand-in was asked: method, path, body.
type Asked = (String, String, String);
/// What it answers: status and body.
type Answer = (u16, String);

struct Endpoint {
    url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Endpoint {
    /// Answers each request by its number, from 0, and what it asks. It ends with the test.
    fn that(answers: impl Fn(usize, &Asked) -> Answer + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/api/", listener.local_addr().unwrap());
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let heard = Arc::clone(&asked);
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                // The client may leave before the end of an answer that is too long.
                let _ = serve(&mut stream.unwrap(), |request| {
                    let answer = answers(number, &request);
                    heard.lock().unwrap().push(request);
                    answer
                });
            }
        });
        Self { url, asked }
    }

    fn asked(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        asked.iter().map(|(method, path, _)| format!("{method} {path}")).collect()
    }

    /// The JSON-RPC methods that were called.
    fn called(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().map(|(_, _, body)| method(body)).collect()
    }

    async fn sends(
        &self,
        transaction: &Transaction,
        patience: Patience,
    ) -> Result<Confirmation, BroadcastError> {
        broadcast(&self.url.parse().unwrap(), transaction, SIGNED, &patience, |_| ()).await
    }
}

fn serve(stream: &mut TcpStream, answer: impl FnOnce(Asked) -> Answer) -> std::io::Result<()> {
    let (mut request, mut byte) = (Vec::new(), [0]);
    while !request.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        request.push(byte[0]);
    }
    let head = String::from_utf8(request).unwrap();
    let mut lines = head.lines();
    let first: Vec<&str> = lines.next().unwrap().split(' ').collect();
    let [method, path, "HTTP/1.1"] = first.as_slice() else { panic!("{head}") };
    let header = |name: &str| {
        let value = head.lines().filter_map(|line| line.split_once(": ")).find(|(key, _)| *key == name);
        value.map(|(_, value)| value.to_owned())
    };
    assert!(header("host").is_some_and(|host| host.starts_with("127.0.0.1:")), "{head}");
    let mut body = vec![0; header("content-length").map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body)?;
    let (status, text) = answer(((*method).to_owned(), (*path).to_owned(), String::from_utf8(body).unwrap()));
    // The text of a redirect is where it leads.
    let (place, text) = if (300..400).contains(&status) {
        (format!("location: {text}\r\n"), String::new())
    } else {
        (String::new(), text)
    };
    write!(stream, "HTTP/1.1 {status} As it is\r\n{place}content-length: {}\r\n\r\n{text}", text.len())
}

fn method(body: &str) -> String {
    let call: Value = serde_json::from_str(body).unwrap();
    call["method"].as_str().unwrap().to_owned()
}

fn bitcoin() -> Transaction {
    let network = BitcoinNetwork::Regtest;
    let address = BitcoinAddress::new(network, [9; 20]);
    let outpoint = Outpoint { txid: Txid([1; 32]), index: 0 };
    let input = Input { outpoint, amount: Sats(10_000), address, path: Path::default() };
    let output = Output { amount: Sats(9800), address: address.into() };
    Transaction::Bitcoin(Bitcoin::new(network, vec![input], vec![output]).unwrap())
}

fn ether() -> Transaction {
    let transfer = Transfer {
        chain: ChainId::new(5).unwrap(),
        nonce: 0,
        max_priority_fee: Wei(1),
        max_fee: Wei(2_000_000),
        gas_limit: MIN_GAS,
        to: EthereumAddress::from([7; 20]),
        value: Wei(1),
    };
    Transaction::Evm(Evm::new(Path::default(), transfer).unwrap())
}

fn id(transaction: &Transaction) -> String {
    transaction.id(SIGNED).to_string()
}

/// An Esplora server that has the transaction in block 100 of 102.
fn esplora(_: usize, (method, path, body): &Asked) -> Answer {
    let id = id(&bitcoin());
    let place = path.strip_prefix("/api").unwrap().replace(&id, "TXID");
    let text = match (method.as_str(), place.as_str()) {
        ("POST", "/tx") => {
            assert_eq!(*body, hex::encode(SIGNED));
            id
        }
        ("GET", "/tx/TXID") => json!({ "txid": id, "status": { "confirmed": true } }).to_string(),
        ("GET", "/tx/TXID/status") => {
            json!({ "confirmed": true, "block_height": 100, "block_hash": BLOCK, "block_time": 1 })
                .to_string()
        }
        ("GET", "/blocks/tip/height") => "102".to_owned(),
        _ => panic!("no such place: {method} {path}"),
    };
    (200, text)
}

/// The same, except for its answer to one request.
fn esplora_but(place: &'static str, status: u16, text: &str) -> Endpoint {
    let text = text.to_owned();
    Endpoint::that(move |number, asked| {
        let (method, path, _) = asked;
        let asks = format!("{method} {}", path.replace(&id(&bitcoin()), "TXID"));
        if asks == place { (status, text.clone()) } else { esplora(number, asked) }
    })
}

fn reply(result: &Value) -> Answer {
    (200, json!({ "jsonrpc": "2.0", "id": 1, "result": result }).to_string())
}

fn refusal(message: &str) -> Answer {
    (200, json!({ "jsonrpc": "2.0", "id": 1, "error": { "code": -32000, "message": message } }).to_string())
}

fn receipt(change: impl FnOnce(&mut Value)) -> Value {
    let mut receipt = json!({
        "transactionHash": id(&ether()),
        "blockHash": format!("0x{BLOCK}"),
        "blockNumber": "0x64",
        "status": "0x1",
    });
    change(&mut receipt);
    receipt
}

/// An Ethereum node of chain 5 that has the transfer in block 100 of 102.
fn node(_: usize, (http, path, body): &Asked) -> Answer {
    assert_eq!((http.as_str(), path.as_str()), ("POST", "/api/"));
    let call: Value = serde_json::from_str(body).unwrap();
    assert_eq!((&call["jsonrpc"], &call["id"]), (&json!("2.0"), &json!(1)));
    let expected = match call["method"].as_str().unwrap() {
        "eth_sendRawTransaction" => json!([format!("0x{}", hex::encode(SIGNED))]),
        "eth_getTransactionReceipt" | "eth_getTransactionByHash" => json!([id(&ether())]),
        _ => json!([]),
    };
    assert_eq!(call["params"], expected);
    match call["method"].as_str().unwrap() {
        "eth_chainId" => reply(&json!("0x5")),
        "eth_sendRawTransaction" => reply(&json!(id(&ether()))),
        "eth_getTransactionReceipt" => reply(&receipt(|_| ())),
        "eth_getTransactionByHash" => reply(&json!({ "hash": id(&ether()) })),
        "eth_blockNumber" => reply(&json!("0x66")),
        other => panic!("no such method: {other}"),
    }
}

fn node_but(name: &'static str, answer: Answer) -> Endpoint {
    Endpoint::that(
        move |number, asked| {
            if method(&asked.2) == name { answer.clone() } else { node(number, asked) }
        },
    )
}

fn confirmation(transaction: &Transaction) -> Confirmation {
    Confirmation { transaction: transaction.id(SIGNED), block: BLOCK.parse().unwrap(), height: 100 }
}

/// Fails with this, and nothing else.
macro_rules! fails {
    ($result:expr, $reason:pat $(if $guard:expr)?) => {
        match $result {
            Err($reason) $(if $guard)? => {}
            other => panic!("expected {}, got {other:?}", stringify!($reason)),
        }
    };
}

#[tokio::test]
async fn a_bitcoin_transaction_is_sent_and_its_block_found() {
    let endpoint = Endpoint::that(esplora);
    assert_eq!(endpoint.sends(&bitcoin(), SOON).await.unwrap(), confirmation(&bitcoin()));
    let status = format!("GET /api/tx/{}/status", id(&bitcoin()));
    assert_eq!(endpoint.asked(), ["POST /api/tx", &status, "GET /api/blocks/tip/height"]);
}

#[tokio::test]
async fn a_transfer_is_sent_and_its_block_found() {
    let endpoint = Endpoint::that(node);
    assert_eq!(endpoint.sends(&ether(), SOON).await.unwrap(), confirmation(&ether()));
    let calls = ["eth_chainId", "eth_sendRawTransaction", "eth_getTransactionReceipt", "eth_blockNumber"];
    assert_eq!(endpoint.called(), calls);
}

#[tokio::test]
async fn a_transaction_that_is_known_already_is_waited_for() {
    let refused =
        "sendrawtransaction RPC error: {\"code\":-27,\"message\":\"Transaction already in block chain\"}";
    let known = esplora_but("POST /api/tx", 400, refused);
    assert_eq!(known.sends(&bitcoin(), SOON).await.unwrap(), confirmation(&bitcoin()));
    for why in ["already known", "nonce too low"] {
        let known = node_but("eth_sendRawTransaction", refusal(why));
        assert_eq!(known.sends(&ether(), SOON).await.unwrap(), confirmation(&ether()));
    }
}

#[tokio::test]
async fn a_transaction_that_is_refused_and_unknown_is_not_waited_for() {
    let unknown = Endpoint::that(|number, asked| match asked.0.as_str() {
        "POST" => (400, "bad-txns-inputs-missingorspent\u{1b}[31m".to_owned()),
        _ if asked.1.ends_with("/status") => esplora(number, asked),
        _ => (404, "Transaction not found".to_owned()),
    });
    let error = unknown.sends(&bitcoin(), SOON).await.unwrap_err();
    fails!(Err::<(), _>(&error), BroadcastError::Refused(_));
    let text = error.to_string();
    assert!(text.contains("missingorspent") && !text.contains('\u{1b}'), "{text}");

    let unknown = Endpoint::that(|number, asked| match method(&asked.2).as_str() {
        "eth_sendRawTransaction" => refusal("insufficient funds"),
        "eth_getTransactionByHash" => reply(&Value::Null),
        _ => node(number, asked),
    });
    fails!(unknown.sends(&ether(), SOON).await, BroadcastError::Refused(why) if why.as_str() == "insufficient funds");
    assert!(!unknown.called().contains(&"eth_getTransactionReceipt".to_owned()));
}

#[tokio::test]
async fn an_id_that_is_not_ours_is_not_believed() {
    let other = "ab".repeat(32);
    for told in [other.as_str(), "", "0x", &format!("{}00", id(&bitcoin()))] {
        let liar = esplora_but("POST /api/tx", 200, told);
        fails!(liar.sends(&bitcoin(), SOON).await, BroadcastError::OtherTransaction { .. });
        assert_eq!(liar.asked().len(), 1, "nothing more is asked of a liar");
    }
    let liar = Endpoint::that({
        let other = other.clone();
        move |number, asked| match (asked.0.as_str(), asked.1.ends_with("/status")) {
            ("POST", _) => (400, "txn-already-known".to_owned()),
            (_, false) => (200, json!({ "txid": other }).to_string()),
            _ => esplora(number, asked),
        }
    });
    fails!(liar.sends(&bitcoin(), SOON).await, BroadcastError::OtherTransaction { .. });

    for told in [json!(format!("0x{other}")), json!(id(&bitcoin())), json!(7), Value::Null] {
        let liar = node_but("eth_sendRawTransaction", reply(&told));
        fails!(liar.sends(&ether(), SOON).await, BroadcastError::OtherTransaction { .. });
    }
    let elsewhere = receipt(|receipt| receipt["transactionHash"] = json!(format!("0x{other}")));
    let liar = node_but("eth_getTransactionReceipt", reply(&elsewhere));
    fails!(liar.sends(&ether(), SOON).await, BroadcastError::OtherTransaction { .. });
}

#[tokio::test]
async fn nothing_is_sent_to_another_chain() {
    let main = node_but("eth_chainId", reply(&json!("0x1")));
    fails!(main.sends(&ether(), SOON).await, BroadcastError::OtherChain { theirs: 1, .. });
    assert_eq!(main.called(), ["eth_chainId"]);
    for nonsense in [json!(5), json!("5"), json!("0x"), json!("0x+5"), json!("0x10000000000000000")] {
        let endpoint = node_but("eth_chainId", reply(&nonsense));
        fails!(endpoint.sends(&ether(), SOON).await, BroadcastError::Malformed { .. });
        assert_eq!(endpoint.called(), ["eth_chainId"], "{nonsense}");
    }
}

#[tokio::test]
async fn a_transaction_in_no_block_by_the_deadline_is_not_confirmed() {
    let slow = esplora_but("GET /api/tx/TXID/status", 200, "{\"confirmed\":false}");
    let error = slow.sends(&bitcoin(), AT_ONCE).await.unwrap_err();
    assert!(error.to_string().contains("not in a block yet; run the command again"), "{error}");
    for nowhere in [Value::Null, receipt(|receipt| receipt["blockHash"] = Value::Null)] {
        let slow = node_but("eth_getTransactionReceipt", reply(&nowhere));
        fails!(slow.sends(&ether(), AT_ONCE).await, BroadcastError::NotConfirmed { .. });
    }
}

#[tokio::test]
async fn fewer_blocks_than_asked_for_are_not_enough() {
    for (confirmations, enough) in [(3, true), (4, false)] {
        let patience = Patience { confirmations, ..AT_ONCE };
        let bitcoin = Endpoint::that(esplora).sends(&bitcoin(), patience).await;
        let ether = Endpoint::that(node).sends(&ether(), patience).await;
        for sent in [bitcoin, ether] {
            assert_eq!(sent.is_ok(), enough, "{sent:?}");
            assert!(enough || sent.unwrap_err().to_string().contains("in block 100, 3 confirmations"));
        }
    }
}

#[tokio::test]
async fn a_block_that_comes_later_is_waited_for_through_trouble() {
    let late = Endpoint::that(|number, asked| match number {
        1 => (200, "{\"confirmed\":false}".to_owned()),
        2 => (503, "overloaded".to_owned()),
        3 => (429, "too many".to_owned()),
        _ => esplora(number, asked),
    });
    let mut told = Vec::new();
    let url = late.url.parse().unwrap();
    let sent = broadcast(&url, &bitcoin(), SIGNED, &SOON, |standing| told.push(standing.to_owned())).await;
    assert_eq!(sent.unwrap(), confirmation(&bitcoin()));
    let all = told.join("\n");
    assert!(all.contains("not in a block yet") && all.contains("503") && all.contains("429"), "{all}");
}

#[tokio::test]
async fn a_transfer_that_failed_in_its_block_is_no_confirmation() {
    let reverted = receipt(|receipt| receipt["status"] = json!("0x0"));
    let endpoint = node_but("eth_getTransactionReceipt", reply(&reverted));
    fails!(endpoint.sends(&ether(), SOON).await, BroadcastError::Failed { height: 100 });
}

#[tokio::test]
async fn answers_that_are_too_long_are_not_read() {
    let endless = "1".repeat(300 * 1024);
    for place in ["POST /api/tx", "GET /api/tx/TXID/status", "GET /api/blocks/tip/height"] {
        let endpoint = esplora_but(place, 200, &endless);
        fails!(endpoint.sends(&bitcoin(), SOON).await, BroadcastError::Http(HttpError::TooLarge(_)));
    }
    let endpoint = node_but("eth_blockNumber", (200, endless));
    fails!(endpoint.sends(&ether(), SOON).await, BroadcastError::Http(HttpError::TooLarge(_)));
}

#[tokio::test]
async fn nonsense_is_not_waited_out() {
    let unconfirmed_block = json!({ "confirmed": true }).to_string();
    let short = json!({ "confirmed": true, "block_height": 1, "block_hash": "00" }).to_string();
    for text in ["", "{}", "[]", "null", "{\"confirmed\":\"yes\"}", &unconfirmed_block, &short] {
        let endpoint = esplora_but("GET /api/tx/TXID/status", 200, text);
        fails!(endpoint.sends(&bitcoin(), SOON).await, BroadcastError::Malformed { .. });
    }
    for text in ["", "-1", "0x66", "99999999999999999999"] {
        let endpoint = esplora_but("GET /api/blocks/tip/height", 200, text);
        fails!(endpoint.sends(&bitcoin(), SOON).await, BroadcastError::Malformed { .. });
    }
    for text in ["", "{}", "[]", "{\"id\":1}", "{\"id\":2,\"result\":\"0x5\"}"] {
        let endpoint = node_but("eth_chainId", (200, text.to_owned()));
        fails!(endpoint.sends(&ether(), SOON).await, BroadcastError::Malformed { .. });
    }
    let changes: [fn(&mut Value); 6] = [
        |receipt| receipt["status"] = json!("0x2"),
        |receipt| receipt["status"] = Value::Null,
        |receipt| receipt["blockNumber"] = json!(100),
        |receipt| receipt["blockNumber"] = Value::Null,
        |receipt| receipt["blockHash"] = json!("0x12"),
        |receipt| receipt["transactionHash"] = Value::Null,
    ];
    for change in changes {
        let endpoint = node_but("eth_getTransactionReceipt", reply(&receipt(change)));
        fails!(endpoint.sends(&ether(), SOON).await, BroadcastError::Malformed { .. });
    }
}

#[tokio::test]
async fn an_endpoint_that_is_not_there_or_speaks_no_http_or_tls_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let send = async |url: String| {
        let sent = broadcast(&url.parse().unwrap(), &bitcoin(), SIGNED, &SOON, |_| ()).await;
        let Err(BroadcastError::Http(error)) = sent else { panic!("{sent:?}") };
        error
    };
    let error = send(format!("http://{address}/key")).await;
    assert!(matches!(error, HttpError::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains(&address.to_string()) && !error.to_string().contains("key"));

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.unwrap().write_all(b"220 mail.example ESMTP\r\n");
        }
    });
    let error = send(format!("http://{address}")).await;
    assert!(matches!(error, HttpError::Broken { .. }), "{error:?}");
    let error = send(format!("https://{address}")).await;
    assert!(matches!(error, HttpError::NoTls { .. }), "{error:?}");
}

#[tokio::test]
async fn endpoint_of_another_interface_is_called_that_and_nothing_is_waited_for() {
    for status in [404, 405, 501] {
        // What a bitcoind says to REST, and a web server to JSON-RPC.
        let endpoint =
            Endpoint::that(move |_, _| (status, "JSONRPC server handles only POST requests".to_owned()));
        for (transaction, said) in [
            (bitcoin(), "does not speak Esplora's REST interface"),
            (ether(), "does not speak Ethereum's JSON-RPC"),
        ] {
            let refused = endpoint.sends(&transaction, SOON).await.unwrap_err().to_string();
            assert!(refused.contains(said) && refused.contains(&status.to_string()), "{refused}");
        }
    }
}

#[tokio::test]
async fn website_is_called_that_and_nothing_is_waited_for() {
    let calls = [(bitcoin(), "not of Esplora's REST interface"), (ether(), "not of Ethereum's JSON-RPC")];
    for page in ["<!DOCTYPE html>\n<html>", "\r\n <html lang=\"en\">", "<HTML>"] {
        let website = Endpoint::that(move |_, _| (200, page.to_owned()));
        for (transaction, said) in &calls {
            let refused = website.sends(transaction, SOON).await.unwrap_err();
            assert!(matches!(refused, BroadcastError::WebPage { .. }), "{refused:?}");
            assert!(refused.to_string().contains(said), "{refused}");
        }
        assert_eq!(website.asked().len(), calls.len());
        for place in ["GET /api/tx/TXID/status", "GET /api/blocks/tip/height"] {
            let endpoint = esplora_but(place, 200, page);
            fails!(endpoint.sends(&bitcoin(), SOON).await, BroadcastError::WebPage { .. });
        }
        // What stands before an endpoint answers for it.
        let guard = Endpoint::that(move |_, _| (503, page.to_owned()));
        for (transaction, _) in &calls {
            let refused = guard.sends(transaction, SOON).await.unwrap_err().to_string();
            assert!(refused.contains("503") && refused.ends_with("a web page"), "{refused}");
        }
    }
}

#[tokio::test]
async fn redirect_is_not_followed_and_where_it_leads_is_named_without_what_may_be_a_key() {
    for (place, said) in [
        (
            "https://api.example:8443/v2/secret?key=secret",
            "to https://api.example:8443, where nothing was sent: name",
        ),
        ("https://me:secret@api.example/", "to https://api.example, where nothing was sent: name"),
        ("http://127.0.0.1:1/secret", "to http://127.0.0.1:1, where nothing was sent: name"),
        (
            "http://api.example/secret",
            "to http://api.example, where nothing was sent because that is without TLS",
        ),
        ("ftp://api.example/secret", "to ftp://api.example, where nothing can be sent"),
        ("/secret", "it sends elsewhere: ask its operator"),
    ] {
        for status in [301, 302, 307, 308] {
            let endpoint = Endpoint::that(move |_, _| (status, place.to_owned()));
            for (number, transaction) in (1..).zip([bitcoin(), ether()]) {
                let refused = endpoint.sends(&transaction, SOON).await.unwrap_err().to_string();
                assert!(refused.contains(&status.to_string()) && refused.contains(said), "{refused}");
                assert!(!refused.contains("secret"), "{refused}");
                assert_eq!(endpoint.asked().len(), number);
            }
        }
    }
}
