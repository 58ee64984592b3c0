//! A file of requests, one a line, each with its server.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::num::NonZeroUsize;
use std::panic;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use cli::exit::with_causes;
use cli::{Endpoint, Exit, Failure, stream};

use crate::progress::above_bars;
use crate::{Client, Error, Input, Options, Transfer};

/// The longest batch, in bytes: a million lines.
const BATCH_BYTES_MAX: u64 = 64 << 20;

const SHAPE: &str = "a line is client_get PATH HOST [PORT] or client_post FILE HOST [PORT]";

/// One request of a batch.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    /// Its line, counted from 1.
    line: usize,
    transfer: Transfer,
    host: String,
    port: u16,
}

/// What is wrong with a line of a batch file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineError {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong, in one sentence.
    pub sentence: &'static str,
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.sentence)
    }
}

/// Reads all lines and then does what they say, `jobs` at once. One that fails says so, and the
/// next is done. `defaults` is where a line finds its patience, and its port if it has none; the
/// credentials among the options are for that server and no other.
///
/// # Errors
/// If a line is malformed, before anything is done; at the end, if any failed.
pub(crate) fn run(
    file: &Input,
    jobs: NonZeroUsize,
    defaults: &Endpoint,
    options: &Options,
) -> Result<(), Error> {
    let (path, text) = match file {
        Input::File(path) => (path.as_path(), File::open(path).and_then(read)),
        Input::Stdin => (Path::new("standard input"), stream::input().and_then(read)),
    };
    let text = text.map_err(|cause| Error::Read {
        path: path.to_owned(),
        cause,
    })?;
    let requests = parse(&text, defaults.port).map_err(|error| Error::BadLine {
        path: path.to_owned(),
        error,
    })?;
    let worker = Worker {
        requests: &requests,
        next: &AtomicUsize::new(0),
        defaults,
        options,
    };
    let failures = match jobs.get().min(requests.len()) {
        0 | 1 => worker.run(),
        jobs => worker.run_with_others(jobs),
    };
    match failures.iter().max_by_key(|exit| **exit as u8) {
        None => Ok(()),
        Some(worst) => Err(Error::Failed {
            failed: failures.len(),
            requests: requests.len(),
            worst: *worst,
        }),
    }
}

/// The text of a batch.
fn read(input: impl Read) -> io::Result<String> {
    let mut text = String::new();
    input.take(BATCH_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > BATCH_BYTES_MAX {
        let cause = format!("a batch exceeds {BATCH_BYTES_MAX} bytes");
        return Err(io::Error::other(cause));
    }
    Ok(text)
}

/// One of those that do the requests of a batch. Each has a connection of its own.
#[derive(Clone, Copy)]
struct Worker<'a> {
    requests: &'a [Request],
    /// The first request that nobody has taken.
    next: &'a AtomicUsize,
    defaults: &'a Endpoint,
    options: &'a Options,
}

impl Worker<'_> {
    /// Does requests until there are no more; returns the exit codes of those that failed.
    fn run(self) -> Vec<Exit> {
        // Most batches stay with one server, and so with one connection.
        let mut client = Client::new(self.defaults.clone(), self.options.clone());
        let mut failures = Vec::new();
        while let Some(request) = self.requests.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            let server = client.server();
            if (server.host.as_str(), server.port) != (request.host.as_str(), request.port) {
                client = self.client_for(request);
            }
            if let Err(error) = request.transfer.run(&mut client) {
                let line = request.line;
                above_bars(|| log::error!("Line {line}: {}", with_causes(&error)));
                failures.push(error.exit());
            }
        }
        failures
    }

    fn client_for(&self, request: &Request) -> Client {
        let server = Endpoint {
            host: request.host.clone(),
            ..self.defaults.with_port(request.port)
        };
        let mut options = self.options.clone();
        if server != *self.defaults {
            options.credentials = None;
        }
        Client::new(server, options)
    }

    /// The same on so many threads.
    fn run_with_others(self, jobs: usize) -> Vec<Exit> {
        thread::scope(|scope| {
            let start = |job| {
                let thread = thread::Builder::new().name(format!("job-{job}"));
                thread.spawn_scoped(scope, move || self.run())
            };
            let mut threads = Vec::new();
            for job in 1..=jobs {
                match start(job) {
                    Ok(thread) => threads.push(thread),
                    Err(error) => {
                        above_bars(|| log::warn!("Only {} jobs at once: {error}", job - 1));
                        break;
                    }
                }
            }
            let mut failures = match threads.is_empty() {
                true => self.run(),
                false => Vec::new(),
            };
            for thread in threads {
                match thread.join() {
                    Ok(more) => failures.extend(more),
                    Err(panic) => panic::resume_unwind(panic),
                }
            }
            failures
        })
    }
}

