//! A UDP request, in the dialect of its first byte.
//!
//! A datagram may be lost, doubled or late. So a framed request has an id, and one that was answered
//! before is answered in the same words; only who looks and changes nothing is shown what there is
//! now. There is no connection that could hold a message; a lease does that.
//!
//! Its source may be forged, unless it is this machine. So a reply to another machine is at most
//! [`proto::queue::REPLY_BYTES_FACTOR`] times as long as its request; and plain text, where a short request gets a
//! whole message, is served there only if the server was told to.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use daemon::{DatagramService, lock};
use proto::ErrorCode;
use proto::frame::{FIRST_BYTE, FrameError, Message as _};
use proto::queue::{
    Claim, DATAGRAM_BYTES_MAX, Delivery, FIELD_BYTES_MAX, QueueName, Reply, Request, is_reply,
    split_datagram,
};
use proto::text::{QUEUE_EMPTY, QUEUE_GET};

use crate::QueueError;
use crate::begun::Begun;
use crate::message::Taken;
use crate::plain::hand_out_plain;
use crate::queues::Queues;
use crate::recent::Recent;
use crate::session::millis;
use asked::{Asked, MESSAGE_HEAD_BYTES, is_from_here};

mod asked;

const TOO_LONG: &str = "the reply is too long for a datagram; ask over TCP";
const MESSAGE_TOO_LONG: &str = "the oldest message is too long for a datagram; receive it over TCP";
const NO_HOLDING: &str = "only a connection can hold a message; lease it";
const NO_WAITING: &str = "only a connection can wait for a message";

/// The queues' datagrams.
pub(crate) struct Datagrams {
    queues: Arc<Queues>,
    /// Whether other machines may speak in plain text.
    takes_text: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    recent: Recent,
    /// Changes that were begun and not finished yet. Those in plain text are not answered.
    begun: Vec<(Option<Asked>, Begun)>,
}

/// What comes of a request at once.
enum Acted {
    Begun(Begun),
    /// The datagram to reply with.
    Replied(Vec<u8>),
    /// The same, but to act once more would come to the same and do no harm, so that nobody has to
    /// remember it.
    Shown(Vec<u8>),
}

impl Datagrams {
    pub(crate) fn new(queues: Arc<Queues>, takes_text: bool) -> Self {
        Self {
            queues,
            takes_text,
            state: Mutex::default(),
        }
    }
}

impl Asked {
    /// The reply to a request that was done at once.
    fn done(&self, messages: u64) -> Acted {
        Acted::Replied(self.wrapped(&Reply::Done { messages }))
    }

    /// The reply to who only looks.
    fn shown(&self, reply: Vec<u8>) -> Acted {
        Acted::Shown(match reply.len() <= self.reply_bytes_max {
            true => reply,
            false => self.too_long(reply.len(), TOO_LONG),
        })
    }
}

impl DatagramService for Datagrams {
    fn serve_datagram(&self, datagram: &[u8], peer: SocketAddr, socket: &UdpSocket) {
        let reply_with = |reply: &[u8]| socket.send_to(reply, peer).map(drop);
        let served = match datagram.first() {
            Some(&FIRST_BYTE) => self.serve_frame(datagram, peer, reply_with),
            Some(_) | None if !self.takes_text && !is_from_here(peer) => {
                log::warn!("Plain text from {peer} was dropped; --udp-text takes it");
                Ok(())
            }
            Some(_) if datagram.starts_with(QUEUE_GET) => self.serve_plain_get(socket, reply_with),
            Some(_) | None => {
                self.serve_plain_send(datagram, peer);
                Ok(())
            }
        };
        if let Err(error) = served {
            log::warn!("No reply to {peer}: {error}");
        }
    }

    fn settle(&self, socket: &UdpSocket) {
        let mut state = lock(&self.state);
        for (asked, begun) in std::mem::take(&mut state.begun) {
            let Some(asked) = asked else {
                if let Err(error) = self.queues.finish(begun, |_| {}) {
                    log::warn!("A message was dropped: {error}");
                }
                continue;
            };
            let reply = match self.queues.finish(begun, |reply| asked.wrapped(&reply)) {
                Ok(reply) => reply,
                Err(error) => asked.failure(&error),
            };
            if let Err(error) = socket.send_to(&reply, asked.peer) {
                log::warn!("No reply to {}: {error}", asked.peer);
            }
            state.recent.remember((asked.peer, asked.id), reply);
        }
    }
}

