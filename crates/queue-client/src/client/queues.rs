//! Requests about whole queues: looking at them, pausing and emptying them.

use std::time::Duration;

use proto::queue::{
    Holder, Key, MessageId, MessageJson, MessageState, Name, Properties, QueueName, QueueStats,
    Reason, Reply, Request, Totals,
};
use serde_json::json;

use super::{Client, name};
use crate::Error;
use crate::link::unexpected;
use crate::message::{Peeked, Released, ReservedBy};

/// The counts of a server and of its queues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// Over all queues, since the server started.
    pub totals: Totals,
    /// Each queue, sorted by name.
    pub queues: Vec<QueueStats<'static>>,
}

impl Client {
    /// Looks at the messages at the front of the queue, at most `messages_max` of them.
    ///
    /// ```no_run
    /// # let server = cli::Endpoint::new("127.0.0.1", 55556);
    /// # let mut client = queue_client::Client::connect(&server, queue_client::Transport::Tcp)?;
    /// for message in client.peek(10)? {
    ///     println!("{}: {} bytes", message.id, message.body.len());
    /// }
    /// # Ok::<(), queue_client::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the server refuses or is lost.
    pub fn peek(&mut self, messages_max: u64) -> Result<Vec<Peeked>, Error> {
        let mut after = 0;
        let mut messages = Vec::new();
        for _ in 0..messages_max {
            let Some(message) = self.peek_after(MessageState::Ready, after)? else {
                break;
            };
            after = message.position;
            messages.push(message);
        }
        Ok(messages)
    }

    /// Looks at the first message in a state whose [`Peeked::position`] is behind `after`; 0 is in front of
    /// all.
    ///
    /// ```no_run
    /// # let server = cli::Endpoint::new("127.0.0.1", 55556);
    /// # let mut client = queue_client::Client::connect(&server, queue_client::Transport::Tcp)?;
    /// use queue_client::MessageState;
    ///
    /// let first_reserved = client.peek_after(MessageState::Reserved, 0)?;
    /// # Ok::<(), queue_client::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the server refuses or is lost.
    pub fn peek_after(&mut self, state: MessageState, after: u64) -> Result<Option<Peeked>, Error> {
        let request = Request::Peek {
            queue: name(&self.queues[0]),
            state,
            after,
        };
        match self.link.ask(&request, Duration::ZERO)? {
            Reply::Empty => Ok(None),
            reply => peeked(&reply).map(Some),
        }
    }

    /// Looks at one message of the queue or of its dead letters, whatever its state.
    ///
    /// ```no_run
    /// # let server = cli::Endpoint::new("127.0.0.1", 55556);
    /// # let mut client = queue_client::Client::connect(&server, queue_client::Transport::Tcp)?;
    /// let id = client.send(b"hello")?;
    /// println!("{}", client.peek_one(id)?.state);
    /// # Ok::<(), queue_client::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the server refuses, because there is no such message, or is lost.
    pub fn peek_one(&mut self, id: MessageId) -> Result<Peeked, Error> {
        let queue = name(&self.queues[0]);
        let request = Request::PeekOne { queue, id };
        peeked(&self.link.ask(&request, Duration::ZERO)?)
    }

    /// Deletes one message of the queue or of its dead letters, whatever its state. The ack of who has it reserved
    /// is refused then.
    ///
    /// ```no_run
    /// # let server = cli::Endpoint::new("127.0.0.1", 55556);
    /// # let mut client = queue_client::Client::connect(&server, queue_client::Transport::Tcp)?;
    /// let id = client.send(b"hello")?;
    /// client.delete(id)?;
    /// # Ok::<(), queue_client::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the server refuses, because there is no such message, or is lost.
    pub fn delete(&mut self, id: MessageId) -> Result<(), Error> {
        self.of_queue(|queue| Request::Delete { queue, id })
            .map(drop)
    }

    /// Makes one message ready that is delayed or dead, at the end of the queue.
    ///
    /// ```no_run
    /// # let server = cli::Endpoint::new("127.0.0.1", 55556);
    /// # let mut client = queue_client::Client::connect(&server, queue_client::Transport::Tcp)?;
    /// let id = client.send_delayed(b"later", std::time::Duration::from_secs(3600))?;
    /// client.kick_one(id)?;
    /// # Ok::<(), queue_client::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the server refuses, because there is no such message, or is lost.
    pub fn kick_one(&mut self, id: MessageId) -> Result<(), Error> {
        self.of_queue(|queue| Request::KickOne { queue, id })
            .map(drop)
    }

