//! Two servers of which one is the other's replica: what is committed at the primary is on disk at both.

use std::fs;

use super::server::{Options, Postgres, USER};
use crate::harness::network::Network;
use crate::harness::{Running, eventually, run_command};

/// A primary and its replica, which change their parts when the primary is gone.
pub struct Pair {
    servers: [Postgres; 2],
    /// Which of them is the primary.
    primary: usize,
}

impl Pair {
    /// Starts both and waits until replication is synchronous. `None`, and a word of it, if PostgreSQL is
    /// not installed.
    #[track_caller]
    pub fn start([primary, replica]: [Options; 2]) -> Option<Self> {
        let servers = [Postgres::start(primary)?, Postgres::new(replica)?];
        let mut pair = Self {
            servers,
            primary: 0,
        };
        pair.rebuild();
        Some(pair)
    }

    /// The one that takes changes.
    pub fn primary(&mut self) -> &mut Postgres {
        &mut self.servers[self.primary]
    }

    /// The other one, which may be gone.
    pub fn replica(&mut self) -> &mut Postgres {
        &mut self.servers[1 - self.primary]
    }

    /// Which of the two hosts the primary is on: 0 or 1.
    pub fn primary_index(&self) -> usize {
        self.primary
    }

    /// The URL of a database that leads to whichever of the two is the primary.
    pub fn url(&self, database: &str) -> String {
        let addrs = self.servers.each_ref();
        let addrs = addrs.map(|server| format!("{}:{}", server.addr(), server.port()));
        let [one, other] = addrs;
        format!("postgresql://{USER}@{one},{other}/{database}?target_session_attrs=read-write")
    }

    /// Makes the replica the primary, which commits alone until [`Self::rebuild`].
    ///
    /// # Panics
    /// If the primary runs: there would be two.
    #[track_caller]
    pub fn promote(&mut self) {
        assert!(!self.primary().is_running(), "there would be two primaries");
        self.primary = 1 - self.primary;
        self.wait_for_replica(false);
        assert_eq!(self.primary().sql("SELECT pg_promote()"), "t");
    }

    /// Makes the one that is not the primary a new replica of it, whatever it has been, and waits until
    /// replication is synchronous.
    #[track_caller]
    pub fn rebuild(&mut self) {
        self.replica().kill();
        let data = self.replica().data();
        // It may never have been made.
        let _ = fs::remove_dir_all(&data);
        let (addr, port) = (self.primary().addr(), self.primary().port());
        let from = format!("host={addr} port={port} user={USER} application_name=replica");
        let mut copy = self.replica().command("pg_basebackup");
        copy.args(["--write-recovery-conf", "--checkpoint=fast", "--no-sync"]);
        copy.args(["-d", &from, "-D"]).arg(data);
        run_command(copy, b"").expect(0);
        self.replica().restart();
        self.wait_for_replica(true);
        let is_synchronous = "SELECT count(*) FROM pg_stat_replication \
             WHERE (application_name, sync_state, state) = ('replica', 'sync', 'streaming')";
        let primary = self.primary();
        eventually("replication is synchronous", || {
            primary.sql(is_synchronous) == "1"
        });
    }

    /// Whether a commit at the primary waits for the replica.
    fn wait_for_replica(&mut self, waits: bool) {
        let names = if waits { "*" } else { "" };
        let primary = self.primary();
        primary.sql(&format!(
            "ALTER SYSTEM SET synchronous_standby_names = '{names}'"
        ));
        primary.sql("SELECT pg_reload_conf()");
    }
}

#[test]
fn a_replica_has_all_that_was_committed_when_the_primary_is_killed() {
    let Some(mut pair) = Pair::start(Default::default()) else {
        return;
    };
    pair.primary().sql("CREATE TABLE t (n int)");
    let count = "SELECT count(*) FROM t";
    for round in 1..=3 {
        pair.primary()
            .sql(&format!("INSERT INTO t VALUES ({round})"));
        pair.primary().kill();
        pair.promote();
        let url = pair.url("postgres");
        let psql = pair.primary().psql(&url, count);
        let counted = run_command(psql, b"").expect(0).out();
        assert_eq!(counted.trim_end(), round.to_string());
        pair.rebuild();
    }
    assert_eq!(pair.primary_index(), 1);
    // Without a replica nothing is committed.
    pair.replica().kill();
    let insert = begin_insert(&mut pair);
    let cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    assert_eq!(pair.primary().sql(cancel), "t");
    insert.wait();
    let says = insert.stderr.text();
    assert!(says.contains("canceling wait for synchronous"), "{says}");
}

#[test]
fn a_pair_on_two_hosts_replicates_again_when_their_link_is_healed() {
    let Some(network) = Network::new(2) else {
        return;
    };
    let hosts = [0, 1].map(|index| network.host(index));
    let Some(mut pair) = Pair::start(hosts.map(Options::at)) else {
        return;
    };
    pair.primary().sql("CREATE TABLE t (n int)");
    network.cut(hosts[0], hosts[1]);
    let insert = begin_insert(&mut pair);
    assert_eq!(pair.replica().sql("SELECT count(*) FROM t"), "0");
    network.heal(hosts[0], hosts[1]);
    assert_eq!(insert.wait(), Some(0));
    let replica = pair.replica();
    eventually("the replica shows it", || {
        replica.sql("SELECT count(*) FROM t") == "1"
    });
}

/// Begins a commit that waits for a replica that does not answer.
fn begin_insert(pair: &mut Pair) -> Running {
    let url = pair.url("postgres");
    let primary = pair.primary();
    let insert = Running::start(primary.psql(&url, "INSERT INTO t VALUES (4)"));
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    eventually("it waits for the replica", || primary.sql(waits) == "1");
    insert
}
