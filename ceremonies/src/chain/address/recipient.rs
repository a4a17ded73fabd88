//! Who can be paid on Bitcoin: every kind of address in use, although a wallet's own are P2WPKH.

use std::fmt;

use bech32::{Fe32, Hrp, segwit};

use super::{AddressError, BitcoinAddress, BitcoinNetwork, quoted};

/// The scripts that have an address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Script {
    /// P2PKH.
    P2pkh([u8; 20]),
    /// P2SH.
    P2sh([u8; 20]),
    /// P2WPKH (BIP-141).
    P2wpkh([u8; 20]),
    /// P2WSH (BIP-141).
    P2wsh([u8; 32]),
    /// P2TR (BIP-341).
    P2tr([u8; 32]),
}

/// An address of one network that can be paid.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BitcoinRecipient {
    network: BitcoinNetwork,
    script: Script,
}

impl From<BitcoinAddress> for BitcoinRecipient {
    fn from(address: BitcoinAddress) -> Self {
        Self { network: address.network(), script: Script::P2wpkh(*address.program()) }
    }
}

/// Version bytes of P2PKH and P2SH, which testnet and regtest share.
const fn versions(network: BitcoinNetwork) -> (u8, u8) {
    match network {
        BitcoinNetwork::Main => (0x00, 0x05),
        BitcoinNetwork::Testnet | BitcoinNetwork::Regtest => (0x6f, 0xc4),
    }
}

/// Version bytes of private keys: one given by mistake must not be repeated anywhere.
const PRIVATE: [u8; 2] = [0x80, 0xef];
/// Length of an extended key (BIP-32), and where the key in it begins: a private one with a zero.
const EXTENDED: (usize, usize) = (78, 45);

/// What is paid in other ways or on other networks, by how it begins. No Bitcoin address begins so.
const ELSEWHERE: [(&str, &str); 12] = [
    ("sp1", "a silent-payment address (BIP-352)"),
    ("tsp1", "a silent-payment address (BIP-352) of a test network"),
    ("lnbc", "a Lightning invoice"),
    ("lntb", "a Lightning invoice of a test network"),
    ("lno1", "a Lightning offer (BOLT 12)"),
    ("lnurl1", "a Lightning payment link (LNURL)"),
    ("ltc1", "a Litecoin address"),
    ("tltc1", "a Litecoin address of a test network"),
    ("rltc1", "a Litecoin address of a test network"),
    ("ex1", "a Liquid address"),
    ("lq1", "a Liquid address"),
    ("addr1", "a Cardano address"),
];

/// What a text is that is paid elsewhere, as far as its beginning tells.
fn elsewhere(text: &str) -> Option<&'static str> {
    let small = text.to_ascii_lowercase();
    ELSEWHERE.iter().find(|(begins, _)| small.starts_with(begins)).map(|(_, what)| *what)
}

/// Whose base58 addresses have this version byte, where that is another network.
const fn elsewhere_in_base58(version: u8) -> Option<&'static str> {
    match version {
        0x30 | 0x32 => Some("a Litecoin address"),
        0x1e | 0x16 => Some("a Dogecoin address"),
        0x4c | 0x10 => Some("a Dash address"),
        0x41 => Some("a Tron address"),
        _ => None,
    }
}

impl BitcoinRecipient {
    /// Reads an address to be paid on a network: as it is, or in a payment link (BIP-21, BIP-321), whose amount and
    /// names are ignored.
    pub fn parse(network: BitcoinNetwork, text: &str) -> Result<Self, AddressError> {
        let text = address_of_link(network, text)?;
        if text.trim().is_empty() {
            return Err(AddressError::Empty);
        }
        if let Some(what) =
            text.starts_with("0x").then_some("an Ethereum address").or_else(|| elsewhere(text))
        {
            return Err(AddressError::Elsewhere { text: quoted(text), what });
        }
        let prefixes = ["bc1", "tb1", "bcrt1"];
        let small = text.to_ascii_lowercase();
        // A checksum that holds is no accident: what has one is an address of some network.
        if prefixes.iter().any(|prefix| small.starts_with(prefix)) || segwit::decode(text).is_ok() {
            return Self::parse_segwit(text)?.must_be_of(network);
        }
        Self::parse_base58(network, text)
    }

    fn parse_segwit(text: &str) -> Result<Self, AddressError> {
        let (prefix, version, program) =
            segwit::decode(text).map_err(|source| AddressError::Bech32 { text: quoted(text), source })?;
        let prefix = prefix.to_lowercase();
        let network = BitcoinNetwork::ALL.into_iter().find(|network| network.prefix() == prefix);
        let network = network.ok_or_else(|| AddressError::Prefix(quoted(text)))?;
        let kind = || AddressError::Kind(quoted(text));
        let script = match (version, program.len()) {
            (Fe32::Q, 20) => Script::P2wpkh(program.try_into().map_err(|_| kind())?),
            (Fe32::Q, 32) => Script::P2wsh(program.try_into().map_err(|_| kind())?),
            (Fe32::P, 32) => Script::P2tr(program.try_into().map_err(|_| kind())?),
            _ => return Err(kind()),
        };
        Ok(Self { network, script })
    }