impl Datagrams {
    fn serve_frame(
        &self,
        datagram: &[u8],
        peer: SocketAddr,
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
        if is_reply(kind) {
            log::warn!("A reply of {peer} was dropped; is it a server?");
            return Ok(());
        }
        let asked = Asked::new(peer, id, datagram.len());
        let mut state = lock(&self.state);
        if let Some(reply) = state.recent.reply(&(peer, id)) {
            // The same request, so this is not too long either.
            return match reply.len() {
                1.. if reply.len() <= asked.reply_bytes_max => reply_with(reply),
                _ => Ok(()),
            };
        }
        let is_same = |begun: &Asked| (begun.peer, begun.id) == (peer, id);
        if state
            .begun
            .iter()
            .any(|(b, _)| b.as_ref().is_some_and(is_same))
        {
            return Ok(());
        }
        let request = match Request::decode(kind, payload) {
            Ok(request) => request,
            Err(error) => {
                let error = FrameError::from(error);
                return reply_with(&asked.refusal(error.code(), &error.to_string()));
            }
        };
        let only_looks = matches!(request, Request::Peek { .. } | Request::Stats);
        if !only_looks && !state.recent.has_room(peer.ip()) {
            log::warn!("A request of {peer} was dropped: too many replies are remembered");
            return Ok(());
        }
        let acted = self.act(&asked, request);
        match acted.unwrap_or_else(|error| Acted::Replied(asked.failure(&error))) {
            Acted::Begun(begun) => {
                state.begun.push((Some(asked), begun));
                Ok(())
            }
            Acted::Replied(reply) => {
                let sent = reply_with(&reply);
                state.recent.remember((peer, id), reply);
                sent
            }
            Acted::Shown(reply) => reply_with(&reply),
        }
    }

    fn act(&self, asked: &Asked, request: Request) -> Result<Acted, QueueError> {
        let queues = &*self.queues;
        let unsupported = |sentence| {
            let refusal = asked.refusal(ErrorCode::Unsupported, sentence);
            Ok(Acted::Shown(refusal))
        };
        Ok(Acted::Begun(match request {
            Request::Send {
                queue,
                delay_millis,
                body,
            } => match queues.send(queue, millis(delay_millis), body) {
                // It will always be too long.
                Err(error @ QueueError::TooLarge { .. }) => {
                    return Ok(Acted::Shown(asked.failure(&error)));
                }
                begun => begun?,
            },
            Request::Receive {
                wait_millis: 1.., ..
            } => return unsupported(NO_WAITING),
            Request::Receive {
                delivery: Delivery::AtLeastOnce,
                ..
            } => return unsupported(NO_HOLDING),
            Request::Receive {
                queue,
                delivery: Delivery::Lease { lease_millis },
                ..
            } => match self.reserve(asked, queue)? {
                Ok(taken) => queues.lease(taken, millis(lease_millis)),
                Err(replied) => return Ok(replied),
            },
            Request::Receive {
                queue,
                delivery: Delivery::AtMostOnce,
                ..
            } => match self.reserve(asked, queue)? {
                Ok(taken) => queues.deliver(taken),
                Err(replied) => return Ok(replied),
            },
            Request::Ack {
                claim: Claim::Leased(token),
            } => queues.forget(queues.claim(token)?),
            Request::Release {
                claim: Claim::Leased(token),
                delay_millis,
            } => queues.release(queues.claim(token)?, millis(delay_millis)),
            Request::Unreserve {
                claim: Claim::Leased(token),
            } => queues.unreserve(queues.claim(token)?),
            Request::Ack {
                claim: Claim::Reserved(_),
            }
            | Request::Release {
                claim: Claim::Reserved(_),
                ..
            }
            | Request::Unreserve {
                claim: Claim::Reserved(_),
            }
            | Request::UnreserveAll => return unsupported(NO_HOLDING),
            Request::Extend {
                token,
                lease_millis,
            } => queues.extend(token, millis(lease_millis))?,
            Request::Peek { queue, after } => {
                let reply = queues.peek(queue, after, |reply| asked.wrapped(&reply));
                return Ok(asked.shown(reply));
            }
            Request::Stats => {
                return Ok(asked.shown(queues.stats(|reply| asked.wrapped(&reply))));
            }
            Request::Purge { queue } => return Ok(asked.done(queues.purge(queue)?)),
            Request::Pause { queue } => return Ok(asked.done(queues.pause(queue, true)?)),
            Request::Resume { queue } => return Ok(asked.done(queues.pause(queue, false)?)),
            Request::Kick { queue } => return Ok(asked.done(queues.kick(queue)?)),
            Request::Drain { on } => return Ok(asked.done(queues.drain(on))),
        }))
    }

