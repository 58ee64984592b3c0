//! Clients on hosts of their own, which send, lease and acknowledge at random at whichever server answers,
//! and write down what they ask and what they are told.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cli::Endpoint;
use proto::ErrorCode;
use queue_client::{Client, Error, MessageId, Transport};

use super::history::{Event, Lease, Outcome, What};
use crate::harness::network::Host;
use crate::harness::{Noise, PATIENCE, lock};

/// How long a client waits for an answer.
const TIMEOUT: Duration = Duration::from_secs(3);

/// How long a lease lasts that nobody ends.
const LEASE: Duration = Duration::from_secs(4);

/// How long a client that finds no server, or no message, waits before it tries again.
const PAUSE: Duration = Duration::from_millis(20);

/// All that was asked.
pub struct Clients {
    begun: Instant,
    servers: [Endpoint; 2],
    events: Mutex<Vec<Event>>,
    answers: AtomicUsize,
    is_over: AtomicBool,
}

impl Clients {
    /// Nothing is asked yet of these servers.
    pub fn new(servers: [Endpoint; 2]) -> Self {
        Self {
            begun: Instant::now(),
            servers: servers.map(|server| Endpoint {
                timeout: TIMEOUT,
                ..server
            }),
            events: Mutex::default(),
            answers: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
        }
    }

    /// How often something was done.
    pub fn answers(&self) -> usize {
        self.answers.load(Ordering::SeqCst)
    }

    /// Has all clients end.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    /// What was asked, and what the answers were.
    pub fn into_events(self) -> Vec<Event> {
        self.events.into_inner().unwrap()
    }

    /// Asks until [`Self::end`], from this host, which the calling thread never leaves. Bodies are `NAME.NUMBER`.
    pub fn run(&self, host: &Host, name: usize) {
        host.enter();
        let mut noise = Noise::new(name as u64 * 7919 + 13);
        let mut sent = 0;
        while !self.is_over() {
            let server = &self.servers[noise.below(2)];
            let Ok(mut client) = Client::connect(server, Transport::Tcp) else {
                thread::park_timeout(PAUSE);
                continue;
            };
            // Its end says nothing but that another connection is needed.
            while !self.is_over() && self.ask(&mut client, name, &mut sent, &mut noise).is_ok() {}
            thread::park_timeout(PAUSE);
        }
    }

    fn ask(
        &self,
        client: &mut Client,
        name: usize,
        sent: &mut u64,
        noise: &mut Noise,
    ) -> Result<(), Error> {
        // As a quarter of the leases acknowledge nothing, about as much comes as goes.
        if noise.below(9) < 4 {
            *sent += 1;
            return self.send(client, format!("{name}.{sent}"));
        }
        let Some((id, claim)) = self.lease(client)? else {
            return Ok(());
        };
        match noise.below(8) {
            0 => {
                let asked = self.begun.elapsed();
                let done = client.release(claim, Duration::ZERO);
                self.note_end(asked, done, |outcome| What::Released(id, outcome))
            }
            // Nobody ends it.
            1 => Ok(()),
            _ => {
                let asked = self.begun.elapsed();
                let done = client.ack(claim);
                self.note_end(asked, done, |outcome| What::Acked(id, outcome))
            }
        }
    }

    fn send(&self, client: &mut Client, record: String) -> Result<(), Error> {
        let asked = self.begun.elapsed();
        let sent = client.send(record.as_bytes());
        self.note(asked, What::Sent(record, sent.as_ref().ok().copied()));
        sent.map(drop)
    }

    fn lease(
        &self,
        client: &mut Client,
    ) -> Result<Option<(MessageId, proto::queue::Claim)>, Error> {
        let asked = self.begun.elapsed();
        match client.lease(LEASE, Duration::ZERO) {
            Ok(Some(message)) => {
                let lease = Lease {
                    id: message.id,
                    record: String::from_utf8(message.body.clone()).unwrap(),
                    attempt: message.attempt,
                    lasts: LEASE,
                };
                self.note(asked, What::Leased(lease));
                Ok(Some((message.id, message.claim)))
            }
            Ok(None) => Ok(None),
            Err(error) => {
                if !is_standby(&error) {
                    self.note(asked, What::LeaseLost);
                }
                Err(error)
            }
        }
    }

    fn note_end<T>(
        &self,
        asked: Duration,
        done: Result<T, Error>,
        what: impl FnOnce(Outcome) -> What,
    ) -> Result<(), Error> {
        let (outcome, result) = match done {
            Ok(_) => (Outcome::Done, Ok(())),
            Err(Error::Refused {
                code: ErrorCode::NotFound,
                ..
            }) => (Outcome::NoLease, Ok(())),
            Err(error) => (Outcome::Unknown, Err(error)),
        };
        self.note(asked, what(outcome));
        result
    }

    fn note(&self, asked: Duration, what: What) {
        let is_done = match &what {
            What::Sent(_, id) => id.is_some(),
            What::Leased(_) => true,
            What::LeaseLost => false,
            What::Acked(_, outcome) | What::Released(_, outcome) => *outcome == Outcome::Done,
        };
        let answered = self.begun.elapsed();
        lock(&self.events).push(Event {
            asked,
            answered,
            what,
        });
        self.answers
            .fetch_add(usize::from(is_done), Ordering::SeqCst);
    }

    /// Receives and acknowledges from this host until there are no messages.
    #[track_caller]
    pub fn empty(&self, host: &Host) {
        host.enter();
        let deadline = Instant::now() + PATIENCE;
        let mut turn = 0;
        while !self.is_emptied(&self.servers[turn % 2]) {
            assert!(Instant::now() < deadline, "the queue does not become empty");
            turn += 1;
            thread::park_timeout(PAUSE);
        }
    }

    /// Whether the queue was empty before something went wrong.
    fn is_emptied(&self, server: &Endpoint) -> bool {
        let Ok(mut client) = Client::connect(server, Transport::Tcp) else {
            return false;
        };
        loop {
            match self.lease(&mut client) {
                Ok(Some((id, claim))) => {
                    let asked = self.begun.elapsed();
                    let done = client.ack(claim);
                    if self
                        .note_end(asked, done, |end| What::Acked(id, end))
                        .is_err()
                    {
                        return false;
                    }
                }
                // Leases of others run out.
                Ok(None) => match client.stats() {
                    Ok(stats) if stats.queues.is_empty() => return true,
                    Ok(_) => thread::park_timeout(PAUSE),
                    Err(_) => return false,
                },
                Err(_) => return false,
            }
        }
    }
}

/// Whether a server says that it does nothing.
fn is_standby(error: &Error) -> bool {
    matches!(
        error,
        Error::Refused {
            code: ErrorCode::Standby,
            ..
        }
    )
}
