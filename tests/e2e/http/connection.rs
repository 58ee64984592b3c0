//! The life of a connection: which reply belongs to which request, when it ends, and who waits
//! for whom.

use super::row::{BODY, Row, Section, accepted, both, code, file, head, post_with, refused};

pub const SECTIONS: &[Section] = &[persistence, pipelining, expectations, early_replies];

/// A post with this version and these further fields.
fn post(version: &str, fields: &str) -> Vec<u8> {
    let line = format!("POST $TARGET {version}");
    let head = head(line, format!("Host: h\r\n{fields}Content-Length: 48"));
    [&head, BODY.as_bytes()].concat()
}

/// RFC 9112 sections 9.3 and 9.6. Behind a request that closes stands another one, which must not
/// be answered.
fn persistence() -> Vec<Row> {
    let open = |name, fields| accepted(name, post("HTTP/1.1", fields));
    let closed = |name, version, fields| refused(name, 200, post(version, fields));
    let old = |name, fields| {
        let row = both(name).send(post("HTTP/1.0", fields)).hears(200);
        row.has("Connection: keep-alive")
    };
    vec![
        open("9112 9.3: HTTP/1.1 goes on", "").lacks("Connection"),
        open("9112 9.3: also when it is told to", "Connection: keep-alive\r\n"),
        open("9110 7.6.1: an option that only starts like close", "Connection: closed\r\n"),
        open("9110 7.6.1: an unknown option", "Connection: x\r\n"),
        open("9110 7.6.1: an empty list", "Connection: ,\r\n"),
        open("9112 C.2.2: Proxy-Connection means nothing", "Proxy-Connection: close\r\n"),
        open(
            "9110 7.8: an upgrade is passed over",
            "Connection: Upgrade\r\nUpgrade: h2c, websocket\r\n",
        ),
        closed("9112 9.6: close", "HTTP/1.1", "Connection: close\r\n"),
        closed("9110 7.6.1: options ignore case", "HTTP/1.1", "Connection: CLOSE\r\n"),
        closed("9110 7.6.1: first of a list", "HTTP/1.1", "Connection: Close, foo\r\n"),
        closed("9110 7.6.1: last of a list", "HTTP/1.1", "Connection: foo ,,\tclose\r\n"),
        closed(
            "9110 7.6.1: in the second of two fields",
            "HTTP/1.1",
            "Connection: foo\r\nConnection: close\r\n",
        ),
        closed(
            "9112 9.3: close is stronger than keep-alive",
            "HTTP/1.1",
            "Connection: keep-alive, close\r\n",
        ),
        closed("9112 9.3: HTTP/1.0 closes", "HTTP/1.0", ""),
        closed(
            "9112 9.3: HTTP/1.0 with another option",
            "HTTP/1.0",
            "Connection: foo\r\nKeep-Alive: timeout=5\r\n",
        ),
        closed("9112 9.3: HTTP/1.0 with both", "HTTP/1.0", "Connection: keep-alive, close\r\n"),
        old("9112 9.3: HTTP/1.0 can be kept alive", "Connection: keep-alive\r\n"),
        old("9110 7.6.1: in any case", "Connection: foo, Keep-Alive\r\n"),
        file("9112 9.6: close, and an error")
            .send("GET /none HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n$GOOD")
            .hears(404)
            .closes(),
        both("9112 9.6: our half may be ended first").send("$GOOD").finish().hears(200),
    ]
}

