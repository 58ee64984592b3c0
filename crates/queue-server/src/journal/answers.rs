//! What was answered to the last requests of each session, on the disk: the table `answers`, a log of which
//! each commit adds one row. So a session costs a commit some bytes at the end of one page, however many
//! sessions there are.
//!
//! Rows are only added at the end and removed at the front. When most of what is in them cannot be asked
//! again, the oldest rows are removed, a few in each commit, and what of them can be is written once more.

use std::collections::VecDeque;

use proto::queue::Token;
use uuid::Uuid;

use super::live::LiveQueues;
use crate::sessions::{Answer, Answered};

/// How many answers may be in the table beyond twice those that are needed.
const SLACK: usize = 4096;

/// How many rows are removed in one commit at most.
const REMOVED_MAX: usize = 2;

/// The answers in the table.
#[derive(Default)]
pub(super) struct Answers {
    /// The rows, from the oldest on, and how many answers are in each.
    rows: VecDeque<(i64, usize)>,
    count: usize,
}

/// What a transaction changes in the table. It counts when that is committed.
pub(super) struct Step {
    /// The rows that are removed, from the oldest on. [`Step::keep`] is told what was in each.
    pub(super) removed: Vec<i64>,
    /// The number of the row that is added.
    row: i64,
    answers: Vec<Answered>,
}

/// A row of the table.
pub(super) struct Columns<'r> {
    pub(super) row: i64,
    /// The CRC-32 of the row's number and the answers.
    pub(super) crc: i64,
    pub(super) answers: &'r [u8],
}

impl Answers {
    /// Tells the queues what is in a row, which is behind all before. Returns whether it is undamaged.
    pub(super) fn restore(&mut self, columns: &Columns, queues: &dyn LiveQueues) -> bool {
        let &Columns { row, crc, answers } = columns;
        let is_whole = crc == checksum(row, answers);
        let Some(found) = is_whole.then(|| decode(answers)).flatten() else {
            return false;
        };
        found.iter().for_each(|one| queues.restore_answer(one));
        self.add(row, found.len());
        true
    }

    fn add(&mut self, row: i64, count: usize) {
        self.rows.push_back((row, count));
        self.count += count;
    }

    /// What a transaction with these answers changes; `None` if there are none.
    pub(super) fn step(&self, queues: &dyn LiveQueues, answers: Vec<Answered>) -> Option<Step> {
        if answers.is_empty() {
            return None;
        }
        let mut step = Step {
            removed: Vec::new(),
            row: self.rows.back().map_or(1, |(row, _)| row + 1),
            answers,
        };
        if self.count > SLACK {
            let needed = 2 * queues.answers_max() + SLACK;
            let mut count = self.count;
            for (row, in_row) in self.rows.iter().take(REMOVED_MAX) {
                if count <= needed {
                    break;
                }
                count -= in_row;
                step.removed.push(*row);
            }
        }
        Some(step)
    }

    /// Notes what was committed.
    pub(super) fn note(&mut self, step: &Step) {
        for (_, count) in self.rows.drain(..step.removed.len()) {
            self.count -= count;
        }
        self.add(step.row, step.answers.len());
    }
}

impl Step {
    /// Writes once more what was in a row that is removed and may be asked again.
    pub(super) fn keep(&mut self, answers: &[u8], queues: &dyn LiveQueues) {
        let found = decode(answers).unwrap_or_default();
        let kept = found.into_iter().filter(|one| queues.may_repeat(one));
        self.answers.extend(kept);
    }

    /// What is in the row that is added.
    pub(super) fn encode(&self) -> Vec<u8> {
        encode(&self.answers)
    }

    /// The row that is added, with what is in it.
    pub(super) fn columns<'r>(&self, answers: &'r [u8]) -> Columns<'r> {
        let row = self.row;
        Columns {
            row,
            crc: checksum(row, answers),
            answers,
        }
    }
}

fn checksum(row: i64, bytes: &[u8]) -> i64 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&row.to_be_bytes());
    crc.update(bytes);
    i64::from(crc.finalize())
}

/// That an answer is to the next request of the session before it, which is then left out.
const IS_NEXT: u8 = 0x80;

fn encode(answers: &[Answered]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut last: Option<&Answered> = None;
    for one in answers {
        let is_next = last.is_some_and(|last| {
            last.session == one.session && last.number.checked_add(1) == Some(one.number)
        });
        let (tag, value) = match one.answer {
            Answer::Stored(id) => (0, id),
            Answer::StoredBefore(id) => (1, id),
            Answer::Done(messages) => (2, messages),
            Answer::Delivered(id) => (3, id),
            Answer::Leased(_, queue_index) => (4, queue_index.into()),
        };
        out.push(tag | if is_next { IS_NEXT } else { 0 });
        if !is_next {
            out.extend_from_slice(one.session.as_bytes());
            put_number(&mut out, one.number);
        }
        put_number(&mut out, value);
        if let Answer::Leased(token, _) = one.answer {
            out.extend_from_slice(token.as_bytes());
        }
        last = Some(one);
    }
    out
}

/// `None` if it cannot be right.
fn decode(mut bytes: &[u8]) -> Option<Vec<Answered>> {
    let mut answers: Vec<Answered> = Vec::new();
    while let Some((tag, rest)) = bytes.split_first() {
        bytes = rest;
        let (session, number) = if tag & IS_NEXT == 0 {
            (take_uuid(&mut bytes)?, take_number(&mut bytes)?)
        } else {
            let last = answers.last()?;
            (last.session, last.number.checked_add(1)?)
        };
        let value = take_number(&mut bytes)?;
        let answer = match tag & !IS_NEXT {
            0 => Answer::Stored(value),
            1 => Answer::StoredBefore(value),
            2 => Answer::Done(value),
            3 => Answer::Delivered(value),
            4 => {
                let token: Token = take_uuid(&mut bytes)?;
                Answer::Leased(token, u8::try_from(value).ok()?)
            }
            5.. => return None,
        };
        answers.push(Answered {
            session,
            number,
            answer,
        });
    }
    Some(answers)
}

/// Appends a number, seven bits a byte; the last byte has no high bit (LEB128).
fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..u64::BITS).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn take_uuid(bytes: &mut &[u8]) -> Option<Uuid> {
    let (uuid, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(Uuid::from_bytes(*uuid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_an_answer_behind_another_is_short() {
        let [one, two] = [1, 2].map(Uuid::from_u128);
        let answered = |session, number, answer| Answered {
            session,
            number,
            answer,
        };
        let token = Token::from_u128(u128::MAX);
        let all = [
            answered(one, 7, Answer::Stored(300)),
            answered(one, 8, Answer::Stored(301)),
            answered(two, 9, Answer::StoredBefore(u64::MAX)),
            answered(two, 11, Answer::Leased(token, 3)),
            answered(one, u64::MAX, Answer::Done(0)),
            answered(one, 0, Answer::Delivered(1)),
        ];
        assert_eq!(decode(&encode(&all)).unwrap(), all);
        let length = |count| encode(&all[..count]).len();
        assert_eq!((length(1), length(2)), (20, 23));
        let bytes = encode(&all);
        for at in 0..bytes.len() {
            // None of them panics, and a flipped byte is found by the checksum.
            let _ = decode(&bytes[..at]);
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x80;
            let _ = decode(&flipped);
            assert_ne!(checksum(1, &flipped), checksum(1, &bytes));
        }
        assert_eq!(decode(&[0x85]), None);
        assert_eq!(decode(&[5]), None);
    }
}
