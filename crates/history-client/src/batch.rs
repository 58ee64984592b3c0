//! Pipelining: many notes are sent one behind the other, and their replies read together.

use std::collections::VecDeque;

use proto::frame::Message as _;
use proto::history::{Operation, Request};

use crate::client::{Client, check_user};
use crate::text::check_note;
use crate::{Error, NotANote};

/// The most notes that a [`Batch`] writes before it reads the replies, and the most bytes. The replies to
/// that many fit into a socket's buffer, so the server can always write them.
const UNANSWERED_MAX: usize = 512;
const UNANSWERED_BYTES_MAX: usize = 256 * 1024;

/// Notes that are sent one behind the other; see [`Client::batch`]. Those that are not flushed when it is
/// dropped are not sent.
#[must_use = "a batch is sent when it is finished"]
pub struct Batch<'c> {
    client: &'c mut Client,
    user: &'c str,
    /// The requests that are not written yet.
    output: Vec<u8>,
    /// The lines of the notes without a reply.
    unanswered: VecDeque<u64>,
    noted: u64,
    /// The first refusal, and the line of the note.
    refused: Option<(u64, Error)>,
}

impl Client {
    /// Begins to send many notes, pipelined: without waiting for the reply to each.
    ///
    /// ```no_run
    /// # let server = cli::Endpoint::new("127.0.0.1", 5007);
    /// # let mut client = history_client::Client::connect(&server)?;
    /// let mut batch = client.batch("alice")?;
    /// for line in 1..=10_000 {
    ///     batch.send(line, "the pump runs")?;
    /// }
    /// let noted = batch.finish()?;
    /// # Ok::<(), history_client::Error>(())
    /// ```
    ///
    /// # Errors
    /// If this cannot be the name of a user.
    pub fn batch<'c>(&'c mut self, user: &'c str) -> Result<Batch<'c>, Error> {
        check_user(user)?;
        Ok(Batch {
            client: self,
            user,
            output: Vec::new(),
            unanswered: VecDeque::new(),
            noted: 0,
            refused: None,
        })
    }
}

