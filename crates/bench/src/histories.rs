//! The history: appends under load, and a long one that is read as a whole and searched, of which a
//! megabyte is an operation.

use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use proto::frame::{self, Message as _};
use proto::history::{Filter, Operation, Reply, Request};

use crate::contestant::{Clients, Contestant, Lab, Sample, rounds};
use crate::conversation::Wrong;
use crate::error::Error;
use crate::frames::{Frames, connect};
use crate::process::{Process, free_addr};
use crate::served::{Served, fixed_talk};

/// The history that is read, in megabytes.
const READ_MEGABYTES: u64 = 100;

/// What is searched for, and how many lines are between two that contain it.
const RARE: &str = "note the disk is full";
const RARE_LINES: u64 = 100_000;

/// How much `nc` is read at once, in bytes.
const PIECE_BYTES: usize = 1 << 20;

/// The arguments of the server.
pub const START: &[&str] = &["PORT", "--data-dir", "DIR"];

/// Starts the server, with these options besides.
///
/// # Errors
/// If it cannot be started.
pub fn start(dir: &Path, options: &[&str]) -> Result<Process, Error> {
    Process::start("history-server", &[START, options].concat(), dir)
}

fn request(operation: Operation) -> Request {
    let user = "alice";
    Request { user, operation }
}

/// Reads the reply to one request; hands over each frame, and returns when it is done.
fn read_reply(frames: &mut Frames, mut each: impl FnMut(u8, &Reply, &[u8])) -> Result<(), Error> {
    loop {
        let kind = frames.read()?;
        match Reply::decode(kind, &frames.payload) {
            Ok(reply @ (Reply::About(_) | Reply::Text(_))) => each(kind, &reply, &frames.payload),
            Ok(reply @ Reply::Done(_)) => {
                each(kind, &reply, &frames.payload);
                return Ok(());
            }
            Ok(_) | Err(_) => return Err(frames.wrong("a history's reply")),
        }
    }
}

/// Adds a note `count` times, without a wait in between, and returns when all are there.
///
/// # Errors
/// If they are not.
pub fn notes(frames: &mut Frames, text: &str, count: usize) -> Result<(), Error> {
    (0..count).try_for_each(|_| frames.send(&request(Operation::Note(text))))?;
    (0..count).try_for_each(|_| read_reply(frames, |_, _, _| {}))
}

/// The history, greeted again and again; each greeting is a line in it.
///
/// # Errors
/// If it cannot be started.
pub fn appends(lab: &Lab, clients: Clients) -> Result<Box<dyn Contestant>, Error> {
    Ok(Box::new(served_appends(lab, clients, &[])?))
}

/// The same, of a server with these options.
///
/// # Errors
/// If it cannot be started.
pub fn served_appends(lab: &Lab, clients: Clients, options: &[&str]) -> Result<Served, Error> {
    let dir = lab.dir()?;
    let process = start(dir.path(), options)?;
    let hello = request(Operation::Hello);
    let mut frames = Frames::new(connect(process.addr())?);
    frames.send(&hello)?;
    let mut reply = Vec::new();
    read_reply(&mut frames, |kind, _, payload| {
        frame::put(&mut reply, kind, |out| out.extend_from_slice(payload));
    })?;
    let mut bytes = Vec::new();
    hello.encode(&mut bytes);
    // The first is there already.
    let lines = (dir.path().join("history.txt"), 1);
    let talk = fixed_talk(bytes, &reply);
    let mut served = Served::new(lab, clients, process, talk, dir);
    served.lines = Some(lines);
    Ok(served)
}

/// Writes the history that is read; returns its length in bytes.
fn write_history(path: &Path) -> Result<u64, Error> {
    let write = || -> std::io::Result<u64> {
        let mut out = BufWriter::new(File::create(path)?);
        let mut bytes = 0;
        for line in 0.. {
            if bytes >= READ_MEGABYTES * 1_000_000 {
                break;
            }
            let (millis, port) = (line % 1000, 30_000 + line % 10_000);
            let what = match line % RARE_LINES {
                0 => RARE,
                _ => "hello",
            };
            let line = format!("2026-11-21T01:46:05.{millis:03}Z 127.0.0.1:{port} alice {what}\n");
            out.write_all(line.as_bytes())?;
            bytes += line.len() as u64;
        }
        out.into_inner()?.sync_all()?;
        Ok(bytes)
    };
    write().map_err(Error::io("write the history"))
}

