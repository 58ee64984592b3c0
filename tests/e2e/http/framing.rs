//! Where a request ends: a server that sees it elsewhere than the proxy in front of it can be made
//! to take a part of one client's request for another's (request smuggling, RFC 9112 section
//! 11.2). Behind every request that is refused here stands a good one, which must not be answered.

use super::row::{Row, Section, accepted, both, file, head, refused};

pub const SECTIONS: &[Section] = &[
    content_length,
    transfer_encoding,
    both_lengths,
    chunks,
    bad_chunks,
    trailers,
    unfinished,
    unwanted_bodies,
];

/// A post with this framing, and a body of any kind.
fn post(framing: impl AsRef<[u8]>, body: impl AsRef<[u8]>) -> Vec<u8> {
    let fields = [b"Host: h\r\n", framing.as_ref()].concat();
    let head = head("POST $TARGET HTTP/1.1", fields);
    [&head, body.as_ref()].concat()
}

/// RFC 9112 section 6.3 rule 5, RFC 9110 section 8.6.
fn content_length() -> Vec<Row> {
    let with = |value: &str| post(format!("Content-Length:{value}"), "$BODY");
    let good = |name, value| accepted(name, with(value));
    let bad = |name, value| refused(name, 400, with(value));
    let huge = |name, value: &str| {
        let row = both(name).send(with(value)).send("$GOOD");
        row.hears_one_of(&[400, 413]).closes()
    };
    let twice = post("Content-Length: 48\r\nContent-Length: 48", "$BODY");
    let differing = post("Content-Length: 48\r\nContent-Length: 8", "$BODY");
    let empty = "POST $TARGET HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n";
    vec![
        good("9110 8.6: a length", " 48"),
        good("9112 5: no space", "48"),
        good("9112 5: other white space", "\t48 \t"),
        good("9110 8.6: a leading zero", " 048"),
        good("9110 8.6: leading zeros", &format!(" {}48", "0".repeat(100))),
        file("9110 8.6: a length of 0").send(empty).hears(200),
        both("9110 15.5.12: no length")
            .send("POST $TARGET HTTP/1.1\r\nHost: h\r\n\r\n")
            .hears(411)
            .closes_or_not(),
        bad("9110 8.6: empty", ""),
        bad("9110 8.6: negative", " -48"),
        bad("9110 8.6: a plus sign", " +48"),
        bad("9110 8.6: a space inside", " 4 8"),
        bad("9110 8.6: hexadecimal", " 0x30"),
        bad("9110 8.6: hexadecimal digits", " 3a"),
        bad("9110 8.6: a fraction", " 48.0"),
        bad("9110 8.6: an underscore", " 4_8"),
        bad("9110 8.6: an exponent", " 48e0"),
        bad("9110 8.6: quotes", " \"48\""),
        bad("9110 8.6: a parameter", " 48;q=1"),
        bad("9110 8.6: a vertical tab", " 48\x0b"),
        bad("9110 8.6: digits of another script", " \u{664}\u{668}"),
        huge("9110 8.6: over 64 bits", " 99999999999999999999"),
        huge("9110 8.6: 48, if taken modulo 2^64", " 18446744073709551664"),
        huge("9110 8.6: all of 64 bits", " 18446744073709551615"),
        refused("9110 15.5.14: too large", 413, with(" 65537")),
        // The same length again may also be taken for one.
        refused("9112 6.3: the same length twice", 400, twice),
        bad("9112 6.3: a list of the same length", " 48, 48"),
        refused("9112 6.3: two lengths", 400, differing),
        bad("9112 6.3: a list of two lengths", " 48, 8"),
        bad("9112 6.3: a list with an empty member", " 48,"),
    ]
}

const CHUNKED_BODY: &str = "30\r\n$BODY\r\n0\r\n\r\n";

