//! Names that the history gives: nobody has them, they stay, and they are as good as those of the
//! administrator's file.

use std::collections::HashSet;
use std::fs;
use std::io::{BufReader, Write};
use std::path::Path;
use std::sync::{Barrier, Mutex};
use std::thread;

use proto::frame::{self, Message as _};
use proto::history::{Operation, Reply, Request, TEXT_BYTES_MAX};
use proto::text::AUTHENTICATION_ERROR;
use proto::{ErrorCode, Register};
use tempfile::TempDir;

use crate::harness::{Needs, Server, Stream, door, has_door, program, records, run_command};

fn start(dir: &Path, options: &[&str]) -> Server {
    let mut line = vec!["0", "--data-dir", dir.to_str().unwrap()];
    line.extend(options);
    Server::start("history-server", &line)
}

/// Whether names are no logins.
fn gives_names() -> bool {
    has_door(Needs::NoAccounts, "a name is a login there")
}

/// A connection, and what comes from it.
type Connected = BufReader<Stream>;

fn connect(server: &Server) -> Connected {
    BufReader::with_capacity(TEXT_BYTES_MAX, server.connect())
}

/// The end of a reply: a sentence, or the code of an error and its sentence. `None` if the connection
/// ends before.
type Answer = Option<Result<String, (ErrorCode, String)>>;

fn ask<'m>(connected: &mut Connected, message: &impl frame::Message<'m>) -> Answer {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    connected.get_mut().write_all(&bytes).ok()?;
    let mut payload = Vec::new();
    loop {
        let kind = frame::read(connected, TEXT_BYTES_MAX, &mut payload).ok()??;
        match Reply::decode(kind, &payload).unwrap() {
            Reply::About(_) => {}
            Reply::Done(sentence) => return Some(Ok(sentence.to_owned())),
            Reply::Error(error) => return Some(Err((error.code, error.sentence.to_owned()))),
            other => panic!("{other:?}"),
        }
    }
}

fn register(server: &Server, prefix: &str) -> Answer {
    ask(&mut connect(server), &Register { prefix })
}

#[track_caller]
fn name(server: &Server, prefix: &str) -> String {
    register(server, prefix).unwrap().unwrap()
}

/// What a user's greeting is answered.
#[track_caller]
fn hello(server: &Server, user: &str) -> Result<String, (ErrorCode, String)> {
    let operation = Operation::Hello;
    ask(&mut connect(server), &Request { user, operation }).unwrap()
}

fn not_a_user() -> Result<String, (ErrorCode, String)> {
    Err((ErrorCode::Forbidden, AUTHENTICATION_ERROR.to_owned()))
}

fn names_of(dir: &Path) -> HashSet<String> {
    let text = fs::read_to_string(dir.join("users.txt")).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// The users whose names the history says it has given.
fn on_record(dir: &Path) -> Vec<String> {
    let text = records(dir);
    let name = |line: &str| {
        let record = line.strip_suffix(" registered")?;
        Some(record.rsplit_once(' ').unwrap().1.to_owned())
    };
    text.lines().filter_map(name).collect()
}

#[test]
fn many_who_register_at_once_get_different_names() {
    if !gives_names() {
        return;
    }
    const CLIENTS: usize = 64;
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), &[]);
    let barrier = Barrier::new(CLIENTS);
    let register = |n: usize| {
        let mut connected = connect(&server);
        barrier.wait();
        let prefix = if n.is_multiple_of(2) { "" } else { "alice" };
        let name = ask(&mut connected, &Register { prefix }).unwrap().unwrap();
        assert!(name.starts_with(prefix), "{name}");
        name
    };
    let names: HashSet<String> = thread::scope(|scope| {
        let register = &register;
        let threads: Vec<_> = (0..CLIENTS)
            .map(|n| scope.spawn(move || register(n)))
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(names.len(), CLIENTS);
    assert_eq!(names_of(dir.path()), names);
    let on_record = on_record(dir.path());
    assert_eq!(on_record.len(), CLIENTS);
    assert_eq!(on_record.into_iter().collect::<HashSet<_>>(), names);
}

#[test]
fn one_address_does_not_get_all_names() {
    if !gives_names() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), &["--fsync", "never"]);
    let mut connected = connect(&server);
    let mut ask = || ask(&mut connected, &Register { prefix: "" }).unwrap();
    let names = (0..1000).map_while(|_| ask().ok()).count();
    // One comes back after 10 s, and the test may take that long.
    assert!((128..160).contains(&names), "{names}");
    let (code, sentence) = ask().unwrap_err();
    assert_eq!(code, ErrorCode::Forbidden);
    let want = "Too many names were asked for from there; try again in 10 seconds.";
    assert_eq!(sentence, want);
    assert_eq!(names_of(dir.path()).len(), names);
}

