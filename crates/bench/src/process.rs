//! Starting servers, and ending them whatever happens.
//!
//! Each server leads a process group of its own: so Ctrl-C reaches the bench alone, and nginx ends
//! together with its workers. A server ends when its [`Process`] is dropped. On a signal all are
//! killed, and the temporary folder is removed.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::error::Error;

/// How long a server may take to listen, in seconds.
const START_SECS: u64 = 60;

/// How long a server may take to end on SIGTERM before it is killed.
const GRACE: Duration = Duration::from_secs(10);

/// The exit code when a signal ends the run, as a shell would have it for SIGINT.
const EXIT_INTERRUPTED: i32 = 130;

/// The process groups of the servers that run.
static GROUPS: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

fn groups() -> MutexGuard<'static, Vec<Pid>> {
    GROUPS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// On SIGINT, SIGTERM or SIGHUP: kills all servers, removes `folder`, and ends the bench.
///
/// # Errors
/// If the handlers cannot be set.
pub fn clean_up_on_signals(folder: &Path) -> Result<(), Error> {
    let folder = folder.to_owned();
    let mut signals =
        Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(Error::io("handle signals"))?;
    let wait = move || {
        if signals.forever().next().is_none() {
            return;
        }
        // Keeps the lock, so that no server is started.
        let groups = groups();
        for group in &*groups {
            let _ = kill_process_group(*group, Signal::KILL);
        }
        let _ = fs::remove_dir_all(folder);
        process::exit(EXIT_INTERRUPTED);
    };
    let thread = thread::Builder::new().name("signals".to_owned());
    let started = thread.spawn(wait);
    started.map(drop).map_err(Error::io("start a thread"))
}

/// Our own programs, the bench first.
const OURS: [&str; 5] = [
    "bench",
    "code-server",
    "file-server",
    "history-server",
    "queue-server",
];

/// Where our servers are, if not beside the bench.
static OTHER_BUILD: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Makes the servers of ours that are started from now on be those in this folder.
pub fn use_programs_in(folder: &Path) {
    let mut other = OTHER_BUILD.lock().unwrap_or_else(PoisonError::into_inner);
    *other = Some(folder.to_owned());
}

/// The folder that the bench is in.
///
/// # Errors
/// If it cannot be found.
pub fn own_folder() -> Result<PathBuf, Error> {
    let own = std::env::current_exe().map_err(Error::io("find the bench itself"))?;
    Ok(own.parent().unwrap_or(Path::new(".")).to_owned())
}