/// RFC 9112 section 9.3.2.
fn pipelining() -> Vec<Row> {
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n");
    let put = "PUT /piped.txt HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nnew";
    let bad = "GET / HTTP/1.1\r\n\r\n";
    let last = "POST $TARGET HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 48\r\n\r\n\
                $BODY";
    let chunked = "POST $TARGET HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n\
                   30\r\n$BODY\r\n0\r\nX: y\r\n\r\n";
    let many = (0..20).fold(
        both("9112 9.3.2: twenty at once").send("$GOOD".repeat(20)),
        |row, _| row.hears(200),
    );
    vec![
        many,
        file("9112 9.3.2: replies come in the order of the requests")
            .send(
                [
                    get("/digits.txt"),
                    get("/none"),
                    get("/future.txt"),
                    get("/empty.txt"),
                ]
                .concat(),
            )
            .hears(200)
            .body("0123456789")
            .hears(404)
            .hears(200)
            .body("soon")
            .hears(200)
            .body(""),
        file("9110 9.2.2: a GET behind a PUT sees what was put")
            .send(format!("{put}{}", get("/piped.txt")))
            .hears(201)
            .hears(200)
            .body("new"),
        file("9112 6.3: nothing stands behind the head of a HEAD's reply")
            .send("HEAD /digits.txt HTTP/1.1\r\nHost: h\r\n\r\n$GOOD")
            .hears_head(200)
            .has("Content-Length: 10")
            .hears(200)
            .body("0123456789"),
        file("9112 6.3: nor behind a 304")
            .send("GET /digits.txt HTTP/1.1\r\nHost: h\r\nIf-None-Match: *\r\n\r\n$GOOD")
            .hears(304)
            .hears(200),
        file("9112 6.3: nor behind a 204")
            .send("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n$GOOD")
            .hears(204)
            .hears(200),
        both("9112 7.1: behind the last chunk comes the next request")
            .send(format!("{chunked}$GOOD{chunked}"))
            .hears(200)
            .hears(200)
            .hears(200),
        both("9112 2.2: an empty line between two requests")
            .send("$GOOD\r\n$GOOD")
            .hears(200)
            .hears(200),
        both("9112 9.3.2: a bad one behind a good one")
            .send(format!("$GOOD{bad}$GOOD"))
            .hears(200)
            .hears(400)
            .closes(),
        both("9112 9.6: none behind a close")
            .send(format!("$GOOD{last}$GOOD"))
            .hears(200)
            .hears(200)
            .closes(),
        both("9112 9.6: none behind a refused body")
            .send("$GOODPOST $TARGET HTTP/1.1\r\nHost: h\r\nContent-Length: 70000\r\n\r\n$GOOD")
            .hears(200)
            .hears(413)
            .closes(),
    ]
}

