//! Texts and lists, compressed: what curl is told and gets, and what gzip makes of it.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write as _};
use std::process::Command;

use crate::file::{Http, SAVED, Tree, ask, get};
use crate::harness::{Server, data, eventually, has_program, run_command, signed};

const ACCEPT: [&str; 2] = ["--header", "Accept-Encoding: gzip"];

/// A reply as curl has it, its body as it came.
struct Got {
    head: String,
    body: Vec<u8>,
}

impl Got {
    fn status(&self) -> &str {
        self.head.split(' ').nth(1).unwrap()
    }

    /// The values of a field.
    fn field(&self, name: &str) -> String {
        let start = format!("{name}: ");
        let values: Vec<_> = self
            .head
            .lines()
            .filter_map(|line| line.strip_prefix(&start))
            .collect();
        values.join(", ")
    }

    fn varies(&self) -> bool {
        self.field("Vary").contains("Accept-Encoding")
    }

    /// What gzip makes of the body.
    #[track_caller]
    fn unzipped(&self) -> Vec<u8> {
        assert_eq!(self.field("Content-Encoding"), "gzip", "{}", self.head);
        let mut gzip = Command::new("gzip");
        gzip.args(["--decompress", "--stdout"]);
        run_command(gzip, &self.body).expect(0).stdout
    }
}

/// The arguments of a client that accepts gzip, and these.
fn accepting<'a>(args: &[&'a str]) -> Vec<&'a str> {
    [&ACCEPT[..], args].concat()
}

/// What curl gets with these arguments.
#[track_caller]
fn curl(server: &Server, target: &str, args: &[&str]) -> Got {
    let mut command = server.curl(target);
    command.args(["--silent", "--show-error", "--max-time", "60", "--include"]);
    command.args(args);
    let all = run_command(command, b"").expect(0).stdout;
    let end = all.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    Got {
        head: String::from_utf8_lossy(&all[..end + 2]).replace('\r', ""),
        body: all[end + 4..].to_vec(),
    }
}

/// A text that is some times longer than its compressed form.
fn text(lines: usize) -> String {
    let mut text = String::new();
    for number in 0..lines {
        let _ = writeln!(
            text,
            "line {number}: {:x} is what the line says",
            number * 7_919
        );
    }
    text
}

/// A text that is still longer than what is on its way to a client when it is compressed: digits that look
/// like chance, and come again where no compressor looks for them.
fn digits() -> String {
    let number = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    let digits = (1..40_000).map(|one| format!("{:016x}\n", number(number(one))));
    digits.collect::<String>().repeat(60)
}

/// Asks for files until the server has them in its cache, which it has of none that has just changed.
fn wait_until_cached(server: &Server, targets: &[String]) {
    let line = format!("\nquartet_file_cache_files {}\n", targets.len());
    eventually("the files are cached", || {
        for target in targets {
            assert_eq!(ask(server, get(target)).status, 200, "{target}");
        }
        let metrics = curl(server, "/.quartet/metrics", &[]).body;
        String::from_utf8_lossy(&metrics).contains(&line)
    });
}

/// Whether there are the programs that these tests need.
fn has_programs() -> bool {
    has_program("curl") && has_program("gzip")
}

