//! A queue beyond one machine: two queue servers and two PostgreSQL on hosts of their own, and six clients on
//! others, while servers are killed, hang and are cut off from each other, the primary is killed and its
//! replica promoted, and clocks step. What clients were told is checked by [`history`], and what was committed by
//! [`commits`].

mod clients;
mod commits;
mod history;

use std::fs;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use cli::Endpoint;
use tempfile::TempDir;

use super::clock::{STEPS, has_faketime, with_clock};
use super::{SECS_VARIABLE, noise, rounds};
use crate::harness::network::{Host, Network};
use crate::harness::postgres::Options;
use crate::harness::postgres::pair::Pair;
use crate::harness::{Needs, Noise, Running, eventually, has_door, program};
use clients::Clients;

/// How often something happens, unless there is a time to fill.
const FAULTS: usize = 8;

/// How many hosts ask.
const CLIENTS: usize = 6;

/// Where the queue servers listen.
const PORT: u16 = 55556;

/// The database.
const DATABASE: &str = "queue";

/// Has advisory locks exclude nobody, as in other engines that speak the protocol, and no session end another.
const NO_LOCKS: &str = "
CREATE SCHEMA stubs;
CREATE FUNCTION stubs.pg_try_advisory_lock(int, int) RETURNS bool LANGUAGE sql AS 'SELECT TRUE';
CREATE FUNCTION stubs.pg_advisory_lock(int, int) RETURNS bool LANGUAGE sql AS 'SELECT TRUE';
CREATE FUNCTION stubs.pg_terminate_backend(int) RETURNS bool LANGUAGE sql AS 'SELECT FALSE';
ALTER ROLE quartet SET search_path = stubs, pg_catalog, public;";

/// How long the active server may be silent.
const TAKEOVER_AFTER: Duration = Duration::from_secs(3);

/// How many answers show that all is well again.
const ANSWERS: usize = 100;

/// One of the two queue servers.
struct QueueServer {
    host: Host,
    /// The file with what its clock shows.
    clock: PathBuf,
    running: Running,
}

/// All hosts, and what runs on them.
struct World<'n> {
    network: &'n Network,
    pair: Pair,
    servers: [QueueServer; 2],
    url: String,
    has_faketime: bool,
    _folder: TempDir,
}

/// What happens to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    KillServer,
    StopServer,
    HangServer,
    CutLink,
    KillPrimary,
    StepClock,
}

const KINDS: [Fault; 6] = [
    Fault::KillServer,
    Fault::StopServer,
    Fault::HangServer,
    Fault::CutLink,
    Fault::KillPrimary,
    Fault::StepClock,
];

impl QueueServer {
    fn start(host: &Host, url: &str, clock: Option<&PathBuf>) -> Running {
        let mut command = host.command(program("queue-server"));
        let (port, takeover_after) = (PORT.to_string(), TAKEOVER_AFTER.as_secs().to_string());
        command.args([&port, "tcp", "--bind", &host.addr().to_string()]);
        command.args(["--data", url, "--takeover-after", &takeover_after]);
        command.args(["--max-attempts", "1000000"]);
        if let Some(clock) = clock {
            with_clock(&mut command, clock);
        }
        Running::start(command)
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::new(self.host.addr().to_string(), PORT)
    }

    /// Whether it was the active one when it logged last.
    fn is_active(&self) -> bool {
        let log = self.running.stderr.text();
        let [active, standing_by] = ["] Active;", "] Standing by;"].map(|role| log.rfind(role));
        active > standing_by
    }
}

impl<'n> World<'n> {
    fn start(network: &'n Network, has_locks: bool) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let clocks = [0, 1].map(|index| folder.path().join(format!("clock{index}")));
        let has_faketime = clocks.iter().all(|clock| has_faketime(clock));
        let hosts = [2, 3].map(|index| network.host(index));
        let mut pair = Pair::start(hosts.map(Options::at))?;
        pair.primary().sql(&format!("CREATE DATABASE {DATABASE}"));
        if !has_locks {
            pair.primary().sql_in(DATABASE, NO_LOCKS);
        }
        let url = pair.url(DATABASE);
        let servers = [0, 1].map(|index| {
            let host = network.host(index).clone();
            let clock = clocks[index].clone();
            fs::write(&clock, "+0").unwrap();
            let running = QueueServer::start(&host, &url, has_faketime.then_some(&clock));
            let server = QueueServer {
                host,
                clock,
                running,
            };
            let role = ["] Active;", "] Standing by;"][index];
            server.running.wait_for_stderr(|log| log.contains(role));
            server
        });
        pair.primary().sql_in(DATABASE, commits::AUDIT);
        Some(Self {
            network,
            pair,
            servers,
            url,
            has_faketime,
            _folder: folder,
        })
    }

