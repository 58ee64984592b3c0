//! Attempts to get out of the folder that the file service serves, or at what is no regular file
//! in it: by names, by links and special files that stand there, by the names in forms, and by
//! changing the tree in the middle of a request.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, FileType, Mode, RenameFlags, makedev, mkfifoat, mknodat, renameat_with};
use tempfile::TempDir;

use crate::harness::{Server, program};

/// What stands in every file that must never be read, and in the server's environment.
const SECRET: &str = "the secret beside the root";

/// How long a secret file is, and when it and its folders were changed, in seconds since 1970: to
/// be found in whatever tells it.
const SECRET_BYTES: usize = 31_337;
const SECRET_TIME: u64 = 1_000_000_000;

/// What no reply may hold: what is secret, as it is written in a file, a page, JSON and a head.
const TELLTALES: [&str; 6] = [
    SECRET,
    "root:x:",
    "31337",
    "31 KB",
    "2001-09-09",
    "Sep 2001",
];

/// What belongs to a file that is given, and to no refusal.
const FIELDS_OF_A_FILE: [&str; 5] = [
    "\r\nETag:",
    "\r\nLast-Modified:",
    "\r\nContent-Range:",
    "\r\nRepr-Digest:",
    "\r\nLocation:",
];

/// What every upload holds.
const PLANTED: &str = "planted";

/// A reply that takes longer is none: the server waits for something that it must not wait for.
const REPLY_MAX: Duration = Duration::from_secs(10);

/// Links in the root, and where they lead. `{top}` is the folder that the root is in.
const LINKS: &[(&str, &str)] = &[
    // To a file outside.
    ("link", "../secret.txt"),
    ("absolute", "{top}/secret.txt"),
    ("twice", "link"),
    ("thrice", "site/twice"),
    ("site/twice", "../twice"),
    ("site/link", "../../secret.txt"),
    ("through", "folder/secret.txt"),
    ("dotted", "./site/.././../secret.txt"),
    ("dangling", "../planted.txt"),
    ("dangling-twice", "dangling"),
    ("zero", "/dev/zero"),
    // To a folder outside.
    ("folder", "../outside"),
    ("absolute-folder", "{top}/outside"),
    ("folder-twice", "folder"),
    ("site/up", "../../outside"),
    ("parent", ".."),
    ("everything", "/"),
    ("dangling-folder", "../planted"),
    // Outside and in again.
    ("out-and-in", "../root/plain/a.txt"),
    ("folder-out-and-in", "../root/plain"),
    // The kernel's own.
    ("magic", "/proc/self/root"),
    ("cwd", "/proc/self/cwd"),
    ("fds", "/proc/self/fd"),
    ("fd", "/proc/self/fd/0"),
    ("exe", "/proc/self/exe"),
    ("environ", "/proc/self/environ"),
    // Nowhere.
    ("loop", "loop"),
    ("ping", "pong"),
    ("pong", "ping"),
    ("nowhere", "gone.txt"),
    ("to-fifo", "fifo"),
    // Inside. These are followed.
    ("here", "."),
    ("plain/up", ".."),
    ("inside", "plain/a.txt"),
    ("site/inside", "../plain/a.txt"),
    ("absolute-in", "{top}/root/plain/a.txt"),
    ("site/absolute-folder-in", "{top}/root/plain"),
];

/// What index.html is in one folder each.
const PAGES: &[(&str, &str)] = &[
    ("link", "../../../secret.txt"),
    ("absolute", "{top}/secret.txt"),
    ("twice", "../link/index.html"),
    ("folder", "../../../outside"),
    ("loop", "index.html"),
    ("dangling", "../../../planted.txt"),
    ("environ", "/proc/self/environ"),
    ("to-fifo", "../../fifo"),
];

/// Devices, if they may be made: the null and the zero device, one of a driver that has none with
/// that number, and a block device.
const DEVICES: [(&str, FileType, u32, u32); 4] = [
    ("null-device", FileType::CharacterDevice, 1, 3),
    ("zero-device", FileType::CharacterDevice, 1, 5),
    ("no-device", FileType::CharacterDevice, 10, 250),
    ("disk-device", FileType::BlockDevice, 7, 250),
];

/// A folder `root` full of traps, and beside it what must never be reached.
struct Grounds {
    top: TempDir,
    has_devices: bool,
}

impl Grounds {
    fn new() -> Self {
        let top = tempfile::tempdir().unwrap();
        for folder in ["root", "outside"] {
            fs::create_dir(top.path().join(folder)).unwrap();
        }
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(SECRET_TIME);
        let mut secret = SECRET.to_owned().into_bytes();
        secret.resize(SECRET_BYTES, b'.');
        for name in [
            "secret.txt",
            "outside/secret.txt",
            "outside/index.html",
            "outside",
        ] {
            let path = top.path().join(name);
            if !path.is_dir() {
                fs::write(&path, &secret).unwrap();
            }
            File::open(path).unwrap().set_modified(time).unwrap();
        }
        let mut grounds = Self {
            top,
            has_devices: true,
        };
        grounds.has_devices = grounds.make_device(&DEVICES[0]);
        if !grounds.has_devices {
            eprintln!("No devices may be made here: requests for them are not tried");
        }
        grounds
    }

    /// Puts everything in the root as it was.
    fn lay_out(&self) {
        for entry in fs::read_dir(self.path("root")).unwrap() {
            remove(&entry.unwrap().path());
        }
        for folder in ["site", "plain", ".quartet-upload-folder"] {
            fs::create_dir(self.root(folder)).unwrap();
        }
        for file in [
            "plain/a.txt",
            "site/page.html",
            ".quartet-upload-1",
            ".quartet-upload-folder/secret.txt",
        ] {
            fs::write(self.root(file), file).unwrap();
        }
        for (page, target) in PAGES {
            fs::create_dir_all(self.root("pages").join(page)).unwrap();
            self.link(&format!("pages/{page}/index.html"), target);
        }
        for folder in ["pages/fifo", "pages/socket"] {
            fs::create_dir(self.root(folder)).unwrap();
        }
        for (link, target) in LINKS {
            self.link(link, target);
        }
        // More links than the kernel follows.
        fs::create_dir(self.root("chain")).unwrap();
        for link in 0..50 {
            self.link(&format!("chain/{link}"), &(link + 1).to_string());
        }
        fs::write(self.root("chain/50"), "at last").unwrap();
        for fifo in ["fifo", "pages/fifo/index.html"] {
            mkfifoat(CWD, self.root(fifo), Mode::RWXU).unwrap();
        }
        for socket in ["socket", "pages/socket/index.html"] {
            // Its file stays when nobody listens any more.
            drop(UnixListener::bind(self.root(socket)).unwrap());
        }
        if self.has_devices {
            assert!(DEVICES.iter().all(|device| self.make_device(device)));
        }
    }