/// A program's path. Ours are beside the bench or in the folder of another build, the others where
/// the system has them.
///
/// # Errors
/// If it is not there.
pub fn find(name: &'static str) -> Result<PathBuf, Error> {
    if OURS.contains(&name) {
        let other = OTHER_BUILD.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = match &*other {
            Some(folder) if name != OURS[0] => folder.clone(),
            _ => own_folder()?,
        };
        let path = folder.join(name);
        return match path.is_file() {
            true => Ok(path),
            false => Err(Error::NotBuilt(name)),
        };
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    // Not everybody has these in PATH.
    folders.extend(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    // Of PostgreSQL, all programs are of one version.
    folders.splice(..0, postgres_folder());
    let mut candidates = folders.into_iter().map(|folder| folder.join(name));
    let found = candidates.find(|path| path.is_file());
    found.ok_or(Error::Missing(name))
}

/// Where Debian has the newest version of PostgreSQL, if there is one.
fn postgres_folder() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let numbers =
        versions.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let newest = numbers.max()?;
    Some(format!("/usr/lib/postgresql/{newest}/bin").into())
}

/// A loopback address that no server listens on. Its port is below those from which connections are
/// made, so that none of them takes it before the server does.
///
/// # Errors
/// If there is none.
pub fn free_addr() -> Result<SocketAddrV4, Error> {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 10_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Two runs at a time start at different places.
    let offset = (process::id() % 97) as u16 * 100;
    for _ in 0..COUNT {
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + offset.wrapping_add(next) % COUNT;
        let addr = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        if TcpListener::bind(addr).is_ok() {
            return Ok(addr);
        }
    }
    let none = io::ErrorKind::AddrInUse.into();
    Err(Error::io("find a free port")(none))
}

/// A server. Dropping it ends it: SIGTERM, and SIGKILL if that is not enough.
#[must_use = "dropping it ends the server"]
pub struct Process {
    child: Child,
    pid: Pid,
    addr: SocketAddrV4,
    command: String,
    log: PathBuf,
}

impl Process {
    /// Starts a server whose port is `PORT` in `args` and whose folder is `DIR`, and waits until it
    /// listens.
    ///
    /// # Errors
    /// If it is not installed, or ends instead.
    pub fn start(program: &'static str, args: &[&str], dir: &Path) -> Result<Self, Error> {
        let mut process = Self::spawn(program, args, dir, free_addr()?, Stdio::null())?;
        process.connect()?;
        Ok(process)
    }

    /// The same without waiting, on this address, and with this standard input. Its output goes to a
    /// file in `dir`.
    ///
    /// # Errors
    /// If it is not installed.
    pub fn spawn(
        program: &'static str,
        args: &[&str],
        dir: &Path,
        addr: SocketAddrV4,
        input: Stdio,
    ) -> Result<Self, Error> {
        let quoted = args
            .iter()
            .map(|arg| if arg.is_empty() { "''" } else { arg });
        let shown: Vec<&str> = [program].into_iter().chain(quoted).collect();
        let shown = shown.join(" ");
        let (port, folder) = (addr.port().to_string(), dir.to_string_lossy());
        let fill = |arg: &&str| arg.replace("PORT", &port).replace("DIR", &folder).into();
        let filled: Vec<OsString> = args.iter().map(fill).collect();
        let log = dir.join("log");
        let failed = || Error::io(shown.as_str());
        let output = File::create(&log).map_err(failed())?;
        let errors = output.try_clone().map_err(failed())?;
        let mut command = Command::new(find(program)?);
        command.args(filled).current_dir(dir).stdin(input);
        command.stdout(output).stderr(errors).env_remove("RUST_LOG");
        command.process_group(0);
        let mut groups = groups();
        let child = command.spawn().map_err(failed())?;
        let pid = Pid::from_child(&child);
        groups.push(pid);
        drop(groups);
        Ok(Self {
            child,
            pid,
            addr,
            command: shown,
            log,
        })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddrV4 {
        self.addr
    }

    /// The memory it has now (`VmRSS`), in bytes.
    ///
    /// # Errors
    /// If it has ended.
    pub fn resident_bytes(&self) -> Result<u64, Error> {
        self.status_bytes("VmRSS:")
    }

    /// The most memory it has had so far (`VmHWM`), in bytes.
    ///
    /// # Errors
    /// If it has ended.
    pub fn peak_bytes(&self) -> Result<u64, Error> {
        self.status_bytes("VmHWM:")
    }

    fn status_bytes(&self, field: &str) -> Result<u64, Error> {
        let path = format!("/proc/{}/status", self.child.id());
        let status = fs::read_to_string(&path).map_err(Error::io(path.as_str()))?;
        let value = status.lines().find_map(|line| line.strip_prefix(field));
        let kib = value.and_then(|value| value.split_whitespace().next()?.parse().ok());
        let kib: u64 = kib.ok_or_else(|| Error::io(path)(io::ErrorKind::InvalidData.into()))?;
        Ok(kib * 1024)
    }

    /// Connects as soon as it listens.
    ///
    /// # Errors
    /// If it ends instead, or takes longer than a minute.
    pub fn connect(&mut self) -> Result<TcpStream, Error> {
        let (addr, command) = (self.addr, self.command.clone());
        self.wait_until(|| match TcpStream::connect(addr) {
            Ok(stream) => Ok(Some(stream)),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(None),
            Err(error) => Err(Error::io(command.as_str())(error)),
        })
    }

    /// Asks again and again, until the answer is not `None`.
    ///
    /// # Errors
    /// That of the answer, or if the server ends instead, or takes longer than a minute.
    pub fn wait_until<T>(
        &mut self,
        mut ask: impl FnMut() -> Result<Option<T>, Error>,
    ) -> Result<T, Error> {
        let deadline = Instant::now() + Duration::from_secs(START_SECS);
        let mut pause = Duration::from_micros(500);
        loop {
            // No event tells that another process is ready.
            if let Some(ready) = ask()? {
                return Ok(ready);
            }
            if self.has_ended() {
                return Err(Error::Ended {
                    command: self.command.clone(),
                    log: self.end_of_log(),
                });
            }
            if Instant::now() > deadline {
                return Err(Error::Silent {
                    who: self.command.clone(),
                    secs: START_SECS,
                });
            }
            thread::park_timeout(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    /// Waits for it to end by itself.
    ///
    /// # Errors
    /// If it cannot be waited for.
    pub fn wait(mut self) -> Result<(), Error> {
        let status = self.child.wait();
        status.map(drop).map_err(Error::io(self.command.as_str()))
    }

    fn end_of_log(&self) -> String {
        const SHOWN_CHARS: usize = 300;
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let skipped = log.chars().count().saturating_sub(SHOWN_CHARS);
        log.chars().skip(skipped).collect()
    }

    /// Whether it has ended; then it is also reaped and off the list.
    fn has_ended(&mut self) -> bool {
        let mut groups = groups();
        let ended = !matches!(self.child.try_wait(), Ok(None));
        if ended {
            groups.retain(|group| *group != self.pid);
        }
        ended
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let deadline = Instant::now() + GRACE;
        if self.has_ended() {
            return;
        }
        let _ = kill_process(self.pid, Signal::TERM);
        while !self.has_ended() {
            if Instant::now() > deadline {
                let _ = kill_process_group(self.pid, Signal::KILL);
                let _ = self.child.wait();
            } else {
                // The standard library cannot wait for a child with a timeout.
                thread::park_timeout(Duration::from_millis(2));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_ends_when_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let addr = free_addr().unwrap();
        let sleep = Process::spawn("sleep", &["600"], dir.path(), addr, Stdio::null());
        let process = sleep.unwrap();
        let pid = process.child.id();
        assert!(process.resident_bytes().is_ok());
        assert!(Path::new(&format!("/proc/{pid}")).exists());
        drop(process);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }
}
