//! A clock that is wrong, and is set right: in a running server and between two runs. libfaketime,
//! if it is there, is what has the server see such a clock.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::*;
use crate::harness::{program, run_command, skipped};
use crate::work::{check, say};

/// The loader finds it, wherever the machine keeps its libraries.
const LIBRARY: &str = "/usr/$LIB/faketime/libfaketimeMT.so.1";

/// How wrong the clock can be.
pub const STEPS: [&str; 7] = ["-3650d", "-1d", "-1h", "+0", "+1h", "+1d", "+3650d"];

/// Has a program see the clock that the file `clock` says. What it measures durations with is as it
/// is.
pub fn with_clock(command: &mut Command, clock: &Path) {
    command.env("LD_PRELOAD", LIBRARY);
    command.env("FAKETIME_TIMESTAMP_FILE", clock);
    command.env("FAKETIME_NO_CACHE", "1");
    command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    // Nothing is left in the machine's shared memory.
    command.env("FAKETIME_DISABLE_SHM", "1");
}

/// Whether a clock can be had that shows what this file says; says that it is skipped if not.
pub fn has_faketime(clock: &Path) -> bool {
    fs::write(clock, "@1999-12-31 12:00:00").unwrap();
    let mut date = Command::new("date");
    date.arg("+%Y");
    with_clock(&mut date, clock);
    let works = run_command(date, b"").out() == "1999\n";
    if !works {
        skipped("there is no libfaketime");
    }
    works
}

#[test]
fn a_clock_that_steps_frees_nothing_early_and_holds_nothing_long() {
    const ROUNDS: usize = 4;
    let dir = tempfile::tempdir().unwrap();
    let clock = dir.path().join("clock");
    if !has_faketime(&clock) {
        return;
    }
    let mut noise = noise();
    let mut step = || fs::write(&clock, STEPS[noise.below(STEPS.len())]).unwrap();
    let start = || {
        let mut command = Command::new(program("queue-server"));
        let data = dir.path().join("queue.db");
        command.args(["0", "tcp", "--data"]).arg(data);
        with_clock(&mut command, &clock);
        Server::spawn(command)
    };
    let leased = dir.path().join("leased");
    let lease = |server: &Server, secs: u32, want: &str| {
        let line = format!("lease {secs} {}", leased.display());
        let token = say(server, &line, b"").expect(0).out();
        assert_eq!(fs::read_to_string(&leased).unwrap(), want);
        token
    };
    step();
    let server = start();
    check(&server, "send -", "kept", 0, "");
    let token = lease(&server, 7200, "kept");
    check(&server, "send --delay 7200 -", "later", 0, "");
    check(&server, "send --delay 1 -", "before round 0", 0, "");
    server.kill();
    let done = rounds(ROUNDS, |round| {
        step();
        let server = start();
        let receive = |want: &str| {
            check(&server, "receive --wait 30", "", 0, want);
        };
        // What was delayed or leased under another clock...
        receive(&format!("before round {round}"));
        // ...and what is, while the clock steps.
        check(&server, "send --delay 1 -", "delayed", 0, "");
        step();
        receive("delayed");
        check(&server, "send -", "leased", 0, "");
        lease(&server, 1, "leased");
        step();
        receive("leased");
        let next = format!("before round {}", round + 1);
        if round % 2 == 0 {
            check(&server, "send --delay 1 -", &next, 0, "");
        } else {
            check(&server, "send -", &next, 0, "");
            lease(&server, 1, &next);
        }
        // Nothing is freed early.
        say(&server, "receive", b"").expect(1);
        if round % 3 == 0 {
            server.signal("TERM");
            assert_eq!(server.wait().0, Some(0));
        }
    });
    fs::write(&clock, "+0").unwrap();
    let server = start();
    check(&server, &format!("ack {}", token.trim_end()), "", 0, "");
    println!("torture: clock: {done} rounds");
}
