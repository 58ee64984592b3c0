//! Two servers on the same files, and processes that stop while they hold a message.

use super::*;

#[track_caller]
fn check_second(kind: Kind, first: &Path, second: &Path) {
    let server = Server::spawn(kind.command(first));
    let process = Process::start(kind.command(second));
    assert!(!process.serves(), "{kind:?}: a second server serves");
    process.check_gave_up(kind);
    let log = process.log();
    assert!(log.contains("another server is using these files"), "{log}");
    assert_eq!(log.lines().count(), 1, "{log}");
    let mut ledger = Ledger::new(kind);
    let mut client = Client::connect(kind, &server.addrs);
    assert_eq!(ledger.put(&mut client), Done);
    server.kill();
    // A lock does not outlive its server.
    ledger.check(second);
}

#[test]
fn a_second_server_on_the_same_files_is_refused() {
    for kind in KINDS {
        let dir = tempfile::tempdir().unwrap();
        check_second(kind, dir.path(), dir.path());
        let links = tempfile::tempdir().unwrap();
        let link = links.path().join("link");
        std::os::unix::fs::symlink(dir.path(), &link).unwrap();
        let dir = tempfile::tempdir().unwrap();
        fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink(dir.path(), &link).unwrap();
        check_second(kind, dir.path(), &link);
    }
}

#[test]
fn a_second_server_on_a_link_to_the_database_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let links = tempfile::tempdir().unwrap();
    let database = dir.path().join("queue.db");
    let link = links.path().join("queue.db");
    std::os::unix::fs::symlink(&database, link).unwrap();
    // First by way of the link, when there is no database yet.
    check_second(Queue, links.path(), dir.path());
    let server = Server::spawn(Queue.command(dir.path()));
    drain(server.addr());
    server.kill();
    check_second(Queue, dir.path(), links.path());
}

/// A client that holds a message: it has begun to print it into a pipe that takes only a part.
struct Holder(Running, ChildStdout);

impl Holder {
    #[track_caller]
    fn start(server: &Server) -> Self {
        let mut command = Command::new(program("queue-client"));
        command
            .args(server.host_and_ports())
            .args(["tcp", "receive"]);
        let (client, mut stdout) = Running::start_unread(command);
        stdout.read_exact(&mut [0; 1]).unwrap();
        Self(client, stdout)
    }
}

/// A holder is stopped, and then something is done to it or the server; returns the server, and
/// the bodies that are there then.
#[track_caller]
fn check_stopped(args: &[&str], then: impl Fn(Holder, Server) -> Server, want: &[&str]) {
    let mut line = vec!["0", "--max-message", "200000"];
    line.extend(args);
    let server = Server::start("queue-server", &line);
    let mut client = QueueClient::connect(&server.endpoint(), Transport::Tcp).unwrap();
    let held = format!("held{}", ".".repeat(BODY_BYTES_MAX - 4));
    client.send(held.as_bytes()).unwrap();
    client.send(b"next").unwrap();
    let holder = Holder::start(&server);
    holder.0.signal("STOP");
    // It is held for as long as the connection is open.
    let next = client.receive().unwrap().unwrap();
    assert_eq!(next.body, b"next");
    assert_eq!(client.receive().unwrap(), None);
    drop(client);
    let server = then(holder, server);
    eventually("the messages are back", || {
        let mut client = QueueClient::connect(&server.endpoint(), Transport::Tcp).unwrap();
        let messages = client.peek(10).unwrap();
        let bodies = messages.iter().map(|message| short(&message.body));
        bodies.eq(want.iter().copied())
    });
}

#[test]
fn a_message_whose_holder_is_stopped_comes_back_when_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let killed = |holder: Holder, server| {
        holder.0.signal("KILL");
        server
    };
    let goes_on = |mut holder: Holder, server| {
        holder.0.signal("CONT");
        let mut rest = Vec::new();
        holder.1.read_to_end(&mut rest).unwrap();
        assert_eq!(rest.len(), 199_999);
        assert_eq!(holder.0.wait(), Some(0));
        server
    };
    check_stopped(&[], killed, &["held", "next"]);
    check_stopped(&["--data", &path("killed")], killed, &["held", "next"]);
    check_stopped(&[], goes_on, &["next"]);
    check_stopped(&["--data", &path("on")], goes_on, &["next"]);
    let data = path("server");
    let server_killed = |_holder: Holder, server: Server| {
        server.kill();
        Server::start(
            "queue-server",
            &["0", "--max-message", "200000", "--data", &data],
        )
    };
    check_stopped(&["--data", &data], server_killed, &["held", "next"]);
}

#[test]
fn a_second_server_is_refused_by_whatever_name_and_without_a_lock_file() {
    for kind in [Code, History] {
        let (dir, _) = some_records(kind);
        let links = tempfile::tempdir().unwrap();
        for file in kind.files() {
            let (path, link) = (dir.path().join(file), links.path().join(file));
            if path.exists() {
                fs::hard_link(&path, link).unwrap();
            }
        }
        let server = Server::spawn(kind.command(dir.path()));
        for second in [dir.path(), links.path()] {
            let ran = run_command(kind.command(second), b"").expect(2);
            let stderr = ran.stderr;
            assert!(
                stderr.contains("another server is using these files"),
                "{stderr}"
            );
        }
        drop(server);
    }
}

#[test]
fn a_server_of_an_earlier_version_is_noticed_by_its_lock_file() {
    for (kind, name) in [
        (Code, ".code-server.lock"),
        (History, ".history-server.lock"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        let older = File::create(&path).unwrap();
        older.lock().unwrap();
        let ran = run_command(kind.command(dir.path()), b"").expect(2);
        let want = format!("it holds {}", path.display());
        assert!(ran.stderr.contains(&want), "{}", ran.stderr);
        // Closing it would not do: a program that another test starts has the file, too, until it runs.
        older.unlock().unwrap();
        Server::spawn(kind.command(dir.path()));
    }
}

#[test]
fn a_database_by_another_name_is_refused_and_an_older_servers_lock_respected() {
    let (dir, _) = some_records(Queue);
    let database = dir.path().join("queue.db");
    let links = tempfile::tempdir().unwrap();
    let server = Server::spawn(Queue.command(dir.path()));
    // Its log would have another name; and while it is in use, that comes first.
    fs::hard_link(&database, links.path().join("queue.db")).unwrap();
    let refused = |dir: &Path, want: &str| {
        let ran = run_command(Queue.command(dir), b"").expect(2);
        assert!(ran.stderr.contains(want), "{}", ran.stderr);
    };
    refused(links.path(), "another server is using these files");
    server.kill();
    refused(links.path(), "has 2 names (hard links); it may have one");
    refused(dir.path(), "has 2 names (hard links); it may have one");
    fs::remove_file(links.path().join("queue.db")).unwrap();
    // As a server had it that knew no better.
    let lock = dir.path().join("queue.db.lock");
    let older = File::create(&lock).unwrap();
    older.try_lock().unwrap();
    refused(dir.path(), "another server is using these files");
    older.unlock().unwrap();
    let server = Server::spawn(Queue.command(dir.path()));
    assert!(File::open(&lock).unwrap().try_lock().is_err());
    server.kill();
    assert_eq!(fs::read_dir(links.path()).unwrap().count(), 0);
}
