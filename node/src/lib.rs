#![doc = include_str!("../README.md")]

pub mod config;
pub mod core;
pub mod credentials;
pub mod deadline;
pub mod file;
pub mod host;
pub mod link;
pub mod privacy;
pub mod shell;
pub mod store;
pub mod vault;
