//! A UDP request, in the dialect of its first byte.
//!
//! There is no connection that could hold a message, so it is forgotten when the reply with it has
//! been sent.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use daemon::DatagramService;
use proto::ErrorCode;
use proto::error::ErrorReply;
use proto::frame::{self, FrameError, Message as _};
use proto::plain::{QUEUE_EMPTY, QUEUE_GET};
use proto::queue::{DATAGRAM_BYTES_MAX, Reply, Request, put_datagram, split_datagram};

use crate::connection::{code_of, code_of_frame};
use crate::queue::{Held, Queue};

/// The queue's datagrams.
pub(crate) struct Datagrams {
    queue: Arc<Queue>,
}

impl Datagrams {
    pub(crate) fn new(queue: Arc<Queue>) -> Self {
        Self { queue }
    }
}

impl DatagramService for Datagrams {
    fn serve_datagram(&self, datagram: &[u8], peer: SocketAddr, socket: &UdpSocket) {
        let reply_with = |reply: &[u8]| socket.send_to(reply, peer).map(drop);
        let served = match datagram.first() {
            Some(&frame::FIRST_BYTE) => self.serve_frame(datagram, reply_with),
            _ if datagram.starts_with(QUEUE_GET) => self.serve_plain_get(reply_with),
            _ => {
                if let Err(error) = self.queue.send(datagram) {
                    log::warn!("A message from {peer} was dropped: {error}");
                }
                Ok(())
            }
        };
        if let Err(error) = served {
            log::warn!("No reply to {peer}: {error}");
        }
    }
}

impl Datagrams {
    fn serve_frame(
        &self,
        datagram: &[u8],
        reply_with: impl FnOnce(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let (id, kind, payload) = match split_datagram(datagram) {
            Ok(split) => split,
            // Without the request's id nobody could tell what the reply is to.
            Err(error) => {
                log::warn!("A datagram was dropped: {error}");
                return Ok(());
            }
        };
        let mut held = Held::new(&self.queue);
        let mut out = Vec::new();
        let reply = match Request::decode(kind, payload) {
            Ok(Request::Send { body }) => match self.queue.send(body) {
                Ok(id) => Reply::Stored { id },
                Err(error) => return refuse(id, code_of(error), &error.to_string(), reply_with),
            },
            Ok(Request::Receive { .. }) => match held.take() {
                Ok(Some(message)) => Reply::Message {
                    id: message.id,
                    body: &message.body,
                },
                _ => Reply::Empty,
            },
            Ok(Request::Ack { .. }) => {
                let sentence = "a message received over UDP needs no acknowledgement";
                return refuse(id, ErrorCode::Unsupported, sentence, reply_with);
            }
            Err(error) => {
                let error = FrameError::from(error);
                return refuse(id, code_of_frame(&error), &error.to_string(), reply_with);
            }
        };
        put_datagram(&mut out, id, &reply);
        if out.len() > DATAGRAM_BYTES_MAX {
            let sentence = "the oldest message is too long for a datagram; receive it over TCP";
            return refuse(id, ErrorCode::TooLarge, sentence, reply_with);
        }
        reply_with(&out)?;
        held.ack_last();
        Ok(())
    }

    fn serve_plain_get(&self, reply_with: impl FnOnce(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut held = Held::new(&self.queue);
        match held.take() {
            Ok(Some(message)) => reply_with(&message.body)?,
            _ => return reply_with(QUEUE_EMPTY.as_bytes()),
        }
        held.ack_last();
        Ok(())
    }
}

fn refuse(
    id: u64,
    code: ErrorCode,
    sentence: &str,
    reply_with: impl FnOnce(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut out = Vec::new();
    put_datagram(&mut out, id, &Reply::Error(ErrorReply { code, sentence }));
    reply_with(&out)
}
