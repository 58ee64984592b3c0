//! Queues: ours, Redis and beanstalkd under load, and ours with ten thousand connections and a
//! million messages.
//!
//! Ours is asked first whether it knows sessions, because the other build of a comparison may not.

use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use proto::frame::Message as _;
use proto::queue::Reply;

use crate::contestant::{Clients, Contestant, Lab, Sample, require_descriptors, rounds};
use crate::conversation::{BODY, Dialect, QueueTalk, Work, begin_session};
use crate::error::Error;
use crate::frames::{Frames, connect};
use crate::load::{self, Load, Outcome, Until};
use crate::process::{Process, free_addr};
use crate::served::{NewTalk, Served};

/// How many connections a crowd is.
pub const CROWD: usize = 10_000;

/// How many messages are many.
pub const MANY: u64 = 1_000_000;

/// Descriptors that the bench and a server need besides a crowd.
const DESCRIPTORS_SPARE: usize = 400;

/// A program and its arguments.
type CommandLine = (&'static str, &'static [&'static str]);

const OURS: CommandLine = ("queue-server", &["PORT", "TCP"]);
const OURS_DURABLE: CommandLine = ("queue-server", &["PORT", "TCP", "--data", "DIR/queue.db"]);
const OURS_CROWDED: CommandLine = (
    "queue-server",
    &["PORT", "TCP", "--max-connections", "10300"],
);

fn command_line(dialect: Dialect, is_durable: bool) -> CommandLine {
    match (dialect, is_durable) {
        (Dialect::Quartet | Dialect::Session | Dialect::Acked | Dialect::Before, false) => OURS,
        (Dialect::Quartet | Dialect::Session | Dialect::Acked | Dialect::Before, true) => {
            OURS_DURABLE
        }
        (Dialect::Redis, false) => ("redis-server", REDIS),
        (Dialect::Redis, true) => ("redis-server", REDIS_DURABLE),
        (Dialect::Beanstalkd, false) => ("beanstalkd", &["-l", "127.0.0.1", "-p", "PORT"]),
        (Dialect::Beanstalkd, true) => (
            "beanstalkd",
            &["-l", "127.0.0.1", "-p", "PORT", "-b", "DIR", "-f0"],
        ),
    }
}

#[rustfmt::skip]
const REDIS: &[&str] = &[
    "--port", "PORT", "--bind", "127.0.0.1", "--dir", "DIR", "--save", "", "--appendonly", "no",
];

#[rustfmt::skip]
const REDIS_DURABLE: &[&str] = &[
    "--port", "PORT", "--bind", "127.0.0.1", "--dir", "DIR", "--save", "",
    "--appendonly", "yes", "--appendfsync", "always",
];

/// Makes conversations with a queue.
pub fn queue_talk(dialect: Dialect, work: Work) -> NewTalk {
    Box::new(move || Box::new(QueueTalk::new(dialect, work)))
}

/// Makes conversations with our queue, which may be of an earlier build that knows no sessions.
fn our_talk(process: &Process, dialect: Dialect, work: Work) -> Result<NewTalk, Error> {
    let mut frames = Frames::new(connect(process.addr())?);
    frames.send(&begin_session())?;
    let kind = frames.read()?;
    Ok(match Reply::decode(kind, &frames.payload) {
        Ok(Reply::Session { .. }) => queue_talk(dialect, work),
        Ok(_) | Err(_) => queue_talk(Dialect::Before, work),
    })
}

/// A queue under load.
///
/// # Errors
/// If it is not installed or cannot be started.
pub fn queue(
    lab: &Lab,
    clients: Clients,
    dialect: Dialect,
    is_durable: bool,
) -> Result<Box<dyn Contestant>, Error> {
    queue_of(lab, clients, dialect, command_line(dialect, is_durable))
}

/// Our queue under load, which keeps its messages in this file or at this URL.
///
/// # Errors
/// If it cannot be started.
pub fn queue_in(
    lab: &Lab,
    clients: Clients,
    dialect: Dialect,
    data: &str,
) -> Result<Box<dyn Contestant>, Error> {
    let args = ["PORT", "TCP", "--data", data];
    queue_of(lab, clients, dialect, ("queue-server", &args))
}

fn queue_of(
    lab: &Lab,
    clients: Clients,
    dialect: Dialect,
    (program, args): (&'static str, &[&str]),
) -> Result<Box<dyn Contestant>, Error> {
    let dir = lab.dir()?;
    let process = Process::start(program, args, dir.path())?;
    let work = Work::SendAndReceive;
    let talk = match dialect {
        Dialect::Redis | Dialect::Beanstalkd => queue_talk(dialect, work),
        Dialect::Quartet | Dialect::Session | Dialect::Acked | Dialect::Before => {
            our_talk(&process, dialect, work)?
        }
    };
    let served = Served::new(lab, clients, process, talk, dir);
    Ok(Box::new(served))
}

/// Our queue under load, beside a crowd of idle connections.
///
/// # Errors
/// If it cannot be started, or descriptors are too few.
pub fn queue_beside_crowd(lab: &Lab, clients: Clients) -> Result<Box<dyn Contestant>, Error> {
    let (program, args) = OURS_CROWDED;
    let dir = lab.dir()?;
    let process = Process::start(program, args, dir.path())?;
    let crowd = connect_crowd(&process, 2)?;
    let talk = our_talk(&process, Dialect::Quartet, Work::SendAndReceive)?;
    let mut served = Served::new(lab, clients, process, talk, dir);
    served.idle = crowd.connections;
    Ok(Box::new(served))
}

/// Connects a crowd in a burst; each connection has `batches` requests answered: after two it has
/// sent and received a message, so that it had its buffers once.
fn connect_crowd(process: &Process, batches: u64) -> Result<Outcome, Error> {
    require_descriptors((CROWD + DESCRIPTORS_SPARE) as u64)?;
    let load = Load {
        connections: CROWD,
        in_flight: 1,
        threads: 1,
        until: Until::Batches(batches),
    };
    let mut talk = our_talk(process, Dialect::Quartet, Work::SendAndReceive)?;
    load::run(&process.addr().into(), load, &mut talk)
}

/// What is measured on a crowd. Each round has a new server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crowd {
    /// How long it takes until each connection of a burst has its first reply, in seconds.
    Burst,
    /// The resident memory of an idle connection that has sent and received once, in KiB.
    Idle,
}

/// A crowd of connections to our queue.
///
/// # Errors
/// If no folder can be made.
pub fn crowd(lab: &Lab, crowd: Crowd) -> Result<Box<dyn Contestant>, Error> {
    let (program, args) = OURS_CROWDED;
    let dir = lab.dir()?;
    let path = dir.path().to_owned();
    let round = move || {
        let process = Process::start(program, args, &path)?;
        let before = process.resident_bytes()?;
        let value = match crowd {
            Crowd::Burst => {
                let outcome = connect_crowd(&process, 1)?;
                // The server first: so that the closed connections do not keep our ports for a
                // minute.
                drop(process);
                outcome.elapsed.as_secs_f64()
            }
            Crowd::Idle => {
                let outcome = connect_crowd(&process, 2)?;
                let bytes = least_resident_bytes(&process)?.saturating_sub(before);
                drop(process);
                drop(outcome);
                bytes as f64 / 1024.0 / CROWD as f64
            }
        };
        Ok(Sample::value(value))
    };
    Ok(rounds(None, dir, round))
}

/// Resident memory when it has stopped falling, in bytes: memory that is idle is given back late.
fn least_resident_bytes(process: &Process) -> Result<u64, Error> {
    const STEP: Duration = Duration::from_millis(1500);
    loop {
        let before = process.resident_bytes()?;
        // No event tells that a process gives memory back.
        thread::park_timeout(STEP);
        if process.resident_bytes()? >= before {
            return Ok(before);
        }
    }
}

/// Sends many messages, each connection in a session.
fn fill(process: &Process) -> Result<Outcome, Error> {
    const CONNECTIONS: usize = 8;
    const IN_FLIGHT: usize = 125;
    let load = Load {
        connections: CONNECTIONS,
        in_flight: IN_FLIGHT,
        threads: 1,
        until: Until::Batches(MANY / (CONNECTIONS * IN_FLIGHT) as u64),
    };
    let mut talk = our_talk(process, Dialect::Session, Work::Fill)?;
    load::run(&process.addr().into(), load, &mut talk)
}

/// The resident memory that a message takes beside its body when many are queued, in bytes.
///
/// # Errors
/// If no folder can be made.
pub fn message_memory(lab: &Lab, _: Clients) -> Result<Box<dyn Contestant>, Error> {
    let (program, args) = OURS;
    let dir = lab.dir()?;
    let path = dir.path().to_owned();
    let round = move || {
        let process = Process::start(program, args, &path)?;
        let before = process.resident_bytes()?;
        let outcome = fill(&process)?;
        let bytes = least_resident_bytes(&process)?.saturating_sub(before);
        drop(outcome);
        Ok(Sample::value(
            bytes as f64 / MANY as f64 - BODY.len() as f64,
        ))
    };
    Ok(rounds(None, dir, round))
}

/// How long our queue takes to start on a database of many messages, in this file or at this URL, up to
/// the first reply, in seconds.
///
/// # Errors
/// If the database cannot be made.
pub fn durable_start(lab: &Lab, data: &str) -> Result<Box<dyn Contestant>, Error> {
    let data = data.to_owned();
    let dir = lab.dir()?;
    let path = dir.path().to_owned();
    let process = Process::start("queue-server", &["PORT", "TCP", "--data", &data], &path)?;
    fill(&process)?;
    let mut talk = our_talk(&process, Dialect::Quartet, Work::Receive)?;
    drop(process);
    let first = Load {
        connections: 1,
        in_flight: 1,
        threads: 1,
        until: Until::Batches(1),
    };
    let round = move || {
        let addr = free_addr()?;
        let begun = Instant::now();
        let args = ["PORT", "TCP", "--data", &data];
        let mut process = Process::spawn("queue-server", &args, &path, addr, Stdio::null())?;
        process.connect()?;
        load::run(&addr.into(), first, &mut talk)?;
        Ok(Sample::value(begun.elapsed().as_secs_f64()))
    };
    Ok(rounds(None, dir, round))
}
