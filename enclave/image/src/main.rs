//! `custody-image`: builds the enclave's program, packs it with a kernel and its modules into an EIF, and prints
//! the measurement as a charter takes it.
//!
//! The same sources give the same bytes: no time, path, owner or order of a folder gets in.

mod program;
mod ramdisk;

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use aws_nitro_enclaves_image_format::defs::{EifBuildInfo, EifIdentityInfo};
use aws_nitro_enclaves_image_format::utils::{EifBuilder, SignKeyData};
use clap::Parser;
use sha2::{Digest as _, Sha384};

use self::program::Program;
use self::ramdisk::Ramdisk;

/// Kernel command line of an AWS enclave: no disk, no PCI, no modules but the image's, the CPU's randomness.
const COMMAND_LINE: &str = "reboot=k panic=30 pci=off console=ttyS0 random.trust_cpu=on";

/// Builds an enclave image and prints its measurement as TOML for a charter.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The program that becomes the image's first process.
    #[arg(long, value_enum, default_value_t)]
    program: Program,
    /// Where cargo builds it.
    #[arg(long, default_value = "target")]
    target_dir: PathBuf,
    /// The kernel: AWS's for Nitro, Debian's for a microVM.
    #[arg(long)]
    kernel: PathBuf,
    /// A module of that kernel; given several times, they load in this order.
    #[arg(long = "module")]
    modules: Vec<PathBuf>,
    /// A file that the program reads: its path in the image, `=`, the file here.
    #[arg(long = "file", value_parser = placed)]
    files: Vec<(String, PathBuf)>,
    /// The kernel's command line.
    #[arg(long, default_value = COMMAND_LINE)]
    cmdline: String,
    /// Sign the image: the PEM of the certificate, which becomes PCR8.
    #[arg(long, requires = "key")]
    certificate: Option<PathBuf>,
    /// The PEM of the certificate's private key, or the ARN of a KMS key.
    #[arg(long, requires = "certificate")]
    key: Option<String>,
    /// The image to write; one that exists is not overwritten. Its measurement goes beside it, with the
    /// ending `.toml`, as `custody charter allow` takes it.
    #[arg(long, short)]
    output: PathBuf,
}

fn placed(text: &str) -> Result<(String, PathBuf)> {
    match text.split_once('=') {
        Some((place, file)) if !place.is_empty() && !file.is_empty() => {
            Ok((place.trim_start_matches('/').to_owned(), file.into()))
        }
        _ => bail!("write PATH_IN_IMAGE=FILE"),
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let folder = tempfile::tempdir()?;
    let boot = boot_ramdisk(&arguments.modules)?.write(&folder.path().join("boot"))?;
    let program = program_ramdisk(&arguments)?.write(&folder.path().join("program"))?;
    let signer = match (&arguments.key, &arguments.certificate) {
        (Some(key), Some(certificate)) => Some(
            SignKeyData::new(key, certificate)
                .map_err(anyhow::Error::msg)
                .context("reading the signing key")?,
        ),
        _ => None,
    };
    // AWS's library panics where it cannot open it.
    File::open(&arguments.kernel)
        .with_context(|| format!("opening the kernel {}", arguments.kernel.display()))?;
    let mut image = EifBuilder::new(
        &arguments.kernel,
        arguments.cmdline.clone(),
        signer,
        Sha384::new(),
        architecture()?,
        identity(),
    );
    image.add_ramdisk(&boot);
    image.add_ramdisk(&program);
    let mut output = File::create_new(&arguments.output)
        .with_context(|| format!("creating {}", arguments.output.display()))?;
    let measured = image.write_to(&mut output);
    output.sync_all()?;
    let registers = ["PCR0", "PCR1", "PCR2", "PCR8"].into_iter().filter_map(|register| {
        measured.get(register).map(|value| format!("{} = \"{value}\"\n", register.to_lowercase()))
    });
    let measurement: String = registers.collect();
    let beside = arguments.output.with_extension("toml");
    std::fs::write(&beside, &measurement).with_context(|| format!("writing {}", beside.display()))?;
    print!("{measurement}");
    Ok(())
}

/// Folders, the console, and the modules in loading order: what AWS's own image has in its first ramdisk.
fn boot_ramdisk(modules: &[PathBuf]) -> Result<Ramdisk> {
    let mut ramdisk = Ramdisk::default();
    for folder in ["dev", "proc", "sys"] {
        ramdisk.folder(folder);
    }
    ramdisk.console("dev/console");
    for (number, module) in modules.iter().enumerate() {
        let name = module.file_name().with_context(|| format!("{} is no file", module.display()))?;
        let name = name.to_str().context("a module's name is not UTF-8")?;
        ramdisk.file(&format!("modules/{number:02}-{name}"), read(module)?, false);
    }
    Ok(ramdisk)
}

fn program_ramdisk(arguments: &Arguments) -> Result<Ramdisk> {
    let program = arguments.program.build(&arguments.target_dir)?;
    let mut ramdisk = Ramdisk::default();
    ramdisk.file("init", read(&program)?, true);
    for (place, file) in &arguments.files {
        ramdisk.file(place, read(file)?, false);
    }
    Ok(ramdisk)
}

fn read(file: &Path) -> Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("reading {}", file.display()))
}

fn architecture() -> Result<u16> {
    match std::env::consts::ARCH {
        "x86_64" => Ok(0),
        "aarch64" => Ok(aws_nitro_enclaves_image_format::defs::EIF_HDR_ARCH_ARM64),
        other => bail!("no enclave runs on {other}"),
    }
}

/// The image says what built it and nothing of when or where: the same inputs give the same bytes.
fn identity() -> EifIdentityInfo {
    EifIdentityInfo {
        img_name: "custody-enclave".to_owned(),
        img_version: env!("CARGO_PKG_VERSION").to_owned(),
        build_info: EifBuildInfo {
            build_time: "1970-01-01T00:00:00+00:00".to_owned(),
            build_tool: env!("CARGO_PKG_NAME").to_owned(),
            build_tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            img_os: "Linux".to_owned(),
            img_kernel: "as measured".to_owned(),
        },
        docker_info: serde_json::Value::Null,
        custom_info: serde_json::Value::Null,
    }
}
