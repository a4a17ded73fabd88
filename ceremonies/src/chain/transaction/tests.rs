//! What must hold for transactions of both kinds: one encoding, words that leave nothing out, and signatures
//! of the right key only.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use k256::ecdsa::SigningKey;
use proptest::prelude::*;

use super::bitcoin::{Input, Outpoint, Output, Txid};
use super::evm::Transfer;
use super::*;
use crate::chain::address::{BitcoinAddress, BitcoinNetwork, ChainId, EthereumAddress};
use crate::curve::{MAX_LEVELS, Path};

fn path() -> impl Strategy<Value = Path> {
    prop::collection::vec(0u32..1 << 31, 0..=MAX_LEVELS).prop_map(|levels| Path::new(levels).unwrap())
}

fn somebody() -> impl Strategy<Value = [u8; 20]> {
    any::<[u8; 20]>()
        .prop_filter("reserved addresses are refused", |to| !EthereumAddress::from(*to).is_reserved())
}

prop_compose! {
    fn evm()(
        path in path(), chain in 1..u64::MAX / 2 - 36, nonce in 0..u64::MAX, fee in evm::MIN_MAX_FEE.0..=evm::MAX_MAX_FEE.0, tip: u64,
        gas_limit in evm::MIN_GAS..=evm::MAX_GAS, to in somebody(), value in 0u128..1 << 100,
    ) -> Transaction {
        let transfer = Transfer {
            chain: ChainId::new(chain).unwrap(),
            nonce,
            max_priority_fee: Wei(u128::from(tip).min(fee)),
            max_fee: Wei(fee),
            gas_limit,
            to: EthereumAddress::from(to),
            value: Wei(value),
        };
        Transaction::Evm(Evm::new(path, transfer).unwrap())
    }
}

type Spent = ([u8; 32], u32, u64, [u8; 20], Path);

fn bitcoin() -> impl Strategy<Value = Transaction> {
    let network = prop::sample::select(BitcoinNetwork::ALL.to_vec());
    let txid = any::<[u8; 32]>().prop_filter("no transaction has this id", |txid| *txid != [0; 32]);
    let spent = (txid, any::<u32>(), 20_000u64..1_000_000_000, any::<[u8; 20]>(), path());
    let spent = prop::collection::vec(spent, 1..4);
    let paid = prop::collection::vec(any::<[u8; 20]>(), 1..4);
    (network, spent, paid, any::<u64>())
        .prop_map(|(network, spent, paid, fee)| made(network, spent, &paid, fee))
}

/// The last output gets what the dust of the others and the fee leave over.
fn made(network: BitcoinNetwork, spent: Vec<Spent>, paid: &[[u8; 20]], fee: u64) -> Transaction {
    let sum: u64 = spent.iter().map(|(_, _, amount, _, _)| amount).sum();
    // At 2 sat/vB at least, whatever the sizes of inputs and outputs.
    let least = 200 * (spent.len() + paid.len()) as u64;
    let mut left = sum - least - fee % 500;
    let inputs = spent.into_iter().map(|(txid, index, amount, program, path)| Input {
        outpoint: Outpoint { txid: Txid(txid), index },
        amount: Sats(amount),
        address: BitcoinAddress::new(network, program),
        path,
    });
    let outputs = paid.iter().enumerate().map(|(place, program)| {
        let amount = if place + 1 == paid.len() { left } else { 294 };
        left -= amount;
        Output { amount: Sats(amount), address: BitcoinAddress::new(network, *program).into() }
    });
    Transaction::Bitcoin(Bitcoin::new(network, inputs.collect(), outputs.collect()).unwrap())
}

fn transaction() -> impl Strategy<Value = Transaction> {
    prop_oneof![evm(), bitcoin()]
}

/// What no digest commits to: the keys that sign, and which Bitcoin it is.
fn beside_the_digests(transaction: &Transaction) -> (Option<BitcoinNetwork>, Vec<Path>) {
    match transaction {
        Transaction::Evm(transaction) => (None, vec![transaction.path().clone()]),
        Transaction::Bitcoin(transaction) => {
            let paths = transaction.inputs().iter().map(|input| input.path.clone()).collect();
            (Some(transaction.network()), paths)
        }
    }
}

