//! The history client's command line.

use std::ffi::OsStr;

use cli::args::{Opt, Options, Verbs, moment_millis, server_default};
use cli::{App, Args, ClientOptions, UsageError, Words};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use proto::history::{MATCH_BYTES_MAX, USER_BYTES_MAX, is_user_name};
use proto::register::{PREFIX_BYTES_MAX, is_prefix};
use proto::text::parse_line_number;

use crate::{Action, Config, Follow, Get, Note, Source};

/// The program.
pub const APP: App<Config> = App {
    name: "history-client",
    version: env!("CARGO_PKG_VERSION"),
    help: &[HELP],
    options: &[ClientOptions::TABLE, OPTIONS],
    read: config,
};

/// The server's default port.
pub const PORT_DEFAULT: u16 = 5007;

/// How many of the last lines a follower is shown first.
const FOLLOW_LAST_DEFAULT: u64 = 10;

#[derive(Debug, Clone, Copy)]
enum Verb {
    Send,
    Hello,
    Note,
    Get,
    Follow,
    Delete,
    Clear,
    Register,
}

const VERBS: &Verbs<Verb> = &[
    ("send", Verb::Send),
    ("hello", Verb::Hello),
    ("note", Verb::Note),
    ("get", Verb::Get),
    ("follow", Verb::Follow),
    ("delete", Verb::Delete),
    ("clear", Verb::Clear),
    ("register", Verb::Register),
];

const OPTIONS: &[Opt] = &[
    Opt::flag("--lines"),
    Opt::value("--last"),
    Opt::value("--since"),
    Opt::value("--until"),
    Opt::value("--by"),
    Opt::value("--match"),
    Opt::flag("--json"),
    Opt::value("--if"),
];

const HELP: &str = "\
Writes notes into the history of a history server, finds lines in it, follows and prunes it.

Usage: history-client [HOST PORT] [OPTIONS]
       history-client [HOST PORT] VERB ... [OPTIONS]
       history-client unix:/path [VERB ...] [OPTIONS]

Without a verb it asks for a line ('Enter authentication: ') and sends it.

Arguments:
  HOST PORT              the server [default: $QUARTET_HISTORY, else 127.0.0.1 5007]
  unix:/path             a server's Unix socket

Verbs:
  send LINE|-            sends a line of the text protocol: 'USER', 'USER 1 N', 'USER 2' or
                         'USER 3'; - reads the line from standard input
  hello USER             greets the server
  note USER TEXT|-       adds a note, at most 8 KiB of UTF-8; - is all of standard input,
                         without its last line feed
      --lines            each line of standard input is a note, sent as it comes; an empty
                         line is none
  get USER               prints the history, or the lines that meet all of these:
      --last N           the last N of them
      --since WHEN       of this time or later
      --until WHEN       before this time
      --by NAME          records of this user
      --match TEXT       lines that contain TEXT as it is printed, in the same case
      --json             prints each as a JSON object: line, time, from, user, text
  follow USER            prints the last lines, and then each new one as it comes. A line is
                         '#SEQUENCE TIME PEER USER WHAT'. A sequence number is given to
                         one line only. Lines that are deleted are told of as '#17
                         deleted' or '#17-19 deleted'
      --last N           begins with the last N lines [default: 10]. The request is itself
                         a line: the first of the new ones
  delete USER N|N-M      deletes line N, or the lines N to M, as get counts them
      --if TEXT          only if each of them contains TEXT, because line numbers shift
                         when others delete lines
  clear USER             deletes everything
  register [PREFIX]      prints a user name that nobody has: PREFIX or two words, and digits

