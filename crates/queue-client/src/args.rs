//! The queue client's command line.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Duration;

use cli::args::{Opt, Options, Verbs, choice, server_default};
use cli::{Address, App, Args, ClientOptions, Security, UsageError, Words};
use proto::queue::{MessageId, MessageState, QueueName};

use help::HELP;
use send::send;
use servers::servers;
use values::{TIMES, lease_time, queue_name, queue_names, reason, token};
use work::work;

use crate::{Action, Config, Ending, Lease, List, Peek, Receive, Transport, Which, Work};

mod help;
mod send;
mod servers;
mod values;
mod work;

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
    Delete,
    Move,
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
    ("delete", Verb::Delete),
    ("move", Verb::Move),
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
    Opt::value("--priority"),
    Opt::value("--key"),
    Opt::value("--expires"),
    Opt::value("--max-attempts"),
    Opt::value("--max-message"),
    Opt::flag("--truncate"),
    Opt::value("--wait"),
    Opt::value("--count"),
    Opt::flag("--follow"),
    Opt::value("--delimiter"),
    Opt::value("--jobs"),
    Opt::flag("--once"),
    Opt::flag("--drain"),
    Opt::value("--backoff"),
    Opt::value("--retry-delay"),
    Opt::value("--reason"),
    Opt::value("--dead-on"),
    Opt::value("--uncounted-on"),
    Opt::value("--time-limit"),
    Opt::flag("--json"),
    Opt::value("--id"),
    Opt::flag("--reserved"),
    Opt::flag("--delayed"),
    Opt::flag("--dead"),
    Opt::value("--holder"),
    Opt::value("--max-ready"),
    Opt::value("--max-age"),
    Opt::flag("--off"),
];

/// How long a client that goes on by itself waits by default for a server that it has reached before: as
/// long as one needs to start again.
const RESTART_WAIT: Duration = Duration::from_secs(60);

/// The longest age that `list` is asked about: a year.
const AGE_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

fn config(args: &mut Args) -> Result<Config, UsageError> {
    let client = ClientOptions::read(&mut args.options)?;
    let (what, address, transport) = match args.words.server(["PORT"], VERBS)? {
        Some([address]) => {
            let transport = named_transport(&mut args.words)?;
            if transport.is_some() && matches!(address, Address::Unix(_)) {
                let sentence = "a Unix socket has neither TCP nor UDP: leave it out";
                return Err(UsageError::Conflict(sentence));
            }
            ("HOST", address, transport.unwrap_or(Transport::Tcp))
        }
        None => {
            let what = "$QUARTET_QUEUE";
            let [address] = server_default(what, [("PORT", PORT_DEFAULT)])?;
            (what, address, Transport::Tcp)
        }
    };
    let (address, others) = servers(what, address)?;
    let missing = UsageError::Missing("the verb");
    let verb = args.words.verb(VERBS)?.ok_or(missing)?;
    let id = id(verb, &mut args.options)?;
    let queues = queues(verb, id, args)?;
    let action = action(verb, id, args)?;
    if let Action::Work(Work { drain: true, .. }) = action
        && let [_, _, ..] = &queues[..]
        && queues
            .iter()
            .any(|name| name.ends_with(QueueName::DEAD_SUFFIX))
    {
        let sentence = "--drain tries each dead letter once, so name their queue alone";
        return Err(UsageError::Conflict(sentence));
    }
    if transport == Transport::Udp
        && let Some(sentence) = needs_tcp(&action).or(needs_connection(&client.security, &others))
    {
        return Err(UsageError::Conflict(sentence));
    }
    client.check_stdin(action.reads_stdin())?;
    let wait_for_server = client.wait_for_server;
    let mut endpoint = client.endpoint(address)?;
    endpoint.others = others;
    let wait_at_first = endpoint.wait_for_server;
    if wait_for_server.is_none() && action.goes_on() {
        endpoint.wait_for_server = RESTART_WAIT;
    }
    Ok(Config {
        endpoint,
        wait_at_first,
        transport,
        queues,
        action,
    })
}

/// The transport, if one is named: a word that is not a verb and has a verb behind it, or is TCP or
/// UDP.
fn named_transport(words: &mut Words) -> Result<Option<Transport>, UsageError> {
    let is_named = !words.starts_with_verb(VERBS)
        && (words.peek().is_some_and(|word| transport(word).is_ok()) || words.has_verb(VERBS));
    if is_named {
        transport(&words.required("the transport")?).map(Some)
    } else {
        Ok(None)
    }
}

fn transport(word: &OsStr) -> Result<Transport, UsageError> {
    let table = [("TCP", Transport::Tcp), ("UDP", Transport::Udp)];
    choice("the transport", word, &table, "TCP or UDP")
}

/// The id of the message that a verb is about, if it is about one. It is an option, because a queue may have a
/// number for its name.
fn id(verb: Verb, options: &mut Options) -> Result<Option<MessageId>, UsageError> {
    match verb {
        Verb::Peek | Verb::Release | Verb::Kick => options.number("--id", 1..=MessageId::MAX),
        Verb::Delete | Verb::Move => {
            let id = options.number("--id", 1..=MessageId::MAX)?;
            id.map(Some)
                .ok_or(UsageError::Missing("the --id ID of the message"))
        }
        Verb::Send | Verb::Receive | Verb::Work | Verb::Lease | Verb::Ack | Verb::Extend => {
            Ok(None)
        }
        Verb::List | Verb::Stats | Verb::Purge | Verb::Pause | Verb::Resume | Verb::Drain => {
            Ok(None)
        }
    }
}

