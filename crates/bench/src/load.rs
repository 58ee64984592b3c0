//! The load generator: many connections on few threads.
//!
//! The machine's cores are shared with the server, so the generator must be cheap, and the same for
//! all servers. Each of its threads drives many nonblocking connections by epoll. A connection sends
//! as many requests as may be in flight with one write, and the next ones when all are answered.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::conversation::{Conversation, Wrong};
use crate::error::Error;
use crate::target::{Stream, Target};

/// How long a server may be silent before the run is given up, in seconds.
const SILENCE_SECS: u64 = if cfg!(test) { 1 } else { 20 };

/// How much is read at once, in bytes.
const READ_BYTES: usize = 256 * 1024;

/// How many events are taken from epoll at once.
const EVENTS_MAX: usize = 512;

/// What epoll waits for: each change, so that nothing has to be asked for anew when output is full.
const EVENTS: EventFlags = EventFlags::IN.union(EventFlags::OUT).union(EventFlags::ET);

/// Latencies are kept in nanoseconds, to three digits, up to a minute.
const LATENCY_NANOS_MAX: u64 = 60_000_000_000;

/// What the generator does.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Connections open at once.
    pub connections: usize,
    /// Requests that each sends before it waits.
    pub in_flight: usize,
    /// Threads that drive the connections.
    pub threads: usize,
    /// When it ends.
    pub until: Until,
}

/// When a load ends.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    /// After a time, of which the first part does not count.
    Time {
        /// The part that does not count.
        warm_up: Duration,
        /// The part that counts.
        measured: Duration,
    },
    /// When each connection has had N batches answered (each `in_flight` requests).
    Batches(u64),
}

/// The result of a load, or of one thread's share.
pub struct Outcome {
    /// Operations in the measured time.
    pub operations: u64,
    /// Operations in all, including the warm-up and those completed after the end.
    pub operations_in_all: u64,
    /// How long each of those that count took from its sending to its reply, in nanoseconds.
    pub latency_nanos: Histogram<u64>,
    /// The measured time; for a load that ends after N batches, from the first connect to the last
    /// reply.
    pub elapsed: Duration,
    /// The connections, still open.
    pub connections: Vec<Connection>,
}

impl Outcome {
    fn new() -> Self {
        Self {
            operations: 0,
            operations_in_all: 0,
            latency_nanos: latencies(),
            elapsed: Duration::ZERO,
            connections: Vec::new(),
        }
    }

    fn add(&mut self, share: Self) {
        self.operations += share.operations;
        self.operations_in_all += share.operations_in_all;
        self.latency_nanos += share.latency_nanos;
        self.connections.extend(share.connections);
    }
}

/// An empty histogram of latencies in nanoseconds.
pub fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NANOS_MAX, 3).expect("these bounds are allowed")
}

/// Opens all connections, without waiting for one before the next, and runs a load over them. `talk`
/// makes the conversation of each.
///
/// # Errors
/// At the first wrong answer, or if a connection is lost or no answer comes.
pub fn run(
    target: &Target,
    load: Load,
    talk: &mut dyn FnMut() -> Box<dyn Conversation>,
) -> Result<Outcome, Error> {
    let talks: Vec<_> = (0..load.connections).map(|_| talk()).collect();
    let begun = Instant::now();
    let mut drivers = Vec::new();
    let driver = || Driver::new(load, begun);
    drivers.resize_with(load.threads.min(load.connections), driver);
    for (number, talk) in talks.into_iter().enumerate() {
        let addr = target.addr;
        let tcp = begin_connect(addr).map_err(Error::io(format!("connect to {addr}")))?;
        let stream = target.over(tcp)?;
        let share = number % drivers.len();
        drivers[share]
            .outcome
            .connections
            .push(Connection::new(stream, talk));
    }
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for driver in drivers {
            let thread = thread::Builder::new().name("generator".to_owned());
            let thread = thread.spawn_scoped(scope, || driver.drive());
            threads.push(thread.map_err(Error::io("start a thread"))?);
        }
        let mut outcome = Outcome::new();
        for thread in threads {
            outcome.add(thread.join().expect("a generator does not panic")?);
        }
        outcome.elapsed = match load.until {
            Until::Time { measured, .. } => measured,
            Until::Batches(_) => begun.elapsed(),
        };
        Ok(outcome)
    })
}

/// A socket that is connecting; the first write waits until it is connected.
fn begin_connect(addr: SocketAddrV4) -> io::Result<TcpStream> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket: OwnedFd =
        rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, &addr) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// One connection of the load.
pub struct Connection {
    stream: Stream,
    talk: Box<dyn Conversation>,
    /// Requests, of which the first `sent` bytes are sent.
    requests: Vec<u8>,
    sent: usize,
    /// Replies that are not checked, the last of them perhaps in part.
    replies: Vec<u8>,
    /// Replies that are awaited.
    awaited: usize,
    /// When the operations in flight began.
    asked: Instant,
    /// Whether the last batch completed operations; if not, the next one continues them.
    has_completed: bool,
    batches: u64,
}

