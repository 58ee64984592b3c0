//! Text protocols: those of the original course servers, one request a connection.

use std::io;
use std::time::Duration;

use crate::connection::Connection;

/// What a text protocol does with a connection.
pub trait TextHandler: Send + Sync + 'static {
    /// Serves one connection. The deadline for its request is set. When this returns, what was written is
    /// sent and the connection is closed.
    ///
    /// # Errors
    /// Those of the connection; they are logged for `-v` and end the connection alone.
    fn serve(&self, connection: &mut Connection) -> io::Result<()>;

    /// How long a request may take from its first byte on.
    fn request_wait(&self) -> Duration;

    /// How much of a request this looks at, in bytes.
    fn request_bytes_max(&self) -> usize;

    /// What a connection is told that is not served: the sentence as this protocol says it.
    fn error_reply(&self, sentence: &str) -> Vec<u8>;
}