proptest! {
    #[test]
    fn a_transaction_is_read_as_it_was_written(transaction in transaction()) {
        let bytes = transaction.encode();
        prop_assert!(bytes.len() <= MAX_TRANSACTION);
        prop_assert_eq!(Transaction::parse(&bytes).unwrap(), transaction);
    }

    #[test]
    fn a_changed_byte_is_refused_or_read_out_and_signed_differently(
        transaction in transaction(), place: prop::sample::Index, change in 1u8..,
    ) {
        let mut bytes = transaction.encode();
        *place.get_mut(&mut bytes) ^= change;
        if let Ok(other) = Transaction::parse(&bytes) {
            prop_assert_eq!(other.encode(), bytes);
            prop_assert_ne!(other.words(), transaction.words());
            prop_assert!(
                other.digests() != transaction.digests()
                    || beside_the_digests(&other) != beside_the_digests(&transaction)
            );
        }
    }

    #[test]
    fn a_shortened_or_lengthened_transaction_is_refused(
        transaction in transaction(), place: prop::sample::Index, more: u8,
    ) {
        let mut bytes = transaction.encode();
        prop_assert!(Transaction::parse(&bytes[..place.index(bytes.len())]).is_err());
        bytes.push(more);
        prop_assert!(Transaction::parse(&bytes).is_err());
    }

    #[test]
    fn no_bytes_make_it_panic(kind in 0u8..4, bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Transaction::parse(&bytes);
        let _ = Transaction::parse(&[&[kind], bytes.as_slice()].concat());
    }

    #[test]
    fn what_is_read_is_canonical(
        transaction in transaction(), from: prop::sample::Index, noise in prop::collection::vec(any::<u8>(), 0..6),
    ) {
        let mut bytes = transaction.encode();
        let from = from.index(bytes.len());
        let until = (from + noise.len()).min(bytes.len());
        bytes.splice(from..until, noise);
        if let Ok(other) = Transaction::parse(&bytes) {
            prop_assert_eq!(other.encode(), bytes);
        }
    }
}

#[test]
fn a_transaction_that_is_too_large_is_refused_unread() {
    let error = Transaction::parse(&vec![2; MAX_TRANSACTION + 1]).unwrap_err();
    assert_eq!(error, TransactionError::TooLarge(MAX_TRANSACTION + 1));
    assert_eq!(Transaction::parse(&[]).unwrap_err(), TransactionError::Empty);
}

#[test]
fn the_largest_bitcoin_transaction_fits() {
    let deep = Path::new(vec![7; MAX_LEVELS]).unwrap();
    let spent = (1..=100).map(|byte| ([byte; 32], 0, 10_000, [byte; 20], deep.clone())).collect();
    let largest = made(BitcoinNetwork::Main, spent, &[[9; 20]; 100], 0);
    assert!(largest.encode().len() <= MAX_TRANSACTION);
    assert_eq!(Transaction::parse(&largest.encode()).unwrap(), largest);
}

const SECRET: &str = "0b2f7e0d6d0d8f0a9e3e8f31f9bb1b6f6f33d3d1a52f8e7c8f64e9ab1d2c3b4a";

fn key() -> (SigningKey, Point) {
    let key = SigningKey::from_slice(&hex::decode(SECRET).unwrap()).unwrap();
    let point = Point::decode(key.verifying_key().to_sec1_point(true).as_bytes()).unwrap();
    (key, point)
}

fn sign(digest: &Hash) -> Signature {
    let (signature, recovery) = key().0.sign_prehash_recoverable(digest.as_bytes());
    let (r, s) = signature.split_bytes();
    Signature { r: r.into(), s: s.into(), recovery_id: recovery.to_byte() }
}

/// A transfer and what the npm package micro-eth-signer 0.14.0 makes of it with [`SECRET`].
const UNSIGNED: &str =
    "02ef827a6980843b9aca008502540be400825208945aaeb6053f3e94c9b9a09f33669435e7ef1beaed85e8d4a5100080c0";
const SIGNED: &str = "02f872827a6980843b9aca008502540be400825208945aaeb6053f3e94c9b9a09f33669435e7ef1beaed85e8d4a5100080c0\
     01a05e0a8ac7639bd88d4b04a875ad7f2ecd579baeda78d1054d4c2659aa3df6c389\
     a071b7c07efc5d60251fef1a24b052bde9e423fbf331674443340c4d4cb12c1d6f";

fn transfer() -> Evm {
    Evm::from_unsigned("m/0/5".parse().unwrap(), &hex::decode(UNSIGNED).unwrap()).unwrap()
}