    /// Puts everything in the root as it was.
    fn undo(&self, before: &Contents, now: &Contents) {
        for path in changes(before, now) {
            remove(path);
            match before.get(path) {
                None => {}
                Some(Thing::File(bytes)) => fs::write(path, bytes).unwrap(),
                Some(Thing::Link(target)) => symlink(target, path).unwrap(),
                Some(Thing::Folder | Thing::Special) => return self.lay_out(),
            }
        }
    }

    fn make_device(&self, (name, kind, major, minor): &(&str, FileType, u32, u32)) -> bool {
        let device = makedev(*major, *minor);
        mknodat(CWD, self.root(name), *kind, Mode::RWXU, device).is_ok()
    }

    fn link(&self, link: &str, target: &str) {
        symlink(self.fill_in(target), self.root(link)).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.top.path().join(name)
    }

    fn root(&self, name: &str) -> PathBuf {
        self.path("root").join(name)
    }

    fn fill_in(&self, text: &str) -> String {
        let top = self.top.path().to_str().unwrap();
        text.replace("{top}", top)
            .replace("{256}", &"x".repeat(256))
            .replace("{deep}", &"d/".repeat(2500))
    }

    /// Starts a server whose own folder is outside, and whose environment is secret.
    #[track_caller]
    fn serve(self, options: &[&str]) -> Served {
        let mut command = Command::new(program("file-server"));
        command.arg("0").arg("--root").arg(self.path("root"));
        command.args(["--host", "..", "--host", "evil.example"]);
        command.args(options).env("SECRET", SECRET);
        command.current_dir(self.path("outside"));
        let server = Server::spawn(command);
        // Not before, for it removes what it takes for left over.
        self.lay_out();
        Served {
            server,
            before: self.contents(),
            grounds: self,
        }
    }

    /// The targets of the folders whose page is no file inside.
    fn pages(&self) -> Vec<String> {
        let pages = fs::read_dir(self.root("pages")).unwrap();
        let names = pages.map(|page| page.unwrap().file_name().into_string().unwrap());
        names.map(|name| format!("/pages/{name}/")).collect()
    }

    fn contents(&self) -> Contents {
        let mut all = Contents::new();
        read_contents(self.top.path(), &mut all);
        all
    }

    fn is_outside(&self, path: &Path) -> bool {
        !path.starts_with(self.path("root"))
    }
}

/// The grounds, a server of them, and what stands there before a test does anything.
struct Served {
    server: Server,
    grounds: Grounds,
    before: Contents,
}

/// Everything below a folder.
type Contents = BTreeMap<PathBuf, Thing>;

#[derive(Debug, PartialEq, Eq)]
enum Thing {
    Folder,
    File(Vec<u8>),
    Link(PathBuf),
    Special,
}

fn read_contents(folder: &Path, all: &mut Contents) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let path = entry.path();
        let kind = entry.file_type().unwrap();
        let thing = if kind.is_dir() {
            read_contents(&path, all);
            Thing::Folder
        } else if kind.is_file() {
            Thing::File(fs::read(&path).unwrap())
        } else if kind.is_symlink() {
            Thing::Link(fs::read_link(&path).unwrap())
        } else {
            Thing::Special
        };
        all.insert(path, thing);
    }
}

/// The paths at which something else stands now, or nothing, or where there was nothing before.
fn changes<'c>(before: &'c Contents, now: &'c Contents) -> Vec<&'c Path> {
    let lost = before.keys().filter(|path| !now.contains_key(*path));
    let changed = now
        .iter()
        .filter(|(path, thing)| before.get(*path) != Some(*thing));
    let changed = changed.map(|(path, _)| path);
    lost.chain(changed).map(PathBuf::as_path).collect()
}

/// Removes whatever stands there, if something does.
fn remove(path: &Path) {
    if fs::remove_file(path).is_err() {
        let _ = fs::remove_dir_all(path);
    }
}

/// What a target is, and so what it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// No path at all.
    Malformed,
    /// A name that only looks dangerous. Nothing is there, and an upload makes that file inside.
    Name,
    /// There is something, but no regular file inside. An upload is refused, except by way of a link
    /// to nothing inside: that makes the file.
    Trap,
    /// Behind or beneath something that is no folder inside. An upload is refused, too.
    Behind,
    /// Something of the machine. As [`Kind::Name`] or [`Kind::Behind`], but only ever read: a
    /// server that fails this test must not ruin the machine it fails on.
    Host,
}

