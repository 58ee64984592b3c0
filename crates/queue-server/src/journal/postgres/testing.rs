//! A PostgreSQL of a test's own, if it is installed: in a temporary folder, on loopback and a Unix socket.

use std::fs::{self, DirEntry, Permissions};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

/// Where Debian puts its versions.
const VERSIONS: &str = "/usr/lib/postgresql";

/// Whom PostgreSQL runs as if the test is run by root, which it refuses.
const NOBODY: u32 = 65534;

const PATIENCE: Duration = Duration::from_secs(60);

/// What the log says when anybody can connect.
const READY: &str = "database system is ready to accept";

/// The superuser, and the password of everybody.
pub(crate) const USER: &str = "postgres";
pub(crate) const PASSWORD: &str = "a:b\\c";

/// Its files.
pub(crate) struct Cluster {
    folder: TempDir,
    programs: PathBuf,
    port: u16,
}

/// A server that runs. It ends with this value.
pub(crate) struct Running<'a> {
    cluster: &'a Cluster,
    process: Child,
    log: Receiver<String>,
    reader: Option<JoinHandle<()>>,
}

impl Cluster {
    /// Makes the files. All connections need the password, by SCRAM. Says so and returns `None` if there is
    /// no PostgreSQL on this machine.
    pub(crate) fn new() -> Option<Self> {
        let Some(programs) = programs() else {
            println!("skipped: there is no PostgreSQL in {VERSIONS}");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        // The socket is closed at once, and the system does not give its port to another soon.
        let port = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = port.local_addr().unwrap().port();
        let cluster = Self {
            folder,
            programs,
            port,
        };
        cluster.give(cluster.folder());
        cluster.write("password", PASSWORD.as_bytes());
        let mut initdb = cluster.command("initdb");
        initdb.args([
            "--no-sync",
            "--no-locale",
            "-E",
            "UTF8",
            "-A",
            "scram-sha-256",
        ]);
        initdb
            .args(["-U", USER, "--pwfile"])
            .arg(cluster.path("password"));
        let made = initdb.arg("-D").arg(cluster.data()).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        Some(cluster)
    }

    /// The folder of its Unix socket, and of all its files.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A file in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// Its port, on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Writes a file that only its user can read.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        self.give(&path);
        path
    }

    fn give(&self, path: &Path) {
        if geteuid().is_root() {
            chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }

    /// Its program of this name, as its user.
    fn command(&self, program: &str) -> Command {
        let program = self.programs.join(program);
        let mut command = if geteuid().is_root() {
            let mut command = Command::new("setpriv");
            let id = NOBODY.to_string();
            command.args(["--reuid", &id, "--regid", &id, "--clear-groups"]);
            command.arg(program);
            command
        } else {
            Command::new(program)
        };
        command.current_dir(self.folder()).env_clear();
        command
    }

    /// Starts the server, with these settings (`name=value`), and waits until it is ready.
    pub(crate) fn start(&self, settings: &[&str]) -> Running<'_> {
        let mut command = self.command("postgres");
        command
            .arg("-D")
            .arg(self.data())
            .arg("-k")
            .arg(self.folder());
        let own = [
            "listen_addresses=127.0.0.1".to_owned(),
            format!("port={}", self.port),
            "fsync=off".to_owned(),
        ];
        let settings = settings.iter().map(|setting| (*setting).to_owned());
        for setting in own.into_iter().chain(settings) {
            command.arg("-c").arg(setting);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut process = command.stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let (line, log) = channel();
        let reader = thread::spawn(move || {
            // Nobody listens any more when the test ends.
            lines
                .map_while(Result::ok)
                .for_each(|text| drop(line.send(text)));
        });
        let running = Running {
            cluster: self,
            process,
            log,
            reader: Some(reader),
        };
        running.wait_for_log(READY);
        running
    }
}

impl Running<'_> {
    /// Its files.
    pub(crate) fn cluster(&self) -> &Cluster {
        self.cluster
    }

    /// Waits until its log has a line with this.
    #[track_caller]
    pub(crate) fn wait_for_log(&self, what: &str) {
        let mut seen = Vec::new();
        loop {
            match self.log.recv_timeout(PATIENCE) {
                Ok(line) if line.contains(what) => return,
                Ok(line) => seen.push(line),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("no '{what}' in {}", seen.join("\n"))
                }
            }
        }
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let id = Pid::from_child(&self.process);
        kill_process(id, signal).unwrap();
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        // SIGQUIT ends all of its processes at once, and leaves no shared memory behind.
        for signal in [Signal::CONT, Signal::QUIT] {
            self.signal(signal);
        }
        let _ = self.process.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// The programs of the newest version.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir(VERSIONS).ok()?;
    let programs = |entry: DirEntry| {
        let version: u32 = entry.file_name().to_str()?.parse().ok()?;
        let programs = entry.path().join("bin");
        programs
            .join("initdb")
            .exists()
            .then_some((version, programs))
    };
    let versions = versions.filter_map(|entry| programs(entry.ok()?));
    versions.max().map(|(_, programs)| programs)
}
