//! The operator's console: it proposes and shows. It holds no secret but its bus credential, and believes
//! nothing that it has not folded itself.

pub mod broadcast;
pub mod cli;
pub mod client;
pub mod config;
pub mod custodian;
pub mod health;
pub mod inventory;
pub mod ledger;
pub mod paper;
pub mod room;
pub mod signer;
pub mod terminal;
pub mod tui;
