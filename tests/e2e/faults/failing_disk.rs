//! Disks that fail in a system call, and servers that die in one, by `strace`.

use super::*;

/// Whether `strace` is there and may be used; says so if not.
pub(super) fn has_strace() -> bool {
    let mut strace = Command::new("strace");
    strace.args(["-D", "-f", "-qq", "-o", "/dev/null", "true"]);
    let works = strace.stderr(Stdio::null()).status();
    let works = works.is_ok_and(|status| status.success());
    if !works {
        crate::harness::skipped("there is no strace that works");
    }
    works
}

/// System calls by what they do, where the machine has them.
pub(super) const SYNC: &str = "fsync,fdatasync";
pub(super) const WRITE: &str = "write,pwrite64,writev,pwritev";
const RENAME: &str = "?rename,renameat,renameat2";
const TRUNCATE: &str = "ftruncate";

/// What is done to a server's system calls. strace counts them thread by thread and call by call.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    calls: &'static str,
    /// As strace has it: `error=EIO`, `signal=KILL`.
    what: &'static str,
    /// Which of the calls: `3`, `1+`.
    when: String,
}

pub(super) fn fault(calls: &'static str, what: &'static str, when: impl ToString) -> Fault {
    Fault {
        calls,
        what,
        when: when.to_string(),
    }
}

/// A server under strace; the server is our child, and strace its own.
pub(super) struct Traced {
    pub(super) process: Process,
    trace: tempfile::NamedTempFile,
}

impl Traced {
    #[track_caller]
    fn start(kind: Kind, dir: &Path, faults: &[Fault]) -> Self {
        let trace = tempfile::NamedTempFile::new().unwrap();
        let mut command = Command::new("strace");
        command.args(["-D", "-f", "-o"]);
        command.arg(trace.path());
        let calls: Vec<_> = faults.iter().map(|fault| fault.calls).collect();
        command.args(["-e", &format!("trace={}", calls.join(","))]);
        for Fault { calls, what, when } in faults {
            command.args(["-e", &format!("inject={calls}:{what}:when={when}")]);
        }
        // Not what it writes to its sockets and its log.
        for file in kind.files() {
            command.arg("-P").arg(dir.join(file));
        }
        command.arg("-P").arg(dir);
        command.arg(program(kind.name())).args(kind.args(dir));
        let process = Process::start(command);
        Self { process, trace }
    }

    /// Follows what is written to one file, and synced, with the files behind descriptors.
    #[track_caller]
    pub(super) fn start_for(kind: Kind, dir: &Path, file: &str, faults: &[Fault]) -> Self {
        let trace = tempfile::NamedTempFile::new().unwrap();
        let mut command = Command::new("strace");
        command.args(["-D", "-f", "-y", "-o"]).arg(trace.path());
        command.args(["-e", &format!("trace={WRITE},{SYNC}")]);
        for Fault { calls, what, when } in faults {
            command.args(["-e", &format!("inject={calls}:{what}:when={when}")]);
        }
        command.arg("-P").arg(dir.join(file));
        command.arg(program(kind.name())).args(kind.args(dir));
        let process = Process::start(command);
        Self { process, trace }
    }

    /// What strace has seen, when the server has ended.
    #[track_caller]
    pub(super) fn trace(&self) -> String {
        let read = || fs::read_to_string(self.trace.path()).unwrap();
        let pid = self.process.pid().to_string();
        let is_end = |line: &str| line.trim_start().starts_with(&pid) && line.contains(" +++ ");
        eventually("strace is done", || read().lines().any(is_end));
        read()
    }
}

/// Whether a fault was met in a run, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Met {
    AtStart,
    UnderLoad,
    Never,
}

