//! The queue as a work queue: jobs and workers that die, and receivers that wait.

use std::cell::Cell;
use std::fs;
use std::io::{Read, Write};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use proto::ErrorCode;
use proto::frame::{self, Message};
use proto::queue::{Claim, Delivery, QueueName, Reply, Request, Token};
use queue_client::{Client, Error, Transport};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::harness::{Noise, Ran, Running, Server, Stream, eventually, program, run, run_command};

pub fn start(args: &[&str]) -> Server {
    let line = [&["0"], args].concat();
    Server::start("queue-server", &line)
}

pub fn client(server: &Server) -> Client {
    Client::connect(&server.endpoint(), Transport::Tcp).unwrap()
}

/// `queue-client HOST PORT ...`, with this on its standard input.
#[track_caller]
pub fn say(server: &Server, line: &str, input: &[u8]) -> Ran {
    let mut args = server.host_and_ports();
    args.extend(line.split_whitespace().map(str::to_owned));
    run("queue-client", &args, input)
}

/// Checks a verb's exit code and standard output.
#[track_caller]
pub fn check(server: &Server, line: &str, input: &str, code: i32, want: &str) -> Ran {
    let ran = say(server, line, input.as_bytes()).expect(code);
    assert_eq!(ran.out(), want, "{line}: {}", ran.stderr);
    ran
}

/// Checks that a verb is refused with this exit code and sentence, and nothing on standard output.
#[track_caller]
pub fn check_refused(server: &Server, line: &str, code: i32, sentence: &str) {
    let ran = say(server, line, b"").expect(code);
    assert_eq!(ran.out(), "", "{line}");
    assert!(ran.stderr.contains(sentence), "{line}: {}", ran.stderr);
}

// ---- Workers that die.

/// Starts a `queue-client work`.
fn start_worker(server: &Server, options: &str, script: &str) -> Running {
    let mut command = Command::new(program("queue-client"));
    command.args(server.host_and_ports()).arg("work");
    command.args(options.split_whitespace());
    command.args(["--", "sh", "-c", script]);
    Running::start(command)
}

/// Sends a worker a signal, and waits for its end; its exit code.
#[track_caller]
fn end(worker: &Running, signal: &str) -> Option<i32> {
    worker.signal(signal);
    worker.wait()
}

#[test]
fn a_worker_ends_its_running_job_when_it_is_asked_to_stop() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let server = start(&["tcp"]);
    say(&server, "send --lines -", b"one\ntwo\n").expect(0);
    // The job goes on until it is told to.
    let script = format!(
        "echo > {}; until test -e {}; do sleep 0.01; done; cat >> {}",
        path("running"),
        path("go on"),
        path("done")
    )
    .replace("go on", "go-on");
    let worker = start_worker(&server, "", &script);
    eventually("the job runs", || dir.path().join("running").exists());
    worker.signal("TERM");
    worker.wait_for_stderr(|said| said.contains("Receiving no more messages"));
    fs::write(dir.path().join("go-on"), "").unwrap();
    assert_eq!(worker.wait(), Some(0));
    assert_eq!(fs::read_to_string(path("done")).unwrap(), "one");
    check(&server, "receive", "", 0, "two");
}

#[test]
fn an_idle_worker_ends_at_once() {
    let server = start(&["tcp"]);
    let worker = start_worker(&server, "--jobs 3", "cat");
    eventually("they wait", || count_waiters(&server) == 3);
    assert_eq!(end(&worker, "INT"), Some(0));
}

#[test]
fn a_killed_workers_message_goes_to_the_next_one() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(&["tcp"]);
    say(&server, "send -", b"job").expect(0);
    let running = dir.path().join("running");
    let script = format!("echo > {}; exec sleep 30", running.display());
    let worker = start_worker(&server, "", &script);
    eventually("the job runs", || running.exists());
    worker.kill();
    let args = "work --once --wait 10 -- env";
    let ran = say(&server, args, b"").expect(0);
    for want in [
        "QUEUE_NAME=default\n",
        "QUEUE_ATTEMPT=2\n",
        "QUEUE_MESSAGE_ID=",
    ] {
        assert!(ran.out().contains(want), "{}", ran.out());
    }
}

