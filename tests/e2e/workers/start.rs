//! Commands that cannot be run, and what a running one finds.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::{Place, descendants, is_alive, signal};
use crate::harness::{Running, eventually, program, run_command, skipped};
use crate::work::{client, say};

/// A `queue-client work` with this command.
fn work(place: &Place, options: &str, words: &[&str]) -> Command {
    let mut command = Command::new(program("queue-client"));
    command.args(place.server.host_and_ports()).arg("work");
    command
        .args(options.split_whitespace())
        .arg("--")
        .args(words);
    command.current_dir(place.folder.path());
    command
}

#[test]
fn a_command_that_is_missing_costs_no_attempt() {
    let place = Place::new("--max-attempts 1", "job\n");
    fs::write(place.path("script"), "#!/bin/sh\n").unwrap();
    for (command, why) in [
        ("/missing/handler", "No such file or directory"),
        ("no-such-program", "No such file or directory"),
        ("./script", "Permission denied"),
        ("/", "Permission denied"),
    ] {
        let ran = run_command(work(&place, "--jobs 4", &[command]), b"").expect(2);
        let want = format!("queue-client: cannot start {command}: {why}");
        assert!(ran.stderr.starts_with(&want), "{}", ran.stderr);
    }
    let stats = client(&place.server).stats().unwrap();
    assert_eq!(stats.totals.received, 0, "nothing was even handed out");
    place.check_attempt("job", 1);
}

#[test]
fn a_command_that_cannot_be_run_after_all_costs_no_attempt() {
    let place = Place::new("--max-attempts 1", "job\n");
    // It is there and may be executed, but what is to read it is not there.
    let script = place.path("script");
    fs::write(&script, "#!/missing/interpreter\n").unwrap();
    fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
    for _ in 0..3 {
        let ran = run_command(work(&place, "", &["./script"]), b"").expect(2);
        let want = "queue-client: cannot start ./script: No such file or directory";
        assert!(ran.stderr.starts_with(want), "{}", ran.stderr);
    }
    place.check_attempt("job", 1);
}

#[test]
fn a_fork_that_fails_costs_no_attempt() {
    /// Nobody else has this number.
    const USER: &str = "54321";
    let place = Place::new("--max-attempts 1", "job\n");
    let client = place.path("queue-client");
    fs::copy(program("queue-client"), &client).unwrap();
    fs::set_permissions(place.folder.path(), Permissions::from_mode(0o755)).unwrap();
    let run = |processes: u32, script: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", USER, "--regid", USER, "--clear-groups"]);
        command
            .args(["prlimit", &format!("--nproc={processes}")])
            .arg(&client);
        command.args(place.server.host_and_ports());
        command.args(["work", "--once", "--", "sh", "-c", script]);
        run_command(command, b"")
    };
    if run(100, "exit 7").code != Some(1) {
        return skipped("this user cannot become another one");
    }
    // The attempt that was to show that it can be done.
    say(&place.server, "kick default", b"").expect(0);
    // Three threads; with one more there is a guardian, but no command.
    let mut fails = 0;
    for processes in 1..=4 {
        let ran = run(processes, "exit 0");
        assert_ne!(ran.code, Some(0), "{processes} are enough");
        fails += u32::from(ran.stderr.contains("Resource temporarily unavailable"));
    }
    assert!(fails >= 2, "{fails}");
    place.check_attempt("job", 1);
}

#[test]
fn a_command_that_does_not_read_is_not_waited_for() {
    let place = Place::new("--max-message 8000000", "");
    let bytes = 8_000_000;
    let mut sender = client(&place.server);
    for _ in 0..2 {
        sender.send(&vec![b'x'; bytes]).unwrap();
    }
    // One leaves a daemon behind that holds the message's pipe; the other one reads it all.
    let script = "if test -e daemon; then wc -c > read; \
                  else exec 3<&0; sleep 60 <&3 > /dev/null 2>&1 & echo $! > daemon; fi";
    let worker = place.work("--drain", script);
    assert_eq!(worker.wait(), Some(0));
    let daemon = place.wait_for_pid("daemon");
    assert_eq!(place.read("read").trim(), bytes.to_string());
    assert!(is_alive(daemon), "it is not the worker's to end");
    signal("KILL", &daemon.to_string());
    assert_eq!(say(&place.server, "list", b"").expect(0).out(), "");
}

