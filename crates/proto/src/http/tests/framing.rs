//! Where messages end: heads and chunks.

use std::io::BufReader;

use super::{Noise, Pieces, ROUNDS, read_all};
use crate::http::body::{Body, BodyLength};
use crate::http::request::{self, RequestHead};
use crate::http::response::ResponseHead;

const OF_CHUNKS: &[&[u8]] = &[
    b"0",
    b"1",
    b"a",
    b"F",
    b"0000",
    b"ffffffffffffffff",
    b"\r\n",
    b"\r",
    b"\n",
    b" ",
    b"\t",
    b";",
    b"x",
    b"=",
    b"\"",
    b"\\",
    b":",
    b"T: v",
    b"-",
    b"+",
    b"0x",
    b"\0",
    b"\xff",
    b"0\r\n\r\n",
];

/// The body that chunks hold, and how long they are in all; read as RFC 9112 section 7.1 is written.
fn chunked(stream: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let line = line(&stream[at..])?;
        let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
        let size = u64::from_str_radix(std::str::from_utf8(&line[..digits]).ok()?, 16).ok()?;
        if !line[digits..].is_empty() && !line[digits..].trim_ascii_start().starts_with(b";") {
            return None;
        }
        at += line.len() + 2;
        if size == 0 {
            break;
        }
        let end = at.checked_add(usize::try_from(size).ok()?)?;
        body.extend_from_slice(stream.get(at..end)?);
        if stream.get(end..end + 2)? != b"\r\n" {
            return None;
        }
        at = end + 2;
    }
    loop {
        let field = line(&stream[at..])?;
        at += field.len() + 2;
        if field.is_empty() {
            return Some((body, at));
        }
        field_of(field)?;
    }
}

/// The line that bytes start with, without its end; there are no line breaks and NULs in it.
fn line(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    let line = &bytes[..end];
    (!line.iter().any(|b| b"\r\n\0".contains(b))).then_some(line)
}

/// The name and the value of a field.
fn field_of(line: &[u8]) -> Option<(String, &[u8])> {
    let colon = line.iter().position(|b| *b == b':')?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    let is_token = !name.is_empty() && name.iter().all(|b| b.is_ascii_graphic() && *b != b':');
    let is_value = value.iter().all(|b| *b == b'\t' || !b.is_ascii_control());
    let name = String::from_utf8_lossy(name).to_ascii_lowercase();
    (is_token && is_value).then_some((name, value.trim_ascii()))
}

#[test]
fn chunks_are_read_as_they_were_written_and_others_never_otherwise() {
    let mut noise = Noise(5);
    for round in 0..ROUNDS {
        let mut stream = Vec::new();
        let mut want = Vec::new();
        for _ in 0..noise.below(5) {
            let data = noise.soup(OF_CHUNKS, 1..8);
            let zeros = "0".repeat(noise.below(5));
            let extension = noise.pick(&["", "", ";x", ";x=y;z=\"; \\\" \"", " ; x = y"]);
            stream.extend(format!("{zeros}{:x}{extension}\r\n", data.len()).as_bytes());
            stream.extend([&data[..], b"\r\n"].concat());
            want.extend(data);
        }
        stream.extend_from_slice(b"0\r\n");
        stream.extend(
            noise
                .pick(&["", "A: b\r\n", "A:\r\nB: c d \r\n"])
                .as_bytes(),
        );
        stream.extend_from_slice(b"\r\n");
        if round % 2 == 1 {
            noise.mutate(&mut stream, OF_CHUNKS);
        }
        let input =
            BufReader::with_capacity(noise.within(1..100), Pieces::new(&stream, &mut noise));
        let mut body = Body::new(input, BodyLength::Chunked);
        let read = read_all(&mut body, &mut noise).ok();
        let shown = stream.escape_ascii();
        match (read, chunked(&stream)) {
            (Some(read), Some((plain, _))) => assert_eq!(read, plain, "{shown}"),
            (Some(_), None) => panic!("taken: {shown}"),
            (None, _) => assert!(round % 2 == 1, "refused: {shown}"),
        }
        if round % 2 == 0 {
            assert_eq!(chunked(&stream), Some((want, stream.len())), "{shown}");
        }
    }
}

const OF_HEADS: &[&[u8]] = &[
    b"GET",
    b"POST",
    b"OPTIONS",
    b"/",
    b"/a?b",
    b"*",
    b"http://h/",
    b"HTTP/1.1",
    b"HTTP/1.0",
    b" ",
    b"\r\n",
    b"\r",
    b"\n",
    b"\t",
    b":",
    b",",
    b"\0",
    b"\x0b",
    b"\xff",
    b"Host: h\r\n",
    b"Host:",
    b"Content-Length: 5\r\n",
    b"Content-Length:",
    b"0",
    b"05",
    b"+5",
    b"5, 5",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding:",
    b"chunked",
    b"gzip, chunked",
    b"\r\n chunked",
    b"Connection: close\r\n",
    b"X: y\r\n",
    b"identity",
];

