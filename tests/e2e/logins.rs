//! Who may do what, in frames: logging in, roles, names that are real, accounts that change, and
//! passwords that are guessed.

use std::fs;
use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use proto::frame::{self, Message};
use proto::http::basic;
use proto::queue::{Delivery, QueueName, Request};
use proto::{ErrorCode, Login};
use tempfile::TempDir;

use crate::harness::{
    Needs, Ran, Server, connect_from, has_door, read_to_end, receive_request, run, send_request,
};

/// Of "sesame", as `openssl passwd -6` makes it.
pub const HASH: &str = "$6$quartet$tOFfjOUJjT8tUEFbjfHa7RKvFURczCKqKXZOeTA7C6YVbwu73zbAF8hWAr.HmymC3dKxDWAtXaIK9CIGE/h3G/";

/// The users, by their roles. The password of all is `sesame`.
const USERS: [&str; 4] = ["read", "write", "admin", "other"];

const WHY: &str = "it has its own accounts";

/// A folder with the accounts of a server, and a file for each user's client.
struct Accounts(TempDir);

impl Accounts {
    fn new() -> Self {
        let accounts = Self(tempfile::tempdir().unwrap());
        let line = |user: &&str| match *user {
            "other" => format!("other:{HASH}\n"),
            role => format!("{role}:{HASH}:{role}\n"),
        };
        accounts.write("all", &USERS.iter().map(line).collect::<String>());
        for user in USERS {
            accounts.write(user, &format!("{user}:sesame\n"));
        }
        accounts.write("wrong", "admin:guess\n");
        accounts
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
        let mode = fs::Permissions::from_mode(0o600);
        fs::set_permissions(self.path(name), mode).unwrap();
    }

    fn start(&self, name: &str, options: &[&str]) -> Server {
        let (all, data) = (self.path("all"), self.path("data"));
        let mut line = vec!["0", "--auth-file", all.to_str().unwrap()];
        if name == "history-server" {
            line.extend(["--data-dir", data.to_str().unwrap()]);
        }
        line.extend(options);
        Server::start(name, &line)
    }

    /// Has a client of this user ask, or one without an account.
    #[track_caller]
    fn ask(&self, client: &str, server: &Server, user: Option<&str>, line: &[&str]) -> Ran {
        let port = server.addr().port().to_string();
        let file = user.map(|user| self.path(user));
        let mut all = vec!["127.0.0.1", &port];
        all.extend(line);
        if let Some(file) = &file {
            all.extend(["--auth-file", file.to_str().unwrap()]);
        }
        run(client, &all, b"hi")
    }
}

fn login(user: &str, password: &str) -> Vec<u8> {
    encoded(&Login { user, password })
}

fn encoded<'a>(message: &impl Message<'a>) -> Vec<u8> {
    let mut out = Vec::new();
    message.encode(&mut out);
    out
}

/// Sends frames at once, and reads as many replies: the code of each error, or the kind.
fn exchange(mut stream: impl Read + Write, frames: &[Vec<u8>]) -> Vec<Result<u8, ErrorCode>> {
    stream.write_all(&frames.concat()).unwrap();
    let mut input = BufReader::new(stream);
    let mut payload = Vec::new();
    let mut replies = Vec::new();
    while replies.len() < frames.len()
        && let Some(kind) = frame::read(&mut input, 1 << 20, &mut payload).unwrap()
    {
        let codes = [
            ErrorCode::BadRequest,
            ErrorCode::TooLarge,
            ErrorCode::Forbidden,
            ErrorCode::Unauthorized,
            ErrorCode::TooManyLogins,
        ];
        replies.push(match kind {
            // The numbers are those of the documentation.
            0x7f => Err(codes[[1, 3, 6, 12, 13]
                .iter()
                .position(|code| *code == payload[0])
                .unwrap()]),
            kind => Ok(kind),
        });
    }
    replies
}

const LOGGED_IN: Result<u8, ErrorCode> = Ok(0x70);
const STORED: Result<u8, ErrorCode> = Ok(0x41);
const DONE: Result<u8, ErrorCode> = Ok(0x45);

