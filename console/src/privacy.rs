//! What a console holds in memory for a while: its NKey seed, and people's keys and passphrases.

use std::io;

use rustix::process::{Resource, Rlimit, setrlimit};

/// Has the kernel write no image of this process's memory when it crashes, and let no other process of its user read it,
/// where it can be told so.
///
/// # Errors
/// What the kernel refuses it with.
pub fn keep_memory_private() -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    Ok(())
}