/// RFC 9112 sections 6.1 and 6.3 rule 4: without `chunked` at the end nobody knows where the body
/// ends (400); with an unknown coding before it the end is known, but not what it means (501).
fn transfer_encoding() -> Vec<Row> {
    let with = |value: &[u8]| post([b"Transfer-Encoding:", value].concat(), CHUNKED_BODY);
    let good = |name, value: &str| accepted(name, with(value.as_bytes()));
    let bad = |name, value: &[u8]| refused(name, 400, with(value));
    let field = |name, fields: &str| refused(name, 400, post(fields, CHUNKED_BODY));
    let two = "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked";
    let twice = "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked";
    let old = head("POST $TARGET HTTP/1.0", "Host: h\r\nTransfer-Encoding: chunked");
    let old_alive = "Host: h\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked";
    let old_alive = head("POST $TARGET HTTP/1.0", old_alive);
    vec![
        good("9112 7.1: chunked", " chunked"),
        good("9112 7: codings ignore case", " Chunked"),
        good("9112 7: capitals", " CHUNKED"),
        good("9112 5: no space", "chunked"),
        good("9112 5: other white space", "\t chunked\t"),
        good("9110 5.6.1: empty members of the list", " , chunked,"),
        refused("9112 6.1: a coding not known here", 501, with(b" gzip, chunked")),
        refused("9112 6.1: the same in two fields", 501, post(two, CHUNKED_BODY)),
        refused("9112 7: identity is a coding no more", 501, with(b" identity, chunked")),
        bad("9112 6.3: gzip alone", b" gzip"),
        bad("9112 6.3: identity alone", b" identity"),
        bad("9112 6.3: chunked, then gzip", b" chunked, gzip"),
        bad("9112 6.3: chunked, then identity", b" chunked, identity"),
        bad("9112 6.1: chunked twice", b" chunked, chunked"),
        bad("9112 6.1: chunked twice, with gzip between", b" chunked, gzip, chunked"),
        field("9112 6.1: chunked twice, in two fields", twice),
        bad("9112 6.3: empty", b""),
        bad("9112 6.3: nothing but a comma", b" ,"),
        bad("9112 7: a letter in front", b" xchunked"),
        bad("9112 7: a letter behind", b" chunkedx"),
        bad("9112 7: a space inside", b" chun ked"),
        bad("9112 7: quotes", b" \"chunked\""),
        bad("9112 7.1: chunked has no parameters", b" chunked;x=1"),
        bad("9112 7: a vertical tab in front", b" \x0bchunked"),
        bad("9112 7: a vertical tab behind", b" chunked\x0b"),
        bad("9112 7: a form feed behind", b" chunked\x0c"),
        bad("9112 7: a NUL behind", b" chunked\0"),
        bad("9112 7: a byte above ASCII behind", b" chunked\xa0"),
        bad("9112 5.2: on a folded line", b"\r\n chunked"),
        field("9112 5.1: a space before the colon", "Transfer-Encoding : chunked"),
        field("9112 5.1: a tab before the colon", "Transfer-Encoding\t: chunked"),
        field("9112 5.1: a NUL before the colon", "Transfer-Encoding\0: chunked"),
        field("9112 2.2: behind a lone LF", "X: y\nTransfer-Encoding: chunked"),
        field("9112 2.2: behind a lone CR", "X: y\rTransfer-Encoding: chunked"),
        field("9112 5.2: behind white space", "X: y\r\n Transfer-Encoding: chunked"),
        refused("9112 6.1: HTTP/1.0 knows none", 400, [&old, CHUNKED_BODY.as_bytes()].concat()),
        refused(
            "9112 6.1: not even kept alive",
            400,
            [&old_alive, CHUNKED_BODY.as_bytes()].concat(),
        ),
    ]
}

