//! The lab's end-to-end tests.

mod kms;
