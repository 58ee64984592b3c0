//! The queue client's command line.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use cli::args::{number, seconds, value};
use cli::{App, Endpoint, Parsed, UsageError, Words};
use lexopt::prelude::*;
use proto::queue::{BODY_BYTES_DEFAULT, BODY_BYTES_MAX, NAME_BYTES_MAX, QueueName, Token};

use crate::work::JOBS_MAX;
use crate::{Action, Config, Ending, Lease, Receive, Send, Source, Transport, Work};

/// The program.
pub const APP: App = App {
    name: "queue-client",
    version: env!("CARGO_PKG_VERSION"),
    help: HELP,
};

/// The server's port unless told otherwise.
pub const PORT_DEFAULT: u16 = 55556;

const VERBS: &[&str] = &[
    "send", "receive", "work", "lease", "ack", "release", "extend", "peek", "list", "stats",
    "purge", "pause", "resume", "kick", "drain",
];

const HELP: &str = "\
Sends messages to a queue server, receives them, and runs commands for them.

Usage: queue-client [HOST PORT [TCP|UDP]] VERB [OPTIONS]

Arguments:
  HOST PORT              the server [default: 127.0.0.1 55556]
  TCP|UDP                the transport, in any case [default: TCP]

Verbs:
  send FILE|-            puts the file's contents into the queue; - is standard input
      --lines            each line is a message
      --null             each piece that ends with a NUL is a message
      --delay SECS       keep them back for so long [default: 0]
      --max-message BYTES  refuse to send more than this [default: 3000]
      --truncate         send the first --max-message bytes of a longer file
  receive                writes the oldest message to standard output
      --wait SECS        if there is none, wait for one [default: 0]
      --count N          receive up to N, each on a line of its own
      --follow           receive for ever, each on a line of its own; like --wait only
                         over TCP
      --delimiter TEXT   what ends each message
      --null             end each with a NUL
  work -- COMMAND [ARGS] runs the command for each message, which it finds on its standard
                         input, with QUEUE_NAME, QUEUE_MESSAGE_ID and QUEUE_ATTEMPT in its
                         environment; acknowledges the message if it succeeds; over TCP
                         only; SIGTERM lets running commands finish and takes no more
      --jobs N           so many at once, 1 to 256 [default: 1]
      --once             end after one message
      --drain            end when the queue is empty
      --wait SECS        end when there was no message for so long [default: never]
      --retry-delay SECS keep a message whose command failed back for so long [default: 0]
  lease SECS FILE        takes the oldest message for so long, writes it to the file, and
                         prints its token
      --wait SECS        if there is none, wait for one [default: 0]
  ack TOKEN              acknowledges a leased message
  release TOKEN          gives a leased message back, to the end of the queue
      --retry-delay SECS keep it back for so long [default: 0]
  extend TOKEN SECS      makes a lease run out so long from now
  peek                   writes the oldest message, and leaves it where it is
      --count N, --delimiter TEXT, --null   as with receive
  list                   the queues, one a line: name, ready, held, delayed, dead, age of
                         the oldest message in seconds, and whether it is paused
  stats                  the same and totals, one number a line
      --json             as JSON
  purge                  forgets all messages that nobody holds
  pause, resume          has the queue hand out nothing, or again
  kick NAME              moves the messages of NAME.dead back to the end of NAME
  drain                  has the server take no new messages, for all queues
      --off              has it take them again

Of a --delay, --wait, --retry-delay or lease the server takes 49 days at the most.

Options:
  --queue NAME           the queue, 1 to 64 of A-Z a-z 0-9 . _ - [default: default]
  --timeout SECS         the longest wait for an answer [default: 30]
  --wait-for-server SECS keep trying to connect for so long; 'work' also does when the
                         connection is lost [default: 0]
  -v, --verbose          log more
  -h, --help             print this help
  -V, --version          print the version

Exit codes:
  0  done
  1  the queue is empty, the server refused, or the command of 'work --once' failed
  2  wrong usage, a file cannot be read or written, or is over the limit, or the command of
     'work' cannot be started
  3  cannot connect, timed out, connection lost, or no sense in the reply

Examples:
  queue-client send data/message1.txt
  find . -name '*.jpg' | queue-client send --queue pictures --lines -
  queue-client work --queue pictures --jobs 2 -- sh -c 'f=$(cat); convert \"$f\" \"$f.png\"'
";

