//! The history client's command line.

use cli::args::{Verbs, server_default};
use cli::{App, Args, ClientOptions, UsageError, Words};
use proto::history::{Filter, Operation, is_user_name};
use proto::text::parse_line_number;

use crate::{Action, Config};

/// The program.
pub const APP: App<Config> = App {
    name: "history-client",
    version: env!("CARGO_PKG_VERSION"),
    help: &[HELP],
    options: &[ClientOptions::TABLE],
    read: config,
};

/// The server's default port.
pub const PORT_DEFAULT: u16 = 5007;

#[derive(Debug, Clone, Copy)]
enum Verb {
    Send,
    Hello,
    Delete,
    Get,
    Clear,
}

const VERBS: &Verbs<Verb> = &[
    ("send", Verb::Send),
    ("hello", Verb::Hello),
    ("delete", Verb::Delete),
    ("get", Verb::Get),
    ("clear", Verb::Clear),
];

const HELP: &str = "\
Reads and prunes the history of a history server.

Usage: history-client [HOST PORT] [OPTIONS]
       history-client [HOST PORT] VERB ... [OPTIONS]
       history-client unix:/path [VERB ...] [OPTIONS]

Without a verb it asks for a line ('Enter authentication: ') and sends it.

Arguments:
  HOST PORT              the server [default: $QUARTET_HISTORY, else 127.0.0.1 5007]
  unix:/path             a server's Unix socket
  send LINE|-            sends 'USER', 'USER 1 N', 'USER 2' or 'USER 3'; - reads the line
                         from standard input
  hello USER             sends 'USER': greets the server
  delete USER N          sends 'USER 1 N': deletes line N, as get counts them
  get USER               sends 'USER 2': prints the history
  clear USER             sends 'USER 3': deletes everything

Options:
  --timeout TIME         the longest wait for anything [default: 30]
  --wait-for-server TIME keep trying to connect for this long [default: 0]
  --tls                  encrypt with TLS; the server's certificate must be for HOST
  --tls-ca FILE          trust the certificates in FILE [default: the system's]
  --tls-cert FILE, --tls-key FILE
                         the certificate of this client, and its key
  --auth-file FILE|-     the account: the first line of FILE is USER:PASSWORD, and only its
                         owner may read FILE; on a server with accounts, USER must be the
                         same as in the request
  -q, --quiet            say nothing but errors: no greeting, no prompt
  -v, --verbose          log more
  -h, --help             print this help
  -V, --version          print the version

A TIME is in seconds, as 90 or 90s, or as 15m, 2h or 7d.

Exit codes:
  0  done
  1  the server refused: an authentication error, a wrong password, no such line
  2  wrong usage, the line is not a request, or trouble with standard input or output
  3  cannot connect, no TLS that can be trusted, timed out, connection lost, or a
     malformed reply

Examples:
  history-client get alice
  history-client localhost 5007 send 'alice 1 3'
";

fn config(args: &mut Args) -> Result<Config, UsageError> {
    let Args { words, options } = args;
    let client = ClientOptions::read(options)?;
    let [address] = match words.server(["PORT"], VERBS)? {
        Some(server) => server,
        None => server_default("$QUARTET_HISTORY", [("PORT", PORT_DEFAULT)])?,
    };
    let action = match words.verb(VERBS)? {
        Some(verb) => action(verb, words)?,
        None => Action::Prompt,
    };
    client.check_stdin(matches!(action, Action::Prompt | Action::Stdin))?;
    Ok(Config {
        is_quiet: client.is_quiet,
        endpoint: client.endpoint(address)?,
        action,
    })
}

fn action(verb: Verb, words: &mut Words) -> Result<Action, UsageError> {
    let ask = |user, operation| Action::Ask { user, operation };
    Ok(match verb {
        Verb::Send => match words.required_text("the LINE to send")? {
            line if line == "-" => Action::Stdin,
            line => Action::Line(line),
        },
        Verb::Hello => ask(user(words)?, Operation::Hello),
        Verb::Delete => {
            let user = user(words)?;
            ask(user, Operation::delete_line(line(words)?))
        }
        Verb::Get => ask(user(words)?, Operation::Get(Filter::ALL)),
        Verb::Clear => ask(user(words)?, Operation::Clear),
    })
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
    use cli::{Address, Endpoint};

    use super::*;

    fn parse_words(words: &[&str]) -> Result<Config, String> {
        APP.config_of(words)
    }

    fn parse(line: &str) -> Result<Config, String> {
        parse_words(&line.split_whitespace().collect::<Vec<_>>())
    }

    #[track_caller]
    fn check_asks(line: &str, want: Operation<'static>) {
        let user = "al".to_owned();
        let want = Action::Ask {
            user,
            operation: want,
        };
        assert_eq!(parse(line).unwrap().action, want);
    }

    #[test]
    fn the_help_has_each_option() {
        APP.check_help();
    }

    #[test]
    fn verbs() {
        check_asks("hello al", Operation::Hello);
        check_asks("delete al 3", Operation::delete_line(3));
        check_asks("get al", Operation::Get(Filter::ALL));
        check_asks("CLEAR al", Operation::Clear);
        let config = parse_words(&["send", "alice 1 3"]).unwrap();
        assert_eq!(config.action, Action::Line("alice 1 3".to_owned()));
        assert_eq!(parse("send -").unwrap().action, Action::Stdin);
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
        assert_eq!(config.endpoint.address, Address::new("h", 7));
    }

    #[test]
    fn standard_input_is_for_one_thing() {
        for line in ["--auth-file -", "send - --auth-file -"] {
            let refused = parse(line).unwrap_err();
            assert!(refused.starts_with("standard input is for one thing: "));
        }
        parse("get al --auth-file -").unwrap();
    }

    #[track_caller]
    fn check_refused(line: &str, want: &str) {
        assert_eq!(parse(line).unwrap_err(), want);
    }

    #[test]
    fn a_wrong_command_line_is_one_sentence() {
        let all = "the verbs are send, hello, delete, get, clear";
        check_refused(
            "h",
            &format!("unknown verb 'h', {all}; a server is HOST PORT or unix:/path"),
        );
        check_refused("delte al 3", "unknown verb 'delte', did you mean delete?");
        check_refused("h 7 claer al", "unknown verb 'claer', did you mean clear?");
        check_refused("h x get al", "PORT must be a port from 0 to 65535, not 'x'");
        check_refused("h 7 show al", &format!("unknown verb 'show', {all}"));
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
            "--timeout must be a duration from 0.001s to 365d, such as 90, 90s, 15m, 2h or 7d, not '0'",
        );
    }
}
