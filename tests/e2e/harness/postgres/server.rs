//! A PostgreSQL server of a test's own in a temporary folder, as Debian has it.
//!
//! It refuses to run as root, so root runs it as another user. A shell is its guardian: it ends the server
//! and removes its folder when this process has ended, whatever has ended it.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{ChildStdin, Command};
use std::sync::atomic::{AtomicUsize, Ordering};

use tempfile::TempDir;

use crate::harness::network::Host;
use crate::harness::{
    Certificates, Identity, Noise, Ran, Running, descendants, eventually, run_command, skipped,
};

/// Debian's folder of all versions, where nobody's PATH leads.
const VERSIONS: &str = "/usr/lib/postgresql";

/// The user whom the databases belong to.
pub const USER: &str = "quartet";

/// Its password, where one is asked for.
pub const PASSWORD: &str = "of nobody";

/// Who runs it instead of root: nobody.
const NOBODY: u32 = 65534;

/// Below those that the system gives to whom asks for any, so that a server that was ended finds its
/// port free.
const PORTS: std::ops::Range<usize> = 20_000..32_000;

/// Starts what stands behind the folder, and waits for the word that says how it is to end. Without one it
/// is at the end of its input: who has started it is gone.
const GUARDIAN: &str = "
folder=$1; shift; \"$@\" &
read -r how
kill -s \"${how:-QUIT}\" $! 2>/dev/null; wait $!
[ -n \"$how\" ] || rm -rf \"$folder\"";

/// What all have. Peers that are gone are noticed within seconds, and looked for again at once.
const SETTINGS: [&str; 9] = [
    "max_connections=400",
    "shared_buffers=64MB",
    "jit=off",
    "wal_keep_size=256MB",
    "wal_sender_timeout=5s",
    "wal_receiver_timeout=5s",
    "wal_receiver_status_interval=1s",
    "wal_retrieve_retry_interval=200ms",
    "tcp_user_timeout=5s",
];

/// How a server is started.
#[derive(Clone)]
pub struct Options {
    /// Whether what is committed is on disk. A power cut is all that shows the difference.
    pub fsync: bool,
    /// Whether it asks for [`PASSWORD`], by SCRAM, where it is reached by TCP.
    pub asks_for_password: bool,
    /// The certificate that it shows; without one there is no TLS.
    pub certificate: Option<&'static Identity>,
    /// Where it runs; without one on this machine's loopback address.
    pub host: Option<Host>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            fsync: true,
            asks_for_password: false,
            certificate: None,
            host: None,
        }
    }
}

impl Options {
    /// Those of a server on this host.
    pub fn at(host: &Host) -> Self {
        Self {
            host: Some(host.clone()),
            ..Self::default()
        }
    }
}

/// A server, which is ended when this is dropped.
pub struct Postgres {
    folder: TempDir,
    programs: PathBuf,
    options: Options,
    port: u16,
    /// And where its guardian is told how to end it.
    running: Option<(Running, ChildStdin)>,
}

/// The folder of the newest version's programs; says that a test is skipped if there is none.
pub(super) fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir(VERSIONS).into_iter().flatten().flatten();
    let versions = versions.filter_map(|entry| {
        let version: u32 = entry.file_name().to_str()?.parse().ok()?;
        let programs = entry.path().join("bin");
        programs
            .join("postgres")
            .exists()
            .then_some((version, programs))
    });
    let newest = versions.max().map(|(_, programs)| programs);
    if newest.is_none() {
        skipped("there is no PostgreSQL");
    }
    newest
}

/// Whether PostgreSQL is installed; says that a test is skipped if not.
pub fn is_installed() -> bool {
    programs().is_some()
}

impl Postgres {
    /// Makes one with no data, and starts it; `None`, and a word of it, if PostgreSQL is not installed.
    #[track_caller]
    pub fn start(options: Options) -> Option<Self> {
        let mut postgres = Self::new(options)?;
        postgres.make();
        postgres.restart();
        Some(postgres)
    }

