//! Heads that are understood, and heads that are refused.

use std::io::Read;

use super::*;

fn parse(head: &[u8]) -> Result<RequestHead<'_>, Refusal> {
    RequestHead::parse(head)
}

#[test]
fn a_request_is_taken_apart() {
    let head = b"POST /a%20b?x=1&y HTTP/1.1\r\nHost: h:80\r\nContent-Length: 5\r\n\
                 Expect: 100-Continue\r\nX: 1\r\nx: 2\r\n\r\n";
    let request = parse(head).unwrap();
    assert_eq!(request.method, "POST");
    assert_eq!((request.path, request.query), ("/a%20b", Some("x=1&y")));
    assert_eq!(request.body, BodyLength::Bytes(5));
    assert_eq!(request.persistence, Persistence::Default);
    assert!(request.expects_continue);
    let values: Vec<_> = request.fields("x").collect();
    assert_eq!(values, [b"1", b"2"]);
}

#[test]
fn a_head_that_is_written_can_be_parsed() {
    let mut out = Vec::new();
    let host = host_field("::1", 80);
    put_head(&mut out, "POST", "/a?b", &host, &[("Content-Length", "7")]);
    let request = parse(&out).unwrap();
    assert_eq!((request.method, request.path), ("POST", "/a"));
    assert_eq!(request.body, BodyLength::Bytes(7));
    assert_eq!(host_field("fe80::1%eth0", 80), "[fe80::1]:80");
    assert_eq!(host_field("h", 80), "h:80");
}

#[test]
fn the_target_says_which_host_is_meant_or_else_the_field_does() {
    let check = |head: &str, want: &str| {
        let head = format!("{head}\r\n\r\n");
        let host = parse(head.as_bytes()).unwrap().host;
        assert_eq!(String::from_utf8_lossy(host), want, "{head}");
    };
    check("GET / HTTP/1.1\r\nHost: a:80", "a:80");
    check("GET http://b/ HTTP/1.1\r\nHost: a", "b");
    check("GET http://b:81?q HTTP/1.1\r\nHost: a", "b:81");
    check("GET / HTTP/1.0", "");
    for (host, want) in [
        ("a:80", "a"),
        ("a", "a"),
        ("[::1]:80", "[::1]"),
        ("[::1]", "[::1]"),
    ] {
        let head = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(parse(head.as_bytes()).unwrap().host_name(), want.as_bytes());
    }
}

#[track_caller]
fn check_connection(head: &str, want: Persistence) {
    assert_eq!(parse(head.as_bytes()).unwrap().persistence, want);
}

#[test]
fn who_keeps_the_connection() {
    use Persistence::*;
    check_connection("GET / HTTP/1.1\r\nHost:\r\n\r\n", Default);
    check_connection("GET / HTTP/1.7\r\nHost:\r\n\r\n", Default);
    let close = "GET / HTTP/1.1\r\nHost:\r\nConnection: x, Close\r\n\r\n";
    check_connection(close, Close);
    check_connection("GET / HTTP/1.0\r\n\r\n", Close);
    let keep = "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n";
    check_connection(keep, KeepAlive);
}

#[track_caller]
fn check_refused(code: u16, head: &str) {
    match parse(head.as_bytes()) {
        Err(refusal) => assert_eq!(refusal.status.code(), code, "{head:?}: {refusal}"),
        Ok(request) => panic!("{head:?}: {request:?}"),
    }
}

