//! The leader thread: with a database that several servers can reach, it decides when this one is active and when
//! it stands by.
//!
//! A server that stands by looks at the row of the leader several times a second
//! ([`Candidate`](crate::journal::Candidate)). When it has taken over, it reads the queues and serves them. From then
//! on it has the journal commit every so often at least, so that the others see that it lives. When a commit is lost,
//! or has had no answer for too long, it steps down: it ends all connections, because what they have reserved may
//! soon be somebody else's, forgets the queues, and competes again.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use cli::exit::with_causes;
use daemon::{DatagramService, Handle, Protocols, Switch};

use crate::active::{Active, Ports};
use crate::error::Error;
use crate::journal::Candidate;
use crate::queues::{Limits, Queues};
use crate::standby;

/// How often a server that stands by looks whether it is time to take over...
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// ...and tries again when the database cannot be used.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// How often a leader looks whether it has to show that it lives.
const BEAT_EVERY: Duration = Duration::from_millis(250);

/// How long a server that ends waits for the database at most.
const END_WAIT: Duration = Duration::from_secs(5);

/// How many events may wait. A term has one at most, and the end has one.
const EVENTS_MAX: usize = 64;

/// What the leader thread is told.
enum Event {
    /// A commit was lost in this term.
    Lost(u64),
    /// The server ends.
    Stop,
}

/// The running thread. Dropping it ends it, and hands the database over to another server.
pub(crate) struct Leader {
    protocols: Switch,
    datagrams: Switch<dyn DatagramService>,
    events: SyncSender<Event>,
    ended: Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

/// A term: the time from one takeover to the next.
struct Term {
    number: u64,
    active: Active,
}

/// What is served, and by whom it is exchanged.
struct Servers {
    protocols: Switch,
    datagrams: Switch<dyn DatagramService>,
    /// What a server answers with that stands by.
    standby: (Arc<Protocols>, Arc<dyn DatagramService>),
    ports: Ports,
}

/// What the thread owns.
struct Competitor {
    candidate: Candidate,
    limits: Limits,
    servers: Servers,
    terms: u64,
    lost: SyncSender<Event>,
    events: Receiver<Event>,
}

impl Leader {
    /// Competes, once more if that fails, and starts the thread. The server is active when this returns, or stands by.
    ///
    /// # Errors
    /// If the database cannot be used.
    pub(crate) fn start(candidate: Candidate, limits: Limits, ports: Ports) -> Result<Self, Error> {
        let standby = (
            Arc::new(standby::protocols(limits.body_bytes_max)),
            standby::datagrams(ports.udp_text, ports.datagram_counter.clone()),
        );
        let servers = Servers {
            protocols: Switch::new(Arc::clone(&standby.0)),
            datagrams: Switch::new(Arc::clone(&standby.1)),
            standby,
            ports,
        };
        let (protocols, datagrams) = (servers.protocols.clone(), servers.datagrams.clone());
        let (lost, events) = sync_channel(EVENTS_MAX);
        let (end, ended) = sync_channel(1);
        let mut competitor = Competitor {
            candidate,
            limits,
            servers,
            terms: 0,
            lost: lost.clone(),
            events,
        };
        let first = competitor.begin_term().or_else(|error| {
            // That may have been another server's doing, which was in the middle of a takeover.
            log::warn!("{}; trying again", with_causes(&error));
            competitor.begin_term()
        })?;
        match &first {
            Some(term) => competitor.serve(term),
            None => competitor.servers.announce_standby(),
        }
        let handle = competitor.servers.ports.handle.clone();
        let run = move || {
            let _stops = StopsOnPanic(handle);
            competitor.run(first);
            // Nobody waits any more if it took too long.
            let _ = end.send(());
        };
        let thread = thread::Builder::new().name("leader".to_owned()).spawn(run);
        Ok(Self {
            protocols,
            datagrams,
            events: lost,
            ended,
            thread: Some(thread.map_err(daemon::StartError::Thread)?),
        })
    }
}

impl Leader {
    /// What is served, over TCP and UDP.
    pub(crate) fn switches(&self) -> (Switch, Switch<dyn DatagramService>) {
        (self.protocols.clone(), self.datagrams.clone())
    }

    /// Ends the thread, and hands the database over to another server.
    ///
    /// # Errors
    /// [`Error::LeaderPanicked`].
    pub(crate) fn end(mut self) -> Result<(), Error> {
        self.end_thread()
    }

    fn end_thread(&mut self) -> Result<(), Error> {
        let Some(thread) = self.thread.take() else {
            return Ok(());
        };
        // The thread has ended if that fails.
        let _ = self.events.send(Event::Stop);
        if self.ended.recv_timeout(END_WAIT) == Err(RecvTimeoutError::Timeout) {
            log::warn!("The database does not answer; another server takes over later");
            return Ok(());
        }
        thread.join().map_err(|_| Error::LeaderPanicked)
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        if let Err(error) = self.end_thread() {
            log::error!("{error}");
        }
    }
}

/// Stops the server if the leader thread panics: it would stand by for ever.
struct StopsOnPanic(Handle);

impl Drop for StopsOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.stop();
        }
    }
}

