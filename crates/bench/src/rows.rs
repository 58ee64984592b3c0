//! The rows of the table, as data: what is measured, against what, and what bar it must reach.

use crate::contestant::{Clients, Contestant, Lab, Scale};
use crate::conversation::Dialect::{Beanstalkd, Quartet, Redis, Session};
use crate::error::Error;
use crate::floors::sync_each;
use crate::followers::{FOLLOWERS, appends_beside_followers, memory as followers_memory};
use crate::histories::{appends, find, grep, nc, read_history};
use crate::large::{archive, dd, download, upload};
use crate::long_history::{Measure, long_history, pruned};
use crate::postgres::{self, Taking};
use crate::queues::{
    CROWD, Crowd, crowd, durable_start, message_memory, queue, queue_beside_crowd,
};
use crate::web::{MEDIUM_BYTES, Repeated, SMALL_BYTES, Web, code_messages, codes, file, responder};

/// Starts one side of a row.
pub type Start = fn(&Lab, Clients) -> Result<Box<dyn Contestant>, Error>;

/// One measurement: one or two sides, and one line of the table.
#[derive(Debug)]
pub struct Row {
    /// What is done.
    pub what: String,
    /// Against what, or what of it is measured.
    pub against: &'static str,
    /// Connections, and requests in flight on each.
    pub clients: Clients,
    /// Our side.
    pub ours: Start,
    /// The other side; `None` where the bar is absolute.
    pub theirs: Option<Start>,
    /// What must be reached.
    pub bar: Bar,
}

impl Row {
    /// What is done, against what.
    pub fn name(&self) -> String {
        format!("{}: {}", self.what, self.against)
    }

    /// Its name, with the connections and the requests in flight on each.
    pub fn title(&self) -> String {
        format!("{} ({} × {})", self.name(), self.clients.0, self.clients.1)
    }
}

/// What must be reached.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bar {
    /// The median over the rounds of our rate divided by theirs.
    Ratio(f64),
    /// No round's value is more than this.
    AtMost(f64, &'static str),
}

