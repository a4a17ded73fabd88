//! Signed transactions before judges that share no code with us: Bitcoin Core's script verifier, and an Ethereum node.
//! A plain key signs in place of the cluster.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::time::{Duration, Instant};

use bitcoinconsensus::{VERIFY_ALL_PRE_TAPROOT, verify_with_flags};
use ceremonies::chain::address::{
    BitcoinAddress, BitcoinNetwork, BitcoinRecipient, ChainId, EthereumAddress,
};
use ceremonies::chain::transaction::bitcoin::{Bitcoin, Input, Outpoint, Output, Txid};
use ceremonies::chain::transaction::evm::{Evm, MIN_GAS, Transfer};
use ceremonies::chain::transaction::{Sats, Transaction, Wei};
use ceremonies::curve::{Child, Path, Point, Signature, derive};
use ceremonies::ids::Hash;
use k256::Scalar;
use k256::ecdsa::SigningKey;
use lab::hardhat::{self, Hardhat};
use lab::programs;
use serde_json::{Value, json};

/// How long a transaction may take to get into a block; here each gets its own.
const PATIENCE: Duration = Duration::from_secs(30);

/// A wallet whose private key is known in one place.
struct Wallet {
    secret: SigningKey,
    public_key: Point,
    chain_code: Hash,
}

impl Wallet {
    fn new() -> Self {
        let secret = SigningKey::from_slice(Hash::of_bytes(b"a wallet of a test").as_bytes()).unwrap();
        let public_key = Point::decode(secret.verifying_key().to_sec1_point(true).as_bytes()).unwrap();
        Self { secret, public_key, chain_code: Hash::of_bytes(b"its chain code") }
    }

    fn child(&self, path: &Path) -> Child {
        derive(&self.public_key, &self.chain_code, path).unwrap()
    }

    fn sign(&self, child: &Child, digest: &Hash) -> Signature {
        let secret: Scalar = *self.secret.as_nonzero_scalar().as_ref() + child.tweak;
        let secret = SigningKey::from_slice(&secret.to_bytes()).unwrap();
        let (signature, recovery) = secret.sign_prehash_recoverable(digest.as_bytes());
        let (r, s) = signature.split_bytes();
        Signature { r: r.into(), s: s.into(), recovery_id: recovery.to_byte() }
    }

    /// What a ceremony does: read what was approved, derive its keys, sign each digest, put it together.
    fn signed(&self, transaction: &Transaction) -> Vec<u8> {
        let transaction = Transaction::parse(&transaction.encode()).unwrap();
        let keys = transaction.keys(&self.public_key, &self.chain_code).unwrap();
        let digests = transaction.digests();
        let signatures: Vec<_> =
            keys.iter().zip(&digests).map(|(key, digest)| self.sign(key, digest)).collect();
        let keys: Vec<_> = keys.iter().map(|key| key.public_key).collect();
        transaction.signed(&signatures, &keys).unwrap()
    }
}

