//! A batch: a file of requests, one a line, each with its server.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use cli::exit::with_causes;
use cli::{Address, Endpoint, Exit, Failure, stream};

use crate::args::PORT_DEFAULT;
use crate::progress::above_bars;
use crate::source::{BYTE_ORDER_MARK, STDIN};
use crate::{Client, Error, Input, Options, Transfer, jobs, shell_words};

/// The longest batch, in bytes: a million lines.
const BATCH_BYTES_MAX: u64 = 64 << 20;

const SHAPE: &str = "a line is client_get PATH HOST [PORT] or client_post FILE HOST [PORT], with \
                     quotes around what holds a space";

const BAD_PORT: &str =
    "the port is not a number from 0 to 65535, or a name with spaces is not in quotes";

/// A line of a batch with a request.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    /// Counted from 1.
    number: usize,
    /// The request, or a sentence that says what is wrong with the line.
    request: Result<Request, &'static str>,
}

/// A transfer, and with which server.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    transfer: Transfer,
    server: Address,
}

/// Reads all lines and then makes their requests, `jobs` at once. A line that fails or is malformed is
/// logged, and does not stop the rest. `defaults` has the timeouts, and the port for lines without one.
/// The account goes to that server and to no other.
///
/// # Errors
/// If the file cannot be read; at the end, if any line failed.
pub(crate) fn run(
    file: &Input,
    jobs: NonZeroUsize,
    defaults: &Endpoint,
    options: &Options,
) -> Result<(), Error> {
    let (path, text) = match file {
        Input::File(path) => (path.as_path(), File::open(path).and_then(read)),
        Input::Stdin => (Path::new(STDIN), read(stream::input()?)),
    };
    let text = text.map_err(Error::read(path))?;
    let lines = parse(&text, &defaults.address);
    let worker = Worker {
        lines: &lines,
        next: &AtomicUsize::new(0),
        defaults,
        options,
    };
    let lines_max = NonZeroUsize::new(lines.len()).unwrap_or(NonZeroUsize::MIN);
    let failures = jobs::run(jobs.min(lines_max), || worker.run()).concat();
    Error::of_requests(&failures, lines.len())
}

/// The text of a batch.
fn read(input: impl Read) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    input.take(BATCH_BYTES_MAX + 1).read_to_end(&mut text)?;
    if text.len() as u64 > BATCH_BYTES_MAX {
        let cause = format!("a batch exceeds {BATCH_BYTES_MAX} bytes");
        return Err(io::Error::other(cause));
    }
    Ok(text)
}

/// A thread that makes requests of a batch, over a connection of its own.
#[derive(Clone, Copy)]
struct Worker<'a> {
    lines: &'a [Line],
    /// The first line that no worker has begun.
    next: &'a AtomicUsize,
    defaults: &'a Endpoint,
    options: &'a Options,
}

impl Worker<'_> {
    /// Makes requests until no line is left; returns the exit codes of those that failed.
    fn run(self) -> Vec<Exit> {
        // Most batches stay with one server, and so with one connection.
        let mut client = Client::new(self.defaults.clone(), self.options.clone());
        let mut failures = Vec::new();
        while let Some(line) = self.lines.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            let number = line.number;
            let request = match &line.request {
                Ok(request) => request,
                Err(sentence) => {
                    above_bars(|| log::error!("Line {number}: {sentence}"));
                    failures.push(Exit::Local);
                    continue;
                }
            };
            if client.server().address != request.server {
                client = self.client_for(request);
            }
            if let Err(error) = request.transfer.run(&mut client) {
                let hint = self.account_hint(&error).unwrap_or_default();
                above_bars(|| log::error!("Line {number}: {}{hint}", with_causes(&error)));
                failures.push(error.exit());
            }
        }
        failures
    }

    fn client_for(&self, request: &Request) -> Client {
        let mut server = self.defaults.at(request.server.clone());
        if server != *self.defaults {
            server.security = server.security.without_account();
        }
        Client::new(server, self.options.clone())
    }

    /// What is added to an error that mentions `--auth-file`: it is for the default server.
    fn account_hint(&self, error: &Error) -> Option<String> {
        let is_anonymous = matches!(
            error,
            Error::Refused {
                status: 401,
                is_anonymous: true,
                ..
            }
        );
        let server = &self.defaults.address;
        let has_account = self.defaults.security.has_account();
        (is_anonymous && has_account).then(|| format!(", to {server} alone"))
    }
}

fn parse(text: &[u8], default: &Address) -> Vec<Line> {
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    let lines = text.split(|byte| *byte == b'\n').zip(1..);
    let line = |(line, number): (&[u8], usize)| {
        let request = parse_line(line, default).transpose()?;
        Some(Line { number, request })
    };
    lines.filter_map(line).collect()
}

