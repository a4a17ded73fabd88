//! Amounts of money, written so that nobody has to count zeros.

use std::fmt;

/// An amount of bitcoin, in satoshi.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sats(pub u64);

/// An amount of ether, in wei.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wei(pub u128);

impl Sats {
    /// All the bitcoin that there can ever be: 21 million.
    pub const MAX: Self = Self(2_100_000_000_000_000);
}

impl Wei {
    /// In gwei, as gas prices are quoted.
    pub(super) fn gwei(self) -> String {
        format!("{} gwei", decimal(self.0, 9))
    }
}

/// `0.00001 BTC (1000 sat)`.
impl fmt::Display for Sats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} BTC ({} sat)", decimal(u128::from(self.0), 8), self.0)
    }
}

/// `0.000001 ETH (1000000000000 wei)`.
impl fmt::Display for Wei {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ETH ({} wei)", decimal(self.0, 18), self.0)
    }
}

/// A number with its decimal point moved left, exact, without zeros at the end.
fn decimal(value: u128, places: u32) -> String {
    let unit = 10_u128.pow(places);
    let (whole, part) = (value / unit, value % unit);
    if part == 0 {
        return whole.to_string();
    }
    let part = format!("{part:0width$}", width = places as usize);
    format!("{whole}.{}", part.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_exact_and_short() {
        assert_eq!(Sats(1000).to_string(), "0.00001 BTC (1000 sat)");
        assert_eq!(Sats::MAX.to_string(), "21000000 BTC (2100000000000000 sat)");
        assert_eq!(Sats(0).to_string(), "0 BTC (0 sat)");
        assert_eq!(Wei(1_000_000_000_000).to_string(), "0.000001 ETH (1000000000000 wei)");
        assert_eq!(
            Wei(1_000_000_000_000_000_001).to_string(),
            "1.000000000000000001 ETH (1000000000000000001 wei)"
        );
        assert_eq!(Wei(1_500_000_000).gwei(), "1.5 gwei");
    }
}
