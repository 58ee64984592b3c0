//! Message bodies (RFC 9112 sections 6 and 7): as long as `Content-Length` says, chunked, or up to the
//! end of the connection.
//!
//! Bytes that are not exactly the chunked coding are refused. Trailer fields are checked and ignored.

use std::io::{self, BufRead, Read};

use memchr::memchr;

use super::head;
use super::response::CHUNK_END;

/// The longest line that announces a chunk, extensions included, in bytes.
const CHUNK_LINE_BYTES_MAX: usize = 1024;

/// The longest trailer section behind the last chunk, in bytes.
const TRAILER_BYTES_MAX: usize = 8 * 1024;

/// How the end of a body is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyLength {
    /// There is no body.
    None,
    /// This many bytes.
    Bytes(u64),
    /// Chunks, each with its length in front (RFC 9112 section 7.1).
    Chunked,
    /// Up to the end of the connection; responses only.
    UntilClose,
}

/// Why a body could not be read to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// The peer broke the chunked coding; the sentence says how.
    #[error("bad chunked coding: {0}")]
    BadChunk(&'static str),
    /// The connection ended inside the body.
    #[error("the connection ended inside the body")]
    Incomplete,
}

impl From<BodyError> for io::Error {
    fn from(error: BodyError) -> Self {
        let kind = match error {
            BodyError::BadChunk(_) => io::ErrorKind::InvalidData,
            BodyError::Incomplete => io::ErrorKind::UnexpectedEof,
        };
        Self::new(kind, error)
    }
}

/// Reads one body from `R` and stops at its end. Errors of the body itself are [`BodyError`]s
/// inside an [`io::Error`]; all others are those of `R`.
#[derive(Debug)]
pub struct Body<R> {
    input: R,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Bytes(u64),
    ChunkLine,
    Chunk(u64),
    ChunkEnd,
    UntilClose,
    Done,
    /// After an error the rest of the stream has no meaning.
    Broken,
}

impl<R: BufRead> Body<R> {
    /// The body that follows a head.
    pub fn new(input: R, length: BodyLength) -> Self {
        let state = match length {
            BodyLength::None | BodyLength::Bytes(0) => State::Done,
            BodyLength::Bytes(bytes) => State::Bytes(bytes),
            BodyLength::Chunked => State::ChunkLine,
            BodyLength::UntilClose => State::UntilClose,
        };
        Self { input, state }
    }

    /// What the body is read from.
    pub fn input(&mut self) -> &mut R {
        &mut self.input
    }

    /// Whether the body was read to its end, so that the next message can follow.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    fn read_some(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.state {
                State::Done => return Ok(0),
                State::Broken => return Err(BodyError::Incomplete.into()),
                State::UntilClose => {
                    let taken = self.input.read(out)?;
                    if taken == 0 {
                        self.state = State::Done;
                    }
                    return Ok(taken);
                }
                State::Bytes(left) => {
                    let taken = self.read_at_most(left, out)?;
                    self.state = match left - taken as u64 {
                        0 => State::Done,
                        left => State::Bytes(left),
                    };
                    return Ok(taken);
                }
                State::Chunk(left) => {
                    let taken = self.read_at_most(left, out)?;
                    self.state = match left - taken as u64 {
                        0 => State::ChunkEnd,
                        left => State::Chunk(left),
                    };
                    return Ok(taken);
                }
                State::ChunkLine => {
                    self.state = match self.read_chunk_line()? {
                        0 => {
                            self.read_trailers()?;
                            State::Done
                        }
                        bytes => State::Chunk(bytes),
                    }
                }
                State::ChunkEnd => {
                    let mut end = [0; CHUNK_END.len()];
                    self.input.read_exact(&mut end)?;
                    if end != CHUNK_END {
                        return Err(BodyError::BadChunk("a chunk is longer than it said").into());
                    }
                    self.state = State::ChunkLine;
                }
            }
        }
    }

    fn read_at_most(&mut self, left: u64, out: &mut [u8]) -> io::Result<usize> {
        let room = out.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        match self.input.read(&mut out[..room])? {
            0 => Err(BodyError::Incomplete.into()),
            taken => Ok(taken),
        }
    }

    fn read_chunk_line(&mut self) -> io::Result<u64> {
        let mut line = Vec::new();
        read_line(&mut self.input, CHUNK_LINE_BYTES_MAX, &mut line)?;
        let line = whole_line(
            &line,
            "a chunk's first line is too long or ends in a bare LF",
        )?;
        let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
        let (size, extensions) = line.split_at(digits);
        if !are_extensions(extensions) {
            let how = "a chunk's size is followed by something that is no extension";
            return Err(BodyError::BadChunk(how).into());
        }
        std::str::from_utf8(size)
            .ok()
            .and_then(|size| u64::from_str_radix(size, 16).ok())
            .ok_or_else(|| BodyError::BadChunk("its size is not a hexadecimal number").into())
    }

    fn read_trailers(&mut self) -> io::Result<()> {
        let mut left = TRAILER_BYTES_MAX;
        let mut line = Vec::new();
        loop {
            line.clear();
            read_line(&mut self.input, left, &mut line)?;
            left -= line.len();
            let field = whole_line(&line, "the trailer is too long or has a bare LF")?;
            if field.is_empty() {
                return Ok(());
            }
            let name = field.iter().position(|b| *b == b':').unwrap_or(0);
            if name == 0 || !field[..name].iter().all(|b| head::is_token_byte(*b)) {
                return Err(BodyError::BadChunk("a trailer field has no name").into());
            }
            if !field[name..].iter().all(|b| head::is_value_byte(*b)) {
                return Err(BodyError::BadChunk("a control byte in a trailer field").into());
            }
        }
    }
}

