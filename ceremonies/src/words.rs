//! Hashes as words that people read to each other: the PGP word list (Juola and Zimmermann, 1996), with
//! two-syllable words for bytes in even places and three-syllable words in odd ones, so that a swapped,
//! doubled or left-out word is heard.

use std::sync::LazyLock;

use crate::ids::Hash;

/// One line per byte value: the word for even places, the word for odd places.
static LIST: LazyLock<Vec<[&'static str; 2]>> = LazyLock::new(|| {
    include_str!("../data/pgp-words.txt")
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(even, odd)| [even, odd])
        .collect()
});

/// How many words a fingerprint has: 64 bits, out of reach of anyone who would have to grind a second key generation
/// with the same words during a ceremony.
pub const FINGERPRINT_WORDS: usize = 8;

/// A word for each byte.
#[must_use]
pub fn words(bytes: &[u8]) -> Vec<&'static str> {
    bytes.iter().enumerate().map(|(place, byte)| LIST[usize::from(*byte)][place % 2]).collect()
}

/// The words that stand for a hash when it is read aloud.
#[must_use]
pub fn fingerprint(hash: &Hash) -> Vec<&'static str> {
    words(&hash.as_bytes()[..FINGERPRINT_WORDS])
}

/// [`fingerprint`] as one line.
#[must_use]
pub fn spoken(hash: &Hash) -> String {
    fingerprint(hash).join(" ")
}

/// Words as somebody typed them: case, spacing, commas and hyphens between words do not matter.
#[must_use]
pub fn normalise(typed: &str) -> String {
    typed
        .split(|c: char| c.is_whitespace() || c == ',' || c == '-')
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_list_has_a_word_of_its_own_for_every_byte_and_place() {
        assert_eq!(LIST.len(), 256);
        let all: BTreeSet<&str> = LIST.iter().flatten().copied().collect();
        assert_eq!(all.len(), 512);
    }

    #[test]
    fn words_are_those_of_the_published_list() {
        assert_eq!(
            words(&[0xE5, 0x82, 0x94, 0xF2, 0xE9, 0xA2, 0x27, 0x48]).join(" "),
            "topmost istanbul pluto vagabond treadmill pacific brackish dictator"
        );
    }

    #[test]
    fn typed_words_match_whatever_their_case_and_spacing() {
        assert_eq!(normalise("  Topmost, ISTANBUL\n pluto "), "topmost istanbul pluto");
    }
}
