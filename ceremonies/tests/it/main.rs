//! The domain seen from outside.

mod attestation;