/// RFC 9112 section 6.3 rule 3: both lengths are an attempt at smuggling, to be answered as an
/// error, with the connection closed.
fn both_lengths() -> Vec<Row> {
    let check = |name, framing: &str, body: &str| refused(name, 400, post(framing, body));
    let decoy = "Transfer_Encoding: chunked\r\nContent-Length: 48";
    vec![
        check(
            "9112 6.3: CL.TE, where the length hides the next request",
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "0\r\n\r\n",
        ),
        check(
            "9112 6.3: TE.CL, where the chunk does",
            "Transfer-Encoding: chunked\r\nContent-Length: 4",
            "30\r\n$BODY\r\n0\r\n\r\n",
        ),
        check(
            "9112 6.3: also if both mean the same",
            "Content-Length: 60\r\nTransfer-Encoding: chunked",
            CHUNKED_BODY,
        ),
        check(
            "9112 6.3: also if the length is 0",
            "Content-Length: 0\r\nTransfer-Encoding: chunked",
            CHUNKED_BODY,
        ),
        check(
            "9112 6.3: also if the coding is not known",
            "Content-Length: 48\r\nTransfer-Encoding: xchunked",
            "$BODY",
        ),
        check(
            "9112 6.3: also if the coding is empty",
            "Content-Length: 48\r\nTransfer-Encoding:",
            "$BODY",
        ),
        check(
            "9112 6.3: also with capitals",
            "CONTENT-LENGTH: 48\r\ntRANSFER-eNCODING: identity",
            "$BODY",
        ),
        accepted("9110 5.1: an underscore makes another name", post(decoy, "$BODY")),
    ]
}

fn chunked(body: impl AsRef<[u8]>) -> Vec<u8> {
    post("Transfer-Encoding: chunked", body)
}

/// RFC 9112 section 7.1.
fn chunks() -> Vec<Row> {
    let good = |name, body: &str| accepted(name, chunked(body));
    // Spaces behind the body, so that its length has a letter in it.
    let padded = |size: &str| format!("{size}\r\n$BODY{}\r\n0\r\n\r\n", " ".repeat(12));
    let single: String = super::row::BODY
        .chars()
        .map(|c| format!("1\r\n{c}\r\n"))
        .collect();
    let long = format!("30;{}\r\n$BODY\r\n0\r\n\r\n", "x".repeat(500));
    vec![
        good("9112 7.1: a chunk", CHUNKED_BODY),
        good("9112 7.1: a chunk for every byte", &format!("{single}0\r\n\r\n")),
        good("9112 7.1: a digit in small letters", &padded("3c")),
        good("9112 7.1: a digit in capitals", &padded("3C")),
        good("9112 7.1: leading zeros", "00000000000000000030\r\n$BODY\r\n0\r\n\r\n"),
        good("9112 7.1: a last chunk of many zeros", "30\r\n$BODY\r\n0000\r\n\r\n"),
        good("9112 7.1.1: an extension", "30;x\r\n$BODY\r\n0\r\n\r\n"),
        good("9112 7.1.1: with a value", "30;x=y;z\r\n$BODY\r\n0\r\n\r\n"),
        good("9112 7.1.1: with white space", "30 ; x = y\r\n$BODY\r\n0\r\n\r\n"),
        good("9112 7.1.1: in quotes", "30;x=\"y; \\\"z\"\r\n$BODY\r\n0\r\n\r\n"),
        good("9112 7.1.1: of the last chunk", "30\r\n$BODY\r\n0;x=y\r\n\r\n"),
        good("9112 7.1.1: a long one", &long),
    ]
}

