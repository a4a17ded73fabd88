//! BIP-143's example, and what is refused.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use super::bytes::{double_hash, witness};
use super::sighash::{Common, Own};
use super::*;

fn unhex<const N: usize>(text: &str) -> [u8; N] {
    hex::decode(text).unwrap().try_into().unwrap()
}

/// The second input of the P2WPKH example in BIP-143. The example's other input, its outputs and its fee
/// would be refused here, so its fields go into the digest directly.
#[test]
fn the_digest_is_that_of_bip_143() {
    let outpoints = "fff7f7881a8099afa6940d42d1e7f6362bec38171ea3edf433541db4e4ad969f00000000\
                     ef51e1b804cc89d182d279655c3aa89e815b1b309fe287d9b2b55d57b90ec68a01000000";
    let outputs = "202cb206000000001976a9148280b37df378db99f66f85c95a783a76ac7a6d5988ac\
                   9093510d000000001976a9143bde42dbee7e4dbe6a21b2d50ce2f0167faa815988ac";
    let outpoints: [u8; 72] = unhex(outpoints);
    let common = Common {
        version: [1, 0, 0, 0],
        outpoints: double_hash(&outpoints),
        sequences: double_hash(&unhex::<8>("eeffffffffffffff")),
        outputs: double_hash(&unhex::<68>(outputs)),
        lock_time: unhex("11000000"),
    };
    let key = "025476c2e83188368da1ff3e292e7acafcdb3566bb0ad253f62fc70f07aeee6357";
    let key = Point::decode(&unhex::<33>(key)).unwrap();
    let address = BitcoinAddress::of(BitcoinNetwork::Main, &key);
    assert_eq!(
        hex::encode(BitcoinRecipient::from(address).script()),
        "00141d0f172a0ecb48aee1be1f2687d2963ae33f71a1"
    );
    let own = Own {
        outpoint: &outpoints[36..],
        program: address.program(),
        amount: 600_000_000,
        sequence: [0xff; 4],
    };
    let expected = "c37af31116d1b27caf68aae9e3ac82f1477929014d5b917657d0eb49478cb670";
    assert_eq!(common.digest(&own).to_string(), expected);

    let signature = "304402203609e17b84f6a7d30c80bfa610b5b4542f32a8a0d5447a12fb1366d7f01cc44a\
                     0220573a954c4518331561406f90300e8f3358f51928d43c212a8caed02de67eebee";
    let expected = format!("0247{signature}0121{key}");
    assert_eq!(hex::encode(witness(hex::decode(signature).unwrap(), &key)), expected);
}

fn address(byte: u8) -> BitcoinAddress {
    BitcoinAddress::new(BitcoinNetwork::Regtest, [byte; 20])
}

fn input(byte: u8, amount: u64) -> Input {
    let outpoint = Outpoint { txid: Txid([byte; 32]), index: 0 };
    Input { outpoint, amount: Sats(amount), address: address(byte), path: "m/0/5".parse().unwrap() }
}

fn output(byte: u8, amount: u64) -> Output {
    Output { amount: Sats(amount), address: address(byte).into() }
}

fn made(inputs: Vec<Input>, outputs: Vec<Output>) -> Result<Bitcoin, BitcoinError> {
    Bitcoin::new(BitcoinNetwork::Regtest, inputs, outputs)
}

#[test]
fn a_transaction_is_shown_in_plain_words() {
    let transaction = made(vec![input(1, 10_000)], vec![output(2, 1000), output(1, 8800)]).unwrap();
    let (ours, theirs) = (address(1), address(2));
    assert_eq!(
        transaction.words(),
        [
            format!("Bitcoin regtest, transaction {}", transaction.txid()),
            format!(
                "spends 0.0001 BTC (10000 sat) of {ours}, the wallet's key m/0/5: output 0 of {}",
                "01".repeat(32)
            ),
            format!("pays 0.00001 BTC (1000 sat) to {theirs}"),
            format!("pays 0.000088 BTC (8800 sat) back to {ours}"),
            "fee 200 sat, 1.4 sat/vB".to_owned(),
        ]
    );
    assert_eq!(transaction.virtual_size(), 141);
}

/// As Python's hashlib has it.
#[test]
fn a_transaction_id_leaves_the_witnesses_out() {
    let transaction = made(vec![input(1, 10_000)], vec![output(2, 1000), output(1, 8800)]).unwrap();
    let id = "ca57e15c1b16f5f09dbb64dfa3d550d6d2a0348bdf8701534e5ae8e051327ed8";
    let signed = transaction.with_witnesses(&[vec![0]]);
    let transaction = crate::chain::transaction::Transaction::Bitcoin(transaction);
    assert_eq!(transaction.id(&signed).to_string(), id);
}

#[test]
fn a_transaction_id_is_written_backwards() {
    let txid = Txid(std::array::from_fn(|place| u8::try_from(place).unwrap()));
    assert!(txid.to_string().starts_with("1f1e") && txid.to_string().ends_with("0100"));
}

