//! Starts the programs, waits for them, and says what they said when a test fails.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use cli::Endpoint;
use proto::queue::{Delivery, QueueName, Request};

/// How long anything may take before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The path of one of the workspace's programs. The first call has cargo build them all: cargo
/// builds the programs of other packages for a test run only when it is told to.
pub fn program(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let test = std::env::current_exe().unwrap();
        // target/debug/deps/e2e-0123456789abcdef
        let folder = test.parent().and_then(Path::parent).unwrap().to_owned();
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        cargo.args(["build", "--quiet", "--workspace", "--bins"]);
        cargo.current_dir(root());
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

/// A server process, listening. Dropping it ends the process, and shows its log if the test has
/// failed.
pub struct Server {
    child: Child,
    command: String,
    log: Arc<Log>,
    /// The addresses it listens on, in the order in which it says so.
    pub addrs: Vec<SocketAddr>,
}

#[derive(Default)]
struct Log {
    lines: Mutex<LogState>,
    changed: Condvar,
}

#[derive(Default)]
struct LogState {
    text: String,
    ended: bool,
}

impl Server {
    /// Starts a server and waits until it listens.
    #[track_caller]
    pub fn start<S: AsRef<OsStr>>(name: &str, args: &[S]) -> Self {
        let mut command = Command::new(program(name));
        command.args(args);
        Self::spawn(command)
    }

    /// Starts a server with this command, and waits until it listens.
    #[track_caller]
    pub fn spawn(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(Stdio::piped()).env_remove("RUST_LOG");
        let shown = format!("{command:?}");
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{shown}: {e}"));
        let log = Arc::new(Log::default());
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let collected = Arc::clone(&log);
        thread::spawn(move || collected.collect(stderr));
        let mut server = Self {
            child,
            command: shown,
            log,
            addrs: Vec::new(),
        };
        let expected = match server.command.contains("code-server") {
            true => 2,
            false => 1,
        };
        server.wait_for_log(|log| log.matches("Server started on ").count() == expected);
        let started = |line: &str| {
            let (_, rest) = line.split_once("Server started on ")?;
            rest.split_whitespace().next()?.parse().ok()
        };
        server.addrs = server.log().lines().filter_map(started).collect();
        server
    }

    /// The first address it listens on.
    pub fn addr(&self) -> SocketAddr {
        self.addrs[0]
    }

    /// The same, for a client.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::new(self.addr().ip().to_string(), self.addr().port())
    }

    /// `HOST PORT...`, as the clients' command lines have it.
    pub fn host_and_ports(&self) -> Vec<String> {
        let ports = self.addrs.iter().map(|addr| addr.port().to_string());
        std::iter::once(self.addr().ip().to_string())
            .chain(ports)
            .collect()
    }

    /// A connection to the first address, which gives up in time.
    #[track_caller]
    pub fn connect(&self) -> TcpStream {
        connect(self.addr())
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        lock(&self.log.lines).text.clone()
    }

    /// Waits until its log is as it should be.
    #[track_caller]
    pub fn wait_for_log(&self, is_there: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        let mut state = lock(&self.log.lines);
        while !is_there(&state.text) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || state.ended {
                let text = state.text.clone();
                drop(state);
                panic!("{}\nlogged only:\n{text}", self.command);
            }
            let waited = self.log.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The id of its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How many connections it serves: each has a thread that is named by its peer.
    pub fn connections(&self) -> usize {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid()));
        let names = tasks.into_iter().flatten().flatten();
        let names = names.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
        names.filter(|name| name.starts_with("127.0.0.1:")).count()
    }

    /// How many threads it has.
    pub fn threads(&self) -> usize {
        entries(&format!("/proc/{}/task", self.pid()))
    }

    /// How many descriptors it has open.
    pub fn descriptors(&self) -> usize {
        entries(&format!("/proc/{}/fd", self.pid()))
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(status.unwrap().success(), "kill -s {name} {pid}");
    }

    /// Ends it with SIGKILL, and waits until it is gone.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until it ends by itself; returns its exit code and its log.
    #[track_caller]
    pub fn wait(mut self) -> (Option<i32>, String) {
        let code = wait_for(&mut self.child, &self.command);
        self.wait_for_end_of_log();
        (code, self.log())
    }

    fn wait_for_end_of_log(&self) {
        let state = lock(&self.log.lines);
        let ended = self
            .log
            .changed
            .wait_timeout_while(state, PATIENCE, |state| !state.ended);
        drop(ended);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            self.wait_for_end_of_log();
            eprintln!("--- the log of {}:\n{}---", self.command, self.log());
        }
    }
}

