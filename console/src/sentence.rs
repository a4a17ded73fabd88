//! Several things in a sentence.

use std::fmt::Display;

/// `1, 2 and 3`; empty for an empty list.
pub(crate) fn joined<T: Display>(things: &[T]) -> String {
    let names: Vec<String> = things.iter().map(ToString::to_string).collect();
    match names.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}
