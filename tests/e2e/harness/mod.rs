//! Starts the programs, waits for them, and says what they said when a test fails.

mod account;
mod certificates;
mod curl;
mod door;
mod haproxy;
mod history_file;
pub mod network;
mod nginx;
mod peers;
pub mod postgres;
mod run;
mod server;
mod store;
mod stream;
mod thin_disk;
mod tls_stream;

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use proto::queue::{Delivery, Properties, QueueName, Request};

pub use account::signed;
pub use certificates::{Authority, Certificates, Identity};
pub use door::{
    Address, Carrier, Door, Needs, Opened, VARIABLE as DOOR_VARIABLE, addresses, connect_tcp, door,
    has_door, has_door_of_batches, listening, udp_too,
};
pub use haproxy::Haproxy;
pub use history_file::records;
pub use nginx::Nginx;
pub use peers::{
    Then, connect, connect_from, connect_narrow, crowd, exchange, fake_server, read_to_end,
};
pub use run::{Ran, Running, descendants, on_a_terminal, python, run, run_at_most, run_command};
pub use server::Server;
pub use store::{PGLITE, POSTGRES, VARIABLE as DATA_VARIABLE, has_sqlite};
pub use stream::{Carried, Stream};
pub use thin_disk::ThinDisk;

/// How long anything may take before a test gives up. Long, because the machine may
/// have other things to do.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Set in the runs that a run starts: the programs are built already.
pub const BUILT_VARIABLE: &str = "QUARTET_TEST_BUILT";

/// What the programs can do that they cannot by default.
const FEATURES: &str = "queue-server/postgres";

/// The path of one of the workspace's programs. The first call has cargo build them all: cargo
/// builds the programs of other packages for a test run only when it is told to.
pub fn program(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let test = std::env::current_exe().unwrap();
        // target/debug/deps/e2e-0123456789abcdef
        let folder = test.parent().and_then(Path::parent).unwrap().to_owned();
        if std::env::var_os(BUILT_VARIABLE).is_some() {
            return folder;
        }
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        cargo.args(["build", "--quiet", "--workspace", "--bins"]);
        cargo.args(["--features", FEATURES]);
        cargo.current_dir(root());
        // What cargo tells a test of its package is a change to ring, which would be built anew each time,
        // and all that depends on it.
        let of_package = |name: &OsString| name.as_bytes().starts_with(b"CARGO_PKG_");
        let names = std::env::vars_os().map(|(name, _)| name);
        for name in names
            .filter(of_package)
            .chain(["CARGO_MANIFEST_DIR".into()])
        {
            cargo.env_remove(name);
        }
        cargo.arg("--target-dir").arg(folder.parent().unwrap());
        if folder.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(cargo.status().unwrap().success(), "cargo build failed");
        folder
    });
    folder.join(name)
}

/// The repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// A file below `data/`.
pub fn data(name: &str) -> PathBuf {
    root().join("data").join(name)
}

/// A folder for files of this run, which the next run removes.
fn run_folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let runs = Path::new(env!("CARGO_TARGET_TMPDIR")).join("runs");
        let folder = runs.join(std::process::id().to_string());
        fs::create_dir_all(&folder).unwrap();
        for run in fs::read_dir(runs).unwrap().map_while(Result::ok) {
            if !Path::new("/proc").join(run.file_name()).exists() {
                // Another run may remove it at the same time.
                let _ = fs::remove_dir_all(run.path());
            }
        }
        folder
    })
}

/// What a mutex has, also after a test has failed that had it.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says that a test was skipped, and why; also when the output of tests is not shown.
pub fn skipped(why: &str) {
    // Not println!, whose output is kept back.
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}

/// Whether a program that is not ours is there to test with; says so if it is not.
pub fn has_program(name: &str) -> bool {
    let is_there = is_installed(name);
    if !is_there {
        skipped(&format!("there is no {name}"));
    }
    is_there
}

/// Whether there is a program that answers `--version`.
pub fn is_installed(name: &str) -> bool {
    let mut version = Command::new(name);
    version.arg("--version").stdin(Stdio::null());
    version.stdout(Stdio::null()).stderr(Stdio::null());
    version.status().is_ok_and(|status| status.success())
}

/// An address that nobody listens on at the moment.
pub fn free_addr() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

/// Waits until something holds that no event announces.
#[track_caller]
pub fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        thread::park_timeout(Duration::from_millis(5));
    }
}

/// The request to put a message into the default queue.
pub fn send_request(body: &[u8]) -> Request<'_> {
    Request::Send {
        queue: QueueName::DEFAULT,
        properties: Properties::default(),
        body,
    }
}

/// The request to take a message out of the default queue, if there is one.
pub fn receive_request(delivery: Delivery) -> Request<'static> {
    Request::Receive {
        queues: QueueName::DEFAULT.into(),
        wait_millis: 0,
        delivery,
    }
}

/// Reproducible noise: xorshift64*.
pub struct Noise(u64);

impl Noise {
    /// The same seed, the same noise.
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 33) as usize % bound
    }

    /// A number of bytes.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| (self.next() >> 56) as u8).collect()
    }
}
