//! What a server remembers of uploads that were begun: those that have become their files, and those
//! that somebody is at; and what it need not remember.

use std::fs;

use crate::file::{Http, Tree, ask};
use crate::harness::{Server, eventually};
use crate::resumable::{
    PIECE_BYTES, append_last, begin, check_complete, check_refused, head, offset, resource_of,
};

/// The upload that was begun there is in its place, says the server.
#[track_caller]
pub fn check_finished(server: &Server, resource: &str, bytes: usize) {
    let reply = ask(server, head(&format!("HEAD {resource}"), "", 0));
    assert_eq!(reply.status, 204, "{}", reply.head);
    assert!(reply.has("Upload-Complete: ?1"), "{}", reply.head);
    assert!(
        reply.has(&format!("Upload-Offset: {bytes}")),
        "{}",
        reply.head
    );
    assert!(reply.has("Cache-Control: no-store"), "{}", reply.head);
}

#[test]
fn a_finished_upload_is_remembered() {
    let tree = Tree::new();
    let server = tree.start(&[]);
    let before = tree.inside();
    let resource = resource_of(&ask(&server, begin("/deep/x", "", "abc")));
    check_complete(&ask(&server, append_last(&resource, 3, "def")), 201);
    check_finished(&server, &resource, 6);
    // Also by a server that is started later, and whatever has become of the file.
    server.kill();
    fs::remove_dir_all(tree.root("deep")).unwrap();
    let server = tree.start(&["--resume-keep", "3"]);
    check_finished(&server, &resource, 6);
    // There is nothing to be added any more, and nothing to be given up.
    let complete = "Upload-Complete: ?1";
    let refused = check_refused(&server, append_last(&resource, 6, ""), 400, complete);
    let problem: serde_json::Value = serde_json::from_str(&refused.text()).unwrap();
    let kind = problem["type"].as_str().unwrap();
    assert!(kind.ends_with("#completed-upload"), "{kind}");
    let given_up = ask(&server, head(&format!("DELETE {resource}"), "", 0));
    assert_eq!(given_up.status, 409, "{}", given_up.text());
    // A day is what its client was told. A server that keeps less of its own keeps that.
    let resource = resource_of(&ask(&server, begin("/y", "", "")));
    check_complete(&ask(&server, append_last(&resource, 0, "")), 201);
    eventually("only that is forgotten", || tree.temporary_files() == 1);
    assert_eq!(offset(&server, &resource), Err(404));
    fs::remove_file(tree.root("y")).unwrap();
    assert_eq!(tree.inside().len(), before.len() + 1);
}

#[test]
fn an_upload_that_another_server_is_at_is_locked() {
    let tree = Tree::new();
    let server = tree.start(&[]);
    let resource = resource_of(&ask(&server, begin("/x", "", "abc")));
    let record = tree.root(&format!("{}.head", resource.trim_start_matches('/')));
    let held = fs::File::open(record).unwrap();
    held.lock().unwrap();
    assert_eq!(offset(&server, &resource), Err(423));
    let not_yet = "Upload-Complete: ?0";
    check_refused(&server, append_last(&resource, 3, "def"), 423, not_yet);
    let given_up = ask(&server, head(&format!("DELETE {resource}"), "", 0));
    assert_eq!(given_up.status, 423);
    drop(held);
    check_complete(&ask(&server, append_last(&resource, 3, "def")), 201);
}

#[test]
fn an_upload_whose_place_is_in_use_can_be_ended_later() {
    let tree = Tree::new();
    let server = tree.start(&[]);
    let etag = ask(&server, crate::file::get("/plain/a.txt"));
    let etag = etag.field("ETag").to_owned();
    let fields = format!("If-Match: {etag}\r\n");
    let resource = resource_of(&ask(&server, begin("/plain/a.txt", &fields, "abc")));
    // As another server has it that is about to replace the same version.
    let held = fs::File::open(tree.root("plain/a.txt")).unwrap();
    held.lock().unwrap();
    let not_yet = "Upload-Complete: ?0";
    check_refused(&server, append_last(&resource, 3, "def"), 423, not_yet);
    assert_eq!(offset(&server, &resource), Ok(6));
    drop(held);
    check_complete(&ask(&server, append_last(&resource, 6, "")), 200);
    assert_eq!(fs::read(tree.root("plain/a.txt")).unwrap(), b"abcdef");
}

#[test]
fn what_its_client_cannot_go_on_with_does_not_stay() {
    let tree = Tree::new();
    let server = tree.start(&[]);
    let before = tree.inside();
    let piece = "a".repeat(PIECE_BYTES);
    // It would be told where to go on when all of this has come.
    let fields = "Upload-Complete: ?0\r\n";
    let mut http = Http::to(&server);
    http.send(head("PUT /x", fields, PIECE_BYTES + 1) + &piece);
    let parts = || tree.inside().values().map(Vec::len).max();
    eventually("a part has come", || parts() == Some(PIECE_BYTES));
    drop(http);
    eventually("it is gone", || tree.inside() == before);
}
