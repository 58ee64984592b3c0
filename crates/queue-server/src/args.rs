//! The queue server's command line.

use std::ops::RangeInclusive;
use std::time::Duration;

use cli::args::{Opt, Options, choice};
use cli::{App, Args, ServerOptions, UsageError};
use daemon::{CONNECTIONS_DEFAULT, CONNECTIONS_MAX};
use proto::queue::{BODY_BYTES_DEFAULT, BODY_BYTES_MAX, DURATION_MAX};
use storage::Fsync;

use crate::{Config, Data, Limits, Transport};

/// The program.
pub const APP: App<Config> = App {
    name: "queue-server",
    version: env!("CARGO_PKG_VERSION"),
    help: &[
        HELP,
        ServerOptions::HELP,
        ServerOptions::READ_FREE_HELP,
        HELP_END,
    ],
    options: &[ServerOptions::TABLE, ServerOptions::READ_FREE, OPTIONS],
    read: config,
};

/// The default port.
pub const PORT_DEFAULT: u16 = 55556;

/// The default limit of the memory of all messages, in bytes.
const MEMORY_BYTES_DEFAULT: usize = 1 << 30;

/// How often a message is handed out by default before it is a dead letter.
const ATTEMPTS_DEFAULT: u32 = 5;

/// How long an acknowledged message holds its key by default.
const KEY_WINDOW_DEFAULT: Duration = Duration::from_secs(600);

/// How long an active server may be silent before another takes over.
const TAKEOVER_AFTER: RangeInclusive<Duration> = Duration::from_secs(2)..=Duration::from_secs(3600);

/// The same by default.
const TAKEOVER_AFTER_DEFAULT: Duration = Duration::from_secs(10);

/// How the address of a database begins.
const URL_SCHEMES: [&str; 2] = ["postgresql://", "postgres://"];

/// The highest limit that can be set: far beyond any memory.
const COUNT_MAX: usize = 1 << 50;

const HELP: &str = "\
Keeps first-in, first-out queues of messages between programs and machines.

Usage: queue-server [PORT TCP|UDP|BOTH] [OPTIONS]

Arguments:
  PORT                   the port to listen on, 0 for any free one [default: 55556]
  TCP|UDP|BOTH           the transport, in any case [default: TCP]

Options:
  --data FILE|URL        keep the queues in this SQLite database, created if missing, or in
                         PostgreSQL: postgresql://USER@HOST1,HOST2/DATABASE; the password is
                         that of PGPASSFILE or PGPASSWORD [default: in memory]
  --takeover-after TIME  with PostgreSQL: how long the active server may be silent before
                         another one on the same database takes over [default: 10s]
  --fsync always|never   whether a reply waits until the disk has it [default: always];
                         with never, a power cut can lose the newest changes
  --max-message SIZE     the longest message, 1 to 16773118 [default: 3000]
  --max-messages N       the most messages in one queue [default: no limit]
  --max-bytes SIZE       the most memory for the messages of one queue; each counts 64 bytes
                         and its body, and what else it has [default: no limit]
  --max-memory SIZE      the most memory for the messages of all queues [default: 1G]
  --max-attempts N       how often a message is handed out before it goes to the queue
                         NAME.dead [default: 5]
  --key-window TIME      how long another message with the same key is not stored after
                         the first was acknowledged [default: 10m]
  --udp-text             accept the text protocol over UDP also from other machines, whose
                         addresses may be forged
";

const HELP_END: &str = "  -v, --verbose          log a line for every request
  -h, --help             print this help
  -V, --version          print the version

A SIZE is in bytes, as 4096, or in units of 1024, as 64K, 10M or 2G.

Exit codes:
  0  stopped by SIGINT or SIGTERM
  2  wrong usage, or trouble with the database or its disk
  3  cannot listen on the port, or no PostgreSQL of the URL can be used now

Examples:
  queue-server
  queue-server 55556 BOTH --data queue.db --max-message 65000
";

const OPTIONS: &[Opt] = &[
    Opt::value("--data"),
    Opt::value("--takeover-after"),
    Opt::value("--fsync"),
    Opt::value("--max-message"),
    Opt::value("--max-messages"),
    Opt::value("--max-bytes"),
    Opt::value("--max-memory"),
    Opt::value("--max-attempts"),
    Opt::value("--key-window"),
    Opt::flag("--udp-text"),
];

