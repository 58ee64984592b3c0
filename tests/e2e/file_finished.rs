//! An upload whose last reply was lost: the file client finds out what became of it.

use std::collections::VecDeque;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use tempfile::TempDir;

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

/// A server that goes through steps, and a client's folder with a file.
struct Script {
    port: u16,
    steps: Arc<Mutex<VecDeque<Step>>>,
    here: TempDir,
}

impl Script {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let steps = Arc::new(Mutex::new(VecDeque::new()));
        let steps_there = Arc::clone(&steps);
        thread::spawn(move || {
            for stream in listener.incoming() {
                serve(stream.unwrap(), &steps_there);
            }
        });
        let here = tempfile::tempdir().unwrap();
        fs::write(here.path().join("mine"), "mine").unwrap();
        Self { port, steps, here }
    }

    /// Sends the file; the server goes through exactly these steps.
    #[track_caller]
    fn check(&self, steps: &[Step], code: i32, says: &str, left: &[&str]) {
        self.steps.lock().unwrap().extend(steps);
        let put = ["put", "mine", "--resume", "--timeout", "2"];
        check_says(self.port, self.here.path(), &put, code, says);
        assert_eq!(*self.steps.lock().unwrap(), []);
        assert_eq!(names(self.here.path()), left);
    }
}

fn serve(mut stream: TcpStream, steps: &Mutex<VecDeque<Step>>) {
    while let Some(asked) = read_request(&mut stream) {
        let bytes = asked.field("content-length").parse().unwrap_or(0);
        stream.read_exact(&mut vec![0; bytes]).unwrap();
        let step = steps.lock().unwrap().pop_front();
        let reply = match step {
            Some((line, reply)) if line == asked.line => reply,
            other => Some(off_script(&asked.line, other)),
        };
        let Some(reply) = reply else { return };
        write!(stream, "HTTP/1.1 {reply}\r\n\r\n").unwrap();
    }
}

/// What a client is told that asks for something else; the test shows it.
fn off_script(line: &str, step: Option<Step>) -> &'static str {
    eprintln!("{line}, in the place of {step:?}");
    "418 Not In The Script\r\nContent-Length: 0"
}

/// A run from the start on.
#[track_caller]
fn check(steps: &[Step], code: i32, says: &str, left: &[&str]) {
    let steps = [&BEGIN, steps].concat();
    Script::start().check(&steps, code, says, left);
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

#[test]
fn an_upload_that_another_run_began_is_looked_for_at_its_place() {
    let kept = [".quartet-upload-mine", "mine"];
    let unauthorized = (ASK, Some("401 Unauthorized\r\nContent-Length: 0"));
    let done = "Sent mine: 4 bytes, the server had all of it\n";
    let there = |reply| ("HEAD /mine", Some(reply));
    for reply in [
        "200 OK\r\nContent-Length: 4",
        "403 Forbidden\r\nContent-Length: 0",
    ] {
        let script = Script::start();
        script.check(&[&BEGIN[..], &[unauthorized]].concat(), 1, "401", &kept);
        // Of a long file the server does not say the digest, and of a hidden one nothing.
        script.check(&[(ASK, COMPLETE), there(reply)], 0, done, &["mine"]);
    }
    for reply in [
        "200 OK\r\nContent-Length: 5",
        "404 Not Found\r\nContent-Length: 0",
    ] {
        let script = Script::start();
        script.check(&[&BEGIN[..], &[unauthorized]].concat(), 1, "401", &kept);
        let anew = [
            &[(ASK, COMPLETE), there(reply)],
            &BEGIN[..],
            &[(ASK, COMPLETE)],
        ]
        .concat();
        script.check(&anew, 0, "starting over", &["mine"]);
    }
}
