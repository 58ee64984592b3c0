//! A server that stands by for another. It has no queues: it refuses every request, so that a client tries the
//! next server, and it takes over when the other is gone.
//!
//! Who may ask is checked as ever. A connection in frames is answered what has arrived, and ends: if it
//! stayed, it would be refused also when the server has become the active one.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use daemon::http::{Http, Probes};
use daemon::{
    Caller, Connection, DatagramCounter, DatagramService, FrameHandler, FrameSession, Next,
    Outcome, Protocols, Role, TextHandler,
};
use proto::frame::{self, FrameError};
use proto::queue::FIELD_BYTES_MAX;

use crate::datagram::StandbyDatagrams;
use crate::error::{QueueError, STANDS_BY};
use crate::http::StandbyHttp;
use crate::replies::{put_error, put_reply};
use crate::{requests, service, text};

/// What a port serves.
pub(crate) fn protocols(body_bytes_max: usize) -> Protocols {
    let standby = Arc::new(Standby { body_bytes_max });
    Protocols {
        frames: Some(Arc::clone(&standby) as _),
        text: Some(standby),
        http: Some(Http {
            handler: Arc::new(StandbyHttp),
            probes: Probes::new("", Arc::new(())).unavailable(STANDS_BY),
        }),
    }
}

/// What a UDP port serves.
pub(crate) fn datagrams(takes_text: bool, counter: DatagramCounter) -> Arc<dyn DatagramService> {
    Arc::new(StandbyDatagrams {
        takes_text,
        counter,
    })
}

/// Frames and the text protocol.
struct Standby {
    /// What the active server takes, which is not said to be too long here.
    body_bytes_max: usize,
}

impl FrameHandler for Standby {
    fn session(&self, _caller: &Caller) -> Box<dyn FrameSession + '_> {
        Box::new(Refuses)
    }

    fn needs(&self, kind: u8, payload: &[u8]) -> Role {
        requests::needs(kind, payload)
    }

    fn payload_bytes_max(&self) -> usize {
        self.body_bytes_max + FIELD_BYTES_MAX
    }

    fn frame_wait(&self) -> Duration {
        service::frame_wait(self.body_bytes_max)
    }
}

/// The requests of one connection.
struct Refuses;

impl FrameSession for Refuses {
    fn handle(
        &mut self,
        _kind: u8,
        _payload: &[u8],
        connection: &mut Connection,
    ) -> io::Result<Next> {
        put_reply(Err(&QueueError::Standby), connection.output());
        connection.answered(Outcome::Error);
        Ok(match frame::starts_with_whole(connection.buffered()) {
            true => Next::Request,
            false => Next::Close,
        })
    }

    fn refuse(&mut self, error: &FrameError, connection: &mut Connection) -> io::Result<()> {
        match error {
            FrameError::NoRoom => put_reply(Err(&QueueError::Standby), connection.output()),
            error => put_error(error.code(), &error.to_string(), connection.output()),
        }
        connection.answered(Outcome::Error);
        Ok(())
    }

    /// A message is passed over: it would take memory for nothing.
    fn reserve(&mut self, bytes: usize) -> bool {
        bytes <= FIELD_BYTES_MAX
    }
}

impl TextHandler for Standby {
    /// Says so to a sender, too: it would take silence for success.
    fn serve(&self, connection: &mut Connection) -> io::Result<()> {
        connection.answered(Outcome::Error);
        connection.write_all(&self.error_reply(STANDS_BY))
    }

    fn request_wait(&self) -> Duration {
        text::TEXT_WAIT
    }

    fn request_bytes_max(&self) -> usize {
        text::bytes_max(self.body_bytes_max)
    }

    fn error_reply(&self, sentence: &str) -> Vec<u8> {
        text::error_reply(sentence)
    }
}

#[cfg(test)]
mod tests;
