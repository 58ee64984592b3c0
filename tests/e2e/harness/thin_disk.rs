//! A disk that fails when it is told to: a file system in a file with holes, which is on a small disk
//! that is full then. What is written into a hole is lost, and nothing but a sync says so; reading
//! shows what is in memory, until the file system is mounted anew.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// What is below it takes so much in all, in bytes.
const LOW_BYTES: u64 = 24 << 20;

/// How long the file with holes is, in bytes.
const IMAGE_BYTES: u64 = 64 << 20;

/// The most files that can be on it.
const INODES: &str = "512";

/// The number of names that are put into its root first, so that its folder is large enough.
const NAMES: usize = 1000;

/// Mounted as long as it lives.
pub struct ThinDisk {
    top: TempDir,
}

impl ThinDisk {
    /// `None`, and a word of it, if such a thing cannot be had here.
    pub fn mount() -> Option<Self> {
        let disk = Self {
            top: tempfile::tempdir().unwrap(),
        };
        fs::create_dir(disk.low()).unwrap();
        fs::create_dir(disk.path()).unwrap();
        let size = format!("size={LOW_BYTES}");
        let small = ["-t", "tmpfs", "-o", &size, "quartet-test"];
        let is_there = succeeds("mount", small.map(OsStr::new), &[disk.low()])
            && File::create(disk.image()).is_ok_and(|image| image.set_len(IMAGE_BYTES).is_ok())
            && disk.format()
            && disk.mount_image();
        if !is_there {
            super::skipped("no file system in a file may be mounted here");
            return None;
        }
        disk.fill_holes();
        Some(disk)
    }

    fn format(&self) -> bool {
        let options = ["-q", "-b", "4096", "-N", INODES, "-O", "^has_journal"];
        let eager = ["-E", "lazy_itable_init=0"];
        let options = options.iter().chain(&eager).map(OsStr::new);
        succeeds("mkfs.ext4", options, &[self.image()])
    }

    /// Mounts it, and has it write a page at a time: of a longer write that meets a full disk in its
    /// middle, Linux says that it was done.
    fn mount_image(&self) -> bool {
        let options = ["-o", "loop,discard"].map(OsStr::new);
        if !succeeds("mount", options, &[self.image(), self.path()]) {
            return false;
        }
        let device = Command::new("losetup")
            .args(["-n", "-O", "NAME", "-j"])
            .arg(self.image())
            .output();
        let device = String::from_utf8(device.unwrap().stdout).unwrap();
        let device = device.trim().trim_start_matches("/dev/");
        let limit = format!("/sys/block/{device}/queue/max_sectors_kb");
        device.starts_with("loop") && fs::write(limit, "4").is_ok()
    }

    /// What the file system says of itself is not to be lost: all of it is written once.
    fn fill_holes(&self) {
        let name = |n: usize| self.path().join(format!("{n:0>60}"));
        let mut files = 0;
        while File::create(name(files)).is_ok() {
            files += 1;
        }
        let links = (files..NAMES).take_while(|n| fs::hard_link(name(0), name(*n)).is_ok());
        let names = files + links.count();
        assert!(names > NAMES / 2, "{names} names");
        self.sync();
        for n in 0..names {
            fs::remove_file(name(n)).unwrap();
        }
        self.sync();
    }

    /// Has everything on it written.
    fn sync(&self) {
        let synced = succeeds("sync", ["-f"].map(OsStr::new), &[self.path()]);
        assert!(synced);
    }

    /// The root of the file system.
    pub fn path(&self) -> PathBuf {
        self.top.path().join("disk")
    }

    fn low(&self) -> PathBuf {
        self.top.path().join("low")
    }

    fn image(&self) -> PathBuf {
        self.low().join("image")
    }

    fn filler(&self) -> PathBuf {
        self.low().join("filler")
    }

    /// After it has stored this many more bytes, it fails to store anything new.
    pub fn fail_after(&self, bytes: u64) {
        let used = fs::metadata(self.image()).unwrap().blocks() * 512;
        let mut left = LOW_BYTES.saturating_sub(used + bytes) / 4096;
        let mut filler = File::create(self.filler()).unwrap();
        while left > 0 && filler.write_all(&[1; 4096]).is_ok() {
            left -= 1;
        }
    }

    /// It keeps everything again.
    pub fn recover(&self) {
        let _ = fs::remove_file(self.filler());
    }

    /// Mounts it anew, so that what is read of it is what it has. Nobody has anything open on it.
    #[track_caller]
    pub fn drop_cache(&self) {
        assert!(succeeds("umount", [], &[self.path()]), "it is in use");
        assert!(self.mount_image());
    }
}

impl Drop for ThinDisk {
    fn drop(&mut self) {
        for mounted in [self.path(), self.low()] {
            succeeds("umount", ["-l"].map(OsStr::new), &[mounted]);
        }
    }
}

fn succeeds<'a>(
    program: &str,
    options: impl IntoIterator<Item = &'a OsStr>,
    paths: &[PathBuf],
) -> bool {
    let mut command = Command::new(program);
    command.args(options).args(paths);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