    /// Takes the oldest message, if it fits into the reply; or else what to reply instead.
    fn reserve(&self, asked: &Asked, queue: QueueName) -> Result<Result<Taken, Acted>, QueueError> {
        let Some(taken) = self.queues.reserve(queue)? else {
            return Ok(Err(Acted::Replied(asked.wrapped(&Reply::Empty))));
        };
        let reply_bytes = MESSAGE_HEAD_BYTES + taken.message.body.len();
        if reply_bytes > asked.reply_bytes_max {
            self.queues.untake(taken);
            let refusal = asked.too_long(reply_bytes, MESSAGE_TOO_LONG);
            return Ok(Err(Acted::Replied(refusal)));
        }
        Ok(Ok(taken))
    }

    /// Puts a message at the end of the default queue, cut at the limit as over TCP.
    fn serve_plain_send(&self, body: &[u8], peer: SocketAddr) {
        let (kept, cut) = body.split_at(body.len().min(self.queues.body_bytes_max()));
        if !cut.is_empty() {
            log::warn!(
                "A message from {peer} was cut to {} bytes, {} more were dropped",
                kept.len(),
                cut.len()
            );
        }
        match self.queues.send(QueueName::DEFAULT, Duration::ZERO, kept) {
            Ok(begun) => lock(&self.state).begun.push((None, begun)),
            Err(error) => log::warn!("A message from {peer} was dropped: {error}"),
        }
    }

