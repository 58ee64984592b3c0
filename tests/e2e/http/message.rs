//! How a request is written: its first line, its target, its host, its fields.

use super::row::{Row, Section, accepted, both, code, file, head, refused};
use super::row::{post_with, post_with_line};

pub const SECTIONS: &[Section] = &[
    request_line,
    versions,
    line_ends,
    target_forms,
    target_bytes,
    hosts,
    other_hosts,
    origins,
    fields,
    limits,
];

/// A post with this first line, refused.
fn bad_line(name: &str, status: u16, line: impl AsRef<[u8]>) -> Row {
    refused(name, status, post_with_line(line))
}

/// A post with this first line, accepted.
fn good_line(name: &str, line: &str) -> Row {
    accepted(name, post_with_line(line))
}

fn request_line() -> Vec<Row> {
    let long = format!("{} $TARGET HTTP/1.1", "M".repeat(1000));
    let tokens = "!#$%&'*+-.^_`|~09azAZ $TARGET HTTP/1.1";
    let unknown = |name, line: &str| {
        let request = post_with_line(line);
        both(name).send(request).hears(501).closes_or_not()
    };
    vec![
        good_line("9112 3: method, target, version", "POST $TARGET HTTP/1.1"),
        unknown("9110 9.1: methods are case-sensitive", "post $TARGET HTTP/1.1"),
        unknown("9110 9.1: so is GET", "Get $TARGET HTTP/1.1"),
        unknown("9110 5.6.2: every byte a token may have", tokens),
        unknown("9112 3: a method longer than any", &long),
        bad_line("9112 3: one that no buffer holds", 501, "M".repeat(20_000)),
        bad_line("9110 5.6.2: a parenthesis in the method", 400, "P(ST $TARGET HTTP/1.1"),
        bad_line("9110 5.6.2: a colon in the method", 400, "POST: $TARGET HTTP/1.1"),
        bad_line("9110 5.6.2: a NUL in the method", 400, "PO\0ST $TARGET HTTP/1.1"),
        bad_line("9110 5.6.2: a byte above ASCII in the method", 400, b"P\xd6ST $TARGET HTTP/1.1"),
        bad_line("9112 3: no method", 400, " $TARGET HTTP/1.1"),
        bad_line("9112 3: a space in front", 400, " POST $TARGET HTTP/1.1"),
        bad_line("9112 3: a tab in front", 400, "\tPOST $TARGET HTTP/1.1"),
        bad_line("9112 3: two spaces before the target", 400, "POST  $TARGET HTTP/1.1"),
        bad_line("9112 3: two spaces before the version", 400, "POST $TARGET  HTTP/1.1"),
        bad_line("9112 3: a space at the end", 400, "POST $TARGET HTTP/1.1 "),
        bad_line("9112 3: a tab for a space", 400, "POST\t$TARGET HTTP/1.1"),
        bad_line("9112 3: a tab for the second space", 400, "POST $TARGET\tHTTP/1.1"),
        bad_line("9112 3: vertical tabs for spaces", 400, "POST\x0b$TARGET\x0bHTTP/1.1"),
        bad_line("9112 3: a fourth word", 400, "POST $TARGET HTTP/1.1 x"),
        bad_line("9112 3.2: white space in the target", 400, "POST $TARGET x HTTP/1.1"),
        bad_line("9112 3: no target", 400, "POST HTTP/1.1"),
        bad_line("9112 3: nothing but a method", 400, "POST"),
    ]
}

fn versions() -> Vec<Row> {
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    vec![
        good_line("9110 2.5: HTTP/1.2 is read as HTTP/1.1", "POST $TARGET HTTP/1.2"),
        good_line("9110 2.5: and so is HTTP/1.9", "POST $TARGET HTTP/1.9"),
        refused("9112 C.1.1: HTTP/0.9 is not spoken", 400, "GET /\r\n\r\n"),
        bad_line("9112 3: no version", 400, "POST $TARGET"),
        bad_line("9110 15.6.6: HTTP/0.9", 505, "POST $TARGET HTTP/0.9"),
        bad_line("9110 15.6.6: HTTP/2.0", 505, "POST $TARGET HTTP/2.0"),
        bad_line("9110 15.6.6: HTTP/9.9", 505, "POST $TARGET HTTP/9.9"),
        refused("9113 3.4: the preface of HTTP/2", 505, preface),
        bad_line("9112 2.3: the version is case-sensitive", 400, "POST $TARGET http/1.1"),
        bad_line("9112 2.3: two digits", 400, "POST $TARGET HTTP/1.10"),
        bad_line("9112 2.3: a leading zero", 400, "POST $TARGET HTTP/01.1"),
        bad_line("9112 2.3: no minor version", 400, "POST $TARGET HTTP/1"),
        bad_line("9112 2.3: no dot", 400, "POST $TARGET HTTP/11"),
        bad_line("9112 2.3: a comma for the dot", 400, "POST $TARGET HTTP/1,1"),
        bad_line("9112 2.3: a sign", 400, "POST $TARGET HTTP/+1.1"),
        bad_line("9112 2.3: another protocol", 400, "POST $TARGET HTTPS/1.1"),
        bad_line("9112 2.3: letters behind it", 400, "POST $TARGET HTTP/1.1x"),
    ]
}

