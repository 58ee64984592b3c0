//! A folder in one download, unpacked by the programs that people have: Info-ZIP's unzip, GNU tar,
//! bsdtar, and Python's modules.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, FileTimes, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, Mode, mkfifoat};

use crate::file::{Tree, ask, get};
use crate::harness::{
    Needs, PATIENCE, Server, Stream, eventually, has_door, has_program, program, run_at_most,
    run_command, signed, skipped,
};

const MIB: usize = 1 << 20;

/// A time before all others, in seconds since 1970.
const TIME: u64 = 1_000_000_007;

/// Names as nobody should choose them, with what a file of that name holds.
const NAMES: &[&[u8]] = &[
    b"plain.txt",
    b"two words",
    b"'single' and \"double\"",
    b"back\\slash",
    b"-rf",
    b"*",
    b"a:b",
    b" ",
    b"tab\there",
    "ä ß 日本 😀".as_bytes(),
    b"...",
    b".hidden",
];

/// Names that not every program keeps.
const ODD_NAMES: &[&[u8]] = &[b"line\nbreak", b"\xff\xfe not UTF-8", b"latin \xe4"];

/// A folder `album` in the root, with everything that an archive can hold.
fn album(names: &[&[u8]]) -> Tree {
    let tree = Tree::new();
    let at = |name: &str| tree.root("album").join(name);
    let deep = format!("{0}/{0}/{0}", "deep".repeat(40));
    for folder in ["empty", "private/inner", &deep] {
        fs::create_dir_all(at(folder)).unwrap();
    }
    for name in names {
        fs::write(at("").join(OsStr::from_bytes(name)), name).unwrap();
    }
    fs::write(at("private/nothing"), "").unwrap();
    fs::write(at(&format!("{deep}/{}", "x".repeat(255))), "deep").unwrap();
    // Longer than a piece, and no multiple of anything.
    let large: Vec<u8> = (0..=250).cycle().take(3 * MIB + 17).collect();
    fs::write(at("large.bin"), large).unwrap();
    for (name, mode) in [
        ("large.bin", 0o755),
        ("private/nothing", 0o600),
        ("private/inner", 0o700),
        ("empty", 0o555),
    ] {
        fs::set_permissions(at(name), Permissions::from_mode(mode)).unwrap();
    }
    set_times(&tree.root("album"));
    tree
}

/// Gives everything below a folder, and the folder, a time of its own, from the bottom up.
fn set_times(folder: &Path) {
    for (number, entry) in fs::read_dir(folder).unwrap().enumerate() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            set_times(&path);
        } else {
            set_time(&path, TIME + 10 + number as u64);
        }
    }
    set_time(folder, TIME + folder.as_os_str().len() as u64);
}

fn set_time(path: &Path, seconds: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let times = FileTimes::new().set_modified(time).set_accessed(time);
    File::open(path).unwrap().set_times(times).unwrap();
}

/// What is at each path below a folder: the bytes of a file, the permissions and the time.
type Contents = BTreeMap<PathBuf, (Option<Vec<u8>>, u32, i64)>;

fn contents(folder: &Path) -> Contents {
    let mut all = Contents::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            let there = fs::metadata(&path).unwrap();
            let bytes = there.is_file().then(|| fs::read(&path).unwrap());
            if there.is_dir() {
                folders.push(path.clone());
            }
            let path = path.strip_prefix(folder).unwrap().to_owned();
            all.insert(path, (bytes, there.mode() & 0o7777, there.mtime()));
        }
    }
    all
}

#[track_caller]
fn check_same(got: &Contents, want: &Contents, what: &str) {
    let short = |contents: &Contents, path: &PathBuf| {
        let found = contents.get(path);
        found.map(|(bytes, mode, time)| (bytes.as_ref().map(Vec::len), format!("{mode:o}"), *time))
    };
    for path in want.keys().chain(got.keys()) {
        let is_same = got.get(path) == want.get(path);
        let (got, want) = (short(got, path), short(want, path));
        assert!(is_same, "{what}: {path:?} is {got:?}, not {want:?}");
    }
}

