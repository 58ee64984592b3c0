//! The digests of files, for the clients that want them (`Want-Repr-Digest`, RFC 9530).
//!
//! A digest takes reading the whole file before the head of the reply, and one short request can ask
//! for it. So only one long file is read at a time, and a digest is cached with the identity of its
//! file, so that the file is read once. If a digest takes too long, the reply has none: the client asked
//! for it as a preference.

use std::fs::File;
use std::io::{self, Read};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use daemon::lock;
use hashbrown::HashMap;
use proto::http::digest::{Digest, Hasher};
use rustix::fs::fstat;

use crate::files::Identity;

/// The longest file with a digest, in bytes.
const DIGEST_BYTES_MAX: u64 = 1 << 30;

/// A file up to this length, in bytes, is read without waiting: that takes as long as to send it.
const SHORT_BYTES: u64 = 1 << 20;

/// The most digests in the cache. One more evicts another.
const CACHED_MAX: usize = 1024;

/// The most requests that wait to read a long file.
const WAITING_MAX: usize = 64;
/// How long they wait.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// The longest time for a digest, with waiting and reading. A client does not wait much longer for the
/// head of a reply.
const TIME_MAX: Duration = Duration::from_secs(20);

/// The digests of files.
#[derive(Default)]
pub(crate) struct Digests {
    cached: Mutex<HashMap<Identity, Digest>>,
    reading: Mutex<Reading>,
    /// Signalled when nobody reads any more.
    free: Condvar,
}

/// Whether a long file is being read, and how many requests wait to read one.
#[derive(Default)]
struct Reading {
    is_busy: bool,
    waiting: usize,
}

impl Digests {
    /// The digest of a file, which had this identity when it was opened; `None` if it takes too long or
    /// the file has changed.
    ///
    /// # Errors
    /// Those of reading it.
    pub(crate) fn of(&self, file: &File, identity: Identity) -> io::Result<Option<Digest>> {
        let until = Instant::now() + TIME_MAX;
        let digest = self.of_identity(identity, || {
            let input = file.take(identity.bytes());
            let digest = Hasher::digest_of(InTime { input, until })?;
            Ok((digest, fstat(file)?.into()))
        });
        digest.or_else(|error| match error.kind() {
            io::ErrorKind::TimedOut => Ok(None),
            _ => Err(error),
        })
    }

    /// The digest of a file with this identity. `read` returns the digest, and the identity after
    /// reading.
    fn of_identity(
        &self,
        before: Identity,
        read: impl FnOnce() -> io::Result<(Digest, Identity)>,
    ) -> io::Result<Option<Digest>> {
        if before.bytes() > DIGEST_BYTES_MAX {
            return Ok(None);
        }
        let cached = || lock(&self.cached).get(&before).copied();
        if let Some(digest) = cached() {
            return Ok(Some(digest));
        }
        let reader = (before.bytes() > SHORT_BYTES).then(|| self.reader());
        // The request before may have read the same file.
        match (cached(), &reader) {
            (None, Some(None)) => return Ok(None),
            (None, Some(Some(_)) | None) => {}
            (known, _) => return Ok(known),
        }
        let (digest, after) = read()?;
        drop(reader);
        // If it was replaced meanwhile, that changes its names, but not its contents.
        if !after.has_contents_of(&before) {
            return Ok(None);
        }
        if after.is_stable() {
            self.insert(after, digest);
        }
        Ok(Some(digest))
    }

    fn insert(&self, identity: Identity, digest: Digest) {
        let mut cached = lock(&self.cached);
        if cached.len() >= CACHED_MAX {
            let other = cached.keys().next().copied();
            other.and_then(|other| cached.remove(&other));
        }
        cached.insert(identity, digest);
    }

    /// Waits until nobody reads a long file; `None` if that takes too long, or too many wait.
    fn reader(&self) -> Option<Reader<'_>> {
        let mut reading = lock(&self.reading);
        if reading.waiting >= WAITING_MAX {
            return None;
        }
        reading.waiting += 1;
        let waited = self
            .free
            .wait_timeout_while(reading, WAIT_MAX, |reading| reading.is_busy);
        let (mut reading, _) = waited.unwrap_or_else(PoisonError::into_inner);
        reading.waiting -= 1;
        if reading.is_busy {
            return None;
        }
        reading.is_busy = true;
        Some(Reader(self))
    }
}

/// An input that can be read until some time. After that, reading fails with
/// [`io::ErrorKind::TimedOut`].
struct InTime<R> {
    input: R,
    until: Instant,
}

