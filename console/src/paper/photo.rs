//! A photograph or scan of a sheet: the texts of the codes in it.
//!
//! An image is untrusted bytes: its size is checked before it is decoded, and only PNG and JPEG are decoded.

use std::collections::BTreeSet;
use std::io::Cursor;

use image::imageops::{FilterType, invert, resize};
use image::{GrayImage, ImageDecoder as _, ImageError, ImageFormat, ImageReader, Luma};
use rqrr::PreparedImage;
use thiserror::Error;

/// Largest image file: no telephone writes more.
pub const MAX_PHOTO: usize = 64 * 1024 * 1024;
/// The most pixels: a sheet scanned at 600 dpi has half as many.
const MAX_PIXELS: u64 = 64 * 1024 * 1024;
/// Longest side, in pixels, at which codes are searched for: more is only noise.
const LONGEST: u32 = 4_000;
/// Shortest side to which an image is reduced: below it, the codes of a sheet have no pixels left.
const SHORTEST: u32 = 600;

/// Why no codes can be read from an image.
#[derive(Debug, Error)]
pub enum PhotoError {
    /// Larger than any photograph of a sheet.
    #[error("the image is larger than {MAX_PHOTO} bytes: reduce it")]
    TooManyBytes,
    /// Larger than any photograph of a sheet.
    #[error(
        "the image has {width} × {height} pixels, more than the {MAX_PIXELS} in all that are read: reduce it"
    )]
    TooManyPixels {
        /// Across.
        width: u32,
        /// Down.
        height: u32,
    },
    /// Something else.
    #[error("the file is neither PNG nor JPEG: save the photograph as one of them")]
    Format,
    /// Cut off or damaged.
    #[error("the image cannot be decoded: copy it again")]
    Decoding(#[source] ImageError),
    /// Nothing to read.
    #[error(
        "no code of a Custody sheet can be read in the image ({unread} seen, but not sharp enough): photograph the \
         code from straight above, in focus and evenly lit, with all four corners and the white margin"
    )]
    NoCode {
        /// How many look like codes.
        unread: usize,
    },
}

/// What an image holds.
#[derive(Debug, Default)]
pub(super) struct Texts {
    /// Of every code that could be read.
    pub(super) texts: BTreeSet<String>,
    /// How many more were seen at the last pass.
    pub(super) unread: usize,
}

/// Where a code is, and how light the paper is there: white would make its neighbours look dark.
struct Place {
    /// The corners in a row, as fractions of the image's width.
    corners: [(f64, f64); 4],
    paper: Luma<u8>,
}

impl Place {
    fn new(image: &GrayImage, corners: [rqrr::Point; 4]) -> Self {
        let width = f64::from(image.width());
        let [corner, _, opposite, _] = corners;
        // A thirtieth of the diagonal outside of a corner: in the light margin.
        let outside = |at: i32, across: i32, limit: u32| {
            u32::try_from(at + (at - across) / 30).unwrap_or(0).min(limit - 1)
        };
        let x = outside(corner.x, opposite.x, image.width());
        let y = outside(corner.y, opposite.y, image.height());
        Self {
            corners: corners.map(|corner| (f64::from(corner.x) / width, f64::from(corner.y) / width)),
            paper: *image.get_pixel(x, y),
        }
    }

    /// Whether a point lies on the inner side of every edge, whichever way around the edges go.
    fn covers(&self, (x, y): (f64, f64)) -> bool {
        let next = self.corners.iter().cycle().skip(1);
        let side = |((ax, ay), (bx, by)): &(&(f64, f64), &(f64, f64))| {
            (bx - ax) * (y - ay) - (by - ay) * (x - ax) >= 0.0
        };
        matches!(self.corners.iter().zip(next).filter(side).count(), 0 | 4)
    }
}

fn decoded(bytes: &[u8]) -> Result<GrayImage, PhotoError> {
    if bytes.len() > MAX_PHOTO {
        return Err(PhotoError::TooManyBytes);
    }
    let Ok(format @ (ImageFormat::Png | ImageFormat::Jpeg)) = image::guess_format(bytes) else {
        return Err(PhotoError::Format);
    };
    let decoder = ImageReader::with_format(Cursor::new(bytes), format).into_decoder();
    let decoder = decoder.map_err(PhotoError::Decoding)?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(PhotoError::TooManyPixels { width, height });
    }
    Ok(image::DynamicImage::from_decoder(decoder).map_err(PhotoError::Decoding)?.into_luma8())
}

/// The sizes of the longer side at which an image is read, each an eighth smaller than the one before: whether a code
/// is just missed at one size is chance, and the next size is another chance.
fn sizes(longer: u32) -> impl Iterator<Item = u32> {
    let first = longer.min(LONGEST);
    std::iter::successors(Some(first), |size| Some(size - size / 8).filter(|size| *size >= SHORTEST))
}

fn resized(image: &GrayImage, size: u32) -> GrayImage {
    let (width, height) = image.dimensions();
    let longer = width.max(height);
    if longer == size {
        return image.clone();
    }
    let scaled = |length| u64::from(length) * u64::from(size) / u64::from(longer);
    let scaled = |length: u32| u32::try_from(scaled(length)).unwrap_or(size).max(1);
    resize(image, scaled(width), scaled(height), FilterType::Triangle)
}

/// Reads what is read at one size, and paints over it: its corners are not taken for those of a neighbour
/// again.
fn read(image: &mut GrayImage, all: &mut Texts, done: &mut Vec<Place>) {
    let width = image.width();
    for (x, y, pixel) in image.enumerate_pixels_mut() {
        let at = (f64::from(x) / f64::from(width), f64::from(y) / f64::from(width));
        if let Some(place) = done.iter().find(|place| place.covers(at)) {
            *pixel = place.paper;
        }
    }
    let pixel = |x: usize, y: usize| image.as_raw()[y * width as usize + x];
    let mut prepared = PreparedImage::prepare_from_greyscale(width as usize, image.height() as usize, pixel);
    all.unread = 0;
    for grid in prepared.detect_grids() {
        match grid.decode() {
            Ok((_, text)) => {
                done.push(Place::new(image, grid.bounds));
                all.texts.insert(text);
            }
            Err(_) => all.unread += 1,
        }
    }
}

/// The texts of the codes in an image, read at one size after the other until there are enough.
pub(super) fn texts(
    bytes: &[u8],
    is_enough: impl Fn(&BTreeSet<String>) -> bool,
) -> Result<Texts, PhotoError> {
    let mut image = decoded(bytes)?;
    let mut all = Texts::default();
    look(&image, &is_enough, &mut all);
    if all.texts.is_empty() {
        // Light on dark: a screen in dark mode, a negative. Such a code is not seen at all unless inverted.
        let unread = all.unread;
        invert(&mut image);
        look(&image, &is_enough, &mut all);
        all.unread = all.unread.max(unread);
    }
    Ok(all)
}

fn look(image: &GrayImage, is_enough: impl Fn(&BTreeSet<String>) -> bool, all: &mut Texts) {
    let mut done = Vec::new();
    for size in sizes(image.width().max(image.height())) {
        read(&mut resized(image, size), all, &mut done);
        if is_enough(&all.texts) {
            break;
        }
    }
}
