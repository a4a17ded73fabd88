//! Reading an enclave image and measuring it, as the Nitro hypervisor does before it starts one.
//!
//! It shares no code with what builds images, so that the two check each other. Nothing in a file is believed:
//! every offset and size is checked against its length.

use anyhow::{Context as _, Result, bail, ensure};
use ceremonies::attestation::{Measurement, Pcr};
use sha2::{Digest as _, Sha384};

/// Largest image that is read.
const MAX_IMAGE: usize = 512 * 1024 * 1024;
const MAGIC: &[u8; 4] = b".eif";
/// The header's length: four 16-bit and two 32-bit numbers, two 64-bit ones, the magic, and two tables of
/// 32 64-bit numbers (`EifHeader` of `aws-nitro-enclaves-image-format`).
const HEADER: usize = 548;
const SECTION_HEADER: usize = 12;
/// Where the header has its flags, its number of sections and their offsets.
const NUM_SECTIONS: usize = 26;
const OFFSETS: usize = 28;
const KERNEL: u16 = 1;
const COMMAND_LINE: u16 = 2;
const RAMDISK: u16 = 3;
const SIGNATURE: u16 = 4;
const METADATA: u16 = 5;

/// The parts of an image that are measured and run.
#[derive(Debug, PartialEq, Eq)]
pub struct Image {
    /// The kernel.
    pub kernel: Vec<u8>,
    /// Its command line.
    pub command_line: String,
    /// The ramdisks in order; the kernel gets them as one.
    pub ramdisks: Vec<Vec<u8>>,
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N]> {
    let end = at.checked_add(N).context("the image is cut short")?;
    Ok(bytes.get(at..end).context("the image is cut short")?.try_into()?)
}

impl Image {
    /// Reads an image without a signature.
    ///
    /// # Errors
    /// For anything that is not exactly one complete image.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        ensure!(bytes.len() <= MAX_IMAGE, "the image has {} bytes, more than {MAX_IMAGE}", bytes.len());
        ensure!(bytes.len() >= HEADER && bytes.starts_with(MAGIC), "this is not an enclave image");
        let sections = usize::from(u16::from_be_bytes(number(bytes, NUM_SECTIONS)?));
        ensure!(sections <= 32, "the image has {sections} sections");
        let (mut kernel, mut command_line, mut ramdisks) = (None, None, Vec::new());
        for section in 0..sections {
            let offset = u64::from_be_bytes(number(bytes, OFFSETS + 8 * section)?);
            let offset = usize::try_from(offset).context("a section lies outside the image")?;
            let (kind, content) = section_at(bytes, offset)?;
            match kind {
                KERNEL if kernel.is_none() => kernel = Some(content.to_vec()),
                COMMAND_LINE if command_line.is_none() => {
                    command_line = Some(String::from_utf8(content.to_vec())?);
                }
                RAMDISK => ramdisks.push(content.to_vec()),
                METADATA => {}
                SIGNATURE => bail!("the image is signed: the lab runs unsigned images only"),
                other => bail!("the image has a section of kind {other} that does not belong there"),
            }
        }
        Ok(Self {
            kernel: kernel.context("the image has no kernel")?,
            command_line: command_line.context("the image has no command line")?,
            ramdisks,
        })
    }

    /// PCR0 over everything, PCR1 over kernel, command line and first ramdisk, PCR2 over the other ramdisks:
    /// each SHA384(0⁴⁸ ‖ SHA384(data)).
    #[must_use]
    pub fn measure(&self) -> Measurement {
        let boot = [self.kernel.as_slice(), self.command_line.as_bytes()];
        let ramdisks: Vec<&[u8]> = self.ramdisks.iter().map(Vec::as_slice).collect();
        let (first, others) = ramdisks.split_at(ramdisks.len().min(1));
        Measurement {
            pcr0: register(boot.iter().chain(&ramdisks)),
            pcr1: register(boot.iter().chain(first)),
            pcr2: register(others.iter()),
            pcr8: None,
            until: None,
        }
    }
}

fn section_at(bytes: &[u8], offset: usize) -> Result<(u16, &[u8])> {
    let kind = u16::from_be_bytes(number(bytes, offset)?);
    let size = usize::try_from(u64::from_be_bytes(number(bytes, offset + 4)?))?;
    let begin = offset + SECTION_HEADER;
    let end = begin.checked_add(size).context("a section lies outside the image")?;
    Ok((kind, bytes.get(begin..end).context("a section lies outside the image")?))
}

fn register<'a>(parts: impl Iterator<Item = &'a &'a [u8]>) -> Pcr {
    let data = parts.fold(Sha384::new(), Sha384::chain_update).finalize();
    Pcr::from(<[u8; 48]>::from(Sha384::new().chain_update([0; 48]).chain_update(data).finalize()))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
    use super::*;

    fn image(sections: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        bytes[..4].copy_from_slice(MAGIC);
        bytes[NUM_SECTIONS..NUM_SECTIONS + 2]
            .copy_from_slice(&u16::try_from(sections.len()).unwrap().to_be_bytes());
        for (place, (kind, content)) in sections.iter().enumerate() {
            let offset = (bytes.len() as u64).to_be_bytes();
            bytes[OFFSETS + 8 * place..OFFSETS + 8 * place + 8].copy_from_slice(&offset);
            bytes.extend(kind.to_be_bytes());
            bytes.extend([0; 2]);
            bytes.extend((content.len() as u64).to_be_bytes());
            bytes.extend(*content);
        }
        bytes
    }

    const WHOLE: [(u16, &[u8]); 5] = [
        (KERNEL, b"kernel"),
        (COMMAND_LINE, b"quiet"),
        (METADATA, b"{}"),
        (RAMDISK, b"boot"),
        (RAMDISK, b"app"),
    ];

    #[test]
    fn each_register_covers_its_parts_and_the_metadata_none() {
        let whole = Image::read(&image(&WHOLE)).unwrap().measure();
        for (changed, registers) in
            [(0, [0, 1].as_slice()), (1, &[0, 1]), (2, &[]), (3, &[0, 1]), (4, &[0, 2])]
        {
            let mut sections = WHOLE;
            sections[changed].1 = b"other";
            let other = Image::read(&image(&sections)).unwrap().measure();
            let differing: Vec<u8> = whole
                .registers()
                .zip(other.registers())
                .filter(|((_, ours), (_, theirs))| ours != theirs)
                .map(|((index, _), _)| index)
                .collect();
            assert_eq!(differing, registers, "section {changed}");
        }
    }

    #[test]
    fn image_that_is_cut_incomplete_or_signed_is_refused() {
        let whole = image(&WHOLE);
        for end in [0, 3, HEADER - 1, HEADER + 3, whole.len() - 1] {
            assert!(Image::read(&whole[..end]).is_err(), "{end}");
        }
        for missing in 0..2 {
            let mut sections = WHOLE.to_vec();
            sections.remove(missing);
            assert!(Image::read(&image(&sections)).is_err(), "{missing}");
        }
        let mut signed = WHOLE.to_vec();
        signed.push((SIGNATURE, b"x"));
        assert!(Image::read(&image(&signed)).unwrap_err().to_string().contains("signed"));
        let mut far = whole;
        far[OFFSETS..OFFSETS + 8].copy_from_slice(&u64::MAX.to_be_bytes());
        assert!(Image::read(&far).is_err());
    }
}
