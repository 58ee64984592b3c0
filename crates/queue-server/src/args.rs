//! The queue server's command line.

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use cli::args::{number, port, value};
use cli::{App, Parsed, UsageError, Words};
use group_commit::Fsync;
use lexopt::prelude::*;
use proto::queue::{BODY_BYTES_DEFAULT, BODY_BYTES_MAX};

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
  --max-message BYTES    the longest message, 1 to 16776190 [default: 3000]
  --max-messages N       messages in one queue [default: no limit]
  --max-bytes BYTES      what the messages of one queue may take; each counts 64 bytes and
                         its body [default: no limit]
  --max-memory BYTES     what the messages of all queues may take [default: 1073741824]
  --max-attempts N       how often a message is handed out before it goes to the queue
                         NAME.dead [default: 5]
  --bind ADDR            the address to listen on [default: 127.0.0.1]
  --max-connections N    connections open at once, 1 to 15000 [default: 4096]
  -v, --verbose          log a line for every request
  -h, --help             print this help
  -V, --version          print the version

Exit codes:
  0  stopped by SIGINT or SIGTERM
  2  wrong usage, or trouble with the database or its disk
  3  cannot listen on the port

Examples:
  queue-server
  queue-server 55556 BOTH --data queue.db --max-message 65000
";

/// Reads a command line.
///
/// # Errors
/// One sentence that says what is wrong and what would be right.
pub fn parse(mut parser: lexopt::Parser) -> Result<Parsed<Config>, UsageError> {
    let mut config = Config {
        ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        port: PORT_DEFAULT,
        transport: Transport::Tcp,
        data: None,
        fsync: Fsync::Always,
        limits: Limits {
            body_bytes_max: BODY_BYTES_DEFAULT,
            messages_max: usize::MAX,
            queue_bytes_max: usize::MAX,
            memory_bytes_max: MEMORY_BYTES_DEFAULT,
            attempts_max: ATTEMPTS_DEFAULT,
        },
        connections_max: daemon::CONNECTIONS_DEFAULT,
    };
    let mut verbose = false;
    let mut words = Words::default();
    while let Some(arg) = parser.next()? {
        match arg {
            Short('h') | Long("help") => return Ok(Parsed::Help),
            Short('V') | Long("version") => return Ok(Parsed::Version),
            Short('v') | Long("verbose") => verbose = true,
            Long("bind") => config.ip = value("--bind", &parser.value()?, "an IP address")?,
            Long("max-connections") => {
                let range = 1..=daemon::CONNECTIONS_MAX as u64;
                let max = number("--max-connections", &parser.value()?, range)?;
                config.connections_max = max as usize;
            }
            Long("data") => config.data = Some(PathBuf::from(parser.value()?)),
            Long("fsync") => config.fsync = value("--fsync", &parser.value()?, "always or never")?,
            Long("max-message") => {
                let range = 1..=BODY_BYTES_MAX as u64;
                let max = number("--max-message", &parser.value()?, range)?;
                config.limits.body_bytes_max = max as usize;
            }
            Long("max-messages") => {
                config.limits.messages_max = count("--max-messages", &parser.value()?)?;
            }
            Long("max-bytes") => {
                config.limits.queue_bytes_max = count("--max-bytes", &parser.value()?)?;
            }
            Long("max-memory") => {
                config.limits.memory_bytes_max = count("--max-memory", &parser.value()?)?;
            }
            Long("max-attempts") => {
                let range = 1..=u64::from(u32::MAX);
                let max = number("--max-attempts", &parser.value()?, range)?;
                config.limits.attempts_max = max as u32;
            }
            Value(word) => words.push(word),
            other => return Err(other.unexpected().into()),
        }
    }
    if let Some(word) = words.take() {
        config.port = port("PORT", &word)?;
    }
    if let Some(word) = words.take() {
        config.transport = value("the transport", &word, "TCP, UDP or BOTH")?;
    }
    words.end()?;
    Ok(Parsed::Run { config, verbose })
}

fn count(what: &'static str, word: &OsStr) -> Result<usize, UsageError> {
    /// Far beyond any memory.
    const COUNT_MAX: u64 = 1 << 50;
    Ok(number(what, word, 1..=COUNT_MAX)? as usize)
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
            "--max-message must be a number from 1 to 16776190, not '0'",
        );
        check_refused("--bind here", "--bind must be an IP address, not 'here'");
        check_refused("--frobnicate", "invalid option '--frobnicate'");
    }
}
