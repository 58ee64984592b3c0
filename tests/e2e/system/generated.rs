//! Completions and manual pages stand in `data/` as they are made of the help of the programs. This
//! rewrites them:
//!
//! ```console
//! $ QUARTET_WRITE=1 cargo test -p tests -- generated
//! ```

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::help::Help;
use super::{PROGRAMS, completions, manual};
use crate::harness::{data, has_program, run, run_command, skipped};

/// Every file that is made of a program's help, and what belongs into it.
fn files(name: &'static str) -> [(PathBuf, String); 4] {
    let help = Help::of(name);
    [
        (
            data(&format!("completions/bash/{name}")),
            completions::bash(&help),
        ),
        (
            data(&format!("completions/zsh/_{name}")),
            completions::zsh(&help),
        ),
        (
            data(&format!("completions/fish/{name}.fish")),
            completions::fish(&help),
        ),
        (data(&format!("man/{name}.1")), manual::page(&help)),
    ]
}

#[test]
fn completions_and_manual_pages_say_what_the_help_says() {
    let must_write = std::env::var_os("QUARTET_WRITE").is_some();
    for (path, want) in PROGRAMS.into_iter().flat_map(files) {
        if must_write {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &want).unwrap();
        }
        let got = fs::read_to_string(&path).unwrap_or_default();
        let path = path.display();
        let command = "QUARTET_WRITE=1 cargo test -p tests -- generated";
        assert!(
            got == want,
            "{path} is older than the help; this rewrites it:\n{command}"
        );
    }
}

#[test]
fn no_verb_is_missing() {
    for name in PROGRAMS
        .into_iter()
        .filter(|name| name.ends_with("-client"))
    {
        let verbs: Vec<_> = Help::of(name)
            .verbs()
            .into_iter()
            .map(|verb| verb.name)
            .collect();
        let refused = run(name, &["localhost", "1", "2", "zzzzzz"], b"")
            .expect(2)
            .stderr;
        let (_, known) = refused.split_once("the verbs are ").unwrap();
        let (known, _) = known.split_once([';', '(']).unwrap();
        for verb in known.trim().split(", ") {
            // `put` is another name of `post`.
            assert!(
                verb == "put" || verbs.iter().any(|name| name == verb),
                "{name}: {verb}"
            );
        }
    }
}

/// Has a program look at a page; it must have nothing to say of it.
#[track_caller]
fn check_page(mut checker: Command, name: &str) {
    checker.arg(data(&format!("man/{name}.1")));
    let ran = run_command(checker, b"").expect(0);
    assert_eq!(ran.stderr, "", "{}", ran.command);
}

#[test]
fn groff_and_mandoc_have_no_warning_for_a_page() {
    if !has_program("groff") {
        return;
    }
    // It has no --version.
    let has_mandoc = Command::new("mandoc").arg("/dev/null").output().is_ok();
    if !has_mandoc {
        skipped("there is no mandoc");
    }
    for name in PROGRAMS {
        let mut groff = Command::new("groff");
        groff.args(["-ww", "-man", "-Tutf8"]);
        check_page(groff, name);
        if has_mandoc {
            let mut mandoc = Command::new("mandoc");
            mandoc.args(["-Tlint", "-Wwarning"]);
            check_page(mandoc, name);
        }
    }
}
