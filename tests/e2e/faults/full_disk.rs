//! Disks that are full: what has no room is refused, and nothing else is lost.

use super::*;

/// Lets no file of a process grow beyond this many bytes.
#[track_caller]
fn limit_files(server: &Server, bytes: Option<u64>) {
    let pid = Pid::from_raw(server.pid() as i32);
    let limit = Rlimit {
        current: bytes,
        maximum: getrlimit(Resource::Fsize).maximum,
    };
    prlimit(pid, Resource::Fsize, limit).unwrap();
}

/// Fills the disk of a running server, checks that it refuses and goes on, makes room, and checks
/// that it takes records again and has lost none.
#[track_caller]
fn check_full(kind: Kind, dir: &Path, fill: impl Fn(&Server), make_room: impl Fn(&Server)) {
    const PUTS_MAX: usize = 5000;
    let server = Server::spawn(kind.command(dir));
    let mut ledger = Ledger::new(kind);
    let mut client = Client::connect(kind, &server.addrs);
    assert_eq!(ledger.put(&mut client), Done);
    fill(&server);
    let refused = (0..PUTS_MAX).find_map(|_| match ledger.put(&mut client) {
        Done => None,
        other => Some(other),
    });
    assert_eq!(refused, Some(Refused), "{kind:?}");
    for _ in 0..20 {
        let outcome = ledger.put(&mut client);
        assert!(matches!(outcome, Done | Refused), "{kind:?}: {outcome:?}");
    }
    let outcome = ledger.take(&mut client);
    assert!(matches!(outcome, Done | Refused), "{kind:?}: {outcome:?}");
    server.wait_for_log(|log| log.contains("[ERROR]") && log.contains(" refused"));
    make_room(&server);
    // Few enough that the log of a database fits into the database too.
    for _ in 0..5 {
        assert_eq!(ledger.put(&mut client), Done, "{kind:?}: there is room");
    }
    assert_eq!(ledger.take(&mut client), Done, "{kind:?}: there is room");
    server.kill();
    ledger.check(dir);
}

#[test]
fn a_file_that_may_not_grow_is_refused_until_it_may() {
    for kind in KINDS {
        let dir = tempfile::tempdir().unwrap();
        let bytes = match kind {
            Code | History => 10_000,
            Queue => 100_000,
        };
        let fill = |server: &Server| limit_files(server, Some(bytes));
        check_full(kind, dir.path(), fill, |server| limit_files(server, None));
    }
}

