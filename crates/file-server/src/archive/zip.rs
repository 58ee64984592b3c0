//! Zip (PKWARE's APPNOTE 6.3.10): each file behind a local header and before a data descriptor, and at the
//! end the central directory, which has all of it once more.
//!
//! Files are stored, not compressed: photos and videos would not get smaller. The checksum of a file is
//! known only when it is sent, so it stands in the descriptor behind it (bit 3). A file that is or may be
//! at 4 GiB or behind it has 64-bit fields (zip64), and so has the end of an archive with more than 65,534
//! entries.
//!
//! A name in UTF-8 is marked so (bit 11). Any other is put as it is, without the mark, as Info-ZIP does:
//! its `unzip` makes the same bytes of it, and other programs take it for code page 437.

use std::collections::VecDeque;

use crc32fast::Hasher;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::left_out::LeftOut;
use super::{Entry, Writer};
use crate::error::FilesError;

/// The longest central directory, in bytes, which is in memory until the archive ends: room for some
/// 300,000 files whose paths have 40 bytes.
const CENTRAL_BYTES_MAX: usize = 32 << 20;

const _: () = assert!(
    CENTRAL_BYTES_MAX == 32 << 20,
    "the text of TooManyNames says 32 MiB"
);

/// It is kept in blocks of this size, so that it need not be moved as it grows.
const BLOCK_BYTES: usize = 64 * 1024;

const LOCAL_HEADER: u32 = 0x0403_4b50;
const DESCRIPTOR: u32 = 0x0807_4b50;
const CENTRAL_HEADER: u32 = 0x0201_4b50;
const END64: u32 = 0x0606_4b50;
const END64_LOCATOR: u32 = 0x0706_4b50;
const END: u32 = 0x0605_4b50;

/// The version that can read folders, and the one that can read zip64. The high byte says Unix.
const VERSION: u16 = 20;
const VERSION64: u16 = 45;
const UNIX: u16 = 3 << 8;

const HAS_DESCRIPTOR: u16 = 1 << 3;
const IS_UTF8: u16 = 1 << 11;

/// The kinds of extra fields: 64-bit numbers, and times.
const EXTRA64: u16 = 0x0001;
const EXTRA_TIME: u16 = 0x5455;

/// What a field of 32 or 16 bits holds if its number is in 64 bits elsewhere.
const ELSEWHERE: u32 = u32::MAX;
const ELSEWHERE16: u16 = u16::MAX;

/// The kinds of files, as in `st_mode`.
const REGULAR: u32 = 0o100_000;
const FOLDER: u32 = 0o040_000;
/// The same for DOS.
const DOS_FOLDER: u32 = 0x10;

/// Writes a zip.
#[derive(Default)]
pub(super) struct Zip {
    /// How much of the archive there is, in bytes.
    at: u64,
    file: Option<Member>,
    members: u64,
    central: VecDeque<Vec<u8>>,
    central_bytes: usize,
}

/// A file or a folder that is in the archive.
struct Member {
    path: Vec<u8>,
    mode: u32,
    modified: i64,
    /// Where its local header is.
    at: u64,
    /// Whether its lengths have 64 bits.
    is_64: bool,
    flags: u16,
    bytes: u64,
    crc: Hasher,
}

impl Member {
    fn new(entry: &Entry, mode: u32, flags: u16, at: u64) -> Self {
        let is_utf8 = std::str::from_utf8(entry.path).is_ok();
        Self {
            path: entry.path.to_owned(),
            mode: mode | entry.permissions,
            modified: entry.modified,
            at,
            is_64: entry.bytes >= u64::from(ELSEWHERE),
            flags: flags | if is_utf8 { IS_UTF8 } else { 0 },
            bytes: 0,
            crc: Hasher::new(),
        }
    }

    /// Puts the fields that both headers share, up to the checksum.
    fn put_start(&self, out: &mut Vec<u8>, version: u16) {
        let (date, time) = dos_time(self.modified);
        // Method 0: stored.
        for field in [version, self.flags, 0, time, date] {
            out.extend(field.to_le_bytes());
        }
    }

    /// Puts the time, with seconds and since 1970, for programs that know more than DOS.
    fn put_time(&self, out: &mut Vec<u8>) {
        if let Ok(seconds) = i32::try_from(self.modified) {
            out.extend(EXTRA_TIME.to_le_bytes());
            out.extend(5_u16.to_le_bytes());
            // The time of the last change, and no other.
            out.push(1);
            out.extend(seconds.to_le_bytes());
        }
    }

