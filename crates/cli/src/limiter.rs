//! A warning or an error is logged at most once a second, because a peer can cause one with every byte
//! it sends and must not fill the disk with them.
//!
//! Warnings are told apart by their [`Site`], the line of code that logs them. After one is logged, a
//! pause of a second begins for its site. The first warning within the pause is kept, the others are
//! counted. At the end of the pause the kept one is logged with the count, and another pause begins.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use log::Level;

/// The least time between two warnings of one site.
const PAUSE: Duration = Duration::from_secs(1);

/// The file and the line of code that logs a warning.
pub(crate) type Site = (&'static str, u32);

/// The pauses of all sites that have logged a warning.
#[derive(Debug, Default)]
pub(crate) struct Limiter(Mutex<HashMap<Site, Pause>>);

#[derive(Debug)]
struct Pause {
    end: Instant,
    /// The first warning within the pause.
    kept: Option<Warning>,
    /// How many followed the kept one.
    more: u64,
}

/// A warning or an error that is held back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Warning {
    pub(crate) level: Level,
    pub(crate) thread: String,
    pub(crate) message: String,
}

/// What happens to a warning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is logged at once.
    Logged,
    /// It is kept until the end of the pause.
    HeldBack,
    /// It is counted.
    Counted,
}

impl Limiter {
    /// Decides about a warning of this site. Calls `warning` only if it is kept.
    pub(crate) fn judge(
        &self,
        site: Site,
        now: Instant,
        warning: impl FnOnce() -> Warning,
    ) -> Verdict {
        let mut sites = self.lock();
        match sites.get_mut(&site) {
            Some(pause) if pause.kept.is_some() => {
                pause.more += 1;
                Verdict::Counted
            }
            Some(pause) if now < pause.end => {
                pause.kept = Some(warning());
                Verdict::HeldBack
            }
            Some(_) | None => {
                sites.insert(site, Pause::from(now));
                Verdict::Logged
            }
        }
    }

    /// The kept warnings whose pause is over, each with its count, and when the next pause ends.
    /// Without `now`, all kept ones.
    pub(crate) fn due(&self, now: Option<Instant>) -> (Vec<Warning>, Option<Instant>) {
        let mut sites = self.lock();
        let mut due = Vec::new();
        for pause in sites.values_mut() {
            if now.is_none_or(|now| pause.end <= now)
                && let Some(mut kept) = pause.kept.take()
            {
                if pause.more > 0 {
                    kept.message += &format!(" (and {} more like it)", pause.more);
                }
                due.push(kept);
                *pause = Pause::from(now.unwrap_or(pause.end));
            }
        }
        let waiting = sites.values().filter(|pause| pause.kept.is_some());
        (due, waiting.map(|pause| pause.end).min())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Site, Pause>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pause {
    fn from(start: Instant) -> Self {
        Self {
            end: start + PAUSE,
            kept: None,
            more: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_line_a_second_with_its_count() {
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
        assert_eq!(judge(1, 0, "a"), Verdict::Logged);
        assert_eq!(judge(1, 1, "b"), Verdict::HeldBack);
        assert_eq!(judge(1, 2, "c"), Verdict::Counted);
        assert_eq!(judge(1, 999, "d"), Verdict::Counted);
        // Another site has a pause of its own.
        assert_eq!(judge(2, 2, "other"), Verdict::Logged);
        assert_eq!(due(999), (vec![], Some(at(1000))));
        // Also if the thread that logs it is late.
        assert_eq!(judge(1, 1001, "e"), Verdict::Counted);
        assert_eq!(due(1001), (vec!["b (and 3 more like it)".to_owned()], None));
        // What is logged at the end of a pause begins another one.
        assert_eq!(judge(1, 2000, "f"), Verdict::HeldBack);
        assert_eq!(due(2001), (vec!["f".to_owned()], None));
        assert_eq!(due(9000), (vec![], None));
        assert_eq!(judge(1, 9000, "g"), Verdict::Logged);
        assert_eq!(judge(1, 9001, "h"), Verdict::HeldBack);
        let (at_the_end, _) = limiter.due(None);
        assert_eq!(at_the_end.len(), 1);
        assert_eq!(at_the_end[0].message, "h");
    }
}
