//! What the file client keeps beside a file to go on with its transfer, where it might be somebody
//! else's: a folder of many users, an unpacked archive, what was left by a client that was killed.

use std::fs::{self, File};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

use proto::http::digest::{self, Hasher};
use serde_json::{Value, json};

use crate::file::{ask, get};
use crate::file_client::{Sides, check_says, command, names, read_request, sides};
use crate::harness::{Running, Then, eventually, fake_server};

/// What is on the server, and what somebody would rather have here: as long as that.
const REAL: &str = "what the server has\n";
const EVIL: &str = "what the enemy has.\n";

const PART: &str = ".quartet-download-real";
const PART_STATE: &str = ".quartet-resume-real";

const GET: &[&str] = &["get", "real", "--resume"];
const NOT_USED: &str = " is not used: it is not ours alone";

/// A user who is not us, if we are root.
const NOBODY: u32 = 65534;

fn digest_of(text: &str) -> String {
    digest::format(&Hasher::digest_of(text.as_bytes()).unwrap())
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

/// Writes a file as the client does for a transfer that it resumes.
pub fn plant(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// A server that has the file, and a client who finds all of it here already, so to speak.
fn planted(digest: Option<&str>) -> Sides {
    let sides = sides(&[]);
    fs::write(sides.tree.root("real"), REAL).unwrap();
    plant_download(&sides, EVIL, digest);
    sides
}

fn plant_download(sides: &Sides, bytes: &str, digest: Option<&str>) {
    let etag = ask(&sides.server, get("/real")).field("ETag").to_owned();
    let state = json!({
        "server": sides.server.addr().to_string(),
        "target": "/real",
        "etag": etag,
        "digest": digest,
    });
    plant(&sides.here.path().join(PART), bytes.as_bytes());
    plant(
        &sides.here.path().join(PART_STATE),
        state.to_string().as_bytes(),
    );
}

#[track_caller]
fn check(sides: &Sides, code: i32, says: &str) {
    sides.check_says(GET, code, says);
}

/// The file is here as the server has it, and ours.
#[track_caller]
fn check_real(sides: &Sides) {
    let real = sides.here.path().join("real");
    assert_eq!(fs::read_to_string(&real).unwrap(), REAL);
    let ours = fs::metadata(sides.here.path()).unwrap().uid();
    assert_eq!(fs::metadata(&real).unwrap().uid(), ours);
}

#[test]
fn a_planted_part_as_long_as_the_file_is_not_the_file() {
    for digest in [None, Some(digest_of(EVIL)), Some(digest_of(REAL))] {
        let sides = planted(digest.as_deref());
        check(&sides, 3, "does not match the server's digest\n");
        assert_eq!(names(sides.here.path()), ["folder", "mine.txt"]);
        check(&sides, 0, "Saved real: 20 bytes");
        check_real(&sides);
    }
    // One that is right is still taken.
    let sides = planted(None);
    plant_download(&sides, REAL, None);
    check(&sides, 0, "Saved real: 20 bytes");
    check_real(&sides);
}

#[test]
fn a_part_or_a_state_that_others_can_open_is_not_used() {
    for name in [PART, PART_STATE] {
        for mode in [0o644, 0o620, 0o606] {
            let sides = planted(None);
            let path = sides.here.path().join(name);
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            check(&sides, 0, &format!("{name}{NOT_USED}"));
            check_real(&sides);
            assert_eq!(names(sides.here.path()), ["folder", "mine.txt", "real"]);
        }
    }
}

#[test]
fn what_another_user_has_put_there_is_left_alone() {
    for name in [PART, PART_STATE] {
        let sides = planted(None);
        let path = sides.here.path().join(name);
        if chown(&path, Some(NOBODY), Some(NOBODY)).is_err() {
            return; // Only root can try this.
        }
        let before = fs::read(&path).unwrap();
        check(&sides, 0, &format!("{name} belongs to another user"));
        check_real(&sides);
        assert_eq!(fs::read(&path).unwrap(), before);
        assert_eq!(fs::metadata(&path).unwrap().uid(), NOBODY);
    }
}

#[test]
fn a_link_in_the_place_of_a_part_is_not_followed() {
    let sides = planted(None);
    let part = sides.here.path().join(PART);
    fs::remove_file(&part).unwrap();
    symlink("mine.txt", &part).unwrap();
    check(&sides, 2, "cannot write .quartet-download-real: ");
    let mine = sides.here.path().join("mine.txt");
    assert_eq!(fs::read_to_string(&mine).unwrap(), "mine\n");
    // Nor by another name of a file of ours.
    fs::remove_file(&part).unwrap();
    fs::set_permissions(&mine, fs::Permissions::from_mode(0o600)).unwrap();
    fs::hard_link(&mine, &part).unwrap();
    check(&sides, 0, NOT_USED);
    check_real(&sides);
    assert_eq!(fs::read_to_string(&mine).unwrap(), "mine\n");
}

/// A server that gives no digest, and whose file has these fields by now.
fn silent_server(fields: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            while let Some(asked) = read_request(&mut stream) {
                let has_range = !asked.field("range").is_empty();
                let reply = match (asked.line.as_str(), has_range) {
                    ("GET /real", true) => {
                        "416 Range Not Satisfiable\r\nContent-Range: bytes */4\r\n\
                         Content-Length: 0\r\n\r\n"
                            .to_owned()
                    }
                    ("GET /real", false) => {
                        "200 OK\r\nETag: \"2\"\r\nContent-Length: 3\r\n\r\nnew".to_owned()
                    }
                    ("HEAD /real", false) => format!("200 OK\r\n{fields}\r\n\r\n"),
                    other => panic!("{other:?}"),
                };
                // The client may have gone.
                let _ = write!(stream, "HTTP/1.1 {reply}");
            }
        }
    });
    port
}