#[test]
fn a_command_that_wants_the_terminal_fails_instead_of_standing_still() {
    let place = Place::new("", "job\n");
    let mut line = place.command(&[], "--once", "read line < /dev/tty");
    let mut words = vec![line.get_program().to_str().unwrap().to_owned()];
    words.extend(
        line.get_args()
            .map(|word| word.to_str().unwrap().to_owned()),
    );
    // The last word is the only one with spaces.
    let script = words.pop().unwrap();
    line = Command::new("script");
    line.args([
        "-qec",
        &format!("{} '{script}'", words.join(" ")),
        "/dev/null",
    ]);
    line.current_dir(place.folder.path());
    if Command::new("script").arg("--version").output().is_err() {
        return skipped("there is no script");
    }
    let ran = run_command(line, b"").expect(1);
    let said = ran.out();
    assert!(said.contains("wanted the terminal"), "{said}");
    place.check_attempt("job", 2);
}

#[test]
fn process_1_waits_for_orphans_and_passes_signals_on() {
    let runner = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];
    let can = Command::new(runner[0])
        .args(&runner[1..])
        .arg("true")
        .output();
    if !can.is_ok_and(|can| can.status.success()) {
        return skipped("there can be no process 1");
    }
    let place = Place::new("", "orphans\nsleep\n");
    // The first job leaves processes behind whose parent is gone, and the second one sees none of
    // them as a zombie.
    let script = "read -r job; case $job in \
        orphans) for n in 1 2 3; do (sh -c 'sleep 0.01' &) ; done;; \
        *) while grep -q '^State:.Z' /proc/[0-9]*/status 2> /dev/null; do sleep 0.01; done; \
           test -e gone || { cat /proc/1/comm > comm; touch gone; echo $$ > running; }; \
           until test -e go-on; do sleep 0.01; done;; \
        esac";
    let worker = Running::start(place.command(&runner, "", script));
    place.wait_for("running");
    assert_eq!(place.read("comm").trim(), "queue-client");
    // The child of `unshare` is the first process of its namespace.
    let first = descendants(worker.pid())[0];
    signal("TERM", &first.to_string());
    worker.wait_for_stderr(|said| said.contains("Receiving no more messages"));
    place.touch("go-on");
    assert_eq!(worker.wait(), Some(0));
    assert_eq!(say(&place.server, "list", b"").expect(0).out(), "");
}

#[test]
fn process_1_needs_no_proc() {
    let script = "mount -t tmpfs none /proc && exec \"$@\"";
    let runner = [
        "unshare",
        "--pid",
        "--fork",
        "--mount",
        "--kill-child",
        "sh",
    ];
    let runner = [&runner[..], &["-c", script, "sh"]].concat();
    let can = Command::new(runner[0])
        .args(&runner[1..])
        .arg("true")
        .output();
    if !can.is_ok_and(|can| can.status.success()) {
        return skipped("there can be no process 1 without /proc");
    }
    let place = Place::new("", "job\n");
    run_command(place.command(&runner, "--once", "cat > done"), b"").expect(0);
    assert_eq!(place.read("done"), "job");
}

#[test]
fn process_1_ends_as_its_worker_does() {
    let runner = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];
    let can = Command::new(runner[0])
        .args(&runner[1..])
        .arg("true")
        .output();
    if !can.is_ok_and(|can| can.status.success()) {
        return skipped("there can be no process 1");
    }
    let place = Place::new("", "job\n");
    let command = place.command(&runner, "--once", "exit 3");
    let ran = run_command(command, b"").expect(1);
    assert!(ran.stderr.contains("exit status: 3"), "{}", ran.stderr);
    let command = place.command(&runner, "--once", "cat > done");
    run_command(command, b"").expect(0);
    eventually("it is done", || place.read("done") == "job");
}

#[test]
fn nobody_becomes_a_guardian_by_mistake() {
    let mut command = Command::new(program("queue-client"));
    command.args(["--as-guardian", "touch", "/tmp/never"]);
    let ran = run_command(command, b"").expect(2);
    assert!(ran.stderr.contains("--as-guardian"), "{}", ran.stderr);
}

#[test]
fn a_command_gets_no_descriptor_but_the_three() {
    let place = Place::new("", "job\n");
    // We may have some ourselves that are not ours to close.
    let mut list = Command::new("ls");
    list.arg("/proc/self/fd");
    let ours = run_command(list, b"").expect(0);
    let command = place.command(&[], "--once", "exec ls /proc/self/fd");
    let its = run_command(command, b"").expect(0);
    assert_eq!(its.out(), ours.out());
}