fn bad_chunks() -> Vec<Row> {
    let bad = |name, body: &str| refused(name, 400, chunked(body));
    let sized = |name, size: &str| bad(name, &format!("{size}\r\n$BODY\r\n0\r\n\r\n"));
    let long = format!("30;{}", "x".repeat(100_000));
    vec![
        sized("9112 7.1: no size", ""),
        sized("9112 7.1: an extension without a size", ";x"),
        sized("9112 7.1: not hexadecimal", "48g"),
        sized("9112 7.1: a prefix", "0x30"),
        sized("9112 7.1: negative", "-30"),
        sized("9112 7.1: a plus sign", "+30"),
        sized("9112 7.1: a space in front", " 30"),
        sized("9112 7.1: a space behind", "30 "),
        sized("9112 7.1: a space inside", "3 0"),
        sized("9112 7.1: an underscore", "3_0"),
        sized("9112 7.1: a comma", "30,30"),
        sized("9112 7.1: 0x30, if taken modulo 2^64", "10000000000000030"),
        sized("9112 7.1: over 64 bits", "fffffffffffffffff"),
        sized("9112 7.1.1: an extension too long", &long),
        sized("9112 7.1.1: a lone CR in an extension", "30;x\ry"),
        sized("9112 7.1.1: a lone LF in an extension", "30;x\ny"),
        sized("9112 7.1.1: a NUL in an extension", "30;x\0"),
        sized("9112 7.1.1: an extension without a name", "30;"),
        sized("9112 7.1.1: nor behind another", "30;x;"),
        sized("9112 7.1.1: two semicolons", "30;;x"),
        sized("9112 7.1.1: white space for a name", "30; "),
        sized("9112 7.1.1: white space at the end", "30;x "),
        sized("9112 7.1.1: two names", "30;x y"),
        sized("9112 7.1.1: a name that is no token", "30;(x)"),
        sized("9112 7.1.1: a value without a name", "30;=y"),
        sized("9112 7.1.1: no value", "30;x="),
        sized("9112 7.1.1: two equals signs", "30;x==y"),
        sized("9112 7.1.1: two values", "30;x=y z"),
        sized("9112 7.1.1: a value that is no token", "30;x=y@z"),
        sized("9112 7.1.1: quotes that do not end", "30;x=\"y"),
        sized("9110 5.6.4: the end of the quotes quoted", "30;x=\"y\\\""),
        sized("9112 7.1.1: more behind the quotes", "30;x=\"y\"z"),
        bad("9112 7.1.1: no extension of the last chunk", "30\r\n$BODY\r\n0;\r\n\r\n"),
        bad("9112 7.1: a lone LF behind the size", "30\n$BODY\r\n0\r\n\r\n"),
        bad("9112 7.1: a lone LF behind the chunk", "30\r\n$BODY\n0\r\n\r\n"),
        bad("9112 7.1: a lone CR behind the chunk", "30\r\n$BODY\r0\r\n\r\n"),
        bad("9112 7.1: a lone LF behind the last chunk", "30\r\n$BODY\r\n0\n\r\n"),
        bad("9112 7.1: a lone LF at the end", "30\r\n$BODY\r\n0\r\n\n"),
        bad("9112 7.1: two LFs behind the chunk", "30\r\n$BODY\n\n0\r\n\r\n"),
        bad("9112 7.1: two other bytes behind the chunk", "30\r\n$BODYxx0\r\n\r\n"),
        bad("9112 7.1: nothing behind the chunk", "30\r\n$BODY0\r\n\r\n"),
        bad("9112 7.1: a chunk longer than it says", "2f\r\n$BODY\r\n0\r\n\r\n"),
        bad("9112 7.1: a chunk shorter than it says", "31\r\n$BODY\r\n0\r\n\r\n"),
        bad("9112 7.1: no chunks at all", "$BODY"),
    ]
}

/// RFC 9112 section 7.1.2: trailer fields are read and thrown away; above all they do not change
/// how long the body is, nor whose it is (RFC 9110 section 6.5.1).
fn trailers() -> Vec<Row> {
    let with = |trailer: &str| chunked(format!("30\r\n$BODY\r\n0\r\n{trailer}\r\n"));
    let good = |name, trailer| accepted(name, with(trailer));
    let bad = |name, trailer| refused(name, 400, with(trailer));
    let endless = "X: y\r\n".repeat(10_000);
    vec![
        good("9112 7.1.2: a trailer", "X: y\r\n"),
        good("9112 7.1.2: several, and an empty one", "X: y\r\nY:\r\n"),
        good("9110 6.5.1: a length", "Content-Length: 1000\r\n"),
        good("9110 6.5.1: a coding", "Transfer-Encoding: chunked\r\n"),
        good("9110 6.5.1: a host", "Host: a b\r\n"),
        good("9110 6.5.1: an option of the connection", "Connection: close\r\n"),
        good("9110 6.5.1: a condition", "If-Match: \"x\"\r\n"),
        bad("9112 5: no colon", "X\r\n"),
        bad("9112 5: no name", ": y\r\n"),
        bad("9112 5.1: a space before the colon", "X : y\r\n"),
        bad("9112 5.2: obsolete folding", "X: y\r\n z\r\n"),
        bad("9110 5.5: a lone LF", "X: y\nZ: z\r\n"),
        bad("9110 5.5: a lone CR", "X: y\rz\r\n"),
        bad("9110 5.5: a NUL", "X: y\0\r\n"),
        both("6585 5: trailers without end")
            .send(with(&endless))
            .send("$GOOD")
            .hears_one_of(&[400, 431])
            .closes(),
    ]
}