#[test]
fn a_transfer_is_what_another_program_makes_of_it() {
    let transfer = transfer();
    assert_eq!(hex::encode(transfer.unsigned()), UNSIGNED);
    let address = EthereumAddress::of(&key().1).unwrap();
    assert_eq!(address.to_string(), "0xe23a6Da45E64F81119502aD979b7d112DF33E609");
    let signature = Signature {
        r: hex::decode(&SIGNED[104..168]).unwrap().try_into().unwrap(),
        s: hex::decode(&SIGNED[170..]).unwrap().try_into().unwrap(),
        recovery_id: 1,
    };
    assert_eq!(hex::encode(transfer.signed(&signature, &key().1).unwrap()), SIGNED);
}

/// As a Keccak-256 written down from its specification in Python has it.
#[test]
fn a_transfers_id_is_that_of_its_signed_bytes() {
    let id = Transaction::Evm(transfer()).id(&hex::decode(SIGNED).unwrap());
    assert_eq!(id.to_string(), "0xea9f0059c082dcb62cd7d8a7941939cc575f4a45d1033b964baff668bff68ae6");
}

#[test]
fn a_transfer_is_shown_in_plain_words() {
    assert_eq!(
        transfer().words(),
        [
            "Ethereum chain 31337, nonce 0",
            "signed with the wallet's key m/0/5",
            "pays 0.000001 ETH (1000000000000 wei) to 0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
            "at most 0.00021 ETH (210000000000000 wei) in fees",
            "up to 21000 gas at up to 10 gwei, tip up to 1 gwei",
        ]
    );
}

#[test]
fn a_transfer_with_anything_hidden_is_refused() {
    let refused = |from: &str, to: &str| {
        let changed = hex::decode(UNSIGNED.replacen(from, to, 1)).unwrap();
        Evm::from_unsigned(Path::default(), &changed).unwrap_err().to_string()
    };
    assert!(refused("02ef", "01ef").contains("expected type 2"));
    assert!(refused("02ef", "02ee").contains("list of fields"));
    assert!(refused("100080c0", "100001c0").contains("non-empty data field"));
    let with_access = UNSIGNED.replacen("02ef", "02f0", 1).replacen("80c0", "80c180", 1);
    let error = Evm::from_unsigned(Path::default(), &hex::decode(with_access).unwrap()).unwrap_err();
    assert_eq!(error, EvmError::NotEmpty("access list"));
    assert!(refused("825208", "825207").contains("gas limit is 20999"));
    let signed = Evm::from_unsigned(Path::default(), &hex::decode(SIGNED).unwrap()).unwrap_err();
    assert_eq!(signed, EvmError::Field { field: "list of nine fields", source: RlpError::Trailing });
    let creation = UNSIGNED.replacen("02ef", "02db", 1).replacen(&UNSIGNED[46..88], "80", 1);
    let error = Evm::from_unsigned(Path::default(), &hex::decode(creation).unwrap()).unwrap_err();
    assert_eq!(error, EvmError::Field { field: "recipient", source: RlpError::Truncated });
}

#[test]
fn fees_that_cannot_be_are_refused() {
    let transfer = *transfer().transfer();
    let refused = |transfer| Evm::new(Path::default(), transfer).unwrap_err();
    let tip = Transfer { max_priority_fee: Wei(10_000_000_001), ..transfer };
    assert!(matches!(refused(tip), EvmError::Tip { .. }));
    for price in [0, 30, evm::MIN_MAX_FEE.0 - 1, evm::MAX_MAX_FEE.0 + 1, u128::MAX] {
        let cheap = Transfer { max_fee: Wei(price), max_priority_fee: Wei(0), ..transfer };
        assert_eq!(refused(cheap), EvmError::Price(Wei(price)));
    }
    let said = EvmError::Price(Wei(30)).to_string();
    assert!(said.contains("0.00000003 gwei per gas: between 0.001 gwei and 10000 gwei"), "{said}");
    assert_eq!(refused(Transfer { value: Wei(u128::MAX), ..transfer }), EvmError::Overflow);
    assert_eq!(refused(Transfer { gas_limit: u64::MAX, ..transfer }), EvmError::Gas(u64::MAX));
}

