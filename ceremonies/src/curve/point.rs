//! Points, and what a sharing's points give together.

use std::collections::BTreeMap;

use k256::elliptic_curve::PrimeField as _;
use k256::elliptic_curve::group::GroupEncoding as _;
use k256::elliptic_curve::sec1::ToSec1Point as _;
use k256::{AffinePoint, ProjectivePoint, Scalar};
use thiserror::Error;

use crate::ids::NodeIndex;
use crate::subsets::Subset;

/// Not the compressed encoding of a point of the curve other than infinity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not a point on secp256k1")]
pub struct InvalidPoint;

/// A point of secp256k1, not the point at infinity; SEC1 compressed, 33 bytes, wherever it is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Point {
    bytes: [u8; 33],
    point: AffinePoint,
}

impl Point {
    /// Decodes a compressed point.
    ///
    /// # Errors
    /// [`InvalidPoint`] unless the bytes are a point of the curve other than infinity.
    pub fn decode(bytes: &[u8]) -> Result<Self, InvalidPoint> {
        let bytes: [u8; 33] = bytes.try_into().map_err(|_| InvalidPoint)?;
        let point: Option<AffinePoint> = AffinePoint::from_bytes(&bytes.into()).into();
        let point = point.filter(|point| *point != AffinePoint::IDENTITY).ok_or(InvalidPoint)?;
        Ok(Self { bytes, point })
    }

    pub(super) fn encode(point: &ProjectivePoint) -> Result<Self, InvalidPoint> {
        Self::decode(&point.to_affine().to_bytes())
    }

    pub(super) fn affine(&self) -> AffinePoint {
        self.point
    }

    /// Both coordinates, big-endian, 32 bytes each.
    #[must_use]
    pub fn coordinates(&self) -> Vec<u8> {
        let uncompressed = self.point.to_sec1_point(false);
        uncompressed.as_bytes().iter().skip(1).copied().collect()
    }

    /// The compressed encoding.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 33] {
        &self.bytes
    }
}

impl std::fmt::Debug for Point {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.bytes))
    }
}

impl std::fmt::Display for Point {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&hex::encode(self.bytes))
    }
}

/// The value at `x` of the polynomial through these parties' points. None when a party has no point or the value is
/// infinity.
pub(crate) fn interpolate(points: &BTreeMap<NodeIndex, Point>, subset: &Subset, x: u8) -> Option<Point> {
    let mut sum = ProjectivePoint::IDENTITY;
    for i in subset.parties() {
        let point = points.get(i)?;
        let (mut numerator, mut denominator) = (Scalar::ONE, Scalar::ONE);
        for j in subset.parties().iter().filter(|j| *j != i) {
            numerator *= scalar(x) - scalar(j.get());
            denominator *= scalar(i.get()) - scalar(j.get());
        }
        let inverse: Option<Scalar> = denominator.invert().into();
        sum += ProjectivePoint::from(point.point) * (numerator * inverse?);
    }
    Point::encode(&sum).ok()
}

fn scalar(value: u8) -> Scalar {
    Scalar::from_u128(u128::from(value))
}
