//! What request and response heads have in common: reading one whole head off a stream, and the
//! rules for its fields.

use std::io::{self, BufRead};

use memchr::memchr_iter;

use crate::http::body::read_line;

/// The longest head, in bytes, from its first line to the empty line.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;

/// The longest request target, in bytes: the longest path of Linux, each byte percent-encoded.
pub const TARGET_BYTES_MAX: usize = 3 * 4096;

/// The most fields a head may have.
pub const FIELDS_MAX: usize = 100;

/// How reading a head ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The buffer holds one whole head.
    Whole,
    /// The stream ended before the first byte.
    End,
    /// The buffer holds [`HEAD_BYTES_MAX`] bytes, and the head continues.
    TooLong,
}

/// Reads one head, up to and including its empty line, into `head`. Empty lines in front are skipped
/// (RFC 9112 section 2.2). A lone LF is an empty line too: the reader must not wait for a CR LF from a
/// peer that ends its lines with LF. The parser refuses such a head.
pub(crate) fn read_head(input: &mut impl BufRead, head: &mut Vec<u8>) -> io::Result<Progress> {
    head.clear();
    // Nearly all heads arrive in one piece.
    let arrived = match input.fill_buf() {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => &[],
        other => other?,
    };
    if let Some(bytes) = arrived_whole(arrived) {
        head.extend_from_slice(&arrived[..bytes]);
        input.consume(bytes);
        return Ok(Progress::Whole);
    }
    let mut skipped = 0;
    loop {
        let line_start = head.len();
        let room = HEAD_BYTES_MAX - line_start - skipped;
        read_line(input, room, head)?;
        let line = &head[line_start..];
        match line {
            b"" if head.is_empty() => return Ok(Progress::End),
            b"\r\n" if line_start > 0 => return Ok(Progress::Whole),
            b"\n" => return Ok(Progress::Whole),
            b"\r\n" => {
                skipped += 2;
                head.clear();
            }
            _ if line.ends_with(b"\n") => {}
            _ if line.len() == room => return Ok(Progress::TooLong),
            _ => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
        if skipped + head.len() == HEAD_BYTES_MAX {
            return Ok(Progress::TooLong);
        }
    }
}

/// The length of the whole head at the start of the bytes that have arrived. `None` if the head is not
/// whole, or if one of its lines needs the slow path.
fn arrived_whole(arrived: &[u8]) -> Option<usize> {
    let arrived = &arrived[..arrived.len().min(HEAD_BYTES_MAX)];
    let mut line_start = 0;
    for at in memchr_iter(b'\n', arrived) {
        match &arrived[line_start..=at] {
            b"\r\n" if line_start > 0 => return Some(at + 1),
            b"\r\n" | b"\n" => return None,
            _ => line_start = at + 1,
        }
    }
    None
}

/// Whether `b` may stand in a field's value (RFC 9110 section 5.5).
pub(crate) fn is_value_byte(b: u8) -> bool {
    b == b'\t' || !b.is_ascii_control()
}

/// Whether `b` may stand in a token (RFC 9110 section 5.6.2).
pub(crate) fn is_token_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

/// The members of a comma-separated list field, without the white space around them and without
/// the empty ones (RFC 9110 section 5.6.1).
pub(crate) fn list_members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|b| *b == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|member| !member.is_empty())
}