#[test]
fn a_failing_job_ends_among_the_dead() {
    let server = start(&["tcp", "--max-attempts", "3"]);
    say(&server, "send --queue jobs --lines -", b"bad\n").expect(0);
    for _ in 0..3 {
        let ran = say(
            &server,
            "work --queue jobs --once --backoff 0s -- false",
            b"",
        )
        .expect(1);
        assert!(ran.stderr.contains("exit status: 1"), "{}", ran.stderr);
    }
    check_refused(&server, "work --queue jobs --once -- cat", 1, "no messages");
    check(&server, "peek --queue jobs.dead", "", 0, "bad");
    check(&server, "kick jobs", "", 0, "");
    check(&server, "work --queue jobs --drain -- cat", "", 0, "bad");
    check(&server, "list", "", 0, "");
}

#[test]
fn a_job_given_back_waits_for_its_retry() {
    let server = start(&["tcp"]);
    say(&server, "send --lines -", b"one\ntwo\n").expect(0);
    say(&server, "work --once --retry-delay 3600 -- false", b"").expect(1);
    let listed = say(&server, "list", b"").expect(0).out();
    assert!(listed.starts_with("default\t1\t0\t1\t0\t"), "{listed}");
    check(&server, "receive", "", 0, "two");
}

#[test]
fn work_has_as_many_jobs_at_once_as_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(&["tcp"]);
    say(&server, "send --lines -", b"a\nb\nc\nd\n").expect(0);
    // Each job waits until all four are there.
    let script = format!(
        "cd {}; read -r job || true; touch $job.job; \
         until test $(ls | grep -c job) = 4; do sleep 0.01; done",
        dir.path().display()
    );
    let mut command = Command::new(program("queue-client"));
    command.args(server.host_and_ports());
    command.args(["work", "--jobs", "4", "--drain", "--", "sh", "-c", &script]);
    run_command(command, b"").expect(0);
}

#[test]
fn a_command_that_does_not_exist_gives_the_message_back() {
    let server = start(&["tcp"]);
    say(&server, "send -", b"job").expect(0);
    check_refused(
        &server,
        "work --once -- no-such-program",
        2,
        "no-such-program",
    );
    check(&server, "receive", "", 0, "job");
}

// ---- Waiting.

#[test]
fn a_thousand_waiting_receivers_cost_nothing_and_a_send_wakes_one() {
    const RECEIVERS: usize = 1000;
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).unwrap();
    // A quarter of them may wait.
    let server = start(&["tcp", "--max-connections", "4000"]);
    let receivers: Vec<_> = (0..RECEIVERS).map(|_| waiting(&server)).collect();
    eventually("all wait", || count_waiters(&server) == RECEIVERS as u64);
    let mut sender = client(&server);
    let idle = eventually_idle(&server);
    let before = switches(&server);
    sender.send(b"for one").unwrap();
    let woken = Cell::new(0);
    let look = || {
        let is_woken = |mut stream: &Stream| {
            stream.set_nonblocking(true).unwrap();
            stream.read(&mut [0; 1024]).is_ok()
        };
        let newly = receivers.iter().filter(|stream| is_woken(stream)).count();
        woken.set(woken.get() + newly);
        woken.get()
    };
    eventually("one is woken", || look() > 0);
    assert_eq!(look(), 1);
    // Two for the sender's connection, two for the receiver's, and a little for others.
    let switched = switches(&server) - before;
    assert!(switched < 20, "{switched} context switches");
    assert!(idle <= 1, "{idle} ticks of processor time in a second");
}

/// Waits until the server is busy with nothing, and then for a second; the processor time it takes
/// in that second, in ticks of 10 ms.
fn eventually_idle(server: &Server) -> u64 {
    let mut least = u64::MAX;
    // Others run at the same time, so the best of a few counts.
    for _ in 0..5 {
        let before = ticks(server);
        let end = Instant::now() + Duration::from_secs(1);
        while let left = end.saturating_duration_since(Instant::now())
            && !left.is_zero()
        {
            thread::park_timeout(left);
        }
        least = least.min(ticks(server) - before);
        if least == 0 {
            break;
        }
    }
    least
}

/// The processor time that the server has taken so far.
fn ticks(server: &Server) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", server.pid())).unwrap();
    // proc(5): after the name in brackets, fields 3 and up; utime is 14, stime 15.
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let fields: Vec<_> = fields.split(' ').collect();
    let tick = |at: usize| fields[at - 3].parse::<u64>().unwrap();
    tick(14) + tick(15)
}

/// How often the server's threads have gone to sleep so far.
fn switches(server: &Server) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap();
    let of_one = |task: fs::DirEntry| {
        let status = fs::read_to_string(task.path().join("status")).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.unwrap().trim().parse::<u64>().unwrap()
    };
    tasks.map(|task| of_one(task.unwrap())).sum()
}

