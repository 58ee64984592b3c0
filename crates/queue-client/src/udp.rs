//! Requests and replies over UDP, where either may be lost, doubled or late: a request is repeated
//! until its reply comes, and a reply to any other request is ignored.

use std::io;
use std::io::ErrorKind::{ConnectionRefused, Interrupted, TimedOut, WouldBlock};
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use cli::Endpoint;
use proto::ErrorCode;
use proto::frame::Message;
use proto::queue::{
    DATAGRAM_BYTES_MAX, PADDED_BYTES, Reply, Request, RequestId, pad_datagram, put_datagram,
    split_datagram,
};

use crate::Error;
use crate::session::Session;

/// How long the first try waits when the round trip is not known yet...
const FIRST_WAIT: Duration = Duration::from_millis(200);

/// ...and otherwise: this many times the last round trip, within these bounds.
const ROUND_TRIPS: u32 = 4;
const FIRST_WAIT_MIN: Duration = Duration::from_millis(20);
const FIRST_WAIT_MAX: Duration = Duration::from_millis(500);

/// Each further try waits twice as long as the one before, at most this long.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// UDP sockets with one server at their other end.
pub(crate) struct Datagrams {
    /// One for each address of the server, which may listen on one of them only...
    sockets: Vec<UdpSocket>,
    /// ...the index of the one in use...
    at: usize,
    /// ...and whether the server has replied there.
    has_replied: bool,
    timeout: Duration,
    first_wait: Duration,
    buffer: Vec<u8>,
}

/// A reply's kind, and the rest of it.
type Payload = (u8, Vec<u8>);

impl Datagrams {
    pub(crate) fn new(server: &Endpoint) -> Result<Self, Error> {
        Ok(Self {
            sockets: server.connect_udp()?,
            at: 0,
            has_replied: false,
            timeout: server.timeout,
            first_wait: FIRST_WAIT,
            buffer: vec![0; usize::from(u16::MAX)],
        })
    }

    /// Sends a request, and repeats it while no reply comes; the server executes it once. One that is to be
    /// padded gets another number, because what was refused was not executed. Returns the reply's kind and
    /// leaves its payload in `payload`.
    pub(crate) fn ask(
        &mut self,
        request: &Request,
        session: &mut Session,
        number: &mut u64,
        payload: &mut Vec<u8>,
    ) -> Result<u8, Error> {
        let id = session.request(*number);
        let (mut sent, mut kind) = self.ask_padded(request, id, 0, payload)?;
        for bytes in PADDED_BYTES {
            if sent >= bytes || !is_to_be_padded(kind, payload) {
                break;
            }
            // A late refusal of the old one must not pass for a reply to this one.
            *number = session.take(1);
            let id = session.request(*number);
            (sent, kind) = self.ask_padded(request, id, bytes, payload)?;
        }
        Ok(kind)
    }

    /// Does so with a datagram of at least `bytes_min`. Returns the datagram's length and the reply's kind.
    fn ask_padded(
        &mut self,
        request: &Request,
        id: RequestId,
        bytes_min: usize,
        payload: &mut Vec<u8>,
    ) -> Result<(usize, u8), Error> {
        let mut datagram = Vec::new();
        put_datagram(&mut datagram, id, request);
        pad_datagram(&mut datagram, bytes_min);
        if datagram.len() > DATAGRAM_BYTES_MAX {
            return Err(Error::TooLongForUdp(datagram.len()));
        }
        let start = Instant::now();
        let deadline = start + self.timeout;
        let mut wait = self.first_wait;
        let mut is_first_try = true;
        loop {
            let until = (Instant::now() + wait).min(deadline);
            match self.send_anywhere(id, &datagram, until) {
                Ok((kind, reply)) => {
                    // Nobody knows which of several tries a reply belongs to.
                    if is_first_try {
                        let wait = ROUND_TRIPS * start.elapsed();
                        self.first_wait = wait.clamp(FIRST_WAIT_MIN, FIRST_WAIT_MAX);
                    }
                    self.has_replied = true;
                    *payload = reply;
                    return Ok((datagram.len(), kind));
                }
                Err(error) if error.kind() == TimedOut && Instant::now() < deadline => {}
                Err(error) => return Err(error.into()),
            }
            wait = (wait * 2).min(WAIT_MAX);
            is_first_try = false;
        }
    }