    fn local_header(&self) -> Vec<u8> {
        let mut extra = Vec::new();
        if self.is_64 {
            put_extra64(&mut extra, &[0, 0]);
        }
        self.put_time(&mut extra);
        let mut out = LOCAL_HEADER.to_le_bytes().to_vec();
        self.put_start(&mut out, if self.is_64 { VERSION64 } else { VERSION });
        // The checksum and the two lengths.
        let length = if self.is_64 { ELSEWHERE } else { 0 };
        for field in [0, length, length] {
            out.extend(field.to_le_bytes());
        }
        put_lengths(&mut out, &self.path, &extra);
        out.extend(&self.path);
        out.extend(extra);
        out
    }

    fn descriptor(&self) -> Vec<u8> {
        let mut out = DESCRIPTOR.to_le_bytes().to_vec();
        out.extend(self.crc.clone().finalize().to_le_bytes());
        for _ in 0..2 {
            if self.is_64 {
                out.extend(self.bytes.to_le_bytes());
            } else {
                out.extend((self.bytes as u32).to_le_bytes());
            }
        }
        out
    }

    fn central_header(&self) -> Vec<u8> {
        let (mut extra, mut numbers64) = (Vec::new(), Vec::new());
        let mut field = |number: u64| match u32::try_from(number) {
            Ok(number) if number != ELSEWHERE => number,
            Ok(_) | Err(_) => {
                numbers64.push(number);
                ELSEWHERE
            }
        };
        let (packed, bytes, at) = (field(self.bytes), field(self.bytes), field(self.at));
        if !numbers64.is_empty() {
            put_extra64(&mut extra, &numbers64);
        }
        self.put_time(&mut extra);
        let is_64 = self.is_64 || !numbers64.is_empty();
        let dos = if self.mode & FOLDER == FOLDER {
            DOS_FOLDER
        } else {
            0
        };
        let mut out = CENTRAL_HEADER.to_le_bytes().to_vec();
        out.extend((UNIX | VERSION64).to_le_bytes());
        self.put_start(&mut out, if is_64 { VERSION64 } else { VERSION });
        for field in [self.crc.clone().finalize(), packed, bytes] {
            out.extend(field.to_le_bytes());
        }
        put_lengths(&mut out, &self.path, &extra);
        // No comment, on disk 0, and no internal attributes.
        out.extend([0; 6]);
        for field in [self.mode << 16 | dos, at] {
            out.extend(field.to_le_bytes());
        }
        out.extend(&self.path);
        out.extend(extra);
        out
    }
}

/// Puts 64-bit numbers as an extra field.
fn put_extra64(out: &mut Vec<u8>, numbers: &[u64]) {
    out.extend(EXTRA64.to_le_bytes());
    out.extend((8 * numbers.len() as u16).to_le_bytes());
    for number in numbers {
        out.extend(number.to_le_bytes());
    }
}

/// Puts how long a path and the extra fields are.
fn put_lengths(out: &mut Vec<u8>, path: &[u8], extra: &[u8]) {
    for part in [path, extra] {
        out.extend((part.len() as u16).to_le_bytes());
    }
}

/// A time in UTC as DOS has it, from 1980 to 2107 and in steps of two seconds: a date and a time.
fn dos_time(seconds: i64) -> (u16, u16) {
    const FIRST: (u16, u16) = (1 << 5 | 1, 0);
    let Ok(moment) = Timestamp::from_second(seconds) else {
        return FIRST;
    };
    let moment = moment.to_zoned(TimeZone::UTC);
    let Ok(years @ 0..=127) = u16::try_from(moment.year() - 1980) else {
        return FIRST;
    };
    let [month, day, hour, minute, second] = [
        moment.month(),
        moment.day(),
        moment.hour(),
        moment.minute(),
        moment.second(),
    ]
    .map(|part| part as u16);
    (
        years << 9 | month << 5 | day,
        hour << 11 | minute << 5 | (second / 2),
    )
}

impl Zip {
    fn put(&mut self, out: &mut Vec<u8>, bytes: &[u8]) {
        out.extend_from_slice(bytes);
        self.at += bytes.len() as u64;
    }

    /// Adds what is in the archive now to the central directory.
    fn add(&mut self, member: &Member) -> Result<(), FilesError> {
        let header = member.central_header();
        self.members += 1;
        self.central_bytes += header.len();
        if self.central_bytes > CENTRAL_BYTES_MAX {
            return Err(FilesError::TooManyNames);
        }
        match self.central.back_mut() {
            Some(block) if block.len() + header.len() <= BLOCK_BYTES => block.extend(header),
            Some(_) | None => {
                let mut block = Vec::with_capacity(BLOCK_BYTES);
                block.extend(header);
                self.central.push_back(block);
            }
        }
        Ok(())
    }

