//! The number of a line, counted in digits.

/// The most that a line's number and the space behind it take, in bytes. No file has more bytes, let
/// alone lines, than 19 digits can count.
pub(super) const NUMBER_BYTES_MAX: usize = 20;

/// The number of a line, in digits: counting in digits saves formatting each number.
///
/// The last digit stands apart, for it changes from line to line, and a processor that copies several
/// bytes at once waits if it has only just written one of them.
pub(super) struct Number {
    /// The digits before the last one, from the left.
    tens: [u8; NUMBER_BYTES_MAX],
    tens_len: usize,
    ones: u8,
}

impl Number {
    pub(super) fn one() -> Self {
        Self {
            tens: [b'0'; NUMBER_BYTES_MAX],
            tens_len: 0,
            ones: b'1',
        }
    }

    /// Appends the number and a space.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        let tens_end = out.len() + self.tens_len;
        // All of the array, and then cut: a copy of a fixed length needs no call.
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
        // All were nines and are zeros now, like the one that comes to them; the first is a one.
        self.tens_len += 1;
        self.tens[0] = b'1';
    }
}
