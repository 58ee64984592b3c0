//! Large transfers: a file down and up, and a long history. An operation is a megabyte (10^6 bytes).
//!
//! The client reads in large pieces and throws them away; that the length is right is checked each
//! time, the content once, outside the measured time.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use proto::frame::{FIRST_BYTE, HEADER_BYTES, Message as _};
use proto::history::{Operation, Reply, Request};
use proto::http::request::put_head;
use proto::http::{BodyLength, ResponseHead};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::contestant::{Contestant, Lab, Sample};
use crate::conversation::Wrong;
use crate::error::Error;
use crate::figures;
use crate::process::{Process, find, free_addr};
use crate::served::{Web, connect, get_request, noise, start, start_web};

/// How much is read at once, in bytes.
const PIECE_BYTES: usize = 1 << 20;

/// Bytes in an operation.
const MEGABYTE_BYTES: usize = 1_000_000;

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
fn sample(bytes: u64, elapsed: Duration, processor: Option<Duration>) -> Sample {
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

/// Writes a history of about so many bytes; returns how many.
fn write_history(path: &Path, bytes_min: usize) -> Result<u64, Error> {
    let write = || -> std::io::Result<u64> {
        let mut out = BufWriter::new(File::create(path)?);
        let mut bytes = 0;
        for line in 0.. {
            if bytes >= bytes_min {
                break;
            }
            let text = history_line(line);
            out.write_all(text.as_bytes())?;
            bytes += text.len();
        }
        let file = out.into_inner()?;
        file.sync_all()?;
        Ok(bytes as u64)
    };
    write().map_err(Error::io("write the history"))
}

/// A line as the history keeps it, with its end; `line` counts from 0.
fn history_line(line: u64) -> String {
    let (millis, port) = (line % 1000, 30_000 + line % 10_000);
    format!("2026-11-21T01:46:05.{millis:03}Z 127.0.0.1:{port} alice hello\n")
}

/// Our history, read as a whole.
pub struct HistoryRead {
    process: Process,
    addr: SocketAddrV4,
    bytes: u64,
    _dir: TempDir,
}

impl HistoryRead {
    /// Starts the server on a long history, and checks what it shows.
    ///
    /// # Errors
    /// If it cannot be started, or shows something else.
    pub fn start(lab: &Lab) -> Result<Self, Error> {
        let dir = lab.dir()?;
        let bytes = write_history(&dir.path().join("history.txt"), lab.scale.history_bytes)?;
        let args = ["PORT", "--data-dir", "DIR"];
        let (process, addr) = start("history-server", &args, dir.path())?;
        let read = Self {
            process,
            addr,
            bytes,
            _dir: dir,
        };
        read.check()?;
        Ok(read)
    }

    /// Compares the history that is shown, line by line, up to the end of what was written.
    fn check(&self) -> Result<(), Error> {
        let mut want = Sha256::new();
        let mut left = 0;
        let mut kept = 0;
        for line in 0.. {
            if kept >= self.bytes {
                break;
            }
            let text = history_line(line);
            let shown = format!("{} {text}", line + 1);
            want.update(&shown);
            kept += text.len() as u64;
            left += shown.len();
        }
        let mut got = Sha256::new();
        self.get(|piece| {
            let taken = piece.len().min(left);
            got.update(&piece[..taken]);
            left -= taken;
        })?;
        let got = got.finalize();
        match left == 0 && got == want.finalize() {
            true => Ok(()),
            false => Err(Wrong::new("the digest of the history", &got).into()),
        }
    }

    /// Reads the history; hands on the pieces of its text. Returns the text's length.
    fn get(&self, mut each: impl FnMut(&[u8])) -> Result<u64, Error> {
        let mut stream = connect(self.addr)?;
        let mut request = Vec::new();
        let get = Request {
            user: "alice",
            operation: Operation::Get,
        };
        get.encode(&mut request);
        stream.write_all(&request).map_err(Error::io("send"))?;
        let mut input = BufReader::with_capacity(PIECE_BYTES, stream);
        let text_kind = Reply::Text(&[]).kind();
        let about_kind = Reply::About("").kind();
        let done_kind = Reply::Done("").kind();
        let mut text_bytes = 0;
        loop {
            // By hand, for `proto` would copy each frame, and `nc` has no frames to copy.
            let mut header = [0; HEADER_BYTES];
            input.read_exact(&mut header).map_err(Error::io("read"))?;
            let [first, length @ .., kind] = header;
            let length = u32::from_be_bytes([0, length[0], length[1], length[2]]) as usize;
            if first != FIRST_BYTE || length == 0 {
                return Err(Wrong::new("a frame", &header).into());
            }
            let mut left = length - 1;
            while left > 0 {
                let piece = input.fill_buf().map_err(Error::io("read"))?;
                if piece.is_empty() {
                    return Err(Wrong::new("a whole frame", &header).into());
                }
                let taken = piece.len().min(left);
                if kind == text_kind {
                    each(&piece[..taken]);
                    text_bytes += taken as u64;
                }
                input.consume(taken);
                left -= taken;
            }
            match kind {
                kind if kind == done_kind => return Ok(text_bytes),
                kind if kind == text_kind || kind == about_kind => {}
                _ => return Err(Wrong::new("a piece of the history", &header).into()),
            }
        }
    }
}

impl Contestant for HistoryRead {
    fn commands(&self) -> String {
        format!("`{}`", self.process.command())
    }

    fn round(&mut self) -> Result<Sample, Error> {
        let before = figures::processor_time(self.process.pid())?;
        let begun = Instant::now();
        let text_bytes = self.get(|_| {})?;
        let elapsed = begun.elapsed();
        let spent = figures::processor_time(self.process.pid())?.saturating_sub(before);
        if text_bytes < self.bytes {
            return Err(Wrong::new("all lines", text_bytes.to_string().as_bytes()).into());
        }
        // The numbers that the server puts in front of the lines do not count.
        Ok(sample(self.bytes, elapsed, Some(spent)))
    }

    fn memory_peak_bytes(&self) -> Option<u64> {
        figures::memory_peak_bytes(self.process.pid()).ok()
    }
}

/// `nc`, sending the same file. It serves one connection, so each round starts it anew.
pub struct Nc {
    bytes: u64,
    dir: TempDir,
}

const NC_ARGS: &str = "-l -N 127.0.0.1 PORT < DIR/history.txt";

impl Nc {
    /// Makes the file.
    ///
    /// # Errors
    /// If `nc` is not installed.
    pub fn start(lab: &Lab) -> Result<Self, Error> {
        find("nc")?;
        let dir = lab.dir()?;
        let bytes = write_history(&dir.path().join("history.txt"), lab.scale.history_bytes)?;
        Ok(Self { bytes, dir })
    }
}

impl Contestant for Nc {
    fn commands(&self) -> String {
        format!("`nc {NC_ARGS}`")
    }

    fn round(&mut self) -> Result<Sample, Error> {
        let dir = self.dir.path();
        let file = File::open(dir.join("history.txt")).map_err(Error::io("history.txt"))?;
        let addr = free_addr()?;
        let port = addr.port().to_string();
        let args = ["-l", "-N", "127.0.0.1", &port].map(OsString::from);
        let mut nc = Process::start("nc", &args, dir, file.into(), NC_ARGS)?;
        let mut stream = nc.connect(addr)?;
        let begun = Instant::now();
        let mut piece = vec![0; PIECE_BYTES];
        let mut got = 0;
        loop {
            match stream.read(&mut piece).map_err(Error::io("read"))? {
                0 => break,
                bytes => got += bytes as u64,
            }
        }
        let elapsed = begun.elapsed();
        match got == self.bytes {
            true => Ok(sample(got, elapsed, None)),
            false => Err(Wrong::new("the whole file", got.to_string().as_bytes()).into()),
        }
    }
}
