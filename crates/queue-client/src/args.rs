//! The queue client's command line.

use std::ffi::{OsStr, OsString};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use cli::args::{Opt, Options, Verbs, choice, duration, server_default, value};
use cli::{Address, App, Args, ClientOptions, Security, UsageError, Words};
use proto::queue::{BODY_BYTES_DEFAULT, BODY_BYTES_MAX, DURATION_MAX, NAME_BYTES_MAX, QueueName};

use crate::work::JOBS_MAX;
use crate::{Action, Config, Ending, Lease, Receive, Send, Source, TokenSource, Transport, Work};

/// The program.
pub const APP: App<Config> = App {
    name: "queue-client",
    version: env!("CARGO_PKG_VERSION"),
    help: &[HELP],
    options: &[ClientOptions::TABLE, OPTIONS],
    read: config,
};

/// The server's default port.
pub const PORT_DEFAULT: u16 = 55556;

/// The shortest and the longest delay, wait or lease.
const TIMES: RangeInclusive<Duration> = Duration::ZERO..=DURATION_MAX;

#[derive(Debug, Clone, Copy)]
enum Verb {
    Send,
    Receive,
    Work,
    Lease,
    Ack,
    Release,
    Extend,
    Peek,
    List,
    Stats,
    Purge,
    Pause,
    Resume,
    Kick,
    Drain,
}

const VERBS: &Verbs<Verb> = &[
    ("send", Verb::Send),
    ("receive", Verb::Receive),
    ("work", Verb::Work),
    ("lease", Verb::Lease),
    ("ack", Verb::Ack),
    ("release", Verb::Release),
    ("extend", Verb::Extend),
    ("peek", Verb::Peek),
    ("list", Verb::List),
    ("stats", Verb::Stats),
    ("purge", Verb::Purge),
    ("pause", Verb::Pause),
    ("resume", Verb::Resume),
    ("kick", Verb::Kick),
    ("drain", Verb::Drain),
];

const OPTIONS: &[Opt] = &[
    Opt::value("--queue"),
    Opt::flag("--lines"),
    Opt::flag("--null"),
    Opt::value("--delay"),
    Opt::value("--max-message"),
    Opt::flag("--truncate"),
    Opt::value("--wait"),
    Opt::value("--count"),
    Opt::flag("--follow"),
    Opt::value("--delimiter"),
    Opt::value("--jobs"),
    Opt::flag("--once"),
    Opt::flag("--drain"),
    Opt::value("--retry-delay"),
    Opt::flag("--json"),
    Opt::flag("--off"),
];

const HELP: &str = "\
Sends messages to a queue server, receives them, and runs commands for them.

Usage: queue-client [HOST PORT [TCP|UDP]] VERB [OPTIONS]
       queue-client unix:/path VERB [OPTIONS]

Arguments:
  HOST PORT              the server [default: $QUARTET_QUEUE, else 127.0.0.1 55556]
  unix:/path             a server's Unix socket
  TCP|UDP                the transport, in any case [default: TCP]

