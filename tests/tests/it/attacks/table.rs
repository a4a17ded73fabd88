//! `tests/ATTACKS.md` itself: a row without its test would be a claim.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::BTreeMap;

/// File and function of every row.
fn rows(table: &str) -> Vec<(String, String)> {
    let body = |line: &&str| line.starts_with("| ") && !line.starts_with("| attack |");
    table
        .lines()
        .filter(body)
        .map(|row| {
            let test = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
            let quoted: Vec<&str> = test.split('`').skip(1).step_by(2).collect();
            assert_eq!(quoted.len(), 2, "a row names no test: {row}");
            (quoted[0].to_owned(), quoted[1].to_owned())
        })
        .collect()
}

fn is_a_test(source: &str, function: &str) -> bool {
    let (before, _) = source.split_once(&format!("fn {function}(")).unwrap_or_default();
    let attributes = before.rsplit("\n\n").next().unwrap_or_default();
    attributes.contains("#[test]") || attributes.contains("#[tokio::test")
}

#[test]
fn every_row_names_a_test_that_exists() {
    let root = lab::programs::workspace();
    let rows = rows(&std::fs::read_to_string(root.join("tests/ATTACKS.md")).unwrap());
    assert!(rows.len() > 50, "{} rows", rows.len());
    let mut sources: BTreeMap<String, String> = BTreeMap::new();
    for (file, function) in rows {
        let source = sources
            .entry(file.clone())
            .or_insert_with(|| std::fs::read_to_string(root.join(&file)).unwrap_or_default());
        assert!(is_a_test(source, &function), "{file} has no test {function}");
    }
}

#[test]
fn a_row_without_a_test_is_found() {
    let source = "#[test]\nfn there() {}\n\nfn helper() {}\n";
    assert!(is_a_test(source, "there"));
    assert!(!is_a_test(source, "helper"));
    assert!(!is_a_test(source, "missing"));
}
