//! Completions, asked of the shells themselves.

use std::fs;
use std::process::Command;

use tempfile::TempDir;

use crate::harness::{data, has_program, run_command};

/// What one line is completed to, and how a shell says that.
const LINES: &[(&str, Want)] = &[
    ("queue-client rec", Want::Word("receive")),
    ("queue-client localhost 55556 purg", Want::Word("purge")),
    ("queue-client UD", Want::Word("UDP")),
    // A place is not a verb, and a verb follows it.
    ("queue-client unix", Want::Nothing),
    ("queue-client unix:/s purg", Want::Word("purge")),
    ("queue-client --qui", Want::Word("--quiet")),
    ("queue-client send --trunc", Want::Word("--truncate")),
    ("queue-client receive --trunc", Want::Nothing),
    ("queue-client send --delay x --nul", Want::Word("--null")),
    ("queue-client send some-", Want::File),
    ("queue-client receive some-", Want::Nothing),
    ("queue-client work -- sha512su", Want::Word("sha512sum")),
    ("queue-server --fsync nev", Want::Word("never")),
    ("queue-server --data some-", Want::File),
    ("queue-server --data=some-", Want::File),
    ("queue-server --max-message some-", Want::Nothing),
    ("queue-server some-", Want::Nothing),
    ("file-server --root some-", Want::Folder),
    ("code-server --data-dir some-", Want::Folder),
    ("history-server --vers", Want::Word("--version")),
    ("history-client cle", Want::Word("clear")),
    ("code-client req", Want::Word("request")),
    ("file-client -o some-", Want::File),
    ("file-client batch some-", Want::File),
    ("file-client get some-", Want::Nothing),
];

/// What a shell is to offer, in a folder that has `some-file` and the folder `some-thing`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Want {
    /// This word alone.
    Word(&'static str),
    /// Files, and folders with files.
    File,
    /// Folders alone.
    Folder,
    /// No word, and no file.
    Nothing,
}

fn folder() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("some-file"), "").unwrap();
    fs::create_dir(dir.path().join("some-thing")).unwrap();
    dir
}

/// What a shell prints, line by line, when it runs a script in a folder.
#[track_caller]
fn said(shell: &[&str], script: &str, dir: &TempDir) -> Vec<String> {
    let mut command = Command::new(shell[0]);
    command.args(&shell[1..]).arg(script).current_dir(dir);
    command
        .env("HOME", dir.path())
        .env("XDG_DATA_HOME", dir.path());
    let ran = run_command(command, b"").expect(0);
    assert_eq!(ran.stderr, "", "{}", ran.command);
    ran.out().lines().map(str::to_owned).collect()
}

fn program_and_word(line: &str) -> (&str, &str) {
    let program = line.split(' ').next().unwrap();
    (program, line.rsplit([' ', '=']).next().unwrap())
}

#[test]
fn bash_completes_options_verbs_files_and_commands() {
    if !has_program("bash") {
        return;
    }
    let dir = folder();
    for &(line, want) in LINES {
        let (program, word) = program_and_word(line);
        let path = data(&format!("completions/bash/{program}"));
        let function = format!("_{}", program.replace('-', "_"));
        // bash takes a word with an equals sign apart. What it offers when asked for its own
        // completions is its own business.
        let words = line.replace('=', " = ");
        let script = format!(
            "source {path}; compopt() {{ echo \"[$*]\"; }}; COMP_WORDS=({words}); \
             COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             {function} {program} '{word}' \"${{COMP_WORDS[COMP_CWORD-1]}}\"; \
             printf '%s\\n' \"${{COMPREPLY[@]}}\"; complete -p {program}",
            path = path.display(),
        );
        let mut said = said(&["bash", "--norc", "-c"], &script, &dir);
        // No file is offered where none is asked for.
        let complete = format!("complete -F {function} {program}");
        assert_eq!(said.pop(), Some(complete), "{line}");
        match want {
            // Files are offered besides commands, and a command for each folder of PATH.
            Want::Word(word) => {
                said.dedup();
                said.retain(|line| line != "[-o default]");
                assert_eq!(said, [word], "{line}");
            }
            Want::File => assert_eq!(said, ["[-o default]", ""], "{line}"),
            Want::Folder => assert_eq!(said, ["[-o dirnames]", ""], "{line}"),
            Want::Nothing => assert_eq!(said, [""], "{line}"),
        }
    }
}

#[test]
fn fish_completes_options_verbs_files_and_commands() {
    if !has_program("fish") {
        return;
    }
    let dir = folder();
    for &(line, want) in LINES {
        let (program, _) = program_and_word(line);
        let path = data(&format!("completions/fish/{program}.fish"));
        let script = format!("source {}; complete -C '{line}'", path.display());
        let said = said(&["fish", "--no-config", "-c"], &script, &dir);
        let words = said.iter().map(|line| line.split('\t').next().unwrap());
        let words: Vec<_> = words.map(|word| word.rsplit('=').next().unwrap()).collect();
        match want {
            Want::Word(word) => assert_eq!(words, [word], "{line}"),
            Want::File => assert_eq!(words, ["some-file", "some-thing/"], "{line}"),
            Want::Folder => assert_eq!(words, ["some-thing/"], "{line}"),
            Want::Nothing => assert!(words.is_empty(), "{line}: {words:?}"),
        }
    }
}

/// Has a shell complete a line as if it was typed, and write what has become of it to a file: zsh
/// completes only what is edited.
const ZSH: &str = r#"
zmodload zsh/zpty
zpty edited zsh -f -i
zpty -w edited "fpath=($FOLDER \$fpath); autoload -Uz compinit; compinit -D -u
tab() { zle complete-word; print -r -- \$BUFFER >completed; exit }
zle -N tab; bindkey '^I' tab"
zpty -w -n edited "$LINE"$'\t'
while zpty -r edited; do :; done >/dev/null
cat completed
"#;

#[test]
fn zsh_completes_options_verbs_files_and_commands() {
    if !has_program("zsh") {
        return;
    }
    let dir = folder();
    for &(line, want) in LINES {
        let mut command = Command::new("zsh");
        command
            .args(["-f", "-c", ZSH])
            .current_dir(&dir)
            .env("HOME", dir.path());
        command
            .env("FOLDER", data("completions/zsh"))
            .env("LINE", line);
        let completed = run_command(command, b"").expect(0).out();
        let completed = completed.trim_end();
        let (_, word) = program_and_word(line);
        let before = line.strip_suffix(word).unwrap();
        // Of several, what they have in common.
        let word = match want {
            Want::Word(word) => word,
            Want::File | Want::Nothing => word,
            Want::Folder => "some-thing/",
        };
        assert_eq!(completed, format!("{before}{word}"));
    }
}
