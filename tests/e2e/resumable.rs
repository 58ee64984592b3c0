//! Uploads that are broken off, and gone on with: the protocol of the IETF draft "Resumable Uploads
//! for HTTP", over cut connections, killed servers and changed minds. And who may upload at all.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use proto::http::digest;

use crate::file::{Http, Reply, SAVED, Tree, ask, get};
use crate::harness::{Needs, Server, eventually, has_door};

/// The head of a request that begins an upload or resumes one; further fields as lines.
pub fn head(line: &str, fields: &str, body_bytes: usize) -> String {
    format!("{line} HTTP/1.1\r\nHost: h\r\nContent-Length: {body_bytes}\r\n{fields}\r\n")
}

pub fn begin(target: &str, fields: &str, body: &str) -> String {
    let fields = format!("Upload-Complete: ?0\r\n{fields}");
    head(&format!("PUT {target}"), &fields, body.len()) + body
}

/// The head of a request that appends a number of bytes at an offset.
fn append_head(resource: &str, offset: usize, fields: &str, body_bytes: usize) -> String {
    let fields =
        format!("Content-Type: application/partial-upload\r\nUpload-Offset: {offset}\r\n{fields}");
    head(&format!("PATCH {resource}"), &fields, body_bytes)
}

pub fn append(resource: &str, offset: usize, body: &str) -> String {
    append_head(resource, offset, "Upload-Complete: ?0\r\n", body.len()) + body
}

pub fn append_last(resource: &str, offset: usize, body: &str) -> String {
    append_head(resource, offset, "Upload-Complete: ?1\r\n", body.len()) + body
}

fn digest_field(name: &str, body: &str) -> String {
    let digest = digest::Hasher::digest_of(body.as_bytes()).unwrap();
    format!("{name}: {}\r\n", digest::format(&digest))
}

/// Where an upload that was begun can be gone on with.
#[track_caller]
pub fn resource_of(reply: &Reply) -> String {
    assert_eq!(reply.status, 201, "{}", reply.head);
    assert!(reply.has("Upload-Complete: ?0"), "{}", reply.head);
    reply.location()
}

/// How much has come of an upload; or the status that says that it is gone.
#[track_caller]
pub fn offset(server: &Server, resource: &str) -> Result<usize, u16> {
    let reply = ask(server, head(&format!("HEAD {resource}"), "", 0));
    match reply.status {
        204 => {
            assert!(reply.has("Upload-Complete: ?0"), "{}", reply.head);
            assert!(reply.has("Cache-Control: no-store"), "{}", reply.head);
            assert!(reply.field("Upload-Limit").contains("max-size="));
            Ok(reply.field("Upload-Offset").parse().unwrap())
        }
        status => Err(status),
    }
}

#[track_caller]
pub fn check_complete(reply: &Reply, status: u16) {
    assert_eq!(reply.status, status, "{} {}", reply.head, reply.text());
    assert!(reply.has("Upload-Complete: ?1"), "{}", reply.head);
}

#[track_caller]
pub fn check_refused(server: &Server, request: String, status: u16, line: &str) -> Reply {
    let reply = ask(server, &request);
    assert_eq!(reply.status, status, "{request}: {}", reply.text());
    assert!(reply.has(line), "{request}: {}", reply.head);
    reply
}

