//! At most one warning or error a second of each kind: a peer can make a server warn as fast as it
//! sends, and must not fill the disk with that.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use log::Level;

/// Two warnings from the same place in the code are this far apart, at least.
const PAUSE: Duration = Duration::from_secs(1);

/// Where in the code a warning comes from, which is what makes it one of a kind.
pub(crate) type Site = (&'static str, u32);

/// What was warned of within the last second, by where.
#[derive(Debug, Default)]
pub(crate) struct Limiter(Mutex<HashMap<Site, Pause>>);

#[derive(Debug)]
struct Pause {
    until: Instant,
    /// The first one that was left out; it is told when the pause is over.
    first: Option<Warning>,
    /// How many more there were.
    more: u64,
}

/// A warning or an error that waits.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Warning {
    pub(crate) level: Level,
    pub(crate) thread: String,
    pub(crate) message: String,
}

/// What happens to a warning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is told at once.
    Told,
    /// It is the first that waits for the end of the pause.
    Waits,
    /// It is only counted.
    Counted,
}

impl Limiter {
    /// Decides about a warning. It is made only if it has to be kept.
    pub(crate) fn judge(
        &self,
        site: Site,
        now: Instant,
        warning: impl FnOnce() -> Warning,
    ) -> Verdict {
        let mut sites = self.lock();
        match sites.get_mut(&site) {
            Some(pause) if pause.first.is_some() => {
                pause.more += 1;
                Verdict::Counted
            }
            Some(pause) if now < pause.until => {
                pause.first = Some(warning());
                Verdict::Waits
            }
            Some(_) | None => {
                sites.insert(site, Pause::from(now));
                Verdict::Told
            }
        }
    }

    /// What waited and is due now, each with how many more there were like it; and when more will be
    /// due. Without `now`, all that waits is due.
    pub(crate) fn due(&self, now: Option<Instant>) -> (Vec<Warning>, Option<Instant>) {
        let mut sites = self.lock();
        let mut due = Vec::new();
        for pause in sites.values_mut() {
            if now.is_none_or(|now| pause.until <= now)
                && let Some(mut first) = pause.first.take()
            {
                if pause.more > 0 {
                    first.message += &format!(" (and {} more like it)", pause.more);
                }
                due.push(first);
                *pause = Pause::from(now.unwrap_or(pause.until));
            }
        }
        let waiting = sites.values().filter(|pause| pause.first.is_some());
        (due, waiting.map(|pause| pause.until).min())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Site, Pause>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pause {
    fn from(now: Instant) -> Self {
        Self {
            until: now + PAUSE,
            first: None,
            more: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_line_a_second_and_nothing_is_lost_of_its_count() {
        let limiter = Limiter::default();
        let started = Instant::now();
        let at = |millis| started + Duration::from_millis(millis);
        let judge = |line, millis, message: &str| {
            limiter.judge(("file.rs", line), at(millis), || Warning {
                level: Level::Warn,
                thread: "t".to_owned(),
                message: message.to_owned(),
            })
        };
        let due = |millis| {
            let (due, next) = limiter.due(Some(at(millis)));
            let due: Vec<_> = due.into_iter().map(|warning| warning.message).collect();
            (due, next)
        };
        assert_eq!(judge(1, 0, "a"), Verdict::Told);
        assert_eq!(judge(1, 1, "b"), Verdict::Waits);
        assert_eq!(judge(1, 2, "c"), Verdict::Counted);
        assert_eq!(judge(1, 999, "d"), Verdict::Counted);
        // Another kind is not held up.
        assert_eq!(judge(2, 2, "other"), Verdict::Told);
        assert_eq!(due(999), (vec![], Some(at(1000))));
        // Also when the thread that tells it is late.
        assert_eq!(judge(1, 1001, "e"), Verdict::Counted);
        assert_eq!(due(1001), (vec!["b (and 3 more like it)".to_owned()], None));
        // What was told at the end of the pause begins another one.
        assert_eq!(judge(1, 2000, "f"), Verdict::Waits);
        assert_eq!(due(2001), (vec!["f".to_owned()], None));
        assert_eq!(due(9000), (vec![], None));
        assert_eq!(judge(1, 9000, "g"), Verdict::Told);
        assert_eq!(judge(1, 9001, "h"), Verdict::Waits);
        let (at_the_end, _) = limiter.due(None);
        assert_eq!(at_the_end.len(), 1);
        assert_eq!(at_the_end[0].message, "h");
    }
}
