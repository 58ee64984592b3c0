//! Whole folders, there and back: every name that a file can have, links, empty folders, patterns, and
//! files that need no transfer.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::iter;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, Mode, mkfifoat};

use crate::file::contents;
use crate::file_client::{Sides, client, said, sides};
use crate::harness::run_command;

/// Names that a file can have, and that something between here and there may take for something else.
pub const NAMES: [&[u8]; 22] = [
    b"plain.txt",
    b"two words",
    b"percent%41",
    b"question?mark",
    b"hash#tag",
    b"star*",
    b"[bracket]",
    b"quote\"'`",
    b"<b>&amp;",
    b"semi;colon,comma",
    b"back\\slash",
    b"http:colon",
    b"line\nbreak\r\ttab",
    b"-o",
    b"--update",
    b".hidden",
    b"...",
    b"..a",
    b"\xff\xfe not UTF-8",
    "\u{e4}\u{1f600}\u{202e}".as_bytes(),
    b"$HOME $(id)",
    b".quarter",
];

pub fn name(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}

/// Files and folders of all names, in several folders.
fn plant_odd_names(top: &Path) {
    fs::create_dir_all(top.join("a/b/c/d/e/f/g")).unwrap();
    fs::write(top.join("a/b/c/d/e/f/g/deep"), "deep").unwrap();
    for bytes in NAMES {
        fs::write(top.join(name(bytes)), bytes).unwrap();
        let folder = top.join("folders").join(name(bytes));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(name(bytes)), bytes).unwrap();
    }
    let long = top.join("n".repeat(255));
    fs::create_dir(&long).unwrap();
    fs::write(long.join("m".repeat(255)), "long").unwrap();
    fs::write(top.join("empty"), "").unwrap();
    fs::write(top.join("large"), vec![7; 3_000_000]).unwrap();
}

pub fn is_sidecar(path: &Path) -> bool {
    let name = path.file_name().unwrap();
    name.as_bytes().starts_with(b".quartet-")
}

/// Nothing differs below two folders: neither a name nor a byte.
#[track_caller]
pub fn check_same(one: &Path, other: &Path) {
    let mut diff = Command::new("diff");
    // What a server keeps of uploads that were complete.
    diff.args(["-r", "-x", ".quartet-*"]).args([one, other]);
    let ran = run_command(diff, b"").expect(0);
    assert_eq!(ran.out(), "");
    let names = |folder: &Path| {
        let paths = contents(folder).into_keys();
        let paths = paths.filter(|path| !is_sidecar(path));
        let paths = paths.map(|path| path.strip_prefix(folder).unwrap().to_owned());
        paths.collect::<Vec<_>>()
    };
    assert_eq!(names(one), names(other));
}

/// Runs the client; the last line that it says.
#[track_caller]
pub fn last_line(sides: &Sides, args: &[&str], code: i32) -> String {
    let ran = client(&sides.server, sides.here.path(), args).expect(code);
    assert_eq!(ran.out(), "");
    said(&ran).last().copied().unwrap_or_default().to_owned()
}

#[test]
fn every_name_goes_there_and_comes_back() {
    let sides = sides(&[]);
    let here = |name: &str| sides.here.path().join(name);
    plant_odd_names(&here("odd"));
    let files = contents(&here("odd"));
    let files = files.keys().filter(|path| path.is_file()).count();
    let bytes: usize = contents(&here("odd")).values().map(Vec::len).sum();
    let counts = format!("{files} files, {bytes} bytes; 0 skipped, 0 failed");
    let said = last_line(&sides, &["put", "odd", "-j", "4"], 0);
    assert_eq!(said, format!("[INFO] [main] Sent odd: {counts}"));
    check_same(&here("odd"), &sides.tree.root("odd"));
    let said = last_line(&sides, &["get", "odd/", "-o", "back", "-j", "4"], 0);
    assert_eq!(said, format!("[INFO] [main] Saved back: {counts}"));
    check_same(&here("odd"), &here("back"));
    // With state on the disk, and where the files are already.
    let resumed = ["put", "odd", "again", "--resume", "--quiet"];
    assert_eq!(last_line(&sides, &resumed, 0), "");
    check_same(&here("odd"), &sides.tree.root("again"));
    let said = last_line(&sides, &["get", "/again/", "-o", "back", "--resume"], 0);
    assert_eq!(said, format!("[INFO] [main] Saved back: {counts}"));
    check_same(&here("odd"), &here("back"));
}

