//! Large transfers: a file down and up. An operation is a megabyte (10^6 bytes).
//!
//! The client reads in large pieces and throws them away; that the length is right is checked each
//! time, the content once, outside the measured time.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use proto::http::request::put_head;
use proto::http::{BodyLength, ResponseHead};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::contestant::{Contestant, Lab, Sample};
use crate::conversation::Wrong;
use crate::error::Error;
use crate::figures;
use crate::process::{Process, find};
use crate::served::{Web, connect, get_request, noise, start_web};

/// How much is read at once, in bytes.
pub const PIECE_BYTES: usize = 1 << 20;

/// Bytes in an operation.
pub const MEGABYTE_BYTES: usize = 1_000_000;

/// A file of so many megabytes, all different: one megabyte of noise, numbered.
struct Content {
    piece: Vec<u8>,
    megabytes: u64,
}

impl Content {
    fn new(megabytes: u64) -> Self {
        Self {
            piece: noise(MEGABYTE_BYTES, 2),
            megabytes,
        }
    }

    fn bytes(&self) -> u64 {
        self.megabytes * MEGABYTE_BYTES as u64
    }

    fn write(&mut self, out: &mut impl Write) -> std::io::Result<()> {
        for number in 0..self.megabytes {
            self.piece[..8].copy_from_slice(&number.to_be_bytes());
            out.write_all(&self.piece)?;
        }
        Ok(())
    }

    fn digest(&mut self) -> Result<Vec<u8>, Error> {
        let mut digest = Sha256::new();
        let written = self.write(&mut digest);
        written.map_err(Error::io("digest"))?;
        Ok(digest.finalize().to_vec())
    }

    fn save(&mut self, path: &Path) -> Result<(), Error> {
        let written = File::create(path).and_then(|mut file| {
            self.write(&mut file)?;
            // Or writing it out would go on while others are measured.
            file.sync_all()
        });
        written.map_err(Error::io("write the large file"))
    }
}

/// A sample of a transfer.
pub fn sample(bytes: u64, elapsed: Duration, processor: Option<Duration>) -> Sample {
    let operations = bytes as f64 / MEGABYTE_BYTES as f64;
    Sample {
        value: operations / elapsed.as_secs_f64(),
        processor_micros: processor.map(|time| time.as_secs_f64() * 1e6 / operations),
        generator_busy: None,
        latency_nanos: None,
    }
}

/// A web server that gives a large file.
pub struct Download {
    process: Process,
    addr: SocketAddrV4,
    note: &'static str,
    bytes: u64,
    _dir: TempDir,
}

impl Download {
    /// Starts the server, and checks what it gives.
    ///
    /// # Errors
    /// If it is not installed, or gives something else.
    pub fn start(lab: &Lab, web: Web) -> Result<Self, Error> {
        let dir = lab.dir()?;
        let root = dir.path().join("root");
        fs::create_dir(&root).map_err(Error::io("make a folder"))?;
        let mut content = Content::new(lab.scale.file_megabytes);
        content.save(&root.join("file.bin"))?;
        let (process, addr, note) = start_web(web, dir.path())?;
        let download = Self {
            process,
            addr,
            note,
            bytes: content.bytes(),
            _dir: dir,
        };
        let mut digest = Sha256::new();
        download.get(|piece| digest.update(piece))?;
        let got = digest.finalize().to_vec();
        match got == content.digest()? {
            true => Ok(download),
            false => Err(Wrong::new("the digest of the file", &got).into()),
        }
    }

    fn get(&self, mut each: impl FnMut(&[u8])) -> Result<(), Error> {
        let mut stream = connect(self.addr)?;
        let sent = stream.write_all(&get_request(self.addr, "/file.bin"));
        sent.map_err(Error::io("send"))?;
        let mut input = BufReader::with_capacity(PIECE_BYTES, stream);
        let head = ResponseHead::read(&mut input, "GET");
        let head = head.map_err(|_| Wrong::new("an HTTP head", &[]))?;
        if head.status != 200 || head.body != BodyLength::Bytes(self.bytes) {
            let got = format!("{} with {:?}", head.status, head.body);
            return Err(Wrong::new("200 and the file's length", got.as_bytes()).into());
        }
        let mut left = self.bytes;
        while left > 0 {
            let piece = input.fill_buf().map_err(Error::io("read"))?;
            if piece.is_empty() || piece.len() as u64 > left {
                return Err(Wrong::new("as many bytes as announced", &[]).into());
            }
            each(piece);
            let taken = piece.len();
            left -= taken as u64;
            input.consume(taken);
        }
        Ok(())
    }
}

impl Contestant for Download {
    fn commands(&self) -> String {
        format!("`{}`{}", self.process.command(), self.note)
    }

    fn round(&mut self) -> Result<Sample, Error> {
        let before = figures::processor_time(self.process.pid())?;
        let begun = Instant::now();
        self.get(|_| {})?;
        let elapsed = begun.elapsed();
        let spent = figures::processor_time(self.process.pid())?.saturating_sub(before);
        Ok(sample(self.bytes, elapsed, Some(spent)))
    }