/// The options of single verbs, and whether each takes a value.
const OPTIONS: &[(&str, bool)] = &[
    ("--lines", false),
    ("--null", false),
    ("--delay", true),
    ("--max-message", true),
    ("--truncate", false),
    ("--wait", true),
    ("--count", true),
    ("--follow", false),
    ("--delimiter", true),
    ("--jobs", true),
    ("--once", false),
    ("--drain", false),
    ("--retry-delay", true),
    ("--json", false),
    ("--off", false),
];

/// The options that were given, until the verb takes them.
#[derive(Default)]
struct Given(Vec<(&'static str, OsString)>);

impl Given {
    fn take(&mut self, name: &str) -> Option<OsString> {
        let at = self.0.iter().rposition(|(given, _)| *given == name)?;
        let (_, value) = self.0.swap_remove(at);
        // Of an option given twice, the last one counts.
        self.0.retain(|(given, _)| *given != name);
        Some(value)
    }

    fn flag(&mut self, name: &str) -> bool {
        self.take(name).is_some()
    }

    fn seconds(&mut self, name: &'static str) -> Result<Option<Duration>, UsageError> {
        let given = self.take(name);
        given.map(|word| seconds(name, &word)).transpose()
    }

    fn number(&mut self, name: &'static str, max: u64) -> Result<Option<u64>, UsageError> {
        let given = self.take(name);
        given.map(|word| number(name, &word, 1..=max)).transpose()
    }

    /// Whatever is left is another verb's.
    fn end(mut self, verb: &str) -> Result<(), UsageError> {
        match self.0.pop() {
            None => Ok(()),
            Some((option, _)) => Err(UsageError::Misplaced {
                option: option.to_owned(),
                verb: verb.to_owned(),
            }),
        }
    }
}

/// A command line, taken apart but not yet understood.
struct Line {
    endpoint: Endpoint,
    queue: String,
    words: Words,
    given: Given,
    /// What stands behind `--`, if it is there.
    command: Option<Vec<OsString>>,
}

/// Reads a command line.
///
/// # Errors
/// One sentence that says what is wrong and what would be right.
pub fn parse(parser: lexopt::Parser) -> Result<Parsed<Config>, UsageError> {
    Ok(match split(parser)? {
        Parsed::Run { config, verbose } => Parsed::Run {
            config: understand(config)?,
            verbose,
        },
        Parsed::Help => Parsed::Help,
        Parsed::Version => Parsed::Version,
    })
}

/// Tells options from words: the options of all verbs, for the verb may stand behind them.
fn split(mut parser: lexopt::Parser) -> Result<Parsed<Line>, UsageError> {
    let mut verbose = false;
    let mut line = Line {
        endpoint: Endpoint::new("127.0.0.1", PORT_DEFAULT),
        queue: QueueName::DEFAULT.as_str().to_owned(),
        words: Words::default(),
        given: Given::default(),
        command: None,
    };
    loop {
        if let Some(mut rest) = parser.try_raw_args()
            && rest.next_if(|word| word == "--").is_some()
        {
            line.command = Some(rest.collect());
            break;
        }
        let Some(arg) = parser.next()? else {
            break;
        };
        match arg {
            Short('h') | Long("help") => return Ok(Parsed::Help),
            Short('V') | Long("version") => return Ok(Parsed::Version),
            Short('v') | Long("verbose") => verbose = true,
            Long("timeout") => line.endpoint.timeout = cli::args::timeout(&parser.value()?)?,
            Long("wait-for-server") => {
                line.endpoint.wait_for_server = seconds("--wait-for-server", &parser.value()?)?;
            }
            Long("queue") => line.queue = queue_name("--queue", &parser.value()?)?,
            Long(name) => {
                let known = OPTIONS.iter().find(|(option, _)| option[2..] == *name);
                let Some((option, has_value)) = known else {
                    return Err(Long(name).unexpected().into());
                };
                let value = match has_value {
                    true => parser.value()?,
                    false => OsString::new(),
                };
                line.given.0.push((option, value));
            }
            Value(word) => line.words.push(word),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Parsed::Run {
        config: line,
        verbose,
    })
}

fn understand(line: Line) -> Result<Config, UsageError> {
    let Line {
        mut endpoint,
        mut queue,
        mut words,
        mut given,
        command,
    } = line;
    let mut transport = Transport::Tcp;
    if words.starts_with_host(VERBS) {
        endpoint.host = words.required_text("HOST")?;
        endpoint.port = words.required_port("PORT")?;
        if words.starts_with_host(VERBS) {
            let word = words.required("the transport")?;
            transport = value("the transport", &word, "TCP or UDP")?;
        }
    }
    let verb = words.required_text("the verb")?.to_ascii_lowercase();
    if command.is_some() && verb != "work" {
        return Err(UsageError::Misplaced {
            option: "--".to_owned(),
            verb,
        });
    }
    if verb == "kick" {
        queue = queue_name("NAME", &words.required("the NAME of the queue")?)?;
    }
    let action = match verb.as_str() {
        "work" => work(&mut given, command.unwrap_or_default())?,
        _ => action(&verb, &mut given, &mut words)?,
    };
    given.end(&verb)?;
    words.end()?;
    if transport == Transport::Udp
        && let Some(sentence) = needs_tcp(&action)
    {
        return Err(UsageError::Conflict(sentence));
    }
    Ok(Config {
        endpoint,
        transport,
        queue,
        action,
    })
}

fn action(verb: &str, given: &mut Given, words: &mut Words) -> Result<Action, UsageError> {
    Ok(match verb {
        "send" => send(given, words)?,
        "receive" => receive(given)?,
        "lease" => {
            let lease = seconds("SECS", &words.required("the SECS of the lease")?)?;
            let path = words.required("the FILE for the message")?;
            if path == "-" {
                let sentence = "the FILE of lease cannot be -, for standard output gets the token";
                return Err(UsageError::Conflict(sentence));
            }
            Action::Lease(Lease {
                lease,
                wait: given.seconds("--wait")?.unwrap_or_default(),
                path: PathBuf::from(path),
            })
        }
        "ack" => Action::Ack(token(words)?),
        "release" => Action::Release(
            token(words)?,
            given.seconds("--retry-delay")?.unwrap_or_default(),
        ),
        "extend" => {
            let token = token(words)?;
            let lease = words.required("the SECS of the lease")?;
            Action::Extend(token, seconds("SECS", &lease)?)
        }
        "peek" => {
            let count = given.number("--count", u64::MAX)?;
            Action::Peek(count.unwrap_or(1), ending(given, count.is_some())?)
        }
        "list" => Action::List,
        "stats" => Action::Stats {
            json: given.flag("--json"),
        },
        "purge" => Action::Purge,
        "pause" => Action::Pause,
        "resume" => Action::Resume,
        "kick" => Action::Kick,
        _ => Action::Drain(!given.flag("--off")),
    })
}

fn send(given: &mut Given, words: &mut Words) -> Result<Action, UsageError> {
    let piece_end = match (given.flag("--lines"), given.flag("--null")) {
        (true, true) => {
            return Err(UsageError::Conflict(
                "--lines and --null exclude each other",
            ));
        }
        (true, false) => Some(b'\n'),
        (false, true) => Some(0),
        (false, false) => None,
    };
    let truncate = given.flag("--truncate");
    if truncate && piece_end.is_some() {
        let sentence = "--truncate is for a single message";
        return Err(UsageError::Conflict(sentence));
    }
    let bytes_max = given.number("--max-message", BODY_BYTES_MAX as u64)?;
    let word = words.required("the FILE to send")?;
    Ok(Action::Send(Send {
        source: match word == "-" {
            true => Source::Stdin,
            false => Source::File(PathBuf::from(word)),
        },
        piece_end,
        delay: given.seconds("--delay")?.unwrap_or_default(),
        body_bytes_max: bytes_max.map_or(BODY_BYTES_DEFAULT, |max| max as usize),
        truncate,
    }))
}

fn receive(given: &mut Given) -> Result<Action, UsageError> {
    let wait = given.seconds("--wait")?;
    let count = given.number("--count", u64::MAX)?;
    let follow = given.flag("--follow");
    if follow && (count.is_some() || wait.is_some()) {
        let sentence = "--follow receives for ever, without --count and --wait";
        return Err(UsageError::Conflict(sentence));
    }
    let ending = ending(given, follow || count.is_some())?;
    Ok(Action::Receive(Receive {
        count: match follow {
            true => None,
            false => Some(count.unwrap_or(1)),
        },
        wait: wait.unwrap_or_default(),
        ending,
    }))
}

/// What ends each message; a single one is written as it is unless something is said.
fn ending(given: &mut Given, are_many: bool) -> Result<Ending, UsageError> {
    match (given.take("--delimiter"), given.flag("--null")) {
        (Some(_), true) => Err(UsageError::Conflict(
            "--delimiter and --null exclude each other",
        )),
        (Some(text), false) => Ok(Ending::Always(text.into_encoded_bytes())),
        (None, true) => Ok(Ending::Always(vec![0])),
        (None, false) if are_many => Ok(Ending::Line),
        (None, false) => Ok(Ending::None),
    }
}

fn work(given: &mut Given, command: Vec<OsString>) -> Result<Action, UsageError> {
    let jobs = given.number("--jobs", JOBS_MAX as u64)?;
    let once = given.flag("--once");
    let drain = given.flag("--drain");
    let wait = given.seconds("--wait")?;
    if drain && (once || wait.is_some()) {
        let sentence = "--drain ends when the queue is empty, without --once and --wait";
        return Err(UsageError::Conflict(sentence));
    }
    if once && jobs.is_some_and(|jobs| jobs > 1) {
        let sentence = "--once takes one message, so --jobs is 1";
        return Err(UsageError::Conflict(sentence));
    }
    let mut command = command.into_iter();
    let missing = UsageError::Missing("the COMMAND, behind --,");
    Ok(Action::Work(Work {
        jobs: jobs.unwrap_or(1) as usize,
        once,
        wait: wait.or((once || drain).then_some(Duration::ZERO)),
        retry_delay: given.seconds("--retry-delay")?.unwrap_or_default(),
        command: command.next().ok_or(missing)?,
        args: command.collect(),
    }))
}

/// Says of what waits or holds a message that it needs a connection.
fn needs_tcp(action: &Action) -> Option<&'static str> {
    match action {
        Action::Receive(Receive { count: None, .. }) => Some("--follow needs TCP"),
        Action::Receive(Receive { wait, .. }) | Action::Lease(Lease { wait, .. })
            if !wait.is_zero() =>
        {
            Some("--wait needs TCP")
        }
        Action::Work(_) => Some("work needs TCP"),
        _ => None,
    }
}

fn token(words: &mut Words) -> Result<Token, UsageError> {
    let word = words.required("the TOKEN")?;
    let want = "what lease has printed";
    value("TOKEN", &word, want)
}

fn queue_name(what: &'static str, word: &OsStr) -> Result<String, UsageError> {
    let name = word.to_str().unwrap_or_default();
    match QueueName::new(name) {
        Ok(name) => Ok(name.as_str().to_owned()),
        Err(_) => Err(UsageError::Value {
            what,
            value: word.to_string_lossy().into_owned(),
            want: format!("1 to {NAME_BYTES_MAX} of A-Z a-z 0-9 . _ -"),
        }),
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

    #[track_caller]
    fn check(line: &str, want: Action) {
        assert_eq!(parse(line).unwrap().action, want, "{line}");
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    const SEND: Send = Send {
        source: Source::Stdin,
        piece_end: None,
        delay: Duration::ZERO,
        body_bytes_max: BODY_BYTES_DEFAULT,
        truncate: false,
    };

    const RECEIVE: Receive = Receive {
        count: Some(1),
        wait: Duration::ZERO,
        ending: Ending::None,
    };

    #[test]
    fn the_server_may_be_left_out() {
        let config = parse("LIST").unwrap();
        assert_eq!(config.endpoint.port, PORT_DEFAULT);
        assert_eq!(config.queue, "default");
        let config = parse("h 7 udp --queue jobs.dead list").unwrap();
        assert_eq!(config.transport, Transport::Udp);
        let Endpoint { host, port, .. } = &config.endpoint;
        assert_eq!((host.as_str(), *port), ("h", 7));
        assert_eq!(config.queue, "jobs.dead");
    }

    #[test]
    fn sending() {
        check("send -", Action::Send(SEND));
        let cut = Send {
            source: Source::File("f".into()),
            body_bytes_max: 5,
            truncate: true,
            ..SEND
        };
        check("--truncate send --max-message=5 f", Action::Send(cut));
        let lines = Send {
            piece_end: Some(b'\n'),
            delay: secs(2),
            ..SEND
        };
        check("send - --lines --delay 2", Action::Send(lines));
        let null = Send {
            piece_end: Some(0),
            ..SEND
        };
        check("send - --null", Action::Send(null));
    }

    #[test]
    fn receiving() {
        check("receive", Action::Receive(RECEIVE));
        let two = Receive {
            count: Some(2),
            wait: secs(3),
            ending: Ending::Line,
        };
        check("receive --count 2 --wait 3", Action::Receive(two));
        let follow = Receive {
            count: None,
            ending: Ending::Always(vec![0]),
            ..RECEIVE
        };
        check("receive --follow --null", Action::Receive(follow));
        let delimited = Receive {
            ending: Ending::Always(b"--".to_vec()),
            ..RECEIVE
        };
        check("receive --delimiter=--", Action::Receive(delimited));
        check("peek", Action::Peek(1, Ending::None));
        check("peek --count 1", Action::Peek(1, Ending::Line));
    }

    #[test]
    fn working() {
        let work = Work {
            jobs: 1,
            once: false,
            wait: None,
            retry_delay: Duration::ZERO,
            command: "cat".into(),
            args: Vec::new(),
        };
        check("work -- cat", Action::Work(work.clone()));
        let many = Work {
            jobs: 8,
            wait: Some(Duration::ZERO),
            retry_delay: secs(1),
            args: vec!["--jobs".into(), "--".into()],
            ..work.clone()
        };
        let line = "work --jobs 8 --drain --retry-delay 1 -- cat --jobs --";
        check(line, Action::Work(many));
        let once = Work {
            once: true,
            wait: Some(secs(9)),
            ..work
        };
        check("--once work --wait 9 -- cat", Action::Work(once));
    }

    #[test]
    fn leasing() {
        let token: Token = "0b6ab2d4-5d49-4a8f-8c39-2f0cbd2a9d3f".parse().unwrap();
        let lease = Lease {
            lease: secs(60),
            wait: secs(1),
            path: "f".into(),
        };
        check("lease 60 f --wait 1", Action::Lease(lease));
        check(&format!("ack {token}"), Action::Ack(token));
        let release = Action::Release(token, secs(4));
        check(&format!("release {token} --retry-delay 4"), release);
        check(&format!("extend {token} 5"), Action::Extend(token, secs(5)));
    }

    #[test]
    fn looking_after_it() {
        check("stats --json", Action::Stats { json: true });
        check("drain", Action::Drain(true));
        check("drain --off", Action::Drain(false));
        assert_eq!(parse("kick jobs").unwrap().queue, "jobs");
    }

    #[track_caller]
    fn check_refused(line: &str, want: &str) {
        assert_eq!(parse(line).unwrap_err(), want, "{line}");
    }

    #[test]
    fn a_wrong_command_line_is_one_sentence() {
        check_refused("", "the verb is missing");
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
        check_refused("receive --lines", "--lines does not go with receive");
        check_refused("list -- cat", "-- does not go with list");
        check_refused("list --frobnicate", "invalid option '--frobnicate'");
        check_refused("work", "the COMMAND, behind --, is missing");
        check_refused("work --", "the COMMAND, behind --, is missing");
        check_refused(
            "work --jobs 0 -- cat",
            "--jobs must be a number from 1 to 256, not '0'",
        );
        check_refused("ack 7", "TOKEN must be what lease has printed, not '7'");
        check_refused("kick", "the NAME of the queue is missing");
        check_refused(
            "list --queue a/b",
            "--queue must be 1 to 64 of A-Z a-z 0-9 . _ -, not 'a/b'",
        );
        check_refused(
            "kick a/b",
            "NAME must be 1 to 64 of A-Z a-z 0-9 . _ -, not 'a/b'",
        );
        check_refused(
            "lease 5 -",
            "the FILE of lease cannot be -, for standard output gets the token",
        );
    }

    #[test]
    fn what_waits_or_holds_needs_tcp() {
        check_refused("h 1 udp receive --wait 1", "--wait needs TCP");
        check_refused("h 1 udp receive --follow", "--follow needs TCP");
        check_refused("h 1 udp lease 5 f --wait 1", "--wait needs TCP");
        check_refused("h 1 udp work -- cat", "work needs TCP");
        assert_eq!(parse("h 1 udp receive").unwrap().transport, Transport::Udp);
    }

    #[test]
    fn what_excludes_each_other_is_said() {
        for line in [
            "send - --lines --null",
            "send - --lines --truncate",
            "receive --null --delimiter x",
            "receive --follow --count 2",
            "receive --follow --wait 2",
            "work --drain --once -- cat",
            "work --drain --wait 1 -- cat",
            "work --once --jobs 2 -- cat",
        ] {
            let sentence = parse(line).unwrap_err();
            assert!(!sentence.contains('\n') && sentence.len() > 20, "{line}");
        }
    }
}
