//! The names that the server has given: `users.txt` in the data folder, one name a line.
//!
//! The writer thread alone makes names. So two clients that ask at once get different ones, and no
//! client learns a name before it is on the disk. A name is a name and no secret: its digits make it
//! unlikely that two servers give the same one, and do not keep anybody from using it.

use std::collections::HashSet;
use std::mem;
use std::sync::{Arc, PoisonError, RwLock};

use proto::history::{USER_BYTES_MAX, is_user_name};
use proto::register::PREFIX_BYTES_MAX;
use storage::{
    CommitError, Committer, DataFolder, Fsync, Limits, Line, NotStored, Space, StorageError, Store,
    TextFile,
};
use uuid::Uuid;

/// The file in the data folder.
pub(super) const FILE_NAME: &str = "users.txt";

/// The most names that are given. They are kept in memory, at about 64 bytes each.
const NAMES_MAX: usize = 1_000_000;

/// How many digits a name has at first.
const DIGITS_MIN: usize = 6;

/// The most digits: as many as a random number of 62 bits has without favouring some.
const DIGITS_MAX: usize = 18;

const _: () = assert!(PREFIX_BYTES_MAX + 1 + DIGITS_MAX <= USER_BYTES_MAX);

/// What a name without a prefix begins with: one of these and one of the next.
const FIRST_WORDS: [&str; 32] = [
    "amber", "bold", "brave", "bright", "brisk", "calm", "clear", "clever", "cosmic", "crisp",
    "deep", "eager", "early", "fair", "fast", "fresh", "gentle", "glad", "golden", "grand",
    "green", "happy", "keen", "kind", "light", "lucky", "merry", "neat", "quick", "quiet",
    "silver", "warm",
];

const SECOND_WORDS: [&str; 32] = [
    "badger", "bear", "beaver", "bison", "crane", "deer", "dolphin", "eagle", "falcon", "finch",
    "fox", "gecko", "hare", "hawk", "heron", "ibex", "jay", "koala", "lark", "lynx", "marten",
    "moose", "newt", "otter", "owl", "panda", "puffin", "raven", "robin", "seal", "swan", "whale",
];

/// Whether a name belongs to a user that the server did not name.
pub(super) type IsTaken = Box<dyn Fn(&str) -> bool + Send>;

/// The names on the disk, for all threads.
type Names = RwLock<HashSet<Box<str>>>;

/// All names given so far. Any number of threads may use it at once.
pub(super) struct Registered {
    names: Arc<Names>,
    writer: Committer<NamesFile>,
}

impl Registered {
    /// Reads the names. A last line that is not whole was never acknowledged, and is cut off with a
    /// warning. A name that `is_taken` is not given.
    ///
    /// # Errors
    /// If the file cannot be opened, or another line is damaged.
    pub(super) fn open(
        folder: &mut DataFolder,
        is_taken: IsTaken,
        fsync: Fsync,
        limits: Limits,
        on_failure: impl FnOnce() + Send + 'static,
    ) -> Result<Self, StorageError> {
        let mut names = HashSet::new();
        let file = TextFile::open(folder.open(FILE_NAME)?, fsync, |line, is_whole| {
            let name = std::str::from_utf8(line).ok();
            match name.filter(|name| is_user_name(name)) {
                Some(name) if is_whole => {
                    names.insert(name.into());
                    Line::Sound
                }
                // A power cut leaves zeros in the place of what was being written.
                None if is_whole && !line.contains(&0) => Line::Damaged,
                Some(_) | None => Line::Torn,
            }
        })?;
        let names = Arc::new(RwLock::new(names));
        let store = NamesFile {
            file: file.with_limits(limits),
            names: Arc::clone(&names),
            made: HashSet::new(),
            is_taken,
        };
        Ok(Self {
            names,
            writer: Committer::start(FILE_NAME, store, on_failure)?,
        })
    }

    /// Makes a name and stores it.
    ///
    /// # Errors
    /// If it is not stored, or there are too many names.
    pub(super) fn add(&self, prefix: &str) -> Result<String, NotStored> {
        self.writer.submit(prefix.to_owned()).wait()
    }

    /// How many names were given.
    pub(super) fn names(&self) -> usize {
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        names.len()
    }

    /// Whether this name was given.
    pub(super) fn contains(&self, name: &str) -> bool {
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        names.contains(name)
    }

    /// [`StorageError::Lost`] if a commit was lost. It is returned once.
    pub(super) fn failure(&self) -> Option<StorageError> {
        self.writer.failure()
    }
}

/// What the writer thread owns.
struct NamesFile {
    file: TextFile,
    names: Arc<Names>,
    /// Made since the last commit.
    made: HashSet<Box<str>>,
    is_taken: IsTaken,
}

impl Store for NamesFile {
    /// A prefix, which may be empty.
    type Change = String;
    /// The name.
    type Outcome = String;

