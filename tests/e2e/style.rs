//! The form of the source itself: words that have a better one, and files that are too long to read.

use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::root;

/// The longest file of code without tests, in lines.
const FILE_LINES_MAX: usize = 500;

/// A word that is not used, and the one that is.
const WORDS: [(&str, &str); 12] = [
    ("untake", "unreserve"),
    ("whoever", "the client, or: if anyone"),
    ("so many", "N, or: this many"),
    ("cutter", "AbortHandle"),
    ("settle", "flush, or: wait"),
    ("at the most", "at most"),
    ("goes on with", "continues, or: resumes"),
    ("plain dialect", "text protocol"),
    ("in_line", "waiters"),
    ("stepped", "batch"),
    ("heat(", "insert("),
    ("cool(", "evict("),
];

/// The files below a folder whose names end like this.
fn files(folder: &Path, ends: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, ends));
        } else if ends.iter().any(|end| path.to_string_lossy().ends_with(end)) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Whether a line has this word; in the middle of another it is that other word.
fn has_word(line: &str, word: &str) -> bool {
    let line = line.to_lowercase();
    let mut places = line.match_indices(word);
    places.any(|(start, _)| !line[..start].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
}

#[test]
fn one_word_stands_for_one_thing() {
    let mut places = Vec::new();
    let ends = [".rs", ".md", ".py", ".sh", ".js", ".mjs", ".html"];
    let folders = ["crates", "tests", "scripts"];
    let mut paths = vec![root().join("README.md")];
    paths.extend(
        folders
            .iter()
            .flat_map(|name| files(&root().join(name), &ends)),
    );
    for path in paths {
        if path.ends_with("e2e/style.rs") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for (number, line) in (1..).zip(text.lines()) {
            for (word, better) in WORDS {
                if has_word(line, word) {
                    let path = path.strip_prefix(root()).unwrap().display();
                    places.push(format!("{path}:{number}: {word} -> {better}"));
                }
            }
        }
    }
    assert!(places.is_empty(), "\n{}", places.join("\n"));
}

#[test]
fn a_file_is_read_in_one_sitting() {
    let mut long = Vec::new();
    for path in files(&root().join("crates"), &[".rs"]) {
        let text = fs::read_to_string(&path).unwrap();
        let is_test = path.ends_with("tests.rs") || path.iter().any(|part| part == "tests");
        let code = text.lines().take_while(|line| *line != "#[cfg(test)]");
        let lines = code.count();
        if !is_test && lines > FILE_LINES_MAX {
            let path = path.strip_prefix(root()).unwrap().display();
            long.push(format!("{path}: {lines} lines"));
        }
    }
    assert!(long.is_empty(), "\n{}", long.join("\n"));
}