/// Runs a server whose disk fails, and then one whose disk does not.
///
/// After a failed sync it must end, and touch the disk no more.
#[track_caller]
fn check_fault(kind: Kind, faults: &[Fault]) -> Met {
    let (dir, mut ledger) = some_records(kind);
    let shown = |what: &dyn Debug| format!("{kind:?}, {faults:?}: {what:?}");
    let traced = Traced::start(kind, dir.path(), faults);
    let process = &traced.process;
    let is_kill = faults.iter().any(|fault| fault.what.starts_with("signal"));
    let (mut met, mut outcomes) = (Met::AtStart, Vec::new());
    if process.serves() {
        let addr = process.addrs[process.addrs.len() - 1];
        // Every other time, replies are left to the thread that writes.
        let is_even = faults[0].when.ends_with(['0', '2', '4', '6', '8']);
        let _crowd = is_even.then(|| crate::harness::crowd(addr));
        outcomes = load(&mut ledger, &process.addrs);
        let failed = outcomes.iter().position(|outcome| *outcome != Done);
        met = failed.map_or(Met::Never, |_| Met::UnderLoad);
        let rest = &outcomes[failed.unwrap_or(outcomes.len())..];
        match rest.first() {
            None => {}
            Some(Lost) => assert!(is_kill, "{}", shown(&outcomes)),
            // Nothing may be retried, and nothing else promised.
            Some(_) if rest.contains(&Unknown) => {
                let last = rest.iter().position(|outcome| *outcome == Unknown).unwrap();
                let promised = rest[last..].contains(&Done);
                assert!(!promised && !is_kill, "{}", shown(&outcomes));
                process.check_gave_up(kind);
                assert!(process.log().contains("[ERROR]"), "{}", process.log());
            }
            Some(_) => {
                assert!(!is_kill && process.serves(), "{}", shown(&outcomes));
            }
        }
    }
    if met == Met::AtStart && !is_kill {
        process.check_gave_up(kind);
    }
    // By a signal: whatever is still to be done at the end of a server, is not.
    process.running.kill();
    let trace = traced.trace();
    let hit = trace.contains("INJECTED") || trace.contains("killed by SIGKILL") && is_kill;
    assert!(met == Met::Never || hit, "{}\n{trace}", shown(&outcomes));
    if faults.iter().all(|fault| fault.calls == SYNC) && met != Met::Never && !is_kill {
        let is_sync = |line: &&str| line.contains("sync(");
        let mut failed = trace.lines().enumerate();
        let is_injected = |(_, line): &(usize, &str)| line.contains("INJECTED");
        let failed = match kind {
            Code | History => failed.find(is_injected),
            // SQLite itself ignores a folder that cannot be synced (os_unix.c, unixSync).
            Queue => failed.filter(is_injected).last(),
        };
        let (failed, _) = failed.unwrap();
        let after = trace.lines().skip(failed + 1).find(is_sync);
        assert_eq!(after, None, "a second sync, {}\n{trace}", shown(&outcomes));
        assert!(
            met == Met::AtStart || outcomes.contains(&Unknown),
            "{}",
            shown(&outcomes)
        );
    }
    ledger.check(dir.path());
    met
}

/// Runs a fault at one call after the other; checks that it was met as often as is said, at least.
#[track_caller]
fn check_faults(kind: Kind, calls: &'static str, what: &'static str, at_start: usize, load: usize) {
    const CALLS: usize = 9;
    // A database is written before it is served.
    let first = match (kind, calls) {
        (Queue, WRITE) => 8,
        (Queue, SYNC) => 4,
        _ => 1,
    };
    let faults = (first..first + CALLS).map(|when| fault(calls, what, when));
    let met: Vec<_> = faults.map(|fault| check_fault(kind, &[fault])).collect();
    let count = |wanted| met.iter().filter(|met| **met == wanted).count();
    println!("{kind:?}: {calls} {what}: {met:?}");
    assert!(count(Met::AtStart) >= at_start, "{kind:?}: {met:?}");
    assert!(count(Met::UnderLoad) >= load, "{kind:?}: {met:?}");
}

#[test]
fn after_a_failed_sync_nothing_is_promised_and_the_server_ends() {
    if !has_strace() {
        return;
    }
    for kind in KINDS {
        check_faults(kind, SYNC, "error=EIO", 1, 2);
    }
}

#[test]
fn a_failed_write_is_refused_and_the_next_may_succeed() {
    if !has_strace() {
        return;
    }
    for kind in KINDS {
        let refused = match kind {
            Code | History => 4,
            // It copies its log into the database, and tries once more.
            Queue => 2,
        };
        check_faults(kind, WRITE, "error=ENOSPC", 0, refused);
    }
}

#[test]
fn a_failed_rename_or_cut_is_never_an_ok() {
    if !has_strace() {
        return;
    }
    check_faults(History, RENAME, "error=EIO", 0, 3);
    for kind in [Code, History] {
        // What a failed write leaves cannot be cut off either.
        let faults = [
            fault(WRITE, "error=ENOSPC", 3),
            fault(TRUNCATE, "error=EIO", "1+"),
        ];
        assert_eq!(check_fault(kind, &faults), Met::UnderLoad);
        // Nor what a crash has left.
        let (dir, ledger) = some_records(kind);
        let path = dir.path().join(kind.files()[0]);
        let whole = fs::metadata(&path).unwrap().len();
        let file = File::options().append(true).open(&path).unwrap();
        (&file).write_all(b"half a line").unwrap();
        let traced = Traced::start(kind, dir.path(), &faults[1..]);
        traced.process.check_gave_up(kind);
        assert_eq!(file.metadata().unwrap().len(), whole + 11);
        ledger.check(dir.path());
    }
    check_fault(Queue, &[fault(TRUNCATE, "error=EIO", "1+")]);
}

#[test]
fn a_server_killed_at_a_call_keeps_what_it_acknowledged() {
    if !has_strace() {
        return;
    }
    for kind in KINDS {
        check_faults(kind, SYNC, "signal=KILL", 1, 1);
        check_faults(kind, WRITE, "signal=KILL", 0, 3);
    }
    check_faults(History, RENAME, "signal=KILL", 0, 3);
}

/// Copies the files in a folder.
fn copy(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.path().join(entry.file_name())).unwrap();
    }
    to
}

