//! Who has which code, and `codes.txt`, where that is kept: one line a code, `UUID CODE`.

use std::collections::HashMap;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use daemon::lock;
use proto::escape::EscapedBytes;
use uuid::Uuid;

use crate::Error;

/// The codes' file in the data folder.
const FILE_NAME: &str = "codes.txt";

/// The longest part of a damaged line that is shown, in bytes.
const SHOWN_BYTES_MAX: usize = 120;

/// Why there is no code.
#[derive(Debug)]
#[non_exhaustive]
pub enum CodesError {
    /// As many codes as may be are handed out; with the limit.
    TooMany(usize),
    /// The code could not be written to its file.
    Storage(io::Error),
}

impl fmt::Display for CodesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany(max) => write!(f, "all {max} codes have been handed out"),
            Self::Storage(_) => f.write_str("the code could not be stored"),
        }
    }
}

impl std::error::Error for CodesError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::TooMany(_) => None,
            Self::Storage(cause) => Some(cause),
        }
    }
}

/// All codes handed out so far. Any number of threads may use it at once.
pub struct Codes {
    codes_max: usize,
    state: Mutex<State>,
}

struct State {
    codes: HashMap<Uuid, Uuid>,
    file: File,
}

impl Codes {
    /// Reads the codes of a data folder. A last line without its end was never acknowledged, and
    /// is cut off with a warning.
    ///
    /// # Errors
    /// If the file cannot be opened, or another line is damaged.
    pub fn open(data_dir: &Path, codes_max: usize) -> Result<Self, Error> {
        let path = data_dir.join(FILE_NAME);
        let failed = |cause| Error::Open {
            path: path.clone(),
            cause,
        };
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true);
        let file = options.open(&path).map_err(failed)?;
        let mut codes = HashMap::new();
        let mut input = BufReader::new(&file);
        let mut line = Vec::new();
        let mut whole_bytes = 0;
        for number in 1.. {
            line.clear();
            let bytes = input.read_until(b'\n', &mut line).map_err(failed)?;
            let Some(record) = line.strip_suffix(b"\n") else {
                break;
            };
            whole_bytes += bytes as u64;
            let (uuid, code) = parse(record).ok_or_else(|| damaged(&path, number))?;
            codes.insert(uuid, code);
        }
        if !line.is_empty() {
            let bytes = &line;
            let bytes_max = SHOWN_BYTES_MAX;
            let shown = EscapedBytes { bytes, bytes_max };
            log::warn!(
                "{}: the last line is cut off, it has no end: {shown}",
                path.display()
            );
            file.set_len(whole_bytes).map_err(failed)?;
        }
        let state = Mutex::new(State { codes, file });
        Ok(Self { codes_max, state })
    }

    /// The code of a UUID: always the same one, made and stored at the first call.
    ///
    /// # Errors
    /// If there is none and none can be made.
    pub fn get_or_make(&self, uuid: Uuid) -> Result<Uuid, CodesError> {
        let mut state = lock(&self.state);
        if let Some(code) = state.codes.get(&uuid) {
            return Ok(*code);
        }
        if state.codes.len() >= self.codes_max {
            return Err(CodesError::TooMany(self.codes_max));
        }
        let code = Uuid::new_v4();
        let line = format!("{uuid} {code}\n");
        let written = state.file.write_all(line.as_bytes());
        written.map_err(CodesError::Storage)?;
        state.codes.insert(uuid, code);
        Ok(code)
    }

    /// The code of a UUID, if it has one.
    pub fn get(&self, uuid: Uuid) -> Option<Uuid> {
        lock(&self.state).codes.get(&uuid).copied()
    }
}

fn parse(record: &[u8]) -> Option<(Uuid, Uuid)> {
    let (uuid, code) = std::str::from_utf8(record).ok()?.split_once(' ')?;
    Some((Uuid::try_parse(uuid).ok()?, Uuid::try_parse(code).ok()?))
}

fn damaged(path: &Path, line: usize) -> Error {
    let path = PathBuf::from(path);
    Error::DamagedCodes { path, line }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::thread;

    use super::*;

    fn uuid(n: u128) -> Uuid {
        Uuid::from_u128(n)
    }

    #[test]
    fn one_uuid_has_one_code_whoever_asks_and_when() {
        let dir = tempfile::tempdir().unwrap();
        let codes = Codes::open(dir.path(), 100).unwrap();
        let asked: Vec<Uuid> = thread::scope(|scope| {
            let ask = || codes.get_or_make(uuid(7)).unwrap();
            let threads: Vec<_> = (0..16).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert!(asked.iter().all(|code| *code == asked[0]));
        assert_eq!(asked[0].get_version_num(), 4);
        drop(codes);
        let codes = Codes::open(dir.path(), 100).unwrap();
        assert_eq!(codes.get(uuid(7)), Some(asked[0]));
        assert_eq!(codes.get(uuid(8)), None);
        assert_ne!(codes.get_or_make(uuid(8)).unwrap(), asked[0]);
    }

    #[test]
    fn the_limit_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let codes = Codes::open(dir.path(), 1).unwrap();
        let first = codes.get_or_make(uuid(1)).unwrap();
        let error = codes.get_or_make(uuid(2)).unwrap_err();
        assert_eq!(error.to_string(), "all 1 codes have been handed out");
        assert_eq!(codes.get_or_make(uuid(1)).unwrap(), first);
    }

    #[test]
    fn an_unfinished_last_line_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        let line = format!("{} {}\n", uuid(1), uuid(2));
        fs::write(&path, format!("{line}{}", uuid(3))).unwrap();
        let codes = Codes::open(dir.path(), 100).unwrap();
        assert_eq!(codes.get(uuid(1)), Some(uuid(2)));
        assert_eq!(fs::read_to_string(&path).unwrap(), line);
        codes.get_or_make(uuid(3)).unwrap();
        drop(codes);
        Codes::open(dir.path(), 100).unwrap();
    }

    #[test]
    fn a_damaged_line_stops_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        let text = format!("{} {}\nrubbish\n", uuid(1), uuid(2));
        fs::write(&path, &text).unwrap();
        match Codes::open(dir.path(), 100) {
            Err(Error::DamagedCodes { line: 2, .. }) => {}
            other => panic!("{:?}", other.err()),
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
}
