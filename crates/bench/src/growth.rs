//! What others wait while something large is done: a line deleted out of a long history, a map of
//! millions of codes that grows, ten thousand queues that are listed, a million leases that end at
//! the same moment.
//!
//! A few connections do a small operation again and again, each as soon as the last is answered. The
//! value is the longest of them, in milliseconds: it should not grow with what there is.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use proto::code::{CodeRequest, Reply as CodeReply};
use proto::frame::{self, Message};
use proto::history;
use proto::http::{BodyLength, ResponseHead};
use proto::queue::{Delivery, QueueName, Reply, Request};
use tempfile::TempDir;
use uuid::Uuid;

use crate::contestant::{Contestant, Lab, Sample};
use crate::conversation::Wrong;
use crate::error::Error;
use crate::figures;
use crate::histories::write_history;
use crate::load::latencies;
use crate::process::Process;
use crate::served::{connect, fill_queue, post_request, start};

/// What is done, and how much there is of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Growth {
    /// Lines are appended to a history of so many megabytes while one line is deleted.
    HistoryDelete(usize),
    /// Codes are asked for, of so many that there are, while new ones are made.
    Codes(u64),
    /// Messages are sent and received while so many queues are listed.
    Stats(u64),
    /// The same while the leases of so many messages end together.
    Leases(u64),
}

/// How many new codes a round makes. The table of the first two sizes of the rows is full on the way:
/// it takes seven eighths of a power of two.
const NEW_CODES: u64 = 60_000;

/// How many connections make them.
const MAKERS: u64 = 16;

/// A server with much in it, and what is done to it.
pub struct Grown {
    growth: Growth,
    process: Process,
    addr: SocketAddrV4,
    measured: Duration,
    /// Codes that there are.
    codes: u64,
    _dir: TempDir,
}

impl Grown {
    /// Starts the server with what it is to have.
    ///
    /// # Errors
    /// If it cannot be started, or refuses.
    pub fn start(lab: &Lab, growth: Growth) -> Result<Self, Error> {
        let dir = lab.dir()?;
        let path = dir.path();
        let mut codes = 0;
        let (process, addr) = match growth {
            Growth::HistoryDelete(megabytes) => {
                lab.require_disk()?;
                write_history(&path.join("history.txt"), megabytes * 1_000_000)?;
                start("history-server", &["PORT", "--data-dir", "DIR"], path)?
            }
            Growth::Codes(count) => {
                lab.require_disk()?;
                codes = count;
                let written = write_codes(&path.join("codes.txt"), count);
                written.map_err(Error::io("write the codes"))?;
                let args = ["PORT", "0", "--data-dir", "DIR", "--max-codes", "20000000"];
                start("code-server", &args, path)?
            }
            Growth::Stats(queues) => {
                let (process, addr) = start("queue-server", &["PORT", "TCP"], path)?;
                // The one more is that of who waits.
                fill_queues(addr, queues - 1)?;
                (process, addr)
            }
            Growth::Leases(messages) => {
                let args = ["PORT", "TCP", "--max-attempts", "1000"];
                let (process, addr) = start("queue-server", &args, path)?;
                fill_queue(addr, process.pid(), messages)?;
                (process, addr)
            }
        };
        Ok(Self {
            growth,
            process,
            addr,
            measured: lab.scale.measured,
            codes,
            _dir: dir,
        })
    }
}

impl Contestant for Grown {
    fn commands(&self) -> String {
        format!("`{}`", self.process.command())
    }

    fn round(&mut self) -> Result<Sample, Error> {
        let addr = self.addr;
        let waits = match self.growth {
            Growth::HistoryDelete(_) => {
                let mut appends = Frames::connect(addr)?;
                let mut deletes = Frames::connect(addr)?;
                longest_while(
                    || appends.history(history::Operation::Hello),
                    || deletes.history(history::Operation::Delete(1)),
                )?
            }
            Growth::Codes(_) => {
                let first = self.codes;
                self.codes += NEW_CODES;
                let mut asks = CodeAsker::connect(addr)?;
                longest_while(|| asks.ask(0), || make_codes(addr, first))?
            }
            Growth::Stats(_) => {
                let mut probe = Frames::connect(addr)?;
                let mut looks = Frames::connect(addr)?;
                let until = Instant::now() + self.measured;
                let list = || {
                    while Instant::now() < until {
                        looks.ask(&Request::Stats)?;
                    }
                    Ok(())
                };
                longest_while(|| probe.send_and_receive(), list)?
            }
            Growth::Leases(messages) => {
                let end = lease_all(addr, messages)?;
                let mut probe = Frames::connect(addr)?;
                let mut looks = Frames::connect(addr)?;
                let wait = || looks.wait_for_leases(end);
                longest_while(|| probe.send_and_receive(), wait)?
            }
        };
        let mut sample = Sample::value(waits.max() as f64 / 1e6);
        sample.latency_nanos = Some(waits);
        Ok(sample)
    }

