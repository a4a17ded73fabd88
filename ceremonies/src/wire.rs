//! The protobuf types as generated from `proto/`. They carry bytes; they mean nothing until validated by
//! the module that owns them ([`crate::log`], [`crate::manifest`], …).

/// The ceremony log (`proto/custody/log.proto`).
#[expect(missing_docs, clippy::pedantic, reason = "generated from the .proto files, which are documented")]
pub mod log {
    include!(concat!(env!("OUT_DIR"), "/custody.log.rs"));
}

/// Heads, and what nodes ask of each other (`proto/custody/record.proto`).
#[expect(
    missing_docs,
    clippy::doc_markdown,
    reason = "generated from the .proto files, which are documented"
)]
pub mod record {
    include!(concat!(env!("OUT_DIR"), "/custody.record.rs"));
}

/// Requests and news on the bus (`proto/custody/bus.proto`).
#[expect(missing_docs, reason = "generated from the .proto files, which are documented")]
pub mod bus {
    include!(concat!(env!("OUT_DIR"), "/custody.bus.rs"));
}

/// The version that every message of this build carries and expects.
pub const VERSION: u32 = 1;