    /// Moves one message of the queue or of its dead letters to the end of another queue, whatever its state. The
    /// ack of who has it reserved is refused then.
    ///
    /// ```no_run
    /// # let server = cli::Endpoint::new("127.0.0.1", 55556);
    /// # let mut client = queue_client::Client::connect(&server, queue_client::Transport::Tcp)?;
    /// let id = client.send(b"hello")?;
    /// client.move_to(id, queue_client::QueueName::new("other").expect("a good name"))?;
    /// # Ok::<(), queue_client::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the server refuses, because there is no such message, or is lost.
    pub fn move_to(&mut self, id: MessageId, to: QueueName) -> Result<(), Error> {
        let queue = name(&self.queues[0]);
        self.link
            .ask_done(&Request::Move { queue, id, to })
            .map(drop)
    }

    /// Requeues one message that is reserved or leased, as if its holder were gone. The holder's ack is refused
    /// then.
    ///
    /// ```no_run
    /// # let server = cli::Endpoint::new("127.0.0.1", 55556);
    /// # let mut client = queue_client::Client::connect(&server, queue_client::Transport::Tcp)?;
    /// client.release_one(7)?;
    /// # Ok::<(), queue_client::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the server refuses, because the message is not reserved, or is lost.
    pub fn release_one(&mut self, id: MessageId) -> Result<Released, Error> {
        let released = self.of_queue(|queue| Request::ReleaseOne { queue, id })?;
        Ok(Released::of(released))
    }

    /// Requeues all that a connection has reserved, as if it were gone; returns how many messages that were. Its
    /// number is that of [`Peeked::holder`].
    ///
    /// ```no_run
    /// # let server = cli::Endpoint::new("127.0.0.1", 55556);
    /// # let mut client = queue_client::Client::connect(&server, queue_client::Transport::Tcp)?;
    /// use queue_client::{ReservedBy, MessageState};
    ///
    /// if let Some(message) = client.peek_after(MessageState::Reserved, 0)?
    ///     && let Some(ReservedBy::Connection { id, .. }) = message.holder
    /// {
    ///     client.release_holder(id)?;
    /// }
    /// # Ok::<(), queue_client::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the server refuses, because there is no such connection, or is lost.
    pub fn release_holder(&mut self, holder: u64) -> Result<u64, Error> {
        self.link.ask_done(&Request::ReleaseHolder { holder })
    }

    /// Counts the messages of the server and of each queue.
    ///
    /// ```no_run
    /// # let server = cli::Endpoint::new("127.0.0.1", 55556);
    /// # let mut client = queue_client::Client::connect(&server, queue_client::Transport::Tcp)?;
    /// for queue in client.stats()?.queues {
    ///     println!("{}: {} ready, {} reserved", queue.name, queue.ready, queue.reserved);
    /// }
    /// # Ok::<(), queue_client::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the server refuses or is lost.
    pub fn stats(&mut self) -> Result<Stats, Error> {
        match self.link.ask(&Request::Stats, Duration::ZERO)? {
            Reply::Stats { totals, queues } => Ok(Stats {
                totals,
                queues: queues.into_iter().map(QueueStats::into_owned).collect(),
            }),
            other => Err(unexpected(&other)),
        }
    }

    /// Deletes all messages of the queue that are not reserved; returns how many there were.
    ///
    /// ```no_run
    /// # let server = cli::Endpoint::new("127.0.0.1", 55556);
    /// # let mut client = queue_client::Client::connect(&server, queue_client::Transport::Tcp)?;
    /// println!("{} messages are gone", client.purge()?);
    /// # Ok::<(), queue_client::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the server refuses or is lost.
    pub fn purge(&mut self) -> Result<u64, Error> {
        self.of_queue(|queue| Request::Purge { queue })
    }

    /// Pauses the queue: it hands out nothing, and accepts new messages.
    ///
    /// ```no_run
    /// # let server = cli::Endpoint::new("127.0.0.1", 55556);
    /// # let mut client = queue_client::Client::connect(&server, queue_client::Transport::Tcp)?;
    /// client.pause()?;
    /// # Ok::<(), queue_client::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the server refuses or is lost.
    pub fn pause(&mut self) -> Result<(), Error> {
        self.of_queue(|queue| Request::Pause { queue }).map(drop)
    }

