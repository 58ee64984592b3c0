//! What requests mean: methods, conditions, ranges.

use super::row::{Row, Section, both, code, file, head};

pub const SECTIONS: &[Section] = &[
    methods,
    heads,
    representations,
    not_modified,
    still_the_same,
    dates,
    which_condition_counts,
    conditional_uploads,
    ranges,
    range_conditions,
    uploads,
];

/// A request for `/digits.txt` with these fields.
fn ask(name: &str, method: &str, fields: &str, status: u16) -> Row {
    let request = head(format!("{method} /digits.txt HTTP/1.1"), format!("Host: h\r\n{fields}"));
    let row = file(name).send(request);
    match method {
        "HEAD" => row.hears_head(status),
        _ => row.hears(status),
    }
}

fn get(name: &str, fields: &str, status: u16) -> Row {
    ask(name, "GET", fields, status)
}

/// RFC 9110 section 9: a method that nobody here knows is 501; one that is known, but not for this
/// target, is 405 with those that are.
fn methods() -> Vec<Row> {
    let with = |name, line: &str| both(name).send(format!("{line} HTTP/1.1\r\nHost: h\r\n\r\n"));
    let allowed = |name, line| with(name, line).hears(405);
    let on_files = "GET, HEAD, OPTIONS, POST, PUT";
    vec![
        allowed("9110 15.5.6: DELETE", "DELETE $TARGET"),
        allowed("5789 2: PATCH", "PATCH $TARGET"),
        allowed("9110 9.3.8: TRACE", "TRACE $TARGET"),
        with("9110 9.1: an unknown method", "BREW $TARGET").hears(501).closes_or_not(),
        with("9110 9.1: on a target that is not there", "BREW /none").hears(501).closes_or_not(),
        with("9110 9.1: on all targets", "BREW $TARGET?x").hears(501).closes_or_not(),
        file("9110 10.2.1: what is allowed on files")
            .send("DELETE /digits.txt HTTP/1.1\r\nHost: h\r\n\r\n")
            .hears(405)
            .has(format!("Allow: {on_files}")),
        file("9110 9.3.7: OPTIONS of a file")
            .send("OPTIONS /digits.txt HTTP/1.1\r\nHost: h\r\n\r\n")
            .hears(204)
            .has(format!("Allow: {on_files}")),
        file("9110 9.3.7: OPTIONS of the server")
            .send("OPTIONS * HTTP/1.1\r\nHost: h\r\nMax-Forwards: 0\r\n\r\n")
            .hears(204)
            .has(format!("Allow: {on_files}")),
        code("9110 9.3.7: OPTIONS of the server")
            .send("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n")
            .hears(405)
            .has("Allow: POST"),
        code("9110 15.5.6: codes are only posted for")
            .send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            .hears(405)
            .has("Allow: POST"),
        code("9110 15.5.6: not put")
            .send("PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")
            .hears(405)
            .has("Allow: POST"),
        code("9110 15.5.5: and on one path alone")
            .send("GET /none HTTP/1.1\r\nHost: h\r\n\r\n")
            .hears(404),
    ]
}