/// A connection that waits for a message, for an hour.
fn waiting(server: &Server) -> Stream {
    let mut stream = server.connect();
    let mut request = Vec::new();
    Request::Receive {
        queues: QueueName::DEFAULT.into(),
        wait_millis: 3_600_000,
        delivery: Delivery::AtLeastOnce,
    }
    .encode(&mut request);
    stream.write_all(&request).unwrap();
    stream
}

#[test]
fn a_receiver_that_hung_up_is_never_handed_a_message() {
    let server = start(&["tcp"]);
    let mut sender = client(&server);
    // Its thread is there when it answers.
    sender.stats().unwrap();
    let quiet = server.threads();
    let gone: Vec<_> = (0..10).map(|_| waiting(&server)).collect();
    eventually("all wait", || count_waiters(&server) == 10);
    drop(gone);
    sender.send(b"precious").unwrap();
    let message = sender.receive_wait(Duration::from_secs(30)).unwrap();
    assert_eq!(message.unwrap().attempt, 1);
    eventually("their threads are gone", || server.threads() == quiet);
}

#[test]
fn waiting_ends_with_a_message_or_without_one() {
    let server = start(&["tcp"]);
    let mut receiver = client(&server);
    assert_eq!(
        receiver.receive_wait(Duration::from_millis(20)).unwrap(),
        None
    );
    let server = &server;
    thread::scope(|scope| {
        scope.spawn(|| {
            let message = receiver.receive_wait(Duration::from_secs(30)).unwrap();
            assert_eq!(message.unwrap().body, b"late");
        });
        scope.spawn(move || {
            let delay = Duration::from_millis(50);
            client(server).send_delayed(b"late", delay).unwrap();
        });
    });
}

#[test]
fn the_first_to_wait_is_the_first_to_be_served() {
    let server = start(&["tcp"]);
    let mut waiting: Vec<_> = (1..=5)
        .map(|n| {
            let stream = waiting(&server);
            eventually("it waits", || count_waiters(&server) == n);
            stream
        })
        .collect();
    let mut sender = client(&server);
    for (n, stream) in waiting.iter_mut().enumerate() {
        sender.send(n.to_string().as_bytes()).unwrap();
        let mut reply = [0; 19];
        stream.read_exact(&mut reply).unwrap();
        let (kind, payload) = frame::split(&reply).unwrap();
        match Reply::decode(kind, payload).unwrap() {
            Reply::Message { body, .. } => assert_eq!(body, n.to_string().as_bytes()),
            other => panic!("{other:?}"),
        }
    }
}

/// How many receivers wait.
pub fn count_waiters(server: &Server) -> u64 {
    let queues = client(server).stats().unwrap().queues;
    queues.iter().map(|queue| queue.waiters).sum()
}

