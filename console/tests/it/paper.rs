//! Paper: what is printed comes back, byte for byte, and nothing else does.

use std::io::{Cursor, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use ceremonies::ids::{Generation, Hash, NodeIndex};
use console::paper::{
    ArmourError, Gathering, InvalidCode, PaperError, PhotoError, ScanError, SetId, Sheet, codes, page,
};
use image::{GrayImage, ImageFormat, Luma};
use proptest::prelude::*;
use qrcode::{EcLevel, QrCode};

/// A file that looks like age's: its header, then bytes without a pattern.
fn file(length: usize) -> Vec<u8> {
    let mut file = b"age-encryption.org/v1\n".to_vec();
    for block in 0_u32.. {
        if file.len() >= length {
            break;
        }
        file.extend(Hash::of_bytes(&block.to_be_bytes()).as_bytes());
    }
    file.truncate(length);
    file
}

fn sheet(file: &[u8]) -> Sheet<'_> {
    Sheet {
        cluster: "lab-1".parse().unwrap(),
        wallet: "treasury".parse().unwrap(),
        generation: Generation(3),
        node: NodeIndex::new(2).unwrap(),
        serial: "A-0017 <safe & sound>".parse().unwrap(),
        record: Hash::of_bytes(b"record"),
        file,
    }
}

/// What stands between two marks, for every pair of them.
fn between<'a>(text: &'a str, open: &str, close: &str) -> Vec<&'a str> {
    text.split(open).skip(1).map(|rest| rest.split(close).next().unwrap()).collect()
}

/// Draws the page's own drawing: every rectangle of the path, `pixels` a module.
fn rasterised(svg: &str, pixels: u32) -> GrayImage {
    let size: u32 = between(svg, "viewBox=\"0 0 ", " ")[0].parse().unwrap();
    let mut image = GrayImage::from_pixel(size * pixels, size * pixels, Luma([255]));
    for run in between(svg, "M", "v1") {
        let (x, rest) = run.split_once(' ').unwrap();
        let (y, length) = rest.split_once('h').unwrap();
        let [x, y, length] = [x, y, length].map(|number| number.parse::<u32>().unwrap());
        for (dx, dy) in (0..length * pixels).flat_map(|dx| (0..pixels).map(move |dy| (dx, dy))) {
            image.put_pixel(x * pixels + dx, y * pixels + dy, Luma([0]));
        }
    }
    image
}

fn drawings(page: &str) -> Vec<&str> {
    between(page, "<svg", "</svg>")
}

