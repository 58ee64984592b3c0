//! `scripts/install.sh`, and the units that it installs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::PROGRAMS;
use crate::harness::{
    Address, PATIENCE, Ran, Running, addresses, data, descendants, eventually, has_program,
    program, root, run_command,
};

/// Exposure of 2.0, as `systemd-analyze security` counts it.
const EXPOSURE_MAX: &str = "--threshold=20";

#[track_caller]
fn install(words: &[&str]) -> Ran {
    let mut command = Command::new("sh");
    command.arg(root().join("scripts/install.sh")).args(words);
    command.env(
        "QUARTET_PROGRAMS",
        program("queue-client").parent().unwrap(),
    );
    run_command(command, b"")
}

/// The files below a folder.
fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => drop(found.insert(path)),
        }
    }
    found
}

/// The units in `data/systemd` that end like this.
fn units(end: &str) -> Vec<PathBuf> {
    let mut units: Vec<_> = files(&data("systemd")).into_iter().collect();
    units.retain(|path| path.to_string_lossy().ends_with(end));
    assert!(!units.is_empty(), "{end}");
    units
}

/// What a unit sets a key to, each time.
fn settings(unit: &Path, key: &str) -> Vec<String> {
    let text = fs::read_to_string(unit).unwrap();
    let lines = text
        .lines()
        .filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    lines.map(str::to_owned).collect()
}

#[test]
fn what_is_installed_is_there_and_all_of_it_is_uninstalled() {
    let dir = tempfile::tempdir().unwrap();
    let prefix = dir.path().join("a/prefix");
    let words = ["--prefix", prefix.to_str().unwrap()];
    install(&words).expect(0);
    let installed = files(&prefix);
    let units = units(".service").len() + units(".socket").len();
    assert_eq!(installed.len(), 5 * PROGRAMS.len() + units);
    for name in PROGRAMS {
        let mut command = Command::new(prefix.join("bin").join(name));
        command.arg("--version");
        assert!(run_command(command, b"").expect(0).out().starts_with(name));
        for path in [
            format!("share/man/man1/{name}.1"),
            format!("share/bash-completion/completions/{name}"),
            format!("share/zsh/site-functions/_{name}"),
            format!("share/fish/vendor_completions.d/{name}.fish"),
        ] {
            assert!(installed.contains(&prefix.join(&path)), "{path}");
        }
    }
    let unit = prefix.join("lib/systemd/system/queue-worker@.service");
    let starts = settings(&unit, "ExecStart");
    assert!(
        starts[0].starts_with(prefix.to_str().unwrap()),
        "{starts:?}"
    );
    // What somebody else has put there stays.
    let other = prefix.join("bin/other");
    fs::write(&other, "").unwrap();
    install(&words).expect(0);
    assert_eq!(files(&prefix).len(), installed.len() + 1);
    install(&["--uninstall", words[0], words[1]]).expect(0);
    assert_eq!(files(&prefix), BTreeSet::from([other]));
    install(&["--uninstall", words[0], words[1]]).expect(0);
}

#[test]
fn a_wrong_command_line_is_one_sentence() {
    for (words, sentence) in [
        (
            &["--prefix"] as &[_],
            "install.sh: --prefix needs a folder\n",
        ),
        (
            &["there"],
            "install.sh: unknown argument 'there', the options are --prefix and --uninstall\n",
        ),
    ] {
        let ran = install(words).expect(2);
        assert_eq!(ran.stderr, sentence);
    }
    let dir = tempfile::tempdir().unwrap();
    let spaced = dir.path().join("a b");
    let ran = install(&["--prefix", spaced.to_str().unwrap()]).expect(2);
    assert!(
        ran.stderr.starts_with("install.sh: the prefix is made of"),
        "{}",
        ran.stderr
    );
    assert!(!spaced.exists());
}

#[test]
fn systemd_has_nothing_against_the_units() {
    if !has_program("systemd-analyze") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    install(&["--prefix", dir.path().to_str().unwrap()]).expect(0);
    for unit in files(&dir.path().join("lib/systemd/system")) {
        let analyze = |words: &[&str]| {
            let mut command = Command::new("systemd-analyze");
            command.args(words).arg(&unit);
            command.env("MANPATH", dir.path().join("share/man"));
            run_command(command, b"").expect(0)
        };
        let verified = analyze(&["verify"]);
        assert_eq!(verified.stderr, "", "{}", unit.display());
        if unit.extension().unwrap() == "service" {
            analyze(&["security", "--offline=true", EXPOSURE_MAX]);
        }
    }
}

/// Starts a server as its unit does, on free ports, and waits until it is ready.
#[track_caller]
fn start(unit: &Path, folder: &Path, through: &[&str]) -> Running {
    let socket = folder.join("notify");
    let _ = fs::remove_file(&socket);
    let manager = UnixDatagram::bind_addr(&SocketAddr::from_pathname(&socket).unwrap()).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let starts = settings(unit, "ExecStart").remove(0);
    let ports = if starts.contains("code-server") {
        "0 0"
    } else {
        "0"
    };
    let line = starts.replace("$OPTIONS", ports);
    let mut words = line.split(' ');
    let name = words
        .next()
        .unwrap()
        .strip_prefix("/usr/local/bin/")
        .unwrap();
    let mut line: Vec<_> = through.iter().map(|word| word.to_string()).collect();
    line.push(program(name).to_str().unwrap().to_owned());
    let mut command = Command::new(&line[0]);
    command
        .args(&line[1..])
        .args(words)
        .current_dir(folder)
        .env("NOTIFY_SOCKET", &socket);
    let running = Running::start(command);
    let mut bytes = [0; 1024];
    let length = manager.recv(&mut bytes).unwrap();
    assert!(
        bytes[..length].starts_with(b"READY=1\n"),
        "{}",
        unit.display()
    );
    running
}

