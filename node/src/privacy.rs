//! What an agent holds in memory for a while: its NKey seed, and credentials for the KMS and the vault.

use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Keeps the kernel from dumping this process's memory when it crashes, and other processes of its user from reading
/// it.
///
/// # Errors
/// The kernel's refusal.
pub fn keep_memory_private() -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}
