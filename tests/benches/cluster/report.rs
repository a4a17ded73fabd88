//! What was measured: printed for people at once, and written as one JSON object where a file is named.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

#[derive(Debug, Serialize)]
struct Figure {
    value: f64,
    unit: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    aim: Option<&'static str>,
}

/// What is to be measured, and what came of it.
#[derive(Debug, Default)]
pub(crate) struct Report {
    json: Option<PathBuf>,
    only: Vec<String>,
    figures: BTreeMap<String, BTreeMap<String, Figure>>,
}

impl Report {
    /// As the command line asks: `[--json FILE] [--only NAME…]`.
    pub(crate) fn from_args() -> Self {
        let mut report = Self::default();
        let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
        while let Some(word) = words.next() {
            match word.as_str() {
                "--json" => report.json = Some(words.next().unwrap().into()),
                "--only" => report.only.extend(words.by_ref()),
                other => panic!("{other} is not asked for here: use [--json FILE] [--only NAME…]"),
            }
        }
        report
    }

    /// Whether this is measured.
    pub(crate) fn wants(&self, bench: &str) -> bool {
        self.only.is_empty() || self.names(bench)
    }

    /// Whether this is requested by name: what takes long is measured only then.
    pub(crate) fn names(&self, bench: &str) -> bool {
        self.only.iter().any(|only| only == bench)
    }

    pub(crate) fn put(&mut self, bench: &str, figure: &str, value: f64, unit: &'static str) {
        self.add(bench, figure, Figure { value, unit, aim: None });
    }

    /// The same, with the target next to it, such as `< 16`.
    pub(crate) fn put_beside(
        &mut self,
        bench: &str,
        figure: &str,
        value: f64,
        unit: &'static str,
        aim: &'static str,
    ) {
        self.add(bench, figure, Figure { value, unit, aim: Some(aim) });
    }

    fn add(&mut self, bench: &str, name: &str, figure: Figure) {
        if !self.figures.contains_key(bench) {
            println!("{bench}:");
        }
        let aim = figure.aim.map_or_else(String::new, |aim| format!(" (aim {aim})"));
        println!("      {name}: {:.2} {}{aim}", figure.value, figure.unit);
        self.figures.entry(bench.to_owned()).or_default().insert(name.to_owned(), figure);
    }

    pub(crate) fn write(&self) {
        if let Some(file) = &self.json {
            std::fs::write(file, serde_json::to_vec_pretty(&self.figures).unwrap()).unwrap();
        }
    }
}