#[test]
fn a_server_starts_with_the_command_line_of_its_unit() {
    for unit in units("-server.service") {
        let dir = tempfile::tempdir().unwrap();
        let running = start(&unit, dir.path(), &[]);
        running.signal("TERM");
        assert_eq!(running.wait(), Some(0));
        let stderr = running.stderr.text();
        assert!(
            !stderr.contains("ends after"),
            "it ends by itself:\n{stderr}"
        );
    }
}

#[test]
fn a_unit_lets_its_server_tell_the_users_of_the_machine_apart() {
    for unit in units("-server.service") {
        // With a user namespace, all who connect to a Unix socket are the user 65534.
        let hides = settings(&unit, "PrivateUsers");
        assert!(hides.is_empty(), "{}: {hides:?}", unit.display());
    }
}

/// The system calls in each of systemd's groups, by the group's name.
fn groups() -> BTreeMap<String, BTreeSet<String>> {
    let mut command = Command::new("systemd-analyze");
    command.args(["syscall-filter", "--no-pager"]);
    let text = run_command(command, b"").expect(0).out();
    let mut groups: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    let mut group = String::new();
    for line in text.lines() {
        match line.strip_prefix("    ") {
            Some(call) => drop(
                groups
                    .entry(group.clone())
                    .or_default()
                    .insert(call.to_owned()),
            ),
            None => group = line.to_owned(),
        }
    }
    groups
}

/// The calls that a filter names, those of groups of groups too.
fn calls(groups: &BTreeMap<String, BTreeSet<String>>, names: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for name in names.split(' ') {
        match groups.get(name) {
            Some(members) => {
                for member in members.iter().filter(|member| !member.starts_with('#')) {
                    found.extend(calls(groups, member));
                }
            }
            None => drop(found.insert(name.to_owned())),
        }
    }
    found
}

#[test]
fn a_server_makes_no_system_call_that_its_unit_refuses() {
    if !(has_program("systemd-analyze") && has_program("strace")) {
        return;
    }
    let groups = groups();
    for unit in units("-server.service") {
        let mut allowed = calls(&groups, "@default");
        for filter in settings(&unit, "SystemCallFilter") {
            match filter.strip_prefix('~') {
                Some(refused) => allowed = &allowed - &calls(&groups, refused),
                None => allowed.extend(calls(&groups, &filter)),
            }
        }
        // What starts the server makes these before the filter counts.
        allowed.insert("execve".to_owned());
        // SQLite makes it as root and nobody else, and the servers are not root.
        if unit.ends_with("queue-server.service") {
            allowed.insert("fchown".to_owned());
        }
        let dir = tempfile::tempdir().unwrap();
        let made = dir.path().join("calls");
        let running = start(
            &unit,
            dir.path(),
            &["strace", "-f", "-o", made.to_str().unwrap()],
        );
        let log = || running.stderr.text();
        eventually("it says where it listens", || !addresses(&log()).is_empty());
        work_with(&unit, &addresses(&log()));
        // strace keeps signals to itself.
        let server = descendants(running.pid())[0].to_string();
        let signal = |name| {
            let status = Command::new("kill").args(["-s", name, &server]).status();
            assert!(status.unwrap().success());
        };
        signal("HUP");
        running.wait_for_stderr(|log| log.contains("reload") || log.contains("kept open"));
        signal("TERM");
        running.wait();
        let text = fs::read_to_string(&made).unwrap();
        let made: BTreeSet<String> = text.lines().filter_map(call).map(str::to_owned).collect();
        assert!(made.contains("accept4"), "{made:?}");
        let refused: Vec<_> = made.difference(&allowed).collect();
        assert!(refused.is_empty(), "{}: {refused:?}", unit.display());
    }
}

/// The system call of a line of strace: `1234  openat(AT_FDCWD, ...`.
fn call(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once(' ')?;
    let (name, _) = rest.trim_start().split_once('(')?;
    Some(name).filter(|name| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
}

/// Has a server do what writes and reads its data.
fn work_with(unit: &Path, addrs: &[Address]) {
    let name = unit.file_stem().unwrap().to_str().unwrap();
    let client = name.replace("server", "client");
    let mut address = vec![addrs[0].tcp().ip().to_string()];
    address.extend(addrs.iter().map(|addr| addr.port().to_string()));
    let jobs: &[&[&str]] = match name {
        "code-server" => &[&["run", "-n", "2"]],
        "queue-server" => &[&["send", "-"], &["receive"], &["stats"]],
        "history-server" => &[&["hello", "ann"], &["get", "ann"], &["delete", "ann", "1"]],
        "file-server" => &[
            &["post", "-", "a.txt"],
            &["post", "-", "a.txt"],
            &["get", "a.txt", "-o", "-"],
            &["list"],
        ],
        other => panic!("{other}"),
    };
    for job in jobs {
        let mut command = Command::new(program(&client));
        command.args(&address).args(*job);
        run_command(command, b"bytes").expect(0);
    }
}
