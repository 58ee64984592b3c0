//! Requests and replies over UDP, where either may be lost, doubled or late: a request is repeated
//! until its reply comes, and a reply to anything else is passed over.

use std::io;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use cli::Endpoint;
use proto::queue::{DATAGRAM_BYTES_MAX, Request, put_datagram, split_datagram};
use uuid::Uuid;

use crate::Error;

/// How long the first try waits if nothing is known of the network yet...
const FIRST_WAIT: Duration = Duration::from_millis(200);

/// ...and otherwise so many times as long as the last reply took, within these bounds.
const ROUND_TRIPS: u32 = 4;
const FIRST_WAIT_MIN: Duration = Duration::from_millis(20);
const FIRST_WAIT_MAX: Duration = Duration::from_millis(500);

/// Every further try waits twice as long as the one before, but no longer than this.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// A UDP socket with one server at its other end.
pub(crate) struct Datagrams {
    socket: UdpSocket,
    timeout: Duration,
    first_wait: Duration,
    buffer: Vec<u8>,
}

impl Datagrams {
    pub(crate) fn new(server: &Endpoint) -> Result<Self, Error> {
        Ok(Self {
            socket: server.connect_udp()?,
            timeout: server.timeout,
            first_wait: FIRST_WAIT,
            buffer: vec![0; usize::from(u16::MAX)],
        })
    }

    /// Sends a request, and again while no reply comes. The server acts on it once however often it
    /// comes. Returns the reply's kind and leaves its payload in `payload`.
    pub(crate) fn ask(&mut self, request: &Request, payload: &mut Vec<u8>) -> Result<u8, Error> {
        let id = Uuid::new_v4().as_u64_pair().0;
        let mut datagram = Vec::new();
        put_datagram(&mut datagram, id, request);
        if datagram.len() > DATAGRAM_BYTES_MAX {
            return Err(Error::TooLongForUdp(datagram.len()));
        }
        let start = Instant::now();
        let deadline = start + self.timeout;
        let mut wait = self.first_wait;
        let mut is_first_try = true;
        loop {
            match self.socket.send(&datagram) {
                // An earlier try met a closed port; this one may find it open.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                sent => drop(sent?),
            }
            let until = (Instant::now() + wait).min(deadline);
            if let Some(kind) = self.receive(id, until, payload)? {
                // Of a repeated request nobody knows which try the reply is to.
                if is_first_try {
                    let wait = ROUND_TRIPS * start.elapsed();
                    self.first_wait = wait.clamp(FIRST_WAIT_MIN, FIRST_WAIT_MAX);
                }
                return Ok(kind);
            }
            if Instant::now() >= deadline {
                return Err(io::Error::from(io::ErrorKind::TimedOut).into());
            }
            wait = (wait * 2).min(WAIT_MAX);
            is_first_try = false;
        }
    }

    /// Waits for the reply to a request; `None` if it does not come in time.
    fn receive(
        &mut self,
        id: u64,
        deadline: Instant,
        payload: &mut Vec<u8>,
    ) -> Result<Option<u8>, Error> {
        loop {
            let wait = deadline.saturating_duration_since(Instant::now());
            if wait.is_zero() {
                return Ok(None);
            }
            self.socket.set_read_timeout(Some(wait))?;
            let bytes = match self.socket.recv(&mut self.buffer) {
                Ok(bytes) => bytes,
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock
                    | io::ErrorKind::Interrupted
                    | io::ErrorKind::ConnectionRefused => continue,
                    _ => return Err(error.into()),
                },
            };
            match split_datagram(&self.buffer[..bytes]) {
                Ok((replied_to, kind, reply)) if replied_to == id => {
                    payload.clear();
                    payload.extend_from_slice(reply);
                    return Ok(Some(kind));
                }
                Ok(_) => log::debug!("A late reply to an earlier request was passed over"),
                Err(error) => log::debug!("A datagram was passed over: {error}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use proto::frame::Message;
    use proto::queue::Reply;

    use super::*;

    /// What a server does with each datagram that comes: the replies' ids, made of the request's.
    type Replies = fn(u64) -> Vec<u64>;

    /// Sends one request to a server that does with each datagram what its line of the script
    /// says, and ends with the script. Returns the ids that came, and what the client got.
    fn ask(timeout: Duration, script: &[Replies]) -> (Vec<u64>, Result<u8, Error>, Duration) {
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
            let kind = client.ask(&Request::Stats, &mut payload);
            (serving.join().unwrap(), kind, client.first_wait)
        })
    }

    fn serve(server: &UdpSocket, script: &[Replies]) -> Vec<u64> {
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
                // What makes no sense is passed over, too.
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
        let (_, kind, first_wait) = ask(LONG, &[|id| vec![!id, id ^ 1, id, id]]);
        assert_eq!(kind.unwrap(), Reply::Empty.kind());
        assert!((FIRST_WAIT_MIN..=FIRST_WAIT_MAX).contains(&first_wait));
    }

    #[test]
    fn without_a_reply_the_server_is_lost_in_time() {
        let (_, kind, _) = ask(Duration::from_millis(30), &[|id| vec![!id]]);
        let error = kind.unwrap_err();
        assert_eq!(error.to_string(), "the server did not answer in time");
    }
}