/// RFC 9110 section 9.3.2: no reply to `HEAD` has a body, whatever has gone wrong.
fn heads() -> Vec<Row> {
    let both_ways = |name: &str, servers: fn(String) -> Row, target: &str, status| {
        let request = |method| format!("{method} {target} HTTP/1.1\r\nHost: h\r\n\r\n");
        let row = servers(name.to_owned()).send(request("HEAD")).hears_head(status);
        row.send(request("GET")).hears(status).alike()
    };
    let refused = |name, status, request: &str| {
        both(name).send(request).send("$GOOD").hears_head(status).closes()
    };
    let long = format!("HEAD /{} HTTP/1.1\r\nHost: h\r\n\r\n", "x".repeat(12_300));
    let endless = format!("HEAD / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    vec![
        both_ways("9110 9.3.2: as GET, without the body", file, "/digits.txt", 200),
        both_ways("9110 9.3.2: of an empty file", file, "/empty.txt", 200),
        file("9110 9.3.2: of a folder")
            .send("HEAD /folder/ HTTP/1.1\r\nHost: h\r\n\r\n")
            .hears_head(200),
        both_ways("9110 9.3.2: of a folder without its slash", file, "/folder", 301),
        both_ways("9110 9.3.2: of what is not there", both, "/none", 404),
        both_ways("9110 9.3.2: where it is not allowed", code, "/", 405),
        refused("9110 9.3.2: no Host", 400, "HEAD / HTTP/1.1\r\n\r\n"),
        refused("9110 9.3.2: a bad field", 400, "HEAD / HTTP/1.1\r\nHost: h\r\nX\r\n\r\n"),
        refused("9110 9.3.2: a bad target", 400, "HEAD x HTTP/1.1\r\nHost: h\r\n\r\n"),
        refused("9110 9.3.2: tea", 417, "HEAD / HTTP/1.1\r\nHost: h\r\nExpect: tea\r\n\r\n"),
        refused("9110 9.3.2: a long target", 414, &long),
        refused("9110 9.3.2: a long field", 431, &endless),
        file("9110 9.3.2: HTTP/1.0")
            .send("HEAD /digits.txt HTTP/1.0\r\n\r\n")
            .hears_head(200)
            .has("Content-Length: 10")
            .closes(),
    ]
}

/// What is said of a file beside its bytes. That there is a `Date`, and what a date looks like, is
/// checked in every reply.
fn representations() -> Vec<Row> {
    vec![
        get("9110 8: a file and its fields", "", 200)
            .has("Content-Length: 10")
            .has("Content-Type: text/plain; charset=utf-8")
            .has("ETag: $ETAG")
            .has("Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT")
            .has("Cache-Control: no-cache")
            .body("0123456789"),
        get("9110 15.4.5: a 304 says how long it is right too", "If-None-Match: *", 304)
        .has("Cache-Control: no-cache"),
        get("9110 15.3.7: and so does a 206", "Range: bytes=0-0", 206)
        .has("Cache-Control: no-cache"),
        file("9111 4.2.2: and a folder's new place")
            .send("GET /folder HTTP/1.1\r\nHost: h\r\n\r\n")
            .hears(301)
            .has("Cache-Control: no-cache"),
        of_type("9110 8.3.2: a page says itself how it is encoded", "page.html", "text/html"),
        of_type("9110 8.3.2: an encoding that is not known", "latin.txt", "text/plain"),
        of_type("9110 8.3: a name that says nothing", "README", "text/plain; charset=utf-8"),
        of_type("9110 8.3: nor do the bytes", "noise", "application/octet-stream"),
        file("9110 8.8.2.1: nothing was modified in the future")
            .send("GET /future.txt HTTP/1.1\r\nHost: h\r\n\r\n")
            .hears(200)
            .body("soon"),
        file("9110 8.6: an empty file has a length")
            .send("GET /empty.txt HTTP/1.1\r\nHost: h\r\n\r\n")
            .hears(200)
            .has("Content-Length: 0"),
        get("9110 12.1: what cannot be negotiated is given as it is", "Accept: image/png", 200)
        .body("0123456789"),
    ]
}

/// A file is said to be of this type.
fn of_type(name: &str, target: &str, want: &str) -> Row {
    file(name)
        .send(format!("GET /{target} HTTP/1.1\r\nHost: h\r\n\r\n"))
        .hears(200)
        .has(format!("Content-Type: {want}"))
}

