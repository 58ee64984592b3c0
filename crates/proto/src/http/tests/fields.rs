//! The values of fields: dates, ranges, conditions, digests, numbers.

use super::{Noise, ROUNDS};
use crate::http::conditional::{self, Version};
use crate::http::request::RequestHead;
use crate::http::{Range, date, digest, multipart, resumable};

/// The last second of the year 9999.
const SECOND_MAX: usize = 253_402_300_799;

const OF_VALUES: &[&[u8]] = &[
    b"bytes=",
    b"-",
    b",",
    b"0",
    b"5",
    b"99999999999999999999",
    b" ",
    b"\t",
    b"\"",
    b"\"tag\"",
    b"W/",
    b"*",
    b"sha-256=",
    b":",
    b"AA==",
    b"=",
    b"?1",
    b"+",
    b";",
    b"\xff",
    b"multipart/form-data",
    b"boundary=",
    b"Sun, 06 Nov 1994 08:49:37 GMT",
    b"Sunday, 06-Nov-94",
    b"1994",
];

/// The fields that are read here.
const NAMES: &[&str] = &[
    "Range",
    "If-Range",
    "If-Match",
    "If-None-Match",
    "If-Modified-Since",
    "If-Unmodified-Since",
    "Content-Digest",
    "Upload-Offset",
    "Content-Type",
];

#[test]
fn no_value_of_a_field_leads_astray() {
    let mut noise = Noise(11);
    for _ in 0..4 * ROUNDS {
        let mut head = b"GET / HTTP/1.1\r\nHost: h\r\n".to_vec();
        for _ in 0..noise.within(1..4) {
            head.extend_from_slice(noise.pick(NAMES).as_bytes());
            head.extend_from_slice(b": ");
            head.extend(noise.soup(OF_VALUES, 0..6));
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(b"\r\n");
        let shown = head.escape_ascii();
        let request = RequestHead::parse(&head).unwrap_or_else(|e| panic!("{e}: {shown}"));
        let file_bytes = *noise.pick(&[&0, &1, &5, &100, &u64::MAX]);
        if let Range::Part { start, bytes } = Range::of(&request, file_bytes) {
            let end = start.checked_add(bytes);
            assert!(
                bytes > 0 && end.is_some_and(|end| end <= file_bytes),
                "{shown}"
            );
        }
        let current = Version {
            etag: "\"tag\"".to_owned(),
            modified: 784_111_777,
        };
        conditional::judge(&request, Some(&current));
        conditional::judge(&request, None);
        let conditions = request.fields("if-range").count();
        if conditional::range_is_current(&request, &current, SECOND_MAX as u64) && conditions > 0 {
            let mut values = request.fields("if-range");
            assert!(values.all(|value| !value.starts_with(b"W/")), "{shown}");
        }
        for value in request.fields("content-digest") {
            if let Ok(Some(parsed)) = digest::parse(value) {
                assert_eq!(
                    digest::parse(digest::format(&parsed).as_bytes()),
                    Ok(Some(parsed))
                );
            }
            digest::is_wanted(value);
        }
        let offset = resumable::integer(&request, resumable::OFFSET);
        assert!(
            offset.is_none_or(|offset| offset <= resumable::INTEGER_MAX),
            "{shown}"
        );
        if let Ok(Some(boundary)) = multipart::boundary(&request) {
            assert!((1..=70).contains(&boundary.len()), "{shown}");
        }
    }
}

#[test]
fn a_date_that_is_taken_is_one() {
    let mut noise = Noise(12);
    for _ in 0..ROUNDS {
        let second = noise.below(SECOND_MAX + 1) as u64;
        let mut text = date::format(second).into_bytes();
        assert_eq!(
            date::parse(std::str::from_utf8(&text).unwrap()),
            Some(second)
        );
        noise.mutate(&mut text, OF_VALUES);
        let text = String::from_utf8_lossy(&text);
        if let Some(parsed) = date::parse(&text) {
            assert_eq!(date::parse(&date::format(parsed)), Some(parsed), "{text}");
        }
    }
}