/// The queues that a verb is about, if it is about any.
fn queues(verb: Verb, id: Option<MessageId>, args: &mut Args) -> Result<Vec<String>, UsageError> {
    let named = match verb {
        Verb::Receive | Verb::Work | Verb::Lease => {
            let word = args.options.raw("--queue");
            return word.map_or(Ok(default_queue()), |word| queue_names(&word));
        }
        Verb::Send | Verb::Peek | Verb::Purge | Verb::Pause | Verb::Resume => {
            args.options.raw("--queue").map(|word| ("--queue", word))
        }
        Verb::Delete | Verb::Move => args.options.raw("--queue").map(|word| ("--queue", word)),
        Verb::Kick | Verb::Release if id.is_some() => {
            args.options.raw("--queue").map(|word| ("--queue", word))
        }
        Verb::Kick => Some(("NAME", args.words.required("the NAME of the queue")?)),
        // A token says which message it is, and so which queue.
        Verb::Ack | Verb::Release | Verb::Extend => None,
        Verb::List | Verb::Stats | Verb::Drain => None,
    };
    match named {
        Some((what, word)) => Ok(vec![queue_name(what, &word)?]),
        None => Ok(default_queue()),
    }
}

fn default_queue() -> Vec<String> {
    vec![QueueName::DEFAULT.as_str().to_owned()]
}

fn action(verb: Verb, id: Option<MessageId>, args: &mut Args) -> Result<Action, UsageError> {
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
        Verb::Release if id.is_some() || options.has("--holder") => release(id, options)?,
        Verb::Release => Action::Release(
            token(words)?,
            options
                .duration("--retry-delay", TIMES)?
                .unwrap_or_default(),
            reason(options)?,
        ),
        Verb::Extend => Action::Extend(token(words)?, lease_time(words)?),
        Verb::Peek => peek(id, options)?,
        Verb::List => Action::List(List {
            json: options.flag("--json"),
            ready_max: options.number("--max-ready", 0..=u64::MAX)?,
            age_max: options.duration("--max-age", Duration::ZERO..=AGE_MAX)?,
        }),
        Verb::Stats => Action::Stats {
            json: options.flag("--json"),
        },
        Verb::Delete => Action::Delete(id.unwrap_or_default()),
        Verb::Move => {
            let word = words.required("the QUEUE that it goes to")?;
            Action::Move(id.unwrap_or_default(), queue_name("QUEUE", &word)?)
        }
        Verb::Purge => Action::Purge,
        Verb::Pause => Action::Pause,
        Verb::Resume => Action::Resume,
        Verb::Kick => id.map_or(Action::Kick, Action::KickOne),
        Verb::Drain => Action::Drain(!options.flag("--off")),
    })
}

/// What an operator releases from its holder.
fn release(id: Option<MessageId>, options: &mut Options) -> Result<Action, UsageError> {
    let holder = options.number("--holder", 1..=u64::MAX)?;
    match (id, holder) {
        (Some(id), None) => Ok(Action::ReleaseOne(id)),
        (None, Some(holder)) => Ok(Action::ReleaseHolder(holder)),
        (Some(_), Some(_)) | (None, None) => {
            let sentence =
                "--id releases one message and --holder all of a connection, so give one";
            Err(UsageError::Conflict(sentence))
        }
    }
}

fn peek(id: Option<MessageId>, options: &mut Options) -> Result<Action, UsageError> {
    let states = [
        ("--reserved", Which::First(MessageState::Reserved)),
        ("--delayed", Which::First(MessageState::Delayed)),
        ("--dead", Which::Dead),
    ];
    let mut which: Vec<_> = states
        .into_iter()
        .filter_map(|(option, which)| options.flag(option).then_some(which))
        .chain(id.map(Which::One))
        .collect();
    let count = options.number("--count", 1..=u64::MAX)?;
    if which.len() > 1 || (id.is_some() && count.is_some()) {
        let sentence =
            "give one of --id, --reserved, --delayed and --dead, and no --count with --id";
        return Err(UsageError::Conflict(sentence));
    }
    let ending = ending(options, count.is_some())?;
    let json = options.flag("--json");
    if json && matches!(ending, Ending::Always(_)) {
        let sentence = "--json has a line for each message, without --delimiter and --null";
        return Err(UsageError::Conflict(sentence));
    }
    Ok(Action::Peek(Peek {
        which: which.pop().unwrap_or(Which::First(MessageState::Ready)),
        count: count.unwrap_or(1),
        ending,
        json,
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
        count: if follow {
            None
        } else {
            Some(count.unwrap_or(1))
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
        | Action::ReleaseOne(_)
        | Action::ReleaseHolder(_)
        | Action::Peek(_)
        | Action::List(_)
        | Action::Delete(_)
        | Action::KickOne(_)
        | Action::Move(..)
        | Action::Stats { .. }
        | Action::Purge
        | Action::Pause
        | Action::Resume
        | Action::Kick
        | Action::Drain(_) => None,
    }
}

/// Says of what a connection carries or shows that datagrams do not.
fn needs_connection(security: &Security, others: &[Address]) -> Option<&'static str> {
    if !others.is_empty() {
        Some("several servers need TCP")
    } else if security.has_tls() {
        Some("--tls needs TCP")
    } else if security.has_account() {
        Some("--auth-file needs TCP")
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
