//! The text protocols of the queue and the history: what the clients of the original course servers
//! send, and what anyone can type into `nc`.
//!
//! Text never begins with a NUL byte, and a frame always does, so both share a port.

use std::io::{self, BufRead};

use crate::digits;
use crate::history::{Filter, Operation, Request, is_user_name};

/// What a text client of the queue sends to receive the oldest message.
pub const QUEUE_GET: &[u8] = b"<<GET>>";

/// What a text client of the queue gets when there is no message.
pub const QUEUE_EMPTY: &str = "Error - no messages in queue.";

/// The longest line that a text client of the history may send, in bytes, without its end.
pub const HISTORY_LINE_BYTES_MAX: usize = 256;

/// What a user without access gets, as text and in a frame.
pub const AUTHENTICATION_ERROR: &str = "Authentication error.";

/// Why a line is not a request to the history service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HistoryLineError {
    /// The line is longer than [`HISTORY_LINE_BYTES_MAX`], is not UTF-8, or there are several.
    #[error("A request is one line of at most 256 bytes of UTF-8 text.")]
    NotALine,
    /// The first word is missing or is not a user name.
    #[error("A request starts with a user name: 1 to 64 of A-Z a-z 0-9 . _ - (as in 'alice 2').")]
    NotAUser,
    /// The second word is not one of the operations.
    #[error("The operation is 1, 2 or 3 (as in 'alice 2').")]
    NotAnOperation,
    /// Operation 1 lacks its line number.
    #[error("Operation 1 needs the number of a line (as in 'alice 1 3').")]
    NoLineNumber,
    /// The word after operation 1 is not a number, or is 0.
    #[error("A line number is 1 or more, in digits (as in 'alice 1 3').")]
    NotALineNumber,
    /// There are more words than the operation takes.
    #[error("There are too many words; a request is 'USER', 'USER 1 N', 'USER 2' or 'USER 3'.")]
    TooManyWords,
}

/// Reads a line from a stream, without its end: LF, CR LF, or the end of the stream. Of a line that is
/// too long, it reads no more than shows that it is.
///
/// # Errors
/// Those of the stream.
pub fn read_history_line(input: impl BufRead) -> io::Result<Vec<u8>> {
    let with_end = HISTORY_LINE_BYTES_MAX + b"\r\n".len();
    let mut line = Vec::new();
    let mut input = input.take(with_end as u64);
    input.read_until(b'\n', &mut line)?;
    for end in [b'\n', b'\r'] {
        line.pop_if(|byte| *byte == end);
    }
    Ok(line)
}

/// Parses `USER`, `USER 1 N`, `USER 2` or `USER 3`. Any white space separates the words; a line end (LF
/// or CR LF) is ignored.
///
/// # Errors
/// One sentence that says what is wrong and what would be right.
pub fn parse_history_line(line: &[u8]) -> Result<Request<'_>, HistoryLineError> {
    let line = std::str::from_utf8(line)
        .ok()
        .filter(|line| line.len() <= HISTORY_LINE_BYTES_MAX)
        .filter(|line| !line.trim_end().contains(['\n', '\r']))
        .ok_or(HistoryLineError::NotALine)?;
    let mut words = line.split_ascii_whitespace();
    let user = words
        .next()
        .filter(|user| is_user_name(user))
        .ok_or(HistoryLineError::NotAUser)?;
    let operation = match words.next() {
        None => Operation::Hello,
        Some("1") => {
            let number = words.next().ok_or(HistoryLineError::NoLineNumber)?;
            Operation::delete_line(parse_line_number(number)?)
        }
        Some("2") => Operation::Get(Filter::ALL),
        Some("3") => Operation::Clear,
        Some(_) => return Err(HistoryLineError::NotAnOperation),
    };
    match words.next() {
        None => Ok(Request { user, operation }),
        Some(_) => Err(HistoryLineError::TooManyWords),
    }
}

/// Parses the number of a line: digits only, 1 or more.
///
/// # Errors
/// [`HistoryLineError::NotALineNumber`].
pub fn parse_line_number(word: &str) -> Result<u64, HistoryLineError> {
    match digits::parse(word.as_bytes()) {
        Ok(number @ 1..) => Ok(number),
        Ok(0) | Err(_) => Err(HistoryLineError::NotALineNumber),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &[u8], want: Result<Operation, HistoryLineError>) {
        let got = parse_history_line(line).map(|request| {
            assert_eq!(request.user, "alice");
            request.operation
        });
        assert_eq!(got, want);
    }

    #[test]
    fn requests() {
        check(b"alice", Ok(Operation::Hello));
        check(b"alice 1 3\r\n", Ok(Operation::delete_line(3)));
        check(b"  alice\t2 \n", Ok(Operation::Get(Filter::ALL)));
        check(b"alice 3", Ok(Operation::Clear));
        let longest = format!("alice{}2", " ".repeat(HISTORY_LINE_BYTES_MAX - 6));
        check(longest.as_bytes(), Ok(Operation::Get(Filter::ALL)));
    }

    #[test]
    fn what_is_wrong_is_said() {
        use HistoryLineError::*;
        check(b"", Err(NotAUser));
        check(b"\n", Err(NotAUser));
        check(b"al/ice 2", Err(NotAUser));
        check(b"alice\0 2", Err(NotAUser));
        check(b"alice \xff", Err(NotALine));
        check(b"alice\n3", Err(NotALine));
        check(b"\nalice", Err(NotALine));
        check(b"alice\r3\n", Err(NotALine));
        check(&[b'a'; HISTORY_LINE_BYTES_MAX + 1], Err(NotALine));
        check(b"alice 4", Err(NotAnOperation));
        check(b"alice two", Err(NotAnOperation));
        check(b"alice 1", Err(NoLineNumber));
        check(b"alice 1 x", Err(NotALineNumber));
        check(b"alice 1 0", Err(NotALineNumber));
        check(b"alice 1 -1", Err(NotALineNumber));
        check(b"alice 1 +1", Err(NotALineNumber));
        check(b"alice 1 99999999999999999999", Err(NotALineNumber));
        check(b"alice 2 2", Err(TooManyWords));
        check(b"alice 1 2 3", Err(TooManyWords));
    }

    #[track_caller]
    fn check_line(mut stream: &[u8], want: &[u8], rest: &[u8]) {
        assert_eq!(read_history_line(&mut stream).unwrap(), want);
        assert_eq!(stream, rest);
    }

    #[test]
    fn a_line_ends_with_a_line_feed_or_with_the_stream() {
        check_line(b"", b"", b"");
        check_line(b"\n", b"", b"");
        check_line(b"alice 2", b"alice 2", b"");
        check_line(b"alice 2\r\n", b"alice 2", b"");
        check_line(b"alice 2\nbob 3\n", b"alice 2", b"bob 3\n");
        check_line(b"a\r\r\nb", b"a\r", b"b");
    }

    #[test]
    fn a_line_that_is_too_long_stays_so() {
        let mut longest = b"alice".to_vec();
        longest.resize(HISTORY_LINE_BYTES_MAX, b' ');
        for (rest, want) in [
            ("", Ok(Operation::Hello)),
            ("\n", Ok(Operation::Hello)),
            ("\r\n", Ok(Operation::Hello)),
            ("2", Err(HistoryLineError::NotALine)),
            ("2\n", Err(HistoryLineError::NotALine)),
            ("2\r\n", Err(HistoryLineError::NotALine)),
            (" 2 and more", Err(HistoryLineError::NotALine)),
        ] {
            let stream = [&longest, rest.as_bytes()].concat();
            check(&read_history_line(stream.as_slice()).unwrap(), want);
        }
    }
}