impl Log {
    fn collect(&self, input: impl BufRead) {
        for line in input.lines().map_while(Result::ok) {
            let mut state = lock(&self.lines);
            writeln!(state.text, "{line}").unwrap();
            self.changed.notify_all();
        }
        lock(&self.lines).ended = true;
        self.changed.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn entries(folder: &str) -> usize {
    fs::read_dir(folder).map_or(0, Iterator::count)
}

/// A connection that gives up in time.
#[track_caller]
pub fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&addr, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// So many idle connections that a server's replies are left to the thread that writes to the disk.
#[track_caller]
pub fn crowd(addr: SocketAddr) -> Vec<TcpStream> {
    (0..40).map(|_| connect(addr)).collect()
}

/// Sends bytes, ends our half, and reads all that comes back. A reset counts as the end.
#[track_caller]
pub fn exchange(addr: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut stream = connect(addr);
    // A server that has refused may have closed before it was all written.
    let _ = stream.write_all(request);
    let _ = stream.shutdown(Shutdown::Write);
    read_to_end(&mut stream)
}

/// Reads all that comes, up to the end or a reset.
#[track_caller]
pub fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut reply = Vec::new();
    let mut piece = [0; 4096];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return reply,
            Ok(bytes) => reply.extend_from_slice(&piece[..bytes]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return reply,
            Err(error) => panic!("{error}, after {:?}", String::from_utf8_lossy(&reply)),
        }
    }
}

/// What a program did.
pub struct Ran {
    /// The command, for messages.
    pub command: String,
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: String,
}

impl Ran {
    /// Its standard output, as text.
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Checks the exit code.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(
            self.code,
            Some(code),
            "{}\nstdout: {}\nstderr: {}",
            self.command,
            self.out(),
            self.stderr
        );
        self
    }
}

/// Runs one of the workspace's programs to its end, with `input` on its standard input.
#[track_caller]
pub fn run<S: AsRef<OsStr>>(name: &str, args: &[S], input: &[u8]) -> Ran {
    let mut command = Command::new(program(name));
    command.args(args);
    run_command(command, input)
}

/// Runs a command to its end, with `input` on its standard input.
#[track_caller]
pub fn run_command(mut command: Command, input: &[u8]) -> Ran {
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command.stderr(Stdio::piped()).env_remove("RUST_LOG");
    let shown = format!("{command:?}");
    let mut child = command.spawn().unwrap_or_else(|e| panic!("{shown}: {e}"));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // From a thread of its own, or a program that prints before it reads could block us both.
    let feeder = thread::spawn(move || drop(stdin.write_all(&input)));
    let output: Output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    Ran {
        command: shown,
        code: output.status.code(),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs one of the Python clients of `tests/python/`.
#[track_caller]
pub fn python<S: AsRef<OsStr>>(script: &str, args: &[S]) -> Ran {
    let mut command = Command::new("python3");
    command
        .arg(root().join("tests/python").join(script))
        .args(args);
    run_command(command, b"")
}

#[track_caller]
fn wait_for(child: &mut Child, command: &str) -> Option<i32> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        assert!(Instant::now() < deadline, "{command} does not end");
        // The standard library cannot wait for a child with a timeout.
        thread::park_timeout(Duration::from_millis(5));
    }
}

/// Says that a test was skipped, and why; also when the output of tests is not shown.
pub fn skipped(why: &str) {
    // Not println!, whose output is kept back.
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
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
        delay_millis: 0,
        body,
    }
}

/// The request to take a message out of the default queue, if there is one.
pub fn receive_request(delivery: Delivery) -> Request<'static> {
    Request::Receive {
        queue: QueueName::DEFAULT,
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

    /// So many bytes.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| (self.next() >> 56) as u8).collect()
    }
}

/// What a [`fake_server`] does when it has said what it has to say.
#[derive(Clone, Copy)]
pub enum Then {
    /// It ends the connection.
    Close,
    /// It says nothing more until the client has gone.
    Wait,
}

impl Then {
    /// The options that keep a client from waiting long for a server that does this.
    pub fn timeout(self) -> &'static [&'static str] {
        match self {
            Self::Close => &[],
            Self::Wait => &["--timeout", "0.3"],
        }
    }
}

/// A server that answers the first request of each connection with these bytes, whatever it is.
/// Returns its port.
pub fn fake_server(reply: Vec<u8>, then: Then) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            // The client may leave at any time.
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(&reply);
            if let Then::Close = then {
                let _ = stream.shutdown(Shutdown::Write);
            }
            while matches!(stream.read(&mut [0; 4096]), Ok(1..)) {}
        }
    });
    port
}
