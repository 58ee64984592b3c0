//! The codes and their file, `codes.txt`: one line a code, `UUID CODE CRC`. The CRC-32 of what is
//! before it is written in eight hexadecimal digits.
//!
//! The writer thread alone makes codes. So two connections that ask for the same UUID at once get the
//! same code, and no client learns a code before it is on the disk.

use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;

use storage::{
    CommitError, CommitFigures, Committer, DataFolder, Fsync, Limits, Line, NotStored, Scanned,
    Space, StorageError, Store, TextFile,
};
use uuid::Uuid;

use crate::known::Known;

/// The codes' file in the data folder.
const FILE_NAME: &str = "codes.txt";

/// A UUID with its hyphens.
const UUID_BYTES: usize = 36;

/// A CRC in hexadecimal digits.
const CRC_BYTES: usize = 8;

/// A line without its line feed: two UUIDs and a CRC, with spaces between them.
const LINE_BYTES: usize = UUID_BYTES + 1 + UUID_BYTES + 1 + CRC_BYTES;

/// Why there is no code.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CodesError {
    /// The limit is reached.
    #[error("all {0} codes have been handed out")]
    TooMany(usize),
    /// The code is not stored.
    #[error("the code is {0}")]
    NotStored(NotStored),
}

/// All codes handed out so far. Any number of threads may use it at once.
pub struct Codes {
    codes_max: usize,
    known: Arc<Known>,
    writer: Committer<CodesFile>,
}

impl Codes {
    /// Reads the codes of a data folder. A last line that is not whole was never acknowledged, and
    /// is cut off with a warning. `on_failure` is called when the disk fails in a way that leaves
    /// open what is on it.
    ///
    /// # Errors
    /// If the file cannot be opened, or another line is damaged.
    pub fn open(
        folder: &mut DataFolder,
        codes_max: usize,
        fsync: Fsync,
        limits: Limits,
        on_failure: impl FnOnce() + Send + 'static,
    ) -> Result<Self, StorageError> {
        let mut known = Known::new();
        let data = folder.open(FILE_NAME)?;
        let path = data.path().to_owned();
        let metadata = data.file().metadata();
        let file_bytes = metadata.map_or(0, |there| there.len());
        let expected = usize::try_from(file_bytes).unwrap_or(usize::MAX) / (LINE_BYTES + 1);
        let mut loading = known.load(expected.min(codes_max));
        let look = |line: &[u8], is_whole| match parse(line) {
            Some((uuid, code)) if is_whole => {
                loading.add(uuid, code);
                Line::Sound
            }
            None if written_bytes(line) > LINE_BYTES => Line::Damaged,
            _ => Line::Torn,
        };
        let scanned = Scanned::lines(data, look)?;
        // Every line up to here has added a code, so their numbers are the same.
        let loaded = loading.end();
        let count = loaded.map_err(|line| StorageError::Damaged { path, line })?;
        let file = TextFile::recover(scanned, fsync)?;
        // What bounds its length is how many codes there may be.
        let file = file.with_limits(Limits {
            file_bytes_max: u64::MAX,
            ..limits
        });
        let known = Arc::new(known);
        let store = CodesFile {
            file,
            known: Arc::clone(&known),
            count,
            made: HashMap::new(),
            codes_max,
        };
        let writer = Committer::start(FILE_NAME, store, on_failure)?;
        Ok(Self {
            codes_max,
            known,
            writer,
        })
    }

    /// The code of a UUID: always the same one, made and stored at the first call.
    ///
    /// # Errors
    /// If there is none and none can be made.
    pub fn get_or_make(&self, uuid: Uuid) -> Result<Uuid, CodesError> {
        if let Some(code) = self.get(uuid) {
            return Ok(code);
        }
        let made = self.writer.submit(uuid).wait();
        made.map_err(CodesError::NotStored)?
            .ok_or(CodesError::TooMany(self.codes_max))
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.known.count() as u64
    }