impl<R: BufRead> Read for Body<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        self.read_some(out).map_err(|error| {
            // Nothing was read, and the caller may read again.
            if error.kind() == io::ErrorKind::Interrupted {
                return error;
            }
            self.state = State::Broken;
            match error.kind() {
                io::ErrorKind::UnexpectedEof if error.get_ref().is_none() => {
                    BodyError::Incomplete.into()
                }
                _ => error,
            }
        })
    }
}

/// Whether some bytes of the next chunk have arrived behind the last byte of a chunk, so that reading them
/// does not wait for the peer. The last chunk, which begins with a zero, has no bytes.
pub fn has_next_chunk(arrived: &[u8]) -> bool {
    let line = arrived.get(CHUNK_END.len()..).unwrap_or_default();
    !line.starts_with(b"0") && memchr(b'\n', line).is_some_and(|at| at + 1 < line.len())
}

/// Appends one line with its line feed to `line`, at most `bytes_max` bytes. At the end of the stream
/// the line may lack its line feed, or be empty.
pub(crate) fn read_line(
    input: &mut impl BufRead,
    bytes_max: usize,
    line: &mut Vec<u8>,
) -> io::Result<()> {
    input.take(bytes_max as u64).read_until(b'\n', line)?;
    Ok(())
}

/// Whether the rest of a chunk's first line is empty or holds chunk extensions (RFC 9112 section 7.1.1):
/// `;name`, `;name=value` or `;name="value"`, with white space around the semicolon and the equals sign.
fn are_extensions(mut rest: &[u8]) -> bool {
    fn next(mut rest: &[u8]) -> Option<&[u8]> {
        rest = skip_space(rest).strip_prefix(b";")?;
        rest = skip_token(skip_space(rest))?;
        match skip_space(rest).strip_prefix(b"=").map(skip_space) {
            None => Some(rest),
            Some(value @ [b'"', ..]) => skip_quoted(value),
            Some(value) => skip_token(value),
        }
    }
    while !rest.is_empty() {
        match next(rest) {
            Some(behind) => rest = behind,
            None => return false,
        }
    }
    true
}

fn skip_space(bytes: &[u8]) -> &[u8] {
    let count = bytes.iter().take_while(|b| matches!(b, b' ' | b'\t'));
    &bytes[count.count()..]
}

fn skip_token(bytes: &[u8]) -> Option<&[u8]> {
    let count = bytes
        .iter()
        .take_while(|b| head::is_token_byte(**b))
        .count();
    (count > 0).then(|| &bytes[count..])
}

/// What follows a quoted string (RFC 9110 section 5.6.4).
fn skip_quoted(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes.strip_prefix(b"\"")?;
    loop {
        rest = match rest {
            [b'"', behind @ ..] => return Some(behind),
            [b'\\', quoted, behind @ ..] if head::is_value_byte(*quoted) => behind,
            [b'\\', ..] => return None,
            [plain, behind @ ..] if head::is_value_byte(*plain) => behind,
            _ => return None,
        };
    }
}

