//! The one form in which a person's signature is stored.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use ceremonies::ceremony::Rejection;
use ceremonies::charter::Role;
use ceremonies::sshsig::{FormatError, MAX_SIGNATURE, canonical};
use ceremonies::statement::{Answer, NAMESPACE, SignatureError};
use ceremonies::text::chain;
use data_encoding::BASE64;
use proptest::prelude::*;

use crate::cluster::{TOUCHED, hardware_sign, ssh_sign};
use crate::kit::Paper;
use crate::people::{confirmed, text};
use crate::refused;

const BEGIN: &str = "-----BEGIN SSH SIGNATURE-----";
const END: &str = "-----END SSH SIGNATURE-----";

/// A signature file's base64 on one line.
fn body(file: &[u8]) -> String {
    let text = std::str::from_utf8(file).unwrap();
    text.lines().filter(|line| !line.starts_with('-')).collect()
}

fn folded(body: &str, width: usize) -> String {
    let lines: Vec<String> =
        body.chars().collect::<Vec<_>>().chunks(width).map(|line| line.iter().collect()).collect();
    format!("{BEGIN}\n{}\n{END}\n", lines.join("\n"))
}

/// The same armour around changed bytes.
fn rebuilt(file: &[u8], change: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = BASE64.decode(body(file).as_bytes()).unwrap();
    change(&mut bytes);
    folded(&BASE64.encode(&bytes), 70).into_bytes()
}

#[test]
fn signature_is_refused_in_any_form_but_the_one_that_ssh_keygen_writes() {
    let mut paper = confirmed();
    let text = text(&paper, "approve", "olga", Role::Operator);
    let good = ssh_sign("olga", NAMESPACE, &text);
    assert_eq!(canonical(&good).unwrap(), good);
    let body = body(&good);
    let written = String::from_utf8(good.clone()).unwrap();
    let with = |paper: &mut Paper, signature: Vec<u8>| {
        paper.sign_with("approve", "olga", Role::Operator, Answer::None, signature)
    };
    for other in [
        folded(&body, 64),
        folded(&body, 76),
        folded(&body, 1),
        format!("{written}\n"),
        format!("{written}Sent from my telephone\n"),
        written.trim_end().to_owned(),
        written.replace('\n', "\r\n"),
        written.replace('\n', " \n").replacen(" \n", "\n", 1),
        written.replace(END, &format!("{END}\t")),
    ] {
        let refused = with(&mut paper, other.clone().into_bytes());
        refused!(refused, Rejection::Signature(SignatureError::Format(FormatError::NotCanonical)));
        assert_eq!(canonical(other.as_bytes()).unwrap(), good, "{other}");
    }
    for (bad, expected) in [
        (format!("Good morning,\n{written}"), FormatError::Begin),
        (format!("\n{written}"), FormatError::Begin),
        (format!("\u{feff}{written}"), FormatError::Mark),
        (format!("\u{feff}Good morning,\n{written}"), FormatError::Begin),
        (written.replace(BEGIN, &format!("{BEGIN} ")), FormatError::Blanks(BEGIN)),
        (written.replace(BEGIN, &format!("{BEGIN}\t")).replace('\n', "\r\n"), FormatError::Blanks(BEGIN)),
        (format!("  {written}"), FormatError::Blanks(BEGIN)),
        (written.replace(END, &format!(" {END}")), FormatError::Blanks(END)),
        (written.replace(END, ""), FormatError::End),
        (format!("{BEGIN}\n{END}\n"), FormatError::End),
        (written.replacen(&body[..10], "Comment: x", 1), FormatError::Base64),
        (folded(&format!("{body}A"), 70), FormatError::Base64),
    ] {
        let said = expected.to_string();
        assert_eq!(canonical(bad.as_bytes()), Err(expected), "{bad}");
        let refused = with(&mut paper, bad.into_bytes()).unwrap_err();
        assert!(chain(&refused).contains(&said), "{refused}");
    }
    with(&mut paper, good).unwrap();
    for (mark, bytes) in [("", u16::to_le_bytes as fn(u16) -> [u8; 2]), ("\u{feff}", u16::to_be_bytes)] {
        let wide: Vec<u8> = format!("{mark}{written}").encode_utf16().flat_map(bytes).collect();
        assert_eq!(canonical(&wide), Err(FormatError::Utf16), "{mark:?}");
    }
    assert_eq!(canonical(b""), Err(FormatError::Begin));
    assert_eq!(canonical(&[b'-'; MAX_SIGNATURE + 1]), Err(FormatError::TooLarge));
}

#[test]
fn signature_is_refused_with_bytes_that_its_form_does_not_have() {
    let good = ssh_sign("olga", NAMESPACE, "a text");
    let trailing = rebuilt(&good, |bytes| bytes.extend(b"more"));
    assert!(matches!(canonical(&trailing), Err(FormatError::Content(_))));
    let cut = rebuilt(&good, |bytes| bytes.truncate(40));
    assert!(matches!(canonical(&cut), Err(FormatError::Content(_))));
    let later = rebuilt(&good, |bytes| bytes[9] = 2);
    assert!(matches!(canonical(&later), Err(FormatError::Content(_))));
    // The reserved field follows magic, version, key and namespace.
    let at = 6 + 4 + (4 + 51) + (4 + NAMESPACE.len());
    let reserved = rebuilt(&good, |bytes| {
        assert_eq!(bytes[at..at + 4], [0; 4]);
        bytes.splice(at..at + 4, [0, 0, 0, 1, b'x']);
    });
    assert_eq!(canonical(&reserved), Err(FormatError::Reserved));
}

proptest! {
    #[test]
    fn blanks_anywhere_in_a_signature_leave_its_one_form(
        places in proptest::collection::vec((any::<prop::sample::Index>(), prop::sample::select(vec![' ', '\t', '\n', '\r', '\x0b', '\x0c'])), 0..40),
        hardware in any::<bool>(),
    ) {
        let good = if hardware { hardware_sign("hanna", "a text", TOUCHED) } else { ssh_sign("olga", NAMESPACE, "a text") };
        let mut body = body(&good);
        for (place, blank) in places {
            body.insert(place.index(body.len() + 1), blank);
        }
        prop_assert_eq!(canonical(format!("{BEGIN}\n{body}\n{END}").as_bytes()), Ok(good));
    }

    #[test]
    fn any_bytes_are_refused_or_have_one_form(bytes in proptest::collection::vec(any::<u8>(), 0..300), place in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let changed = rebuilt(&ssh_sign("olga", NAMESPACE, "a text"), |bytes| {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        });
        for file in [bytes, changed] {
            if let Ok(form) = canonical(&file) {
                prop_assert_eq!(canonical(&form), Ok(form.clone()));
            }
        }
    }
}
