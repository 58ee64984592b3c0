//! A server that stands by: it is started and ready, and does not listen until another server ends.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::service_manager;

/// Whether a server stands by, or has stood by, before it serves. SIGINT or SIGTERM then ends its
/// process with exit code 0.
#[derive(Debug, Clone, Default)]
pub struct Standby(Arc<AtomicBool>);

impl Standby {
    /// What to call with a file that another server uses, before the wait for it. The first call says in
    /// the log and to the service manager that the server stands by.
    pub fn on_wait(&self) -> impl Fn(&Path) + Send + use<> {
        let standby = self.clone();
        move |file| {
            if !standby.0.swap(true, Ordering::Relaxed) {
                log::info!("standing by: another server uses {}", file.display());
                service_manager::standing_by();
            }
        }
    }

    /// Whether it has begun.
    pub(crate) fn has_begun(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