/// RFC 9110 section 13.1.2: only if it is not what I have. Tags are compared weakly.
fn not_modified() -> Vec<Row> {
    let check = |name, tags: &str, status| {
        get(name, &format!("If-None-Match: {tags}"), status).has("ETag: $ETAG")
    };
    vec![
        check("9110 13.1.2: the same", "$ETAG", 304).lacks("Content-Range"),
        check("9110 13.1.2: another", "\"x\"", 200).body("0123456789"),
        check("9110 8.8.3.2: the same, weakly", "W/$ETAG", 304),
        check("9110 13.1.2: anything", "*", 304),
        check("9110 13.1.2: one of a list", "\"x\", W/\"y\",$ETAG", 304),
        check("9110 5.6.1: a list with empty members", ", \"x\" ,, $ETAG ,", 304),
        check("9110 8.8.3: a comma in a tag", "\"x, y\", $ETAG", 304),
        check("9110 13.1.2: none of a list", "\"x\", W/\"y\"", 200),
        check("9110 5.3: a list in two fields", "\"x\"\r\nIf-None-Match: $ETAG", 304),
        check("9110 8.8.3: a star in quotes is a tag", "\"*\"", 200),
        check("9110 8.8.3: a small w makes no tag", "w/$ETAG", 200),
        check("9110 8.8.3: no quotes, no tag", "x", 200),
        ask("9110 13.1.2: HEAD", "HEAD", "If-None-Match: $ETAG", 304),
        file("9110 13.2.1: what is not there is not found")
            .send("GET /none HTTP/1.1\r\nHost: h\r\nIf-None-Match: *\r\n\r\n")
            .hears(404),
    ]
}

/// RFC 9110 section 13.1.1: only if it is what I have seen. Tags are compared strongly.
fn still_the_same() -> Vec<Row> {
    let check = |name, tags: &str, status| get(name, &format!("If-Match: {tags}"), status);
    let posted = |name, field: &str, status| {
        let fields = format!("Host: h\r\n{field}\r\nContent-Length: 48");
        let request = [&head("POST / HTTP/1.1", fields), &b"$BODY"[..]].concat();
        code(name).send(request).hears(status).closes_or_not()
    };
    vec![
        check("9110 13.1.1: the same", "$ETAG", 200),
        check("9110 13.1.1: another", "\"x\"", 412),
        check("9110 8.8.3.2: the same, but only weakly", "W/$ETAG", 412),
        check("9110 13.1.1: anything", "*", 200),
        check("9110 13.1.1: one of a list", "\"x\", $ETAG", 200),
        check("9110 13.1.1: none of a list", "\"x\", \"y\"", 412),
        check("9110 5.3: a list in two fields", "\"x\"\r\nIf-Match: $ETAG", 200),
        check("9110 8.8.3: no quotes, no tag", "x", 412),
        ask("9110 13.1.1: HEAD", "HEAD", "If-Match: \"x\"", 412),
        file("9110 13.2.1: what is not there is not found")
            .send("GET /none HTTP/1.1\r\nHost: h\r\nIf-Match: *\r\n\r\n")
            .hears(404),
        ask("9110 13.2.1: not for OPTIONS", "OPTIONS", "If-Match: \"x\"", 204),
        ask("9110 13.2.1: not where it would be 405", "DELETE", "If-Match: \"x\"", 405),
        posted("9110 13.1.1: a code was never seen", "If-Match: \"x\"", 412),
        posted("9110 13.1.1: there is nothing to see", "If-Match: *", 412),
        posted("9110 13.1.2: which is fine if none is wanted", "If-None-Match: *", 200),
    ]
}