Options:
  --timeout TIME         the longest wait for anything [default: 30]
  --wait-for-server TIME keep trying to connect for this long; one who follows also
                         connects again, and misses nothing [default: 0]
  --tls                  encrypt with TLS; the server's certificate must be for HOST
  --tls-ca FILE          trust the certificates in FILE [default: the system's]
  --tls-cert FILE, --tls-key FILE
                         the certificate of this client, and its key
  --auth-file FILE|-     the account: the first line of FILE is USER:PASSWORD, and only its
                         owner may read FILE; on a server with accounts, USER must be the
                         same as in the request
  -q, --quiet            say nothing but errors: no greeting, no prompt
  -v, --verbose          log more, and show the greeting, which is otherwise shown only on a
                         terminal
  -h, --help             print this help
  -V, --version          print the version

A TIME is in seconds, as 90 or 90s, or as 15m, 2h or 7d. A WHEN is a TIME, for that long
ago, or a date or a date and a time, as 2026-11-27, '2026-11-27 10:00' or
2026-11-27T09:00:00Z; without an offset it is local.

Exit codes:
  0  done
  1  the server refused: an authentication error, a wrong password, no such line, a line
     without the TEXT of --if, or it gives no names, or no more for now
  2  wrong usage, the line is not a request, the text is not a note, or trouble with
     standard input or output
  3  cannot connect, no TLS that can be trusted, timed out, connection lost, a malformed
     reply, or a server that does not know whether it has done it

Examples:
  history-client get alice --by bob --since 2h
  history-client localhost 5007 note alice 'pump 2 replaced'
  tail -F pump.log | history-client note alice --lines -
";

fn config(args: &mut Args) -> Result<Config, UsageError> {
    let client = ClientOptions::read(&mut args.options)?;
    let [address] = match args.words.server(["PORT"], VERBS)? {
        Some(server) => server,
        None => server_default("$QUARTET_HISTORY", [("PORT", PORT_DEFAULT)])?,
    };
    let action = match args.words.verb(VERBS)? {
        Some(verb) => action(verb, args)?,
        None => Action::Prompt,
    };
    client.check_stdin(action.reads_stdin())?;
    Ok(Config {
        is_quiet: client.is_quiet,
        endpoint: client.endpoint(address)?,
        action,
    })
}

fn action(verb: Verb, args: &mut Args) -> Result<Action, UsageError> {
    let Args { words, options } = args;
    Ok(match verb {
        Verb::Send => match words.required_text("the LINE to send")? {
            line if line == "-" => Action::Stdin,
            line => Action::Line(line),
        },
        Verb::Hello => Action::Hello(user(words)?),
        Verb::Note => note(words, options)?,
        Verb::Get => get(words, options)?,
        Verb::Follow => Action::Follow(Follow {
            user: user(words)?,
            last: options
                .number("--last", 0..=u64::MAX)?
                .unwrap_or(FOLLOW_LAST_DEFAULT),
        }),
        Verb::Delete => {
            let user = user(words)?;
            let (first, last) = lines(words)?;
            Action::Delete {
                user,
                first,
                last,
                contains: contained(options, "--if")?,
            }
        }
        Verb::Clear => Action::Clear(user(words)?),
        Verb::Register => Action::Register(prefix(words)?),
    })
}

fn note(words: &mut Words, options: &mut Options) -> Result<Action, UsageError> {
    let user = user(words)?;
    let text = words.required_text("the TEXT to note")?;
    let source = match (text.as_str(), options.flag("--lines")) {
        ("-", true) => Source::Lines,
        ("-", false) => Source::Stdin,
        (_, true) => {
            let sentence = "--lines is for standard input: note USER --lines -";
            return Err(UsageError::Conflict(sentence));
        }
        (_, false) => Source::Text(text),
    };
    Ok(Action::Note(Note { user, source }))
}

fn get(words: &mut Words, options: &mut Options) -> Result<Action, UsageError> {
    let all = Get::all(user(words)?);
    let now = Timestamp::now();
    let mut when = |name| match options.raw(name) {
        Some(word) => moment_millis(name, &word, now, &TimeZone::system()).map(Some),
        None => Ok(None),
    };
    let since = when("--since")?.unwrap_or(all.since);
    let until = when("--until")?.unwrap_or(all.until);
    if since >= until {
        let sentence = "--since must be a time before --until";
        return Err(UsageError::Conflict(sentence));
    }
    let by = options.raw("--by");
    Ok(Action::Get(Get {
        last: options.number("--last", 1..=u64::MAX)?.unwrap_or(all.last),
        since,
        until,
        by: by.map_or(Ok(all.by), |word| user_name("--by", &word))?,
        contains: contained(options, "--match")?,
        json: options.flag("--json"),
        user: all.user,
    }))
}

fn user(words: &mut Words) -> Result<String, UsageError> {
    user_name("USER", &words.required("USER")?)
}

fn user_name(what: &'static str, word: &OsStr) -> Result<String, UsageError> {
    match word.to_str() {
        Some(name) if is_user_name(name) => Ok(name.to_owned()),
        Some(_) | None => {
            let want = format!("1 to {USER_BYTES_MAX} of A-Z a-z 0-9 . _ -");
            Err(UsageError::value(what, word, want))
        }
    }
}

fn prefix(words: &mut Words) -> Result<String, UsageError> {
    let Some(word) = words.next_word() else {
        return Ok(String::new());
    };
    match word.to_str() {
        Some(prefix) if !prefix.is_empty() && is_prefix(prefix) => Ok(prefix.to_owned()),
        Some(_) | None => {
            let want = format!("1 to {PREFIX_BYTES_MAX} of A-Z a-z 0-9 . _ -");
            Err(UsageError::value("PREFIX", &word, want))
        }
    }
}

/// The first and the last of the lines that a word names.
fn lines(words: &mut Words) -> Result<(u64, u64), UsageError> {
    let word = words.required("N, the line to delete,")?;
    let lines = word.to_str().and_then(|word| {
        let (first, last) = word.split_once('-').unwrap_or((word, word));
        let lines = (
            parse_line_number(first).ok()?,
            parse_line_number(last).ok()?,
        );
        (lines.0 <= lines.1).then_some(lines)
    });
    lines.ok_or_else(|| {
        let want = "the number of a line, 1 or more, or a range, as 3-5";
        UsageError::value("N", &word, want)
    })
}

/// The text that lines must contain; empty if none is named.
fn contained(options: &mut Options, name: &'static str) -> Result<String, UsageError> {
    let Some(word) = options.raw(name) else {
        return Ok(String::new());
    };
    match word.to_str() {
        Some(text) if (1..=MATCH_BYTES_MAX).contains(&text.len()) => Ok(text.to_owned()),
        Some(_) | None => {
            let want = format!("a text of 1 to {MATCH_BYTES_MAX} bytes");
            Err(UsageError::value(name, &word, want))
        }
    }
}

#[cfg(test)]
mod tests;
