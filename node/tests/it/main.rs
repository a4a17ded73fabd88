//! The node agent through its public interface.

#![expect(clippy::wildcard_enum_match_arm, reason = "a test looks at the variants that it is about")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

mod config;
mod dependencies;
mod generations;
mod health;
mod host;
mod nitro;
mod old_store;
mod program;
mod simulation;
mod store;
mod supervision;
mod tool;
