//! Who is not meant to be here: a page that has its name point at this machine, a page that sends forms,
//! and programs that speak TLS where nobody does.

use std::fs;
use std::process::Command;

use crate::file::Tree;
use crate::harness::{Ran, Server, has_program, run_command};

/// A code for this UUID, which any page could ask for.
const CODE_REQUEST: &str = r#"{"uuid": "67e55044-10b1-426f-9247-bb680e5fe0c8"}"#;

/// Has curl ask with these arguments.
#[track_caller]
fn curl(args: &[&str]) -> Ran {
    let mut command = Command::new("curl");
    command.args([
        "--silent",
        "--show-error",
        "--noproxy",
        "*",
        "--max-time",
        "5",
    ]);
    command.args(args);
    run_command(command, b"")
}

/// Asks a server by a name that somebody has point at it, as a browser does for a page of that name.
#[track_caller]
fn ask_as(name: &str, server: &Server, args: &[&str], target: &str) -> String {
    let port = server.addr().port();
    let resolve = format!("{name}:{port}:127.0.0.1");
    let origin = format!("Origin: http://{name}:{port}");
    let url = format!("http://{name}:{port}{target}");
    let common = ["--resolve", &resolve, "--header", &origin, &url];
    let status = ["--output", "/dev/null", "--write-out", "%{http_code}"];
    curl(&[args, &common, &status].concat()).expect(0).out()
}

#[test]
fn a_page_that_has_its_name_point_here_neither_reads_nor_writes() {
    if !has_program("curl") {
        return;
    }
    let tree = Tree::new();
    let file = tree.start(&[]);
    let dir = tempfile::tempdir().unwrap();
    let line = ["0", "0", "--data-dir", dir.path().to_str().unwrap()];
    let code = Server::start("code-server", &line);
    let put = ["--request", "PUT", "--data", "planted"];
    let post = ["--data", CODE_REQUEST];
    let before = tree.inside();
    for name in ["evil.example", "localhost.evil.example", "rebound"] {
        assert_eq!(ask_as(name, &file, &[], "/plain/a.txt"), "421");
        assert_eq!(ask_as(name, &file, &[], "/plain/?json"), "421");
        assert_eq!(ask_as(name, &file, &put, "/planted"), "421");
        assert_eq!(ask_as(name, &code, &post, "/"), "421");
    }
    assert_eq!(tree.inside(), before);
    assert_eq!(fs::read(dir.path().join("codes.txt")).unwrap(), b"");
    // The reply says what to do about it, if it is no mistake.
    let host = ["--header", "Host: files.example"];
    let url = format!("http://{}/plain/a.txt", file.addr());
    let said = curl(&[&host[..], &[&url]].concat()).expect(0).out();
    assert!(
        said.ends_with("start it with --host files.example\n"),
        "{said}"
    );
    let known = tree.start(&["--host", "other.example", "--host", "Files.Example"]);
    assert_eq!(ask_as("files.example", &known, &put, "/kept"), "201");
    assert_eq!(ask_as("files.example", &known, &[], "/kept"), "200");
    assert_eq!(ask_as("evil.example", &known, &[], "/kept"), "421");
}

#[test]
fn a_page_of_another_site_gets_no_code() {
    if !has_program("curl") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let line = ["0", "0", "--data-dir", dir.path().to_str().unwrap()];
    let server = Server::start("code-server", &line);
    let post = |field: &str| {
        let url = format!("http://{}/", server.addr());
        let status = ["--output", "/dev/null", "--write-out", "%{http_code}"];
        let ask = ["--data", CODE_REQUEST, "--header", field, &url];
        curl(&[&ask[..], &status].concat()).expect(0).out()
    };
    for field in [
        "Origin: http://evil.example",
        "Origin: null",
        "Sec-Fetch-Site: cross-site",
    ] {
        assert_eq!(post(field), "403", "{field}");
    }
    assert_eq!(fs::read(dir.path().join("codes.txt")).unwrap(), b"");
    assert_eq!(post(&format!("Origin: http://{}", server.addr())), "200");
}

/// What curl ends with when there is no TLS at the other end, or no answer in time.
const NO_TLS: i32 = 35;

#[test]
fn a_client_that_speaks_tls_is_told_at_once_that_nobody_does() {
    if !has_program("curl") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().to_str().unwrap();
    for line in [
        &["code-server", "0", "0", "--data-dir", dir][..],
        &["queue-server", "0"],
        &["history-server", "0", "--data-dir", dir],
        &["file-server", "0", "--root", dir],
    ] {
        let server = Server::start(line[0], &line[1..]);
        for addr in &server.addrs {
            let url = format!("https://{addr}/");
            // In time: to wait for the rest of a head, or of a message, took longer.
            curl(&["--insecure", &url]).expect(NO_TLS);
        }
        let warning = "A TLS handshake, which is not spoken on this port";
        server.wait_for_log(|log| log.matches(warning).count() == server.addrs.len());
    }
}
