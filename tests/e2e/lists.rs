//! The lists of very large folders, and who asks for them: what is left out is said, nobody takes more
//! memory for them than there is, and no program that follows links gets a folder twice.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;
use std::thread;

use crate::file::{Tree, ask, get};
use crate::harness::{
    Needs, Then, fake_server, has_door, has_program, program, python, run, run_command, signed,
};

const MIB: usize = 1 << 20;

/// Fills a folder with empty files, which are links to a few: that is faster.
fn fill(folder: &Path, files: usize) {
    /// A file may have some 65,000 names.
    const LINKS: usize = 50_000;
    fs::create_dir(folder).unwrap();
    let mut first = None;
    for number in 0..files {
        let path = folder.join(format!("{number:06}"));
        match &first {
            Some(first) if number % LINKS != 0 => fs::hard_link(first, path).unwrap(),
            _ => {
                fs::write(&path, "").unwrap();
                first = Some(path);
            }
        }
    }
}

#[test]
fn a_list_that_lacks_some_names_says_so() {
    let tree = Tree::new();
    fill(&tree.root("many"), 100_100);
    let server = tree.start(&[]);
    let host = server.host_and_ports();
    let mut line: Vec<_> = host.iter().map(String::as_str).collect();
    line.extend(["list", "many"]);
    let ran = run("file-client", &line, b"").expect(1);
    assert_eq!(
        ran.stdout.iter().filter(|byte| **byte == b'\n').count(),
        100_000
    );
    assert!(
        ran.stderr.contains("many: the list is not complete"),
        "{}",
        ran.stderr
    );
    line[host.len() + 1] = "plain";
    let ran = run("file-client", &line, b"").expect(0);
    assert!(ran.out().starts_with("a.txt\t1\t"), "{}", ran.out());
    if has_door(Needs::Plain, "the script knows plain TCP alone") && has_program("python3") {
        python("lists.py", &[format!("http://{}", server.addr())]).expect(0);
    }
}

#[test]
fn lists_that_nobody_reads_take_little_memory_and_keep_nobody_waiting() {
    let tree = Tree::new();
    fill(&tree.root("many"), 20_000);
    let server = tree.start(&["--read-only"]);
    let at_start = server.peak_bytes();
    let open = |target: &str| {
        let mut stream = server.connect();
        stream.write_all(&signed(get(target).as_bytes())).unwrap();
        // The list has begun.
        stream.read_exact(&mut [0; 20]).unwrap();
        stream
    };
    let unread: Vec<_> = thread::scope(|scope| {
        let open = &open;
        let targets = ["/many/?json", "/many/", "/many/?json", "/many/?sort=size"]
            .into_iter()
            .cycle();
        let threads = targets
            .take(24)
            .map(|target| scope.spawn(move || open(target)));
        let threads: Vec<_> = threads.collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert!(ask(&server, get("/plain/?json")).text().contains("a.txt"));
    let mut whole = open("/many/?json");
    let mut list = Vec::new();
    let mut piece = vec![0; MIB];
    while !list.ends_with(b"\"complete\":true}\n\r\n0\r\n\r\n") {
        let bytes = whole.read(&mut piece).unwrap();
        assert_ne!(bytes, 0, "{}", String::from_utf8_lossy(&list));
        list.extend_from_slice(&piece[..bytes]);
    }
    let taken = server.peak_bytes() - at_start;
    assert!(taken < 120 * MIB, "{} MiB", taken / MIB);
    drop(unread);
}

#[test]
fn who_follows_all_links_gets_each_folder_once() {
    if !has_door(Needs::Plain, "wget is told of no door") {
        return;
    }
    if !has_program("wget") {
        return;
    }
    let tree = Tree::new();
    fs::create_dir_all(tree.root("plain/deep/deeper")).unwrap();
    fs::write(tree.root("plain/deep/deeper/b.txt"), "b").unwrap();
    // Three pages. What is on them would take long.
    fill(&tree.root("plain/long"), 2050);
    let server = tree.start(&["--verbose"]);
    let here = tempfile::tempdir().unwrap();
    let mut command = Command::new("wget");
    command.current_dir(here.path());
    command.args([
        "--no-verbose",
        "--no-proxy",
        "--tries=1",
        "--recursive",
        "--execute=robots=off",
        "--reject-regex=/long/0",
    ]);
    command.arg(format!("http://{}/plain/", server.addr()));
    run_command(command, b"").expect(0);
    let log = server.end();
    let mut targets: Vec<_> = log
        .lines()
        .filter_map(|line| line.split("] GET ").nth(1))
        .collect();
    targets.sort_unstable();
    // The log does not say which page.
    let pages = targets.extract_if(.., |target| *target == "/plain/long/");
    assert_eq!(pages.count(), 3);
    let mut once = targets.clone();
    once.dedup();
    assert_eq!(targets, once);
    assert!(targets.contains(&"/plain/deep/deeper/b.txt"), "{targets:?}");
}

/// What the client says of a list, when it may take little memory.
#[track_caller]
fn check_hostile(start: &str, rest: &str, says: &str) {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n";
    let rest = rest.repeat(64 * MIB / rest.len());
    let port = fake_server([head, start, &rest].concat().into_bytes(), Then::Close);
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -v 200000; exec \"$0\" \"$@\""]);
    command.arg(program("file-client"));
    command.args(["127.0.0.1", &port.to_string(), "list"]);
    let ran = run_command(command, b"").expect(1);
    assert!(ran.stderr.contains(says), "{start}: {}", ran.stderr);
}

#[test]
fn a_hostile_list_takes_no_memory() {
    check_hostile("", "[0],", "no list");
    check_hostile("{\"entries\":[", "[0],", "no list");
    check_hostile("{\"entries\":[", "{\"\":0},", "no list");
    check_hostile("{\"entries\":[{\"new\":[", "[0],", "too long");
    check_hostile("{\"new\":[", "{\"\":0},", "too long");
    check_hostile("{\"entries\":[{\"name\":\"", "xxxxxxxx", "too long");
    check_hostile("{\"", "xxxxxxxx", "too long");
}
