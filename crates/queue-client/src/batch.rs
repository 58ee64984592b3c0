//! Pipelining: many messages are sent one behind the other, and their replies read together.

use std::mem;

use proto::frame::Message;
use proto::queue::{Properties, REMEMBERED_MAX, Reply};

use crate::client::{Client, name, send_request};
use crate::link::{Socket, decode, unexpected};
use crate::{Error, Unanswered};

/// The most requests that a [`Batch`] writes before it reads the replies, and the most bytes. The
/// replies to that many fit into a socket's buffer, so the server can always write them; and it remembers
/// as many, so that all can be asked again.
const UNANSWERED_MAX: u64 = REMEMBERED_MAX as u64;
const UNANSWERED_BYTES_MAX: usize = 256 * 1024;

/// Messages that are sent one behind the other; see [`Client::batch`]. Those that are not flushed
/// when it is dropped are not sent.
#[must_use = "a batch is sent when it is finished"]
pub struct Batch<'c> {
    client: &'c mut Client,
    properties: Properties<'c>,
    /// The requests that are not written yet...
    output: Vec<u8>,
    /// ...and how many they are.
    unwritten: u64,
    tally: Tally,
}

/// What has become of the messages of a batch.
#[derive(Default)]
struct Tally {
    answered: u64,
    stored: u64,
    /// The first refusal that is not reported yet, and the message's number.
    refused: Option<(u64, Error)>,
}

impl Client {
    /// Begins to send many messages, pipelined: without waiting for the reply to each.
    ///
    /// ```no_run
    /// # let server = cli::Endpoint::new("127.0.0.1", 55556);
    /// # let mut client = queue_client::Client::connect(&server, queue_client::Transport::Tcp)?;
    /// let mut batch = client.batch(proto::queue::Properties::default());
    /// for n in 0..10_000 {
    ///     batch.send(format!("job {n}").as_bytes())?;
    /// }
    /// let stored = batch.finish()?;
    /// # Ok::<(), queue_client::Error>(())
    /// ```
    pub fn batch<'c>(&'c mut self, properties: Properties<'c>) -> Batch<'c> {
        Batch {
            client: self,
            properties,
            output: Vec::new(),
            unwritten: 0,
            tally: Tally::default(),
        }
    }

    /// Sends many messages. Over TCP they are pipelined, at most 256 of them or 256 KiB at once; over
    /// UDP each is sent when the one before is stored. Returns how many there were.
    ///
    /// ```no_run
    /// # let server = cli::Endpoint::new("127.0.0.1", 55556);
    /// # let mut client = queue_client::Client::connect(&server, queue_client::Transport::Tcp)?;
    /// let jobs = (0..10_000).map(|n| format!("job {n}"));
    /// let stored = client.send_all(jobs, proto::queue::Properties::default())?;
    /// assert_eq!(stored, 10_000);
    /// # Ok::<(), queue_client::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::BatchRefused`] names the first message that was refused, counted from 1. Those that
    /// were sent together with it may be stored, and are counted; no more are sent.
    /// [`Error::BatchLost`] if the server is lost.
    pub fn send_all<B: AsRef<[u8]>>(
        &mut self,
        bodies: impl IntoIterator<Item = B>,
        properties: Properties,
    ) -> Result<u64, Error> {
        let mut batch = self.batch(properties);
        for body in bodies {
            batch.send(body.as_ref())?;
        }
        batch.finish()
    }
}

