//! The code server's command line.

use cli::args::Opt;
use cli::{App, Args, ServerOptions, UsageError};
use daemon::{CONNECTIONS_DEFAULT, CONNECTIONS_MAX};
use storage::{FILE_BYTES_MAX, Limits};

use crate::Config;

/// The program.
pub const APP: App<Config> = App {
    name: "code-server",
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

/// The default port for codes.
pub const CODE_PORT_DEFAULT: u16 = 8000;

/// The default port for messages.
pub const MESSAGE_PORT_DEFAULT: u16 = 8001;

/// How many codes are handed out by default.
pub const CODES_DEFAULT: usize = 10_000_000;

/// The most codes that a server can be told to hand out.
const CODES_MAX: usize = u32::MAX as usize;

const HELP: &str = "\
Hands out one unique code for each UUID, and logs text messages of senders with a code.

Usage: code-server [CODE_PORT MESSAGE_PORT] [OPTIONS]

Arguments:
  CODE_PORT              POST {\"uuid\": \"...\"} here for a code [default: 8000]
  MESSAGE_PORT           POST {\"uuid\", \"unique\", \"text\"} here [default: 8001]
                         (0 is any free port)

Options:
  --data-dir DIR         the folder of codes.txt and messages.log [default: .]
  --fsync always|never   whether a reply waits until the disk has it [default: always];
                         with never, a power cut can lose the newest codes and messages
  --max-codes N          the most codes that are handed out [default: 10000000]
  --max-file SIZE        the longest that messages.log may become [default: 1G]
  --keep-free SIZE       refuse codes and messages that would leave less of the disk
                         free [default: 16M, or a tenth of a smaller disk]
  --python-replies       reply with a bare Python dict instead of HTTP and JSON,
                         for the original Python client
";

const HELP_END: &str = "  -v, --verbose          log a line for every request
  -h, --help             print this help
  -V, --version          print the version

A SIZE is in bytes, as 4096, or in units of 1024, as 64K, 10M or 2G.

Exit codes:
  0  stopped by SIGINT or SIGTERM
  2  wrong usage, or trouble with the data folder
  3  cannot listen on a port

Examples:
  code-server
  code-server 9000 9001 --data-dir /var/lib/codes
";

const OPTIONS: &[Opt] = &[
    Opt::value("--data-dir"),
    Opt::value("--max-codes"),
    Opt::value("--fsync"),
    Opt::value("--max-file"),
    Opt::value("--keep-free"),
    Opt::flag("--python-replies"),
];

fn config(args: &mut Args) -> Result<Config, UsageError> {
    let Args { words, options } = args;
    let mut door = ServerOptions::read(options, CONNECTIONS_DEFAULT, CONNECTIONS_MAX)?;
    let fsync = options.value("--fsync", "always or never")?;
    let code_port = words.port("CODE_PORT")?;
    let message_port = words.port("MESSAGE_PORT")?;
    if code_port.is_some() && message_port.is_none() {
        return Err(UsageError::Missing("MESSAGE_PORT"));
    }
    Ok(Config {
        code_port: door.port(code_port, CODE_PORT_DEFAULT)?,
        message_port: door.port(message_port, MESSAGE_PORT_DEFAULT)?,
        door,
        data_dir: options.path("--data-dir").unwrap_or_else(|| ".".into()),
        codes_max: options
            .number("--max-codes", 1..=CODES_MAX)?
            .unwrap_or(CODES_DEFAULT),
        python_replies: options.flag("--python-replies"),
        fsync: fsync.unwrap_or_default(),
        limits: Limits::new(
            options.size("--max-file", 1..=FILE_BYTES_MAX)?,
            options.size("--keep-free", 0..=FILE_BYTES_MAX)?,
        ),
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

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
        let config = parse("--max-codes 9 0 --data-dir d 1 --python-replies").unwrap();
        assert_eq!((config.code_port, config.message_port), (0, 1));
        assert_eq!((config.codes_max, config.python_replies), (9, true));
        assert_eq!(config.data_dir, PathBuf::from("d"));
        assert_eq!(parse("").unwrap().message_port, MESSAGE_PORT_DEFAULT);
        assert_eq!(parse("").unwrap().limits, Limits::default());
        let limits = parse("--max-file 2M --keep-free 1G").unwrap().limits;
        assert_eq!(limits.file_bytes_max, 2 << 20);
        assert_eq!(limits.keep_free_bytes, Some(1 << 30));
    }

    #[track_caller]
    fn check_refused(line: &str, want: &str) {
        assert_eq!(parse(line).unwrap_err(), want);
    }

    #[test]
    fn a_wrong_command_line_is_one_sentence() {
        check_refused("8000", "MESSAGE_PORT is missing");
        check_refused(
            "1 x",
            "MESSAGE_PORT must be a port from 0 to 65535, not 'x'",
        );
        check_refused("1 2 3", "there is one argument too many: '3'");
        check_refused(
            "--max-codes 0",
            "--max-codes must be a number from 1 to 4294967295, not '0'",
        );
    }
}
