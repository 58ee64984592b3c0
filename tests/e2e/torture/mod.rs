//! What happens to servers in the field, at random moments under load and again and again, against
//! a checker that knows every record that was acknowledged: none may be lost, none invented, none
//! doubled.
//!
//! `scripts/torture.sh` runs the same for as long as it is told to.

mod clock;
mod crash;
mod everything;
mod failover;
mod leases;
mod moved;
mod onlookers;
mod operators;
mod over_http;
mod refusable;
mod restarts;
mod services;
mod uploads;

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use services::{Codes, History, Queue, Service};

use crate::harness::{Noise, Server, crowd, eventually};

/// How long to go on, in seconds, instead of a number of rounds.
const SECS_VARIABLE: &str = "QUARTET_TORTURE_SECS";

/// Something happens to a server after at most this many acknowledgements.
const ACKS_MAX: usize = 300;

/// What was acknowledged, over all lives of a server.
#[derive(Default)]
struct Ledger {
    acks: AtomicUsize,
    /// Every record in the order in which its sender sent it, and whether it was acknowledged.
    sent: Mutex<HashMap<String, bool>>,
}

impl Ledger {
    /// Notes that a record is about to be sent; until it is acknowledged, it may or may not be
    /// there.
    fn sending(&self, record: &str) {
        self.sent.lock().unwrap().insert(record.to_owned(), false);
    }

    fn acknowledged(&self, record: &str) {
        self.sent.lock().unwrap().insert(record.to_owned(), true);
        self.acks.fetch_add(1, Ordering::SeqCst);
    }

    fn acks(&self) -> usize {
        self.acks.load(Ordering::SeqCst)
    }

    /// Waits until there are some more acknowledgements than now.
    #[track_caller]
    fn wait_for_some(&self, noise: &mut Noise) {
        let target = self.acks() + 1 + noise.below(ACKS_MAX);
        eventually("there are enough acknowledgements", || {
            self.acks() >= target
        });
    }

    /// Checks what is there in the end: every acknowledged record once, nothing that was not sent,
    /// and each sender's records in the order in which they were sent. A record is
    /// `SENDER.NUMBER`.
    #[track_caller]
    fn check_all_there(&self, what: &str, there: &[String], gone: &HashSet<String>) {
        let sent = self.sent.lock().unwrap();
        let mut seen = HashSet::new();
        let mut newest: HashMap<&str, u64> = HashMap::new();
        let (mut invented, mut doubled, mut late) = (0, 0, 0);
        for record in there {
            invented += usize::from(!sent.contains_key(record));
            doubled += usize::from(!seen.insert(record) || gone.contains(record));
            let (sender, number) = record.rsplit_once('.').unwrap();
            let number = number.parse().unwrap();
            let before = newest.insert(sender, number);
            late += usize::from(before.is_some_and(|before| before >= number));
        }
        let is_lost = |(record, acked): &(&String, &bool)| {
            **acked && !seen.contains(record) && !gone.contains(*record)
        };
        let lost = sent.iter().filter(is_lost).count();
        println!(
            "torture: {what}: {lost} lost, {invented} invented, {doubled} doubled, {late} late"
        );
        assert_eq!((lost, invented, doubled, late), (0, 0, 0, 0));
    }
}

/// Calls `round` with a number `rounds` times, or for as long as the variable says; returns how
/// often.
fn rounds(count: usize, mut round: impl FnMut(usize)) -> usize {
    let secs = std::env::var(SECS_VARIABLE).ok();
    let secs = secs.and_then(|secs| secs.parse().ok());
    let until = secs.map(|secs| Instant::now() + Duration::from_secs(secs));
    let mut done = 0;
    while until.map_or(done < count, |until| Instant::now() < until) {
        round(done);
        done += 1;
    }
    done
}

/// Reproducible only in that it is said what it was.
fn noise() -> Noise {
    Noise::new(u64::from(std::process::id()))
}

/// Kills a server again and again while it is under load and `beside` does something to it, which
/// is called once in each life; then checks what is there.
#[track_caller]
fn crash_and_crash<S: Service>(
    what: &str,
    crashes: usize,
    service: &S,
    beside: impl Fn(&S, &Server, &Ledger) + Sync,
) {
    let ledger = Ledger::default();
    let mut noise = noise();
    let crashes = rounds(crashes, |life| {
        let server = service.start();
        // Every other time.
        let _crowd = (life % 2 == 1).then(|| crowd(server.addrs[server.addrs.len() - 1]));
        thread::scope(|scope| {
            scope.spawn(|| service.load(&server, life, &ledger));
            scope.spawn(|| beside(service, &server, &ledger));
            ledger.wait_for_some(&mut noise);
            server.signal("KILL");
        });
    });
    println!(
        "torture: {what}: {crashes} crashes, {} acknowledged",
        ledger.acks()
    );
    service.check(what, &ledger);
}
