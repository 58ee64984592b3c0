//! HTTP as RFC 9110 (what messages mean) and RFC 9112 (how they are written in HTTP/1.1) have it,
//! as one table: a request in bytes, and what must come back. The expectations are those of the
//! RFCs, which each row names by section; where an RFC leaves a choice, the row says what ours is.
//!
//! [`row`] is what a row says, [`reply`] what holds for every reply; the rows themselves stand in
//! [`message`] (lines, targets, fields), [`framing`] (bodies), [`connection`] (which request
//! comes next, and whether one does) and [`semantics`] (methods, conditions, ranges).

// A row stays on its line, if it fits there.
#[rustfmt::skip]
mod connection;
#[rustfmt::skip]
mod framing;
#[rustfmt::skip]
mod message;
mod reply;
mod row;
#[rustfmt::skip]
mod semantics;

use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use crate::harness::{Needs, Server, has_door};
use row::{Host, Row, Section};

/// When `/digits.txt` was last changed: Sun, 06 Nov 1994 08:49:37 GMT.
const MODIFIED: u64 = 784_111_777;

/// A time that no server has seen: in the year 2100.
const FUTURE: u64 = 4_102_444_800;

/// The largest body that the file server takes here; that of the code server is as large.
const BODY_BYTES_MAX: &str = "65536";

/// What the rows call the servers, besides `h`.
const HOSTS: &[&str] = &[
    "--host", "a", "--host", "b", "--host", "other", "--host", "h%41",
];

fn rows() -> Vec<Row> {
    let sections: [&[Section]; 4] = [
        message::SECTIONS,
        framing::SECTIONS,
        connection::SECTIONS,
        semantics::SECTIONS,
    ];
    let sections = sections.into_iter().flatten();
    sections.flat_map(|section| section()).collect()
}

fn file_server() -> (TempDir, Host) {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::create_dir(path("folder")).unwrap();
    for (name, text, second) in [
        ("digits.txt", &b"0123456789"[..], MODIFIED),
        ("empty.txt", b"", MODIFIED),
        ("future.txt", b"soon", FUTURE),
        ("page.html", b"<p>\xe4", MODIFIED),
        ("latin.txt", b"\xe4", MODIFIED),
        ("README", b"read me", MODIFIED),
        ("noise", b"\0", MODIFIED),
    ] {
        fs::write(path(name), text).unwrap();
        let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        let file = File::options().write(true).open(path(name)).unwrap();
        file.set_modified(modified).unwrap();
    }
    let root = dir.path().to_str().unwrap();
    let line = ["0", "--root", root, "--max-upload", BODY_BYTES_MAX];
    let server = Server::start("file-server", &[&line[..], HOSTS].concat());
    let good = "GET /digits.txt HTTP/1.1\r\nHost: h\r\n\r\n";
    let host = Host::new(server, "/up.txt", good).with_etag_of("/digits.txt");
    (dir, host)
}

fn code_server() -> (TempDir, Host) {
    let dir = tempfile::tempdir().unwrap();
    let line = ["0", "0", "--data-dir", dir.path().to_str().unwrap()];
    let server = Server::start("code-server", &[&line[..], HOSTS].concat());
    let good = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 48\r\n\r\n$BODY";
    (dir, Host::new(server, "/", good))
}

#[test]
fn http_is_what_its_rfcs_say() {
    if !has_door(Needs::NoAccounts, "its rows are requests byte by byte") {
        return;
    }
    let (_files, file) = file_server();
    let (_codes, code) = code_server();
    let mut failures = Vec::new();
    let mut rows_run = 0;
    for row in rows() {
        for (name, host, is_meant) in [
            ("file-server", &file, row.is_for_files()),
            ("code-server", &code, row.is_for_codes()),
        ] {
            if is_meant {
                rows_run += 1;
                failures.extend(row.run(host).err().map(|why| format!("{name}, {why}")));
            }
        }
    }
    assert!(
        failures.is_empty(),
        "{} of {rows_run} rows:\n\n{}\n",
        failures.len(),
        failures.join("\n\n")
    );
}
