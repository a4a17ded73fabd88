//! placeholder

pub mod kms;
pub mod seal;
