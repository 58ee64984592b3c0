//! Forms, and the names in them.

use std::io::Read;

use super::{Noise, Pieces, ROUNDS, read_all};
use crate::http::multipart::Form;
use crate::http::parameters::Parameters;

/// What each part of a form is called and holds.
type Parts = Vec<(Option<Vec<u8>>, Vec<u8>)>;

fn parts(form: impl Read, noise: &mut Noise) -> Result<Parts, String> {
    let mut form = Form::new(form, "b-");
    let mut parts = Vec::new();
    while let Some(head) = form.next_part().map_err(|e| e.to_string())? {
        let body = read_all(&mut form.part(), noise);
        parts.push((head.file_name, body.map_err(|e| e.to_string())?));
    }
    Ok(parts)
}

/// The delimiter of these forms.
const DELIMITER: &[u8] = b"\r\n--b-";

/// What bodies of forms are made of: pieces of a delimiter, and of what comes around it.
const OF_FORMS: &[&[u8]] = &[
    b"\r",
    b"\n",
    b"\r\n",
    b"-",
    b"--",
    b"b",
    b"--b",
    b"\r\n--b",
    b"\r\r\n--",
    b"x",
    b" ",
    b"\0",
];

/// Bytes after which a delimiter can follow, and in which there is none.
fn body(noise: &mut Noise) -> Vec<u8> {
    loop {
        let mut body = noise.soup(OF_FORMS, 0..12);
        if noise.below(100) == 0 {
            body = body.repeat(10_000);
        }
        let form = [b"\r\n", &body[..], DELIMITER].concat();
        let mut windows = form.windows(DELIMITER.len());
        if windows.position(|window| window == DELIMITER) == Some(body.len() + 2) {
            return body;
        }
    }
}

#[test]
fn a_form_is_read_as_it_was_written() {
    let mut noise = Noise(1);
    for _ in 0..ROUNDS {
        let mut form = match noise.below(2) {
            0 => DELIMITER[2..].to_vec(),
            _ => [&body(&mut noise), DELIMITER].concat(),
        };
        let mut want = Parts::new();
        for number in 0..noise.below(5) {
            let body = body(&mut noise);
            let name = format!("{number}").into_bytes();
            let head = b"\r\nContent-Disposition: form-data; filename=";
            form.extend([head, &name[..], b"\r\n\r\n", &body, DELIMITER].concat());
            want.push((Some(name), body));
        }
        form.extend_from_slice(b"--");
        let got = parts(Pieces::new(&form, &mut noise), &mut noise);
        assert!(got == Ok(want), "{}", form.escape_ascii());
    }
}

#[test]
fn a_form_does_not_depend_on_the_pieces_it_comes_in() {
    let heads: [&[u8]; 6] = [
        b"\r\n--b-\r\nContent-Disposition: form-data; filename=\"a\"\r\n\r\n",
        b"\r\n--b-\r\n",
        b"Content-Disposition:",
        b"\r\n\r\n",
        b"\t",
        b":",
    ];
    let tokens = [OF_FORMS, &heads].concat();
    let mut noise = Noise(2);
    let mut good = 0;
    for _ in 0..ROUNDS {
        let mut form = noise.soup(&tokens, 0..20);
        form.extend_from_slice(b"\r\n--b---");
        let whole = parts(&form[..], &mut noise);
        let pieces = parts(Pieces::new(&form, &mut noise), &mut noise);
        assert_eq!(pieces, whole, "{}", form.escape_ascii());
        good += usize::from(whole.is_ok_and(|parts| !parts.is_empty()));
    }
    assert!(good > ROUNDS / 20, "{good}");
}

/// The ways in which a name is written.
type Writer = fn(&str) -> String;

#[test]
fn a_name_is_read_as_it_was_written() {
    let writers: [Writer; 4] = [
        // Browsers, and curl. Of backslashes they do not speak.
        |name| {
            let name = name
                .replace('"', "%22")
                .replace('\r', "%0D")
                .replace('\n', "%0A");
            format!("filename=\"{name}\"")
        },
        |name| {
            let name = name.replace('\\', r"\\").replace('"', "\\\"");
            format!("filename=\"{name}\"")
        },
        |name| {
            let encoded: String = name.bytes().map(|b| format!("%{b:02x}")).collect();
            format!("filename=\"wrong\"; filename*=UTF-8''{encoded}")
        },
        |name| {
            let pieces = name.bytes().enumerate();
            let piece = |(at, b): (usize, u8)| match at {
                0 => format!("; FileName*0*=utf-8'x'%{b:02X}"),
                _ => format!("; filename*{at}*=%{b:02X}"),
            };
            pieces.map(piece).collect::<String>()
        },
    ];
    let tokens: [&[u8]; 14] = [
        b"\r",
        b"\n",
        b"a",
        b".",
        b"/",
        b"\\",
        b"\"",
        b";",
        b"=",
        "ä€".as_bytes(),
        b"%",
        b"filename=",
        b"'",
        b" ",
    ];
    let mut noise = Noise(3);
    for _ in 0..ROUNDS {
        let name = String::from_utf8(noise.soup(&tokens, 1..8)).unwrap();
        for (number, write) in writers.iter().enumerate() {
            // What a browser writes has several meanings then.
            if number == 0
                && (name.contains(r"\\") || name.contains("\\\"") || name.ends_with('\\'))
            {
                continue;
            }
            let written = format!("form-data; name=\"x\"; {}; y=z", write(&name));
            let read = Parameters::parse(written.as_bytes()).map(|p| p.file_name());
            assert_eq!(read, Some(Ok(Some(name.clone().into_bytes()))), "{written}");
        }
    }
}

#[test]
fn no_parameters_panic() {
    let tokens: [&[u8]; 16] = [
        b"\"",
        b"\\",
        b";",
        b"=",
        b"filename",
        b"filename*",
        b"filename*0",
        b"*",
        b"%",
        b"%22",
        b"%ff",
        b"utf-8''",
        b"iso-8859-1''",
        b"'",
        b" ",
        b"\xff",
    ];
    let mut noise = Noise(4);
    for _ in 0..ROUNDS {
        let value = noise.soup(&tokens, 0..20);
        let name = Parameters::parse(&value).map(|parameters| parameters.file_name());
        if let Some(Ok(Some(name))) = name {
            assert!(name.len() <= 2 * value.len(), "{}", value.escape_ascii());
        }
    }
}
