//! A program: its name, its help, its options, and the one function that every `main` is.

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::process::ExitCode;

use crate::args::{self, Args, Opt, Parsed};
use crate::exit::{Exit, Failure, with_causes};
use crate::{UsageError, logger, stream};

/// What a program says of itself.
#[derive(Debug, Clone, Copy)]
pub struct App<C> {
    /// Its name, in front of its errors.
    pub name: &'static str,
    /// What `--version` prints behind the name.
    pub version: &'static str,
    /// What `--help` prints, in parts: those about shared options stand beside their tables.
    pub help: &'static [&'static str],
    /// The options that it knows besides `--help`, `--version` and `--verbose`.
    pub options: &'static [&'static [Opt]],
    /// Makes its configuration of the arguments. What it leaves unread is refused.
    pub read: fn(&mut Args) -> Result<C, UsageError>,
}

impl<C> App<C> {
    /// What the `main` of a client is: reads the command line, starts the logger, calls `run`, and
    /// prints what went wrong, the error and its causes, on one line.
    pub fn main<E: Failure>(&self, run: impl FnOnce(C) -> Result<(), E>) -> ExitCode {
        self.start(|| Ok(()), run)
    }

    /// What the `main` of a server is: the same, but a thread writes its log.
    pub fn serve<E: Failure>(&self, run: impl FnOnce(C) -> Result<(), E>) -> ExitCode {
        self.start(logger::write_in_background, run)
    }

    fn start<E: Failure>(
        &self,
        start_log: impl FnOnce() -> io::Result<()>,
        run: impl FnOnce(C) -> Result<(), E>,
    ) -> ExitCode {
        let exit = match self.parse(env::args_os().skip(1)) {
            Ok(Parsed::Run { config, verbosity }) => {
                logger::init(verbosity);
                match start_log() {
                    Ok(()) => run(config).map_or_else(|error| self.fail(&error), |()| Exit::Done),
                    Err(error) => self.refuse(format_args!("cannot start a thread: {error}")),
                }
            }
            Ok(Parsed::Help) => self.print(&self.help.concat()),
            Ok(Parsed::Version) => self.print(&format!("{} {}\n", self.name, self.version)),
            Err(error) => self.refuse(format_args!("{error} (see {} --help)", self.name)),
        };
        // The last lines of a server's log, for as long as is reasonable.
        log::logger().flush();
        ExitCode::from(exit as u8)
    }

    /// Reads a command line, without the program's name in front.
    ///
    /// # Errors
    /// One sentence that says what is wrong and what would be right.
    pub fn parse<W: Into<OsString>>(
        &self,
        words: impl IntoIterator<Item = W>,
    ) -> Result<Parsed<C>, UsageError> {
        let words: Vec<OsString> = words.into_iter().map(W::into).collect();
        args::parse(lexopt::Parser::from_args(words), self.options, self.read)
    }

    /// For the program's tests: the configuration that a command line makes, or what is said of one that
    /// is wrong.
    ///
    /// # Panics
    /// If it asks for the help or the version.
    #[track_caller]
    pub fn config_of<W: Into<OsString>>(
        &self,
        words: impl IntoIterator<Item = W>,
    ) -> Result<C, String> {
        match self.parse(words) {
            Ok(Parsed::Run { config, .. }) => Ok(config),
            Ok(Parsed::Help | Parsed::Version) => panic!("nothing is to be run"),
            Err(error) => Err(error.to_string()),
        }
    }

    /// For the program's tests: checks that the help has the options that the program knows, and no
    /// others.
    ///
    /// # Panics
    /// If it does not.
    #[track_caller]
    pub fn check_help(&self) {
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-';
        let help = self.help.concat();
        let words = help.split(|c| !is_part(c));
        let in_help = words.filter(|word| word.len() > 2 && word.starts_with("--"));
        let known = args::known(self.options).filter(|option| option.gone.is_none());
        let known = known.map(|option| option.name);
        let (in_help, known): (BTreeSet<_>, BTreeSet<_>) = (in_help.collect(), known.collect());
        assert_eq!(in_help, known, "{}", self.name);
    }

    /// Prints why the program does not run.
    fn refuse(&self, sentence: fmt::Arguments) -> Exit {
        logger::complain(format_args!("{}: {sentence}", self.name));
        Exit::Local
    }

    /// Prints what went wrong, unless it is that the reader of our output is gone.
    fn fail(&self, error: &impl Failure) -> Exit {
        let exit = error.exit();
        if exit != Exit::Done {
            logger::complain(format_args!("{}: {}", self.name, with_causes(error)));
        }
        exit
    }

    fn print(&self, text: &str) -> Exit {
        let printed = stream::output().and_then(|mut out| out.print(text));
        printed.map_or_else(|error| self.fail(&error), |()| Exit::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ClientError;

    #[test]
    fn a_reader_that_has_seen_enough_is_no_failure() {
        let app = App {
            name: "app",
            version: "0",
            help: &[],
            options: &[],
            read: |_| Ok(()),
        };
        let exit = |kind: io::ErrorKind| app.fail(&ClientError::Output(kind.into()));
        assert_eq!(exit(io::ErrorKind::BrokenPipe), Exit::Done);
        assert_eq!(exit(io::ErrorKind::StorageFull), Exit::Local);
        assert_eq!(exit(io::ErrorKind::Other), Exit::Local);
    }
}