/// A small file system of its own. Dropping it unmounts it.
pub(super) struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None` if we may not mount one.
    pub(super) fn mount(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "quartet-test"]);
        let mounted = mount.arg(dir.path()).stderr(Stdio::null()).status();
        mounted
            .is_ok_and(|status| status.success())
            .then(|| Self(dir))
    }

    /// Takes all the room that is left.
    pub(super) fn fill(&self) {
        let mut filler = File::create(self.filler()).unwrap();
        while filler.write_all(&[0; 512]).is_ok() {}
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    fn filler(&self) -> PathBuf {
        self.0.path().join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_is_refused_until_there_is_room() {
    for kind in KINDS {
        let Some(disk) = SmallDisk::mount("256k") else {
            crate::harness::skipped("no file system may be mounted here");
            return;
        };
        let dir = disk.0.path().join("data");
        fs::create_dir(&dir).unwrap();
        let make_room = |_: &Server| fs::remove_file(disk.filler()).unwrap();
        check_full(kind, &dir, |_| disk.fill(), make_room);
    }
}

#[test]
fn a_history_that_may_not_grow_can_be_cleared() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::spawn(History.command(dir.path()));
    let mut client = HistoryClient::connect(&server.endpoint()).unwrap();
    limit_files(&server, Some(10_000));
    let user = "u".repeat(64);
    while client.hello(&user).is_ok() {}
    // Not even the shortest request has room now.
    while client.hello("u").is_ok() {}
    assert_eq!(client.clear("u").unwrap(), "History deleted.");
    client.hello(&user).unwrap();
}

#[test]
fn a_queue_that_may_not_grow_can_be_emptied() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::spawn(Queue.command(dir.path()));
    let mut ledger = Ledger::new(Queue);
    let mut client = Client::connect(Queue, &server.addrs);
    limit_files(&server, Some(100_000));
    while ledger.put(&mut client) == Done {}
    for _ in 0..10 {
        assert_eq!(ledger.take(&mut client), Done);
    }
    // The log may be full of that; it is emptied as it refuses.
    let again = [ledger.put(&mut client), ledger.put(&mut client)];
    assert!(again.contains(&Done), "{again:?}");
    server.kill();
    ledger.check(dir.path());
}

#[test]
fn a_database_longer_than_its_log_fills_the_disk_and_goes_on() {
    let Some(disk) = SmallDisk::mount("20m") else {
        crate::harness::skipped("no file system may be mounted here");
        return;
    };
    let start = || Server::spawn(Queue.command(disk.0.path()));
    let connect = |server: &Server| QueueClient::connect(&server.endpoint(), Transport::Tcp);
    let server = start();
    let mut client = connect(&server).unwrap();
    fs::write(disk.filler(), vec![0; 5 << 20]).unwrap();
    let mut stored = 0;
    let body = |n: usize| format!("{n:.<5000}").into_bytes();
    while of_queue(client.send(&body(stored)))
        .map_err(|refused| assert_eq!(refused, Refused))
        .is_ok()
    {
        stored += 1;
    }
    assert!(stored > 1000, "{stored}");
    // It can be started again, and goes on when there is room.
    drop(client);
    server.kill();
    let server = start();
    let mut client = connect(&server).unwrap();
    assert_eq!(client.peek(1).unwrap()[0].body, body(0));
    fs::remove_file(disk.filler()).unwrap();
    for n in 0..stored {
        let message = client.receive().unwrap().unwrap();
        assert_eq!(message.body, body(n));
        client.ack(&message).unwrap();
    }
    assert_eq!(client.receive().unwrap(), None);
    client.send(b"there is room again").unwrap();
}

/// A lease makes the row of its message longer, which may need a page that the disk does not have.
#[test]
fn leases_on_a_full_disk_leave_room_to_empty_the_queue() {
    let Some(disk) = SmallDisk::mount("8m") else {
        crate::harness::skipped("no file system may be mounted here");
        return;
    };
    let server = Server::spawn(Queue.command(disk.path()));
    let mut client = QueueClient::connect(&server.endpoint(), Transport::Tcp).unwrap();
    const LEASE: std::time::Duration = std::time::Duration::from_secs(600);
    let long = vec![b'x'; 50_000];
    let mut stored = 0;
    while client.send(&long).is_ok() {
        stored += 1;
    }
    assert!(stored > 50, "{stored}");
    for _ in 0..stored {
        let lease = client.lease(LEASE, std::time::Duration::ZERO);
        let message = lease.unwrap().unwrap();
        assert_eq!(message.body, long);
        client.ack(&message).unwrap();
    }
    client.send(&long).unwrap();
}

#[test]
fn a_start_without_room_ends_or_refuses() {
    for kind in KINDS {
        let dir = tempfile::tempdir().unwrap();
        check_start_without_room(kind, dir.path(), Ledger::new(kind));
        let (dir, ledger) = some_records(kind);
        check_start_without_room(kind, dir.path(), ledger);
    }
}

/// A start without room ends with a sentence, or serves what is there and refuses the rest.
#[track_caller]
fn check_start_without_room(kind: Kind, dir: &Path, mut ledger: Ledger) {
    if kind == Queue || !ledger.records.is_empty() {
        // It has a database to make, or to bring up to date; or to write again what a server that
        // was killed may not have synced.
        let ran = run_command(kind.command_after("ulimit -f 0", dir), b"").expect(2);
        let (stderr, name) = (ran.stderr, kind.name());
        assert!(stderr.contains(&format!("{name}: cannot ")), "{stderr}");
    } else {
        let server = Server::spawn(kind.command_after("ulimit -f 0", dir));
        let mut client = Client::connect(kind, &server.addrs);
        assert_eq!(ledger.put(&mut client), Refused, "{kind:?}");
        server.kill();
    }
    ledger.check(dir);
}
