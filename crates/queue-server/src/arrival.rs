//! What a connection asks of the front door before it waits for a message, or takes one out of its queue:
//! it must not be evicted then, and few may be spared.

use std::io;
use std::sync::Arc;

use daemon::{Connection, Wakeup};

use crate::error::QueueError;

/// Has the next message arrive, though others may need the place: it is in no queue any more when it is
/// handed out. The inner error says that it cannot.
///
/// # Errors
/// Those of the stream.
pub(crate) fn must_arrive(connection: &mut Connection) -> io::Result<Result<(), QueueError>> {
    match connection.must_arrive() {
        Err(error) if error.kind() == io::ErrorKind::QuotaExceeded => {
            Ok(Err(cannot_wait(&error, connection)))
        }
        other => other.map(Ok),
    }
}

/// Has the connection keep its place while it waits, or has something reserved.
///
/// # Errors
/// [`QueueError::CannotWait`], and [`QueueError::ShuttingDown`].
pub(crate) fn become_waiter(connection: &mut Connection) -> Result<(), QueueError> {
    let counted = connection.become_waiter();
    counted.map_err(|error| cannot_wait(&error, connection))
}

/// What wakes a connection that waits.
///
/// # Errors
/// As [`become_waiter`].
pub(crate) fn wakeup(connection: &mut Connection) -> Result<Arc<Wakeup>, QueueError> {
    become_waiter(connection)?;
    let wakeup = connection.wakeup();
    wakeup.map_err(|error| cannot_wait(&error, connection))
}

/// Near the end of the server there is no room for anybody, and no use in trying it again.
fn cannot_wait(error: &io::Error, connection: &Connection) -> QueueError {
    if connection.is_stopping() {
        return QueueError::ShuttingDown;
    }
    log::warn!("A receiver is refused: {error}");
    QueueError::CannotWait(error.to_string())
}
