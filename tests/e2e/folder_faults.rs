//! Whole folders where something goes wrong: a file that is refused, a server that makes no folders or is
//! gone, a client that is killed again and again.

use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, SystemTime};

use crate::file::contents;
use crate::file_client::{Sides, client, command as at_port, said, sides};
use crate::folders::{check_same, is_sidecar, last_line};
use crate::harness::{PATIENCE, Running, Then, eventually, fake_server, program, run_command};

/// A client that is to be started.
fn command(sides: &Sides, args: &[&str]) -> Command {
    let mut command = Command::new(program("file-client"));
    command.args(sides.server.host_and_ports()).args(args);
    command.current_dir(sides.here.path());
    command
}

#[test]
fn a_server_that_makes_no_empty_folders_is_said_in_one_line() {
    let sides = sides(&[]);
    let here = sides.here.path();
    fs::create_dir_all(here.join("e/empty/deep")).unwrap();
    fs::create_dir_all(here.join("e/full/er")).unwrap();
    fs::write(here.join("e/full/er/a"), "a").unwrap();
    for _ in 0..2 {
        let ran = client(&sides.server, here, &["put", "e"]).expect(1);
        let says =
            "[ERROR] [main] e/empty/deep/: empty folders need a server with --manage; not made: 1";
        let sent = "[INFO] [main] Sent e: 1 file, 1 bytes; 0 skipped, 1 failed";
        assert_eq!(said(&ran), [says, sent, "file-client: e: 1 failed"]);
    }
    fs::create_dir_all(sides.tree.root("e/empty/deep")).unwrap();
    let sent = "Sent e: 1 file, 1 bytes; 0 skipped, 0 failed";
    sides.check_says(&["put", "e"], 0, sent);
    fs::remove_dir_all(sides.tree.root("e/empty")).unwrap();
    assert!(sides.tree.root("e/full/er/a").exists());
    assert!(!sides.tree.root("e/empty").exists());
}

/// A server that answers each request by its line, or ends the connection; its port, and the requests
/// that it has got.
fn scripted(
    reply: impl Fn(&str) -> Option<&'static str> + Send + 'static,
) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let requests = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&requests);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
            while let Some(request) = lines.next() {
                let _fields = lines.by_ref().take_while(|line| !line.is_empty()).count();
                let request = request.trim_end_matches(" HTTP/1.1").to_owned();
                let status = reply(&request);
                seen.lock().unwrap().push(request);
                let Some(status) = status else { break };
                let _ = write!(&stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
            }
        }
    });
    (port, requests)
}

#[test]
fn a_folder_that_is_there_is_known_without_a_listing() {
    let sides = sides(&["--no-listing"]);
    let here = sides.here.path();
    fs::create_dir_all(here.join("tree/sub")).unwrap();
    fs::create_dir(here.join("tree/none")).unwrap();
    fs::write(here.join("tree/sub/f"), "f").unwrap();
    let says = "tree/none/: empty folders need a server with --manage; not made: 1";
    sides.check_says(&["put", "tree"], 1, says);
    let sent = "Sent tree: 1 file, 1 bytes; 0 skipped, 0 failed";
    let managed = sides.tree.start(&["--no-listing", "--manage"]);
    fs::remove_dir_all(sides.tree.root("tree")).unwrap();
    for _ in 0..2 {
        client(&managed, here, &["put", "tree"])
            .expect(0)
            .check_says(sent);
        check_same(&here.join("tree"), &sides.tree.root("tree"));
    }
    // A file is in the way.
    fs::remove_dir(sides.tree.root("tree/none")).unwrap();
    fs::write(sides.tree.root("tree/none"), "file").unwrap();
    let ran = client(&managed, here, &["put", "tree"]).expect(1);
    ran.check_says("tree/none/: the server refused: 405 Method Not Allowed, something is there");
}

