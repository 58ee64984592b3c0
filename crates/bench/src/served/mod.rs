//! A server under load: what most sides of most rows are.

mod http;
mod queues;
mod records;
mod web;

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddrV4, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use crate::contestant::{Contestant, Lab, Sample};
use crate::conversation::{Conversation, Ledger, Wrong};
use crate::error::Error;
use crate::figures;
use crate::load::{self, Connection, Load, Until};
use crate::process::{Process, free_addr};

pub use http::{get_request, post_request};
pub use queues::{beanstalkd, fill_queue, queue, queue_args, queue_talk, redis};
pub use records::{code_messages, codes, history};
pub use web::{Repeated, Web, file, responder, start_web};

/// How long a single reply may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Makes the conversation of a new connection.
pub type NewTalk = Box<dyn FnMut() -> Box<dyn Conversation>>;

/// A server, and the load it is put under.
// The order matters: the process ends first, then connections close, then the folder goes.
pub struct Served {
    process: Process,
    addr: SocketAddrV4,
    load: Load,
    talk: NewTalk,
    after: After,
    idle: Vec<Connection>,
    /// What stands behind the command line.
    note: &'static str,
    _dir: TempDir,
}

/// What is checked at the end.
enum After {
    Nothing,
    /// That each message came out again that went in. `drain` takes out what was queued first.
    Messages {
        ledger: Arc<Ledger>,
        drain: NewTalk,
    },
    /// That the file has as many lines as there were operations.
    Lines {
        path: PathBuf,
        lines: u64,
    },
}

impl Served {
    fn new(
        (process, addr): (Process, SocketAddrV4),
        load: Load,
        talk: NewTalk,
        dir: TempDir,
    ) -> Self {
        Self {
            process,
            addr,
            load,
            talk,
            after: After::Nothing,
            idle: Vec::new(),
            note: "",
            _dir: dir,
        }
    }
}

impl Contestant for Served {
    fn commands(&self) -> String {
        format!("`{}`{}", self.process.command(), self.note)
    }

    fn round(&mut self) -> Result<Sample, Error> {
        let pid = self.process.pid();
        let outcome = load::run(self.addr.into(), self.load, pid, &mut self.talk)?;
        if let After::Lines { lines, .. } = &mut self.after {
            *lines += outcome.operations_in_all;
        }
        if outcome.operations == 0 {
            return Err(Error::NoOperation);
        }
        let operations = outcome.operations as f64;
        let secs = outcome.elapsed.as_secs_f64();
        Ok(Sample {
            value: operations / secs,
            generator_busy: Some(outcome.generator.as_secs_f64() / secs),
            processor_micros: Some(outcome.processor.as_secs_f64() * 1e6 / operations),
            latency_nanos: Some(outcome.latency_nanos),
        })
    }

    fn memory_peak_bytes(&self) -> Option<u64> {
        figures::memory_peak_bytes(self.process.pid()).ok()
    }

    fn finish(&mut self) -> Result<(), Error> {
        self.idle.clear();
        match &mut self.after {
            After::Nothing => Ok(()),
            After::Messages { ledger, drain } => {
                let (pid, queued) = (self.process.pid(), ledger.queued());
                move_messages(self.addr, pid, queued, drain)?;
                ledger.check()
            }
            After::Lines { path, lines } => {
                let found = count_lines(path)?;
                if found == *lines {
                    return Ok(());
                }
                let got = format!("{found} lines in the file, {lines} operations");
                Err(Wrong::new("a line for each operation", got.as_bytes()).into())
            }
        }
    }
}

/// Sends or receives so many messages, many at a time.
fn move_messages(
    addr: SocketAddrV4,
    pid: u32,
    messages: u64,
    talk: &mut NewTalk,
) -> Result<(), Error> {
    const CONNECTIONS: usize = 8;
    const IN_FLIGHT: usize = 125;
    const AT_ONCE: u64 = (CONNECTIONS * IN_FLIGHT) as u64;
    let (connections, in_flight, batches) = match messages {
        0 => return Ok(()),
        many if many % AT_ONCE == 0 => (CONNECTIONS, IN_FLIGHT, many / AT_ONCE),
        few => (1, few as usize, 1),
    };
    let load = Load {
        connections,
        in_flight,
        threads: 1,
        until: Until::Batches(batches),
    };
    load::run(addr.into(), load, pid, talk).map(drop)
}

fn count_lines(path: &Path) -> Result<u64, Error> {
    let shown = || Error::io("read back what was stored");
    let file = File::open(path).map_err(shown())?;
    let mut input = BufReader::with_capacity(1 << 20, file);
    let mut lines = 0;
    loop {
        let bytes = input.fill_buf().map_err(shown())?;
        if bytes.is_empty() {
            return Ok(lines);
        }
        lines += bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        let taken = bytes.len();
        input.consume(taken);
    }
}

/// Starts a server that is given its port as `PORT` in `args` and its folder as `DIR`, and waits
/// until it listens.
///
/// # Errors
/// If it is not installed, or ends instead.
pub fn start(
    program: &'static str,
    args: &[&str],
    dir: &Path,
) -> Result<(Process, SocketAddrV4), Error> {
    let addr = free_addr()?;
    let mut process = start_on(program, args, dir, addr)?;
    process.connect(addr)?;
    Ok((process, addr))
}

/// The same, on a given port, and without waiting.
///
/// # Errors
/// If it is not installed.
pub fn start_on(
    program: &'static str,
    args: &[&str],
    dir: &Path,
    addr: SocketAddrV4,
) -> Result<Process, Error> {
    let port = addr.port().to_string();
    let folder = dir.to_string_lossy();
    let fill = |arg: &&str| arg.replace("PORT", &port).replace("DIR", &folder).into();
    let filled: Vec<OsString> = args.iter().map(fill).collect();
    let quote = |arg: &&str| match arg.is_empty() {
        true => "''".to_owned(),
        false => (*arg).to_owned(),
    };
    let shown: Vec<String> = args.iter().map(quote).collect();
    Process::start(program, &filled, dir, Stdio::null(), &shown.join(" "))
}

/// The load of a row.
pub fn timed(lab: &Lab, connections: usize, in_flight: usize) -> Load {
    Load {
        connections,
        in_flight,
        threads: lab.scale.generator_threads,
        until: Until::Time {
            warm_up: lab.scale.warm_up,
            measured: lab.scale.measured,
        },
    }
}

/// A connection that gives up in time.
///
/// # Errors
/// If it cannot be made.
pub fn connect(addr: SocketAddrV4) -> Result<TcpStream, Error> {
    let connect = || {
        let stream = TcpStream::connect(addr)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    };
    connect().map_err(Error::io(format!("connect to {addr}")))
}

/// Bytes that look random and are always the same (xorshift64*).
pub fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    };
    let mut noise: Vec<u8> = (0..bytes.div_ceil(8))
        .flat_map(|_| next().to_le_bytes())
        .collect();
    noise.truncate(bytes);
    noise
}
