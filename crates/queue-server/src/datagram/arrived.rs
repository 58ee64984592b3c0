//! What a datagram asks: a request in a frame, or the text protocol. What is neither, or must not be answered, is
//! dropped with a line in the log.

use std::net::SocketAddr;

use proto::frame::FIRST_BYTE;
use proto::http::is_http;
use proto::queue::{is_reply, split_datagram};
use proto::text::QUEUE_GET;

use super::origin::{Origin, is_local};

/// What a datagram asks.
pub(super) enum Arrived<'a> {
    /// What stands in a frame.
    Frame {
        origin: Origin,
        kind: u8,
        payload: &'a [u8],
    },
    /// The oldest message, in the text protocol.
    TextGet,
    /// To put all of it at the end of the default queue.
    TextSend,
}

impl<'a> Arrived<'a> {
    /// Takes a datagram apart; `None` if it was dropped.
    pub(super) fn of(datagram: &'a [u8], peer: SocketAddr, takes_text: bool) -> Option<Self> {
        match datagram.first() {
            Some(&FIRST_BYTE) => Self::of_frame(datagram, peer),
            Some(_) | None if !takes_text && !is_local(peer) => {
                log::warn!("Text from {peer} was dropped; --udp-text takes it");
                None
            }
            Some(_) | None if is_http(datagram) => {
                log::warn!("A datagram from {peer} was dropped: it is HTTP");
                None
            }
            Some(_) if datagram.starts_with(QUEUE_GET) => Some(Self::TextGet),
            Some(_) | None => Some(Self::TextSend),
        }
    }

    fn of_frame(datagram: &'a [u8], peer: SocketAddr) -> Option<Self> {
        match split_datagram(datagram) {
            Ok((_, kind, _)) if is_reply(kind) => {
                log::warn!("A reply of {peer} was dropped; is it a server?");
                None
            }
            Ok((id, kind, payload)) => Some(Self::Frame {
                origin: Origin::new(peer, id, datagram.len()),
                kind,
                payload,
            }),
            // Without the request's id nobody could tell what the reply is to.
            Err(error) => {
                log::warn!("A datagram was dropped: {error}");
                None
            }
        }
    }
}
