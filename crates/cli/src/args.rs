//! Reading a command line, over `lexopt`.
//!
//! A program has a table of its options ([`App::options`](crate::App::options)). With it, [`parse`]
//! tells options from words, because a verb may stand behind its options, and handles `--help`,
//! `--version`, `--verbose` and unknown options itself. The program then reads its own arguments from
//! [`Args`]: options by name, words in order. An argument that is left at the end is an error, so no
//! option is ever ignored.

mod moment;
mod nearest;
mod options;
mod value;
mod variable;
mod words;

use lexopt::Arg;

use crate::UsageError;

pub use moment::moment_millis;
pub use options::{Opt, Options};
pub use value::{DURATION_MAX, choice, duration, number, port, size, value};
pub use variable::server_default;
pub use words::{Verbs, Words};

use nearest::nearest;

/// What a command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed<C> {
    /// To run.
    Run {
        /// With what.
        config: C,
        /// How much to say.
        verbosity: Verbosity,
    },
    /// To print the help.
    Help,
    /// To print the version.
    Version,
}

/// How much a program says on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verbosity {
    /// Errors alone (`-q`).
    Quiet,
    /// What has been done, too.
    Normal,
    /// A line for every request, too (`-v`).
    Verbose,
}

/// The arguments of a command line that the program has not read yet.
#[derive(Debug, Default)]
pub struct Args {
    /// Those that are not options.
    pub words: Words,
    /// The options.
    pub options: Options,
}

/// The options of every program.
const EVERYWHERE: &[Opt] = &[
    Opt::flag("--help").short('h'),
    Opt::flag("--version").short('V'),
    Opt::flag("--verbose").short('v'),
];

/// The options in a program's tables, and those of every program.
pub(crate) fn known(tables: &[&'static [Opt]]) -> impl Iterator<Item = &'static Opt> {
    tables.iter().copied().flatten().chain(EVERYWHERE)
}

/// Reads a command line. `tables` are the options that the program knows, and `read` makes its
/// configuration of the arguments. `read` need not check that it has read all of them.
///
/// # Errors
/// If an option is unknown, lacks its value, or has two; those of `read`; if an argument is left.
pub(crate) fn parse<C>(
    mut parser: lexopt::Parser,
    tables: &[&'static [Opt]],
    read: impl FnOnce(&mut Args) -> Result<C, UsageError>,
) -> Result<Parsed<C>, UsageError> {
    let mut args = Args::default();
    loop {
        if let Some(mut rest) = parser.try_raw_args()
            && rest.next_if(|word| word == "--").is_some()
        {
            args.words.push_behind_dashes(rest);
            break;
        }
        let (name, option) = match parser.next()? {
            None => break,
            Some(Arg::Value(word)) => {
                args.words.push(word);
                continue;
            }
            Some(Arg::Long(name)) => {
                let option = known(tables).find(|option| option.name[2..] == *name);
                (format!("--{name}"), option)
            }
            Some(Arg::Short(short)) => {
                let option = known(tables).find(|option| option.short == Some(short));
                (format!("-{short}"), option)
            }
        };
        match option {
            Some(Opt {
                gone: Some(sentence),
                ..
            }) => return Err(UsageError::Conflict(sentence)),
            Some(option) if option.name == "--help" => return Ok(Parsed::Help),
            Some(option) if option.name == "--version" => return Ok(Parsed::Version),
            Some(option) if option.is_optional => {
                let value = parser.optional_value().unwrap_or_default();
                args.options.add(option, value)?;
            }
            Some(option) if option.has_value => args.options.add(option, parser.value()?)?,
            Some(option) => args.options.add_flag(option),
            None => {
                let nearest = nearest(&name, known(tables).map(|option| option.name));
                let option = name;
                return Err(UsageError::UnknownOption { option, nearest });
            }
        }
    }
    let verbosity = verbosity(&mut args.options)?;
    let config = read(&mut args)?;
    args.options.end(args.words.verb_name())?;
    args.words.end()?;
    Ok(Parsed::Run { config, verbosity })
}

/// `--quiet` is left in the options, because some clients say other things then.
fn verbosity(options: &mut Options) -> Result<Verbosity, UsageError> {
    match (options.has("--quiet"), options.flag("--verbose")) {
        (false, false) => Ok(Verbosity::Normal),
        (false, true) => Ok(Verbosity::Verbose),
        (true, false) => Ok(Verbosity::Quiet),
        (true, true) => {
            let sentence = "--quiet and --verbose exclude each other";
            Err(UsageError::Conflict(sentence))
        }
    }
}

#[cfg(test)]
mod tests;