/// Saves what the server sends as this target.
#[track_caller]
fn save(server: &Server, target: &str, to: &Path) {
    let mut curl = server.curl(target);
    curl.args(["--silent", "--show-error", "--fail", "--noproxy", "*", "-o"]);
    run_at_most(4 * PATIENCE, curl_to(curl, to), b"").expect(0);
}

fn curl_to(mut curl: Command, to: &Path) -> Command {
    curl.arg(to);
    curl
}

/// How a program unpacks an archive into the present folder: what of it, the program, and its arguments
/// before the archive and behind it.
struct Unpacker {
    target: &'static str,
    program: &'static str,
    before: &'static [&'static str],
    behind: &'static [&'static str],
    /// Whether it keeps modes and times, and whether it keeps the oddest names.
    keeps_all: bool,
    keeps_odd_names: bool,
}

const EXTRACT_ZIP: &str = "import sys, zipfile; z = zipfile.ZipFile(sys.argv[1]); \
    assert z.testzip() is None; z.extractall()";
const EXTRACT_TAR: &str = "import sys, tarfile; t = tarfile.open(sys.argv[1]); \
    t.extractall(**({'filter': 'tar'} if hasattr(tarfile, 'tar_filter') else {}))";

#[rustfmt::skip]
const UNPACKERS: &[Unpacker] = &[
    // -^ keeps line breaks in names, -K all permissions.
    Unpacker { target: "?zip", program: "unzip", before: &["-q", "-^", "-K"], behind: &[],
        keeps_all: true, keeps_odd_names: true },
    Unpacker { target: "?zip", program: "python3", before: &["-c", EXTRACT_ZIP], behind: &[],
        keeps_all: false, keeps_odd_names: false },
    Unpacker { target: "?zip", program: "bsdtar", before: &["-xpf"], behind: &[],
        keeps_all: true, keeps_odd_names: false },
    Unpacker { target: "?tar", program: "tar", before: &["-xpf"], behind: &[],
        keeps_all: true, keeps_odd_names: true },
    Unpacker { target: "?tgz", program: "tar", before: &["-xzpf"], behind: &[],
        keeps_all: true, keeps_odd_names: true },
    Unpacker { target: "?tar", program: "python3", before: &["-c", EXTRACT_TAR], behind: &[],
        keeps_all: true, keeps_odd_names: true },
    Unpacker { target: "?tgz", program: "bsdtar", before: &["-xpf"], behind: &[],
        keeps_all: true, keeps_odd_names: true },
];

pub fn is_there(program: &str) -> bool {
    // unzip knows no --version.
    match program {
        "unzip" => {
            let there = Command::new("unzip").arg("-v").output().is_ok();
            if !there {
                skipped("there is no unzip");
            }
            there
        }
        other => has_program(other),
    }
}

/// Runs a program in a folder, in a locale whose names are UTF-8.
pub fn run_in(folder: &Path, program: &str) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder);
    command.env("LC_ALL", "C.UTF-8").env("PYTHONUTF8", "1");
    command
}

/// Unpacks an archive of the album in a new folder, and compares.
#[track_caller]
fn check_unpacked(server: &Server, tree: &Tree, unpacker: &Unpacker) {
    if !is_there(unpacker.program) {
        return;
    }
    let here = tempfile::tempdir().unwrap();
    let archive = here.path().join("archive");
    save(server, &format!("/album/{}", unpacker.target), &archive);
    let out = here.path().join("out");
    fs::create_dir(&out).unwrap();
    let mut command = run_in(&out, unpacker.program);
    command
        .args(unpacker.before)
        .arg(&archive)
        .args(unpacker.behind);
    run_command(command, b"").expect(0);
    let top = fs::read_dir(&out)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    assert_eq!(top.collect::<Vec<_>>(), ["album"], "{}", unpacker.program);
    let (mut got, mut want) = (contents(&out), contents(&tree.path("root")));
    want.retain(|path, _| path.starts_with("album"));
    if !unpacker.keeps_all {
        for contents in [&mut got, &mut want] {
            let all = contents.values_mut();
            all.for_each(|(_, mode, time)| (*mode, *time) = (0, 0));
        }
    }
    let what = format!("{} {}", unpacker.target, unpacker.program);
    check_same(&got, &want, &what);
}

