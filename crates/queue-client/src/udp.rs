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

/// ...and otherwise so many times as long as the last reply took, within these bounds. Every
/// further try waits twice as long as the one before.
const ROUND_TRIPS: u32 = 4;
const WAIT_MIN: Duration = Duration::from_millis(20);
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
        loop {
            let is_first = wait == self.first_wait;
            match self.socket.send(&datagram) {
                // An earlier try met a closed port; this one may find it open.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                sent => drop(sent?),
            }
            let until = (Instant::now() + wait).min(deadline);
            if let Some(kind) = self.receive(id, until, payload)? {
                if is_first {
                    // Of a repeated request nobody knows which try the reply is to.
                    let wait = ROUND_TRIPS * start.elapsed();
                    self.first_wait = wait.clamp(WAIT_MIN, WAIT_MAX);
                }
                return Ok(kind);
            }
            if Instant::now() >= deadline {
                return Err(io::Error::from(io::ErrorKind::TimedOut).into());
            }
            wait = (wait * 2).min(WAIT_MAX);
        }
    }

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