/// RFC 9112 section 2.2. A lone LF may be taken for the end of a line; here it is not, since a
/// proxy in front may see it the other way.
fn line_ends() -> Vec<Row> {
    let post = post_with("Host: h");
    let after = |front: &str| [front.as_bytes(), &post].concat();
    let lf_only = "GET $TARGET HTTP/1.1\nHost: h\n\n";
    vec![
        accepted("9112 2.2: an empty line in front", after("\r\n")),
        accepted("9112 2.2: two empty lines in front", after("\r\n\r\n")),
        refused("9112 2.2: a lone LF in front", 400, after("\n")),
        refused("9112 2.2: white space in front", 400, after(" \r\n")),
        both("9112 2.2: LF for every CR LF").send(lf_only).hears(400).closes(),
        refused("9112 2.2: LF behind the first line", 400, "GET / HTTP/1.1\nHost: h\r\n\r\n"),
        refused("9112 2.2: LF behind a field", 400, post_with("Host: h\nX: y")),
        refused("9112 2.2: LF for the empty line", 400, "GET / HTTP/1.1\r\nHost: h\r\n\n"),
        bad_line("9112 2.2: a lone CR in the target", 400, "POST $TARGET\rx HTTP/1.1"),
        bad_line("9112 2.2: a lone CR for a space", 400, "POST $TARGET\rHTTP/1.1"),
        bad_line("9112 2.2: a CR too many", 400, "POST $TARGET HTTP/1.1\r"),
        refused("9112 2.2: a lone CR behind a field", 400, post_with("Host: h\rX: y")),
        refused("9112 2.2: a CR too many behind a field", 400, post_with("Host: h\r")),
        refused("9112 2.2: white space before the first field", 400, post_with(" Host: h")),
        refused("9112 2.2: a tab before the first field", 400, post_with("\tX: y\r\nHost: h")),
    ]
}

/// RFC 9112 section 3.2.
fn target_forms() -> Vec<Row> {
    let from = |origin| {
        let fields = format!("Host: b\r\nOrigin: {origin}\r\nContent-Length: 48");
        let head = head("POST http://a$TARGET HTTP/1.1", fields);
        [&head, &b"$BODY"[..]].concat()
    };
    vec![
        good_line("9112 3.2.1: a query", "POST $TARGET?x=1&y HTTP/1.1"),
        good_line("9112 3.2.1: an empty query", "POST $TARGET? HTTP/1.1"),
        good_line("9112 3.2.2: absolute-form", "POST http://h$TARGET HTTP/1.1"),
        good_line("9112 3.2.2: its host goes before Host", "POST http://other:81$TARGET HTTP/1.1"),
        good_line("9110 4.2.3: scheme and host in capitals", "POST HTTP://H$TARGET HTTP/1.1"),
        good_line("9112 3.2.2: an IPv6 address", "POST http://[::1]:80$TARGET HTTP/1.1"),
        code("9112 3.2.2: an absolute-form without a path")
            .send(post_with_line("POST http://h HTTP/1.1"))
            .hears(200),
        code("9112 3.2.2: nor with a query")
            .send(post_with_line("POST http://h?x HTTP/1.1"))
            .hears(200),
        file("9112 3.2.2: Host is ignored beside it").send(from("http://a")).hears(200),
        file("9112 3.2.2: also when it would be right").send(from("http://b")).hears(403).closes(),
        bad_line("9110 4.2.1: an empty host", 400, "POST http://$TARGET HTTP/1.1"),
        bad_line("9110 4.2.4: a user in front", 400, "POST http://u@h$TARGET HTTP/1.1"),
        bad_line("9112 3.2.2: a bad port", 400, "POST http://h:x$TARGET HTTP/1.1"),
        bad_line("9110 7.4: https without TLS", 421, "POST https://h$TARGET HTTP/1.1"),
        bad_line("9112 3.2.2: an unknown scheme", 400, "POST ftp://h$TARGET HTTP/1.1"),
        bad_line("9112 3.2.3: authority-form is for CONNECT", 400, "POST h:80 HTTP/1.1"),
        bad_line("9112 3.2.4: asterisk-form is for OPTIONS", 400, "POST * HTTP/1.1"),
        bad_line("9112 3.2.1: no slash in front", 400, "POST up.txt HTTP/1.1"),
        both("9110 9.3.6: CONNECT is for proxies")
            .send("CONNECT h:80 HTTP/1.1\r\nHost: h:80\r\n\r\n")
            .hears(501)
            .closes_or_not(),
    ]
}

