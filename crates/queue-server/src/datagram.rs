//! A UDP request, in the dialect of its first byte.
//!
//! A datagram may be lost, doubled or late. So a framed request has an id, and one that was answered
//! before is answered in the same words; only who looks and changes nothing is shown what there is
//! now. There is no connection that could hold a message; a lease does that.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use daemon::{DatagramService, lock};
use proto::ErrorCode;
use proto::error::ErrorReply;
use proto::frame::{FIRST_BYTE, FrameError, Message as _};
use proto::plain::{QUEUE_EMPTY, QUEUE_GET};
use proto::queue::{
    Claim, DATAGRAM_BYTES_MAX, Delivery, FIELD_BYTES_MAX, QueueName, Reply, Request, put_datagram,
    split_datagram,
};

use crate::QueueError;
use crate::begun::Begun;
use crate::connection::{hand_out_plain, millis};
use crate::message::Taken;
use crate::queues::Queues;
use crate::recent::{Asked, Recent};

const TOO_LONG: &str = "the reply is too long for a datagram; ask over TCP";
const MESSAGE_TOO_LONG: &str = "the oldest message is too long for a datagram; receive it over TCP";
const NO_HOLDING: &str = "only a connection can hold a message; lease it";
const NO_WAITING: &str = "only a connection can wait for a message";

/// The queues' datagrams.
pub(crate) struct Datagrams {
    queues: Arc<Queues>,
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
    /// The same, but to act once more would do no harm, so that nobody has to remember it.
    Shown(Vec<u8>),
}

impl Datagrams {
    pub(crate) fn new(queues: Arc<Queues>) -> Self {
        Self {
            queues,
            state: Mutex::default(),
        }
    }
}

