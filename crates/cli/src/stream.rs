//! Standard input and output, checked before they are used.
//!
//! Rust's runtime opens /dev/null, for reading and writing, in the place of a standard stream that
//! is closed when the program starts, and its standard library takes a bad descriptor for an empty
//! input and for a successful write. A message that is received into such a stream would be destroyed
//! in silence. So a verb that reads or writes data gets its stream from [`input`] or [`output`]
//! before it asks a server for anything. A verb that does not use a stream does not check it.

use std::fs::{File, Metadata};
use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;

use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat, makedev};

use crate::error::ClientError;
use crate::escape::TextEscaper;

/// The device number of /dev/null.
const NULL_DEVICE: (u32, u32) = (1, 3);

/// The direction in which a stream is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Reading,
    Writing,
}

/// Standard input.
///
/// # Errors
/// [`ClientError::Input`] if it is closed, or is not open for reading.
pub fn input() -> Result<Input, ClientError> {
    let file = open(io::stdin().as_fd(), Direction::Reading);
    file.map(Input).map_err(ClientError::Input)
}

/// Standard output.
///
/// # Errors
/// [`ClientError::Output`] if it is closed, or is not open for writing.
pub fn output() -> Result<Output, ClientError> {
    let file = open(io::stdout().as_fd(), Direction::Writing);
    file.map(Output::from).map_err(ClientError::Output)
}

fn open(stream: BorrowedFd, direction: Direction) -> io::Result<File> {
    check(stream, direction)?;
    Ok(stream.try_clone_to_owned()?.into())
}

fn check(stream: BorrowedFd, direction: Direction) -> io::Result<()> {
    let mode = fcntl_getfl(stream)? & OFlags::RWMODE;
    let (other_mode, closed, not_open) = match direction {
        Direction::Reading => (
            OFlags::WRONLY,
            "it is closed, or is /dev/null opened for reading and writing; </dev/null is an empty \
             input",
            "it is not open for reading",
        ),
        Direction::Writing => (
            OFlags::RDONLY,
            "it is closed, or is /dev/null opened for reading and writing; >/dev/null discards it",
            "it is not open for writing",
        ),
    };
    if mode == OFlags::RDWR && is_null(stream)? {
        return Err(io::Error::other(closed));
    }
    if mode == other_mode {
        return Err(io::Error::other(not_open));
    }
    Ok(())
}

fn is_null(stream: BorrowedFd) -> io::Result<bool> {
    let (major, minor) = NULL_DEVICE;
    let stat = fstat(stream)?;
    let is_device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
    Ok(is_device && stat.st_rdev == makedev(major, minor))
}

/// Standard input, without a buffer. Every error is reported.
#[derive(Debug)]
pub struct Input(File);

impl Read for Input {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.0.read(out)
    }
}

/// Standard output, or a file in its place, without a buffer. Every error is reported.
///
/// On a terminal, control characters other than line breaks and tabs are shown as escapes, so that
/// data from a peer cannot control the terminal. Anywhere else, data stays as it is.
#[derive(Debug)]
pub struct Output {
    file: File,
    escaper: Option<TextEscaper>,
}

impl Output {
    /// Whether a person reads it.
    pub fn is_terminal(&self) -> bool {
        self.escaper.is_some()
    }

    /// Writes a text.
    ///
    /// # Errors
    /// [`ClientError::Output`].
    pub fn print(&mut self, text: &str) -> Result<(), ClientError> {
        self.write_all(text.as_bytes()).map_err(ClientError::Output)
    }

    /// Whether it is this file. A program must not replace the file that it writes to.
    pub fn is_file(&self, file: &Metadata) -> bool {
        let out = self.file.metadata();
        out.is_ok_and(|out| (out.dev(), out.ino()) == (file.dev(), file.ino()))
    }
}

impl From<File> for Output {
    fn from(file: File) -> Self {
        let escaper = file.is_terminal().then(TextEscaper::default);
        Self { file, escaper }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.escaper {
            None => self.file.write(bytes),
            Some(escaper) => {
                self.file.write_all(escaper.add(bytes).as_bytes())?;
                Ok(bytes.len())
            }
        }
    }

    /// Writes the beginning of a character whose rest has not come.
    fn flush(&mut self) -> io::Result<()> {
        match &mut self.escaper {
            None => Ok(()),
            Some(escaper) => self.file.write_all(escaper.end().as_bytes()),
        }
    }
}

impl AsFd for Output {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Reads the next piece of an input without its end, and never more than one byte over the limit. Returns
/// whether there was one. The last piece may lack its end.
///
/// # Errors
/// Those of the input.
pub fn read_piece(
    input: &mut impl BufRead,
    end: u8,
    bytes_max: usize,
    piece: &mut Vec<u8>,
) -> io::Result<bool> {
    piece.clear();
    // One for the end.
    let mut input = input.take(bytes_max as u64 + 1);
    let bytes = input.read_until(end, piece)?;
    if piece.last() == Some(&end) {
        piece.pop();
    }
    Ok(bytes > 0)
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::os::fd::OwnedFd;

    use super::*;

    fn null(read: bool, write: bool) -> OwnedFd {
        let mut options = OpenOptions::new();
        let file = options.read(read).write(write).open("/dev/null");
        file.unwrap().into()
    }

    #[track_caller]
    fn check_both(stream: impl AsFd, is_input: bool, is_output: bool) {
        let stream = stream.as_fd();
        assert_eq!(check(stream, Direction::Reading).is_ok(), is_input);
        assert_eq!(check(stream, Direction::Writing).is_ok(), is_output);
    }

    #[test]
    fn a_stream_is_open_in_its_direction() {
        let (reader, writer) = io::pipe().unwrap();
        check_both(reader, true, false);
        check_both(writer, false, true);
        let (one, other) = std::os::unix::net::UnixStream::pair().unwrap();
        check_both(one, true, true);
        check_both(other, true, true);
    }

    #[test]
    fn what_stands_in_for_a_closed_stream_is_refused() {
        check_both(null(true, true), false, false);
        check_both(null(true, false), true, false);
        check_both(null(false, true), false, true);
    }

    #[track_caller]
    fn check_pieces(input: &str, want: &[&str]) {
        let mut input = input.as_bytes();
        let mut piece = Vec::new();
        let mut pieces = Vec::new();
        while read_piece(&mut input, b'\n', 5, &mut piece).unwrap() {
            pieces.push(String::from_utf8(piece.clone()).unwrap());
            if piece.len() > 5 {
                break;
            }
        }
        assert_eq!(pieces, want);
    }

    #[test]
    fn an_input_is_cut_into_pieces() {
        check_pieces("", &[]);
        check_pieces("a", &["a"]);
        check_pieces("a\n", &["a"]);
        check_pieces("\n\nb\n", &["", "", "b"]);
        check_pieces("12345\n12345", &["12345", "12345"]);
        check_pieces("1\n123456\n2", &["1", "123456"]);
        check_pieces("1234567890", &["123456"]);
    }
}
