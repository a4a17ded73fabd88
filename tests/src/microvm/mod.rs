//! Enclaves as virtual machines: an image under QEMU, reached over vsock only, as on a Nitro host.
//!
//! The machine is started from the very bytes that were measured a moment before; neither the guest nor its agent has a
//! say in either. It gets no disk, no network and no device other than vsock and a write-only console.

mod eif;
mod tools;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lab_enclave::MODULE_PORT;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tracing::warn;

pub use self::eif::Image;
pub use self::tools::{Machines, Tools};
use crate::nsm::{LabRoot, ModuleServer};
use crate::service::{Launched, logged};
use crate::write_private;

/// Memory of a machine, in MiB.
const MEMORY: &str = "192M";
/// How long the vsock device may take to appear; it is a small process on this machine.
const DEVICE_PATIENCE: Duration = Duration::from_secs(10);
/// How long a guest may take until its enclave listens. Only a new start cures one that hangs.
const BOOT_PATIENCE: Duration = Duration::from_mins(2);
/// What the enclave's log has when it listens.
const LISTENS: &str = "enclave listens";
/// The socket in a node's folder on which its agent reaches the guest's vsock ports.
pub(crate) const VSOCK: &str = "vsock.sock";
/// The device's context id for its one guest: any above those of hypervisor and host.
const GUEST_CID: u32 = 4;

/// The files of one node's machine.
pub(crate) struct Machine {
    folder: PathBuf,
    image: PathBuf,
    tools: Tools,
}

/// What must live as long as a machine runs.
struct Companions {
    _device: Child,
    _module: ModuleServer,
    watch: JoinHandle<()>,
}

impl Drop for Companions {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl Machine {
    pub(crate) fn new(folder: &Path, image: &Path, tools: &Tools) -> Self {
        Self { folder: folder.to_owned(), image: image.to_owned(), tools: tools.clone() }
    }

    /// Measures the image, opens a security module for what was measured, and starts the machine from the
    /// same bytes.
    pub(crate) fn launch(&self, root: &Arc<LabRoot>) -> Result<Launched> {
        let bytes = fs::read(&self.image).with_context(|| format!("reading {}", self.image.display()))?;
        let image = Image::read(&bytes)?;
        let (kernel, ramdisk) = (self.folder.join("kernel"), self.folder.join("ramdisk"));
        let (vsock, device_socket) = (self.folder.join(VSOCK), self.folder.join("device.sock"));
        for old in [&kernel, &ramdisk, &vsock, &device_socket] {
            match fs::remove_file(old) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("removing {}", old.display()));
                }
                Ok(()) | Err(_) => {}
            }
        }
        write_private(&kernel, &image.kernel)?;
        write_private(&ramdisk, &image.ramdisks.concat())?;
        let console = self.folder.join("enclave.log");
        let module_socket = PathBuf::from(format!("{}_{MODULE_PORT}", vsock.display()));
        let module = ModuleServer::start(&module_socket, Arc::clone(root), image.measure())?;
        let device = logged(&self.tools.device, &self.folder.join("device.log"))?
            .arg("--vm")
            .arg(format!(
                "guest-cid={GUEST_CID},socket={},uds-path={}",
                device_socket.display(),
                vsock.display()
            ))
            .spawn()
            .context("starting vhost-device-vsock")?;
        if let Some(process) = device.id() {
            module.admit_only(process);
        }
        wait_for_socket(&device_socket)?;
        let seen = fs::metadata(&console).map_or(0, |metadata| metadata.len());
        let child =
            self.emulator(&kernel, &ramdisk, &image.command_line, &device_socket, &console)?.spawn()?;
        let watch = tokio::spawn(watch(child.id(), console, seen));
        Ok(Launched {
            child,
            companion: Some(Box::new(Companions { _device: device, _module: module, watch })),
        })
    }

    fn emulator(
        &self,
        kernel: &Path,
        ramdisk: &Path,
        command_line: &str,
        device: &Path,
        console: &Path,
    ) -> Result<Command> {
        let mut command = logged(&self.tools.emulator, &self.folder.join("qemu.log"))?;
        command
            .args(["-M", "microvm,acpi=on,isa-serial=on,memory-backend=mem0", "-cpu", "max", "-m", MEMORY])
            .args(["-accel", self.tools.accelerator])
            .arg("-object")
            .arg(format!("memory-backend-memfd,id=mem0,size={MEMORY},share=on"))
            .arg("-kernel")
            .arg(kernel)
            .arg("-initrd")
            .arg(ramdisk)
            .args(["-append", command_line, "-nographic", "-nodefaults", "-no-reboot"])
            .arg("-chardev")
            .arg(format!("file,id=log,append=on,path={}", console.display()))
            .args(["-serial", "chardev:log"])
            .arg("-chardev")
            .arg(format!("socket,id=vsock,path={}", device.display()))
            .args(["-device", "vhost-user-vsock-device,chardev=vsock"]);
        Ok(command)
    }
}

fn wait_for_socket(socket: &Path) -> Result<()> {
    let begun = Instant::now();
    while !socket.exists() {
        ensure!(begun.elapsed() < DEVICE_PATIENCE, "vhost-device-vsock opened no {}", socket.display());
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Ends a machine whose enclave does not start listening, so that it is started again.
async fn watch(emulator: Option<u32>, console: PathBuf, seen: u64) {
    let begun = Instant::now();
    while begun.elapsed() < BOOT_PATIENCE {
        let log = fs::read(&console).unwrap_or_default();
        let new = log.get(usize::try_from(seen).unwrap_or(usize::MAX)..).unwrap_or_default();
        if String::from_utf8_lossy(new).contains(LISTENS) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let pid = emulator.and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        warn!(console = %console.display(), "the guest did not boot; restarting its machine");
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}
