//! What is in a history's file.

use std::fs;
use std::path::Path;

/// The records in `history.txt` of a folder, each a line without its sequence number. The numbers must
/// grow.
#[track_caller]
pub fn records(dir: &Path) -> String {
    let text = fs::read_to_string(dir.join("history.txt")).unwrap();
    let mut last = 0;
    let record = |line: &str| {
        let (number, record) = line.split_once(' ').unwrap();
        let number: u64 = number.strip_prefix('#').unwrap().parse().unwrap();
        assert!(number > last, "{number} follows {last}");
        last = number;
        record.to_owned()
    };
    text.split_inclusive('\n').map(record).collect()
}
