//! The bench's command line.

use std::path::PathBuf;

use cli::args::{Opt, number};
use cli::{App, Args, UsageError, Words};

/// The program.
pub const APP: App<Command> = App {
    name: "bench",
    version: env!("CARGO_PKG_VERSION"),
    help: &[HELP],
    options: &[OPTIONS],
    read: command,
};

const HELP: &str = "\
Measures the servers side by side with what one would use instead, and prints a Markdown table.

Usage: bench [OPTIONS]
       bench respond PORT FILE BODY_BYTES

What is measured against is started if it is installed: redis-server, beanstalkd, PostgreSQL,
nginx, dd, grep, nc. A row whose other side is missing is skipped. Everything happens on loopback,
on free ports, in a temporary folder. Leave the machine alone meanwhile.

Options:
  --quick                short rounds and smaller files, in some minutes
  --only PATTERN         only the rows with PATTERN in their names, in any case
  --list                 print the names of the rows
  --rounds N             rounds of each row, ours and theirs in turn, 1 to 99 [default: 5]
  --against DIR          compare with the servers of another build, which are in DIR, and with
                         nothing else: ten pairs of rounds of each row; the other build runs
                         against itself first, which shows the noise; a row is missed if all its
                         ratios but the least and the greatest are below 0.95
  --dir DIR              make the temporary folder in DIR, which decides what disk is measured;
                         in memory a sync costs nothing [default: the folder of this program]
  -h, --help             print this help
  -V, --version          print the version

bench respond is the bare responder: it answers every request, a head and BODY_BYTES bytes, with the
bytes of FILE, on a thread for each connection.

Exit codes:
  0  measured, and every bar is met
  1  a bar is missed, or a row failed, for instance by a wrong answer
  2  wrong usage, or trouble with a file
  3  a server cannot be reached

Examples:
  bench --quick
  bench --only 'queue in memory'
  bench --only durable
  bench --against ../before/target/release
";

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Measure.
    Measure(Measure),
    /// Be the bare responder.
    Respond {
        /// The port to listen on.
        port: u16,
        /// The file that holds the reply.
        reply: PathBuf,
        /// What follows each request's head, in bytes.
        body_bytes: usize,
    },
}

/// How to measure.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Measure {
    /// Short rounds and smaller files.
    pub quick: bool,
    /// In lower case, what the names of the rows have in them.
    pub only: String,
    /// Only print the names of the rows.
    pub list: bool,
    /// Rounds of each row.
    pub rounds: Option<usize>,
    /// The programs of another build, to compare with.
    pub against: Option<PathBuf>,
    /// Where the temporary folder is made.
    pub dir: Option<PathBuf>,
}

const OPTIONS: &[Opt] = &[
    Opt::flag("--quick"),
    Opt::value("--only"),
    Opt::flag("--list"),
    Opt::value("--rounds"),
    Opt::value("--against"),
    Opt::value("--dir"),
];

fn command(args: &mut Args) -> Result<Command, UsageError> {
    let Args { words, options } = args;
    if words.peek().is_some_and(|word| word == "respond") {
        words.next_word();
        return respond(words);
    }
    let only = options.raw("--only").unwrap_or_default();
    Ok(Command::Measure(Measure {
        quick: options.flag("--quick"),
        only: only.to_string_lossy().to_lowercase(),
        list: options.flag("--list"),
        rounds: options.number("--rounds", 1..=99)?,
        against: options.path("--against"),
        dir: options.path("--dir"),
    }))
}

fn respond(words: &mut Words) -> Result<Command, UsageError> {
    let missing = UsageError::Missing("PORT");
    Ok(Command::Respond {
        port: words.port("PORT")?.ok_or(missing)?,
        reply: words.required("FILE")?.into(),
        body_bytes: number("BODY_BYTES", &words.required("BODY_BYTES")?, 0..=1_000_000)?,
    })
}

#[cfg(test)]
mod tests {
    use cli::Parsed;

    use super::*;

    fn parse(words: &[&str]) -> Result<Command, String> {
        match APP.parse(words) {
            Ok(Parsed::Run { config, .. }) => Ok(config),
            Ok(other) => panic!("{words:?}: {other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn options_and_the_responder() {
        let want = Measure {
            quick: true,
            only: "queue in".to_owned(),
            rounds: Some(7),
            ..Measure::default()
        };
        let got = parse(&["--quick", "--only", "Queue in", "--rounds", "7"]);
        assert_eq!(got, Ok(Command::Measure(want)));
        let want = Command::Respond {
            port: 80,
            reply: "f".into(),
            body_bytes: 48,
        };
        assert_eq!(parse(&["respond", "80", "f", "48"]), Ok(want));
    }

    #[test]
    fn the_help_tells_the_defaults() {
        use crate::contestant::Scale;
        let check = |what: &str, default: usize| {
            let line = HELP.lines().find(|line| line.contains(what)).unwrap();
            let want = format!("[default: {default}]");
            assert!(line.ends_with(&want), "{line}");
        };
        check("--rounds N", Scale::FULL.rounds);
    }

    #[test]
    fn a_wrong_command_line_is_one_sentence() {
        let refused = parse(&["respond", "80"]);
        assert_eq!(refused, Err("FILE is missing".to_owned()));
        let refused = parse(&["quick"]);
        let want = "there is one argument too many: 'quick'";
        assert_eq!(refused, Err(want.to_owned()));
    }
}
