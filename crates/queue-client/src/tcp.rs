//! Requests and replies over TCP, where replies come in the order of the requests.
//!
//! Nothing in a reply says which request it belongs to. So a connection is useless once a reply has
//! not come in time: it may still come, and pass for the reply to the next request. The connection is
//! ended instead, and the server requeues what was reserved over it.
//!
//! A client with an account logs in with the first request, in the same write: that costs no round
//! trip.

use std::io::{self, BufReader, Write};
use std::sync::Arc;
use std::time::Duration;

use cli::{Account, Channel, ClientError, Endpoint, ServerStream};
use proto::frame::{self, Message as _, PAYLOAD_BYTES_MAX};
use proto::queue::Request;
use proto::{Login, LoginReply};

use crate::Error;

/// A connection to a server, over TCP or a Unix socket.
pub(crate) struct Connection {
    stream: BufReader<ServerStream>,
    /// Who is to be logged in before the next request.
    login: Option<Account>,
    is_lost: bool,
}

/// Ends a client's connection from another thread; see
/// [`Client::abort_handle`](crate::Client::abort_handle).
#[derive(Debug, Clone)]
pub struct AbortHandle(Arc<Channel>);

impl AbortHandle {
    /// Makes every wait of the client, now or later, fail as a lost connection does. The server
    /// requeues what the client has reserved.
    ///
    /// ```no_run
    /// # let server = cli::Endpoint::new("127.0.0.1", 55556);
    /// # let client = queue_client::Client::connect(&server, queue_client::Transport::Tcp)?;
    /// client.abort_handle().expect("over TCP").abort();
    /// # Ok::<(), queue_client::Error>(())
    /// ```
    pub fn abort(&self) {
        self.0.abort();
    }

    /// The same for a client that does nothing but wait for a message: one that is handed out at this
    /// moment is unreserved.
    pub(crate) fn abort_wait(&self) {
        let mut request = Vec::new();
        Request::UnreserveAll.encode(&mut request);
        // A server that does not support this refuses it, and the wait ends all the same.
        let _ = self.0.try_write(&request);
        self.abort();
    }
}

impl Connection {
    pub(crate) fn new(server: &Endpoint) -> Result<Self, Error> {
        Ok(Self {
            stream: BufReader::new(server.connect()?),
            login: server.security.account()?,
            is_lost: false,
        })
    }

    /// Has further requests wait for this long instead.
    pub(crate) fn set_timeout(&mut self, timeout: Duration) {
        self.stream.get_mut().set_timeout(timeout);
    }

    pub(crate) fn abort_handle(&self) -> AbortHandle {
        AbortHandle(Arc::clone(self.stream.get_ref().channel()))
    }

    /// Sends requests, and has `read` read their replies. A server that refuses a long message may
    /// close while this still writes it, so replies are read even if that has failed.
    pub(crate) fn exchange<T>(
        &mut self,
        requests: &[u8],
        read: impl FnOnce(&mut Self) -> io::Result<T>,
    ) -> Result<T, Error> {
        let Some(account) = self.login.take() else {
            let written = self.write(requests);
            return self.finish(written, read);
        };
        let mut login = Vec::new();
        let (user, password) = (account.user(), account.password());
        Login { user, password }.encode(&mut login);
        let written = self.write(&[&login, requests].concat());
        let mut payload = Vec::new();
        let answered = self.read(Duration::ZERO, &mut payload);
        match answered.map(|kind| LoginReply::decode(kind, &payload)) {
            Ok(Ok(LoginReply::LoggedIn)) => self.finish(written, read),
            Ok(Ok(LoginReply::Refused(error))) => {
                self.lose();
                Err(Error::refused(&error))
            }
            Ok(Err(error)) => {
                self.lose();
                Err(ClientError::malformed(error).into())
            }
            Err(error) => Err(written.err().unwrap_or(error).into()),
        }
    }

