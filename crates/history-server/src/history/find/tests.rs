//! Tests of what is found, against a simple model.

use jiff::Timestamp;

use super::*;

/// Pseudo-random numbers, the same in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1);
        (self.0 >> 33) % end
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }
}

const USERS: [&str; 4] = ["alice", "bob", "bobby", "b"];

fn time(millis: u64) -> Timestamp {
    Timestamp::from_millisecond(millis as i64).unwrap()
}

/// A line of its own number, with its line feed.
fn line(dice: &mut Dice, number: u64) -> String {
    let when = match dice.below(8) {
        0 => "old".to_owned(),
        _ => format!("{:.3}", time(dice.below(100))),
    };
    let user = dice.one_of(&USERS);
    let what = match dice.below(100) {
        0 => "x".repeat(dice.below(3 * BLOCK_BYTES as u64) as usize),
        1 => return format!("#{number} {when}\n"),
        2 => return format!("#{number} \n"),
        3 => return format!("#{number} {when} p {user}\n"),
        _ => dice
            .one_of(&["2", "deployed by bob", "note 7 x", "note #7", "  b"])
            .repeat(1 + dice.below(40) as usize),
    };
    format!("#{number} {when} p {user} {what}\n")
}

fn filter(dice: &mut Dice) -> Filter<'static> {
    let mut limit = |or, end| match dice.below(3) {
        0 => dice.below(end),
        _ => or,
    };
    let all = Filter::ALL;
    Filter {
        last: limit(all.last, 100),
        since: limit(all.since, 120),
        until: limit(all.until, 120),
        by: Name(dice.one_of(&["", "", "alice", "b", "bob", "nobody"])),
        contains: dice.one_of(&[
            "", "", "7", "#7", "bob", "b ", "x x", "xx", "\n", "2\n#", "never",
        ]),
    }
}

fn naive(text: &str, filter: Filter) -> String {
    let meets = |line: &str| {
        let (_, record) = line.split_once(' ').unwrap();
        let words: Vec<_> = record.split(' ').collect();
        let time = words[0].parse::<Timestamp>().ok();
        let is_then = time.is_some_and(|time| {
            let millis = time.as_millisecond() as u64;
            filter.since <= millis && millis < filter.until
        });
        (is_then || (filter.since == 0 && filter.until == u64::MAX))
            && (filter.by.0.is_empty() || words.get(2) == Some(&filter.by.0))
            && record.contains(filter.contains)
    };
    let mut found: Vec<_> = (1..)
        .zip(text.lines())
        .filter(|(_, line)| meets(line))
        .collect();
    if filter.last > 0 {
        found.drain(..found.len().saturating_sub(filter.last as usize));
    }
    let numbered = |(number, line): (u64, &str)| {
        let (_, record) = line.split_once(' ').unwrap();
        format!("{number} {record}\n")
    };
    found.into_iter().map(numbered).collect()
}

/// Reads to the end, in pieces of at most this many bytes.
fn read(mut found: Found, bytes_max: usize) -> String {
    let mut text = Vec::new();
    loop {
        let before = text.len();
        found.put_piece(bytes_max, &mut text).unwrap();
        assert!(text.len() - before <= bytes_max);
        if text.len() == before {
            return String::from_utf8(text).unwrap();
        }
    }
}

#[track_caller]
fn check(text: &str, file: &FileRange, filter: Filter, bytes_max: usize) {
    let lines = text.lines().count() as u64;
    let found = Found::of(filter, file.clone(), lines).unwrap();
    let found = read(found, bytes_max);
    assert!(found == naive(text, filter), "{filter:?}, {bytes_max}");
}

#[test]
fn any_filter_finds_what_a_simple_search_finds() {
    for round in 0..60 {
        let mut dice = Dice(round);
        let (mut text, mut number) = (String::new(), 0);
        for _ in 0..dice.below(600) {
            number += 1 + dice.below(3);
            text.push_str(&line(&mut dice, number));
        }
        let file = FileRange::of_text(&text);
        for _ in 0..12 {
            let bytes_max = NUMBER_BYTES_MAX + 1 + dice.below(70_000) as usize;
            check(&text, &file, filter(&mut dice), bytes_max);
        }
    }
}

#[test]
fn lines_of_any_length_are_found() {
    // The second line begins and ends everywhere around the end of a block.
    for length in BLOCK_BYTES - 40..BLOCK_BYTES + 10 {
        let first = "x".repeat(length);
        let text = format!("#1 {first}\n#2 t p bob hello\n#3 {first}\n#4 t p bob 7\n");
        let file = FileRange::of_text(&text);
        for last in 0..4 {
            for contains in ["", "hello", "x", "7"] {
                let filter = Filter {
                    last,
                    contains,
                    ..Filter::ALL
                };
                check(&text, &file, filter, BLOCK_BYTES);
            }
        }
    }
}

#[test]
fn a_line_that_is_too_long_is_an_error() {
    let long = "x".repeat(2 * LINE_BYTES_MAX);
    let file = FileRange::of_text(&format!("#1 a\n#2 {long}\n#3 b\n"));
    let filter = |last| Filter {
        last,
        contains: "a",
        ..Filter::ALL
    };
    let all = Found::of(filter(0), file.clone(), 3).unwrap();
    let mut text = Vec::new();
    let put = { all }.put_piece(BLOCK_BYTES, &mut text);
    assert_eq!(put.unwrap_err().to_string(), "The history cannot be read.");
    assert!(Found::of(filter(1), file, 3).is_err());
}