#[test]
fn an_empty_folder_goes_where_nothing_is_yet() {
    let sides = sides(&["--manage"]);
    let here = sides.here.path();
    fs::create_dir_all(here.join("e/a/b")).unwrap();
    fs::create_dir(here.join("e/c")).unwrap();
    let said = last_line(&sides, &["put", "e", "new/deep/"], 0);
    let none = "0 files, 0 bytes; 0 skipped, 0 failed";
    assert_eq!(said, format!("[INFO] [main] Sent e: {none}"));
    check_same(&here.join("e"), &sides.tree.root("new/deep/e"));
    fs::create_dir(here.join("nothing")).unwrap();
    last_line(&sides, &["put", "nothing", "/"], 0);
    assert!(sides.tree.root("nothing").is_dir());
    last_line(&sides, &["put", "nothing/.", "/"], 0);
}

#[test]
fn only_a_folder_that_is_there_counts_as_there() {
    let here = tempfile::tempdir().unwrap();
    fs::create_dir_all(here.path().join("e")).unwrap();
    let check = |created: &'static str, looked: &'static str, code, says: &str| {
        let (port, _) = scripted(move |request| {
            Some(match request.starts_with("MKCOL") {
                true => created,
                false => looked,
            })
        });
        let ran = run_command(at_port(port, here.path(), &["put", "e"]), b"").expect(code);
        ran.check_says(says);
    };
    let done = "Sent e: 0 files, 0 bytes; 0 skipped, 0 failed";
    let file = "200 OK\r\nLast-Modified: Fri, 27 Nov 2026 20:52:31 GMT";
    let to_folder = "301 Moved Permanently\r\nLocation: /e/";
    check("201 Created", "500 Error", 0, done);
    check("405 Method Not Allowed", to_folder, 0, done);
    check("501 Not Implemented", to_folder, 0, done);
    check("405 Method Not Allowed", "200 OK", 0, done);
    check("403 Forbidden", to_folder, 0, done);
    let taken = "405 Method Not Allowed\r\nAllow: GET, MOVE";
    check(taken, "404 Not Found", 0, done);
    check(
        taken,
        file,
        1,
        "e/: the server refused: 405 Method Not Allowed",
    );
    let unmanaged = "e/: empty folders need a server with --manage; not made: 1";
    check("405 Method Not Allowed", "404 Not Found", 1, unmanaged);
    check("405 Method Not Allowed", file, 1, unmanaged);
    for status in ["403 Forbidden", "500 Error", "503 Busy"] {
        let says = format!("e/: the server refused: {status}");
        check("405 Method Not Allowed", status, 1, &says);
        check(status, "404 Not Found", 1, &says);
    }
    let elsewhere = "302 Found\r\nLocation: /login?to=/e/";
    check(
        "404 Not Found",
        elsewhere,
        1,
        "e/: the server refused: 302 Found",
    );
}

#[test]
fn a_change_is_not_asked_for_again_when_its_reply_is_lost() {
    for change in [
        &["rm", "a", "b", "c"][..],
        &["mkdir", "b"],
        &["mv", "b", "c"],
    ] {
        let (port, requests) = scripted(|request| match request {
            "DELETE /a" => Some("204 No Content"),
            _ => None,
        });
        let here = tempfile::tempdir().unwrap();
        let ran = run_command(at_port(port, here.path(), change), b"").expect(3);
        ran.check_says("b: it is not known whether this was carried out: ");
        let requests = requests.lock().unwrap();
        let lost = requests.iter().filter(|request| request.contains("/b"));
        assert_eq!(lost.count(), 1, "{requests:?}");
        assert!(!requests.iter().any(|request| request.contains("/c")));
        if change[0] == "rm" {
            ran.check_says("[ERROR] [main] c: not begun");
            ran.check_says("file-client: 2 of 3 requests failed");
        }
    }
}