#[test]
fn a_file_comes_in_parts_and_appears_when_it_is_whole() {
    let tree = Tree::new();
    let server = tree.start(&[]);
    let before = tree.inside();
    let fields = format!(
        "Upload-Length: 11\r\n{}",
        digest_field("Repr-Digest", "hello world")
    );
    let resource = resource_of(&ask(&server, begin("/new/%C3%A4%20b", &fields, "hel")));
    assert_eq!(offset(&server, &resource), Ok(3));
    let reply = ask(&server, append(&resource, 3, "lo "));
    assert_eq!(reply.status, 204, "{}", reply.head);
    assert!(reply.has("Upload-Offset: 6") && reply.has("Upload-Complete: ?0"));
    assert_eq!(ask(&server, get("/new/%C3%A4%20b")).status, 404);
    assert_eq!(
        ask(&server, get("/new/")).status,
        404,
        "the folder is not there yet"
    );
    let length = ask(&server, head(&format!("HEAD {resource}"), "", 0));
    assert!(length.has("Upload-Length: 11"), "{}", length.head);
    let reply = ask(&server, append_last(&resource, 6, "world"));
    check_complete(&reply, 201);
    assert_eq!(reply.text(), SAVED);
    assert_eq!(ask(&server, get("/new/%C3%A4%20b")).text(), "hello world");
    assert_eq!(
        tree.inside().len(),
        before.len() + 3,
        "a folder, a file, and that it came"
    );
}

#[test]
fn an_upload_in_one_go_is_complete_at_once() {
    let tree = Tree::new();
    let server = tree.start(&[]);
    let whole = |line: &str| head(line, "Upload-Complete: ?1\r\nUpload-Length: 3\r\n", 3) + "abc";
    check_complete(&ask(&server, whole("POST /a")), 200);
    check_complete(&ask(&server, whole("PUT /b")), 201);
    check_complete(&ask(&server, whole("PUT /b")), 200);
    // Only the end is missing, and it is empty.
    let resource = resource_of(&ask(&server, begin("/c", "", "abc")));
    check_complete(&ask(&server, append_last(&resource, 3, "")), 201);
    assert_eq!(ask(&server, get("/c")).text(), "abc");
    assert_eq!(tree.temporary_files(), 1, "that it came");
}

#[test]
fn what_a_server_offers_it_says() {
    let tree = Tree::new();
    let limit = "Upload-Limit: max-size=10737418240, max-age=86400";
    let options = |server: &Server, target| ask(server, head(&format!("OPTIONS {target}"), "", 0));
    let server = tree.start(&[]);
    assert!(options(&server, "/x").has(limit));
    assert!(options(&server, "*").has(limit));
    let server = tree.start(&["--read-only"]);
    assert!(!options(&server, "/x").head.contains("Upload-Limit"));
    let refused = ask(&server, begin("/x", "", ""));
    assert_eq!(refused.status, 403);
}

