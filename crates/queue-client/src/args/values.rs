//! Values that several verbs take: names of queues, tokens, lease times, reasons.

use std::ffi::OsStr;
use std::ops::RangeInclusive;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use cli::args::{Options, duration, value};
use cli::{UsageError, Words};
use proto::queue::{DURATION_MAX, NAME_BYTES_MAX, QUEUES_ASKED_MAX, QueueName};

use crate::TokenSource;

/// The shortest and the longest delay, wait or lease.
pub(super) const TIMES: RangeInclusive<Duration> = Duration::ZERO..=DURATION_MAX;

pub(super) fn reason(options: &mut Options) -> Result<String, UsageError> {
    let text = options.value("--reason", "a text in UTF-8")?;
    Ok(text.unwrap_or_default())
}

pub(super) fn token(words: &mut Words) -> Result<TokenSource, UsageError> {
    let word = words.required("the TOKEN")?;
    if word == "-" {
        return Ok(TokenSource::Stdin);
    }
    let token = value("TOKEN", &word, "what lease has printed")?;
    Ok(TokenSource::Given(token))
}

pub(super) fn lease_time(words: &mut Words) -> Result<Duration, UsageError> {
    duration("TIME", &words.required("the TIME of the lease")?, TIMES)
}

pub(super) fn queue_names(word: &OsStr) -> Result<Vec<String>, UsageError> {
    let names = word.as_bytes().split(|byte| *byte == b',');
    let names: Vec<_> = names
        .map(|name| queue_name("--queue", OsStr::from_bytes(name)))
        .collect::<Result<_, _>>()?;
    match names.len() {
        ..=QUEUES_ASKED_MAX => Ok(names),
        count => {
            let want = format!("at most {QUEUES_ASKED_MAX} names");
            Err(UsageError::value(
                "--queue",
                OsStr::new(&count.to_string()),
                want,
            ))
        }
    }
}

pub(super) fn queue_name(what: &'static str, word: &OsStr) -> Result<String, UsageError> {
    let name = word.to_str().unwrap_or_default();
    match QueueName::new(name) {
        Ok(name) => Ok(name.as_str().to_owned()),
        Err(_) => {
            let want = format!("1 to {NAME_BYTES_MAX} of A-Z a-z 0-9 . _ -");
            Err(UsageError::value(what, word, want))
        }
    }
}
