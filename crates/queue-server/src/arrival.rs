//! Waiting for a message, and what a connection asks of the front door before it does so, or takes one out
//! of its queue: it must not be evicted then, and few may be spared. It waits alike for what its session has
//! begun over another connection.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use daemon::{Connection, Waited, Wakeup};
use proto::queue::QueueNames;

use crate::error::QueueError;
use crate::queues::{Outcome, Pending, Queues, Wake};
use crate::sessions::Attached;

/// How long a connection waits at most for what the one before it has begun: longer than a change waits for
/// a locked database.
const TAKEOVER_WAIT: Duration = Duration::from_secs(30);

impl Wake for Wakeup {
    fn wake(&self) {
        self.wake();
    }
}

/// Receives by `attempt`, and waits for a message of these queues if there is none.
///
/// # Errors
/// Those of the connection, also if its peer hangs up meanwhile. Inside, why there is no message:
/// [`QueueError::ShuttingDown`], [`QueueError::CannotWait`] and those of `attempt`.
pub(crate) fn receive(
    queues: &Queues,
    asked: &QueueNames,
    wait: Duration,
    connection: &mut Connection,
    mut attempt: impl FnMut() -> Result<Pending, QueueError>,
) -> io::Result<Result<Pending, QueueError>> {
    let mut received = attempt();
    // It must be able to receive what it has sent or released before.
    if is_nothing(&received) && connection.wait_for_replies()? {
        received = attempt();
    }
    if !is_nothing(&received) || wait.is_zero() {
        return Ok(received);
    }
    let deadline = Instant::now() + wait;
    let wakeup = match wakeup(connection) {
        Ok(wakeup) => wakeup,
        Err(error) => return Ok(Err(error)),
    };
    loop {
        let waiter = match queues.add_waiter(asked, Arc::clone(&wakeup) as _) {
            Ok(waiter) => waiter,
            Err(error) => return Ok(Err(error)),
        };
        // It is dropped after the message is received: before, that would wake the next waiter.
        let woken = match &waiter {
            Some(_) => until_woken(connection, deadline)?,
            None => Ok(true),
        };
        match woken {
            Ok(true) => {}
            Ok(false) => return Ok(attempt()),
            Err(error) => return Ok(Err(error)),
        }
        let received = attempt();
        if !is_nothing(&received) {
            return Ok(received);
        }
    }
}

/// Waits until nothing is being carried out that the session's connection before has begun.
///
/// # Errors
/// As [`receive`]; inside also [`QueueError::TakenOver`], and [`QueueError::SessionBusy`] if it takes too long.
pub(crate) fn when_idle(
    mut attached: Attached,
    connection: &mut Connection,
) -> io::Result<Result<Attached, QueueError>> {
    match attached.is_idle(None) {
        Ok(true) => return Ok(Ok(attached)),
        Ok(false) => {}
        Err(error) => return Ok(Err(error)),
    }
    let deadline = Instant::now() + TAKEOVER_WAIT;
    let wakeup = match wakeup(connection) {
        Ok(wakeup) => wakeup,
        Err(error) => return Ok(Err(error)),
    };
    loop {
        match attached.is_idle(Some(Arc::clone(&wakeup) as _)) {
            Ok(true) => return Ok(Ok(attached)),
            Ok(false) => {}
            Err(error) => return Ok(Err(error)),
        }
        match until_woken(connection, deadline)? {
            Ok(true) => {}
            Ok(false) => return Ok(Err(QueueError::SessionBusy)),
            Err(error) => return Ok(Err(error)),
        }
    }
}

/// Waits until the connection is woken, or the deadline; returns whether it was woken.
///
/// # Errors
/// Those of the connection, also if its peer hangs up; inside, [`QueueError::ShuttingDown`].
fn until_woken(
    connection: &mut Connection,
    deadline: Instant,
) -> io::Result<Result<bool, QueueError>> {
    match connection.wait(deadline)? {
        Waited::Woken => Ok(Ok(true)),
        Waited::TimedOut => Ok(Ok(false)),
        Waited::Stopping => Ok(Err(QueueError::ShuttingDown)),
        Waited::HungUp => Err(io::ErrorKind::ConnectionAborted.into()),
    }
}

/// Whether a receiver that may wait has to.
fn is_nothing(received: &Result<Pending, QueueError>) -> bool {
    matches!(
        received,
        Ok(Pending::Done(Outcome::Empty)) | Err(QueueError::Paused(_))
    )
}

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
fn wakeup(connection: &mut Connection) -> Result<Arc<Wakeup>, QueueError> {
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
