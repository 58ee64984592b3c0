//! The code client's command line.

use cli::args::{number, seconds, value};
use cli::{App, Endpoint, Parsed, UsageError, Words};
use lexopt::prelude::*;

use crate::{Action, Config, Text};

/// The program.
pub const APP: App = App {
    name: "code-client",
    version: env!("CARGO_PKG_VERSION"),
    help: HELP,
};

/// The server's port for codes unless told otherwise.
pub const CODE_PORT_DEFAULT: u16 = 8000;

/// The server's port for messages unless told otherwise.
pub const MESSAGE_PORT_DEFAULT: u16 = 8001;

/// How many clients `run` is unless told otherwise.
pub const CLIENTS_DEFAULT: u64 = 50;

const VERBS: &[&str] = &["run", "request", "send"];

const HELP: &str = "\
Gets unique codes from a code server, and leaves messages with them.

Usage: code-client [HOST CODE_PORT MESSAGE_PORT] [run [-n COUNT]] [OPTIONS]
       code-client [HOST CODE_PORT MESSAGE_PORT] request [UUID] [OPTIONS]
       code-client [HOST CODE_PORT MESSAGE_PORT] send UUID CODE TEXT|- [OPTIONS]

Arguments:
  HOST CODE_PORT MESSAGE_PORT
                         the server [default: 127.0.0.1 8000 8001]
  run                    be COUNT clients, each with a UUID of its own, that request
                         a code and leave a message [default, with 50 clients]
  request [UUID]         print UUID and its code on one line [default: a new UUID]
  send UUID CODE TEXT    leave a message; - reads the text from standard input

Options:
  -n, --count COUNT      how many clients run is, 1 to 1000000 [default: 50]
  --timeout SECS         the longest wait for anything [default: 30]
  --wait-for-server SECS keep trying to connect for so long [default: 0]
  -v, --verbose          log more
  -h, --help             print this help
  -V, --version          print the version

Exit codes:
  0  done
  1  the server refused
  2  wrong usage, or standard input cannot be read
  3  cannot connect, timed out, connection lost, or no sense in the reply

Examples:
  code-client
  code-client localhost 8000 8001 request 67e55044-10b1-426f-9247-bb680e5fe0c8
";

/// Reads a command line.
///
/// # Errors
/// One sentence that says what is wrong and what would be right.
pub fn parse(mut parser: lexopt::Parser) -> Result<Parsed<Config>, UsageError> {
    let mut endpoint = Endpoint::new("127.0.0.1", CODE_PORT_DEFAULT);
    let mut message_port = MESSAGE_PORT_DEFAULT;
    let mut count = None;
    let mut verbose = false;
    let mut words = Words::default();
    while let Some(arg) = parser.next()? {
        match arg {
            Short('h') | Long("help") => return Ok(Parsed::Help),
            Short('V') | Long("version") => return Ok(Parsed::Version),
            Short('v') | Long("verbose") => verbose = true,
            Long("timeout") => endpoint.timeout = cli::args::timeout(&parser.value()?)?,
            Long("wait-for-server") => {
                endpoint.wait_for_server = seconds("--wait-for-server", &parser.value()?)?;
            }
            Short('n') | Long("count") => {
                count = Some(number("--count", &parser.value()?, 1..=1_000_000)?);
            }
            Value(word) => words.push(word),
            other => return Err(other.unexpected().into()),
        }
    }
    if words.starts_with_host(VERBS) {
        endpoint.host = words.required_text("HOST")?;
        endpoint.port = words.required_port("CODE_PORT")?;
        message_port = words.required_port("MESSAGE_PORT")?;
    }
    let verb = match words.take() {
        None => "run".to_owned(),
        Some(word) => word.to_string_lossy().to_ascii_lowercase(),
    };
    const UUID: &str = "a UUID such as 67e55044-10b1-426f-9247-bb680e5fe0c8";
    let action = match verb.as_str() {
        "run" => Action::Run {
            clients: count.take().unwrap_or(CLIENTS_DEFAULT),
        },
        "request" => Action::Request {
            uuid: match words.take() {
                None => None,
                Some(word) => Some(value("UUID", &word, UUID)?),
            },
        },
        "send" => Action::Send {
            uuid: value("UUID", &words.required("UUID")?, UUID)?,
            code: words.required_text("CODE")?,
            text: match words.required_text("TEXT")? {
                text if text == "-" => Text::Stdin,
                text => Text::Given(text),
            },
        },
        _ => {
            return Err(UsageError::Value {
                what: "the verb",
                value: verb,
                want: "run, request or send".to_owned(),
            });
        }
    };
    if count.is_some() {
        return Err(UsageError::Conflict("--count goes with run"));
    }
    words.end()?;
    let config = Config {
        endpoint,
        message_port,
        action,
    };
    Ok(Parsed::Run { config, verbose })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Config, String> {
        let args = ["code-client"].into_iter().chain(line.split_whitespace());
        match super::parse(lexopt::Parser::from_iter(args)) {
            Ok(Parsed::Run { config, .. }) => Ok(config),
            Ok(other) => panic!("{line}: {other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn no_verb_is_fifty_clients() {
        let config = parse("").unwrap();
        assert_eq!(config.action, Action::Run { clients: 50 });
        assert_eq!((config.endpoint.port, config.message_port), (8000, 8001));
        let config = parse("h 1 2 run -n 3").unwrap();
        assert_eq!(config.action, Action::Run { clients: 3 });
        assert_eq!((config.endpoint.port, config.message_port), (1, 2));
        assert_eq!(parse("h 1 2").unwrap().action, Action::Run { clients: 50 });
    }

    #[track_caller]
    fn check_refused(line: &str, want: &str) {
        assert_eq!(parse(line).unwrap_err(), want);
    }

    #[test]
    fn a_wrong_command_line_is_one_sentence() {
        check_refused("h 1", "MESSAGE_PORT is missing");
        check_refused(
            "h 1 2 dance",
            "the verb must be run, request or send, not 'dance'",
        );
        check_refused("request -n 2", "--count goes with run");
        let uuid = "UUID must be a UUID such as 67e55044-10b1-426f-9247-bb680e5fe0c8, not 'x'";
        check_refused("request x", uuid);
        check_refused("send", "UUID is missing");
        check_refused("run run", "there is one argument too many: 'run'");
        check_refused(
            "run -n 0",
            "--count must be a number from 1 to 1000000, not '0'",
        );
    }
}