const ATTEMPTS: &[(Kind, &[&str])] = &[
    (
        Kind::Malformed,
        &[
            // Dots.
            "/.",
            "/..",
            "/../",
            "/../secret.txt",
            "/../../../../../../../../secret.txt",
            "/site/..",
            "/site/../../secret.txt",
            "/site/../plain/a.txt",
            "/./../secret.txt",
            "/././../secret.txt",
            "//../secret.txt",
            "///..//..///secret.txt",
            "/.../../../secret.txt",
            "/nowhere/../../secret.txt",
            "/plain/a.txt/..",
            "/plain/a.txt/.",
            "/plain/a.txt/../../../secret.txt",
            "/folder/../secret.txt",
            "/here/../secret.txt",
            "/out-and-in/../secret.txt",
            "/..?/secret.txt",
            "/..?json",
            "/..#/secret.txt",
            // Encoded, in every mixture.
            "/%2e",
            "/%2e%2e",
            "/%2e%2e/secret.txt",
            "/%2E%2e/secret.txt",
            "/%2E%2E/secret.txt",
            "/.%2e/secret.txt",
            "/%2e./secret.txt",
            "/%2e%2e/%2e%2e/secret.txt",
            "/site/%2e%2e/%2e%2e/secret.txt",
            "/..%2fsecret.txt",
            "/..%2Fsecret.txt",
            "/%2e%2e%2fsecret.txt",
            "/%2f%2e%2e%2fsecret.txt",
            "/%2f{top}/secret.txt",
            "/%2f",
            "/site%2f..%2f..%2fsecret.txt",
            "/site/%2e%2e%2f%2e%2e/secret.txt",
            "/plain%2fa.txt",
            "/plain/a.txt%2f",
            // No encodings.
            "/%u002e%u002e/secret.txt",
            "/%uff0e%uff0e/secret.txt",
            "/%%32%65%%32%65/secret.txt",
            "/%2/%2/secret.txt",
            "/.%/secret.txt",
            "/..%",
            // Bytes that end a name early.
            "/%00",
            "/..%00/secret.txt",
            "/%00../secret.txt",
            "/plain/a.txt%00",
            "/plain/a.txt%00.jpg",
            "/plain/a.txt%00/../../../secret.txt",
            "/site/..%00/..%00/secret.txt",
            "/%2e%00%2e%00/%2e%00%2e%00/secret.txt",
            "/%00.%00./secret.txt",
            "/\0",
            "/..\0/secret.txt",
            "/..\n/secret.txt",
            "/..\r\n/secret.txt",
            "/..\t/secret.txt",
            "/.. /secret.txt",
            "/..\u{7f}/secret.txt",
            // What is to be encoded.
            "/．．/secret.txt",
            "/..\\secret.txt",
            "/..\\..\\secret.txt",
            "/c:\\secret.txt",
            "/`id`",
            // Absolute, and relative to nothing.
            "http://h/../secret.txt",
            "http://h/%2e%2e/secret.txt",
            "http://h/site/../../secret.txt",
            "http:///../secret.txt",
            "http://{top}/secret.txt",
            "file://{top}/../secret.txt",
            "file://{top}/secret.txt",
            "../secret.txt",
            "..",
            ".",
            "secret.txt",
            "{top}/../secret.txt",
            "\\..\\secret.txt",
            "%2e%2e/secret.txt",
            "%2f",
            "h:80",
            "*",
            "?",
            // No name is so long.
            "/{256}",
            "/{256}/../secret.txt",
            "/plain/{256}",
            "/{deep}a",
        ],
    ),
    (
        Kind::Name,
        &[
            "/secret.txt",
            "/...",
            "/.../secret.txt",
            "/..../secret.txt",
            "/..a",
            "/a..",
            "/plain/a.txt.",
            "/plain./a.txt",
            "/plain/a.txt..",
            "/plain/a.txt%20",
            "/plain/a.txt::$DATA",
            "/here/secret.txt",
            "/here/here/plain/up/secret.txt",
            // Encoded twice, overlong, wide, or with the other slash.
            "/%252e%252e/secret.txt",
            "/..%252fsecret.txt",
            "/%252e%252e%252fsecret.txt",
            "/%25252e%25252e/secret.txt",
            "/%c0%ae%c0%ae/secret.txt",
            "/..%c0%afsecret.txt",
            "/%e0%80%ae%e0%80%ae/secret.txt",
            "/%f0%80%80%ae%f0%80%80%ae/secret.txt",
            "/%fe%ff%2e/secret.txt",
            "/%ef%bc%8e%ef%bc%8e/secret.txt",
            "/..%ef%bc%8fsecret.txt",
            "/..%e2%88%95secret.txt",
            "/%e2%80%ae../secret.txt",
            "/..%5csecret.txt",
            "/..%5c..%5csecret.txt",
            "/%2e%2e%5csecret.txt",
            "/c:%5csecret.txt",
            // What other programs take for something.
            "/..;/secret.txt",
            "/..;a=b/secret.txt",
            "/..%3b/secret.txt",
            "/..%20/secret.txt",
            "/%20../secret.txt",
            "/..%0a/secret.txt",
            "/..%0d%0a/secret.txt",
            "/..%09/secret.txt",
            "/..%3f/secret.txt",
            "/..%23/secret.txt",
            "/~/secret.txt",
            "/~root/secret.txt",
            "/$HOME/secret.txt",
            "/$(cat%20secret.txt)",
            "/%60id%60",
            "/c:/secret.txt",
            "/-rf",
            // Absolute.
            "{top}/secret.txt",
            "/{top}/secret.txt",
            "///{top}/secret.txt",
            "http://h{top}/secret.txt",
            "http://h/{top}/secret.txt",
            "http://../secret.txt",
            "http://evil.example/secret.txt",
            "//evil.example/secret.txt",
            "/http://h/secret.txt",
            "/file://{top}/secret.txt",
        ],
    ),
    (
        Kind::Trap,
        &[
            "/link",
            "//link",
            "/%6c%69%6e%6b",
            "http://h/link",
            "/absolute",
            "/twice",
            "/thrice",
            "/site/twice",
            "/site/link",
            "/here/link",
            "/here/here/here/link",
            "/plain/up/site/link",
            "/through",
            "/dotted",
            "/dangling",
            "/dangling-twice",
            "/zero",
            "/folder",
            "/absolute-folder",
            "/folder-twice",
            "/site/up",
            "/parent",
            "/everything",
            "/dangling-folder",
            "/out-and-in",
            "/folder-out-and-in",
            "/magic",
            "/cwd",
            "/fds",
            "/fd",
            "/exe",
            "/environ",
            "/loop",
            "/ping",
            "/nowhere",
            "/to-fifo",
            "/chain/0",
            "/fifo",
            "/here/fifo",
            "/socket",
            "/pages/link/index.html",
            "/pages/folder/index.html",
            "/pages/fifo/index.html",
        ],
    ),
    (
        Kind::Behind,
        &[
            "/link/",
            "/link/secret.txt",
            "/folder/",
            "/folder//",
            "/folder/secret.txt",
            "/folder/index.html",
            "/folder/planted.txt",
            "/folder/planted/planted.txt",
            "/absolute-folder/secret.txt",
            "/absolute-folder/planted.txt",
            "/folder-twice/secret.txt",
            "/folder-twice/planted.txt",
            "/here/folder/secret.txt",
            "/site/up/secret.txt",
            "/site/up/planted.txt",
            "/parent/",
            "/parent/secret.txt",
            "/parent/planted.txt",
            "/parent/outside/planted.txt",
            "/parent/root/plain/a.txt",
            "/parent/root/plain/planted.txt",
            "/everything{top}/secret.txt",
            "/everything{top}/planted.txt",
            "/dangling-folder/planted.txt",
            "/dangling/planted.txt",
            "/folder-out-and-in/a.txt",
            "/folder-out-and-in/planted.txt",
            "/magic{top}/secret.txt",
            "/magic{top}/planted.txt",
            "/cwd/",
            "/cwd/secret.txt",
            "/cwd/planted.txt",
            "/fds/planted.txt",
            "/loop/",
            "/loop/secret.txt",
            "/ping/secret.txt",
            "/nowhere/planted.txt",
            "/chain/0/planted.txt",
            "/fifo/",
            "/fifo/planted.txt",
            "/to-fifo/planted.txt",
            "/socket/planted.txt",
            "/plain/a.txt/",
            "/plain/a.txt//",
            "/plain/a.txt/a.txt",
            "/inside/",
            "/inside/a.txt",
            // What the server keeps to itself.
            "/.quartet-upload-1",
            "/%2equartet-upload-1",
            "/here/.quartet-upload-1",
            "/.quartet-upload-2",
            "/.quartet-upload-",
            "/.quartet-upload-folder/",
            "/.quartet-upload-folder/secret.txt",
            "/.quartet-upload-folder/planted.txt",
            "/site/.quartet-upload-1/planted.txt",
        ],
    ),
    (
        Kind::Host,
        &[
            "/etc/passwd",
            "//etc/passwd",
            "///etc/passwd",
            "http://h/etc/passwd",
            "http://h//etc/passwd",
            "/dev/zero",
            "/dev/stdin",
            "/dev/fd/0",
            "/proc/self/environ",
            "/proc/self/root/etc/passwd",
            "/everything/etc/passwd",
            "/everything/proc/self/environ",
            "/magic/etc/passwd",
            "/fds/0",
            "/fds/3",
        ],
    ),
];