#[test]
fn without_a_digest_the_version_and_the_length_are_confirmed() {
    for (fields, want) in [
        ("ETag: \"1\"\r\nContent-Length: 4", "part"),
        ("ETag: \"2\"\r\nContent-Length: 4", "new"),
        ("ETag: \"1\"\r\nContent-Length: 5", "new"),
        ("ETag: W/\"1\"\r\nContent-Length: 4", "new"),
        ("Content-Length: 4", "new"),
    ] {
        let port = silent_server(fields);
        let here = tempfile::tempdir().unwrap();
        let state = json!({
            "server": format!("127.0.0.1:{port}"),
            "target": "/real",
            "etag": "\"1\"",
            "digest": Value::Null,
        });
        plant(&here.path().join(PART), b"part");
        plant(&here.path().join(PART_STATE), state.to_string().as_bytes());
        check_says(port, here.path(), GET, 0, "Saved real: ");
        assert_eq!(
            fs::read_to_string(here.path().join("real")).unwrap(),
            want,
            "{fields}"
        );
        assert_eq!(names(here.path()), ["real"]);
    }
}

/// Begins an upload to somewhere else, and says that it is one of `mine.txt` to `/mine.txt`.
fn plant_upload(sides: &Sides) -> PathBuf {
    let begin = "PUT /elsewhere HTTP/1.1\r\nHost: h\r\nUpload-Complete: ?0\r\n\
                 Upload-Length: 5\r\nContent-Length: 0\r\n\r\n";
    let reply = ask(&sides.server, begin);
    assert_eq!(reply.status, 201, "{}", reply.head);
    let state = json!({
        "server": sides.server.addr().to_string(),
        "target": "/mine.txt",
        "is_new": false,
        "digest": digest_of("mine\n"),
        "bytes": 5,
        "url": reply.field("Location").trim_start_matches('.'),
    });
    let path = sides.here.path().join(".quartet-upload-mine.txt");
    plant(&path, state.to_string().as_bytes());
    path
}

#[test]
fn an_upload_that_was_led_elsewhere_is_made_where_it_was_asked_for() {
    let sides = sides(&[]);
    let put = ["put", "mine.txt", "--resume"];
    plant_upload(&sides);
    sides.check_says(&put, 0, "mine.txt: the server has nothing of it; starting");
    assert_eq!(fs::read(sides.tree.root("mine.txt")).unwrap(), b"mine\n");
    assert_eq!(names(sides.here.path()), ["folder", "mine.txt"]);

    // With a state that others can write, nothing gets there at all.
    fs::remove_file(sides.tree.root("elsewhere")).unwrap();
    let state = plant_upload(&sides);
    fs::set_permissions(&state, fs::Permissions::from_mode(0o644)).unwrap();
    sides.check_says(&put, 0, NOT_USED);
    assert!(!sides.tree.root("elsewhere").exists());
    let state = plant_upload(&sides);
    if chown(&state, Some(NOBODY), None).is_ok() {
        let before = fs::read(&state).unwrap();
        sides.check_says(&put, 0, "it belongs to another user");
        assert!(!sides.tree.root("elsewhere").exists());
        assert_eq!(fs::read(&state).unwrap(), before);
    }
}

