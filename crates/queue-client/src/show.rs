//! `peek`, `list` and `stats`: what looks and changes nothing.

use std::str;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use cli::ClientError;
use cli::stream::Output;
use proto::queue::{MessageState, QueueStats};
use serde_json::{Value, json};

use crate::{Config, Ending, Error, Peeked, Stats};

/// What to look at, and how it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peek {
    /// How many messages.
    pub count: u64,
    /// What ends each of them.
    pub ending: Ending,
    /// Whether each is a line of JSON instead, with all that is known of it.
    pub json: bool,
}

impl Peek {
    /// Writes the messages at the front of the queue. Each is written before the next one is fetched,
    /// because all of them together may not fit into memory.
    pub(crate) fn run(&self, config: &Config) -> Result<(), Error> {
        let mut out = cli::stream::output()?;
        let mut client = config.connect()?;
        let mut position = 0;
        for seen in 0..self.count {
            let Some(message) = client.peek_after(MessageState::Ready, position)? else {
                return if seen == 0 { Err(Error::Empty) } else { Ok(()) };
            };
            position = message.position;
            let written = match self.json {
                true => Ending::Line.write(&mut out, message_json(&message).to_string().as_bytes()),
                false => self.ending.write(&mut out, &message.body),
            };
            written.map_err(ClientError::Output)?;
            if !self.json {
                tell_attempts(&message);
            }
        }
        Ok(())
    }
}

/// Tells a person what the attempts of a message have come to, if there was one.
fn tell_attempts(message: &Peeked) {
    let Peeked {
        id,
        attempts,
        reason,
        ..
    } = message;
    match (attempts, reason.trim_end()) {
        (0, "") => log::debug!("Message {id} was never handed out"),
        (_, "") => log::info!("Message {id}, attempts: {attempts}"),
        (0, reason) => log::info!("Message {id}, attempts: 0; {reason}"),
        (_, reason) => log::info!("Message {id}, attempts: {attempts}, the last: {reason}"),
    }
}

/// All that is known of a message. What it does not have is null; a body that is no UTF-8 is in Base64,
/// under another name.
fn message_json(message: &Peeked) -> Value {
    let number = |number: u32| (number > 0).then_some(number);
    let mut json = json!({
        "id": message.id,
        "position": message.position,
        "priority": message.priority.get(),
        "key": message.key,
        "attempts": message.attempts,
        "attempts_max": number(message.attempts_max),
        "age_millis": message.age_millis,
        "delay_millis": number(message.delay_millis),
        "expiry_millis": number(message.expiry_millis),
        "reason": (!message.reason.is_empty()).then_some(&message.reason),
    });
    match str::from_utf8(&message.body) {
        Ok(body) => json["body"] = body.into(),
        Err(_) => json["body_base64"] = BASE64_STANDARD.encode(&message.body).into(),
    }
    json
}

const HEAD: &str = "name\tready\treserved\tdelayed\tdead\toldest";

/// Writes a line for each queue: aligned below a head on a terminal, else separated by tabs.
pub(crate) fn list(stats: &Stats, mut out: Output) -> Result<(), Error> {
    let lines: Vec<_> = stats.queues.iter().map(line).collect();
    let text = match out.is_terminal() {
        true => aligned(&lines),
        false => lines.concat(),
    };
    Ok(out.print(&text)?)
}

/// A queue's name, its counts, and the age of its oldest message in whole seconds.
fn line(queue: &QueueStats) -> String {
    let oldest = match queue.ready {
        0 => "-".to_owned(),
        1.. => (queue.oldest_millis / 1000).to_string(),
    };
    let counts = [queue.ready, queue.reserved, queue.delayed, queue.dead];
    let counts = counts.map(|count| count.to_string()).join("\t");
    let paused = if queue.is_paused { "\tpaused" } else { "" };
    format!("{}\t{counts}\t{oldest}{paused}\n", queue.name)
}

fn aligned(lines: &[String]) -> String {
    let all = || std::iter::once(HEAD).chain(lines.iter().map(String::as_str));
    let rows = || all().filter_map(|line| line.trim_end().split_once('\t'));
    let name_width = rows().map(|(name, _)| name.len()).max().unwrap_or_default();
    let row = |(name, rest): (&str, &str)| {
        let rest: String = rest.split('\t').map(|word| format!("{word:>9}")).collect();
        format!("{name:name_width$}{rest}\n")
    };
    rows().map(row).collect()
}

/// Writes the server's totals and its queues.
pub(crate) fn stats(stats: &Stats, mut out: Output, as_json: bool) -> Result<(), Error> {
    let text = match as_json {
        true => format!("{}\n", to_json(stats)),
        false => to_text(stats),
    };
    Ok(out.print(&text)?)
}

fn to_json(stats: &Stats) -> Value {
    let mut all = json!(stats.totals);
    all["queues"] = json!(stats.queues);
    all
}

/// A line for each number, as `NAME NUMBER` or `QUEUE: NAME NUMBER`.
fn to_text(stats: &Stats) -> String {
    let mut text = String::new();
    let mut add = |prefix: &str, object: &Value| {
        for (key, value) in object.as_object().into_iter().flatten() {
            if !value.is_array() && key != "name" {
                text.push_str(&format!("{prefix}{key} {value}\n"));
            }
        }
    };
    let json = to_json(stats);
    add("", &json);
    for queue in json["queues"].as_array().into_iter().flatten() {
        let name = queue["name"].as_str().unwrap_or_default();
        add(&format!("{name}: "), queue);
    }
    text
}

#[cfg(test)]
mod tests {
    use proto::queue::Priority;

    use crate::HeldBy;

    use super::*;

    #[test]
    fn a_message_as_json_has_all_that_is_known_of_it() {
        let mut message = Peeked {
            queue: "jobs".to_owned(),
            state: MessageState::Reserved,
            holder: Some(HeldBy::Connection {
                id: 4,
                peer: "127.0.0.1:5".to_owned(),
            }),
            position: 1 << 63,
            id: 7,
            attempts: 2,
            age_millis: 3,
            delay_millis: 0,
            priority: Priority::new(9).unwrap(),
            key: None,
            expiry_millis: 5,
            attempts_max: 0,
            reason: "exit status: 1: no\n".to_owned(),
            body: b"two\nlines".to_vec(),
        };
        let want = r#"{"age_millis":3,"attempts":2,"attempts_max":null,"body":"two\nlines","delay_millis":null,"expiry_millis":5,"id":7,"key":null,"position":9223372036854775808,"priority":9,"reason":"exit status: 1: no\n"}"#;
        assert_eq!(message_json(&message).to_string(), want);
        message.body = b"\xff".to_vec();
        let json = message_json(&message);
        assert_eq!(
            (json.get("body"), &json["body_base64"]),
            (None, &"/w==".into())
        );
    }

    #[test]
    fn a_list_for_people_is_aligned() {
        let queue = QueueStats {
            name: "a-long-name".into(),
            ready: 10,
            reserved: 2,
            delayed: 3,
            dead: 4,
            waiters: 0,
            oldest_millis: 65_999,
            oldest_reserved_millis: 0,
            is_paused: true,
        };
        let empty = QueueStats {
            name: "b".into(),
            ready: 0,
            is_paused: false,
            ..queue.clone()
        };
        let text = aligned(&[line(&queue), line(&empty)]);
        let want = "\
name           ready reserved  delayed     dead   oldest
a-long-name       10        2        3        4       65   paused
b                  0        2        3        4        -
";
        assert_eq!(text, want);
    }
}
