//! What a server answers that stands by: always that it does, in each protocol. A client then tries the next server.

use std::io::{self, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use daemon::http::{Handled, Http, HttpHandler, Probes, RequestBody, Response};
use daemon::{
    Caller, Connection, DatagramCounter, DatagramService, FrameHandler, FrameSession, Next,
    Outcome, Protocols, Role, TextHandler, put_error,
};
use proto::ErrorCode;
use proto::frame::{FrameError, Message as _};
use proto::http::{Refusal, RequestHead};
use proto::queue::{BODY_BYTES_MAX, FIELD_BYTES_MAX, Request};

use crate::datagram::refuse;
use crate::error::{QueueError, STANDBY};
use crate::http::{self, IDLE};
use crate::{requests, text};

/// How long a request may take from its first byte on.
const REQUEST_WAIT: Duration = Duration::from_secs(10);

/// How much of a text is looked at, in bytes: nothing has to be.
const TEXT_BYTES_MAX: usize = 1;

/// The protocols of a server that stands by.
pub(crate) fn protocols() -> Arc<Protocols> {
    Arc::new(Protocols {
        frames: Some(Arc::new(Standby)),
        text: Some(Arc::new(Standby)),
        http: Some(Http {
            handler: Arc::new(Standby),
            probes: Probes::new("", Arc::new(())).unavailable(STANDBY),
        }),
    })
}

/// The same over UDP.
pub(crate) fn datagrams(counter: DatagramCounter) -> Arc<dyn DatagramService> {
    Arc::new(StandbyDatagrams(counter))
}

struct Standby;

impl FrameHandler for Standby {
    fn session(&self, _: &Caller) -> Box<dyn FrameSession + '_> {
        Box::new(Self)
    }

    fn needs(&self, kind: u8, payload: &[u8]) -> Role {
        Request::decode(kind, payload).map_or(Role::Read, |request| requests::role(&request))
    }

    fn payload_bytes_max(&self) -> usize {
        BODY_BYTES_MAX + FIELD_BYTES_MAX
    }

    fn frame_wait(&self) -> Duration {
        REQUEST_WAIT
    }
}

impl FrameSession for Standby {
    fn handle(&mut self, _: u8, _: &[u8], connection: &mut Connection) -> io::Result<Next> {
        put_error(ErrorCode::Standby, STANDBY, connection.output());
        connection.answered(Outcome::Error);
        // Over this connection it would stay so.
        Ok(Next::Close)
    }

    fn refuse(&mut self, _: &FrameError, connection: &mut Connection) -> io::Result<()> {
        self.handle(0, &[], connection).map(drop)
    }

    /// No long frame is kept.
    fn reserve(&mut self, _: usize) -> bool {
        false
    }
}

impl TextHandler for Standby {
    fn serve(&self, connection: &mut Connection) -> io::Result<()> {
        connection.write_all(&text::error_reply(STANDBY))
    }

    fn request_wait(&self) -> Duration {
        REQUEST_WAIT
    }

    fn request_bytes_max(&self) -> usize {
        TEXT_BYTES_MAX
    }

    fn error_reply(&self, sentence: &str) -> Vec<u8> {
        text::error_reply(sentence)
    }
}

impl HttpHandler for Standby {
    fn handle(
        &self,
        _: &Caller,
        request: &RequestHead<'_>,
        _: &mut dyn RequestBody,
    ) -> Result<Handled, Refusal> {
        Ok(Handled::Now(http::refuse_all(request, QueueError::Standby)))
    }

    fn refuse(&self, refusal: &Refusal) -> Response {
        http::refuse(refusal)
    }

    fn idle_timeout(&self, _: usize) -> Duration {
        IDLE
    }
}

struct StandbyDatagrams(DatagramCounter);

impl DatagramService for StandbyDatagrams {
    fn serve_datagram(&self, datagram: &[u8], peer: SocketAddr, socket: &UdpSocket) {
        // A text has no reply that would not be taken for a message.
        let Some(reply) = refuse(datagram, peer, ErrorCode::Standby, STANDBY) else {
            log::warn!("A datagram from {peer} was dropped: {STANDBY}");
            return;
        };
        match socket.send_to(&reply, peer) {
            Ok(bytes) => self.0.sent(bytes),
            Err(error) => log::warn!("No reply to {peer}: {error}"),
        }
    }

    fn flush(&self, _: &UdpSocket) {}
}
