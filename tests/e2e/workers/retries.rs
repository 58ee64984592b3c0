//! `work`: why a command failed, when its message is tried again, and when not.

use std::time::{Duration, Instant};

use proto::queue::Properties;
use serde_json::Value;

use super::{Place, is_alive, signal};
use crate::harness::{Ran, eventually, run_command};
use crate::work::{check, client, count_waiters, say};

/// How late a message may be on a machine that is busy.
const LATE: Duration = Duration::from_secs(5);

/// Runs a worker to its end.
#[track_caller]
fn work(place: &Place, options: &str, script: &str, code: i32) -> Ran {
    run_command(place.command(&[], options, script), b"").expect(code)
}

/// The messages of a queue, as `peek --json` tells them.
fn peek(place: &Place, queue: &str) -> Vec<Value> {
    let line = format!("peek --queue {queue} --count 100 --json");
    let ran = say(&place.server, &line, b"");
    let lines = ran.out();
    lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[track_caller]
fn check_only(place: &Place, queue: &str, attempts: u32, reason: &str) {
    let messages = peek(place, queue);
    let [message] = &messages[..] else {
        panic!("{messages:?}")
    };
    assert_eq!(
        (&message["attempts"], &message["reason"]),
        (&attempts.into(), &reason.into())
    );
}

#[test]
fn a_dead_letter_says_why_and_the_command_is_still_heard() {
    let place = Place::new("--max-attempts 2", "good\nbad\n");
    let script = "read -r job; echo \"$job: try $QUEUE_ATTEMPT\" >&2; echo out; test $job = good";
    let ran = work(&place, "--wait 0.2", script, 1);
    for said in [
        "good: try 1\n",
        "bad: try 1\n",
        "bad: try 2\n",
        "queue-client: dead letters: 1 (2 in default.dead)\n",
    ] {
        assert!(ran.stderr.contains(said), "{said}{}", ran.stderr);
    }
    assert_eq!(ran.out(), "out\nout\nout\n");
    check_only(&place, "default.dead", 2, "exit status: 1: bad: try 2");
    let ran = check(&place.server, "peek --queue default.dead", "", 0, "bad");
    let want = ", attempts: 2, the last: exit status: 1: bad: try 2\n";
    assert!(ran.stderr.ends_with(want), "{}", ran.stderr);
}

#[test]
fn only_the_end_of_a_long_story_is_kept_and_all_of_it_is_shown() {
    let place = Place::new("", "job\n");
    // More than a pipe holds.
    let ran = work(&place, "--once", "seq 100000 >&2; exit 3", 1);
    let lines = ran
        .stderr
        .lines()
        .take_while(|line| line.parse::<u32>().is_ok());
    assert_eq!(lines.count(), 100_000);
    let message = &peek(&place, "default")[0];
    let reason = message["reason"].as_str().unwrap();
    assert!(reason.starts_with("exit status: 3: ") && reason.ends_with("\n99999\n100000"));
    assert!((2000..=2048).contains(&reason.len()), "{}", reason.len());
}

#[test]
fn exit_codes_say_what_becomes_of_a_message() {
    let place = Place::new("--max-attempts 2", "dead\nuncounted\n");
    let script = "read -r job; echo >> $job; case $job in dead) exit 65;; esac; \
                  test $(wc -l < uncounted) = 6 || exit 75";
    let options = "--drain --dead-on 65,66 --uncounted-on 75";
    let ran = work(&place, options, script, 1);
    assert!(
        ran.stderr.contains("dead letters: 1 (1 in default.dead)"),
        "{}",
        ran.stderr
    );
    check_only(&place, "default.dead", 1, "exit status: 65");
    assert_eq!(place.read("dead").lines().count(), 1);
    assert_eq!(place.read("uncounted").lines().count(), 6);
    assert!(peek(&place, "default").is_empty());
}

#[test]
fn a_failed_message_waits_longer_each_time() {
    let place = Place::new("", "job\n");
    let mut looking = client(&place.server);
    let mut longest = Duration::ZERO;
    for attempt in 1..=3 {
        work(&place, "--once --wait 30 --backoff 0.2s..1m", "exit 1", 1);
        let since = Instant::now();
        let message = looking.receive_wait(Duration::from_secs(30)).unwrap();
        let message = message.unwrap();
        // How late this test looks is not known, so it sees a part of the delay.
        let waited = since.elapsed();
        assert!(waited < Duration::from_millis(200) * 2_u32.pow(attempt) + LATE);
        longest = longest.max(waited);
        assert_eq!(message.attempt, attempt + 1);
        looking.unreserve(&message).unwrap();
    }
    let least = Duration::from_millis(200);
    assert!(
        longest > least,
        "of a delay of at least 800 ms, {longest:?}"
    );
}

#[test]
fn a_message_may_have_attempts_of_its_own() {
    let place = Place::new("", "");
    check(&place.server, "send --max-attempts 1 -", "once", 0, "");
    work(&place, "--drain", "exit 1", 1);
    check_only(&place, "default.dead", 1, "exit status: 1");
}

#[test]
fn a_command_over_its_time_limit_is_ended_and_has_failed() {
    let place = Place::new("", "job\n");
    let script = "echo \"working on it\" >&2; echo $$ > running; sleep 60";
    work(&place, "--once --time-limit 0.3", script, 1);
    assert!(!is_alive(place.wait_for_pid("running")));
    let why = "signal: 15 (SIGTERM), over the time limit of 0.3 s: working on it";
    check_only(&place, "default", 1, why);
    // A command that calls that a success has failed all the same.
    let script = "exec 2> /dev/null; trap 'exit 0' TERM; while :; do sleep 0.01; done";
    work(&place, "--once --time-limit 0.3", script, 1);
    check_only(
        &place,
        "default",
        2,
        "exit status: 0, over the time limit of 0.3 s",
    );
    // In time.
    work(&place, "--once --time-limit 60", "exit 0", 0);
}

#[test]
fn a_command_that_does_not_want_to_end_is_killed_with_all_that_it_has_started() {
    let place = Place::new("", "job\n");
    let script = "trap '' TERM; echo \"I stay\" >&2; sleep 60 & echo $! > child; echo $$ > running; \
                  while :; do sleep 0.1; done";
    let since = Instant::now();
    work(&place, "--once --time-limit 0.3", script, 1);
    assert!(since.elapsed() >= Duration::from_secs(10));
    for name in ["child", "running"] {
        let pid = place.wait_for_pid(name);
        eventually("it is gone", || !is_alive(pid));
    }
    let why = "signal: 9 (SIGKILL), over the time limit of 0.3 s: I stay";
    check_only(&place, "default", 1, why);
}

#[test]
fn what_a_command_leaves_behind_is_still_heard_and_not_waited_for() {
    let place = Place::new("", "job\n");
    let script = "(until test -e go-on; do sleep 0.01; done; echo \"from behind\" >&2; sleep 60) & \
                  echo $! > behind; echo $$ > running";
    let worker = place.work("--wait 3600", script);
    let behind = place.wait_for_pid("behind");
    eventually("the job is done", || {
        client(&place.server)
            .stats()
            .unwrap()
            .queues
            .iter()
            .all(|q| q.reserved == 0)
    });
    place.touch("go-on");
    worker.wait_for_stderr(|said| said.contains("from behind\n"));
    worker.signal("TERM");
    eventually("the worker has ended", || !is_alive(worker.pid()));
    assert!(is_alive(behind), "it is not the worker's to end");
    signal("KILL", &behind.to_string());
    assert_eq!(worker.wait(), Some(0));
}

#[test]
fn urgent_messages_and_urgent_queues_are_worked_on_first() {
    let place = Place::new("", "0a\n0b\n");
    let mut sender = client(&place.server);
    for (queue, priority, body) in [
        ("default", 5, "5a"),
        ("default", 9, "9a"),
        ("default", 5, "5b"),
        ("urgent", 0, "now"),
    ] {
        sender.set_queue(proto::queue::QueueName::new(queue).unwrap());
        let properties = Properties {
            priority: proto::queue::Priority::new(priority).unwrap(),
            ..Properties::default()
        };
        sender.send_with(body.as_bytes(), &properties).unwrap();
    }
    let script = "echo \"$(cat) $QUEUE_NAME\" >> done";
    work(&place, "--drain --queue urgent,default", script, 0);
    let want = "now urgent\n9a default\n5a default\n5b default\n0a default\n0b default\n";
    assert_eq!(place.read("done"), want);
    check(
        &place.server,
        "send --priority 3 --lines -",
        "a\nb\n",
        0,
        "",
    );
    let all = "receive --queue urgent,default --count 9";
    check(&place.server, all, "", 0, "a\nb\n");
}

#[test]
fn a_worker_waits_in_all_its_queues_at_once() {
    let place = Place::new("", "");
    let worker = place.work("--once --wait 60 --queue urgent,default", "cat > done");
    eventually("it waits", || count_waiters(&place.server) == 2);
    check(&place.server, "send -", "job", 0, "");
    assert_eq!(worker.wait(), Some(0));
    assert_eq!(place.read("done"), "job");
}

#[test]
fn who_releases_a_lease_may_say_why() {
    let place = Place::new("", "job\n");
    let file = place.path("job");
    let token = say(&place.server, &format!("lease 1h {}", file.display()), b"").expect(0);
    check(
        &place.server,
        "release - --reason no-time",
        &token.out(),
        0,
        "",
    );
    check_only(&place, "default", 1, "no-time");
}

#[test]
fn a_message_that_expires_is_a_dead_letter_also_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("queue.db");
    let options = format!("--data {}", data.display());
    let place = Place::new(&options, "stays\n");
    check(&place.server, "send --expires 0.2 -", "soon", 0, "");
    check(&place.server, "send --expires 1h -", "later", 0, "");
    eventually("it is among the dead letters", || {
        !peek(&place, "default.dead").is_empty()
    });
    check_only(&place, "default.dead", 0, "expired after 0 s in the queue");
    check(&place.server, "send --expires 0.01 -", "at the end", 0, "");
    drop(place);
    let place = Place::new(&options, "");
    eventually("both are there", || peek(&place, "default.dead").len() == 2);
    let expiring = &peek(&place, "default")[1];
    assert_eq!(expiring["body"], "later");
    let left = expiring["expiry_millis"].as_u64().unwrap();
    assert!((3_500_000..=3_600_000).contains(&left), "{left}");
    check(&place.server, "receive --count 9", "", 0, "stays\nlater\n");
}