    /// One that is not made yet.
    pub fn new(options: Options) -> Option<Self> {
        let programs = programs()?;
        let folder = tempfile::tempdir().unwrap();
        if is_root() {
            chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        Some(Self {
            folder,
            programs,
            port: free_port(),
            options,
            running: None,
        })
    }

    fn make(&self) {
        let password = self.folder.path().join("password");
        fs::write(&password, PASSWORD).unwrap();
        let mut initdb = self.command("initdb");
        initdb.args([
            "--no-sync",
            "--locale=C",
            "--encoding=UTF8",
            "--username",
            USER,
        ]);
        initdb.arg("--pwfile").arg(password);
        initdb.arg("-D").arg(self.data());
        run_command(initdb, b"").expect(0);
        self.configure();
    }

    /// Writes its settings, and who may connect, and how.
    fn configure(&self) {
        let mut settings = SETTINGS.to_vec();
        if !self.options.fsync {
            settings.extend(["fsync=off", "full_page_writes=off"]);
        }
        if self.options.certificate.is_some() {
            settings.push("ssl=on");
        }
        fs::write(self.data().join("postgresql.conf"), settings.join("\n")).unwrap();
        let (tcp, how) = match (self.options.certificate, self.options.asks_for_password) {
            (None, false) => ("host", "trust"),
            (None, true) => ("host", "scram-sha-256"),
            (Some(_), false) => ("hostssl", "trust"),
            (Some(_), true) => ("hostssl", "scram-sha-256"),
        };
        let who = format!(
            "local all all trust\n{tcp} all all all {how}\nhost replication all all trust\n"
        );
        fs::write(self.data().join("pg_hba.conf"), who).unwrap();
        if let Some(identity) = self.options.certificate {
            for (from, to) in [
                (&identity.cert, "server.crt"),
                (&identity.key, "server.key"),
            ] {
                let to = self.data().join(to);
                fs::copy(from, &to).unwrap();
                if is_root() {
                    chown(to, Some(NOBODY), Some(NOBODY)).unwrap();
                }
            }
        }
    }

    /// The folder of its data.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The words of a command line that runs one of its programs as its user, where it runs.
    fn words(&self, program: &str) -> Vec<OsString> {
        let mut words = Vec::new();
        if let Some(host) = &self.options.host {
            words.push("ip".into());
            words.extend(host.words().map(OsString::from));
        }
        if is_root() {
            let user = ["--reuid", "--regid"].map(|option| format!("{option}={NOBODY}"));
            words.push("setpriv".into());
            words.extend(user.map(OsString::from));
            words.extend(["--clear-groups", "--"].map(OsString::from));
        }
        words.push(self.programs.join(program).into());
        words
    }

    /// One of its programs, as its user, on its host.
    pub fn command(&self, program: &str) -> Command {
        let words = self.words(program);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).current_dir(self.folder.path());
        // Whose certificates and passwords its user has at home are not for it.
        command.env("HOME", self.folder.path());
        command
    }

    /// Starts it again with its data, after it was stopped or killed, and waits until it answers.
    #[track_caller]
    pub fn restart(&mut self) {
        assert!(self.running.is_none(), "it runs");
        let mut guardian = Command::new("sh");
        guardian
            .args(["-c", GUARDIAN, "sh"])
            .arg(self.folder.path());
        guardian.args(self.words("postgres"));
        guardian.arg("-D").arg(self.data());
        guardian.arg("-k").arg(self.folder.path());
        guardian.args(["-h", &self.addr().to_string(), "-p", &self.port.to_string()]);
        // An interrupt at the terminal is for the tests; the guardian sees that they have ended.
        guardian.process_group(0).current_dir(self.folder.path());
        let (running, stdin) = Running::start_fed(guardian);
        running.wait_for_stderr(|log| {
            log.contains("is ready to accept") || log.contains("database system is shut down")
        });
        let log = running.stderr.text();
        self.running = Some((running, stdin));
        assert!(log.contains("is ready to accept"), "{log}");
    }

    /// Ends it as an administrator does: nothing is lost, and connections are ended.
    #[track_caller]
    pub fn stop(&mut self) {
        self.end("INT");
    }

    /// Ends all its processes at once with SIGKILL.
    #[track_caller]
    pub fn kill(&mut self) {
        let Some((running, _)) = &self.running else {
            return;
        };
        let pid = running.pid();
        // Stopped, it starts no more of them.
        signal("STOP", descendants(pid).get(..1).unwrap_or_default());
        let family = descendants(pid);
        signal("KILL", &family);
        self.end("KILL");
        eventually("PostgreSQL is gone", || {
            !family.iter().any(|pid| is_alive(*pid))
        });
    }

