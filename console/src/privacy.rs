//! What a console holds in memory for a while: its NKey seed, and people's keys and passphrases.

use std::io;

use rustix::process::{Resource, Rlimit, setrlimit};

/// Keeps the kernel from dumping this process's memory when it crashes, and other processes of its user from reading
/// it, where the kernel supports that.
///
/// # Errors
/// The kernel's refusal.
pub fn keep_memory_private() -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    Ok(())
}