/// What may stand in a target (RFC 3986), and what a file server makes of it.
fn target_bytes() -> Vec<Row> {
    let get = |name, target: &str, status| {
        let request = format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n");
        file(name).send(request).hears(status).closes_or_not()
    };
    let raw = |byte: char| {
        let line = format!("POST $TARGET?{byte} HTTP/1.1");
        bad_line(&format!("3986 3.3: {byte} is to be encoded"), 400, line)
    };
    let mut rows: Vec<Row> = "\"<>\\^`{|}".chars().map(raw).collect();
    rows.extend([
        bad_line("9112 3.2: a fragment", 400, "POST $TARGET#part HTTP/1.1"),
        bad_line("9112 3.2: a control byte", 400, "POST $TARGET\x01 HTTP/1.1"),
        bad_line("9112 3.2: a NUL", 400, "POST $TARGET\0 HTTP/1.1"),
        bad_line("9112 3.2: a DEL", 400, "POST $TARGET\x7f HTTP/1.1"),
        bad_line("9112 3.2: bytes that are no UTF-8", 400, b"POST $TARGET\xff HTTP/1.1"),
        bad_line("9112 3.2: UTF-8 that is not encoded", 400, "POST $TARGET?caf\u{e9} HTTP/1.1"),
        get("9112 3.2: UTF-8 in a path", "/caf\u{e9}", 400),
        get("3986 2.1: UTF-8 that is encoded", "/caf%C3%A9", 404),
        // They may not stand there either, but browsers send them.
        good_line("3986 3.4: brackets are let pass", "POST $TARGET?a[]=1 HTTP/1.1"),
        get("3986 2.1: an escape", "/%64igits.txt", 200).body("0123456789"),
        get("3986 2.1: not two hexadecimal digits", "/%zz", 400),
        get("3986 2.1: one digit", "/%6", 400),
        get("3986 2.1: no digit", "/digits.txt%", 400),
        get("9110 17.3: an escaped NUL", "/digits.txt%00", 400),
        get("9110 17.3: up and out", "/../digits.txt", 400),
        get("9110 17.3: up and out, escaped", "/%2e%2e/digits.txt", 400),
        get("9110 17.3: an escaped slash", "/folder%2fx", 400),
        get("9112 3.2: a folder without its slash", "/folder?x", 301)
        .has("Location: ./folder/?x"),
    ]);
    rows
}

