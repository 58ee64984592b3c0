//! The digest of a file, for those who ask: a short request that has the server read a long file.

use std::fs;
use std::thread;

use proto::http::digest;

use crate::file::{Tree, ask};
use crate::harness::{Noise, Server, eventually};

const HEAD: &str = "HEAD /long HTTP/1.1\r\nHost: localhost\r\nWant-Repr-Digest: sha-256=1\r\n\r\n";

/// How much a server has read since it started, of files and from its peers, in bytes.
fn read_bytes(server: &Server) -> u64 {
    let io = fs::read_to_string(format!("/proc/{}/io", server.pid())).unwrap();
    let mut lines = io.lines();
    let read = lines.find_map(|line| line.strip_prefix("rchar: "));
    read.unwrap().parse().unwrap()
}

#[test]
fn a_digest_that_many_ask_for_is_read_once() {
    const BYTES: usize = 4 << 20;
    let tree = Tree::new();
    let long = Noise::new(3).bytes(BYTES);
    let want = digest::format(&digest::Hasher::digest_of(&long[..]).unwrap());
    fs::write(tree.root("long"), &long).unwrap();
    let server = tree.start(&[]);
    let ask_for_it = || {
        let before = read_bytes(&server);
        let reply = ask(&server, HEAD);
        assert_eq!(reply.field("Repr-Digest"), want);
        assert_eq!(reply.field("Content-Length"), BYTES.to_string());
        read_bytes(&server) - before
    };
    assert!(ask_for_it() >= BYTES as u64);
    // It is kept when the file was not changed in the last moments.
    eventually("it is known", || ask_for_it() < BYTES as u64);
    let before = read_bytes(&server);
    thread::scope(|scope| {
        for _ in 0..64 {
            scope.spawn(ask_for_it);
        }
    });
    assert!(read_bytes(&server) - before < BYTES as u64);
    // Until it is another file.
    fs::write(tree.root("long"), b"short").unwrap();
    let changed = ask(&server, HEAD);
    let want = digest::format(&digest::Hasher::digest_of(&b"short"[..]).unwrap());
    assert_eq!(changed.field("Repr-Digest"), want);
}