    /// Ends a pause.
    ///
    /// ```no_run
    /// # let server = cli::Endpoint::new("127.0.0.1", 55556);
    /// # let mut client = queue_client::Client::connect(&server, queue_client::Transport::Tcp)?;
    /// client.resume()?;
    /// # Ok::<(), queue_client::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the server refuses or is lost.
    pub fn resume(&mut self) -> Result<(), Error> {
        self.of_queue(|queue| Request::Resume { queue }).map(drop)
    }

    /// Moves the queue's dead letters back to its end; returns how many there were.
    ///
    /// ```no_run
    /// # let server = cli::Endpoint::new("127.0.0.1", 55556);
    /// # let mut client = queue_client::Client::connect(&server, queue_client::Transport::Tcp)?;
    /// println!("{} messages get another chance", client.kick()?);
    /// # Ok::<(), queue_client::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the server refuses or is lost.
    pub fn kick(&mut self) -> Result<u64, Error> {
        self.of_queue(|queue| Request::Kick { queue })
    }

    /// Has the server refuse new messages for all queues, or accept them again.
    ///
    /// ```no_run
    /// # let server = cli::Endpoint::new("127.0.0.1", 55556);
    /// # let mut client = queue_client::Client::connect(&server, queue_client::Transport::Tcp)?;
    /// client.drain(true)?;
    /// # Ok::<(), queue_client::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the server refuses or is lost.
    pub fn drain(&mut self, on: bool) -> Result<(), Error> {
        self.link.ask_done(&Request::Drain { on }).map(drop)
    }

    fn of_queue(&mut self, request: impl Fn(QueueName<'_>) -> Request<'_>) -> Result<u64, Error> {
        let queue = name(&self.queues[0]);
        self.link.ask_done(&request(queue))
    }
}

fn peeked(reply: &Reply) -> Result<Peeked, Error> {
    let Reply::Peeked {
        queue,
        position,
        state,
        holder,
        id,
        attempts,
        age_millis,
        properties,
        reason,
        body,
    } = *reply
    else {
        return Err(unexpected(reply));
    };
    Ok(Peeked {
        queue: queue.as_str().to_owned(),
        position,
        state,
        holder: (state == MessageState::Reserved).then(|| reserved_by(holder)),
        id,
        attempts,
        age_millis,
        delay_millis: properties.delay_millis,
        priority: properties.priority,
        key: properties.key.map(|key| key.as_str().to_owned()),
        expiry_millis: properties.expiry_millis,
        attempts_max: properties.attempts_max,
        reason: reason.as_str().to_owned(),
        body: body.to_vec(),
    })
}

impl Peeked {
    /// All that is known of it, as JSON.
    pub(crate) fn to_json(&self) -> String {
        json!(MessageJson::of(&self.reply(), usize::MAX)).to_string()
    }

    /// The reply that has said it.
    fn reply(&self) -> Reply<'_> {
        Reply::Peeked {
            queue: name(&self.queue),
            position: self.position,
            state: self.state,
            holder: self.holder.as_ref().map_or_else(Holder::default, holder),
            id: self.id,
            attempts: self.attempts,
            age_millis: self.age_millis,
            properties: Properties {
                delay_millis: self.delay_millis,
                priority: self.priority,
                key: self.key.as_deref().and_then(Key::new),
                expiry_millis: self.expiry_millis,
                attempts_max: self.attempts_max,
            },
            reason: Reason::new(&self.reason),
            body: &self.body,
        }
    }
}

fn holder(reserved_by: &ReservedBy) -> Holder<'_> {
    match reserved_by {
        ReservedBy::Lease { left_millis } => Holder {
            lease_millis: *left_millis,
            ..Holder::default()
        },
        ReservedBy::Connection { id, peer } => Holder {
            id: *id,
            peer: Name(peer),
            ..Holder::default()
        },
    }
}

fn reserved_by(holder: Holder) -> ReservedBy {
    match holder.id {
        0 => ReservedBy::Lease {
            left_millis: holder.lease_millis,
        },
        id => ReservedBy::Connection {
            id,
            peer: holder.peer.0.to_owned(),
        },
    }
}
