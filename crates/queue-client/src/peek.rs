//! `peek`: messages that stay where they are, and all that is known of them.

use std::fmt;

use cli::ClientError;
use cli::stream::Output;
use proto::queue::{MessageId, MessageState};

use crate::{Client, Config, Ending, Error, Peeked, ReservedBy};

/// What to look at, and how it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peek {
    /// Which messages.
    pub which: Which,
    /// How many messages.
    pub count: u64,
    /// What ends each of them.
    pub ending: Ending,
    /// Whether each is a line of JSON instead, with all that is known of it.
    pub json: bool,
}

/// Which messages to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The first of the queue in this state.
    First(MessageState),
    /// The first dead letters of the queue.
    Dead,
    /// This one.
    One(MessageId),
}

impl Peek {
    /// Writes messages. Each is written before the next one is fetched, because all of them together may not
    /// fit into memory.
    pub(crate) fn run(&self, config: &Config) -> Result<(), Error> {
        let mut out = cli::stream::output()?;
        let mut client = config.connect()?;
        match self.which {
            Which::One(id) => self.show(&client.peek_one(id)?, &mut out),
            Which::First(state) => self.run_in(&mut client, state, &mut out),
            Which::Dead => {
                let queue = config.queues().first();
                if !queue.is_dead() {
                    client.queues = vec![queue.dead()];
                }
                self.run_in(&mut client, MessageState::Ready, &mut out)
            }
        }
    }

    fn run_in(
        &self,
        client: &mut Client,
        state: MessageState,
        out: &mut Output,
    ) -> Result<(), Error> {
        let mut position = 0;
        for seen in 0..self.count {
            let Some(message) = client.peek_after(state, position)? else {
                return if seen == 0 { Err(Error::Empty) } else { Ok(()) };
            };
            position = message.position;
            self.show(&message, out)?;
        }
        Ok(())
    }

    fn show(&self, message: &Peeked, out: &mut Output) -> Result<(), Error> {
        let written = if self.json {
            Ending::Line.write(out, message.to_json().as_bytes())
        } else {
            self.ending.write(out, &message.body)
        };
        written.map_err(ClientError::Output)?;
        if !self.json {
            log::info!("{message}");
        }
        Ok(())
    }
}

/// All that is known of a message but its body, in one line for a person.
impl fmt::Display for Peeked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secs = |millis: u32| millis.div_ceil(1000);
        write!(f, "Message {}: {} in {}", self.id, self.state, self.queue)?;
        match &self.holder {
            None => {}
            Some(ReservedBy::Connection { id, peer }) => write!(f, " by connection {id} ({peer})")?,
            Some(ReservedBy::Lease { left_millis }) => {
                write!(f, " under a lease for {} s more", secs(*left_millis))?;
            }
        }
        match self.state {
            MessageState::Delayed => write!(f, " for {} s more", secs(self.delay_millis))?,
            MessageState::Ready | MessageState::Reserved => {
                write!(f, ", age {} s", self.age_millis / 1000)?;
            }
        }
        write!(f, ", attempts: {}", self.attempts)?;
        if self.attempts_max > 0 {
            write!(f, " of {}", self.attempts_max)?;
        }
        if self.priority.get() > 0 {
            write!(f, ", priority {}", self.priority.get())?;
        }
        if self.expiry_millis > 0 {
            write!(f, ", expires in {} s", secs(self.expiry_millis))?;
        }
        if let Some(key) = &self.key {
            write!(f, ", key '{key}'")?;
        }
        match self.reason.trim_end() {
            "" => Ok(()),
            reason => write!(f, ", the last: {reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::queue::Priority;

    use super::*;

    fn message() -> Peeked {
        Peeked {
            queue: "jobs".to_owned(),
            state: MessageState::Reserved,
            holder: Some(ReservedBy::Connection {
                id: 4,
                peer: "127.0.0.1:5".to_owned(),
            }),
            position: 1 << 63,
            id: 7,
            attempts: 2,
            age_millis: 3000,
            delay_millis: 0,
            priority: Priority::new(9).unwrap(),
            key: None,
            expiry_millis: 5,
            attempts_max: 0,
            reason: "exit status: 1: no\n".to_owned(),
            body: b"two\nlines".to_vec(),
        }
    }

    #[test]
    fn a_message_for_people_is_one_line() {
        let reserved = message();
        let want = "Message 7: reserved in jobs by connection 4 (127.0.0.1:5), age 3 s, attempts: 2, \
                    priority 9, expires in 1 s, the last: exit status: 1: no";
        assert_eq!(reserved.to_string(), want);
        let delayed = Peeked {
            state: MessageState::Delayed,
            holder: None,
            attempts: 0,
            attempts_max: 3,
            delay_millis: 1500,
            priority: Priority::NORMAL,
            expiry_millis: 0,
            key: Some("k 1".to_owned()),
            reason: String::new(),
            ..message()
        };
        let want = "Message 7: delayed in jobs for 2 s more, attempts: 0 of 3, key 'k 1'";
        assert_eq!(delayed.to_string(), want);
        let leased = Peeked {
            state: MessageState::Reserved,
            holder: Some(ReservedBy::Lease { left_millis: 9000 }),
            key: None,
            ..delayed
        };
        let want =
            "Message 7: reserved in jobs under a lease for 9 s more, age 3 s, attempts: 0 of 3";
        assert_eq!(leased.to_string(), want);
    }
}
