//! The load generator: many connections on few threads.
//!
//! The machine's cores are shared with the server, so the generator must be cheap, and the same for
//! everybody. Each of its threads drives many nonblocking connections by epoll. A connection sends
//! as many requests as may be in flight with one write, and the next ones when all are answered.
//! One connection alone needs no epoll; its socket blocks.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::conversation::Conversation;
use crate::error::Error;
use crate::figures;

/// How long the servers may be silent before the run is given up.
const PATIENCE_SECS: u64 = if cfg!(test) { 1 } else { 20 };

/// How much is read at once, in bytes.
const READ_BYTES: usize = 256 * 1024;

/// Latencies are kept in nanoseconds, to three digits, up to a minute.
const LATENCY_NANOS_MAX: u64 = 60_000_000_000;

/// What the generator is to do.
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
    /// When each connection has had so many batches answered (each `in_flight` requests).
    Batches(u64),
}

/// What came of a load.
#[derive(Debug)]
pub struct Outcome {
    /// Operations that count.
    pub operations: u64,
    /// Operations in all, with warming up and finishing.
    pub operations_in_all: u64,
    /// In what time those that count were done.
    pub elapsed: Duration,
    /// How long each took from its sending to its reply, in nanoseconds.
    pub latency_nanos: Histogram<u64>,
    /// Processor time that the server's process spent meanwhile.
    pub processor: Duration,
    /// Processor time that the generator spent meanwhile. Where this is nearly all the time there
    /// was, the generator is what limits.
    pub generator: Duration,
}

/// An empty histogram of latencies in nanoseconds.
pub fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NANOS_MAX, 3).expect("these bounds are allowed")
}

/// Connects, runs a load against a server, and reads the processor time of the process `pid` before
/// and after. `talk` makes the conversation of each connection.
///
/// # Errors
/// At the first wrong answer, or if a connection is lost or no answer comes.
pub fn run(
    addr: SocketAddr,
    load: Load,
    pid: u32,
    talk: &mut dyn FnMut() -> Box<dyn Conversation>,
) -> Result<Outcome, Error> {
    let mut shares: Vec<Vec<Connection>> = Vec::new();
    shares.resize_with(load.threads.min(load.connections), Vec::new);
    for number in 0..load.connections {
        let stream = TcpStream::connect(addr).map_err(Error::io(format!("connect to {addr}")))?;
        stream.set_nodelay(true).map_err(Error::io("TCP_NODELAY"))?;
        let share = number % shares.len();
        shares[share].push(Connection::new(stream, talk()));
    }
    let begun = Instant::now();
    let window = match load.until {
        Until::Time { warm_up, measured } => {
            let from = begun + warm_up;
            Some((from, from + measured))
        }
        Until::Batches(_) => None,
    };
    let has_failed = AtomicBool::new(false);
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for share in shares {
            let driver = Driver::new(share, load, window, &has_failed);
            let drive = move || driver.drive();
            let thread = thread::Builder::new().name("generator".to_owned());
            let thread = thread.spawn_scoped(scope, drive);
            threads.push(thread.map_err(Error::io("start a thread"))?);
        }
        let mut processor = Duration::ZERO;
        let mut generator = Duration::ZERO;
        if let Some((from, to)) = window {
            wait_until(from, &has_failed);
            let before = (
                figures::processor_time(pid)?,
                figures::own_processor_time()?,
            );
            wait_until(to, &has_failed);
            processor = figures::processor_time(pid)?.saturating_sub(before.0);
            generator = figures::own_processor_time()?.saturating_sub(before.1);
        }
        let mut outcome = Outcome {
            operations: 0,
            operations_in_all: 0,
            elapsed: Duration::ZERO,
            latency_nanos: latencies(),
            processor,
            generator,
        };
        for thread in threads {
            let (tally, _) = thread.join().expect("a generator does not panic")?;
            outcome.operations += tally.operations;
            outcome.operations_in_all += tally.operations_in_all;
            outcome.latency_nanos += tally.latency_nanos;
        }
        outcome.elapsed = match load.until {
            Until::Time { measured, .. } => measured,
            Until::Batches(_) => begun.elapsed(),
        };
        Ok(outcome)
    })
}

/// Opens many connections at once, without waiting for one before the next, and has each do
/// `batches` of one request. Returns the open connections, and the time from the first connect to
/// the last reply.
///
/// # Errors
/// As [`run`].
pub fn burst(
    addr: SocketAddrV4,
    connections: usize,
    batches: u64,
    talk: &mut dyn FnMut() -> Box<dyn Conversation>,
) -> Result<(Vec<Connection>, Duration), Error> {
    let load = Load {
        connections,
        in_flight: 1,
        threads: 1,
        until: Until::Batches(batches),
    };
    let talks: Vec<_> = (0..connections).map(|_| talk()).collect();
    let begun = Instant::now();
    let mut opening = Vec::with_capacity(connections);
    for talk in talks {
        let stream = begin_connecting(addr).map_err(Error::io(format!("connect to {addr}")))?;
        opening.push(Connection::new(stream, talk));
    }
    let has_failed = AtomicBool::new(false);
    let (_, open) = Driver::new(opening, load, None, &has_failed).drive()?;
    Ok((open, begun.elapsed()))
}