/// RFC 9110 sections 13.1.3, 13.1.4 and 5.6.7.
fn dates() -> Vec<Row> {
    let since = |name, date: &str, status| get(name, &format!("If-Modified-Since: {date}"), status);
    let unless =
        |name, date: &str, status| get(name, &format!("If-Unmodified-Since: {date}"), status);
    vec![
        since("9110 13.1.3: not since then", "Sun, 06 Nov 1994 08:49:37 GMT", 304),
        since("9110 13.1.3: nor since later", "Sun, 06 Nov 1994 08:49:38 GMT", 304),
        since("9110 13.1.3: since the second before", "Sun, 06 Nov 1994 08:49:36 GMT", 200),
        since("9110 5.6.7: RFC 850's form", "Sunday, 06-Nov-94 08:49:37 GMT", 304),
        since("9110 5.6.7: RFC 850's form, earlier", "Sunday, 06-Nov-94 08:49:36 GMT", 200),
        since("9110 5.6.7: asctime's form", "Sun Nov  6 08:49:37 1994", 304),
        since("9110 5.6.7: asctime's form, earlier", "Sun Nov  6 08:49:36 1994", 200),
        since("9110 5.6.7: asctime's form, two digits", "Sun Nov 13 08:49:37 1994", 304),
        since("9110 13.1.3: a word", "yesterday", 200),
        since("9110 13.1.3: a number", "784111777", 200),
        since("9110 13.1.3: empty", "", 200),
        since("9110 13.1.3: another time zone", "Sun, 06 Nov 1994 08:49:37 CET", 200),
        since("9110 13.1.3: no time zone", "Sun, 06 Nov 1994 08:49:37", 200),
        since("9110 13.1.3: no such day", "Wed, 31 Feb 2010 08:49:37 GMT", 200),
        since("9110 13.1.3: no such hour", "Sun, 06 Nov 1994 24:49:37 GMT", 200),
        since(
            "9110 13.1.3: a list",
            "Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT",
            200,
        ),
        since(
            "9110 13.1.3: two fields",
            "Sun, 06 Nov 1994 08:49:37 GMT\r\nIf-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT",
            200,
        ),
        ask("9110 13.1.3: HEAD", "HEAD", "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT", 304),
        unless("9110 13.1.4: unmodified since then", "Sun, 06 Nov 1994 08:49:37 GMT", 200),
        unless("9110 13.1.4: and since later", "Sun, 06 Nov 1994 08:49:38 GMT", 200),
        unless("9110 13.1.4: modified since", "Sun, 06 Nov 1994 08:49:36 GMT", 412),
        unless(
            "9110 5.6.7: over 50 years ahead is a past year",
            "Saturday, 01-Jan-77 00:00:00 GMT",
            412,
        ),
        unless("9110 13.1.4: a word", "yesterday", 200),
        unless(
            "9110 13.1.4: two fields",
            "Sun, 06 Nov 1994 08:49:36 GMT\r\nIf-Unmodified-Since: Sun, 06 Nov 1994 08:49:36 GMT",
            200,
        ),
    ]
}

const SAME_DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const OLD_DATE: &str = "Sat, 05 Nov 1994 08:49:37 GMT";

/// RFC 9110 section 13.2.2.
fn which_condition_counts() -> Vec<Row> {
    let check =
        |name, one: &str, other: &str, status| get(name, &format!("{one}\r\n{other}"), status);
    let since = |date| format!("If-Modified-Since: {date}");
    let unless = |date| format!("If-Unmodified-Since: {date}");
    vec![
        check("9110 13.1.3: other tag, same date", "If-None-Match: \"x\"", &since(SAME_DATE), 200),
        check("9110 13.1.3: same tag, old date", "If-None-Match: $ETAG", &since(OLD_DATE), 304),
        check("9110 13.1.3: whatever the order", &since(SAME_DATE), "If-None-Match: \"x\"", 200),
        check("9110 13.1.4: same tag, old date", "If-Match: $ETAG", &unless(OLD_DATE), 200),
        check("9110 13.1.4: other tag, same date", "If-Match: \"x\"", &unless(SAME_DATE), 412),
        check("9110 13.2.2: If-Match first", "If-None-Match: $ETAG", "If-Match: \"x\"", 412),
        check("9110 13.2.2: then If-None-Match", "If-None-Match: $ETAG", "If-Match: $ETAG", 304),
        check("9110 13.2.2: the date first", "If-None-Match: $ETAG", &unless(OLD_DATE), 412),
        check("9110 13.2.2: both dates", &since(SAME_DATE), &unless(OLD_DATE), 412),
        check(
            "9110 13.2.2: conditions, then the range",
            "If-Match: \"x\"",
            "Range: bytes=0-0",
            412,
        ),
        check("9110 13.2.2: a 304 has no range", "If-None-Match: *", "Range: bytes=0-0", 304)
        .lacks("Content-Range"),
        check("9110 13.2.2: a condition that holds", "If-Match: $ETAG", "Range: bytes=0-0", 206),
    ]
}