    /// What stands behind the central directory.
    fn end(&self, comment: &str) -> Vec<u8> {
        let (central_bytes, at) = (self.central_bytes as u64, self.at);
        let central_at = at - central_bytes;
        let mut out = Vec::new();
        let members = u16::try_from(self.members).unwrap_or(ELSEWHERE16);
        let [bytes32, at32] =
            [central_bytes, central_at].map(|number| u32::try_from(number).unwrap_or(ELSEWHERE));
        if members == ELSEWHERE16 || at32 == ELSEWHERE {
            out.extend(END64.to_le_bytes());
            // How much follows of it.
            out.extend(44_u64.to_le_bytes());
            for version in [UNIX | VERSION64, VERSION64] {
                out.extend(version.to_le_bytes());
            }
            // Disk 0, where the directory starts too.
            out.extend([0; 8]);
            for number in [self.members, self.members, central_bytes, central_at] {
                out.extend(number.to_le_bytes());
            }
            out.extend(END64_LOCATOR.to_le_bytes());
            out.extend(0_u32.to_le_bytes());
            out.extend(at.to_le_bytes());
            out.extend(1_u32.to_le_bytes());
        }
        out.extend(END.to_le_bytes());
        out.extend([0; 4]);
        for count in [members, members] {
            out.extend(count.to_le_bytes());
        }
        for number in [bytes32, at32] {
            out.extend(number.to_le_bytes());
        }
        out.extend((comment.len() as u16).to_le_bytes());
        out.extend(comment.as_bytes());
        out
    }
}

impl Writer for Zip {
    fn needs_all(&self) -> bool {
        false
    }

    fn put_folder(&mut self, out: &mut Vec<u8>, folder: &Entry) -> Result<(), FilesError> {
        let folder = Entry {
            bytes: 0,
            ..*folder
        };
        let member = Member::new(&folder, FOLDER, 0, self.at);
        self.put(out, &member.local_header());
        self.add(&member)
    }

    fn begin_file(&mut self, out: &mut Vec<u8>, file: &Entry) -> Result<(), FilesError> {
        let member = Member::new(file, REGULAR, HAS_DESCRIPTOR, self.at);
        self.put(out, &member.local_header());
        self.file = Some(member);
        Ok(())
    }

    fn note(&mut self, contents: &[u8]) {
        self.at += contents.len() as u64;
        if let Some(file) = &mut self.file {
            file.bytes += contents.len() as u64;
            file.crc.update(contents);
        }
    }

    fn end_file(&mut self, out: &mut Vec<u8>) -> Result<(), FilesError> {
        let Some(file) = self.file.take() else {
            return Ok(());
        };
        self.put(out, &file.descriptor());
        self.add(&file)
    }

    fn put_end(&mut self, out: &mut Vec<u8>, _folder: &[u8], left_out: &LeftOut) -> bool {
        match self.central.pop_front() {
            Some(block) => {
                self.put(out, &block);
                true
            }
            None => {
                out.extend(self.end(&left_out.text()));
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_dos_has_them() {
        let check = |seconds, want: (u16, u16, u16, u16, u16, u16)| {
            let (date, time) = dos_time(seconds);
            let date = (1980 + (date >> 9), date >> 5 & 15, date & 31);
            let time = (time >> 11, time >> 5 & 63, 2 * (time & 31));
            assert_eq!((date.0, date.1, date.2, time.0, time.1, time.2), want);
        };
        check(1_000_000_007, (2001, 9, 9, 1, 46, 46));
        check(4_354_819_199, (2107, 12, 31, 23, 59, 58));
        for too_far in [0, -1, i64::MIN, 4_354_819_200, i64::MAX] {
            check(too_far, (1980, 1, 1, 0, 0, 0));
        }
    }

    #[test]
    fn the_names_of_a_zip_have_a_limit() {
        let mut zip = Zip::default();
        let path = "x".repeat(60_000);
        let folder = Entry {
            path: path.as_bytes(),
            permissions: 0o755,
            modified: 0,
            bytes: 0,
        };
        let mut out = Vec::new();
        let fits = std::iter::repeat_with(|| {
            out.clear();
            zip.put_folder(&mut out, &folder)
        });
        let fits = fits.take_while(Result::is_ok).count();
        assert_eq!(fits, CENTRAL_BYTES_MAX / (46 + 60_000 + 9));
    }
}
