//! `list` and `stats`: what looks at the queues and changes nothing.

use std::fmt::Write as _;
use std::time::Duration;

use cli::stream::Output;
use proto::queue::{QueueName, QueueStats};
use serde_json::{Value, json};

use crate::{Client, Config, Error, Stats};

/// How the queues are shown, and what there may be of their messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct List {
    /// Whether each queue is a line of JSON.
    pub json: bool,
    /// How many messages a queue may have ready.
    pub ready_max: Option<u64>,
    /// How old a message may be that is ready or reserved.
    pub age_max: Option<Duration>,
}

impl List {
    pub(crate) fn run(&self, config: &Config) -> Result<(), Error> {
        let mut out = cli::stream::output()?;
        let stats = config.ask(Client::stats)?;
        out.print(&self.text(&stats, out.is_terminal()))?;
        let beyond: Vec<_> = stats
            .queues
            .iter()
            .filter_map(|queue| self.beyond(queue))
            .collect();
        if beyond.is_empty() {
            Ok(())
        } else {
            Err(Error::Beyond(beyond))
        }
    }

    /// A line for each queue: aligned below a head on a terminal, else separated by tabs.
    fn text(&self, stats: &Stats, is_terminal: bool) -> String {
        let lines = || stats.queues.iter().map(line).collect::<Vec<_>>();
        match (self.json, is_terminal) {
            (true, _) => stats
                .queues
                .iter()
                .map(|queue| format!("{}\n", json!(queue)))
                .collect(),
            (false, true) => aligned(&lines()),
            (false, false) => lines().concat(),
        }
    }

    /// Why a queue has more than it may have, or older. Dead letters wait for a person, as long as that takes.
    fn beyond(&self, queue: &QueueStats) -> Option<String> {
        let is_dead = QueueName::new(&queue.name).is_ok_and(QueueName::is_dead);
        let mut why = Vec::new();
        if let Some(max) = self.ready_max.filter(|max| queue.ready > *max) {
            why.push(format!("{} are ready (--max-ready {max})", queue.ready));
        }
        if let Some(max) = self.age_max {
            let ages = [
                ("ready", queue.oldest_millis),
                ("reserved", queue.oldest_reserved_millis),
            ];
            for (state, millis) in ages {
                if Duration::from_millis(millis) > max {
                    let (age, max) = (millis / 1000, max.as_secs());
                    why.push(format!(
                        "the oldest {state} is {age} s old (--max-age {max}s)"
                    ));
                }
            }
        }
        let is_beyond = !is_dead && !why.is_empty();
        is_beyond.then(|| format!("in '{}' {}", queue.name, why.join(", ")))
    }
}

const HEAD: &str = "name\tready\treserved\tdelayed\tdead\toldest ready\toldest reserved";

/// A queue's name, its counts, and the ages of its oldest messages that are ready and reserved, in whole seconds.
fn line(queue: &QueueStats) -> String {
    let age = |count, millis: u64| match count {
        0 => "-".to_owned(),
        1.. => (millis / 1000).to_string(),
    };
    let counts = [queue.ready, queue.reserved, queue.delayed, queue.dead];
    let counts = counts.map(|count| count.to_string());
    let ages = [
        age(queue.ready, queue.oldest_millis),
        age(queue.reserved, queue.oldest_reserved_millis),
    ];
    let mut line = queue.name.to_string();
    for word in counts.iter().chain(&ages) {
        let _ = write!(line, "\t{word}");
    }
    let paused = if queue.is_paused { "\tpaused" } else { "" };
    format!("{line}{paused}\n")
}

fn aligned(lines: &[String]) -> String {
    let all = std::iter::once(HEAD).chain(lines.iter().map(String::as_str));
    let rows: Vec<Vec<_>> = all
        .map(|line| line.trim_end().split('\t').collect())
        .collect();
    let mut widths = Vec::new();
    for row in &rows {
        widths.resize(row.len().max(widths.len()), 0);
        for (width, word) in widths.iter_mut().zip(row) {
            *width = word.len().max(*width);
        }
    }
    let mut text = String::new();
    for row in rows {
        for (at, (word, width)) in row.iter().zip(&widths).enumerate() {
            let _ = match at {
                0 => write!(text, "{word:width$}"),
                1.. => write!(text, "  {word:>width$}"),
            };
        }
        text.push('\n');
    }
    text
}

/// Writes the server's totals and its queues.
pub(crate) fn stats(stats: &Stats, mut out: Output, as_json: bool) -> Result<(), Error> {
    let text = if as_json {
        format!("{}\n", to_json(stats))
    } else {
        to_text(stats)
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

    fn queue(name: &'static str) -> QueueStats<'static> {
        QueueStats {
            name: name.into(),
            ready: 10,
            reserved: 2,
            delayed: 3,
            dead: 4,
            waiters: 0,
            oldest_millis: 65_999,
            oldest_reserved_millis: 601_000,
            is_paused: true,
        }
    }

    #[test]
    fn a_list_for_people_is_aligned() {
        let empty = QueueStats {
            name: "b".into(),
            ready: 0,
            reserved: 0,
            is_paused: false,
            ..queue("")
        };
        let text = aligned(&[line(&queue("a-long-name")), line(&empty)]);
        let want = "\
name         ready  reserved  delayed  dead  oldest ready  oldest reserved
a-long-name     10         2        3     4            65              601  paused
b                0         0        3     4             -                -
";
        assert_eq!(text, want);
    }

    #[test]
    fn what_is_beyond_the_limits_is_said() {
        let check = |ready_max, age_max: Option<u64>, name, want: Option<&str>| {
            let list = List {
                json: false,
                ready_max,
                age_max: age_max.map(Duration::from_secs),
            };
            assert_eq!(list.beyond(&queue(name)).as_deref(), want);
        };
        check(None, None, "q", None);
        check(Some(10), Some(601), "q", None);
        check(Some(9), None, "q.dead", None);
        check(
            Some(9),
            None,
            "q",
            Some("in 'q' 10 are ready (--max-ready 9)"),
        );
        let old = "in 'q' the oldest reserved is 601 s old (--max-age 600s)";
        check(None, Some(600), "q", Some(old));
        let both = "in 'q' 10 are ready (--max-ready 0), the oldest ready is 65 s old (--max-age 0s), \
                    the oldest reserved is 601 s old (--max-age 0s)";
        check(Some(0), Some(0), "q", Some(both));
    }
}
