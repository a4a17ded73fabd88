//! The operator's console: it proposes and shows. It holds no secret except its bus credential, and believes nothing
//! that it has not folded itself.

pub mod agent;
pub mod broadcast;
pub mod checks;
pub mod cli;
pub mod client;
pub mod config;
pub mod control;
pub mod custodian;
pub mod drill;
pub mod file;
pub mod fork;
pub mod health;
pub mod inventory;
pub mod keeper;
pub mod ledger;
pub mod memory;
pub mod paper;
pub mod plugin;
pub mod privacy;
pub mod readiness;
pub mod room;
pub mod signer;
pub mod standing;
pub mod terminal;
pub mod tui;
pub mod waiting;
pub mod watch;