fn encoded(image: &GrayImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// Any text as an image with one code.
fn code_image(text: &str) -> Vec<u8> {
    let code = QrCode::with_error_correction_level(text, EcLevel::M).unwrap();
    let image = code.to_colors().into_iter().map(|color| color.select(0_u8, 255)).collect();
    let width = u32::try_from(code.width()).unwrap();
    let modules = GrayImage::from_raw(width, width, image).unwrap();
    let mut all = GrayImage::from_pixel(width + 8, width + 8, Luma([255]));
    image::imageops::replace(&mut all, &modules, 4, 4);
    let side = all.width() * 4;
    let image = image::imageops::resize(&all, side, side, image::imageops::FilterType::Nearest);
    encoded(&image, ImageFormat::Png)
}

/// All drawings in two columns, as a scanner sees the sheet.
fn together(drawings: &[GrayImage]) -> GrayImage {
    let cell = drawings[0].width() + 10;
    let count = u32::try_from(drawings.len()).unwrap();
    let mut sheet = GrayImage::from_pixel(count.min(2) * cell, count.div_ceil(2) * cell, Luma([255]));
    for (index, drawing) in (0..count).zip(drawings) {
        let (x, y) = (index % 2 * cell, index / 2 * cell);
        image::imageops::replace(&mut sheet, drawing, i64::from(x), i64::from(y));
    }
    sheet
}

/// As a phone sees it on a grey table: rotated, from slightly below, in uneven light, with blur and noise.
#[expect(clippy::cast_precision_loss, reason = "a few thousand pixels")]
fn photographed(sheet: &GrayImage, degrees: f32) -> GrayImage {
    use rand::{RngExt as _, SeedableRng as _};
    let mut random = rand::rngs::StdRng::seed_from_u64(7);
    let side = sheet.width().max(sheet.height()) * 3 / 2;
    let (sin, cos) = degrees.to_radians().sin_cos();
    let middle = side as f32 / 2.0;
    let (centre_x, centre_y) = (sheet.width() as f32 / 2.0, sheet.height() as f32 / 2.0);
    let photo = GrayImage::from_fn(side, side, |x, y| {
        let (dx, dy) = (x as f32 - middle, y as f32 - middle);
        let depth = 1.0 / (1.0 - 0.05 * dy / middle);
        let (dx, dy) = (dx * depth, dy * depth);
        let (x, y) = (centre_x + dx * cos + dy * sin, centre_y - dx * sin + dy * cos);
        let paper = image::imageops::interpolate_bilinear(sheet, x, y);
        let light = 0.55 + 0.25 * dx / middle;
        let shade = 40.0 + paper.map_or(180.0, |Luma([value])| f32::from(value)) * light;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
        let shade = shade.clamp(0.0, 255.0) as u8;
        Luma([shade])
    });
    let mut photo = image::imageops::blur(&photo, 1.0);
    for Luma([value]) in photo.pixels_mut() {
        *value = value.saturating_add(random.random_range(0..20)).saturating_sub(10);
    }
    photo
}

fn gathered(lines: &[String]) -> Gathering {
    let mut gathering = Gathering::default();
    for line in lines {
        gathering.take_line(line).unwrap();
    }
    gathering
}

#[test]
fn every_drawing_of_a_page_is_read_back_to_the_file() {
    for length in [254, 600, 6_000] {
        let file = file(length);
        let page = page(&sheet(&file)).unwrap();
        let drawings = drawings(&page);
        assert_eq!(drawings.len(), length.div_ceil(600));
        let mut gathering = Gathering::default();
        for drawing in drawings {
            assert!(!gathering.is_complete());
            let seen = gathering.take_image(&encoded(&rasterised(drawing, 4), ImageFormat::Png)).unwrap();
            assert_eq!((seen.taken.len(), seen.unread), (1, 0));
        }
        assert!(gathering.finish().unwrap() == file);
    }
}

#[test]
fn one_scan_of_the_whole_sheet_gives_every_code() {
    let file = file(6_000);
    let page = page(&sheet(&file)).unwrap();
    let drawings: Vec<GrayImage> = drawings(&page).iter().map(|svg| rasterised(svg, 4)).collect();
    let mut gathering = Gathering::default();
    let seen = gathering.take_image(&encoded(&together(&drawings), ImageFormat::Jpeg)).unwrap();
    let numbers: Vec<u32> = seen.taken.iter().map(|taken| taken.place.number()).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    assert!(gathering.finish().unwrap() == file);
}

#[test]
fn photographs_are_read_though_crooked_dim_and_noisy() {
    for (length, degrees) in [(254, 0.0), (600, -7.0), (600, 30.0), (1_200, 4.0)] {
        let file = file(length);
        let page = page(&sheet(&file)).unwrap();
        let drawings: Vec<GrayImage> = drawings(&page).iter().map(|svg| rasterised(svg, 8)).collect();
        let photo = photographed(&together(&drawings), degrees);
        let mut gathering = Gathering::default();
        gathering.take_image(&encoded(&photo, ImageFormat::Jpeg)).unwrap();
        assert!(gathering.finish().unwrap() == file, "{length} bytes, {degrees} degrees");
    }
}

#[test]
fn each_missing_code_is_named() {
    let file = file(2_700);
    let lines = codes(&file).unwrap();
    assert_eq!(lines.len(), 5);
    for gone in 0..lines.len() {
        let mut some = lines.clone();
        some.remove(gone);
        let gathering = gathered(&some);
        let number = u32::try_from(gone + 1).unwrap();
        assert_eq!(gathering.missing(), [number]);
        assert!(!gathering.is_complete());
        let refused = gathering.finish().unwrap_err().to_string();
        assert_eq!(refused, format!("of 5 codes, these are missing: {number}; scan them"));
    }
    assert!(matches!(Gathering::default().finish(), Err(ScanError::Nothing)));
}

#[test]
fn codes_of_two_sets_do_not_mix() {
    let (one, other) = (codes(&file(1_500)).unwrap(), codes(&file(1_501)).unwrap());
    let mut gathering = gathered(&one[..1]);
    let refused = gathering.take_line(&other[1]).unwrap_err();
    assert!(matches!(&refused, ScanError::OtherSet { place, .. } if place.number() == 2));
    for id in [SetId::of(&file(1_500)), SetId::of(&file(1_501))] {
        assert!(refused.to_string().contains(&id.to_string()), "{refused}");
    }
    gathering.take_line(&one[1]).unwrap();
    gathering.take_image(&code_image(&other[2])).unwrap_err();
    gathering.take_line(&one[2]).unwrap();
    assert!(gathering.finish().unwrap() == file(1_500));
}

/// A code with a matching checksum, as only a deceiver would write it.
fn forged(line: &str, change: impl Fn(&mut Vec<String>)) -> String {
    let mut fields: Vec<String> = line.split('/').map(str::to_owned).collect();
    fields.pop();
    change(&mut fields);
    let body = fields.join("/");
    let check = hex::encode_upper(&Hash::of_bytes(body.as_bytes()).as_bytes()[..4]);
    format!("{body}/{check}")
}

#[test]
fn codes_that_only_look_right_do_not_make_a_file() {
    let lines = codes(&file(1_200)).unwrap();
    let swapped = forged(&lines[1], |fields| fields[4] = lines[0].split('/').nth(4).unwrap().to_owned());
    let gathering = gathered(&[lines[0].clone(), swapped.clone()]);
    assert!(matches!(gathering.finish(), Err(ScanError::OtherFile { .. })));

    let mut gathering = gathered(&lines);
    for line in [swapped, forged(&lines[1], |fields| fields[3] = "3".to_owned())] {
        assert!(matches!(gathering.take_line(&line), Err(ScanError::Contradiction { .. })));
    }
    for (field, value) in [(2, "0"), (2, "3"), (3, "4000000000"), (2, "X"), (1, "00"), (4, "A")] {
        let line = forged(&lines[1], |fields| fields[field] = value.to_owned());
        let refused = gathering.take_line(&line).unwrap_err();
        assert!(matches!(refused, ScanError::Code(InvalidCode::Shape(_))), "{refused}");
    }
    assert!(gathering.finish().unwrap() == file(1_200));
}

#[test]
fn keyboards_of_other_layouts_do_not_matter() {
    let lines = codes(&file(1_200)).unwrap();
    let german = lines[0].replace('/', "-").replace('Y', "#").replace('Z', "Y").replace('#', "Z");
    let caps_lock = format!(" {}\r\n", lines[1].to_lowercase());
    assert!(gathered(&[german, caps_lock]).finish().unwrap() == file(1_200));

    let french = "CUSTODY&!QQQ";
    let refused = Gathering::default().take_line(french).unwrap_err().to_string();
    assert!(refused.contains("keyboard"), "{refused}");
    assert!(Gathering::default().take_line(&"A".repeat(100_000)).unwrap_err().to_string().len() < 200);
}

#[test]
fn armour_comes_back_as_it_was_typed() {
    for length in [48, 254, 600, 912] {
        let file = file(length);
        let page = page(&sheet(&file)).unwrap();
        let armour = between(&page, "<pre class=\"armour\">", "</pre>")[0];
        let typed = format!("\n{}  \n\n", armour.replace('\n', " \r\n\n "));
        let mut gathering = Gathering::default();
        assert_eq!(gathering.take_armour(&typed).unwrap(), SetId::of(&file));
        assert!(gathering.is_complete());
        assert!(gathering.finish().unwrap() == file);
    }
}

#[test]
fn a_mistyped_line_of_armour_is_named() {
    let file = file(600);
    let page = page(&sheet(&file)).unwrap();
    let armour = between(&page, "<pre class=\"armour\">", "</pre>")[0];
    let change = |number: usize, change: &dyn Fn(&str) -> String| {
        let mut lines: Vec<String> = armour.lines().map(str::to_owned).collect();
        lines[number - 1] = change(&lines[number - 1]);
        Gathering::default().take_armour(&lines.join("\n")).unwrap_err()
    };
    let refused = change(5, &|line| line[1..].to_owned());
    assert!(matches!(refused, ScanError::Armour(ArmourError::Length { line: 5, length: 63 })), "{refused}");
    let refused = change(6, &|line| format!("!{}", &line[1..]));
    assert!(matches!(refused, ScanError::Armour(ArmourError::Base64 { line: 6 })), "{refused}");
    let refused = change(7, &|line| format!("{}==", &line[2..]));
    assert!(matches!(refused, ScanError::Armour(ArmourError::Base64 { line: 7 })), "{refused}");
    let refused = change(2, &|line| line.to_lowercase());
    assert!(matches!(refused, ScanError::Armour(ArmourError::NotAge)), "{refused}");
    for without in [1, armour.lines().count()] {
        let refused = change(without, &|_| String::new());
        assert!(matches!(refused, ScanError::Armour(ArmourError::Frame)), "{refused}");
    }

    let wrong = armour.replacen("\nY", "\nZ", 1);
    let other = armour.lines().nth(4).unwrap();
    let wrong = if wrong == armour { armour.replace(other, &other.to_lowercase()) } else { wrong };
    let mut gathering = gathered(&codes(&file).unwrap());
    gathering.take_armour(&wrong).unwrap_err();
    assert!(gathering.finish().unwrap() == file);
}

#[test]
fn only_what_age_encrypted_is_printed() {
    let refused = |file: &[u8]| page(&sheet(file)).unwrap_err();
    assert!(matches!(refused(b""), PaperError::NotAge));
    assert!(matches!(refused(b"AGE-SECRET-KEY-1"), PaperError::NotAge));
    assert!(matches!(refused(b"-----BEGIN AGE ENCRYPTED FILE-----\n"), PaperError::Armoured));
    assert!(matches!(refused(&file(16 * 1024 + 1)), PaperError::TooLarge));
    let largest = file(16 * 1024);
    assert!(gathered(&codes(&largest).unwrap()).finish().unwrap() == largest);
}

#[test]
fn what_is_no_photograph_of_a_code_is_refused_with_what_to_do() {
    let mut gathering = Gathering::default();
    let mut refused = |bytes: &[u8]| match gathering.take_image(bytes).unwrap_err() {
        ScanError::Photo(error) => error,
        other => unreachable!("{other}"),
    };
    assert!(matches!(refused(b"GIF89a"), PhotoError::Format));
    let blank = encoded(&GrayImage::from_pixel(300, 200, Luma([255])), ImageFormat::Png);
    assert!(refused(&blank).to_string().contains("four corners"));
    assert!(matches!(refused(&blank[..60]), PhotoError::Decoding(_)));
    assert!(matches!(refused(&code_image("https://example.org")), PhotoError::NoCode { unread: 0 }));
    let mut huge = blank;
    huge[16..24].copy_from_slice(&[0, 1, 0, 0, 0, 1, 0, 0]);
    let check = crc32(&huge[12..29]);
    huge[29..33].copy_from_slice(&check.to_be_bytes());
    assert!(matches!(refused(&huge), PhotoError::TooManyPixels { width: 65_536, height: 65_536 }));
}

/// PNG's own check, over the header that a test changes.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 * (crc & 1)))
    })
}