#[test]
fn a_nonce_that_no_transaction_can_have_is_refused() {
    let transfer = *transfer().transfer();
    let with = |nonce| Evm::new(Path::default(), Transfer { nonce, ..transfer });
    assert_eq!(with(u64::MAX), Err(EvmError::Nonce));
    assert!(EvmError::Nonce.to_string().contains("18446744073709551614"), "{}", EvmError::Nonce);
    assert!(with(u64::MAX - 1).is_ok() && with(0).is_ok());
    let last = hex::decode(UNSIGNED.replacen("02ef827a6980", "02f7827a6988ffffffffffffffff", 1)).unwrap();
    assert_eq!(Evm::from_unsigned(Path::default(), &last), Err(EvmError::Nonce), "however it is read");
}

#[test]
fn recipients_that_are_nobodys_are_refused() {
    let transfer = *transfer().transfer();
    let to = |bytes: [u8; 20]| Evm::new(Path::default(), Transfer { to: bytes.into(), ..transfer });
    let reserved = |low: u16| {
        let mut bytes = [0; 20];
        bytes[18..].copy_from_slice(&low.to_be_bytes());
        bytes
    };
    for low in [0, 1, 9, 0x11, 0x100, 0xffff] {
        let refused = to(reserved(low)).unwrap_err();
        assert!(matches!(&refused, EvmError::Nobody(_)), "{low:#x}: {refused}");
        assert!(refused.to_string().contains("what is paid there is lost"), "{refused}");
    }
    for place in 0..18 {
        let mut bytes = reserved(1);
        bytes[place] = 1;
        assert!(to(bytes).is_ok(), "byte {place}");
    }
}

/// A Bitcoin transaction that spends from the test key's own address.
fn spending(network: BitcoinNetwork) -> Transaction {
    let own = *BitcoinAddress::of(network, &key().1).program();
    made(network, vec![([1; 32], 0, 10_000, own, Path::default())], &[[9; 20], own], 200)
}

#[test]
fn only_signatures_of_the_key_go_in() {
    type E = SigningError;
    let (_, point) = key();
    let other = Point::decode(&[&[2], [0x11; 32].as_slice()].concat());
    let other = other.or_else(|_| Point::decode(&[&[2], [0x01; 32].as_slice()].concat())).unwrap();
    for transaction in [Transaction::Evm(transfer()), spending(BitcoinNetwork::Regtest)] {
        let digest = transaction.digests()[0];
        let good = sign(&digest);
        assert!(transaction.signed(&[good], &[point]).is_ok());
        let refused = |signature: Signature| transaction.signed(&[signature], &[point]).unwrap_err();
        let high: Option<k256::Scalar> = k256::elliptic_curve::PrimeField::from_repr(good.s.into()).into();
        let high =
            Signature { s: (-high.unwrap()).to_bytes().into(), recovery_id: good.recovery_id ^ 1, ..good };
        assert_eq!(refused(high), E::HighS(0));
        assert_eq!(refused(sign(&Hash::ZERO)), E::OtherSigner { index: 0, key: Box::new(point) });
        let parity = Signature { recovery_id: good.recovery_id ^ 1, ..good };
        assert_eq!(refused(parity), E::OtherSigner { index: 0, key: Box::new(point) });
        assert_eq!(refused(Signature { recovery_id: 4, ..good }), E::Malformed(0));
        assert_eq!(refused(Signature { r: [0; 32], ..good }), E::Malformed(0));
        assert!(transaction.signed(&[good], &[other]).is_err());
        for (signatures, keys) in
            [(vec![], vec![point]), (vec![good, good], vec![point]), (vec![good], vec![])]
        {
            assert!(matches!(transaction.signed(&signatures, &keys), Err(E::Count { digests: 1, .. })));
        }
    }
}

#[test]
fn an_input_that_is_not_the_wallets_is_refused() {
    let (_, point) = key();
    let transaction = spending(BitcoinNetwork::Main);
    let child = &transaction.keys(&point, &Hash::ZERO).unwrap()[0];
    assert_eq!(child.public_key, point);
    let foreign =
        made(BitcoinNetwork::Main, vec![([1; 32], 0, 10_000, [7; 20], Path::default())], &[[9; 20]], 0);
    assert!(matches!(foreign.keys(&point, &Hash::ZERO), Err(KeysError::Foreign { index: 0, .. })));
    let not_owner = foreign.signed(&[sign(&foreign.digests()[0])], &[point]).unwrap_err();
    assert!(matches!(not_owner, SigningError::NotOwner { index: 0, .. }));
    let account = &Transaction::Evm(transfer()).keys(&point, &Hash::ZERO).unwrap()[0];
    assert_ne!(account.public_key, point);
}
