//! The short form of the queue's suites on another engine that speaks PostgreSQL's protocol: PGlite, which npm has.
//!
//! It is PostgreSQL 18, and like other engines in what takeovers rest on: advisory locks exclude nobody, no session
//! ends another, and none is ended for its silence. It has only one session, which all connections share. So it
//! cannot show two transactions that overlap: that one waits for the other's row, or is undone for it, is shown with
//! PostgreSQL alone ([`on_postgres`](crate::on_postgres), [`failover`](crate::torture)). And who hangs in the middle
//! of a transaction stops everybody here, so nobody hangs.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use cli::{Address, Endpoint};
use proto::queue::{Claim, Properties};
use queue_client::{Client, Transport};

use crate::doors::run_once_more;
use crate::harness::postgres::{free_port, pglite};
use crate::harness::{
    DATA_VARIABLE, Needs, PGLITE, Ran, Server, eventually, has_door, has_sqlite, lock, run,
};

/// What runs on it: the tests whose names have one of these in them.
const SUITES: [&str; 3] = ["one_message::", "sessions::", "verbs::"];

/// What does not: it shows nothing of where messages are kept and is slow, or fast only elsewhere, or it kills servers
/// again and again. Each is replaced only when it has been silent for long.
const SLOW: &[&str] = &[
    "one_message::a_worker_whose_message",
    "sessions::what_is_sent_over",
    "verbs::send_many",
];

/// How long the active server may be silent. For half of it, it may wait for a machine that has other things to do.
const TAKEOVER_AFTER: &str = "5s";

/// What a server logs when it is active, and when it stands by.
const ACTIVE: &str = "] Active;";
const STANDING_BY: &str = "] Standing by;";

/// Where two servers are.
const HOSTS: [&str; 2] = ["127.0.0.1", "127.0.0.2"];

/// Servers on one database.
struct World {
    database: pglite::Database,
    port: u16,
}

impl World {
    /// `None`, and a word of it, if there is no PGlite, or another run is for that.
    #[track_caller]
    fn new() -> Option<Self> {
        let why = "its servers say where they keep their messages";
        if !(has_door(Needs::Plain, why) && has_sqlite(why)) {
            return None;
        }
        Some(Self {
            database: pglite::database()?,
            port: free_port(),
        })
    }

    /// Starts a server, and waits until it is active or stands by.
    #[track_caller]
    fn start(&self, host: &str, state: &str) -> Server {
        let (port, url) = (self.port.to_string(), self.database.url());
        let args = ["tcp", "--data", &url, "--takeover-after", TAKEOVER_AFTER];
        let args = [&[&port, "--bind", host], &args[..]].concat();
        let server = Server::start("queue-server", &args);
        server.wait_for_log(|log| log.contains(state));
        server
    }

    /// Whichever server is active.
    fn endpoint(&self) -> Endpoint {
        Endpoint {
            others: vec![Address::new(HOSTS[1], self.port)],
            wait_for_server: Duration::from_secs(60),
            ..Endpoint::new(HOSTS[0], self.port)
        }
    }

    fn epoch(&self) -> i64 {
        let epoch = self.database.sql("SELECT epoch FROM leader");
        epoch.parse().unwrap()
    }

    #[track_caller]
    fn ask(&self, line: &str, input: &str) -> Ran {
        let mut args = vec![HOSTS[0].to_owned(), self.port.to_string()];
        args.extend(line.split_whitespace().map(str::to_owned));
        run("queue-client", &args, input.as_bytes())
    }
}

#[test]
fn the_queue_is_the_same_in_pglite() {
    let why = "one run goes through both";
    if has_door(Needs::Plain, why) && has_sqlite(why) && pglite::is_installed() {
        run_once_more((DATA_VARIABLE, PGLITE), &SUITES, SLOW);
    }
}

#[test]
fn without_locks_nothing_is_lost_or_leased_twice_when_killed_servers_are_replaced() {
    const MESSAGES: usize = 3000;
    const BATCH: usize = 50;
    const TAKEOVERS: usize = 3;
    const LEASE: Duration = Duration::from_secs(3600);
    let Some(world) = World::new() else {
        return;
    };
    let mut hosts = HOSTS;
    let mut active = world.start(hosts[0], ACTIVE);
    let first = world.epoch();
    assert_eq!(world.database.sql("SELECT has_lock FROM leader"), "f");
    let mut standby = world.start(hosts[1], STANDING_BY);
    let leased = Mutex::new(Vec::new());
    let connect = || Client::connect(&world.endpoint(), Transport::Tcp).unwrap();
    // They live until all is leased.
    let _servers = thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = connect();
            let bodies: Vec<_> = (0..MESSAGES).map(|n| n.to_string()).collect();
            for bodies in bodies.chunks(BATCH) {
                client.send_all(bodies, Properties::default()).unwrap();
            }
        });
        scope.spawn(|| {
            let mut client = connect();
            while lock(&leased).len() < MESSAGES {
                let Ok(Some(message)) = client.lease(LEASE, LEASE) else {
                    // This is asked until there is a server. Then the lease that was lost is asked again.
                    client.resume().unwrap();
                    continue;
                };
                let number: usize = str::from_utf8(&message.body).unwrap().parse().unwrap();
                lock(&leased).push(number);
                // The others are under a lease when a server is killed, and stay so.
                if number.is_multiple_of(2)
                    && let Claim::Leased(token) = message.claim
                {
                    client.ack(token).unwrap();
                }
            }
        });
        for takeover in 1..=TAKEOVERS {
            let enough = takeover * MESSAGES / (TAKEOVERS + 1);
            eventually("more is leased", || lock(&leased).len() >= enough);
            active.kill();
            standby.wait_for_log(|log| log.contains(ACTIVE));
            active = standby;
            standby = world.start(hosts[0], STANDING_BY);
            hosts.reverse();
        }
        (active, standby)
    });
    assert!(world.epoch() >= first + TAKEOVERS as i64);
    let leased = leased.into_inner().unwrap();
    assert_eq!(leased.len(), MESSAGES);
    assert_eq!(leased.iter().collect::<BTreeSet<_>>().len(), MESSAGES);
    let left = "SELECT count(*), count(token) FROM messages";
    assert_eq!(world.database.sql(left), format!("{0}|{0}", MESSAGES / 2));
}

#[test]
fn a_server_whose_epoch_is_another_commits_nothing_and_steps_down() {
    let Some(world) = World::new() else {
        return;
    };
    let server = world.start(HOSTS[0], ACTIVE);
    world.ask("send -", "one").expect(0);
    let first = world.epoch();
    let replace =
        "UPDATE leader SET epoch = epoch + 1, who = 'another', heartbeat = clock_timestamp()";
    world.database.sql(replace);
    let sent = world.ask("send -", "two");
    assert_ne!(sent.code, Some(0), "{}", sent.stderr);
    server.wait_for_log(|log| log.contains(STANDING_BY));
    assert_eq!(world.database.sql("SELECT count(*) FROM messages"), "1");
    assert_eq!(world.epoch(), first + 1);
    // The other one does not live.
    server.wait_for_log(|log| log.matches(ACTIVE).count() == 2);
    assert!(world.epoch() >= first + 2);
    assert_eq!(world.ask("receive", "").expect(0).out(), "one");
    world.ask("receive", "").expect(1);
}
