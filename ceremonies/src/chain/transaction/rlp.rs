//! RLP, as much of it as a transaction without data needs, read in its one canonical form only: Ethereum's
//! yellow paper, appendix B.

use thiserror::Error;

/// Payloads of this length or more have their length written out.
const LONG: usize = 56;
/// First byte of an empty string, and of an empty list.
const STRING: u8 = 0x80;
const LIST: u8 = 0xc0;

/// Why bytes are not canonical RLP of what was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RlpError {
    /// The bytes end too early.
    #[error("the bytes end in the middle of it")]
    Truncated,
    /// More bytes than the structure has.
    #[error("it is followed by bytes that do not belong to it")]
    Trailing,
    /// Not written in the shortest form.
    #[error("it is not in its shortest form, so it is not canonical")]
    NotShortest,
    /// A list for a string, or a string for a list.
    #[error("it is a list where a string belongs, or a string where a list belongs")]
    Kind,
    /// Too many bytes for its type.
    #[error("it has too many bytes")]
    TooLong,
}

/// A string's encoding.
pub(super) fn string(bytes: &[u8]) -> Vec<u8> {
    match bytes {
        [byte] if *byte < STRING => vec![*byte],
        bytes => with_header(STRING, bytes),
    }
}

/// A number's encoding: big-endian without leading zeros, and nothing at all for zero.
pub(super) fn number(value: u128) -> Vec<u8> {
    let bytes: Vec<u8> = value.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
    string(&bytes)
}

/// A list of items that are already encoded.
pub(super) fn list(items: &[Vec<u8>]) -> Vec<u8> {
    with_header(LIST, &items.concat())
}

fn with_header(base: u8, payload: &[u8]) -> Vec<u8> {
    let length = payload.len();
    let length_bytes: Vec<u8> = length.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
    // Neither sum can leave its byte: below 56, and at most eight bytes of length.
    let small = |value: usize| base.saturating_add(u8::try_from(value).unwrap_or(u8::MAX));
    let mut bytes = Vec::with_capacity(length + 9);
    if length < LONG {
        bytes.push(small(length));
    } else {
        bytes.push(small(LONG - 1 + length_bytes.len()));
        bytes.extend(length_bytes);
    }
    bytes.extend(payload);
    bytes
}

/// What is left to read of a list.
#[derive(Debug, Clone, Copy)]
pub(super) struct Items<'a>(&'a [u8]);

impl<'a> Items<'a> {
    /// The items of the one list that these bytes are.
    pub(super) fn of(bytes: &'a [u8]) -> Result<Self, RlpError> {
        let mut all = Items(bytes);
        let items = all.list()?;
        all.end()?;
        Ok(items)
    }