    fn serve_plain_get(
        &self,
        socket: &UdpSocket,
        reply_with: impl FnOnce(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        // Who asks like this knows one error sentence, so to him a paused queue is an empty one.
        let reserve = || self.queues.reserve(QueueName::DEFAULT).ok().flatten();
        // A plain sender is not told when his message is in the queue, so it has to be there.
        let taken = reserve().or_else(|| {
            self.settle(socket);
            reserve()
        });
        let Some(taken) = taken else {
            return reply_with(QUEUE_EMPTY.as_bytes());
        };
        if taken.message.body.len() + FIELD_BYTES_MAX > DATAGRAM_BYTES_MAX {
            self.queues.untake(taken);
            return reply_with(format!("Error - {MESSAGE_TOO_LONG}.").as_bytes());
        }
        hand_out_plain(&self.queues, taken, reply_with)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proto::ErrorReply;
    use proto::queue::put_datagram;

    use super::*;
    use crate::Limits;

    fn durable(path: &Path) -> Queues {
        let limits = Limits {
            body_bytes_max: 100,
            messages_max: usize::MAX,
            queue_bytes_max: usize::MAX,
            memory_bytes_max: usize::MAX,
            attempts_max: 5,
        };
        Queues::open(path, limits, storage::Fsync::Never, || {}).unwrap()
    }

    fn in_memory(body_bytes_max: usize) -> Queues {
        Queues::in_memory(Limits {
            body_bytes_max,
            messages_max: usize::MAX,
            queue_bytes_max: usize::MAX,
            memory_bytes_max: usize::MAX,
            attempts_max: 5,
        })
    }

    #[test]
    fn what_was_sent_in_plain_text_before_can_be_had() {
        let dir = tempfile::tempdir().unwrap();
        let queues = durable(&dir.path().join("queue.db"));
        let datagrams = Datagrams::new(Arc::new(queues), false);
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let peer = client.local_addr().unwrap();
        datagrams.serve_datagram(b"hello", peer, &socket);
        datagrams.serve_datagram(QUEUE_GET, peer, &socket);
        let mut reply = [0; 100];
        let bytes = client.recv(&mut reply).unwrap();
        assert_eq!(reply[..bytes].escape_ascii().to_string(), "hello");
    }

    /// Serves one datagram as if it came from `peer`, which is ours at the moment. Returns what comes
    /// back.
    fn reply_to(datagrams: &Datagrams, datagram: &[u8], asked: Asked) -> Option<Vec<u8>> {
        let (_, kind, payload) = split_datagram(datagram).unwrap();
        let request = Request::decode(kind, payload).unwrap();
        match datagrams.act(&asked, request) {
            Ok(Acted::Begun(begun)) => datagrams
                .queues
                .finish(begun, |reply| asked.wrapped(&reply))
                .ok(),
            Ok(Acted::Replied(reply) | Acted::Shown(reply)) => Some(reply),
            Err(error) => Some(asked.failure(&error)),
        }
    }

    /// Asks from another machine, with a request of at least so many bytes.
    #[track_caller]
    fn ask_from_afar(datagrams: &Datagrams, request: &Request, bytes: usize) -> Vec<u8> {
        let mut datagram = Vec::new();
        put_datagram(&mut datagram, 7, request);
        proto::queue::pad_datagram(&mut datagram, bytes);
        let peer = SocketAddr::from(([192, 0, 2, 1], 9));
        let asked = Asked::new(peer, 7, datagram.len());
        let reply = reply_to(datagrams, &datagram, asked).unwrap();
        assert!(reply.len() <= 3 * datagram.len(), "{request:?}");
        reply
    }

    #[track_caller]
    fn check_reply(reply: &[u8], want: &Reply) {
        let (_, kind, payload) = split_datagram(reply).unwrap();
        assert_eq!(&Reply::decode(kind, payload).unwrap(), want);
    }

    #[test]
    fn a_reply_to_another_machine_is_no_longer_than_three_requests() {
        const Q: QueueName = QueueName::DEFAULT;
        let queues = in_memory(60_000);
        let body = [b'x'; 3000];
        let sent = queues.send(Q, Duration::ZERO, &body).unwrap();
        queues.finish(sent, |_| {}).unwrap();
        let datagrams = Datagrams::new(Arc::new(queues), false);
        let pad_it = |sentence| {
            let code = ErrorCode::BadRequest;
            Reply::Error(ErrorReply { code, sentence })
        };
        let receive = Request::Receive {
            queue: Q,
            wait_millis: 0,
            delivery: Delivery::AtMostOnce,
        };
        let peek = Request::Peek { queue: Q, after: 0 };
        for request in [&receive, &peek] {
            let reply = ask_from_afar(&datagrams, request, 0);
            let (_, kind, payload) = split_datagram(&reply).unwrap();
            match Reply::decode(kind, payload).unwrap() {
                Reply::Error(error) => assert!(error.sentence.starts_with("pad it to 101")),
                other => panic!("{other:?}"),
            }
        }
        let reply = ask_from_afar(&datagrams, &peek, 1200);
        assert!(reply.ends_with(&body));
        let stats = ask_from_afar(&datagrams, &Request::Stats, 0);
        check_reply(&stats, &pad_it("pad it to 48 bytes"));
        ask_from_afar(&datagrams, &Request::Stats, 48);
        let kick = Request::Kick {
            queue: QueueName::new("a").unwrap(),
        };
        check_reply(
            &ask_from_afar(&datagrams, &kick, 0),
            &Reply::Error(ErrorReply {
                code: ErrorCode::NotFound,
                sentence: "there is no queue 'a'",
            }),
        );
        let token = Claim::Leased(proto::queue::Token::nil());
        ask_from_afar(&datagrams, &Request::Ack { claim: token }, 0);
        let reply = ask_from_afar(&datagrams, &receive, 1200);
        assert!(reply.ends_with(&body), "the message was not lost meanwhile");
    }

    #[test]
    fn two_servers_do_not_reply_to_each_other() {
        let servers = [(); 2].map(|()| {
            let datagrams = Datagrams::new(Arc::new(in_memory(100)), false);
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_nonblocking(true).unwrap();
            let addr = socket.local_addr().unwrap();
            (datagrams, socket, addr)
        });
        let [(one, socket, addr), (other, other_socket, other_addr)] = &servers;
        let mut forged = Vec::new();
        put_datagram(&mut forged, 7, &Request::Stats);
        one.serve_datagram(&forged, *other_addr, socket);
        let mut reply = [0; 1000];
        // On loopback, what was sent is there.
        let bytes = other_socket.recv(&mut reply).unwrap();
        other.serve_datagram(&reply[..bytes], *addr, other_socket);
        let answered = socket.recv(&mut reply).unwrap_err();
        assert_eq!(answered.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn other_machines_speak_in_plain_text_only_if_they_may() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let afar = SocketAddr::from(([192, 0, 2, 1], 9));
        for (takes_text, want) in [(false, None), (true, Some(5))] {
            let datagrams = Datagrams::new(Arc::new(in_memory(100)), takes_text);
            datagrams.serve_datagram(b"hello", afar, &socket);
            datagrams.settle(&socket);
            let taken = datagrams.queues.reserve(QueueName::DEFAULT).unwrap();
            assert_eq!(taken.map(|taken| taken.message.body.len()), want);
        }
    }
}
