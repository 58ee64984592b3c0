//! `receive`: one message, a number of them, or all that ever come.

use std::io::{self, Write};
use std::time::Duration;

use crate::{Client, Config, Error, Received};
use cli::ClientError;

/// The longest single wait of `--follow` and `work`. A server whose machine has vanished is noticed when this and
/// the timeout are over, or sooner if there is another one to go to.
pub(crate) const LONG_WAIT: Duration = Duration::from_secs(60);

/// What to receive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receive {
    /// How many messages; `None` is all that ever come.
    pub count: Option<u64>,
    /// How long to wait for each.
    pub wait: Duration,
    /// What ends each of them.
    pub ending: Ending,
}

/// What ends a message in the output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// Nothing.
    None,
    /// A line break, unless the message ends with one.
    Line,
    /// These bytes.
    Always(Vec<u8>),
}

impl Ending {
    /// Writes a message and its end.
    pub(crate) fn write(&self, out: &mut impl Write, body: &[u8]) -> io::Result<()> {
        let end = match self {
            Self::None => b"",
            Self::Line if body.ends_with(b"\n") => b"",
            Self::Line => b"\n".as_slice(),
            Self::Always(end) => end,
        };
        // In one write, because two receivers may write to the same pipe.
        match end {
            b"" => out.write_all(body)?,
            end => out.write_all(&[body, end].concat())?,
        }
        out.flush()
    }
}

impl Receive {
    pub(crate) fn run(&self, config: &Config) -> Result<(), Error> {
        let mut out = cli::stream::output()?;
        let mut client = config.connect()?;
        let mut received = 0;
        while self.wants_more(received) {
            let Some(message) = self.next(config, &mut client)? else {
                break;
            };
            if let Err(error) = self.ending.write(&mut out, &message.body) {
                // It has reached nobody, and a full disk must not make a dead letter of it.
                client.unreserve_or_warn(&message);
                return Err(ClientError::Output(error).into());
            }
            log::info!("Received: {} bytes", message.body.len());
            received += 1;
            if self.wants_more(received) {
                client.ack_done(&message)?;
            } else {
                client.ack(&message)?;
            }
        }
        match received {
            0 => Err(Error::Empty),
            _ => Ok(()),
        }
    }

    fn wants_more(&self, received: u64) -> bool {
        self.count.is_none_or(|count| received < count)
    }

    fn next(&self, config: &Config, client: &mut Client) -> Result<Option<Received>, Error> {
        if self.count.is_some() {
            return config.wait_for_message(client, self.wait, |client, left| {
                if left.is_zero() {
                    client.receive()
                } else {
                    client.receive_wait(left)
                }
            });
        }
        loop {
            let message = config.wait_for_message(client, LONG_WAIT, Client::receive_patiently)?;
            if message.is_some() {
                return Ok(message);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(ending: &Ending, body: &str, want: &str) {
        let mut out = Vec::new();
        ending.write(&mut out, body.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), want);
    }

    #[test]
    fn what_ends_a_message() {
        check(&Ending::None, "a", "a");
        check(&Ending::Line, "a", "a\n");
        check(&Ending::Line, "a\n", "a\n");
        check(&Ending::Line, "", "\n");
        check(&Ending::Always(b"\n".to_vec()), "a\n", "a\n\n");
        check(&Ending::Always(b"\0".to_vec()), "a", "a\0");
    }
}
