//! The domain seen from outside.

mod amendment;
mod attestation;
mod backups;
mod book;
mod bounds;
mod branches;
mod cluster;
mod evidence;
mod exclusion;
mod fold;
mod gather;
mod inventory;
mod keys;
mod kit;
mod machine;
mod orders;
mod people;
mod rebuild;
mod record;
mod renewal;
mod reports;
mod said;
mod schedules;
mod signing;
mod sshsig;
mod transfer;