#[test]
fn bitcoin_core_accepts_a_signed_transaction_and_no_change_of_it() {
    let (wallet, network) = (Wallet::new(), BitcoinNetwork::Regtest);
    let address = |path: &Path| BitcoinAddress::of(network, &wallet.child(path).public_key);
    let input = |path: &str, byte: u8, amount| {
        let path: Path = path.parse().unwrap();
        let outpoint = Outpoint { txid: Txid([byte; 32]), index: u32::from(byte) };
        Input { outpoint, amount: Sats(amount), address: address(&path), path }
    };
    let inputs = vec![input("m/0/0", 1, 6000), input("m/1/3", 2, 5000), input("m", 3, 700)];
    let stranger = BitcoinAddress::new(network, [9; 20]);
    let outputs = vec![
        Output { amount: Sats(1000), address: stranger.into() },
        Output { amount: Sats(10_000), address: address(&"m/1/4".parse().unwrap()).into() },
    ];
    let transaction = Bitcoin::new(network, inputs.clone(), outputs).unwrap();
    let signed = wallet.signed(&Transaction::Bitcoin(transaction.clone()));
    // Each of the three signatures can be a byte shorter.
    let weight = transaction.unsigned().len() * 3 + signed.len();
    assert!((0..=1).contains(&(transaction.virtual_size() - weight.div_ceil(4) as u64)));

    let accepts = |signed: &[u8], place: usize, amount: u64| {
        let script = BitcoinRecipient::from(inputs[place].address).script();
        verify_with_flags(&script, amount, signed, None, place, VERIFY_ALL_PRE_TAPROOT).is_ok()
    };
    for (place, input) in inputs.iter().enumerate() {
        assert!(accepts(&signed, place, input.amount.0), "input {place}");
        assert!(!accepts(&signed, place, input.amount.0 + 1), "input {place} commits to its amount");
        for changed in [8, 44, signed.len() - 1, signed.len() - 60] {
            let mut other = signed.clone();
            other[changed] ^= 1;
            let commits = changed != signed.len() - 60 || place == 2;
            assert!(!commits || !accepts(&other, place, input.amount.0), "input {place}, byte {changed}");
        }
    }
}

#[tokio::test]
async fn an_ethereum_node_mines_a_signed_transfer() {
    let installed = match hardhat::installed(&programs::target().unwrap()) {
        Ok(installed) => installed,
        Err(missing) => {
            assert!(std::env::var_os("CI").is_none(), "CI must not skip this: {missing:#}");
            eprintln!("SKIPPED: an_ethereum_node_mines_a_signed_transfer: {missing:#}");
            return;
        }
    };
    let node = Hardhat::start(&installed).await.unwrap();
    let wallet = Wallet::new();
    let path: Path = "m/0/5".parse().unwrap();
    let from = EthereumAddress::of(&wallet.child(&path).public_key).unwrap();
    let to = EthereumAddress::from([0x42; 20]);
    node.call("hardhat_setBalance", json!([from.to_string(), "0xde0b6b3a7640000"])).await.unwrap();

    let transaction = |nonce, value| {
        let transfer = Transfer {
            chain: ChainId::new(hardhat::CHAIN).unwrap(),
            nonce,
            max_priority_fee: Wei(1_000_000_000),
            max_fee: Wei(10_000_000_000),
            gas_limit: MIN_GAS,
            to,
            value: Wei(value),
        };
        let transaction = Transaction::Evm(Evm::new(path.clone(), transfer).unwrap());
        let signed = wallet.signed(&transaction);
        let id = transaction.id(&signed).to_string();
        (signed, id)
    };
    let first = transaction(0, 1_000_000_000_000);
    // One in about 85 has an r or s that starts with a zero byte, which RLP leaves out.
    let shorter = |value: &u128| transaction(1, *value).0.len() < first.0.len();
    let value = (1_000_000_000_000..1_000_000_100_000).find(shorter).unwrap();

    for (signed, id) in [&first, &transaction(1, value)] {
        let raw = format!("0x{}", hex::encode(signed));
        let hash = node.call("eth_sendRawTransaction", json!([raw])).await.unwrap();
        assert_eq!(hash, id.as_str());
        let receipt = receipt(&node, &hash).await;
        assert_eq!(receipt["status"], "0x1");
        assert_eq!(receipt["type"], "0x2");
        assert_eq!(receipt["from"], from.to_string().to_lowercase());
        assert_eq!(receipt["to"], to.to_string().to_lowercase());
    }
    let balance = node.call("eth_getBalance", json!([to.to_string(), "latest"])).await.unwrap();
    assert_eq!(balance, format!("{:#x}", 1_000_000_000_000 + value));
}

async fn receipt(node: &Hardhat, hash: &Value) -> Value {
    let begun = Instant::now();
    loop {
        let receipt = node.call("eth_getTransactionReceipt", json!([hash])).await.unwrap();
        if !receipt.is_null() {
            return receipt;
        }
        assert!(begun.elapsed() < PATIENCE, "transaction {hash} is in no block");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
