//! Log rotation: the text files are moved away and made anew under load, by hand and by logrotate,
//! and every line that was acknowledged is in one of them, once.

use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use super::*;

/// How many connections write at once.
const WRITERS: usize = 4;

/// How often the file is moved away.
const ROTATIONS: usize = 5;

/// How many lines come between two rotations, at the least.
const LINES: usize = 20;

/// The text file of a service that is rotated.
fn rotated(kind: Kind) -> &'static str {
    match kind {
        Code => "messages.log",
        History => "history.txt",
        Queue => unreachable!("a database is not rotated"),
    }
}

/// Moves away the file of a server again and again, while others write to it; checks that every line
/// is there.
#[track_caller]
fn check_rotation(kind: Kind, rotate: impl Fn(&Server, &Path, usize)) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(rotated(kind));
    fs::write(&path, "").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let server = Server::spawn(kind.command(dir.path()));
    let acked = Mutex::new(HashSet::new());
    let is_over = AtomicBool::new(false);
    let write = |writer: usize| {
        let mut history = HistoryClient::connect(&server.addrs[0].endpoint()).ok();
        let uuid = Uuid::from_u128(writer as u128);
        let code = (kind == Code).then(|| code_of(server.addrs[0], uuid).unwrap());
        for number in 0.. {
            let record = format!("r{writer}-{number}");
            match &code {
                Some(code) => {
                    let body =
                        format!(r#"{{"uuid": "{uuid}", "unique": "{code}", "text": "{record}"}}"#);
                    post(server.addrs[1], &body).unwrap();
                }
                None => history.as_mut().unwrap().hello(&record).map(drop).unwrap(),
            }
            acked.lock().unwrap().insert(record);
            if is_over.load(Ordering::SeqCst) {
                return;
            }
        }
    };
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let write = &write;
            scope.spawn(move || write(writer));
        }
        let lines_after = |more: usize| {
            let target = acked.lock().unwrap().len() + more;
            eventually("there are enough lines", || {
                acked.lock().unwrap().len() >= target
            });
        };
        for rotation in 0..ROTATIONS {
            lines_after(LINES);
            rotate(&server, &path, rotation);
            let anew = |log: &str| log.matches(" was reopened").count() == rotation + 1;
            server.wait_for_log(anew);
        }
        lines_after(LINES);
        is_over.store(true, Ordering::SeqCst);
    });
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o640, "the mode stays");
    let mut there = HashSet::new();
    let mut files = 0;
    for entry in fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if !name.starts_with(rotated(kind)) {
            continue;
        }
        files += 1;
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'), "{name}");
        for line in text.lines() {
            let at = if kind == History { 3 } else { 2 };
            let record = line.split(' ').nth(at).unwrap().to_owned();
            assert!(there.insert(record), "twice, in {name}: {line}");
        }
    }
    assert_eq!(files, ROTATIONS + 1);
    assert_eq!(there, acked.into_inner().unwrap());
    // It goes on where it is.
    server.signal("TERM");
    let (code, log) = server.wait();
    assert_eq!(code, Some(0), "{log}");
}

#[test]
fn a_file_that_is_moved_away_before_sighup_loses_no_line() {
    for kind in [Code, History] {
        check_rotation(kind, |server, path, rotation| {
            let mut old = path.as_os_str().to_owned();
            old.push(format!(".{rotation}"));
            fs::rename(path, old).unwrap();
            server.signal("HUP");
        });
    }
}

#[test]
fn logrotate_loses_no_line() {
    if !crate::harness::is_installed("logrotate") {
        crate::harness::skipped("logrotate is not installed");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("logrotate.conf");
    for kind in [Code, History] {
        check_rotation(kind, |server, path, _| {
            let (path, pid) = (path.display(), server.pid());
            let text = format!(
                "{path} {{\n  rotate 9\n  nocreate\n  nocompress\n  postrotate\n    \
                 kill -HUP {pid}\n  endscript\n}}\n"
            );
            fs::write(&config, text).unwrap();
            fs::set_permissions(&config, fs::Permissions::from_mode(0o600)).unwrap();
            let mut command = Command::new("logrotate");
            if !Path::new("/usr/bin/logrotate").exists() {
                command = Command::new("/usr/sbin/logrotate");
            }
            command
                .args(["--force", "--state"])
                .arg(dir.path().join("state"));
            command.arg(&config);
            run_command(command, b"").expect(0);
        });
    }
}

#[test]
fn sighup_leaves_a_file_alone_that_is_where_it_was() {
    for kind in [Code, History] {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::spawn(kind.command(dir.path()));
        let mut ledger = Ledger::new(kind);
        let mut client = Client::connect(kind, &server.addrs);
        assert_eq!(ledger.put(&mut client), Done);
        server.signal("HUP");
        server.wait_for_log(|log| log.contains(" is where it was"));
        assert_eq!(ledger.put(&mut client), Done);
        server.kill();
        ledger.check(dir.path());
    }
}

#[test]
fn the_lines_of_a_history_are_counted_anew_after_it_was_moved() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history.txt");
    let server = Server::spawn(History.command(dir.path()));
    let mut client = HistoryClient::connect(&server.endpoint()).unwrap();
    for _ in 0..5 {
        client.hello("before").unwrap();
    }
    fs::rename(&path, dir.path().join("history.txt.1")).unwrap();
    server.signal("HUP");
    server.wait_for_log(|log| log.contains(" was reopened"));
    client.hello("after").unwrap();
    // The request itself is the second line.
    assert_eq!(client.delete("after", 1).unwrap(), "Line 1 deleted.");
    let error = of_refusal(client.delete("after", 4));
    assert_eq!(error, "There is no line 4; the history has 2 lines.");
}

#[track_caller]
fn of_refusal<T: Debug>(asked: Result<T, history_client::Error>) -> String {
    match asked {
        Err(history_client::Error::Refused { sentence, .. }) => sentence,
        other => panic!("{other:?}"),
    }
}
