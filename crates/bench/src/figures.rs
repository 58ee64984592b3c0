//! What the kernel says of a process: processor time and memory.
//!
//! A server may be several processes (nginx has a master and workers), so every figure is the sum
//! over a process and its descendants. Processor time comes in clock ticks, of which there are
//! usually 100 a second: a figure over a measured second is right to about 2 %.

use std::fs;
use std::io;
use std::time::Duration;

use crate::error::Error;

/// Processor time spent so far, in the process (all its threads, ended ones too) and in the kernel
/// on its behalf.
///
/// # Errors
/// If the process is gone.
pub fn processor_time(pid: u32) -> Result<Duration, Error> {
    let ticks = family(pid)?.iter().map(|stat| stat.ticks).sum();
    Ok(ticks_to_time(ticks))
}

/// Processor time that the bench itself spent so far, without that of the servers it started.
///
/// # Errors
/// If `/proc` cannot be read.
pub fn own_processor_time() -> Result<Duration, Error> {
    Ok(ticks_to_time(stat_of("self")?.ticks))
}

/// The most memory it ever had at a time (`VmHWM`), in bytes.
///
/// # Errors
/// If the process is gone.
pub fn memory_peak_bytes(pid: u32) -> Result<u64, Error> {
    memory(pid, "VmHWM:")
}

/// The memory it has now (`VmRSS`), in bytes.
///
/// # Errors
/// If the process is gone.
pub fn resident_bytes(pid: u32) -> Result<u64, Error> {
    memory(pid, "VmRSS:")
}

fn memory(pid: u32, field: &str) -> Result<u64, Error> {
    let mut bytes = 0;
    for member in family(pid)? {
        let path = format!("/proc/{}/status", member.pid);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            // What it had started may end at any time.
            Err(_) if member.pid != pid => continue,
            Err(error) => return Err(Error::io(path)(error)),
        };
        bytes += status_bytes(&text, field).unwrap_or(0);
    }
    Ok(bytes)
}

/// The value of a field of `/proc/PID/status`, which is in KiB there, in bytes.
fn status_bytes(status: &str, field: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: u64 = value.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

#[derive(Debug, PartialEq, Eq)]
struct Stat {
    pid: u32,
    parent: u32,
    ticks: u64,
}

fn ticks_to_time(ticks: u64) -> Duration {
    let ticks_per_sec = rustix::param::clock_ticks_per_second();
    Duration::from_secs(ticks) / ticks_per_sec as u32
}

/// The stat of one process; `pid` may also be `self`.
fn stat_of(pid: &str) -> Result<Stat, Error> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).map_err(Error::io(path.as_str()))?;
    let invalid = || Error::io(path.as_str())(io::ErrorKind::InvalidData.into());
    parse_stat(&text).ok_or_else(invalid)
}

/// The process and its descendants.
fn family(pid: u32) -> Result<Vec<Stat>, Error> {
    let mut family = vec![stat_of(&pid.to_string())?];
    let mut others = all_processes().map_err(Error::io("/proc"))?;
    let mut at = 0;
    while at < family.len() {
        let parent = family[at].pid;
        let (children, rest) = others.into_iter().partition(|stat| stat.parent == parent);
        family.extend::<Vec<Stat>>(children);
        others = rest;
        at += 1;
    }
    Ok(family)
}

fn all_processes() -> io::Result<Vec<Stat>> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path().join("stat");
        // Most entries are no processes, and processes may end at any time.
        let stat = fs::read_to_string(path).ok();
        all.extend(stat.as_deref().and_then(parse_stat));
    }
    Ok(all)
}

/// Reads `/proc/PID/stat`. The second field is the program's name in brackets and may hold
/// anything, so counting starts behind the last bracket.
fn parse_stat(text: &str) -> Option<Stat> {
    let (pid, _) = text.split_once(' ')?;
    let (_, rest) = text.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    // Behind the name: state, parent, then eight others, then utime and stime.
    let parent = fields.nth(1)?.parse().ok()?;
    let user: u64 = fields.nth(9)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Stat {
        pid: pid.parse().ok()?,
        parent,
        ticks: user + system,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_with_a_nasty_name() {
        let line = "42 (a) b (c) S 7 42 42 0 -1 4194560 100 0 0 0 250 31 0 0 20 0 3 0 999 0 0";
        let want = Stat {
            pid: 42,
            parent: 7,
            ticks: 281,
        };
        assert_eq!(parse_stat(line), Some(want));
        assert_eq!(parse_stat("42 (cut"), None);
    }

    #[test]
    fn fields_of_status() {
        let status = "Name:\tx\nVmHWM:\t    1234 kB\nVmRSS:\t     1000 kB\n";
        assert_eq!(status_bytes(status, "VmHWM:"), Some(1234 * 1024));
        assert_eq!(status_bytes(status, "VmSwap:"), None);
    }

    #[test]
    fn figures_of_this_process() {
        let pid = std::process::id();
        assert!(memory_peak_bytes(pid).unwrap() >= 1024 * 1024);
        assert!(resident_bytes(pid).unwrap() >= 1024 * 1024);
        processor_time(pid).unwrap();
    }
}
