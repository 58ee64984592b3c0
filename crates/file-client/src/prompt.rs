//! The prompt: one command after another, as a person types them.

use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;

use cli::ClientError;
use cli::exit::with_causes;
use cli::stream::input;

use crate::{Client, Error, Input, Transfer};

const PROMPT: &str = "Enter command (GET/POST file_path): ";

/// The longest command, in bytes: more than any path has.
const LINE_BYTES_MAX: u64 = 64 * 1024;

const USAGE: &str = "a command is GET PATH, POST FILE or exit";

#[derive(Debug, PartialEq, Eq)]
enum Command {
    Transfer(Transfer),
    Nothing,
    Exit,
}

/// Asks for commands until `exit` or the end of the input. A command that fails is logged, and the
/// prompt continues.
///
/// # Errors
/// If standard input cannot be read, or has a line that is too long.
pub(crate) fn run(client: &mut Client, is_quiet: bool) -> Result<(), Error> {
    let mut input = BufReader::new(input()?);
    let mut line = Vec::new();
    loop {
        if !is_quiet {
            // For a person. Commands can be read even if this cannot be written.
            let _ = io::stderr().write_all(PROMPT.as_bytes());
        }
        line.clear();
        let mut start = (&mut input).take(LINE_BYTES_MAX);
        let read = start
            .read_until(b'\n', &mut line)
            .map_err(ClientError::Input)?;
        if read as u64 == LINE_BYTES_MAX {
            let cause = format!("a line exceeds {} bytes", LINE_BYTES_MAX - 1);
            return Err(ClientError::Input(io::Error::other(cause)).into());
        }
        if read == 0 {
            if !is_quiet {
                let _ = io::stderr().write_all(b"\n");
            }
            return Ok(());
        }
        match parse(&line) {
            Ok(Command::Exit) => return Ok(()),
            Ok(Command::Nothing) => {}
            Ok(Command::Transfer(transfer)) => {
                if let Err(error) = transfer.run(client) {
                    log::error!("{}", with_causes(&error));
                }
            }
            Err(sentence) => log::error!("{sentence}"),
        }
    }
}

fn parse(line: &[u8]) -> Result<Command, &'static str> {
    let line = line.trim_ascii();
    let verb_bytes = line.iter().position(u8::is_ascii_whitespace);
    let (verb, rest) = line.split_at(verb_bytes.unwrap_or(line.len()));
    // The path is the rest of the line, so that it may hold spaces.
    let path: OsString = OsStr::from_bytes(rest.trim_ascii()).into();
    match (verb.to_ascii_lowercase().as_slice(), path.is_empty()) {
        (b"", _) => Ok(Command::Nothing),
        (b"exit", true) => Ok(Command::Exit),
        (b"get", false) => Transfer::get(path).map(Command::Transfer),
        (b"post", false) => post(path).map(Command::Transfer),
        _ => Err(USAGE),
    }
}

/// Standard input has the commands, so `-` is a file of that name.
fn post(file: OsString) -> Result<Transfer, &'static str> {
    Transfer::post(Input::File(file.into()), OsString::new(), false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &[u8], want: Result<Command, &'static str>) {
        assert_eq!(parse(line), want);
    }

    fn get(path: &[u8]) -> Result<Command, &'static str> {
        Transfer::get(OsStr::from_bytes(path).into()).map(Command::Transfer)
    }

    #[test]
    fn commands() {
        check(b"GET server/a.txt\n", get(b"server/a.txt"));
        check(b"  get\t a  b \r\n", get(b"a  b"));
        check(b"get \xff", get(b"\xff"));
        for file in ["client/a", "-"] {
            let want = post(file.into()).map(Command::Transfer);
            check(format!("Post {file}\n").as_bytes(), want);
        }
        check(b"exit\n", Ok(Command::Exit));
        check(b"EXIT", Ok(Command::Exit));
        check(b"\n", Ok(Command::Nothing));
        check(b" \t\r\n", Ok(Command::Nothing));
    }

    #[test]
    fn what_is_no_command() {
        check(b"GET\n", Err(USAGE));
        check(b"POST \n", Err(USAGE));
        check(b"PUT a\n", Err(USAGE));
        check(b"getaway\n", Err(USAGE));
        check(b"exit now\n", Err(USAGE));
        check(b"\xff\xfe\n", Err(USAGE));
        check(
            b"GET a/..\n",
            Err("the PATH has no base name to save the file under"),
        );
    }
}
