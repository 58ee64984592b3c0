//! A server whose lists are lies: of names that lead elsewhere, of folders without end, of files that it
//! does not have. `get FOLDER/` writes nothing outside its folder, and ends.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::file::contents;
use crate::file_client::{command, said};
use crate::harness::{PATIENCE, Ran, run_command};

/// What every file of the server holds.
const PLANTED: &str = "planted";

/// What a server lists of a folder, by its path; `None` if it is a file.
type Lists = dyn Fn(&str) -> Option<Value> + Send + Sync;

fn list(entries: Vec<Value>) -> Option<Value> {
    Some(json!({ "entries": entries, "complete": true }))
}

fn file(name: &str, href: &str) -> Value {
    json!({ "name": name, "href": href, "bytes": PLANTED.len(), "modified": "" })
}

/// A file that is worth sidecars.
fn large(name: &str) -> Value {
    json!({ "name": name, "bytes": 2 << 20, "modified": "" })
}

fn folder(name: &str, href: &str) -> Value {
    json!({ "name": name, "href": href, "bytes": null, "modified": "" })
}

/// Starts the server; returns its port.
fn server(lists: impl Fn(&str) -> Option<Value> + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let lists: Arc<Lists> = Arc::new(lists);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let lists = Arc::clone(&lists);
            thread::spawn(move || serve(stream.unwrap(), &*lists));
        }
    });
    port
}

/// Answers one request after the other, until the client goes.
fn serve(stream: TcpStream, lists: &Lists) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
    while let Some(request) = lines.next() {
        let _fields = lines.by_ref().take_while(|line| !line.is_empty()).count();
        let target = request.split(' ').nth(1).unwrap_or_default();
        let path = target.split('?').next().unwrap_or_default();
        let (kind, body) = match lists(path) {
            Some(list) => ("application/json", list.to_string()),
            None => ("text/plain\r\nETag: \"1\"", PLANTED.to_owned()),
        };
        let bytes = body.len();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {bytes}");
        let body = if request.starts_with("HEAD") {
            ""
        } else {
            &body
        };
        if write!(&stream, "{head}\r\n\r\n{body}").is_err() {
            return;
        }
    }
}

/// A folder `into` for what is got, in a folder that nothing may be written to.
struct Grounds {
    top: TempDir,
}

impl Grounds {
    fn new() -> Self {
        let top = tempfile::tempdir().unwrap();
        for folder in ["here/into", "outside"] {
            fs::create_dir_all(top.path().join(folder)).unwrap();
        }
        for file in ["secret", "outside/secret", "here/secret"] {
            fs::write(top.path().join(file), "secret").unwrap();
        }
        Self { top }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.top.path().join(name)
    }

    /// Everything but what is in `into`.
    fn outside(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut all = contents(self.top.path());
        all.retain(|path, _| !path.starts_with(self.path("here/into/")));
        all
    }

    /// Gets the folder `x/` into `into`; nothing else has changed.
    #[track_caller]
    fn get(&self, port: u16, options: &[&str]) -> Ran {
        let before = self.outside();
        let mut client = command(port, &self.path("here"), &["get", "x/", "-o", "into"]);
        client.args(options);
        let ran = run_command(client, b"");
        assert_eq!(self.outside(), before, "{}\n{}", ran.command, ran.stderr);
        ran
    }

    /// The paths in `into`.
    fn got(&self) -> Vec<String> {
        let into = self.path("here/into");
        let paths = contents(&into).into_keys();
        let path = |path: PathBuf| path.strip_prefix(&into).unwrap().display().to_string();
        paths.map(path).collect()
    }
}

