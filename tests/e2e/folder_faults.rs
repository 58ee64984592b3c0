//! Whole folders where something goes wrong: a file that is refused, a server that makes no folders or is
//! gone, a client that is killed again and again.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use crate::file::contents;
use crate::file_client::{Sides, client, command as at_port, said, sides};
use crate::folders::{check_same, is_sidecar, last_line};
use crate::harness::{PATIENCE, Running, eventually, program, run_command};

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
            "[ERROR] [main] e/empty/: empty folders need a server with --manage; not made: 2";
        let sent = "[INFO] [main] Sent e: 1 file, 1 bytes; 0 skipped, 2 failed";
        assert_eq!(said(&ran), [says, sent, "file-client: e: 2 failed"]);
    }
    assert!(sides.tree.root("e/full/er/a").exists());
    assert!(!sides.tree.root("e/empty").exists());
}

#[test]
fn a_server_is_asked_for_empty_folders_from_the_top_down() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // It has none, and makes each.
    let server = thread::spawn(move || {
        let stream = listener.accept().unwrap().0;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
        let mut requests = Vec::new();
        while let Some(request) = lines.next() {
            let _fields = lines.by_ref().take_while(|line| !line.is_empty()).count();
            let status = match request.starts_with("MKCOL") {
                true => "201 Created",
                false => "404 Not Found",
            };
            write!(&stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").unwrap();
            requests.push(request);
        }
        requests
    });
    let here = tempfile::tempdir().unwrap();
    fs::create_dir_all(here.path().join("e/ a/b")).unwrap();
    let ran = run_command(at_port(port, here.path(), &["put", "e"]), b"").expect(0);
    let none = "[INFO] [main] Sent e: 0 files, 0 bytes; 0 skipped, 0 failed";
    assert_eq!(said(&ran), [none]);
    let paths = ["/e/", "/e/%20a/", "/e/%20a/b/"];
    let asked = |path| ["HEAD", "MKCOL"].map(|method| format!("{method} {path} HTTP/1.1"));
    let asked: Vec<_> = paths.into_iter().flat_map(asked).collect();
    assert_eq!(server.join().unwrap(), asked);
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
