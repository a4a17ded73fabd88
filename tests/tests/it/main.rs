//! The lab's end-to-end tests: real broker, real stores, real processes, the real AWS SDK.

mod attacks;
mod attestation;
mod broker;
mod canary;
mod ceremonies;
mod consoles;
mod crashes;
mod disasters;
mod drills;
mod exclusion;
mod faults;
mod history;
mod holes;
mod inventory;
mod kms;
mod machines;
mod monitoring;
mod record;
mod renewal;
mod rotation;
mod slow;
mod store;
mod stranger;
mod tls;
mod transactions;
mod vault;
