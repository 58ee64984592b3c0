//! How many archives are made at once, and what they need.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use daemon::Besides;

use crate::Config;
use crate::files::WALK_DESCRIPTORS_MAX;

/// The descriptors for as many archives as a server makes at once.
pub(crate) fn descriptors(config: &Config) -> Besides {
    let archives_max = if config.has_listing {
        config.archives_max
    } else {
        0
    };
    Besides {
        descriptors: archives_max * WALK_DESCRIPTORS_MAX,
        what: "deep folders in archives (--archives)",
    }
}

/// The archives that are being made.
#[derive(Clone, Default)]
pub(crate) struct Archives(Arc<AtomicUsize>);

impl Archives {
    /// Permits one more, unless there are this many.
    pub(crate) fn permit(&self, most: usize) -> Option<Permit> {
        let one_more = |open| (open < most).then_some(open + 1);
        let begun = (self.0).fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        begun.is_ok().then(|| Permit(self.clone()))
    }

    /// How many there are.
    pub(crate) fn open(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// The right to make one archive.
#[must_use = "dropping it returns the permit"]
pub(crate) struct Permit(Archives);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}
