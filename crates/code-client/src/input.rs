//! What `send` reads from standard input: the sender on the first line, the text after it, or both.

use std::io::{self, BufRead, BufReader, Read};

use cli::ClientError;
use cli::stream::input;
use proto::code::BODY_BYTES_MAX;
use uuid::Uuid;

use crate::{Error, Sender, Text};

/// The longest line with a sender, in bytes: room for a UUID and a code in any spelling.
const SENDER_BYTES_MAX: u64 = 256;

/// The UUID, the code and the text of a message.
pub(crate) fn read(sender: Sender, text: Text) -> Result<(Uuid, String, String), Error> {
    if let (Sender::Given { uuid, code }, Text::Given(text)) = (&sender, &text) {
        return Ok((*uuid, code.clone(), text.clone()));
    }
    read_from(BufReader::new(input()?), sender, text)
}

fn read_from(
    mut input: impl BufRead,
    sender: Sender,
    text: Text,
) -> Result<(Uuid, String, String), Error> {
    let (uuid, code) = match sender {
        Sender::Given { uuid, code } => (uuid, code),
        Sender::Stdin => {
            let mut line = Vec::new();
            let start = &mut (&mut input).take(SENDER_BYTES_MAX);
            start
                .read_until(b'\n', &mut line)
                .map_err(ClientError::Input)?;
            let is_whole = line.len() < SENDER_BYTES_MAX as usize;
            let sender = parse_sender(&line).filter(|_| is_whole);
            sender.ok_or(Error::NotASender)?
        }
    };
    let text = match text {
        Text::Given(text) => text,
        Text::Stdin => {
            let mut text = Vec::new();
            let mut input = input.take(BODY_BYTES_MAX as u64 + 1);
            input.read_to_end(&mut text).map_err(ClientError::Input)?;
            if text.len() > BODY_BYTES_MAX {
                return Err(Error::TooLong);
            }
            let not_text = |_| ClientError::Input(io::ErrorKind::InvalidData.into());
            String::from_utf8(text).map_err(not_text)?
        }
    };
    Ok((uuid, code, text))
}

/// `UUID CODE`, as `request` prints it.
fn parse_sender(line: &[u8]) -> Option<(Uuid, String)> {
    let mut words = std::str::from_utf8(line).ok()?.split_whitespace();
    let uuid = words.next()?.parse().ok()?;
    let code = words.next()?.to_owned();
    words.next().is_none().then_some((uuid, code))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "67e55044-10b1-426f-9247-bb680e5fe0c8";

    #[track_caller]
    fn check(stdin: &str, text: Text, want: Option<&str>) {
        let got = read_from(stdin.as_bytes(), Sender::Stdin, text).ok();
        let want = want.map(|text| (UUID.parse().unwrap(), "code".to_owned(), text.to_owned()));
        assert_eq!(got, want, "{stdin:?}");
    }

    #[test]
    fn the_sender_is_the_first_line() {
        let given = || Text::Given("text".to_owned());
        check(&format!("{UUID} code"), given(), Some("text"));
        check(&format!(" {UUID}\tcode \r\nmore"), given(), Some("text"));
        let both = format!("{UUID} code\nline 1\nline 2\n");
        check(&both, Text::Stdin, Some("line 1\nline 2\n"));
        check(&format!("{UUID} code"), Text::Stdin, Some(""));
        let long = format!("{UUID} {}", "x".repeat(300));
        for bad in [
            "",
            "\n",
            UUID,
            "x code",
            &format!("{UUID} code more"),
            &long,
        ] {
            check(bad, given(), None);
        }
    }
}