/// Requests lines of the history; hands over each piece of them.
///
/// # Errors
/// If they do not come.
pub fn get(
    frames: &mut Frames,
    filter: Filter<'static>,
    mut each: impl FnMut(&[u8]),
) -> Result<(), Error> {
    frames.send(&request(Operation::Get(filter)))?;
    read_reply(frames, |_, reply, _| {
        if let Reply::Text(text) = reply {
            each(text);
        }
    })
}

/// Our history, read as a whole.
///
/// # Errors
/// If it cannot be started.
pub fn read_history(lab: &Lab, _: Clients) -> Result<Box<dyn Contestant>, Error> {
    let dir = lab.dir()?;
    let bytes = write_history(&dir.path().join("history.txt"))?;
    let process = start(dir.path(), &[])?;
    let addr = process.addr();
    let round = move || {
        let mut text_bytes = 0;
        let mut frames = Frames::new(connect(addr)?);
        let begun = Instant::now();
        get(&mut frames, Filter::ALL, |text| {
            text_bytes += text.len() as u64;
        })?;
        let elapsed = begun.elapsed();
        if text_bytes < bytes {
            return Err(Wrong::new("all lines", text_bytes.to_string().as_bytes()).into());
        }
        // The numbers that the server puts in front of the lines do not count.
        Ok(Sample::transfer(bytes, elapsed))
    };
    Ok(rounds(Some(process), dir, round))
}

/// `nc`, sending the same file. It serves one connection, so each round starts it anew.
///
/// # Errors
/// If the file cannot be written.
pub fn nc(lab: &Lab, _: Clients) -> Result<Box<dyn Contestant>, Error> {
    let dir = lab.dir()?;
    let path = dir.path().to_owned();
    let bytes = write_history(&path.join("history.txt"))?;
    let round = move || {
        let file = File::open(path.join("history.txt")).map_err(Error::io("history.txt"))?;
        let args = ["-l", "-N", "127.0.0.1", "PORT"];
        let mut nc = Process::spawn("nc", &args, &path, free_addr()?, file.into())?;
        let mut stream = nc.connect()?;
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
        match got == bytes {
            true => Ok(Sample::transfer(bytes, elapsed)),
            false => Err(Wrong::new("the whole file", got.to_string().as_bytes()).into()),
        }
    };
    Ok(rounds(None, dir, round))
}

/// Checks that all rare lines were found. Those that asked for them may be more.
fn check_found(text: &[u8], bytes: u64, begun: Instant) -> Result<Sample, Error> {
    let elapsed = begun.elapsed();
    let found = text.split(|byte| *byte == b'\n');
    let found = found.filter(|line| line.ends_with(RARE.as_bytes()));
    // A line has less than 100 bytes.
    match found.count() as u64 > bytes / 100 / RARE_LINES {
        true => Ok(Sample::transfer(bytes, elapsed)),
        false => Err(Wrong::new("all lines with the text", text).into()),
    }
}

/// Our history, searched for a text that few lines contain.
///
/// # Errors
/// If it cannot be started.
pub fn find(lab: &Lab, _: Clients) -> Result<Box<dyn Contestant>, Error> {
    let dir = lab.dir()?;
    let bytes = write_history(&dir.path().join("history.txt"))?;
    let process = start(dir.path(), &[])?;
    let addr = process.addr();
    let filter = Filter {
        contains: RARE,
        ..Filter::ALL
    };
    let round = move || {
        let mut found = Vec::new();
        let begun = Instant::now();
        let mut frames = Frames::new(connect(addr)?);
        get(&mut frames, filter, |text| found.extend_from_slice(text))?;
        check_found(&found, bytes, begun)
    };
    Ok(rounds(Some(process), dir, round))
}

/// `grep`, searching the same file.
///
/// # Errors
/// If the file cannot be written.
pub fn grep(lab: &Lab, _: Clients) -> Result<Box<dyn Contestant>, Error> {
    const ARGS: &[&str] = &["LC_ALL=C", "grep", "-F", RARE, "history.txt"];
    let dir = lab.dir()?;
    let path = dir.path().to_owned();
    let bytes = write_history(&path.join("history.txt"))?;
    let round = move || {
        let addr = free_addr()?;
        let begun = Instant::now();
        Process::spawn("env", ARGS, &path, addr, Stdio::null())?.wait()?;
        let found = fs::read(path.join("log")).map_err(Error::io("the output of grep"))?;
        check_found(&found, bytes, begun)
    };
    Ok(rounds(None, dir, round))
}