#[test]
fn what_a_client_that_was_killed_left_is_removed_where_nothing_is_saved_too() {
    let sides = sides(&[]);
    let here = sides.here.path();
    fs::create_dir_all(sides.tree.root("f/sub")).unwrap();
    fs::write(sides.tree.root("f/sub/a"), "a").unwrap();
    last_line(&sides, &["get", "f/"], 0);
    let name = ".quartet-download-67e55044-10b1-426f-9247-bb680e5fe0c8";
    let two_days_ago = SystemTime::now() - Duration::from_secs(2 * 24 * 3600);
    for folder in ["f", "f/sub"] {
        let file = File::create(here.join(folder).join(name)).unwrap();
        file.set_permissions(Permissions::from_mode(0o600)).unwrap();
        file.set_modified(two_days_ago).unwrap();
    }
    let said = last_line(&sides, &["get", "f/", "--update"], 0);
    assert!(said.contains("0 files, 0 bytes; 1 skipped"), "{said}");
    assert_eq!(contents(&here.join("f")).len(), 2, "{:?}", contents(here));
}

#[test]
fn what_a_folder_has_not_begun_is_counted_and_its_exit_code_is_the_highest() {
    let (port, _) = scripted(|_| Some("401 Unauthorized"));
    let here = tempfile::tempdir().unwrap();
    fs::create_dir_all(here.path().join("f/sub")).unwrap();
    // It cannot be read.
    symlink("/proc/self/mem", here.path().join("f/a")).unwrap();
    for name in ["b", "c", "d"] {
        fs::write(here.path().join("f/sub").join(name), name).unwrap();
    }
    let ran = run_command(at_port(port, here.path(), &["put", "f"]), b"").expect(2);
    ran.check_says("[ERROR] [main] cannot read f/a: ");
    ran.check_says("the server refused: 401 Unauthorized; --auth-file FILE says who asks");
    ran.check_says("Sent f: 0 files, 0 bytes; 0 skipped, 2 failed, at least 2 not begun");
    assert_eq!(said(&ran).last(), Some(&"file-client: f: 2 failed"));
    assert_eq!(said(&ran).len(), 4, "{}", ran.stderr);
}

#[test]
fn a_failure_stops_nothing_else_and_is_the_exit_code() {
    let sides = sides(&["--max-upload", "4"]);
    let here = sides.here.path();
    fs::create_dir(here.join("f")).unwrap();
    fs::write(here.join("f/long"), "longer").unwrap();
    fs::write(here.join("f/short"), "abc").unwrap();
    let ran = client(&sides.server, here, &["put", "f", "-q"]).expect(1);
    let says = "f/long: the server refused: 413 Content Too Large, the upload exceeds 4 bytes";
    let failed = "file-client: f: 1 failed";
    assert_eq!(said(&ran), [&format!("[ERROR] [main] {says}"), failed]);
    assert!(sides.tree.root("f/short").exists());
    // A folder is in the way of a file, a file in the way of a folder, and a link is not written through.
    fs::create_dir_all(sides.tree.root("f/sub")).unwrap();
    for name in ["a", "b", "sub/c"] {
        fs::write(sides.tree.root("f").join(name), "there").unwrap();
    }
    fs::remove_dir_all(here.join("f")).unwrap();
    fs::create_dir_all(here.join("f/a")).unwrap();
    fs::write(here.join("f/sub"), "file").unwrap();
    symlink("../mine.txt", here.join("f/b")).unwrap();
    let ran = client(&sides.server, here, &["get", "f/"]).expect(2);
    let mut lines = said(&ran);
    lines.sort();
    let link = "it is a symbolic link, and none is followed there";
    assert_eq!(
        lines,
        [
            "[ERROR] [main] cannot write f/a: is a directory",
            &format!("[ERROR] [main] cannot write f/b: {link}"),
            "[ERROR] [walk] cannot write f/sub: Not a directory (os error 20)",
            "[INFO] [main] Saved f: 1 file, 3 bytes; 0 skipped, 3 failed",
            "file-client: f: 3 failed",
        ]
    );
    assert_eq!(fs::read_to_string(here.join("mine.txt")).unwrap(), "mine\n");
}

