//! What virtual machines need of this computer: QEMU, the vsock device, a kernel with its modules, and the
//! program that builds images.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::programs;

const DEVICE: &str = "vhost-device-vsock";
const EMULATOR: &str = "qemu-system-x86_64";
const KERNEL_PACKAGE: &str = "linux-image-cloud-amd64";
/// The kernel's command line in the lab: any panic ends the machine. On a busy host, the emulated timer is too slow for
/// the kernel to measure the CPU's clock by it, and if that fails the kernel waits for ever; so it is given a
/// frequency, and finds out by itself not to trust it.
const COMMAND_LINE: &str = "console=ttyS0 reboot=k panic=1 quiet random.trust_cpu=on tsc_early_khz=2000000";
/// QEMU's own accelerator, with one thread per CPU of the guest.
const EMULATION: &str = "tcg,thread=multi";
/// How long a kernel may take to panic under KVM; it takes a second.
const KVM_PATIENCE: Duration = Duration::from_secs(5);
/// The modules of Debian's 6.1 kernel that vsock needs, each after its own dependencies.
const MODULES: [&str; 6] = [
    "drivers/virtio/virtio_ring.ko",
    "drivers/virtio/virtio.ko",
    "drivers/virtio/virtio_mmio.ko",
    "net/vmw_vsock/vsock.ko",
    "net/vmw_vsock/vmw_vsock_virtio_transport_common.ko",
    "net/vmw_vsock/vmw_vsock_virtio_transport.ko",
];

/// The programs under which a machine runs.
#[derive(Debug, Clone)]
pub struct Tools {
    pub(super) emulator: PathBuf,
    pub(super) device: PathBuf,
    /// QEMU's accelerator: KVM if it works, else emulation.
    pub(super) accelerator: &'static str,
}

/// All that a cluster of machines needs.
#[derive(Debug, Clone)]
pub struct Machines {
    /// The programs under which they run.
    pub tools: Tools,
    builder: PathBuf,
    target: PathBuf,
    kernel: Kernel,
}

#[derive(Debug, Clone)]
struct Kernel {
    image: PathBuf,
    modules: Vec<PathBuf>,
}

impl Tools {
    /// Looks for QEMU and the vsock device.
    ///
    /// # Errors
    /// Says what is missing and how to install it.
    pub fn find() -> Result<Self> {
        let emulator = program(EMULATOR).context("QEMU is missing: apt-get install qemu-system-x86")?;
        let device = program(DEVICE).context(
            "the vsock device is missing: cargo install vhost-device-vsock --version 0.3.0 --locked",
        )?;
        Ok(Self { emulator, device, accelerator: EMULATION })
    }
}

impl Machines {
    /// Finds the tools, and builds and fetches the rest into the folder of cargo's outputs.
    ///
    /// # Errors
    /// Says what is missing and how to get it.
    pub fn prepare() -> Result<Self> {
        let mut tools = Tools::find()?;
        let target = programs::target()?;
        let kernel = kernel(&target.join("kernel"))?;
        if kvm_works(&tools.emulator, &kernel.image) {
            tools.accelerator = "kvm";
        }
        Ok(Self { tools, builder: build_builder(&target)?, target, kernel })
    }

    /// Builds the image of a cluster, which has the cluster's roots in it, and returns what the builder says
    /// it measures, as TOML.
    ///
    /// # Errors
    /// When the image cannot be built.
    pub fn build_image(&self, attestation_root: &Path, kms_root: &Path, image: &Path) -> Result<String> {
        let mut command = Command::new(&self.builder);
        command.args(["--program", "lab-enclave", "--target-dir"]).arg(&self.target);
        command.arg("--kernel").arg(&self.kernel.image);
        for module in &self.kernel.modules {
            command.arg("--module").arg(module);
        }
        for (place, file) in [("roots/attestation.pem", attestation_root), ("roots/kms.pem", kms_root)] {
            command.arg("--file").arg(format!("{place}={}", file.display()));
        }
        command.args(["--cmdline", COMMAND_LINE]).arg("--output").arg(image);
        printed(&mut command)
    }
}

fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let cargo = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo/bin"));
    let places = std::env::split_paths(&path).chain(cargo);
    places.map(|folder| folder.join(name)).find(|program| program.is_file())
}

/// Whether a machine really runs under KVM: even with the device file present, it may hang. A kernel without a ramdisk
/// panics at once, and that ends the machine.
fn kvm_works(emulator: &Path, kernel: &Path) -> bool {
    let machine =
        ["-M", "microvm", "-accel", "kvm", "-cpu", "max", "-m", "128M", "-nodefaults", "-nographic"];
    let probe = Command::new(emulator)
        .args(machine)
        .args(["-no-reboot", "-append", "reboot=k panic=-1", "-kernel"])
        .arg(kernel)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut probe) = probe else { return false };
    let begun = Instant::now();
    while begun.elapsed() < KVM_PATIENCE {
        match probe.try_wait() {
            Ok(Some(status)) => return status.success(),
            Ok(None) => std::thread::sleep(Duration::from_millis(50)),
            Err(_) => break,
        }
    }
    // A machine that hangs reacts to no other signal.
    let _ = probe.kill();
    let _ = probe.wait();
    false
}

fn printed(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("running {}", command.get_program().display()))?;
    if !output.status.success() {
        bail!("{}: {}", command.get_program().display(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// The image builder, in a build of its own, since nothing else here shares its dependencies.
fn build_builder(target: &Path) -> Result<PathBuf> {
    let folder = programs::workspace().join("enclave/image");
    let target = target.join("image-builder");
    printed(programs::cargo_build(&folder).args(["--release", "--locked", "--target-dir"]).arg(&target))
        .context("building the image builder (it needs OpenSSL: apt-get install libssl-dev pkg-config)")?;
    Ok(target.join("release/custody-image"))
}

/// Debian's kernel for virtual machines, fetched and checked by apt and unpacked, not installed.
fn kernel(folder: &Path) -> Result<Kernel> {
    if found_kernel(folder).is_err() {
        std::fs::create_dir_all(folder)?;
        let depends = printed(Command::new("apt-cache").args(["depends", KERNEL_PACKAGE]))?;
        let package = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: linux-image-"));
        let package =
            package.with_context(|| format!("apt does not know {KERNEL_PACKAGE}; run apt-get update"))?;
        let package = format!("linux-image-{package}");
        printed(Command::new("apt-get").args(["download", &package]).current_dir(folder)).context(
            "fetching a kernel; on a system other than Debian, unpack a Debian kernel there yourself",
        )?;
        let archive = std::fs::read_dir(folder)?
            .filter_map(|file| Some(file.ok()?.path()))
            .find(|file| file.extension().is_some_and(|extension| extension == "deb"))
            .context("apt-get fetched no package")?;
        printed(Command::new("dpkg").arg("-x").arg(archive).arg(folder))?;
    }
    found_kernel(folder)
}

fn found_kernel(folder: &Path) -> Result<Kernel> {
    let boot = std::fs::read_dir(folder.join("boot"))
        .with_context(|| format!("no kernel in {}", folder.display()))?;
    let image = boot
        .filter_map(|file| Some(file.ok()?.path()))
        .find(|file| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-")))
        .with_context(|| format!("no kernel in {}", folder.display()))?;
    let release = image.file_name().and_then(|name| name.to_str()?.strip_prefix("vmlinuz-"));
    let release = release.context("a kernel without a release in its name")?;
    let modules = folder.join("lib/modules").join(release).join("kernel");
    let modules: Vec<PathBuf> = MODULES.iter().map(|module| modules.join(module)).collect();
    for module in &modules {
        ensure!(module.is_file(), "the kernel in {} has no {}", folder.display(), module.display());
    }
    Ok(Kernel { image, modules })
}
