//! The queue client: [`Client`] talks to a queue server over TCP or UDP, and [`run`] is the program,
//! which gives each larger verb a file of its own.

pub mod args;
mod batch;
mod client;
mod error;
mod lease;
mod link;
mod message;
mod peek;
mod receive;
mod reconnect;
mod send;
mod servers;
mod session;
mod show;
mod tcp;
mod token;
mod udp;
mod work;

use std::time::Duration;

// What the methods of a client take and return.
pub use cli::Endpoint;
pub use proto::queue::{
    Claim, MessageId, MessageState, Priority, Properties, QueueName, QueueNames, QueueStats,
    Reason, Retry, Token, Totals,
};

pub use batch::Batch;
pub use client::{Client, Stats};
pub use error::{DeadLetters, Error, Unanswered};
pub use lease::Lease;
pub use link::Transport;
pub use message::{Peeked, Received, Released, ReservedBy};
pub use peek::{Peek, Which};
pub use receive::{Ending, Receive};
pub use send::{Send, Source};
pub use show::List;
pub use tcp::AbortHandle;
pub use token::TokenSource;
pub use work::{Backoff, Work, guard};

/// What the program does, and with which server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The server.
    pub endpoint: Endpoint,
    /// How long to keep trying to reach it for the first time; [`Endpoint::wait_for_server`] is for the others.
    pub wait_at_first: Duration,
    /// How it is reached.
    pub transport: Transport,
    /// The queues' names, which must be valid for [`QueueName::new`] and [`QueueNames::new`]. Only what
    /// receives may have several.
    pub queues: Vec<String>,
    /// The verb and its options.
    pub action: Action,
}

/// The program's verbs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Put one message or many into the queue.
    Send(Send),
    /// Receive messages.
    Receive(Receive),
    /// Run a command for each message.
    Work(Work),
    /// Lease the oldest message into a file.
    Lease(Lease),
    /// Acknowledge a leased message.
    Ack(TokenSource),
    /// Release a leased message, with this delay, for this reason.
    Release(TokenSource, Duration, String),
    /// Requeue one message that is reserved, as if its holder were gone.
    ReleaseOne(MessageId),
    /// Requeue all that this connection has reserved, as if it were gone.
    ReleaseHolder(u64),
    /// Let a lease end this long from now.
    Extend(TokenSource, Duration),
    /// Show messages, and leave them where they are.
    Peek(Peek),
    /// Show the queues.
    List(List),
    /// Delete one message.
    Delete(MessageId),
    /// Make one message ready that is delayed or dead.
    KickOne(MessageId),
    /// Move one message to the end of this queue.
    Move(MessageId, String),
    /// Show the queues and the server's totals, as text or as JSON.
    Stats {
        /// As JSON.
        json: bool,
    },
    /// Delete all messages that are not reserved.
    Purge,
    /// Hand out nothing.
    Pause,
    /// Hand out messages again.
    Resume,
    /// Move the dead letters back.
    Kick,
    /// Have the server refuse new messages, or accept them again.
    Drain(bool),
}

impl Action {
    /// Whether it goes on by itself after a restart of the server: it is there for more than one message.
    fn goes_on(&self) -> bool {
        match self {
            Self::Send(send) => send.piece_end.is_some(),
            Self::Receive(receive) => receive.count.is_none(),
            Self::Work(_) => true,
            Self::Lease(_)
            | Self::Ack(_)
            | Self::Release(..)
            | Self::ReleaseOne(_)
            | Self::ReleaseHolder(_)
            | Self::Extend(..)
            | Self::Peek(_)
            | Self::List(_)
            | Self::Delete(_)
            | Self::KickOne(_)
            | Self::Move(..)
            | Self::Stats { .. }
            | Self::Purge
            | Self::Pause
            | Self::Resume
            | Self::Kick
            | Self::Drain(_) => false,
        }
    }