Verbs:
  send FILE|-            sends the file's contents as a message; - is standard input
      --lines            send each line as a message
      --null             send each piece that ends with a NUL as a message
      --delay TIME       the messages become ready after TIME [default: 0]
      --max-message SIZE the longest message that is sent [default: 3000]
      --truncate         send the first --max-message bytes of a longer file
  receive                prints the oldest message
      --wait TIME        if there is none, wait up to TIME for one, over TCP [default: 0]
      --count N          receive up to N messages, each on a line of its own
      --follow           receive without end, each message on a line of its own, over TCP
      --delimiter TEXT   print TEXT behind each message
      --null             print a NUL behind each message
  work -- COMMAND [ARGS] runs the command for each message, over TCP; the message is on its
                         standard input, QUEUE_NAME, QUEUE_MESSAGE_ID and QUEUE_ATTEMPT in
                         its environment; a message whose command succeeds is acknowledged;
                         SIGTERM lets running commands finish, a second one stops them
      --jobs N           commands at once, 1 to 256 [default: 1]
      --once             end after one message
      --drain            end when the queue is empty, no command runs and no message is
                         delayed; exit code 1 if there are dead letters then
      --wait TIME        end when no message came for TIME [default: never]
      --retry-delay TIME the delay of a message whose command failed [default: 0]
  lease TIME FILE        leases the oldest message for TIME, writes it to FILE, and prints
                         the token of the lease
      --wait TIME        if there is none, wait up to TIME for one [default: 0]
  ack TOKEN|-            acknowledges a leased message; - reads the token from standard
                         input, because other users can see a command line
  release TOKEN|-        releases a leased message, to the end of its queue
      --retry-delay TIME its delay [default: 0]
  extend TOKEN|- TIME    the lease expires TIME from now
  peek                   prints the oldest message, and leaves it where it is
      --count N, --delimiter TEXT, --null   as with receive
  list                   the queues, one a line: name, ready, reserved, delayed and dead
                         messages, age of the oldest in seconds, and whether it is paused
  stats                  the same and totals, one number a line
      --json             as JSON
  purge                  removes all messages that are not reserved
  pause, resume          the queue hands out nothing, or hands out messages again
  kick NAME              moves the dead letters in NAME.dead to the end of NAME
  drain                  the server accepts no new messages in any queue
      --off              it accepts them again

A TIME is in seconds, as 90 or 90s, or as 15m, 2h or 7d; a --delay, --wait, --retry-delay
or lease is at most 49d. A SIZE is in bytes, as 4096, or in units of 1024, as 64K or 10M.

Options:
  --queue NAME           the queue, 1 to 64 of A-Z a-z 0-9 . _ - [default: default]
  --timeout TIME         the longest wait for an answer [default: 30]
  --wait-for-server TIME keep trying to connect for this long; a client that waits for
                         messages also connects again [default: 0]
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

Exit codes:
  0  done
  1  the queue is empty, the server refused, the command of 'work --once' failed, or
     'work --drain' leaves dead letters
  2  wrong usage, a file cannot be read or written, or is over the limit, or the command of
     'work' cannot be started
  3  cannot connect, no TLS that can be trusted, timed out, connection lost, or a
     malformed reply

Examples:
  queue-client send data/message1.txt
  find . -name '*.jpg' | queue-client send --queue pictures --lines -
  queue-client work --queue pictures --jobs 2 -- sh -c 'f=$(cat); convert \"$f\" \"$f.png\"'
";

fn config(args: &mut Args) -> Result<Config, UsageError> {
    let client = ClientOptions::read(&mut args.options)?;
    let (address, transport) = match args.words.server(["PORT"], VERBS)? {
        Some([address]) => {
            let transport = named_transport(&mut args.words)?;
            if transport.is_some() && matches!(address, Address::Unix(_)) {
                let sentence = "a Unix socket has neither TCP nor UDP: leave it out";
                return Err(UsageError::Conflict(sentence));
            }
            (address, transport.unwrap_or(Transport::Tcp))
        }
        None => {
            let [address] = server_default("$QUARTET_QUEUE", [("PORT", PORT_DEFAULT)])?;
            (address, Transport::Tcp)
        }
    };
    let missing = UsageError::Missing("the verb");
    let verb = args.words.verb(VERBS)?.ok_or(missing)?;
    let queue = queue(verb, args)?;
    let action = action(verb, args)?;
    if transport == Transport::Udp
        && let Some(sentence) = needs_tcp(&action).or(needs_connection(&client.security))
    {
        return Err(UsageError::Conflict(sentence));
    }
    client.check_stdin(action.reads_stdin())?;
    Ok(Config {
        endpoint: client.endpoint(address)?,
        transport,
        queue,
        action,
    })
}

