//! Reading a reply without any code of ours, and checking what must be so in every one.

use std::io::{BufRead, ErrorKind, Read};

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// The one form of a date that may be generated (RFC 9110 section 5.6.7).
const IMF_FIXDATE: &str = "%a, %d %b %Y %H:%M:%S GMT";

/// By how much a reply's date may be off, in seconds.
const CLOCK_SLACK: i64 = 60;

/// A reply that keeps the rules.
pub struct Reply {
    pub status: u16,
    fields: Vec<(String, String)>,
    bytes: Vec<u8>,
    head_bytes: usize,
}

impl Reply {
    /// Reads the next reply. A reply to `HEAD` has no body.
    pub fn read(input: &mut impl BufRead, is_to_head: bool) -> Result<Self, String> {
        let mut reply = Self {
            status: 0,
            fields: Vec::new(),
            bytes: Vec::new(),
            head_bytes: 0,
        };
        let mut lines = Vec::new();
        while lines.last().is_none_or(|line: &String| !line.is_empty()) {
            lines.push(reply.read_line(input)?);
        }
        reply.head_bytes = reply.bytes.len();
        reply.status = parse_status_line(&lines[0])?;
        for line in &lines[1..lines.len() - 1] {
            reply.fields.push(parse_field(line)?);
        }
        let length = reply.body_length()?;
        if !is_to_head {
            let read = input.take(length).read_to_end(&mut reply.bytes);
            match read {
                Ok(bytes) if bytes as u64 == length => {}
                other => return Err(format!("a body of {length} bytes, but {other:?} came")),
            }
        }
        reply.check(is_to_head)?;
        Ok(reply)
    }

    fn read_line(&mut self, input: &mut impl BufRead) -> Result<String, String> {
        let start = self.bytes.len();
        let so_far = |bytes: &[u8]| format!("after {:?}", bytes.escape_ascii().to_string());
        match input.read_until(b'\n', &mut self.bytes) {
            Ok(0) => Err(format!("the end, {}", so_far(&self.bytes))),
            Ok(_) => match self.bytes[start..].strip_suffix(b"\r\n") {
                Some(line) => String::from_utf8(line.to_vec()).map_err(|e| e.to_string()),
                None => Err(format!(
                    "a line does not end in CR LF, {}",
                    so_far(&self.bytes)
                )),
            },
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                Err(format!("silence, {}", so_far(&self.bytes)))
            }
            Err(error) => Err(format!("{error}, {}", so_far(&self.bytes))),
        }
    }

    /// The value of a field.
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut found = self.fields.iter();
        let found = found.find(|(field, _)| field.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    fn count(&self, name: &str) -> usize {
        let is_it = |(field, _): &&(String, String)| field.eq_ignore_ascii_case(name);
        self.fields.iter().filter(is_it).count()
    }

    /// All of it.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn body(&self) -> &[u8] {
        &self.bytes[self.head_bytes..]
    }

    pub fn says_close(&self) -> bool {
        self.field("Connection") == Some("close")
    }

    /// RFC 9112 section 6.3. Our servers know the length of every reply.
    fn body_length(&self) -> Result<u64, String> {
        if self.field("Transfer-Encoding").is_some() {
            return Err("a Transfer-Encoding".to_owned());
        }
        match (self.status, self.field("Content-Length")) {
            (100..200 | 204, Some(_)) => Err("a Content-Length (9110 8.6)".to_owned()),
            (100..200 | 204 | 304, _) => Ok(0),
            (_, None) => Err("no Content-Length".to_owned()),
            (_, Some(length)) => length
                .parse()
                .map_err(|_| "a bad Content-Length".to_owned()),
        }
    }

    fn check(&self, is_to_head: bool) -> Result<(), String> {
        for name in [
            "Date",
            "Content-Length",
            "Content-Type",
            "Content-Range",
            "Connection",
            "ETag",
            "Last-Modified",
            "Location",
            "Allow",
        ] {
            if self.count(name) > 1 {
                return Err(format!("more than one field {name}"));
            }
        }
        if self.status < 200 {
            return Ok(());
        }
        let date = self.field("Date").ok_or("no Date (9110 6.6.1)")?;
        let date = parse_date(date)?;
        let now = Timestamp::now().as_second();
        if (date - now).abs() > CLOCK_SLACK {
            return Err("the Date is not now".to_owned());
        }
        if let Some(modified) = self.field("Last-Modified")
            && parse_date(modified)? > date
        {
            return Err("Last-Modified is later than Date (9110 8.8.2.1)".to_owned());
        }
        let must_have: &[&str] = match self.status {
            206 => &["Content-Range", "ETag"],
            304 => &["ETag"],
            301 | 303 => &["Location"],
            405 => &["Allow"],
            416 => &["Content-Range"],
            _ => &[],
        };
        if let Some(name) = must_have.iter().find(|name| self.field(name).is_none()) {
            return Err(format!("{} without {name}", self.status));
        }
        // Of an error, a person is told the reason in one line.
        let text = self.body().strip_suffix(b"\n").unwrap_or(self.body());
        match self.status >= 400 && !is_to_head && (text.is_empty() || text.contains(&b'\n')) {
            true => Err("the reason is not one line".to_owned()),
            false => Ok(()),
        }
    }

    /// A reply to `HEAD` has the fields that one to `GET` has (RFC 9110 section 9.3.2).
    pub fn check_alike(&self, other: &Self) -> Result<(), String> {
        let of = |reply: &Self| {
            let mut fields = reply.fields.clone();
            fields.retain(|(name, _)| name != "Date");
            fields
        };
        match (self.status, of(self)) == (other.status, of(other)) {
            true => Ok(()),
            false => Err(format!("{:?} is unlike {:?}", self.fields, other.fields)),
        }
    }
}

/// `HTTP/1.1 SP 3DIGIT SP [phrase]` (RFC 9112 section 4).
fn parse_status_line(line: &str) -> Result<u16, String> {
    let rest = line.strip_prefix("HTTP/1.1 ");
    let code = rest.and_then(|rest| rest.split_once(' '));
    code.and_then(|(code, _)| code.parse().ok())
        .filter(|code| (100..600).contains(code))
        .ok_or_else(|| format!("a bad status line: {line:?}"))
}

fn parse_field(line: &str) -> Result<(String, String), String> {
    let (name, value) = line
        .split_once(':')
        .ok_or(format!("no colon in {line:?}"))?;
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || !name.bytes().all(is_token) || value.contains(char::is_control) {
        return Err(format!("a bad field: {line:?}"));
    }
    Ok((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()))
}

fn parse_date(text: &str) -> Result<i64, String> {
    let bad = |_| format!("not an IMF-fixdate: {text:?}");
    let date = DateTime::strptime(IMF_FIXDATE, text).map_err(bad)?;
    let date = date.to_zoned(TimeZone::UTC).map_err(bad)?;
    // A parser may be lenient.
    match date.strftime(IMF_FIXDATE).to_string() == text {
        true => Ok(date.timestamp().as_second()),
        false => Err(format!("not an IMF-fixdate: {text:?}")),
    }
}
