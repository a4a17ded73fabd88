//! The vectors of BIP-84, BIP-173 and EIP-55.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use proptest::prelude::*;

use super::*;
use crate::curve::derive;
use crate::ids::Hash;

fn point(text: &str) -> Point {
    Point::decode(&hex::decode(text).unwrap()).unwrap()
}

/// BIP-84's account key, `m/84'/0'/0'`, with its chain code.
fn account() -> (Point, Hash) {
    let key = point("02707a62fdacc26ea9b63b1c197906f56ee0180d0bcf1966e1a2da34f5f3a09a9b");
    (key, "4a53a0ab21b9dc95869c4e92a161194e03c0ef3ff5014ac692f433c4765490fc".parse().unwrap())
}

#[test]
fn addresses_are_those_of_bip_84() {
    let (key, code) = account();
    for (path, expected) in [
        ("m/0/0", "bc1qcr8te4kr609gcawutmrza0j4xv80jy8z306fyu"),
        ("m/0/1", "bc1qnjg0jd8228aq7egyzacy8cys3knf9xvrerkf9g"),
        ("m/1/0", "bc1q8c6fshw2dlwun7ekn9qwf37cu2rn755upcp6el"),
    ] {
        let child = derive(&key, &code, &path.parse().unwrap()).unwrap();
        let network = Network::Bitcoin(BitcoinNetwork::Main);
        assert_eq!(Address::of(network, &child.public_key).unwrap().to_string(), expected);
        assert_eq!(Address::parse(network, expected).unwrap().to_string(), expected);
    }
}

#[test]
fn a_bitcoin_address_is_read_as_bip_173_says() {
    let generator = point("0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798");
    for (text, network) in [
        ("BC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T4", BitcoinNetwork::Main),
        ("tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx", BitcoinNetwork::Testnet),
    ] {
        assert_eq!(
            BitcoinRecipient::parse(network, text),
            Ok(BitcoinAddress::of(network, &generator).into())
        );
    }
}

#[test]
fn an_invalid_or_foreign_bitcoin_address_is_refused() {
    type E = AddressError;
    let refused = |text: &str| BitcoinRecipient::parse(BitcoinNetwork::Main, text).unwrap_err();
    for bad in [
        "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t5",
        "tb1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3q0sL5k7",
        "bc1zw508d6qejxtdg4y5r3zarvaryvqyzf3du",
        "bc1gmk9yu",
    ] {
        assert!(matches!(refused(bad), E::Bech32 { .. }), "{bad}: {}", refused(bad));
    }
    for mistyped in ["1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN3", "3P14159f73E4gFr7JterCCQh9QjiTjiZrg"] {
        assert!(matches!(refused(mistyped), E::Base58 { .. }), "{mistyped}: {}", refused(mistyped));
    }
    // BIP-350's version 16, and an extended key.
    let sixteen =
        bech32::segwit::encode(bech32::Hrp::parse("bc").unwrap(), bech32::Fe32::S, &[7; 2]).unwrap();
    let extended = "xpub661MyMwAqRbcFtXgS5sYJABqqG9YLmC4Q1Rdap9gSE8NqtwybGhePY2gZ29ESFjqJoCu1Rupje8YtGqsefD265TMg7usUDFdp6W1EGMcet8";
    for unknown in [sixteen.as_str(), extended] {
        assert!(matches!(refused(unknown), E::Kind(_)), "{unknown}: {}", refused(unknown));
    }
    assert!(
        refused("0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed").to_string().contains("an Ethereum address")
    );
    // The Bitcoin wiki's example of a private key.
    let private = "5HueCGU8rMjxEXxiPuD5BDku4MkFqeZyd4dZ1jvhTVqvbTLvyTJ";
    // The master key of BIP-32's first test vector.
    let master = "xprv9s21ZrQH143K3QTDL4LXw2F7HEK3wJUD2nW2nRk4stbPy6cq3jPPqjiChkVvvNKmPGJxWUtg6LnF5kejMRNNU3TGtRBeJgk33yuGBxrMPHi";
    for private in [private, master] {
        assert_eq!(refused(private), E::Private);
        assert!(!refused(private).to_string().contains(private));
    }

    let main = Network::Bitcoin(BitcoinNetwork::Main);
    let elsewhere = Address::parse(main, "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx").unwrap_err();
    assert_eq!(
        elsewhere.to_string(),
        "`tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx` is an address of Bitcoin testnet, but it is used on \
         Bitcoin main network"
    );
}

