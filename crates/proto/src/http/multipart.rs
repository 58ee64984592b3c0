//! HTML forms with files in them: `multipart/form-data` (RFC 7578, RFC 2046 section 5.1).
//!
//! A part stands between two delimiters, and its head names the file. An ambiguous head is refused:
//! otherwise a file would be lost, or stored under the name of another.

use std::io::{self, Read};

use memchr::memchr;
use memchr::memmem::Finder;

use super::head;
use super::parameters::Parameters;
use super::request::{Refusal, RequestHead};
use super::status::Status;

/// The longest boundary, in bytes (RFC 2046 section 5.1.1).
const BOUNDARY_BYTES_MAX: usize = 70;

/// The longest head of a part, in bytes.
const PART_HEAD_BYTES_MAX: usize = 8 * 1024;

/// How much of a form is searched for a delimiter at once, in bytes.
const WINDOW_BYTES: usize = 64 * 1024;

const _: () = assert!(
    WINDOW_BYTES > PART_HEAD_BYTES_MAX && WINDOW_BYTES > BOUNDARY_BYTES_MAX + 4,
    "a line of a head fits into the window, and so does a delimiter"
);

/// The boundary of a request whose body is a form; `None` if the body is anything else.
///
/// # Errors
/// If the body is a form, but its boundary is missing or malformed.
pub fn boundary<'a>(request: &RequestHead<'a>) -> Result<Option<&'a str>, Refusal> {
    let kind = |value: &&[u8]| {
        let kind = value.split(|b| *b == b';').next().unwrap_or_default();
        kind.trim_ascii()
            .eq_ignore_ascii_case(b"multipart/form-data")
    };
    let Some(value) = request.fields("content-type").find(kind) else {
        return Ok(None);
    };
    let parameters = Parameters::parse(value);
    let boundary = parameters.and_then(|parameters| parameters.get("boundary"));
    let is_boundary =
        |bytes: &&[u8]| bytes.is_ascii() && (1..=BOUNDARY_BYTES_MAX).contains(&bytes.len());
    let boundary = boundary.filter(is_boundary);
    let boundary = boundary.and_then(|bytes| std::str::from_utf8(bytes).ok());
    let sentence = "the Content-Type of a form says its boundary, which has 1 to 70 bytes";
    let refusal = || Refusal::new(Status::BadRequest, sentence);
    boundary.map(Some).ok_or_else(refusal)
}

/// The head of a part.
#[derive(Debug, PartialEq, Eq)]
pub struct PartHead {
    /// The file name, with any folders in front, in bytes that need not be UTF-8. Empty if the user chose
    /// no file; `None` if the part is a field of the form and no file.
    pub file_name: Option<Vec<u8>>,
}

/// The reader's position in a form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// In a part, or before the first one.
    Part,
    /// After a delimiter.
    Between,
    /// After the last delimiter.
    End,
}

/// The parts of a form, one after the other.
pub struct Form<R> {
    input: R,
    /// What separates two parts: CR LF, two dashes, the boundary.
    delimiter: Finder<'static>,
    at: At,
    /// `window[start..end]` has been read from the input and not yet handed out.
    window: Vec<u8>,
    start: usize,
    end: usize,
    /// How many bytes from `start` on belong to the part for certain.
    part_bytes: usize,
}

