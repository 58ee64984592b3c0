//! The digests of files, for those who want them (`Want-Repr-Digest`, RFC 9530).
//!
//! To know a digest, the whole file has to be read before the head of the reply can be sent, and one
//! short request is enough to ask for that. So one long file is read at a time, by whichever
//! connections ask; and a digest is kept with the identity of its file, so that it is read once. Where
//! that takes too long the reply goes without: to want a digest is a wish, not a condition.

use std::fs::File;
use std::io::{self, Read};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use daemon::lock;
use hashbrown::HashMap;
use proto::http::digest::{Digest, Hasher};

use crate::files::Identity;

/// The longest file whose digest is given, in bytes.
const DIGEST_BYTES_MAX: u64 = 1 << 30;

/// A file up to this length, in bytes, is read at once: that takes about as long as to send it.
const SHORT_BYTES: u64 = 1 << 20;

/// The digests that are kept; one more drives out another.
const KEPT_MAX: usize = 1024;

/// The requests that may wait until they can read a long file...
const WAITING_MAX: usize = 64;
/// ...and how long they wait.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// How long a request takes at most to know a digest, waiting and reading: a client does not wait much
/// longer for the head of a reply.
const TIME_MAX: Duration = Duration::from_secs(20);

/// The digests that are known.
#[derive(Default)]
pub(crate) struct Digests {
    kept: Mutex<HashMap<Identity, Digest>>,
    reading: Mutex<Reading>,
    /// That nobody reads any more.
    free: Condvar,
}

/// Who reads a long file, and who waits to.
#[derive(Default)]
struct Reading {
    is_busy: bool,
    waiting: usize,
}

impl Digests {
    /// The digest of a file of this length; `None` if it takes too long to know.
    ///
    /// # Errors
    /// Those of reading it.
    pub(crate) fn of(&self, file: &File, bytes: u64) -> io::Result<Option<Digest>> {
        let identity = || file.metadata().map(|there| Identity::from(&there));
        let before = identity()?;
        if before.bytes() != bytes {
            return Ok(None);
        }
        let until = Instant::now() + TIME_MAX;
        self.of_identity(before, || {
            let input = file.take(bytes);
            let digest = Hasher::digest_of(InTime { input, until })?;
            Ok((digest, identity()?))
        })
        .or_else(|error| match error.kind() {
            io::ErrorKind::TimedOut => Ok(None),
            _ => Err(error),
        })
    }

    /// The same for a file with this identity; `read` returns its digest, and the identity that it has
    /// then.
    fn of_identity(
        &self,
        before: Identity,
        read: impl FnOnce() -> io::Result<(Digest, Identity)>,
    ) -> io::Result<Option<Digest>> {
        if before.bytes() > DIGEST_BYTES_MAX {
            return Ok(None);
        }
        let kept = || lock(&self.kept).get(&before).copied();
        if let Some(digest) = kept() {
            return Ok(Some(digest));
        }
        let reader = (before.bytes() > SHORT_BYTES).then(|| self.reader());
        // The one before may have read the same file.
        match (kept(), &reader) {
            (None, Some(None)) => return Ok(None),
            (None, Some(Some(_)) | None) => {}
            (known, _) => return Ok(known),
        }
        let (digest, after) = read()?;
        drop(reader);
        // It may have been replaced meanwhile: that changes where it stands, and not what is in it.
        if !after.has_contents_of(&before) {
            return Ok(None);
        }
        if after.is_stable() {
            self.keep(after, digest);
        }
        Ok(Some(digest))
    }

    fn keep(&self, identity: Identity, digest: Digest) {
        let mut kept = lock(&self.kept);
        if kept.len() >= KEPT_MAX {
            let other = kept.keys().next().copied();
            other.and_then(|other| kept.remove(&other));
        }
        kept.insert(identity, digest);
    }

    /// Waits until nobody reads a long file; `None` if that takes too long, or too many wait already.
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

/// What is read of an input before some time; behind that, reading fails with
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
#[must_use = "another may read as soon as it is dropped"]
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
            Identity::from(&file.metadata().unwrap())
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
    fn what_takes_too_long_has_no_digest() {
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
    fn a_reader_that_fails_or_panics_makes_room() {
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
    fn so_many_wait_and_who_comes_then_gets_none() {
        let digests = Digests::default();
        let identity = long_files(1)[0];
        lock(&digests.reading).waiting = WAITING_MAX;
        let digest = digests.of_identity(identity, || unreachable!("there is no room"));
        assert_eq!(digest.unwrap(), None);
        let folder = tempfile::tempdir().unwrap();
        let short = folder.path().join("short");
        fs::write(&short, "short").unwrap();
        let digest = digests.of(&File::open(&short).unwrap(), 5).unwrap();
        assert!(digest.is_some(), "a short one does not wait");
    }

    #[test]
    fn a_digest_is_kept_while_the_file_is_the_same() {
        let digests = Digests::default();
        // In this crate's own folder nothing was changed in the last moments.
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        let settled = Identity::from(&fs::metadata(path).unwrap());
        let fresh = long_files(1)[0];
        for (identity, is_kept) in [(settled, true), (fresh, false)] {
            let read = || Ok((DIGEST, identity));
            assert_eq!(digests.of_identity(identity, read).unwrap(), Some(DIGEST));
            assert_eq!(lock(&digests.kept).contains_key(&identity), is_kept);
        }
        let again = digests.of_identity(settled, || unreachable!("it is known"));
        assert_eq!(again.unwrap(), Some(DIGEST));
        // What is changed while it is read has none.
        let changed = digests.of_identity(fresh, || Ok((DIGEST, settled)));
        assert_eq!(changed.unwrap(), None);
        for _ in 0..2 * KEPT_MAX / 100 {
            for identity in long_files(100) {
                digests.keep(identity, DIGEST);
            }
        }
        assert_eq!(lock(&digests.kept).len(), KEPT_MAX);
    }
}
