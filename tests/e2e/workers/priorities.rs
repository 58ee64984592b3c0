//! Jobs with priorities in two queues, four workers of which one is killed every 200 ms, and five kills of the
//! server. All are done, the urgent queue and the higher priorities first, and within one in the order in which they
//! were sent; none is done more often than a kill explains; and none is a dead letter, because none has failed.
//!
//! Each job is two processes, the guardian and the command, so an ordinary run has 4,000 of them.
//! `QUARTET_TEST_JOBS=10000` has as many as it says.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use proto::queue::{Priority, Properties, QueueName};

use crate::harness::{Needs, Noise, Running, Server, has_door, program};
use crate::work::{client, say, start};

const JOBS_VARIABLE: &str = "QUARTET_TEST_JOBS";
const WORKERS: usize = 4;
const KILL_EVERY: Duration = Duration::from_millis(200);
const SERVER_KILLS: usize = 5;
const PRIORITIES: usize = 10;
const QUEUES: [&str; 2] = ["urgent", "default"];

/// How long a job may take on a machine that has other things to do.
const PATIENCE_PER_JOB: Duration = Duration::from_millis(50);

/// The jobs of each queue and priority.
fn jobs_each() -> usize {
    let jobs = std::env::var(JOBS_VARIABLE).map_or(4000, |jobs| jobs.parse().unwrap());
    jobs / QUEUES.len() / PRIORITIES
}

/// Sends all jobs, the lowest priorities first: each is its place in the order in which they are to be done.
fn send_all(server: &Server, each: usize) {
    let mut client = client(server);
    for priority in 0..PRIORITIES {
        for (queue, name) in QUEUES.iter().enumerate() {
            client.set_queue(QueueName::new(name).unwrap());
            let before = queue * PRIORITIES + PRIORITIES - 1 - priority;
            let jobs = (before * each..(before + 1) * each).map(|place| place.to_string());
            let properties = Properties {
                priority: Priority::new(priority as u8).unwrap(),
                ..Properties::default()
            };
            client.send_all(jobs, properties).unwrap();
        }
    }
}

/// A job that a worker has begun.
struct Begun {
    worker: u32,
    attempt: u32,
    place: usize,
}

/// What the jobs have left behind: each adds a line when it begins, and another one when it ends.
struct Traces(PathBuf);

impl Traces {
    /// A worker. What its jobs run does all by itself, which is the quickest that there is.
    fn worker(&self, worker: u32, server: &Server, options: &str) -> Running {
        let script = format!(
            "read -r place; echo \"{worker} $QUEUE_ATTEMPT $place\" >> begun; echo \"$place\" >> ended"
        );
        let mut command = Command::new(program("queue-client"));
        command.args(server.host_and_ports());
        command.args(["--wait-for-server", "60", "work"]);
        command.args(["--queue", &QUEUES.join(",")]);
        command.args(options.split_whitespace());
        command.args(["--", "sh", "-c", &script]);
        command.current_dir(&self.0);
        Running::start(command)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap_or_default()
    }

    /// How many different jobs have ended.
    fn count_ended(&self) -> usize {
        let ended = self.read("ended");
        ended.lines().collect::<BTreeSet<_>>().len()
    }

    fn begun(&self) -> Vec<Begun> {
        let begun = self.read("begun");
        let line = |line: &str| {
            let [worker, attempt, place] = line
                .split(' ')
                .map(|number| number.parse().unwrap())
                .collect::<Vec<usize>>()[..]
            else {
                panic!("{line}")
            };
            Begun {
                worker: worker as u32,
                attempt: attempt as u32,
                place,
            }
        };
        begun.lines().map(line).collect()
    }
}

/// How many jobs were begun out of order. A worker asks for a job when the one before has ended, so it is given one
/// that stands behind all that were begun when that one began. Jobs that came again are left out: they stand in
/// front again.
fn count_late(begun: &[Begun]) -> usize {
    let mut times = BTreeMap::<usize, u32>::new();
    for one in begun {
        *times.entry(one.place).or_default() += 1;
    }
    // The furthest place that was begun when each worker has begun its last job.
    let mut known = BTreeMap::<u32, usize>::new();
    let (mut furthest, mut late) = (0, 0);
    for one in begun {
        let has_come_again = one.attempt > 1 || times[&one.place] > 1;
        let is_late = known
            .get(&one.worker)
            .is_some_and(|known| one.place < *known);
        late += usize::from(is_late && !has_come_again);
        furthest = furthest.max(one.place);
        known.insert(one.worker, furthest);
    }
    late
}

/// A server that is killed, and started again on the same port.
fn restart(server: Server, data: &Path) -> Server {
    let port = server.addr().port().to_string();
    server.kill();
    let data = data.to_str().unwrap();
    Server::start("queue-server", &[&port, "tcp", "--data", data])
}

#[test]
fn jobs_with_priorities_are_done_in_order_in_spite_of_kills() {
    if !has_door(Needs::Tcp, "its server starts again on the same port") {
        return;
    }
    let each = jobs_each();
    let all = QUEUES.len() * PRIORITIES * each;
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("queue.db");
    let mut server = start(&["tcp", "--data", data.to_str().unwrap()]);
    send_all(&server, each);
    let traces = Traces(dir.path().to_owned());
    let mut hired = 0;
    let mut hire = |server: &Server| {
        hired += 1;
        traces.worker(hired, server, "")
    };
    let mut workers: Vec<_> = (0..WORKERS).map(|_| hire(&server)).collect();
    let start = Instant::now();
    let deadline = start + Duration::from_secs(60) + PATIENCE_PER_JOB * all as u32;
    let mut noise = Noise::new(3);
    let (mut worker_kills, mut server_kills) = (0, 0);
    loop {
        let ended = traces.count_ended();
        if ended == all {
            break;
        }
        assert!(Instant::now() < deadline, "{ended} of {all} jobs ended");
        // Spread over the run.
        if server_kills < SERVER_KILLS && ended > (server_kills + 1) * all / 8 {
            server = restart(server, &data);
            server_kills += 1;
        }
        thread::park_timeout(KILL_EVERY);
        let victim = noise.below(WORKERS);
        workers[victim].kill();
        workers[victim] = hire(&server);
        worker_kills += 1;
    }
    assert_eq!(server_kills, SERVER_KILLS);
    let begun = traces.begun();
    println!(
        "{all} jobs begun {} times in {:?}, {worker_kills} kills of workers",
        begun.len(),
        start.elapsed()
    );
    // Each kill of a worker costs it one job, and a kill of the server costs each of them one.
    let again = begun.len() - all;
    assert!(again <= worker_kills + SERVER_KILLS * WORKERS, "{again}");
    // What was on its way to a worker when the server was killed comes again, as if for the first time.
    let late = count_late(&begun);
    assert!(late <= SERVER_KILLS * WORKERS, "{late} out of order");
    // What has ended without its acknowledgement is done once more, and nothing is left, not even a dead letter.
    for worker in workers {
        worker.signal("TERM");
        assert_eq!(worker.wait(), Some(0));
    }
    let rest = traces.worker(0, &server, "--drain");
    assert_eq!(rest.wait(), Some(0), "{}", rest.stderr.text());
    assert_eq!(say(&server, "list", b"").expect(0).out(), "");
    assert_eq!(client(&server).stats().unwrap().totals.dead_lettered, 0);
}