#[test]
fn a_server_that_is_gone_is_said_once() {
    let sides = sides(&[]);
    let here = sides.here.path();
    fs::create_dir(here.join("g")).unwrap();
    for name in ["a", "b", "c"] {
        fs::write(here.join("g").join(name), name).unwrap();
    }
    let mut client = command(&sides, &["put", "g"]);
    client.args(["-j", "2"]);
    sides.server.end();
    let ran = run_command(client, b"").expect(3);
    assert_eq!(
        ran.stderr.matches("cannot connect").count(),
        1,
        "{}",
        ran.stderr
    );
}

#[test]
fn two_that_get_one_folder_meet_at_large_files_alone() {
    let sides = sides(&[]);
    let here = sides.here.path();
    fs::create_dir(sides.tree.root("f")).unwrap();
    fs::create_dir(here.join("f")).unwrap();
    let other_client = ["small", "large"].map(|name| {
        let bytes = if name == "small" { 7 } else { 2_000_000 };
        fs::write(sides.tree.root("f").join(name), vec![b'a'; bytes]).unwrap();
        let part = File::create(here.join(format!("f/.quartet-download-{name}"))).unwrap();
        part.set_permissions(Permissions::from_mode(0o600)).unwrap();
        part.try_lock().unwrap();
        part
    });
    let ran = client(&sides.server, here, &["get", "f/", "--resume"]).expect(2);
    ran.check_says("another client is writing f/.quartet-download-large");
    ran.check_says("Saved f: 1 file, 7 bytes; 0 skipped, 1 failed");
    drop(other_client);
    last_line(&sides, &["get", "f/", "--resume"], 0);
}

#[test]
fn a_file_that_comes_encoded_is_none() {
    let reply = "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd";
    let port = fake_server(reply.into(), Then::Close);
    let here = tempfile::tempdir().unwrap();
    for output in ["a", "-"] {
        let ran = run_command(at_port(port, here.path(), &["get", "a", "-o", output]), b"");
        let says = "a: the server sends it encoded as gzip, which was not asked for";
        ran.expect(3).check_says(says);
    }
    assert_eq!(contents(here.path()).len(), 0);
}

/// How many whole files there are below a folder.
fn whole_files(folder: &Path) -> usize {
    let contents = contents(folder);
    let is_whole = |path: &&PathBuf| path.is_file() && !is_sidecar(path);
    contents.keys().filter(is_whole).count()
}

#[test]
fn a_folder_that_is_cut_off_again_and_again_arrives_whole() {
    let sides = sides(&[]);
    let here = |name: &str| sides.here.path().join(name);
    for number in 0..120_u32 {
        let folder = here("cut").join(format!("{}", number % 7));
        fs::create_dir_all(&folder).unwrap();
        let bytes = (number + 1) * if number % 10 == 0 { 40_000 } else { 100 };
        fs::write(
            folder.join(number.to_string()),
            vec![number as u8; bytes as usize],
        )
        .unwrap();
    }
    let cut_off = |args: &[&str], folder: &Path| {
        for _ in 0..10 {
            let before = whole_files(folder);
            let mut client = command(&sides, args);
            client.args(["--resume", "--update", "-j", "3"]);
            let client = Running::start(client);
            eventually("more of it is there", || {
                whole_files(folder) > before || client.ended().is_some()
            });
            client.kill();
        }
        let args = [args, &["--resume", "--update"]].concat();
        last_line(&sides, &args, 0);
    };
    cut_off(&["put", "cut"], &sides.tree.root("cut"));
    check_same(&here("cut"), &sides.tree.root("cut"));
    cut_off(&["get", "cut/", "-o", "back"], &here("back"));
    check_same(&here("cut"), &here("back"));
}
