//! Whose password is hashed next, and how long an address waits that has sent wrong ones.
//!
//! One password is hashed at a time, so that guesses use at most one processor. Of those that wait, the
//! source with the fewest wrong passwords is first: two connections of one address guess no faster
//! than one. Of those with equally few, the network with the fewest is first, because many addresses of
//! one owner are neighbours. A long password takes several times as long to hash, so the short ones are
//! first of what is left. Of a crowd from everywhere that is all new, the oldest and the newest are first
//! in turn, so it delays neither who came before it nor who comes behind it.
//!
//! **How long a first login waits.** If its network has sent no wrong password, for at most one guess
//! of each other such network: for 50, if 50 addresses in as many networks guess, and for 4, if 800
//! addresses in 4 networks do. A guess takes a few milliseconds at the usual 5,000 rounds. Of guesses with
//! longer passwords it waits for the one that is being checked alone.
//!
//! After 16 wrong passwords a source must wait before the next one is hashed: a second, then two, four,
//! up to a minute. A wrong password is forgiven after a minute.

use std::collections::HashMap;
use std::sync::Mutex;
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crate::lock;
use crate::peer::Source;

use super::LoginError;

/// The wrong passwords that a source may send before it has to wait...
const WRONG_FREE: u32 = 16;

/// ...for this long, and twice as long after each further one...
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// ...up to this...
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// ...which is also how long it takes until one is forgiven.
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);

/// Passwords are as dear as others if they have as many whole pieces of this length, in bytes. Each takes
/// about one more block of SHA-512 in each round.
const PASSWORD_PIECE_BYTES: usize = 64;

/// The most passwords of one source that wait for their turn. Each holds a connection.
const WAITING_MAX: usize = 256;

/// The longest wait for a turn. So long nobody waits who types.
const TURN_WAIT: Duration = Duration::from_secs(30);

/// The most sources that are remembered, and as many networks. One more replaces the one that is
/// forgiven first.
const SOURCES_MAX: usize = 4096;

/// The guesses of all sources.
#[derive(Default)]
pub(super) struct Guesses(Mutex<State>);

#[derive(Default)]
struct State {
    sources: Tally,
    /// The same by [`Source::network`]. It makes nobody wait, and only decides who is first.
    networks: Tally,
    /// The ticket whose password is hashed now.
    turn: Option<u64>,
    waiting: Vec<Ticket>,
    next_number: u64,
    /// Whether the newest of equals is next, and not the oldest.
    is_newest_next: bool,
}

/// Who has sent wrong passwords.
#[derive(Default)]
struct Tally(HashMap<Source, Wrong>);

/// A thread that waits for its turn.
struct Ticket {
    number: u64,
    from: Source,
    /// How many pieces the password has.
    pieces: usize,
    thread: Thread,
}

/// The wrong passwords of one source or network.
struct Wrong {
    /// When the last one was sent.
    last: Instant,
    /// When all of them are forgiven.
    forgiven_at: Instant,
}

/// A password that is checked now. Dropping it counts it as wrong, and lets the next one have its turn.
#[must_use = "it is right, or it counts as wrong"]
pub(super) struct Guess<'g> {
    guesses: &'g Guesses,
    from: Source,
    is_right: bool,
}

impl Guesses {
    /// Waits until a password of this source and this length may be checked, or until its connection is
    /// gone; the thread is unparked then.
    ///
    /// # Errors
    /// [`LoginError::Wait`], [`LoginError::Busy`] or [`LoginError::Gone`].
    pub(super) fn begin(
        &self,
        from: Source,
        password_bytes: usize,
        is_gone: &dyn Fn() -> bool,
    ) -> Result<Guess<'_>, LoginError> {
        let mut state = lock(&self.0);
        state.check(from)?;
        let waiting = state.waiting.iter().filter(|ticket| ticket.from == from);
        if waiting.count() >= WAITING_MAX {
            return Err(LoginError::Busy);
        }
        let number = state.next_number;
        state.next_number += 1;
        if state.turn.is_none() {
            state.turn = Some(number);
        } else {
            let thread = thread::current();
            state.waiting.push(Ticket {
                number,
                from,
                pieces: password_bytes / PASSWORD_PIECE_BYTES,
                thread,
            });
        }
        let deadline = Instant::now() + TURN_WAIT;
        while state.turn != Some(number) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || is_gone() {
                state.waiting.retain(|ticket| ticket.number != number);
                return Err(match left.is_zero() {
                    true => LoginError::Busy,
                    false => LoginError::Gone,
                });
            }
            drop(state);
            thread::park_timeout(left);
            state = lock(&self.0);
        }
        // Its other connections may have failed meanwhile, and this one may be lost.
        let checked = match is_gone() {
            true => Err(LoginError::Gone),
            false => state.check(from),
        };
        if let Err(error) = checked {
            state.pass_turn();
            return Err(error);
        }
        Ok(Guess {
            guesses: self,
            from,
            is_right: false,
        })
    }
}

