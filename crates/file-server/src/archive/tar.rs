//! Tar, in the GNU format: a header of 512 bytes, the contents, and zeros up to the next 512. A path that
//! is too long for its header stands before it, as the contents of an entry of its own. Names are bytes,
//! and need not be UTF-8.
//!
//! A header says how long its file is before that is read. A file that becomes shorter meanwhile is filled
//! up with zeros, as GNU tar does.

use tar::{EntryType, Header};

use super::left_out::LeftOut;
use super::{Entry, Writer};
use crate::error::FilesError;
use crate::files::seconds_now;

const BLOCK_BYTES: usize = 512;

/// The name of an entry that holds the path of the next one.
const LONG_NAME: &[u8] = b"././@LongLink";

/// The longest name of a file, in bytes.
const NAME_BYTES_MAX: usize = 255;

/// Writes a tar.
#[derive(Default)]
pub(super) struct Tar {
    /// The length of the present file modulo [`BLOCK_BYTES`].
    in_block: usize,
}

impl Tar {
    fn put_contents(&mut self, out: &mut Vec<u8>, contents: &[u8]) {
        out.extend_from_slice(contents);
        self.note(contents);
        self.fill_block(out);
    }

    /// Puts zeros up to the end of the block.
    fn fill_block(&mut self, out: &mut Vec<u8>) {
        let missing = (BLOCK_BYTES - self.in_block) % BLOCK_BYTES;
        out.resize(out.len() + missing, 0);
        self.in_block = 0;
    }

    /// Puts the header of an entry. It belongs to root: who else has files here is not for other machines.
    fn put_header(&mut self, out: &mut Vec<u8>, kind: EntryType, entry: &Entry) {
        let mut header = Header::new_gnu();
        let field = header.as_old().name.len();
        if entry.path.len() > field {
            let bytes = entry.path.len() as u64 + 1;
            let long = Entry {
                path: LONG_NAME,
                permissions: 0,
                modified: 0,
                bytes,
            };
            self.put_header(out, EntryType::GNULongName, &long);
            let terminated = [entry.path, &[0]].concat();
            self.put_contents(out, &terminated);
        }
        let fits = entry.path.len().min(field);
        header.as_old_mut().name[..fits].copy_from_slice(&entry.path[..fits]);
        header.set_entry_type(kind);
        header.set_mode(entry.permissions);
        header.set_uid(0);
        header.set_gid(0);
        match u64::try_from(entry.modified) {
            Ok(seconds) => header.set_mtime(seconds),
            // Before 1970, in binary: the GNU format has it so, and octal digits have no sign.
            Err(_) => {
                let field = &mut header.as_old_mut().mtime;
                field.fill(0xff);
                field[4..].copy_from_slice(&entry.modified.to_be_bytes());
            }
        }
        header.set_size(entry.bytes);
        header.set_cksum();
        out.extend_from_slice(header.as_bytes());
    }
}

impl Writer for Tar {
    fn needs_all(&self) -> bool {
        true
    }

    fn put_folder(&mut self, out: &mut Vec<u8>, folder: &Entry) -> Result<(), FilesError> {
        let folder = Entry {
            bytes: 0,
            ..*folder
        };
        self.put_header(out, EntryType::Directory, &folder);
        Ok(())
    }

    fn begin_file(&mut self, out: &mut Vec<u8>, file: &Entry) -> Result<(), FilesError> {
        self.put_header(out, EntryType::Regular, file);
        Ok(())
    }

    fn note(&mut self, contents: &[u8]) {
        self.in_block = (self.in_block + contents.len()) % BLOCK_BYTES;
    }

    fn end_file(&mut self, out: &mut Vec<u8>) -> Result<(), FilesError> {
        self.fill_block(out);
        Ok(())
    }

    /// What is left out stands in a last file. All others are below the folder, so none has its name, which
    /// is that of the folder with an end, if that is no longer than names may be.
    fn put_end(&mut self, out: &mut Vec<u8>, folder: &[u8], left_out: &LeftOut) -> bool {
        if left_out.count() > 0 {
            let text = left_out.text();
            let name = [folder, b"-left-out.txt"].concat();
            let path = if name.len() > NAME_BYTES_MAX {
                &name[folder.len() + 1..]
            } else {
                &name
            };
            let file = Entry {
                path,
                permissions: 0o644,
                modified: i64::try_from(seconds_now()).unwrap_or(i64::MAX),
                bytes: text.len() as u64,
            };
            self.put_header(out, EntryType::Regular, &file);
            self.put_contents(out, text.as_bytes());
        }
        out.resize(out.len() + 2 * BLOCK_BYTES, 0);
        false
    }
}