impl DatagramService for Datagrams {
    fn serve_datagram(&self, datagram: &[u8], peer: SocketAddr, socket: &UdpSocket) {
        let reply_with = |reply: &[u8]| socket.send_to(reply, peer).map(drop);
        let served = match datagram.first() {
            Some(&FIRST_BYTE) => self.serve_frame(datagram, peer, reply_with),
            _ if datagram.starts_with(QUEUE_GET) => self.serve_plain_get(socket, reply_with),
            _ => {
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
            let (peer, id) = asked;
            let reply = match self.queues.finish(begun, |reply| wrapped(id, &reply)) {
                Ok(reply) => reply,
                Err(error) => refusal(id, error.code(), &error.to_string()),
            };
            if let Err(error) = socket.send_to(&reply, peer) {
                log::warn!("No reply to {peer}: {error}");
            }
            state.recent.remember(asked, reply);
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
        let asked = (peer, id);
        let mut state = lock(&self.state);
        if let Some(reply) = state.recent.reply(&asked) {
            return reply_with(reply);
        }
        if state.begun.iter().any(|(begun, _)| *begun == Some(asked)) {
            return Ok(());
        }
        let acted = match Request::decode(kind, payload) {
            Ok(request) => {
                let acted = self.act(id, request);
                acted.unwrap_or_else(|e| Acted::Replied(refusal(id, e.code(), &e.to_string())))
            }
            Err(error) => {
                let error = FrameError::from(error);
                Acted::Replied(refusal(id, error.code(), &error.to_string()))
            }
        };
        match acted {
            Acted::Begun(begun) => {
                state.begun.push((Some(asked), begun));
                Ok(())
            }
            Acted::Replied(reply) => {
                let sent = reply_with(&reply);
                state.recent.remember(asked, reply);
                sent
            }
            Acted::Shown(reply) => reply_with(&reply),
        }
    }

    fn act(&self, id: u64, request: Request) -> Result<Acted, QueueError> {
        let queues = &*self.queues;
        let unsupported = |sentence| {
            let refusal = refusal(id, ErrorCode::Unsupported, sentence);
            Ok(Acted::Replied(refusal))
        };
        Ok(Acted::Begun(match request {
            Request::Send {
                queue,
                delay_millis,
                body,
            } => queues.send(queue, millis(delay_millis), body)?,
            Request::Receive {
                wait_millis: 1.., ..
            } => return unsupported(NO_WAITING),
            Request::Receive {
                delivery: Delivery::Hold,
                ..
            } => return unsupported(NO_HOLDING),
            Request::Receive {
                queue,
                delivery: Delivery::Lease { millis: lease },
                ..
            } => match self.reserve(id, queue)? {
                Ok(taken) => queues.lease(taken, millis(lease)),
                Err(replied) => return Ok(replied),
            },
            Request::Receive {
                queue,
                delivery: Delivery::Forget,
                ..
            } => match self.reserve(id, queue)? {
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
                claim: Claim::Held(_),
            }
            | Request::Release {
                claim: Claim::Held(_),
                ..
            }
            | Request::Unreserve {
                claim: Claim::Held(_),
            } => return unsupported(NO_HOLDING),
            Request::Extend {
                token,
                lease_millis,
            } => queues.extend(token, millis(lease_millis))?,
            Request::Peek { queue, after } => {
                return Ok(shown(
                    id,
                    queues.peek(queue, after, |reply| wrapped(id, &reply)),
                ));
            }
            Request::Stats => return Ok(shown(id, queues.stats(|reply| wrapped(id, &reply)))),
            Request::Purge { queue } => return Ok(done(id, queues.purge(queue)?)),
            Request::Pause { queue } => return Ok(done(id, queues.pause(queue, true)?)),
            Request::Resume { queue } => return Ok(done(id, queues.pause(queue, false)?)),
            Request::Kick { queue } => return Ok(done(id, queues.kick(queue)?)),
            Request::Drain { on } => return Ok(done(id, queues.drain(on))),
        }))
    }

    /// Takes the oldest message, if it fits into a datagram; or else what to reply instead.
    fn reserve(&self, id: u64, queue: QueueName) -> Result<Result<Taken, Acted>, QueueError> {
        let Some(taken) = self.queues.reserve(queue)? else {
            return Ok(Err(Acted::Replied(wrapped(id, &Reply::Empty))));
        };
        if is_too_long(&taken) {
            self.queues.untake(taken);
            let refusal = refusal(id, ErrorCode::TooLarge, MESSAGE_TOO_LONG);
            return Ok(Err(Acted::Replied(refusal)));
        }
        Ok(Ok(taken))
    }

    fn serve_plain_send(&self, body: &[u8], peer: SocketAddr) {
        match self.queues.send(QueueName::DEFAULT, Duration::ZERO, body) {
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
        let take = || self.queues.reserve(QueueName::DEFAULT).ok().flatten();
        // A plain sender is not told when his message is in the queue, so it has to be there.
        let taken = take().or_else(|| {
            self.settle(socket);
            take()
        });
        let Some(taken) = taken else {
            return reply_with(QUEUE_EMPTY.as_bytes());
        };
        if is_too_long(&taken) {
            self.queues.untake(taken);
            return reply_with(format!("Error - {MESSAGE_TOO_LONG}.").as_bytes());
        }
        hand_out_plain(&self.queues, taken, reply_with)
    }
}

/// The reply to a request that was done at once.
fn done(id: u64, messages: u64) -> Acted {
    Acted::Replied(wrapped(id, &Reply::Done { messages }))
}

/// The reply to who only looks.
fn shown(id: u64, reply: Vec<u8>) -> Acted {
    Acted::Shown(match reply.len() {
        ..=DATAGRAM_BYTES_MAX => reply,
        _ => refusal(id, ErrorCode::TooLarge, TOO_LONG),
    })
}

fn is_too_long(taken: &Taken) -> bool {
    taken.message.body.len() + FIELD_BYTES_MAX > DATAGRAM_BYTES_MAX
}

fn wrapped(id: u64, reply: &Reply) -> Vec<u8> {
    let mut datagram = Vec::new();
    put_datagram(&mut datagram, id, reply);
    datagram
}

fn refusal(id: u64, code: ErrorCode, sentence: &str) -> Vec<u8> {
    wrapped(id, &Reply::Error(ErrorReply { code, sentence }))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

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
        Queues::open(path, limits, group_commit::Fsync::Never, || {}).unwrap()
    }

    #[test]
    fn what_was_sent_in_plain_text_before_can_be_had() {
        let dir = tempfile::tempdir().unwrap();
        let queues = durable(&dir.path().join("queue.db"));
        let datagrams = Datagrams::new(Arc::new(queues));
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let peer = client.local_addr().unwrap();
        datagrams.serve_datagram(b"hello", peer, &socket);
        datagrams.serve_datagram(QUEUE_GET, peer, &socket);
        let mut reply = [0; 100];
        let bytes = client.recv(&mut reply).unwrap();
        assert_eq!(reply[..bytes].escape_ascii().to_string(), "hello");
    }
}