impl<R: Read> Read for InTime<R> {
    fn read(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        if Instant::now() >= self.until {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.input.read(piece)
    }
}

/// The right to read a long file. Dropping it lets the next one read.
#[must_use = "dropping it lets the next one read"]
struct Reader<'a>(&'a Digests);

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        lock(&self.0.reading).is_busy = false;
        self.0.free.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    const DIGEST: Digest = [7; 32];

    /// The identities of some files that are not short.
    fn long_files(count: usize) -> Vec<Identity> {
        let folder = tempfile::tempdir().unwrap();
        let identity = |number: usize| {
            let file = File::create(folder.path().join(number.to_string())).unwrap();
            file.set_len(SHORT_BYTES + 2).unwrap();
            fstat(&file).unwrap().into()
        };
        (0..count).map(identity).collect()
    }

    #[test]
    fn one_long_file_is_read_at_a_time() {
        const FILES: usize = 16;
        let digests = Digests::default();
        let (start, readers) = (Barrier::new(FILES), AtomicUsize::new(0));
        thread::scope(|scope| {
            for identity in long_files(FILES) {
                let (digests, start, readers) = (&digests, &start, &readers);
                scope.spawn(move || {
                    start.wait();
                    let read = || {
                        assert_eq!(readers.fetch_add(1, Ordering::SeqCst), 0, "two at once");
                        thread::yield_now();
                        readers.fetch_sub(1, Ordering::SeqCst);
                        Ok((DIGEST, identity))
                    };
                    let digest = digests.of_identity(identity, read).unwrap();
                    assert_eq!(digest, Some(DIGEST));
                });
            }
        });
    }

    #[test]
    fn a_file_that_takes_too_long_has_no_digest() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let digest = |until| {
            let input = &b"short"[..];
            Hasher::digest_of(InTime { input, until })
        };
        let late = digest(now).unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        assert_eq!(
            digest(now + 3600 * second).unwrap(),
            Hasher::digest_of(&b"short"[..]).unwrap()
        );
    }

    #[test]
    fn a_reader_that_fails_or_panics_frees_its_place() {
        let digests = Digests::default();
        let identity = long_files(1)[0];
        thread::scope(|scope| {
            let panics = || digests.of_identity(identity, || panic!("as it is meant to"));
            assert!(scope.spawn(panics).join().is_err());
        });
        let fails = digests.of_identity(identity, || Err(io::ErrorKind::Other.into()));
        assert!(fails.is_err());
        let works = digests.of_identity(identity, || Ok((DIGEST, identity)));
        assert_eq!(works.unwrap(), Some(DIGEST));
    }

    #[test]
    fn the_number_of_waiting_requests_is_limited() {
        let digests = Digests::default();
        let identity = long_files(1)[0];
        lock(&digests.reading).waiting = WAITING_MAX;
        let digest = digests.of_identity(identity, || unreachable!("there is no room"));
        assert_eq!(digest.unwrap(), None);
        let folder = tempfile::tempdir().unwrap();
        let short = folder.path().join("short");
        fs::write(&short, "short").unwrap();
        let file = File::open(&short).unwrap();
        let digest = digests.of(&file, fstat(&file).unwrap().into()).unwrap();
        assert!(digest.is_some(), "a short one does not wait");
    }

    #[test]
    fn a_digest_is_kept_while_the_file_is_the_same() {
        let digests = Digests::default();
        // In this crate's own folder nothing was changed in the last moments.
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        let stable = Identity::from(rustix::fs::stat(path).unwrap());
        let fresh = long_files(1)[0];
        for (identity, is_cached) in [(stable, true), (fresh, false)] {
            let read = || Ok((DIGEST, identity));
            assert_eq!(digests.of_identity(identity, read).unwrap(), Some(DIGEST));
            assert_eq!(lock(&digests.cached).contains_key(&identity), is_cached);
        }
        let again = digests.of_identity(stable, || unreachable!("it is known"));
        assert_eq!(again.unwrap(), Some(DIGEST));
        // What is changed while it is read has none.
        let changed = digests.of_identity(fresh, || Ok((DIGEST, stable)));
        assert_eq!(changed.unwrap(), None);
        for _ in 0..2 * CACHED_MAX / 100 {
            for identity in long_files(100) {
                digests.insert(identity, DIGEST);
            }
        }
        assert_eq!(lock(&digests.cached).len(), CACHED_MAX);
    }
}
