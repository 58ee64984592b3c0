//! What a TCP connection asks of the queues: in frames, or in the text protocol.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use daemon::{Connection, FrameHandler, FrameSession, TextHandler};
use proto::queue::FIELD_BYTES_MAX;

use crate::queues::Queues;
use crate::session::Session;
use crate::text::serve_text;

/// A frame must be whole this long after its first byte, plus a second for each
/// [`FRAME_BYTES_A_SECOND`] that a message may have.
const FRAME_WAIT: Duration = Duration::from_secs(10);

/// See [`FRAME_WAIT`], in bytes.
const FRAME_BYTES_A_SECOND: usize = 64 * 1024;

const BUSY: &str = "Error - the server has as many connections as it accepts; try again later\n";

/// The queues over TCP.
pub(crate) struct QueueService {
    queues: Arc<Queues>,
}

impl QueueService {
    pub(crate) fn new(queues: Arc<Queues>) -> Self {
        Self { queues }
    }
}

impl FrameHandler for QueueService {
    fn session(&self, _peer: SocketAddr) -> Box<dyn FrameSession + '_> {
        Box::new(Session::new(&self.queues))
    }

    fn payload_bytes_max(&self) -> usize {
        self.queues.body_bytes_max() + FIELD_BYTES_MAX
    }

    fn frame_wait(&self) -> Duration {
        let body_secs = self.queues.body_bytes_max() / FRAME_BYTES_A_SECOND;
        FRAME_WAIT + Duration::from_secs(body_secs as u64)
    }
}

impl TextHandler for QueueService {
    fn serve(&self, connection: &mut Connection) -> io::Result<()> {
        serve_text(connection, &self.queues)
    }

    fn busy_reply(&self) -> Vec<u8> {
        BUSY.as_bytes().to_vec()
    }
}
