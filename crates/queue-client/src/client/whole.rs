//! What concerns whole queues: to look at them, and to change all that they have.

use std::sync::Arc;

use proto::queue::{QueueStats, Reply, Request};

use super::{Client, name, unexpected};
use crate::Error;
use crate::message::Peeked;
use crate::stats::Stats;

impl Client {
    /// Looks at the messages at the front of the queue, so many at the most.
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
            let Some(message) = self.peek_after(after)? else {
                break;
            };
            after = message.position;
            messages.push(message);
        }
        Ok(messages)
    }

    /// Looks at the first message whose [`Peeked::position`] is behind `after`; 0 is in front of all.
    ///
    /// ```no_run
    /// # let server = cli::Endpoint::new("127.0.0.1", 55556);
    /// # let mut client = queue_client::Client::connect(&server, queue_client::Transport::Tcp)?;
    /// let first = client.peek_after(0)?;
    /// # Ok::<(), queue_client::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the server refuses or is lost.
    pub fn peek_after(&mut self, after: u64) -> Result<Option<Peeked>, Error> {
        let queue = Arc::clone(&self.queue);
        let queue = name(&queue);
        match self.ask(&Request::Peek { queue, after })? {
            Reply::Empty => Ok(None),
            Reply::Peeked {
                position,
                id,
                attempts,
                body,
            } => Ok(Some(Peeked {
                position,
                id,
                attempts,
                body: body.to_vec(),
            })),
            other => Err(unexpected(&other)),
        }
    }

    /// Asks how the server and its queues are.
    ///
    /// ```no_run
    /// # let server = cli::Endpoint::new("127.0.0.1", 55556);
    /// # let mut client = queue_client::Client::connect(&server, queue_client::Transport::Tcp)?;
    /// for queue in client.stats()?.queues {
    ///     println!("{}: {} ready, {} held", queue.name, queue.ready, queue.held);
    /// }
    /// # Ok::<(), queue_client::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the server refuses or is lost.
    pub fn stats(&mut self) -> Result<Stats, Error> {
        match self.ask(&Request::Stats)? {
            Reply::Stats { totals, queues } => Ok(Stats {
                totals,
                queues: queues.into_iter().map(QueueStats::into_owned).collect(),
            }),
            other => Err(unexpected(&other)),
        }
    }

    /// Forgets all messages of the queue that nobody holds; returns how many there were.
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
        let queue = Arc::clone(&self.queue);
        let queue = name(&queue);
        self.ask_done(&Request::Purge { queue })
    }

    /// Has the queue hand out nothing.
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
        let queue = Arc::clone(&self.queue);
        let queue = name(&queue);
        self.ask_done(&Request::Pause { queue }).map(drop)
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
        let queue = Arc::clone(&self.queue);
        let queue = name(&queue);
        self.ask_done(&Request::Resume { queue }).map(drop)
    }

    /// Moves the queue's dead messages back to its end; returns how many there were.
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
        let queue = Arc::clone(&self.queue);
        let queue = name(&queue);
        self.ask_done(&Request::Kick { queue })
    }

    /// Has the server take no new messages, or take them again.
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
        self.ask_done(&Request::Drain { on }).map(drop)
    }
}
