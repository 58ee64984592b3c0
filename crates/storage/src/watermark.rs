//! The synced watermark: up to where a file is known to be on the disk.
//!
//! After a failed sync Linux marks the pages clean. A server that is started again then reads lines
//! from the page cache that the disk never got, and no later sync writes them. So a server stores
//! with the file how much of it was synced, and a start writes the rest again before it trusts it.
//!
//! The watermark is an extended attribute of the file, so it stays with the file when that is
//! renamed. It is written only after the sync, so it may be too low and never too high, and needs no
//! sync of its own. It contains the inode number, because a copy may get the attribute too: the
//! watermark of the original does not count for it. Where there are no extended attributes, each
//! start writes the whole file again.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};

use rustix::fs::{XattrFlags, fgetxattr, fremovexattr, fsetxattr};
use rustix::io::Errno;

/// The attribute. Its value is the file's inode number and the number of synced bytes.
const NAME: &str = "user.quartet.synced";

/// The longest value, in bytes: two numbers and a space.
const VALUE_BYTES_MAX: usize = 41;

/// How much is rewritten at once, in bytes.
const BLOCK_BYTES: usize = 1 << 20;

/// The number of bytes of a file that are known to be on the disk; 0 if nothing is known.
pub(crate) fn read(file: &File) -> io::Result<u64> {
    let mut value = [0; VALUE_BYTES_MAX];
    let Ok(bytes) = fgetxattr(file, NAME, &mut value) else {
        return Ok(0);
    };
    let inode = file.metadata()?.ino();
    let value = std::str::from_utf8(&value[..bytes]).ok();
    let numbers = value.and_then(|value| value.split_once(' '));
    Ok(match numbers {
        Some((of, synced)) if of.parse() == Ok(inode) => synced.parse().unwrap_or(0),
        _ => 0,
    })
}

/// Stores the number of synced bytes.
///
/// # Errors
/// If there is an old watermark that can be neither replaced nor removed.
pub(crate) fn write(file: &File, synced_bytes: u64) -> io::Result<()> {
    let value = format!("{} {synced_bytes}", file.metadata()?.ino());
    let Err(error) = fsetxattr(file, NAME, value.as_bytes(), XattrFlags::empty()) else {
        return Ok(());
    };
    // Without a watermark, nothing is trusted.
    match fremovexattr(file, NAME) {
        Ok(()) | Err(Errno::NODATA | Errno::NOTSUP) => Ok(()),
        Err(_) => Err(error.into()),
    }
}

/// Writes a range of a file over itself, so that the next sync writes it to the disk.
pub(crate) fn rewrite(file: &File, from: u64, to: u64) -> io::Result<()> {
    let mut block = vec![0; BLOCK_BYTES.min((to - from) as usize)];
    let mut at = from;
    while at < to {
        let bytes = block.len().min((to - at) as usize);
        file.read_exact_at(&mut block[..bytes], at)?;
        file.write_all_at(&block[..bytes], at)?;
        at += bytes as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_watermark_stays_with_its_file_and_does_not_count_for_a_copy() {
        let dir = tempfile::tempdir().unwrap();
        let [path, moved, copy] = ["a", "b", "c"].map(|name| dir.path().join(name));
        let open = |path| File::options().read(true).write(true).open(path).unwrap();
        fs::write(&path, "some text").unwrap();
        assert_eq!(read(&open(&path)).unwrap(), 0);
        write(&open(&path), 4).unwrap();
        assert_eq!(read(&open(&path)).unwrap(), 4);
        fs::rename(&path, &moved).unwrap();
        write(&open(&moved), u64::MAX).unwrap();
        assert_eq!(read(&open(&moved)).unwrap(), u64::MAX);
        // Even if the copy has the attribute too.
        let mut value = [0; VALUE_BYTES_MAX];
        let bytes = fgetxattr(open(&moved), NAME, &mut value).unwrap();
        fs::copy(&moved, &copy).unwrap();
        let flags = XattrFlags::empty();
        fsetxattr(open(&copy), NAME, &value[..bytes], flags).unwrap();
        assert_eq!(read(&open(&copy)).unwrap(), 0);
        for wrong in ["", "1", " ", "x y", "1 2 3"] {
            fsetxattr(open(&copy), NAME, wrong.as_bytes(), flags).unwrap();
            assert_eq!(read(&open(&copy)).unwrap(), 0, "{wrong}");
        }
    }

    #[test]
    fn a_rewritten_range_is_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let text: Vec<u8> = (0..2 * BLOCK_BYTES + 17).map(|n| (n % 251) as u8).collect();
        fs::write(&path, &text).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        for from in [0, 1, BLOCK_BYTES, text.len() - 1, text.len()] {
            rewrite(&file, from as u64, text.len() as u64).unwrap();
            assert!(fs::read(&path).unwrap() == text, "from {from}");
        }
    }
}