fn config(args: &mut Args) -> Result<Config, UsageError> {
    let Args { words, options } = args;
    let mut door = ServerOptions::read(options, CONNECTIONS_DEFAULT, CONNECTIONS_MAX)?;
    let port = door.port(words.port("PORT")?, PORT_DEFAULT)?;
    let transports = [
        ("TCP", Transport::Tcp),
        ("UDP", Transport::Udp),
        ("BOTH", Transport::Both),
    ];
    let transport = words.next_word();
    let transport =
        transport.map(|word| choice("the transport", &word, &transports, "TCP, UDP or BOTH"));
    let transport = transport.transpose()?.unwrap_or(Transport::Tcp);
    if transport != Transport::Tcp {
        door.check_udp()?;
    }
    Ok(Config {
        door,
        port,
        transport,
        udp_text: options.flag("--udp-text"),
        data: data(options)?,
        limits: limits(options)?,
    })
}

fn data(options: &mut Options) -> Result<Data, UsageError> {
    let fsync: Option<Fsync> = options.value("--fsync", "always or never")?;
    let takeover_after = options.duration("--takeover-after", TAKEOVER_AFTER)?;
    let data = options.path("--data");
    if let Some(url) = data.as_ref().and_then(|data| data.to_str())
        && URL_SCHEMES.iter().any(|scheme| url.starts_with(scheme))
    {
        if fsync.is_some() {
            return Err(UsageError::Conflict(
                "--fsync is about a file; with PostgreSQL a reply always waits for its disk",
            ));
        }
        return Ok(Data::Postgres {
            url: url.to_owned(),
            takeover_after: takeover_after.unwrap_or(TAKEOVER_AFTER_DEFAULT),
        });
    }
    if takeover_after.is_some() {
        return Err(UsageError::Conflict(
            "--takeover-after needs --data postgresql://...",
        ));
    }
    Ok(data.map_or(Data::Memory, |path| Data::File {
        path,
        fsync: fsync.unwrap_or_default(),
    }))
}

fn limits(options: &mut Options) -> Result<Limits, UsageError> {
    Ok(Limits {
        body_bytes_max: options
            .size("--max-message", 1..=BODY_BYTES_MAX)?
            .unwrap_or(BODY_BYTES_DEFAULT),
        messages_max: options
            .number("--max-messages", 1..=COUNT_MAX)?
            .unwrap_or(usize::MAX),
        queue_bytes_max: options
            .size("--max-bytes", 1..=COUNT_MAX)?
            .unwrap_or(usize::MAX),
        memory_bytes_max: options
            .size("--max-memory", 1..=COUNT_MAX)?
            .unwrap_or(MEMORY_BYTES_DEFAULT),
        attempts_max: options
            .number("--max-attempts", 1..=u32::MAX)?
            .unwrap_or(ATTEMPTS_DEFAULT),
        key_window: options
            .duration("--key-window", Duration::ZERO..=DURATION_MAX)?
            .unwrap_or(KEY_WINDOW_DEFAULT),
    })
}

#[cfg(test)]
mod tests {
    use cli::Bind;

    use super::*;

    fn parse(line: &str) -> Result<Config, String> {
        APP.config_of(line.split_whitespace())
    }

    #[test]
    fn the_help_has_each_option() {
        APP.check_help();
    }

    #[test]
    fn options_may_stand_anywhere() {
        let config = parse("--max-message 9 0 --bind ::1 both --max-connections=7").unwrap();
        assert_eq!((config.port, config.transport), (0, Transport::Both));
        assert_eq!(
            (config.limits.body_bytes_max, config.door.connections_max),
            (9, 7)
        );
        assert_eq!(config.door.binds, [Bind::Ip("::1".parse().unwrap())]);
        assert_eq!(parse("").unwrap().port, PORT_DEFAULT);
        assert_eq!(parse("1 udp").unwrap().transport, Transport::Udp);
    }

    #[track_caller]
    fn check_refused(line: &str, want: &str) {
        assert_eq!(parse(line).unwrap_err(), want);
    }

    #[test]
    fn a_wrong_command_line_is_one_sentence() {
        check_refused("x", "PORT must be a port from 0 to 65535, not 'x'");
        check_refused(
            "1 sctp",
            "the transport must be TCP, UDP or BOTH, not 'sctp'",
        );
        check_refused("1 tcp 2", "there is one argument too many: '2'");
        check_refused(
            "--max-message 0",
            "--max-message must be a size in bytes from 1 to 16773118, such as 4096, 64K, 10M or 2G, \
             not '0'",
        );
        check_refused(
            "--bind 1.2.3",
            "--bind must be an IP address, a host name, or unix:PATH, not '1.2.3'",
        );
        check_refused(
            "--takeover-after 5s --data queue.db",
            "--takeover-after needs --data postgresql://...",
        );
        check_refused(
            "--data postgres://localhost/x --fsync never",
            "--fsync is about a file; with PostgreSQL a reply always waits for its disk",
        );
        check_refused("--frobnicate", "unknown option '--frobnicate'");
    }
}