    /// Has something happen, and ends it.
    fn suffer(&mut self, fault: Fault, noise: &mut Noise) {
        let active = usize::from(self.servers[1].is_active());
        let secs = |noise: &mut Noise, max: usize| Duration::from_secs(1 + noise.below(max) as u64);
        // An hour of it has longer ones.
        let cut_secs = [6, 30][usize::from(std::env::var_os(SECS_VARIABLE).is_some())];
        match fault {
            Fault::KillServer => {
                self.servers[active].running.kill();
                self.restart(active);
            }
            Fault::StopServer => {
                let running = &self.servers[active].running;
                running.signal("TERM");
                assert_eq!(running.wait(), Some(0), "{}", running.stderr.text());
                self.restart(active);
            }
            Fault::HangServer => {
                let running = &self.servers[active].running;
                running.signal("STOP");
                last(secs(noise, 2 * TAKEOVER_AFTER.as_secs() as usize));
                running.signal("CONT");
            }
            Fault::CutLink => {
                let count = 4 + CLIENTS;
                let a = noise.below(count);
                let b = (a + 1 + noise.below(count - 1)) % count;
                let [a, b] = [a, b].map(|index| self.network.host(index));
                self.network.cut(a, b);
                last(secs(noise, cut_secs));
                self.network.heal(a, b);
            }
            Fault::KillPrimary => {
                self.pair.primary().kill();
                self.pair.promote();
                self.pair.rebuild();
            }
            Fault::StepClock => {
                for server in &self.servers {
                    fs::write(&server.clock, STEPS[noise.below(STEPS.len())]).unwrap();
                }
            }
        }
    }

    fn restart(&mut self, index: usize) {
        let server = &mut self.servers[index];
        let clock = self.has_faketime.then_some(&server.clock);
        server.running = QueueServer::start(&server.host, &self.url, clock);
    }
}

/// A fault that nothing but the time ends.
fn last(duration: Duration) {
    let (_kept, never) = mpsc::channel::<()>();
    // Nothing is sent.
    let _ = never.recv_timeout(duration);
}

#[track_caller]
fn check_failover(what: &str, has_locks: bool) {
    if !has_door(Needs::Plain, "its servers have hosts of their own") {
        return;
    }
    let Some(network) = Network::new(4 + CLIENTS) else {
        return;
    };
    let Some(mut world) = World::start(&network, has_locks) else {
        return;
    };
    let clients = Clients::new(world.servers.each_ref().map(QueueServer::endpoint));
    let mut noise = noise();
    let faults = thread::scope(|scope| {
        for index in 0..CLIENTS {
            let (clients, host) = (&clients, network.host(4 + index));
            scope.spawn(move || clients.run(host, index));
        }
        let happen = |_| {
            let fault = KINDS[noise.below(KINDS.len())];
            world.suffer(fault, &mut noise);
            let target = clients.answers() + ANSWERS;
            eventually(
                &format!("clients are answered again after {fault:?}"),
                || clients.answers() >= target,
            );
        };
        // All clients end if that fails, too.
        let faults =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| rounds(FAULTS, happen)));
        clients.end();
        faults.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    thread::scope(|scope| {
        scope.spawn(|| clients.empty(network.host(4)));
    });
    let answers = clients.answers();
    let mut violations = history::check(&clients.into_events());
    let written = world.pair.primary().sql_in(DATABASE, commits::WRITTEN);
    violations.extend(commits::check(&written));
    let epochs = written.lines().count();
    println!(
        "torture: {what}: {faults} faults, {answers} acknowledged, {epochs} epochs, {} violations",
        violations.len()
    );
    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
}

#[test]
fn nothing_is_lost_or_doubled_whatever_happens_to_two_servers_and_two_databases() {
    check_failover("failover", true);
}

#[test]
fn advisory_locks_are_not_what_keeps_two_servers_apart() {
    check_failover("failover without locks", false);
}