/// A client that has got half of a file and waits for the rest; and where the half is.
fn stalled(here: &Path, args: &[&str]) -> (Running, PathBuf) {
    let half = b"HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Length: 10\r\n\r\nhalf";
    let port = fake_server(half.to_vec(), Then::Wait);
    let client = Running::start(command(port, here, args));
    let part = || {
        let entries = fs::read_dir(here)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let mut parts = entries.filter(|path| fs::read(path).is_ok_and(|bytes| bytes == b"half"));
        parts.next()
    };
    eventually("half of it has arrived", || part().is_some());
    (client, part().unwrap())
}

#[test]
fn a_download_is_nobody_elses_before_it_has_its_place() {
    for resume in [&["--resume"][..], &[]] {
        let sides = sides(&[]);
        let keep = sides.here.path().join("keep");
        let plain = sides.here.path().join("mine.txt");
        for (to, before, after) in [
            ("keep", Some(0o600), 0o600),
            ("keep", Some(0o640), 0o640),
            ("keep", Some(0o666), 0o666),
            ("new", None, mode(&plain)),
        ] {
            if let Some(before) = before {
                fs::write(&keep, "old").unwrap();
                fs::set_permissions(&keep, fs::Permissions::from_mode(before)).unwrap();
            }
            let args = [&["get", "plain/a.txt", "-o", to], resume].concat();
            let (client, part) = stalled(sides.here.path(), &args);
            assert_eq!(mode(&part), 0o600, "{part:?}");
            client.kill();
            sides.check_says(&args, 0, "Saved");
            let there = sides.here.path().join(to);
            assert_eq!(fs::read(&there).unwrap(), b"a");
            assert_eq!(mode(&there), after, "{args:?} {before:?}");
        }
    }
}

#[test]
fn a_download_keeps_the_owner_of_what_it_replaces() {
    let sides = sides(&[]);
    let mine = sides.here.path().join("mine.txt");
    if chown(&mine, Some(NOBODY), Some(NOBODY)).is_err() {
        return; // Only root can try this.
    }
    let args = ["get", "plain/a.txt", "-o", "mine.txt"];
    sides.check_says(&args, 0, "Saved");
    let there = fs::metadata(&mine).unwrap();
    assert_eq!((there.uid(), there.gid(), there.len()), (NOBODY, NOBODY, 1));
}

#[test]
fn a_file_that_is_read_only_is_not_replaced() {
    let sides = sides(&[]);
    let mine = sides.here.path().join("mine.txt");
    fs::set_permissions(&mine, fs::Permissions::from_mode(0o444)).unwrap();
    for resume in [&["--resume"][..], &[]] {
        let args = [&["get", "plain/a.txt", "-o", "mine.txt"], resume].concat();
        let says = "file-client: cannot write mine.txt: permission denied";
        sides.check_says(&args, 2, says);
        assert_eq!(fs::read(&mine).unwrap(), b"mine\n");
    }
    assert_eq!(names(sides.here.path()), ["folder", "mine.txt"]);
}

#[test]
fn what_a_killed_client_has_left_is_removed_when_it_is_old() {
    let sides = sides(&[]);
    let (killed, old) = stalled(sides.here.path(), &["get", "a"]);
    killed.kill();
    let (killed, young) = stalled_beside(&sides, &old);
    killed.kill();
    let two_days_ago = SystemTime::now() - Duration::from_secs(48 * 3600);
    let age = |path: &Path| {
        let file = File::options().write(true).open(path).unwrap();
        file.set_modified(two_days_ago).unwrap();
    };
    age(&old);
    assert_eq!(mode(&old), 0o600);
    // What can be gone on with stays, however old it is.
    plant(&sides.here.path().join(PART), b"half");
    plant(&sides.here.path().join(PART_STATE), b"{}");
    age(&sides.here.path().join(PART));
    let args = ["get", "plain/a.txt"];
    sides.check_says(&args, 0, "Saved");
    assert!(!old.exists() && young.exists());
    assert!(sides.here.path().join(PART).exists());
    // Of a client that is still at it, nothing is removed.
    fs::remove_file(&young).unwrap();
    let (_client, slow) = stalled(sides.here.path(), &["get", "a", "-o", "slow"]);
    age(&slow);
    sides.check_says(&args, 0, "Saved");
    assert!(slow.exists());
}

/// Another such client, which leaves another file.
fn stalled_beside(sides: &Sides, other: &Path) -> (Running, PathBuf) {
    let aside = sides.here.path().join("folder/aside");
    fs::rename(other, &aside).unwrap();
    let stalled = stalled(sides.here.path(), &["get", "a"]);
    fs::rename(&aside, other).unwrap();
    stalled
}
