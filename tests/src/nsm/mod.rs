//! The lab's security module: it measures enclave programs and vouches for them, as the Nitro hypervisor does.
//!
//! It stands outside the enclaves. Whoever launches an enclave measures the program first and starts one
//! [`ModuleServer`] for it; what that server signs into documents about the program is fixed from
//! then on, so neither the enclave nor its agent can claim to be another program. Documents have AWS's form
//! down to the byte layout and chain to a [`LabRoot`], which no production charter names. This module must
//! never be told a measurement by the one that is measured.

mod client;
mod document;
mod measure;
mod root;
mod server;

pub use client::LabModule;
pub use document::DocumentSpec;
pub use measure::{LAB_BOOT, measure, measure_bytes, register};
pub use root::LabRoot;
pub use server::ModuleServer;

pub use crate::kms::Clock;

/// Largest request, in bytes; the Nitro device has the same limit.
const MAX_REQUEST: usize = 0x1000;
/// Largest answer, in bytes; the Nitro device has the same limit.
const MAX_ANSWER: usize = 0x3000;
/// Longest time that one question may take on either side.
const DEADLINE: std::time::Duration = std::time::Duration::from_secs(10);

/// What an enclave asks its security module: one a connection.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct Request {
    #[prost(bytes = "vec", tag = "1")]
    nonce: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    user_data: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    public_key: Vec<u8>,
}

/// What it gets: a document, or why there is none.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct Answer {
    #[prost(bytes = "vec", tag = "1")]
    document: Vec<u8>,
    #[prost(string, tag = "2")]
    refusal: String,
}

/// Frames as on the enclave's other connections: a length of four big-endian bytes, then the message.
fn codec(max_frame: usize) -> tokio_util::codec::LengthDelimitedCodec {
    tokio_util::codec::LengthDelimitedCodec::builder().max_frame_length(max_frame).new_codec()
}