#[test]
fn recovery_killed_again_and_again_changes_nothing() {
    const KILLS_MAX: usize = 8;
    if !has_strace() {
        return;
    }
    for kind in KINDS {
        let (dir, ledger) = some_records(kind);
        if kind != Queue {
            let path = dir.path().join(kind.files()[0]);
            let mut file = File::options().append(true).open(path).unwrap();
            file.write_all(b"half a line").unwrap();
        }
        let untouched = copy(dir.path());
        let mut kills = 0;
        for calls in [TRUNCATE, SYNC, WRITE, "unlink,?unlinkat"] {
            for when in 1..=KILLS_MAX {
                let traced = Traced::start(kind, dir.path(), &[fault(calls, "signal=KILL", when)]);
                if traced.process.serves() {
                    break;
                }
                assert_eq!(traced.process.wait(), None, "{}", traced.process.log());
                kills += 1;
            }
        }
        println!("{kind:?}: recovery was killed {kills} times");
        assert!(kills >= 3, "{kind:?}: {kills}");
        let there = ledger.contents(untouched.path());
        assert_eq!(ledger.contents(dir.path()), there);
        let sent: Vec<_> = ledger.records.iter().map(|(record, _)| record).collect();
        assert!(there.iter().eq(sent), "{there:?}");
    }
}

/// The calls of a trace that matter for the order of writes, as `CALL FILE`.
fn steps(trace: &str) -> Vec<String> {
    let step = |line: &str| {
        let (call, rest) = line.split_once(' ')?.1.trim_start().split_once('(')?;
        let file = match call {
            // -y shows the file behind a descriptor.
            "fsync" | "fdatasync" | "write" => rest.split_once('<')?.1.split_once('>')?.0,
            "rename" | "renameat" | "renameat2" => rest.rsplit('"').nth(1)?,
            _ => return None,
        };
        let name = file.rsplit('/').next()?;
        let call = call.trim_start_matches('f').replace("datasync", "sync");
        let call = call.trim_end_matches("at").trim_end_matches("at2");
        Some(format!("{call} {name}"))
    };
    let mut steps: Vec<_> = trace.lines().filter_map(step).collect();
    steps.dedup();
    steps
}

#[test]
fn what_is_deleted_is_synced_before_it_is_renamed_and_the_folder_after_it() {
    if !has_strace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let trace = dir.path().join("trace");
    let mut command = Command::new("strace");
    command.args(["-D", "-f", "-y", "-o"]).arg(&trace);
    let calls = "trace=write,fsync,fdatasync,?rename,renameat,renameat2,listen";
    command.args(["-e", calls]).arg(program(History.name()));
    command.args(History.args(&data));
    let process = Process::start(command);
    let mut client = HistoryClient::connect(&process.addrs[0].endpoint()).unwrap();
    client.hello("alice").unwrap();
    client.delete("alice", 1).unwrap();
    let steps = steps(&fs::read_to_string(&trace).unwrap());
    let at = |step: &str| steps.iter().position(|other| other == step);
    let order = |wanted: &[&str]| {
        let mut left = steps.iter();
        let is_there = wanted.iter().all(|step| left.any(|other| other == step));
        assert!(is_there, "{wanted:?} in {steps:?}");
    };
    // The folder is made and synced, and the file, before anybody is served.
    let parent = dir.path().file_name().unwrap().to_str().unwrap();
    order(&[
        &format!("sync {parent}"),
        "sync history.txt",
        "sync data",
        "write history.txt",
    ]);
    order(&[
        "write history.txt",
        "sync history.txt",
        "write .history.txt.new",
    ]);
    order(&[
        "write .history.txt.new",
        "sync .history.txt.new",
        "rename history.txt",
        "sync data",
    ]);
    assert!(at("rename history.txt").is_some());
}

/// Some file systems interrupt a read or a write for any signal.
#[test]
fn a_call_that_a_signal_interrupts_is_made_again() {
    if !has_strace() {
        return;
    }
    for kind in KINDS {
        let (dir, mut ledger) = some_records(kind);
        // Every other call, so that the one after it is made.
        let calls = ["read,pread64", WRITE];
        let faults = calls.map(|calls| fault(calls, "error=EINTR", "1+2"));
        let traced = Traced::start(kind, dir.path(), &faults);
        let process = &traced.process;
        assert!(process.serves(), "{kind:?}: {}", process.log());
        for _ in 0..3 {
            let mut client = Client::connect(kind, &process.addrs);
            assert_eq!(ledger.put(&mut client), Done, "{kind:?}");
            assert_eq!(ledger.take(&mut client), Done, "{kind:?}");
        }
        process.running.kill();
        process.wait();
        assert!(traced.trace().contains("INJECTED"), "{kind:?}");
        ledger.check(dir.path());
        if kind == History {
            let traced = Traced::start(kind, dir.path(), &faults);
            let client = HistoryClient::connect(&traced.process.addrs[0].endpoint());
            client.unwrap().get("reader", &mut io::sink()).unwrap();
        }
    }
}
