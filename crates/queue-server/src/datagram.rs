//! The requests over UDP, in frames or as text.
//!
//! A datagram may be lost, doubled or late. So a framed request says its session and its number in that, and
//! one that comes again is answered as it was; a request that changes nothing is done again instead. A
//! datagram cannot hold a reservation: it leases.
//!
//! The source of a datagram from another machine may be forged. So a reply to it is at most
//! [`proto::queue::REPLY_BYTES_FACTOR`] times as long as its request. In the text protocol a short
//! request gets a whole message, so it is served to other machines only with `--udp-text`.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};

use daemon::{Asked, DatagramCounter, DatagramService, Peer, lock};
use proto::frame::{FrameError, Message as _};
use proto::queue::{DATAGRAM_BYTES_MAX, Properties, QueueName, Request};
use proto::text::QUEUE_EMPTY;

use crate::error::QueueError;
use crate::keys::Sender;
use crate::queues::{Outcome, Pending, Queues};
use crate::replies;
use crate::requests::{self, Requester};
use crate::sessions::{Seen, Session, Stamp};
use crate::text;
use arrived::Arrived;
use origin::{MESSAGE_TOO_LONG, Origin};

mod arrived;
mod origin;
#[cfg(feature = "postgres")]
mod standby;

#[cfg(feature = "postgres")]
pub(crate) use standby::StandbyDatagrams;

/// What is said when a request comes again that was refused. Its first reply has said more.
const REFUSED_BEFORE: &str = "this request was refused before";

/// The queues' datagrams.
pub(crate) struct Datagrams {
    queues: Arc<Queues>,
    /// Whether other machines may use the text protocol.
    takes_text: bool,
    counter: DatagramCounter,
    pending: Mutex<Vec<Submitted>>,
}

/// A change that is not committed yet. One from the text protocol has no reply.
type Submitted = (Asked, Option<(Origin, Option<Arc<Session>>)>, Pending);

impl Datagrams {
    pub(crate) fn new(queues: Arc<Queues>, takes_text: bool, counter: DatagramCounter) -> Self {
        Self {
            queues,
            takes_text,
            counter,
            pending: Mutex::default(),
        }
    }
}

impl DatagramService for Datagrams {
    fn serve_datagram(&self, datagram: &[u8], peer: SocketAddr, socket: &UdpSocket) {
        let reply_with = |reply: &[u8]| self.send(socket, reply, peer);
        let served = match Arrived::of(datagram, peer, self.takes_text) {
            None => Ok(()),
            Some(Arrived::Frame {
                origin,
                kind,
                payload,
            }) => self.serve_frame(origin, kind, payload, reply_with),
            Some(Arrived::TextGet) => self.serve_text_get(socket, reply_with),
            Some(Arrived::TextSend) => {
                self.serve_text_send(datagram, peer);
                Ok(())
            }
        };
        if let Err(error) = served {
            log::warn!("No reply to {peer}: {error}");
        }
    }

    fn flush(&self, socket: &UdpSocket) {
        for (asked, origin, pending) in std::mem::take(&mut *lock(&self.pending)) {
            let result = self.queues.wait(pending);
            self.counter.answered(asked, daemon::Outcome::of(&result));
            let Some((origin, session)) = origin else {
                if let Err(error) = result {
                    log::warn!("A message was dropped: {error}");
                }
                continue;
            };
            let reply = self.reply(&origin, session.as_deref(), result);
            if let Err(error) = self.send(socket, &reply, origin.peer) {
                log::warn!("No reply to {}: {error}", origin.peer);
            }
        }
    }
}

impl Datagrams {
    fn send(&self, socket: &UdpSocket, reply: &[u8], peer: SocketAddr) -> io::Result<()> {
        self.counter.sent(socket.send_to(reply, peer)?);
        Ok(())
    }