#[test]
fn a_page_holds_everything_and_asks_for_nothing() {
    let file = file(254);
    let page = page(&sheet(&file)).unwrap();
    assert!(!page.contains("<script") && !page.contains("src=") && !page.contains("href="));
    let mut short = page.clone();
    for path in between(&page, " d=\"", "\"") {
        short = short.replace(path, "…");
    }
    insta::assert_snapshot!(short);
}

/// What the sheet says to type into a shell where there is no Custody.
#[cfg(target_os = "linux")]
#[test]
fn the_printed_commands_restore_the_file() {
    for length in [254, 1_003, 1_200, 1_802, 2_999] {
        let file = file(length);
        let page = page(&sheet(&file)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut lines = codes(&file).unwrap();
        lines.reverse();
        lines.push(lines[0].clone());
        std::fs::write(folder.path().join("lines.txt"), lines.join("\n") + "\n").unwrap();
        let armour = between(&page, "<pre class=\"armour\">", "</pre>")[0];
        std::fs::write(folder.path().join("backup.txt"), format!("{armour}\n")).unwrap();
        for class in ["join", "typed"] {
            let command = between(&page, &format!("<pre class=\"{class}\">"), "</pre>")[0];
            let command = command.replace("&gt;", ">");
            let status = Command::new("sh").arg("-ec").arg(&command).current_dir(&folder).status().unwrap();
            assert!(status.success(), "{command}");
            let restored = folder.path().join("backup.age");
            assert!(std::fs::read(&restored).unwrap() == file, "{length} bytes: {command}");
            std::fs::remove_file(restored).unwrap();
        }
    }
}

fn custody(folder: &std::path::Path, arguments: &[&str], typed: &str) -> std::process::Output {
    custody_typed(folder, arguments, typed.as_bytes())
}

fn custody_typed(folder: &std::path::Path, arguments: &[&str], typed: &[u8]) -> std::process::Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_custody"))
        .args(arguments)
        .current_dir(folder)
        .env_remove("CUSTODY_CLUSTER")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The program may have refused and exited before it reads.
    let _ = child.stdin.take().unwrap().write_all(typed);
    child.wait_with_output().unwrap()
}