#[test]
fn a_client_that_knows_interim_replies_is_told_at_once_where_to_go_on() {
    let tree = Tree::new();
    let server = tree.start(&[]);
    for version in ["8", "7", "x"] {
        let fields = format!("Upload-Complete: ?1\r\nUpload-Draft-Interop-Version: {version}\r\n");
        let mut http = Http::to(&server);
        http.send(head("PUT /new", &fields, 10) + "half");
        if version != "8" {
            http.send("whole!");
            check_complete(&http.reply(), 200);
            continue;
        }
        let interim = http.reply();
        assert_eq!(interim.status, 104, "{}", interim.head);
        assert!(interim.has("Upload-Draft-Interop-Version: 8"));
        assert!(interim.head.contains("Upload-Limit: "));
        let resource = interim.location();
        drop(http);
        eventually("what has come is kept", || {
            offset(&server, &resource) == Ok(4)
        });
        check_complete(&ask(&server, append_last(&resource, 4, " gone!")), 201);
        assert_eq!(ask(&server, get("/new")).text(), "half gone!");
    }
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    let tree = Tree::new();
    let server = tree.start(&["--max-upload", "20"]);
    let resource = resource_of(&ask(&server, begin("/x", "Upload-Length: 8\r\n", "abc")));
    let not_yet = "Upload-Complete: ?0";
    for wrong in [0, 2, 4, 1 << 40] {
        let reply = check_refused(&server, append(&resource, wrong, "d"), 409, not_yet);
        assert!(reply.has("Upload-Offset: 3"), "{}", reply.head);
        let problem: serde_json::Value = serde_json::from_str(&reply.text()).unwrap();
        assert_eq!(problem["expected-offset"], 3);
        assert_eq!(problem["provided-offset"], wrong);
    }
    let other_type = append(&resource, 3, "d").replace("partial-upload", "json");
    check_refused(
        &server,
        other_type,
        415,
        "Accept-Patch: application/partial-upload",
    );
    let bare = head(
        &format!("PATCH {resource}"),
        "Content-Type: application/partial-upload\r\n",
        0,
    );
    check_refused(&server, bare, 400, not_yet);
    let no_offset = append(&resource, 3, "d").replace("Upload-Offset: 3", "Upload-Offset: x");
    check_refused(&server, no_offset, 400, not_yet);
    // Neither too short nor too long, nor of another length than before.
    check_refused(&server, append_last(&resource, 3, "d"), 400, not_yet);
    check_refused(&server, append(&resource, 3, "defghi"), 400, not_yet);
    let other = append_head(
        &resource,
        3,
        "Upload-Complete: ?0\r\nUpload-Length: 9\r\n",
        0,
    );
    check_refused(&server, other, 400, not_yet);
    let wrong = append_head(
        &resource,
        3,
        &format!(
            "Upload-Complete: ?0\r\n{}",
            digest_field("Content-Digest", "defg")
        ),
        4,
    ) + "d?fg";
    check_refused(&server, wrong, 400, not_yet);
    let method = ask(&server, head(&format!("PUT {resource}"), "", 0));
    assert_eq!(
        (method.status, method.field("Allow")),
        (405, "DELETE, GET, HEAD, OPTIONS, PATCH")
    );
    assert_eq!(offset(&server, &resource), Ok(3), "nothing of it counted");

    let too_long = head("PUT /y", "Upload-Complete: ?0\r\nUpload-Length: 21\r\n", 0);
    assert_eq!(ask(&server, too_long).status, 413);
    let longer_than_it_says = begin("/y", "Upload-Length: 2\r\n", "abc");
    assert_eq!(ask(&server, longer_than_it_says).status, 400);
    let unknown = resource.rsplit_once('-').unwrap().0.to_owned() + "-000000000000";
    check_refused(&server, append(&unknown, 0, "x"), 404, not_yet);
    assert_eq!(offset(&server, &unknown), Err(404));
    assert_eq!(offset(&server, &format!("{resource}.head")), Err(404));
    assert_eq!(ask(&server, get(&format!("{resource}/"))).status, 404);
}

#[test]
fn chunks_past_the_announced_length_end_an_upload() {
    let tree = Tree::new();
    let server = tree.start(&["--max-upload", "9"]);
    for (length, status) in [("Upload-Length: 5\r\n", 400), ("", 413)] {
        let resource = resource_of(&ask(&server, begin("/x", length, "abc")));
        let request = append(&resource, 3, "")
            .replace("Content-Length: 0", "Transfer-Encoding: chunked")
            + "7\r\nabcdefg\r\n0\r\n\r\n";
        check_refused(&server, request, status, "Upload-Complete: ?0");
        assert_eq!(offset(&server, &resource), Err(404));
    }
    assert_eq!(tree.temporary_files(), 0);
}

#[test]
fn a_file_that_is_not_what_was_announced_is_not_kept() {
    let tree = Tree::new();
    let server = tree.start(&[]);
    let fields = digest_field("Repr-Digest", "right");
    let resource = resource_of(&ask(&server, begin("/x", &fields, "wr")));
    check_complete(&ask(&server, append_last(&resource, 2, "ong")), 400);
    assert_eq!(offset(&server, &resource), Err(404));
    assert_eq!(ask(&server, get("/x")).status, 404);
    assert_eq!(tree.temporary_files(), 0);
}