/// How a file may be asked for: the method, what is added to the target, and further fields.
const READS: [(&str, &str, &str); 12] = [
    ("GET", "", ""),
    ("HEAD", "", ""),
    ("GET", "", "Range: bytes=0-3\r\n"),
    ("GET", "", "If-Match: *\r\n"),
    ("GET", "", "If-None-Match: *\r\n"),
    (
        "GET",
        "",
        "If-Modified-Since: Fri, 31 Dec 2100 00:00:00 GMT\r\n",
    ),
    ("GET", "", "Want-Repr-Digest: sha-256=1\r\n"),
    ("GET", "", "Accept: application/json\r\n"),
    ("GET", "?json&sort=size", ""),
    ("GET", "?zip", ""),
    ("GET", "?tar", ""),
    ("HEAD", "?tgz", ""),
];

/// A plain request for a file.
fn read(target: &str) -> Vec<u8> {
    read_as(READS[0], target)
}

fn read_as((method, suffix, fields): (&str, &str, &str), target: &str) -> Vec<u8> {
    // A target that has a query already keeps its own.
    let suffix = if target.contains('?') { "" } else { suffix };
    format!("{method} {target}{suffix} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{fields}\r\n")
        .into_bytes()
}

/// The ways to send a file under that name, and into the folder of that name.
const WRITES: [fn(&str) -> Vec<u8>; 5] = [
    |target| put("PUT", target, "", PLANTED),
    |target| put("POST", target, "", PLANTED),
    |target| put("PUT", target, "If-None-Match: *\r\n", PLANTED),
    chunked,
    |target| form(&format!("{target}/"), "filename=\"planted.txt\""),
];

fn put(method: &str, target: &str, fields: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "{method} {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: {length}\r\n\
         {fields}\r\n{body}"
    )
    .into_bytes()
}

fn chunked(target: &str) -> Vec<u8> {
    let (first, rest) = PLANTED.split_at(1);
    format!(
        "PUT {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\
         \r\n1\r\n{first}\r\n{:x}\r\n{rest}\r\n0\r\n\r\n",
        rest.len()
    )
    .into_bytes()
}

/// A form with one file, which is called as `parameters` say.
fn form(target: &str, parameters: &str) -> Vec<u8> {
    let fields = "Content-Type: multipart/form-data; boundary=b\r\n";
    let body = format!(
        "--b\r\nContent-Disposition: form-data; name=\"file\"; {parameters}\r\n\r\n{PLANTED}\r\n\
         --b--\r\n"
    );
    put("POST", target, fields, &body)
}

/// A change of names, by its target, and what it is answered, by what that is.
type Change = (fn(&str) -> Vec<u8>, fn(Kind) -> &'static [u16]);

/// The ways to delete, rename and create what has that name, and to rename something to it.
const CHANGES: [Change; 5] = [
    (|target| change("DELETE", target, ""), of_deleted),
    (
        |target| change("DELETE", target, "Depth: infinity\r\n"),
        of_deleted,
    ),
    (
        |target| change("MKCOL", target, ""),
        |kind| match kind {
            Kind::Malformed => &[400],
            Kind::Name => &[201, 409],
            Kind::Trap => &[405],
            Kind::Behind | Kind::Host => &[403, 405, 409],
        },
    ),
    (
        |target| change("MOVE", target, "Destination: /planted.txt\r\n"),
        |kind| match kind {
            Kind::Trap => &[201],
            Kind::Malformed | Kind::Name | Kind::Behind | Kind::Host => of_deleted(kind),
        },
    ),
    (
        |target| {
            // Two slashes would be in front of a host.
            let server = if target.starts_with("//") {
                "http://h"
            } else {
                ""
            };
            let fields = format!("Destination: {server}{target}\r\nOverwrite: T\r\n");
            change("MOVE", "/inside", &fields)
        },
        |kind| match kind {
            Kind::Malformed => &[400],
            Kind::Name => &[201, 409, 502],
            Kind::Trap => &[204],
            Kind::Behind | Kind::Host => &[403, 409],
        },
    ),
];

/// A link is deleted itself.
fn of_deleted(kind: Kind) -> &'static [u16] {
    match kind {
        Kind::Malformed => &[400],
        Kind::Name => &[404],
        Kind::Trap => &[204],
        Kind::Behind | Kind::Host => &[403, 404, 409],
    }
}

fn change(method: &str, target: &str, fields: &str) -> Vec<u8> {
    format!("{method} {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{fields}\r\n")
        .into_bytes()
}

/// Checks that a reply has one of these statuses and holds nothing that is not for its client.
fn check_reply(reply: &(u16, String), statuses: &[u16]) -> Result<(), String> {
    let (status, text) = reply;
    let is_refusal = (400..500).contains(status);
    let of_a_file = FIELDS_OF_A_FILE.iter().filter(|_| is_refusal);
    let told = TELLTALES
        .iter()
        .chain(of_a_file)
        .find(|word| text.contains(**word));
    match told {
        Some(told) => Err(format!("{told:?} in {text}")),
        None if !statuses.contains(status) => Err(format!("{status}, not {statuses:?}: {text}")),
        None => Ok(()),
    }
}

