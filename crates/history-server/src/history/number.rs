//! The number of a line, as decimal digits.
//!
//! A long history is read as fast as its lines are numbered, so the number is kept in digits and
//! counted up in place. To format each number takes twice as long.

/// The most bytes of a number and the space behind it. A file has fewer bytes, and so fewer lines,
/// than 19 digits can count.
pub(super) const NUMBER_BYTES_MAX: usize = 20;

/// The number of a line, as decimal digits.
///
/// The last digit stands apart, because it changes from line to line: a processor that has just
/// written one byte waits before it copies that byte together with others.
pub(super) struct Number {
    /// The digits before the last one, from the left.
    tens: [u8; NUMBER_BYTES_MAX],
    tens_len: usize,
    ones: u8,
}

impl Number {
    pub(super) fn new(number: u64) -> Self {
        let mut tens = [b'0'; NUMBER_BYTES_MAX];
        let digits = match number / 10 {
            0 => String::new(),
            number => number.to_string(),
        };
        tens[..digits.len()].copy_from_slice(digits.as_bytes());
        Self {
            tens,
            tens_len: digits.len(),
            ones: b'0' + (number % 10) as u8,
        }
    }

    /// Appends the number and a space.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        let tens_end = out.len() + self.tens_len;
        // The whole array, cut afterwards: a copy of a fixed length needs no call.
        out.extend_from_slice(&self.tens);
        out.truncate(tens_end);
        out.extend_from_slice(&[self.ones, b' ']);
    }

    pub(super) fn count_up(&mut self) {
        if self.ones < b'9' {
            self.ones += 1;
            return;
        }
        self.ones = b'0';
        let tens = &mut self.tens[..self.tens_len];
        for digit in tens.iter_mut().rev() {
            if *digit < b'9' {
                *digit += 1;
                return;
            }
            *digit = b'0';
        }
        // All digits were nines and are zeros now: one more digit, and the first of them is a one.
        self.tens_len += 1;
        self.tens[0] = b'1';
    }
}