#[test]
fn a_text_is_compressed_for_a_client_that_accepts_it() {
    if !has_programs() {
        return;
    }
    let tree = Tree::new();
    // In memory; kept compressed; compressed while it is sent.
    for (name, lines) in [("small.css", 50), ("kept.js", 2_000), ("long.txt", 20_000)] {
        fs::write(tree.root(name), text(lines)).unwrap();
    }
    fs::write(tree.root("picture.svg"), format!("<svg>{}</svg>", text(50))).unwrap();
    fs::write(tree.root("short.txt"), "too short to become shorter").unwrap();
    fs::write(
        tree.root("random.bin"),
        [&[0; 1000][..], b"\xff\0\x01"].concat(),
    )
    .unwrap();
    fs::copy(data("client/photoClient.jpg"), tree.root("photo.jpg")).unwrap();
    let server = tree.start(&[]);
    let texts = ["small.css", "kept.js", "long.txt", "picture.svg"];
    wait_until_cached(&server, &texts.map(|name| format!("/{name}")));
    for name in texts {
        let target = format!("/{name}");
        let want = fs::read(tree.root(name)).unwrap();
        let plain = curl(&server, &target, &[]);
        assert_eq!(plain.field("Content-Encoding"), "", "{}", plain.head);
        assert!(plain.body == want && plain.varies(), "{}", plain.head);
        // What is kept compressed is made once.
        for _ in 0..2 {
            let got = curl(&server, &target, &ACCEPT);
            assert!(
                got.body.len() * 2 < want.len(),
                "{name}: {}",
                got.body.len()
            );
            assert!(got.unzipped() == want && got.varies(), "{name}");
            let tag = plain.field("ETag").replace("\"", "");
            assert_eq!(got.field("ETag"), format!("\"{tag}-gzip\""));
            assert_eq!(got.field("Accept-Ranges"), "", "{}", got.head);
            let head = curl(&server, &target, &accepting(&["--head"]));
            let fields = |got: &Got| {
                let dated = |line: &&str| !line.starts_with("Date: ");
                let lines: Vec<_> = got.head.lines().filter(dated).map(str::to_owned).collect();
                lines
            };
            assert_eq!(fields(&head), fields(&got));
            // It may have either.
            for have in [&got, &plain] {
                let field = format!("If-None-Match: {}", have.field("ETag"));
                let asked = accepting(&["--header", &field]);
                let again = curl(&server, &target, &asked);
                assert_eq!(again.status(), "304", "{name} {field}");
                assert_eq!(again.field("ETag"), have.field("ETag"));
                assert!(again.varies(), "{}", again.head);
                let field = format!("If-Match: {}", have.field("ETag"));
                let asked = accepting(&["--header", &field]);
                let same = curl(&server, &target, &asked);
                assert_eq!(same.field("ETag"), have.field("ETag"));
                assert!(same.body == have.body, "{}", same.head);
            }
        }
        let refused = ["--header", "Accept-Encoding: gzip;q=0, br"];
        assert!(curl(&server, &target, &refused).body == want);
    }
    for name in ["short.txt", "random.bin", "photo.jpg"] {
        let got = curl(&server, &format!("/{name}"), &ACCEPT);
        assert!(got.body == fs::read(tree.root(name)).unwrap(), "{name}");
        assert!(
            !got.varies() && got.field("Content-Encoding").is_empty(),
            "{}",
            got.head
        );
    }
    // A program that unpacks by itself notices nothing.
    let asked = curl(&server, "/long.txt", &["--compressed"]);
    assert!(asked.body == text(20_000).as_bytes());
    // One of HTTP/1.0 knows no chunks.
    let asked = curl(&server, "/long.txt", &accepting(&["--http1.0"]));
    assert!(asked.unzipped() == text(20_000).as_bytes());
}

#[test]
fn parts_and_digests_are_of_the_plain_text() {
    if !has_programs() {
        return;
    }
    let tree = Tree::new();
    fs::write(tree.root("long.txt"), text(20_000)).unwrap();
    let server = tree.start(&[]);
    let ask = |field: &str, range: &str| {
        let range = format!("Range: bytes={range}");
        let args = accepting(&["--header", field, "--header", &range]);
        curl(&server, "/long.txt", &args)
    };
    let gzip = curl(&server, "/long.txt", &ACCEPT).field("ETag");
    let plain = curl(&server, "/long.txt", &[]).field("ETag");
    let part = ask("X: y", "0-5");
    assert_eq!((part.status(), &part.body[..]), ("206", &b"line 0"[..]));
    assert_eq!(part.field("ETag"), plain);
    assert_eq!(part.field("Content-Encoding"), "");
    // What was begun compressed is not continued with a part of the plain text.
    let rest = ask(&format!("If-Range: {gzip}"), "6-");
    assert_eq!(rest.status(), "200");
    let rest = ask(&format!("If-Match: {gzip}"), "6-");
    assert_eq!(rest.status(), "412");
    let rest = ask(&format!("If-Range: {plain}"), "6-11");
    assert_eq!((rest.status(), &rest.body[..]), ("206", &b": 0 is"[..]));
    let digest = accepting(&["--header", "Want-Repr-Digest: sha-256=1"]);
    let digest = curl(&server, "/long.txt", &digest);
    assert!(digest.body == text(20_000).as_bytes(), "{}", digest.head);
    assert!(digest.field("Repr-Digest").starts_with("sha-256="));
}

#[test]
fn a_change_is_to_the_file_that_was_seen_in_either_form() {
    if !has_programs() {
        return;
    }
    let tree = Tree::new();
    fs::write(tree.root("a.txt"), text(50)).unwrap();
    let server = tree.start(&["--manage"]);
    let seen = curl(&server, "/a.txt", &ACCEPT).field("ETag");
    let put = |tag: &str| {
        let field = format!("If-Match: {tag}");
        let text = text(60);
        let args = [
            "--request",
            "PUT",
            "--data-binary",
            &text,
            "--header",
            &field,
        ];
        let got = curl(&server, "/a.txt", &args);
        (
            got.status().to_owned(),
            String::from_utf8(got.body).unwrap(),
        )
    };
    assert_eq!(put(&seen), ("200".to_owned(), SAVED.to_owned()));
    // It is another version since.
    assert_eq!(put(&seen).0, "412");
    let now = curl(&server, "/a.txt", &ACCEPT);
    assert!(now.unzipped() == text(60).as_bytes() && now.field("ETag") != seen);
    let field = format!("If-Match: {seen}");
    let delete = ["--request", "DELETE", "--header", &field];
    assert_eq!(curl(&server, "/a.txt", &delete).status(), "412");
    let field = format!("If-Match: {}", now.field("ETag"));
    let delete = ["--request", "DELETE", "--header", &field];
    assert_eq!(curl(&server, "/a.txt", &delete).status(), "204");
}

