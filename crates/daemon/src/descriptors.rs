//! How many descriptors a server needs, and how many it may have.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::CONNECTIONS_MAX;
use crate::accept::TURNED_AWAY_MAX;
use crate::registry::LEAVING_MAX;

/// Descriptors for everything but connections: listeners, files, and connections that were accepted
/// and are not counted yet.
const DESCRIPTORS_RESERVED: usize = 128;

/// How many descriptors a server may need with this many connections: a socket for each, an eventfd
/// for each, because it may wait for other threads, one for each that is leaving, and some for
/// everything else. A connection counts until its pending replies are completed, though its peer may
/// have gone before.
pub(crate) fn descriptors_needed(connections_max: usize) -> usize {
    2 * connections_max + LEAVING_MAX + TURNED_AWAY_MAX + DESCRIPTORS_RESERVED
}

/// The most connections for which this many descriptors are enough.
pub(crate) fn connections_within(descriptors: usize) -> usize {
    let spare = descriptors.saturating_sub(descriptors_needed(0));
    (spare / 2).min(CONNECTIONS_MAX)
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
        fn check(connections: usize, allowed: usize, want: &str) {
            let needed = descriptors_needed(connections);
            let error = StartError::Descriptors {
                allowed,
                needed,
                connections,
            };
            let why = format!(
                "{connections} connections (--max-connections) need {needed} descriptors \
                 (ulimit -n), and {allowed} are allowed"
            );
            assert_eq!(error.to_string(), why + want);
        }
        check(4096, 1024, ", enough for --max-connections 384");
        for (allowed, fit) in [(1024, 384), (258, 1), (257, 0), (1 << 40, CONNECTIONS_MAX)] {
            assert_eq!(connections_within(allowed), fit, "{allowed}");
        }
        check(1, 100, "");
    }
}
