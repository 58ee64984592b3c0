//! Sends a follower what it follows.

use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use daemon::{Connection, Waited};
use proto::frame::Message as _;
use proto::history::Reply;

use crate::HistoryError;
use crate::history::{Event, History, Removed};

/// If nothing was sent for this long, an empty piece is. It shows the client that the server is there, and
/// the server that the client is.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// Has the connection keep its place while it follows.
///
/// # Errors
/// [`HistoryError::Busy`], [`HistoryError::Stopping`].
pub(crate) fn make_room(connection: &mut Connection) -> Result<(), HistoryError> {
    let counted = connection.become_waiter();
    match counted.and_then(|()| connection.wakeup()) {
        Ok(_) => Ok(()),
        Err(_) if connection.is_stopping() => Err(HistoryError::Stopping),
        Err(error) => {
            log::warn!("A follower is refused: {error}");
            Err(HistoryError::Busy(error))
        }
    }
}

/// Sends the lines behind one with a sequence number, and each new one when it is there, until the client
/// ends the connection or the server stops. [`make_room`] comes first. `put` writes an event, or if there
/// is none, what shows that the server is there.
///
/// # Errors
/// Those of the connection. Inside, [`HistoryError::NotAUser`] as soon as it may not follow any more,
/// [`HistoryError::Stopping`], [`HistoryError::Read`].
pub(crate) fn follow(
    history: &History,
    behind: u64,
    connection: &mut Connection,
    may_follow: impl Fn() -> bool,
    put: impl Fn(Option<Event>, &mut Vec<u8>),
) -> io::Result<Result<(), HistoryError>> {
    // A wakeup that is meant for a reply must not end a wait for lines.
    connection.flush()?;
    connection.send_without_end();
    let wakeup = connection.wakeup()?;
    let wake = move || wakeup.wake();
    let mut follower = match history.follow(behind, wake) {
        Ok(follower) => follower,
        Err(error) => return Ok(Err(error)),
    };
    let mut quiet_since = Instant::now();
    loop {
        // The administrator may have taken the user off the list.
        if !may_follow() {
            return Ok(Err(HistoryError::NotAUser));
        }
        let mut blocks_left = follower.blocks_max();
        loop {
            let out = connection.output();
            match follower.next(|event| put(Some(event), out)) {
                // Block by block, so that one that lags behind takes no more memory.
                Ok(true) => {
                    // A page may show none of them.
                    if !connection.output().is_empty() {
                        quiet_since = Instant::now();
                        connection.flush()?;
                    }
                    blocks_left -= 1;
                    if blocks_left == 0 {
                        follower.wake_again();
                        break;
                    }
                }
                Ok(false) => break,
                Err(error) => return Ok(Err(error)),
            }
        }
        // Also if it is woken again and again.
        if quiet_since.elapsed() >= HEARTBEAT {
            put(None, connection.output());
            quiet_since = Instant::now();
        }
        match connection.wait(quiet_since + HEARTBEAT)? {
            Waited::Woken | Waited::TimedOut => {}
            Waited::HungUp => return Ok(Ok(())),
            Waited::Stopping => return Ok(Err(HistoryError::Stopping)),
        }
    }
}

/// Writes an event as a frame.
pub(crate) fn put(event: Option<Event>, out: &mut Vec<u8>) {
    match event {
        None => Reply::Text(b""),
        Some(Event::Line { sequence, record }) => Reply::Line {
            sequence,
            text: record,
        },
        Some(Event::Deleted(Removed { first, last })) => Reply::Deleted { first, last },
    }
    .encode(out);
}
