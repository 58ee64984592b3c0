//! Text protocols: those of the original course servers, one request a connection.

use std::io;

use crate::connection::Connection;

/// What a text protocol does with a connection.
pub trait TextHandler: Send + Sync + 'static {
    /// Serves one connection. When this returns, what was written is sent and the connection is
    /// closed.
    ///
    /// # Errors
    /// Those of the connection; they are logged for `-v` and end the connection alone.
    fn serve(&self, connection: &mut Connection) -> io::Result<()>;

    /// What a connection over the limit is told.
    fn busy_reply(&self) -> Vec<u8>;
}
