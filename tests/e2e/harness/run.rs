//! Programs that run: what they print is collected as it comes, none runs longer than a test is
//! patient, and none outlives its test.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::{PATIENCE, eventually, lock, program, root};

/// How much is read at once of what a program writes.
const PIECE_BYTES: usize = 64 << 10;

/// What a program writes to one of its streams, line by line.
#[derive(Default)]
pub struct Output {
    state: Mutex<OutputState>,
    changed: Condvar,
}

#[derive(Default)]
struct OutputState {
    bytes: Vec<u8>,
    has_ended: bool,
}

impl Output {
    /// Whole lines at once, as many as there are: who looks at them sees no half ones, and is not woken
    /// for each of a million.
    fn collect(mut stream: impl Read + Send + 'static) -> Arc<Self> {
        let output = Arc::new(Self::default());
        let collected = Arc::clone(&output);
        thread::spawn(move || {
            let (mut piece, mut rest) = (vec![0; PIECE_BYTES], Vec::new());
            while let Ok(bytes @ 1..) = stream.read(&mut piece) {
                let piece = &piece[..bytes];
                let Some(end) = piece.iter().rposition(|byte| *byte == b'\n') else {
                    rest.extend_from_slice(piece);
                    continue;
                };
                let (lines, begun) = piece.split_at(end + 1);
                let mut state = lock(&collected.state);
                state.bytes.append(&mut rest);
                state.bytes.extend_from_slice(lines);
                drop(state);
                collected.changed.notify_all();
                rest.extend_from_slice(begun);
            }
            let mut state = lock(&collected.state);
            state.bytes.append(&mut rest);
            state.has_ended = true;
            drop(state);
            collected.changed.notify_all();
        });
        output
    }

    fn bytes(&self) -> Vec<u8> {
        lock(&self.state).bytes.clone()
    }

