//! `peek`, `list` and `stats`: what looks and changes nothing.

use cli::ClientError;
use cli::stream::Output;
use proto::queue::QueueStats;
use serde_json::{Value, json};

use crate::{Client, Ending, Error, Stats};

/// Writes the messages at the front of the queue. Each is written before the next one is fetched,
/// because all of them together may not fit into memory.
pub(crate) fn peek(
    client: &mut Client,
    mut out: Output,
    count: u64,
    ending: &Ending,
) -> Result<(), Error> {
    let mut position = 0;
    for seen in 0..count {
        let Some(message) = client.peek_after(position)? else {
            return if seen == 0 { Err(Error::Empty) } else { Ok(()) };
        };
        position = message.position;
        log::debug!("{} was handed out {} times", message.id, message.attempts);
        let written = ending.write(&mut out, &message.body);
        written.map_err(ClientError::Output)?;
    }
    Ok(())
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
    use super::*;

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
