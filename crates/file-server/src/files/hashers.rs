//! The digests of unfinished uploads, over the bytes received so far. They are kept from one request to
//! the next, so that an upload need not be read again at its end.

use std::collections::HashMap;
use std::sync::Mutex;

use proto::http::digest::Hasher;
use storage::lock;

/// The most digests kept. For one more, another is dropped: that upload is read again at its end, as
/// all are after a restart.
const HASHERS_MAX: usize = 1024;

/// The digests, by the names of the uploads.
#[derive(Default)]
pub(super) struct Hashers(Mutex<HashMap<String, (u64, Hasher)>>);

impl Hashers {
    /// Keeps the digest of the first `bytes` bytes of an upload.
    pub(super) fn insert(&self, name: &str, bytes: u64, hasher: Hasher) {
        let mut hashers = lock(&self.0);
        if hashers.len() >= HASHERS_MAX
            && let Some(other) = hashers.keys().next().cloned()
        {
            hashers.remove(&other);
        }
        hashers.insert(name.to_owned(), (bytes, hasher));
    }

    /// Removes the digest of an upload, and returns it if it is that of the first `bytes` bytes.
    pub(super) fn remove(&self, name: &str, bytes: u64) -> Option<Hasher> {
        let (hashed, hasher) = lock(&self.0).remove(name)?;
        (hashed == bytes).then_some(hasher)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_kept_for_the_bytes_it_is_of() {
        let hashers = Hashers::default();
        hashers.insert("a", 3, Hasher::default());
        assert!(hashers.remove("b", 3).is_none());
        assert!(hashers.remove("a", 3).is_some());
        assert!(hashers.remove("a", 3).is_none());
        hashers.insert("a", 3, Hasher::default());
        assert!(hashers.remove("a", 2).is_none());
    }

    #[test]
    fn the_number_of_digests_is_limited() {
        let hashers = Hashers::default();
        for n in 0..=HASHERS_MAX {
            hashers.insert(&n.to_string(), 0, Hasher::default());
        }
        assert_eq!(lock(&hashers.0).len(), HASHERS_MAX);
        let last = HASHERS_MAX.to_string();
        assert!(hashers.remove(&last, 0).is_some());
        hashers.insert(&last, 0, Hasher::default());
        hashers.remove(&last, 0);
        assert_eq!(lock(&hashers.0).len(), HASHERS_MAX - 1);
    }
}