    fn end(&mut self, how: &str) {
        if let Some((running, mut stdin)) = self.running.take() {
            writeln!(stdin, "{how}").unwrap();
            running.wait();
        }
    }

    /// Whether it was started, and neither stopped nor killed since.
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Where it listens.
    pub fn addr(&self) -> IpAddr {
        let host = self.options.host.as_ref();
        host.map_or(Ipv4Addr::LOCALHOST.into(), Host::addr)
    }

    /// Its TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL of one of its databases, without a password.
    pub fn url(&self, database: &str) -> String {
        format!(
            "postgresql://{USER}@{}:{}/{database}",
            self.addr(),
            self.port
        )
    }

    /// What these statements say in the database `postgres`: a row a line, columns with `|` between them.
    #[track_caller]
    pub fn sql(&self, statements: &str) -> String {
        self.sql_in("postgres", statements)
    }

    /// The same in another database.
    #[track_caller]
    pub fn sql_in(&self, database: &str, statements: &str) -> String {
        let ran = self.try_sql(database, statements).expect(0);
        ran.out().trim_end().to_owned()
    }

    /// The same, if it can be done: 0 is the exit code then.
    #[track_caller]
    pub fn try_sql(&self, database: &str, statements: &str) -> Ran {
        let mut psql = Command::new(self.programs.join("psql"));
        psql.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-U", USER]);
        psql.args(["-p", &self.port.to_string(), "-d", database]);
        psql.arg("-h")
            .arg(self.folder.path())
            .args(["-c", statements]);
        run_command(psql, b"")
    }

    /// psql on its host, which asks what is at this URL for these statements.
    pub fn psql(&self, url: &str, statements: &str) -> Command {
        let mut psql = self.command("psql");
        psql.args(["-X", "-A", "-t", "-w", "-d", url, "-c", statements]);
        psql
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn signal(name: &str, pids: &[u32]) {
    let mut kill = Command::new("kill");
    kill.args(["-s", name]);
    kill.args(pids.iter().map(u32::to_string));
    // Some may have ended.
    let _ = run_command(kill, b"");
}

fn is_alive(pid: u32) -> bool {
    // It is a zombie until the process that has inherited it looks.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

/// A port that nobody listens at, at any address.
pub fn free_port() -> u16 {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let first = Noise::new(std::process::id().into()).below(PORTS.len());
    loop {
        let number = first + NEXT.fetch_add(1, Ordering::Relaxed);
        let port = (PORTS.start + number % PORTS.len()) as u16;
        if TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            return port;
        }
    }
}

#[test]
fn a_server_has_what_it_was_told_after_kill_and_stop() {
    let Some(mut postgres) = Postgres::start(Options::default()) else {
        return;
    };
    postgres.sql("CREATE TABLE t (n int)");
    postgres.sql("INSERT INTO t VALUES (1)");
    postgres.kill();
    postgres.restart();
    postgres.sql("INSERT INTO t VALUES (2)");
    postgres.stop();
    assert!(!postgres.is_running());
    postgres.restart();
    assert_eq!(
        postgres.sql("SELECT n, n * n FROM t ORDER BY n"),
        "1|1\n2|4"
    );
}

#[test]
fn a_server_ends_with_the_process_that_has_started_it() {
    let Some(mut postgres) = Postgres::start(Options::default()) else {
        return;
    };
    let (guardian, stdin) = postgres.running.take().unwrap();
    let family = descendants(guardian.pid());
    assert!(family.len() > 1);
    // This process is gone, as far as the guardian can see.
    drop(stdin);
    guardian.wait();
    eventually("PostgreSQL is gone", || {
        !family.iter().any(|pid| is_alive(*pid))
    });
    assert!(!postgres.folder.path().exists());
}

#[test]
fn over_tcp_a_password_is_asked_for_inside_of_tls() {
    let Some(postgres) = Postgres::start(Options {
        asks_for_password: true,
        certificate: Some(&Certificates::get().server),
        ..Options::default()
    }) else {
        return;
    };
    let ask = |password: &str, mode: &str| {
        let url = format!("{}?sslmode={mode}", postgres.url("postgres"));
        let mut psql = postgres.psql(&url, "SELECT 7");
        psql.env("PGPASSWORD", password);
        run_command(psql, b"")
    };
    assert_eq!(ask(PASSWORD, "require").expect(0).out(), "7\n");
    ask(PASSWORD, "disable").expect(2);
    ask("wrong", "require").expect(2);
}
