//! The log of a ceremony as types: decoded but not yet judged.
//!
//! An entry's hash covers its bytes as received, signature included; what was received is never encoded again. Whether
//! an entry is allowed is for [`crate::ceremony`] alone.

mod entry;
mod event;
mod form;

pub use self::entry::{Entry, EntryError, MAX_ENTRY, MAX_SEQ, Place};
pub use self::event::{Aborted, EnclaveSignature, Event, TestSigned};
