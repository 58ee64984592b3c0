//! What a server has sent and nobody has read yet: looking at it without waiting.

use cli::ServerStream;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

/// Whether a connection has been silent since the last reply. If it was closed, or the server said
/// something unasked, that it was going to close it perhaps, the next request needs a new one.
pub(crate) fn is_open(stream: &ServerStream) -> bool {
    peek(stream, &mut [0]) == Err(Errno::AGAIN)
}

/// Whether the server has begun its answer, or ended the connection. An interim response (1xx),
/// also one that was not asked for, is no answer.
pub(crate) fn has_answered(stream: &ServerStream) -> bool {
    const CLASS_AT: usize = "HTTP/1.1 ".len();
    let mut start = [0; CLASS_AT + 1];
    match peek(stream, &mut start) {
        Ok(0) => true,
        Ok(bytes) => bytes > CLASS_AT && start[CLASS_AT] != b'1',
        Err(error) => error != Errno::AGAIN,
    }
}

/// What a read would give, without waiting and without taking it.
fn peek(stream: &ServerStream, start: &mut [u8]) -> Result<usize, Errno> {
    let (bytes, _) = recv(stream, start, RecvFlags::PEEK | RecvFlags::DONTWAIT)?;
    Ok(bytes)
}