/// All rows, in the order of the table.
pub fn all(scale: &Scale) -> Vec<Row> {
    let size = match scale.file_megabytes {
        1000 => "1 GB".to_owned(),
        megabytes => format!("{megabytes} MB"),
    };
    let (down, up) = (format!("file {size} down"), format!("file {size} up"));
    let down_tls = format!("{down} over TLS");
    let zipped = format!("{down} as a zip");
    let zipped = zipped.as_str();
    let (down, up, down_tls) = (down.as_str(), up.as_str(), down_tls.as_str());
    let (memory, durable) = ("queue in memory, 100 B", "queue durable, 100 B");
    let memory_session = "queue in memory, 100 B, in sessions";
    let durable_session = "queue durable, 100 B, in sessions";
    let on_postgres = "queue on PostgreSQL, 100 B";
    let on_postgres_acked = "queue on PostgreSQL, 100 B, acknowledged";
    let deleted = "DELETE ... SKIP LOCKED";
    let locked = "SELECT ... SKIP LOCKED, DELETE";
    let without = "without sessions";
    let always = "Redis appendfsync always";
    let (known, stored) = ("code-server, a known UUID", "code-server, messages on disk");
    let long = format!("history of {},000,000 lines", scale.history_millions);
    let pruning = format!("{long}, an eighth pruned");
    let (long, pruning) = (long.as_str(), pruning.as_str());
    let followed = "history, appends beside 1,000 followers";
    let following = "1,000 followers, 1,000 lines a second";
    let busy = "64 busy beside 10,000 idle";
    let ours: Start = |lab, clients| queue(lab, clients, Quartet, false);
    let redis: Start = |lab, clients| queue(lab, clients, Redis, false);
    let beanstalkd: Start = |lab, clients| queue(lab, clients, Beanstalkd, false);
    let session: Start = |lab, clients| queue(lab, clients, Session, false);
    let session_synced: Start = |lab, clients| queue(lab, clients, Session, true);
    let ours_synced: Start = |lab, clients| queue(lab, clients, Quartet, true);
    let redis_synced: Start = |lab, clients| queue(lab, clients, Redis, true);
    let beanstalkd_synced: Start = |lab, clients| queue(lab, clients, Beanstalkd, true);
    let in_postgres: Start = |lab, clients| postgres::queue(lab, clients, Taking::Deleted);
    let acked: Start = |lab, clients| postgres::queue(lab, clients, Taking::Locked);
    let jobs_deleted: Start = |lab, clients| postgres::jobs(lab, clients, Taking::Deleted);
    let jobs_locked: Start = |lab, clients| postgres::jobs(lab, clients, Taking::Locked);
    let known_code: Start = |lab, clients| responder(lab, clients, Repeated::Code);
    let known_file: Start = |lab, clients| responder(lab, clients, Repeated::File);
    let small: Start = |lab, clients| file(lab, clients, Web::Ours, SMALL_BYTES);
    let nginx_small: Start = |lab, clients| file(lab, clients, Web::Nginx, SMALL_BYTES);
    let medium: Start = |lab, clients| file(lab, clients, Web::Ours, MEDIUM_BYTES);
    let nginx_medium: Start = |lab, clients| file(lab, clients, Web::Nginx, MEDIUM_BYTES);
    let our_download: Start = |lab, _| download(lab, Web::Ours);
    let nginx_download: Start = |lab, _| download(lab, Web::Nginx);
    let zip: Start = |lab, _| archive(lab);
    let small_tls: Start = |lab, clients| file(lab, clients, Web::OursTls, SMALL_BYTES);
    let nginx_tls: Start = |lab, clients| file(lab, clients, Web::NginxTls, SMALL_BYTES);
    let our_download_tls: Start = |lab, _| download(lab, Web::OursTls);
    let nginx_download_tls: Start = |lab, _| download(lab, Web::NginxTls);
    let idle: Start = |lab, _| crowd(lab, Crowd::Idle);
    let burst: Start = |lab, _| crowd(lab, Crowd::Burst);
    let many = "start with 1,000,000 durable messages";
    let many_on_postgres = "start with 1,000,000 messages on PostgreSQL";
    let start: Start = |lab, _| durable_start(lab, "DIR/queue.db");
    let start_on_postgres: Start = postgres::start_with_many;
    let long_start: Start = |lab, _| long_history(lab, Measure::Start);
    let long_last: Start = |lab, _| long_history(lab, Measure::Last);
    let long_memory: Start = |lab, _| long_history(lab, Measure::Memory);
    let long_pruned: Start = |lab, _| pruned(lab);
    #[rustfmt::skip]
    let rows = vec![
        two(memory, "Redis", (64, 1), ours, redis, 1.0),
        two(memory, "Redis", (64, 16), ours, redis, 1.7),
        two(memory, "beanstalkd", (64, 1), ours, beanstalkd, 1.8),
        two(durable, "one fdatasync a record", (1, 1), ours_synced, sync_each, 0.7),
        two(durable, always, (8, 1), ours_synced, redis_synced, 1.0),
        two(durable, always, (64, 1), ours_synced, redis_synced, 1.1),
        two(durable, always, (64, 16), ours_synced, redis_synced, 1.0),
        two(durable, "beanstalkd -b -f0", (64, 1), ours_synced, beanstalkd_synced, 8.0),
        two(on_postgres, deleted, (64, 1), in_postgres, jobs_deleted, 5.0),
        two(on_postgres, deleted, (64, 16), in_postgres, jobs_deleted, 5.0),
        two(on_postgres_acked, locked, (64, 1), acked, jobs_locked, 5.0),
        two(on_postgres_acked, locked, (64, 16), acked, jobs_locked, 5.0),
        two(on_postgres, "on SQLite", (64, 1), in_postgres, ours_synced, 0.1),
        two(on_postgres, "on SQLite", (64, 16), in_postgres, ours_synced, 0.1),
        two(memory_session, without, (64, 1), session, ours, 0.9),
        two(memory_session, without, (64, 16), session, ours, 0.9),
        two(durable_session, without, (1, 1), session_synced, ours_synced, 0.9),
        two(durable_session, without, (8, 1), session_synced, ours_synced, 0.9),
        two(durable_session, without, (64, 1), session_synced, ours_synced, 0.9),
        two(durable_session, without, (64, 16), session_synced, ours_synced, 0.9),
        two(known, "bare responder", (64, 1), codes, known_code, 0.85),
        two(stored, "one fdatasync a message", (64, 1), code_messages, sync_each, 10.0),
        two("history, appends", "one fdatasync a line", (64, 1), appends, sync_each, 10.0),
        two("history, reading 100 MB", "nc of the same file", (1, 1), read_history, nc, 0.8),
        two("history, a text in 100 MB", "grep -F", (1, 1), find, grep, 0.67),
        two(followed, "without them", (64, 1), appends_beside_followers, appends, 0.8),
        one(following, "memory each", FOLLOWERS, followers_memory, (64.0, "KiB")),
        one(long, "first reply", 1, long_start, (3.0, "s")),
        one(long, "the last 10", 1, long_last, (50.0, "ms")),
        one(long, "memory, all read", 1, long_memory, (16.0, "MiB")),
        one(pruning, "longest wait of an append", 1, long_pruned, (100.0, "ms")),
        two("file 600 B", "nginx", (64, 1), small, nginx_small, 1.0),
        two("file 600 B", "bare responder", (64, 1), small, known_file, 0.9),
        two("file 44 KB", "nginx", (64, 1), medium, nginx_medium, 0.9),
        two(down, "nginx", (1, 1), our_download, nginx_download, 0.95),
        two(zipped, "the same file", (1, 1), zip, our_download, 0.7),
        two("file 600 B over TLS", "nginx", (64, 1), small_tls, nginx_tls, 0.9),
        two(down_tls, "nginx", (1, 1), our_download_tls, nginx_download_tls, 0.9),
        two(up, "dd conv=fsync", (1, 1), upload, dd, 0.8),
        two(busy, "without the idle", (64, 1), queue_beside_crowd, ours, 0.7),
        one("10,000 idle connections", "resident memory each", CROWD, idle, (20.0, "KiB")),
        one("10,000 connects in a burst", "all answered", CROWD, burst, (3.0, "s")),
        one("1,000,000 messages of 100 B", "memory beside the body", 1, message_memory, (64.0, "B")),
        one(many, "first reply", 1, start, (3.0, "s")),
        one(many_on_postgres, "first reply", 1, start_on_postgres, (10.0, "s")),
    ];
    rows
}

fn two(
    what: &str,
    against: &'static str,
    clients: Clients,
    ours: Start,
    theirs: Start,
    ratio: f64,
) -> Row {
    Row {
        what: what.to_owned(),
        against,
        clients,
        ours,
        theirs: Some(theirs),
        bar: Bar::Ratio(ratio),
    }
}

fn one(
    what: &str,
    against: &'static str,
    connections: usize,
    ours: Start,
    (most, unit): (f64, &'static str),
) -> Row {
    Row {
        what: what.to_owned(),
        against,
        clients: (connections, 1),
        ours,
        theirs: None,
        bar: Bar::AtMost(most, unit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_rows_are_the_same() {
        let mut keys: Vec<_> = all(&Scale::FULL).iter().map(Row::title).collect();
        let rows = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), rows);
    }
}