    /// The next item, a string.
    pub(super) fn string(&mut self) -> Result<&'a [u8], RlpError> {
        match *self.0 {
            [] => Err(RlpError::Truncated),
            [first, ..] if first < STRING => self.take(1),
            [first, ..] if first >= LIST => Err(RlpError::Kind),
            [_, ..] => {
                let bytes = self.payload(STRING)?;
                match bytes {
                    [byte] if *byte < STRING => Err(RlpError::NotShortest),
                    bytes => Ok(bytes),
                }
            }
        }
    }

    /// The next item, a list.
    pub(super) fn list(&mut self) -> Result<Items<'a>, RlpError> {
        match *self.0 {
            [] => Err(RlpError::Truncated),
            [first, ..] if first < LIST => Err(RlpError::Kind),
            [_, ..] => self.payload(LIST).map(Items),
        }
    }

    /// The next item, a number.
    pub(super) fn number(&mut self) -> Result<u128, RlpError> {
        let bytes = self.string()?;
        if bytes.first() == Some(&0) {
            return Err(RlpError::NotShortest);
        }
        if bytes.len() > size_of::<u128>() {
            return Err(RlpError::TooLong);
        }
        Ok(bytes.iter().fold(0, |value, byte| value << 8 | u128::from(*byte)))
    }

    /// Nothing may be left.
    pub(super) fn end(&self) -> Result<(), RlpError> {
        if self.0.is_empty() { Ok(()) } else { Err(RlpError::Trailing) }
    }

    /// Takes a header whose first byte is at least `base`, and the payload that it announces.
    fn payload(&mut self, base: u8) -> Result<&'a [u8], RlpError> {
        let [first] = *self.take(1)? else { return Err(RlpError::Truncated) };
        let code = usize::from(first.saturating_sub(base));
        if code < LONG {
            return self.take(code);
        }
        let length = self.take(code + 1 - LONG)?;
        if length.first() == Some(&0) {
            return Err(RlpError::NotShortest);
        }
        let length = length.iter().try_fold(0_usize, |value, byte| {
            value.checked_mul(256).and_then(|value| value.checked_add(usize::from(*byte)))
        });
        match length {
            Some(length) if length < LONG => Err(RlpError::NotShortest),
            Some(length) => self.take(length),
            None => Err(RlpError::Truncated),
        }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], RlpError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(RlpError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
    use super::*;
    use crate::chain::address::keccak256;

    /// A signed type 2 transaction of the main network, which clients of Ethereum use as their test vector.
    #[test]
    fn a_transaction_with_data_is_encoded_as_on_the_main_network() {
        let data = "a22cb4650000000000000000000000005eee75727d804a2b13038928d36f8b188945a57a\
                    0000000000000000000000000000000000000000000000000000000000000000";
        let unhex = |text: &str| hex::decode(text).unwrap();
        let signed = list(&[
            number(1),
            number(0x42),
            number(0x3b9a_ca00),
            number(0x4_a817_c800),
            number(44386),
            string(&unhex("6069a6c32cf691f5982febae4faf8a6f3ab2f0f6")),
            number(0),
            string(&unhex(data)),
            list(&[]),
            number(0),
            string(&unhex("840cfc572845f5786e702984c2a582528cad4b49b2a10b9db1be7fca90058565")),
            string(&unhex("25e7109ceb98168d95b09b18bbf6b685130e0562f233877d492b94eee0c5b6d1")),
        ]);
        let hash = hex::encode(keccak256(&[&[0x02], signed.as_slice()].concat()));
        assert_eq!(hash, "0ec0b6a2df4d87424e5f6ad2a654e27aaeb7dac20ae9e8385cc09087ad532ee0");
    }

    #[test]
    fn only_the_shortest_form_is_read() {
        let string = |bytes: &[u8]| Items(bytes).string().map(<[u8]>::to_vec);
        assert_eq!(string(&[0x7f]), Ok(vec![0x7f]));
        assert_eq!(string(&[0x81, 0x80]), Ok(vec![0x80]));
        assert_eq!(string(&[0x81, 0x7f]), Err(RlpError::NotShortest));
        assert_eq!(string(&[0xb8, 0x01, 0xff]), Err(RlpError::NotShortest));
        assert_eq!(string(&[0xb9, 0x00, 0x38]), Err(RlpError::NotShortest));
        assert_eq!(string(&[0xbf; 9]), Err(RlpError::Truncated));
        assert_eq!(string(&[0xc0]), Err(RlpError::Kind));
        assert_eq!(string(&[]), Err(RlpError::Truncated));
        assert_eq!(Items(&[0x00]).number(), Err(RlpError::NotShortest));
        assert_eq!(Items(&[0x82, 0x00, 0x01]).number(), Err(RlpError::NotShortest));
        assert_eq!(Items(&super::string(&[1; 17])).number(), Err(RlpError::TooLong));
        assert!(matches!(Items::of(&[0xc0, 0xc0]), Err(RlpError::Trailing)));
        assert!(matches!(Items::of(&[0xc1]), Err(RlpError::Truncated)));
        for length in [0, 1, 55, 56, 255, 256, 70_000] {
            let bytes = vec![0xab; length];
            assert_eq!(string(&super::string(&bytes)), Ok(bytes));
        }
    }
}