    /// All of it so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&lock(&self.state).bytes).into_owned()
    }

    /// Waits for something about it, but not beyond its end or the deadline; returns whether that
    /// has come.
    fn wait(&self, deadline: Instant, has_come: impl Fn(&OutputState) -> bool) -> bool {
        let mut state = lock(&self.state);
        loop {
            if has_come(&state) {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || state.has_ended {
                return false;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn wait_for_end(&self, deadline: Instant) -> bool {
        self.wait(deadline, |state| state.has_ended)
    }
}

/// A program that runs. Dropping it ends it, and shows what it has said if the test has failed.
pub struct Running {
    child: Mutex<Child>,
    pid: u32,
    /// The command, for messages.
    pub command: String,
    stdout: Option<Arc<Output>>,
    /// Its standard error.
    pub stderr: Arc<Output>,
}

impl Running {
    /// Starts a program that has nothing to read.
    #[track_caller]
    pub fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null());
        let mut running = Self::spawn(command);
        running.collect_stdout();
        running
    }

    /// The same, with the standard output left to the caller.
    #[track_caller]
    pub fn start_unread(mut command: Command) -> (Self, ChildStdout) {
        command.stdin(Stdio::null());
        let running = Self::spawn(command);
        let stdout = running.child().stdout.take().unwrap();
        (running, stdout)
    }

    /// Starts a program that reads what the caller writes.
    #[track_caller]
    pub fn start_fed(mut command: Command) -> (Self, ChildStdin) {
        command.stdin(Stdio::piped());
        let mut running = Self::spawn(command);
        running.collect_stdout();
        let stdin = running.child().stdin.take().unwrap();
        (running, stdin)
    }

    #[track_caller]
    fn spawn(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env_remove("RUST_LOG");
        let shown = format!("{command:?}");
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{shown}: {e}"));
        Self {
            pid: child.id(),
            stderr: Output::collect(child.stderr.take().unwrap()),
            stdout: None,
            command: shown,
            child: Mutex::new(child),
        }
    }

    fn collect_stdout(&mut self) {
        let stdout = self.child().stdout.take();
        self.stdout = stdout.map(Output::collect);
    }

    fn child(&self) -> std::sync::MutexGuard<'_, Child> {
        lock(&self.child)
    }

    /// The id of its process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends it a signal.
    #[track_caller]
    pub fn signal(&self, name: &str) {
        let pid = self.pid.to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(status.unwrap().success(), "kill -s {name} {pid}");
    }

    /// How it has ended, if it has.
    pub fn ended(&self) -> Option<ExitStatus> {
        self.child().try_wait().unwrap()
    }

    /// Ends it with SIGKILL, and waits until it is gone.
    pub fn kill(&self) {
        let mut child = self.child();
        // It may have ended already.
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Its standard output so far, unless that was left to the caller.
    pub fn stdout_text(&self) -> String {
        self.stdout.as_ref().map_or_else(String::new, |s| s.text())
    }

    /// Waits until its standard error is as it should be.
    #[track_caller]
    pub fn wait_for_stderr(&self, is_there: impl Fn(&str) -> bool) {
        let has_come = |state: &OutputState| is_there(&String::from_utf8_lossy(&state.bytes));
        if !self.stderr.wait(Instant::now() + PATIENCE, has_come) {
            panic!("{}\nsays only:\n{}", self.command, self.stderr.text());
        }
    }

    /// Waits until it has ended by itself; its exit code.
    #[track_caller]
    pub fn wait(&self) -> Option<i32> {
        self.wait_at_most(PATIENCE)
    }

    #[track_caller]
    fn wait_at_most(&self, patience: Duration) -> Option<i32> {
        let deadline = Instant::now() + patience;
        // Who waits for the end of a stream is woken by it; the standard library cannot wait for a
        // child with a time limit.
        let outputs = self.stdout.iter().chain([&self.stderr]);
        let are_at_end = outputs.fold(true, |are, output| are & output.wait_for_end(deadline));
        loop {
            match self.ended() {
                Some(status) if are_at_end => return status.code(),
                _ if Instant::now() >= deadline => break,
                _ => thread::park_timeout(Duration::from_millis(5)),
            }
        }
        let what = match self.ended() {
            Some(_) => "has ended, but not what it started",
            None => "does not end",
        };
        self.kill_family();
        let stdout = self.stdout_text();
        let stderr = self.stderr.text();
        panic!(
            "{} {what}\nstdout: {stdout}\nstderr: {stderr}",
            self.command
        );
    }

    /// Ends it and what it has started.
    fn kill_family(&self) {
        let family = descendants(self.pid);
        self.kill();
        for pid in family {
            let _ = Command::new("kill")
                .args(["-s", "KILL", &pid.to_string()])
                .status();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            self.stderr
                .wait_for_end(Instant::now() + Duration::from_secs(1));
            let stderr = self.stderr.text();
            eprintln!("--- {} says:\n{stderr}---", self.command);
        }
    }
}

/// The processes that a process has started, those that they have started, and so on.
pub fn descendants(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    let mut family = Vec::new();
    for task in tasks.into_iter().flatten().flatten() {
        let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        for child in children
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok())
        {
            family.push(child);
            family.extend(descendants(child));
        }
    }
    family
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

    /// Checks that its standard error has this in it.
    #[track_caller]
    pub fn check_says(&self, says: &str) {
        assert!(
            self.stderr.contains(says),
            "no {says:?} in:\n{}",
            self.stderr
        );
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
pub fn run_command(command: Command, input: &[u8]) -> Ran {
    run_at_most(PATIENCE, command, input)
}

/// The same, for one that may take longer.
#[track_caller]
pub fn run_at_most(patience: Duration, mut command: Command, input: &[u8]) -> Ran {
    command.stdin(Stdio::piped());
    let mut running = Running::spawn(command);
    running.collect_stdout();
    let mut stdin = running.child().stdin.take().unwrap();
    let input = input.to_vec();
    // From a thread of its own, or a program that prints before it reads could block us both. A
    // program that does not read ends it, at the latest when it is killed.
    thread::spawn(move || drop(stdin.write_all(&input)));
    let code = running.wait_at_most(patience);
    Ran {
        command: running.command.clone(),
        code,
        stdout: running.stdout.as_ref().unwrap().bytes(),
        stderr: running.stderr.text(),
    }
}

/// Runs a program with a terminal as one of its standard streams, and writes what it shows there.
const ON_A_TERMINAL: &str = "
import os, pty, subprocess, sys
here, there = pty.openpty()
code = subprocess.run(sys.argv[2:], **{sys.argv[1]: there}).returncode
os.close(there)
try:
    while shown := os.read(here, 4096):
        sys.stdout.buffer.write(shown)
except OSError:
    pass
sys.stdout.buffer.flush()
sys.exit(code)";

/// A command with a terminal as its `stdout` or `stderr`. What it shows there goes to standard output.
pub fn on_a_terminal(stream: &str, command: &Command) -> Command {
    let mut python = Command::new("python3");
    python
        .args(["-c", ON_A_TERMINAL, stream])
        .arg(command.get_program())
        .args(command.get_args());
    python
}

/// Runs one of the Python clients of `tests/python/`, which are patient with each of their steps.
#[track_caller]
pub fn python<S: AsRef<OsStr>>(script: &str, args: &[S]) -> Ran {
    let mut command = Command::new("python3");
    // Unbuffered: what one that does not end has said until then is shown.
    command
        .arg("-u")
        .arg(root().join("tests/python").join(script))
        .args(args);
    run_at_most(PATIENCE * 4, command, b"")
}

#[test]
fn a_program_that_does_not_end_is_ended_and_what_it_said_is_shown() {
    let mut command = Command::new("sh");
    command.args(["-c", "echo out; echo $$ >&2; sleep 1000; true"]);
    let running = Running::start(command);
    running.wait_for_stderr(|said| said.ends_with('\n'));
    eventually("the rest is read", || running.stdout_text() == "out\n");
    eventually("the shell sleeps", || descendants(running.pid()).len() == 1);
    let sleep = descendants(running.pid())[0];
    let wait = || running.wait_at_most(Duration::from_millis(1));
    let failure = std::panic::catch_unwind(std::panic::AssertUnwindSafe(wait)).unwrap_err();
    let says = failure.downcast::<String>().unwrap();
    let pid = running.pid();
    let want = format!("does not end\nstdout: out\n\nstderr: {pid}\n");
    assert!(says.ends_with(&want), "{says}");
    eventually("the sleep is gone", || {
        // It is a zombie until the process that has inherited it looks.
        let stat = fs::read_to_string(format!("/proc/{sleep}/stat"));
        stat.map_or(true, |stat| stat.contains(") Z "))
    });
}