#[test]
fn a_queue_is_for_those_with_an_account_each_by_its_role() {
    if !has_door(Needs::Plain, WHY) {
        return;
    }
    let accounts = Accounts::new();
    let server = accounts.start("queue-server", &[]);
    let ask = |user: Option<&str>, line: &[&str]| accounts.ask("queue-client", &server, user, line);
    let check = |user: Option<&str>, line: &[&str], want: &str| {
        let ran = ask(user, line).expect(i32::from(!want.is_empty()));
        assert!(ran.stderr.contains(want), "{line:?}: {}", ran.stderr);
    };
    let no_login = "this needs a user and a password: the server has accounts (--auth-file)";
    for line in [&["send", "-"][..], &["receive"], &["list"], &["purge"]] {
        check(None, line, no_login);
        check(Some("wrong"), line, "the user or the password is wrong");
    }
    for line in [&["list"][..], &["stats"]] {
        check(Some("read"), line, "");
    }
    let needs_write = "this needs the role write, and the user 'read' has the role read";
    check(Some("read"), &["send", "-"], needs_write);
    check(Some("read"), &["receive"], needs_write);
    check(Some("write"), &["send", "-"], "");
    check(Some("other"), &["send", "-"], "");
    let needs_admin = "this needs the role admin, and the user 'write' has the role write";
    for line in [
        &["purge"][..],
        &["pause"],
        &["resume"],
        &["drain"],
        &["kick", "q"],
    ] {
        check(Some("write"), line, needs_admin);
    }
    let received = ask(Some("write"), &["receive"]).expect(0);
    assert_eq!(received.stdout, b"hi");
    check(Some("admin"), &["purge"], "");
    let log = server.end();
    assert!(
        log.contains("Wrong user or password from 127.0.0.1:"),
        "{log}"
    );
    assert!(
        log.contains("'write' has logged in from 127.0.0.1:"),
        "{log}"
    );
    assert!(!log.contains("sesame") && !log.contains("guess"), "{log}");
}

#[test]
fn reading_a_queue_may_be_free() {
    if !has_door(Needs::Plain, WHY) {
        return;
    }
    let accounts = Accounts::new();
    let server = accounts.start("queue-server", &["--auth-read-free"]);
    let ask = |user: Option<&str>, line: &[&str]| accounts.ask("queue-client", &server, user, line);
    ask(Some("write"), &["send", "-"]).expect(0);
    assert_eq!(ask(None, &["peek"]).expect(0).stdout, b"hi");
    ask(None, &["list"]).expect(0);
    ask(None, &["stats"]).expect(0);
    ask(None, &["receive"]).expect(1);
    ask(None, &["send", "-"]).expect(1);
    ask(Some("wrong"), &["list"]).expect(1);
}

#[test]
fn a_login_is_the_first_frame_or_there_is_none() {
    if !has_door(Needs::Plain, WHY) {
        return;
    }
    let accounts = Accounts::new();
    let server = accounts.start("queue-server", &[]);
    let send = || encoded(&send_request(b"x"));
    let purge = || {
        encoded(&Request::Purge {
            queue: QueueName::DEFAULT,
        })
    };
    let long = || encoded(&send_request(&[b'x'; 3000]));
    #[track_caller]
    fn check(server: &Server, frames: &[Vec<u8>], want: &[Result<u8, ErrorCode>]) {
        assert_eq!(exchange(server.connect(), frames), want);
    }
    let no_login = Err(ErrorCode::Unauthorized);
    // What is refused changes nothing, and the connection continues.
    let late = Err(ErrorCode::BadRequest);
    check(
        &server,
        &[send(), long(), send(), login("write", "sesame")],
        &[no_login, no_login, no_login, late],
    );
    // The replies come in the order of the requests, though some are acted on together.
    check(
        &server,
        &[
            login("write", "sesame"),
            send(),
            purge(),
            login("admin", "sesame"),
            send(),
        ],
        &[LOGGED_IN, STORED, Err(ErrorCode::Forbidden), late, STORED],
    );
    // A wrong one ends the connection.
    check(
        &server,
        &[login("admin", "guess"), send()],
        &[Err(ErrorCode::Unauthorized)],
    );
    check(
        &server,
        &[login("admin", "sesame"), purge()],
        &[LOGGED_IN, DONE],
    );
    let text = read_to_end({
        let mut stream = server.connect();
        stream.write_all(b"<<GET>>").unwrap();
        stream
    });
    let text = String::from_utf8(text).unwrap();
    assert!(
        text.starts_with("Error - this server has accounts"),
        "{text}"
    );
    // Without accounts a login is welcome, whatever it says.
    let open = Server::start("queue-server", &["0"]);
    check(
        &open,
        &[login("anyone", "anything"), send(), purge()],
        &[LOGGED_IN, STORED, DONE],
    );
}

