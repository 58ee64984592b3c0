//! The file service: what is given and taken, and that nobody ever sees half a file, here or there.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use proto::http::digest::{self, Hasher};
use tempfile::TempDir;

use crate::file_client::client;
use crate::harness::{
    Needs, Noise, PATIENCE, Server, Stream, data, door, eventually, exchange, has_door,
    has_program, program, python, run, signed,
};

/// What a whole upload is answered.
pub const SAVED: &str = "File received and saved\n";

/// A folder `root` to be served.
pub struct Tree {
    top: TempDir,
}

impl Tree {
    /// Holds the site of `data/server` as `site`, and a folder without a page.
    pub fn new() -> Self {
        let top = tempfile::tempdir().unwrap();
        for folder in ["root/site", "root/plain"] {
            fs::create_dir_all(top.path().join(folder)).unwrap();
        }
        copy_files(&data("server"), &top.path().join("root/site"));
        fs::write(top.path().join("root/plain/a.txt"), "a").unwrap();
        Self { top }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.top.path().join(name)
    }

    pub fn root(&self, name: &str) -> PathBuf {
        self.top.path().join("root").join(name)
    }

    #[track_caller]
    pub fn start(&self, options: &[&str]) -> Server {
        let root = self.path("root");
        let mut line = vec!["0", "--root", root.to_str().unwrap()];
        line.extend(options);
        Server::start("file-server", &line)
    }

    /// Everything below the root, with what is in it.
    pub fn inside(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        contents(&self.path("root"))
    }

    /// The temporary files of uploads under way.
    pub fn temporary_files(&self) -> usize {
        let is_temporary = |path: &&PathBuf| {
            let name = path.file_name().unwrap().to_string_lossy();
            name.starts_with(".quartet-upload-")
        };
        self.inside().keys().filter(is_temporary).count()
    }
}

pub fn copy_files(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Every path below a folder, with the bytes of the regular files. Links are not followed.
pub fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        // An entry that is removed meanwhile was not there.
        let Ok(entries) = fs::read_dir(folder) else {
            continue;
        };
        for entry in entries.map_while(Result::ok) {
            let path = entry.path();
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                folders.push(path.clone());
            }
            let bytes = match kind.is_file() {
                true => fs::read(&path).unwrap_or_default(),
                false => Vec::new(),
            };
            all.insert(path, bytes);
        }
    }
    all
}

/// A connection that speaks HTTP, read without any code of ours.
pub struct Http<S = Stream>(BufReader<S>);

/// A reply.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Http {
    #[track_caller]
    pub fn to(server: &Server) -> Self {
        Self(BufReader::new(server.connect()))
    }

    /// Sends bytes. A server that has refused may have closed before they are all written.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.0.get_ref().write_all(&signed(bytes.as_ref()));
    }
}

impl<S: Read> Http<S> {
    /// Over a stream.
    pub fn over(stream: S) -> Self {
        Self(BufReader::new(stream))
    }

    /// The next head, with its empty line; `None` is the end of the connection.
    #[track_caller]
    pub fn head(&mut self) -> Option<String> {
        let mut head = String::new();
        loop {
            match self.0.read_line(&mut head) {
                Ok(0) if head.is_empty() => return None,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Ok(1..) if head.ends_with("\r\n\r\n") => return Some(head),
                Ok(1..) => {}
                other => panic!("{other:?} after {head:?}"),
            }
        }
    }

    /// The next reply to a request with this method; `None` is the end of the connection.
    #[track_caller]
    pub fn reply_to(&mut self, method: &str) -> Option<Reply> {
        let head = self.head()?;
        let status = head.strip_prefix("HTTP/1.1 ").expect(&head);
        let status = status[..3].parse().expect(&head);
        let mut reply = Reply {
            status,
            head,
            body: Vec::new(),
        };
        let is_interim = status < 200;
        assert!(
            is_interim || reply.field("Date").ends_with(" GMT"),
            "{}",
            reply.head
        );
        let has_body = method != "HEAD" && !matches!(status, 100..=199 | 204 | 304);
        if has_body {
            let length = reply.field("Content-Length").parse().expect(&reply.head);
            reply.body.resize(length, 0);
            self.0.read_exact(&mut reply.body).expect(&reply.head);
        }
        Some(reply)
    }

    #[track_caller]
    pub fn reply(&mut self) -> Reply {
        self.reply_to("GET").expect("a reply")
    }

    /// Whether the server has ended the connection.
    #[track_caller]
    pub fn is_at_end(&mut self) -> bool {
        self.head().is_none()
    }
}

impl Reply {
    /// The value of a field that is there once.
    #[track_caller]
    pub fn field(&self, name: &str) -> &str {
        let start = format!("{name}: ");
        let mut values = self.head.lines().filter_map(|l| l.strip_prefix(&start));
        let value = values
            .next()
            .unwrap_or_else(|| panic!("no {name} in {}", self.head));
        assert_eq!(values.next(), None, "{}", self.head);
        value
    }

    /// The path that its `Location` means, which says how to get to the root first.
    #[track_caller]
    pub fn location(&self) -> String {
        let mut path = self.field("Location");
        while let Some(rest) = path.strip_prefix("../").or(path.strip_prefix("./")) {
            path = rest;
        }
        format!("/{path}")
    }