/// RFC 9110 section 10.1.1.
fn expectations() -> Vec<Row> {
    let head = |fields: &str| {
        format!("POST $TARGET HTTP/1.1\r\nHost: h\r\n{fields}\r\nExpect: 100-continue\r\n\r\n")
    };
    let waits = |name, length: &str| both(name).send(head(length)).hears(100);
    let put = |fields: &str| {
        format!("PUT /digits.txt HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n{fields}\r\n\r\n")
    };
    // What is refused by its head alone is refused without asking for the body.
    let told = |row: Row, request: &str, status| row.send(request).hears(status).closes();
    let expecting = |what: &str| format!("Host: h\r\nExpect: {what}");
    let no_wait = |name, fields: &str| {
        let request = format!("GET /digits.txt HTTP/1.1\r\nHost: h\r\n{fields}\r\n\r\n");
        file(name).send(request).hears(200)
    };
    let old = super::row::head(
        "POST $TARGET HTTP/1.0",
        "Expect: 100-continue\r\nContent-Length: 48",
    );
    vec![
        waits("9110 10.1.1: the body is asked for", "Content-Length: 48").send("$BODY").hears(200),
        waits("9110 10.1.1: a chunked body too", "Transfer-Encoding: chunked")
            .send("30\r\n$BODY\r\n0\r\n\r\n")
            .hears(200),
        waits("9110 10.1.1: each time anew", "Content-Length: 48")
            .send("$BODY")
            .hears(200)
            .send(head("Content-Length: 48"))
            .hears(100)
            .send("$BODY")
            .hears(200),
        both("9110 10.1.1: expectations ignore case")
            .send(head("Content-Length: 48").replace("100-c", "100-C"))
            .hears(100)
            .send("$BODY")
            .hears(200),
        waits("9112 8: the body was asked for, and does not come", "Content-Length: 48")
        .finish()
        .hears(400)
        .closes(),
        both("9110 10.1.1: HTTP/1.0 knows no 100")
            .send([&old, BODY.as_bytes()].concat())
            .hears(200)
            .closes(),
        no_wait("9110 10.1.1: no body, no 100", "Expect: 100-continue"),
        no_wait("9110 10.1.1: an empty body, no 100", "Expect: 100-continue\r\nContent-Length: 0"),
        accepted("9110 10.1.1: nothing is expected, no 100", post_with(expecting(""))),
        told(both("9110 10.1.1: too large"), &head("Content-Length: 70000"), 413),
        told(
            both("9110 10.1.1: not for this method"),
            &head("Content-Length: 48").replace("POST", "DELETE"),
            405,
        ),
        told(both("9110 10.1.1: malformed"), &head("Content-Length: 4 8"), 400),
        told(
            code("9110 10.1.1: not on this path"),
            &head("Content-Length: 48").replace("$TARGET", "/none"),
            404,
        ),
        told(
            file("9110 10.1.1: a folder"),
            &put("Content-Length: 48").replace("digits.txt", "folder/"),
            409,
        ),
        told(
            file("9110 13.2.1: a condition that fails"),
            &put("If-None-Match: *\r\nContent-Length: 48"),
            412,
        ),
        told(
            file("9110 14.5: a part of a file"),
            &put("Content-Range: bytes 0-47/48\r\nContent-Length: 48"),
            400,
        ),
        refused("9110 10.1.1: tea is not served", 417, post_with(expecting("tea"))),
        refused("9110 10.1.1: nor beside", 417, post_with(expecting("100-continue, tea"))),
        refused("9110 10.1.1: nor as a parameter", 417, post_with(expecting("100-continue;x=y"))),
        refused("9110 10.1.1: nor for 100", 417, post_with(expecting("100"))),
    ]
}

/// RFC 9112 section 9.6: a client that is still sending can read why its request was refused;
/// closing at once would reset the connection, and destroy the reply.
fn early_replies() -> Vec<Row> {
    // More than the buffers of both ends hold together.
    const MEGABYTES: usize = 4 << 20;
    let large = |line: &str, fields: &str| {
        let framing = format!("Host: h\r\n{fields}Content-Length: {MEGABYTES}");
        let body = "GET /digits.txt HTTP/1.1\r\nHost: h\r\n\r\n";
        let body = body.repeat(MEGABYTES / body.len() + 1);
        [&head(line, framing), &body.as_bytes()[..MEGABYTES]].concat()
    };
    let chunks = format!("1000\r\n{}\r\n", " ".repeat(0x1000)).repeat(1024);
    let chunked = head("POST $TARGET HTTP/1.1", "Host: h\r\nTransfer-Encoding: chunked");
    let post = "POST $TARGET HTTP/1.1";
    vec![
        refused("9112 9.6: too large", 413, large(post, "")),
        refused("9112 9.6: too many chunks", 413, [&chunked, chunks.as_bytes()].concat()),
        refused("9112 9.6: malformed", 400, large(post, "Host: h\r\n")),
        refused("9112 9.6: not for this method", 405, large("DELETE $TARGET HTTP/1.1", "")),
        refused("9112 9.6: an unknown method", 501, large("BREW $TARGET HTTP/1.1", "")),
        refused("9112 9.6: an expectation", 417, large(post, "Expect: tea\r\n")),
        refused("9112 9.6: another version", 505, large("POST $TARGET HTTP/3.0", "")),
        refused("9112 9.6: a target without end", 414, format!("GET /{}", "x".repeat(MEGABYTES))),
        refused("9112 9.6: rubbish without end", 414, vec![0xff; MEGABYTES]),
    ]
}
