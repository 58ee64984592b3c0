//! Generated input against the parsers: none of them panics, no result depends on the pieces in which the
//! input arrives, and none accepts what a second, simpler reading of the standards refuses.

mod fields;
mod forms;
mod framing;

use std::io::{self, Read};
use std::ops::Range;

/// How many inputs each test generates.
const ROUNDS: usize = 1000;

/// Reproducible noise: xorshift64*.
struct Noise(u64);

impl Noise {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) as usize % bound
    }

    fn within(&mut self, range: Range<usize>) -> usize {
        range.start + self.below(range.len())
    }

    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }

    /// A random sequence of these tokens.
    fn soup(&mut self, tokens: &[&[u8]], count: Range<usize>) -> Vec<u8> {
        let count = self.within(count);
        (0..count)
            .flat_map(|_| self.pick(tokens))
            .copied()
            .collect()
    }

    /// Removes, inserts or changes some bytes.
    fn mutate(&mut self, bytes: &mut Vec<u8>, tokens: &[&[u8]]) {
        for _ in 0..self.below(3) {
            let at = self.below(bytes.len() + 1);
            let end = (at + self.below(4)).min(bytes.len());
            let new = match self.below(3) {
                0 => Vec::new(),
                1 => vec![self.below(256) as u8],
                _ => self.pick(tokens).to_vec(),
            };
            bytes.splice(at..end, new);
        }
    }
}

/// An input that arrives in pieces of random size.
struct Pieces<'a> {
    rest: &'a [u8],
    noise: Noise,
    bytes_max: usize,
}

impl<'a> Pieces<'a> {
    fn new(rest: &'a [u8], noise: &mut Noise) -> Self {
        let bytes_max = noise.pick(&[&1, &2, &7, &100, &100_000]);
        let noise = Noise(noise.0);
        Self {
            rest,
            noise,
            bytes_max: *bytes_max,
        }
    }
}

impl Read for Pieces<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.noise.below(8) == 0 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let bytes = self.noise.within(1..self.bytes_max + 1).min(out.len());
        self.rest.read(&mut out[..bytes])
    }
}

/// Reads to the end in pieces of random size.
fn read_all(input: &mut impl Read, noise: &mut Noise) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    let mut piece = vec![0; noise.within(1..300)];
    loop {
        let room = noise.within(1..piece.len() + 1);
        match input.read(&mut piece[..room]) {
            Ok(0) => return Ok(all),
            Ok(bytes) => all.extend_from_slice(&piece[..bytes]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
