//! Ten thousand jobs with priorities in two queues, four workers that are killed every 200 ms, and five kills of the
//! server. All are done, the urgent queue and the higher priorities first, and within one in the order in which they
//! were sent; and none is a dead letter, because none has failed.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use proto::queue::{Priority, Properties, QueueName, QueueNames};
use queue_client::{AbortHandle, Client, Transport};

use crate::harness::{Needs, Server, has_door};
use crate::work::{client, say, start};

const WORKERS: usize = 4;
const SERVER_KILLS: usize = 5;

/// The jobs of each queue and priority.
const JOBS: usize = 500;
const PRIORITIES: u8 = 10;
const ALL: usize = 2 * PRIORITIES as usize * JOBS;

/// How often a worker is killed.
const KILL_EVERY: Duration = Duration::from_millis(200);

/// How far from its place in the order a job may be done: some are with workers at once, a worker may have to wait
/// for a processor, and some come again after the server was killed.
const AT_ONCE: usize = 100;

fn names() -> [QueueName<'static>; 2] {
    ["urgent", "default"].map(|name| QueueName::new(name).unwrap())
}

/// The workers, and what they have done.
#[derive(Default)]
struct Shift {
    /// The place of each job in the order, and at which attempt it was done.
    done: Mutex<Vec<(usize, u32)>>,
    is_over: AtomicBool,
    /// What kills the workers.
    handles: Mutex<BTreeMap<usize, AbortHandle>>,
}

impl Shift {
    /// Works until the shift is over. To the server, a worker whose connection ends is one that was killed.
    fn work(&self, number: usize, endpoint: &queue_client::Endpoint) {
        while !self.is_over.load(Ordering::SeqCst) {
            let Ok(mut client) = Client::connect(endpoint, Transport::Tcp) else {
                thread::park_timeout(Duration::from_millis(20));
                continue;
            };
            let handle = client.abort_handle().unwrap();
            self.handles.lock().unwrap().insert(number, handle);
            client.set_queues(&QueueNames::new(names()).unwrap());
            while let Ok(received) = client.receive_wait(KILL_EVERY)
                && !self.is_over.load(Ordering::SeqCst)
            {
                let Some(message) = received else { continue };
                let job = String::from_utf8(message.body.clone()).unwrap();
                let place = job.parse().unwrap();
                self.done.lock().unwrap().push((place, message.attempt));
                if client.ack(&message).is_err() {
                    break;
                }
            }
        }
    }

    fn count_done(&self) -> usize {
        let done = self.done.lock().unwrap();
        let mut places: Vec<_> = done.iter().map(|(place, _)| *place).collect();
        drop(done);
        places.sort_unstable();
        places.dedup();
        places.len()
    }
}

/// Sends all jobs, the lowest priorities first: each is its place in the order in which they are to be done.
fn send_all(server: &Server) {
    let mut client = client(server);
    for priority in 0..PRIORITIES {
        for (queue, name) in names().into_iter().enumerate() {
            client.set_queue(name);
            let before = queue * usize::from(PRIORITIES) + usize::from(PRIORITIES - 1 - priority);
            let jobs = (before * JOBS..(before + 1) * JOBS).map(|place| place.to_string());
            let properties = Properties {
                priority: Priority::new(priority).unwrap(),
                ..Properties::default()
            };
            client.send_all(jobs, properties).unwrap();
        }
    }
}

#[test]
fn ten_thousand_jobs_are_done_in_order_in_spite_of_kills() {
    if !has_door(Needs::Tcp, "its server starts again on the same port") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("queue.db");
    let data = data.to_str().unwrap();
    let mut server = start(&["tcp", "--data", data]);
    let port = server.addr().port().to_string();
    send_all(&server);
    let shift = Shift::default();
    let endpoint = server.endpoint();
    let deadline = Instant::now() + Duration::from_secs(120);
    let mut worker_kills = 0;
    let server = thread::scope(|scope| {
        for number in 0..WORKERS {
            let (shift, endpoint) = (&shift, &endpoint);
            scope.spawn(move || shift.work(number, endpoint));
        }
        let mut server_kills = 0;
        loop {
            let done = shift.count_done();
            if done == ALL || Instant::now() > deadline {
                break;
            }
            if server_kills < SERVER_KILLS && done > (server_kills + 1) * ALL / 8 {
                server.kill();
                server = Server::start("queue-server", &[&port, "tcp", "--data", data]);
                server_kills += 1;
            }
            if let Some((_, handle)) = shift.handles.lock().unwrap().pop_first() {
                handle.abort();
                worker_kills += 1;
            }
            thread::park_timeout(KILL_EVERY);
        }
        shift.is_over.store(true, Ordering::SeqCst);
        assert_eq!(server_kills, SERVER_KILLS);
        server
    });
    let done = shift.done.into_inner().unwrap();
    println!("{} jobs, {worker_kills} kills of workers", done.len());
    let mut newest = 0;
    for (place, attempt) in &done {
        let is_in_order = place + AT_ONCE > newest;
        assert!(is_in_order || *attempt > 1, "{place} after {newest}");
        newest = newest.max(*place);
    }
    drop(server);
    // The last acks may have been lost with their workers. What is left was done, and is no dead letter.
    let server = start(&["tcp", "--data", data]);
    let left = say(&server, "list", b"").expect(0).out();
    assert!(!left.contains(".dead"), "{left}");
    let ready = client(&server).stats().unwrap().queues;
    let ready: u64 = ready.iter().map(|queue| queue.ready).sum();
    assert!(ready <= WORKERS as u64, "{left}");
}