#[test]
fn in_the_history_names_are_real_and_others_lines_are_theirs() {
    if !has_door(Needs::Plain, WHY) {
        return;
    }
    let accounts = Accounts::new();
    let server = accounts.start("history-server", &[]);
    let ask =
        |user: Option<&str>, line: &[&str]| accounts.ask("history-client", &server, user, line);
    let history = || fs::read_to_string(accounts.path("data/history.txt")).unwrap();
    let check_refused = |user: Option<&str>, line: &[&str], want: &str| {
        let ran = ask(user, line).expect(1);
        assert!(ran.stderr.contains(want), "{line:?}: {}", ran.stderr);
    };
    check_refused(
        None,
        &["hello", "write"],
        "this needs a user and a password",
    );
    check_refused(None, &["get", "write"], "this needs a user and a password");
    let other_name = "You have logged in as 'other', and cannot ask as 'write'.";
    for verb in ["hello", "get", "clear"] {
        check_refused(Some("other"), &[verb, "write"], other_name);
    }
    assert_eq!(history(), "");
    ask(Some("write"), &["hello", "write"]).expect(0);
    ask(Some("other"), &["hello", "other"]).expect(0);
    ask(Some("read"), &["get", "read"]).expect(0);
    check_refused(
        Some("read"),
        &["hello", "read"],
        "this needs the role write",
    );
    let not_own = "Others have written that; 'other' needs the role admin to delete it.";
    check_refused(Some("other"), &["delete", "other", "1"], not_own);
    check_refused(Some("other"), &["clear", "other"], not_own);
    assert!(history().contains(" write hello\n"));
    ask(Some("other"), &["delete", "other", "2"]).expect(0);
    assert!(!history().contains(" other hello\n"));
    ask(Some("admin"), &["delete", "admin", "1"]).expect(0);
    assert!(!history().contains(" write hello\n"));
    ask(Some("admin"), &["clear", "admin"]).expect(0);
    assert!(history().ends_with(" admin deleted the history\n"));
    assert_eq!(history().lines().count(), 1);
    ask(Some("admin"), &["clear", "admin"]).expect(0);
    assert!(server.log().contains(other_name));
}

#[test]
fn a_connection_ends_when_its_account_does() {
    if !has_door(Needs::Plain, WHY) {
        return;
    }
    let accounts = Accounts::new();
    let server = accounts.start("queue-server", &[]);
    let wait = encoded(&Request::Receive {
        queues: QueueName::DEFAULT.into(),
        wait_millis: 60_000,
        delivery: Delivery::AtMostOnce,
    });
    let connect = |user: &str| {
        let mut stream = server.connect();
        assert_eq!(exchange(&mut stream, &[login(user, "sesame")]), [LOGGED_IN]);
        stream
    };
    let mut streams = ["write", "other", "admin"].map(connect);
    // One waits for a message, one for nothing.
    streams[0].write_all(&wait).unwrap();
    let text = fs::read_to_string(accounts.path("all")).unwrap();
    let text = text
        .replace(":write\n", ":read\n")
        .replace("other:", "another:");
    // A file that is wrong changes nothing.
    accounts.write("all", "read\n");
    server.signal("HUP");
    server.wait_for_log(|log| log.contains("The accounts stay as they were: "));
    accounts.write("all", &text);
    server.signal("HUP");
    let [write, other, mut admin] = streams;
    for gone in [write, other] {
        assert_eq!(read_to_end_or_reset(gone), b"");
    }
    let receive = encoded(&receive_request(Delivery::AtMostOnce));
    assert_eq!(exchange(&mut admin, &[receive]), [Ok(0x44)]);
    let refused = exchange(server.connect(), &[login("other", "sesame")]);
    assert_eq!(refused, [Err(ErrorCode::Unauthorized)]);
    let send = encoded(&send_request(b"x"));
    let refused = exchange(server.connect(), &[login("write", "sesame"), send]);
    assert_eq!(refused, [LOGGED_IN, Err(ErrorCode::Forbidden)]);
}

/// What is left in a stream that the server may have aborted.
fn read_to_end_or_reset(mut stream: impl Read) -> Vec<u8> {
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    all
}

/// How many addresses guess...
const GUESSERS: u8 = 50;

/// ...how often each.
const GUESSES: usize = 200;

/// The longest that somebody with the right password may wait.
const RIGHT_WAIT_MAX: Duration = Duration::from_secs(3);