    /// Whether it reads standard input.
    fn reads_stdin(&self) -> bool {
        match self {
            Self::Send(send) => send.source == Source::Stdin,
            Self::Ack(token) | Self::Release(token, ..) | Self::Extend(token, _) => {
                *token == TokenSource::Stdin
            }
            Self::Receive(_)
            | Self::Work(_)
            | Self::Lease(_)
            | Self::ReleaseOne(_)
            | Self::ReleaseHolder(_)
            | Self::Peek(_)
            | Self::List(_)
            | Self::Delete(_)
            | Self::KickOne(_)
            | Self::Move(..)
            | Self::Stats { .. }
            | Self::Purge
            | Self::Pause
            | Self::Resume
            | Self::Kick
            | Self::Drain(_) => false,
        }
    }
}

impl Config {
    fn queues(&self) -> QueueNames<'_> {
        let name = |queue| QueueName::new(queue).expect("the command line was checked");
        let names = self.queues.iter().map(|queue| name(queue));
        QueueNames::new(names).expect("the command line was checked")
    }
}

/// Does what the command line says. [`Action::Work`] starts the program again for each command, so a
/// program that calls this must call [`guard`] first.
///
/// # Errors
/// If it was not done; the error knows its exit code.
pub fn run(config: Config) -> Result<(), Error> {
    config.endpoint.security.read().map_err(Error::from)?;
    match &config.action {
        Action::Send(send) => send.run(&config)?,
        Action::Receive(receive) => receive.run(&config)?,
        Action::Work(work) => work.run(&config)?,
        Action::Lease(lease) => lease.run(&config)?,
        Action::Ack(token) => {
            let token = token.token()?;
            config.ask(|client| client.ack(token))?;
        }
        Action::Release(token, delay, reason) => {
            let token = token.token()?;
            let retry = Retry::Counted {
                delay_millis: client::millis(*delay)?,
            };
            let reason = Reason::new(reason);
            config.ask(|client| client.release_with(token, retry, reason))?;
        }
        Action::ReleaseOne(id) => {
            let released = config.ask(|client| client.release_one(*id))?;
            match released {
                Released::Queued => log::info!("Message released: {id}"),
                Released::Dead => log::info!("Message released, and a dead letter now: {id}"),
            }
        }
        Action::ReleaseHolder(holder) => {
            let messages = config.ask(|client| client.release_holder(*holder))?;
            log::info!("Messages released: {messages}");
        }
        Action::Delete(id) => {
            config.ask(|client| client.delete(*id))?;
            log::info!("Message deleted: {id}");
        }
        Action::KickOne(id) => {
            config.ask(|client| client.kick_one(*id))?;
            log::info!("Message kicked: {id}");
        }
        Action::Move(id, to) => {
            config.ask(|client| client.move_to(*id, client::name(to)))?;
            log::info!("Message moved: {id}");
        }
        Action::Extend(token, lease) => {
            let token = token.token()?;
            config.ask(|client| client.extend(token, *lease))?;
        }
        Action::Peek(peek) => peek.run(&config)?,
        Action::List(list) => list.run(&config)?,
        Action::Stats { json } => {
            let out = cli::stream::output()?;
            show::stats(&config.ask(Client::stats)?, out, *json)?;
        }
        Action::Purge => {
            let messages = config.ask(Client::purge)?;
            log::info!("Messages purged: {messages}");
        }
        Action::Pause => {
            config.ask(Client::pause)?;
            log::info!("Queue paused: {}", config.queues().first());
        }
        Action::Resume => {
            config.ask(Client::resume)?;
            log::info!("Queue resumed: {}", config.queues().first());
        }
        Action::Kick => {
            let messages = config.ask(Client::kick)?;
            log::info!("Messages kicked: {messages}");
        }
        Action::Drain(on) => {
            config.ask(|client| client.drain(*on))?;
            let accepts = if *on { "no" } else { "yes" };
            log::info!("The server accepts new messages: {accepts}");
        }
    }
    Ok(())
}