    fn memory_peak_bytes(&self) -> Option<u64> {
        figures::memory_peak_bytes(self.process.pid()).ok()
    }
}

/// Our file server, given a large file.
pub struct Upload {
    process: Process,
    addr: SocketAddrV4,
    content: Content,
    /// Where the server keeps the file.
    stored: PathBuf,
    digest: Option<Vec<u8>>,
    _dir: TempDir,
}

impl Upload {
    /// Starts the server.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(lab: &Lab) -> Result<Self, Error> {
        lab.require_disk()?;
        let dir = lab.dir()?;
        let root = dir.path().join("root");
        fs::create_dir(&root).map_err(Error::io("make a folder"))?;
        let (process, addr, _) = start_web(Web::Ours, dir.path())?;
        let mut content = Content::new(lab.scale.file_megabytes);
        Ok(Self {
            process,
            addr,
            stored: root.join("file.bin"),
            digest: Some(content.digest()?),
            content,
            _dir: dir,
        })
    }

    fn put(&mut self) -> Result<(), Error> {
        let mut stream = connect(self.addr)?;
        let length = self.content.bytes().to_string();
        let fields = [("Content-Length", length.as_str())];
        let mut head = Vec::new();
        put_head(
            &mut head,
            "PUT",
            "/file.bin",
            &self.addr.to_string(),
            &fields,
        );
        let sent = stream
            .write_all(&head)
            .and_then(|()| self.content.write(&mut stream));
        sent.map_err(Error::io("send"))?;
        let reply = ResponseHead::read(&mut BufReader::new(stream), "PUT");
        match reply {
            Ok(head) if matches!(head.status, 200 | 201) => Ok(()),
            Ok(head) => Err(Wrong::new("200 or 201", head.status.to_string().as_bytes()).into()),
            Err(error) => Err(Wrong::new("an HTTP head", error.to_string().as_bytes()).into()),
        }
    }

    /// Checks the file's length, and the first time its digest; then removes it.
    fn check_stored(&mut self) -> Result<(), Error> {
        let shown = || Error::io("read back what was uploaded");
        let length = fs::metadata(&self.stored).map_err(shown())?.len();
        if length != self.content.bytes() {
            return Err(Wrong::new("the whole file", length.to_string().as_bytes()).into());
        }
        if let Some(want) = self.digest.take() {
            let mut digest = Sha256::new();
            let mut file = File::open(&self.stored).map_err(shown())?;
            std::io::copy(&mut file, &mut digest).map_err(shown())?;
            let got = digest.finalize().to_vec();
            if got != want {
                return Err(Wrong::new("the digest of the file", &got).into());
            }
        }
        fs::remove_file(&self.stored).map_err(shown())
    }
}

impl Contestant for Upload {
    fn commands(&self) -> String {
        format!("`{}`", self.process.command())
    }

    fn round(&mut self) -> Result<Sample, Error> {
        let before = figures::processor_time(self.process.pid())?;
        let begun = Instant::now();
        self.put()?;
        let elapsed = begun.elapsed();
        let spent = figures::processor_time(self.process.pid())?.saturating_sub(before);
        self.check_stored()?;
        Ok(sample(self.content.bytes(), elapsed, Some(spent)))
    }

    fn memory_peak_bytes(&self) -> Option<u64> {
        figures::memory_peak_bytes(self.process.pid()).ok()
    }
}

/// `dd`, writing the same bytes to the same disk.
pub struct Dd {
    bytes: u64,
    dir: TempDir,
}

impl Dd {
    /// Makes the file that is copied.
    ///
    /// # Errors
    /// If `dd` is not installed.
    pub fn start(lab: &Lab) -> Result<Self, Error> {
        lab.require_disk()?;
        find("dd")?;
        let dir = lab.dir()?;
        let mut content = Content::new(lab.scale.file_megabytes);
        content.save(&dir.path().join("source"))?;
        Ok(Self {
            bytes: content.bytes(),
            dir,
        })
    }
}

const DD_ARGS: &str = "if=DIR/source of=DIR/copy bs=1M conv=fsync";

impl Contestant for Dd {
    fn commands(&self) -> String {
        format!("`dd {DD_ARGS}`")
    }

    fn round(&mut self) -> Result<Sample, Error> {
        let dir = self.dir.path();
        let args = ["if=source", "of=copy", "bs=1M", "conv=fsync"].map(OsString::from);
        let begun = Instant::now();
        let dd = Process::start("dd", &args, dir, Stdio::null(), DD_ARGS)?;
        let is_well = dd.wait()?;
        let elapsed = begun.elapsed();
        let copy = dir.join("copy");
        let length = fs::metadata(&copy).map_err(Error::io("dd's copy"))?.len();
        fs::remove_file(&copy).map_err(Error::io("dd's copy"))?;
        if !is_well || length != self.bytes {
            return Err(Wrong::new("dd's copy whole", length.to_string().as_bytes()).into());
        }
        Ok(sample(self.bytes, elapsed, None))
    }
}