    fn memory_peak_bytes(&self) -> Option<u64> {
        figures::memory_peak_bytes(self.process.pid()).ok()
    }
}

/// Does `small` again and again while `large` is done; returns how long each took.
fn longest_while(
    mut small: impl FnMut() -> Result<(), Error> + Send,
    large: impl FnOnce() -> Result<(), Error>,
) -> Result<Histogram<u64>, Error> {
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        let again = || -> Result<Histogram<u64>, Error> {
            let mut waits = latencies();
            while !is_done.load(Ordering::Relaxed) || waits.is_empty() {
                let begun = Instant::now();
                small()?;
                waits.saturating_record(begun.elapsed().as_nanos() as u64);
            }
            Ok(waits)
        };
        let probe = thread::Builder::new().spawn_scoped(scope, again);
        let probe = probe.map_err(Error::io("start a thread"))?;
        let done = large();
        is_done.store(true, Ordering::Relaxed);
        let waits = probe.join().expect("a probe does not panic")?;
        done.map(|()| waits)
    })
}

/// A connection that speaks frames, one request after the other.
struct Frames {
    input: BufReader<TcpStream>,
    request: Vec<u8>,
    payload: Vec<u8>,
}

impl Frames {
    fn connect(addr: SocketAddrV4) -> Result<Self, Error> {
        Ok(Self {
            input: BufReader::new(connect(addr)?),
            request: Vec::new(),
            payload: Vec::new(),
        })
    }

    fn send(&mut self) -> Result<(), Error> {
        let sent = self.input.get_mut().write_all(&self.request);
        self.request.clear();
        sent.map_err(Error::io("send"))
    }

    /// Reads a frame; its kind.
    fn read(&mut self) -> Result<u8, Error> {
        let read = frame::read(&mut self.input, frame::PAYLOAD_BYTES_MAX, &mut self.payload);
        match read {
            Ok(Some(kind)) => Ok(kind),
            _ => Err(Wrong::new("a frame", &self.payload).into()),
        }
    }

    fn queue_reply(&mut self) -> Result<Reply<'_>, Error> {
        let kind = self.read()?;
        let reply = Reply::decode(kind, &self.payload);
        reply.map_err(|_| Wrong::new("a queue's reply", &self.payload).into())
    }

    fn ask(&mut self, request: &Request<'_>) -> Result<Reply<'_>, Error> {
        request.encode(&mut self.request);
        self.send()?;
        self.queue_reply()
    }

    /// Once, through a queue of its own.
    fn send_and_receive(&mut self) -> Result<(), Error> {
        let queue = QueueName::new("probe").expect("the name is allowed");
        let send = Request::Send {
            queue,
            delay_millis: 0,
            body: b"probe",
        };
        let receive = Request::Receive {
            queue,
            wait_millis: 0,
            delivery: Delivery::AtMostOnce,
        };
        let stored = matches!(self.ask(&send)?, Reply::Stored { .. });
        match self.ask(&receive)? {
            Reply::Message { body: b"probe", .. } if stored => Ok(()),
            _ => Err(Wrong::new("the message that was sent", &self.payload).into()),
        }
    }

    /// Waits for a moment, and then until no message is leased.
    fn wait_for_leases(&mut self, end: Instant) -> Result<(), Error> {
        const STEP: Duration = Duration::from_millis(50);
        loop {
            let left = end.saturating_duration_since(Instant::now());
            thread::park_timeout(left.max(STEP));
            let stats = self.ask(&Request::Stats)?;
            let Reply::Stats { queues, .. } = stats else {
                return Err(Wrong::new("how the queues are", &self.payload).into());
            };
            if queues.iter().all(|queue| queue.reserved == 0) {
                return Ok(());
            }
            if Instant::now() > end + LEASES_END_MAX {
                return Err(Wrong::new("that all leases end", b"leases").into());
            }
        }
    }

    fn history(&mut self, operation: history::Operation) -> Result<(), Error> {
        let user = "alice";
        history::Request { user, operation }.encode(&mut self.request);
        self.send()?;
        loop {
            let kind = self.read()?;
            match history::Reply::decode(kind, &self.payload) {
                Ok(history::Reply::About(_)) => {}
                Ok(history::Reply::Done(_)) => return Ok(()),
                _ => return Err(Wrong::new("that it is done", &self.payload).into()),
            }
        }
    }
}

