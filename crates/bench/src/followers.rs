//! A thousand who follow a history: what each costs in memory, and what all cost those who append.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::contestant::{Clients, Contestant, Lab, Sample, require_descriptors, rounds};
use crate::conversation::{END, FollowTalk, Wrong};
use crate::error::Error;
use crate::frames::{Frames, connect};
use crate::histories::{notes, served_appends, start};
use crate::load::{self, Load, Outcome, Until};
use crate::process::Process;
use crate::served::Served;
use crate::target::Target;

/// How many follow.
pub const FOLLOWERS: usize = 1000;

/// Descriptors that the bench and the server need besides those.
const DESCRIPTORS_SPARE: usize = 400;

/// Of one address a quarter of the connections may follow.
const ROOMY: &[&str] = &["--max-connections", "4400"];

/// What is appended while they follow: this many lines...
const FLOW_LINES: u32 = 5000;

/// ...at this distance: a thousand a second...
const FLOW_LINE: Duration = Duration::from_millis(1);

/// ...as this many requests at once.
const FLOW_BATCH: usize = 10;

/// Those who follow, on a thread of their own. Each checks that it is told each line once and in order.
struct Followers(JoinHandle<Result<Outcome, Error>>);

impl Followers {
    /// Returns when all follow.
    fn start(target: Target) -> Result<Self, Error> {
        require_descriptors((FOLLOWERS + DESCRIPTORS_SPARE) as u64)?;
        let load = Load {
            connections: FOLLOWERS,
            in_flight: 1,
            threads: 1,
            until: Until::Batches(1),
        };
        let following = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&following);
        let run = move || {
            let mut talk = || Box::new(FollowTalk::new(Arc::clone(&counted))) as Box<_>;
            load::run(&target, load, &mut talk)
        };
        let thread = thread::Builder::new().name("followers".to_owned());
        let followers = Self(thread.spawn(run).map_err(Error::io("start a thread"))?);
        while following.load(Ordering::Relaxed) < FOLLOWERS {
            if followers.0.is_finished() {
                followers.join()?;
                return Err(Error::NoOperation);
            }
            // The generator tells of no event.
            thread::park_timeout(Duration::from_millis(2));
        }
        Ok(followers)
    }

    /// Ends them with a last line; returns when each has been told of it.
    fn end(self, frames: &mut Frames) -> Result<(), Error> {
        notes(frames, END, 1)?;
        self.join()
    }

    fn join(self) -> Result<(), Error> {
        let followed = self.0.join().expect("a generator does not panic");
        followed.map(drop)
    }
}

/// Appends a thousand lines a second.
fn flow(frames: &mut Frames) -> Result<(), Error> {
    let begun = Instant::now();
    for line in (0..FLOW_LINES).step_by(FLOW_BATCH) {
        let due = begun + FLOW_LINE * line;
        // The schedule is all there is to wait for.
        thread::park_timeout(due.saturating_duration_since(Instant::now()));
        notes(frames, "pump 2 is on", FLOW_BATCH)?;
    }
    let took = begun.elapsed();
    // A tenth more is as good.
    match took <= FLOW_LINE * FLOW_LINES * 11 / 10 {
        true => Ok(()),
        false => Err(Wrong::new("5,000 lines in 5 s", format!("{took:?}").as_bytes()).into()),
    }
}

/// The memory of each that follows a history with a thousand new lines a second, in KiB: what the server
/// needed at most beyond what it had before. Each round has a new server.
///
/// # Errors
/// If no folder can be made.
pub fn memory(lab: &Lab, _: Clients) -> Result<Box<dyn Contestant>, Error> {
    let dir = lab.dir()?;
    let path = dir.path().to_owned();
    let round = move || {
        let process = start_roomy(&path)?;
        let mut frames = Frames::new(connect(process.addr())?);
        notes(&mut frames, "pump 2 is off", 1)?;
        let before = process.peak_bytes()?;
        let followers = Followers::start(process.addr().into())?;
        flow(&mut frames)?;
        followers.end(&mut frames)?;
        let bytes = process.peak_bytes()? - before;
        Ok(Sample::value(bytes as f64 / 1024.0 / FOLLOWERS as f64))
    };
    Ok(rounds(None, dir, round))
}

fn start_roomy(dir: &Path) -> Result<Process, Error> {
    start(dir, ROOMY)
}

/// A history to which many append, and that a thousand follow in each round.
struct Followed(Served);

impl Contestant for Followed {
    fn round(&mut self) -> Result<Sample, Error> {
        let target = self.0.target.clone();
        let mut frames = Frames::new(connect(target.addr)?);
        let followers = Followers::start(target)?;
        let sample = self.0.round()?;
        // They have lagged, and catch up before the other side is measured.
        followers.end(&mut frames)?;
        if let Some((_, lines)) = &mut self.0.lines {
            *lines += FOLLOWERS as u64 + 1;
        }
        Ok(sample)
    }

    fn finish(&mut self) -> Result<(), Error> {
        self.0.finish()
    }
}

/// As [`appends`](crate::histories::appends), beside a thousand who follow.
///
/// # Errors
/// If it cannot be started, or descriptors are too few.
pub fn appends_beside_followers(lab: &Lab, clients: Clients) -> Result<Box<dyn Contestant>, Error> {
    Ok(Box::new(Followed(served_appends(lab, clients, ROOMY)?)))
}