impl Batch<'_> {
    /// Sends one more message: over UDP at once, over TCP together with others.
    ///
    /// ```no_run
    /// # let server = cli::Endpoint::new("127.0.0.1", 55556);
    /// # let mut client = queue_client::Client::connect(&server, queue_client::Transport::Tcp)?;
    /// let mut batch = client.batch(proto::queue::Properties::default());
    /// batch.send(b"one")?;
    /// batch.send(b"two")?;
    /// assert_eq!(batch.finish()?, 2);
    /// # Ok::<(), queue_client::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::BatchRefused`] if one of the messages so far was refused, [`Error::BatchLost`] if
    /// the server is lost.
    pub fn send(&mut self, body: &[u8]) -> Result<(), Error> {
        let request = match send_request(name(&self.client.queues[0]), body, &self.properties) {
            Err(error @ Error::BodyTooLong(_)) => {
                self.flush()?;
                self.tally.count(Err(error));
                return self.tally.report(0, Ok(()));
            }
            request => request?,
        };
        if let Socket::Udp(_) = self.client.link.socket {
            let reply = self.client.link.ask_again(&request);
            return match reply.and_then(stored) {
                Err(cause) if cause.is_loss() => self.tally.report(1, Err(cause)),
                stored => {
                    self.tally.count(stored);
                    self.tally.report(0, Ok(()))
                }
            };
        }
        request.encode(&mut self.output);
        self.unwritten += 1;
        if self.unwritten >= UNANSWERED_MAX || self.output.len() >= UNANSWERED_BYTES_MAX {
            self.flush()
        } else {
            Ok(())
        }
    }

    /// Sends at once what is not sent yet, for instance before a wait for more input.
    ///
    /// ```no_run
    /// # let server = cli::Endpoint::new("127.0.0.1", 55556);
    /// # let mut client = queue_client::Client::connect(&server, queue_client::Transport::Tcp)?;
    /// let mut batch = client.batch(proto::queue::Properties::default());
    /// batch.send(b"now, please")?;
    /// batch.flush()?;
    /// # batch.finish()?;
    /// # Ok::<(), queue_client::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Batch::send`].
    pub fn flush(&mut self) -> Result<(), Error> {
        let mut unanswered = mem::take(&mut self.unwritten);
        let tally = &mut self.tally;
        let read = self.client.link.ask_all(&self.output, |kind, payload| {
            tally.count(decode(kind, payload).and_then(stored));
            unanswered -= 1;
        });
        self.output.clear();
        tally.report(unanswered, read)
    }

    /// Sends what is not sent yet; returns how many messages are in the queue.
    ///
    /// ```no_run
    /// # let server = cli::Endpoint::new("127.0.0.1", 55556);
    /// # let mut client = queue_client::Client::connect(&server, queue_client::Transport::Tcp)?;
    /// let mut batch = client.batch(proto::queue::Properties::default());
    /// batch.send(b"one")?;
    /// println!("{} messages", batch.finish()?);
    /// # Ok::<(), queue_client::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Batch::send`].
    pub fn finish(mut self) -> Result<u64, Error> {
        self.flush()?;
        Ok(self.tally.stored)
    }
}

impl Tally {
    fn count(&mut self, stored: Result<(), Error>) {
        self.answered += 1;
        match stored {
            Ok(()) => self.stored += 1,
            Err(error) if self.refused.is_none() => self.refused = Some((self.answered, error)),
            Err(_) => {}
        }
    }

    /// Reports a refusal if there was one, else a loss. `messages` of them have no reply.
    fn report(&mut self, messages: u64, asked: Result<(), Error>) -> Result<(), Error> {
        let stored = self.stored;
        let unanswered = Unanswered {
            first: self.answered + 1,
            messages,
        };
        // A refusal came first, and may be why the connection ended.
        if let Some((number, cause)) = self.refused.take() {
            return Err(Error::BatchRefused {
                number,
                stored,
                unanswered,
                cause: Box::new(cause),
            });
        }
        asked.map_err(|cause| Error::BatchLost {
            stored,
            unanswered,
            cause: Box::new(cause),
        })
    }
}