#[test]
fn a_folder_has_its_name_on_the_other_side_too() {
    let sides = sides(&[]);
    let here = |name: &str| sides.here.path().join(name);
    fs::create_dir_all(here("a/b")).unwrap();
    fs::write(here("a/b/c"), "c").unwrap();
    for (args, there) in [
        (&["put", "a"][..], "a/b/c"),
        (&["put", "a/", "new/"], "new/a/b/c"),
        (&["put", "./a", "/other"], "other/b/c"),
        (&["put", "a/b", "/"], "b/c"),
        (&["put", "a/b/..", "root/"], "root/b/c"),
    ] {
        last_line(&sides, args, 0);
        let there = sides.tree.root(there);
        assert_eq!(fs::read_to_string(&there).unwrap(), "c", "{args:?}");
    }
    for (args, here_path) in [
        (&["get", "new/a/", "-o", "x"][..], "x/b/c"),
        (&["get", "new/"], "new/a/b/c"),
        (&["get", "/other/", "-o", "folder/"], "folder/b/c"),
        (&["get", "/", "-o", "."], "root/b/c"),
    ] {
        last_line(&sides, args, 0);
        assert_eq!(
            fs::read_to_string(here(here_path)).unwrap(),
            "c",
            "{args:?}"
        );
    }
    let said = last_line(&sides, &["get", "gone/"], 1);
    let refused = "the server refused: 404 Not Found, there is no such file";
    assert_eq!(said, format!("file-client: gone/: {refused}"));
    let said = last_line(&sides, &["get", "a/b/c/"], 1);
    assert!(said.contains("the server refused"), "{said}");
    assert!(!here("gone").exists() && !here("c").exists());
    let said = last_line(&sides, &["get", "a/", "-o", "no/where"], 2);
    assert!(said.contains("cannot write no/where"), "{said}");
    let said = last_line(&sides, &["get", "a/", "-o", "mine.txt"], 2);
    assert!(said.contains("cannot write mine.txt"), "{said}");
}

#[test]
fn an_empty_folder_is_made_here_and_there() {
    let sides = sides(&["--manage"]);
    let here = sides.here.path();
    fs::create_dir_all(sides.tree.root("e/empty/deep")).unwrap();
    let said = last_line(&sides, &["get", "e/"], 0);
    let none = "0 files, 0 bytes; 0 skipped, 0 failed";
    assert_eq!(said, format!("[INFO] [main] Saved e: {none}"));
    check_same(&sides.tree.root("e"), &here.join("e"));
    for _ in 0..2 {
        let said = last_line(&sides, &["put", "e", "back"], 0);
        assert_eq!(said, format!("[INFO] [main] Sent e: {none}"));
        check_same(&here.join("e"), &sides.tree.root("back"));
    }
}

#[test]
fn a_link_to_a_folder_that_the_folder_lies_in_is_left_out() {
    let sides = sides(&[]);
    let here = sides.here.path();
    for folder in ["top/in/sub", "other/beside"] {
        fs::create_dir_all(here.join(folder)).unwrap();
    }
    for file in ["top/private", "other/beside/o", "top/in/a"] {
        fs::write(here.join(file), "text").unwrap();
    }
    fs::write(here.join("top/in/sub/s"), "text").unwrap();
    // The last two lie in a folder that a link leads to.
    for (link, target) in [
        ("top/in/up", ".."),
        ("top/in/sub/higher", "../../.."),
        ("top/in/beside", "../../other/beside"),
        ("other/beside/up", ".."),
        ("other/beside/back", "../../top"),
    ] {
        symlink(target, here.join(link)).unwrap();
    }
    let ran = client(&sides.server, here, &["put", "top/in"]).expect(0);
    ran.check_says("Sent top/in: 3 files, 12 bytes; 4 skipped, 0 failed");
    for link in ["up", "sub/higher", "beside/up", "beside/back"] {
        let why = "it is a link to a folder that it is in";
        ran.check_says(&format!("top/in/{link} is left out: {why}"));
    }
    let there = contents(&sides.tree.root("in")).into_keys();
    let files: Vec<_> = there.filter(|path| path.is_file()).collect();
    let want = ["in/a", "in/beside/o", "in/sub/s"];
    assert_eq!(files, want.map(|path| sides.tree.root(path)));
}

