//! An upload whose last reply was lost: the file client finds out what became of it.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread;

use crate::file_client::{check_says, names, read_request};

/// A request that is expected, and the reply; none is a lost connection.
type Step = (&'static str, Option<&'static str>);

const BEGIN: [Step; 3] = [
    (
        "OPTIONS /mine",
        Some("204 No Content\r\nUpload-Limit: min-size=0"),
    ),
    (
        "POST /mine",
        Some("201 Created\r\nLocation: /.quartet-upload-1\r\nContent-Length: 0"),
    ),
    ("PATCH /.quartet-upload-1", None),
];

const ASK: &str = "HEAD /.quartet-upload-1";
const COMPLETE: Option<&str> = Some("204 No Content\r\nUpload-Complete: ?1\r\nUpload-Offset: 4");

/// The client's run at a server that goes through these steps.
#[track_caller]
fn check(steps: &[Step], code: i32, says: &str, left: &[&str]) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let steps: Vec<_> = BEGIN.iter().chain(steps).copied().collect();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let asked_there = Arc::clone(&asked);
    let want: Vec<_> = steps.iter().map(|(line, _)| (*line).to_owned()).collect();
    thread::spawn(move || {
        let mut replies = steps.into_iter().map(|(_, reply)| reply);
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            while let Some(asked) = read_request(&mut stream) {
                let bytes = asked.field("content-length").parse().unwrap_or(0);
                asked_there.lock().unwrap().push(asked.line);
                stream.read_exact(&mut vec![0; bytes]).unwrap();
                let Some(Some(reply)) = replies.next() else {
                    break;
                };
                write!(stream, "HTTP/1.1 {reply}\r\n\r\n").unwrap();
            }
        }
    });
    let here = tempfile::tempdir().unwrap();
    fs::write(here.path().join("mine"), "mine").unwrap();
    let put = ["put", "mine", "--resume", "--timeout", "2"];
    check_says(port, here.path(), &put, code, says);
    assert_eq!(*asked.lock().unwrap(), want);
    assert_eq!(names(here.path()), left);
}

#[test]
fn a_finished_upload_is_not_sent_again() {
    let busy = (ASK, Some("423 Locked\r\nContent-Length: 0"));
    let overloaded = (ASK, Some("503 Service Unavailable\r\nContent-Length: 0"));
    let done = "Sent mine: 4 bytes, the server had all of it\n";
    check(&[busy, overloaded, (ASK, COMPLETE)], 0, done, &["mine"]);
}

#[test]
fn an_upload_that_the_server_has_forgotten_is_not_taken_for_sent() {
    let gone = (ASK, Some("404 Not Found\r\nContent-Length: 0"));
    let dropped = "file-client: mine: the server has dropped what it had of the upload\n";
    // A file of that length may be the one that was to be replaced.
    for reply in [
        "200 OK\r\nContent-Length: 4",
        "403 Forbidden\r\nContent-Length: 0",
        "404 Not Found\r\nContent-Length: 0",
    ] {
        check(&[gone, ("HEAD /mine", Some(reply))], 1, dropped, &["mine"]);
    }
}

#[test]
fn a_server_that_stays_busy_is_not_waited_for_for_ever() {
    let busy = (ASK, Some("423 Locked\r\nContent-Length: 0"));
    let left = [".quartet-upload-mine", "mine"];
    // Half a second between two, and two seconds in all.
    check(&[busy; 4], 1, "the server refused: 423 Locked; ", &left);
}
