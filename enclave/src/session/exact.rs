//! What any protocol checks of a round before it looks inside: one message from each party, one value in each, and
//! nothing where nothing is due.
//!
//! A message that fails here names its sender, as the envelope proves it. It must never become a ban: that is up to the
//! protocol.

use ceremonies::ids::NodeIndex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::protocol::{Inbound, ProtocolAbort, Round};

/// Postcard in a buffer of the right size from the start: a buffer that grows leaves copies of secrets behind.
///
/// # Errors
/// [`ProtocolAbort`] for a value that postcard cannot hold.
pub fn encode<T: Serialize>(value: &T) -> Result<Zeroizing<Vec<u8>>, ProtocolAbort> {
    let unencodable = |_| ProtocolAbort::new("a message could not be encoded");
    let size = postcard::experimental::serialized_size(value).map_err(unencodable)?;
    let mut bytes = Zeroizing::new(vec![0; size]);
    postcard::to_slice(value, &mut bytes).map_err(unencodable)?;
    Ok(bytes)
}

/// Exactly one value, with nothing after it.
///
/// # Errors
/// [`ProtocolAbort`] that names the sender.
pub fn decode<T: DeserializeOwned>(from: NodeIndex, bytes: &[u8]) -> Result<T, ProtocolAbort> {
    match postcard::take_from_bytes::<T>(bytes) {
        Ok((value, [])) => Ok(value),
        Ok(_) | Err(_) => Err(ProtocolAbort::by(from, "a protocol message is malformed")),
    }
}

/// Exactly one message from each party, this one included. The driver sees to that, but an implementation may take
/// four messages of five without complaint, so a driver and a protocol with different rosters must be caught here.
///
/// # Errors
/// [`ProtocolAbort`] that names nobody: the order is at fault.
pub fn check_senders(parties: &[NodeIndex], messages: &Round) -> Result<(), ProtocolAbort> {
    if messages.keys().eq(parties.iter()) {
        Ok(())
    } else {
        Err(ProtocolAbort::new(
            "there is not exactly one message from each party: the order and its plan differ",
        ))
    }
}

/// Where the protocol sends nothing, nothing may be sent.
///
/// # Errors
/// [`ProtocolAbort`] that names the sender.
pub fn check_silent(from: NodeIndex, bytes: &[u8]) -> Result<(), ProtocolAbort> {
    if bytes.is_empty() {
        Ok(())
    } else {
        Err(ProtocolAbort::by(from, "a message holds more than the protocol sends in this round"))
    }
}

/// A party that has nothing to say in a round says nothing, neither to all nor to this party.
///
/// # Errors
/// [`ProtocolAbort`] that names the party.
pub fn check_quiet(from: NodeIndex, message: &Inbound) -> Result<(), ProtocolAbort> {
    check_silent(from, &message.broadcast)?;
    check_silent(from, &message.private)
}
