//! `get`: the lines that meet a filter, as they are or as JSON.

use std::borrow::Cow;
use std::io::{self, Write};

use cli::ClientError;
use cli::stream::output;
use jiff::Timestamp;
use proto::Name;
use proto::history::{Filter, Operation, Request};
use serde::Serialize;

use crate::{Config, Error};

/// The longest line that JSON has whole, in bytes. The server writes shorter ones.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// What to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Get {
    /// Who asks.
    pub user: String,
    /// Only this many, the last ones; 0 for all.
    pub last: u64,
    /// Only those of this time or later, in milliseconds since 1970.
    pub since: u64,
    /// Only those before this time.
    pub until: u64,
    /// Only the records of this user; empty for all users.
    pub by: String,
    /// Only those that contain this text.
    pub contains: String,
    /// As JSON.
    pub json: bool,
}

impl Get {
    /// All lines, as they are.
    pub fn all(user: String) -> Self {
        Self {
            user,
            last: Filter::ALL.last,
            since: Filter::ALL.since,
            until: Filter::ALL.until,
            by: String::new(),
            contains: String::new(),
            json: false,
        }
    }

    pub(crate) fn run(&self, config: &Config) -> Result<(), Error> {
        let operation = Operation::Get(Filter {
            last: self.last,
            since: self.since,
            until: self.until,
            by: Name(&self.by),
            contains: &self.contains,
        });
        let request = Request {
            user: &self.user,
            operation,
        };
        if !self.json {
            return config.ask_and_print(&request);
        }
        let mut lines = JsonLines {
            out: output()?,
            cut: Vec::new(),
        };
        config.ask(
            |client, on_part| client.ask(&request, on_part),
            |piece| lines.add(piece),
        )?;
        Ok(lines.end().map_err(ClientError::Output)?)
    }
}

/// Writes lines that arrive in pieces, which are cut anywhere, as JSON objects, one a line.
struct JsonLines<W> {
    out: W,
    /// The beginning of a line whose rest is in the next piece.
    cut: Vec<u8>,
}

/// A line of the history. One that is not as the server writes them is all text.
#[derive(Serialize)]
struct Record<'a> {
    line: u64,
    time: Option<&'a str>,
    from: Option<&'a str>,
    user: Option<&'a str>,
    text: &'a str,
}

impl<W: Write> JsonLines<W> {
    fn add(&mut self, piece: &[u8]) -> io::Result<()> {
        let mut json = Vec::new();
        for line in piece.split_inclusive(|byte| *byte == b'\n') {
            let left = LINE_BYTES_MAX.saturating_sub(self.cut.len());
            let (text, has_ended) = match line.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (line, false),
            };
            self.cut.extend_from_slice(&text[..text.len().min(left)]);
            if has_ended {
                put_json(&mut json, &self.cut)?;
                self.cut.clear();
            }
        }
        self.out.write_all(&json)
    }

    /// Writes the last line, if it has no end.
    fn end(mut self) -> io::Result<()> {
        if !self.cut.is_empty() {
            self.add(b"\n")?;
        }
        self.out.flush()
    }
}

fn put_json(json: &mut Vec<u8>, line: &[u8]) -> io::Result<()> {
    let line: Cow<str> = String::from_utf8_lossy(line);
    let (number, text) = line.split_once(' ').unwrap_or((&line, ""));
    let mut words = text.splitn(4, ' ');
    let mut next = || words.next();
    let mut record = Record {
        line: number.parse().unwrap_or_default(),
        time: None,
        from: None,
        user: None,
        text,
    };
    if let (Some(time), Some(from), Some(user), Some(text)) = (next(), next(), next(), next())
        && time.parse::<Timestamp>().is_ok()
    {
        (record.time, record.from, record.user) = (Some(time), Some(from), Some(user));
        record.text = text;
    }
    serde_json::to_writer(&mut *json, &record)?;
    json.push(b'\n');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(pieces: &[&[u8]]) -> String {
        let mut out = Vec::new();
        let mut lines = JsonLines {
            out: &mut out,
            cut: Vec::new(),
        };
        for piece in pieces {
            lines.add(piece).unwrap();
        }
        lines.end().unwrap();
        String::from_utf8(out).unwrap()
    }

    const LINE: &str = r#"7 2026-11-27T10:00:00.123Z 127.0.0.1:4 alice note "a" \\ ä"#;
    const OBJECT: &str = concat!(
        r#"{"line":7,"time":"2026-11-27T10:00:00.123Z","from":"127.0.0.1:4","#,
        r#""user":"alice","text":"note \"a\" \\\\ ä"}"#,
        "\n"
    );

    #[test]
    fn lines_may_be_cut_anywhere() {
        let text = format!("{LINE}\n{LINE}\n{LINE}");
        let text = text.as_bytes();
        for cut in 0..text.len() {
            assert_eq!(json(&[&text[..cut], &text[cut..]]), OBJECT.repeat(3));
        }
        assert_eq!(json(&[]), "");
    }

    #[test]
    fn a_line_that_is_none_of_ours_is_text() {
        let bare = |line: u64, text: &str| {
            format!(
                "{{\"line\":{line},\"time\":null,\"from\":null,\"user\":null,\"text\":\"{text}\"}}\n"
            )
        };
        assert_eq!(
            json(&[b"1 old\n2 a b c d\n"]),
            bare(1, "old") + &bare(2, "a b c d")
        );
        assert_eq!(json(&[b"3 \xff\n4 \n"]), bare(3, "\u{fffd}") + &bare(4, ""));
        let long = "x".repeat(2 * LINE_BYTES_MAX);
        let shown = &long[..LINE_BYTES_MAX - 2];
        let line = format!("5 {long}\n");
        assert_eq!(json(&[line.as_bytes()]), bare(5, shown));
    }
}
