//! A PostgreSQL for tests, if it is installed: in a temporary folder, on loopback and a Unix socket. A test that
//! leaves the server alone has a database of its own in one that such tests share.

use std::fs::{self, DirEntry, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

/// Where Debian puts its versions.
const VERSIONS: &str = "/usr/lib/postgresql";

/// Whom PostgreSQL runs as if the test is run by root, which it refuses.
const NOBODY: u32 = 65534;

const PATIENCE: Duration = Duration::from_secs(60);

/// What the log says when anybody can connect.
const READY: &str = "database system is ready to accept";

/// The superuser, and its password.
pub(crate) const USER: &str = "postgres";
pub(crate) const PASSWORD: &str = "a:b\\c";

/// A user like others, who needs no password.
pub(crate) const SERVER_USER: &str = "quartet";

/// Its files.
pub(crate) struct Cluster {
    folder: TempDir,
    programs: PathBuf,
    port: u16,
}

/// A server that runs. It ends with this value.
pub(crate) struct Running {
    cluster: Arc<Cluster>,
    process: Process,
}

/// A program that runs, whose log is read. It is killed with this value.
pub(crate) struct Process {
    child: Child,
    log: Mutex<Receiver<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Cluster {
    /// Makes the files. The superuser needs its password, by SCRAM. Says so and returns `None` if there is no
    /// PostgreSQL on this machine.
    pub(crate) fn new() -> Option<Arc<Self>> {
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
        cluster.add_user();
        Some(Arc::new(cluster))
    }

    fn add_user(&self) {
        let who = self.data().join("pg_hba.conf");
        let others = fs::read_to_string(&who).unwrap();
        let user = format!("host all {SERVER_USER} 127.0.0.1/32 trust\n{others}");
        fs::write(who, user).unwrap();
        let mut alone = self.command("postgres");
        alone.args(["--single", "-F", "-D"]).arg(self.data());
        alone.arg(USER).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut alone = alone.stderr(Stdio::null()).spawn().unwrap();
        let create = format!("CREATE ROLE {SERVER_USER} LOGIN\n");
        let input = alone.stdin.take();
        input.unwrap().write_all(create.as_bytes()).unwrap();
        assert!(alone.wait().unwrap().success());
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
    pub(crate) fn start(self: &Arc<Self>, settings: &[&str]) -> Running {
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
        let running = Running {
            cluster: Arc::clone(self),
            process: Process::start(command),
        };
        running.process.wait_for_log(READY);
        running
    }
}

impl Process {
    pub(crate) fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (line, log) = channel();
        let reader = thread::spawn(move || {
            // Nobody listens any more when the test ends.
            lines
                .map_while(Result::ok)
                .for_each(|text| drop(line.send(text)));
        });
        Self {
            child,
            log: Mutex::new(log),
            reader: Some(reader),
        }
    }

    /// Waits until its log has a line with this, behind the last that was waited for.
    #[track_caller]
    pub(crate) fn wait_for_log(&self, what: &str) -> String {
        let mut seen = Vec::new();
        let log = self.log.lock().unwrap();
        loop {
            match log.recv_timeout(PATIENCE) {
                Ok(line) if line.contains(what) => return line,
                Ok(line) => seen.push(line),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("no '{what}' in {}", seen.join("\n"))
                }
            }
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until it has ended, which closes its log.
    #[allow(dead_code, reason = "only a server of ours ends by itself")]
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let log = self.log.lock().unwrap();
        let mut seen = Vec::new();
        loop {
            match log.recv_timeout(PATIENCE) {
                Ok(line) => seen.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("it runs: {}", seen.join("\n")),
            }
        }
        self.child.wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

impl Running {
    /// Its files.
    pub(crate) fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    /// Stops all of its processes, as a machine does whose disk hangs.
    pub(crate) fn freeze(&self) {
        // First the one that starts the others.
        self.process.signal(Signal::STOP);
        self.signal_others(Signal::STOP);
    }

    /// Continues what [`Running::freeze`] has stopped.
    pub(crate) fn thaw(&self) {
        self.signal_others(Signal::CONT);
        self.process.signal(Signal::CONT);
    }

    fn signal_others(&self, signal: Signal) {
        let id = self.process.child.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
        for child in children.unwrap_or_default().split_whitespace() {
            // It may have ended.
            let child = Pid::from_raw(child.parse().unwrap()).unwrap();
            let _ = kill_process(child, signal);
        }
    }
}

/// A database of a test's own.
pub(crate) struct Database {
    server: Arc<Running>,
    name: String,
}

/// A session of psql that waits. It ends with this value, and what it has not committed is undone.
pub(crate) struct Held(Child);

impl Database {
    /// In a server that tests share which leave it alone; `None` if there is no PostgreSQL on this machine.
    pub(crate) fn new() -> Option<Self> {
        static SHARED: Mutex<Weak<Running>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        let server = match shared.upgrade() {
            Some(server) => server,
            None => Arc::new(Cluster::new()?.start(&[])),
        };
        *shared = Arc::downgrade(&server);
        Some(Self::of(&server))
    }

    /// In this server.
    pub(crate) fn of(server: &Arc<Running>) -> Self {
        Self::with(server, "")
    }

    /// In this server, with options of CREATE DATABASE.
    pub(crate) fn with(server: &Arc<Running>, options: &str) -> Self {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let name = format!("test{}", MADE.fetch_add(1, Ordering::Relaxed));
        let all = Self {
            server: Arc::clone(server),
            name: USER.to_owned(),
        };
        all.sql(&format!(
            "CREATE DATABASE {name} OWNER {SERVER_USER} TEMPLATE template0 {options}"
        ));
        Self { name, ..all }
    }

    /// Where a server of queues finds it.
    pub(crate) fn url(&self) -> String {
        let port = self.server.cluster.port;
        format!("postgresql://{SERVER_USER}@127.0.0.1:{port}/{}", self.name)
    }

    /// What psql says when the superuser executes this: a line for each row.
    #[track_caller]
    pub(crate) fn sql(&self, sql: &str) -> String {
        let Output {
            status,
            stdout,
            stderr,
        } = self.psql().args(["-c", sql]).output().unwrap();
        assert!(
            status.success(),
            "{sql}: {}",
            String::from_utf8_lossy(&stderr)
        );
        String::from_utf8(stdout).unwrap().trim_end().to_owned()
    }

    /// Has a session of psql execute this and stay.
    pub(crate) fn hold(&self, sql: &str) -> Held {
        let mut psql = self.psql();
        psql.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = psql.spawn().unwrap();
        let input = process.stdin.as_mut().unwrap();
        writeln!(input, "{sql};\n\\echo done").unwrap();
        let lines = BufReader::new(process.stdout.as_mut().unwrap()).lines();
        let mut lines = lines.map_while(Result::ok);
        assert!(lines.any(|line| line == "done"), "{sql}");
        Held(process)
    }

    fn psql(&self) -> Command {
        let cluster = &self.server.cluster;
        let mut psql = cluster.command("psql");
        psql.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1"]);
        psql.args(["-U", USER, "-d", &self.name]);
        psql.args(["-p", &cluster.port.to_string(), "-h"]);
        psql.arg(cluster.folder()).env("PGPASSWORD", PASSWORD);
        psql
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // psql ends when it has read all.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.thaw();
        // SIGQUIT ends all of its processes at once, and leaves no shared memory behind.
        self.process.signal(Signal::QUIT);
        let _ = self.process.child.wait();
    }
}

/// Asks again and again until there is an answer. No event tells when.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        match ask() {
            Some(answer) => return answer,
            None => assert!(begun.elapsed() < PATIENCE, "never: {what}"),
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
