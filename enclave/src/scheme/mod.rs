//! Signature schemes, one room each: a scheme's shares, its protocols of rounds, and what they end with.
//!
//! A scheme must never know who runs its protocols or why: it sees no order, no agent and no clock, only what
//! [`crate::session`] says a protocol sees.

pub mod dkls23;