    fn apply(&mut self, prefix: String) -> Result<String, NotStored> {
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        if names.len() + self.made.len() >= NAMES_MAX {
            let sentence = format!("all {NAMES_MAX} names are given");
            return Err(NotStored::Refused(sentence));
        }
        let is_free = |name: &String| {
            let name = name.as_str();
            !names.contains(name) && !self.made.contains(name) && !(self.is_taken)(name)
        };
        let name = (DIGITS_MIN..=DIGITS_MAX).map(|digits| draw(&prefix, digits));
        let Some(name) = name.into_iter().find(is_free) else {
            let sentence = "no free name was found; try another prefix";
            return Err(NotStored::Refused(sentence.to_owned()));
        };
        let pending_bytes = self.file.pending().len() + name.len() + 1;
        self.file.check_space(pending_bytes, Space::Usual)?;
        let pending = self.file.pending();
        pending.extend_from_slice(name.as_bytes());
        pending.push(b'\n');
        self.made.insert(name.as_str().into());
        Ok(name)
    }

    fn is_batch_full(&self) -> bool {
        self.file.is_batch_full()
    }

    fn commit(&mut self) -> Result<(), CommitError> {
        let made = mem::take(&mut self.made);
        self.file.commit()?;
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        names.extend(made);
        Ok(())
    }
}

/// A random name with this many digits.
fn draw(prefix: &str, digits: usize) -> String {
    // The highest bits of the first half are random, and all but two of the second.
    let (words, number) = Uuid::new_v4().as_u64_pair();
    let number = (number & (u64::MAX >> 2)) % 10_u64.pow(digits as u32);
    if !prefix.is_empty() {
        return format!("{prefix}-{number:0digits$}");
    }
    let first = FIRST_WORDS[(words >> 59) as usize];
    let second = SECOND_WORDS[(words >> 54) as usize % SECOND_WORDS.len()];
    format!("{first}-{second}-{number:0digits$}")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::thread;

    use super::*;

    fn open(dir: &Path, is_taken: IsTaken) -> Result<Registered, StorageError> {
        let mut folder = DataFolder::create(dir)?;
        let (fsync, limits) = (Fsync::Always, Limits::default());
        Registered::open(&mut folder, is_taken, fsync, limits, || {
            panic!("the disk failed")
        })
    }

    fn nobody() -> IsTaken {
        Box::new(|_| false)
    }

    #[test]
    fn a_name_is_a_prefix_or_two_words_and_digits() {
        let longest = "x".repeat(PREFIX_BYTES_MAX);
        for (prefix, hyphens) in [("", 2), ("alice", 1), ("a-b", 2), (&longest, 1)] {
            for digits in [DIGITS_MIN, DIGITS_MAX] {
                let name = draw(prefix, digits);
                assert!(name.starts_with(prefix) && is_user_name(&name), "{name}");
                assert_eq!(name.matches('-').count(), hyphens, "{name}");
                let (_, number) = name.rsplit_once('-').unwrap();
                assert_eq!(number.len(), digits);
                assert!(number.bytes().all(|digit| digit.is_ascii_digit()), "{name}");
            }
        }
    }

    #[test]
    fn many_at_once_get_different_names_which_stay() {
        let dir = tempfile::tempdir().unwrap();
        let registered = open(dir.path(), nobody()).unwrap();
        let names: HashSet<String> = thread::scope(|scope| {
            let add = || registered.add("a").unwrap();
            let threads: Vec<_> = (0..64).map(|_| scope.spawn(add)).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert_eq!(names.len(), 64);
        drop(registered);
        let registered = open(dir.path(), nobody()).unwrap();
        assert!(names.iter().all(|name| registered.contains(name)));
        assert!(!registered.contains("a"));
    }

    #[test]
    fn a_name_that_is_taken_gets_more_digits() {
        let dir = tempfile::tempdir().unwrap();
        let all_of_six = |name: &str| name.len() == "a-".len() + DIGITS_MIN;
        let registered = open(dir.path(), Box::new(all_of_six)).unwrap();
        let name = registered.add("a").unwrap();
        assert_eq!(name.len(), "a-".len() + DIGITS_MIN + 1, "{name}");
        drop(registered);
        let registered = open(dir.path(), Box::new(|_| true)).unwrap();
        let refused = registered.add("a").unwrap_err();
        let want = "not stored: no free name was found; try another prefix";
        assert_eq!(refused.to_string(), want);
    }

    #[test]
    fn a_file_cut_at_any_byte_keeps_every_whole_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        let whole = "ann-1\nbo-22\n";
        for cut in 0..=whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let registered = open(dir.path(), nobody()).unwrap();
            assert_eq!(registered.contains("ann-1"), cut >= 6);
            assert_eq!(registered.contains("bo-22"), cut >= 12);
            assert!(!registered.contains("bo-2"));
            let name = registered.add("").unwrap();
            drop(registered);
            assert!(open(dir.path(), nobody()).unwrap().contains(&name));
        }
    }

    #[test]
    fn zeros_at_the_end_are_cut_off_and_what_is_no_name_stops_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        for zeros in ["ann-1\n\0\0\0\0", "ann-1\n\0\0-2\n"] {
            fs::write(&path, zeros).unwrap();
            assert!(open(dir.path(), nobody()).unwrap().contains("ann-1"));
            assert_eq!(fs::read_to_string(&path).unwrap(), "ann-1\n");
        }
        for (damaged, line) in [("a b\n", 1), ("a-1\n# b\n", 2), ("a-1\n\0\nb-2\n", 2)] {
            fs::write(&path, damaged).unwrap();
            match open(dir.path(), nobody()).err() {
                Some(StorageError::Damaged { line: found, .. }) => assert_eq!(found, line),
                other => panic!("{other:?}"),
            }
            assert_eq!(fs::read_to_string(&path).unwrap(), damaged);
        }
    }
}
