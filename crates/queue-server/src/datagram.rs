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

use crate::connection::{code_of, forget};
use crate::queue::{Held, Message, Pending, Queue};

const TOO_LONG: &str = "the oldest message is too long for a datagram; receive it over TCP";

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
                let sent = self.queue.send(datagram).and_then(Pending::wait);
                if let Err(error) = sent {
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
        let refuse = |code, sentence: &str| {
            let mut out = Vec::new();
            put_datagram(&mut out, id, &Reply::Error(ErrorReply { code, sentence }));
            out
        };
        let reply_of = |reply: &Reply| {
            let mut out = Vec::new();
            put_datagram(&mut out, id, reply);
            out
        };
        match Request::decode(kind, payload) {
            Ok(Request::Send { body }) => {
                let sent = self.queue.send(body).and_then(Pending::wait);
                reply_with(&match sent {
                    Ok(id) => reply_of(&Reply::Stored { id }),
                    Err(error) => refuse(code_of(&error), &error.to_string()),
                })
            }
            Ok(Request::Receive { .. }) => {
                let mut held = Held::new(&self.queue);
                let Ok(Some(Message { id, body })) = held.take() else {
                    return reply_with(&reply_of(&Reply::Empty));
                };
                let id = *id;
                let reply = reply_of(&Reply::Message { id, body });
                if reply.len() > DATAGRAM_BYTES_MAX {
                    return reply_with(&refuse(ErrorCode::TooLarge, TOO_LONG));
                }
                reply_with(&reply)?;
                forget(held, id);
                Ok(())
            }
            Ok(Request::Ack { .. }) => {
                let sentence = "a message received over UDP needs no acknowledgement";
                reply_with(&refuse(ErrorCode::Unsupported, sentence))
            }
            Err(error) => {
                let error = FrameError::from(error);
                reply_with(&refuse(error.code(), &error.to_string()))
            }
        }
    }

    fn serve_plain_get(&self, reply_with: impl FnOnce(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut held = Held::new(&self.queue);
        let Ok(Some(Message { id, body })) = held.take() else {
            return reply_with(QUEUE_EMPTY.as_bytes());
        };
        if body.len() > DATAGRAM_BYTES_MAX {
            return reply_with(format!("Error - {TOO_LONG}.").as_bytes());
        }
        let id = *id;
        reply_with(body)?;
        forget(held, id);
        Ok(())
    }
}