#[test]
fn a_name_that_was_told_is_nobody_elses_however_often_the_server_crashes() {
    if !gives_names() {
        return;
    }
    const ROUNDS: usize = 5;
    const ROUND: usize = 40;
    let dir = tempfile::tempdir().unwrap();
    let told = Mutex::new(Vec::new());
    for round in 1..=ROUNDS {
        let server = start(dir.path(), &[]);
        thread::scope(|scope| {
            for _ in 0..4 {
                let mut connected = connect(&server);
                let told = &told;
                scope.spawn(move || {
                    // Few prefixes and many names, which must differ also from those before a crash.
                    while let Some(answer) = ask(&mut connected, &Register { prefix: "a" }) {
                        told.lock().unwrap().push(answer.unwrap());
                    }
                });
            }
            while told.lock().unwrap().len() < round * ROUND {
                thread::yield_now();
            }
            server.kill();
        });
    }
    let told = told.into_inner().unwrap();
    let names: HashSet<&String> = told.iter().collect();
    assert_eq!(names.len(), told.len());
    let stored = names_of(dir.path());
    assert!(names.iter().all(|name| stored.contains(*name)));
    // Each is good where only some may.
    let users = dir.path().join("listed");
    fs::write(&users, "").unwrap();
    let server = start(dir.path(), &["--users", users.to_str().unwrap()]);
    for name in [&told[0], &told[told.len() - 1]] {
        assert_eq!(hello(&server, name), Ok(String::new()));
    }
    assert_eq!(hello(&server, "a-0"), not_a_user());
}

/// A folder with a list of users that has alice.
fn with_alice() -> (TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let users = dir.path().join("listed");
    fs::write(&users, "alice\n").unwrap();
    let users = users.to_str().unwrap().to_owned();
    (dir, users)
}

#[test]
fn where_a_list_restricts_a_name_is_given_only_if_that_is_allowed() {
    if !gives_names() {
        return;
    }
    let (dir, users) = with_alice();
    let options = ["--users", users.as_str()];
    let server = start(dir.path(), &options);
    let sentence = "This server gives no names; it needs --register to do that.";
    let refused = Some(Err((ErrorCode::Forbidden, sentence.to_owned())));
    assert_eq!(register(&server, "bob"), refused);
    assert_eq!(records(dir.path()), "");
    assert_eq!(hello(&server, "alice"), Ok(String::new()));
    assert_eq!(hello(&server, "bob"), not_a_user());
    server.end();
    let server = start(dir.path(), &[&options[..], &["--register"]].concat());
    let bob = name(&server, "bob");
    assert_eq!(hello(&server, &bob), Ok(String::new()));
    assert_eq!(hello(&server, "alice"), Ok(String::new()));
    assert_eq!(hello(&server, "bob"), not_a_user());
    server.end();
    let server = start(dir.path(), &options);
    assert_eq!(hello(&server, &bob), Ok(String::new()));
    assert_eq!(register(&server, "bob"), refused);
}

#[test]
fn the_list_is_read_again_at_a_signal_and_stays_if_it_is_wrong() {
    if !gives_names() {
        return;
    }
    let (dir, users) = with_alice();
    let server = start(dir.path(), &["--users", &users]);
    assert_eq!(hello(&server, "bob"), not_a_user());
    fs::write(&users, "bob\n").unwrap();
    server.signal("HUP");
    server.wait_for_log(|log| log.contains(&format!("{users} names 1 users now")));
    assert_eq!(hello(&server, "bob"), Ok(String::new()));
    assert_eq!(hello(&server, "alice"), not_a_user());
    fs::write(&users, "alice\ncarol or dave\n").unwrap();
    server.signal("HUP");
    let stay = format!("[ERROR] [signals] The users stay as they were: {users}, line 2: ");
    server.wait_for_log(|log| log.contains(&stay));
    assert_eq!(hello(&server, "bob"), Ok(String::new()));
    assert_eq!(hello(&server, "alice"), not_a_user());
}