/// RFC 9112 section 3.2, RFC 9110 section 7.2.
fn hosts() -> Vec<Row> {
    let good = |name, value: &str| accepted(name, post_with(format!("Host:{value}")));
    let bad = |name, value: &str| refused(name, 400, post_with(format!("Host:{value}")));
    let old = |fields: &str| {
        let head = head("POST $TARGET HTTP/1.0", format!("{fields}Content-Length: 48"));
        [&head, &b"$BODY"[..]].concat()
    };
    let absolute = "GET http://h$TARGET HTTP/1.1\r\n\r\n";
    vec![
        refused("9112 3.2: no Host", 400, post_with("X: y")),
        refused("9112 3.2: no Host beside absolute-form", 400, absolute),
        refused("9112 3.2: Host twice", 400, post_with("Host: h\r\nHost: h")),
        refused("9112 3.2: two Hosts", 400, post_with("Host: a\r\nX: y\r\nhost: b")),
        both("9112 3.2: HTTP/1.0 without Host").send(old("")).hears(200).closes(),
        refused("9112 3.2: HTTP/1.0 with two", 400, old("Host: h\r\nHost: h\r\n")),
        refused("9112 3.2: HTTP/1.0 with a bad one", 400, old("Host: a b\r\n")),
        good("9112 3.2: an empty Host", ""),
        good("9110 7.2: a port", " h:8080"),
        good("3986 3.2.3: an empty port", " h:"),
        good("3986 3.2.2: an IPv4 address", " 127.0.0.1:80"),
        good("3986 3.2.2: an IPv6 address", " [::1]"),
        good("3986 3.2.2: an IPv6 address and a port", " [2001:db8::1.2.3.4]:80"),
        good("3986 3.2.2: an escape", " h%41"),
        bad("3986 3.2.3: a port of letters", " h:http"),
        bad("3986 3.2.3: two ports", " h:80:80"),
        bad("3986 3.2.3: a negative port", " h:-80"),
        bad("9110 7.2: a list", " a, b"),
        bad("9110 7.2: a space", " a b"),
        bad("9110 7.2: a user", " u@h"),
        bad("9110 7.2: a path", " h/x"),
        bad("9110 7.2: a query", " h?x"),
        bad("9110 7.2: a URI", " http://h"),
        bad("3986 3.2.2: a backslash", " h\\x"),
        bad("3986 3.2.2: half an escape", " h%4"),
        bad("3986 3.2.2: an IPv6 address without brackets", " ::1"),
        bad("3986 3.2.2: half a bracket", " [::1"),
        bad("3986 3.2.2: empty brackets", " []"),
        bad("3986 3.2.2: no address in the brackets", " [1:2]"),
        bad("3986 3.2.2: a port without its colon", " [::1]80"),
        bad("3986 3.2.2: bytes above ASCII", " h\u{e4}"),
    ]
}

/// RFC 9110 section 7.4: a server answers for its own hosts alone. What else a page in a browser could
/// make of a name that is its own is at the mercy of that page.
fn other_hosts() -> Vec<Row> {
    let good = |name, value: &str| accepted(name, post_with(format!("Host: {value}")));
    let bad = |name, value: &str| refused(name, 421, post_with(format!("Host: {value}")));
    let old = "POST $TARGET HTTP/1.0\r\nHost: evil.example\r\nContent-Length: 48\r\n\r\n$BODY";
    let absolute = "POST http://evil.example$TARGET HTTP/1.1";
    vec![
        good("9110 7.4: localhost", "localhost"),
        good("9110 4.2.3: in any case, with any port", "LOCALHOST:1"),
        good("3986 3.2.2: with the dot of the root", "localhost.:80"),
        good("9110 7.4: any address is ours", "192.0.2.1:80"),
        bad("9110 7.4: another host", "evil.example"),
        bad("9110 7.4: with a port", "evil.example:80"),
        bad("9110 7.4: that begins as ours", "localhost.evil.example"),
        bad("9110 7.4: that begins as an address", "127.0.0.1.evil.example"),
        bad("3986 3.2.2: an address that is too short", "127.1"),
        refused("9112 3.2.2: in the target", 421, post_with_line(absolute)),
        refused("9112 3.2: HTTP/1.0", 421, old),
        file("9110 7.4: nor to look")
            .send("GET /digits.txt HTTP/1.1\r\nHost: evil.example\r\n\r\n$GOOD")
            .hears(421)
            .closes(),
        both("9110 7.4: nor what is not there")
            .send("HEAD /none HTTP/1.1\r\nHost: evil.example\r\n\r\n$GOOD")
            .hears_head(421)
            .closes(),
    ]
}

/// RFC 6454, Fetch Metadata: the page of another site changes nothing.
fn origins() -> Vec<Row> {
    let with = |fields: &str| post_with(format!("Host: h:80\r\n{fields}"));
    let good = |name, fields| accepted(name, with(fields));
    let bad = |name, fields| refused(name, 403, with(fields));
    let look = "GET /digits.txt HTTP/1.1\r\nHost: h\r\nOrigin: http://evil.example\r\n\r\n";
    vec![
        good("6454 7: our own page", "Origin: http://h:80"),
        good("6454 7: behind a proxy with TLS", "Origin: https://h:80"),
        good("Fetch Metadata: our own page", "Sec-Fetch-Site: same-origin\r\nOrigin: http://x"),
        good("Fetch Metadata: nobody's page", "Sec-Fetch-Site: none"),
        bad("6454 7: another page", "Origin: http://evil.example"),
        bad("6454 7: another port", "Origin: http://h:81"),
        bad("6454 7: a page of no origin", "Origin: null"),
        bad("Fetch Metadata: another page", "Sec-Fetch-Site: cross-site"),
        bad("Fetch Metadata: a neighbour's page", "Sec-Fetch-Site: same-site"),
        file("6454 7: who only looks may come from anywhere").send(look).hears(200),
    ]
}