/// Sends a message to each of so many queues.
fn fill_queues(addr: SocketAddrV4, queues: u64) -> Result<(), Error> {
    let mut frames = Frames::connect(addr)?;
    for number in 0..queues {
        let name = format!("queue-{number}");
        let send = Request::Send {
            queue: QueueName::new(&name).expect("the name is allowed"),
            delay_millis: 0,
            body: b"one",
        };
        match frames.ask(&send)? {
            Reply::Stored { .. } => {}
            _ => return Err(Wrong::new("that it is stored", &frames.payload).into()),
        }
    }
    Ok(())
}

/// How long after their end leases may still be there.
const LEASES_END_MAX: Duration = Duration::from_secs(30);

/// Leases so many messages, all up to the same moment, which is returned.
fn lease_all(addr: SocketAddrV4, messages: u64) -> Result<Instant, Error> {
    const AT_ONCE: u64 = 1000;
    // Enough if there are fifty thousand a second.
    let lease = Duration::from_secs(1) + Duration::from_micros(20) * messages as u32;
    let end = Instant::now() + lease;
    let mut frames = Frames::connect(addr)?;
    for _ in 0..messages / AT_ONCE {
        let left = end.saturating_duration_since(Instant::now());
        let receive = Request::Receive {
            queue: QueueName::DEFAULT,
            wait_millis: 0,
            delivery: Delivery::Lease {
                lease_millis: left.as_millis() as u32,
            },
        };
        (0..AT_ONCE).for_each(|_| receive.encode(&mut frames.request));
        frames.send()?;
        for _ in 0..AT_ONCE {
            match frames.queue_reply()? {
                Reply::Leased { .. } => {}
                _ => return Err(Wrong::new("a message to lease", &frames.payload).into()),
            }
        }
    }
    Ok(end)
}

/// The UUID with a number; they look random, as UUIDs mostly do.
fn uuid(number: u64) -> Uuid {
    let bits = u128::from(number) + 1;
    Uuid::from_u128(bits.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
}

/// Writes the file of so many codes as the server keeps it.
fn write_codes(path: &Path, count: u64) -> std::io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
    for number in 0..count {
        let line = format!("{} {}", uuid(number), uuid(u64::MAX - 1 - number));
        writeln!(out, "{line} {:08x}", crc32fast::hash(line.as_bytes()))?;
    }
    out.into_inner()?.sync_all()
}

/// A connection that asks for codes, one after the other.
struct CodeAsker {
    addr: SocketAddrV4,
    input: BufReader<TcpStream>,
}

impl CodeAsker {
    fn connect(addr: SocketAddrV4) -> Result<Self, Error> {
        Ok(Self {
            addr,
            input: BufReader::new(connect(addr)?),
        })
    }

    fn ask(&mut self, number: u64) -> Result<(), Error> {
        let uuid = uuid(number);
        let request = post_request(self.addr, &CodeRequest { uuid }.encode());
        let sent = self.input.get_mut().write_all(&request);
        sent.map_err(Error::io("send"))?;
        let head = ResponseHead::read(&mut self.input, "POST");
        let bytes = match head.map(|head| (head.status, head.body)) {
            Ok((200, BodyLength::Bytes(bytes))) if bytes < 1000 => bytes,
            _ => return Err(Wrong::new("a code", b"another head").into()),
        };
        let mut body = vec![0; bytes as usize];
        self.input
            .read_exact(&mut body)
            .map_err(Error::io("read"))?;
        match CodeReply::decode(&body) {
            Ok(CodeReply::Code(_)) => Ok(()),
            _ => Err(Wrong::new("a code", &body).into()),
        }
    }
}

/// Asks for the codes of UUIDs that the server does not know, from the one with this number on.
fn make_codes(addr: SocketAddrV4, first: u64) -> Result<(), Error> {
    thread::scope(|scope| {
        let mut makers = Vec::new();
        for maker in 0..MAKERS {
            let numbers = (first + maker..first + NEW_CODES).step_by(MAKERS as usize);
            let make = move || {
                let mut asks = CodeAsker::connect(addr)?;
                numbers.into_iter().try_for_each(|number| asks.ask(number))
            };
            let thread = thread::Builder::new().spawn_scoped(scope, make);
            makers.push(thread.map_err(Error::io("start a thread"))?);
        }
        makers
            .into_iter()
            .try_for_each(|maker| maker.join().expect("a maker does not panic"))
    })
}