    /// Sends a datagram to the server, and waits for the reply until `until`. As long as no address of
    /// the server has replied, one that refuses is followed by the next, as with TCP.
    fn send_anywhere(
        &mut self,
        id: RequestId,
        datagram: &[u8],
        until: Instant,
    ) -> io::Result<Payload> {
        let mut others = if self.has_replied {
            0
        } else {
            self.sockets.len() - 1
        };
        loop {
            let has_others = others > 0;
            let received = match self.sockets[self.at].send(datagram) {
                // An earlier try has met a closed port; this one may find it open.
                Err(error) if error.kind() != ConnectionRefused || has_others => Err(error),
                _ => self.receive(id, until, has_others),
            };
            match received {
                Err(error) if error.kind() == ConnectionRefused && has_others => {
                    others -= 1;
                    self.at = (self.at + 1) % self.sockets.len();
                }
                received => return received,
            }
        }
    }

    /// Waits for the reply to a request. If there is no other address, a refusal is ignored, because
    /// the server may be starting.
    fn receive(&mut self, id: RequestId, until: Instant, has_others: bool) -> io::Result<Payload> {
        let socket = &self.sockets[self.at];
        loop {
            let wait = until.saturating_duration_since(Instant::now());
            if wait.is_zero() {
                return Err(TimedOut.into());
            }
            socket.set_read_timeout(Some(wait))?;
            let bytes = match socket.recv(&mut self.buffer) {
                Ok(bytes) => bytes,
                Err(error) => match error.kind() {
                    ConnectionRefused if !has_others => continue,
                    WouldBlock | Interrupted => continue,
                    _ => return Err(error),
                },
            };
            match split_datagram(&self.buffer[..bytes]) {
                Ok((replied_to, kind, reply)) if replied_to == id => {
                    return Ok((kind, reply.to_vec()));
                }
                Ok(_) => log::debug!("A late reply to an earlier request is ignored"),
                Err(error) => log::debug!("A datagram is ignored: {error}"),
            }
        }
    }
}