#[test]
fn what_is_paid_elsewhere_or_in_another_way_is_called_what_it_is() {
    let in_base58 =
        |version: u8| bs58::encode([&[version][..], &[7; 20]].concat()).with_check().into_string();
    let segwit = |prefix| bech32::segwit::encode_v0(bech32::Hrp::parse(prefix).unwrap(), &[7; 20]).unwrap();
    let silent = "sp1qqgste7k9hx0qftg6qmwlkqtwuy6cycyavzmzj85c6qdfhjdpdjtdgqjuexzk6murw56suy3e0rd2cgqvycxttddwsvgxe2usfpxumr70xc9pkqwv";
    for (text, what) in [
        (silent.to_owned(), "a silent-payment address (BIP-352), which"),
        (silent.to_uppercase(), "a silent-payment address (BIP-352), which"),
        (format!("t{silent}"), "a silent-payment address (BIP-352) of a test network"),
        ("lnbc2500u1pvjluezsp5zyg3zyg3zyg3".to_owned(), "a Lightning invoice, which"),
        ("lightning:LNBC1PVJLUEZ".to_owned(), "a Lightning invoice, which"),
        ("lntbs1pvjluez".to_owned(), "a Lightning invoice of a test network"),
        ("lno1pqps7sjqpgtyzm3qv4uxzmtsd3jjqer9wd3hy6tsw35k7".to_owned(), "a Lightning offer"),
        ("lnurl1dp68gurn8ghj7um9wfmxj".to_owned(), "LNURL"),
        (segwit("ltc"), "a Litecoin address, which"),
        (segwit("tltc"), "a Litecoin address of a test network"),
        // Mistyped, it is no Bitcoin address either, and copying it again would not help.
        ("ltc1qw508d6".to_owned(), "a Litecoin address"),
        (format!("bitcoin:{}", segwit("ex")), "a Liquid address"),
        (in_base58(0x30), "a Litecoin address"),
        (in_base58(0x1e), "a Dogecoin address"),
        (in_base58(0x41), "a Tron address"),
    ] {
        let refused = BitcoinRecipient::parse(BitcoinNetwork::Main, &text).unwrap_err();
        let said = refused.to_string();
        assert!(matches!(refused, AddressError::Elsewhere { .. }) && said.contains(what), "{text}: {said}");
        assert!(!said.contains("copy it again") && said.len() < 250, "{said}");
    }
    let unknown = BitcoinRecipient::parse(BitcoinNetwork::Main, &segwit("vtc")).unwrap_err();
    assert!(matches!(unknown, AddressError::Prefix(_)), "{unknown}");
    let one = "ethereum-1".parse().unwrap();
    for (network, address, _) in RECIPIENTS {
        let refused = Address::parse(one, address).unwrap_err();
        assert!(refused.to_string().contains("a Bitcoin address"), "{network}: {refused}");
    }
}

#[test]
fn nothing_where_an_address_should_be_is_called_that() {
    let main = Network::Bitcoin(BitcoinNetwork::Main);
    for text in ["", " ", "bitcoin:", "bitcoin:?amount=1", "bitcoin://"] {
        assert_eq!(Address::parse(main, text), Err(AddressError::Empty), "{text:?}");
    }
    for text in ["", " ", "ethereum:", "ethereum:@1", "ethereum:?value=1"] {
        assert_eq!(Address::parse("ethereum-1".parse().unwrap(), text), Err(AddressError::Empty), "{text:?}");
    }
}

/// Address and script of every kind that is paid: BIP-141 and BIP-173, BIP-16's and BIP-13's forms, BIP-350 and BIP-341.
const RECIPIENTS: [(BitcoinNetwork, &str, &str); 8] = [
    (
        BitcoinNetwork::Main,
        "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2",
        "76a91477bff20c60e522dfaa3350c39b030a5d004e839a88ac",
    ),
    (
        BitcoinNetwork::Main,
        "3P14159f73E4gFr7JterCCQh9QjiTjiZrG",
        "a914e9c3dd0c07aac76179ebc76a6c78d4d67c6c160a87",
    ),
    (
        BitcoinNetwork::Main,
        "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4",
        "0014751e76e8199196d454941c45d1b3a323f1433bd6",
    ),
    (
        BitcoinNetwork::Testnet,
        "tb1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3q0sl5k7",
        "00201863143c14c5166804bd19203356da136c985678cd4d27a1b8c6329604903262",
    ),
    (
        BitcoinNetwork::Main,
        "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0",
        "512079be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798",
    ),
    (
        BitcoinNetwork::Testnet,
        "mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn",
        "76a914243f1394f44554f4ce3fd68649c19adc483ce92488ac",
    ),
    (
        BitcoinNetwork::Regtest,
        "mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn",
        "76a914243f1394f44554f4ce3fd68649c19adc483ce92488ac",
    ),
    (
        BitcoinNetwork::Testnet,
        "2MzQwSSnBHWHqSAqtTVQ6v47XtaisrJa1Vc",
        "a9144e9f39ca4688ff102128ea4ccda34105324305b087",
    ),
];