impl Servers {
    /// Serves no queues any more, and says to everybody that this server stands by.
    fn serve_standby(&self) {
        let (protocols, datagrams) = &self.standby;
        self.protocols.set(Arc::clone(protocols));
        self.datagrams.set(Arc::clone(datagrams));
    }

    fn announce_standby(&self) {
        self.ports.handle.set_status("Standing by");
        log::info!("Standing by; another server is active");
    }
}

impl Competitor {
    fn run(mut self, mut term: Option<Term>) {
        loop {
            let now = match term.take() {
                Some(first) => first,
                None => match self.stand_by() {
                    Some(next) => {
                        self.serve(&next);
                        // Or a connection that is kept open would be told for ever that this server stands by.
                        self.servers.ports.handle.abort_connections();
                        next
                    }
                    None => return,
                },
            };
            let is_over = self.lead(&now);
            self.servers.serve_standby();
            if !is_over {
                // Its journal hands the database over.
                return;
            }
            self.servers.ports.handle.abort_connections();
            self.servers.announce_standby();
            forget(now);
        }
    }

    /// Stands by until this server has taken over; `None` if it ends.
    fn stand_by(&mut self) -> Option<Term> {
        let mut told = String::new();
        loop {
            let wait = match self.begin_term() {
                Ok(Some(term)) => return Some(term),
                Ok(None) => {
                    told.clear();
                    LOOK_EVERY
                }
                Err(error) => {
                    let why = with_causes(&error).to_string();
                    if why != told {
                        log::error!("{why}; trying again");
                        told = why;
                    }
                    RETRY_EVERY
                }
            };
            match self.events.recv_timeout(wait) {
                Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return None,
                Ok(Event::Lost(_)) | Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Takes over, if it is time for that, and reads the queues.
    fn begin_term(&mut self) -> Result<Option<Term>, Error> {
        let Some(opened) = self.candidate.compete()? else {
            return Ok(None);
        };
        self.terms += 1;
        let number = self.terms;
        let lost = self.lost.clone();
        let on_failure = move || {
            // If that is full, the thread is about to look anyway.
            let _ = lost.try_send(Event::Lost(number));
        };
        let queues = Queues::load(opened, self.limits.clone(), on_failure)?;
        let active = Active::start(queues, &self.servers.ports)?;
        Ok(Some(Term { number, active }))
    }

    fn serve(&self, term: &Term) {
        let servers = &self.servers;
        term.active.serve(&servers.ports);
        servers.protocols.set(Arc::clone(&term.active.protocols));
        servers.datagrams.set(Arc::clone(&term.active.datagrams));
        servers.ports.handle.set_status("Serving");
        log::info!("Active; servers on the same database stand by");
    }

    /// Leads until a commit is lost or late, which returns true, or until the server ends.
    fn lead(&self, term: &Term) -> bool {
        loop {
            match self.events.recv_timeout(BEAT_EVERY) {
                Ok(Event::Lost(number)) if number == term.number => return true,
                // Of a term that is over.
                Ok(Event::Lost(_)) => {}
                Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return false,
                Err(RecvTimeoutError::Timeout) => {
                    if !term.active.queues.has_authority() {
                        log::error!("The database has not answered for too long");
                        return true;
                    }
                    term.active.queues.confirm_authority();
                }
            }
        }
    }
}

/// Forgets the queues of a term that is over. That may have to wait for a commit whose answer does not come, for as long
/// as the replica is gone or PostgreSQL hangs. Nobody waits for that, and it does not add up: such a commit keeps the row
/// of the leader locked, so no other term begins on that PostgreSQL before it has ended. At most one is left for each
/// PostgreSQL server of the URL.
fn forget(term: Term) {
    let forgotten: io::Result<_> = thread::Builder::new()
        .name("former".to_owned())
        .spawn(move || drop(term));
    if let Err(error) = forgotten {
        log::error!("cannot start a thread: {error}");
    }
}

#[cfg(test)]
mod tests {
    use daemon::Daemon;

    use super::*;

    #[test]
    fn a_panic_of_the_leader_thread_stops_the_server() {
        let daemon = Daemon::new(cli::ServerOptions::new(1), 1, "").unwrap();
        let handle = daemon.handle();
        let ends = |panics: bool| {
            let stops = StopsOnPanic(handle.clone());
            let thread = thread::spawn(move || {
                let _stops = stops;
                assert!(!panics, "as the test wants it");
            });
            let _ = thread.join();
            handle.is_stopping()
        };
        assert!(!ends(false));
        assert!(ends(true));
    }
}
