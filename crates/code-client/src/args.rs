//! The code client's command line.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use cli::args::{Opt, Verbs, server_default, value};
use cli::{Address, App, Args, ClientOptions, UsageError, Words};
use uuid::Uuid;

use crate::{Action, Config, Sender, Text};

/// The program.
pub const APP: App<Config> = App {
    name: "code-client",
    version: env!("CARGO_PKG_VERSION"),
    help: &[HELP],
    options: &[ClientOptions::TABLE, OPTIONS],
    read: config,
};

/// The server's default port for codes.
pub const CODE_PORT_DEFAULT: u16 = 8000;

/// The server's default port for messages.
pub const MESSAGE_PORT_DEFAULT: u16 = 8001;

/// What is behind the path of the Unix socket for codes in that of the one for messages.
pub const MESSAGE_SOCKET_SUFFIX: &str = "-messages";

/// How many clients `run` is by default.
pub const CLIENTS_DEFAULT: u64 = 50;

/// The most clients that `run` can be.
const CLIENTS_MAX: u64 = 1_000_000;

#[derive(Debug, Clone, Copy)]
enum Verb {
    Run,
    Request,
    Send,
}

const VERBS: &Verbs<Verb> = &[
    ("run", Verb::Run),
    ("request", Verb::Request),
    ("send", Verb::Send),
];

const HELP: &str = "\
Gets unique codes from a code server, and sends it text messages.

Usage: code-client [HOST CODE_PORT MESSAGE_PORT] [run [-n COUNT]] [OPTIONS]
       code-client [HOST CODE_PORT MESSAGE_PORT] request [UUID] [OPTIONS]
       code-client [HOST CODE_PORT MESSAGE_PORT] send UUID CODE TEXT|- [OPTIONS]
       code-client [HOST CODE_PORT MESSAGE_PORT] send - TEXT|- [OPTIONS]
       code-client unix:/path [VERB ...] [OPTIONS]

Arguments:
  HOST CODE_PORT MESSAGE_PORT
                         the server [default: $QUARTET_CODE, else 127.0.0.1 8000 8001]
  unix:/path             a server's Unix socket for codes; the one for messages is
                         /path-messages
  run                    acts as COUNT clients, each with a UUID of its own, that request
                         a code and send a message [default, with 50 clients]
  request [UUID]         prints UUID and its code on one line [default: a new UUID]
  send UUID CODE TEXT    sends a message; TEXT - is standard input
  send - TEXT            the same, with UUID and CODE from the first line of standard input,
                         as request prints them: a code is a secret, and other users can
                         see a command line; if TEXT is - too, the text follows that line