#[test]
fn a_fee_that_looks_like_a_mistake_is_refused() {
    let fee = |spent, paid| made(vec![input(1, spent)], vec![output(2, paid)]).map(|made| made.fee());
    assert_eq!(fee(10_000, 9000), Ok(Sats(1000)));
    assert!(matches!(fee(10_000, 8999), Err(BitcoinError::Fee { .. })));
    // 110 virtual bytes.
    assert_eq!(fee(2_000_000, 1_999_890), Ok(Sats(110)));
    for too_little in [0, 10, 109] {
        let refused = fee(2_000_000, 2_000_000 - too_little).unwrap_err();
        assert_eq!(refused, BitcoinError::Rate { fee: Sats(too_little), size: 110 });
        assert!(refused.to_string().contains("here 110 to 110000 sat"), "{refused}");
    }
    assert_eq!(fee(2_000_000, 1_890_000), Ok(Sats(110_000)));
    assert!(matches!(fee(2_000_000, 1_889_999), Err(BitcoinError::Rate { .. })));
    // A sweep of many inputs pays much at a usual rate.
    let inputs = (1..=60).map(|byte| input(byte, 1_000_000)).collect();
    let sweep = made(inputs, vec![output(99, 60_000_000 - 103_000)]).unwrap();
    assert_eq!(sweep.fee(), Sats(103_000));
    assert!(matches!(fee(1000, 1001), Err(BitcoinError::Short { .. })));
}

#[test]
fn dust_repetitions_other_networks_and_masses_are_refused() {
    type E = BitcoinError;
    let many = |count: u8| (1..=count).map(|byte| input(byte, 1000)).collect::<Vec<_>>();
    assert!(made(many(100), vec![output(2, 92_000)]).is_ok());
    assert_eq!(made(many(101), vec![output(2, 95_000)]), Err(E::Count { what: "inputs", count: 101 }));
    assert!(made(vec![input(1, 103_000)], vec![output(2, 990); 100]).is_ok());
    let outputs = vec![output(2, 990); 101];
    assert_eq!(made(vec![input(1, 100_000)], outputs), Err(E::Count { what: "outputs", count: 101 }));
    assert_eq!(made(vec![], vec![output(2, 500)]), Err(E::Count { what: "inputs", count: 0 }));
    assert_eq!(made(vec![input(1, 500)], vec![]), Err(E::Count { what: "outputs", count: 0 }));

    assert!(made(vec![input(1, 3000)], vec![output(1, 2500), output(2, 294)]).is_ok());
    let dust = made(vec![input(1, 3000)], vec![output(1, 2500), output(2, 293)]);
    assert_eq!(dust, Err(E::Dust { index: 1, amount: Sats(293), least: 294 }));
    let twice = made(vec![input(1, 300), input(1, 300)], vec![output(2, 600)]);
    assert!(matches!(twice, Err(E::Twice(_))));
    let endless = made(vec![input(1, u64::MAX), input(2, 1)], vec![output(2, 600)]);
    assert_eq!(endless, Err(E::Overflow("inputs")));
    let endless = made(vec![input(1, Sats::MAX.0), input(2, 1)], vec![output(2, 600)]);
    assert_eq!(endless, Err(E::Overflow("inputs")));

    let elsewhere = BitcoinAddress::new(BitcoinNetwork::Main, [2; 20]);
    let foreign = Output { amount: Sats(1000), address: elsewhere.into() };
    assert!(matches!(made(vec![input(1, 1000)], vec![foreign]), Err(E::Address(_))));
    let foreign = Input { address: elsewhere, ..input(1, 1000) };
    assert!(matches!(made(vec![foreign], vec![output(2, 1000)]), Err(E::Address(_))));
}

#[test]
fn fields_that_nobody_is_shown_have_one_value() {
    let transaction = made(vec![input(1, 10_000)], vec![output(2, 9800)]).unwrap();
    let bytes = transaction.encode();
    let refused = |place: usize| {
        let mut changed = bytes.clone();
        changed[place] ^= 1;
        Bitcoin::parse(&changed).unwrap_err()
    };
    assert_eq!(refused(1), BitcoinError::Unusual("version"));
    assert_eq!(refused(42), BitcoinError::Unusual("input script"));
    assert_eq!(refused(43), BitcoinError::Unusual("sequence"));
    assert_eq!(refused(56), BitcoinError::Script(0));
    assert_eq!(refused(57), BitcoinError::Script(0));
    assert_eq!(refused(79), BitcoinError::Unusual("lock time"));
    assert_eq!(Bitcoin::parse(&[3]), Err(BitcoinError::Network(3)));
    let longer = [bytes.as_slice(), &[0]].concat();
    assert_eq!(Bitcoin::parse(&longer), Err(BitcoinError::Trailing(1)));
}

#[test]
fn an_input_of_the_transaction_that_cannot_exist_is_refused_wherever_it_stands() {
    let made = |inputs: Vec<Input>| Bitcoin::new(BitcoinNetwork::Regtest, inputs, vec![output(9, 19_000)]);
    assert!(made(vec![input(1, 10_000), input(2, 10_000)]).is_ok());
    for (inputs, place) in
        [(vec![input(0, 10_000), input(2, 10_000)], 0), (vec![input(1, 10_000), input(0, 10_000)], 1)]
    {
        let refused = made(inputs).unwrap_err();
        assert_eq!(refused, BitcoinError::NoTransaction(place));
        assert!(refused.to_string().contains(&format!("input {place}")), "{refused}");
    }
}
