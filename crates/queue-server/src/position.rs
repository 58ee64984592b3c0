//! Where a message stands in its queue: its priority, and the moment it entered.

use proto::queue::Priority;

use crate::clock::Micros;

/// How far the moments of one priority lie before those of the next lower one, in powers of two. So a
/// moment is below 2^59 microseconds, which is the year 20,237.
const PRIORITY_BITS: u32 = 59;

/// The latest moment.
const MOMENT_MAX: Micros = (1 << PRIORITY_BITS) - 1;

/// Where a message stands in its queue. The lowest is next.
///
/// It is the moment the message entered, made unique, less 2^59 for each step of its priority: so a higher
/// priority comes first, and within one the first in is the first out. Both are in one number, so a
/// priority costs no memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position(i64);

impl Position {
    /// In front of all messages.
    pub(crate) const FRONT: Self = Self(i64::MIN);

    /// The position of a message of this priority that enters its queue at this moment.
    pub(crate) fn new(priority: Priority, moment: Micros) -> Self {
        let ahead = i64::from(priority.get()) << PRIORITY_BITS;
        Self(moment.min(MOMENT_MAX).cast_signed() - ahead)
    }

    /// The same priority at another moment.
    pub(crate) fn at(self, moment: Micros) -> Self {
        Self::new(self.priority(), moment)
    }

    /// The moment that it was made of.
    pub(crate) fn moment(self) -> Micros {
        self.0.cast_unsigned() & MOMENT_MAX
    }

    pub(crate) fn priority(self) -> Priority {
        Self::priority_of(self.0).unwrap_or_default()
    }

    /// `None` if no position is this number.
    fn priority_of(number: i64) -> Option<Priority> {
        let priority = u8::try_from(-(number >> PRIORITY_BITS)).ok()?;
        Priority::new(priority)
    }

    /// The number that the database has of it. A moment alone is a position without a priority.
    pub(crate) fn to_number(self) -> i64 {
        self.0
    }

    /// The position with this number in the database, if there is one.
    pub(crate) fn from_number(number: i64) -> Option<Self> {
        Self::priority_of(number).map(|_| Self(number))
    }

    /// What a peer is told of it: a number of the same order.
    pub(crate) fn to_wire(self) -> u64 {
        self.0.cast_unsigned() ^ (1 << 63)
    }

    /// Whatever a peer says is a place to look behind.
    pub(crate) fn from_wire(number: u64) -> Self {
        Self((number ^ (1 << 63)).cast_signed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_higher_priority_is_before_every_moment_of_a_lower_one() {
        let priorities = (0..=Priority::MAX).filter_map(Priority::new);
        let all: Vec<_> = priorities
            .map(|one| (Position::new(one, 0), Position::new(one, MOMENT_MAX), one))
            .collect();
        for (first, last, priority) in &all {
            for position in [*first, *last] {
                assert_eq!(position.priority(), *priority);
                assert_eq!(Position::from_number(position.to_number()), Some(position));
                assert_eq!(Position::from_wire(position.to_wire()), position);
                assert!(position > Position::FRONT);
                assert_eq!(position.at(7), Position::new(*priority, 7));
            }
            assert_eq!((first.moment(), last.moment()), (0, MOMENT_MAX));
        }
        assert!(all.is_sorted_by(|(first_of_low, ..), (_, last_of_high, _)| last_of_high < first_of_low));
        assert_eq!(Position::new(Priority::default(), 5).to_number(), 5);
        assert_eq!(
            Position::new(Priority::default(), u64::MAX).moment(),
            MOMENT_MAX
        );
        assert_eq!(Position::FRONT.to_wire(), 0);
        assert!(Position::from_wire(1) < Position::from_wire(2));
    }

    #[test]
    fn a_number_that_no_position_has_is_none() {
        for number in [
            i64::MIN,
            i64::MAX,
            1 << 59,
            -(10_i64 << 59),
            -(9_i64 << 59) - 1,
        ] {
            assert_eq!(Position::from_number(number), None, "{number}");
        }
    }
}
