//! The lab's end-to-end tests.

mod ceremonies;
mod kms;
