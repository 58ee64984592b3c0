//! The options of `send`: where the messages are read, and what they have beside their bodies.

use std::path::PathBuf;
use std::time::Duration;

use cli::args::Options;
use cli::{Args, UsageError};
use proto::queue::{BODY_BYTES_DEFAULT, BODY_BYTES_MAX, DURATION_MAX, Key, Priority, Properties};

use super::values::TIMES;
use crate::{Action, Send, Source};

/// The shortest expiry: 0 would be none.
const EXPIRY_MIN: Duration = Duration::from_millis(1);

pub(super) fn send(args: &mut Args) -> Result<Action, UsageError> {
    let Args { words, options } = args;
    let piece_end = match (options.flag("--lines"), options.flag("--null")) {
        (true, true) => {
            return Err(UsageError::Conflict(
                "--lines and --null exclude each other",
            ));
        }
        (true, false) => Some(b'\n'),
        (false, true) => Some(0),
        (false, false) => None,
    };
    let truncate = options.flag("--truncate");
    if truncate && piece_end.is_some() {
        let sentence = "--truncate is for a single message";
        return Err(UsageError::Conflict(sentence));
    }
    let bytes_max = options.size("--max-message", 1..=BODY_BYTES_MAX)?;
    let word = words.required("the FILE to send")?;
    Ok(Action::Send(Send {
        source: if word == "-" {
            Source::Stdin
        } else {
            Source::File(PathBuf::from(word))
        },
        piece_end,
        properties: properties(options)?,
        key: key(options, piece_end.is_some())?,
        body_bytes_max: bytes_max.unwrap_or(BODY_BYTES_DEFAULT),
        truncate,
    }))
}

/// A key is what makes one message the same message.
fn key(options: &mut Options, is_of_pieces: bool) -> Result<Option<String>, UsageError> {
    let Some(key) = options.value::<String>("--key", "text")? else {
        return Ok(None);
    };
    if is_of_pieces {
        return Err(UsageError::Conflict("--key is for a single message"));
    }
    match Key::new(&key) {
        Some(_) => Ok(Some(key)),
        None => {
            let sentence = "--key must be 1 to 255 bytes of text without control characters";
            Err(UsageError::Conflict(sentence))
        }
    }
}

fn properties(options: &mut Options) -> Result<Properties<'static>, UsageError> {
    let mut millis = |option, range| -> Result<u32, UsageError> {
        let time = options.duration(option, range)?.unwrap_or_default();
        Ok(u32::try_from(time.as_millis()).expect("49 days fit"))
    };
    Ok(Properties {
        delay_millis: millis("--delay", TIMES)?,
        expiry_millis: millis("--expires", EXPIRY_MIN..=DURATION_MAX)?,
        priority: options
            .number("--priority", 0..=u32::from(Priority::MAX))?
            .and_then(|priority| Priority::new(priority as u8))
            .unwrap_or_default(),
        attempts_max: options
            .number("--max-attempts", 1..=u32::MAX)?
            .unwrap_or_default(),
        key: None,
    })
}