fn stored(reply: Reply) -> Result<(), Error> {
    match reply {
        Reply::Stored { .. } | Reply::StoredBefore { .. } => Ok(()),
        other => Err(unexpected(&other)),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Write};
    use std::net::{TcpListener, TcpStream};
    use std::thread;

    use cli::{Endpoint, Exit, Failure};
    use proto::ErrorCode;
    use proto::ErrorReply;
    use proto::frame;
    use proto::queue::{BODY_BYTES_MAX, Request};

    use super::*;
    use crate::Transport;

    /// A server for one connection, which stores everything but the message `no`, and does not know of `doubt`. It
    /// ends the connection at a message `end`. Returns how many requests came.
    fn serve(stream: &TcpStream) -> u64 {
        let mut input = BufReader::new(stream);
        let mut payload = Vec::new();
        let mut requests = 0;
        while let Ok(Some(kind)) = frame::read(&mut input, frame::PAYLOAD_BYTES_MAX, &mut payload) {
            requests += 1;
            let reply = match Request::decode(kind, &payload).unwrap() {
                Request::Send { body: b"end", .. } => break,
                Request::Send { body: b"no", .. } => Reply::Error(ErrorReply {
                    code: ErrorCode::Full,
                    sentence: "full",
                }),
                Request::Send { body: b"doubt", .. } => Reply::Error(ErrorReply {
                    code: ErrorCode::InDoubt,
                    sentence: "nobody knows",
                }),
                Request::Send { .. } => Reply::Stored { id: requests },
                other => panic!("{other:?}"),
            };
            let mut output = Vec::new();
            reply.encode(&mut output);
            let mut stream = stream;
            stream.write_all(&output).unwrap();
        }
        requests
    }

    /// Has a client talk to a server; how many requests came.
    fn with_server(talk: impl FnOnce(&mut Client)) -> u64 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::scope(|scope| {
            let server = scope.spawn(move || serve(&listener.accept().unwrap().0));
            let endpoint = Endpoint::new("127.0.0.1", port);
            let mut client = Client::connect(&endpoint, Transport::Tcp).unwrap();
            talk(&mut client);
            drop(client);
            server.join().unwrap()
        })
    }

    #[track_caller]
    fn check(bodies: &[&str], want: Result<u64, &str>) {
        with_server(|client| {
            let sent = client.send_all(bodies, Properties::default());
            let sent = sent.map_err(|error| cli::exit::with_causes(&error));
            assert_eq!(sent, want.map_err(str::to_owned));
        });
    }

    #[test]
    fn all_are_stored() {
        check(&[], Ok(0));
        check(&["a", "", "b"], Ok(3));
        check(&vec!["x"; 2000], Ok(2000));
        check(&[&"x".repeat(UNANSWERED_BYTES_MAX), "y"], Ok(2));
    }

    #[test]
    fn what_is_refused_is_named_and_the_rest_is_counted() {
        let sentence = "message 2 was not stored; 2 were: the server refused: full";
        check(&["a", "no", "b", "no"], Err(sentence));
        let mut bodies = vec!["x"; 1000];
        bodies[600] = "no";
        // Not the whole input is sent.
        let sentence = "message 601 was not stored; 767 were: the server refused: full";
        check(&bodies, Err(sentence));
    }

    #[test]
    fn when_the_server_is_lost_it_is_said_what_is_known() {
        let ended = |sentence: &str, bodies: &[&str]| {
            with_server(|client| {
                let error = client.send_all(bodies, Properties::default()).unwrap_err();
                assert_eq!(error.to_string(), sentence);
            });
        };
        let sentence = "it is not known whether message 3 and the 1 behind it were stored; 2 were";
        ended(sentence, &["a", "b", "end", "c"]);
        let sentence =
            "message 1 was not stored; 1 were; it is not known whether message 3 was stored";
        ended(sentence, &["no", "b", "end"]);
    }

    #[test]
    fn what_the_server_itself_does_not_know_is_not_refused() {
        let sentence = "it is not known whether message 2 and the 1 behind it were stored; 1 were: nobody knows";
        check(&["a", "doubt", "b"], Err(sentence));
        with_server(|client| {
            let error = client.send(b"doubt").unwrap_err();
            assert_eq!(
                (error.to_string().as_str(), error.exit()),
                ("nobody knows", Exit::Network)
            );
        });
    }

    #[test]
    fn a_batch_sends_nothing_but_its_own() {
        let requests = with_server(|client| {
            client.send(b"a").unwrap();
            let mut dropped = client.batch(Properties::default());
            dropped.send(b"never").unwrap();
            drop(dropped);
            assert_eq!(
                client.send_all(["b", "c"], Properties::default()).unwrap(),
                2
            );
            assert_eq!(client.send(b"d").unwrap(), 4);
        });
        assert_eq!(requests, 4);
    }

    #[test]
    fn what_no_server_can_take_is_refused_here() {
        let long = vec![0; BODY_BYTES_MAX + 1];
        let requests = with_server(|client| {
            let Error::BodyTooLong(_) = client.send(&long).unwrap_err() else {
                panic!("another error")
            };
            let bodies = [b"a".as_slice(), &long, b"b"];
            let error = client.send_all(bodies, Properties::default()).unwrap_err();
            let want = "message 2 was not stored; 1 were";
            assert_eq!(error.to_string(), want);
        });
        assert_eq!(requests, 1);
    }
}
