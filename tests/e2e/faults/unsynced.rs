//! A server that starts after a failed sync does not believe the page cache: what the disk may not
//! have is written once more and synced before anybody is served.
//!
//! After a failed sync Linux takes the pages for clean, and no later sync writes them. `strace` shows
//! what each life of a server writes and syncs; what the disk would have after a power cut then is
//! worked out from that.

use std::ops::Range;

use super::failing_disk::{SYNC, Traced, fault, has_strace};
use super::*;

/// What the disk has of a file, by the calls that a server makes.
#[derive(Debug, Default)]
struct Disk {
    /// The bytes that are written and not synced.
    dirty: Vec<Range<u64>>,
    synced: Vec<Range<u64>>,
    file_bytes: u64,
}

impl Disk {
    fn write_at(&mut self, at: u64, bytes: u64) {
        self.dirty.push(at..at + bytes);
        self.file_bytes = self.file_bytes.max(at + bytes);
    }

    /// Follows what a server did.
    fn follow(&mut self, trace: &str, file: &str) {
        // Calls that another thread's came in between of, by thread; strace writes such a call in two.
        let mut begun = std::collections::HashMap::new();
        for line in trace.lines() {
            let Some((thread, call)) = line.split_once(' ') else {
                continue;
            };
            if let Some(call) = call.strip_suffix("<unfinished ...>") {
                begun.insert(thread, call);
                continue;
            }
            let whole = match call.trim_start().strip_prefix("<... ") {
                Some(rest) => {
                    let rest = rest.split_once("resumed>").map_or("", |(_, rest)| rest);
                    begun.remove(thread).unwrap_or_default().to_owned() + rest
                }
                None => call.to_owned(),
            };
            let (line, call) = (whole.as_str(), whole.as_str());
            let is_ours = call.contains(&format!("/{file}>"));
            let Some((name, rest)) = call.trim_start().split_once('(').filter(|_| is_ours) else {
                continue;
            };
            let result = line.rsplit_once(" = ").map_or("", |(_, result)| result);
            match name {
                "write" => {
                    let written: u64 = result.parse().unwrap();
                    self.write_at(self.file_bytes, written);
                }
                "pwrite64" => {
                    let written: u64 = result.parse().unwrap();
                    let at = rest.rsplit_once(", ").unwrap().1;
                    let at: u64 = at.split_once(')').unwrap().0.parse().unwrap();
                    self.write_at(at, written);
                }
                // One that fails leaves the pages clean, as Linux does.
                "fsync" | "fdatasync" => match result {
                    "0" => self.synced.append(&mut self.dirty),
                    _ => self.dirty.clear(),
                },
                _ => {}
            }
        }
    }

    /// How many of its bytes a power cut leaves, up to the first that is missing.
    fn kept_bytes(&self) -> u64 {
        let mut synced = self.synced.clone();
        synced.sort_unstable_by_key(|range| range.start);
        let grow = |end: u64, range: Range<u64>| match range.start <= end {
            true => end.max(range.end),
            false => end,
        };
        synced.into_iter().fold(0, grow)
    }
}

/// Makes the n-th sync of a file fail, starts the server again, and checks that then, before it
/// listens, the disk has all that the server has read.
#[track_caller]
fn check_start_after_failed_sync(kind: Kind, file: &str, when: usize) {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::new(kind);
    let mut disk = Disk::default();
    let faults = [fault(SYNC, "error=EIO", when)];
    let traced = Traced::start_for(kind, dir.path(), file, &faults);
    let mut client = Client::connect(kind, &traced.process.addrs);
    let mut outcomes = Vec::new();
    while outcomes.last().is_none_or(|outcome| *outcome == Done) {
        outcomes.push(ledger.put(&mut client));
    }
    assert_eq!(outcomes.last(), Some(&Unknown), "{kind:?}, {file}");
    traced.process.check_gave_up(kind);
    disk.follow(&traced.trace(), file);
    let file_bytes = fs::metadata(dir.path().join(file)).unwrap().len();
    assert_eq!(disk.file_bytes, file_bytes);
    assert!(disk.kept_bytes() < file_bytes, "{disk:?}");
    // It trusts nothing that only the cache has. A start that was broken off changes nothing.
    for faults in [vec![fault(SYNC, "error=EIO", 1)], Vec::new()] {
        let traced = Traced::start_for(kind, dir.path(), file, &faults);
        let serves = traced.process.serves();
        assert_eq!(serves, faults.is_empty());
        // Nobody has asked it for anything, and it does nothing at its end: what it does is its start.
        traced.process.running.kill();
        disk.follow(&traced.trace(), file);
        assert_eq!(disk.kept_bytes() == file_bytes, serves, "{disk:?}");
    }
    ledger.check(dir.path());
}

#[test]
fn what_a_start_after_a_failed_sync_answers_from_is_on_the_disk() {
    if !has_strace() {
        return;
    }
    for (kind, file) in [
        (Code, "codes.txt"),
        (Code, "messages.log"),
        (History, "history.txt"),
    ] {
        for when in [2, 4] {
            check_start_after_failed_sync(kind, file, when);
        }
    }
}

#[test]
fn a_backup_that_was_copied_back_and_never_synced_is_on_the_disk_too() {
    if !has_strace() {
        return;
    }
    for (kind, file) in [
        (Code, "codes.txt"),
        (Code, "messages.log"),
        (History, "history.txt"),
    ] {
        let (dir, ledger) = some_records(kind);
        let path = dir.path().join(file);
        let backup = fs::read(&path).unwrap();
        // After a clean end everything is known to be synced, in a file that stays the same one.
        let server = Server::spawn(kind.command(dir.path()));
        server.signal("TERM");
        assert_eq!(server.wait().0, Some(0));
        fs::write(&path, &backup).unwrap();
        let file_bytes = backup.len() as u64;
        let mut disk = Disk::default();
        disk.write_at(0, file_bytes);
        for faults in [vec![fault(SYNC, "error=EIO", 1)], Vec::new()] {
            let traced = Traced::start_for(kind, dir.path(), file, &faults);
            let serves = traced.process.serves();
            assert_eq!(serves, faults.is_empty());
            traced.process.running.kill();
            disk.follow(&traced.trace(), file);
            assert_eq!(disk.kept_bytes() == file_bytes, serves, "{disk:?}");
        }
        ledger.check(dir.path());
    }
}