#[test]
fn every_kind_of_bitcoin_address_is_read_and_written_with_its_script() {
    for (network, text, script) in RECIPIENTS {
        let recipient = BitcoinRecipient::parse(network, text).unwrap();
        assert_eq!(recipient.to_string(), text);
        assert_eq!(hex::encode(recipient.script()), script, "{text}");
        assert_eq!(BitcoinRecipient::of_script(network, &recipient.script()), Some(recipient));
        let cut = &recipient.script()[..recipient.script().len() - 1];
        assert_eq!(BitcoinRecipient::of_script(network, cut), None);
        let longer = [recipient.script(), vec![0x51]].concat();
        assert_eq!(BitcoinRecipient::of_script(network, &longer), None);
    }
    let test = BitcoinRecipient::parse(BitcoinNetwork::Main, RECIPIENTS[5].1).unwrap_err();
    assert!(matches!(test, AddressError::Network { .. }), "{test}");
}

#[test]
fn an_address_is_taken_out_of_a_payment_link_that_asks_for_nothing_more() {
    let main = Network::Bitcoin(BitcoinNetwork::Main);
    let address = RECIPIENTS[1].1;
    let expected = Address::parse(main, address).unwrap();
    for link in [
        format!("bitcoin:{address}"),
        format!("BITCOIN:{address}?amount=20.3&label=Luke-Jr"),
        format!("bitcoin:{address}?somethingyoudontunderstand=50"),
        format!("bitcoin://{address}"),
        format!("Bitcoin://{address}?amount=20.3"),
    ] {
        assert_eq!(Address::parse(main, &link), Ok(expected), "{link}");
    }
    let required = format!("bitcoin:{address}?req-somethingyoudontunderstand=50");
    assert!(matches!(Address::parse(main, &required), Err(AddressError::Required(_))));
    assert!(matches!(Address::parse(main, &format!("litecoin:{address}")), Err(AddressError::Link(_))));

    let one = "ethereum-1".parse().unwrap();
    let expected = Address::parse(one, EIP55[4]).unwrap();
    for link in ["ethereum:A", "ethereum:pay-A@1", "ethereum:A@1?value=2.014e18", "ethereum://A"] {
        assert_eq!(Address::parse(one, &link.replace('A', EIP55[4])), Ok(expected), "{link}");
    }
    let other = format!("ethereum:{}@5", EIP55[4]);
    assert!(matches!(Address::parse(one, &other), Err(AddressError::OtherChain { ours: 1, .. })));
    let call = format!("ethereum:{}/transfer?address=0x1", EIP55[4]);
    assert!(matches!(Address::parse(one, &call), Err(AddressError::Call(_))));
}

/// The examples of EIP-55.
const EIP55: [&str; 8] = [
    "0x52908400098527886E0F7030069857D2E4169EE7",
    "0x8617E340B3D01FA5F11F306F4090FD50E238070D",
    "0xde709f2102306220921060314715629080e2fb77",
    "0x27b1fdb04752bbc536007a920d24acb045561c26",
    "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
    "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
    "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
    "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
];

#[test]
fn an_ethereum_address_has_the_capitals_of_eip_55() {
    for text in EIP55 {
        assert_eq!(text.parse::<EthereumAddress>().unwrap().to_string(), text);
    }
    for text in &EIP55[4..] {
        let lower = text.to_lowercase();
        assert_eq!(lower.parse::<EthereumAddress>(), Err(AddressError::Unchecked(lower.clone())));
        let place = text.rfind(|digit: char| digit.is_ascii_alphabetic()).unwrap();
        let mut wrong = (*text).to_owned();
        let swap = |digit: &str| {
            if digit == digit.to_uppercase() { digit.to_lowercase() } else { digit.to_uppercase() }
        };
        wrong.replace_range(place..=place, &swap(&text[place..=place]));
        assert_eq!(wrong.parse::<EthereumAddress>(), Err(AddressError::Capitals(wrong.clone())));
    }
    for bad in
        ["", "0x", "52908400098527886E0F7030069857D2E4169EE7", "0X52908400098527886E0F7030069857D2E4169EE7"]
    {
        assert_eq!(bad.parse::<EthereumAddress>(), Err(AddressError::Ethereum(bad.to_owned())));
    }
}

#[test]
fn the_ethereum_address_of_a_key_is_the_known_one() {
    // The private key 1 is known to everyone, and so is its address.
    let generator = point("0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798");
    let address = EthereumAddress::of(&generator).unwrap();
    assert_eq!(address.to_string(), "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf");
}