/// The transport, if one is named: a word that is not a verb and has a verb behind it, or is TCP or
/// UDP.
fn named_transport(words: &mut Words) -> Result<Option<Transport>, UsageError> {
    let is_named = !words.starts_with_verb(VERBS)
        && (words.peek().is_some_and(|word| transport(word).is_ok()) || words.has_verb(VERBS));
    match is_named {
        true => transport(&words.required("the transport")?).map(Some),
        false => Ok(None),
    }
}

fn transport(word: &OsStr) -> Result<Transport, UsageError> {
    let table = [("TCP", Transport::Tcp), ("UDP", Transport::Udp)];
    choice("the transport", word, &table, "TCP or UDP")
}

/// The queue that a verb is about, if it is about one.
fn queue(verb: Verb, args: &mut Args) -> Result<String, UsageError> {
    let named = match verb {
        Verb::Send
        | Verb::Receive
        | Verb::Work
        | Verb::Lease
        | Verb::Peek
        | Verb::Purge
        | Verb::Pause
        | Verb::Resume => args.options.raw("--queue").map(|word| ("--queue", word)),
        Verb::Kick => Some(("NAME", args.words.required("the NAME of the queue")?)),
        // A token says which message it is, and so which queue.
        Verb::Ack | Verb::Release | Verb::Extend => None,
        Verb::List | Verb::Stats | Verb::Drain => None,
    };
    match named {
        Some((what, word)) => queue_name(what, &word),
        None => Ok(QueueName::DEFAULT.as_str().to_owned()),
    }
}

fn action(verb: Verb, args: &mut Args) -> Result<Action, UsageError> {
    let Args { words, options } = args;
    Ok(match verb {
        Verb::Send => send(args)?,
        Verb::Receive => receive(options)?,
        Verb::Work => work(options, words.command())?,
        Verb::Lease => {
            let lease = lease_time(words)?;
            let path = words.required("the FILE for the message")?;
            if path == "-" {
                let sentence = "the FILE of lease cannot be -, for standard output gets the token";
                return Err(UsageError::Conflict(sentence));
            }
            Action::Lease(Lease {
                lease,
                wait: options.duration("--wait", TIMES)?.unwrap_or_default(),
                path: PathBuf::from(path),
            })
        }
        Verb::Ack => Action::Ack(token(words)?),
        Verb::Release => Action::Release(
            token(words)?,
            options
                .duration("--retry-delay", TIMES)?
                .unwrap_or_default(),
        ),
        Verb::Extend => Action::Extend(token(words)?, lease_time(words)?),
        Verb::Peek => {
            let count = options.number("--count", 1..=u64::MAX)?;
            Action::Peek(count.unwrap_or(1), ending(options, count.is_some())?)
        }
        Verb::List => Action::List,
        Verb::Stats => Action::Stats {
            json: options.flag("--json"),
        },
        Verb::Purge => Action::Purge,
        Verb::Pause => Action::Pause,
        Verb::Resume => Action::Resume,
        Verb::Kick => Action::Kick,
        Verb::Drain => Action::Drain(!options.flag("--off")),
    })
}

fn send(args: &mut Args) -> Result<Action, UsageError> {
    let Args { words, options } = args;
    let piece_end = match (options.flag("--lines"), options.flag("--null")) {
        (true, true) => {
            return Err(UsageError::Conflict(
                "--lines and --null exclude each other",
            ));
        }
        (true, false) => Some(b'\n'),
        (false, true) => Some(0),
        (false, false) => None,
    };
    let truncate = options.flag("--truncate");
    if truncate && piece_end.is_some() {
        let sentence = "--truncate is for a single message";
        return Err(UsageError::Conflict(sentence));
    }
    let bytes_max = options.size("--max-message", 1..=BODY_BYTES_MAX)?;
    let word = words.required("the FILE to send")?;
    Ok(Action::Send(Send {
        source: match word == "-" {
            true => Source::Stdin,
            false => Source::File(PathBuf::from(word)),
        },
        piece_end,
        delay: options.duration("--delay", TIMES)?.unwrap_or_default(),
        body_bytes_max: bytes_max.unwrap_or(BODY_BYTES_DEFAULT),
        truncate,
    }))
}

