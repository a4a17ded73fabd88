//! secp256k1: points, ECDSA signatures, and the keys below a key (BIP-32).
//!
//! All that this package knows of a curve. It must never hold a private key.

mod derive;
mod path;
mod point;
mod signature;

pub use self::derive::{Child, DeriveError, derive};
pub use self::path::{InvalidPath, MAX_LEVELS, Path};
pub(crate) use self::point::interpolate;
pub use self::point::{InvalidPoint, Point};
pub use self::signature::{InvalidSignature, Signature, verifies};

#[cfg(test)]
mod tests;
