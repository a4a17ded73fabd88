//! Threshold ECDSA on secp256k1 over the crate dkls23 (Doerner, Kondi, Lee and shelat, eprint 2023/765).
//!
//! The crate's phases trust their caller to have matched every self-declared index to a proven sender, to have compared
//! commitments with their openings, and to hand in exactly one message from each party. Every protocol here does so
//! before a byte reaches the crate. A share must never leave this room except to be sealed, backed up, or handed
//! over in a rebuild.

mod dkg;
mod messages;
mod product;
mod rebuild;
mod refresh;
mod repair;
mod setup;
mod share;
mod sign;

pub use self::dkg::KeyGeneration;
pub use self::product::{Factory, Product, Signature};
pub use self::rebuild::Rebuilding;
pub use self::refresh::Refreshing;
pub use self::repair::Repairing;
pub use self::share::{KeyShare, NewShare, ShareError};
pub use self::sign::Signing;