Options:
  -n, --count COUNT      how many clients run is, 1 to 1000000 [default: 50]
  --timeout TIME         the longest wait for anything [default: 30]
  --wait-for-server TIME keep trying to connect for this long [default: 0]
  --tls                  encrypt with TLS; the server's certificate must be for HOST
  --tls-ca FILE          trust the certificates in FILE [default: the system's]
  --tls-cert FILE, --tls-key FILE
                         the certificate of this client, and its key
  --auth-file FILE|-     the account: the first line of FILE is USER:PASSWORD, and only its
                         owner may read FILE
  -q, --quiet            say nothing but errors
  -v, --verbose          log more
  -h, --help             print this help
  -V, --version          print the version

A TIME is in seconds, as 90 or 90s, or as 15m, 2h or 7d.

Exit codes:
  0  done
  1  the server refused: a wrong code, a wrong password
  2  wrong usage, or trouble with standard input or output
  3  cannot connect, no TLS that can be trusted, timed out, connection lost, or a
     malformed reply

Examples:
  code-client
  code-client localhost 8000 8001 request 67e55044-10b1-426f-9247-bb680e5fe0c8
  code-client request | code-client send - 'Hello'
";

const OPTIONS: &[Opt] = &[Opt::value("--count").short('n')];

fn config(args: &mut Args) -> Result<Config, UsageError> {
    let Args { words, options } = args;
    let client = ClientOptions::read(options)?;
    const PORTS: [(&str, u16); 2] = [
        ("CODE_PORT", CODE_PORT_DEFAULT),
        ("MESSAGE_PORT", MESSAGE_PORT_DEFAULT),
    ];
    let [codes, messages] = match words.server(PORTS.map(|(name, _)| name), VERBS)? {
        Some(server) => server,
        None => server_default("$QUARTET_CODE", PORTS)?,
    };
    let messages = match &codes {
        Address::Tcp { .. } => messages,
        Address::Unix(path) => Address::Unix(message_socket(path).into()),
    };
    let action = match words.verb(VERBS)?.unwrap_or(Verb::Run) {
        Verb::Run => Action::Run {
            clients: options
                .number("--count", 1..=CLIENTS_MAX)?
                .unwrap_or(CLIENTS_DEFAULT),
        },
        Verb::Request => Action::Request {
            uuid: words.next_word().map(|word| uuid(&word)).transpose()?,
        },
        Verb::Send => send(words)?,
    };
    client.check_stdin(action.reads_stdin())?;
    Ok(Config {
        endpoint: client.endpoint(codes)?,
        messages,
        action,
    })
}

/// The socket for messages, beside the one for codes.
fn message_socket(codes: &Path) -> OsString {
    let mut path = codes.as_os_str().to_owned();
    path.push(MESSAGE_SOCKET_SUFFIX);
    path
}

fn send(words: &mut Words) -> Result<Action, UsageError> {
    let first = words.required("UUID")?;
    let sender = match first == "-" {
        true => Sender::Stdin,
        false => Sender::Given {
            uuid: uuid(&first)?,
            code: words.required_text("CODE")?,
        },
    };
    let text = match words.required_text("TEXT")? {
        text if text == "-" => Text::Stdin,
        text => Text::Given(text),
    };
    Ok(Action::Send { sender, text })
}

fn uuid(word: &OsStr) -> Result<Uuid, UsageError> {
    const UUID: &str = "a UUID such as 67e55044-10b1-426f-9247-bb680e5fe0c8";
    value("UUID", word, UUID)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Config, String> {
        APP.config_of(line.split_whitespace())
    }

    #[test]
    fn the_help_has_each_option() {
        APP.check_help();
    }

    #[test]
    fn no_verb_is_fifty_clients() {
        let config = parse("").unwrap();
        assert_eq!(config.action, Action::Run { clients: 50 });
        assert_eq!(config.endpoint.address, Address::new("127.0.0.1", 8000));
        assert_eq!(config.messages, Address::new("127.0.0.1", 8001));
        let config = parse("h 1 2 run -n 3").unwrap();
        assert_eq!(config.action, Action::Run { clients: 3 });
        assert_eq!(config.endpoint.address, Address::new("h", 1));
        assert_eq!(config.messages, Address::new("h", 2));
        assert_eq!(parse("h 1 2").unwrap().action, Action::Run { clients: 50 });
    }

    #[test]
    fn a_unix_socket_has_another_one_beside_it() {
        let config = parse("unix:/run/codes request").unwrap();
        assert_eq!(config.endpoint.address, Address::new("unix:/run/codes", 0));
        assert_eq!(config.messages, Address::new("unix:/run/codes-messages", 0));
    }

    #[test]
    fn standard_input_is_for_one_thing() {
        let uuid = "67e55044-10b1-426f-9247-bb680e5fe0c8";
        for verb in ["send - text", &format!("send {uuid} code -")] {
            let refused = parse(&format!("{verb} --auth-file -")).unwrap_err();
            assert!(refused.starts_with("standard input is for one thing: "));
        }
        parse("request --auth-file -").unwrap();
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
            "unknown verb 'dance', the verbs are run, request, send",
        );
        check_refused("request -n 2", "--count does not go with request");
        check_refused("reqest", "unknown verb 'reqest', did you mean request?");
        check_refused("h 1 2 snd", "unknown verb 'snd', did you mean send?");
        check_refused("send -", "TEXT is missing");
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
