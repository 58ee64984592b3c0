//! The file server's command line.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use cli::args::{number, port, positive_seconds, seconds, value};
use cli::{App, Parsed, UsageError, Words};
use lexopt::prelude::*;

use crate::Config;

/// The program.
pub const APP: App = App {
    name: "file-server",
    version: env!("CARGO_PKG_VERSION"),
    help: HELP,
};

/// The port unless told otherwise.
pub const PORT_DEFAULT: u16 = 8080;

/// The server ends after so long without a request unless told otherwise.
pub const IDLE_EXIT_DEFAULT: Duration = Duration::from_secs(60);

/// The largest upload unless told otherwise, in bytes: 10 GiB.
pub const UPLOAD_BYTES_DEFAULT: u64 = 10 << 30;

/// How much of the disk uploads leave free unless told otherwise, in bytes: 256 MiB.
pub const KEEP_FREE_DEFAULT: u64 = 256 << 20;

/// What has come of an upload that was broken off is kept so long unless told otherwise: a day.
pub const RESUME_KEEP_DEFAULT: Duration = Duration::from_secs(24 * 3600);

/// The largest upload a server can be told to take, in bytes: no file is longer.
const UPLOAD_BYTES_MAX: u64 = i64::MAX as u64;

const HELP: &str = "\
Gives and takes files over HTTP/1.1.

Usage: file-server [PORT] [OPTIONS]

Arguments:
  PORT                   the port to listen on, 0 for any free one [default: 8080]

Options:
  --root DIR             the folder that is served; nothing outside it is ever read or
                         written [default: the current folder]
  --idle-exit SECS       end after so long without a request, 0 for never [default: 60]
  --no-listing           do not show what stands in a folder without an index.html
  --read-only            take no uploads
  --max-upload BYTES     the largest upload [default: 10737418240, which is 10 GiB]
  --keep-free BYTES      refuse uploads that would leave less of the disk free
                         [default: 268435456, which is 256 MiB]
  --resume-keep SECS     keep what has come of an upload that was broken off for so long,
                         for the client to go on with [default: 86400, which is a day]
  --auth-file FILE       let only those upload who stand in FILE, USER:PASSWORD on each
                         line; the password hashed (openssl passwd -6), or plain if the
                         file's mode is 0600; FILE is not in the folder that is served
  --auth-all             let only them read, too
  --access-log           write a line for each request to standard output, in the common
                         log format
  --bind ADDR            the address to listen on [default: 127.0.0.1]
  --max-connections N    connections open at once, 1 to 15000 [default: 4096]
  -v, --verbose          log a line for every request
  -h, --help             print this help
  -V, --version          print the version

Exit codes:
  0  stopped by SIGINT or SIGTERM, or idle for --idle-exit
  2  wrong usage, the root cannot be opened, or something is wrong with the --auth-file
  3  cannot listen on the port

Examples:
  file-server --root data/server
  file-server 0 --root . --idle-exit 0 --read-only
  file-server --root /srv/files --idle-exit 0 --auth-file /etc/quartet/accounts
";

/// Reads a command line.
///
/// # Errors
/// One sentence that says what is wrong and what would be right.
pub fn parse(mut parser: lexopt::Parser) -> Result<Parsed<Config>, UsageError> {
    let mut config = Config {
        ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        port: PORT_DEFAULT,
        root: PathBuf::from("."),
        idle_exit: Some(IDLE_EXIT_DEFAULT),
        read_only: false,
        has_listing: true,
        upload_bytes_max: UPLOAD_BYTES_DEFAULT,
        keep_free_bytes: KEEP_FREE_DEFAULT,
        resume_keep: RESUME_KEEP_DEFAULT,
        auth_file: None,
        auth_all: false,
        has_access_log: false,
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
            Long("root") => config.root = PathBuf::from(parser.value()?),
            Long("idle-exit") => {
                let idle = seconds("--idle-exit", &parser.value()?)?;
                config.idle_exit = Some(idle).filter(|idle| !idle.is_zero());
            }
            Long("read-only") => config.read_only = true,
            Long("resume-keep") => {
                config.resume_keep = positive_seconds("--resume-keep", &parser.value()?)?;
            }
            Long("auth-file") => config.auth_file = Some(PathBuf::from(parser.value()?)),
            Long("auth-all") => config.auth_all = true,
            Long("access-log") => config.has_access_log = true,
            Long("no-listing") => config.has_listing = false,
            Long("keep-free") => {
                let range = 0..=UPLOAD_BYTES_MAX;
                config.keep_free_bytes = number("--keep-free", &parser.value()?, range)?;
            }
            Long("max-upload") => {
                let range = 1..=UPLOAD_BYTES_MAX;
                config.upload_bytes_max = number("--max-upload", &parser.value()?, range)?;
            }
            Value(word) => words.push(word),
            other => return Err(other.unexpected().into()),
        }
    }
    if let Some(word) = words.take() {
        config.port = port("PORT", &word)?;
    }
    words.end()?;
    if config.auth_all && config.auth_file.is_none() {
        return Err(UsageError::Conflict("--auth-all goes with --auth-file"));
    }
    Ok(Parsed::Run { config, verbose })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Config, String> {
        let args = ["file-server"].into_iter().chain(line.split_whitespace());
        match super::parse(lexopt::Parser::from_iter(args)) {
            Ok(Parsed::Run { config, .. }) => Ok(config),
            Ok(other) => panic!("{line}: {other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn everything_has_a_default() {
        let config = parse("").unwrap();
        assert_eq!(config.port, PORT_DEFAULT);
        assert_eq!(config.ip, IpAddr::V4(Ipv4Addr::LOCALHOST));
        assert_eq!(config.root, PathBuf::from("."));
        assert_eq!(config.idle_exit, Some(IDLE_EXIT_DEFAULT));
        assert_eq!(config.upload_bytes_max, 10_737_418_240);
        assert!(!config.read_only);
    }

    #[test]
    fn options_may_stand_anywhere() {
        let config = parse(
            "--root a/b --idle-exit=1.5 0 --read-only --max-upload 7 --bind ::1 \
             --max-connections=7",
        )
        .unwrap();
        assert_eq!((config.port, config.connections_max), (0, 7));
        assert_eq!(config.root, PathBuf::from("a/b"));
        assert_eq!(config.idle_exit, Some(Duration::from_millis(1500)));
        assert_eq!((config.read_only, config.upload_bytes_max), (true, 7));
        assert_eq!(config.ip.to_string(), "::1");
    }

    #[test]
    fn an_idle_exit_of_0_is_never() {
        assert_eq!(parse("--idle-exit 0").unwrap().idle_exit, None);
    }

    #[track_caller]
    fn check_refused(line: &str, want: &str) {
        assert_eq!(parse(line).unwrap_err(), want);
    }

    #[test]
    fn a_wrong_command_line_is_one_sentence() {
        check_refused("x", "PORT must be a port from 0 to 65535, not 'x'");
        check_refused("1 2", "there is one argument too many: '2'");
        check_refused(
            "--idle-exit -1",
            "--idle-exit must be a number of seconds from 0 to 31536000, not '-1'",
        );
        check_refused(
            "--max-upload 0",
            "--max-upload must be a number from 1 to 9223372036854775807, not '0'",
        );
        check_refused("--auth-all", "--auth-all goes with --auth-file");
        check_refused(
            "--resume-keep 0",
            "--resume-keep must be more than 0 seconds, not '0'",
        );
        check_refused("--root", "missing argument for option '--root'");
        check_refused("--bind here", "--bind must be an IP address, not 'here'");
        check_refused("--frobnicate", "invalid option '--frobnicate'");
    }
}
