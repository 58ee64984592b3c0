//! The token of a leased message, from the command line or standard input.

use std::io::{BufRead, BufReader, Read};
use std::str;

use cli::ClientError;
use proto::queue::Token;

use crate::Error;

/// The longest line with a token, in bytes: more than any spelling of a token has.
const LINE_BYTES_MAX: u64 = 128;

/// Where the token of a leased message comes from. Anyone who has it can acknowledge the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenSource {
    /// The command line, where other users of the machine can see it.
    Given(Token),
    /// The first line of standard input.
    Stdin,
}

impl TokenSource {
    pub(crate) fn token(&self) -> Result<Token, Error> {
        match self {
            Self::Given(token) => Ok(*token),
            Self::Stdin => read(cli::stream::input()?),
        }
    }
}

fn read(input: impl Read) -> Result<Token, Error> {
    let mut line = Vec::new();
    let mut input = BufReader::new(input.take(LINE_BYTES_MAX));
    let read = input.read_until(b'\n', &mut line);
    read.map_err(ClientError::Input)?;
    let word = str::from_utf8(line.trim_ascii()).unwrap_or_default();
    word.parse().map_err(|_| Error::NotAToken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_the_first_line() {
        let token = "0b6ab2d4-5d49-4a8f-8c39-2f0cbd2a9d3f";
        let want = token.parse().ok();
        let line = format!("{token}\n");
        let more = format!(" {token} \r\nmore");
        for good in [token, &line, &more] {
            assert_eq!(read(good.as_bytes()).ok(), want, "{good:?}");
        }
        let two = format!("{token} {token}\n");
        for bad in ["", "\n", "x", &two, &"x".repeat(200)] {
            let error = read(bad.as_bytes()).unwrap_err();
            assert!(matches!(error, Error::NotAToken), "{bad:?}");
        }
    }
}