impl Guess<'_> {
    /// The password is right, and does not count.
    pub(super) fn forgive(mut self) {
        self.is_right = true;
    }
}

impl Drop for Guess<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.guesses.0);
        if !self.is_right {
            let now = Instant::now();
            state.sources.add(self.from, now);
            state.networks.add(self.from.network(), now);
        }
        state.pass_turn();
    }
}

impl State {
    /// Whether this source may guess; the error is how long it must wait.
    fn check(&self, from: Source) -> Result<(), LoginError> {
        let now = Instant::now();
        let wrong = self.sources.0.get(&from);
        let wait = wrong.map_or(Duration::ZERO, |wrong| wrong.wait(now));
        match wait.is_zero() {
            true => Ok(()),
            false => Err(LoginError::Wait(wait)),
        }
    }

    /// Wakes the thread whose turn is next.
    fn pass_turn(&mut self) {
        let now = Instant::now();
        let is_newest_next = self.is_newest_next;
        self.is_newest_next = !is_newest_next;
        let rank = |ticket: &Ticket| {
            let of_source = self.sources.count(ticket.from, now);
            let of_network = self.networks.count(ticket.from.network(), now);
            let age = match is_newest_next {
                true => u64::MAX - ticket.number,
                false => ticket.number,
            };
            (of_source, of_network, ticket.pieces, age)
        };
        let next = (self.waiting.iter().enumerate())
            .min_by_key(|(_, ticket)| rank(ticket))
            .map(|(at, _)| at);
        let next = next.map(|at| self.waiting.swap_remove(at));
        self.turn = next.as_ref().map(|ticket| ticket.number);
        if let Some(ticket) = next {
            ticket.thread.unpark();
        }
    }
}

impl Tally {
    /// How many of a source are not forgiven.
    fn count(&self, from: Source, now: Instant) -> u32 {
        self.0.get(&from).map_or(0, |wrong| wrong.count(now))
    }

    fn add(&mut self, from: Source, now: Instant) {
        if self.0.len() >= SOURCES_MAX && !self.0.contains_key(&from) {
            self.0.retain(|_, wrong| wrong.forgiven_at > now);
            let first = self.0.iter().min_by_key(|(_, wrong)| wrong.forgiven_at);
            if let Some(first) = first.map(|(from, _)| *from)
                && self.0.len() >= SOURCES_MAX
            {
                self.0.remove(&first);
            }
        }
        let wrong = self.0.entry(from).or_insert(Wrong {
            last: now,
            forgiven_at: now,
        });
        wrong.last = now;
        wrong.forgiven_at = wrong.forgiven_at.max(now) + FORGIVEN_AFTER;
    }
}

impl Wrong {
    /// How many are not forgiven.
    fn count(&self, now: Instant) -> u32 {
        let left = self.forgiven_at.saturating_duration_since(now);
        left.as_millis().div_ceil(FORGIVEN_AFTER.as_millis()) as u32
    }