#[test]
fn every_program_unpacks_the_same_folder() {
    let tree = album(NAMES);
    let server = tree.start(&[]);
    for unpacker in UNPACKERS {
        check_unpacked(&server, &tree, unpacker);
    }
}

#[test]
fn names_keep_all_their_bytes() {
    let names = [NAMES, ODD_NAMES].concat();
    let tree = album(&names);
    let server = tree.start(&[]);
    for unpacker in UNPACKERS.iter().filter(|one| one.keeps_odd_names) {
        check_unpacked(&server, &tree, unpacker);
    }
}

/// A connection that has asked for something, and has read how the reply begins.
struct Begun {
    stream: Stream,
    start: [u8; 15],
}

impl Begun {
    fn new(server: &Server, target: &str, version: &str) -> Self {
        let mut stream = server.connect();
        let fields = "Host: h\r\nConnection: close";
        let request = format!("GET {target} HTTP/{version}\r\n{fields}\r\n\r\n");
        stream.write_all(&signed(request.as_bytes())).unwrap();
        let mut start = [0; 15];
        stream.read_exact(&mut start).unwrap();
        Self { stream, start }
    }

    fn status(&self) -> &str {
        std::str::from_utf8(&self.start[9..12]).unwrap()
    }

    /// The head and the body of the reply, and whether it came to its end.
    fn rest(mut self) -> (String, Vec<u8>, bool) {
        let mut all = self.start.to_vec();
        let ended = self.stream.read_to_end(&mut all).is_ok();
        let head = all.windows(4).position(|bytes| bytes == b"\r\n\r\n");
        let (head, mut rest) = all.split_at(head.expect("a head") + 4);
        let head = String::from_utf8_lossy(head).into_owned();
        if !head.contains("Transfer-Encoding: chunked") {
            return (head, rest.to_owned(), ended);
        }
        let mut body = Vec::new();
        loop {
            let line = rest.iter().position(|byte| *byte == b'\n').unwrap_or(0);
            let length = String::from_utf8_lossy(&rest[..line]);
            let length = usize::from_str_radix(length.trim_end(), 16).unwrap_or(usize::MAX);
            rest = &rest[(line + 1).min(rest.len())..];
            if length == 0 || rest.len() < length.saturating_add(2) {
                return (head, body, length == 0 && rest == b"\r\n");
            }
            body.extend_from_slice(&rest[..length]);
            rest = &rest[length + 2..];
        }
    }
}

