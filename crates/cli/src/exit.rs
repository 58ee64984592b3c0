//! Exit codes, and the one function that every `main` is.

use std::error::Error;
use std::process::ExitCode;

use log::LevelFilter;

use crate::args::{Parsed, UsageError, Verbosity};
use crate::{logger, stream};

/// How a program ends; the same for all eight binaries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done. As the [`Failure::exit`] of an error: end quietly, because the reader of our output
    /// has seen enough.
    Done = 0,
    /// The service said no.
    Refused = 1,
    /// Wrong usage, or trouble with a local file or disk.
    Local = 2,
    /// The network: cannot connect or bind, timed out, lost, or the reply is not understood.
    Network = 3,
}

/// An error that can end a program.
pub trait Failure: Error {
    /// The exit code it ends with.
    fn exit(&self) -> Exit;
}

/// What a binary says of itself.
#[derive(Debug, Clone, Copy)]
pub struct App {
    /// Its name, in front of its errors.
    pub name: &'static str,
    /// What `--version` prints behind the name.
    pub version: &'static str,
    /// What `--help` prints.
    pub help: &'static str,
}

/// Reads the command line with `parse`, starts the logger, calls `run`, and prints what went
/// wrong: the error and its causes, on one line.
pub fn main<C, E: Failure>(
    app: &App,
    parse: impl FnOnce(lexopt::Parser) -> Result<Parsed<C>, UsageError>,
    run: impl FnOnce(C) -> Result<(), E>,
) -> ExitCode {
    let exit = match parse(lexopt::Parser::from_env()) {
        Ok(Parsed::Run { config, verbosity }) => {
            logger::init(verbosity == Verbosity::Verbose);
            if verbosity == Verbosity::Quiet {
                log::set_max_level(LevelFilter::Error);
            }
            run(config).map_or_else(|error| fail(app, &error), |()| Exit::Done)
        }
        Ok(Parsed::Help) => print(app, app.help),
        Ok(Parsed::Version) => print(app, &format!("{} {}\n", app.name, app.version)),
        Err(error) => {
            logger::complain(format_args!("{0}: {error} (see {0} --help)", app.name));
            Exit::Local
        }
    };
    // What a server still has to say, for as long as is reasonable.
    log::logger().flush();
    ExitCode::from(exit as u8)
}

/// Says what went wrong, unless it is that nobody wants to know more.
fn fail(app: &App, error: &impl Failure) -> Exit {
    let exit = error.exit();
    if exit != Exit::Done {
        logger::complain(format_args!("{}: {}", app.name, with_causes(error)));
    }
    exit
}

fn print(app: &App, text: &str) -> Exit {
    let printed = stream::output().and_then(|mut out| out.print(text));
    printed.map_or_else(|error| fail(app, &error), |()| Exit::Done)
}

/// An error and its chain of sources: `cannot open 'x': No such file or directory (os error 2)`.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::ClientError;

    #[test]
    fn the_codes_are_what_scripts_rely_on() {
        let codes = [Exit::Done, Exit::Refused, Exit::Local, Exit::Network];
        assert_eq!(codes.map(|exit| exit as u8), [0, 1, 2, 3]);
    }

    #[test]
    fn an_error_is_told_with_its_causes() {
        let error = ClientError::Output(io::ErrorKind::StorageFull.into());
        let want = "cannot write to standard output: no storage space";
        assert_eq!(with_causes(&error), want);
        assert_eq!(with_causes(&io::Error::other("alone")), "alone");
    }

    #[test]
    fn a_reader_that_has_seen_enough_is_no_failure() {
        let app = App {
            name: "app",
            version: "0",
            help: "",
        };
        let exit = |kind: io::ErrorKind| fail(&app, &ClientError::Output(kind.into()));
        assert_eq!(exit(io::ErrorKind::BrokenPipe), Exit::Done);
        assert_eq!(exit(io::ErrorKind::StorageFull), Exit::Local);
        assert_eq!(exit(io::ErrorKind::Other), Exit::Local);
    }
}
