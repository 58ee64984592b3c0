//! The history server's command line.

use cli::args::Opt;
use cli::{App, Args, ServerOptions, UsageError};
use daemon::{CONNECTIONS_DEFAULT, CONNECTIONS_MAX};
use storage::{FILE_BYTES_MAX, Limits};

use crate::{Config, Keep};

/// The program.
pub const APP: App<Config> = App {
    name: "history-server",
    version: env!("CARGO_PKG_VERSION"),
    help: &[
        HELP,
        ServerOptions::STANDBY_HELP,
        ServerOptions::HELP,
        HELP_END,
    ],
    options: &[ServerOptions::TABLE, ServerOptions::STANDBY, OPTIONS],
    read: config,
};

/// The default port.
pub const PORT_DEFAULT: u16 = 5007;

/// The highest number of lines that can be told to stay. There is no space for more.
const KEEP_LINES_MAX: u64 = 1_000_000_000_000;

/// The highest number of days: a century.
const KEEP_DAYS_MAX: u32 = 36_500;

const HELP: &str = "\
Keeps a shared, numbered history of who asked what, that its users can read and prune.

Usage: history-server [PORT] [OPTIONS]

Arguments:
  PORT                   the port to listen on, 0 for any free one [default: 5007]

Options:
  --data-dir DIR         the folder of history.txt, created if missing [default: .]
  --fsync always|never   whether a reply waits until the disk has it [default: always];
                         with never, a power cut can lose the newest lines
  --max-file SIZE        the longest that history.txt may become [default: 1G]
  --keep-free SIZE       refuse lines that would leave less of the disk free
                         [default: 16M, or a tenth of a smaller disk]
  --users FILE           serve only the users in FILE, one name a line [default: all]; a
                         --bind that other machines can reach needs it, or --auth-file
  --register             with --users, also serve those who ask the server for a name; the
                         names are in users.txt in the data folder
  --keep-lines N         forget the oldest lines, so that N stay and at most an eighth more
  --keep-days D          forget lines that are older than D days, an eighth later at most
";

const HELP_END: &str = "  -v, --verbose          log connections too
  -h, --help             print this help
  -V, --version          print the version

A SIZE is in bytes, as 4096, or in units of 1024, as 64K, 10M or 2G.

Exit codes:
  0  stopped by SIGINT or SIGTERM
  2  wrong usage, or trouble with the users file, the data folder or its disk
  3  cannot listen on the port

Examples:
  history-server
  history-server 5007 --data-dir /var/lib/history --users users.txt --bind 0.0.0.0
";

const OPTIONS: &[Opt] = &[
    Opt::value("--data-dir"),
    Opt::value("--users"),
    Opt::flag("--register"),
    Opt::value("--keep-lines"),
    Opt::value("--keep-days"),
    Opt::value("--fsync"),
    Opt::value("--max-file"),
    Opt::value("--keep-free"),
];

fn config(args: &mut Args) -> Result<Config, UsageError> {
    let Args { words, options } = args;
    let mut door = ServerOptions::read(options, CONNECTIONS_DEFAULT, CONNECTIONS_MAX)?;
    let fsync = options.value("--fsync", "always or never")?;
    let register = options.flag("--register");
    if register && door.auth.is_some() {
        let sentence = "--register does not go with --auth-file, where a name is a login";
        return Err(UsageError::Conflict(sentence));
    }
    Ok(Config {
        port: door.port(words.port("PORT")?, PORT_DEFAULT)?,
        door,
        users: options.path("--users"),
        register,
        keep: Keep {
            lines: options.number("--keep-lines", 1..=KEEP_LINES_MAX)?,
            days: options.number("--keep-days", 1..=KEEP_DAYS_MAX)?,
        },
        data_dir: options.path("--data-dir").unwrap_or_else(|| ".".into()),
        fsync: fsync.unwrap_or_default(),
        limits: Limits::new(
            options.size("--max-file", 1..=FILE_BYTES_MAX)?,
            options.size("--keep-free", 0..=FILE_BYTES_MAX)?,
        ),
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

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
        let config = parse("--data-dir d 0 --users=u --bind ::1 --max-connections 7").unwrap();
        assert_eq!((config.port, config.door.connections_max), (0, 7));
        assert_eq!(config.data_dir, Path::new("d"));
        assert_eq!(config.users.as_deref(), Some(Path::new("u")));
        assert_eq!(config.door.binds, [Bind::Ip("::1".parse().unwrap())]);
    }

    #[test]
    fn everything_may_be_left_out() {
        let config = parse("").unwrap();
        assert_eq!((config.port, config.users), (PORT_DEFAULT, None));
        assert_eq!(config.data_dir, Path::new("."));
        assert_eq!(config.door.exposed(), None);
        assert_eq!(config.limits, Limits::default());
        let limits = parse("--max-file 2M --keep-free 1G").unwrap().limits;
        assert_eq!(limits.file_bytes_max, 2 << 20);
        assert_eq!(limits.keep_free_bytes, Some(1 << 30));
    }

    #[test]
    fn what_stays_can_be_told() {
        assert_eq!(parse("").unwrap().keep, Keep::default());
        let keep = parse("--keep-lines 1000 --keep-days 30").unwrap().keep;
        assert_eq!((keep.lines, keep.days), (Some(1000), Some(30)));
    }

    #[test]
    fn names_are_given_where_they_are_no_logins() {
        assert!(!parse("--users u").unwrap().register);
        assert!(parse("--users u --register").unwrap().register);
        check_refused(
            "--register --auth-file a",
            "--register does not go with --auth-file, where a name is a login",
        );
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
            "--bind 1.2.3",
            "--bind must be an IP address, a host name, or unix:PATH, not '1.2.3'",
        );
        check_refused("--users", "missing argument for option '--users'");
        check_refused(
            "--max-connections 0",
            "--max-connections must be a number from 1 to 15000, not '0'",
        );
        check_refused(
            "--keep-lines 0",
            "--keep-lines must be a number from 1 to 1000000000000, not '0'",
        );
        check_refused(
            "--keep-days 1h",
            "--keep-days must be a number from 1 to 36500, not '1h'",
        );
        check_refused("--frobnicate", "unknown option '--frobnicate'");
    }
}