fn receive(options: &mut Options) -> Result<Action, UsageError> {
    let wait = options.duration("--wait", TIMES)?;
    let count = options.number("--count", 1..=u64::MAX)?;
    let follow = options.flag("--follow");
    if follow && (count.is_some() || wait.is_some()) {
        let sentence = "--follow receives for ever, without --count and --wait";
        return Err(UsageError::Conflict(sentence));
    }
    let ending = ending(options, follow || count.is_some())?;
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
fn ending(options: &mut Options, are_many: bool) -> Result<Ending, UsageError> {
    match (options.raw("--delimiter"), options.flag("--null")) {
        (Some(_), true) => Err(UsageError::Conflict(
            "--delimiter and --null exclude each other",
        )),
        (Some(text), false) => Ok(Ending::Always(text.into_encoded_bytes())),
        (None, true) => Ok(Ending::Always(vec![0])),
        (None, false) if are_many => Ok(Ending::Line),
        (None, false) => Ok(Ending::None),
    }
}

fn work(options: &mut Options, command: Vec<OsString>) -> Result<Action, UsageError> {
    let jobs = options.number("--jobs", 1..=JOBS_MAX)?;
    let once = options.flag("--once");
    let drain = options.flag("--drain");
    let wait = options.duration("--wait", TIMES)?;
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
        jobs: jobs.unwrap_or(1),
        once,
        drain,
        wait: wait.or((once || drain).then_some(Duration::ZERO)),
        retry_delay: options
            .duration("--retry-delay", TIMES)?
            .unwrap_or_default(),
        command: command.next().ok_or(missing)?,
        args: command.collect(),
    }))
}

/// Says of what waits or holds a message that it needs a connection.
fn needs_tcp(action: &Action) -> Option<&'static str> {
    match action {
        Action::Receive(Receive { count: None, .. }) => Some("--follow needs TCP"),
        Action::Receive(Receive { wait, .. }) | Action::Lease(Lease { wait, .. }) => {
            (!wait.is_zero()).then_some("--wait needs TCP")
        }
        Action::Work(_) => Some("work needs TCP"),
        Action::Send(_)
        | Action::Ack(_)
        | Action::Release(..)
        | Action::Extend(..)
        | Action::Peek(..)
        | Action::List
        | Action::Stats { .. }
        | Action::Purge
        | Action::Pause
        | Action::Resume
        | Action::Kick
        | Action::Drain(_) => None,
    }
}

/// Says of what a connection carries that datagrams do not.
fn needs_connection(security: &Security) -> Option<&'static str> {
    if security.has_tls() {
        Some("--tls needs TCP")
    } else if security.has_account() {
        Some("--auth-file needs TCP")
    } else {
        None
    }
}

fn token(words: &mut Words) -> Result<TokenSource, UsageError> {
    let word = words.required("the TOKEN")?;
    if word == "-" {
        return Ok(TokenSource::Stdin);
    }
    let token = value("TOKEN", &word, "what lease has printed")?;
    Ok(TokenSource::Given(token))
}

fn lease_time(words: &mut Words) -> Result<Duration, UsageError> {
    duration("TIME", &words.required("the TIME of the lease")?, TIMES)
}

fn queue_name(what: &'static str, word: &OsStr) -> Result<String, UsageError> {
    let name = word.to_str().unwrap_or_default();
    match QueueName::new(name) {
        Ok(name) => Ok(name.as_str().to_owned()),
        Err(_) => {
            let want = format!("1 to {NAME_BYTES_MAX} of A-Z a-z 0-9 . _ -");
            Err(UsageError::value(what, word, want))
        }
    }
}

#[cfg(test)]
mod tests;
