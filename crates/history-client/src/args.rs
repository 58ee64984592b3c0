//! The history client's command line.

use cli::args::seconds;
use cli::{App, Endpoint, Parsed, UsageError, Words};
use lexopt::prelude::*;
use proto::history::{Operation, is_user_name};
use proto::plain::parse_line_number;

use crate::{Action, Config};

/// The program.
pub const APP: App = App {
    name: "history-client",
    version: env!("CARGO_PKG_VERSION"),
    help: HELP,
};

/// The server's port unless told otherwise.
pub const PORT_DEFAULT: u16 = 5007;

const VERBS: &[&str] = &["send", "hello", "delete", "get", "clear"];

const HELP: &str = "\
Reads and prunes the history of a history server.

Usage: history-client [HOST PORT] [OPTIONS]
       history-client [HOST PORT] VERB ... [OPTIONS]

Without a verb it asks for a line ('Enter authentication: ') and sends that.

Arguments:
  HOST PORT              the server [default: 127.0.0.1 5007]
  send LINE              sends 'USER', 'USER 1 N', 'USER 2' or 'USER 3'
  hello USER             sends 'USER': greets the server
  delete USER N          sends 'USER 1 N': deletes line N, as get counts them
  get USER               sends 'USER 2': writes the history to standard output
  clear USER             sends 'USER 3': deletes everything

Options:
  --timeout SECS         the longest wait for anything [default: 30]
  --wait-for-server SECS keep trying to connect for so long [default: 0]
  -v, --verbose          log more
  -h, --help             print this help
  -V, --version          print the version

Exit codes:
  0  done
  1  the server said no: an authentication error, no such line
  2  wrong usage, or the line is not a request
  3  cannot connect, timed out, connection lost, or no sense in the reply

Examples:
  history-client get alice
  history-client localhost 5007 send 'alice 1 3'
";

/// Reads a command line.
///
/// # Errors
/// One sentence that says what is wrong and what would be right.
pub fn parse(mut parser: lexopt::Parser) -> Result<Parsed<Config>, UsageError> {
    let mut endpoint = Endpoint::new("127.0.0.1", PORT_DEFAULT);
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
            Value(word) => words.push(word),
            other => return Err(other.unexpected().into()),
        }
    }
    if words.starts_with_host(VERBS) {
        endpoint.host = words.required_text("HOST")?;
        endpoint.port = words.required_port("PORT")?;
    }
    let action = action(&mut words)?;
    words.end()?;
    Ok(Parsed::Run {
        config: Config { endpoint, action },
        verbose,
    })
}

fn action(words: &mut Words) -> Result<Action, UsageError> {
    let Some(verb) = words.take() else {
        return Ok(Action::Prompt);
    };
    let verb = verb.to_string_lossy().to_ascii_lowercase();
    let ask = |user, operation| Ok(Action::Ask { user, operation });
    match verb.as_str() {
        "send" => Ok(Action::Line(words.required_text("the LINE to send")?)),
        "hello" => ask(user(words)?, Operation::Hello),
        "delete" => {
            let user = user(words)?;
            ask(user, Operation::Delete(line(words)?))
        }
        "get" => ask(user(words)?, Operation::Get),
        "clear" => ask(user(words)?, Operation::Clear),
        _ => Err(UsageError::Value {
            what: "the verb",
            value: verb,
            want: "send, hello, delete, get or clear".to_owned(),
        }),
    }
}

fn user(words: &mut Words) -> Result<String, UsageError> {
    let user = words.required_text("USER")?;
    if is_user_name(&user) {
        return Ok(user);
    }
    Err(UsageError::Value {
        what: "USER",
        value: user,
        want: "1 to 64 of A-Z a-z 0-9 . _ -".to_owned(),
    })
}

fn line(words: &mut Words) -> Result<u64, UsageError> {
    let word = words.required_text("N, the line to delete,")?;
    parse_line_number(&word).map_err(|_| UsageError::Value {
        what: "N",
        value: word,
        want: "the number of a line, 1 or more".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(words: &[&str]) -> Result<Config, String> {
        let args = ["history-client"].iter().chain(words);
        match super::parse(lexopt::Parser::from_iter(args)) {
            Ok(Parsed::Run { config, .. }) => Ok(config),
            Ok(other) => panic!("{words:?}: {other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    fn parse(line: &str) -> Result<Config, String> {
        parse_words(&line.split_whitespace().collect::<Vec<_>>())
    }

    #[track_caller]
    fn check_asks(line: &str, want: Operation) {
        let user = "al".to_owned();
        let want = Action::Ask {
            user,
            operation: want,
        };
        assert_eq!(parse(line).unwrap().action, want);
    }

    #[test]
    fn verbs() {
        check_asks("hello al", Operation::Hello);
        check_asks("delete al 3", Operation::Delete(3));
        check_asks("get al", Operation::Get);
        check_asks("CLEAR al", Operation::Clear);
        let config = parse_words(&["send", "alice 1 3"]).unwrap();
        assert_eq!(config.action, Action::Line("alice 1 3".to_owned()));
    }

    #[test]
    fn the_server_and_the_verb_may_be_left_out() {
        let config = parse("").unwrap();
        assert_eq!(config.action, Action::Prompt);
        assert_eq!(config.endpoint, Endpoint::new("127.0.0.1", PORT_DEFAULT));
        let config = parse("h 7").unwrap();
        assert_eq!(config.action, Action::Prompt);
        assert_eq!(config.endpoint, Endpoint::new("h", 7));
    }

    #[test]
    fn options_may_stand_anywhere() {
        let config = parse("--timeout 2 h 7 get --wait-for-server=1.5 al").unwrap();
        assert_eq!(config.endpoint.timeout.as_secs(), 2);
        assert_eq!(config.endpoint.wait_for_server.as_millis(), 1500);
        assert_eq!(config.endpoint.port, 7);
    }

    #[track_caller]
    fn check_refused(line: &str, want: &str) {
        assert_eq!(parse(line).unwrap_err(), want);
    }

    #[test]
    fn a_wrong_command_line_is_one_sentence() {
        check_refused("h", "PORT is missing");
        check_refused("h x get al", "PORT must be a port from 0 to 65535, not 'x'");
        check_refused(
            "h 7 show al",
            "the verb must be send, hello, delete, get or clear, not 'show'",
        );
        check_refused("send", "the LINE to send is missing");
        check_refused("send alice 2", "there is one argument too many: '2'");
        check_refused("get", "USER is missing");
        check_refused(
            "get a/b",
            "USER must be 1 to 64 of A-Z a-z 0-9 . _ -, not 'a/b'",
        );
        check_refused("delete al", "N, the line to delete, is missing");
        check_refused(
            "delete al 0",
            "N must be the number of a line, 1 or more, not '0'",
        );
        check_refused("clear al x", "there is one argument too many: 'x'");
        check_refused(
            "get al --timeout 0",
            "--timeout must be more than 0 seconds, not '0'",
        );
    }
}
