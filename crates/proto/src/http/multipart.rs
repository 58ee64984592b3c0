//! Forms with files in them: `multipart/form-data` (RFC 7578, RFC 2046 section 5.1).

use std::io::{self, BufRead, Chain, Read};

use super::request::RequestHead;

/// The longest boundary, in bytes (RFC 2046 section 5.1.1).
const BOUNDARY_BYTES_MAX: usize = 70;

/// The longest head of a part, in bytes.
const PART_HEAD_BYTES_MAX: usize = 8 * 1024;

/// The boundary of a request whose body is a form; `None` if it is something else.
pub fn boundary(request: &RequestHead) -> Option<String> {
    let value = request.fields("content-type").next()?;
    let value = std::str::from_utf8(value).ok()?;
    let (kind, parameters) = value.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let boundary = parameter(parameters, "boundary")?;
    let is_good = (1..=BOUNDARY_BYTES_MAX).contains(&boundary.len()) && boundary.is_ascii();
    is_good.then_some(boundary)
}

/// The value of a parameter in `a=b; c="d"`; a backslash in quotes takes what follows as it is.
fn parameter(parameters: &str, name: &str) -> Option<String> {
    let mut rest = parameters;
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=')?;
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => {
                let mut value = String::new();
                let mut chars = quoted.chars();
                loop {
                    match chars.next()? {
                        '"' => break,
                        '\\' => value.push(chars.next()?),
                        other => value.push(other),
                    }
                }
                (value, chars.as_str())
            }
            None => {
                let end = after.find(';').unwrap_or(after.len());
                (after[..end].trim().to_owned(), &after[end..])
            }
        };
        if key
            .trim_matches([' ', ';', '\t'])
            .eq_ignore_ascii_case(name)
        {
            return Some(value);
        }
        rest = after;
    }
    None
}

/// The parts of a form, one after the other.
pub struct Form<R> {
    /// With a line break in front, so that the first delimiter looks like all others.
    input: Chain<&'static [u8], R>,
    /// What stands between two parts: CR LF, two dashes, the boundary.
    delimiter: Vec<u8>,
    /// Whether the delimiter in front of the next part was read.
    is_between: bool,
    /// Bytes that looked like a delimiter and are none, and are to be handed out.
    replay: Vec<u8>,
}

fn malformed(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl<R: BufRead> Form<R> {
    /// A form that is read from a request's body.
    pub fn new(input: R, boundary: &str) -> Self {
        Self {
            input: b"\r\n".chain(input),
            delimiter: format!("\r\n--{boundary}").into_bytes(),
            is_between: false,
            replay: Vec::new(),
        }
    }

    /// Goes to the next part, past what is left of this one, and returns the name of the file it
    /// holds, empty if it has none; `None` behind the last part.
    ///
    /// # Errors
    /// Those of the input, and [`io::ErrorKind::InvalidData`] for what is no form.
    pub fn next_part(&mut self) -> io::Result<Option<String>> {
        if self.delimiter.is_empty() {
            return Ok(None);
        }
        if !self.is_between {
            io::copy(&mut Part { form: self }, &mut io::sink())?;
        }
        self.is_between = false;
        let mut line = Vec::new();
        self.read_line(&mut line)?;
        if line.starts_with(b"--") {
            self.delimiter.clear();
            return Ok(None);
        }
        if !line.trim_ascii().is_empty() {
            return Err(malformed("a form's boundary is followed by something else"));
        }
        let mut name = String::new();
        let mut head_bytes = 0;
        loop {
            line.clear();
            self.read_line(&mut line)?;
            head_bytes += line.len();
            if head_bytes > PART_HEAD_BYTES_MAX {
                return Err(malformed("the head of a form's part is too long"));
            }
            let field = String::from_utf8_lossy(&line);
            let field = field.trim();
            if field.is_empty() {
                return Ok(Some(name));
            }
            if let Some((key, value)) = field.split_once(':')
                && key.eq_ignore_ascii_case("content-disposition")
                && let Some((_, parameters)) = value.split_once(';')
            {
                name = parameter(parameters, "filename").unwrap_or_default();
            }
        }
    }

    /// The body of the present part.
    pub fn part(&mut self) -> impl Read + '_ {
        Part { form: self }
    }

    fn read_line(&mut self, line: &mut Vec<u8>) -> io::Result<()> {
        let mut limited = self.input.by_ref().take(PART_HEAD_BYTES_MAX as u64);
        limited.read_until(b'\n', line)?;
        match line.ends_with(b"\n") || line.starts_with(b"--") {
            true => Ok(()),
            false => Err(malformed("a form ends in the middle of a part")),
        }
    }
}

/// The bytes of a part, up to the delimiter.
struct Part<'f, R> {
    form: &'f mut Form<R>,
}