fn said(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn the_program_prints_a_sheet_and_reads_it_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let file = file(1_200);
    std::fs::write(path.join("share.age"), &file).unwrap();
    let record = Hash::of_bytes(b"record").to_string();
    let print = ["--json", "paper", "print", "share.age", "--cluster-id", "lab-1", "--wallet", "treasury"];
    let rest =
        ["--generation", "3", "--node", "2", "--serial", "A-17", "--record", &record, "-o", "page.html"];
    let print = [&print[..], &rest[..]].concat();
    let printed = custody(path, &print, "");
    assert!(printed.status.success(), "{}", said(&printed.stderr));
    assert!(said(&printed.stdout).contains("\"codes\":2"), "{}", said(&printed.stdout));
    let enter = "custody ceremony open inventory --wallet treasury --generation 3 --sheet 2=A-17 --purpose";
    assert!(said(&printed.stdout).contains(enter), "{}", said(&printed.stdout));
    assert_eq!(path.join("page.html").metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let again = custody(path, &print, "");
    assert!(said(&again.stderr).contains("not overwritten"), "{}", said(&again.stderr));

    let page = std::fs::read_to_string(path.join("page.html")).unwrap();
    for (number, svg) in drawings(&page).iter().enumerate() {
        let image = encoded(&rasterised(svg, 4), ImageFormat::Png);
        std::fs::write(path.join(format!("{number}.png")), image).unwrap();
    }
    let one = custody(path, &["paper", "scan", "0.png", "share.age", "-o", "back.age"], "");
    assert_eq!(one.status.code(), Some(1));
    assert!(said(&one.stderr).contains("0.png: code 1 of 2"), "{}", said(&one.stderr));
    assert!(said(&one.stderr).contains("share.age: the file is neither"), "{}", said(&one.stderr));
    assert!(said(&one.stderr).contains("of 2 codes, these are missing: 2"), "{}", said(&one.stderr));
    let both = custody(path, &["paper", "scan", "1.png", "0.png", "-o", "back.age"], "");
    assert!(both.status.success(), "{}", said(&both.stderr));
    assert!(std::fs::read(path.join("back.age")).unwrap() == file);
    assert_eq!(path.join("back.age").metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let third = custody(path, &["paper", "scan", "0.png", "1.png", "-o", "back.age"], "");
    assert!(said(&third.stderr).contains("not overwritten"), "{}", said(&third.stderr));
}

#[test]
fn the_program_reads_what_is_typed_and_says_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let file = file(1_200);
    let lines = codes(&file).unwrap();
    let damaged = lines[0].replacen("AA", "AB", 1);
    let damaged = if damaged == lines[0] { lines[0].replacen('A', "B", 1) } else { damaged };
    let typed = format!("{}\n\n{}\n{}\n{damaged}\n{}", lines[1], lines[1], "nonsense", lines[0]);
    let scan = ["--json", "paper", "scan", "-o", "back.age"];
    let scanned = custody(folder.path(), &scan, &typed);
    assert!(scanned.status.success(), "{}", said(&scanned.stderr));
    let set = SetId::of(&file);
    assert_eq!(
        said(&scanned.stderr),
        format!(
            "code 2 of 2 of set {set}; missing: 1\n\
             code 2 of 2 of set {set}, again; missing: 1\n\
             `nonsense` does not begin with CUSTODY1/: scan a code of a Custody sheet; if a scanner typed this, \
             set the computer's keyboard layout to the scanner's (usually US English)\n\
             code 1 of 2 is damaged, its checksum does not match: scan it again\n\
             code 1 of 2 of set {set}; complete\n"
        )
    );
    assert!(said(&scanned.stdout).contains(&Hash::of_bytes(&file).to_string()));
    assert!(std::fs::read(folder.path().join("back.age")).unwrap() == file);

    let page = page(&sheet(&file)).unwrap();
    let armour = between(&page, "<pre class=\"armour\">", "</pre>")[0];
    let scanned = custody(folder.path(), &["paper", "scan", "-o", "typed.age"], armour);
    assert!(scanned.status.success(), "{}", said(&scanned.stderr));
    assert!(std::fs::read(folder.path().join("typed.age")).unwrap() == file);
    let nothing = custody(folder.path(), &["paper", "scan", "-o", "none.age"], "");
    assert_eq!(nothing.status.code(), Some(1));
    assert!(!folder.path().join("none.age").exists());
}

proptest! {
    #[test]
    fn typed_lines_make_the_file_in_any_order_with_any_repeats(
        length in 22_usize..6_000,
        order in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        rest in any::<u64>(),
    ) {
        let file = file(length);
        let lines = codes(&file).unwrap();
        let mut typed: Vec<String> = order.iter().map(|index| index.get(&lines).clone()).collect();
        let turn = usize::try_from(rest).unwrap() % lines.len();
        typed.extend(lines.iter().cycle().skip(turn).take(lines.len()).cloned());
        prop_assert!(gathered(&typed).finish().unwrap() == file);
    }

    #[test]
    fn a_flipped_character_is_refused_and_changes_nothing(
        which in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        other in "[A-Z0-9/ ]",
    ) {
        let file = file(1_200);
        let lines = codes(&file).unwrap();
        let line = which.get(&lines);
        let at = at.index(line.len());
        let mut flipped = line.clone();
        flipped.replace_range(at..=at, &other);
        prop_assume!(flipped.replace(' ', "/") != *line && flipped.trim() != line);
        let mut gathering = Gathering::default();
        let refused = gathering.take_line(&flipped).unwrap_err();
        prop_assert!(matches!(refused, ScanError::Code(_)), "{}", refused);
        prop_assert_eq!(gathering.set(), None);
    }
}

/// As an input method for Chinese or Japanese types it.
fn full_width(text: &str) -> String {
    let wide =
        |c: char| if c.is_ascii_graphic() { char::from_u32(u32::from(c) + 0xfee0).unwrap() } else { c };
    text.chars().map(wide).collect()
}

#[test]
fn text_of_a_sheet_is_read_however_it_is_quoted() {
    let file = file(600);
    let page = page(&sheet(&file)).unwrap();
    let armour = between(&page, "<pre class=\"armour\">", "</pre>")[0];
    let quoted = |before: &str, after: &str| -> String {
        armour.lines().flat_map(|line| [before, line, after, "\n"]).collect()
    };
    let table =
        [("a mail", quoted("> ", "")), ("marks", quoted("\"", "\"")), ("full width", full_width(armour))];
    for (what, typed) in table {
        let folder = tempfile::tempdir().unwrap();
        let scanned = custody(folder.path(), &["paper", "scan", "-o", "back.age"], &typed);
        assert!(scanned.status.success(), "{what}: {}", said(&scanned.stderr));
        assert!(std::fs::read(folder.path().join("back.age")).unwrap() == file, "{what}");
    }
}

#[test]
fn what_was_broken_into_lines_or_lost_its_first_or_last_is_called_that_and_no_keyboard_is_blamed() {
    let file = file(600);
    let page = page(&sheet(&file)).unwrap();
    let armour = between(&page, "<pre class=\"armour\">", "</pre>")[0];
    let code = &codes(&file).unwrap()[0];
    let wrapped: Vec<&str> =
        code.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).unwrap()).collect();
    let (first, last) = (armour.lines().next().unwrap(), armour.lines().last().unwrap());
    let table = [
        ("a code in pieces", wrapped.join("\n"), "put all of it on one line"),
        ("its first piece", wrapped[0].to_owned(), "is not a complete code"),
        ("its check alone", code[code.rfind('/').unwrap()..].to_owned(), "may be a part of a code"),
        ("text without its first line", armour.replace(first, ""), "begins with its line `-----BEGIN"),
        ("a first line with too few strokes", armour.replace(first, &first[1..]), "must begin with the line"),
        ("text without its last line", armour.replace(last, ""), "end with `-----END"),
        ("a last line with too few strokes", armour.replace(last, &last[1..]), "end with `-----END"),
    ];
    for (what, typed, reason) in table {
        let folder = tempfile::tempdir().unwrap();
        let scanned = custody(folder.path(), &["paper", "scan", "-o", "back.age"], &typed);
        let told = said(&scanned.stderr);
        assert_eq!(scanned.status.code(), Some(1), "{what}: {told}");
        assert!(told.contains(reason) && !told.contains("keyboard"), "{what}: {told}");
    }
}