/// Whether a server refuses a request because the reply would be too much longer. Nothing else can be
/// wrong with a request of this client.
fn is_to_be_padded(kind: u8, payload: &[u8]) -> bool {
    match Reply::decode(kind, payload) {
        Ok(Reply::Error(error)) => error.code == ErrorCode::BadRequest,
        Ok(_) | Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use proto::ErrorReply;

    use super::*;

    /// What a server does with each datagram that comes: the replies' ids, made of the request's.
    type Replies = fn(RequestId) -> Vec<RequestId>;

    impl Datagrams {
        fn say(&mut self, request: &Request, payload: &mut Vec<u8>) -> Result<u8, Error> {
            let mut session = Session::new();
            let mut number = session.take(1);
            self.ask(request, &mut session, &mut number, payload)
        }
    }

    fn other(id: RequestId) -> RequestId {
        let number = !id.number;
        RequestId { number, ..id }
    }

    fn of_another_session(id: RequestId) -> RequestId {
        RequestId {
            session: proto::queue::Token::nil(),
            ..id
        }
    }

    /// Sends one request to a server that does with each datagram what its line of the script
    /// says, and ends with the script. Returns the ids that came, and what the client got.
    fn ask(timeout: Duration, script: &[Replies]) -> (Vec<RequestId>, Result<u8, Error>, Duration) {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        let endpoint = Endpoint {
            timeout,
            ..Endpoint::new("127.0.0.1", port)
        };
        let mut client = Datagrams::new(&endpoint).unwrap();
        thread::scope(|scope| {
            let serving = scope.spawn(|| serve(&server, script));
            let mut payload = Vec::new();
            let kind = client.say(&Request::Stats, &mut payload);
            (serving.join().unwrap(), kind, client.first_wait)
        })
    }

    fn serve(server: &UdpSocket, script: &[Replies]) -> Vec<RequestId> {
        let mut buffer = [0; 100];
        let mut ids = Vec::new();
        for replies in script {
            let (bytes, peer) = server.recv_from(&mut buffer).unwrap();
            let (id, kind, payload) = split_datagram(&buffer[..bytes]).unwrap();
            assert_eq!(Request::decode(kind, payload).unwrap(), Request::Stats);
            ids.push(id);
            for id in replies(id) {
                let mut datagram = Vec::new();
                put_datagram(&mut datagram, id, &Reply::Empty);
                // A malformed reply is passed over, too.
                server.send_to(b"\0\0", peer).unwrap();
                server.send_to(&datagram, peer).unwrap();
            }
        }
        ids
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_request_is_repeated_with_its_id_until_the_reply_comes() {
        let (ids, kind, first_wait) = ask(LONG, &[|_| vec![], |_| vec![], |id| vec![id]]);
        assert_eq!(kind.unwrap(), Reply::Empty.kind());
        assert_eq!((ids[0], ids[1]), (ids[1], ids[2]));
        // Which of the three it was the reply to, and so how long it took, is not known.
        assert_eq!(first_wait, FIRST_WAIT);
    }

    #[test]
    fn replies_to_other_requests_are_passed_over() {
        let (_, kind, first_wait) = ask(
            LONG,
            &[|id| vec![other(id), of_another_session(id), id, id]],
        );
        assert_eq!(kind.unwrap(), Reply::Empty.kind());
        assert!((FIRST_WAIT_MIN..=FIRST_WAIT_MAX).contains(&first_wait));
    }

    #[test]
    fn a_request_that_is_too_short_is_padded_and_gets_a_new_id() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        let mut client = Datagrams::new(&Endpoint::new("127.0.0.1", port)).unwrap();
        let asked = thread::scope(|scope| {
            let serving = scope.spawn(|| {
                let mut buffer = [0; 65_536];
                let mut asked = Vec::new();
                for code in [
                    ErrorCode::BadRequest,
                    ErrorCode::BadRequest,
                    ErrorCode::Full,
                ] {
                    let (bytes, peer) = server.recv_from(&mut buffer).unwrap();
                    let (id, ..) = split_datagram(&buffer[..bytes]).unwrap();
                    asked.push((id, bytes));
                    let sentence = "pad it";
                    let mut reply = Vec::new();
                    put_datagram(&mut reply, id, &Reply::Error(ErrorReply { code, sentence }));
                    server.send_to(&reply, peer).unwrap();
                }
                asked
            });
            let mut payload = Vec::new();
            client.say(&Request::Stats, &mut payload).unwrap();
            assert_eq!(payload, b"\x08pad it");
            serving.join().unwrap()
        });
        let lengths: Vec<_> = asked.iter().map(|(_, bytes)| *bytes).collect();
        assert_eq!(lengths, [30, 1200, 21_836]);
        assert!(asked[0].0 != asked[1].0 && asked[1].0 != asked[2].0);
    }

    #[test]
    fn where_nobody_listens_the_next_address_is_tried() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        let mut client = Datagrams::new(&Endpoint::new("127.0.0.1", port)).unwrap();
        // Two ports with nobody there, as `::1` is before `127.0.0.1` where the server has only that.
        for _ in 0..2 {
            let gone = UdpSocket::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap();
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.connect(gone).unwrap();
            client.sockets.insert(0, socket);
        }
        thread::scope(|scope| {
            let serving = scope.spawn(|| serve(&server, &[|id| vec![id], |id| vec![id]]));
            for _ in 0..2 {
                let kind = client.say(&Request::Stats, &mut Vec::new()).unwrap();
                assert_eq!(kind, Reply::Empty.kind());
                assert_eq!((client.at, client.has_replied), (2, true));
            }
            serving.join().unwrap();
        });
    }

    #[test]
    fn without_a_reply_the_server_is_lost_in_time() {
        let (_, kind, _) = ask(Duration::from_millis(30), &[|id| vec![other(id)]]);
        let error = kind.unwrap_err();
        assert_eq!(error.to_string(), "the server did not answer in time");
    }
}