impl<R: BufRead> Read for Part<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.form.is_between || out.is_empty() {
            return Ok(0);
        }
        if !self.form.replay.is_empty() {
            let bytes = self.form.replay.len().min(out.len());
            out[..bytes].copy_from_slice(&self.form.replay[..bytes]);
            self.form.replay.drain(..bytes);
            return Ok(bytes);
        }
        let delimiter = &self.form.delimiter;
        let available = self.form.input.fill_buf()?;
        if available.is_empty() {
            return Err(malformed("a form ends in the middle of a part"));
        }
        // Where the delimiter could begin, nothing is handed out before that is known.
        let safe = available.iter().position(|byte| *byte == b'\r');
        let safe = safe.unwrap_or(available.len()).min(out.len());
        if safe > 0 {
            out[..safe].copy_from_slice(&available[..safe]);
            self.form.input.consume(safe);
            return Ok(safe);
        }
        let mut matched = 0;
        while matched < delimiter.len() {
            let available = self.form.input.fill_buf()?;
            match available.first() {
                None => return Err(malformed("a form ends in the middle of a part")),
                Some(byte) if *byte == delimiter[matched] => {
                    self.form.input.consume(1);
                    matched += 1;
                }
                Some(_) => break,
            }
        }
        if matched == delimiter.len() {
            self.form.is_between = true;
            return Ok(0);
        }
        // It was something else. A CR stands in the delimiter only at its start, so that no other
        // delimiter can begin inside of what matched.
        self.form.replay = delimiter[..matched].to_vec();
        self.read(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The parts of a form, each its file name and its body.
    fn parts(form: &str, piece_bytes: usize) -> io::Result<Vec<(String, String)>> {
        let input = io::BufReader::with_capacity(piece_bytes, form.as_bytes());
        let mut form = Form::new(input, "x-y");
        let mut parts = Vec::new();
        while let Some(name) = form.next_part()? {
            let mut body = Vec::new();
            let mut piece = vec![0; piece_bytes];
            loop {
                let bytes = form.part().read(&mut piece)?;
                if bytes == 0 {
                    break;
                }
                body.extend_from_slice(&piece[..bytes]);
            }
            parts.push((name, String::from_utf8(body).unwrap()));
        }
        Ok(parts)
    }

    const FORM: &str = "--x-y\r\nContent-Disposition: form-data; name=\"file\"; \
        filename=\"a b.txt\"\r\nContent-Type: text/plain\r\n\r\none\r\n--x-\r\r\n\r\n--x-y\r\n\
        content-disposition: form-data; name=note\r\n\r\n\r\n--x-y  \r\n\
        Content-Disposition: form-data; filename=\"\\\"q\\\\\"; name=\"z\"\r\n\r\nthree\r\n--x-y--\r\n";

    #[test]
    fn parts_come_whole_in_pieces_of_any_size() {
        let want = [
            ("a b.txt", "one\r\n--x-\r\r\n"),
            ("", ""),
            ("\"q\\", "three"),
        ];
        for piece_bytes in [1, 2, 3, 7, 16, 4096] {
            let parts = parts(FORM, piece_bytes).unwrap();
            let parts: Vec<_> = parts
                .iter()
                .map(|(n, b)| (n.as_str(), b.as_str()))
                .collect();
            assert_eq!(parts, want, "{piece_bytes}");
        }
    }

    #[test]
    fn a_part_can_be_passed_over() {
        let mut form = Form::new(FORM.as_bytes(), "x-y");
        let mut names = Vec::new();
        while let Some(name) = form.next_part().unwrap() {
            names.push(name);
        }
        assert_eq!(names, ["a b.txt", "", "\"q\\"]);
        assert_eq!(form.next_part().unwrap(), None);
    }

    #[test]
    fn what_is_cut_is_an_error() {
        let end = FORM.len() - "--\r\n".len();
        for bytes in 0..end {
            parts(&FORM[..bytes], 16).unwrap_err();
        }
        parts("--x-yz\r\n\r\n\r\n--x-y--", 16).unwrap_err();
        parts(
            &format!("--x-y\r\nA: {}\r\n\r\n--x-y--", "b".repeat(9000)),
            16,
        )
        .unwrap_err();
    }

    #[test]
    fn the_boundary_stands_in_the_content_type() {
        let of = |kind: &str| {
            let head = format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Type: {kind}\r\n\r\n");
            boundary(&RequestHead::parse(head.as_bytes()).unwrap())
        };
        assert_eq!(
            of("multipart/form-data; boundary=a-b").as_deref(),
            Some("a-b")
        );
        let quoted = "Multipart/Form-Data; x=y; Boundary=\"a b\"";
        assert_eq!(of(quoted).as_deref(), Some("a b"));
        for none in [
            "text/plain",
            "multipart/form-data",
            "multipart/form-data; boundary=",
            "multipart/mixed; boundary=a",
        ] {
            assert_eq!(of(none), None, "{none}");
        }
        assert_eq!(
            of(&format!("multipart/form-data; boundary={}", "a".repeat(71))),
            None
        );
    }
}