#[test]
fn names_that_are_reserved_are_named() {
    let sides = sides(&["--manage"]);
    let here = sides.here.path();
    fs::create_dir_all(here.join("r/.quartet-mine")).unwrap();
    fs::create_dir_all(sides.tree.root("back")).unwrap();
    for name in [".Quartet-notes", ".QUARTET-upload-x", "a"] {
        fs::write(here.join("r").join(name), name).unwrap();
        fs::write(sides.tree.root("back").join(name), name).unwrap();
    }
    // What a client keeps for itself is not named.
    for kind in ["upload", "download", "resume", "state"] {
        fs::write(here.join(format!("r/.quartet-{kind}-a")), "").unwrap();
    }
    let why = "names that begin with .quartet- are reserved";
    let ran = client(&sides.server, here, &["put", "r"]).expect(0);
    ran.check_says("Sent r: 1 file, 1 bytes; 3 skipped, 0 failed");
    for name in [".Quartet-notes", ".QUARTET-upload-x", ".quartet-mine"] {
        ran.check_says(&format!("r/{name} is left out: {why}"));
    }
    assert_eq!(fs::read_dir(sides.tree.root("r")).unwrap().count(), 1);
    let ran = client(&sides.server, here, &["get", "back/"]).expect(0);
    ran.check_says("Saved back: 1 file, 1 bytes; 2 skipped, 0 failed");
    for name in [".Quartet-notes", ".QUARTET-upload-x"] {
        ran.check_says(&format!("back/{name} is left out: {why}"));
    }
}

#[test]
fn a_change_in_the_second_of_the_upload_is_sent() {
    let sides = sides(&[]);
    let file = |name: &str| sides.here.path().join("s").join(name);
    fs::create_dir(file("")).unwrap();
    fs::write(file("f"), "aaaa").unwrap();
    last_line(&sides, &["put", "s"], 0);
    let there = File::options()
        .write(true)
        .open(sides.tree.root("s/f"))
        .unwrap();
    let second = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    there
        .set_modified(second + Duration::from_millis(100))
        .unwrap();
    for (text, after, counts) in [
        ("bbbb", 500, "1 file, 4 bytes; 0 skipped, 0 failed"),
        ("cccc", 1, "1 file, 4 bytes; 0 skipped, 0 failed"),
        // As get leaves it, which gives it the server's time.
        ("dddd", 0, "0 files, 0 bytes; 1 skipped, 0 failed"),
    ] {
        fs::write(file("f"), text).unwrap();
        let here = File::options().write(true).open(file("f")).unwrap();
        here.set_modified(second + Duration::from_millis(after))
            .unwrap();
        let said = last_line(&sides, &["put", "s", "--update"], 0);
        assert_eq!(said, format!("[INFO] [main] Sent s: {counts}"), "{text}");
        let there = File::options()
            .write(true)
            .open(sides.tree.root("s/f"))
            .unwrap();
        there
            .set_modified(second + Duration::from_millis(100))
            .unwrap();
    }
}

#[test]
fn a_path_that_no_request_has_room_for_is_named_and_the_rest_is_sent() {
    let sides = sides(&["--manage"]);
    let deep = |levels| -> PathBuf { iter::repeat_n("\u{e9}".repeat(100), levels).collect() };
    let here = sides.here.path().join("long");
    fs::create_dir_all(here.join(deep(14)).join("none")).unwrap();
    fs::write(here.join(deep(14)).join("f"), "f").unwrap();
    fs::write(here.join("short"), "s").unwrap();
    let there = deep(8);
    let args = ["put", "long", there.to_str().unwrap()];
    let ran = client(&sides.server, sides.here.path(), &args).expect(1);
    ran.check_says("Sent long: 1 file, 1 bytes; 0 skipped, 2 failed");
    let says = ": the path exceeds 12288 bytes when it is percent-encoded";
    assert_eq!(ran.stderr.matches(says).count(), 2, "{}", ran.stderr);
    assert!(sides.tree.root("").join(there).join("short").exists());
}