#[test]
fn conditions_hold_at_the_end_too() {
    let tree = Tree::new();
    let server = tree.start(&[]);
    let resource = resource_of(&ask(&server, begin("/x", "If-None-Match: *\r\n", "mine")));
    assert_eq!(ask(&server, head("PUT /x", "", 6) + "theirs").status, 201);
    check_complete(&ask(&server, append_last(&resource, 4, "")), 412);
    assert_eq!(ask(&server, get("/x")).text(), "theirs");
    assert_eq!(
        ask(&server, begin("/x", "If-None-Match: *\r\n", "mine")).status,
        412
    );
    assert_eq!(tree.temporary_files(), 0);
}

#[test]
fn who_gives_up_leaves_nothing() {
    let tree = Tree::new();
    let server = tree.start(&[]);
    let before = tree.inside();
    let resource = resource_of(&ask(&server, begin("/deep/x", "", "abc")));
    assert_ne!(tree.inside(), before);
    let delete = || ask(&server, head(&format!("DELETE {resource}"), "", 0)).status;
    assert_eq!((delete(), delete()), (204, 404));
    assert_eq!(tree.inside(), before);
}

#[test]
fn a_client_that_comes_back_need_not_wait_for_its_old_connection() {
    let tree = Tree::new();
    let server = tree.start(&[]);
    let resource = resource_of(&ask(&server, begin("/x", "", "")));
    let mut old = Http::to(&server);
    let piece = "a".repeat(PIECE_BYTES);
    old.send(append_head(&resource, 0, "Upload-Complete: ?1\r\n", PIECE_BYTES + 3) + &piece);
    let part = tree.root(resource.trim_start_matches('/'));
    eventually("the first part has come", || len(&part) == PIECE_BYTES);
    // The old connection still waits for the rest, and would for a while.
    assert_eq!(offset(&server, &resource), Ok(PIECE_BYTES));
    old.send("???");
    assert!(old.is_at_end());
    let last = append_last(&resource, PIECE_BYTES, "def");
    check_complete(&ask(&server, last), 201);
    assert_eq!(ask(&server, get("/x")).text(), piece + "def");
}

#[test]
fn what_has_come_outlives_a_killed_server() {
    let tree = Tree::new();
    let server = tree.start(&[]);
    let resource = resource_of(&ask(
        &server,
        begin("/deep/x", "Upload-Length: 9\r\n", "abc"),
    ));
    let lost = resource_of(&ask(&server, begin("/lost", "", "abc")));
    let piece = "a".repeat(PIECE_BYTES);
    let mut broken = Http::to(&server);
    broken.send(append_head(&lost, 3, "Upload-Complete: ?1\r\n", PIECE_BYTES + 1) + &piece);
    let mut plain = Http::to(&server);
    plain.send(head("PUT /plain/y", "", PIECE_BYTES + 1) + &piece);
    let parts = || -> usize {
        let inside = tree.inside();
        let parts = inside.iter().filter(|(path, _)| is_temporary(path));
        parts.map(|(_, bytes)| bytes.len()).sum()
    };
    eventually("all have come", || parts() == 6 + 2 * PIECE_BYTES);
    server.kill();
    let server = tree.start(&[]);
    // What was on its way then is not known to be on the disk.
    assert_eq!(offset(&server, &lost), Ok(3));
    let give_up = head(&format!("DELETE {lost}"), "", 0);
    assert_eq!(ask(&server, give_up).status, 204);
    eventually("the part and its record are left", || {
        tree.temporary_files() == 2
    });
    assert_eq!(offset(&server, &resource), Ok(3));
    let reply = check_refused(
        &server,
        append_last(&resource, 3, "defgh"),
        400,
        "Upload-Complete: ?0",
    );
    assert!(
        reply.text().contains("inconsistent"),
        "the length is remembered"
    );
    check_complete(&ask(&server, append_last(&resource, 3, "defghi")), 201);
    assert_eq!(ask(&server, get("/deep/x")).text(), "abcdefghi");
    assert_eq!(tree.temporary_files(), 1, "that it came");
}

/// An upload is written in pieces of this many bytes, or less if no more comes.
pub const PIECE_BYTES: usize = 256 * 1024;

fn len(path: &Path) -> usize {
    fs::metadata(path).map_or(0, |there| there.len() as usize)
}

