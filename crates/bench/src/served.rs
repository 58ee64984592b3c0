//! A server under load: what most sides of most rows are.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use tempfile::TempDir;

use crate::contestant::{Clients, Contestant, GENERATOR_THREADS, Lab, Sample};
use crate::conversation::{Conversation, FixedTalk, SameReply, Wrong};
use crate::error::Error;
use crate::load::{self, Connection, Load, Until};
use crate::process::Process;
use crate::target::Target;

/// Makes the conversation of a new connection.
pub type NewTalk = Box<dyn FnMut() -> Box<dyn Conversation>>;

/// A server, and the load it is put under.
// In this order: the process ends first, then connections close, then the folder goes.
pub struct Served {
    _process: Process,
    /// Where the load goes: to its first port, unless told otherwise.
    pub target: Target,
    load: Load,
    talk: NewTalk,
    /// The file that must have a line for each operation, and the lines that it should have.
    pub lines: Option<(PathBuf, u64)>,
    /// Idle connections besides those of the load.
    pub idle: Vec<Connection>,
    _dir: TempDir,
}

impl Served {
    /// A server with these clients, which speak as `talk` says.
    pub fn new(
        lab: &Lab,
        (connections, in_flight): Clients,
        process: Process,
        talk: NewTalk,
        dir: TempDir,
    ) -> Self {
        let load = Load {
            connections,
            in_flight,
            threads: GENERATOR_THREADS,
            until: Until::Time {
                warm_up: lab.scale.warm_up,
                measured: lab.scale.measured,
            },
        };
        Self {
            target: process.addr().into(),
            _process: process,
            load,
            talk,
            lines: None,
            idle: Vec::new(),
            _dir: dir,
        }
    }
}

impl Contestant for Served {
    fn round(&mut self) -> Result<Sample, Error> {
        let outcome = load::run(&self.target, self.load, &mut self.talk)?;
        if let Some((_, lines)) = &mut self.lines {
            *lines += outcome.operations_in_all;
        }
        if outcome.operations == 0 {
            return Err(Error::NoOperation);
        }
        Ok(Sample {
            value: outcome.operations as f64 / outcome.elapsed.as_secs_f64(),
            latency_nanos: Some(outcome.latency_nanos),
        })
    }

    fn finish(&mut self) -> Result<(), Error> {
        self.idle.clear();
        let Some((path, lines)) = &self.lines else {
            return Ok(());
        };
        let stored = fs::read(path).map_err(Error::io("read back what was stored"))?;
        let found = stored.iter().filter(|byte| **byte == b'\n').count() as u64;
        if found == *lines {
            return Ok(());
        }
        let got = format!("{found} lines in the file, {lines} operations");
        Err(Wrong::new("a line for each operation", got.as_bytes()).into())
    }
}

/// Makes conversations that send `request` and expect `reply`.
pub fn fixed_talk(request: Vec<u8>, reply: &[u8]) -> NewTalk {
    let (request, reply): (Arc<[u8]>, _) = (request.into(), SameReply::new(reply));
    Box::new(move || Box::new(FixedTalk::new(Arc::clone(&request), reply.clone())))
}
