//! The lab's end-to-end tests.

mod attestation;
mod ceremonies;
mod kms;
