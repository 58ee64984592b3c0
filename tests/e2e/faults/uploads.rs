//! Uploads to a disk that fails once. What was not synced by then counts for nothing: the server says
//! so and ends, and the next one goes on behind what is on the disk, not behind what is in memory.

use super::failing_disk::has_strace;
use super::*;
use crate::file::{Http, Reply, ask, get, post};
use crate::harness::ThinDisk;
use crate::resumable::{append, append_last, begin, check_complete, head, offset, resource_of};
use crate::upload_records::check_finished;

/// So long is a piece of a file: more pages than one.
const PIECE_BYTES: usize = 1 << 20;

/// Letters that tell where they stand.
fn letters(bytes: usize) -> String {
    let letter = |byte: u8| char::from(b'a' + byte % 26);
    let noise = Noise::new(bytes as u64).bytes(bytes);
    noise.into_iter().map(letter).collect()
}

pub(super) fn serve(root: &Path, port: u16) -> Command {
    let mut command = Command::new(program("file-server"));
    let port = port.to_string();
    command.args([&port, "--idle-exit", "0", "--keep-free", "0", "--root"]);
    command.arg(root);
    command
}

fn start(disk: &ThinDisk) -> Server {
    Server::spawn(serve(&disk.path(), 0))
}

/// The server has said that a sync failed, and ended.
#[track_caller]
pub(super) fn check_stopped(ended: (Option<i32>, String)) {
    let (code, log) = ended;
    assert_eq!(code, Some(2), "{log}");
    let last = log.lines().last().unwrap_or_default();
    let says = "file-server: stopping: the disk failed: ";
    assert!(last.starts_with(says), "{log}");
    assert!(!log.contains("panicked"), "{log}");
}

/// The disk has all of a file, when the server has ended.
#[track_caller]
fn check_on_disk(disk: &ThinDisk, server: &Server, name: &str, want: &str) {
    server.signal("TERM");
    assert_eq!(server.wait().0, Some(0));
    disk.drop_cache();
    let there = fs::read(disk.path().join(name)).unwrap();
    let wrong = there.iter().zip(want.as_bytes()).filter(|(a, b)| a != b);
    let (wrong, there) = (wrong.count(), there.len());
    assert_eq!((wrong, there), (0, want.len()), "bytes wrong, and there");
}

#[test]
fn an_upload_goes_on_behind_its_last_good_sync() {
    let Some(disk) = ThinDisk::mount() else {
        return;
    };
    let whole = letters(3 * PIECE_BYTES);
    let (first, rest) = whole.split_at(PIECE_BYTES);
    let server = start(&disk);
    let resource = resource_of(&ask(&server, begin("/a", "", first)));
    disk.fail_after(0);
    let failed = ask(
        &server,
        append(&resource, first.len(), &rest[..PIECE_BYTES]),
    );
    assert_eq!(failed.status, 500, "{}", failed.text());
    assert!(failed.has("Upload-Complete: ?0"), "{}", failed.head);
    assert!(failed.text().contains("not known to be stored"));
    check_stopped(server.wait());
    // From now on, a sync succeeds and reading shows all that was sent.
    disk.recover();
    let server = start(&disk);
    assert_eq!(offset(&server, &resource), Ok(first.len()));
    check_complete(
        &ask(&server, append_last(&resource, first.len(), rest)),
        201,
    );
    check_on_disk(&disk, &server, "a", &whole);
}

/// Sends a file while the disk fails, and again when it does not.
#[track_caller]
fn check_sent_again(request: impl AsRef<[u8]>, statuses: &[u16], want: &str) {
    let Some(disk) = ThinDisk::mount() else {
        return;
    };
    let server = start(&disk);
    disk.fail_after(0);
    assert_eq!(ask(&server, &request).status, 500);
    check_stopped(server.wait());
    disk.recover();
    let server = start(&disk);
    let of_name = ask(&server, get("/a"));
    assert_eq!(of_name.status, 404, "nothing of it is seen");
    let names = fs::read_dir(disk.path()).unwrap().flatten();
    let names: Vec<_> = names.map(|entry| entry.file_name()).collect();
    assert_eq!(names, ["lost+found"]);
    let sent = ask(&server, &request);
    assert!(statuses.contains(&sent.status), "{}", sent.text());
    check_on_disk(&disk, &server, "a", want);
}