/// RFC 9112 section 8: what the client ended too early was not asked for.
fn unfinished() -> Vec<Row> {
    let check = |name, request: Vec<u8>| both(name).send(request).finish().hears(400).closes();
    vec![
        check("9112 8: less than the length", post("Content-Length: 49", "$BODY")),
        check("9112 8: nothing of the body", post("Content-Length: 48", "")),
        check("9112 8: no last chunk", chunked("30\r\n$BODY\r\n")),
        check("9112 8: half a chunk", chunked("31\r\n$BODY")),
        check("9112 8: half a size", chunked("3")),
        check("9112 8: no end of the last chunk", chunked("30\r\n$BODY\r\n0\r\n")),
        check("9112 8: half a trailer", chunked("30\r\n$BODY\r\n0\r\nX: y")),
    ]
}

/// RFC 9110 section 9.3.1: a body where none is wanted may be read or not, but it is never the
/// next request (CL.0 smuggling).
fn unwanted_bodies() -> Vec<Row> {
    let with = |line: &str, framing: &str, body: &str| {
        [
            &head(line, format!("Host: h\r\n{framing}")),
            body.as_bytes(),
        ]
        .concat()
    };
    // The body is a request that would be answered with 404.
    let evil = "GET /evil HTTP/1.1\r\nHost: h\r\n\r\n";
    let length = format!("Content-Length: {}", evil.len());
    let chunk = format!("{:x}\r\n{evil}\r\n0\r\n\r\n", evil.len());
    let coding = "Transfer-Encoding: chunked";
    let get = "GET /digits.txt HTTP/1.1";
    vec![
        file("9110 9.3.1: GET").send(with(get, &length, evil)).hears(200).closes_or_not(),
        file("9110 9.3.1: GET, chunked").send(with(get, coding, &chunk)).hears(200).closes_or_not(),
        file("9110 9.3.1: GET with a length of 0")
            .send(with(get, "Content-Length: 0", ""))
            .hears(200),
        file("9110 9.3.1: GET of what is not there")
            .send(with("GET /none HTTP/1.1", &length, evil))
            .hears(404)
            .closes_or_not(),
        both("9110 9.3.2: HEAD")
            .send(with("HEAD /none HTTP/1.1", &length, evil))
            .hears_head(404)
            .closes_or_not(),
        both("9110 9.3.5: DELETE")
            .send(with("DELETE $TARGET HTTP/1.1", &length, evil))
            .hears(405)
            .closes_or_not(),
        file("9110 9.3.7: OPTIONS")
            .send(with("OPTIONS * HTTP/1.1", &length, evil))
            .hears(204)
            .closes_or_not(),
        both("9110 9.3.8: TRACE")
            .send(with("TRACE $TARGET HTTP/1.1", coding, &chunk))
            .hears_one_of(&[405, 501])
            .closes_or_not(),
        both("9110 9.1: an unknown method")
            .send(with("BREW $TARGET HTTP/1.1", &length, evil))
            .hears(501)
            .closes_or_not(),
        file("9110 9.3.3: POST to a folder")
            .send(with("POST /folder HTTP/1.1", &length, evil))
            .hears(409)
            .closes_or_not(),
    ]
}