/// How the body ends behind a head that is beyond doubt; `None` for one that is not.
fn framing(head: &[u8]) -> Option<BodyLength> {
    let mut lines = Vec::new();
    let mut rest = head;
    while !rest.is_empty() {
        let line = line(rest)?;
        lines.push(line);
        rest = &rest[line.len() + 2..];
    }
    let (request, fields) = lines.split_first()?;
    let (end, fields) = fields.split_last()?;
    let words: Vec<_> = request.split(|b| *b == b' ').collect();
    let is_request = words.len() == 3 && words[2].starts_with(b"HTTP/1.");
    if !is_request || !end.is_empty() || words[1].iter().any(|b| !b.is_ascii_graphic()) {
        return None;
    }
    let fields: Option<Vec<_>> = fields.iter().map(|line| field_of(line)).collect();
    let fields = fields?;
    let all = |name: &str| -> Vec<&[u8]> {
        let fields = fields.iter().filter(|(found, _)| found == name);
        fields.map(|(_, value)| *value).collect()
    };
    let hosts = all("host").len();
    if hosts > 1 || (hosts == 0 && words[2] != b"HTTP/1.0") {
        return None;
    }
    let (lengths, codings) = (all("content-length"), all("transfer-encoding"));
    match (&lengths[..], &codings[..]) {
        ([], []) => Some(BodyLength::None),
        ([length], []) if length.iter().all(u8::is_ascii_digit) => {
            let length = std::str::from_utf8(length).ok()?;
            length.parse().ok().map(BodyLength::Bytes)
        }
        ([], codings) if words[2] != b"HTTP/1.0" => {
            let joined = codings.join(&b","[..]).to_ascii_lowercase();
            let mut members = joined.split(|b| *b == b',').map(<[u8]>::trim_ascii);
            let members: Vec<_> = members
                .by_ref()
                .filter(|member| !member.is_empty())
                .collect();
            (members == [b"chunked"]).then_some(BodyLength::Chunked)
        }
        _ => None,
    }
}

#[test]
fn a_head_that_is_taken_is_beyond_doubt() {
    let mut noise = Noise(6);
    let mut taken = 0;
    for _ in 0..4 * ROUNDS {
        let mut stream = b"POST /a HTTP/1.1\r\nHost: h\r\n".to_vec();
        for _ in 0..noise.below(4) {
            stream.extend_from_slice(noise.pick(&[
                &b"Content-Length: 5\r\n"[..],
                b"Transfer-Encoding: chunked\r\n",
                b"X: y\r\n",
                b"Expect: 100-continue\r\n",
            ]));
        }
        stream.extend_from_slice(b"\r\n");
        noise.mutate(&mut stream, OF_HEADS);
        let mut head = Vec::new();
        let whole = request::read_head(&mut &stream[..], &mut head).ok();
        let mut in_pieces = Vec::new();
        let input = Pieces::new(&stream, &mut noise);
        let mut input = BufReader::with_capacity(noise.within(1..50), input);
        let pieces = request::read_head(&mut input, &mut in_pieces).ok();
        let shown = stream.escape_ascii();
        assert_eq!((pieces, &in_pieces), (whole.clone(), &head), "{shown}");
        if whole != Some(Ok(true)) {
            continue;
        }
        if let Ok(request) = RequestHead::parse(&head) {
            taken += 1;
            assert_eq!(Some(request.body), framing(&head), "{shown}");
            assert!(
                request.path.starts_with('/') || request.path == "*",
                "{shown}"
            );
        }
    }
    assert!(taken > ROUNDS / 2, "{taken}");
}

#[test]
fn no_response_is_taken_whose_end_is_in_doubt() {
    let mut noise = Noise(7);
    for _ in 0..2 * ROUNDS {
        let mut stream = b"HTTP/1.1 200 OK\r\n".to_vec();
        for _ in 0..noise.below(4) {
            stream.extend_from_slice(noise.pick(&[
                &b"Content-Length: 5\r\n"[..],
                b"Content-Length: 6\r\n",
                b"Transfer-Encoding: chunked\r\n",
                b"X: y\r\n",
            ]));
        }
        stream.extend_from_slice(b"\r\n");
        noise.mutate(&mut stream, OF_HEADS);
        let Ok(response) = ResponseHead::read(&mut &stream[..], "GET") else {
            continue;
        };
        let all = |name: &'static str| {
            response
                .fields()
                .filter(move |(n, _)| n.eq_ignore_ascii_case(name))
        };
        let lengths: Vec<_> = all("content-length").map(|(_, value)| value).collect();
        let shown = stream.escape_ascii();
        match response.body {
            BodyLength::Bytes(_) => assert!(lengths.iter().all(|l| *l == lengths[0]), "{shown}"),
            BodyLength::Chunked => assert_eq!(all("transfer-encoding").count(), 1, "{shown}"),
            BodyLength::None | BodyLength::UntilClose => {}
        }
    }
}