#[test]
fn several_at_once_need_several_files() {
    let sides = sides(&[]);
    let says = "mine.txt: --jobs needs a folder to send, and that is none";
    sides.check_says(&["put", "mine.txt", "-j", "1"], 2, says);
    assert!(!sides.tree.root("mine.txt").exists());
}

#[test]
fn links_are_followed_there_and_those_without_end_are_left_out() {
    let sides = sides(&[]);
    let here = sides.here.path();
    fs::create_dir_all(here.join("l/sub/deep")).unwrap();
    fs::create_dir(here.join("other")).unwrap();
    fs::write(here.join("other/o"), "o").unwrap();
    fs::write(here.join("l/sub/a"), "a").unwrap();
    fs::write(here.join("l/sub/deep/d"), "d").unwrap();
    for (link, target) in [
        ("l/file", "sub/a"),
        ("l/outside", "../mine.txt"),
        ("l/folder", "../other"),
        ("l/sub/deep/up", ".."),
        ("l/sub/top", "../../l"),
        ("l/here", "."),
        ("l/dangling", "gone"),
    ] {
        symlink(target, here.join(link)).unwrap();
    }
    mkfifoat(CWD, here.join("l/fifo"), Mode::RWXU).unwrap();
    // What a client that was killed left behind is not sent.
    fs::write(here.join("l/.quartet-upload-a"), "{}").unwrap();
    let ran = client(&sides.server, here, &["put", "l"]).expect(0);
    let mut lines = said(&ran);
    lines.sort();
    let end = "it is a link to a folder that it is in";
    let left_out = |path: &str, why: &str| format!("[WARN] [walk] l/{path} is left out: {why}");
    let mut want = vec![
        "[INFO] [main] Sent l: 5 files, 9 bytes; 5 skipped, 0 failed".to_owned(),
        left_out("dangling", "it is a link that leads nowhere"),
        left_out("fifo", "it is not a regular file"),
        left_out("here", end),
        left_out("sub/deep/up", end),
        left_out("sub/top", end),
    ];
    want.sort();
    assert_eq!(lines, want);
    for (name, text) in [
        ("file", "a"),
        ("outside", "mine\n"),
        ("folder/o", "o"),
        ("sub/a", "a"),
        ("sub/deep/d", "d"),
    ] {
        let there = sides.tree.root("l").join(name);
        assert_eq!(fs::read_to_string(there).unwrap(), text, "{name}");
    }
}

#[test]
fn a_file_that_is_the_same_on_both_sides_is_skipped() {
    let sides = sides(&[]);
    let here = sides.here.path();
    let there = |name: &str| sides.tree.root("u").join(name);
    fs::create_dir(there("")).unwrap();
    let time = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let set = |path: &Path, text: &str, seconds| {
        fs::write(path, text).unwrap();
        let file = File::options().write(true).open(path).unwrap();
        file.set_modified(time(seconds)).unwrap();
    };
    for name in ["a", "b", "c"] {
        set(&there(name), "old", 1_000_000_000);
    }
    let get = |option: &str, counts: &str| {
        let said = last_line(&sides, &["get", "u/", option], 0);
        assert_eq!(said, format!("[INFO] [main] Saved u: {counts}"), "{option}");
    };
    get("--update", "3 files, 9 bytes; 0 skipped, 0 failed");
    // It has the time of the server's, so that it is known again.
    let modified = fs::metadata(here.join("u/a")).unwrap().modified();
    assert_eq!(modified.unwrap(), time(1_000_000_000));
    get("--update", "0 files, 0 bytes; 3 skipped, 0 failed");
    set(&there("a"), "longer", 1_000_000_000);
    set(&there("b"), "new", 1_000_000_001);
    set(&there("c"), "evi", 1_000_000_000);
    get("--update", "2 files, 9 bytes; 1 skipped, 0 failed");
    get("--update=digest", "1 file, 3 bytes; 2 skipped, 0 failed");
    get("--update=digest", "0 files, 0 bytes; 3 skipped, 0 failed");
    check_same(&there(""), &here.join("u"));

    let put = |option: &str, counts: &str| {
        let said = last_line(&sides, &["put", "u", option], 0);
        assert_eq!(said, format!("[INFO] [main] Sent u: {counts}"), "{option}");
    };
    put("--update", "0 files, 0 bytes; 3 skipped, 0 failed");
    set(&here.join("u/a"), "shorter", 1_000_000_000);
    set(&here.join("u/b"), "NEW", 1_000_000_002);
    set(&here.join("u/c"), "Evi", 1_000_000_000);
    put("--update", "2 files, 10 bytes; 1 skipped, 0 failed");
    put("--update=digest", "1 file, 3 bytes; 2 skipped, 0 failed");
    put("--update", "0 files, 0 bytes; 3 skipped, 0 failed");
    check_same(&there(""), &here.join("u"));

    // A single file is skipped in the same way.
    for (args, code, says) in [
        (
            &["get", "u/a", "-o", "u/a", "--update"][..],
            0,
            "Saved u/a: 7 bytes",
        ),
        (
            &["get", "u/a", "-o", "u/a", "--update"],
            0,
            "Skipped u/a: it is the same",
        ),
        (
            &["get", "u/a", "-o", "u/b", "--update=digest"],
            0,
            "Saved u/b: 7 bytes",
        ),
        (
            &["put", "u/a", "u/", "--update"],
            0,
            "Skipped u/a: it is the same",
        ),
        (
            &["put", "u/a", "u/", "--update=digest"],
            0,
            "Skipped u/a: it is",
        ),
        (&["put", "u/a", "u/new", "--update"], 0, "Sent a: 7 bytes"),
        (&["get", "u/gone", "--update"], 1, "404 Not Found"),
    ] {
        sides.check_says(args, code, says);
    }
}

