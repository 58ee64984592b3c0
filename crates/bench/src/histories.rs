//! A long history, read as a whole. An operation is a megabyte (10^6 bytes).

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::net::SocketAddrV4;
use std::path::Path;
use std::time::Instant;

use proto::frame::{FIRST_BYTE, HEADER_BYTES, Message as _};
use proto::history::{Operation, Reply, Request};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::contestant::{Contestant, Lab, Sample};
use crate::conversation::Wrong;
use crate::error::Error;
use crate::figures;
use crate::process::{Process, find, free_addr};
use crate::served::{connect, start};
use crate::transfers::{MEGABYTE_BYTES, PIECE_BYTES, sample};

/// Writes a history of about so many bytes; returns how many.
///
/// # Errors
/// If it cannot be written.
pub fn write_history(path: &Path, bytes_min: usize) -> Result<u64, Error> {
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
    pub fn start(lab: &Lab, megabytes: usize) -> Result<Self, Error> {
        let dir = lab.dir()?;
        let bytes = write_history(&dir.path().join("history.txt"), megabytes * MEGABYTE_BYTES)?;
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
    pub fn start(lab: &Lab, megabytes: usize) -> Result<Self, Error> {
        find("nc")?;
        let dir = lab.dir()?;
        let bytes = write_history(&dir.path().join("history.txt"), megabytes * MEGABYTE_BYTES)?;
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
