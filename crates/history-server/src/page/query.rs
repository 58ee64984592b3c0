//! The parameters of requests: those of a query, and those of a form.

use std::ffi::OsStr;
use std::io::Read;

use cli::args::moment_millis;
use cli::escape::Escaped;
use daemon::http::{RequestBody, body_refusal};
use form_urlencoded::Serializer;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use proto::Name;
use proto::history::{Filter, MATCH_BYTES_MAX, is_user_name};
use proto::http::{Refusal, RequestHead, Status};

/// The longest form, in bytes: the longest note, escaped in the history, and again in the form.
const FORM_BYTES_MAX: usize = 256 * 1024;

/// How many lines JSON has unless told otherwise.
const LAST_DEFAULT: u64 = 200;

/// Parameters by their names.
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    fn parse(text: &[u8], known: &[&str]) -> Result<Self, Refusal> {
        let mut parameters = Vec::new();
        let decoded = percent_encoding::percent_decode(text).decode_utf8();
        decoded.map_err(|_| bad("the parameters are not UTF-8".to_owned()))?;
        for (name, value) in form_urlencoded::parse(text) {
            if !known.contains(&&*name) {
                let name = Escaped(&name);
                let known = known.join(", ");
                return Err(bad(format!("unknown parameter '{name}'; here are {known}")));
            }
            parameters.push((name.into_owned(), value.into_owned()));
        }
        Ok(Self(parameters))
    }

    pub(super) fn of_query(request: &RequestHead, known: &[&str]) -> Result<Self, Refusal> {
        Self::parse(request.query.unwrap_or_default().as_bytes(), known)
    }

    /// The first value with this name; empty if there is none.
    pub(super) fn get(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value)
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, Refusal> {
        match self.get(name) {
            "" => Ok(None),
            value => value
                .parse()
                .map(Some)
                .map_err(|_| bad(format!("{name} must be a number, not '{}'", Escaped(value)))),
        }
    }

    /// A date without an offset is of UTC, as the times on the page.
    fn moment(&self, name: &'static str) -> Result<Option<u64>, Refusal> {
        let word = self.get(name);
        if word.is_empty() {
            return Ok(None);
        }
        let millis = moment_millis(name, OsStr::new(word), Timestamp::now(), &TimeZone::UTC);
        millis.map(Some).map_err(|error| bad(error.to_string()))
    }
}

/// Which lines are wanted.
pub(super) struct Query {
    pub(super) user: String,
    pub(super) contains: String,
    pub(super) by: String,
    pub(super) since_text: String,
    until_text: String,
    since: u64,
    until: u64,
    /// Only those with a sequence number below this.
    pub(super) before: u64,
    pub(super) behind: Option<u64>,
    /// The most lines.
    pub(super) last: u64,
}

impl Query {
    /// The query of a request that may also have these parameters.
    pub(super) fn of(request: &RequestHead, others: &[&str]) -> Result<Self, Refusal> {
        let known = [&["user", "q", "by", "since", "until"], others].concat();
        let parameters = Parameters::of_query(request, &known)?;
        let get = |name| parameters.get(name).to_owned();
        let query = Self {
            user: get("user"),
            contains: get("q"),
            by: get("by"),
            since: parameters.moment("since")?.unwrap_or(Filter::ALL.since),
            until: parameters.moment("until")?.unwrap_or(Filter::ALL.until),
            since_text: get("since"),
            until_text: get("until"),
            before: parameters.number("before")?.unwrap_or(u64::MAX),
            behind: parameters.number("behind")?,
            last: match parameters.number("last")?.unwrap_or(LAST_DEFAULT) {
                0 => u64::MAX,
                last => last,
            },
        };
        if query.contains.len() > MATCH_BYTES_MAX {
            return Err(bad(format!("q exceeds {MATCH_BYTES_MAX} bytes")));
        }
        for (name, value) in [("by", &query.by), ("user", &query.user)] {
            if !value.is_empty() && !is_user_name(value) {
                return Err(bad(format!(
                    "{name} must be 1 to 64 of A-Z a-z 0-9 . _ -, not '{}'",
                    Escaped(value)
                )));
            }
        }
        Ok(query)
    }

    pub(super) fn filter(&self) -> Filter<'_> {
        Filter {
            last: 0,
            since: self.since,
            until: self.until,
            by: Name(&self.by),
            contains: &self.contains,
        }
    }

    pub(super) fn is_search(&self) -> bool {
        let texts = [&self.contains, &self.by, &self.since_text, &self.until_text];
        texts.iter().any(|text| !text.is_empty())
    }

    /// The parameters of a link to the same lines, with others.
    pub(super) fn link(&self, others: &[(&str, u64)]) -> String {
        let others: Vec<_> = others
            .iter()
            .map(|(name, value)| (*name, value.to_string()))
            .collect();
        let mut all = vec![
            ("user", &*self.user),
            ("q", &self.contains),
            ("by", &self.by),
            ("since", &self.since_text),
            ("until", &self.until_text),
        ];
        all.extend(others.iter().map(|(name, value)| (*name, value.as_str())));
        link(&all)
    }
}

/// The parameters of a link, with the question mark; without those that are empty.
pub(super) fn link(parameters: &[(&str, &str)]) -> String {
    let mut query = Serializer::new(String::new());
    query.extend_pairs(parameters.iter().filter(|(_, value)| !value.is_empty()));
    match query.finish() {
        none if none.is_empty() => none,
        some => format!("?{some}"),
    }
}

/// The parameters of a link to all lines.
pub(super) fn home(user: &str) -> String {
    link(&[("user", user)])
}

/// Reads a form.
pub(super) fn read_form(
    request: &RequestHead,
    body: &mut dyn RequestBody,
    known: &[&str],
) -> Result<Parameters, Refusal> {
    const FORM: &[u8] = b"application/x-www-form-urlencoded";
    let content_type = request.single("Content-Type").unwrap_or_default();
    let kind = content_type.split(|byte| *byte == b';').next();
    if !kind.is_some_and(|kind| kind.trim_ascii().eq_ignore_ascii_case(FORM)) {
        let sentence = "the body must be a form: application/x-www-form-urlencoded";
        return Err(Refusal::new(Status::UnsupportedMediaType, sentence));
    }
    let mut text = Vec::new();
    let read = body.take(FORM_BYTES_MAX as u64 + 1).read_to_end(&mut text);
    read.map_err(|error| body_refusal(&error))?;
    if text.len() > FORM_BYTES_MAX {
        let sentence = format!("the form exceeds {FORM_BYTES_MAX} bytes");
        return Err(Refusal::new(Status::ContentTooLarge, sentence));
    }
    Parameters::parse(&text, known)
}

fn bad(sentence: String) -> Refusal {
    Refusal::new(Status::BadRequest, sentence)
}
