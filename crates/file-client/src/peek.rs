//! Looks at what a server has sent, without reading it and without waiting.

use cli::ServerStream;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

/// Whether a connection is open and has been silent since the last reply. If the server has closed it,
/// or sent something unasked, the next request needs a new one.
pub(crate) fn is_open(stream: &ServerStream) -> bool {
    peek(stream, &mut [0]) == Err(Errno::AGAIN)
}

/// Whether the server has begun its answer, or ended the connection. An interim response (1xx) is no
/// answer.
pub(crate) fn has_answered(stream: &ServerStream) -> bool {
    const CLASS_AT: usize = "HTTP/1.1 ".len();
    let mut start = [0; CLASS_AT + 1];
    match peek(stream, &mut start) {
        Ok(0) => true,
        Ok(bytes) => bytes > CLASS_AT && start[CLASS_AT] != b'1',
        Err(error) => error != Errno::AGAIN,
    }
}

/// The bytes that the next read would return, without waiting.
fn peek(stream: &ServerStream, start: &mut [u8]) -> Result<usize, Errno> {
    let (bytes, _) = recv(stream, start, RecvFlags::PEEK | RecvFlags::DONTWAIT)?;
    Ok(bytes)
}