impl Connection {
    fn new(stream: Stream, talk: Box<dyn Conversation>) -> Self {
        Self {
            stream,
            talk,
            requests: Vec::new(),
            sent: 0,
            replies: Vec::new(),
            awaited: 0,
            asked: Instant::now(),
            has_completed: true,
            batches: 0,
        }
    }

    fn ask(&mut self, in_flight: usize, now: Instant) -> Result<(), Error> {
        self.requests.clear();
        self.sent = 0;
        self.talk.ask(in_flight, &mut self.requests);
        self.awaited = in_flight;
        if self.has_completed {
            self.asked = now;
        }
        self.has_completed = false;
        self.send()
    }

    /// Sends what the socket has room for.
    fn send(&mut self) -> Result<(), Error> {
        while self.has_unsent() {
            match self.stream.write(&self.requests[self.sent..]) {
                Ok(bytes) => self.sent += bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io("send")(error)),
            }
        }
        Ok(())
    }

    fn has_unsent(&self) -> bool {
        self.sent < self.requests.len()
    }

    /// Checks the replies that are whole; returns how many operations they complete.
    fn check_replies(&mut self) -> Result<u64, Error> {
        let mut checked = 0;
        let mut completed = 0;
        while self.awaited > 0 {
            let Some(reply) = self.talk.check(&self.replies[checked..])? else {
                break;
            };
            checked += reply.bytes;
            self.awaited -= usize::from(reply.is_last);
            completed += u64::from(reply.completes);
        }
        self.replies.drain(..checked);
        if self.awaited == 0 && !self.replies.is_empty() {
            return Err(Wrong::new("no more bytes", &self.replies).into());
        }
        self.has_completed |= completed > 0;
        Ok(completed)
    }
}

/// One thread's connections.
struct Driver {
    outcome: Outcome,
    in_flight: usize,
    /// The time that counts; nothing is begun after its end.
    measured: Range<Instant>,
    /// Batches after which a connection stops.
    batches_max: u64,
    input: Vec<u8>,
}

impl Driver {
    fn new(load: Load, begun: Instant) -> Self {
        /// Longer than any load by number.
        const NO_END: Duration = Duration::from_secs(24 * 60 * 60);
        let (measured, batches_max) = match load.until {
            Until::Time { warm_up, measured } => {
                let from = begun + warm_up;
                (from..from + measured, u64::MAX)
            }
            Until::Batches(batches) => (begun..begun + NO_END, batches),
        };
        Self {
            outcome: Outcome::new(),
            in_flight: load.in_flight,
            measured,
            batches_max,
            input: vec![0; READ_BYTES],
        }
    }

    fn drive(mut self) -> Result<Outcome, Error> {
        let failed = |errno: rustix::io::Errno| Error::io("epoll")(errno.into());
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(failed)?;
        for (number, connection) in self.outcome.connections.iter_mut().enumerate() {
            let data = EventData::new_u64(number as u64);
            epoll::add(&epoll, &connection.stream, data, EVENTS).map_err(failed)?;
            connection.ask(self.in_flight, Instant::now())?;
        }
        let mut busy = self.outcome.connections.len();
        let mut events = Vec::with_capacity(EVENTS_MAX);
        let silence = Timespec {
            tv_sec: SILENCE_SECS as i64,
            tv_nsec: 0,
        };
        while busy > 0 {
            events.clear();
            let room = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(&epoll, room, Some(&silence)) {
                Ok(0) => {
                    let who = "the load generator".to_owned();
                    let secs = SILENCE_SECS;
                    return Err(Error::Silent { who, secs });
                }
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(failed(errno)),
            }
            for event in &events {
                let number = event.data.u64() as usize;
                self.outcome.connections[number].send()?;
                if !self.read(number)? {
                    busy -= 1;
                }
            }
        }
        Ok(self.outcome)
    }

    /// Reads what has arrived, checks the replies that are whole, and asks anew when all have come.
    /// `false` when this connection is done.
    fn read(&mut self, number: usize) -> Result<bool, Error> {
        let connection = &mut self.outcome.connections[number];
        loop {
            match connection.stream.read(&mut self.input) {
                Ok(0) => return Err(Error::io("read")(ErrorKind::UnexpectedEof.into())),
                Ok(bytes) => {
                    connection.replies.extend_from_slice(&self.input[..bytes]);
                    // A read that is not full has emptied the socket (epoll(7)).
                    if bytes < self.input.len() && connection.stream.is_emptied_by_short_read() {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io("read")(error)),
            }
        }
        if connection.replies.is_empty() {
            return Ok(true);
        }
        let now = Instant::now();
        let nanos = now.duration_since(connection.asked).as_nanos() as u64;
        let completed = connection.check_replies()?;
        self.outcome.operations_in_all += completed;
        if self.measured.contains(&now) {
            self.outcome.operations += completed;
            let latencies = &mut self.outcome.latency_nanos;
            latencies.saturating_record_n(nanos, completed);
        }
        if connection.awaited > 0 {
            return Ok(true);
        }
        connection.batches += 1;
        let is_over = connection.batches >= self.batches_max || now >= self.measured.end;
        if is_over && connection.talk.may_stop() {
            return Ok(false);
        }
        connection.ask(self.in_flight, now)?;
        Ok(true)
    }
}