fn parse_line(line: &[u8], default: &Address) -> Result<Option<Request>, &'static str> {
    let line = line.trim_ascii();
    if line.is_empty() || line.starts_with(b"#") {
        return Ok(None);
    }
    let mut words = shell_words::split(line)?.into_iter();
    let (verb, file, host) = match (words.next(), words.next(), words.next()) {
        (Some(verb), Some(file), Some(host)) => (verb, file, host),
        _ => return Err(SHAPE),
    };
    let port = match (words.next(), words.next()) {
        (None, _) => None,
        (Some(port), None) => {
            let port = port.to_str().and_then(|port| port.parse::<u16>().ok());
            Some(port.ok_or(BAD_PORT)?)
        }
        (Some(_), Some(_)) => return Err(SHAPE),
    };
    let transfer = match verb.as_bytes() {
        b"client_get" => Transfer::get(file)?,
        b"client_post" => Transfer::post(Input::File(file.into()), OsString::new(), false)?,
        _ => return Err(SHAPE),
    };
    let host = host.to_str().ok_or("the host is not UTF-8")?;
    let server = match (Address::unix(host), port, default) {
        (Some(socket), None, _) => socket,
        (Some(_), Some(_), _) => return Err("a Unix socket has no port"),
        (None, Some(port), _) => Address::new(host, port),
        (None, None, Address::Tcp { port, .. }) => Address::new(host, *port),
        (None, None, Address::Unix(_)) => Address::new(host, PORT_DEFAULT),
    };
    Ok(Some(Request { transfer, server }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &[u8], want: &[(usize, &str, &str, u16)]) {
        let got = parse(text, &Address::new("h", 7)).into_iter().map(|line| {
            let Request { transfer, server } = line.request.unwrap();
            let transfer = match transfer {
                Transfer::Get { path, .. } => format!("get {}", path.display()),
                Transfer::Post { file, .. } => match file {
                    Input::File(file) => format!("post {}", file.display()),
                    Input::Stdin => "standard input".to_owned(),
                },
            };
            (line.number, transfer, server)
        });
        let want = want.iter().map(|&(line, transfer, host, port)| {
            (line, transfer.to_owned(), Address::new(host, port))
        });
        assert_eq!(got.collect::<Vec<_>>(), want.collect::<Vec<_>>());
    }

    #[test]
    fn each_line_is_a_request_with_its_server() {
        check(
            b"# a batch\n\nclient_get a/b h 80\n \t \r\n\tclient_post  c \t h2\r\n  # end",
            &[(3, "get a/b", "h", 80), (5, "post c", "h2", 7)],
        );
        check(b"client_get a #h 1", &[(1, "get a", "#h", 1)]);
        check(b"client_get a [::1] 1", &[(1, "get a", "::1", 1)]);
        check(b"client_get a unix:/f", &[(1, "get a", "unix:/f", 0)]);
        // Standard input has the lines, if anything.
        check(b"client_post - h", &[(1, "post -", "h", 7)]);
        // Some editors begin a text like this.
        let marked = "\u{feff}client_get a h";
        check(marked.as_bytes(), &[(1, "get a", "h", 7)]);
        check(b"", &[]);
        check(b"#client_get a h", &[]);
    }

    #[test]
    fn a_name_with_spaces_is_quoted() {
        check(
            b"client_get 'a b/c' h\nclient_post \"d e\" h\r\nclient_get f\\ g h\n",
            &[
                (1, "get a b/c", "h", 7),
                (2, "post d e", "h", 7),
                (3, "get f g", "h", 7),
            ],
        );
    }

    #[test]
    fn a_malformed_line_stands_alone() {
        let check = |line: &str, want: &str| {
            let text = format!("client_get a h\n{line}\nclient_post a h\n");
            let lines = parse(text.as_bytes(), &Address::new("unix:/f", 0));
            assert!(
                lines[0].request.is_ok() && lines[2].request.is_ok(),
                "{line}"
            );
            assert_eq!(lines[1].request.as_ref().unwrap_err(), &want, "{line}");
        };
        for line in [
            "client_get",
            "client_get a",
            "client_get a h 1 x",
            "client_put a h",
            "client_rm a h",
            "client_mv a h",
        ] {
            check(line, SHAPE);
        }
        check("client_get a unix:/f 1", "a Unix socket has no port");
        check("CLIENT_GET a h", SHAPE);
        check("'' a h", SHAPE);
        for port in ["x", "65536", "-1", "''"] {
            check(&format!("client_get a h {port}"), BAD_PORT);
        }
        let no_name = "the FILE has no base name to send it under";
        check("client_post .. h", no_name);
        check("client_post 'a h", "a quote has no end");
    }
}
