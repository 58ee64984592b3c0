//! Ten thousand connections, and a million messages.

use std::io::{BufReader, Write};
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use proto::frame::{self, Message as _};
use proto::queue::{Delivery, QueueName, Reply, Request};
use tempfile::TempDir;

use crate::contestant::{Contestant, Lab, Sample, require_descriptors};
use crate::conversation::{BODY_BYTES, Ledger, Work, Wrong};
use crate::error::Error;
use crate::figures;
use crate::load;
use crate::process::{Process, free_addr};
use crate::served::{fill_queue, queue_args, queue_talk, start, start_on};

/// How many connections a crowd is.
pub const CROWD: usize = 10_000;

/// How many messages are many.
pub const MANY: u64 = 1_000_000;

/// Starts our queue in memory, with room for a crowd.
fn start_queue(dir: &TempDir, connections: usize) -> Result<(Process, SocketAddrV4), Error> {
    let args = queue_args(false, connections);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    start("queue-server", &args, dir.path())
}

/// What is measured on a crowd of connections to our queue. Each round has a new server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crowd {
    /// Connects all at once; the value is how long it takes until each has its first reply, in
    /// seconds.
    Burst,
    /// Has each send and receive once, and lets them be idle; the value is what resident memory
    /// they cost, each, in KiB.
    Idle,
}

/// A crowd of connections to our queue.
pub struct CrowdRounds {
    crowd: Crowd,
    dir: TempDir,
    command: String,
}

impl CrowdRounds {
    /// Prepares for it.
    ///
    /// # Errors
    /// If descriptors are too few.
    pub fn start(lab: &Lab, crowd: Crowd) -> Result<Self, Error> {
        const SPARE: usize = 400;
        require_descriptors((CROWD + SPARE) as u64)?;
        Ok(Self {
            crowd,
            dir: lab.dir()?,
            command: format!("queue-server {}", queue_args(false, CROWD).join(" ")),
        })
    }
}

impl Contestant for CrowdRounds {
    fn commands(&self) -> String {
        format!("`{}`", self.command)
    }

    fn round(&mut self) -> Result<Sample, Error> {
        let (process, addr) = start_queue(&self.dir, CROWD)?;
        let ledger = Arc::new(Ledger::default());
        let before = figures::resident_bytes(process.pid())?;
        let mut talk = queue_talk(&ledger, Work::SendAndReceive);
        let batches = match self.crowd {
            Crowd::Burst => 1,
            Crowd::Idle => 2,
        };
        let (open, elapsed) = load::burst(addr, CROWD, batches, &mut talk)?;
        let value = match self.crowd {
            Crowd::Burst => elapsed.as_secs_f64(),
            Crowd::Idle => {
                let after = settled_bytes(process.pid())?;
                after.saturating_sub(before) as f64 / 1024.0 / CROWD as f64
            }
        };
        // The server first: so that the closed connections do not hold our ports for a minute.
        drop(process);
        drop(open);
        if self.crowd == Crowd::Idle {
            ledger.check()?;
        }
        Ok(Sample::value(value))
    }
}

/// Resident memory when it has stopped falling, in bytes: what is idle may be given back late.
fn settled_bytes(pid: u32) -> Result<u64, Error> {
    const STEP: Duration = Duration::from_millis(250);
    const STEPS_UNCHANGED: u32 = 6;
    const STEPS_MAX: u32 = 60;
    let mut least = figures::resident_bytes(pid)?;
    let mut unchanged = 0;
    for _ in 0..STEPS_MAX {
        // No event tells that a process gives memory back.
        thread::park_timeout(STEP);
        let now = figures::resident_bytes(pid)?;
        unchanged = match now < least {
            true => 0,
            false => unchanged + 1,
        };
        least = least.min(now);
        if unchanged == STEPS_UNCHANGED {
            break;
        }
    }
    Ok(least)
}

/// What many queued messages cost beyond their bodies, each, in bytes.
pub struct MessageMemory {
    dir: TempDir,
}

impl MessageMemory {
    /// Prepares for it.
    ///
    /// # Errors
    /// If no folder can be made.
    pub fn start(lab: &Lab) -> Result<Self, Error> {
        Ok(Self { dir: lab.dir()? })
    }
}

impl Contestant for MessageMemory {
    fn commands(&self) -> String {
        "`queue-server PORT TCP`".to_owned()
    }

    fn round(&mut self) -> Result<Sample, Error> {
        let (process, addr) = start_queue(&self.dir, 0)?;
        let before = figures::resident_bytes(process.pid())?;
        fill_queue(addr, process.pid(), MANY)?;
        let after = figures::resident_bytes(process.pid())?;
        let bodies = MANY * BODY_BYTES as u64;
        let beyond = after as f64 - before as f64 - bodies as f64;
        Ok(Sample::value(beyond / MANY as f64))
    }
}

/// How long a queue takes to start on a database of many messages, in seconds.
pub struct DurableStart {
    dir: TempDir,
}

impl DurableStart {
    /// Makes the database.
    ///
    /// # Errors
    /// If the server cannot be started or refuses.
    pub fn start(lab: &Lab) -> Result<Self, Error> {
        lab.require_disk()?;
        let dir = lab.dir()?;
        let (process, addr) = start("queue-server", &Self::ARGS, dir.path())?;
        fill_queue(addr, process.pid(), MANY)?;
        drop(process);
        Ok(Self { dir })
    }

    const ARGS: [&str; 4] = ["PORT", "TCP", "--data", "DIR/queue.db"];
}

impl Contestant for DurableStart {
    fn commands(&self) -> String {
        format!("`queue-server {}`", Self::ARGS.join(" "))
    }

    fn round(&mut self) -> Result<Sample, Error> {
        let addr = free_addr()?;
        let begun = Instant::now();
        let mut process = start_on("queue-server", &Self::ARGS, self.dir.path(), addr)?;
        let mut stream = process.connect(addr)?;
        let mut request = Vec::new();
        let receive = Request::Receive {
            queue: QueueName::DEFAULT,
            wait_millis: 0,
            delivery: Delivery::AtLeastOnce,
        };
        receive.encode(&mut request);
        stream.write_all(&request).map_err(Error::io("send"))?;
        let mut payload = Vec::new();
        let mut input = BufReader::new(stream);
        let kind = frame::read(&mut input, frame::PAYLOAD_BYTES_MAX, &mut payload);
        let elapsed = begun.elapsed();
        match kind.map(|kind| kind.map(|kind| Reply::decode(kind, &payload))) {
            Ok(Some(Ok(Reply::Message { body, .. }))) if body.len() == BODY_BYTES => {}
            _ => return Err(Wrong::new("the oldest message", &payload).into()),
        }
        Ok(Sample::value(elapsed.as_secs_f64()))
    }
}