#[test]
fn what_is_ambiguous_or_malformed_is_refused() {
    for line in [
        "",
        "GET",
        "GET /",
        "GET / ",
        "GET  / HTTP/1.1",
        "GET / HTTP/1.1 ",
        " GET / HTTP/1.1",
        "GET\t/ HTTP/1.1",
        "GET / http/1.1",
        "GET / HTTP/11",
        "GET / HTTP/1.10",
        "G(T / HTTP/1.1",
        "GET a HTTP/1.1",
        "GET /a#b HTTP/1.1",
        "GET /a\x7f HTTP/1.1",
        "GET /\u{85} HTTP/1.1",
        "GET /caf\u{e9} HTTP/1.1",
        "GET /a|b HTTP/1.1",
        "GET http:/// HTTP/1.1",
        "GET http://a@b/ HTTP/1.1",
        "GET ftp://h/ HTTP/1.1",
        "GET * HTTP/1.1",
    ] {
        check_refused(400, &format!("{line}\r\nHost: h\r\n\r\n"));
    }
    for fields in [
        "X: 1",
        "Host: a\r\nHost: a",
        "Host: a b",
        "Host: a/b",
        "Host: a:b",
        "Host: a%4",
        "Host: []",
        "Host: [1:2]",
        "Host: [::1]80",
        "Host : a",
        "Host: a\r\n X: folded",
        "Host: a\r\n: x",
        "Host: a\r\nX",
        "Host: a\r\nX y: z",
        "Host: a\r\nX: \x01",
        "Host: a\r\nX: a\rb",
        "Host: a\nX: y",
        " Host: a",
        "Host: a\r\nContent-Length: 1\r\nContent-Length: 1",
        "Host: a\r\nContent-Length: 1, 1",
        "Host: a\r\nContent-Length: +1",
        "Host: a\r\nContent-Length: -1",
        "Host: a\r\nContent-Length: 0x1",
        "Host: a\r\nContent-Length:",
        "Host: a\r\nContent-Length: 1 1",
        "Host: a\r\nContent-Length: 99999999999999999999",
        "Host: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
        "Host: a\r\nTransfer-Encoding:",
        "Host: a\r\nTransfer-Encoding: chunked, chunked",
        "Host: a\r\nTransfer-Encoding: gzip",
        "Host: a\r\nTransfer-Encoding: chunked, gzip",
        "Host: a\r\nTransfer-Encoding: chunked, gzip, chunked",
        "Host: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    ] {
        check_refused(400, &format!("POST / HTTP/1.1\r\n{fields}\r\n\r\n"));
    }
    check_refused(400, "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n");
    check_refused(400, "GET / HTTP/1.1\nHost: a\n\n");
    check_refused(400, "\n");
    check_refused(
        501,
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    );
    check_refused(501, "CONNECT h:80 HTTP/1.1\r\nHost: h:80\r\n\r\n");
    check_refused(501, "get / HTTP/1.1\r\nHost: a\r\n\r\n");
    check_refused(421, "GET https://h/ HTTP/1.1\r\nHost: h\r\n\r\n");
    check_refused(505, "GET / HTTP/2.0\r\nHost: a\r\n\r\n");
    check_refused(417, "GET / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n\r\n");
    let long = "a".repeat(TARGET_BYTES_MAX);
    check_refused(414, &format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"));
}

#[test]
fn a_request_has_at_most_a_hundred_fields() {
    let head = |count| {
        let fields = "X: y\r\n".repeat(count - 1);
        format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
    };
    for count in [1, FIELDS_USUAL, FIELDS_USUAL + 1, FIELDS_MAX] {
        let head = head(count);
        let request = parse(head.as_bytes()).unwrap();
        assert_eq!(request.fields("x").count(), count - 1);
    }
    check_refused(431, &head(FIELDS_MAX + 1));
}

/// What is read of a stream that arrives in these pieces, the head, and what is left.
fn read_in_pieces(pieces: &mut dyn BufRead) -> (String, Vec<u8>, Vec<u8>) {
    let (mut pieces, mut head, mut rest) = (pieces, Vec::new(), Vec::new());
    let read = match read_head(&mut pieces, &mut head) {
        Ok(read) => format!("{read:?}"),
        Err(error) => format!("{:?}", error.kind()),
    };
    pieces.read_to_end(&mut rest).unwrap();
    (read, head, rest)
}

#[test]
fn a_head_is_the_same_in_whatever_pieces_it_arrives() {
    for stream in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\nbody\r\n\r\n",
        "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\nbody",
        "GET / HTTP/1.1\nHost: a\r\n\r\nbody",
        "GET / HTTP/1.1\r\nHost: a\n\nbody\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\n\r\nbody",
        "\nGET / HTTP/1.1\r\nHost: a\r\n\r\nbody",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\r\n\r\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\r",
        "",
    ] {
        let stream = stream.as_bytes();
        let whole = read_in_pieces(&mut &stream[..]);
        let by_bytes = read_in_pieces(&mut io::BufReader::with_capacity(1, stream));
        assert_eq!(whole, by_bytes);
        for cut in 1..stream.len() {
            let (first, second) = stream.split_at(cut);
            assert_eq!(whole, read_in_pieces(&mut first.chain(second)), "{cut}");
        }
    }
}

#[test]
fn a_head_has_at_most_16_kib() {
    for (bytes, want) in [(HEAD_BYTES_MAX, Ok(true)), (HEAD_BYTES_MAX + 1, Err(431))] {
        let start = "GET / HTTP/1.1\r\nX: ";
        let value = "x".repeat(bytes - start.len() - 4);
        let stream = format!("{start}{value}\r\n\r\nnext").into_bytes();
        for cut in [0, 1, bytes / 2, bytes - 1] {
            let (first, second) = stream.split_at(cut);
            let read = read_head(&mut first.chain(second), &mut Vec::new()).unwrap();
            let read = read.map_err(|refusal| refusal.status.code());
            assert_eq!(read, want, "{bytes} bytes, cut at {cut}");
        }
    }
}

#[test]
fn heads_are_read_whole_or_refused() {
    let mut head = Vec::new();
    let mut input = &b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\nbody"[..];
    assert_eq!(read_head(&mut input, &mut head).unwrap(), Ok(true));
    assert_eq!(head, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(input, b"body");
    assert_eq!(read_head(&mut &b""[..], &mut head).unwrap(), Ok(false));
    let whole = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    for cut in 1..whole.len() {
        let error = read_head(&mut &whole[..cut], &mut head).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{cut}");
    }
    for (endless, code) in [
        ("GET /aaaa", 414),
        ("GET", 501),
        ("X: y\r\n", 431),
        ("\r\n", 431),
    ] {
        let endless = endless.repeat(HEAD_BYTES_MAX);
        let refusal = read_head(&mut endless.as_bytes(), &mut head).unwrap();
        assert_eq!(refusal.unwrap_err().status.code(), code);
    }
}