/// What other programs add: their labels for what a code holds, and their line endings.
#[test]
fn codes_are_read_however_a_scanner_or_an_editor_hands_them_over() {
    let file = file(2_500);
    let lines = codes(&file).unwrap();
    assert!(lines.len() > 2);
    let with = |before: &str, after: &str| -> String {
        lines.iter().flat_map(|line| [before, line.as_str(), after]).collect()
    };
    let utf16 = |text: &str, big: bool| -> Vec<u8> {
        let bytes = |unit: u16| if big { unit.to_be_bytes() } else { unit.to_le_bytes() };
        "\u{feff}".encode_utf16().chain(text.encode_utf16()).flat_map(bytes).collect()
    };
    let plain = with("", "\n");
    let table: Vec<(&str, Vec<u8>)> = vec![
        ("zbarimg's name of the symbology", with("QR-Code:", "\n").into_bytes()),
        ("the AIM identifier of a QR code", with("]Q3", "\r\n").into_bytes()),
        ("two names", with("]Q1QR-Code: ", "\n").into_bytes()),
        ("carriage returns alone", with("", "\r").into_bytes()),
        ("tabs alone", with("", "\t").into_bytes()),
        ("tabs and a prefix", with("]Q1", "\t").into_bytes()),
        ("group separators", with("", "\u{1d}").into_bytes()),
        ("nothing between the codes", with("", "").into_bytes()),
        ("an end of text behind each", with("", "\u{3}\n").into_bytes()),
        ("a byte order mark", format!("\u{feff}{plain}").into_bytes()),
        ("UTF-16", utf16(&plain, false)),
        ("UTF-16, the other way round", utf16(&plain.replace('\n', "\r\n"), true)),
        ("quotation marks and commas", with("\"", "\",\n").into_bytes()),
        ("typographic quotation marks", with("“", "”\n").into_bytes()),
        ("a quoted mail", with("> > ", "\r\n").into_bytes()),
        ("full-width characters", full_width(&plain).into_bytes()),
        ("small letters behind a name", with("qr-code:", "\n").to_lowercase().into_bytes()),
    ];
    for (what, typed) in table {
        let folder = tempfile::tempdir().unwrap();
        let scanned = custody_typed(folder.path(), &["paper", "scan", "-o", "back.age"], &typed);
        assert!(scanned.status.success(), "{what}: {}", String::from_utf8_lossy(&scanned.stderr));
        assert!(std::fs::read(folder.path().join("back.age")).unwrap() == file, "{what}");
    }
}

#[test]
fn codes_in_light_on_dark_are_read() {
    let file = file(400);
    let line = &codes(&file).unwrap()[0];
    let mut image = image::load_from_memory(&code_image(line)).unwrap().into_luma8();
    image::imageops::invert(&mut image);
    let mut gathering = Gathering::default();
    gathering.take_image(&encoded(&image, ImageFormat::Png)).unwrap();
    assert!(gathering.finish().unwrap() == file);
}