fn whole_line<'a>(line: &'a [u8], otherwise: &'static str) -> Result<&'a [u8], BodyError> {
    match line.strip_suffix(b"\r\n") {
        Some(line) if !line.contains(&b'\r') => Ok(line),
        _ if line.is_empty() => Err(BodyError::Incomplete),
        _ => Err(BodyError::BadChunk(otherwise)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(length: BodyLength, stream: &[u8]) -> Result<(String, String), String> {
        let mut rest = stream;
        let mut body = Body::new(&mut rest, length);
        let mut text = String::new();
        body.read_to_string(&mut text).map_err(|e| e.to_string())?;
        assert!(body.is_done());
        Ok((text, String::from_utf8_lossy(rest).into_owned()))
    }

    #[track_caller]
    fn check(length: BodyLength, stream: &str, want: (&str, &str)) {
        let got = read(length, stream.as_bytes()).unwrap();
        assert_eq!((got.0.as_str(), got.1.as_str()), want);
        // And no shorter stream is a whole body.
        let bytes = stream.len() - want.1.len();
        for cut in 0..bytes {
            read(length, &stream.as_bytes()[..cut]).unwrap_err();
        }
    }

    #[test]
    fn bodies_end_where_they_should() {
        check(BodyLength::None, "next", ("", "next"));
        check(BodyLength::Bytes(0), "next", ("", "next"));
        check(BodyLength::Bytes(3), "onenext", ("one", "next"));
        let chunked = BodyLength::Chunked;
        check(chunked, "0\r\n\r\nnext", ("", "next"));
        check(chunked, "3\r\none\r\n0\r\n\r\nnext", ("one", "next"));
        check(
            chunked,
            "1\r\na\r\n0000000000000000000B\r\nbcdefghijkl\r\n00\r\n\r\n",
            ("abcdefghijkl", ""),
        );
        check(
            chunked,
            "1;x=\"y\"\r\na\r\n0;z\r\nT: v\r\n\r\nnext",
            ("a", "next"),
        );
        check(
            chunked,
            "1 ; x\t= y;z=\"\";q=\"; \\\" \u{e4}\"\r\na\r\n0\r\n\r\n",
            ("a", ""),
        );
        let close = read(BodyLength::UntilClose, b"all").unwrap();
        assert_eq!(close, ("all".to_owned(), String::new()));
    }

    #[test]
    fn the_next_chunk_has_arrived_when_some_of_it_has() {
        for (arrived, want) in [
            ("", false),
            ("\r\n", false),
            ("\r\n5", false),
            ("\r\n5\r\n", false),
            ("\r\n5\r\nh", true),
            ("\r\n0\r\n\r\n", false),
        ] {
            assert_eq!(has_next_chunk(arrived.as_bytes()), want, "{arrived:?}");
        }
    }

    #[test]
    fn bad_chunks_are_refused() {
        for bad in [
            "\r\n",
            "x\r\n",
            "-1\r\n",
            "+1\r\na\r\n",
            "0x1\r\na\r\n",
            "1\na\n",
            "1\r\nab\r\n",
            "1\r\na\n0\r\n\r\n",
            " 1\r\na\r\n",
            "1 \r\na\r\n",
            "1 x\r\na\r\n",
            "ffffffffffffffffff\r\n",
            "1;\x01\r\na\r\n",
            "1;\r\r\na\r\n",
            "1;\r\na\r\n",
            "1; \r\na\r\n",
            "1;x;\r\na\r\n",
            "1;;x\r\na\r\n",
            "1;x \r\na\r\n",
            "1;x y\r\na\r\n",
            "1;x=\r\na\r\n",
            "1;=y\r\na\r\n",
            "1;x==y\r\na\r\n",
            "1;x=y z\r\na\r\n",
            "1;x=\"y\r\na\r\n",
            "1;x=\"y\\\"\r\na\r\n",
            "1;x=\"y\"z\r\na\r\n",
            "1;(x)\r\na\r\n",
            "1,x\r\na\r\n",
            "0\r\n: v\r\n\r\n",
            "0\r\nbad name: v\r\n\r\n",
            "0\r\nT: v\n\r\n",
            "0\r\nT: v\0\r\n\r\n",
        ] {
            let error = read(BodyLength::Chunked, bad.as_bytes()).unwrap_err();
            assert!(error.starts_with("bad chunked coding"), "{bad:?}: {error}");
        }
        let long = format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(CHUNK_LINE_BYTES_MAX));
        read(BodyLength::Chunked, long.as_bytes()).unwrap_err();
        let long = format!("0\r\nT: {}\r\n\r\n", "x".repeat(TRAILER_BYTES_MAX));
        read(BodyLength::Chunked, long.as_bytes()).unwrap_err();
    }

    /// A stream whose first read is interrupted.
    struct Interrupted(Option<io::ErrorKind>, &'static [u8]);

    impl Read for Interrupted {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            match self.0.take() {
                Some(kind) => Err(kind.into()),
                None => self.1.read(out),
            }
        }
    }

    #[test]
    fn an_interrupted_read_can_be_made_again() {
        let stream = Interrupted(Some(io::ErrorKind::Interrupted), b"one");
        let mut body = Body::new(io::BufReader::new(stream), BodyLength::Bytes(3));
        let error = body.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Interrupted);
        let mut text = String::new();
        body.read_to_string(&mut text).unwrap();
        assert_eq!(text, "one");
        let stream = Interrupted(Some(io::ErrorKind::Interrupted), b"GET / HTTP/1.1\r\n\r\n");
        let read = head::read_head(&mut io::BufReader::new(stream), &mut Vec::new());
        assert_eq!(read.unwrap(), head::Progress::Whole);
    }
}
