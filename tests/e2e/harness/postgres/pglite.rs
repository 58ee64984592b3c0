//! PGlite: PostgreSQL in WebAssembly, whose one session all connections share. [`SCRIPT`] says what that means.

use std::path::PathBuf;
use std::process::{ChildStdin, Command};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::server::{self, USER};
use crate::harness::{Running, has_program, root, run_command, skipped};

/// What serves it.
const SCRIPT: &str = "tests/node/pglite.mjs";

/// Where `.ci/run` has npm put it.
const PACKAGE: &str = "target/tools/node_modules/@electric-sql/pglite/dist/index.js";

/// What the script says in front of its port.
const LISTENS: &str = "listening at ";

/// PGlite, which ends with its standard input: with this value, or with the process.
struct Pglite {
    _running: Running,
    _stdin: ChildStdin,
    port: u16,
}

/// A database of the PGlite that all tests of this run share. To PGlite it is a schema.
pub struct Database {
    server: &'static Pglite,
    name: String,
}

/// Whether there is all that it takes; says that a test is skipped if not.
pub fn is_installed() -> bool {
    let package = root().join(PACKAGE);
    if !package.exists() {
        skipped(&format!("there is no {}", package.display()));
        return false;
    }
    server::is_installed() && has_program("node")
}

impl Pglite {
    #[track_caller]
    fn start() -> Self {
        let mut node = Command::new("node");
        node.arg(root().join(SCRIPT)).arg(root().join(PACKAGE));
        let (running, stdin) = Running::start_fed(node);
        running.wait_for_stderr(|log| log.contains(LISTENS));
        let log = running.stderr.text();
        let port = log.trim_end().rsplit(LISTENS).next().unwrap();
        Self {
            port: port.parse().unwrap(),
            _stdin: stdin,
            _running: running,
        }
    }
}

/// A new database; `None`, and a word of it, if PGlite is not installed.
#[track_caller]
pub fn database() -> Option<Database> {
    static SHARED: OnceLock<Pglite> = OnceLock::new();
    static DATABASES: AtomicUsize = AtomicUsize::new(0);
    is_installed().then(|| Database {
        server: SHARED.get_or_init(Pglite::start),
        name: format!("test{}", DATABASES.fetch_add(1, Ordering::Relaxed)),
    })
}

impl Database {
    /// Its URL, which needs no password.
    pub fn url(&self) -> String {
        let port = self.server.port;
        format!("postgresql://{USER}@127.0.0.1:{port}/{}", self.name)
    }

    /// What these statements say in it: a row a line, columns with `|` between them.
    #[track_caller]
    pub fn sql(&self, statements: &str) -> String {
        let mut psql = Command::new(psql());
        psql.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-d"]);
        psql.args([&self.url(), "-c", statements]);
        let ran = run_command(psql, b"").expect(0);
        ran.out().trim_end().to_owned()
    }
}

fn psql() -> PathBuf {
    server::programs().unwrap().join("psql")
}

#[test]
fn connections_share_a_session_but_no_transaction_and_no_name() {
    let (Some(database), Some(other)) = (database(), database()) else {
        return;
    };
    database.sql("CREATE TABLE t (n int)");
    // Its transaction and its table end with it.
    database.sql("BEGIN; INSERT INTO t VALUES (1)");
    assert_eq!(database.sql("SELECT count(*) FROM t"), "0");
    assert_eq!(other.sql("SELECT to_regclass('t') IS NULL"), "t");
    let lock = "SELECT pg_try_advisory_lock(1)";
    assert_eq!([database.sql(lock), database.sql(lock)], ["t", "t"]);
}