    /// How long this source must wait before it may guess.
    fn wait(&self, now: Instant) -> Duration {
        let Some(further) = self.count(now).checked_sub(WRONG_FREE) else {
            return Duration::ZERO;
        };
        let pause = 1u32
            .checked_shl(further)
            .map_or(PAUSE_MAX, |times| PAUSE_MIN * times);
        let since = now.saturating_duration_since(self.last);
        pause.min(PAUSE_MAX).saturating_sub(since)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::mpsc;

    use super::*;

    fn source(number: u32) -> Source {
        Source::Ip(IpAddr::V4(Ipv4Addr::from_bits(number)))
    }

    #[test]
    fn the_pause_grows_and_is_forgiven() {
        let start = Instant::now();
        let after = |secs| start + Duration::from_secs(secs);
        let mut tally = Tally::default();
        for _ in 0..WRONG_FREE {
            let wrong = tally.0.get(&source(1));
            assert!(wrong.is_none_or(|wrong| wrong.wait(start).is_zero()));
            tally.add(source(1), start);
        }
        let wait = |tally: &Tally, now| tally.0[&source(1)].wait(now).as_secs();
        assert_eq!(wait(&tally, start), 1);
        for secs in [2, 4, 8, 16, 32, 60, 60] {
            tally.add(source(1), start);
            assert_eq!(wait(&tally, start), secs);
        }
        assert_eq!(wait(&tally, after(50)), 10);
        assert_eq!(wait(&tally, after(60)), 0);
        // One a minute from then on.
        tally.add(source(1), after(60));
        assert_eq!(wait(&tally, after(60)), 60);
        assert_eq!(tally.0[&source(1)].count(after(60)), WRONG_FREE + 7);
        assert_eq!(tally.0[&source(1)].count(after(3600)), 0);
    }

    #[test]
    fn what_is_right_does_not_count_and_what_is_dropped_is_wrong() {
        let guesses = Guesses::default();
        for _ in 0..2 * WRONG_FREE {
            guesses
                .begin(source(1), 8, &|| false)
                .ok()
                .unwrap()
                .forgive();
        }
        for _ in 0..WRONG_FREE {
            drop(guesses.begin(source(1), 8, &|| false).ok().unwrap());
        }
        assert!(guesses.begin(source(1), 8, &|| false).is_err());
        assert!(guesses.begin(source(2), 8, &|| false).is_ok());
    }

    /// In which order these sources have their turns, if they begin to wait one after the other.
    fn order(guesses: &Guesses, sources: &[u32], bytes: impl Fn(u32) -> usize) -> Vec<u32> {
        let (done, order) = mpsc::channel();
        let running = guesses.begin(source(u32::MAX), 8, &|| false).ok().unwrap();
        thread::scope(|scope| {
            for (waiting, &number) in sources.iter().enumerate() {
                let done = done.clone();
                let bytes = bytes(number);
                scope.spawn(move || {
                    let guess = guesses
                        .begin(source(number), bytes, &|| false)
                        .ok()
                        .unwrap();
                    done.send(number).unwrap();
                    drop(guess);
                });
                while lock(&guesses.0).waiting.len() <= waiting {
                    thread::yield_now();
                }
            }
            running.forgive();
        });
        assert_eq!(lock(&guesses.0).turn, None);
        order.try_iter().collect()
    }

    #[test]
    fn the_source_with_the_fewest_wrong_passwords_is_first() {
        let guesses = Guesses::default();
        for (number, wrong) in [(1, 3), (2, 1), (3, 2)] {
            for _ in 0..wrong {
                drop(guesses.begin(source(number), 8, &|| false).ok().unwrap());
            }
        }
        assert_eq!(order(&guesses, &[1, 1, 2, 3, 4], |_| 8), [4, 2, 3, 1, 1]);
    }

    #[test]
    fn new_addresses_of_one_network_delay_a_new_one_by_one_guess() {
        let (crowd, somebody) = (0x0a00_0000, 0x0a00_0100);
        let mut sources: Vec<_> = (crowd..crowd + 100).collect();
        sources.insert(50, somebody);
        let order = order(&Guesses::default(), &sources, |_| 8);
        let turn = order.iter().position(|number| *number == somebody);
        assert_eq!(turn, Some(1), "{order:?}");
    }

    #[test]
    fn a_crowd_from_everywhere_delays_neither_the_first_nor_the_last() {
        let networks: Vec<_> = (1..=100).map(|network| network << 8).collect();
        let order = order(&Guesses::default(), &networks, |_| 63);
        let mut first = [order[0], order[1]];
        first.sort_unstable();
        assert_eq!(first, [networks[0], networks[99]], "{order:?}");
    }

    #[test]
    fn long_passwords_of_a_crowd_delay_no_short_one() {
        let networks: Vec<_> = (1..=100).map(|network| network << 8).collect();
        let somebody = networks[50];
        let bytes = |number| if number == somebody { 63 } else { 256 };
        let order = order(&Guesses::default(), &networks, bytes);
        assert_eq!(order[0], somebody, "{order:?}");
    }

    #[test]
    fn who_is_gone_when_its_turn_comes_passes_it_on() {
        let guesses = Guesses::default();
        let gone = guesses.begin(source(1), 8, &|| true).map(drop);
        assert_eq!(gone.unwrap_err(), LoginError::Gone);
        assert_eq!(lock(&guesses.0).turn, None);
        let other = guesses.begin(source(2), 8, &|| false).ok().unwrap();
        // Nobody is checked that is gone before that either.
        let gone = guesses.begin(source(1), 8, &|| true).map(drop);
        assert_eq!(gone.unwrap_err(), LoginError::Gone);
        assert_eq!(lock(&guesses.0).waiting.len(), 0);
        other.forgive();
    }

    #[test]
    fn the_number_of_sources_is_limited() {
        let start = Instant::now();
        let mut tally = Tally::default();
        tally.add(source(0), start);
        for number in 0..SOURCES_MAX as u32 + 99 {
            tally.add(source(number), start);
        }
        assert_eq!(tally.0.len(), SOURCES_MAX);
        // It has two, so others are forgiven first.
        assert!(tally.0.contains_key(&source(0)));
        let later = start + FORGIVEN_AFTER;
        tally.add(source(u32::MAX), later);
        assert_eq!(tally.0.len(), 2);
    }
}