/// An upload to this target with these fields.
fn put(name: &str, target: &str, fields: &str, status: u16) -> Row {
    let fields = format!("Host: h\r\n{fields}Content-Length: 48");
    let request = head(format!("PUT {target} HTTP/1.1"), fields);
    file(name)
        .send([&request, &b"$BODY"[..]].concat())
        .hears(status)
}

fn conditional_uploads() -> Vec<Row> {
    let any = "If-None-Match: *\r\n";
    let seen = "If-Match: *\r\n";
    let other = "If-Match: \"x\"\r\n";
    let coded = "If-Match: \"x\"\r\nContent-Encoding: gzip\r\n";
    let old = format!("If-Unmodified-Since: {OLD_DATE}\r\n");
    let since = format!("If-Modified-Since: {SAME_DATE}\r\n");
    let refused = |name, target, fields: &str, status| put(name, target, fields, status).closes();
    vec![
        put("9110 13.1.2: only if it is new", "/first.txt", any, 201),
        refused("9110 13.1.2: which it is no more", "/digits.txt", any, 412),
        refused("9110 13.1.2: nor if I have it", "/digits.txt", "If-None-Match: $ETAG\r\n", 412),
        refused("9110 13.1.1: only if it is there", "/none.txt", seen, 412),
        refused("9110 13.1.1: only if it is as I saw it", "/digits.txt", other, 412),
        refused("9110 13.1.4: only if it is as it was", "/digits.txt", &old, 412),
        put("9110 13.1.3: not for uploads", "/since.txt", &since, 201),
        refused("9110 13.2.1: a folder is a folder first", "/folder", any, 409),
        refused("9110 13.2.1: a folder's slash too", "/none/", other, 409),
        refused("9110 13.2.1: a bad path too", "/%zz", other, 400),
        refused("9110 13.2.1: a coding that is not taken too", "/digits.txt", coded, 415),
        file("9110 13.2.1: too large is too large first")
            .send("PUT /digits.txt HTTP/1.1\r\nHost: h\r\nIf-Match: \"x\"\r\n")
            .send("Content-Length: 70000\r\n\r\n")
            .hears(413)
            .closes(),
        get("9110 13.2.1: none of this has changed a byte", "", 200).body("0123456789"),
    ]
}

/// RFC 9110 section 14.
fn ranges() -> Vec<Row> {
    let ask = |name, range: &str, status| get(name, &format!("Range: {range}"), status);
    let part = |name, range, of: &str, body: &'static str| {
        let row = ask(name, range, 206).has(format!("Content-Range: bytes {of}/10"));
        row.has(format!("Content-Length: {}", body.len())).body(body)
    };
    let none = |name, range| ask(name, range, 416).has("Content-Range: bytes */10");
    let whole = |name, range| {
        ask(name, range, 200).lacks("Content-Range").body("0123456789")
    };
    let empty = |range: &str| {
        let request = format!("GET /empty.txt HTTP/1.1\r\nHost: h\r\nRange: {range}\r\n\r\n");
        file(format!("9110 14.1.2: {range} of nothing")).send(request)
    };
    vec![
        part("9110 14.1.2: first and last", "bytes=2-4", "2-4", "234"),
        part("9110 14.1.2: one byte", "bytes=0-0", "0-0", "0"),
        part("9110 14.1.2: the last byte", "bytes=9-9", "9-9", "9"),
        part("9110 14.1.2: all of it", "bytes=0-9", "0-9", "0123456789"),
        part("9110 14.1.2: from here on", "bytes=7-", "7-9", "789"),
        part("9110 14.1.2: past the end", "bytes=7-999", "7-9", "789"),
        part("9110 14.1.2: far past the end", "bytes=9-99999999999999999999999", "9-9", "9"),
        part("9110 14.1.2: a suffix", "bytes=-3", "7-9", "789"),
        part("9110 14.1.2: a long suffix", "bytes=-999", "0-9", "0123456789"),
        part("9110 14.1: units ignore case", "BYTES=0-1", "0-1", "01"),
        none("9110 15.5.17: behind the end", "bytes=10-"),
        none("9110 15.5.17: behind the end, with a last", "bytes=10-11"),
        none("9110 15.5.17: far behind the end", "bytes=99999999999999999999999-"),
        none("9110 14.1.2: a suffix of nothing", "bytes=-0"),
        whole("9110 14.2: several may be passed over", "bytes=0-1,4-5"),
        whole("9110 14.2: an unknown unit", "lines=0-1"),
        whole("9110 14.1.1: last before first", "bytes=4-2"),
        whole("9110 14.1.1: no range", "bytes="),
        whole("9110 14.1.1: nothing but a dash", "bytes=-"),
        whole("9110 14.1.1: letters", "bytes=a-b"),
        whole("9110 14.1.1: a sign", "bytes=+1-2"),
        whole("9110 14.1.1: negative", "bytes=--2"),
        whole("9110 14.1.1: no unit", "0-1"),
        whole("9110 14.2: two fields", "bytes=0-1\r\nRange: bytes=4-5"),
        empty("bytes=0-").hears(416).has("Content-Range: bytes */0"),
        empty("bytes=-5").hears(200).has("Content-Length: 0"),
        file("9110 14.2: not for HEAD")
            .send("HEAD /digits.txt HTTP/1.1\r\nHost: h\r\nRange: bytes=0-1\r\n\r\n")
            .hears_head(200)
            .has("Content-Length: 10"),
        put("9110 14.2: not for uploads", "/ranged.txt", "Range: bytes=0-1\r\n", 201),
        file("9110 14.2: not of what is not there")
            .send("GET /none HTTP/1.1\r\nHost: h\r\nRange: bytes=0-1\r\n\r\n")
            .hears(404),
    ]
}

