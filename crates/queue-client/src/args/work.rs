//! The options of `work`: how many jobs, until when, and what a failed one means.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use cli::UsageError;
use cli::args::{Options, duration, number};
use proto::queue::DURATION_MAX;

use super::values::TIMES;
use crate::work::JOBS_MAX;
use crate::{Action, Backoff, Work};

/// The shortest time limit: 0 would be none.
const TIME_LIMIT_MIN: Duration = Duration::from_millis(1);

pub(super) fn work(options: &mut Options, command: Vec<OsString>) -> Result<Action, UsageError> {
    let jobs = options.number("--jobs", 1..=JOBS_MAX)?;
    let once = options.flag("--once");
    let drain = options.flag("--drain");
    let wait = options.duration("--wait", TIMES)?;
    if drain && (once || wait.is_some()) {
        let sentence = "--drain ends when the queue is empty, without --once and --wait";
        return Err(UsageError::Conflict(sentence));
    }
    if once && jobs.is_some_and(|jobs| jobs > 1) {
        let sentence = "--once takes one message, so --jobs is 1";
        return Err(UsageError::Conflict(sentence));
    }
    let dead_on = exit_codes("--dead-on", options)?;
    let uncounted_on = exit_codes("--uncounted-on", options)?;
    if dead_on.iter().any(|code| uncounted_on.contains(code)) {
        let sentence = "no exit code can be in both --dead-on and --uncounted-on";
        return Err(UsageError::Conflict(sentence));
    }
    let mut command = command.into_iter();
    let missing = UsageError::Missing("the COMMAND, behind --,");
    Ok(Action::Work(Work {
        jobs: jobs.unwrap_or(1),
        once,
        drain,
        wait: wait.or((once || drain).then_some(Duration::ZERO)),
        backoff: backoff(options)?,
        dead_on,
        uncounted_on,
        time_limit: options.duration("--time-limit", TIME_LIMIT_MIN..=DURATION_MAX)?,
        command: command.next().ok_or(missing)?,
        args: command.collect(),
    }))
}

/// How long a failed message is delayed, as one duration or two.
fn backoff(options: &mut Options) -> Result<Backoff, UsageError> {
    let delay = options.duration("--retry-delay", TIMES)?;
    let word = options.raw("--backoff");
    let word = match (word, delay) {
        (Some(word), None) => word,
        (None, delay) => return Ok(delay.map(Backoff::constant).unwrap_or_default()),
        (Some(_), Some(_)) => {
            let sentence = "--retry-delay D is --backoff D..D, so give one of them";
            return Err(UsageError::Conflict(sentence));
        }
    };
    let one = |word: &str| duration("--backoff", OsStr::new(word), TIMES);
    let text = word.to_str().unwrap_or_default();
    let (min, max) = match text.split_once("..") {
        Some((min, max)) => (one(min)?, one(max)?),
        None => (one(text)?, one(text)?),
    };
    if min <= max {
        Ok(Backoff { min, max })
    } else {
        let want = "the shortest delay before the longest, such as 5s..10m";
        Err(UsageError::value("--backoff", &word, want))
    }
}

fn exit_codes(option: &'static str, options: &mut Options) -> Result<Vec<u8>, UsageError> {
    let Some(word) = options.raw(option) else {
        return Ok(Vec::new());
    };
    let codes = word.as_bytes().split(|byte| *byte == b',');
    let code = |code| -> Result<u8, UsageError> {
        let code = number(option, OsStr::from_bytes(code), 1..=u32::from(u8::MAX))?;
        Ok(u8::try_from(code).expect("it is in the range"))
    };
    codes.map(code).collect()
}