#[test]
fn an_upload_in_one_go_is_sent_again() {
    let whole = letters(PIECE_BYTES);
    check_sent_again(head("PUT /a", "", whole.len()) + &whole, &[201], &whole);
}

#[test]
fn an_upload_that_can_be_gone_on_with_and_comes_in_one_go_is_sent_again() {
    let whole = letters(PIECE_BYTES);
    let fields = "Upload-Complete: ?1\r\n";
    check_sent_again(head("PUT /a", fields, whole.len()) + &whole, &[201], &whole);
}

#[test]
fn a_form_is_sent_again() {
    let whole = letters(PIECE_BYTES);
    let part = "Content-Disposition: form-data; name=f; filename=a";
    let form = format!("--b\r\n{part}\r\n\r\n{whole}\r\n--b--\r\n");
    let fields = "Content-Type: multipart/form-data; boundary=b\r\n";
    check_sent_again(head("POST /", fields, form.len()) + &form, &[303], &whole);
}

#[test]
fn a_put_that_resumes_ends_with_a_file_that_is_on_the_disk() {
    let Some(disk) = ThinDisk::mount() else {
        return;
    };
    let whole = letters(3 * PIECE_BYTES);
    let here = tempfile::tempdir().unwrap();
    fs::write(here.path().join("a"), &whole).unwrap();
    let server = start(&disk);
    let port = server.addr().port();
    let put = || {
        let mut command = Command::new(program("file-client"));
        command.args(["127.0.0.1", &port.to_string(), "put", "a", "--resume"]);
        command.current_dir(here.path());
        run_command(command, b"")
    };
    // Enough for what is kept of the upload.
    disk.fail_after(PIECE_BYTES as u64);
    let failed = put().expect(1);
    let says = "; --resume continues with what the server has of it\n";
    assert!(failed.stderr.ends_with(says), "{}", failed.stderr);
    check_stopped(server.wait());
    disk.recover();
    let server = Server::spawn(serve(&disk.path(), port));
    put().expect(0);
    check_on_disk(&disk, &server, "a", &whole);
}

/// Starts a server to which this happens in the n-th of these calls of a thread.
#[track_caller]
pub(super) fn start_with(
    root: &Path,
    options: &[&str],
    calls: &str,
    what: &str,
    when: impl ToString,
) -> Server {
    let mut served = serve(root, 0);
    served.args(options);
    let when = when.to_string();
    let mut command = Command::new("strace");
    command.args(["-D", "-f", "-o", "/dev/null"]);
    command.args(["-e", &format!("trace={calls}")]);
    command.args(["-e", &format!("inject={calls}:{what}:when={when}")]);
    command.arg(served.get_program()).args(served.get_args());
    Server::spawn(command)
}

/// Makes the n-th of these calls fail in the thread that serves the connection, sends one request
/// after the other, and returns their replies.
#[track_caller]
fn replies(root: &Path, calls: &str, when: usize, requests: &[Request]) -> (Vec<Reply>, bool) {
    let server = start_with(root, &[], calls, "error=EIO", when);
    let mut http = Http::to(&server);
    let mut resource = String::new();
    let mut replies: Vec<Reply> = Vec::new();
    for request in requests {
        let request = request(&resource);
        http.send(&request);
        let method = request.split(' ').next().unwrap();
        let Some(reply) = http.reply_to(method) else {
            break;
        };
        if reply.has("Upload-Offset: 3") && reply.status == 201 {
            resource = resource_of(&reply);
        }
        replies.push(reply);
    }
    // It would wait for the client to have read its reply.
    drop(http);
    let has_failed = replies.iter().any(|reply| reply.status == 500);
    if has_failed {
        check_stopped(server.wait());
    }
    (replies, has_failed)
}

/// A request, by the path of the upload that was begun.
type Request = fn(&str) -> String;

