//! A program: its name, its help, its options, and the one function that every `main` is.

use std::process::ExitCode;

use log::LevelFilter;

use crate::args::{Opt, Parsed, Verbosity};
use crate::exit::{Exit, Failure, with_causes};
use crate::{UsageError, logger, stream};

/// What a program says of itself.
#[derive(Debug, Clone, Copy)]
pub struct App {
    /// Its name, in front of its errors.
    pub name: &'static str,
    /// What `--version` prints behind the name.
    pub version: &'static str,
    /// What `--help` prints.
    pub help: &'static str,
    /// The options that it knows besides `--help`, `--version` and `--verbose`.
    pub options: &'static [&'static [Opt]],
}

impl App {
    /// Reads the command line with `parse`, starts the logger, calls `run`, and prints what went
    /// wrong: the error and its causes, on one line.
    pub fn main<C, E: Failure>(
        &self,
        parse: impl FnOnce(lexopt::Parser) -> Result<Parsed<C>, UsageError>,
        run: impl FnOnce(C) -> Result<(), E>,
    ) -> ExitCode {
        let exit = match parse(lexopt::Parser::from_env()) {
            Ok(Parsed::Run { config, verbosity }) => {
                logger::init(verbosity == Verbosity::Verbose);
                if verbosity == Verbosity::Quiet {
                    log::set_max_level(LevelFilter::Error);
                }
                run(config).map_or_else(|error| self.fail(&error), |()| Exit::Done)
            }
            Ok(Parsed::Help) => self.print(self.help),
            Ok(Parsed::Version) => self.print(&format!("{} {}\n", self.name, self.version)),
            Err(error) => {
                logger::complain(format_args!("{0}: {error} (see {0} --help)", self.name));
                Exit::Local
            }
        };
        // The last lines of a server's log, for as long as is reasonable.
        log::logger().flush();
        ExitCode::from(exit as u8)
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
    use std::io;

    use super::*;
    use crate::ClientError;

    #[test]
    fn a_reader_that_has_seen_enough_is_no_failure() {
        let app = App {
            name: "app",
            version: "0",
            help: "",
            options: &[],
        };
        let exit = |kind: io::ErrorKind| app.fail(&ClientError::Output(kind.into()));
        assert_eq!(exit(io::ErrorKind::BrokenPipe), Exit::Done);
        assert_eq!(exit(io::ErrorKind::StorageFull), Exit::Local);
        assert_eq!(exit(io::ErrorKind::Other), Exit::Local);
    }
}
