//! The queue client's command line.

use std::ffi::OsString;
use std::path::PathBuf;

use cli::args::{number, seconds, value};
use cli::{App, Endpoint, Parsed, UsageError, Words};
use lexopt::prelude::*;
use proto::queue::{BODY_BYTES_DEFAULT, BODY_BYTES_MAX};

use crate::{Action, Config, Source, Transport};

/// The program.
pub const APP: App = App {
    name: "queue-client",
    version: env!("CARGO_PKG_VERSION"),
    help: HELP,
};

/// The server's port unless told otherwise.
pub const PORT_DEFAULT: u16 = 55556;

const VERBS: &[&str] = &["send", "receive"];

const HELP: &str = "\
Sends messages to a queue server and receives them.

Usage: queue-client [HOST PORT [TCP|UDP]] send FILE|- [OPTIONS]
       queue-client [HOST PORT [TCP|UDP]] receive [OPTIONS]

Arguments:
  HOST PORT              the server [default: 127.0.0.1 55556]
  TCP|UDP                the transport, in any case [default: TCP]
  send FILE              puts the file's contents into the queue; - is standard input
  receive                writes the oldest message to standard output

Options:
  --max-message BYTES    refuse to send more than this [default: 3000]
  --truncate             send the first --max-message bytes of a longer file
  --timeout SECS         the longest wait for anything [default: 30]
  --wait-for-server SECS keep trying to connect for so long [default: 0]
  -v, --verbose          log more
  -h, --help             print this help
  -V, --version          print the version

Exit codes:
  0  done
  1  the queue is empty, or the server refused
  2  wrong usage, the file cannot be read, or it is over the limit
  3  cannot connect, timed out, connection lost, or no sense in the reply

Examples:
  queue-client send data/message1.txt
  echo hello | queue-client localhost 55556 UDP send -
";

/// Reads a command line.
///
/// # Errors
/// One sentence that says what is wrong and what would be right.
pub fn parse(mut parser: lexopt::Parser) -> Result<Parsed<Config>, UsageError> {
    let mut endpoint = Endpoint::new("127.0.0.1", PORT_DEFAULT);
    let mut transport = Transport::Tcp;
    let mut body_bytes_max = BODY_BYTES_DEFAULT;
    let mut truncate = false;
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
            Long("max-message") => {
                let range = 1..=BODY_BYTES_MAX as u64;
                let max = number("--max-message", &parser.value()?, range)?;
                body_bytes_max = max as usize;
            }
            Long("truncate") => truncate = true,
            Value(word) => words.push(word),
            other => return Err(other.unexpected().into()),
        }
    }
    if words.starts_with_host(VERBS) {
        endpoint.host = words.required_text("HOST")?;
        endpoint.port = words.required_port("PORT")?;
        if words.starts_with_host(VERBS) {
            let word = words.required("the transport")?;
            transport = value("the transport", &word, "TCP or UDP")?;
        }
    }
    let verb = words.required_text("the verb, send or receive,")?;
    let action = match verb.to_ascii_lowercase().as_str() {
        "send" => Action::Send {
            source: source(words.required("the FILE to send")?),
            body_bytes_max,
            truncate,
        },
        _ => Action::Receive,
    };
    words.end()?;
    let config = Config {
        endpoint,
        transport,
        action,
    };
    Ok(Parsed::Run { config, verbose })
}

fn source(word: OsString) -> Source {
    match word.to_str() {
        Some("-") => Source::Stdin,
        _ => Source::File(PathBuf::from(word)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Config, String> {
        let args = ["queue-client"].into_iter().chain(line.split_whitespace());
        match super::parse(lexopt::Parser::from_iter(args)) {
            Ok(Parsed::Run { config, .. }) => Ok(config),
            Ok(other) => panic!("{line}: {other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn the_server_may_be_left_out() {
        let config = parse("RECEIVE").unwrap();
        assert_eq!(config.action, Action::Receive);
        assert_eq!(config.endpoint.port, PORT_DEFAULT);
        let config = parse("h 7 udp --truncate send - --max-message=5").unwrap();
        assert_eq!(config.transport, Transport::Udp);
        assert_eq!(
            (config.endpoint.host.as_str(), config.endpoint.port),
            ("h", 7)
        );
        let action = Action::Send {
            source: Source::Stdin,
            body_bytes_max: 5,
            truncate: true,
        };
        assert_eq!(config.action, action);
    }

    #[track_caller]
    fn check_refused(line: &str, want: &str) {
        assert_eq!(parse(line).unwrap_err(), want);
    }

    #[test]
    fn a_wrong_command_line_is_one_sentence() {
        check_refused("", "the verb, send or receive, is missing");
        check_refused("send", "the FILE to send is missing");
        check_refused("receive x", "there is one argument too many: 'x'");
        check_refused("h", "PORT is missing");
        check_refused(
            "h 1 sctp send x",
            "the transport must be TCP or UDP, not 'sctp'",
        );
        check_refused("h x send x", "PORT must be a port from 0 to 65535, not 'x'");
        check_refused(
            "receive --timeout 0",
            "--timeout must be more than 0 seconds, not '0'",
        );
    }
}