    pub fn has(&self, line: &str) -> bool {
        self.head
            .contains(&format!("\r\n{}\r\n", through_door(line)))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A field of a reply, as the door of this run has it: no cache gives to others what needs an account.
pub fn through_door(line: &str) -> String {
    match door().has_accounts && line.starts_with("Cache-Control: ") {
        true => format!("{line}, private"),
        false => line.to_owned(),
    }
}

pub fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n")
}

pub fn post(target: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let length = body.len();
    let head = format!("POST {target} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

/// One request over a connection of its own.
#[track_caller]
pub fn ask(server: &Server, request: impl AsRef<[u8]>) -> Reply {
    let request = request.as_ref();
    let method = request.split(|b| *b == b' ').next().unwrap();
    let mut http = Http::to(server);
    http.send(request);
    let method = String::from_utf8_lossy(method);
    http.reply_to(&method).expect("a reply")
}

#[track_caller]
fn check_given(server: &Server, tree: &Tree, name: &str, content_type: &str) {
    let want = fs::read(tree.root(&format!("site/{name}"))).unwrap();
    let got = ask(server, get(&format!("/site/{name}")));
    assert_eq!(got.status, 200, "{}", got.head);
    assert_eq!(got.field("Content-Type"), content_type);
    assert_eq!(got.field("Content-Length"), want.len().to_string());
    assert!(got.body == want, "{name} differs");
    let mut http = Http::to(server);
    http.send(format!("HEAD /site/{name} HTTP/1.1\r\nHost: h\r\n\r\n"));
    http.send(get("/nowhere"));
    let head = http.reply_to("HEAD").unwrap();
    let fields = |reply: &Reply| {
        let lines = reply
            .head
            .lines()
            .filter(|line| !line.starts_with("Date: "));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(fields(&head), fields(&got));
    // Nothing stands between the head and the next reply.
    assert_eq!(http.reply().status, 404);
}

#[test]
fn files_are_given_with_their_type_and_length() {
    let tree = Tree::new();
    let server = tree.start(&[]);
    check_given(
        &server,
        &tree,
        "testServer.txt",
        "text/plain; charset=utf-8",
    );
    check_given(&server, &tree, "photoServer.jpg", "image/jpeg");
    check_given(&server, &tree, "diagram.png", "image/png");
    check_given(&server, &tree, "index.html", "text/html");
    check_given(&server, &tree, "style.css", "text/css; charset=utf-8");
    for name in ["empty.txt", "two words ä%.txt"] {
        fs::write(tree.root("site").join(name), "").unwrap();
    }
    check_given(&server, &tree, "empty.txt", "text/plain; charset=utf-8");
    let odd = ask(&server, get("/site/two%20words%20%C3%A4%25.txt?query"));
    assert_eq!((odd.status, odd.body.len()), (200, 0));
    // A path of 4,080 bytes, which are three times as many in a request.
    let long = format!("/{}", "%C3%A9".repeat(127)).repeat(16);
    let put = format!("PUT {long} HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx");
    assert_eq!(ask(&server, put).status, 201);
    assert_eq!(ask(&server, get(&long)).text(), "x");
}

#[test]
fn what_is_not_there_is_404_with_a_sentence() {
    let tree = Tree::new();
    let server = tree.start(&["--no-listing"]);
    for target in [
        "/",
        "/nowhere",
        "/site/nowhere.txt",
        "/nowhere/a.txt",
        "/plain",
        "/plain/",
        "/plain/a.txt/",
        "/plain/a.txt/b",
        "/PLAIN/a.txt",
        "/plain/a.tx",
    ] {
        let reply = ask(&server, get(target));
        assert_eq!(reply.status, 404, "{target}");
        assert_eq!(reply.text(), "there is no such file\n", "{target}");
        assert!(reply.field("Content-Type").starts_with("text/plain"));
    }
}

#[test]
fn a_folder_serves_its_page() {
    let tree = Tree::new();
    let server = tree.start(&[]);
    let page = fs::read(tree.root("site/index.html")).unwrap();
    let got = ask(&server, get("/site/"));
    assert_eq!((got.status, got.body == page), (200, true));
    assert_eq!(got.field("Content-Type"), "text/html");
    fs::write(tree.root("index.html"), "home").unwrap();
    assert_eq!(ask(&server, get("/")).text(), "home");
    // Without its slash, the links in the page would lead to the wrong place.
    for (target, location) in [("/site", "./site/"), ("/site?a=1", "./site/?a=1")] {
        let moved = ask(&server, get(target));
        assert_eq!((moved.status, moved.field("Location")), (301, location));
        assert!(ask(&server, get(&location[1..])).body == page);
    }
}

#[track_caller]
fn check_saved(server: &Server, tree: &Tree, name: &str, body: &[u8]) {
    let target = format!("/{name}");
    let saved = ask(server, post(&target, body));
    assert_eq!((saved.status, saved.text().as_str()), (200, SAVED));
    assert!(fs::read(tree.root(name)).unwrap() == body, "{name}");
    assert!(ask(server, get(&target)).body == body, "{name}");
}

#[test]
fn an_upload_is_saved_with_its_parents() {
    let tree = Tree::new();
    let server = tree.start(&[]);
    let photo = fs::read(data("client/photoClient.jpg")).unwrap();
    let mut want = tree.inside();
    for (name, body) in [
        ("a.txt", &b"hello\n"[..]),
        ("new/folders/made/photo.jpg", &photo),
        ("new/folders/empty", b""),
        ("site/testServer.txt", b"replaced"),
        ("a.txt", b"again\0\xff"),
    ] {
        check_saved(&server, &tree, name, body);
        want.insert(tree.root(name), body.to_vec());
    }
    for made in ["new", "new/folders", "new/folders/made"] {
        want.insert(tree.root(made), Vec::new());
    }
    assert_eq!(tree.inside(), want, "something else was made or changed");
}

/// Begins an upload, and waits until the server has its beginning.
#[track_caller]
fn begin_upload(server: &Server, tree: &Tree, head: &str, beginning: &str) -> Http {
    let mut http = Http::to(server);
    let head = format!("{head} HTTP/1.1\r\nHost: h\r\n");
    http.send(format!("{head}{beginning}"));
    eventually("the upload has begun", || tree.temporary_files() == 1);
    http
}

#[test]
fn a_broken_upload_leaves_nothing() {
    let tree = Tree::new();
    let server = tree.start(&[]);
    let before = tree.inside();
    for target in ["/new.txt", "/plain/a.txt", "/not/yet/there.txt"] {
        let line = format!("POST {target}");
        for beginning in [
            "Content-Length: 10\r\n\r\n",
            "Content-Length: 10\r\n\r\nonly nine",
            "Transfer-Encoding: chunked\r\n\r\n",
            "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            "Transfer-Encoding: chunked\r\n\r\n5\r\nhel",
            "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        ] {
            let http = begin_upload(&server, &tree, &line, beginning);
            // Nobody sees it, nor what it would replace gone.
            let seen = ask(&server, get(target));
            match target {
                "/plain/a.txt" => assert_eq!(seen.text(), "a"),
                _ => assert_eq!(seen.status, 404),
            }
            drop(http);
            eventually("nothing is left of it", || tree.inside() == before);
        }
        // Leaving with a reply unread resets the connection.
        let with_reply = format!("{}{line}", get("/site/"));
        let beginning = "Content-Length: 10\r\n\r\nonly nine";
        drop(begin_upload(&server, &tree, &with_reply, beginning));
        eventually("nothing is left of it", || tree.inside() == before);
    }
    // One whose client only ends its half is told so.
    let beginning = "Content-Length: 9\r\n\r\nx";
    let mut http = begin_upload(&server, &tree, "POST /new.txt", beginning);
    http.0.get_ref().shutdown(Shutdown::Write).unwrap();
    assert_eq!(http.reply().status, 400);
    assert_eq!(tree.inside(), before);
}

#[test]
fn a_killed_server_leaves_no_half_file_under_its_name() {
    let tree = Tree::new();
    let server = tree.start(&[]);
    let half = "Content-Length: 10\r\n\r\nhalf";
    let _new = begin_upload(&server, &tree, "POST /new.txt", half);
    let mut old = Http::to(&server);
    old.send(format!("POST /plain/a.txt HTTP/1.1\r\nHost: h\r\n{half}"));
    eventually("the second has begun", || tree.temporary_files() == 2);
    server.kill();
    assert!(!tree.root("new.txt").exists());
    assert_eq!(fs::read(tree.root("plain/a.txt")).unwrap(), b"a");
    // What such a crash leaves is never given out.
    let server = tree.start(&[]);
    for path in tree.inside().keys() {
        let path = path.strip_prefix(tree.path("root")).unwrap();
        let reply = ask(&server, get(&format!("/{}", path.display())));
        assert!(!reply.text().contains("half"), "{path:?}");
    }
}

#[track_caller]
fn check_chunked(server: &Server, tree: &Tree, body: &str, want: Result<&str, u16>) {
    let head = "POST /chunked HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    let before = tree.inside();
    let mut http = Http::to(server);
    http.send(format!("{head}{body}"));
    http.send(get("/plain/a.txt"));
    let reply = http.reply();
    match want {
        Ok(text) => {
            assert_eq!(
                (reply.status, reply.text().as_str()),
                (200, SAVED),
                "{body:?}"
            );
            assert_eq!(fs::read_to_string(tree.root("chunked")).unwrap(), text);
            assert_eq!(http.reply().text(), "a", "{body:?}");
        }
        Err(status) => {
            assert_eq!(reply.status, status, "{body:?}: {}", reply.text());
            // What is only too long may have been read to its end; then nothing is in doubt.
            assert!(
                status == 413 || reply.has("Connection: close") && http.is_at_end(),
                "{body:?}"
            );
            assert_eq!(tree.inside(), before, "{body:?}");
        }
    }
}

#[test]
fn an_upload_may_be_chunked() {
    let tree = Tree::new();
    let server = tree.start(&["--max-upload", "100"]);
    let check = |body: &str, want| check_chunked(&server, &tree, body, want);
    check("5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", Ok("hello world"));
    check("0\r\n\r\n", Ok(""));
    check(
        "00a;ext=\"x\"\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n",
        Ok("0123456789"),
    );
    let most = "x".repeat(100);
    check(&format!("64\r\n{most}\r\n0\r\n\r\n"), Ok(&most));
    check(&format!("65\r\n{}\r\n0\r\n\r\n", "x".repeat(101)), Err(413));
    check(&format!("{}0\r\n\r\n", "1\r\nx\r\n".repeat(101)), Err(413));
    check("5\r\nhelloo\r\n0\r\n\r\n", Err(400));
    check("5\r\nhello0\r\n\r\n", Err(400));
    check("x\r\nhello\r\n0\r\n\r\n", Err(400));
    check("-5\r\nhello\r\n0\r\n\r\n", Err(400));
    check("0x5\r\nhello\r\n0\r\n\r\n", Err(400));
    check("fffffffffffffffff\r\nhello\r\n0\r\n\r\n", Err(400));
    check("5\nhello\n0\n\n", Err(400));
}

#[test]
fn a_client_that_waits_for_100_continue_gets_it() {
    let tree = Tree::new();
    let server = tree.start(&["--max-upload", "10"]);
    let head = |length: &str| {
        format!("POST /new HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n{length}\r\n\r\n")
    };
    let mut http = Http::to(&server);
    for (length, body) in [
        ("Content-Length: 5", "hello"),
        ("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n"),
    ] {
        http.send(head(length));
        assert_eq!(http.head().unwrap(), "HTTP/1.1 100 Continue\r\n\r\n");
        http.send(body);
        assert_eq!(http.reply().text(), SAVED);
        assert_eq!(fs::read(tree.root("new")).unwrap(), b"hello");
    }
    // What will be refused is not sent for.
    http.send(head("Content-Length: 11"));
    let refused = http.reply();
    assert_eq!(refused.status, 413);
    assert!(refused.has("Connection: close") && http.is_at_end());
    let mut http = Http::to(&server);
    http.send(head("Content-Length: 1").replace("100-continue", "tea"));
    assert_eq!(http.reply().status, 417);
}

#[track_caller]
fn check_refused(server: &Server, request: &str, status: u16, sentence: &str) {
    let reply = ask(server, request);
    assert_eq!(reply.status, status, "{request}");
    assert!(
        reply.text().contains(sentence),
        "{request}: {}",
        reply.text()
    );
    assert_eq!(
        reply.text().lines().count(),
        1,
        "{request}: {}",
        reply.text()
    );
    assert!(reply.field("Content-Type").starts_with("text/plain"));
    if status == 405 {
        let allow = reply.field("Allow");
        assert!(reply.text().contains(allow), "{request}: {allow}");
    }
}

#[test]
fn what_is_refused_has_its_status_and_a_sentence() {
    let tree = Tree::new();
    let server = tree.start(&["--max-upload", "10"]);
    let before = tree.inside();
    let check = |line: &str, status, sentence| {
        check_refused(&server, &format!("{line}\r\n\r\n"), status, sentence);
    };
    for method in ["DELETE", "PATCH", "TRACE"] {
        let line = format!("{method} /plain/a.txt HTTP/1.1\r\nHost: h");
        check(&line, 405, "GET, HEAD, OPTIONS, POST, PUT");
    }
    for method in ["get", "POSTS"] {
        let line = format!("{method} /plain/a.txt HTTP/1.1\r\nHost: h");
        check(&line, 501, "capitals");
    }
    let post = "POST /x HTTP/1.1\r\nHost: h";
    check(post, 411, "Content-Length");
    check(&format!("{post}\r\nContent-Length: 11"), 413, "10 bytes");
    check(
        &format!("{post}\r\nContent-Length: 9000000000000"),
        413,
        "10 bytes",
    );
    check(
        &format!("{post}\r\nContent-Length: -1"),
        400,
        "Content-Length",
    );
    check(
        &format!("{post}\r\nContent-Length: 1\r\nContent-Length: 2"),
        400,
        "one",
    );
    check(
        &format!("{post}\r\nContent-Length: 1\r\nTransfer-Encoding: chunked"),
        400,
        "not both",
    );
    check(
        &format!("{post}\r\nTransfer-Encoding: gzip, chunked"),
        501,
        "chunked",
    );
    for target in ["/plain", "/plain/", "/", "/plain/a.txt/b", "/new/"] {
        let line = format!("POST {target} HTTP/1.1\r\nHost: h\r\nContent-Length: 1");
        check(&line, 409, "");
    }
    check("GET /plain/a.txt HTTP/1.1", 400, "Host");
    check(
        "GET /plain/a.txt HTTP/1.1\r\nHost: a\r\nHost: a",
        400,
        "Host",
    );
    check("GET /plain/a.txt HTTP/2.0\r\nHost: h", 505, "HTTP/1.1");
    check("GET /plain/a.txt", 400, "");
    check(
        &format!("GET /{} HTTP/1.1\r\nHost: h", "x".repeat(12_300)),
        414,
        "",
    );
    check(
        &format!("GET / HTTP/1.1\r\nHost: h\r\nx: {}", "x".repeat(20_000)),
        431,
        "",
    );
    assert_eq!(tree.inside(), before);
}

#[test]
fn a_refused_upload_ends_the_connection() {
    let tree = Tree::new();
    let server = tree.start(&["--max-upload", "10"]);
    // The rest of the body is not taken for requests, and the reply arrives although most of the
    // body was not read.
    let smuggled = get("/plain/a.txt").repeat(2000);
    for request in [
        post("/x", &smuggled),
        post("/plain", &smuggled),
        post("/../x", &smuggled),
        [b"UN", post("/x", &smuggled).as_slice()].concat(),
    ] {
        let mut http = Http::to(&server);
        http.send(&request);
        let reply = http.reply();
        assert!(reply.status >= 400, "{}", reply.head);
        assert!(
            reply.has("Connection: close") && http.is_at_end(),
            "{}",
            reply.head
        );
    }
}

#[test]
fn a_read_only_server_takes_nothing() {
    let tree = Tree::new();
    let server = tree.start(&["--read-only"]);
    let before = tree.inside();
    for target in ["/new", "/plain/a.txt", "/plain"] {
        let refused = ask(&server, post(target, "x"));
        assert_eq!(refused.status, 403, "{target}");
        assert_eq!(refused.text(), "this server accepts no uploads\n");
    }
    let delete = "DELETE /new HTTP/1.1\r\nHost: h\r\n\r\n";
    assert_eq!(ask(&server, delete).field("Allow"), "GET, HEAD, OPTIONS");
    assert_eq!(tree.inside(), before);
    assert_eq!(ask(&server, get("/plain/a.txt")).text(), "a");
}

#[test]
fn several_requests_share_a_connection() {
    let tree = Tree::new();
    let server = tree.start(&[]);
    let photo = fs::read(tree.root("site/photoServer.jpg")).unwrap();
    let script: Vec<(Vec<u8>, u16, Vec<u8>)> = vec![
        (get("/plain/a.txt").into(), 200, b"a".to_vec()),
        (post("/b/c", "new"), 200, SAVED.into()),
        (get("/b/c").into(), 200, b"new".to_vec()),
        (
            get("/nowhere").into(),
            404,
            b"there is no such file\n".to_vec(),
        ),
        (get("/site/photoServer.jpg").into(), 200, photo),
        (post("/b/c", ""), 200, SAVED.into()),
        (get("/b/c").into(), 200, Vec::new()),
    ];
    // One after the other, and then all at once, many times.
    let mut http = Http::to(&server);
    for (request, status, body) in &script {
        http.send(request);
        let reply = http.reply();
        assert_eq!(
            (reply.status, &reply.body == body),
            (*status, true),
            "{}",
            reply.head
        );
    }
    const TIMES: usize = 20;
    let all: Vec<u8> = script
        .iter()
        .flat_map(|(request, ..)| request.clone())
        .collect();
    let stream = server.connect();
    let mut http = Http(BufReader::new(&stream));
    thread::scope(|scope| {
        // From a thread of its own, or both sides could wait for the other to read.
        scope.spawn(|| (&stream).write_all(&signed(&all.repeat(TIMES))).unwrap());
        for (request, status, body) in script.iter().cycle().take(TIMES * script.len()) {
            let reply = http.reply();
            let line = String::from_utf8_lossy(&request[..20]);
            assert_eq!(
                (reply.status, &reply.body == body),
                (*status, true),
                "{line}"
            );
        }
    });
}

#[test]
fn a_client_says_when_it_is_done() {
    let tree = Tree::new();
    let server = tree.start(&[]);
    for (head, connection) in [
        ("HTTP/1.1\r\nHost: h\r\nConnection: close", Some("close")),
        ("HTTP/1.0", Some("close")),
        ("HTTP/1.0\r\nConnection: keep-alive", Some("keep-alive")),
        ("HTTP/1.1\r\nHost: h", None),
    ] {
        let request = format!("GET /plain/a.txt {head}\r\n\r\n");
        let mut http = Http::to(&server);
        http.send(&request);
        let reply = http.reply();
        assert_eq!((reply.status, reply.text().as_str()), (200, "a"));
        assert_eq!(reply.head.contains("Connection: "), connection.is_some());
        if let Some(connection) = connection {
            assert_eq!(reply.field("Connection"), connection);
        }
        match connection {
            Some("close") => assert!(http.is_at_end(), "{head}"),
            _ => {
                http.send(&request);
                assert_eq!(http.reply().text(), "a", "{head}");
            }
        }
    }
    let upload = "POST /old HTTP/1.0\r\nContent-Length: 3\r\n\r\nold";
    assert_eq!(ask(&server, upload).text(), SAVED);
    assert_eq!(fs::read(tree.root("old")).unwrap(), b"old");
}

/// `max(5 s, 20 s - connections now open)`: with 16 of them it is 5 s. The first one was alone, so
/// it may be silent for 19 s, and outlives the last.
#[test]
fn an_idle_connection_is_closed_the_sooner_the_more_there_are() {
    let tree = Tree::new();
    let server = tree.start(&[]);
    let mut first = Http::to(&server);
    // Such a reply, unlike a file, leaves the server when it begins to wait for the next request:
    // by then it has counted the connections.
    first.send(get("/nowhere"));
    assert_eq!(first.reply().status, 404);
    let _silent: Vec<Stream> = (0..14).map(|_| server.connect()).collect();
    let mut last = Http::to(&server);
    let since = Instant::now();
    last.send(get("/plain/a.txt"));
    assert_eq!(last.reply().text(), "a");
    assert!(last.is_at_end());
    let idle = since.elapsed();
    assert!(idle >= Duration::from_secs(5), "closed after {idle:?}");
    let mut stream = first.0.get_ref();
    let short = Duration::from_millis(500);
    stream.set_read_timeout(Some(short)).unwrap();
    let waited = stream.read(&mut [0]).expect_err("it is closed as well");
    assert_eq!(waited.kind(), ErrorKind::WouldBlock);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    first.send(get("/plain/a.txt"));
    assert_eq!(first.reply().text(), "a", "after {idle:?}");
}

#[test]
fn a_server_without_requests_ends_by_itself() {
    let tree = Tree::new();
    let server = tree.start(&["--idle-exit", "2"]);
    // A connection that asks for nothing does not hold it.
    let _silent = server.connect();
    let since = Instant::now();
    assert_eq!(ask(&server, get("/plain/a.txt")).text(), "a");
    let (code, log) = server.wait();
    assert_eq!(code, Some(0), "{log}");
    // The clock of the last request is as coarse as the kernel's ticks.
    const TICK: Duration = Duration::from_millis(10);
    assert!(since.elapsed() + TICK >= Duration::from_secs(2));
    for line in ["No request for 2 s", "Shutting down server"] {
        assert!(log.contains(&format!("[INFO] [main] {line}\n")), "{log}");
    }
}

/// A sparse file of 100 MB with something at both ends.
pub fn large_file(path: &Path) -> u64 {
    const BYTES: u64 = 100_000_000;
    let file = File::create(path).unwrap();
    file.write_all_at(b"start", 0).unwrap();
    file.write_all_at(b"end", BYTES - 3).unwrap();
    BYTES
}

/// Reads what [`large_file`] made.
#[track_caller]
fn check_large(mut input: impl Read, bytes: u64) {
    let mut at = 0;
    let mut piece = vec![0; 1 << 20];
    let zeros = vec![0; piece.len()];
    while at < bytes {
        let room = piece.len().min((bytes - at) as usize);
        input.read_exact(&mut piece[..room]).unwrap();
        let mut middle = &piece[..room];
        if at == 0 {
            middle = middle.strip_prefix(b"start").unwrap();
        }
        at += room as u64;
        if at == bytes {
            middle = middle.strip_suffix(b"end").unwrap();
        }
        assert!(middle == &zeros[..middle.len()], "before byte {at}");
    }
    assert_eq!(input.read(&mut piece).unwrap(), 0, "there is more");
}

#[test]
fn a_large_file_arrives_whole() {
    let tree = Tree::new();
    let bytes = large_file(&tree.root("large.bin"));
    let server = tree.start(&[]);
    let mut http = Http::to(&server);
    http.send("GET /large.bin HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    let head = http.head().unwrap();
    assert!(
        head.contains(&format!("\r\nContent-Length: {bytes}\r\n")),
        "{head}"
    );
    check_large(http.0, bytes);
    let ran = client(&server, tree.top.path(), &["get", "large.bin", "-o", "got"]).expect(0);
    assert!(
        ran.stderr.contains("Saved got: 100000000 bytes"),
        "{}",
        ran.stderr
    );
    check_large(File::open(tree.path("got")).unwrap(), bytes);
    client(&server, tree.top.path(), &["post", "got", "back.bin"]).expect(0);
    check_large(File::open(tree.root("back.bin")).unwrap(), bytes);
}

#[test]
fn a_download_under_way_keeps_the_server_from_ending() {
    let tree = Tree::new();
    let bytes = large_file(&tree.root("large.bin"));
    let server = tree.start(&["--idle-exit", "2"]);
    let mut http = Http::to(&server);
    http.send("GET /large.bin HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    http.head().unwrap();
    // A server that ended would close this one; it is given half as long again as it has.
    let mut silent = server.connect();
    silent
        .set_read_timeout(Some(Duration::from_secs(3)))
        .unwrap();
    let waited = silent.read(&mut [0]).expect_err("the server ended");
    assert_eq!(waited.kind(), ErrorKind::WouldBlock);
    check_large(http.0, bytes);
    assert_eq!(server.wait().0, Some(0));
}

/// A request that sends a file under a name.
type Way = fn(&str, &[u8]) -> Vec<u8>;

/// How the clients of the next test send their files.
const WAYS: [Way; 4] = [
    |name, file| post(&format!("/shared/{name}"), file),
    |name, file| {
        let length = file.len();
        let head =
            format!("PUT /shared/{name} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n");
        [head.as_bytes(), file].concat()
    },
    |name, file| {
        let mut request =
            format!("PUT /shared/{name} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
                .into_bytes();
        for chunk in file.chunks(file.len().div_ceil(3)) {
            request.extend(format!("{:x}\r\n", chunk.len()).as_bytes());
            request.extend(chunk);
            request.extend(b"\r\n");
        }
        request.extend(b"0\r\n\r\n");
        request
    },
    |name, file| {
        let field = format!("Content-Disposition: form-data; name=\"file\"; filename=\"{name}\"");
        let form = [
            format!("--b\r\n{field}\r\n\r\n").as_bytes(),
            file,
            b"\r\n--b--\r\n",
        ]
        .concat();
        let length = form.len();
        let head = format!(
            "POST /shared/ HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\
             Content-Type: multipart/form-data; boundary=b\r\n\r\n"
        );
        [head.as_bytes(), &form].concat()
    },
];

/// A hundred clients send, each in its way, and a hundred fetch, all at once.
#[test]
fn of_files_sent_at_once_under_one_name_each_is_whole() {
    const SENDERS: usize = 100;
    const FETCHES: usize = 2;
    const NAMES: [&str; 4] = ["a", "b.txt", "c.bin", "d"];
    let tree = Tree::new();
    let server = tree.start(&[]);
    // No two files are alike: of one byte up to a megabyte, most of them short.
    let files: Vec<_> = (0..SENDERS)
        .map(|n| Noise::new(n as u64 + 1).bytes(1 + n * n * n + n * 100))
        .collect();
    let send = |n: usize| {
        let way = WAYS[n / NAMES.len() % WAYS.len()];
        ask(&server, way(NAMES[n % NAMES.len()], &files[n]))
    };
    // The number of the file that these bytes are.
    let number_of = |name: usize, bytes: &[u8]| {
        let mut sent = (name..SENDERS).step_by(NAMES.len());
        sent.find(|n| files[*n] == bytes)
    };
    let first: [u16; NAMES.len()] = std::array::from_fn(|n| send(n).status);
    assert_eq!(first, [200; NAMES.len()]);
    // Which file stands behind each entity tag.
    let tags = Mutex::new(BTreeMap::new());
    let fetch = |name: usize| {
        let target = format!("/shared/{}", NAMES[name]);
        let request = "HTTP/1.1\r\nHost: h\r\nWant-Repr-Digest: sha-256=1\r\n\r\n";
        let reply = ask(&server, format!("GET {target} {request}"));
        assert_eq!(reply.status, 200, "{}", reply.head);
        let number = number_of(name, &reply.body);
        let number = number.unwrap_or_else(|| panic!("mixed or not whole: {}", reply.head));
        let mut hasher = Hasher::default();
        hasher.update(&reply.body);
        assert_eq!(reply.field("Repr-Digest"), digest::format(&hasher.finish()));
        let mut tags = tags.lock().unwrap();
        let tagged = *tags
            .entry((name, reply.field("ETag").to_owned()))
            .or_insert(number);
        assert_eq!(tagged, number, "two files with one tag: {}", reply.head);
    };
    let start = Barrier::new(2 * SENDERS);
    thread::scope(|scope| {
        for n in 0..SENDERS {
            let (start, send, fetch) = (&start, &send, &fetch);
            scope.spawn(move || {
                start.wait();
                let reply = send(n);
                assert!(matches!(reply.status, 200 | 201 | 303), "{}", reply.head);
            });
            scope.spawn(move || {
                start.wait();
                (0..FETCHES).for_each(|_| fetch(n % NAMES.len()));
            });
        }
    });
    for (name, file) in NAMES.iter().enumerate() {
        fetch(name);
        let bytes = fs::read(tree.root("shared").join(file)).unwrap();
        assert!(
            number_of(name, &bytes).is_some(),
            "{file} is mixed or not whole"
        );
    }
    assert_eq!(
        fs::read_dir(tree.root("shared")).unwrap().count(),
        NAMES.len()
    );
    assert_eq!(tree.temporary_files(), 0);
}

#[test]
fn the_original_client_gets_and_posts_over_one_connection() {
    if !has_door(Needs::Plain, "the original client knows plain TCP alone") {
        return;
    }
    if !has_program("python3") {
        return;
    }
    let tree = Tree::new();
    let server = tree.start(&["--verbose"]);
    let got = tree.path("got.jpg");
    let photo = data("client/photoClient.jpg");
    let client = |path: &str| {
        let mut line = server.host_and_ports();
        let (got, photo) = (got.to_str().unwrap(), photo.to_str().unwrap());
        line.extend([path, got, photo, "client/photo.jpg"].map(str::to_owned));
        python("file_client.py", &line)
    };
    let ran = client("site/photoServer.jpg").expect(0);
    assert_eq!(ran.out(), "GET: HTTP/1.1 200 OK\nPOST: HTTP/1.1 200 OK\n");
    assert!(fs::read(&got).unwrap() == fs::read(tree.root("site/photoServer.jpg")).unwrap());
    assert!(fs::read(tree.root("client/photo.jpg")).unwrap() == fs::read(&photo).unwrap());
    let ran = client("nowhere").expect(1);
    assert_eq!(
        ran.out(),
        "GET: HTTP/1.1 404 Not Found\nPOST: HTTP/1.1 200 OK\n"
    );
    assert_eq!(server.end().matches("] Connected\n").count(), 2);
}

#[test]
fn a_root_that_is_no_folder_stops_the_start() {
    let tree = Tree::new();
    for root in ["nowhere", "secret.txt"] {
        let root = tree.path(root);
        let ran = run("file-server", &["0", "--root", root.to_str().unwrap()], b"").expect(2);
        let want = format!("file-server: cannot serve the folder {}", root.display());
        assert!(ran.stderr.starts_with(&want), "{}", ran.stderr);
    }
}

/// Runs curl with these arguments for a path of the server.
#[track_caller]
fn curl(server: &Server, args: &[&str], path: &str) -> Option<String> {
    let mut command = server.curl(path);
    command.args(["--silent", "--show-error", "--max-time", "30"]);
    command.args(args);
    if !has_program("curl") {
        return None;
    }
    Some(crate::harness::run_command(command, b"").expect(0).out())
}

#[test]
fn curl_uploads_downloads_and_resumes() {
    let tree = Tree::new();
    let server = tree.start(&[]);
    let file = tree.root("site/photoServer.jpg");
    let file = file.to_str().unwrap();
    let status = ["-w", "%{http_code}", "-o", "/dev/null"];
    let upload = [&status[..], &["-T", file]].concat();
    let Some(created) = curl(&server, &upload, "/up/photo.jpg") else {
        return;
    };
    assert_eq!(created, "201");
    assert_eq!(curl(&server, &upload, "/up/photo.jpg").unwrap(), "200");
    let whole = fs::read(file).unwrap();
    assert_eq!(fs::read(tree.root("up/photo.jpg")).unwrap(), whole);
    // It sends Expect: 100-continue by itself when an upload is large.
    let never = [&upload[..], &["-H", "If-None-Match: *"]].concat();
    assert_eq!(curl(&server, &never, "/up/photo.jpg").unwrap(), "412");
    let dir = tempfile::tempdir().unwrap();
    let part = dir.path().join("part");
    fs::write(&part, &whole[..1000]).unwrap();
    let part = part.to_str().unwrap();
    curl(&server, &["-C", "-", "-o", part], "/up/photo.jpg").unwrap();
    assert!(fs::read(part).unwrap() == whole);
    let not_modified = [&status[..], &["-z", file]].concat();
    assert_eq!(
        curl(&server, &not_modified, "/site/photoServer.jpg").unwrap(),
        "304"
    );
}

#[test]
fn a_folder_is_shown_as_a_page_and_as_json() {
    let tree = Tree::new();
    let server = tree.start(&[]);
    let page = ask(&server, get("/plain/"));
    assert_eq!(page.status, 200);
    assert!(page.field("Content-Type").starts_with("text/html"));
    let link = "<a href=\"./a.txt\"><svg class=\"text\" aria-hidden=\"true\"><use href=\"#text\"/></svg>a.txt</a>";
    assert!(page.text().contains(link), "{}", page.text());
    let json = ask(&server, get("/plain/?json"));
    assert_eq!(json.field("Content-Type"), "application/json");
    let json: serde_json::Value = serde_json::from_str(&json.text()).unwrap();
    let entries = json["entries"].as_array().unwrap();
    let file = entries
        .iter()
        .find(|entry| entry["name"] == "a.txt")
        .unwrap();
    assert_eq!((&file["bytes"], &file["type"]), (&1.into(), &"file".into()));
    assert_eq!(ask(&server, get("/plain")).field("Location"), "./plain/");
}

#[test]
fn of_many_who_would_make_a_file_one_does() {
    const CLIENTS: usize = 20;
    let tree = Tree::new();
    let server = tree.start(&[]);
    let made: usize = std::thread::scope(|scope| {
        let one = |n: usize| {
            let server = &server;
            scope.spawn(move || {
                let body = n.to_string();
                let request = format!(
                    "PUT /only-one HTTP/1.1\r\nHost: h\r\nIf-None-Match: *\r\n\
                     Content-Length: {}\r\n\r\n{body}",
                    body.len()
                );
                let status = ask(server, request).status;
                assert!(matches!(status, 201 | 412), "{status}");
                usize::from(status == 201)
            })
        };
        let threads: Vec<_> = (0..CLIENTS).map(one).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    });
    assert_eq!(made, 1);
}

#[test]
fn the_access_log_has_a_line_for_each_request() {
    let tree = Tree::new();
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("access.log");
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &format!("exec \"$0\" \"$@\" > {}", log.display())]);
    command
        .arg(program("file-server"))
        .args(["0", "--manage", "--access-log", "--root"]);
    command.arg(tree.root(""));
    let server = Server::spawn(command);
    let lines = || fs::read_to_string(&log).unwrap();
    let requests = [
        get("/plain/a.txt"),
        get("/\"%0a"),
        "HEAD /plain/a.txt HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(),
        "no request\r\n\r\n".to_owned(),
        get("/plain/?tar"),
        "MOVE /plain HTTP/1.1\r\nHost: h\r\nDestination: /new\r\n\r\n".to_owned(),
        "MKCOL /new HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(),
        "MKCOL /more/ HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(),
        "DELETE /new HTTP/1.1\r\nHost: h\r\nDepth: infinity\r\n\r\n".to_owned(),
    ];
    // A line is written when the reply is sent, which the next connection may be faster than.
    for (before, request) in requests.iter().enumerate() {
        exchange(server.addr(), request.as_bytes());
        eventually("it is logged", || lines().lines().count() == before + 1);
    }
    let logged: Vec<_> = lines()
        .lines()
        .map(|line| line.split_once("] ").unwrap().1.to_owned())
        .collect();
    assert_eq!(
        logged,
        [
            "\"GET /plain/a.txt HTTP/1.1\" 200 1",
            "\"GET /\\\"%0a HTTP/1.1\" 400 82",
            "\"HEAD /plain/a.txt HTTP/1.1\" 200 0",
            "\"no request\" 400 65",
            // A head for the folder, a head and a block for the file, and two blocks at the end.
            "\"GET /plain/?tar HTTP/1.1\" 200 2560",
            "\"MOVE /plain HTTP/1.1\" 201 0",
            "\"MKCOL /new HTTP/1.1\" 405 27",
            "\"MKCOL /more/ HTTP/1.1\" 201 0",
            "\"DELETE /new HTTP/1.1\" 204 0",
        ]
    );
}
