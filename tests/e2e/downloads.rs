//! Downloads, as curl asks for them: versions that must not be mixed, what a browser may keep, and what
//! it is told that it gets.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use crate::file::{Tree, through_door};
use crate::harness::{Server, has_program, run_command};

/// What curl prints when it asks with these arguments; the last one is a target.
#[track_caller]
fn curl(server: &Server, args: &[&str]) -> String {
    let (target, args) = args.split_last().unwrap();
    let mut command = server.curl(target);
    command.args(["--silent", "--show-error", "--max-time", "30"]);
    command.args(args);
    run_command(command, b"").expect(0).out()
}

/// Writes a file that was last changed so long ago.
fn write(path: &Path, bytes: impl AsRef<[u8]>, age: Duration) {
    fs::write(path, bytes).unwrap();
    let file = File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - age).unwrap();
}

#[test]
fn a_date_does_not_join_two_versions_of_one_second() {
    if !has_program("curl") {
        return;
    }
    let tree = Tree::new();
    let server = tree.start(&[]);
    // Within the second that the date names, the file may have been another before.
    let check = |age: u64, want: &str| {
        let path = tree.root("log");
        write(&path, "old old ", Duration::from_secs(age));
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        let head = curl(&server, &["--dump-header", "-", "--range", "0-3", "/log"]);
        assert!(head.ends_with("old "), "{head}");
        let date = head
            .lines()
            .find_map(|line| line.strip_prefix("Last-Modified: "));
        let date = format!("If-Range: {}", date.unwrap().trim_end());
        fs::write(&path, "new new ").unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        file.set_modified(modified).unwrap();
        let rest = curl(&server, &["--range", "4-", "--header", &date, "/log"]);
        assert_eq!(rest, want, "{age} s ago");
    };
    check(0, "new new ");
    check(30, "new new ");
    // Then who changes a file changes its date.
    check(3600, "new ");
}

#[test]
fn a_browser_asks_whether_what_it_has_kept_is_still_right() {
    if !has_program("curl") {
        return;
    }
    let tree = Tree::new();
    let server = tree.start(&[]);
    let old = Duration::from_secs(100 * 24 * 3600);
    write(&tree.root("plain/a.txt"), "old", old);
    let etag = curl(&server, &["--head", "/plain/a.txt"]);
    let etag = etag.lines().find_map(|line| line.strip_prefix("ETag: "));
    let etag = format!("If-None-Match: {}", etag.unwrap().trim_end());
    for (status, args) in [
        ("200", &["/plain/a.txt"][..]),
        ("206", &["--range", "0-0", "/plain/a.txt"]),
        ("304", &["--header", &etag, "/plain/a.txt"]),
        ("200", &["/site/"]),
        ("200", &["/plain/"]),
        ("200", &["/plain/?json"]),
        ("301", &["/plain"]),
        ("404", &["/none"]),
    ] {
        // Also of what the server keeps in memory.
        for _ in 0..3 {
            let said = curl(&server, &[&["--dump-header", "-"], args].concat());
            assert!(
                said.starts_with(&format!("HTTP/1.1 {status} ")),
                "{args:?}: {said}"
            );
            let field = format!("\r\n{}\r\n", through_door("Cache-Control: no-cache"));
            assert_eq!(said.matches(&field).count(), 1, "{said}");
        }
    }
}

#[test]
fn what_can_be_read_is_said_to_be_text_and_in_which_encoding_if_that_is_known() {
    if !has_program("curl") {
        return;
    }
    let tree = Tree::new();
    let server = tree.start(&[]);
    let latin = "gr\u{fc}\u{df}e\n"
        .chars()
        .map(|c| c as u8)
        .collect::<Vec<_>>();
    let utf8 = "grüße\n".as_bytes();
    let video = [0x47, 0x40, 0, 0x10];
    for (name, bytes, want) in [
        ("page.html", utf8, "text/html"),
        ("page.html", &latin, "text/html"),
        ("a.txt", utf8, "text/plain; charset=utf-8"),
        ("a.txt", &latin, "text/plain"),
        ("README", utf8, "text/plain; charset=utf-8"),
        ("LICENSE", &latin, "text/plain"),
        ("Makefile", b"all:\n", "text/plain; charset=utf-8"),
        (".gitignore", b"target\n", "text/plain; charset=utf-8"),
        ("a.sh", b"exit\n", "text/plain; charset=utf-8"),
        ("a.jsonl", b"{}\n", "text/plain; charset=utf-8"),
        ("a.ts", b"let a;\n", "text/plain; charset=utf-8"),
        ("a.ts", &video, "video/mp2t"),
        ("a.cjs", b"1;\n", "text/javascript; charset=utf-8"),
        ("core", b"\x7fELF\0", "application/octet-stream"),
    ] {
        // One that was just written is not kept in memory, another is.
        for age in [0, 3600] {
            write(&tree.root(name), bytes, Duration::from_secs(age));
            let target = format!("/{name}");
            let show = [
                "--output",
                "/dev/null",
                "--write-out",
                "%{content_type}",
                &target,
            ];
            for args in [&[][..], &["--range", "0-1"], &["--head"]] {
                assert_eq!(curl(&server, &[args, &show].concat()), want, "{name}");
            }
        }
    }
}

#[test]
fn an_upload_whose_source_pauses_is_waited_for() {
    if !has_program("curl") {
        return;
    }
    let tree = Tree::new();
    let upload = |server: &Server, name: &str| {
        let script = "(echo a; sleep 1; echo b) | \"$0\" \"$@\" --silent --max-time 30 -T -";
        let curl = server.curl(&format!("/{name}"));
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command.arg(curl.get_program()).args(curl.get_args());
        run_command(command, b"").expect(0).out()
    };
    let impatient = tree.start(&["--body-timeout", "0.2"]);
    let said = upload(&impatient, "lost");
    assert_eq!(said, "the body did not arrive in time\n");
    assert!(!tree.root("lost").exists());
    let patient = tree.start(&["--body-timeout", "20"]);
    assert_eq!(upload(&patient, "kept"), "File received and saved\n");
    assert_eq!(fs::read(tree.root("kept")).unwrap(), b"a\nb\n");
}