#[test]
fn a_prefix_that_no_name_begins_with_is_refused() {
    if !gives_names() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), &[]);
    let mut connected = connect(&server);
    let longest = "x".repeat(40);
    let longer = "x".repeat(41);
    for bad in ["a b", "../a", "ä", "a\n", &longer] {
        let Some(Err((code, sentence))) = ask(&mut connected, &Register { prefix: bad }) else {
            panic!("{bad} is accepted");
        };
        assert_eq!(code, ErrorCode::BadRequest);
        assert_eq!(sentence, "the frame's field 'prefix' has no valid value");
    }
    let name = ask(&mut connected, &Register { prefix: &longest });
    assert!(name.unwrap().unwrap().starts_with(&longest));
    assert_eq!(names_of(dir.path()).len(), 1);
}

#[test]
fn where_a_name_is_a_login_none_is_given() {
    let dir = tempfile::tempdir().unwrap();
    if door().has_accounts {
        let server = start(dir.path(), &[]);
        let sentence =
            "A name is a login here; the administrator adds one to the file of --auth-file.";
        let refused = Some(Err((ErrorCode::Forbidden, sentence.to_owned())));
        assert_eq!(register(&server, "bob"), refused);
        assert!(!dir.path().join("users.txt").exists());
        return;
    }
    let mut command = std::process::Command::new(program("history-server"));
    command.args(["0", "--register", "--auth-file", "accounts"]);
    let refused = run_command(command, b"").expect(2);
    let sentence = "--register does not go with --auth-file, where a name is a login";
    assert!(refused.stderr.contains(sentence), "{}", refused.stderr);
}

#[test]
fn the_servers_own_file_is_not_the_administrators() {
    if !gives_names() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().join("users.txt");
    fs::write(&own, "# Staff\nalice\n").unwrap();
    let mut command = std::process::Command::new(program("history-server"));
    command.args(["0", "--data-dir"]).arg(dir.path());
    command.arg("--users").arg(&own);
    let refused = run_command(command, b"").expect(2);
    let sentence = "users.txt is where this server stores the names that it gives: --users must name another file";
    assert!(refused.stderr.contains(sentence), "{}", refused.stderr);
    assert_eq!(fs::read_to_string(&own).unwrap(), "# Staff\nalice\n");
}

#[test]
fn one_that_is_taken_off_the_list_follows_no_more() {
    if !gives_names() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let users = dir.path().join("users");
    fs::write(&users, "alice\nbob\n").unwrap();
    let data = dir.path().join("data");
    let server = start(&data, &["--users", users.to_str().unwrap()]);
    let follow = |user| {
        let mut connected = connect(&server);
        let (last, behind) = (0, 0);
        let operation = Operation::Follow { last, behind };
        let mut bytes = Vec::new();
        Request { user, operation }.encode(&mut bytes);
        connected.get_mut().write_all(&bytes).unwrap();
        connected
    };
    let mut payload = Vec::new();
    let mut next = |connected: &mut Connected| {
        let kind = frame::read(connected, TEXT_BYTES_MAX, &mut payload).unwrap();
        match Reply::decode(kind.expect("it ends"), &payload).unwrap() {
            Reply::Error(error) => Some(error.code),
            _ => None,
        }
    };
    let [mut alice, mut bob] = [follow("alice"), follow("bob")];
    for connected in [&mut alice, &mut bob] {
        // The greeting, and a line.
        assert_eq!((next(connected), next(connected)), (None, None));
    }
    fs::write(&users, "alice\n").unwrap();
    server.signal("HUP");
    let end = loop {
        if let Some(code) = next(&mut bob) {
            break code;
        }
    };
    assert_eq!(end, ErrorCode::Forbidden);
    hello(&server, "alice").unwrap();
    assert_eq!(next(&mut alice), None);
}