fn is_temporary(path: &Path) -> bool {
    let name = path.file_name().unwrap().to_string_lossy();
    name.starts_with(".quartet-upload-") && !name.ends_with(".head")
}

#[test]
fn what_nobody_goes_on_with_is_dropped() {
    let tree = Tree::new();
    let server = tree.start(&["--resume-keep", "1"]);
    let before = tree.inside();
    let resource = resource_of(&ask(&server, begin("/x", "", "abc")));
    eventually("it is gone", || tree.inside() == before);
    assert_eq!(offset(&server, &resource), Err(404));
    // One that the server finds when it starts.
    resource_of(&ask(&server, begin("/x", "", "abc")));
    server.kill();
    let server = tree.start(&["--resume-keep", "1"]);
    eventually("it is gone", || tree.inside() == before);
    server.wait_for_log(|log| log.contains("Removed 1 unfinished uploads"));
}

/// A server whose uploads are for ann alone.
fn start_for_ann(tree: &Tree, options: &[&str]) -> Server {
    let accounts = tree.path("accounts");
    fs::write(&accounts, "ann:sesame\n").unwrap();
    fs::set_permissions(&accounts, fs::Permissions::from_mode(0o600)).unwrap();
    let mut all = vec!["--auth-file", accounts.to_str().unwrap()];
    all.extend(options);
    tree.start(&all)
}

/// `ann:sesame` and `ann:wrong`, for RFC 7617.
const ANN: &str = "Authorization: Basic YW5uOnNlc2FtZQ==\r\n";
const NOT_ANN: &str = "Authorization: Basic YW5uOndyb25n\r\n";

#[test]
fn only_who_has_an_account_may_upload() {
    if !has_door(Needs::NoAccounts, "the accounts are its own") {
        return;
    }
    let tree = Tree::new();
    let server = start_for_ann(&tree, &["--auth-read-free"]);
    let before = tree.inside();
    let resource = resource_of(&ask(&server, begin("/part", ANN, "abc")));
    let with_part = tree.inside();
    for wrong in ["", NOT_ANN] {
        for line in [
            "PUT /x",
            "POST /x",
            "POST /",
            "DELETE /site/index.html",
            "PATCH /x",
        ] {
            check_refused(
                &server,
                head(line, wrong, 1) + "x",
                401,
                "WWW-Authenticate: Basic realm=\"quartet\", charset=\"UTF-8\"",
            );
        }
        for method in ["HEAD", "DELETE", "PATCH"] {
            let reply = ask(&server, head(&format!("{method} {resource}"), wrong, 0));
            assert_eq!(reply.status, 401, "{method}");
        }
        assert_eq!(ask(&server, begin("/x", wrong, "abc")).status, 401);
    }
    assert_eq!(tree.inside(), with_part);
    assert_eq!(ask(&server, get("/plain/a.txt")).status, 200);
    assert_eq!(ask(&server, head("PUT /x", ANN, 1) + "x").status, 201);
    assert_eq!(
        ask(&server, head(&format!("DELETE {resource}"), ANN, 0)).status,
        204
    );
    assert_eq!(tree.inside().len(), before.len() + 1);
    assert!(!server.log().contains("sesame") && !server.log().contains("YW5u"));
}

#[test]
fn only_who_has_an_account_may_read_unless_reading_is_free() {
    if !has_door(Needs::NoAccounts, "the accounts are its own") {
        return;
    }
    let tree = Tree::new();
    let server = start_for_ann(&tree, &[]);
    for line in [
        "GET /plain/a.txt",
        "HEAD /plain/a.txt",
        "GET /plain/",
        "OPTIONS *",
        "GET /nothing",
    ] {
        assert_eq!(ask(&server, head(line, "", 0)).status, 401, "{line}");
    }
    let reply = ask(&server, head("GET /plain/a.txt", ANN, 0));
    assert_eq!(reply.text(), "a");
}