/// Fails one sync after the other under these requests, until none is left to fail. Returns how
/// many there were.
#[track_caller]
fn check_each_sync(requests: &[Request]) -> usize {
    const SYNCS_MAX: usize = 10;
    let mut failures = 0;
    for calls in ["fsync", "fdatasync"] {
        for when in 1..SYNCS_MAX {
            let root = tempfile::tempdir().unwrap();
            let (replies, has_failed) = replies(root.path(), calls, when, requests);
            let statuses: Vec<_> = replies.iter().map(|reply| reply.status).collect();
            if !has_failed {
                assert_eq!(statuses.len(), requests.len(), "{statuses:?}");
                break;
            }
            failures += 1;
            // Nothing was promised behind it, and nothing before it is lost.
            assert_eq!(statuses.last(), Some(&500), "{statuses:?}");
            let promised = replies.iter().rev().find(|reply| reply.status < 300);
            let Some(promised) = promised else { continue };
            let resource = resource_of(&replies[0]);
            let server = Server::spawn(serve(root.path(), 0));
            if replies.last().unwrap().has("Upload-Complete: ?1") {
                // It was all on the disk, but not in its place: it is dropped.
                assert_eq!(offset(&server, &resource), Err(404));
                continue;
            }
            let bytes: usize = promised.field("Upload-Offset").parse().unwrap();
            assert_eq!(offset(&server, &resource), Ok(bytes), "{calls} {when}");
            let rest = &"abcdef"[bytes..];
            check_complete(&ask(&server, append_last(&resource, bytes, rest)), 201);
            assert_eq!(ask(&server, get("/new/a")).text(), "abcdef");
        }
    }
    failures
}

#[test]
fn no_sync_that_fails_is_an_ok() {
    if !has_strace() {
        return;
    }
    // Of the file, of the folder that is made, and of what it is made in.
    let put: &[Request] = &[|_| head("PUT /new/a", "", 3) + "abc"];
    assert_eq!(check_each_sync(put), 3);
    let parts: &[Request] = &[
        |_| begin("/new/a", "", "abc"),
        |resource| head(&format!("HEAD {resource}"), "", 0),
        |resource| append_last(resource, 3, "def"),
    ];
    assert!(check_each_sync(parts) >= 6);
}

#[test]
fn a_server_that_has_failed_to_sync_promises_nothing_more() {
    if !has_strace() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let put: Request = |_| String::from_utf8(post("/a", "abc")).unwrap();
    // Its disk fails only once; the clients that are still served are told all the same.
    let (replies, _) = replies(root.path(), "fdatasync", 1, &[put, put]);
    let statuses = replies.iter().map(|reply| reply.status);
    assert!(statuses.eq([500]), "the connection ends");
}

#[test]
fn a_failed_sync_of_what_nobody_waits_for_ends_the_server_too() {
    if !has_strace() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    // The first puts on the disk that nothing has come, and the second what the client leaves.
    let server = start_with(root.path(), &[], "fdatasync", "error=EIO", 2);
    let mut http = Http::to(&server);
    http.send(begin("/a", "", ""));
    let resource = resource_of(&http.reply());
    http.send(append(&resource, 0, "abc").trim_end_matches("bc"));
    drop(http);
    check_stopped(server.wait());
    let server = Server::spawn(serve(root.path(), 0));
    assert_eq!(offset(&server, &resource), Ok(0));
}

#[test]
fn a_server_killed_behind_the_last_rename_has_the_file() {
    const SYNCS_MAX: usize = 10;
    if !has_strace() {
        return;
    }
    let mut placed = 0;
    for when in 1..SYNCS_MAX {
        let root = tempfile::tempdir().unwrap();
        let server = start_with(root.path(), &[], "fsync", "signal=KILL", when);
        let mut http = Http::to(&server);
        http.send(begin("/new/a", "", "abc"));
        let Some(reply) = http.reply_to("PUT") else {
            continue;
        };
        let resource = resource_of(&reply);
        http.send(append_last(&resource, 3, "def"));
        if http.reply_to("PATCH").is_some() {
            break;
        }
        let server = Server::spawn(serve(root.path(), 0));
        match fs::exists(root.path().join("new/a")).unwrap() {
            true => {
                placed += 1;
                check_finished(&server, &resource, 6);
                assert_eq!(ask(&server, get("/new/a")).text(), "abcdef");
            }
            // Its reply was lost, and what it was a reply to.
            false => {
                let bytes = offset(&server, &resource).unwrap();
                let rest = &"abcdef"[bytes..];
                check_complete(&ask(&server, append_last(&resource, bytes, rest)), 201);
            }
        }
    }
    assert!(placed > 0);
}
