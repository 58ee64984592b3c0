//! Which lines a request asks for, in the parameters of its query.

use std::ffi::OsStr;

use cli::args::moment_millis;
use cli::escape::Escaped;
use daemon::http::{Parameters, query};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use proto::Name;
use proto::history::{Filter, MATCH_BYTES_MAX, is_user_name};
use proto::http::{Refusal, RequestHead, Status};

/// The longest form, in bytes: the longest note, escaped in the history, and again in the form.
pub(super) const FORM_BYTES_MAX: usize = 256 * 1024;

/// How many lines JSON has unless told otherwise.
const LAST_DEFAULT: u64 = 200;

/// The moment with this name. A date without an offset is of UTC, as the times on the page.
fn moment(parameters: &Parameters, name: &'static str) -> Result<Option<u64>, Refusal> {
    let word = parameters.get(name);
    if word.is_empty() {
        return Ok(None);
    }
    let millis = moment_millis(name, OsStr::new(word), Timestamp::now(), &TimeZone::UTC);
    millis.map(Some).map_err(|error| bad(error.to_string()))
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
            since: moment(&parameters, "since")?.unwrap_or(Filter::ALL.since),
            until: moment(&parameters, "until")?.unwrap_or(Filter::ALL.until),
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
        query(&all)
    }
}

/// The parameters of a link to all lines.
pub(super) fn home(user: &str) -> String {
    query(&[("user", user)])
}

fn bad(sentence: String) -> Refusal {
    Refusal::new(Status::BadRequest, sentence)
}