    fn parse_base58(network: BitcoinNetwork, text: &str) -> Result<Self, AddressError> {
        let bytes = bs58::decode(text).with_check(None).into_vec();
        let bytes = bytes.map_err(|source| AddressError::Base58 { text: quoted(text), source })?;
        let (version, hash) = bytes.split_first().ok_or_else(|| AddressError::Kind(quoted(text)))?;
        let (length, key) = EXTENDED;
        let is_extended_private = bytes.len() == length && bytes.get(key) == Some(&0);
        if PRIVATE.contains(version) || is_extended_private {
            return Err(AddressError::Private);
        }
        if let Some(what) = elsewhere_in_base58(*version).filter(|_| hash.len() == 20) {
            return Err(AddressError::Elsewhere { text: quoted(text), what });
        }
        let hash = <[u8; 20]>::try_from(hash).map_err(|_| AddressError::Kind(quoted(text)))?;
        let of = |network: BitcoinNetwork| {
            let (key, script) = versions(network);
            let script = match *version {
                version if version == key => Script::P2pkh(hash),
                version if version == script => Script::P2sh(hash),
                _ => return None,
            };
            Some(Self { network, script })
        };
        let theirs = BitcoinNetwork::ALL.into_iter().find_map(of);
        let theirs = theirs.ok_or_else(|| AddressError::Kind(quoted(text)))?;
        of(network).map_or_else(|| theirs.must_be_of(network), Ok)
    }

    /// The recipient that a script pays.
    #[must_use]
    pub fn of_script(network: BitcoinNetwork, script: &[u8]) -> Option<Self> {
        let script = match script {
            [0x76, 0xa9, 0x14, hash @ .., 0x88, 0xac] => Script::P2pkh(hash.try_into().ok()?),
            [0xa9, 0x14, hash @ .., 0x87] => Script::P2sh(hash.try_into().ok()?),
            [0x00, 0x14, program @ ..] => Script::P2wpkh(program.try_into().ok()?),
            [0x00, 0x20, program @ ..] => Script::P2wsh(program.try_into().ok()?),
            [0x51, 0x20, program @ ..] => Script::P2tr(program.try_into().ok()?),
            _ => return None,
        };
        Some(Self { network, script })
    }

    /// The script that an output to it has.
    #[must_use]
    pub fn script(&self) -> Vec<u8> {
        match &self.script {
            Script::P2pkh(hash) => [&[0x76, 0xa9, 0x14], hash.as_slice(), &[0x88, 0xac]].concat(),
            Script::P2sh(hash) => [&[0xa9, 0x14], hash.as_slice(), &[0x87]].concat(),
            Script::P2wpkh(program) => [&[0x00, 0x14], program.as_slice()].concat(),
            Script::P2wsh(program) => [&[0x00, 0x20], program.as_slice()].concat(),
            Script::P2tr(program) => [&[0x51, 0x20], program.as_slice()].concat(),
        }
    }

    /// The smallest output to it that nodes relay, in satoshi (Bitcoin Core's dust limits at their default rate).
    #[must_use]
    pub const fn dust(&self) -> u64 {
        match self.script {
            Script::P2pkh(_) => 546,
            Script::P2sh(_) => 540,
            Script::P2wpkh(_) => 294,
            Script::P2wsh(_) | Script::P2tr(_) => 330,
        }
    }

    /// Refuses an address of another network.
    pub fn must_be_of(self, network: BitcoinNetwork) -> Result<Self, AddressError> {
        if self.network == network {
            return Ok(self);
        }
        Err(AddressError::Network { address: self.to_string(), theirs: self.network, ours: network })
    }
}

/// The address in a payment link, or the text itself. A link that requires something unknown here must not be followed
/// (BIP-21). Some programs write `//` behind the scheme. Where a link has no address of its own, it may have one as the
/// parameter that is named after a network's prefix (BIP-321).
fn address_of_link(network: BitcoinNetwork, text: &str) -> Result<&str, AddressError> {
    let Some((scheme, rest)) = text.split_once(':') else { return Ok(text) };
    if !scheme.eq_ignore_ascii_case("bitcoin") {
        let other = |what| AddressError::Elsewhere { text: quoted(text), what };
        return Err(elsewhere(rest).map_or_else(|| AddressError::Link(quoted(text)), other));
    }
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
    if let Some(required) = query.split('&').find(|part| part.to_ascii_lowercase().starts_with("req-")) {
        return Err(AddressError::Required(quoted(required)));
    }
    if !address.is_empty() {
        return Ok(address);
    }
    // An address of another network is refused as that.
    let networks = std::iter::once(network).chain(BitcoinNetwork::ALL);
    let mut addresses = networks.filter_map(|network| parameter(query, network.prefix()));
    let has_other_means = || OTHER_MEANS.iter().any(|name| parameter(query, name).is_some());
    match addresses.next() {
        Some(address) => Ok(address),
        None if has_other_means() => Err(AddressError::OtherMeans),
        None => Ok(address),
    }
}

/// Parameters of links that offer payment by other means: Lightning, its offers, silent payments (BIP-321), payjoin.
const OTHER_MEANS: [&str; 4] = ["lightning", "lno", "sp", "pay"];

/// What stands behind a parameter's name.
fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    let mut parts = query.split('&').filter_map(|part| part.split_once('='));
    parts.find(|(theirs, _)| theirs.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

impl fmt::Display for BitcoinRecipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = Hrp::parse(self.network.prefix()).map_err(|_| fmt::Error)?;
        let (key, script) = versions(self.network);
        let base58 = |version: u8, hash: &[u8]| {
            Ok(bs58::encode([&[version], hash].concat()).with_check().into_string())
        };
        let text = match &self.script {
            Script::P2pkh(hash) => base58(key, hash),
            Script::P2sh(hash) => base58(script, hash),
            Script::P2wpkh(program) => segwit::encode_v0(prefix, program).map_err(|_| fmt::Error),
            Script::P2wsh(program) => segwit::encode_v0(prefix, program).map_err(|_| fmt::Error),
            Script::P2tr(program) => segwit::encode_v1(prefix, program).map_err(|_| fmt::Error),
        };
        f.pad(&text?)
    }
}

impl fmt::Debug for BitcoinRecipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
