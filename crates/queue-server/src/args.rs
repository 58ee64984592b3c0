//! The queue server's command line.

use std::net::{IpAddr, Ipv4Addr};

use cli::args::{Line, Opt, port, split, value};
use cli::{App, Parsed, UsageError};
use proto::queue::{BODY_BYTES_DEFAULT, BODY_BYTES_MAX};
use storage::Fsync;

use crate::{Config, Limits, Transport};

/// The program.
pub const APP: App = App {
    name: "queue-server",
    version: env!("CARGO_PKG_VERSION"),
    help: HELP,
};

/// The port unless told otherwise.
pub const PORT_DEFAULT: u16 = 55556;

/// What all messages may take unless told otherwise, in bytes of memory.
const MEMORY_BYTES_DEFAULT: usize = 1 << 30;

/// How often a message is handed out unless told otherwise.
const ATTEMPTS_DEFAULT: u32 = 5;

/// The most that a limit can be: far beyond any memory.
const COUNT_MAX: u64 = 1 << 50;

const HELP: &str = "\
First-in, first-out queues of messages between programs and machines.

Usage: queue-server [PORT TCP|UDP|BOTH] [OPTIONS]

Arguments:
  PORT                   the port to listen on, 0 for any free one [default: 55556]
  TCP|UDP|BOTH           the transport, in any case [default: TCP]

Options:
  --data FILE            keep the queues in this SQLite database, which is made if it does
                         not exist [default: in memory]
  --fsync always|never   whether a reply waits until the disk has it [default: always];
                         with never, a power cut loses the newest changes
  --max-message SIZE     the longest message, 1 to 16776190 [default: 3000]
  --max-messages N       messages in one queue [default: no limit]
  --max-bytes SIZE       what the messages of one queue may take; each counts 64 bytes and
                         its body [default: no limit]
  --max-memory SIZE      what the messages of all queues may take [default: 1G]
  --max-attempts N       how often a message is handed out before it goes to the queue
                         NAME.dead [default: 5]
  --udp-text             take plain text over UDP also from other machines, whose addresses
                         may be forged
  --bind ADDR            the address to listen on [default: 127.0.0.1]
  --max-connections N    connections open at once, 1 to 15000 [default: 4096]
  -v, --verbose          log a line for every request
  -h, --help             print this help
  -V, --version          print the version

A SIZE is in bytes, as 4096, or in units of 1024, as 64K, 10M or 2G.

Exit codes:
  0  stopped by SIGINT or SIGTERM
  2  wrong usage, or trouble with the database or its disk
  3  cannot listen on the port

Examples:
  queue-server
  queue-server 55556 BOTH --data queue.db --max-message 65000
";

const OPTIONS: &[Opt] = &[
    Opt::value("--bind"),
    Opt::value("--max-connections"),
    Opt::value("--data"),
    Opt::value("--fsync"),
    Opt::value("--max-message"),
    Opt::value("--max-messages"),
    Opt::value("--max-bytes"),
    Opt::value("--max-memory"),
    Opt::value("--max-attempts"),
    Opt::flag("--udp-text"),
];

/// Reads a command line.
///
/// # Errors
/// One sentence that says what is wrong and what would be right.
pub fn parse(parser: lexopt::Parser) -> Result<Parsed<Config>, UsageError> {
    split(parser, &[OPTIONS])?.try_map(understand)
}

fn understand(line: Line) -> Result<Config, UsageError> {
    let (mut words, mut given) = line.into_parts();
    let limits = Limits {
        body_bytes_max: given
            .size("--max-message", 1..=BODY_BYTES_MAX as u64)?
            .map_or(BODY_BYTES_DEFAULT, |max| max as usize),
        messages_max: given
            .number("--max-messages", 1..=COUNT_MAX)?
            .map_or(usize::MAX, |max| max as usize),
        queue_bytes_max: given
            .size("--max-bytes", 1..=COUNT_MAX)?
            .map_or(usize::MAX, |max| max as usize),
        memory_bytes_max: given
            .size("--max-memory", 1..=COUNT_MAX)?
            .map_or(MEMORY_BYTES_DEFAULT, |max| max as usize),
        attempts_max: given
            .number("--max-attempts", 1..=u64::from(u32::MAX))?
            .map_or(ATTEMPTS_DEFAULT, |max| max as u32),
    };
    let config = Config {
        ip: given
            .value("--bind", "an IP address")?
            .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        port: words
            .take()
            .map_or(Ok(PORT_DEFAULT), |word| port("PORT", &word))?,
        transport: words.take().map_or(Ok(Transport::Tcp), |word| {
            value("the transport", &word, "TCP, UDP or BOTH")
        })?,
        udp_text: given.flag("--udp-text"),
        data: given.path("--data"),
        fsync: given
            .value("--fsync", "always or never")?
            .unwrap_or(Fsync::Always),
        limits,
        connections_max: given
            .number("--max-connections", 1..=daemon::CONNECTIONS_MAX as u64)?
            .map_or(daemon::CONNECTIONS_DEFAULT, |max| max as usize),
    };
    given.end(None)?;
    words.end()?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Config, String> {
        let args = ["queue-server"].into_iter().chain(line.split_whitespace());
        match super::parse(lexopt::Parser::from_iter(args)) {
            Ok(Parsed::Run { config, .. }) => Ok(config),
            Ok(other) => panic!("{line}: {other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn options_may_stand_anywhere() {
        let config = parse("--max-message 9 0 --bind ::1 both --max-connections=7").unwrap();
        assert_eq!((config.port, config.transport), (0, Transport::Both));
        assert_eq!(
            (config.limits.body_bytes_max, config.connections_max),
            (9, 7)
        );
        assert_eq!(config.ip.to_string(), "::1");
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
            "--max-message must be a size in bytes from 1 to 16776190, such as 4096, 64K, 10M or 2G, \
             not '0'",
        );
        check_refused("--bind here", "--bind must be an IP address, not 'here'");
        check_refused("--frobnicate", "unknown option '--frobnicate'");
    }
}
