//! The rooms of `src` import each other in one direction, and one of them alone knows the curve.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The files of production code below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths
        .filter(|path| !["tests", "model"].contains(&path.file_stem().unwrap().to_str().unwrap()))
        .flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] })
        .collect()
}

/// Each room of `src`, a folder or a file of its own, with its production code.
fn rooms() -> BTreeMap<String, String> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut rooms = BTreeMap::<String, String>::new();
    for file in files(&src) {
        let room = Path::new(file.strip_prefix(&src).unwrap().iter().next().unwrap());
        let room = room.file_stem().unwrap().to_str().unwrap();
        let text = fs::read_to_string(&file).unwrap();
        let production = text.split("#[cfg(test)]").next().unwrap_or_default();
        let code = production.lines().filter(|line| !line.trim_start().starts_with("//"));
        rooms.entry(room.to_owned()).or_default().extend(code.flat_map(|line| [line, "\n"]));
    }
    rooms.remove("lib");
    rooms
}

/// The rooms that are named in a room's code.
fn imports<'a>(code: &'a str, own: &str) -> BTreeSet<&'a str> {
    let name = |text: &'a str| text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or("");
    let mut found: BTreeSet<&str> = code.split("crate::").skip(1).map(name).collect();
    for group in code.split("use crate::{").skip(1).filter_map(|rest| rest.split('}').next()) {
        found.extend(group.split(',').map(|item| name(item.trim())));
    }
    found.remove("");
    found.remove(own);
    found
}

#[test]
fn no_room_imports_one_that_imports_it() {
    let rooms = rooms();
    let mut left: BTreeMap<&str, BTreeSet<&str>> =
        rooms.iter().map(|(room, code)| (room.as_str(), imports(code, room))).collect();
    let edges: usize = left.values().map(BTreeSet::len).sum();
    assert!(left.len() > 20 && edges > 80, "{} rooms, {edges} imports: not read", left.len());
    while !left.is_empty() {
        let free: BTreeSet<&str> = left
            .iter()
            .filter(|(_, imports)| !imports.iter().any(|import| left.contains_key(import)))
            .map(|(room, _)| *room)
            .collect();
        assert!(!free.is_empty(), "these import each other in a circle, or rest on one: {left:?}");
        left.retain(|room, _| !free.contains(room));
    }
}

#[test]
fn one_room_alone_knows_the_curve() {
    let rooms = rooms();
    let is_named = |code: &str| code.split(|c: char| !c.is_alphanumeric()).any(|word| word == "k256");
    let knowing: Vec<&str> =
        rooms.iter().filter(|(_, code)| is_named(code)).map(|(room, _)| room.as_str()).collect();
    assert_eq!(knowing, ["curve"]);
}