fn begin_connecting(addr: SocketAddrV4) -> io::Result<TcpStream> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket: OwnedFd =
        rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, &addr) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(TcpStream::from(socket)),
        Err(error) => Err(error.into()),
    }
}

/// Waits for a moment, or for the end of the run.
fn wait_until(moment: Instant, has_failed: &AtomicBool) {
    /// How soon a failure is noticed.
    const STEP: Duration = Duration::from_millis(50);
    loop {
        let left = moment.saturating_duration_since(Instant::now());
        if left.is_zero() || has_failed.load(Ordering::Relaxed) {
            return;
        }
        thread::park_timeout(left.min(STEP));
    }
}

/// One connection of the load.
pub struct Connection {
    stream: TcpStream,
    talk: Box<dyn Conversation>,
    /// Requests, of which the first `sent` bytes are sent.
    requests: Vec<u8>,
    sent: usize,
    /// The beginning of a reply whose end has not arrived.
    rest: Vec<u8>,
    /// Replies that are awaited.
    awaited: usize,
    /// When the operations in flight began.
    asked: Instant,
    /// Whether the last batch finished operations; if not, the next one goes on with them.
    finished_some: bool,
    batches: u64,
    wants_to_write: bool,
}

impl Connection {
    fn new(stream: TcpStream, talk: Box<dyn Conversation>) -> Self {
        Self {
            stream,
            talk,
            requests: Vec::new(),
            sent: 0,
            rest: Vec::new(),
            awaited: 0,
            asked: Instant::now(),
            finished_some: true,
            batches: 0,
            wants_to_write: false,
        }
    }

    fn ask(&mut self, in_flight: usize, now: Instant) -> io::Result<()> {
        self.requests.clear();
        self.sent = 0;
        self.talk.ask(in_flight, &mut self.requests);
        self.awaited = in_flight;
        if self.finished_some {
            self.asked = now;
        }
        self.finished_some = false;
        self.send()
    }

