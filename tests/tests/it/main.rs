//! The lab's end-to-end tests: real broker, real stores, real processes, the real AWS SDK.

mod attacks;
mod attestation;
mod broker;
mod canary;
mod ceremonies;
mod consoles;
mod crashes;
mod disasters;
mod exclusion;
mod history;
mod holes;
mod inventory;
mod kms;
mod machines;
mod record;
mod renewal;
mod rotation;
mod slow;
mod store;
mod transactions;
mod vault;