/// RFC 9110 section 13.1.5.
fn range_conditions() -> Vec<Row> {
    let check = |name, value: &str, status| {
        get(name, &format!("Range: bytes=0-1\r\nIf-Range: {value}"), status)
    };
    let part = |name, value| check(name, value, 206).has("ETag: $ETAG").body("01");
    let whole = |name, value| check(name, value, 200).body("0123456789");
    let twice = "$ETAG\r\nIf-Range: \"x\"";
    vec![
        part("9110 13.1.5: the same tag", "$ETAG"),
        part("9110 13.1.5: the same date", SAME_DATE),
        whole("9110 13.1.5: another tag", "\"x\""),
        whole("9110 13.1.5: a weak tag never is the same", "W/$ETAG"),
        whole("9110 13.1.5: an older date", OLD_DATE),
        whole("9110 13.1.5: a later date", "Mon, 07 Nov 1994 08:49:37 GMT"),
        whole("9110 13.1.5: neither tag nor date", "x"),
        whole("9110 13.1.5: a star is no tag", "*"),
        whole("9110 13.1.5: a list is no tag", "$ETAG, \"x\""),
        whole("9110 13.1.5: two fields", twice),
        get("9110 13.1.5: without a range", "If-Range: \"x\"", 200).body("0123456789"),
        get("9110 13.1.5: no such range", "Range: bytes=10-\r\nIf-Range: $ETAG", 416),
        get("9110 13.1.5: of another file", "Range: bytes=10-\r\nIf-Range: \"x\"", 200),
    ]
}

/// RFC 9110 section 9.3.4.
fn uploads() -> Vec<Row> {
    let part = "Content-Range: bytes 0-47/48\r\n";
    vec![
        put("9110 9.3.4: 201 for a new file", "/put.txt", "", 201),
        put("9110 9.3.4: 200 for another version", "/put.txt", "", 200),
        put("9110 14.5: no part of a file", "/put.txt", part, 400).closes(),
        put("9110 8.4: no coded file", "/put.txt", "Content-Encoding: gzip\r\n", 415)
        .closes(),
        put("9110 15.5.10: a folder", "/folder/", "", 409).closes(),
        file("9110 9.3.4: and this is what it was")
            .send("GET /put.txt HTTP/1.1\r\nHost: h\r\n\r\n")
            .hears(200)
            .body(super::row::BODY),
    ]
}