    /// Sends what the socket takes.
    fn send(&mut self) -> io::Result<()> {
        while self.sent < self.requests.len() {
            match (&self.stream).write(&self.requests[self.sent..]) {
                Ok(bytes) => self.sent += bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn has_unsent(&self) -> bool {
        self.sent < self.requests.len()
    }
}

/// What one thread counted.
struct Tally {
    operations: u64,
    operations_in_all: u64,
    latency_nanos: Histogram<u64>,
}

/// One thread's connections and how they get on.
struct Driver<'a> {
    connections: Vec<Connection>,
    load: Load,
    window: Option<(Instant, Instant)>,
    has_failed: &'a AtomicBool,
    tally: Tally,
    input: Vec<u8>,
}

impl<'a> Driver<'a> {
    fn new(
        connections: Vec<Connection>,
        load: Load,
        window: Option<(Instant, Instant)>,
        has_failed: &'a AtomicBool,
    ) -> Self {
        Self {
            connections,
            load,
            window,
            has_failed,
            tally: Tally {
                operations: 0,
                operations_in_all: 0,
                latency_nanos: latencies(),
            },
            input: vec![0; READ_BYTES],
        }
    }

    fn drive(mut self) -> Result<(Tally, Vec<Connection>), Error> {
        let driven = match self.connections.as_slice() {
            [_] => self.drive_one(),
            _ => self.drive_many(),
        };
        if driven.is_err() {
            self.has_failed.store(true, Ordering::Relaxed);
        }
        driven.map(|()| (self.tally, self.connections))
    }

    fn drive_one(&mut self) -> Result<(), Error> {
        let connection = &mut self.connections[0];
        let blocking = |stream: &TcpStream| {
            stream.set_nonblocking(false)?;
            stream.set_read_timeout(Some(Duration::from_secs(PATIENCE_SECS)))
        };
        blocking(&connection.stream).map_err(Error::io("make a socket block"))?;
        connection
            .ask(self.load.in_flight, Instant::now())
            .map_err(Error::io("send"))?;
        while self.read(0)? {}
        Ok(())
    }

    fn drive_many(&mut self) -> Result<(), Error> {
        const EVENTS_MAX: usize = 512;
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(|e| failed("epoll", e))?;
        for (number, connection) in self.connections.iter_mut().enumerate() {
            let nonblocking = connection.stream.set_nonblocking(true);
            nonblocking.map_err(Error::io("make a socket nonblocking"))?;
            let data = EventData::new_u64(number as u64);
            epoll::add(&epoll, &connection.stream, data, EventFlags::IN)
                .map_err(|e| failed("epoll", e))?;
        }
        for number in 0..self.connections.len() {
            let asked = self.connections[number].ask(self.load.in_flight, Instant::now());
            asked.map_err(Error::io("send"))?;
            self.watch(&epoll, number)?;
        }
        let mut busy = self.connections.len();
        let mut events = Vec::with_capacity(EVENTS_MAX);
        let patience = Timespec {
            tv_sec: PATIENCE_SECS as i64,
            tv_nsec: 0,
        };
        while busy > 0 {
            events.clear();
            match epoll::wait(
                &epoll,
                rustix::buffer::spare_capacity(&mut events),
                Some(&patience),
            ) {
                Ok(0) => return Err(silent()),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(failed("epoll", error)),
            }
            if self.has_failed.load(Ordering::Relaxed) {
                return Ok(());
            }
            for event in &events {
                let number = event.data.u64() as usize;
                let flags = event.flags;
                if self.connections[number].has_unsent() {
                    let sent = self.connections[number].send();
                    sent.map_err(Error::io("send"))?;
                }
                if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR)
                    && !self.read(number)?
                {
                    busy -= 1;
                }
                self.watch(&epoll, number)?;
            }
        }
        Ok(())
    }

    /// Has epoll watch for room to write while something is unsent, and only then.
    fn watch(&mut self, epoll: &OwnedFd, number: usize) -> Result<(), Error> {
        let connection = &mut self.connections[number];
        if connection.has_unsent() == connection.wants_to_write {
            return Ok(());
        }
        connection.wants_to_write = connection.has_unsent();
        let flags = match connection.wants_to_write {
            true => EventFlags::IN | EventFlags::OUT,
            false => EventFlags::IN,
        };
        let data = EventData::new_u64(number as u64);
        epoll::modify(epoll, &connection.stream, data, flags).map_err(|e| failed("epoll", e))
    }

    /// Reads once, checks the replies that are whole, and asks anew when all have come. `false`
    /// when this connection is done.
    fn read(&mut self, number: usize) -> Result<bool, Error> {
        let is_alone = self.connections.len() == 1;
        let connection = &mut self.connections[number];
        let bytes = loop {
            match (&connection.stream).read(&mut self.input) {
                Ok(0) => return Err(Error::io("read")(ErrorKind::UnexpectedEof.into())),
                Ok(bytes) => break bytes,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // From a blocking socket, that of a thread's only connection, this is its timeout.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return match is_alone {
                        true => Err(silent()),
                        false => Ok(true),
                    };
                }
                Err(error) => return Err(Error::io("read")(error)),
            }
        };
        let now = Instant::now();
        let whole: &[u8] = match connection.rest.as_slice() {
            [] => &self.input[..bytes],
            _ => {
                connection.rest.extend_from_slice(&self.input[..bytes]);
                &connection.rest
            }
        };
        let nanos = now.duration_since(connection.asked).as_nanos() as u64;
        let mut checked = 0;
        let mut finished = 0;
        while connection.awaited > 0 {
            let Some(reply) = connection.talk.check(&whole[checked..])? else {
                break;
            };
            checked += reply.bytes;
            connection.awaited -= 1;
            finished += u64::from(reply.finishes);
        }
        let left = whole.len() - checked;
        if connection.awaited == 0 && left > 0 {
            let got = &whole[checked..];
            return Err(crate::conversation::Wrong::new("no more bytes", got).into());
        }
        match connection.rest.is_empty() {
            true => connection
                .rest
                .extend_from_slice(&self.input[checked..bytes]),
            false => drop(connection.rest.drain(..checked)),
        }
        if finished > 0 {
            connection.finished_some = true;
            self.tally.operations_in_all += finished;
            let counts = self
                .window
                .is_none_or(|(from, to)| (from..to).contains(&now));
            if counts {
                self.tally.operations += finished;
                self.tally
                    .latency_nanos
                    .saturating_record_n(nanos, finished);
            }
        }
        if connection.awaited > 0 {
            return Ok(true);
        }
        connection.batches += 1;
        let is_over = match (self.load.until, self.window) {
            (Until::Batches(batches), _) => connection.batches >= batches,
            (Until::Time { .. }, Some((_, to))) => now >= to,
            (Until::Time { .. }, None) => true,
        };
        if is_over && connection.talk.may_stop() {
            return Ok(false);
        }
        let asked = connection.ask(self.load.in_flight, now);
        asked.map_err(Error::io("send"))?;
        Ok(true)
    }
}

fn failed(what: &str, errno: rustix::io::Errno) -> Error {
    Error::io(what)(errno.into())
}

fn silent() -> Error {
    Error::Silent {
        who: "the load generator".to_owned(),
        secs: PATIENCE_SECS,
    }
}