    fn finish<T>(
        &mut self,
        written: io::Result<()>,
        read: impl FnOnce(&mut Self) -> io::Result<T>,
    ) -> Result<T, Error> {
        let read = read(self);
        if written.is_err() {
            self.lose();
        }
        read.map_err(|error| written.err().unwrap_or(error).into())
    }

    fn write(&mut self, requests: &[u8]) -> io::Result<()> {
        self.check()?;
        self.stream.get_mut().reset_timeout(Duration::ZERO);
        self.stream.get_mut().write_all(requests)
    }

    /// Reads one reply, and waits `wait` longer than usual for it. Returns its kind and leaves the rest
    /// in `payload`.
    pub(crate) fn read(&mut self, wait: Duration, payload: &mut Vec<u8>) -> io::Result<u8> {
        self.check()?;
        self.stream.get_mut().reset_timeout(wait);
        let read = frame::read(&mut self.stream, PAYLOAD_BYTES_MAX, payload);
        let kind = read.map_err(io::Error::from);
        let kind = kind.and_then(|kind| kind.ok_or(io::ErrorKind::UnexpectedEof.into()));
        kind.inspect_err(|_| self.lose())
    }

    /// Ends the connection, because its replies can no longer be matched to requests.
    pub(crate) fn lose(&mut self) {
        self.is_lost = true;
        self.abort_handle().abort();
    }

    fn check(&self) -> io::Result<()> {
        if self.is_lost {
            Err(io::ErrorKind::NotConnected.into())
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;
    use std::thread;

    use cli::ClientError;

    use super::*;

    fn connection(listener: &TcpListener, timeout: Duration) -> Connection {
        let port = listener.local_addr().unwrap().port();
        let endpoint = Endpoint {
            timeout,
            ..Endpoint::new("127.0.0.1", port)
        };
        Connection::new(&endpoint).unwrap()
    }

    #[test]
    fn a_late_reply_is_never_taken_for_that_to_the_next_request() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut connection = connection(&listener, Duration::from_millis(20));
        let (mut server, _) = listener.accept().unwrap();
        let mut payload = Vec::new();
        let mut ask = |wait| {
            let asked = connection.exchange(b"?", |connection| connection.read(wait, &mut payload));
            asked.unwrap_err()
        };
        let late = ask(Duration::ZERO);
        assert_eq!(late.to_string(), "the server did not answer in time");
        // The connection may be closed already.
        let _ = server.write_all(b"\0\0\0\x01\x44");
        for wait in [Duration::ZERO, Duration::MAX] {
            let Error::Client(ClientError::Lost(cause)) = ask(wait) else {
                panic!("the late reply was taken")
            };
            assert_eq!(cause.kind(), io::ErrorKind::NotConnected);
        }
    }

    #[test]
    fn a_wait_is_ended_by_the_abort_handle() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut connection = connection(&listener, Duration::from_secs(60));
        let (_server, _) = listener.accept().unwrap();
        let handle = connection.abort_handle();
        let waiting = thread::spawn(move || {
            connection.exchange(b"?", |connection| {
                connection.read(Duration::MAX, &mut Vec::new())
            })
        });
        handle.abort();
        let Error::Client(ClientError::Lost(_)) = waiting.join().unwrap().unwrap_err() else {
            panic!("another error")
        };
    }

    #[test]
    fn an_aborted_wait_unreserves_what_is_handed_out_at_this_moment() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut connection = connection(&listener, Duration::from_secs(60));
        let (mut server, _) = listener.accept().unwrap();
        // A message that it has not read yet.
        server
            .write_all(b"\0\0\0\x0d\x42\0\0\0\0\0\0\0\x07\0\0\0\x01")
            .unwrap();
        connection.abort_handle().abort_wait();
        // Ends the process's end of it, as the end of the process does.
        connection.lose();
        drop(connection);
        let mut heard = [0; 5];
        server.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"\0\0\0\x01\x0e");
    }
}
