//! How many descriptors a server needs, and how many it may have.

use std::fmt;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::CONNECTIONS_MAX;
use crate::registry::{LEAVING_MAX, TURNED_AWAY_MAX, WAITING_FOR_PLACE_MAX};
use crate::shares::Scarce;

/// Descriptors for everything but connections: listeners, files, and connections that were accepted
/// and are not counted yet.
const DESCRIPTORS_RESERVED: usize = 128;

/// What a service needs descriptors for, besides its connections and the few files that a server has
/// open in any case.
#[derive(Debug, Clone, Copy, Default)]
pub struct Besides {
    /// How many at most.
    pub descriptors: usize,
    /// What for, with the option that says how many, as `archives (--archives)`.
    pub what: &'static str,
}

impl fmt::Display for Besides {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.descriptors == 0 {
            return Ok(());
        }
        write!(f, " and {}", self.what)
    }
}

/// How many descriptors a server needs with this many connections: a socket for each, an eventfd for
/// each that may wait for another thread, one for each that is leaving, and some for everything else.
/// A connection counts until its pending replies are completed, though its peer may have gone before.
///
/// Connections that wait for a message are at most [`Scarce::Wait`]. One that waits for the disk while
/// all of these do, and no descriptor is left, is closed.
pub(crate) fn descriptors_needed(connections_max: usize) -> usize {
    let leaving = LEAVING_MAX + WAITING_FOR_PLACE_MAX + TURNED_AWAY_MAX;
    connections_max + Scarce::Wait.max(connections_max) + leaving + DESCRIPTORS_RESERVED
}

/// The most connections for which this many descriptors are enough, if the service needs some too.
pub(crate) fn connections_within(descriptors: usize, besides: Besides) -> usize {
    let mut fit = 0;
    while fit < CONNECTIONS_MAX && descriptors_needed(fit + 1) + besides.descriptors <= descriptors
    {
        fit += 1;
    }
    fit
}

/// Raises the limit on descriptors to what is allowed, and returns it.
pub(crate) fn descriptors_allowed() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    let limit = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => maximum,
        Err(_) => current,
    };
    limit.map_or(usize::MAX, |limit| {
        usize::try_from(limit).unwrap_or(usize::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StartError;

    #[test]
    fn what_is_too_much_is_told_with_what_would_be_right() {
        #[track_caller]
        fn check(connections: usize, besides: Besides, allowed: usize, why: &str, fit: &str) {
            let needed = descriptors_needed(connections) + besides.descriptors;
            let error = StartError::Descriptors {
                allowed,
                needed,
                connections,
                besides,
            };
            let want = format!(
                "{connections} connections (--max-connections){why} need {needed} descriptors \
                 (ulimit -n), and {allowed} are allowed{fit}"
            );
            assert_eq!(error.to_string(), want);
        }
        let none = Besides::default();
        let jobs = Besides {
            descriptors: 400,
            what: "jobs (--jobs)",
        };
        check(4096, none, 1024, "", ", enough for --max-connections 410");
        let fit = ", enough for --max-connections 196";
        check(4096, jobs, 1024, " and jobs (--jobs)", fit);
        for (allowed, fit) in [(1024, 410), (258, 1), (257, 0), (1 << 40, CONNECTIONS_MAX)] {
            assert_eq!(connections_within(allowed, none), fit, "{allowed}");
        }
        check(1, none, 100, "", "");
        check(1, jobs, 657, " and jobs (--jobs)", "");
    }
}
