//! Which program runs: the registers into which a machine measured it, and whether a charter allows it.
//!
//! PCR0 covers the whole image, PCR1 the kernel and how it was started, PCR2 the application, PCR8 the certificate the
//! image was signed with. All that the charter names must match; none ever stands in for another.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use super::{AttestationError, Document};
use crate::ids::UnixMillis;
use crate::text::shortened;

/// Text that is not a PCR's value.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("expected 96 hexadecimal digits (SHA-384), got `{0}`")]
pub struct InvalidPcr(String);

/// The value of a platform configuration register: SHA-384. Printed, parsed and serialised as 96
/// hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pcr([u8; 48]);

impl Pcr {
    /// The 48 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 48] {
        &self.0
    }

    /// Whether nothing was measured, which on Nitro means debug mode.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.0 == [0; 48]
    }
}

impl From<[u8; 48]> for Pcr {
    fn from(bytes: [u8; 48]) -> Self {
        Self(bytes)
    }
}

impl FromStr for Pcr {
    type Err = InvalidPcr;
    fn from_str(text: &str) -> Result<Self, InvalidPcr> {
        let mut bytes = [0; 48];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| InvalidPcr(shortened(text, 120)))?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for Pcr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&hex::encode(self.0))
    }
}

impl fmt::Debug for Pcr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for Pcr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Pcr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// One enclave image, as a charter allows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measurement {
    /// The whole image.
    pub pcr0: Pcr,
    /// The kernel, its command line and what boots.
    pub pcr1: Pcr,
    /// The application.
    pub pcr2: Pcr,
    /// The certificate that signed the image; left out, any or none may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pcr8: Option<Pcr>,
    /// The time from which it is refused; if left out, it is allowed as long as the charter is in force.
    #[serde(default, with = "timestamp", skip_serializing_if = "Option::is_none")]
    pub until: Option<UnixMillis>,
}

/// A moment as `2027-01-31T00:00:00Z`.
mod timestamp {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::ids::UnixMillis;

    #[expect(clippy::ref_option, reason = "serde hands the field over so")]
    pub(super) fn serialize<S: Serializer>(moment: &Option<UnixMillis>, to: S) -> Result<S::Ok, S::Error> {
        match moment {
            Some(moment) => to.collect_str(moment),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<UnixMillis>, D::Error> {
        let text = String::deserialize(from)?;
        let moment: jiff::Timestamp = text.parse().map_err(serde::de::Error::custom)?;
        if moment.subsec_nanosecond() != 0 {
            return Err(serde::de::Error::custom("a moment is given in whole seconds"));
        }
        Ok(Some(UnixMillis(moment.as_millisecond())))
    }
}

impl Measurement {
    /// Whether the other allows the same image, for whatever time.
    #[must_use]
    pub fn is_same_image(&self, other: &Self) -> bool {
        self.registers().eq(other.registers())
    }

    /// The registers that must match, by index.
    pub fn registers(&self) -> impl Iterator<Item = (u8, Pcr)> {
        [(0, self.pcr0), (1, self.pcr1), (2, self.pcr2)].into_iter().chain(self.pcr8.map(|pcr| (8, pcr)))
    }
}

/// The entry of `allowed` that the document matches and that is still allowed.
///
/// A register of zeros among the first three is refused even where the list has it: a charter that allowed
/// debug mode would give every host the shares.
pub(super) fn allowed(
    document: &Document,
    allowed: &[Measurement],
    at: UnixMillis,
) -> Result<Measurement, AttestationError> {
    for index in 0..=2 {
        if document.pcr(index)?.is_zero() {
            return Err(AttestationError::Debug(index));
        }
    }
    let mut nearest: Option<(usize, AttestationError)> = None;
    for measurement in allowed {
        let mut count = 0;
        let mut first = None;
        for (pcr, allowed) in measurement.registers() {
            let found = document.pcr(pcr)?;
            if found != allowed {
                count += 1;
                first.get_or_insert(AttestationError::Measurement { pcr, allowed, found });
            }
        }
        match first {
            None => match measurement.until {
                Some(until) if at >= until => {
                    nearest = Some((0, AttestationError::Aged { pcr0: measurement.pcr0, until }));
                }
                Some(_) | None => return Ok(*measurement),
            },
            Some(error) if nearest.as_ref().is_none_or(|(fewest, _)| count < *fewest) => {
                nearest = Some((count, error));
            }
            Some(_) => {}
        }
    }
    Err(nearest.map_or(AttestationError::NothingAllowed, |(_, error)| error))
}
