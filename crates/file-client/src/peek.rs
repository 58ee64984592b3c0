//! Looks at what a server has sent, without reading it and without waiting.

use std::io;

use cli::ServerStream;

/// Whether a connection is open and has been silent since the last reply. If the server has closed it,
/// or sent something unasked, the next request needs a new one.
pub(crate) fn is_open(stream: &ServerStream) -> bool {
    stream.peek(&mut [0]).is_err_and(|error| is_silent(&error))
}

/// Whether the server has begun its answer, or ended the connection. An interim response (1xx) is no
/// answer.
pub(crate) fn has_answered(stream: &ServerStream) -> bool {
    const CLASS_AT: usize = "HTTP/1.1 ".len();
    let mut start = [0; CLASS_AT + 1];
    match stream.peek(&mut start) {
        Ok(0) => true,
        Ok(bytes) => bytes > CLASS_AT && start[CLASS_AT] != b'1',
        Err(error) => !is_silent(&error),
    }
}

fn is_silent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}
