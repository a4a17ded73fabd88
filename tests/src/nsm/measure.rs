//! What an enclave is measured to be, with AWS's formula over the lab's parts.
//!
//! AWS measures an image of kernel, command line and ramdisks. An enclave that runs as a process is a file
//! and what it is told to trust, so the registers cover: PCR0 the file (AWS: the whole image), PCR1 the way
//! it is run, [`LAB_BOOT`] (AWS: kernel, command line and first ramdisk), PCR2 the trust roots it is given
//! (AWS: the application, which holds its roots itself). Other arguments are left out: they name sockets,
//! which differ from node to node, while a charter allows one image for all.

use std::path::Path;

use anyhow::Context as _;
use ceremonies::attestation::{Measurement, Pcr};
use sha2::{Digest as _, Sha384};

/// How a lab enclave is run, measured into PCR1: a document about a process is never taken for one about a virtual
/// machine.
pub const LAB_BOOT: &[u8] = b"custody-lab/boot/process/v1";

/// A register that started at zero and was extended once: SHA384(0⁴⁸ ‖ SHA384(data)).
#[must_use]
pub fn register(data: &[u8]) -> Pcr {
    let extended = Sha384::new().chain_update([0; 48]).chain_update(Sha384::digest(data)).finalize();
    Pcr::from(<[u8; 48]>::from(extended))
}

/// Measures a program and the trust roots it will be given, in this order, all in memory.
#[must_use]
pub fn measure_bytes(program: &[u8], roots: &[&[u8]]) -> Measurement {
    // Hashed one by one, so that no byte can move from one root's file to the next.
    let roots: Vec<u8> = roots.iter().flat_map(Sha384::digest).collect();
    Measurement {
        pcr0: register(program),
        pcr1: register(LAB_BOOT),
        pcr2: register(&roots),
        pcr8: None,
        until: None,
    }
}

/// Measures a program and the trust roots it will be given, in files. The launcher must start those same
/// files, from a folder that only it may write to: one changed between the two would run under another
/// one's name.
///
/// # Errors
/// When a file cannot be read.
pub fn measure(program: &Path, roots: &[&Path]) -> anyhow::Result<Measurement> {
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("measuring {}", path.display()));
    let program = read(program)?;
    let roots = roots.iter().map(|root| read(root)).collect::<anyhow::Result<Vec<_>>>()?;
    let roots: Vec<&[u8]> = roots.iter().map(Vec::as_slice).collect();
    Ok(measure_bytes(&program, &roots))
}
