//! Other people's SQLite programs on the queue's database, while the server runs, is killed, and
//! starts: whatever they do, nothing is lost.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::AtomicBool;

use super::*;
use crate::harness::{Ran, has_program, run_command};

/// How many times the server is killed, unless there is a time to fill.
const CRASHES: usize = 50;

/// Counts and checks everything, and copies it; opens the database anew for each.
const PYTHON: &str = "
import sqlite3, sys
path, copy = sys.argv[1:]
for look in ['select count(*) from sqlite_schema', 'pragma integrity_check']:
    database = sqlite3.connect(path, timeout=20)
    found = database.execute(look).fetchall()
    assert found[0][0] in ['ok', *range(1, 100)], found
    database.close()
with sqlite3.connect(path, timeout=20) as database, sqlite3.connect(copy) as other:
    database.backup(other)
";

/// Runs one program that looks; returns whether it could. It cannot while another one recovers the
/// database, copies it, or removes its log as the last one to close it.
#[track_caller]
fn look(program: &str, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(args);
    let Ran { code, stderr, .. } = run_command(command, b"");
    let passes = ["locked", "busy", "unable to open"];
    let is_passing = passes.iter().any(|passing| stderr.contains(passing));
    assert!(code == Some(0) || is_passing, "{args:?}: {stderr}");
    code == Some(0)
}

/// Looks at the database, copies it in all the ways that SQLite has, and checks the copies, again
/// and again; returns how often that could be done.
#[track_caller]
fn look_on(path: &Path, is_over: &AtomicBool) -> usize {
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("copy");
    let (path, copy) = (path.to_str().unwrap(), copy.to_str().unwrap());
    let sqlite = |database, statement: &str| {
        look("sqlite3", &["-cmd", ".timeout 20000", database, statement])
    };
    let looks: [&dyn Fn() -> bool; 4] = [
        &|| {
            sqlite(
                path,
                "select count(*) from sqlite_schema; pragma integrity_check",
            )
        },
        &|| sqlite(path, &format!(".backup {copy}")),
        &|| sqlite(path, &format!("vacuum into '{copy}'")),
        &|| !has_python() || look("python3", &["-c", PYTHON, path, copy]),
    ];
    let mut done = 0;
    for look in looks.iter().cycle() {
        if is_over.load(Ordering::SeqCst) {
            break;
        }
        done += usize::from(look());
        if Path::new(copy).exists() {
            let mut check = Command::new("sqlite3");
            check.args([copy, "pragma integrity_check"]);
            assert_eq!(run_command(check, b"").expect(0).out(), "ok\n");
            std::fs::remove_file(copy).unwrap();
        }
    }
    done
}

fn has_python() -> bool {
    static HAS_PYTHON: std::sync::LazyLock<bool> =
        std::sync::LazyLock::new(|| has_program("python3"));
    *HAS_PYTHON
}

#[test]
fn programs_that_read_the_queue_cost_it_nothing() {
    if !has_program("sqlite3") {
        return;
    }
    // Its folder is there until nobody looks any more.
    let queue = Queue::default();
    // Or the first look would make an empty database.
    queue.start().kill();
    let path = queue.path();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let lookers = [(); 2].map(|()| scope.spawn(|| look_on(&path, &is_over)));
        let over = Over(&is_over);
        crash_and_crash("queue, looked at", CRASHES, &queue, |_, _, _| {});
        drop(over);
        let looks: usize = lookers.into_iter().map(|l| l.join().unwrap()).sum();
        println!("torture: queue, looked at: {looks} looks");
        assert!(looks > 0);
    });
}

/// Says that it is over when it is dropped.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