/// What a request has changed.
struct Outcome {
    /// The status of the reply and all of it.
    reply: (u16, String),
    /// What was there then.
    now: Contents,
    /// Where that differs from before.
    paths: Vec<PathBuf>,
}

impl Served {
    /// Sends a request; returns the status of the reply and all of it.
    fn ask(&self, request: &[u8]) -> Result<(u16, String), String> {
        let mut stream = self.server.connect();
        stream.set_read_timeout(Some(REPLY_MAX)).unwrap();
        // A server that has refused may have closed before it was all written.
        let _ = stream.write_all(request);
        let mut reply = Vec::new();
        let ended = stream.read_to_end(&mut reply);
        let reply = String::from_utf8_lossy(&reply).into_owned();
        // Not a failure among others, for the next one that hangs would take as long.
        if matches!(&ended, Err(error) if error.kind() == ErrorKind::WouldBlock) {
            panic!(
                "the server hangs: {reply:?} to {:?}",
                String::from_utf8_lossy(request)
            );
        }
        let status = reply.strip_prefix("HTTP/1.1 ");
        let status = status.and_then(|rest| rest.get(..3)?.parse().ok());
        match status {
            Some(status) => Ok((status, reply)),
            None => Err(format!("{ended:?} after {reply:?}")),
        }
    }

    /// Sends a request that must have one of these statuses.
    fn check(&self, request: &[u8], statuses: &[u16]) -> Result<String, String> {
        let reply = self.ask(request)?;
        check_reply(&reply, statuses)?;
        Ok(reply.1)
    }

    /// Checks that everything is as it was.
    fn check_contents(&self) -> Result<(), String> {
        let now = self.grounds.contents();
        let changes = changes(&self.before, &now);
        match changes.is_empty() {
            true => Ok(()),
            false => Err(format!("changed {changes:?}")),
        }
    }

    /// Sends a request that may change something, puts everything as it was, and checks that nothing outside
    /// has changed.
    fn change(&self, request: &[u8], statuses: &[u16]) -> Result<Outcome, String> {
        let reply = self.ask(request)?;
        let now = self.grounds.contents();
        let changes = changes(&self.before, &now);
        if !changes.is_empty() {
            self.grounds.undo(&self.before, &now);
        }
        if changes.iter().any(|path| self.grounds.is_outside(path)) {
            return Err(format!("THE OUTSIDE HAS CHANGED: {changes:?} {}", reply.1));
        }
        check_reply(&reply, statuses)?;
        let paths = changes.into_iter().map(Path::to_owned).collect();
        Ok(Outcome { reply, now, paths })
    }

    /// Sends a request that changes names, checks that it changes none outside, and none at all if it is
    /// refused, and puts everything as it was.
    fn check_change(&self, request: &[u8], statuses: &[u16]) -> Result<(), String> {
        let Outcome { reply, paths, .. } = self.change(request, statuses)?;
        match paths.is_empty() == (reply.0 >= 400) {
            true => Ok(()),
            false => Err(format!("changed {paths:?}: {}", reply.1)),
        }
    }

    /// Sends an upload, checks all that it does and must not do, and puts everything as it was. If
    /// it is not refused, it is to make one file, `name` if that is known, and the folders that it
    /// needs.
    fn check_upload(
        &self,
        request: &[u8],
        statuses: &[u16],
        name: Option<&str>,
    ) -> Result<(), String> {
        let Outcome { reply, now, paths } = self.change(request, statuses)?;
        let planted = Thing::File(PLANTED.into());
        let is_planted = |path: &Path| {
            let is_named = name.is_none_or(|name| path == self.grounds.root(name));
            is_named && now.get(path) == Some(&planted)
        };
        let is_folder = |path: &Path| now.get(path) == Some(&Thing::Folder);
        let mut files = paths.iter().filter(|path| !is_folder(path));
        let is_right = match reply.0 {
            200..400 => files.next().is_some_and(|path| is_planted(path)) && files.next().is_none(),
            _ => paths.is_empty(),
        };
        match is_right {
            true => Ok(()),
            false => Err(format!("changed {paths:?}: {}", reply.1)),
        }
    }
}

/// What was tried and went wrong.
#[derive(Default)]
struct Failures(Vec<String>);

impl Failures {
    fn note<T>(&mut self, request: &[u8], result: Result<T, String>) {
        if let Err(error) = result {
            let request = String::from_utf8_lossy(request).escape_debug().to_string();
            self.0.push(format!(
                "{request:.200}
    {error:.600}"
            ));
        }
    }
}

impl Drop for Failures {
    /// Fails the test if something went wrong.
    fn drop(&mut self) {
        let failures = format!("{} failed:\n{}", self.0.len(), self.0.join("\n"));
        match thread::panicking() {
            true => eprintln!("{failures}"),
            false => assert!(self.0.is_empty(), "{failures}"),
        }
    }
}

/// Every attempt, on these grounds.
fn attempts(grounds: &Grounds) -> Vec<(Kind, String)> {
    let targets = ATTEMPTS.iter().flat_map(|(kind, targets)| {
        let filled_in = targets.iter().map(|target| grounds.fill_in(target));
        filled_in.map(|target| (*kind, target))
    });
    let devices = DEVICES.iter().filter(|_| grounds.has_devices);
    let devices = devices.map(|(name, ..)| (Kind::Trap, format!("/{name}")));
    targets.chain(devices).collect()
}

#[test]
fn nothing_but_files_inside_is_read() {
    let served = Grounds::new().serve(&[]);
    let mut failures = Failures::default();
    for (kind, target) in attempts(&served.grounds) {
        let status = if kind == Kind::Malformed { 400 } else { 404 };
        for way in READS {
            let request = read_as(way, &target);
            failures.note(&request, served.check(&request, &[status]));
        }
    }
    failures.note(b"reads", served.check_contents());
    failures.note(b"at last", served.check(&read("/inside"), &[200]));
}

