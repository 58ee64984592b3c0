//! The digests of unfinished uploads, as far as their bytes have come. They wait here from one request
//! to the next, so that an upload need not be read again at its end.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use proto::http::digest::Hasher;

/// Of so many uploads. For one more, any other is dropped: that upload is read again at its end, as all
/// are after a restart.
const HASHERS_MAX: usize = 1024;

/// The digests, by the names of the uploads.
#[derive(Default)]
pub(super) struct Hashers(Mutex<HashMap<String, (u64, Hasher)>>);

impl Hashers {
    /// Puts by the digest of the first `bytes` bytes of an upload.
    pub(super) fn put(&self, name: &str, bytes: u64, hasher: Hasher) {
        let mut hashers = self.lock();
        if hashers.len() >= HASHERS_MAX
            && let Some(other) = hashers.keys().next().cloned()
        {
            hashers.remove(&other);
        }
        hashers.insert(name.to_owned(), (bytes, hasher));
    }

    /// Takes out the digest of an upload, if it is that of its first `bytes` bytes.
    pub(super) fn take(&self, name: &str, bytes: u64) -> Option<Hasher> {
        let (hashed, hasher) = self.lock().remove(name)?;
        (hashed == bytes).then_some(hasher)
    }

    /// Drops the digest of an upload that is over.
    pub(super) fn forget(&self, name: &str) {
        self.lock().remove(name);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, (u64, Hasher)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_kept_for_the_bytes_it_is_of() {
        let hashers = Hashers::default();
        hashers.put("a", 3, Hasher::default());
        assert!(hashers.take("b", 3).is_none());
        assert!(hashers.take("a", 3).is_some());
        assert!(hashers.take("a", 3).is_none());
        hashers.put("a", 3, Hasher::default());
        assert!(hashers.take("a", 2).is_none());
    }

    #[test]
    fn there_are_only_so_many() {
        let hashers = Hashers::default();
        for n in 0..=HASHERS_MAX {
            hashers.put(&n.to_string(), 0, Hasher::default());
        }
        assert_eq!(hashers.lock().len(), HASHERS_MAX);
        let last = HASHERS_MAX.to_string();
        assert!(hashers.take(&last, 0).is_some());
        hashers.put(&last, 0, Hasher::default());
        hashers.forget(&last);
        assert_eq!(hashers.lock().len(), HASHERS_MAX - 1);
    }
}