fn malformed(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl<R: Read> Form<R> {
    /// A form that is read from a request's body.
    pub fn new(input: R, boundary: &str) -> Self {
        let mut window = vec![0; WINDOW_BYTES];
        // Now the first delimiter looks like all others.
        window[..2].copy_from_slice(b"\r\n");
        Self {
            input,
            delimiter: Finder::new(&format!("\r\n--{boundary}")).into_owned(),
            at: At::Part,
            window,
            start: 0,
            end: 2,
            part_bytes: 0,
        }
    }

    /// Skips the rest of this part and reads the head of the next one; `None` after the last part.
    ///
    /// # Errors
    /// Those of the input, and [`io::ErrorKind::InvalidData`] if the input is not a form.
    pub fn next_part(&mut self) -> io::Result<Option<PartHead>> {
        while self.find_part_bytes()? > 0 {
            self.consume(self.part_bytes);
        }
        if self.at == At::End {
            return Ok(None);
        }
        while self.window().len() < 2 {
            self.read_on()?;
        }
        if self.window().starts_with(b"--") {
            self.at = At::End;
            return Ok(None);
        }
        if !self.read_line()?.trim_ascii().is_empty() {
            return Err(malformed("a form's boundary is followed by something else"));
        }
        let head = self.read_part_head()?;
        self.at = At::Part;
        // An empty part may lack the line break that begins the delimiter.
        let rest = self.delimiter.needle().len() - b"\r\n".len();
        while self.window().len() < rest {
            self.read_on()?;
        }
        if self.window()[..rest] == self.delimiter.needle()[b"\r\n".len()..] {
            self.start += rest;
            self.at = At::Between;
        }
        Ok(Some(head))
    }

    /// The body of the current part.
    pub fn part(&mut self) -> impl Read + '_ {
        Part { form: self }
    }

    fn read_part_head(&mut self) -> io::Result<PartHead> {
        let mut head: Option<PartHead> = None;
        let mut field: Vec<u8> = Vec::new();
        let mut bytes = 0;
        loop {
            let line = self.read_line()?;
            bytes += line.len();
            if bytes > PART_HEAD_BYTES_MAX {
                return Err(malformed("the head of a form's part is too long"));
            }
            // A field may continue on the next line (RFC 5322 section 2.2.3).
            if line.starts_with(b" ") || line.starts_with(b"\t") {
                field.extend_from_slice(line);
                continue;
            }
            let next = line.to_vec();
            if let Some(found) = PartHead::in_field(&field)?
                && head.replace(found).is_some()
            {
                return Err(malformed("a form's part has several Content-Dispositions"));
            }
            if next.is_empty() {
                let without = || malformed("a form's part has no Content-Disposition");
                return head.ok_or_else(without);
            }
            field = next;
        }
    }

    /// How many bytes of the part are in the window; 0 at its end.
    fn find_part_bytes(&mut self) -> io::Result<usize> {
        while self.at == At::Part && self.part_bytes == 0 {
            let window = &self.window[self.start..self.end];
            let delimiter = self.delimiter.needle();
            match self.delimiter.find(window) {
                Some(0) => {
                    self.start += delimiter.len();
                    self.at = At::Between;
                }
                Some(bytes) => self.part_bytes = bytes,
                None => {
                    // The last bytes may be the start of a delimiter. They wait for more.
                    let tail = window.len().saturating_sub(delimiter.len() - 1);
                    let starts = |from: &usize| delimiter.starts_with(&window[*from..]);
                    self.part_bytes = (tail..window.len()).find(starts).unwrap_or(window.len());
                    if self.part_bytes == 0 {
                        self.read_on()?;
                    }
                }
            }
        }
        Ok(self.part_bytes)
    }

    /// The next line, without its end.
    fn read_line(&mut self) -> io::Result<&[u8]> {
        let length = loop {
            let window = self.window();
            match memchr(b'\n', &window[..window.len().min(PART_HEAD_BYTES_MAX)]) {
                Some(length) => break length,
                None if window.len() >= PART_HEAD_BYTES_MAX => {
                    return Err(malformed("the head of a form's part is too long"));
                }
                None => self.read_on()?,
            }
        };
        let line = &self.window[self.start..self.start + length];
        self.start += length + 1;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match memchr(b'\r', line) {
            None => Ok(line),
            Some(_) => Err(malformed("a line in the head of a form's part holds a CR")),
        }
    }

    fn window(&self) -> &[u8] {
        &self.window[self.start..self.end]
    }

    fn consume(&mut self, bytes: usize) {
        self.start += bytes;
        self.part_bytes -= bytes;
    }

    /// Reads more into the window. There is room, because no caller waits for a full window.
    fn read_on(&mut self) -> io::Result<()> {
        self.window.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        match self.input.read(&mut self.window[self.end..]) {
            Ok(0) => Err(malformed("a form ends in the middle of a part")),
            Ok(bytes) => {
                self.end += bytes;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl PartHead {
    /// The head in a field, if it is the `Content-Disposition`.
    fn in_field(field: &[u8]) -> io::Result<Option<Self>> {
        if field.is_empty() {
            return Ok(None);
        }
        let mut parts = field.splitn(2, |b| *b == b':');
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let value = parts
            .next()
            .filter(|_| name.iter().all(|b| head::is_token_byte(*b)));
        let value = value.ok_or_else(|| malformed("a line in a form's part is no field"))?;
        match name.as_slice() {
            b"content-disposition" => {
                let parameters = Parameters::parse(value);
                let parameters = parameters
                    .ok_or_else(|| malformed("a Content-Disposition cannot be understood"))?;
                let file_name = parameters.file_name();
                let undecodable = |_| {
                    malformed("the name of a file is in a charset that this server does not know")
                };
                file_name
                    .map(|file_name| Some(Self { file_name }))
                    .map_err(undecodable)
            }
            // It would have to be decoded, and is deprecated (RFC 7578 section 4.7).
            b"content-transfer-encoding" if !is_identity(value) => Err(malformed(
                "a form's part is stored as it is, without a Content-Transfer-Encoding",
            )),
            _ => Ok(None),
        }
    }
}

/// Whether a `Content-Transfer-Encoding` changes nothing (RFC 2045 section 6.2).
fn is_identity(value: &[u8]) -> bool {
    let value = value.trim_ascii().to_ascii_lowercase();
    matches!(value.as_slice(), b"7bit" | b"8bit" | b"binary")
}

/// The bytes of a part, up to the delimiter.
struct Part<'f, R> {
    form: &'f mut Form<R>,
}

impl<R: Read> Read for Part<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let bytes = self.form.find_part_bytes()?.min(out.len());
        out[..bytes].copy_from_slice(&self.form.window()[..bytes]);
        self.form.consume(bytes);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An input whose reads return at most this many bytes.
    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let bytes = self.1.min(out.len());
            self.0.read(&mut out[..bytes])
        }
    }

    /// What each part is called and holds.
    type Parts = Vec<(Option<Vec<u8>>, Vec<u8>)>;

    /// The parts of a form that arrives in pieces of this many bytes.
    fn parts(form: &[u8], piece_bytes: usize) -> io::Result<Parts> {
        let mut form = Form::new(Pieces(form, piece_bytes), "x-y");
        let mut parts = Vec::new();
        while let Some(head) = form.next_part()? {
            let mut body = Vec::new();
            let mut piece = vec![0; piece_bytes];
            loop {
                let bytes = form.part().read(&mut piece)?;
                if bytes == 0 {
                    break;
                }
                body.extend_from_slice(&piece[..bytes]);
            }
            parts.push((head.file_name, body));
        }
        Ok(parts)
    }

    const FORM: &str = "before\r\n--x-y\r\nContent-Disposition: form-data; name=\"file\";\r\n\
        \tfilename=\"a b.txt\"\r\nContent-Type: text/plain\r\n\
        Content-Transfer-Encoding: Binary\r\n\r\none\r\n--x-\r\r\n\r\n--x-y\r\n\
        content-disposition: form-data; name=note\r\n\r\n\r\n--x-y  \r\n\
        Content-Disposition: form-data; filename=\"\\\"q\\\\\"; name=\"z\"\r\n\r\nthree\r\n--x-y\r\n\
        Content-Disposition: form-data; filename=empty\r\n\r\n--x-y--\r\n";

    fn form_parts() -> Parts {
        let part = |name: Option<&str>, body: &str| (name.map(Into::into), body.into());
        vec![
            part(Some("a b.txt"), "one\r\n--x-\r\r\n"),
            part(None, ""),
            part(Some("\"q\\"), "three"),
            part(Some("empty"), ""),
        ]
    }

    #[test]
    fn parts_come_whole_in_pieces_of_any_size() {
        for piece_bytes in [1, 2, 3, 7, 16, 4096] {
            let parts = parts(FORM.as_bytes(), piece_bytes).unwrap();
            assert_eq!(parts, form_parts(), "{piece_bytes}");
        }
    }

    #[test]
    fn a_part_can_be_passed_over() {
        let mut form = Form::new(FORM.as_bytes(), "x-y");
        let mut names = Vec::new();
        while let Some(head) = form.next_part().unwrap() {
            names.push(head.file_name);
        }
        let want: Vec<_> = form_parts().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, want);
        assert_eq!(form.next_part().unwrap(), None);
    }

    #[test]
    fn what_is_cut_is_an_error() {
        let end = FORM.len() - "\r\n".len();
        for bytes in 0..end {
            parts(&FORM.as_bytes()[..bytes], 16).unwrap_err();
        }
    }

    #[track_caller]
    fn check_refused(part: &str, want: &str) {
        let form = format!("--x-y{part}\r\n\r\nbody\r\n--x-y--\r\n");
        let error = parts(form.as_bytes(), 16).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(error.to_string().contains(want), "{part}: {error}");
    }

    #[test]
    fn a_head_that_is_not_sure_is_refused() {
        let disposition = "\r\nContent-Disposition: form-data; filename=a";
        check_refused("z", "followed by something else");
        check_refused("\r\nContent-Disposition; filename=a", "no field");
        check_refused(
            "\r\nContent-Disposition : form-data; filename=a",
            "no field",
        );
        check_refused(
            "\r\n Content-Disposition: form-data; filename=a",
            "no field",
        );
        check_refused(
            "\r\nContent-Type: text/plain; name=a",
            "no Content-Disposition",
        );
        check_refused("", "no Content-Disposition");
        let base64 = "\r\nContent-Transfer-Encoding: base64";
        check_refused(&format!("{disposition}{base64}"), "as it is");
        check_refused(&disposition.repeat(2), "several");
        check_refused(
            "\r\nContent-Disposition: form-data; filename=\"a",
            "cannot be",
        );
        check_refused(
            "\r\nContent-Disposition: form-data; filename=\"a\r\"",
            "a CR",
        );
        check_refused(
            "\r\nContent-Disposition: form-data; filename*=x''a",
            "charset",
        );
        check_refused(&format!("\r\nA: {}", "b".repeat(9000)), "too long");
        check_refused(&"\r\nA: b".repeat(3000), "too long");
    }

    #[test]
    fn what_could_start_a_delimiter_still_comes_in_large_pieces() {
        for body in ["\r", "\r\n", "\r\n--x-", "\r\n--x-x"] {
            let body = body.repeat(100_000);
            let head = "Content-Disposition: form-data; filename=a";
            let form = format!("--x-y\r\n{head}\r\n\r\n{body}\r\n--x-y--");
            let mut form = Form::new(form.as_bytes(), "x-y");
            form.next_part().unwrap();
            let (mut piece, mut read, mut reads) = (vec![0; 1 << 20], Vec::new(), 0);
            loop {
                let bytes = form.part().read(&mut piece).unwrap();
                if bytes == 0 {
                    break;
                }
                read.extend_from_slice(&piece[..bytes]);
                reads += 1;
            }
            assert!(read == body.as_bytes());
            assert!(reads <= body.len() / WINDOW_BYTES + 2, "{reads}");
        }
    }

    #[test]
    fn the_boundary_stands_in_the_content_type() {
        let of = |kind: &str| {
            let head = format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Type: {kind}\r\n\r\n");
            let request = RequestHead::parse(head.as_bytes()).unwrap();
            boundary(&request).map(|boundary| boundary.map(str::to_owned))
        };
        let good = |boundary: &str| Ok(Some(boundary.to_owned()));
        assert_eq!(of("multipart/form-data; boundary=a-b"), good("a-b"));
        let quoted = "Multipart/Form-Data; x=y; Boundary=\"a b\"";
        assert_eq!(of(quoted), good("a b"));
        for none in ["text/plain", "multipart/mixed; boundary=a", ""] {
            assert_eq!(of(none), Ok(None), "{none}");
        }
        for bad in [
            "multipart/form-data",
            "multipart/form-data; boundary=",
            "multipart/form-data; boundary=\"a",
            &format!("multipart/form-data; boundary={}", "a".repeat(71)),
        ] {
            of(bad).unwrap_err();
        }
    }
}
