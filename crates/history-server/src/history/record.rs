//! The parts of a record: `TIME PEER USER WHAT`.

use super::line;

/// A record, as the page and scripts see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// When it was written, as in the file; empty if the line is not one of ours.
    pub time: &'a str,
    /// Who sent it: an address, or a user of this machine.
    pub from: &'a str,
    /// The user.
    pub user: &'a str,
    /// What was asked, a note say; all of a line that is not one of ours.
    pub text: &'a str,
}

impl<'a> Record<'a> {
    /// Splits a record.
    pub fn parse(record: &'a str) -> Self {
        let mut words = record.splitn(4, ' ');
        if line::time(record.as_bytes()).is_some()
            && let (Some(time), Some(from), Some(user), Some(text)) =
                (words.next(), words.next(), words.next(), words.next())
        {
            return Self {
                time,
                from,
                user,
                text,
            };
        }
        Self {
            time: "",
            from: "",
            user: "",
            text: record,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_the_rest() {
        let record = "2026-11-27T05:00:00.000Z 127.0.0.1:1 alice note a  b ";
        let want = Record {
            time: "2026-11-27T05:00:00.000Z",
            from: "127.0.0.1:1",
            user: "alice",
            text: "note a  b ",
        };
        assert_eq!(Record::parse(record), want);
    }

    #[test]
    fn a_line_that_is_not_ours_is_all_text() {
        for line in [
            "",
            "old 1",
            "a b c d",
            "2026-11-27T05:00:00.000Z 127.0.0.1:1",
        ] {
            let record = Record::parse(line);
            assert_eq!((record.time, record.user, record.text), ("", "", line));
        }
    }
}