#[test]
fn a_text_that_was_kept_compressed_and_has_changed_is_compressed_anew() {
    if !has_programs() {
        return;
    }
    let tree = Tree::new();
    let path = tree.root("a.txt");
    let server = tree.start(&[]);
    let mut tags = Vec::new();
    for lines in [300, 301, 302] {
        match lines {
            // In its place, as another program may have stored it.
            302 => {
                fs::write(tree.root("new"), text(lines)).unwrap();
                fs::rename(tree.root("new"), &path).unwrap();
            }
            // Over the old one, as editors may.
            _ => fs::write(&path, text(lines)).unwrap(),
        }
        for is_cached in [false, true] {
            if is_cached && lines < 302 {
                wait_until_cached(&server, &["/a.txt".to_owned()]);
            }
            let got = curl(&server, "/a.txt", &ACCEPT);
            assert!(got.unzipped() == text(lines).as_bytes(), "{lines}");
            tags.push(got.field("ETag"));
        }
    }
    tags.dedup();
    assert_eq!(tags.len(), 3, "{tags:?}");
}

#[test]
fn a_list_of_50_000_names_is_less_than_a_tenth_as_long() {
    if !has_programs() {
        return;
    }
    let tree = Tree::new();
    let many = tree.root("many");
    fs::create_dir(&many).unwrap();
    fs::write(many.join("000000"), "").unwrap();
    for number in 1..50_000 {
        fs::hard_link(many.join("000000"), many.join(format!("{number:06}"))).unwrap();
    }
    let server = tree.start(&[]);
    let plain = curl(&server, "/many/?json", &[]);
    assert!(
        plain.body.len() > 5_000_000 && plain.varies(),
        "{}",
        plain.body.len()
    );
    let got = curl(&server, "/many/?json", &ACCEPT);
    assert!(got.body.len() < 520_000, "{}", got.body.len());
    assert!(got.unzipped() == plain.body);
    for target in ["/many/", "/plain/", "/many/?json&search=0001"] {
        let plain = curl(&server, target, &["--header", "Accept: text/html"]);
        let got = curl(&server, target, &ACCEPT);
        assert!(
            got.varies() && got.field("Vary").contains("Accept,"),
            "{}",
            got.head
        );
        assert!(got.unzipped() == plain.body, "{target}");
    }
}

#[test]
fn a_text_that_becomes_shorter_while_it_is_compressed_is_not_taken_for_all_of_it() {
    let tree = Tree::new();
    fs::write(tree.root("long.txt"), digits()).unwrap();
    let server = tree.start(&[]);
    let mut stream = server.connect();
    let request = get("/long.txt").replace("\r\n\r\n", "\r\nAccept-Encoding: gzip\r\n\r\n");
    stream.write_all(&signed(request.as_bytes())).unwrap();
    let mut start = [0; 1000];
    stream.read_exact(&mut start).unwrap();
    assert!(String::from_utf8_lossy(&start).contains("Content-Encoding: gzip"));
    fs::write(tree.root("long.txt"), &digits()[..100_000]).unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(!rest.ends_with(b"0\r\n\r\n"), "the last chunk came");
}

#[test]
fn more_than_eight_compressed_at_once_are_sent_plain() {
    let tree = Tree::new();
    fs::write(tree.root("long.txt"), digits()).unwrap();
    let server = tree.start(&[]);
    let request = get("/long.txt").replace("\r\n\r\n", "\r\nAccept-Encoding: gzip\r\n\r\n");
    let open = || {
        let mut http = Http::to(&server);
        http.send(&request);
        let head = http.head().unwrap();
        (http, head.contains("Content-Encoding: gzip"))
    };
    // Nobody reads them, so none of them ends.
    let all: Vec<_> = (0..9).map(|_| open()).collect();
    let gzip: Vec<_> = all.iter().map(|(_, is_gzip)| *is_gzip).collect();
    assert_eq!(gzip, [&[true; 8][..], &[false]].concat());
}

#[test]
fn a_server_that_shall_not_compress_does_not() {
    if !has_programs() {
        return;
    }
    let tree = Tree::new();
    fs::write(tree.root("a.txt"), text(50)).unwrap();
    let server = tree.start(&["--no-compress"]);
    for target in ["/a.txt", "/plain/", "/?json"] {
        let got = curl(&server, target, &ACCEPT);
        assert!(
            !got.varies() && got.field("Content-Encoding").is_empty(),
            "{}",
            got.head
        );
    }
}