/// RFC 9112 section 5, RFC 9110 section 5.
fn fields() -> Vec<Row> {
    let with = |field: &[u8]| post_with([b"Host: h\r\n", field].concat());
    let good = |name, field: &[u8]| accepted(name, with(field));
    let bad = |name, field: &[u8]| refused(name, 400, with(field));
    vec![
        accepted("9110 5.1: names ignore case", post_with("hOST: h\r\nx: y")),
        good("9110 5.1: unknown fields are ignored", b"X-Unheard-Of: y"),
        good("9110 5.6.2: every byte a token may have", b"!#$%&'*+-.^_`|~09aZ: y"),
        good("9112 5.1: no space behind the colon", b"X:y"),
        good("9112 5.1: white space around the value", b"X: \t y\t \t"),
        good("9110 5.5: an empty value", b"X:"),
        good("9110 5.5: a value of white space", b"X: \t "),
        good("9110 5.5: a tab inside the value", b"X: y\tz"),
        good("9110 5.5: bytes above ASCII in the value", b"X: \x80\xc3\xa4\xff"),
        good("9110 5.5: a colon in the value", b"X: y: z"),
        good("9110 5.3: a field several times", b"X: y\r\nX: z"),
        bad("9112 5.1: a space before the colon", b"X : y"),
        bad("9112 5.1: a tab before the colon", b"X\t: y"),
        bad("9112 5: no name", b": y"),
        bad("9112 5: no colon", b"X"),
        bad("9110 5.1: a space in the name", b"X y: z"),
        bad("9110 5.1: a parenthesis in the name", b"X(y): z"),
        bad("9110 5.1: a control byte in the name", b"X\x01: y"),
        bad("9110 5.1: a NUL in the name", b"X\0: y"),
        bad("9110 5.1: a DEL in the name", b"X\x7f: y"),
        bad("9110 5.1: a byte above ASCII in the name", b"X\xe4: y"),
        bad("9112 5.2: obsolete folding", b"X: y\r\n z"),
        bad("9112 5.2: obsolete folding with a tab", b"X: y\r\n\tz"),
        bad("9112 5.2: folding around a colon", b"X: y\r\n Z: z"),
        bad("9110 5.5: a NUL in the value", b"X: y\0z"),
        bad("9110 5.5: a CR in the value", b"X: y\rz"),
        bad("9110 5.5: a control byte in the value", b"X: y\x01z"),
        bad("9110 5.5: a vertical tab in the value", b"X: y\x0bz"),
        bad("9110 5.5: a DEL in the value", b"X: y\x7fz"),
    ]
}

/// Limits are ours to choose; they must be kept, and be told by the right status.
fn limits() -> Vec<Row> {
    let with = |more: String| post_with(format!("Host: h\r\n{more}"));
    // Host and Content-Length are two of the fields.
    let fields = |count: usize| with(vec!["X: y"; count - 2].join("\r\n"));
    let line = |bytes| format!("POST $TARGET?{} HTTP/1.1", "x".repeat(bytes));
    // The heads of the two servers differ in length by what their targets do.
    let head_of = |bytes: usize| {
        let rest = "POST /up.txt HTTP/1.1\r\nHost: h\r\nX: \r\nContent-Length: 48\r\n\r\n".len();
        with(format!("X: {}", "x".repeat(bytes - rest)))
    };
    vec![
        good_line("9112 3: a target of 12 KiB", &line(12 * 1024 - "/up.txt?".len())),
        bad_line("9112 3: a longer one", 414, line(12 * 1024)),
        bad_line("9112 3: one that no buffer holds", 414, line(100_000)),
        accepted("6585 5: 100 fields", fields(100)),
        refused("6585 5: 101 fields", 431, fields(101)),
        accepted("6585 5: a head of 16 KiB", head_of(16 * 1024)),
        refused("6585 5: a longer one", 431, head_of(16 * 1024 + "/up.txt".len())),
        refused("6585 5: a long name", 431, with(format!("{}: y", "x".repeat(100_000)))),
        refused("6585 5: fields without end", 431, with("X: y\r\n".repeat(20_000))),
        refused("9112 2.2: empty lines without end", 431, "\r\n".repeat(20_000)),
    ]
}
