//! Arguments that are one of a few names: help and completions list them, and a wrong one is answered with all of them.

use std::fmt::Display;

use clap::builder::{PossibleValuesParser, TypedValueParser};

/// Reads one of these by its name.
pub(super) fn one_of<T>(all: &'static [T]) -> impl TypedValueParser<Value = T>
where
    T: Copy + Display + Send + Sync + 'static,
{
    PossibleValuesParser::new(all.iter().map(ToString::to_string)).try_map(move |name| {
        all.iter().copied().find(|one| one.to_string() == name).ok_or("not one of the names above")
    })
}
