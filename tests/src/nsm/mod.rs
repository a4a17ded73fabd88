//! The lab's security module: it measures enclave programs and vouches for them, as the Nitro hypervisor does.
//!
//! It stands outside the enclaves. Whoever launches an enclave measures the program first and starts one
//! [`ModuleServer`] for it; what that server signs into documents about the program is fixed from then on, so neither
//! the enclave nor its agent can claim to be another program. Documents have AWS's form down to the byte layout and
//! chain to a [`LabRoot`], which no production charter names. This module must never take a measurement from the
//! program that is measured.

mod document;
mod measure;
mod root;
mod server;

pub use document::DocumentSpec;
pub use measure::{LAB_BOOT, measure, measure_bytes, register};
pub use root::LabRoot;
pub use server::ModuleServer;

pub use crate::kms::Clock;
