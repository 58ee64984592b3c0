//! The queue client: [`Client`] talks to a queue server over TCP or UDP; [`run`] is what the
//! program does with it, each verb in a file of its own.

pub mod args;
mod batch;
mod client;
mod error;
mod lease;
mod link;
mod message;
mod receive;
mod reconnect;
mod send;
mod show;
mod stats;
mod tcp;
mod token;
mod udp;
mod work;

use std::time::Duration;

// What the methods of a client take and return.
pub use cli::Endpoint;
use cli::stream::Output;
pub use proto::queue::{Claim, MessageId, QueueName, QueueStats, Token, Totals};

pub use batch::Batch;
pub use client::Client;
pub use error::{Error, Unanswered};
pub use lease::Lease;
pub use link::Transport;
pub use message::{Peeked, Received, Released};
pub use receive::{Ending, Receive};
pub use send::{Send, Source};
pub use stats::Stats;
pub use tcp::AbortHandle;
pub use token::TokenSource;
pub use work::{Work, guard};

/// What the program is to do, and with which server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The server.
    pub endpoint: Endpoint,
    /// How it is reached.
    pub transport: Transport,
    /// The queue's name, which [`QueueName::new`] takes.
    pub queue: String,
    /// What is to be done.
    pub action: Action,
}

/// The program's verbs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Put one message into the queue, or many.
    Send(Send),
    /// Take messages out.
    Receive(Receive),
    /// Run a command for each message.
    Work(Work),
    /// Take the oldest message for a time, into a file.
    Lease(Lease),
    /// Acknowledge a leased message.
    Ack(TokenSource),
    /// Give a leased message back, to be handed out again after so long.
    Release(TokenSource, Duration),
    /// Make a lease run out so long from now.
    Extend(TokenSource, Duration),
    /// Show so many messages at the front, and leave them there.
    Peek(u64, Ending),
    /// Show the queues.
    List,
    /// Show the queues and the server's totals, as text or as JSON.
    Stats {
        /// As JSON.
        json: bool,
    },
    /// Forget all messages that nobody holds.
    Purge,
    /// Hand out nothing.
    Pause,
    /// Hand out messages again.
    Resume,
    /// Move the dead messages back.
    Kick,
    /// Have the server refuse new messages, or not any more.
    Drain(bool),
}

impl Config {
    fn queue(&self) -> QueueName<'_> {
        QueueName::new(&self.queue).expect("the command line was checked")
    }
}

/// Does what the command line says. For [`Action::Work`] the program starts itself once more: then
/// [`guard`] has to be called first.
///
/// # Errors
/// With the exit code that belongs to it.
pub fn run(config: Config) -> Result<(), Error> {
    match &config.action {
        Action::Send(send) => send.run(&config),
        Action::Receive(receive) => receive.run(&config),
        Action::Work(work) => work.run(&config),
        Action::Lease(lease) => lease.run(&config),
        Action::Ack(token) => {
            let token = token.token()?;
            config.ask(|client| client.ack(token))
        }
        Action::Release(token, delay) => {
            let token = token.token()?;
            config.ask(|client| client.release(token, *delay).map(drop))
        }
        Action::Extend(token, lease) => {
            let token = token.token()?;
            config.ask(|client| client.extend(token, *lease))
        }
        Action::Peek(count, ending) => {
            let out = output()?;
            show::peek(&mut config.connect()?, out, *count, ending)
        }
        Action::List => {
            let out = output()?;
            show::list(&config.ask(Client::stats)?, out)
        }
        Action::Stats { json } => {
            let out = output()?;
            show::stats(&config.ask(Client::stats)?, out, *json)
        }
        Action::Purge => {
            let messages = config.ask(Client::purge)?;
            log::info!("Messages purged: {messages}");
            Ok(())
        }
        Action::Pause => {
            config.ask(Client::pause)?;
            log::info!("Queue paused: {}", config.queue);
            Ok(())
        }
        Action::Resume => {
            config.ask(Client::resume)?;
            log::info!("Queue resumed: {}", config.queue);
            Ok(())
        }
        Action::Kick => {
            let messages = config.ask(Client::kick)?;
            log::info!("Messages kicked: {messages}");
            Ok(())
        }
        Action::Drain(on) => {
            config.ask(|client| client.drain(*on))?;
            log::info!(
                "The server takes new messages: {}",
                if *on { "no" } else { "yes" }
            );
            Ok(())
        }
    }
}

/// Standard output. A verb that writes to it gets it before it asks for anything.
fn output() -> Result<Output, Error> {
    Ok(cli::stream::output()?)
}