    /// How many there may be.
    pub(crate) fn codes_max(&self) -> usize {
        self.codes_max
    }

    /// What was measured of their commits.
    pub(crate) fn commit_figures(&self) -> &CommitFigures {
        self.writer.figures()
    }

    /// The code of a UUID, if it has one.
    pub fn get(&self, uuid: Uuid) -> Option<Uuid> {
        self.known.get(uuid)
    }

    /// Why the disk failed in a way that leaves open what is on it, if it did. Tells it once.
    pub fn failure(&self) -> Option<StorageError> {
        self.writer.failure()
    }
}

/// What the writer thread owns.
struct CodesFile {
    file: TextFile,
    known: Arc<Known>,
    /// How many are known.
    count: usize,
    /// Made since the last commit.
    made: HashMap<Uuid, Uuid>,
    codes_max: usize,
}

impl Store for CodesFile {
    type Change = Uuid;
    /// The code; `None` if there are too many.
    type Outcome = Option<Uuid>;

    fn apply(&mut self, uuid: Uuid) -> Result<Option<Uuid>, NotStored> {
        let known = self.known.get(uuid);
        if let Some(code) = known.or_else(|| self.made.get(&uuid).copied()) {
            return Ok(Some(code));
        }
        if self.count + self.made.len() >= self.codes_max {
            return Ok(None);
        }
        let pending_bytes = self.file.pending().len() + LINE_BYTES + 1;
        self.file.check_space(pending_bytes, Space::Usual)?;
        let code = Uuid::new_v4();
        self.made.insert(uuid, code);
        let record = format!("{uuid} {code}");
        let crc = crc32fast::hash(record.as_bytes());
        writeln!(self.file.pending(), "{record} {crc:08x}").expect("a Vec takes what is written");
        Ok(Some(code))
    }

    fn is_batch_full(&self) -> bool {
        self.file.is_batch_full()
    }

    fn commit(&mut self) -> Result<(), CommitError> {
        let made = std::mem::take(&mut self.made);
        self.file.commit()?;
        self.count += made.len();
        for (uuid, code) in made {
            self.known.add(uuid, code);
        }
        Ok(())
    }
}

/// How long a line is without the zeros that a power cut may leave in the place of what was being
/// written.
fn written_bytes(line: &[u8]) -> usize {
    line.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1)
}

fn parse(line: &[u8]) -> Option<(Uuid, Uuid)> {
    let (record, crc) = line.split_at_checked(LINE_BYTES - CRC_BYTES)?;
    let record = record.strip_suffix(b" ")?;
    if hexadecimal(crc32fast::hash(record)) != crc {
        return None;
    }
    let (uuid, code) = record.split_at_checked(UUID_BYTES)?;
    let code = code.strip_prefix(b" ")?;
    let uuid = Uuid::try_parse_ascii(uuid).ok()?;
    Some((uuid, Uuid::try_parse_ascii(code).ok()?))
}