fn parse(text: &str, port_default: u16) -> Result<Vec<Request>, LineError> {
    let mut requests = Vec::new();
    for (at, text) in text.lines().enumerate() {
        let line = at + 1;
        match parse_line(text, line, port_default) {
            Ok(request) => requests.extend(request),
            Err(sentence) => return Err(LineError { line, sentence }),
        }
    }
    Ok(requests)
}

fn parse_line(text: &str, line: usize, port_default: u16) -> Result<Option<Request>, &'static str> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (verb, file, host, port) = match words[..] {
        [] => return Ok(None),
        [first, ..] if first.starts_with('#') => return Ok(None),
        [verb, file, host] => (verb, file, host, port_default),
        [verb, file, host, port] => match port.parse() {
            Ok(port) => (verb, file, host, port),
            Err(_) => return Err("the port is not a number from 0 to 65535"),
        },
        _ => return Err(SHAPE),
    };
    let transfer = match verb {
        "client_get" => Transfer::get(file.into())?,
        "client_post" => Transfer::post(file.into())?,
        _ => return Err(SHAPE),
    };
    Ok(Some(Request {
        line,
        transfer,
        host: host.to_owned(),
        port,
    }))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[track_caller]
    fn check(text: &str, want: &[(usize, &str, &str, u16)]) {
        let got = parse(text, 7).unwrap();
        let shown = |request: &Request| {
            let transfer = match &request.transfer {
                Transfer::Get { path, .. } => format!("get {}", path.display()),
                Transfer::Post { file, .. } => match file {
                    Input::File(file) => format!("post {}", file.display()),
                    Input::Stdin => "post -".to_owned(),
                },
            };
            (request.line, transfer, request.host.clone(), request.port)
        };
        let got: Vec<_> = got.iter().map(shown).collect();
        let want = want.iter().map(|&(line, transfer, host, port)| {
            (line, transfer.to_owned(), host.to_owned(), port)
        });
        assert_eq!(got, want.collect::<Vec<_>>());
    }

    #[test]
    fn each_line_is_a_request_with_its_server() {
        check(
            "# a batch\n\nclient_get a/b h 80\n \t \r\n\tclient_post  c \t h2\r\n  # end",
            &[(3, "get a/b", "h", 80), (5, "post c", "h2", 7)],
        );
        check("client_get a #h 1", &[(1, "get a", "#h", 1)]);
        check("", &[]);
        check("#client_get a h", &[]);
    }

    #[track_caller]
    fn check_refused(text: &str, want: &str) {
        assert_eq!(parse(text, 7).unwrap_err().to_string(), want);
    }

    #[test]
    fn a_malformed_line_is_named_by_its_number() {
        let shape = |line: usize| format!("line {line}: {SHAPE}");
        check_refused("client_get", &shape(1));
        check_refused("client_get a", &shape(1));
        check_refused("client_get a h 1 x", &shape(1));
        check_refused("\nclient_get a h\nclient_put a h", &shape(3));
        check_refused("CLIENT_GET a h", &shape(1));
        let port = "line 1: the port is not a number from 0 to 65535";
        check_refused("client_get a h x", port);
        check_refused("client_get a h 65536", port);
        check_refused("client_get a h -1", port);
        check_refused(
            "client_post .. h",
            "line 1: the FILE has no base name to send it under",
        );
    }

    #[test]
    fn nothing_is_done_when_a_line_is_malformed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("batch");
        fs::write(&path, "client_get a 127.0.0.1 1\nwhat?\n").unwrap();
        // Doing the first line would fail with another error: nobody listens there.
        let nobody = Endpoint::new("127.0.0.1", 1);
        let done = run(
            &Input::File(path),
            NonZeroUsize::MIN,
            &nobody,
            &Options::default(),
        );
        assert!(matches!(done, Err(Error::BadLine { error, .. }) if error.line == 2));
    }
}
