//! When unfinished uploads expire. They are remembered by their paths, so that the sweeper need not
//! search the tree for them.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use storage::lock;

/// The most uploads remembered. The next start finds the others.
const PATHS_MAX: usize = 65_536;

/// The paths of unfinished uploads, below the root, and when each expires.
#[derive(Default)]
pub(super) struct Expirations(Mutex<HashMap<PathBuf, Instant>>);

impl Expirations {
    /// Remembers an upload that expires after `keep`.
    pub(super) fn insert(&self, path: PathBuf, keep: Duration) {
        let mut paths = lock(&self.0);
        if paths.len() < PATHS_MAX || paths.contains_key(&path) {
            paths.insert(path, Instant::now() + keep);
        }
    }

    /// How many uploads are remembered.
    pub(super) fn len(&self) -> usize {
        lock(&self.0).len()
    }

    /// Removes the uploads that have expired, and returns their paths.
    pub(super) fn remove_expired(&self) -> Vec<PathBuf> {
        let now = Instant::now();
        let mut paths = lock(&self.0);
        let expired = paths.extract_if(|_, expires_at| *expires_at <= now);
        expired.map(|(path, _)| path).collect()
    }
}
