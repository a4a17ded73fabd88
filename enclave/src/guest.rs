//! Being a process that holds secrets, and the first process of an image: what must be done before a program can run,
//! and nothing more.
//!
//! There is no shell, no disk and no network. A step that fails ends the machine: half an enclave must never
//! serve.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, mount};
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Where an image keeps its kernel's modules, named so that they load in the order of their names.
const MODULES: &str = "/modules";
/// The byte with which a Nitro enclave tells its hypervisor that it is up, and which it gets back (`init.c` of the AWS
/// Nitro Enclaves SDK's bootstrap).
const HEARTBEAT: u8 = 0xB7;

/// Why the machine cannot be prepared.
#[derive(Debug, Error)]
pub enum GuestError {
    /// A file system cannot be mounted.
    #[error("{0} cannot be mounted: the image has no such folder, or the kernel lacks that file system")]
    Mount(&'static str, #[source] io::Error),
    /// A module cannot be read or loaded.
    #[error(
        "kernel module {0} cannot be loaded: it must be built for this kernel and listed after the modules that it \
         needs"
    )]
    Module(PathBuf, #[source] io::Error),
}

/// Whether this process is the first of its machine.
#[must_use]
pub fn is_first_process() -> bool {
    std::process::id() == 1
}

/// Keeps the kernel from dumping this process's memory, and other processes from reading it.
///
/// # Errors
/// The kernel's refusal.
pub fn keep_memory_private() -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// Mounts the devices and loads the image's kernel modules. Call it before anything asks for randomness.
///
/// # Errors
/// [`GuestError`]; the machine must end then.
pub fn prepare() -> Result<(), GuestError> {
    for (kind, place) in [("devtmpfs", "/dev"), ("proc", "/proc"), ("sysfs", "/sys")] {
        match mount(kind, place, kind, MountFlags::NOSUID | MountFlags::NOEXEC, None) {
            // The kernel may have mounted its devices itself.
            Ok(()) | Err(rustix::io::Errno::BUSY) => {}
            Err(error) => return Err(GuestError::Mount(place, error.into())),
        }
    }
    for module in modules(Path::new(MODULES)).map_err(|error| GuestError::Module(MODULES.into(), error))? {
        load(&module).map_err(|error| GuestError::Module(module, error))?;
    }
    Ok(())
}

/// The modules in loading order; none where the image has no such folder.
fn modules(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let listed = match fs::read_dir(folder) {
        Ok(listed) => listed,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut modules = listed.map(|file| Ok(file?.path())).collect::<io::Result<Vec<_>>>()?;
    modules.sort();
    Ok(modules)
}

fn load(module: &Path) -> io::Result<()> {
    match rustix::system::init_module(&fs::read(module)?, c"") {
        // Built into this kernel.
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Tells the Nitro hypervisor, on a connection to vsock port 9000 of context 3, that this enclave is up.
///
/// # Errors
/// If the hypervisor does not answer with the same byte; it would then terminate the enclave.
pub async fn report_up(mut hypervisor: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    hypervisor.write_all(&[HEARTBEAT]).await?;
    match hypervisor.read_u8().await? {
        HEARTBEAT => Ok(()),
        other => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the hypervisor answered {other:#04x} to the heartbeat, not {HEARTBEAT:#04x}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
    use super::*;

    #[tokio::test]
    async fn heartbeat_is_sent_and_must_come_back() {
        for (answer, fine) in [(Some(0xB7), true), (Some(0xB8), false), (None, false)] {
            let (enclave, mut hypervisor) = tokio::io::duplex(8);
            let reported = tokio::spawn(report_up(enclave));
            assert_eq!(hypervisor.read_u8().await.unwrap(), 0xB7);
            if let Some(answer) = answer {
                hypervisor.write_all(&[answer]).await.unwrap();
            }
            drop(hypervisor);
            assert_eq!(reported.await.unwrap().is_ok(), fine, "{answer:?}");
        }
    }

    #[test]
    fn modules_load_in_the_order_of_their_names() {
        let folder = std::env::temp_dir().join(format!("custody-modules-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        for name in ["02-vsock.ko", "10-last.ko", "01-virtio.ko"] {
            fs::write(folder.join(name), b"").unwrap();
        }
        let found = modules(&folder).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        let names: Vec<_> = found.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["01-virtio.ko", "02-vsock.ko", "10-last.ko"]);
        assert_eq!(modules(&folder).unwrap(), Vec::<PathBuf>::new());
    }
}