/// A CRC as a line has it. There are millions of lines to read, and this allocates nothing.
fn hexadecimal(crc: u32) -> [u8; CRC_BYTES] {
    let digit = |at: usize| b"0123456789abcdef"[(crc >> (28 - 4 * at)) as usize & 15];
    std::array::from_fn(digit)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::thread;

    use super::*;

    fn uuid(n: u128) -> Uuid {
        Uuid::from_u128(n)
    }

    fn open(dir: &Path, codes_max: usize) -> Result<Codes, StorageError> {
        let limits = Limits::default();
        let mut folder = DataFolder::create(dir)?;
        Codes::open(&mut folder, codes_max, Fsync::Always, limits, || {
            panic!("the disk failed")
        })
    }

    /// A data folder whose `codes.txt` holds codes for the UUIDs 1 to 3; and the codes.
    fn three() -> (tempfile::TempDir, Vec<Uuid>) {
        let dir = tempfile::tempdir().unwrap();
        let codes = open(dir.path(), 100).unwrap();
        let made = (1..=3).map(|n| codes.get_or_make(uuid(n)).unwrap());
        let made = made.collect();
        (dir, made)
    }

    #[test]
    fn one_uuid_has_one_code_for_every_client_at_any_time() {
        let dir = tempfile::tempdir().unwrap();
        let codes = open(dir.path(), 100).unwrap();
        let asked: Vec<Uuid> = thread::scope(|scope| {
            let ask = || codes.get_or_make(uuid(7)).unwrap();
            let threads: Vec<_> = (0..16).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert!(asked.iter().all(|code| *code == asked[0]));
        assert_eq!(asked[0].get_version_num(), 4);
        drop(codes);
        let codes = open(dir.path(), 100).unwrap();
        assert_eq!(codes.get(uuid(7)), Some(asked[0]));
        assert_eq!(codes.get(uuid(8)), None);
        assert_ne!(codes.get_or_make(uuid(8)).unwrap(), asked[0]);
    }

    #[test]
    fn the_limit_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let codes = open(dir.path(), 1).unwrap();
        let first = codes.get_or_make(uuid(1)).unwrap();
        let error = codes.get_or_make(uuid(2)).unwrap_err();
        assert_eq!(error.to_string(), "all 1 codes have been handed out");
        assert_eq!(codes.get_or_make(uuid(1)).unwrap(), first);
    }

    #[test]
    fn a_file_cut_at_any_byte_keeps_every_whole_line_and_goes_on() {
        let (dir, made) = three();
        let path = dir.path().join(FILE_NAME);
        let whole = fs::read(&path).unwrap();
        for cut in 0..=whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let codes = open(dir.path(), 100).unwrap();
            for (at, code) in made.iter().enumerate() {
                let kept = (at + 1) * (LINE_BYTES + 1) <= cut;
                assert_eq!(codes.get(uuid(at as u128 + 1)), kept.then_some(*code));
            }
            codes.get_or_make(uuid(9)).unwrap();
            drop(codes);
            open(dir.path(), 100).unwrap();
        }
    }

    #[test]
    fn zeros_in_the_place_of_the_newest_lines_are_cut_off() {
        let (dir, made) = three();
        let path = dir.path().join(FILE_NAME);
        let whole = fs::read(&path).unwrap();
        for cut in [2 * (LINE_BYTES + 1), 2 * (LINE_BYTES + 1) + 5] {
            let mut zeros = whole.clone();
            zeros.resize(4096, 0);
            zeros[cut..].fill(0);
            fs::write(&path, zeros).unwrap();
            let codes = open(dir.path(), 100).unwrap();
            assert_eq!(codes.get(uuid(2)), Some(made[1]));
            assert_eq!(codes.get(uuid(3)), None);
        }
    }

    #[test]
    fn a_flipped_byte_is_found_wherever_it_is() {
        let (dir, made) = three();
        let path = dir.path().join(FILE_NAME);
        let whole = fs::read(&path).unwrap();
        let last_line = 2 * (LINE_BYTES + 1);
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut flipped = whole.clone();
                flipped[at] ^= 1 << bit;
                fs::write(&path, &flipped).unwrap();
                match open(dir.path(), 100) {
                    Ok(codes) => {
                        assert!(at >= last_line, "byte {at} bit {bit}: passed over");
                        assert_eq!(codes.get(uuid(1)), Some(made[0]));
                        assert_eq!(codes.get(uuid(2)), Some(made[1]));
                        assert_eq!(codes.get(uuid(3)), None);
                    }
                    Err(StorageError::Damaged { line, .. }) => {
                        assert_eq!(line, (at / (LINE_BYTES + 1)) as u64 + 1);
                        assert_eq!(fs::read(&path).unwrap(), flipped);
                    }
                    Err(other) => panic!("byte {at} bit {bit}: {other}"),
                }
            }
        }
    }
}