    fn serve_frame(
        &self,
        origin: Origin,
        kind: u8,
        payload: &[u8],
        reply_with: impl FnOnce(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let asked = self.counter.begin(Some(kind));
        let request = match Request::decode(kind, payload) {
            Ok(request) => request,
            Err(error) => {
                self.counter.answered(asked, daemon::Outcome::Error);
                let error = FrameError::from(error);
                return reply_with(&origin.refusal(error.code(), &error.to_string()));
            }
        };
        let mut session = None;
        let result = if requests::is_remembered(&request) {
            match self.begin(&origin) {
                Ok((in_session, Known::Nothing(stamp))) => {
                    session = Some(in_session);
                    self.apply(&origin, &request, Some(stamp))
                }
                Ok((_, Known::Outcome(outcome))) => Ok(Pending::Done(outcome)),
                Ok((_, Known::Reply(reply))) => {
                    self.counter.answered(asked, daemon::Outcome::Ok);
                    return if reply.len() <= origin.reply_bytes_max {
                        reply_with(&reply)
                    } else {
                        Ok(())
                    };
                }
                Ok((_, Known::Late)) => return Ok(()),
                Err(error) => Err(error),
            }
        } else {
            self.apply(&origin, &request, None)
        };
        let result = match result {
            Ok(Pending::Done(outcome)) => Ok(outcome),
            Ok(pending) => {
                let origin = Some((origin, session));
                lock(&self.pending).push((asked, origin, pending));
                return Ok(());
            }
            Err(error) => Err(error),
        };
        self.counter.answered(asked, daemon::Outcome::of(&result));
        reply_with(&self.reply(&origin, session.as_deref(), result))
    }

    /// Begins a request in its session.
    fn begin(&self, origin: &Origin) -> Result<(Arc<Session>, Known), QueueError> {
        let (number, now) = (origin.id.number, self.queues.now());
        let from = Some(Peer::from(origin.peer).into());
        let session = self.queues.sessions().get(origin.id.session, from, now)?;
        let known = match (session.begin(number, now)?, session.kept(number)) {
            (Seen::New(stamp), _) => Known::Nothing(stamp),
            (Seen::Known(_), Some(reply)) => Known::Reply(reply),
            (Seen::Known(answer), None) => Known::Outcome(self.queues.outcome_of(answer)?),
            (Seen::Refused(None), _) => Known::Outcome(Outcome::Empty),
            (Seen::Refused(Some(code)), _) => Known::Reply(origin.refusal(code, REFUSED_BEFORE)),
            (Seen::Pending, _) => Known::Late,
        };
        Ok((session, known))
    }

    /// Writes a reply. A lease starts with that. What nobody could say again is kept in the session until the
    /// next such reply.
    fn reply(
        &self,
        origin: &Origin,
        session: Option<&Session>,
        result: Result<Outcome, QueueError>,
    ) -> Vec<u8> {
        let reply = origin.reply(result.as_ref());
        match result {
            Ok(Outcome::Reserved(leased)) => self.queues.start_lease(leased),
            Ok(Outcome::Delivered(..)) => {
                session.inspect(|session| session.keep(origin.id.number, &reply));
            }
            Ok(Outcome::Empty) => {
                session.inspect(|session| session.refuse(origin.id.number, None));
            }
            Err(error) => {
                let code = replies::code(&error);
                session.inspect(|session| session.refuse(origin.id.number, Some(code)));
            }
            Ok(_) => {}
        }
        reply
    }

    fn apply(
        &self,
        origin: &Origin,
        request: &Request,
        stamp: Option<Stamp>,
    ) -> Result<Pending, QueueError> {
        let sender = Sender {
            user: None,
            from: Some(Peer::from(origin.peer).into()),
        };
        let mut requester = Requester::Datagram {
            body_bytes_max: origin.body_bytes_max(),
        };
        let pending = requests::apply(&self.queues, &sender, request, &mut requester)?;
        Ok(self.queues.submit(pending, stamp))
    }

    /// Puts a message at the end of the default queue, cut at the limit as over TCP.
    fn serve_text_send(&self, body: &[u8], peer: SocketAddr) {
        let asked = self.counter.begin(None);
        let (kept, cut) = body.split_at(body.len().min(self.queues.body_bytes_max()));
        if !cut.is_empty() {
            log::warn!(
                "A message from {peer} was cut to {} bytes, {} more were dropped",
                kept.len(),
                cut.len()
            );
        }
        let sent = self.queues.send(
            &Sender::default(),
            QueueName::DEFAULT,
            &Properties::default(),
            kept,
            None,
        );
        match sent {
            Ok(pending) => {
                let pending = self.queues.submit(pending, None);
                lock(&self.pending).push((asked, None, pending));
            }
            Err(error) => {
                log::warn!("A message from {peer} was dropped: {error}");
                self.counter.answered(asked, daemon::Outcome::Error);
            }
        }
    }

    fn serve_text_get(
        &self,
        socket: &UdpSocket,
        reply_with: impl FnOnce(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let asked = self.counter.begin(None);
        let oldest = || text::oldest(&self.queues, DATAGRAM_BYTES_MAX);
        let mut reserved = oldest();
        if let Ok(None) = reserved {
            // A sender is not told when its message is in the queue, so it has to be there.
            self.flush(socket);
            reserved = oldest();
        }
        self.counter.answered(asked, daemon::Outcome::of(&reserved));
        match reserved {
            Ok(Some(reserved)) => text::hand_out(&self.queues, reserved, reply_with),
            Ok(None) => reply_with(QUEUE_EMPTY.as_bytes()),
            Err(_) => reply_with(format!("Error - {MESSAGE_TOO_LONG}.").as_bytes()),
        }
    }
}

/// What is known of a request.
enum Known {
    /// It has not come before.
    Nothing(Stamp),
    /// Nothing is to be said: its reply comes when it is committed.
    Late,
    /// It was carried out.
    Outcome(Outcome),
    /// It is answered with these bytes: it was refused, or nothing else is left of what it handed out.
    Reply(Vec<u8>),
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proto::ErrorCode;
    use proto::ErrorReply;
    use proto::queue::{
        Claim, Delivery, MessageState, Reply, RequestId, put_datagram, split_datagram,
    };
    use proto::text::QUEUE_GET;

    use super::*;
    use crate::Limits;

    fn durable(path: &Path) -> Queues {
        let limits = Limits {
            body_bytes_max: 100,
            messages_max: usize::MAX,
            queue_bytes_max: usize::MAX,
            memory_bytes_max: usize::MAX,
            attempts_max: 5,
            key_window: std::time::Duration::from_secs(600),
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
            key_window: std::time::Duration::from_secs(600),
        })
    }

    #[test]
    fn what_was_sent_as_text_before_can_be_received() {
        let dir = tempfile::tempdir().unwrap();
        let queues = durable(&dir.path().join("queue.db"));
        let datagrams = Datagrams::new(Arc::new(queues), false, DatagramCounter::default());
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let peer = client.local_addr().unwrap();
        datagrams.serve_datagram(b"hello", peer, &socket);
        datagrams.serve_datagram(QUEUE_GET, peer, &socket);
        let mut reply = [0; 100];
        let bytes = client.recv(&mut reply).unwrap();
        assert_eq!(reply[..bytes].escape_ascii().to_string(), "hello");
    }

    const ID: RequestId = RequestId {
        session: uuid::Uuid::from_u128(7),
        number: 7,
    };

    /// Serves one datagram as if it came from `peer`, which is ours at the moment. Returns the reply.
    fn reply_to(datagrams: &Datagrams, datagram: &[u8], origin: Origin) -> Vec<u8> {
        let (_, kind, payload) = split_datagram(datagram).unwrap();
        let request = Request::decode(kind, payload).unwrap();
        let applied = datagrams.apply(&origin, &request, None);
        let result = applied.and_then(|pending| datagrams.queues.wait(pending));
        datagrams.reply(&origin, None, result)
    }

    /// Asks from another machine, with a request of at least `bytes` bytes.
    #[track_caller]
    fn ask_from_afar(datagrams: &Datagrams, request: &Request, bytes: usize) -> Vec<u8> {
        let mut datagram = Vec::new();
        put_datagram(&mut datagram, ID, request);
        proto::queue::pad_datagram(&mut datagram, bytes);
        let peer = SocketAddr::from(([192, 0, 2, 1], 9));
        let origin = Origin::new(peer, ID, datagram.len());
        let reply = reply_to(datagrams, &datagram, origin);
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
        let sent = queues
            .send(&Sender::default(), Q, &Properties::default(), &body, None)
            .unwrap();
        queues.carry_out(sent).unwrap();
        let datagrams = Datagrams::new(Arc::new(queues), false, DatagramCounter::default());
        let pad_it = |sentence| {
            let code = ErrorCode::BadRequest;
            Reply::Error(ErrorReply { code, sentence })
        };
        let receive = Request::Receive {
            queues: Q.into(),
            wait_millis: 0,
            delivery: Delivery::AtMostOnce,
        };
        let peek = Request::Peek {
            queue: Q,
            state: MessageState::Ready,
            after: 0,
        };
        for (request, want) in [(&receive, "pad it to 1020 "), (&peek, "pad it to 103")] {
            let reply = ask_from_afar(&datagrams, request, 0);
            let (_, kind, payload) = split_datagram(&reply).unwrap();
            match Reply::decode(kind, payload).unwrap() {
                Reply::Error(error) => assert!(error.sentence.starts_with(want), "{error:?}"),
                other => panic!("{other:?}"),
            }
        }
        let reply = ask_from_afar(&datagrams, &peek, 1200);
        assert!(reply.ends_with(&body));
        let stats = ask_from_afar(&datagrams, &Request::Stats, 0);
        check_reply(&stats, &pad_it("pad it to 56 bytes"));
        ask_from_afar(&datagrams, &Request::Stats, 56);
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
    fn a_refused_request_is_answered_each_time_it_comes_and_a_number_may_not_be_the_last() {
        let queues = Arc::new(in_memory(100));
        let datagrams = Datagrams::new(Arc::clone(&queues), false, DatagramCounter::default());
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        // On loopback, a reply is there when the request is served.
        client.set_nonblocking(true).unwrap();
        let ask = |number, request: &Request| {
            let mut datagram = Vec::new();
            put_datagram(&mut datagram, RequestId { number, ..ID }, request);
            datagrams.serve_datagram(&datagram, client.local_addr().unwrap(), &socket);
            let mut reply = [0; 1000];
            let bytes = client.recv(&mut reply).unwrap();
            let (_, kind, payload) = split_datagram(&reply[..bytes]).unwrap();
            match Reply::decode(kind, payload).unwrap() {
                Reply::Error(error) => Some(error.code),
                Reply::Empty => None,
                other => panic!("{other:?}"),
            }
        };
        let lease = Request::Receive {
            queues: QueueName::DEFAULT.into(),
            wait_millis: 0,
            delivery: Delivery::Lease { lease_millis: 1000 },
        };
        let ack = Request::Ack {
            claim: Claim::Leased(proto::queue::Token::nil()),
        };
        for _ in 0..3 {
            assert_eq!(ask(1, &lease), None);
            assert_eq!(ask(2, &ack), Some(ErrorCode::NotFound));
            let last = ask(u64::MAX, &ack);
            assert_eq!(last, Some(ErrorCode::BadRequest));
        }
        let sent = queues
            .send(
                &Sender::default(),
                QueueName::DEFAULT,
                &Properties::default(),
                b"a",
                None,
            )
            .unwrap();
        queues.carry_out(sent).unwrap();
        // It comes late, and its sender would not know of a message.
        assert_eq!(ask(1, &lease), None);
    }

    #[test]
    fn two_servers_do_not_reply_to_each_other() {
        let servers = [(); 2].map(|()| {
            let datagrams =
                Datagrams::new(Arc::new(in_memory(100)), false, DatagramCounter::default());
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_nonblocking(true).unwrap();
            let addr = socket.local_addr().unwrap();
            (datagrams, socket, addr)
        });
        let [(one, socket, addr), (other, other_socket, other_addr)] = &servers;
        let mut forged = Vec::new();
        put_datagram(&mut forged, ID, &Request::Stats);
        one.serve_datagram(&forged, *other_addr, socket);
        let mut reply = [0; 1000];
        // On loopback, what was sent is there.
        let bytes = other_socket.recv(&mut reply).unwrap();
        other.serve_datagram(&reply[..bytes], *addr, other_socket);
        let answered = socket.recv(&mut reply).unwrap_err();
        assert_eq!(answered.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn other_machines_use_the_text_protocol_only_if_they_may() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let afar = SocketAddr::from(([192, 0, 2, 1], 9));
        for (takes_text, want) in [(false, None), (true, Some(5))] {
            let datagrams = Datagrams::new(
                Arc::new(in_memory(100)),
                takes_text,
                DatagramCounter::default(),
            );
            datagrams.serve_datagram(b"hello", afar, &socket);
            datagrams.flush(&socket);
            let reserved = text::oldest(&datagrams.queues, usize::MAX).unwrap();
            assert_eq!(reserved.map(|one| one.message.body.len()), want);
        }
    }
}