/// Has many addresses guess. Meanwhile, and from other ones, each user logs in with the right password for the
/// first time, and in between with one that is known, from where they guess. `guess` tells whether a guess
/// was checked at all, `log_in` whether a user may.
#[track_caller]
fn check_guessing(
    guess: impl Fn(u8, usize) -> bool + Sync,
    log_in: impl Fn(&str, u8) -> bool,
    users: &[String],
) {
    let (asked, checked) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let all = usize::from(GUESSERS) * GUESSES;
    let mut longest = [Duration::ZERO; 2];
    thread::scope(|scope| {
        for host in 2..2 + GUESSERS {
            let (guess, asked, checked) = (&guess, &asked, &checked);
            scope.spawn(move || {
                for number in 0..GUESSES {
                    checked.fetch_add(usize::from(guess(host, number)), Ordering::Relaxed);
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let log_in = |user: &str, host, longest: &mut Duration| {
            let began = Instant::now();
            assert!(log_in(user, host), "{user} is refused");
            *longest = began.elapsed().max(*longest);
        };
        // Most passwords are checked at the beginning, and later most must wait.
        for (number, user) in users.iter().enumerate() {
            while asked.load(Ordering::Relaxed) < all >> (users.len() - number) {
                match number {
                    0 => thread::yield_now(),
                    _ => log_in(&users[0], 2, &mut longest[1]),
                }
            }
            log_in(user, 200, &mut longest[0]);
        }
        while asked.load(Ordering::Relaxed) < all {
            log_in(&users[0], 2, &mut longest[1]);
        }
    });
    println!(
        "longest waits: {:?} for a first login, {:?} for a later one",
        longest[0], longest[1]
    );
    assert!(
        longest.iter().all(|wait| *wait < RIGHT_WAIT_MAX),
        "{longest:?}"
    );
    let checked = checked.into_inner();
    // 16 each, and a few more in the time that this takes.
    let most = usize::from(GUESSERS) * 24;
    assert!((16..=most).contains(&checked), "{checked}");
}

/// Accounts, a server that has them, and those of their users who have a right password.
fn with_right_users(name: &str, args: &[&str]) -> (Accounts, Server, Vec<String>) {
    let accounts = Accounts::new();
    let users: Vec<_> = (0..10).map(|number| format!("right{number}")).collect();
    let lines = users.iter().map(|user| format!("{user}:{HASH}\n"));
    accounts.write("all", &lines.collect::<String>());
    let server = accounts.start(name, args);
    (accounts, server, users)
}

#[test]
fn ten_thousand_guesses_delay_nobody_who_logs_in_by_a_frame() {
    if !has_door(Needs::Plain, WHY) {
        return;
    }
    let (_accounts, server, users) = with_right_users("queue-server", &[]);
    let addr = server.addr().tcp();
    let log_in = |user: &str, password: &str, host| {
        let stream = connect_from([127, 0, 0, host], addr);
        exchange(stream, &[login(user, password)])
    };
    check_guessing(
        |host, number| {
            let refused = log_in("right1", &format!("guess{number}"), host);
            assert!(matches!(
                refused[..],
                [Err(ErrorCode::Unauthorized | ErrorCode::TooManyLogins)]
            ));
            refused == [Err(ErrorCode::Unauthorized)]
        },
        |user, host| log_in(user, "sesame", host) == [LOGGED_IN],
        &users,
    );
}

#[test]
fn ten_thousand_guesses_delay_nobody_who_logs_in_over_http() {
    if !has_door(Needs::Plain, WHY) {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let args = ["--root", root.path().to_str().unwrap()];
    let (_accounts, server, users) = with_right_users("file-server", &args);
    let addr = server.addr().tcp();
    let ask = |user: &str, password: &str, host| {
        let mut stream = connect_from([127, 0, 0, host], addr);
        let who = basic::authorization(user, password);
        let request = format!(
            "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: {who}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let reply = String::from_utf8(read_to_end(stream)).unwrap();
        reply["HTTP/1.1 ".len()..][..3].to_owned()
    };
    check_guessing(
        |host, number| {
            let status = ask("right1", &format!("guess{number}"), host);
            assert!(matches!(&*status, "401" | "429"), "{status}");
            status == "401"
        },
        |user, host| ask(user, "sesame", host) == "200",
        &users,
    );
}

/// Each of them is new, so none has fewer wrong passwords than the user who logs in.
#[test]
fn a_crowd_of_new_addresses_delays_nobody_who_logs_in() {
    if !has_door(Needs::Plain, WHY) {
        return;
    }
    let (_accounts, server, users) = with_right_users("queue-server", &[]);
    let addr = server.addr().tcp();
    let mut crowd = Vec::new();
    let guess = |network: u8, crowd: &mut Vec<TcpStream>| {
        for host in 1..=200 {
            let mut stream = connect_from([127, 0, network, host], addr);
            stream.write_all(&login("admin", "guess")).unwrap();
            crowd.push(stream);
        }
    };
    let check_login = |user: &str| {
        let began = Instant::now();
        let stream = connect_from([127, 0, 9, 9], addr);
        assert_eq!(exchange(stream, &[login(user, "sesame")]), [LOGGED_IN]);
        let took = began.elapsed();
        println!("{user} waits for {took:?}");
        assert!(took < RIGHT_WAIT_MAX, "{user} waits for {took:?}");
    };
    for network in 1..=4 {
        guess(network, &mut crowd);
        check_login(&users[usize::from(network)]);
    }
    let answered = crowd.iter().filter(|stream| {
        stream.set_nonblocking(true).unwrap();
        stream.peek(&mut [0]).is_ok()
    });
    let answered = answered.count();
    assert!(
        answered < crowd.len(),
        "the crowd is gone before the last login"
    );
}
