//! The datagrams of a server that stands by.

use std::net::{SocketAddr, UdpSocket};

use daemon::{DatagramCounter, DatagramService, Outcome};

use super::arrived::Arrived;
use crate::error::QueueError;
use crate::text;

/// Refuses every request. A sender of the text protocol expects no reply, and gets none.
pub(crate) struct StandbyDatagrams {
    pub(crate) takes_text: bool,
    pub(crate) counter: DatagramCounter,
}

impl DatagramService for StandbyDatagrams {
    fn serve_datagram(&self, datagram: &[u8], peer: SocketAddr, socket: &UdpSocket) {
        let refused = QueueError::Standby;
        let (kind, reply) = match Arrived::of(datagram, peer, self.takes_text) {
            None => return,
            Some(Arrived::Frame { origin, kind, .. }) => {
                (Some(kind), Some(origin.reply(Err(&refused))))
            }
            Some(Arrived::TextGet) => (None, Some(text::error_reply(&refused.to_string()))),
            Some(Arrived::TextSend) => {
                log::warn!("A message from {peer} was dropped: {refused}");
                (None, None)
            }
        };
        (self.counter).answered(self.counter.begin(kind), Outcome::Error);
        match reply.map(|reply| socket.send_to(&reply, peer)) {
            None => {}
            Some(Ok(bytes)) => self.counter.sent(bytes),
            Some(Err(error)) => log::warn!("No reply to {peer}: {error}"),
        }
    }

    fn flush(&self, _socket: &UdpSocket) {}
}