#[test]
fn nothing_outside_is_written() {
    let served = Grounds::new().serve(&[]);
    let mut failures = Failures::default();
    for (kind, target) in attempts(&served.grounds) {
        for (way, request) in WRITES.iter().enumerate() {
            let is_form = way == WRITES.len() - 1;
            let statuses: &[u16] = match kind {
                Kind::Malformed => &[400],
                Kind::Name if is_form => &[303],
                Kind::Name => &[200, 201],
                Kind::Trap if target == "/nowhere" && !is_form => &[200, 201],
                Kind::Trap if !is_form => &[409],
                Kind::Trap | Kind::Behind => &[403, 404, 409, 412],
                Kind::Host => continue,
            };
            let request = request(&target);
            failures.note(&request, served.check_upload(&request, statuses, None));
        }
    }
    failures.note(b"at last", served.check(&read("/inside"), &[200]));
}

#[test]
fn nothing_outside_is_deleted_or_renamed() {
    let served = Grounds::new().serve(&["--manage"]);
    let mut failures = Failures::default();
    for (kind, target) in attempts(&served.grounds) {
        // As with uploads.
        if kind == Kind::Host {
            continue;
        }
        for (request, statuses) in CHANGES {
            let request = request(&target);
            failures.note(&request, served.check_change(&request, statuses(kind)));
        }
    }
    failures.note(b"at last", served.check(&read("/inside"), &[200]));
}

