//! placeholder

pub mod kms;
