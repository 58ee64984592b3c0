//! `scripts/demo.sh`, the walkthrough: its options, its sources, and a section that runs alone.

use std::fs;
use std::process::Command;

use crate::harness::{Ran, has_program, program, root, run_command};

/// Runs the demo in an empty folder for temporary files, which must be empty again afterwards.
fn demo(words: &[&str]) -> Ran {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("bash");
    command.arg(root().join("scripts/demo.sh")).args(words);
    command.env("TMPDIR", folder.path());
    command.env(
        "QUARTET_PROGRAMS",
        program("queue-client").parent().unwrap(),
    );
    let ran = run_command(command, b"");
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    ran
}

#[test]
fn each_section_is_listed_with_its_title() {
    if !has_program("bash") {
        return;
    }
    let listed = demo(&["--list"]).expect(0).out();
    let mut files = fs::read_dir(root().join("scripts/demo")).unwrap();
    let sections = files.by_ref().filter(|file| {
        let name = file.as_ref().unwrap().file_name().into_string().unwrap();
        name.ends_with(".sh") && name != "helpers.sh"
    });
    assert_eq!(listed.lines().count(), sections.count(), "{listed}");
    for line in listed.lines() {
        let (name, title) = line.split_once(' ').unwrap();
        assert!(!title.trim().is_empty(), "{name}");
    }
}

#[test]
fn a_wrong_command_line_is_one_sentence() {
    if !has_program("bash") {
        return;
    }
    for (word, sentence) in [
        (
            "nowhere",
            "demo.sh: unknown section 'nowhere', the sections are code queue",
        ),
        (
            "--fast",
            "demo.sh: unknown option '--fast', the options are",
        ),
        // The input of a test is not a terminal.
        (
            "--pause",
            "demo.sh: --pause waits for a key, so standard input must be a terminal",
        ),
    ] {
        let ran = demo(&[word]).expect(2);
        assert!(ran.stderr.starts_with(sentence), "{}", ran.stderr);
        assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
    }
}

#[test]
fn a_section_runs_alone_and_names_sources_that_exist() {
    if !(has_program("bash") && has_program("python3")) {
        return;
    }
    let shown = demo(&["errors"]).expect(0).out();
    assert!(shown.ends_with("5 of 5 steps as expected\n"), "{shown}");
    let sources = shown
        .lines()
        .filter_map(|line| line.strip_prefix("source: "));
    let sources: Vec<_> = sources.map(|path| root().join(path)).collect();
    assert_eq!(sources.len(), 5);
    assert!(sources.iter().all(|path| path.is_file()), "{sources:?}");
}