/// What a part of a form says of its file, and where that is to stand in the root, or the refusal.
const FILENAMES: &[(&str, Result<&str, u16>)] = &[
    (r#"filename="planted.txt""#, Ok("planted.txt")),
    // The folders in front of a name are those of the browser's machine.
    (r#"filename="../planted.txt""#, Ok("planted.txt")),
    (r"filename=../planted.txt", Ok("planted.txt")),
    (r#"FileName="../planted.txt""#, Ok("planted.txt")),
    (r#"filename="../../../planted.txt""#, Ok("planted.txt")),
    (r#"filename="/planted.txt""#, Ok("planted.txt")),
    (r#"filename="//planted.txt""#, Ok("planted.txt")),
    (r#"filename="{top}/planted.txt""#, Ok("planted.txt")),
    (r#"filename="{top}/secret.txt""#, Ok("secret.txt")),
    (r#"filename="../outside/secret.txt""#, Ok("secret.txt")),
    (r#"filename="folder/secret.txt""#, Ok("secret.txt")),
    (r#"filename="parent/planted.txt""#, Ok("planted.txt")),
    (r#"filename="{256}/../planted.txt""#, Ok("planted.txt")),
    (r#"filename="..\\planted.txt""#, Ok("planted.txt")),
    (r#"filename="..\\..\\planted.txt""#, Ok("planted.txt")),
    (r#"filename="..\\../planted.txt""#, Ok("planted.txt")),
    (r#"filename="C:\\planted.txt""#, Ok("planted.txt")),
    (r#"filename="\\\\host\\planted.txt""#, Ok("planted.txt")),
    (
        r#"filename="../one.txt"; filename="../two.txt""#,
        Ok("one.txt"),
    ),
    (r#"filename="..\planted.txt""#, Ok("planted.txt")),
    (r#"filename="C:\top\planted.txt""#, Ok("planted.txt")),
    (r"filename*=UTF-8''..%2fplanted.txt", Ok("planted.txt")),
    (r"filename*=UTF-8''..%5C..%5Cplanted.txt", Ok("planted.txt")),
    (
        r"filename*=UTF-8''%2F%2e%2e%2Fplanted.txt",
        Ok("planted.txt"),
    ),
    (r"filename*0=../; filename*1=planted.txt", Ok("planted.txt")),
    (
        r"filename=one.txt; filename*=UTF-8''..%2ftwo.txt",
        Ok("two.txt"),
    ),
    // Names that only look dangerous: no more is decoded than a browser encodes.
    (r#"filename="..%22""#, Ok("..\"")),
    (r#"filename="..%0D%0A""#, Ok("..\r\n")),
    (r#"filename="%2e%2e""#, Ok("%2e%2e")),
    (
        r#"filename="%2e%2e%2fplanted.txt""#,
        Ok("%2e%2e%2fplanted.txt"),
    ),
    (r#"filename="..%2fplanted.txt""#, Ok("..%2fplanted.txt")),
    (r#"filename="..%5cplanted.txt""#, Ok("..%5cplanted.txt")),
    (
        r#"filename="..%c0%afplanted.txt""#,
        Ok("..%c0%afplanted.txt"),
    ),
    (r#"filename="..%00""#, Ok("..%00")),
    (r#"filename="..∕planted.txt""#, Ok("..∕planted.txt")),
    (r#"filename="．．""#, Ok("．．")),
    (r#"filename="...""#, Ok("...")),
    (r#"filename=".. ""#, Ok(".. ")),
    (r#"filename="..;""#, Ok("..;")),
    (r#"filename="~""#, Ok("~")),
    (r#"filename="-rf""#, Ok("-rf")),
    (r#"filename="$(id)""#, Ok("$(id)")),
    // A link is followed inside.
    (r#"filename="inside""#, Ok("plain/a.txt")),
    (r#"filename="absolute-in""#, Ok("plain/a.txt")),
    (r#"filename="nowhere""#, Ok("gone.txt")),
    // What is no regular file inside is not replaced.
    (r#"filename="link""#, Err(409)),
    (r#"filename="thrice""#, Err(409)),
    (r#"filename="dangling""#, Err(409)),
    (r#"filename="folder""#, Err(409)),
    (r#"filename="everything""#, Err(409)),
    (r#"filename="magic""#, Err(409)),
    (r#"filename="loop""#, Err(409)),
    (r#"filename="fifo""#, Err(409)),
    (r#"filename="to-fifo""#, Err(409)),
    (r#"filename="socket""#, Err(409)),
    // Nor is a folder.
    (r#"filename="plain""#, Err(409)),
    (r#"filename="../plain""#, Err(409)),
    (r#"filename="here""#, Err(409)),
    // No names.
    (r#"filename=".""#, Err(400)),
    (r#"filename="..""#, Err(400)),
    (r#"filename="../..""#, Err(400)),
    (r#"filename="plain/..""#, Err(400)),
    (r#"filename="plain/.""#, Err(400)),
    (r#"filename="/""#, Err(400)),
    (r#"filename="../""#, Err(400)),
    (r#"filename="plain/""#, Err(400)),
    (r#"filename="..\\..""#, Err(400)),
    (r#"filename="\\""#, Err(400)),
    ("filename=\"..\0\"", Err(400)),
    ("filename=\"planted.txt\0.jpg\"", Err(400)),
    (r#"filename="{256}""#, Err(400)),
    (r#"filename="""#, Err(400)),
    (r#"filename="planted.txt"#, Err(400)),
    ("filename=\"..\r\n/planted.txt\"", Err(400)),
    (r"filename*=UTF-8''%2e%2e", Err(400)),
    (r"filename*=UTF-8''plain%2F%2e%2e", Err(400)),
    (r"filename*=UTF-8''planted%00.txt", Err(400)),
    (r"filename*=UTF-8''%c0%ae%c0%ae", Err(400)),
    (r"filename*=UTF-16''planted.txt", Err(400)),
    (r"filename*0=.; filename*1=.", Err(400)),
    // What the server keeps to itself.
    (r#"filename=".quartet-upload-1""#, Err(403)),
    (r#"filename="../.quartet-upload-2""#, Err(403)),
    (r#"filename=".quartet-upload-folder""#, Err(403)),
    (r"filename*=UTF-8''%2Equartet-upload-3", Err(403)),
];

#[test]
fn a_form_writes_in_its_folder_alone() {
    let served = Grounds::new().serve(&[]);
    let mut failures = Failures::default();
    for (parameters, want) in FILENAMES {
        let request = form("/", &served.grounds.fill_in(parameters));
        let status = want.err().unwrap_or(303);
        failures.note(
            &request,
            served.check_upload(&request, &[status], want.ok()),
        );
    }
}

/// Checks both listings of a folder against what can be read; returns how much that is.
fn check_listings(served: &Served, folder: &str, failures: &mut Failures) -> usize {
    let mut readable = BTreeSet::new();
    for entry in fs::read_dir(served.grounds.path(&format!("root{folder}"))).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if let Ok((200 | 301, _)) = served.ask(&read(&format!("{folder}{name}"))) {
            readable.insert(name);
        }
    }
    // What the names stand between in a listing.
    for (query, start, end) in [("?json", "\"name\":\"", '"'), ("", "href=\"./", '"')] {
        let request = read(&format!("{folder}{query}"));
        let checked = served.check(&request, &[200]).and_then(|reply| {
            let names = reply.split(start).skip(1);
            let names = names.filter_map(|rest| rest.split(['/', end]).next());
            let names: BTreeSet<_> = names.map(str::to_owned).collect();
            match names == readable {
                true => Ok(()),
                false => Err(format!("{names:?}, not {readable:?}")),
            }
        });
        failures.note(&request, checked);
    }
    readable.len()
}

#[test]
fn a_listing_shows_what_can_be_read_and_nothing_else() {
    let served = Grounds::new().serve(&[]);
    let mut failures = Failures::default();
    for (folder, readable) in [
        ("/", 7),
        ("/site/", 3),
        ("/plain/", 2),
        ("/here/plain/up/site/", 3),
        // The file, and the links from which it is not too far.
        ("/chain/", 41),
    ] {
        let found = check_listings(&served, folder, &mut failures);
        assert_eq!(found, readable, "{folder}");
    }
    for page in served.grounds.pages() {
        assert_eq!(check_listings(&served, &page, &mut failures), 0, "{page}");
    }
}

#[test]
fn an_archive_holds_nothing_from_outside() {
    let served = Grounds::new().serve(&[]);
    let mut failures = Failures::default();
    for folder in ["/", "/site/", "/pages/", "/chain/", "/here/plain/up/"] {
        // Neither of them hides what it holds.
        for query in ["?zip", "?tar"] {
            let request = read(&format!("{folder}{query}"));
            let checked = served.check(&request, &[200]).and_then(|reply| {
                let is_reserved = reply.contains(".quartet-");
                let climbs = ["../", "/./", "//"].iter().any(|part| reply.contains(part));
                match is_reserved || climbs {
                    true => Err(reply),
                    false => Ok(()),
                }
            });
            failures.note(&request, checked);
        }
    }
    failures.note(b"archives", served.check_contents());
}

#[test]
fn a_page_that_is_no_file_inside_is_none() {
    let served = Grounds::new().serve(&["--no-listing"]);
    let mut failures = Failures::default();
    for page in served.grounds.pages() {
        for target in [page.as_str(), page.trim_end_matches('/')] {
            for way in READS {
                let request = read_as(way, target);
                failures.note(&request, served.check(&request, &[404]));
            }
        }
    }
}

#[test]
fn links_that_stay_inside_are_followed() {
    let served = Grounds::new().serve(&[]);
    let mut failures = Failures::default();
    for target in [
        "/inside",
        "/site/inside",
        "/here/plain/a.txt",
        "/plain/up/inside",
        "/absolute-in",
        "/site/absolute-folder-in/a.txt",
        "/site/absolute-folder-in/up/absolute-in",
    ] {
        let request = read(target);
        let checked = served.check(&request, &[200]);
        let checked = checked.map(|reply| assert!(reply.ends_with("\r\n\r\nplain/a.txt")));
        failures.note(&request, checked);
    }
    for target in [
        "/here/plain/b.txt",
        "/plain/up/here/plain/b.txt",
        "/site/absolute-folder-in/b.txt",
    ] {
        let request = put("PUT", target, "", PLANTED);
        let checked = served.check_upload(&request, &[201], Some("plain/b.txt"));
        failures.note(&request, checked);
    }
}

/// That a file has another name outside is nothing that the server can know; but what an upload
/// replaces is the name, and not what is in the file.
#[test]
fn an_upload_leaves_the_other_name_of_a_hard_link_alone() {
    let served = Grounds::new().serve(&[]);
    let [secret, hard] = ["secret.txt", "root/plain/a.txt"].map(|name| served.grounds.path(name));
    fs::remove_file(&hard).unwrap();
    fs::hard_link(secret, hard).unwrap();
    let request = put("PUT", "/plain/a.txt", "", PLANTED);
    let checked = served.check_upload(&request, &[200], Some("plain/a.txt"));
    assert_eq!(checked, Ok(()));
}

/// Requests that a client sends in turn, a number of times.
type Round = (usize, Vec<Vec<u8>>);

/// Changes the tree over and over, as fast as the machine can, while each client goes its rounds.
/// None may be given what is secret or write it over, and they must have met both what is inside
/// and what is not there.
#[track_caller]
fn check_race(served: &Served, change: impl Fn() + Sync, rounds: &[Round]) {
    let is_done = AtomicBool::new(false);
    let failures = Mutex::new(Failures::default());
    let met = Mutex::new(BTreeMap::<u16, usize>::new());
    let go = |(times, requests): &Round| {
        for request in requests.iter().cycle().take(*times) {
            let checked = served.ask(request).and_then(|reply| {
                *met.lock().unwrap().entry(reply.0).or_default() += 1;
                let statuses = [200, 201, 204, 206, 303, 304, 404, 405, 409, 503];
                check_reply(&reply, &statuses)
            });
            failures.lock().unwrap().note(request, checked);
        }
    };
    thread::scope(|scope| {
        let changer = scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                change();
            }
        });
        let go = &go;
        let clients: Vec<_> = rounds
            .iter()
            .map(|round| scope.spawn(move || go(round)))
            .collect();
        let ended: Vec<_> = clients.into_iter().map(|client| client.join()).collect();
        is_done.store(true, Ordering::Relaxed);
        changer.join().unwrap();
        assert!(ended.iter().all(Result::is_ok));
    });
    drop(failures.into_inner().unwrap());
    let now = served.grounds.contents();
    let is_bad = |path: &&Path| {
        let is_temporary = path.to_string_lossy().contains("/.quartet-");
        is_temporary || served.grounds.is_outside(path)
    };
    let changes = changes(&served.before, &now);
    let bad: Vec<_> = changes.into_iter().filter(is_bad).collect();
    assert!(bad.is_empty(), "changed outside or left behind: {bad:?}");
    let met = met.into_inner().unwrap();
    assert!(met.contains_key(&200) && met.contains_key(&404), "{met:?}");
}

/// Reads and writes in the folder `box`, and at its place.
fn rounds_of_the_box() -> Vec<Round> {
    let reads = [
        ("GET", "", ""),
        ("GET", "?json", ""),
        ("HEAD", "secret.txt", ""),
        ("GET", "secret.txt", ""),
        ("GET", "secret.txt", "Range: bytes=0-3\r\n"),
    ];
    let reads = reads.map(|way| read_as(way, "/box/")).to_vec();
    let writes = vec![
        put("PUT", "/box/planted.txt", "", PLANTED),
        put("POST", "/box/new/planted.txt", "", PLANTED),
        chunked("/box/planted.txt"),
        form("/box/", "filename=\"secret.txt\""),
    ];
    vec![(1000, reads.clone()), (1000, reads), (300, writes)]
}

#[test]
fn what_is_exchanged_for_a_link_leads_nowhere() {
    let served = Grounds::new().serve(&[]);
    let root = |name| served.grounds.root(name);
    make_box(&root("box"));
    fs::write(root("file"), "inside").unwrap();
    symlink("../outside", root("box-link")).unwrap();
    symlink("../secret.txt", root("file-link")).unwrap();
    let exchange = || {
        for (one, other) in [("box", "box-link"), ("file", "file-link")] {
            renameat_with(CWD, root(one), CWD, root(other), RenameFlags::EXCHANGE).unwrap();
        }
    };
    let mut rounds = rounds_of_the_box();
    rounds.push((1000, READS.map(|way| read_as(way, "/file")).to_vec()));
    check_race(&served, exchange, &rounds);
}

#[test]
fn what_is_tidied_while_it_is_exchanged_for_a_link_is_inside() {
    let served = Grounds::new().serve(&["--manage"]);
    let root = |name| served.grounds.root(name);
    make_box(&root("box"));
    symlink("../outside", root("box-link")).unwrap();
    let exchange = || {
        let [one, other] = ["box", "box-link"].map(root);
        renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
    };
    let rename = |from: &str, to: &str| {
        let fields = format!("Destination: /box/{to}\r\n");
        change("MOVE", &format!("/box/{from}"), &fields)
    };
    let tidied = vec![
        put("PUT", "/box/planted.txt", "", PLANTED),
        rename("planted.txt", "other.txt"),
        change("DELETE", "/box/other.txt", ""),
        change("MKCOL", "/box/new", ""),
        put("PUT", "/box/new/planted.txt", "", PLANTED),
        rename("new", "newer"),
        change("DELETE", "/box/newer", "Depth: infinity\r\n"),
    ];
    let mut rounds = rounds_of_the_box();
    rounds.extend([(700, tidied.clone()), (700, tidied)]);
    check_race(&served, exchange, &rounds);
}

/// Between the folder and the link there are moments with nothing, in which uploads make a folder.
#[test]
fn a_folder_that_comes_and_goes_leads_nowhere() {
    let served = Grounds::new().serve(&[]);
    let [folder, aside] = ["box", "aside"].map(|name| served.grounds.root(name));
    make_box(&folder);
    let change = || {
        fs::rename(&folder, &aside).unwrap();
        // Unless an upload was faster.
        let _ = symlink("../outside", &folder);
        while fs::rename(&aside, &folder).is_err() {
            remove(&folder);
        }
    };
    let mut rounds = rounds_of_the_box();
    rounds.push((300, vec![put("PUT", "/box", "", PLANTED)]));
    check_race(&served, change, &rounds);
}

fn make_box(folder: &Path) {
    fs::create_dir(folder).unwrap();
    fs::write(folder.join("secret.txt"), "inside").unwrap();
}

#[test]
fn a_file_that_turns_into_something_else_is_given_as_a_file_only() {
    let served = Grounds::new().serve(&[]);
    let [file, aside] = ["file", "aside"].map(|name| served.grounds.root(name));
    let ways: [fn(&Path); 4] = [
        |path| symlink("../secret.txt", path).unwrap(),
        |path| symlink("/proc/self/environ", path).unwrap(),
        |path| mkfifoat(CWD, path, Mode::RWXU).unwrap(),
        |path| drop(UnixListener::bind(path).unwrap()),
    ];
    let change = || {
        for make in ways {
            for make in [make, |path| fs::write(path, "inside").unwrap()] {
                make(&aside);
                fs::rename(&aside, &file).unwrap();
            }
        }
    };
    let reads = READS.map(|way| read_as(way, "/file")).to_vec();
    let listings = vec![read("/?json"), read("/?sort=size")];
    let writes = vec![
        put("PUT", "/file", "", PLANTED),
        chunked("/file"),
        form("/", "filename=\"file\""),
    ];
    let rounds = [
        (1000, reads.clone()),
        (1000, reads),
        (200, listings),
        (300, writes),
    ];
    check_race(&served, change, &rounds);
}