/// Names, and the links to them, that lead out of a folder or to no file.
const ESCAPES: [(&str, &str); 26] = [
    ("", "./"),
    (".", "./."),
    ("..", "./.."),
    ("..", ".."),
    ("..", "../"),
    ("../secret", "../secret"),
    ("../secret", "./../secret"),
    ("../secret", "./%2e%2e%2fsecret"),
    ("../secret", "%2E%2E/secret"),
    ("secret", "..%2fsecret"),
    ("secret", "/secret"),
    ("secret", "%2fsecret"),
    ("secret", "//127.0.0.1/secret"),
    ("secret", "http://127.0.0.1/secret"),
    ("secret", "file:secret"),
    ("a/../../secret", "./a/../../secret"),
    ("into/../secret", "./into%2f..%2fsecret"),
    ("a", "./a%00b"),
    ("a", "./a/b"),
    ("a", "./a//"),
    ("a", "./a?b"),
    ("a", "./a#b"),
    ("a", "?a"),
    ("a", "#a"),
    ("a", ""),
    ("..", "%2e."),
];

#[test]
fn no_name_leads_out_of_the_folder() {
    for (name, href) in ESCAPES {
        for is_folder in [false, true] {
            let lie = if is_folder {
                folder(name, href)
            } else {
                file(name, href)
            };
            let port = server(move |path| match path {
                "/x/" => list(vec![lie.clone(), file("good", "./good")]),
                path if path.ends_with('/') => list(vec![file("secret", "./secret")]),
                _ => None,
            });
            let grounds = Grounds::new();
            let ran = grounds.get(port, &[]).expect(3);
            ran.check_says("which is not the name of a file");
            ran.check_says("into: 1 file, 7 bytes; 0 skipped, 1 failed");
            assert_eq!(grounds.got(), ["good"], "{name} {href}");
        }
    }
    // Without links the names count.
    let grounds = Grounds::new();
    let port = server(|path| match path {
        "/x/" => {
            let names = ["../secret", "/secret", "..", "", "a\0", "good"];
            list(
                names
                    .map(|name| json!({ "name": name, "bytes": 7, "modified": "" }))
                    .into(),
            )
        }
        _ => None,
    });
    let ran = grounds.get(port, &["-j", "4"]).expect(3);
    ran.check_says("1 file, 7 bytes; 0 skipped, 5 failed");
    assert_eq!(grounds.got(), ["good"]);
}

#[test]
fn no_name_becomes_a_sidecar() {
    let state = json!({ "server": "h:1", "target": "/x/a", "etag": "\"1\"", "digest": null });
    let port = server(move |path| match path {
        "/x/" => {
            let names = [
                ".quartet-download-a",
                ".quartet-resume-a",
                ".quartet-upload-a",
                ".QUARTET-state-a",
                "%2equartet-resume-b",
            ];
            let mut entries: Vec<_> = names.iter().map(|name| file("a", name)).collect();
            entries.push(folder("b", "./.quartet-folder/"));
            entries.push(file("good", "./good"));
            list(entries)
        }
        path if path.contains("quartet") => Some(state.clone()),
        _ => None,
    });
    let grounds = Grounds::new();
    let ran = grounds.get(port, &["--resume"]).expect(0);
    ran.check_says("x/.QUARTET-state-a is left out: names that begin with .quartet- are reserved");
    ran.check_says("into: 1 file, 7 bytes; 6 skipped, 0 failed");
    assert_eq!(grounds.got(), ["good"]);
}

#[test]
fn no_link_that_lies_in_the_folder_is_followed() {
    let grounds = Grounds::new();
    for (link, target) in [
        ("here/into/up", "../.."),
        ("here/into/outside", "../../outside"),
        ("here/into/file", "../secret"),
        ("here/into/new", "../planted"),
        ("here/into/sub/.quartet-download-a", "../../secret"),
    ] {
        fs::create_dir_all(grounds.path(link).parent().unwrap()).unwrap();
        symlink(target, grounds.path(link)).unwrap();
    }
    let port = server(|path| match path {
        "/x/" => list(vec![
            folder("up", "./up/"),
            folder("outside", "./outside/"),
            file("file", "./file"),
            file("new", "./new"),
            file("up", "./up"),
            folder("sub", "./sub/"),
        ]),
        "/x/sub/" => list(vec![large("a"), file("good", "./good")]),
        path if path.ends_with('/') => list(vec![file("secret", "./secret")]),
        _ => None,
    });
    for options in [
        &[][..],
        &["--resume"],
        &["--update"],
        &["--update=digest", "-j", "4"],
    ] {
        let ran = grounds.get(port, options);
        assert_eq!(ran.code, Some(2), "{}", ran.stderr);
        for name in ["up", "outside", "file", "new"] {
            let says = "it is a symbolic link, and none is followed there";
            ran.check_says(&format!("cannot write into/{name}: {says}"));
            assert!(grounds.path("here/into").join(name).is_symlink());
        }
        let good = fs::read_to_string(grounds.path("here/into/sub/good"));
        assert_eq!(good.unwrap(), PLANTED);
    }
}

