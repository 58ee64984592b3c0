//! Large files, down and up. A megabyte is an operation.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use proto::http::request::put_head;
use proto::http::{Body, ResponseHead};

use crate::contestant::{Clients, Contestant, Lab, Sample, rounds};
use crate::conversation::Wrong;
use crate::error::Error;
use crate::frames::connect;
use crate::process::{Process, free_addr};
use crate::web::{Web, request, start_web};

/// How much is written and read at once, in bytes.
const MEGABYTE_BYTES: usize = 1_000_000;

fn write_megabytes(out: &mut impl Write, megabytes: u64) -> io::Result<()> {
    let megabyte: Vec<u8> = (0..=250).cycle().take(MEGABYTE_BYTES).collect();
    (0..megabytes).try_for_each(|_| out.write_all(&megabyte))
}

/// Makes a large file on the disk.
fn store(path: &Path, megabytes: u64) -> Result<(), Error> {
    let stored = File::create(path).and_then(|mut file| {
        write_megabytes(&mut file, megabytes)?;
        // Or it would be written out while others are measured.
        file.sync_all()
    });
    stored.map_err(Error::io("write the large file"))
}

/// Checks the length of a copy, and removes it.
fn check_copy(path: &Path, bytes: u64) -> Result<(), Error> {
    let failed = || Error::io("look at what was stored");
    let length = fs::metadata(path).map_err(failed())?.len();
    if length != bytes {
        return Err(Wrong::new("the whole file", length.to_string().as_bytes()).into());
    }
    fs::remove_file(path).map_err(failed())
}

/// A web server that is asked for a large file.
///
/// # Errors
/// If it is not installed.
pub fn download(lab: &Lab, web: Web) -> Result<Box<dyn Contestant>, Error> {
    fetch(lab, web, "/file.bin")
}

/// Our file server, asked for the folder of a large file as a zip.
///
/// # Errors
/// If it cannot be started.
pub fn archive(lab: &Lab) -> Result<Box<dyn Contestant>, Error> {
    fetch(lab, Web::Ours, "/?zip")
}

/// A web server with a large file, asked for that file or what holds it.
fn fetch(lab: &Lab, web: Web, path: &str) -> Result<Box<dyn Contestant>, Error> {
    let dir = lab.dir()?;
    let (process, target) = start_web(web, dir.path())?;
    let megabytes = lab.scale.file_megabytes;
    store(&dir.path().join("root/file.bin"), megabytes)?;
    let bytes = megabytes * MEGABYTE_BYTES as u64;
    let get = request(target.addr, "GET", path, "");
    let mut piece = vec![0; MEGABYTE_BYTES];
    let round = move || {
        let begun = Instant::now();
        let mut stream = target.connect()?;
        stream.write_all(&get).map_err(Error::io("send"))?;
        let mut input = BufReader::new(stream);
        let head = ResponseHead::read(&mut input, "GET");
        let length = match &head {
            Ok(head) if head.status == 200 => head.body,
            Ok(_) | Err(_) => return Err(Wrong::new("200", format!("{head:?}").as_bytes()).into()),
        };
        let mut body = Body::new(input, length);
        let mut got = 0;
        loop {
            match body.read(&mut piece).map_err(Error::io("read"))? {
                0 => break,
                read => got += read as u64,
            }
        }
        // A zip has some more around it.
        if !(bytes..bytes + MEGABYTE_BYTES as u64).contains(&got) {
            return Err(Wrong::new("the whole file", got.to_string().as_bytes()).into());
        }
        Ok(Sample::transfer(bytes, begun.elapsed()))
    };
    Ok(rounds(Some(process), dir, round))
}

/// Our file server, given a large file.
///
/// # Errors
/// If it cannot be started.
pub fn upload(lab: &Lab, _: Clients) -> Result<Box<dyn Contestant>, Error> {
    let dir = lab.dir()?;
    let (process, _) = start_web(Web::Ours, dir.path())?;
    let stored = dir.path().join("root/file.bin");
    let megabytes = lab.scale.file_megabytes;
    let (addr, bytes) = (process.addr(), megabytes * MEGABYTE_BYTES as u64);
    let length = bytes.to_string();
    let fields = [("Content-Length", length.as_str())];
    let mut head = Vec::new();
    put_head(&mut head, "PUT", "/file.bin", &addr.to_string(), &fields);
    let round = move || {
        let begun = Instant::now();
        let mut stream = connect(addr)?;
        let sent = stream.write_all(&head);
        let sent = sent.and_then(|()| write_megabytes(&mut stream, megabytes));
        sent.map_err(Error::io("send"))?;
        let reply = ResponseHead::read(&mut BufReader::new(stream), "PUT");
        let elapsed = begun.elapsed();
        if !matches!(&reply, Ok(head) if matches!(head.status, 200 | 201)) {
            return Err(Wrong::new("200 or 201", format!("{reply:?}").as_bytes()).into());
        }
        check_copy(&stored, bytes)?;
        Ok(Sample::transfer(bytes, elapsed))
    };
    Ok(rounds(Some(process), dir, round))
}

/// `dd`, writing as many bytes to the same disk.
///
/// # Errors
/// If the file to copy cannot be written.
pub fn dd(lab: &Lab, _: Clients) -> Result<Box<dyn Contestant>, Error> {
    const ARGS: &[&str] = &["if=source", "of=copy", "bs=1M", "conv=fsync"];
    let dir = lab.dir()?;
    let path = dir.path().to_owned();
    let megabytes = lab.scale.file_megabytes;
    store(&path.join("source"), megabytes)?;
    let bytes = megabytes * MEGABYTE_BYTES as u64;
    let round = move || {
        let addr = free_addr()?;
        let begun = Instant::now();
        Process::spawn("dd", ARGS, &path, addr, Stdio::null())?.wait()?;
        let elapsed = begun.elapsed();
        check_copy(&path.join("copy"), bytes)?;
        Ok(Sample::transfer(bytes, elapsed))
    };
    Ok(rounds(None, dir, round))
}