#[test]
fn a_server_that_stops_lets_its_receivers_go() {
    let server = start(&["tcp"]);
    let mut receivers: Vec<_> = (0..3).map(|_| waiting(&server)).collect();
    eventually("all wait", || count_waiters(&server) == 3);
    server.signal("TERM");
    for receiver in &mut receivers {
        let mut reply = Vec::new();
        receiver.read_to_end(&mut reply).unwrap();
        let (kind, payload) = frame::split(&reply).unwrap();
        match Reply::decode(kind, payload).unwrap() {
            Reply::Error(error) => assert_eq!(error.code, ErrorCode::ShuttingDown),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(server.wait().0, Some(0));
}

#[test]
fn a_server_that_stops_is_no_failure_of_the_holder() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("queue.db");
    let line = ["tcp", "--max-attempts", "1", "--data"];
    let line = [&line[..], &[data.to_str().unwrap()]].concat();
    let server = start(&line);
    let mut holder = client(&server);
    holder.send(b"a long job").unwrap();
    assert!(holder.receive().unwrap().is_some());
    server.signal("TERM");
    assert_eq!(server.wait().0, Some(0));
    let server = start(&line);
    let message = client(&server).receive().unwrap().unwrap();
    assert_eq!(
        (message.body.as_slice(), message.attempt),
        (&b"a long job"[..], 2),
        "it is not among the dead, and the attempts are told apart"
    );
}

// ---- All at once.

/// Does something at random with one of three queues; `token` is the lease taken last.
fn do_anything(client: &mut Client, noise: &mut Noise, token: &mut Option<Token>) {
    let queue = ["a", "b", "a.dead"][noise.below(3)];
    client.set_queue(QueueName::new(queue).unwrap());
    let soon = Duration::from_millis(noise.below(20) as u64);
    let done = match noise.below(16) {
        0..5 => client.send(&noise.bytes(100)).map(drop),
        5 => client.send_delayed(b"later", soon).map(drop),
        6..9 => client.receive().and_then(|message| match message {
            // Some are acknowledged, some released, and some are left to the connection's end.
            Some(message) if noise.below(2) == 0 => client.ack(&message),
            Some(message) if noise.below(2) == 0 => client.release(&message, soon).map(drop),
            Some(message) if noise.below(4) == 0 => client.unreserve(&message),
            _ => Ok(()),
        }),
        9 => client.receive_at_most_once().map(drop),
        10 => client.lease(soon, soon).map(|message| {
            *token = message.and_then(|message| match message.claim {
                Claim::Leased(token) => Some(token),
                Claim::Reserved(_) => None,
            });
        }),
        11 => token.map_or(Ok(()), |token| client.extend(token, soon)),
        12 => token.map_or(Ok(()), |token| match noise.below(2) {
            0 => client.ack(token),
            _ => client.release(token, soon).map(drop),
        }),
        13 => client.kick().map(drop),
        14 if noise.below(10) == 0 => client.purge().map(drop),
        14 => client.peek(2).map(drop),
        _ if noise.below(2) == 0 => client.pause(),
        _ => client.resume(),
    };
    match done {
        // The lease has run out, or there is no such thing as too much of it.
        Ok(()) | Err(Error::Refused { .. }) => {}
        Err(error) => panic!("{error}"),
    }
}

#[track_caller]
fn check_that_nothing_is_left(args: &[&str]) {
    const CLIENTS: u64 = 8;
    const LIVES: usize = 15;
    const ACTIONS: usize = 100;
    let server = start(&[&["tcp", "--max-attempts", "3"], args].concat());
    thread::scope(|scope| {
        for seed in 0..CLIENTS {
            let server = &server;
            scope.spawn(move || {
                let mut noise = Noise::new(seed * 2 + 1);
                for _ in 0..LIVES {
                    let mut client = client(server);
                    let mut token = None;
                    for _ in 0..ACTIONS {
                        do_anything(&mut client, &mut noise, &mut token);
                    }
                }
            });
        }
    });
    let mut last = client(&server);
    eventually("everything is gone, and counted out", || {
        let mut last = client(&server);
        for queue in ["a", "b", "a.dead", "b.dead"] {
            last.set_queue(QueueName::new(queue).unwrap());
            for done in [last.resume(), last.purge().map(drop)] {
                match done {
                    Ok(()) => {}
                    Err(Error::Refused { code, .. }) => assert_eq!(code, ErrorCode::NotFound),
                    Err(error) => panic!("{error}"),
                }
            }
        }
        let stats = last.stats().unwrap();
        stats.queues.is_empty() && stats.totals.memory_bytes == 0
    });
    let totals = last.stats().unwrap().totals;
    assert!(
        totals.dead_lettered > 0 && totals.requeued > 0 && totals.released > 0,
        "{totals:?}"
    );
    server.kill();
}

#[test]
fn whatever_is_done_nothing_is_left_behind() {
    check_that_nothing_is_left(&[]);
}

#[test]
fn whatever_is_done_nothing_is_left_behind_on_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("queue.db");
    let args = ["--data", data.to_str().unwrap()];
    check_that_nothing_is_left(&args);
    let server = start(&[&["tcp"], &args[..]].concat());
    let log = server.log();
    assert!(log.contains("[INFO] [main] 0 messages read from"), "{log}");
    assert!(client(&server).stats().unwrap().queues.is_empty());
}

#[test]
fn waiting_receivers_do_not_use_up_the_connections() {
    let server = start(&["tcp", "--max-connections", "16"]);
    let waiting: Vec<_> = (0..14).map(|_| waiting(&server)).collect();
    // A quarter of all may wait from one address, and whom they wait for can come.
    eventually("as many wait as may", || count_waiters(&server) == 4);
    for _ in 0..3 {
        say(&server, "stats", b"").expect(0);
    }
    drop(waiting);
    eventually("all can wait again", || {
        let stats = client(&server).stats();
        stats.is_ok_and(|stats| stats.queues.is_empty())
    });
}