#[test]
fn a_pattern_gets_the_files_that_match() {
    let sides = sides(&[]);
    let here = |name: &str| sides.here.path().join(name);
    let there = |name: &str| sides.tree.root("p").join(name);
    fs::create_dir_all(there("sub.jpg")).unwrap();
    for name in [
        "1.jpg",
        "2.jpg",
        ".hidden.jpg",
        "a.txt",
        "[12].jpg",
        "*.png",
        "x.png",
    ] {
        fs::write(there(name), name).unwrap();
    }
    let get = |path: &str, into: &str, names: &[&str]| {
        fs::create_dir(here(into)).unwrap();
        let said = last_line(&sides, &["get", path, "-o", into], 0);
        assert!(
            said.contains(&format!("{into}: {} file", names.len())),
            "{said}"
        );
        let mut got: Vec<_> = fs::read_dir(here(into))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        got.sort();
        assert_eq!(got, names, "{path}");
    };
    get("p/*.jpg", "all", &["1.jpg", "2.jpg", "[12].jpg"]);
    let short = ["*.png", "1.jpg", "2.jpg", "a.txt", "x.png"];
    get("/p/?.*", "short", &short);
    get("p/.*", "hidden", &[".hidden.jpg"]);
    get("p/[!2].jpg", "not", &["1.jpg"]);
    // A file of that name comes first, and alone.
    for name in ["[12].jpg", "*.png"] {
        let said = last_line(&sides, &["get", &format!("p/{name}")], 0);
        assert!(said.contains(&format!("Saved {name}: ")), "{said}");
        assert_eq!(fs::read_to_string(here(name)).unwrap(), name);
    }
    let ran = client(
        &sides.server,
        sides.here.path(),
        &["get", "p/*.png", "-o", "-"],
    )
    .expect(0);
    assert_eq!(ran.out(), "*.png");
    let said = last_line(&sides, &["get", "p/*.gif"], 1);
    let none = "there is no such file, and no name matches that";
    assert_eq!(said, format!("file-client: p/*.gif: {none}"));
    let said = last_line(&sides, &["get", "gone/*"], 1);
    assert!(said.contains("404 Not Found"), "{said}");
    let said = last_line(&sides, &["get", "p/*.jpg", "-o", "-"], 2);
    let one = "standard output takes one file, and there is none of that name";
    assert_eq!(said, format!("file-client: p/*.jpg: {one}"));
    // Without -o they come into the current folder.
    let said = last_line(&sides, &["get", "p/[12].jp?"], 0);
    assert_eq!(
        said,
        "[INFO] [main] Saved .: 2 files, 10 bytes; 0 skipped, 0 failed"
    );
    assert!(here("1.jpg").exists());
}