impl Batch<'_> {
    /// Sends one more note, together with others. `line` is what it is called in errors.
    ///
    /// # Errors
    /// [`Error::LineNotNoted`] if this or one of the notes so far was refused: those that were sent together
    /// with it may be there, and are counted; no more are sent. [`Error::LinesLost`] if the server is lost.
    pub fn send(&mut self, line: u64, text: &str) -> Result<(), Error> {
        let text = match check_note(text) {
            Ok(text) => text,
            Err(cause) => return Err(self.refuse(line, cause)),
        };
        let (user, operation) = (self.user, Operation::Note(text));
        Request { user, operation }.encode(&mut self.output);
        self.unanswered.push_back(line);
        let is_full =
            self.unanswered.len() >= UNANSWERED_MAX || self.output.len() >= UNANSWERED_BYTES_MAX;
        if is_full { self.flush() } else { Ok(()) }
    }

    /// Sends at once what is not sent yet, for instance before a wait for more input, and reads the replies.
    ///
    /// # Errors
    /// As [`Batch::send`].
    pub fn flush(&mut self) -> Result<(), Error> {
        let Self {
            client,
            user: _,
            output,
            unanswered,
            noted,
            refused,
        } = self;
        if unanswered.is_empty() {
            return Ok(());
        }
        let server = client.server().clone();
        let mut is_turned_away = false;
        let read = server.retry(Error::may_pass, cli::pause, |server| {
            // Nothing is on its way now, so none of this can be noted twice.
            if is_turned_away || client.has_ended() {
                client.connect_again(server)?;
            }
            is_turned_away = true;
            client.exchange(output, |client| {
                while let Some(line) = unanswered.front() {
                    client.reset_timeout();
                    match client.read_reply(false, &mut |_| Ok(())) {
                        Ok(_) => *noted += 1,
                        // It has no connection for this client, and reads none of this.
                        Err(error) if error.is_busy() => return Err(error),
                        Err(error @ Error::Refused { .. }) => {
                            refused.get_or_insert((*line, error));
                        }
                        Err(error) => return Err(error),
                    }
                    unanswered.pop_front();
                }
                Ok(())
            })
        });
        output.clear();
        self.report(read)
    }

    /// Sends what is not sent yet; returns how many lines were noted.
    ///
    /// # Errors
    /// As [`Batch::send`].
    pub fn finish(mut self) -> Result<u64, Error> {
        self.flush()?;
        Ok(self.noted)
    }

    /// Sends what is not sent yet, and returns the error for this line, which is no note.
    pub(crate) fn refuse(&mut self, line: u64, cause: NotANote) -> Error {
        let flushed = self.flush();
        let refusal = || Error::LineNotNoted {
            line,
            noted: self.noted,
            unanswered: None,
            cause: Box::new(cause.into()),
        };
        flushed.err().unwrap_or_else(refusal)
    }

    /// Reports a refusal if there was one, else a loss.
    fn report(&mut self, read: Result<(), Error>) -> Result<(), Error> {
        let noted = self.noted;
        let first_and_last = self.unanswered.front().zip(self.unanswered.back());
        let unanswered = first_and_last.map(|(first, last)| (*first, *last));
        // A refusal came first, and may be why the connection ended.
        if let Some((line, cause)) = self.refused.take() {
            return Err(Error::LineNotNoted {
                line,
                noted,
                unanswered,
                cause: Box::new(cause),
            });
        }
        read.map_err(|cause| {
            let was_read = !matches!(cause, Error::Refused { .. }) && !cause.may_pass();
            let cause = Box::new(cause);
            match unanswered {
                Some(unanswered) if was_read => Error::LinesLost {
                    noted,
                    unanswered,
                    cause,
                },
                // There is no connection, or no login: the server has read none of them.
                Some((line, _)) => Error::LineNotNoted {
                    line,
                    noted,
                    unanswered: None,
                    cause,
                },
                None => *cause,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Write};
    use std::net::{TcpListener, TcpStream};
    use std::thread;
    use std::time::Duration;

    use cli::Endpoint;
    use proto::frame;
    use proto::history::Reply;
    use proto::{ErrorCode, ErrorReply};

    use super::*;

    /// What a server does with a connection.
    #[derive(Clone, Copy)]
    enum Serve {
        /// Refuses it.
        Busy,
        /// Notes everything but `no`, does not know of `doubt`, and ends it at `end`, or when `until` are noted.
        Notes { until: usize },
    }

    const ALL: Serve = Serve::Notes { until: usize::MAX };

    fn write(mut stream: &TcpStream, replies: &[Reply]) {
        let mut output = Vec::new();
        replies.iter().for_each(|reply| reply.encode(&mut output));
        // The client may be gone.
        let _ = stream.write_all(&output);
    }

    fn error(code: ErrorCode, sentence: &str) -> Reply<'_> {
        Reply::Error(ErrorReply { code, sentence })
    }

    /// Serves a connection; returns what was noted.
    fn serve(stream: &TcpStream, until: usize) -> Vec<String> {
        let mut input = BufReader::new(stream);
        let (mut payload, mut notes) = (Vec::new(), Vec::new());
        while notes.len() < until
            && let Ok(Some(kind)) = frame::read(&mut input, frame::PAYLOAD_BYTES_MAX, &mut payload)
        {
            let Operation::Note(text) = Request::decode(kind, &payload).unwrap().operation else {
                panic!("no note");
            };
            let end = match text {
                "end" => break,
                "no" => error(ErrorCode::Storage, "full"),
                "doubt" => error(ErrorCode::InDoubt, "nobody knows"),
                _ => Reply::Done("Noted."),
            };
            if !["no", "doubt"].contains(&text) {
                notes.push(text.to_owned());
            }
            write(stream, &[Reply::About("hello"), end]);
        }
        notes
    }

    /// Has a client talk to a server that serves one connection after the other. What the client got, and
    /// what was noted.
    fn with_server(
        script: &[Serve],
        talk: impl FnOnce(&mut Client) -> Result<u64, Error>,
    ) -> (Result<u64, String>, Vec<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = Endpoint {
            wait_for_server: Duration::from_secs(60),
            ..Endpoint::new("127.0.0.1", listener.local_addr().unwrap().port())
        };
        thread::scope(|scope| {
            let server = scope.spawn(move || {
                let mut noted = Vec::new();
                for serves in script {
                    let stream = listener.accept().unwrap().0;
                    match *serves {
                        Serve::Busy => write(&stream, &[error(ErrorCode::Busy, "busy")]),
                        Serve::Notes { until } => noted.extend(serve(&stream, until)),
                    }
                }
                noted
            });
            let mut client = Client::connect(&endpoint).unwrap();
            let sent = talk(&mut client);
            drop(client);
            let sent = sent.map_err(|error| cli::exit::with_causes(&error));
            (sent, server.join().unwrap())
        })
    }

    fn send_all(client: &mut Client, notes: &[&str]) -> Result<u64, Error> {
        let mut batch = client.batch("al")?;
        for (line, note) in (1..).zip(notes) {
            batch.send(line, note)?;
        }
        batch.finish()
    }

    #[track_caller]
    fn check(script: &[Serve], notes: &[&str], want: Result<u64, &str>, noted: &[&str]) {
        let got = with_server(script, |client| send_all(client, notes));
        assert_eq!(got.0, want.map_err(str::to_owned));
        assert_eq!(got.1, noted);
    }

    #[test]
    fn all_are_noted_in_order() {
        check(&[ALL], &[], Ok(0), &[]);
        check(&[ALL], &["a", "b", "a"], Ok(3), &["a", "b", "a"]);
        let many = vec!["x"; 2000];
        check(&[ALL], &many, Ok(2000), &many);
    }

    #[test]
    fn what_is_refused_is_named_and_the_rest_is_counted() {
        let sentence = "line 2 was not noted; 2 were: full";
        check(&[ALL], &["a", "no", "b", "no"], Err(sentence), &["a", "b"]);
        let sentence = "line 3 was not noted; 2 were: the note is empty";
        check(&[ALL], &["a", "b", "", "c"], Err(sentence), &["a", "b"]);
    }

    #[test]
    fn when_the_server_is_lost_it_is_said_what_is_known() {
        let ends = |notes: &[&str], want: &str, noted: &[&str]| {
            let (sent, all) = with_server(&[ALL], |client| send_all(client, notes));
            let sentence = sent.unwrap_err();
            assert!(sentence.starts_with(want), "{sentence}");
            assert_eq!(all, noted);
        };
        let sentence = "it is not known whether lines 3 to 4 were noted; 2 were: ";
        ends(&["a", "b", "end", "c"], sentence, &["a", "b"]);
        let sentence =
            "line 1 was not noted; 1 were; it is not known whether line 3 was noted: full";
        ends(&["no", "b", "end"], sentence, &["b"]);
    }

    #[test]
    fn what_the_server_itself_does_not_know_is_not_refused() {
        let sentence = "it is not known whether lines 2 to 3 were noted; 1 were: nobody knows";
        check(&[ALL], &["a", "doubt", "b"], Err(sentence), &["a", "b"]);
    }

    #[test]
    fn who_is_turned_away_tries_again_and_sends_nothing_twice() {
        let script = [Serve::Busy, Serve::Busy, ALL];
        check(&script, &["a", "b"], Ok(2), &["a", "b"]);
    }

    #[test]
    fn a_connection_that_ends_between_two_notes_is_made_again() {
        let script = [Serve::Notes { until: 1 }, ALL];
        let (sent, noted) = with_server(&script, |client| {
            let mut batch = client.batch("al")?;
            batch.send(1, "a")?;
            batch.flush()?;
            while !batch.client.has_ended() {
                thread::yield_now();
            }
            batch.send(2, "b")?;
            batch.finish()
        });
        assert_eq!((sent, noted.join(" ").as_str()), (Ok(2), "a b"));
    }
}