#[test]
fn what_is_left_out_is_named_at_the_end_and_in_the_log() {
    let tree = album(&[b"a.txt"]);
    let at = |name: &str| tree.root("album").join(name);
    fs::write(tree.path("outside"), "outside").unwrap();
    for (link, target) in [
        ("link", "a.txt"),
        ("to-folder", "private"),
        ("to-itself", "."),
        ("outside", "../../outside"),
        ("nowhere\n", "nothing"),
    ] {
        symlink(target, at(link)).unwrap();
    }
    mkfifoat(CWD, at("fifo"), Mode::RWXU).unwrap();
    let before_1970 = SystemTime::UNIX_EPOCH - Duration::from_secs(86_400);
    let times = FileTimes::new().set_modified(before_1970);
    File::open(at("a.txt")).unwrap().set_times(times).unwrap();
    let server = tree.start(&[]);
    let left_out = [
        "album/fifo: neither a file nor a folder",
        "album/nowhere\\n: a link to nothing that is served here",
        "album/outside: a link to nothing that is served here",
        "album/to-folder: a link to a folder",
        "album/to-itself: a link to a folder",
    ];
    let sorted = |text: &str| {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let here = tempfile::tempdir().unwrap();
    for target in ["?zip", "?tar"] {
        save(
            &server,
            &format!("/album/{target}"),
            &here.path().join(target),
        );
    }
    if has_program("python3") {
        let comment = "import sys, zipfile; z = zipfile.ZipFile(sys.argv[1]); \
            sys.stdout.buffer.write(z.comment); assert z.read('album/link') == b'a.txt'; \
            assert not [n for n in z.namelist() if not n.startswith('album/')]";
        assert_eq!(
            sorted(&python(comment, &here.path().join("?zip"))),
            left_out
        );
        let last = "import sys, tarfile; t = tarfile.open(sys.argv[1]); last = t.getmembers()[-1]; \
            assert last.name == 'album-left-out.txt', last.name; \
            assert t.extractfile('album/link').read() == b'a.txt'; \
            assert t.getmember('album/a.txt').mtime == -86400; assert last.mtime > 1000000000; \
            sys.stdout.buffer.write(t.extractfile(last).read())";
        assert_eq!(sorted(&python(last, &here.path().join("?tar"))), left_out);
    }
    // A name cannot be longer than that of this folder, but for five bytes.
    let long = "L".repeat(250);
    fs::create_dir(tree.root(&long)).unwrap();
    symlink(".", tree.root(&long).join("link")).unwrap();
    save(&server, &format!("/{long}/?tar"), &here.path().join("long"));
    let archive = fs::read(here.path().join("long")).unwrap();
    let archive = String::from_utf8_lossy(&archive);
    assert!(archive.contains("\0left-out.txt\0") && !archive.contains("L-left-out.txt"));
    let log = server.end();
    let lines = log.matches("An archive of album lacks 5 names: ").count();
    assert_eq!(lines, 2, "{log}");
}

#[test]
fn a_file_that_the_server_may_not_read_is_left_out() {
    if !has_door(Needs::Plain, "the server is another user") {
        return;
    }
    let is_root = rustix::process::geteuid().is_root();
    if !is_root || !has_program("setpriv") {
        return skipped("only root becomes another user");
    }
    let tree = album(&[b"a.txt", b"secret.txt"]);
    let everyone = Permissions::from_mode(0o755);
    fs::set_permissions(tree.path(""), everyone).unwrap();
    let secret = tree.root("album/secret.txt");
    fs::set_permissions(&secret, Permissions::from_mode(0o600)).unwrap();
    // The program itself stands where another user may not go.
    let copy = tree.path("server");
    fs::copy(program("file-server"), &copy).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    command
        .arg(&copy)
        .args(["0", "--read-only", "--root"])
        .arg(tree.path("root"));
    let server = Server::spawn(command);
    let here = tempfile::tempdir().unwrap();
    let archive = here.path().join("album.tar");
    save(&server, "/album/?tar", &archive);
    let mut command = run_in(here.path(), "tar");
    command.arg("-xf").arg(&archive);
    run_command(command, b"").expect(0);
    assert!(here.path().join("album/a.txt").exists());
    assert!(!here.path().join("album/secret.txt").exists());
    let note = fs::read_to_string(here.path().join("album-left-out.txt")).unwrap();
    let mut lines: Vec<_> = note.lines().collect();
    lines.sort();
    let may_not = "the server has no permission to read it";
    assert_eq!(
        lines,
        [
            format!("album/private/inner: {may_not}"),
            format!("album/private/nothing: {may_not}"),
            format!("album/secret.txt: {may_not}"),
        ]
    );
}

/// A folder `album` in the root with a file that hardly gets smaller, larger than what the system keeps
/// for a connection.
fn large_album() -> Tree {
    let tree = Tree::new();
    fs::create_dir(tree.root("album")).unwrap();
    let mut large = File::create(tree.root("album/large.bin")).unwrap();
    let random = File::open("/dev/urandom").unwrap();
    io::copy(&mut random.take(64 << 20), &mut large).unwrap();
    tree
}

#[test]
fn a_part_of_an_archive_is_not_taken_for_all_of_it() {
    if !has_door(Needs::Tcp, "a Unix socket cannot be reset") {
        return;
    }
    let tree = large_album();
    for version in ["1.1", "1.0"] {
        for target in ["?zip", "?tar", "?tgz"] {
            let server = tree.start(&[]);
            let begun = Begun::new(&server, &format!("/album/{target}"), version);
            assert_eq!(begun.status(), "200");
            server.kill();
            let (_, _, is_whole) = begun.rest();
            assert!(!is_whole, "{target} {version}");
        }
    }
    // And a whole one is whole.
    let server = tree.start(&[]);
    for version in ["1.1", "1.0"] {
        let (head, body, is_whole) = Begun::new(&server, "/album/?tar", version).rest();
        assert!(is_whole, "{head}");
        assert!(body.len() > 64 << 20 && body.ends_with(&[0; 1024]));
    }
}

#[test]
fn a_server_that_stops_ends_an_archive_visibly() {
    if !has_door(Needs::Plain, "other doors say so themselves, or cannot") {
        return;
    }
    let tree = large_album();
    let server = tree.start(&[]);
    let begun = Begun::new(&server, "/album/?tar", "1.0");
    server.signal("TERM");
    let (code, log) = server.wait();
    assert_eq!(code, Some(0), "{log}");
    let (head, _, is_whole) = begun.rest();
    assert!(!is_whole, "{head}");
}

#[test]
fn a_file_that_changes_while_it_is_read_is_named() {
    if !has_program("python3") {
        return;
    }
    let (shorter, longer) = (5_000_000, 200 << 20);
    for target in ["?zip", "?tar"] {
        for bytes in [shorter, longer] {
            let tree = large_album();
            let server = tree.start(&[]);
            let begun = Begun::new(&server, &format!("/album/{target}"), "1.1");
            let large = File::options()
                .write(true)
                .open(tree.root("album/large.bin"));
            large.unwrap().set_len(bytes).unwrap();
            let (head, body, is_whole) = begun.rest();
            assert!(is_whole, "{head}");
            let archive = tree.path("archive");
            fs::write(&archive, body).unwrap();
            let script = match target {
                "?zip" => {
                    "import sys, zipfile; z = zipfile.ZipFile(sys.argv[1]); \
                     assert z.testzip() is None; print(z.getinfo('album/large.bin').file_size); \
                     print(z.comment.decode())"
                }
                _ => {
                    "import sys, tarfile; t = tarfile.open(sys.argv[1]); \
                     print(t.getmember('album/large.bin').size); \
                     print(t.extractfile('album-left-out.txt').read().decode())"
                }
            };
            let said = python(script, &archive);
            let (got, note) = said.split_once('\n').unwrap();
            assert!(
                note.starts_with("album/large.bin: it changed while"),
                "{note}"
            );
            let got: u64 = got.parse().unwrap();
            match (target, bytes == longer) {
                ("?zip", false) => assert!((shorter..64 << 20).contains(&got), "{got}"),
                _ => assert_eq!(got, 64 << 20),
            }
        }
    }
}

#[test]
fn one_archive_more_than_are_made_at_once_is_refused() {
    let tree = large_album();
    let server = tree.start(&["--archives", "2"]);
    let begin = || Begun::new(&server, "/album/?zip", "1.1");
    let both = [begin(), begin()];
    assert!(both.iter().all(|begun| begun.status() == "200"));
    let refused = ask(&server, get("/album/?tar"));
    assert_eq!((refused.status, refused.field("Retry-After")), (503, "10"));
    assert_eq!(
        refused.text(),
        "2 archives are being made; try again later\n"
    );
    // Other requests are answered.
    assert_eq!(ask(&server, get("/album/?json")).status, 200);
    drop(both);
    eventually("another is made", || begin().status() == "200");
}

#[test]
fn deep_archives_have_the_descriptors_that_they_need() {
    // A file at the end of 100 folders, larger than what the system keeps for a connection.
    const LEVELS: usize = 100;
    const BYTES: u64 = 16 << 20;
    let tree = Tree::new();
    let deepest = tree.root("album").join("d/".repeat(LEVELS - 1));
    fs::create_dir_all(&deepest).unwrap();
    let large = File::create(deepest.join("large")).unwrap();
    large.set_len(BYTES).unwrap();
    let start = |descriptors: usize| {
        let mut command = Command::new("sh");
        let limited = format!("ulimit -n {descriptors}; exec \"$0\" \"$@\"");
        command.args(["-c", &limited]).arg(program("file-server"));
        command.args(["0", "--max-connections", "8", "--root"]);
        command.arg(tree.path("root"));
        command
    };
    let refused = run_command(start(678), b"").expect(2);
    refused.check_says(
        "8 connections (--max-connections) and deep folders in archives (--archives) need 679 \
         descriptors (ulimit -n), and 678 are allowed, enough for --max-connections 7\n",
    );
    let server = Server::spawn(start(679));
    let begun: Vec<_> = (0..4)
        .map(|_| Begun::new(&server, "/album/?tar", "1.1"))
        .collect();
    eventually("all are at the end", || server.descriptors() > 4 * LEVELS);
    assert_eq!(ask(&server, get("/plain/a.txt")).text(), "a");
    for begun in begun {
        let (head, body, is_whole) = begun.rest();
        assert!(is_whole && body.len() as u64 > BYTES, "{head}");
    }
    let log = server.end();
    assert!(!log.contains("archive"), "{log}");
}

#[test]
fn a_folder_is_archived_if_it_is_asked_for() {
    let tree = album(NAMES);
    let server = tree.start(&[]);
    let head = |target: &str| {
        ask(
            &server,
            format!("HEAD {target} HTTP/1.1\r\nHost: h\r\n\r\n"),
        )
    };
    for (target, content_type, name) in [
        ("/album/?zip", "application/zip", "album.zip"),
        ("/album/?zip=", "application/zip", "album.zip"),
        ("/album/?tar", "application/x-tar", "album.tar"),
        ("/album/?tgz&x", "application/gzip", "album.tar.gz"),
        // Its page is in the archive.
        ("/site/?zip", "application/zip", "site.zip"),
        ("/?zip", "application/zip", "files.zip"),
    ] {
        let reply = head(target);
        assert_eq!(reply.status, 200, "{target}");
        assert_eq!(reply.field("Content-Type"), content_type);
        let disposition = format!("attachment; filename=\"{name}\"; filename*=UTF-8''{name}");
        assert_eq!(reply.field("Content-Disposition"), disposition);
    }
    fs::create_dir(tree.root("b\u{fc}\"r\n")).unwrap();
    assert_eq!(
        head("/b%C3%BC%22r%0A/?tgz").field("Content-Disposition"),
        "attachment; filename=\"b__r_.tar.gz\"; filename*=UTF-8''b%C3%BC%22r%0A.tar.gz"
    );
    let moved = ask(&server, get("/album?zip"));
    assert_eq!(
        (moved.status, moved.field("Location")),
        (301, "./album/?zip")
    );
    // A file is itself.
    assert_eq!(
        ask(&server, get("/album/plain.txt?zip")).text(),
        "plain.txt"
    );
    assert_eq!(ask(&server, get("/nowhere/?zip")).status, 404);
    let page = ask(&server, get("/album/")).text();
    for button in ["zip", "tar", "tgz"] {
        assert!(
            page.contains(&format!("<button name=\"{button}\">")),
            "{page}"
        );
    }
    drop(server);
    // The names in a folder are not for everyone, or nobody is to make archives.
    for (option, status, page) in [("--no-listing", 404, 404), ("--archives=0", 200, 200)] {
        let server = tree.start(&[option]);
        let reply = ask(&server, get("/album/?zip"));
        assert_eq!(reply.status, status, "{option}");
        let page = (page, ask(&server, get("/album/")));
        assert_eq!(page.0, page.1.status);
        assert!(!page.1.text().contains("\"zip\""), "{}", page.1.text());
        assert!(!reply.head.contains("application/zip"), "{}", reply.head);
    }
}

/// Saves a body, and leaves holes where it has zeros.
#[track_caller]
pub fn save_sparse(server: &Server, target: &str, to: &Path) {
    let mut curl = server.curl(target);
    curl.args(["--silent", "--fail", "--noproxy", "*"]);
    let mut shell = Command::new("bash");
    shell.args([
        "-c",
        "set -o pipefail; to=$1; shift; \"$@\" | cp --sparse=always /dev/stdin \"$to\"",
        "-",
    ]);
    shell.arg(to).arg(curl.get_program()).args(curl.get_args());
    run_at_most(8 * PATIENCE, shell, b"").expect(0);
}

/// Runs Python for an archive.
#[track_caller]
fn python(script: &str, archive: &Path) -> String {
    let mut command = Command::new("python3");
    command.args(["-c", script]).arg(archive);
    run_at_most(8 * PATIENCE, command, b"").expect(0).out()
}

#[test]
fn files_and_archives_may_be_over_four_gigabytes_long() {
    if !has_program("python3") {
        return;
    }
    const BYTES: u64 = 5 << 30;
    let tree = Tree::new();
    for folder in ["album", "album/z"] {
        fs::create_dir(tree.root(folder)).unwrap();
    }
    let mut large = File::create(tree.root("album/large.bin")).unwrap();
    large.write_all(b"begin").unwrap();
    large.seek(SeekFrom::Start(BYTES - 3)).unwrap();
    large.write_all(b"end").unwrap();
    // Whatever the order, something is behind 4 GiB.
    for name in ["a.txt", "z/z.txt"] {
        fs::write(tree.root("album").join(name), name).unwrap();
    }
    // To look at an archive takes some time, and nobody asks meanwhile.
    let server = tree.start(&["--idle-exit=0"]);
    let at_start = server.peak_bytes();
    let archive = tree.path("archive");
    save_sparse(&server, "/album/?zip", &archive);
    let script = "import sys, zipfile; z = zipfile.ZipFile(sys.argv[1]); \
        print(z.getinfo('album/large.bin').file_size, z.read('album/z/z.txt'), \
        z.read('album/a.txt'), z.testzip())";
    let want = format!("{BYTES} b'z/z.txt' b'a.txt' None\n");
    assert_eq!(python(script, &archive), want);
    if is_there("unzip") {
        let mut command = Command::new("unzip");
        command.arg("-tq").arg(&archive);
        run_at_most(8 * PATIENCE, command, b"").expect(0);
    }
    save_sparse(&server, "/album/?tar", &archive);
    let mut command = Command::new("tar");
    command
        .arg("-df")
        .arg(&archive)
        .arg("-C")
        .arg(tree.path("root"));
    run_at_most(8 * PATIENCE, command, b"").expect(0);
    let taken = server.peak_bytes() - at_start;
    assert!(taken < 8 * MIB, "{} MiB", taken / MIB);
}

#[test]
fn a_hundred_thousand_files_take_little_memory() {
    if !has_program("python3") {
        return;
    }
    const FILES: usize = 100_000;
    let tree = Tree::new();
    for folder in ["album/0", "album/1", "album/2"] {
        fs::create_dir_all(tree.root(folder)).unwrap();
    }
    // A file may have some 65,000 names.
    for number in 0..FILES {
        let folder = tree.root("album").join((number % 3).to_string());
        let first = folder.join("first");
        if !first.exists() {
            fs::write(&first, "x").unwrap();
        } else {
            fs::hard_link(&first, folder.join(format!("photo {number:06}.jpg"))).unwrap();
        }
    }
    let server = tree.start(&["--idle-exit=0"]);
    let at_start = server.peak_bytes();
    let archive = tree.path("archive");
    save(&server, "/album/?tar", &archive);
    let taken = server.peak_bytes() - at_start;
    assert!(taken < 4 * MIB, "{} MiB", taken / MIB);
    let count =
        "import sys, tarfile; print(sum(1 for m in tarfile.open(sys.argv[1]) if m.isfile()))";
    assert_eq!(python(count, &archive), format!("{FILES}\n"));
    save(&server, "/album/?zip", &archive);
    let taken = server.peak_bytes() - at_start;
    assert!(taken < 16 * MIB, "{} MiB", taken / MIB);
    let count = "import sys, zipfile; z = zipfile.ZipFile(sys.argv[1]); \
        print(sum(1 for m in z.infolist() if not m.is_dir()), z.testzip())";
    assert_eq!(python(count, &archive), format!("{FILES} None\n"));
    if is_there("unzip") {
        let mut command = Command::new("unzip");
        command.arg("-tqq").arg(&archive);
        run_at_most(4 * PATIENCE, command, b"").expect(0);
    }
}
