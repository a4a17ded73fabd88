//! What an agent holds in memory for a while: its NKey seed, and credentials for the KMS and the vault.

use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Has the kernel write no image of this process's memory when it crashes, and let no other process of its user read it.
///
/// # Errors
/// What the kernel refuses it with.
pub fn keep_memory_private() -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}