#[test]
fn a_link_that_is_planted_meanwhile_is_not_followed() {
    for options in [&[][..], &["--resume"]] {
        let grounds = Grounds::new();
        let into = grounds.path("here/into");
        let (sub, moved) = (into.join("sub"), into.join("moved"));
        let port = server(move |path| match path {
            "/x/" => list(vec![folder("sub", "./sub/")]),
            "/x/sub/" => list(vec![large("a")]),
            _ => {
                // The client has asked for the file, and has not got it yet.
                if fs::rename(&sub, &moved).is_ok() {
                    symlink("../../outside", &sub).unwrap();
                }
                None
            }
        });
        grounds.get(port, options);
        assert!(!grounds.path("outside/a").exists());
        assert!(into.join("sub").is_symlink());
        // The second time the link is there from the start.
        let ran = grounds.get(port, options).expect(2);
        ran.check_says("cannot write into/sub: it is a symbolic link");
    }
}

#[test]
fn folders_without_end_end() {
    let grounds = Grounds::new();
    let port = server(|path| match path.ends_with('/') {
        true => list(vec![folder("d", "./d/"), file("f", "./f")]),
        false => None,
    });
    let ran = grounds.get(port, &["-j", "4"]).expect(1);
    ran.check_says("this exceeds 128 levels or 4096 bytes below the folder");
    ran.check_says("into: 129 files, 903 bytes; 0 skipped, 1 failed");
    let depth = |path: &Path| path.components().count();
    let base = depth(&grounds.path("here/into"));
    let deepest = contents(&grounds.path("here/into")).into_keys();
    let deepest = deepest.map(|path| depth(&path) - base).max();
    assert_eq!(deepest, Some(129));
    // Long names end earlier.
    let grounds = Grounds::new();
    let long = "d".repeat(250);
    let port = server(move |path| match path.ends_with('/') {
        true => list(vec![folder(&long, &format!("./{long}/"))]),
        false => None,
    });
    let ran = grounds.get(port, &[]).expect(1);
    ran.check_says("this exceeds 128 levels or 4096 bytes below the folder");
}

#[test]
fn a_list_of_nothing_but_lies_is_none() {
    let grounds = Grounds::new();
    let port = server(|path| match path {
        "/x/" => list(vec![file("a", ".."); 101]),
        _ => None,
    });
    let ran = grounds.get(port, &[]).expect(1);
    assert_eq!(
        said(&ran),
        ["file-client: x/: the server gives no list of that folder"]
    );
}

#[test]
fn what_a_list_lacks_is_a_failure_and_the_rest_is_got() {
    let grounds = Grounds::new();
    let port = server(|path| match path {
        "/x/" => Some(json!({
            "entries": [file("a", "./a"), file("a", "./a"), folder("a", "./a/"), folder("s", "./s/")],
            "complete": false,
        })),
        "/x/a/" => list(vec![]),
        "/x/s/" => list(vec![
            json!({ "name": "link", "href": "./link/", "bytes": null,
                                     "modified": "", "link": true }),
        ]),
        _ => None,
    });
    let ran = grounds.get(port, &[]);
    ran.check_says("x/: the list is not complete");
    ran.check_says("[WARN] [walk] x/s/link is left out: it is a link to a folder");
    ran.check_says("1 skipped, ");
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    assert!(grounds.path("here/into/s").is_dir());
    assert!(!grounds.path("here/into/s/link").exists());
}