#[test]
fn a_network_is_written_in_one_way() {
    for good in ["bitcoin", "bitcoin-testnet", "bitcoin-regtest", "ethereum-1", "ethereum-31337"] {
        assert_eq!(good.parse::<Network>().unwrap().to_string(), good);
    }
    for bad in [
        "",
        "Bitcoin",
        "ethereum",
        "ethereum-0",
        "ethereum-01",
        "ethereum-+1",
        "ethereum-18446744073709551615",
    ] {
        assert!(bad.parse::<Network>().is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_an_address_panic(text in ".{0,90}") {
        let _ = BitcoinRecipient::parse(BitcoinNetwork::Main, &text);
        let _ = text.parse::<EthereumAddress>();
        let _ = text.parse::<Network>();
    }
}

#[test]
fn blanks_around_an_address_are_no_part_of_it_and_blanks_within_are_refused() {
    let one = "ethereum-1".parse().unwrap();
    let main = Network::Bitcoin(BitcoinNetwork::Main);
    let (ether, bitcoin) =
        ("0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2");
    for (network, address) in [(one, ether.to_owned()), (main, bitcoin.to_owned())] {
        for text in [
            format!("{address} "),
            format!(" {address}"),
            format!("\t{address}\r\n"),
            format!("{address}\u{a0}"),
        ] {
            let read = Address::parse(network, &text).map(|address| address.to_string());
            assert_eq!(read, Ok(address.clone()), "{text:?}");
        }
        let (begin, end) = address.split_at(9);
        assert!(Address::parse(network, &format!("{begin} {end}")).is_err());
        assert!(Address::parse(network, &format!("{address} {address}")).is_err());
    }
}

#[test]
fn chain_of_a_payment_link_is_a_decimal_number_or_the_reason_is_that() {
    let address = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";
    let on = |chain: &str| {
        Address::parse("ethereum-137".parse().unwrap(), &format!("ethereum:{address}{chain}?value=1"))
    };
    for chain in ["", "@137", "@0137"] {
        assert!(on(chain).is_ok(), "{chain}");
    }
    for chain in ["@0x89", "@", "@-137", "@137 ", "@137@137", "@polygon", "@१३७"] {
        let refused = on(chain).unwrap_err();
        assert!(matches!(refused, AddressError::LinkChain(_)), "{chain}: {refused}");
        assert!(refused.to_string().contains("decimal number"), "{refused}");
    }
    for chain in ["@1", "@0", "@1370", "@99999999999999999999999"] {
        let refused = on(chain).unwrap_err();
        assert!(matches!(refused, AddressError::OtherChain { ours: 137, .. }), "{chain}: {refused}");
    }
}

#[test]
fn address_of_a_link_may_be_the_parameter_that_is_named_after_its_network() {
    let main = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4";
    let test = "tb1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3q0sl5k7";
    let old = "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2";
    let parse = |network, link: &str| BitcoinRecipient::parse(network, link).map(|paid| paid.to_string());
    for link in [
        format!("bitcoin:?bc={main}"),
        format!("BITCOIN:?BC={}", main.to_uppercase()),
        format!("bitcoin://?lightning=lnbc1x&bc={main}&amount=1"),
        format!("bitcoin:?tb={test}&bc={main}"),
    ] {
        assert_eq!(parse(BitcoinNetwork::Main, &link), Ok(main.to_owned()), "{link}");
    }
    assert_eq!(parse(BitcoinNetwork::Main, &format!("bitcoin:{old}?bc={main}")), Ok(old.to_owned()));
    assert_eq!(parse(BitcoinNetwork::Testnet, &format!("bitcoin:?bc={main}&tb={test}")), Ok(test.to_owned()));
    let of_another = parse(BitcoinNetwork::Main, &format!("bitcoin:?tb={test}")).unwrap_err();
    assert!(matches!(of_another, AddressError::Network { .. }), "{of_another}");
    for link in ["bitcoin:?lightning=lnbc1x", "bitcoin:?lno=lno1x&amount=1", "bitcoin:?sp=sp1x"] {
        assert_eq!(parse(BitcoinNetwork::Main, link), Err(AddressError::OtherMeans), "{link}");
    }
    for link in ["bitcoin:?bc=", "bitcoin:?label=x", "bitcoin:?"] {
        assert_eq!(parse(BitcoinNetwork::Main, link), Err(AddressError::Empty), "{link}");
    }
    let required = parse(BitcoinNetwork::Main, &format!("bitcoin:?bc={main}&req-x=1")).unwrap_err();
    assert!(matches!(required, AddressError::Required(_)), "{required}");
}
